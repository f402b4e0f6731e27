/** The trail as a row of thumbnails and texts that can be walked back, and shared. */

import { showPicture } from "./api.js";
import { byId, el, icon } from "./dom.js";
import { referenceOf } from "./trail.js";
import { word } from "./words.js";

/** @import { Trail } from "./types.js" */

export class Crumbs {
  /** @param {(place: number) => void} back  called with the turn to walk back to */
  constructor(back) {
    this.back = back;
    byId("share").append(icon("link"), el("span", { text: word("share") }));
    byId("share").addEventListener("click", () => this.share());
  }

  /** @param {Trail} trail @param {(image: Blob) => string} addressOf  of an uploaded picture */
  show(trail, addressOf) {
    byId("share-note").replaceChildren();
    const last = trail.turns.length - 1;
    byId("crumbs").replaceChildren(
      ...trail.turns.map((turn, place) => {
        const { item, image } = referenceOf(trail, place);
        const picture = el("img", { alt: "" });
        if (item) showPicture(picture, item, 96);
        else if (image) picture.src = addressOf(image);
        const words = turn.text || word("results.alike");
        const step = el(
          "button",
          {
            type: "button",
            class: "crumb",
            "aria-current": place === last ? "step" : null,
            "aria-label": word("trail.turn", { n: place + 1, words }),
            on: { click: () => place !== last && this.back(place) },
          },
          ...(item || image ? [picture] : []),
          el("span", { text: words }),
        );
        return el("li", {}, step);
      }),
    );
    const uploaded = trail.upload !== null;
    this.caution = uploaded ? ` ${word(last === 0 ? "share.upload.first" : "share.upload.later")}` : "";
    if (uploaded) byId("share-note").textContent = word("share.upload.note");
  }

  async share() {
    const note = byId("share-note");
    try {
      await navigator.clipboard.writeText(location.href);
      note.textContent = word("share.copied") + this.caution;
    } catch {
      // Browsers refuse the clipboard to pages that are not served safely; the address can be copied by hand.
      const field = el("input", {
        type: "text",
        readonly: true,
        value: location.href,
        "aria-label": word("share.field"),
      });
      note.replaceChildren(`${word("share.hand")}${this.caution} `, field);
      field.select();
    }
  }
}
