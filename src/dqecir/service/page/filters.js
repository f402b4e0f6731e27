/** Filters: boxes and ranges of the index's attributes, sent as conditions, and an expression typed by hand. */

import { byId, debounced, el } from "./dom.js";
import { isShown, readable } from "./product.js";
import { number, word } from "./words.js";

/** @import { Attribute, Chosen, Condition, Numbers } from "./types.js" */

const QUIET_MS = 400;

/** The conditions of a search. @param {Chosen} chosen */
export const conditions = (chosen) => Object.entries(chosen).map(([attribute, one]) => ({ attribute, ...one }));

/** What boxes and ranges say, for a person. @param {Chosen} chosen */
export const inWords = (chosen) =>
  Object.entries(chosen).map(([name, { values = [], least, most }]) =>
    [
      readable(name),
      values.join(word("filter.or")),
      least === undefined ? "" : word("filter.from_number", { number: least }),
      most === undefined ? "" : word("filter.to_number", { number: most }),
    ]
      .filter(Boolean)
      .join(" "),
  );

/** Only what has the form of conditions is taken from an address. @param {any} raw @returns {Chosen} */
export function cleanedFilters(raw) {
  /** @type {[string, Condition][]} */
  const chosen = [];
  for (const [name, one] of Object.entries(raw && typeof raw === "object" && !Array.isArray(raw) ? raw : {})) {
    const values = Array.isArray(one?.values)
      ? one.values.filter((/** @type {any} */ value) => typeof value === "string")
      : [];
    const entry = {
      ...(values.length ? { values } : {}),
      ...(Number.isFinite(one?.least) ? { least: one.least } : {}),
      ...(Number.isFinite(one?.most) ? { most: one.most } : {}),
    };
    if (Object.keys(entry).length) chosen.push([name, entry]);
  }
  return Object.fromEntries(chosen);
}

