/** The products that were found: cards with picture, title, price and link, and what can be done with each. */

import { showPicture } from "./api.js";
import { el, icon } from "./dom.js";
import { amountOf, describe, detailList, isExpert, linked, nameOf, priceOf, readable } from "./product.js";
import { number, word } from "./words.js";

/** @import { Answer, SearchReply, Turn } from "./types.js" */

/**
 * What a person does with an answer.
 * @typedef {Object} Actions
 * @property {(id: string) => void} more
 * @property {(id: string) => void} less
 * @property {(id: string) => void} from
 * @property {(id: string) => void} also
 * @property {(answer: Answer) => void} zoom
 * @property {(card: HTMLElement, pane: Pane) => void} why
 */

const SKELETONS = 12;
const NAMED = 2;
const TONES = 10;
const REASONS = 3;
/** What the service calls the part of a score that belongs to no attribute. */
const WHOLE = "overall";

/** Which colour stands for an attribute in every bar. @type {Map<string, number>} */
const tones = new Map();
/** @param {string} name */
const tone = (name) => {
  if (!tones.has(name)) tones.set(name, tones.size % TONES);
  return tones.get(name);
};
/** Attributes take their colours in this order, so that one keeps its own from visit to visit. @param {string[]} names */
export const settleTones = (names) => names.forEach(tone);

/** The answers in the order that a person chose; products without a price come last. @param {Answer[]} answers @param {string} order */
function ordered(answers, order) {
  if (!order) return answers;
  const way = order === "cheap" ? 1 : -1;
  const amounts = new Map(answers.map((answer) => [answer, amountOf(answer)]));
  const amount = (/** @type {Answer} */ answer) => /** @type {number} */ (amounts.get(answer));
  return [...answers].sort(
    (one, other) =>
      Number(Number.isNaN(amount(one))) - Number(Number.isNaN(amount(other))) ||
      way * (amount(one) - amount(other)) ||
      0,
  );
}

export class Pane {
  /** @param {string} method @param {string} title  shown when two panes stand side by side @param {Actions} actions */
  constructor(method, title, actions) {
    this.method = method;
    this.actions = actions;
    /** @type {Map<string, HTMLElement>} */
    this.cards = new Map();
    /** @type {SearchReply | null} */
    this.response = null;
    this.ranked = title !== "" || isExpert();
    this.grid = el("ol", {
      class: "grid",
      "aria-label": title ? word("methods.results", { method: title }) : word("results.label"),
    });
    this.note = el("p", { class: "hint", role: "status" });
    this.element = el(
      "div",
      { class: "pane", "data-method": method },
      title ? el("h3", { text: title }) : null,
      this.note,
      this.grid,
    );
  }

  /** New answers are on their way: the old ones stay, dimmed, or grey shapes hold their place. */
  expect() {
    this.grid.setAttribute("aria-busy", "true");
    if (this.cards.size) return;
    const shape = () =>
      el("li", { class: "card skeleton", "aria-hidden": "true" }, el("div", { class: "frame" }), el("p"), el("p"));
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
    this.grid.querySelectorAll(".skeleton").forEach((/** @type {Element} */ shape) => shape.remove());
  }

