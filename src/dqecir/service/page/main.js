/** The page: what is shown follows from the trail alone, and every action makes a new trail. */

import * as api from "./api.js";
import { Crumbs } from "./crumbs.js";
import { byId, describe, el, icon } from "./dom.js";
import { Edits } from "./edits.js";
import { conditions, Filters, inWords } from "./filters.js";
import { Looking } from "./looking.js";
import { askForKey, say, showProblem, clearProblem, Waiting } from "./notices.js";
import { forgetReading, showReading } from "./reading.js";
import { markShared, Pane, settleTones } from "./results.js";
import { showSteering } from "./steer.js";
import { ChangeField } from "./suggest.js";
import { changed, keepUpload, newTurn, pickedUp, present, read, referenceOf, walkedBack, written } from "./trail.js";
import { lightened, listen } from "./upload.js";
import { Wall } from "./wall.js";
import { Weights } from "./weights.js";

/** @import { About, Item, Trail, Turn } from "./types.js" */

const FIRST = 24;

class Page {
  /** @param {About} about @param {Waiting} waiting */
  constructor(about, waiting) {
    this.about = about;
    this.waiting = waiting;
    this.trail = read(location.hash);
    /** @type {Map<string, Item>} */
    this.seen = new Map();
    /** @type {Pane[]} */
    this.panes = [];
    /** @type {Map<Blob, string>} */
    this.addresses = new Map();
    this.count = FIRST;
    this.wall = new Wall((item) => this.start({ item: item.id }, item));
    this.field = new ChangeField((text) => this.turn({ text }));
    this.weights = new Weights(about.weights, about.limits.weight, (weights) => this.turn({ weights }, true));
    this.filters = new Filters(about.attributes, (change) => this.turn(change));
    this.crumbs = new Crumbs((/** @type {number} */ place) => this.go(walkedBack(this.trail, place)));
    this.looking = new Looking((pane) => this.question(pane), (error) => this.failed(error, null));
    this.edits = new Edits(about, () => {
      const { item, image } = referenceOf(this.trail, this.trail.turns.length - 1);
      const text = byId("text").value.trim();
      const best = this.panes[0]?.response?.answers[0] ?? null;
      return { request: { item, text }, image, best };
    });
    settleTones([...Object.keys(about.attributes), ...about.weights]);
    this.furnish();
    addEventListener("popstate", () => {
      this.trail = read(location.hash);
      this.show();
    });
  }

  /** Once: what the service's own description decides. */
  furnish() {
    const { about } = this;
    byId("stock").textContent = `${about.items.toLocaleString("en-GB")} ${about.pictures === undefined ? "pictures" : "products"}`;
    byId("text").maxLength = about.limits.text;
    byId("filters").hidden = !Object.keys(about.attributes).length;
    byId("sold-out-choice").hidden = !about.has_sold_out;
    byId("methods").hidden = about.methods.length < 2;
    const options = about.methods.map(({ name, title }) => el("option", { value: name, text: name, title }));
    byId("method").append(...options);
    byId("against").append(el("option", { value: "", text: "nothing" }), ...options.map((option) => option.cloneNode(true)));
    byId("method").addEventListener("change", () => this.turn({ method: byId("method").value }));
    byId("against").addEventListener("change", () => this.turn({ against: byId("against").value }));
    byId("shuffle").append(icon("shuffle"), el("span", { text: "Others" }));
    byId("shuffle").addEventListener("click", () => {
      this.wall.shuffle();
      this.showWall();
    });
    byId("further").addEventListener("click", () => this.further());
    byId("look-reference").addEventListener("click", () => {
      const [pane] = this.panes;
      const card = this.looking.card ?? pane?.cards.values().next().value;
      if (card) this.looking.toggle(card, this.panes.find((one) => one.element.contains(card)) ?? pane);
    });
  }

  /** Go on to another trail. @param {Trail} trail @param {boolean} [replace] */
  go(trail, replace = false) {
    this.trail = trail;
    const address = `#${written(trail)}`;
    if (replace) history.replaceState(null, "", address);
    else if (address !== (location.hash || "#")) history.pushState(null, "", address);
    this.show();
  }

