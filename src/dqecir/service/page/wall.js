/** The wall: items of the index, to start from without a picture of one's own. */

import { items, showPicture } from "./api.js";
import { el } from "./dom.js";
import { conditions } from "./filters.js";
import { describe } from "./product.js";
import { word } from "./words.js";

/** @import { Chosen, Item } from "./types.js" */

const PAGE = 48;

export class Wall {
  /** @param {(item: Item) => void} picked */
  constructor(picked) {
    this.picked = picked;
    this.grid = el("ol", { class: "grid wall", "aria-label": word("wall.label") });
    this.seed = 1 + Math.floor(Math.random() * 1e6);
    /** @type {string | null} */
    this.next = null;
    this.loaded = "";
  }

  shuffle() {
    this.seed += 1;
  }

  /** Load the wall for a filter, unless it stands already. @param {Chosen} filters @param {string} where @param {AbortSignal} signal */
  async load(filters, where, signal) {
    const wanted = JSON.stringify([filters, where, this.seed]);
    if (wanted === this.loaded) return;
    const found = await items(this.query(filters, where), signal);
    if (signal.aborted) return;
    this.loaded = wanted;
    this.next = found.next;
    this.grid.replaceChildren(...found.items.map((item) => this.tile(item)));
  }

  /** @param {Chosen} filters @param {string} where @param {AbortSignal} signal */
  async further(filters, where, signal) {
    const found = await items({ ...this.query(filters, where), after: this.next ?? "" }, signal);
    if (signal.aborted) return;
    this.next = found.next;
    const tiles = found.items.map((item) => this.tile(item));
    this.grid.append(...tiles);
    // The button that was pressed may be gone; what it brought is where reading goes on.
    tiles[0]?.querySelector("button").focus();
  }

  /** @param {Chosen} filters @param {string} where */
  query(filters, where) {
    return { limit: PAGE, seed: this.seed, filters: JSON.stringify(conditions(filters)), ...(where ? { where } : {}) };
  }

  /** @param {Item} item */
  tile(item) {
    const picture = el("img", { alt: "", loading: "lazy", decoding: "async" });
    showPicture(picture, item.id, 320);
    const start = el(
      "button",
      {
        type: "button",
        class: "frame",
        "aria-label": word("wall.start", { name: describe(item) }),
        title: describe(item),
        on: { click: () => this.picked(item) },
      },
      picture,
    );
    return el("li", { "data-id": item.id }, start);
  }
}
