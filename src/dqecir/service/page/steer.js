/** Which answers a person wants more of, and which not: small pictures that can be taken away again. */

import { showPicture } from "./api.js";
import { byId, el, icon } from "./dom.js";
import { word } from "./words.js";

/** @import { Turn } from "./types.js" */

/**
 * @param {Turn} turn
 * @param {(id: string) => string} name  what an item shows
 * @param {(change: Partial<Turn>) => void} change
 */
export function showSteering(turn, name, change) {
  const kinds = /** @type {const} */ (["more", "less"]);
  const rows = kinds
    .filter((kind) => turn[kind].length)
    .map((kind) => {
      const words = word(`steer.${kind}`);
      return el(
        "div",
        { class: "steered", role: "group", "aria-label": words },
        el("span", { class: "eyebrow", text: words }),
        ...turn[kind].map((id) => {
          const picture = el("img", { alt: "" });
          showPicture(picture, id, 96);
          const drop = () => {
            change({ [kind]: turn[kind].filter((other) => other !== id) });
            /** @type {HTMLElement} */ (byId("steer").querySelector("button") ?? byId("text")).focus();
          };
          return el(
            "button",
            {
              type: "button",
              class: "liked",
              "aria-label": word("steer.take_back", { words, name: name(id) }),
              on: { click: drop },
            },
            picture,
            icon("close"),
          );
        }),
      );
    });
  byId("steer").replaceChildren(...rows);
  byId("steer").hidden = !rows.length;
}
