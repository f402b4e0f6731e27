/** The page: what is shown follows from the trail alone, and every action makes a new trail. */

import * as api from "./api.js";
import { Crumbs } from "./crumbs.js";
import { byId, el, icon } from "./dom.js";
import { Edits } from "./edits.js";
import { conditions, Filters, inWords } from "./filters.js";
import { Looking } from "./looking.js";
import { askForKey, say, showProblem, clearProblem, Waiting } from "./notices.js";
import { havePrices, isExpert, know, nameOf } from "./product.js";
import { chipsInWords, forgetReading, showReading } from "./reading.js";
import { markShared, Pane, settleTones } from "./results.js";
import { rowOf, showSteering } from "./steer.js";
import { ChangeField } from "./suggest.js";
import {
  changed,
  earlierOf,
  earlierPlaces,
  keepUpload,
  lasting,
  newTurn,
  pickedUp,
  present,
  read,
  recallUpload,
  referencesOf,
  restated,
  saidNext,
  undone,
  walkedBack,
  withoutReference,
  written,
} from "./trail.js";
import { lightened, listen } from "./upload.js";
import { showProduct } from "./viewer.js";
import { Wall } from "./wall.js";
import { Weights } from "./weights.js";
import { fillIn, speak, spoken, word } from "./words.js";

/** @import { About, Item, SearchReply, Trail, Turn } from "./types.js" */

