/** What embed.js brings onto a shop's page: a search within a shadow root, which neither styles nor scripts share. */

import * as api from "./api.js";
import { el } from "./dom.js";
import { describe, know, linked, linkOf, nameOf, priceOf } from "./product.js";
import { sentencesOf } from "./reading.js";
import { lightened } from "./upload.js";
import { speak, spoken, word } from "./words.js";

/** @import { Answer } from "./types.js" */

const RESULTS = 12;

/**
 * @param {HTMLElement} host  the element that shows the search
 * @param {DOMStringMap} settings  the data attributes of the script tag
 */
export async function embed(host, settings) {
  api.key.hold(settings.key ?? "");
  const [style] = await Promise.all([sheet(), speak(settings.language ? [settings.language] : navigator.languages)]);
  const root = host.attachShadow({ mode: "open" });
  root.adoptedStyleSheets = [style];
  const search = new EmbeddedSearch(root, Number(settings.results) || RESULTS);
  try {
    const about = await api.about();
    know({ ...about, expert: false, link_target: settings.target ?? "_self" });
    search.begin(about.limits.bytes, settings.item ?? null);
  } catch (error) {
    search.failed(error);
  }
}

/** The style, which a shop's rules for styles of its own page do not concern. */
async function sheet() {
  const made = new CSSStyleSheet();
  made.replaceSync(await (await fetch(new URL("embed.css", import.meta.url))).text());
  return made;
}

class EmbeddedSearch {
  /** @param {ShadowRoot} root @param {number} most  results that are shown */
  constructor(root, most) {
    this.most = most;
    this.bytes = Infinity;
    /** @type {Blob | null} */
    this.picture = null;
    /** @type {string | null} */
    this.item = null;
    this.asked = new AbortController();
    this.reference = el("img", { class: "reference", alt: "", hidden: true });
    this.text = el("input", {
      type: "search",
      "aria-label": word("ask.label"),
      placeholder: word("ask.placeholder"),
      autocomplete: "off",
      enterkeyhint: "search",
    });
    this.file = el("input", {
      type: "file",
      accept: "image/*",
      class: "unseen",
      id: "file",
      "aria-label": word("file.choose"),
      on: { change: () => this.choose() },
    });
    this.status = el("p", { class: "status", role: "status" });
    this.problem = el("p", { class: "problem", role: "alert" });
    this.reading = el("p", { class: "reading", role: "status" });
    this.grid = el("ul", { class: "grid", "aria-label": word("results.label") });
    const submitted = (/** @type {Event} */ event) => {
      event.preventDefault();
      this.search();
    };
    const form = el(
      "form",
      { role: "search", "aria-label": word("ask.region"), on: { submit: submitted } },
      this.reference,
      this.text,
      el("button", { type: "submit", class: "primary", text: word("search") }),
      this.file,
      el("label", { for: "file", class: "button", text: word("file.choose") }),
    );
    root.replaceChildren(
      el("section", { class: "dqecir", lang: spoken() }, form, this.problem, this.status, this.reading, this.grid),
    );
  }

  /** @param {number} bytes  that a picture may have @param {string | null} item  the product that the shop's page shows */
  begin(bytes, item) {
    this.bytes = bytes;
    if (item !== null) this.from(item, item);
  }

  async choose() {
    const [file] = this.file.files;
    if (!file) return;
    const { picture } = await lightened(file);
    if (picture.size > this.bytes) {
      this.problem.textContent = word("file.too_large", {
        size: Math.ceil(picture.size / 1e6),
        most: Math.floor(this.bytes / 1e6),
      });
      return;
    }
    [this.picture, this.item] = [picture, null];
    this.show(word("file.own"));
    this.reference.src = URL.createObjectURL(picture);
    this.search();
  }

  /** Search from a product. @param {string} id @param {string} name */
  from(id, name) {
    [this.picture, this.item] = [null, id];
    this.text.value = "";
    this.show(name);
    api.showPicture(this.reference, id, 160);
    this.search();
  }

  /** @param {string} name */
  show(name) {
    delete this.reference.dataset.address;
    this.reference.hidden = false;
    this.reference.alt = word("reference.alt", { name });
  }

  async search() {
    this.asked.abort();
    this.asked = new AbortController();
    const { signal } = this.asked;
    this.problem.textContent = "";
    this.grid.setAttribute("aria-busy", "true");
    const text = this.text.value.trim();
    const request = { ...(this.item === null ? {} : { item: this.item }), text, k: this.most, spoke: false };
    try {
      const reply = await api.search(request, this.picture, signal);
      if (signal.aborted) return;
      const { answers } = reply;
      this.reading.textContent = sentencesOf(reply, text).join(" ");
      this.grid.replaceChildren(...answers.map((answer) => this.card(answer)));
      const what = text ? word("results.of_text", { text }) : word("results.what_alike");
      this.status.textContent = answers.length ? word("results.count", { n: answers.length, what }) : word("nothing");
    } catch (error) {
      if (!signal.aborted) this.failed(error);
    } finally {
      if (!signal.aborted) this.grid.removeAttribute("aria-busy");
    }
  }

  /** @param {Answer} answer */
  card(answer) {
    const name = nameOf(answer);
    const picture = el("img", { alt: describe(answer), loading: "lazy", decoding: "async" });
    const shown = linkOf(answer) ? linked(answer, "", "frame") : el("div", { class: "frame" });
    shown.append(picture);
    api.showPicture(picture, answer.id, 320);
    return el(
      "li",
      {},
      shown,
      el("p", { class: "name", title: name }, linked(answer, name)),
      el(
        "p",
        { class: "price" },
        priceOf(answer),
        answer.sold_out ? el("span", { class: "gone", text: word("product.sold_out") }) : null,
      ),
      el("button", {
        type: "button",
        text: word("card.again"),
        "aria-label": word("card.again.of", { name }),
        on: { click: () => this.from(answer.id, name) },
      }),
    );
  }

  /** @param {unknown} error */
  failed(error) {
    if (!(error instanceof api.Problem)) throw error;
    this.problem.textContent = error.message;
    [this.status.textContent, this.reading.textContent] = ["", ""];
    this.grid.replaceChildren();
  }
}
