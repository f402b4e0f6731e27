/** The field in which the change is typed, with suggestions (the combobox pattern of ARIA), and example changes. */

import { suggestions } from "./api.js";
import { byId, debounced, el } from "./dom.js";

const QUIET_MS = 90;
const LIMIT = 8;
const EXAMPLES = 6;

export class ChangeField {
  /** @param {() => void} submit  called when the field has the change to search for */
  constructor(submit) {
    this.submit = submit;
    this.field = byId("text");
    this.list = byId("suggestions");
    this.chips = byId("examples");
    /** @type {string | null} */
    this.item = null;
    this.active = -1;
    this.asked = new AbortController();
    this.shown = new AbortController();
    this.later = debounced(() => this.suggest(), QUIET_MS);
    this.field.addEventListener("input", this.later);
    this.field.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.pressed(event));
    this.field.addEventListener("blur", () => this.close());
    byId("ask").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      this.send(this.field.value);
    });
  }

  /** Take the text of a next turn, with examples for a reference of which nothing was said. @param {string | null} item @param {boolean} isFirst */
  show(item, isFirst) {
    this.item = item;
    this.field.value = "";
    this.close();
    this.examples(isFirst);
  }

  /** Put a text that was sent back into the field. @param {string} text */
  change(text) {
    this.field.value = text;
    this.field.focus();
    this.field.select();
  }

  /** @param {string} text */
  send(text) {
    this.close();
    this.field.value = text;
    this.submit();
  }

  async suggest() {
    this.asked.abort();
    this.asked = new AbortController();
    const { signal } = this.asked;
    try {
      const found = await suggestions(this.field.value, this.item, LIMIT, signal);
      if (!signal.aborted && document.activeElement === this.field) this.open(found);
    } catch {
      // Without suggestions the field is still a field; a search will say what is wrong.
      if (!signal.aborted) this.close();
    }
  }

  /** @param {boolean} wanted */
  async examples(wanted) {
    this.shown.abort();
    this.shown = new AbortController();
    const { signal } = this.shown;
    this.chips.hidden = !wanted;
    if (!wanted) return;
    try {
      const found = await suggestions("", this.item, EXAMPLES, signal);
      if (signal.aborted) return;
      const chips = found.map((example) =>
        el("button", { type: "button", class: "chip", text: example, on: { click: () => this.send(example) } }),
      );
      this.chips.replaceChildren(...chips);
      this.chips.hidden = !chips.length;
    } catch {
      if (!signal.aborted) this.chips.hidden = true;
    }
  }

  /** @param {string[]} found */
  open(found) {
    const typed = this.field.value.trimStart();
    const options = found
      .filter((text) => text !== typed)
      .map((text, place) => {
        const known = text.toLowerCase().startsWith(typed.toLowerCase()) ? typed.length : 0;
        const option = el(
          "li",
          { role: "option", id: `suggestion-${place}`, "aria-selected": "false" },
          ...(known ? [text.slice(0, known), el("strong", { text: text.slice(known) })] : [text]),
        );
        option.dataset.text = text;
        // On mousedown the field would lose its focus, and the list would close before the click.
        option.addEventListener("mousedown", (/** @type {Event} */ event) => event.preventDefault());
        option.addEventListener("click", () => this.send(text));
        return option;
      });
    this.list.replaceChildren(...options);
    this.active = -1;
    this.field.removeAttribute("aria-activedescendant");
    this.list.hidden = !options.length;
    this.field.setAttribute("aria-expanded", String(options.length > 0));
  }

  close() {
    // Suggestions that come late would lie over the results.
    this.later.cancel();
    this.asked.abort();
    this.open([]);
  }

  /** @param {KeyboardEvent} event */
  pressed(event) {
    const options = [...this.list.children];
    if (event.key === "Escape" && !this.list.hidden) {
      event.preventDefault();
      this.close();
    } else if (event.key === "ArrowDown" && this.list.hidden) {
      event.preventDefault();
      this.suggest();
    } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && options.length) {
      event.preventDefault();
      const step = event.key === "ArrowDown" ? 1 : -1;
      // One place more than there are options: the field itself stands between last and first.
      const places = options.length + 1;
      this.active = ((this.active + 1 + step + places) % places) - 1;
      this.mark(options);
    } else if (event.key === "Enter" && this.active >= 0) {
      event.preventDefault();
      this.send(options[this.active].dataset.text ?? "");
    } else if (event.key === "Tab" && this.active >= 0) {
      this.field.value = options[this.active].dataset.text ?? "";
    }
  }

  /** @param {Element[]} options */
  mark(options) {
    options.forEach((option, place) => option.setAttribute("aria-selected", String(place === this.active)));
    if (this.active < 0) this.field.removeAttribute("aria-activedescendant");
    else {
      this.field.setAttribute("aria-activedescendant", options[this.active].id);
      options[this.active].scrollIntoView({ block: "nearest" });
    }
  }
}
