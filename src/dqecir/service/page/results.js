/** The pictures that were found: cards with score, what spoke for each, and what can be done with it. */

import { showPicture } from "./api.js";
import { describe, el, icon, readable } from "./dom.js";

/** @import { Answer, SearchReply, Turn } from "./types.js" */

/**
 * What a person does with an answer.
 * @typedef {Object} Actions
 * @property {(id: string) => void} more
 * @property {(id: string) => void} less
 * @property {(id: string) => void} from
 * @property {(card: HTMLElement, pane: Pane) => void} look
 */

const SKELETONS = 12;
const NAMED = 2;
const TONES = 10;

/** Which colour stands for an attribute in every bar. @type {Map<string, number>} */
const tones = new Map();
/** @param {string} name */
const tone = (name) => {
  if (!tones.has(name)) tones.set(name, tones.size % TONES);
  return tones.get(name);
};
/** Attributes take their colours in this order, so that one keeps its own from visit to visit. @param {string[]} names */
export const settleTones = (names) => names.forEach(tone);

export class Pane {
  /** @param {string} method @param {string} title  shown when two panes stand side by side @param {Actions} actions */
  constructor(method, title, actions) {
    this.method = method;
    this.actions = actions;
    /** @type {Map<string, HTMLElement>} */
    this.cards = new Map();
    /** @type {SearchReply | null} */
    this.response = null;
    this.grid = el("ol", { class: "grid", "aria-label": title ? `Answers of ${title}` : "Answers" });
    this.note = el("p", { class: "hint", role: "status" });
    this.element = el("div", { class: "pane", "data-method": method },
      title ? el("h3", { text: title }) : null, this.note, this.grid);
  }

  /** New answers are on their way: the old ones stay, dimmed, or grey shapes hold their place. */
  expect() {
    this.grid.setAttribute("aria-busy", "true");
    if (this.cards.size) return;
    const shape = () => el("li", { class: "card skeleton", "aria-hidden": "true" }, el("div", { class: "frame" }), el("p"), el("p"));
    this.grid.replaceChildren(...Array.from({ length: SKELETONS }, shape));
  }

  /** This method cannot answer the question. @param {string} sentence */
  refuse(sentence) {
    this.settle();
    this.response = null;
    this.cards.clear();
    this.grid.replaceChildren();
    this.note.textContent = sentence;
  }

  /** Nothing more comes. */
  settle() {
    this.grid.removeAttribute("aria-busy");
    this.grid.querySelectorAll(".skeleton").forEach((shape) => shape.remove());
  }

  /** @param {SearchReply} response @param {Turn} turn */
  show(response, turn) {
    this.settle();
    this.note.textContent = "";
    this.response = response;
    const before = new Map([...this.cards].map(([id, card]) => [id, card.getBoundingClientRect()]));
    const focused = this.grid.contains(document.activeElement) ? /** @type {HTMLElement} */ (document.activeElement) : null;
    const cards = response.answers.map((answer, place) => {
      const card = this.cards.get(answer.id) ?? this.card(answer);
      this.fill(card, answer, place, turn);
      return card;
    });
    this.cards = new Map(cards.map((card) => [card.dataset.id ?? "", card]));
    this.grid.replaceChildren(...cards);
    // A moved element loses its focus.
    if (focused?.isConnected) focused.focus({ preventScroll: true });
    for (const card of cards) this.glide(card, before.get(card.dataset.id ?? ""));
  }

