/** The trail as a row of thumbnails and texts that can be walked back, taken back step by step, and shared. */

import { showPicture } from "./api.js";
import { byId, el, icon } from "./dom.js";
import { spot } from "./reading.js";
import { referencesOf } from "./trail.js";
import { word } from "./words.js";

/** @import { Trail } from "./types.js" */

export class Crumbs {
  /**
   * @param {(place: number) => void} press  called with the turn that was pressed
   * @param {() => void} undo  called when the last step is taken back
   */
  constructor(press, undo) {
    this.press = press;
    byId("undo").append(icon("undo"), el("span", { text: word("trail.undo") }));
    byId("undo").addEventListener("click", undo);
    byId("share").append(icon("link"), el("span", { text: word("share") }));
    byId("share").addEventListener("click", () => this.share());
  }

  /** @param {Trail} trail @param {(image: Blob) => string} addressOf  of an uploaded picture */
  show(trail, addressOf) {
    byId("share-note").replaceChildren();
    const last = trail.turns.length - 1;
    byId("undo").hidden = !last && !trail.turns[0].text;
    const crumbs = byId("crumbs");
    crumbs.replaceChildren(
      ...trail.turns.map((turn, place) => {
        const { item, image } = referencesOf(trail, place);
        // A picture stands once for all turns about it.
        const isNew = place === 0 || trail.turns[place - 1].picked !== "";
        const picture = isNew && (item || image) ? el("img", { alt: "" }) : null;
        if (picture && item) showPicture(picture, item, 96);
        else if (picture && image) picture.src = addressOf(image);
        const words = turn.text || word("results.alike");
        const step = el(
          "button",
          {
            type: "button",
            class: "crumb",
            "aria-current": place === last ? "step" : null,
            "aria-label": word(place === last ? "trail.turn.change" : "trail.turn", { n: place + 1, words }),
            on: { click: () => this.press(place) },
          },
          picture,
          el("span", { text: words }),
          place === last ? icon("pencil") : null,
        );
        return el("li", {}, step);
      }),
    );
    crumbs.scrollLeft = crumbs.scrollWidth;
    const uploaded = trail.upload !== null;
    const goesOn = trail.turns.some(({ picked }) => picked);
    this.caution = uploaded ? ` ${word(goesOn ? "share.upload.later" : "share.upload.first")}` : "";
    if (uploaded) byId("share-note").textContent = word("share.upload.note");
  }

  /** Strike out the words of a turn that no longer count because of later turns. @param {number} place @param {string[]} words */
  strike(place, words) {
    if (!words.length) return;
    const step = byId("crumbs").children[place].firstChild;
    const told = step.getAttribute("aria-label");
    step.setAttribute("aria-label", word("trail.taken_back", { told, words: words.join(", ") }));
    const text = step.querySelector("span");
    /** @type {string[]} */
    const parts = text.textContent.split(new RegExp(`(${words.map(spot).join("|")})`, "giu"));
    text.replaceChildren(...parts.map((part, at) => (at % 2 ? el("s", { text: part }) : part)));
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