  /** Change the present turn; words that were typed but not sent yet come along. @param {Partial<Turn>} change @param {boolean} [replace] */
  turn(change, replace = false) {
    const asking = !byId("ask").hidden;
    this.go(changed(this.trail, asking ? { text: byId("text").value.trim(), ...change } : change), replace);
  }

  /** Begin anew from a reference; the filter stays. @param {{item?: string, upload?: string}} reference @param {Item} [item] */
  start(reference, item) {
    if (item) this.seen.set(item.id, item);
    const { filters, where, soldOut, method, against } = present(this.trail);
    this.count = FIRST;
    this.go({ item: null, upload: null, ...reference, turns: [newTurn({ filters, where, soldOut, method, against })] });
    this.askNext();
  }

  /** @param {File} file */
  async upload(file) {
    const { bytes } = this.about.limits;
    const picture = await lightened(file);
    if (picture.size > bytes) {
      showProblem(`This file has ${Math.ceil(picture.size / 1e6)} MB; at most ${Math.floor(bytes / 1e6)} MB are taken.`);
      return;
    }
    this.start({ upload: keepUpload(picture) });
  }

  /** Scroll to the question and, where no keyboard would cover the page, put the cursor there. */
  askNext() {
    scrollTo({ top: 0 });
    (matchMedia("(pointer: fine)").matches ? byId("text") : byId("results")).focus({ preventScroll: true });
  }

  /** Show the trail as it is now. */
  show() {
    const place = this.trail.turns.length - 1;
    const turn = present(this.trail);
    const { item, image, lost } = referenceOf(this.trail, place);
    const searching = item !== null || image !== null;
    document.body.classList.toggle("searching", searching);
    for (const id of ["reference", "ask", "edits", "trail"]) byId(id).hidden = !searching;
    for (const id of ["welcome", "shuffle"]) byId(id).hidden = searching;
    byId("weights").hidden = !searching || !this.about.weights.length;
    byId("methods").hidden = !searching || this.about.methods.length < 2;
    byId("steer").hidden = true;
    byId("file-words").textContent = searching ? "Another picture" : "Choose a picture";
    this.filters.show(turn.filters, turn.where, turn.soldOut);
    this.looking.forget();
    this.edits.forget();
    if (!searching) {
      this.showWall(lost);
      return;
    }
    this.showReference(item, image);
    this.field.show(turn.text, item);
    this.weights.show(turn.weights);
    byId("method").value = turn.method || this.about.methods[0]?.name || "";
    byId("against").value = turn.against;
    showSteering(turn, (id) => this.name(id), (change) => this.turn(change));
    this.crumbs.show(this.trail, (picture) => this.addressOf(picture));
    this.search();
  }

  /** @param {string | null} item @param {Blob | null} image */
  showReference(item, image) {
    const picture = byId("reference-picture");
    byId("reference-frame").classList.remove("broken");
    if (image) {
      delete picture.dataset.address;
      picture.onerror = () => byId("reference-frame").classList.add("broken");
      picture.src = this.addressOf(image);
    } else if (item) api.showPicture(picture, item, 512);
    const name = item ? this.name(item) : "your own picture";
    picture.alt = `Reference: ${name}`;
    byId("reference-name").textContent = name;
    if (item && !this.seen.has(item))
      api.item(item).then((found) => {
        this.seen.set(item, found);
        if (byId("reference-name").textContent === item) byId("reference-name").textContent = describe(found);
      }, () => {}); // the search itself says what is wrong
  }

  /** @param {boolean} [lost] */
  async showWall(lost = false) {
    const { filters, where } = present(this.trail);
    const signal = this.waiting.begin();
    this.panes = [];
    byId("results").textContent = "Or start from one of these";
    byId("meta").textContent = "";
    forgetReading();
    if (lost)
      showProblem("This search began with a picture that was uploaded in another tab, and uploads are in no address. Choose the picture again, or start from one of these.");
    byId("panes").replaceChildren(this.wall.grid);
    try {
      await this.wall.load(filters, where, signal);
      if (signal.aborted) return;
      const none = !this.wall.grid.children.length;
      if (none) this.nothing([...inWords(filters), ...(where ? [where] : [])]);
      byId("further").hidden = this.wall.next === null;
    } catch (error) {
      if (!signal.aborted) this.failed(error, () => this.showWall());
    } finally {
      this.waiting.end(signal);
    }
  }

