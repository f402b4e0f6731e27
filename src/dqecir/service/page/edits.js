/** A drawn picture that follows the text, shown beside the best that was found. */

import { edit, Problem, showPicture } from "./api.js";
import { byId, describe, el } from "./dom.js";

/** @import { About, Answer } from "./types.js" */

/**
 * What an edit starts from.
 * @typedef {{request: {item: string | null, text: string}, image: Blob | null, best: Answer | null}} Subject
 */

export class Edits {
  /** @param {About} about @param {() => Subject} subject */
  constructor(about, subject) {
    this.about = about;
    this.subject = subject;
    this.asked = new AbortController();
    this.note = byId("edit-note");
    byId("edit").addEventListener("click", () => this.draw());
  }

  /** What was drawn belongs to an earlier question. */
  forget() {
    this.asked.abort();
    this.note.textContent = "";
    byId("edited").hidden = true;
    byId("edited").replaceChildren();
  }

  async draw() {
    this.forget();
    const { request, image, best } = this.subject();
    if (!this.about.can_edit) {
      this.note.textContent = this.about.edit_note || "This service was started without a model that draws.";
      return;
    }
    if (!request.text) {
      this.note.textContent = "Say first what should change.";
      byId("text").focus();
      return;
    }
    this.asked = new AbortController();
    const { signal } = this.asked;
    this.note.textContent = "Drawing; this can take a minute.";
    try {
      const made = await edit({ ...request, source: byId("edit-source").value }, image, signal);
      if (signal.aborted) return;
      this.note.textContent = "Drawn. It stands above the answers.";
      this.show(made.image, request.text, best);
    } catch (error) {
      if (signal.aborted) return;
      this.note.textContent = error instanceof Problem ? error.message : "The drawing failed.";
    }
  }

  /** @param {string} drawing @param {string} text @param {Answer | null} best */
  show(drawing, text, best) {
    const figure = (/** @type {HTMLImageElement} */ picture, /** @type {string} */ words) =>
      el("figure", {}, el("div", { class: "frame" }, picture), el("figcaption", { text: words }));
    const figures = [figure(el("img", { src: drawing, alt: `Drawn: ${text}` }), `Drawn: ${text}`)];
    if (best) {
      const picture = el("img", { alt: describe(best) });
      showPicture(picture, best.id, 512);
      figures.push(figure(picture, "Found: the best answer"));
    }
    byId("edited").replaceChildren(...figures);
    byId("edited").hidden = false;
  }
}
