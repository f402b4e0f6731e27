/** The trail as a row of thumbnails and texts that can be walked back, and shared. */

import { showPicture } from "./api.js";
import { byId, el, icon } from "./dom.js";
import { referenceOf } from "./trail.js";

/** @import { Trail } from "./types.js" */

/** @param {(place: number) => void} back  called with the turn to walk back to */
export class Crumbs {
  constructor(back) {
    this.back = back;
    byId("share").append(icon("link"), el("span", { text: "Copy the address" }));
    byId("share").addEventListener("click", () => this.share());
  }

  /** @param {Trail} trail @param {(image: Blob) => string} addressOf  of an uploaded picture */
  show(trail, addressOf) {
    byId("share-note").replaceChildren();
    const last = trail.turns.length - 1;
    byId("crumbs").replaceChildren(...trail.turns.map((turn, place) => {
      const { item, image } = referenceOf(trail, place);
      const picture = el("img", { alt: "" });
      if (item) showPicture(picture, item, 96);
      else if (image) picture.src = addressOf(image);
      const words = turn.text || "looks alike";
      const step = el("button", {
        type: "button",
        class: "crumb",
        "aria-current": place === last ? "step" : null,
        "aria-label": `Turn ${place + 1}: ${words}`,
        on: { click: () => place !== last && this.back(place) },
      }, picture, el("span", { text: words }));
      return el("li", {}, step);
    }));
    const uploaded = trail.upload !== null;
    this.caution = uploaded ? " The picture that you uploaded is not in it: who opens it starts from the next turn." : "";
    if (uploaded && last === 0) this.caution = " The picture that you uploaded is not in it, so it can be opened in this tab alone.";
    if (uploaded) byId("share-note").textContent = "Your own picture is not part of the address.";
  }

  async share() {
    const note = byId("share-note");
    try {
      await navigator.clipboard.writeText(location.href);
      note.textContent = `Copied.${this.caution}`;
    } catch {
      // Browsers refuse the clipboard to pages that are not served safely; the address can be copied by hand.
      const field = el("input", { type: "text", readonly: true, value: location.href, "aria-label": "Address of this search" });
      note.replaceChildren(`Copy this address.${this.caution} `, field);
      field.select();
    }
  }
}
