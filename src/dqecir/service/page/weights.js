/** Sliders for what each attribute counts: the text decides, until a person does. */

import { byId, debounced, el } from "./dom.js";
import { readable } from "./product.js";
import { number, word } from "./words.js";

const QUIET_MS = 120;

/** @param {number} value */
const weight = (value) => number(value, { minimumFractionDigits: 2, maximumFractionDigits: 2 });

export class Weights {
  /**
   * @param {string[]} names
   * @param {number} heaviest  the largest weight that the service takes
   * @param {(weights: Object<string, number>) => void} change  called with the weights that a person chose
   */
  constructor(names, heaviest, change) {
    this.heaviest = heaviest;
    /** @type {Object<string, number>} */
    this.chosen = {};
    this.rows = new Map(names.map((name) => [name, this.row(name)]));
    this.later = debounced(() => change({ ...this.chosen }), QUIET_MS);
    this.reset = byId("reset-weights");
    this.reset.addEventListener("click", () => {
      change({});
      // The button hides itself, so the focus would be lost.
      this.rows.get(names[0])?.slider.focus();
    });
    byId("weight-rows").replaceChildren(...[...this.rows.values()].map((row) => row.element));
    byId("weights").hidden = names.length === 0;
  }

  /** Weights that the service takes: an address may hold any number. @param {Object<string, number>} weights */
  within(weights) {
    const inside = (/** @type {number} */ weight) => Math.min(this.heaviest, Math.max(0, weight));
    return Object.fromEntries(Object.entries(weights).map(([name, weight]) => [name, inside(weight)]));
  }

  /** Show what a turn chose. @param {Object<string, number>} weights */
  show(weights) {
    this.chosen = this.within(weights);
    this.reset.hidden = Object.keys(weights).length === 0;
    for (const [name, row] of this.rows) this.paint(name, row);
  }

  /** Show what the text decided. @param {Object<string, number>} own */
  showOwn(own) {
    for (const [name, row] of this.rows) {
      row.own = own[name] ?? null;
      this.paint(name, row);
    }
  }

  /** @param {string} name */
  row(name) {
    const slider = el("input", { type: "range", min: 0, max: this.heaviest, step: 0.05, id: `weight-${name}` });
    const value = el("output", { for: `weight-${name}` });
    const own = el("span", { class: "own" });
    const mark = el("span", { class: "mark", "aria-hidden": "true" });
    const element = el(
      "div",
      { class: "weight" },
      el("label", { for: `weight-${name}` }, readable(name)),
      own,
      value,
      el("div", { class: "slide" }, mark, slider),
    );
    slider.addEventListener("input", () => {
      this.chosen[name] = Number(slider.value);
      this.reset.hidden = false;
      this.paint(name, row);
      this.later();
    });
    const row = { element, slider, value, own: /** @type {number | null} */ (null), ownText: own, mark };
    return row;
  }

  /** @param {string} name @param {any} row */
  paint(name, row) {
    const mine = name in this.chosen;
    const shown = mine ? this.chosen[name] : row.own;
    row.element.classList.toggle("mine", mine);
    if (document.activeElement !== row.slider || !mine) row.slider.value = String(shown ?? 1);
    row.slider.style.setProperty("--part", String(Math.min(Number(row.slider.value), this.heaviest) / this.heaviest));
    row.value.textContent = shown === null ? "–" : weight(shown);
    row.ownText.textContent =
      row.own === null ? "" : word(mine ? "weights.text_says" : "weights.as_text", { weight: weight(row.own) });
    row.slider.setAttribute(
      "aria-valuetext",
      `${row.value.textContent}, ${row.ownText.textContent || word("weights.none")}`,
    );
    row.mark.hidden = row.own === null || !mine;
    row.mark.style.setProperty("--part", String(Math.min(row.own ?? 0, this.heaviest) / this.heaviest));
  }
}
