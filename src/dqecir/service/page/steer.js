/** Small pictures of items that can be taken away again: further references, "more of", and "not". */

import { showPicture } from "./api.js";
import { byId, el, icon } from "./dom.js";
import { word } from "./words.js";

/** @import { Turn } from "./types.js" */

/**
 * A row of items, each of which a press takes away.
 * @param {string} words  what they are
 * @param {string[]} ids
 * @param {(id: string) => string} named  what a screen reader says of the button of an item
 * @param {(id: string) => void} drop
 */
export function rowOf(words, ids, named, drop) {
  const tiles = ids.map((id) => {
    const picture = el("img", { alt: "" });
    showPicture(picture, id, 96);
    return el(
      "button",
      { type: "button", class: "liked", "aria-label": named(id), on: { click: () => drop(id) } },
      picture,
      icon("close"),
    );
  });
  return el(
    "div",
    { class: "steered", role: "group", "aria-label": words },
    el("span", { class: "eyebrow", text: words }),
    ...tiles,
  );
}

/**
 * Show which answers a person wants more of, and which not.
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
      const drop = (/** @type {string} */ id) => {
        change({ [kind]: turn[kind].filter((other) => other !== id) });
        /** @type {HTMLElement} */ (byId("steer").querySelector("button") ?? byId("text")).focus();
      };
      return rowOf(words, turn[kind], (id) => word("steer.take_back", { words, name: name(id) }), drop);
    });
  byId("steer").replaceChildren(...rows);
  byId("steer").hidden = !rows.length;
}
