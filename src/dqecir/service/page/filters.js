/** Filters: boxes and ranges of the index's attributes, written as a `where` expression, or one typed by hand. */

import { byId, debounced, el, readable } from "./dom.js";

/** @import { Attribute } from "./types.js" */

/**
 * What boxes and ranges say of each attribute.
 * @typedef {Object<string, {values?: string[], least?: string, most?: string}>} Chosen
 */

const BARE = /^[^\s{}()<>=!,"']+$/;
const WORDS = new Set(["and", "or", "not", "in"]);
const QUIET_MS = 400;

/** @param {string} value */
function quoted(value) {
  if (BARE.test(value) && !WORDS.has(value)) return value;
  return value.includes('"') ? `'${value}'` : `"${value}"`;
}

/** @param {Chosen} chosen @returns {string} a `where` expression, empty where all may be found */
export function expression(chosen) {
  const parts = [];
  for (const [name, { values = [], least = "", most = "" }] of Object.entries(chosen)) {
    if (values.length === 1) parts.push(`${quoted(name)} = ${quoted(values[0])}`);
    if (values.length > 1) parts.push(`${quoted(name)} in {${values.map(quoted).join(", ")}}`);
    if (least !== "") parts.push(`${quoted(name)} >= ${least}`);
    if (most !== "") parts.push(`${quoted(name)} <= ${most}`);
  }
  return parts.join(" and ");
}

const NAME = /(?:"([^"]*)"|'([^']*)'|([^\s{}()<>=!,"']+))/y;

/** Read what `expression` writes; null for an expression that boxes cannot show. @param {string} where @returns {Chosen | null} */
export function chosenIn(where) {
  /** @type {Chosen} */
  const chosen = {};
  let place = 0;
  const sign = (/** @type {RegExp} */ wanted) => {
    wanted.lastIndex = place;
    const found = wanted.exec(where);
    if (found) place = wanted.lastIndex;
    return found;
  };
  const value = () => {
    sign(/\s*/y);
    const found = sign(NAME);
    return found ? (found[1] ?? found[2] ?? found[3]) : null;
  };
  while (where.slice(place).trim()) {
    if (Object.keys(chosen).length && !sign(/\s*and\s/y)) return null;
    const name = value();
    const order = sign(/\s*(>=|<=|=|in\s*\{)/y)?.[1];
    if (name === null || !order || WORDS.has(name)) return null;
    const entry = (chosen[name] ??= {});
    if (order.startsWith("in")) {
      const values = [];
      do {
        const one = value();
        if (one === null) return null;
        values.push(one);
      } while (sign(/\s*,/y));
      if (!sign(/\s*\}/y)) return null;
      entry.values = values;
    } else {
      const one = value();
      if (one === null) return null;
      if (order === "=") entry.values = [one];
      else entry[order === ">=" ? "least" : "most"] = one;
    }
  }
  return chosen;
}

export class Filters {
  /**
   * @param {Object<string, Attribute>} attributes
   * @param {(where: string) => void} change  called with the expression when a person changed it
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
      this.change(this.typed.value.trim());
    });
    byId("clear-filters").addEventListener("click", () => this.change(""));
  }

  /** Show an expression. @param {string} where */
  show(where) {
    const chosen = chosenIn(where);
    this.typed.value = where;
    byId("where-note").hidden = chosen !== null;
    for (const box of this.groups.querySelectorAll("input[type=checkbox]"))
      box.checked = chosen?.[box.name]?.values?.includes(box.value) ?? false;
    for (const field of this.groups.querySelectorAll("input[type=number]"))
      if (field !== document.activeElement) field.value = chosen?.[field.name]?.[field.dataset.end] ?? "";
    for (const field of this.groups.querySelectorAll("input[type=text]"))
      if (field !== document.activeElement) field.value = chosen?.[field.name]?.values?.join(", ") ?? "";
    for (const group of this.groups.children) {
      const ticked = [...group.querySelectorAll("input:checked")].map((box) => box.value);
      const filled = [...group.querySelectorAll("input[type=number], input[type=text]")].some((field) => field.value !== "");
      group.querySelector(".chosen").textContent = ticked.join(", ") || (filled ? "set" : "");
    }
    const parts = chosen === null ? 1 : Object.keys(chosen).length;
    this.count.textContent = parts ? String(parts) : "";
    this.count.hidden = !parts;
    byId("clear-filters").hidden = !where;
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
    /** @type {Chosen} */
    const chosen = {};
    for (const box of this.groups.querySelectorAll("input:checked")) ((chosen[box.name] ??= {}).values ??= []).push(box.value);
    for (const field of this.groups.querySelectorAll("input[type=number]"))
      if (field.value !== "") (chosen[field.name] ??= {})[/** @type {"least"} */ (field.dataset.end)] = field.value;
    for (const field of this.groups.querySelectorAll("input[type=text]"))
      if (field.value.trim()) (chosen[field.name] ??= {}).values = [field.value.trim()];
    this.change(expression(chosen));
  }
}