  /** @param {Answer} answer @returns {HTMLElement} */
  card(answer) {
    const { id } = answer;
    const what = describe(answer);
    const picture = el("img", { alt: what, loading: "lazy", decoding: "async" });
    showPicture(picture, id, 320);
    const press = (/** @type {string} */ name, /** @type {string} */ glyph, /** @type {string} */ short, /** @type {string} */ words, /** @type {() => void} */ act) =>
      el("button", { type: "button", class: `act ${name}`, title: words, "aria-label": `${words}: ${what}`, "aria-pressed": name === "less" ? null : "false", on: { click: act } }, icon(glyph), el("span", { text: short }));
    const frame = el("div", { class: "frame" }, picture, el("span", { class: "rank", "aria-hidden": "true" }),
      el("span", { class: "score" }), el("span", { class: "views", hidden: true }));
    // The picture is a large target for a finger or mouse; by keyboard the button below does the same.
    frame.addEventListener("click", () => this.actions.from(id));
    const card = el("li", { class: "card", "data-id": id }, frame,
      el("p", { class: "what", text: what }),
      el("div", { class: "bar", "aria-hidden": "true" }),
      el("p", { class: "spoke" }),
      el("div", { class: "actions" },
        el("button", { type: "button", class: "act from", "aria-label": `Search from here: ${what}`, on: { click: () => this.actions.from(id) } },
          el("span", { text: "Search from here" }), icon("arrow")),
        press("more", "plus", "More", "More like this", () => this.actions.more(id)),
        press("less", "minus", "Not this", "Not this", () => this.actions.less(id)),
        press("look", "eye", "Looked", "Where it looked", () => this.actions.look(card, this))));
    return card;
  }

  /** @param {HTMLElement} card @param {Answer} answer @param {number} place @param {Turn} turn */
  fill(card, answer, place, turn) {
    const part = (/** @type {string} */ name) => /** @type {HTMLElement} */ (card.querySelector(name));
    part(".rank").textContent = String(place + 1);
    part(".score").replaceChildren(el("span", { class: "unseen", text: "score " }), shownScore(answer.score));
    part(".score").title = "Score: higher is better";
    const further = answer.views?.length ?? 0;
    part(".views").hidden = !further;
    part(".views").textContent = further === 1 ? "1 more picture" : `${further} more pictures`;
    const spoke = answer.spoke.filter(({ share }) => share > 0.005);
    part(".spoke").replaceChildren(...spoke.slice(0, NAMED).map(({ attribute, share }) =>
      toned(attribute, el("span", { class: "swatch", "aria-hidden": "true" }), told({ attribute, share }), " ")));
    part(".spoke").title = spoke.length ? `What spoke for it: ${spoke.map(told).join(", ")}` : "";
    part(".bar").replaceChildren(...spoke.map(({ attribute, share }) => {
      const piece = toned(attribute);
      piece.style.flexGrow = String(share);
      return piece;
    }));
    part(".more").setAttribute("aria-pressed", String(turn.more.includes(answer.id)));
    part(".look").setAttribute("aria-pressed", "false");
    card.querySelector(".heat")?.remove();
  }

  /** Let a card travel from where it was. @param {HTMLElement} card @param {DOMRect | undefined} from */
  glide(card, from) {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    if (!from) {
      card.animate([{ opacity: 0 }, { opacity: 1 }], { duration: 160 });
      return;
    }
    const now = card.getBoundingClientRect();
    const [x, y] = [from.left - now.left, from.top - now.top];
    if (x || y) card.animate([{ transform: `translate(${x}px, ${y}px)` }, {}], { duration: 260, easing: "ease-out" });
  }
}

/** A span in an attribute's colour. @param {string} attribute @param {...(Node | string)} children */
function toned(attribute, ...children) {
  const made = el("span", {}, ...children);
  made.style.setProperty("--tone", `var(--tone-${tone(attribute)})`);
  return made;
}

/** @param {number} score */
const shownScore = (score) => score.toFixed(2).replace("-0.00", "0.00").replace("-", "−");

/** @param {{attribute: string, share: number}} spoke */
const told = ({ attribute, share }) => `${readable(attribute)} ${Math.round(100 * share)} %`;

/**
 * Mark in each pane which answers the other one found, too.
 * @param {Pane} one @param {Pane} other
 */
export function markShared(one, other) {
  for (const [pane, beside] of [[one, other], [other, one]])
    for (const card of pane.cards.values()) {
      const place = beside.response?.answers.findIndex(({ id }) => id === card.dataset.id) ?? -1;
      card.classList.toggle("alone", beside.response !== null && place < 0);
      const rank = /** @type {HTMLElement} */ (card.querySelector(".rank"));
      rank.dataset.beside = place < 0 ? "" : String(place + 1);
    }
}
