/** Filters: boxes and ranges of the index's attributes, sent as conditions, and an expression typed by hand. */

import { byId, debounced, el, readable } from "./dom.js";

/** @import { Attribute, Chosen, Condition } from "./types.js" */

const QUIET_MS = 400;

/** The conditions of a search. @param {Chosen} chosen */
export const conditions = (chosen) => Object.entries(chosen).map(([attribute, one]) => ({ attribute, ...one }));

/** What boxes and ranges say, for a person. @param {Chosen} chosen */
export const inWords = (chosen) =>
  Object.entries(chosen).map(([name, { values = [], least, most }]) =>
    [readable(name), values.join(" or "), least === undefined ? "" : `from ${least}`, most === undefined ? "" : `up to ${most}`].filter(Boolean).join(" "));

/** Only what has the form of conditions is taken from an address. @param {any} raw @returns {Chosen} */
export function cleanedFilters(raw) {
  /** @type {[string, Condition][]} */
  const chosen = [];
  for (const [name, one] of Object.entries(raw && typeof raw === "object" && !Array.isArray(raw) ? raw : {})) {
    const values = Array.isArray(one?.values) ? one.values.filter((/** @type {any} */ value) => typeof value === "string") : [];
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
    this.attributes = attributes;
    this.change = change;
    this.typed = byId("where");
    this.count = byId("filter-count");
    this.groups = byId("filter-groups");
    this.groups.replaceChildren(...Object.entries(attributes).map(([name, attribute]) => this.group(name, attribute)));
    byId("where-form").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      this.change({ where: this.typed.value.trim() });
    });
    byId("sold-out").addEventListener("change", () => this.change({ soldOut: byId("sold-out").checked }));
    byId("clear-filters").addEventListener("click", () => this.change({ filters: {}, where: "" }));
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
      if (field !== document.activeElement) field.value = of(field.name)[/** @type {"least"} */ (field.dataset.end)] ?? "";
    for (const field of this.groups.querySelectorAll("input[type=text]"))
      if (field !== document.activeElement) field.value = of(field.name).values?.join(", ") ?? "";
    for (const group of this.groups.children) {
      const ticked = [...group.querySelectorAll("input:checked")].map((box) => box.value);
      const filled = [...group.querySelectorAll("input[type=number], input[type=text]")].some((field) => field.value !== "");
      group.querySelector(".chosen").textContent = ticked.join(", ") || (filled ? "set" : "");
    }
    const parts = Object.keys(chosen).length + Number(where !== "");
    this.count.textContent = parts ? String(parts) : "";
    this.count.hidden = !parts;
    byId("clear-filters").hidden = !parts;
  }

  /** @param {string} name @param {Attribute} attribute */
  group(name, attribute) {
    const summary = el("summary", {}, el("span", { text: readable(name) }), el("span", { class: "chosen" }));
    const inner = attribute.numeric ? this.range(name) : attribute.values ? this.boxes(name, attribute.values) : this.words(name);
    return el("details", { class: "group", "data-attribute": name }, summary, inner);
  }

  /** @param {string} name @param {string[]} values */
  boxes(name, values) {
    const boxes = values.map((value) =>
      el("label", { class: "box" }, el("input", { type: "checkbox", name, value, on: { change: () => this.tell() } }),
        el("span", { text: value })));
    return el("fieldset", { class: "boxes" }, el("legend", { class: "unseen", text: readable(name) }), ...boxes);
  }

  /** One value, typed: there are too many to show. @param {string} name */
  words(name) {
    const later = debounced(() => this.tell(), QUIET_MS);
    return el("div", { class: "range" }, el("label", { class: "bound" }, el("span", { text: "is exactly" }),
      el("input", { type: "text", name, autocomplete: "off", "aria-label": `${readable(name)} is exactly`, on: { input: later } })));
  }

  /** @param {string} name */
  range(name) {
    const later = debounced(() => this.tell(), QUIET_MS);
    const field = (/** @type {string} */ end, /** @type {string} */ text) =>
      el("label", { class: "bound" }, el("span", { text }),
        el("input", { type: "number", step: "any", inputmode: "decimal", name, "data-end": end,
          "aria-label": `${readable(name)} ${text}`, on: { input: later } }));
    return el("div", { class: "range" }, field("least", "from"), field("most", "to"));
  }

  tell() {
    /** @type {Map<string, Condition>} */
    const chosen = new Map();
    const set = (/** @type {string} */ name, /** @type {Condition} */ part) => chosen.set(name, { ...chosen.get(name), ...part });
    for (const box of this.groups.querySelectorAll("input:checked")) set(box.name, { values: [...(chosen.get(box.name)?.values ?? []), box.value] });
    for (const field of this.groups.querySelectorAll("input[type=number]"))
      if (field.value !== "") set(field.name, { [field.dataset.end]: Number(field.value) });
    for (const field of this.groups.querySelectorAll("input[type=text]"))
      if (field.value.trim()) set(field.name, { values: [field.value.trim()] });
    this.change({ filters: Object.fromEntries(chosen) });
  }
}