  /** @param {SearchReply} response @param {Turn} turn */
  show(response, turn) {
    this.settle();
    this.note.textContent = "";
    this.response = response;
    const before = new Map([...this.cards].map(([id, card]) => [id, card.getBoundingClientRect()]));
    const focused = this.grid.contains(document.activeElement)
      ? /** @type {HTMLElement} */ (document.activeElement)
      : null;
    const ranks = new Map(response.answers.map(({ id }, place) => [id, place + 1]));
    const cards = ordered(response.answers, turn.order).map((answer) => {
      const card = this.cards.get(answer.id) ?? this.card(answer);
      this.fill(card, answer, ranks.get(answer.id) ?? 0, turn);
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
    const name = nameOf(answer);
    const picture = el("img", { alt: describe(answer), loading: "lazy", decoding: "async" });
    showPicture(picture, id, 320);
    const press = (
      /** @type {string} */ kind,
      /** @type {string} */ glyph,
      /** @type {boolean} */ stays,
      /** @type {() => void} */ act,
    ) =>
      el(
        "button",
        {
          type: "button",
          class: `act ${kind}`,
          "aria-label": word(`card.${kind}.of`, { name }),
          "aria-pressed": stays ? "false" : null,
          on: { click: act },
        },
        icon(glyph),
        el("span", { text: word(`card.${kind}`) }),
      );
    const zoom = el(
      "button",
      {
        type: "button",
        class: "frame",
        "aria-label": word("card.zoom.of", { name }),
        on: { click: () => this.actions.zoom(answer) },
      },
      picture,
    );
    // Beside the button, whose name does not have these texts.
    const shown = el(
      "div",
      { class: "shown" },
      zoom,
      el("span", { class: "rank", "aria-hidden": "true" }),
      el("span", { class: "score" }),
      el("span", { class: "views", hidden: true }),
    );
    const price = priceOf(answer);
    const facts = el("details", { class: "facts" }, el("summary", { text: word("card.details") }));
    facts.addEventListener("toggle", () => facts.children.length < 2 && facts.append(detailList(answer)), {
      once: true,
    });
    const card = el(
      "li",
      { class: "card", "data-id": id },
      shown,
      el("p", { class: "what", title: name }, linked(answer, name)),
      el(
        "p",
        { class: "price" },
        price,
        answer.sold_out ? el("span", { class: "gone", text: word("product.sold_out") }) : null,
      ),
      isExpert() ? el("p", { class: "id", text: id }) : null,
      isExpert() ? el("div", { class: "bar", "aria-hidden": "true" }) : null,
      isExpert() ? el("p", { class: "spoke" }) : null,
      el("p", { class: "reason", role: "status" }),
      el(
        "div",
        { class: "actions" },
        el(
          "div",
          {},
          press("again", "arrow", false, () => this.actions.from(id)),
          press("also", "join", false, () => this.actions.also(id)),
        ),
        el(
          "div",
          {},
          press("more", "plus", true, () => this.actions.more(id)),
          press("less", "minus", false, () => this.actions.less(id)),
          press("why", "eye", true, () => this.actions.why(card, this)),
        ),
      ),
      facts,
    );
    return card;
  }

  /** @param {HTMLElement} card @param {Answer} answer @param {number} rank @param {Turn} turn */
  fill(card, answer, rank, turn) {
    const part = (/** @type {string} */ name) => /** @type {HTMLElement} */ (card.querySelector(name));
    part(".rank").textContent = this.ranked ? String(rank) : "";
    const further = answer.views?.length ?? 0;
    part(".views").hidden = !further;
    part(".views").textContent = word("views", { n: further });
    if (isExpert()) this.fillExpert(part, answer);
    part(".more").setAttribute("aria-pressed", String(turn.more.includes(answer.id)));
    forgetReason(card);
    card.querySelector(".heat")?.remove();
  }

  /** What only makers want to see. @param {(name: string) => HTMLElement} part @param {Answer} answer */
  fillExpert(part, answer) {
    part(".score").textContent = word("expert.score", { score: shownScore(answer.score) });
    part(".score").title = word("expert.score.help");
    const spoke = spokeFor(answer);
    part(".spoke").replaceChildren(
      ...spoke
        .slice(0, NAMED)
        .map((one) => toned(one.attribute, el("span", { class: "swatch", "aria-hidden": "true" }), told(one), " ")),
    );
    part(".spoke").title = spoke.map(told).join(", ");
    part(".bar").replaceChildren(
      ...spoke.map(({ attribute, share }) => {
        const piece = toned(attribute);
        piece.style.flexGrow = String(share);
        return piece;
      }),
    );
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

/** @param {Answer} answer */
const spokeFor = (answer) => answer.spoke.filter(({ share }) => share > 0.005);

/** The attributes that a shopper is told of. @param {Answer} answer */
const mainReasons = (answer) =>
  answer.spoke
    .filter(({ attribute, share }) => attribute !== WHOLE && share > 0.05)
    .slice(0, REASONS)
    .map(({ attribute }) => readable(attribute));

/** Say in words why a product was found. @param {HTMLElement} card @param {Answer | undefined} answer */
export function tellReason(card, answer) {
  const parts = answer ? (isExpert() ? spokeFor(answer).map(told) : mainReasons(answer)) : [];
  const reason = /** @type {HTMLElement} */ (card.querySelector(".reason"));
  reason.textContent = parts.length ? word("why.told", { parts: parts.join(", ") }) : word("why.nothing");
  card.querySelector(".why")?.setAttribute("aria-pressed", "true");
}

/** @param {HTMLElement} card */
export function forgetReason(card) {
  /** @type {HTMLElement} */ (card.querySelector(".reason")).textContent = "";
  card.querySelector(".why")?.setAttribute("aria-pressed", "false");
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
const told = ({ attribute, share }) =>
  word("expert.share", { attribute: readable(attribute), share: number(Math.round(100 * share)) });

/**
 * Mark in each pane which answers the other one found, too.
 * @param {Pane} one @param {Pane} other
 */
export function markShared(one, other) {
  for (const [pane, beside] of [
    [one, other],
    [other, one],
  ])
    for (const card of pane.cards.values()) {
      const place = beside.response?.answers.findIndex(({ id }) => id === card.dataset.id) ?? -1;
      card.classList.toggle("alone", beside.response !== null && place < 0);
      const rank = /** @type {HTMLElement} */ (card.querySelector(".rank"));
      rank.dataset.beside = place < 0 ? "" : String(place + 1);
    }
}
