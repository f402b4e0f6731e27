/** Why an answer was found: where the query looked, one answer at a time, and what fits in words. */

import { explanation } from "./api.js";
import { byId, el, icon } from "./dom.js";
import { lay } from "./heat.js";
import { say } from "./notices.js";
import { forgetReason, tellReason } from "./results.js";
import { word } from "./words.js";

/** @import { Pane } from "./results.js" */

export class Looking {
  /**
   * @param {(pane: Pane) => {request: {item: string | null}, image: Blob | null}} question
   * @param {(error: unknown) => void} failed
   */
  constructor(question, failed) {
    this.question = question;
    this.failed = failed;
    this.asked = new AbortController();
    /** @type {HTMLElement | null} */
    this.card = null;
    this.reference = byId("look-reference");
    this.reference.append(icon("eye"), el("span", { text: word("why.these") }));
  }

  /** Take the maps away; they belong to an earlier answer. */
  forget() {
    this.asked.abort();
    if (this.card) {
      lay(/** @type {Element} */ (this.card.querySelector(".frame")), null);
      forgetReason(this.card);
    }
    this.card = null;
    lay(byId("reference-frame"), null);
    this.reference.setAttribute("aria-pressed", "false");
  }

  /** @param {HTMLElement} card @param {Pane} pane */
  async toggle(card, pane) {
    const again = this.card === card;
    this.forget();
    if (again) {
      say(word("status.heat_hidden"));
      return;
    }
    this.card = card;
    this.asked = new AbortController();
    const { signal } = this.asked;
    tellReason(
      card,
      pane.response?.answers.find(({ id }) => id === card.dataset.id),
    );
    const { request, image } = this.question(pane);
    if (request.item === null && image === null) return; // a text alone looks at no picture
    this.reference.setAttribute("aria-pressed", "true");
    try {
      const maps = await explanation({ ...request, target: card.dataset.id }, image, signal);
      if (signal.aborted) return;
      lay(/** @type {Element} */ (card.querySelector(".frame")), maps.target);
      lay(byId("reference-frame"), maps.reference);
      say(word("status.heat_shown"));
    } catch (error) {
      if (signal.aborted) return;
      this.forget();
      this.failed(error);
    }
  }
}