export class Filters {
  /**
   * @param {Object<string, Attribute>} attributes
   * @param {(change: {filters?: Chosen, where?: string, soldOut?: boolean}) => void} change  called with what a person changed
   */
  constructor(attributes, change) {
    this.change = change;
    this.typed = byId("where");
    this.count = byId("filter-count");
    this.groups = byId("filter-groups");
    this.furnish(attributes);
    byId("where-form").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      this.change({ where: this.typed.value.trim() });
    });
    byId("sold-out").addEventListener("change", () => this.change({ soldOut: byId("sold-out").checked }));
    byId("clear-filters").addEventListener("click", () => this.change({ filters: {}, where: "" }));
  }

  /** Offer the attributes of the index, as it is now. @param {Object<string, Attribute>} attributes */
  furnish(attributes) {
    const open = new Set(
      [...this.groups.children].filter((group) => group.open).map((group) => group.dataset.attribute),
    );
    const shown = Object.entries(attributes).filter(([name]) => isShown(name));
    this.groups.replaceChildren(...shown.map(([name, attribute]) => this.group(name, attribute)));
    for (const group of this.groups.children) group.open = open.has(group.dataset.attribute);
  }

  /** @param {Chosen} chosen @param {string} where @param {boolean} soldOut */
  show(chosen, where, soldOut) {
    byId("sold-out").checked = soldOut;
    this.typed.value = where;
    byId("where-note").hidden = !where;
    // An attribute may have the name of what every object has, such as "constructor".
    const of = (/** @type {string} */ name) => (Object.hasOwn(chosen, name) ? chosen[name] : {});
    for (const box of this.groups.querySelectorAll("input[type=checkbox]"))
      box.checked = of(box.name).values?.includes(box.value) ?? false;
    for (const field of this.groups.querySelectorAll("input[type=number]"))
      if (field !== document.activeElement)
        field.value = of(field.name)[/** @type {"least"} */ (field.dataset.end)] ?? "";
    for (const field of this.groups.querySelectorAll("input[type=text]"))
      if (field !== document.activeElement) field.value = of(field.name).values?.join(", ") ?? "";
    for (const group of this.groups.children) {
      const ticked = [...group.querySelectorAll("input:checked")].map((box) => box.value);
      const filled = [...group.querySelectorAll("input[type=number], input[type=text]")].some(
        (field) => field.value !== "",
      );
      const { least = -Infinity, most = Infinity } = of(group.dataset.attribute);
      for (const part of group.querySelectorAll(".histogram span"))
        part.classList.toggle("outside", Number(part.dataset.most) < least || Number(part.dataset.least) > most);
      group.querySelector(".chosen").textContent = ticked.join(", ") || (filled ? word("filter.set") : "");
    }
    const parts = Object.keys(chosen).length + Number(where !== "");
    this.count.textContent = parts ? String(parts) : "";
    this.count.hidden = !parts;
    byId("clear-filters").hidden = !parts;
  }

  /** @param {string} name @param {Attribute} attribute */
  group(name, attribute) {
    const summary = el("summary", {}, el("span", { text: readable(name) }), el("span", { class: "chosen" }));
    const inner = attribute.numbers
      ? this.range(name, attribute.numbers)
      : attribute.values
        ? this.boxes(name, attribute.values)
        : this.words(name);
    return el("details", { class: "group", "data-attribute": name }, summary, inner);
  }

  /** @param {string} name @param {string[]} values */
  boxes(name, values) {
    const boxes = values.map((value) =>
      el(
        "label",
        { class: "box" },
        el("input", { type: "checkbox", name, value, on: { change: () => this.tell() } }),
        el("span", { text: value }),
      ),
    );
    return el("fieldset", { class: "boxes" }, el("legend", { class: "unseen", text: readable(name) }), ...boxes);
  }

  /** One value, typed: there are too many to show. @param {string} name */
  words(name) {
    const later = debounced(() => this.tell(), QUIET_MS);
    return el(
      "div",
      { class: "range" },
      el(
        "label",
        { class: "bound" },
        el("span", { text: word("filter.exactly") }),
        el("input", {
          type: "text",
          name,
          autocomplete: "off",
          "aria-label": word("filter.number", { name: readable(name), end: word("filter.exactly") }),
          on: { input: later },
        }),
      ),
    );
  }

  /** Both ends of a range, under how many products lie where. @param {string} name @param {Numbers} numbers */
  range(name, { least, most, counts }) {
    const later = debounced(() => this.tell(), QUIET_MS);
    const field = (/** @type {string} */ end, /** @type {string} */ text, /** @type {number} */ extreme) =>
      el(
        "label",
        { class: "bound" },
        el("span", { text }),
        el("input", {
          type: "number",
          step: "any",
          inputmode: "decimal",
          name,
          "data-end": end,
          placeholder: String(extreme),
          "aria-label": word("filter.number", { name: readable(name), end: text }),
          on: { input: later },
        }),
      );
    const highest = Math.max(...counts, 1);
    const width = (most - least) / counts.length;
    const bars = counts.map((count, place) => {
      const bar = el("span", { "data-least": least + place * width, "data-most": least + (place + 1) * width });
      bar.style.height = `${count ? Math.max(6, (100 * count) / highest) : 0}%`;
      return bar;
    });
    const words = word("filter.histogram", { name: readable(name), least: number(least), most: number(most) });
    return el(
      "div",
      {},
      least < most ? el("div", { class: "histogram", role: "img", "aria-label": words, title: words }, ...bars) : null,
      el("div", { class: "range" }, field("least", word("filter.from"), least), field("most", word("filter.to"), most)),
    );
  }

  tell() {
    /** @type {Map<string, Condition>} */
    const chosen = new Map();
    const set = (/** @type {string} */ name, /** @type {Condition} */ part) =>
      chosen.set(name, { ...chosen.get(name), ...part });
    for (const box of this.groups.querySelectorAll("input:checked"))
      set(box.name, { values: [...(chosen.get(box.name)?.values ?? []), box.value] });
    for (const field of this.groups.querySelectorAll("input[type=number]"))
      if (field.value !== "") set(field.name, { [field.dataset.end]: Number(field.value) });
    for (const field of this.groups.querySelectorAll("input[type=text]"))
      if (field.value.trim()) set(field.name, { values: [field.value.trim()] });
    this.change({ filters: Object.fromEntries(chosen) });
  }
}
