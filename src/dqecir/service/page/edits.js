/** A drawn picture that follows the text, shown beside the best that was found. */

import { edit, Problem, showPicture } from "./api.js";
import { byId, el } from "./dom.js";
import { describe } from "./product.js";
import { word } from "./words.js";

/** @import { Answer } from "./types.js" */

/**
 * What an edit starts from.
 * @typedef {{request: {item: string | null, text: string}, image: Blob | null, best: Answer | null}} Subject
 */

export class Edits {
  /** @param {() => Subject} subject */
  constructor(subject) {
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
    if (!request.text) {
      this.note.textContent = word("edit.text_missing");
      byId("text").focus();
      return;
    }
    this.asked = new AbortController();
    const { signal } = this.asked;
    this.note.textContent = word("edit.waiting");
    try {
      const made = await edit({ ...request, source: byId("edit-source").value }, image, signal);
      if (signal.aborted) return;
      this.note.textContent = word("edit.done");
      this.show(made.image, request.text, best);
    } catch (error) {
      if (signal.aborted) return;
      this.note.textContent = error instanceof Problem ? error.message : word("edit.failed");
    }
  }

  /** @param {string} drawing @param {string} text @param {Answer | null} best */
  show(drawing, text, best) {
    const figure = (/** @type {HTMLImageElement} */ picture, /** @type {string} */ words) =>
      el("figure", {}, el("div", { class: "frame" }, picture), el("figcaption", { text: words }));
    const figures = [
      figure(el("img", { src: drawing, alt: word("edit.drawn", { text }) }), word("edit.drawn", { text })),
    ];
    if (best) {
      const picture = el("img", { alt: describe(best) });
      showPicture(picture, best.id, 512);
      figures.push(figure(picture, word("edit.found")));
    }
    byId("edited").replaceChildren(...figures);
    byId("edited").hidden = false;
  }
}