  /** What is asked of the service for a pane. @param {Pane} pane */
  question(pane) {
    const turn = present(this.trail);
    const { item, image } = referenceOf(this.trail, this.trail.turns.length - 1);
    const weights = Object.keys(turn.weights).length ? this.weights.within(turn.weights) : null;
    const request = { item, text: turn.text, k: this.count, filters: conditions(turn.filters), where: turn.where || null, sold_out: turn.soldOut, weights, more: turn.more, less: turn.less, method: pane.method || null };
    return { request, image };
  }

  async search() {
    const turn = present(this.trail);
    const signal = this.waiting.begin();
    const within = byId("panes").contains(document.activeElement);
    this.setPanes(turn);
    this.panes.forEach((pane) => pane.expect());
    byId("further").hidden = true;
    byId("results").textContent = turn.text ? `“${turn.text}”` : "Looks alike";
    try {
      await Promise.all(this.panes.map((pane, place) => this.ask(pane, place, turn, signal)));
      if (signal.aborted) return;
      this.conclude(turn);
      // What had the focus may have gone with an old answer.
      if (within && document.activeElement === document.body) byId("results").focus({ preventScroll: true });
    } catch (error) {
      if (!signal.aborted) this.failed(error, () => this.search());
    } finally {
      if (!signal.aborted) this.panes.forEach((pane) => pane.settle());
      this.waiting.end(signal);
    }
  }

  /** @param {Pane} pane @param {number} place @param {Turn} turn @param {AbortSignal} signal */
  async ask(pane, place, turn, signal) {
    const { request, image } = this.question(pane);
    let response;
    try {
      response = await api.search(request, image, signal);
    } catch (error) {
      // What the second method cannot do, the first is not kept from.
      if (signal.aborted || place === 0 || !(error instanceof api.Problem) || !["refused", "missing"].includes(error.kind)) throw error;
      pane.refuse(error.message);
      return;
    }
    if (signal.aborted) return;
    this.looking.forget();
    response.answers.forEach((answer) => this.seen.set(answer.id, answer));
    pane.show(response, turn);
    if (place === 0) this.weights.showOwn(response.own_weights);
  }

  /** All answers are there. @param {Turn} turn */
  conclude(turn) {
    const [first, second] = this.panes;
    if (second) markShared(first, second);
    const found = first.response?.answers.length ?? 0;
    if (first.response) showReading(first.response, turn.text, (text) => this.turn({ text }));
    const hidden = first.response?.sold_out_hidden ?? 0;
    byId("meta").textContent = [hidden ? `${hidden} sold out, not shown` : "", `${Math.round(first.response?.took_ms ?? 0)} ms`].filter(Boolean).join(" · ");
    byId("further").hidden = found < this.count || this.count >= this.about.limits.k;
    say(found ? `${found} pictures for ${turn.text ? `“${turn.text}”` : "what looks alike"}.` : "");
    if (!found && hidden) showProblem("All pictures that could be an answer are of sold-out products.", ["Show them", () => this.turn({ soldOut: true })]);
    else if (!found) this.nothing(first.response?.filters ?? []);
  }

  /** @param {string[]} applied  the filters that held */
  nothing(applied) {
    const { filters, where } = present(this.trail);
    const all = applied.join(" and ");
    if (where || Object.keys(filters).length) showProblem(`No picture fulfils ${all}.`, ["Clear the filter", () => this.turn({ filters: {}, where: "" })]);
    else if (all) showProblem(`No picture fulfils ${all}, as the words ask.`);
    else showProblem("The index holds no pictures that could be an answer.");
  }

  /** Panes stay while their methods do, so that what is found moves instead of flashing. @param {Turn} turn */
  setPanes(turn) {
    const names = [turn.method, turn.against].slice(0, turn.against ? 2 : 1);
    const kept = this.panes.length === names.length && this.panes.every((pane, place) => pane.method === names[place]);
    if (!kept) {
      const actions = {
        more: (/** @type {string} */ id) => this.steer("more", id),
        less: (/** @type {string} */ id) => this.steer("less", id),
        from: (/** @type {string} */ id) => this.from(id),
        look: (/** @type {HTMLElement} */ card, /** @type {Pane} */ pane) => this.looking.toggle(card, pane),
      };
      this.panes = names.map((name) => new Pane(name, names.length > 1 ? name || this.about.methods[0]?.name : "", actions));
    }
    byId("panes").classList.toggle("two", names.length > 1);
    // Put in anew only where it must be: an element that moves loses its focus.
    if (!this.panes.every((pane) => pane.element.isConnected))
      byId("panes").replaceChildren(...this.panes.map((pane) => pane.element));
  }