const FIRST = 24;
const REFRESH_MS = 20_000;

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
    this.generation = -1;
    /** The texts that were searched for last. */
    this.said = "";
    /** @type {Promise<boolean> | null} Whether the picture that is being read can be searched from; null if none is. */
    this.arriving = null;
    /** Whether the field has the text of the present turn, to be changed. */
    this.rewording = false;
    this.wall = new Wall((item) => this.start({ item: item.id }, item));
    this.field = new ChangeField(() => this.turn({}));
    this.weights = new Weights(about.weights, about.limits.weight, (weights) => this.turn({ weights }, true));
    this.filters = new Filters(about.attributes, (change) => this.turn(change));
    this.crumbs = new Crumbs(
      (place) => this.pressed(place),
      () => this.go(undone(this.trail)),
    );
    this.looking = new Looking(
      (pane) => this.question(pane),
      (error) => this.failed(error, null),
    );
    this.edits = new Edits(() => {
      const { item, image } = this.references();
      const text = this.typed() || this.asked(this.panes[0]?.response ?? null);
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
    byId("text").maxLength = about.limits.text;
    byId("advanced").hidden = !isExpert();
    byId("methods").hidden = about.methods.length < 2;
    this.furnishCounts();
    const options = about.methods.map(({ name, title }) => el("option", { value: name, text: name, title }));
    byId("method").append(...options);
    byId("against").append(
      el("option", { value: "", text: word("methods.nothing") }),
      ...options.map((option) => option.cloneNode(true)),
    );
    byId("method").addEventListener("change", () => this.turn({ method: byId("method").value }));
    byId("against").addEventListener("change", () => this.turn({ against: byId("against").value }));
    byId("shuffle").append(icon("shuffle"), el("span", { text: word("wall.others") }));
    byId("shuffle").addEventListener("click", () => {
      this.wall.shuffle();
      this.showWall();
    });
    byId("order").addEventListener("change", () => this.turn({ order: byId("order").value }));
    byId("further").addEventListener("click", () => this.further());
    byId("drop-reference").append(icon("close"));
    byId("drop-reference").addEventListener("click", () => this.drop(this.references().item));
    byId("look-reference").addEventListener("click", () => {
      const [pane] = this.panes;
      const card = this.looking.card ?? pane?.cards.values().next().value;
      if (card) this.looking.toggle(card, this.panes.find((one) => one.element.contains(card)) ?? pane);
    });
  }

  /** What grows with the index. */
  furnishCounts() {
    byId("stock").textContent = word("stock", { n: this.about.items });
    byId("filters").hidden = !Object.keys(this.about.attributes).length;
    byId("sold-out-choice").hidden = !this.about.has_sold_out;
  }

  /** See what was added to the index since the page was opened. */
  async refresh() {
    let about;
    try {
      about = await api.about();
    } catch {
      return; // the next search says what is wrong
    }
    if (JSON.stringify(about) === JSON.stringify(this.about)) return;
    this.about = about;
    know(about);
    this.furnishCounts();
    if (byId("filters").contains(document.activeElement)) return;
    const { filters, where, soldOut } = present(this.trail);
    this.filters.furnish(about.attributes);
    this.filters.show(filters, where, soldOut);
  }

  /** Go on to another trail. @param {Trail} trail @param {boolean} [replace] */
  go(trail, replace = false) {
    this.trail = trail;
    const address = `#${written(trail)}`;
    if (replace) history.replaceState(null, "", address);
    else if (address !== (location.hash || "#")) history.pushState(null, "", address);
    this.show();
  }

  /** The words in the field that were not sent yet. @returns {string} */
  typed() {
    return this.rewording ? "" : byId("text").value.trim();
  }

  /** Send the words in the field, and change the turn that they make. @param {Partial<Turn>} change @param {boolean} [replace] */
  turn(change, replace = false) {
    if (this.arriving) {
      this.arriving.then((isUsable) => isUsable && this.turn(change, replace));
      return;
    }
    const text = byId("text").value.trim();
    const trail = this.rewording ? changed(this.trail, { text }) : saidNext(this.trail, text);
    this.go(changed(trail, change), replace && trail.turns.length === this.trail.turns.length);
  }

  /** Walk back to a turn, or change the words of the present one. @param {number} place */
  pressed(place) {
    if (place < this.trail.turns.length - 1) {
      this.go(walkedBack(this.trail, place));
      return;
    }
    this.rewording = true;
    this.field.change(present(this.trail).text);
  }

  /** The references of the present turn, as many as the service takes: an address may hold any number. */
  references() {
    const found = referencesOf(this.trail, this.trail.turns.length - 1);
    return { ...found, further: found.further.slice(0, this.about.limits.references) };
  }

  /** What all turns about the reference ask for. @param {SearchReply | null} reply @returns {string} */
  asked(reply) {
    const { text } = present(this.trail);
    const earlier = earlierOf(this.trail);
    return earlier.length ? (reply?.together ?? (text || earlier[earlier.length - 1])) : text;
  }

  /** Begin anew from a reference; the filter stays. @param {{item?: string, upload?: string}} reference @param {Item} [item] */
  start(reference, item) {
    if (item) this.seen.set(item.id, item);
    this.count = FIRST;
    const turn = newTurn({ ...lasting(this.trail), text: this.typed() });
    this.go({ item: null, upload: null, ...reference, turns: [turn] });
    this.askNext();
  }

  /** Start a search from a picture. A text sent while the picture is read waits for it. @param {File} file */
  upload(file) {
    const arriving = this.begunFrom(file);
    this.arriving = arriving;
    arriving.finally(() => {
      if (this.arriving === arriving) this.arriving = null;
    });
  }

  /** Read a picture and begin anew from it; tell whether it can be used. @param {File} file @returns {Promise<boolean>} */
  async begunFrom(file) {
    const { bytes } = this.about.limits;
    const { picture, isRead } = await lightened(file);
    if (picture.size > bytes) {
      showProblem(word("file.too_large", { size: Math.ceil(picture.size / 1e6), most: Math.floor(bytes / 1e6) }));
      return false;
    }
    if (!isRead && !(await this.canUse(picture))) return false;
    this.start({ upload: await keepUpload(picture) });
    return true;
  }

  /** Ask the service about a picture that the browser cannot read; a broken one leaves the page as it is. @param {Blob} picture */
  async canUse(picture) {
    try {
      await api.search({ k: 1, spoke: false }, picture, new AbortController().signal);
      return true;
    } catch (error) {
      if (!(error instanceof api.Problem)) throw error;
      showProblem(error.kind === "refused" ? word("file.unusable", { reason: error.message }) : error.message);
      return false;
    }
  }

  /** Scroll to the question and, where no keyboard would cover the page, put the cursor there. */
  askNext() {
    scrollTo({ top: 0 });
    (matchMedia("(pointer: fine)").matches ? byId("text") : byId("results")).focus({ preventScroll: true });
  }

  /** Show the trail as it is now. */
  show() {
    const turn = present(this.trail);
    const { item, image, lost } = this.references();
    const pictured = item !== null || image !== null;
    const asked = this.asked(null);
    const searching = pictured || (!lost && asked !== "");
    this.rewording = false;
    document.body.classList.toggle("searching", searching);
    byId("reference").hidden = !pictured;
    byId("trail").hidden = !searching;
    const label = pictured ? "label" : "alone";
    byId("ask-label").textContent = word(asked ? `ask.${label}.next` : `ask.${label}`);
    byId("text").placeholder = word(asked ? "ask.placeholder.next" : "ask.placeholder");
    byId("edits").hidden = !pictured || !this.about.can_edit;
    byId("order-choice").hidden = !searching || !havePrices();
    byId("order").value = turn.order;
    for (const id of ["welcome", "shuffle"]) byId(id).hidden = searching;
    byId("weights").hidden = !pictured || !this.about.weights.length;
    byId("methods").hidden = !searching || this.about.methods.length < 2;
    byId("steer").hidden = true;
    byId("file-words").textContent = word(pictured ? "file.another" : "file.choose");
    this.filters.show(turn.filters, turn.where, turn.soldOut);
    this.looking.forget();
    this.edits.forget();
    this.field.show(item, !asked);
    if (!searching) {
      this.showWall(lost);
      return;
    }
    if (pictured) this.showReferences();
    this.weights.show(turn.weights);
    byId("method").value = turn.method || this.about.methods[0]?.name || "";
    byId("against").value = turn.against;
    showSteering(
      turn,
      (id) => this.name(id),
      (change) => this.turn(change),
    );
    this.crumbs.show(this.trail, (picture) => this.addressOf(picture));
    this.search();
  }

  /** Show the references of the present turn: the first, and further ones beside it. */
  showReferences() {
    const { item, image, further } = this.references();
    const picture = byId("reference-picture");
    byId("reference-frame").classList.remove("broken");
    if (image) {
      delete picture.dataset.address;
      picture.onerror = () => api.markBroken(picture);
      picture.src = this.addressOf(image);
    } else if (item) api.showPicture(picture, item, 512);
    const name = item ? this.name(item) : word("file.own");
    const dropping = (/** @type {string} */ name) => word("reference.take_away", { name });
    picture.alt = word("reference.alt", { name });
    byId("reference-name").textContent = name;
    byId("drop-reference").setAttribute("aria-label", dropping(name));
    byId("drop-reference").hidden = !further.length && !present(this.trail).also.length;
    const row = rowOf(
      word("reference.further"),
      further,
      (id) => dropping(this.name(id)),
      (id) => this.drop(id),
    );
    byId("further-references").replaceChildren(...(further.length ? [row] : []));
    this.learnNames([item, ...further]);
  }

  /** Ask for the names of references that no answer told, and show them. @param {(string | null)[]} ids */
  async learnNames(ids) {
    const unknown = ids.flatMap((id) => (id !== null && !this.seen.has(id) ? [id] : []));
    // The id may be that of a product, and the item its first picture. Of one that is not there the search says so.
    const told = await Promise.allSettled(unknown.map(async (id) => this.seen.set(id, await api.item(id))));
    if (told.some(({ status }) => status === "fulfilled")) this.showReferences();
  }

  /** @param {boolean} [lost] */
  async showWall(lost = false) {
    const { filters, where } = present(this.trail);
    const signal = this.waiting.begin();
    this.panes = [];
    byId("results").textContent = word("wall.title");
    this.setStale(false);
    byId("meta").textContent = "";
    forgetReading();
    if (lost) showProblem(word("start.lost"));
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
    const { item, image, further } = this.references();
    const weights = Object.keys(turn.weights).length ? this.weights.within(turn.weights) : null;
    const request = {
      item,
      references: further.map((id) => ({ item: id })),
      text: turn.text,
      earlier: earlierOf(this.trail),
      k: this.count,
      filters: conditions(turn.filters),
      where: turn.where || null,
      sold_out: turn.soldOut,
      weights,
      more: turn.more,
      less: turn.less,
      method: pane.method || null,
    };
    return { request, image };
  }

  async search() {
    const turn = present(this.trail);
    const signal = this.waiting.begin();
    const within = byId("panes").contains(document.activeElement);
    const said = JSON.stringify([...earlierOf(this.trail), turn.text]);
    // Results of before stay until new ones are there; how another text was read does not.
    if (said !== this.said) forgetReading();
    this.said = said;
    this.setPanes(turn);
    this.panes.forEach((pane) => pane.expect());
    byId("further").hidden = true;
    this.entitle(null);
    try {
      await Promise.all(this.panes.map((pane, place) => this.ask(pane, place, turn, signal)));
      if (signal.aborted) return;
      this.conclude();
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
      if (
        signal.aborted ||
        place === 0 ||
        !(error instanceof api.Problem) ||
        !["refused", "missing"].includes(error.kind)
      )
        throw error;
      pane.refuse(error.message);
      return;
    }
    if (signal.aborted) return;
    this.looking.forget();
    response.answers.forEach((answer) => this.seen.set(answer.id, answer));
    if (place === 0) this.noticeGrowth(response.generation);
    pane.show(response, turn);
    if (place === 0) this.weights.showOwn(response.own_weights);
  }

  /** A search in a changed index; the first one tells nothing new. @param {number} generation */
  noticeGrowth(generation) {
    if (this.generation >= 0 && generation !== this.generation) this.refresh();
    this.generation = generation;
  }

  /** Say whether the results belong to an earlier search, and grey them; how its text was read goes. @param {boolean} stale */
  setStale(stale) {
    const isOld = this.panes.length
      ? this.panes.some((pane) => pane.cards.size)
      : this.wall.grid.isConnected && this.wall.grid.children.length > 0;
    const shown = stale && isOld;
    byId("stale").hidden = !shown;
    byId("panes").classList.toggle("stale", shown);
    if (shown) forgetReading();
  }

  /** Return the heading of the results: the request in words. @param {SearchReply | null} reply @returns {string} the name within a sentence */
  entitle(reply) {
    const text = this.asked(reply);
    byId("results").textContent = text ? word("results.of_text", { text }) : word("results.alike");
    return text ? word("results.of_text", { text }) : word("results.what_alike");
  }

  /** All answers are there. */
  conclude() {
    const [first, second] = this.panes;
    this.setStale(false);
    if (second) markShared(first, second);
    const found = first.response?.answers.length ?? 0;
    earlierPlaces(this.trail).forEach((place, at) => this.crumbs.strike(place, first.response?.taken_back[at] ?? []));
    if (first.response)
      showReading(first.response, this.asked(first.response), (text) => this.go(restated(this.trail, text)));
    const hidden = first.response?.sold_out_hidden ?? 0;
    const took = isExpert() ? word("results.time", { n: Math.round(first.response?.took_ms ?? 0) }) : "";
    byId("meta").textContent = [hidden ? word("results.sold_out", { n: hidden }) : "", took]
      .filter(Boolean)
      .join(" · ");
    byId("further").hidden = found < this.count || this.count >= this.about.limits.k;
    const name = this.entitle(first.response);
    const pictures = 1 + this.references().further.length;
    const what = pictures > 1 ? word("results.of_pictures", { what: name, n: pictures }) : name;
    const count = found ? [word("results.count", { n: found, what })] : [];
    say([...count, ...(first.response ? chipsInWords(first.response) : [])].join(" "));
    if (!found && hidden)
      showProblem(word("nothing.sold_out"), [word("nothing.sold_out.show"), () => this.turn({ soldOut: true })]);
    else if (!found) this.nothing(first.response?.filters ?? []);
  }

  /** @param {string[]} applied  the filters that held */
  nothing(applied) {
    const { filters, where } = present(this.trail);
    const all = applied.join(word("nothing.and"));
    if (where || Object.keys(filters).length)
      showProblem(word("nothing.filter", { filters: all }), [
        word("filter.clear"),
        () => this.turn({ filters: {}, where: "" }),
      ]);
    else if (all) showProblem(word("nothing.by_text", { filters: all }));
    else showProblem(word("nothing"));
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
        also: (/** @type {string} */ id) => this.combine(id),
        zoom: (/** @type {Item} */ item) => showProduct(item, () => this.from(item.id)),
        why: (/** @type {HTMLElement} */ card, /** @type {Pane} */ pane) => this.looking.toggle(card, pane),
      };
      this.panes = names.map(
        (name) => new Pane(name, names.length > 1 ? name || this.about.methods[0]?.name : "", actions),
      );
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
    this.turn({
      [kind]: had ? turn[kind].filter((one) => one !== id) : [...turn[kind], id],
      [other]: turn[other].filter((one) => one !== id),
    });
    if (kind === "less") /** @type {HTMLElement | null} */ (next?.querySelector(".less") ?? null)?.focus();
  }

  /** @param {string} id */
  from(id) {
    this.count = FIRST;
    this.go(saidNext(pickedUp(this.trail, id), this.typed()));
    this.askNext();
    say(word("results.moved", { name: this.name(id) }));
  }

  /** Search from an answer, too. @param {string} id */
  combine(id) {
    const { item, further } = this.references();
    const { also } = present(this.trail);
    const most = this.about.limits.references;
    if ([item, ...also].includes(id)) return; // pressed twice
    if (further.length >= most) {
      showProblem(word("reference.most", { n: most + 1 }));
      return;
    }
    this.turn({ also: [...also, id] });
    this.askNext();
    say(word("results.combined", { name: this.name(id) }));
  }

  /** Search without one of several references. @param {string | null} id  null: an upload */
  drop(id) {
    this.go(withoutReference(this.trail, id));
    /** @type {HTMLElement} */ (byId("further-references").querySelector("button") ?? byId("text")).focus();
  }

  further() {
    if (this.panes.length) {
      this.count = Math.min(2 * this.count, this.about.limits.k);
      this.search();
      return;
    }
    const signal = this.waiting.begin();
    const { filters, where } = present(this.trail);
    this.wall
      .further(filters, where, signal)
      .then(() => (byId("further").hidden = this.wall.next === null))
      .catch((error) => !signal.aborted && this.failed(error, () => this.further()))
      .finally(() => this.waiting.end(signal));
  }

  /** @param {unknown} error @param {(() => void) | null} again  how to try again */
  failed(error, again) {
    if (!(error instanceof api.Problem)) throw error;
    if (error.kind === "key") askForKey(error.message, () => this.show());
    const ways = /** @type {[string, () => void][]} */ ([]);
    if (again)
      ways.push([word(error.kind === "key" ? "key.enter" : "again"), error.kind === "key" ? () => this.show() : again]);
    const { filters, where } = present(this.trail);
    if ((where || Object.keys(filters).length) && error.kind === "refused")
      ways.push([word("filter.clear"), () => this.turn({ filters: {}, where: "" })]);
    showProblem(error.message, ...ways);
    if (again) this.setStale(true);
  }

  cancelled() {
    this.panes.forEach((pane) => pane.settle());
    this.setStale(true);
    showProblem(word("cancelled.before"), [word("search.again"), () => this.show()]);
  }

  /** @param {string} id */
  name(id) {
    const item = this.seen.get(id);
    return item ? nameOf(item) : isExpert() ? id : word("product.unnamed");
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
  /** Whether words were sent before the service had answered. */
  let isSent = false;
  listen((file) => {
    if (page) page.upload(file);
    else early = file;
  });
  byId("ask").addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    isSent = page === null;
  });
  recallUpload();
  await speak(navigator.languages);
  document.documentElement.lang = spoken();
  fillIn(document);
  document.documentElement.classList.remove("wordless");
  byId("results").textContent = word("connecting");
  const waiting = new Waiting(() =>
    page ? page.cancelled() : showProblem(word("cancelled"), [word("again"), connect]),
  );
  byId("search").append(icon("search"), el("span", { text: word("search") }));
  byId("file-label").prepend(icon("picture"));
  byId("camera-label").prepend(icon("camera"));
  unfold();
  async function connect() {
    const signal = waiting.begin();
    try {
      const about = await api.about(signal);
      know(about);
      page = new Page(about, waiting);
      setInterval(() => document.visibilityState === "visible" && page?.refresh(), REFRESH_MS);
      const typed = byId("text").value;
      page.show();
      byId("text").value = typed;
      if (early) page.upload(early);
      else if (isSent) page.turn({});
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof api.Problem)) throw error;
      byId("results").textContent = word("offline");
      if (error.kind === "key") askForKey(error.message, connect);
      showProblem(error.message, [word("again"), connect]);
    } finally {
      waiting.end(signal);
    }
  }
  clearProblem();
  await connect();
}

begin();