  /** "More like this" and "not this"; said twice, the former is taken back. @param {"more" | "less"} kind @param {string} id */
  steer(kind, id) {
    const turn = present(this.trail);
    const other = kind === "more" ? "less" : "more";
    const had = turn[kind].includes(id);
    const next = this.panes[0].cards.get(id)?.nextElementSibling;
    this.turn({ [kind]: had ? turn[kind].filter((one) => one !== id) : [...turn[kind], id], [other]: turn[other].filter((one) => one !== id) });
    if (kind === "less") /** @type {HTMLElement | null} */ (next?.querySelector(".less") ?? null)?.focus();
  }

  /** @param {string} id */
  from(id) {
    this.count = FIRST;
    const text = byId("text").value.trim();
    this.go(pickedUp(changed(this.trail, { text }), id));
    this.askNext();
    say(`Now searching from ${this.name(id)}. What should change?`);
  }

  further() {
    if (this.panes.length) {
      this.count = Math.min(2 * this.count, this.about.limits.k);
      this.search();
      return;
    }
    const signal = this.waiting.begin();
    const { filters, where } = present(this.trail);
    this.wall.further(filters, where, signal)
      .then(() => (byId("further").hidden = this.wall.next === null))
      .catch((error) => !signal.aborted && this.failed(error, () => this.further()))
      .finally(() => this.waiting.end(signal));
  }

  /** @param {unknown} error @param {(() => void) | null} again  how to try again */
  failed(error, again) {
    if (!(error instanceof api.Problem)) throw error;
    if (error.kind === "key") askForKey(error.message, () => this.show());
    const ways = /** @type {[string, () => void][]} */ ([]);
    if (again) ways.push([error.kind === "key" ? "Enter a key" : "Try again", error.kind === "key" ? () => this.show() : again]);
    const { filters, where } = present(this.trail);
    if ((where || Object.keys(filters).length) && error.kind === "refused") ways.push(["Clear the filter", () => this.turn({ filters: {}, where: "" })]);
    showProblem(error.message, ...ways);
  }

  cancelled() {
    this.panes.forEach((pane) => pane.settle());
    showProblem("Cancelled. What was found before is still here.", ["Search again", () => this.show()]);
  }

  /** @param {string} id */
  name(id) {
    const item = this.seen.get(id);
    return item ? describe(item) : id;
  }

  /** @param {Blob} picture */
  addressOf(picture) {
    const known = this.addresses.get(picture) ?? URL.createObjectURL(picture);
    this.addresses.set(picture, known);
    return known;
  }
}

/** On a desk there is room to have everything open. */
function unfold() {
  if (matchMedia("(min-width: 60rem)").matches) for (const id of ["weights", "filters"]) byId(id).open = true;
}

async function begin() {
  /** @type {Page | null} */
  let page = null;
  /** @type {File | null} A picture that was given before the service had answered. */
  let early = null;
  listen((file) => {
    if (page) page.upload(file);
    else early = file;
  });
  const waiting = new Waiting(() => (page ? page.cancelled() : showProblem("Cancelled.", ["Try again", connect])));
  byId("search").append(icon("search"), el("span", { text: "Search" }));
  byId("file-label").prepend(icon("picture"));
  byId("camera-label").prepend(icon("camera"));
  unfold();
  async function connect() {
    const signal = waiting.begin();
    try {
      const about = await api.about(signal);
      page = new Page(about, waiting);
      if (early) page.upload(early);
      else page.show();
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof api.Problem)) throw error;
      byId("results").textContent = "Not connected";
      if (error.kind === "key") askForKey(error.message, connect);
      showProblem(error.message, ["Try again", connect]);
    } finally {
      waiting.end(signal);
    }
  }
  clearProblem();
  await connect();
}

begin();
