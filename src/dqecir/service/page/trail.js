/** The trail of turns: what is asked, how it is written into the address, and how it is walked. */

import { cleanedFilters } from "./filters.js";

/** @import { Trail, Turn } from "./types.js" */

/** @type {Turn} */
const BLANK = {
  text: "",
  weights: {},
  also: [],
  more: [],
  less: [],
  filters: {},
  where: "",
  soldOut: false,
  order: "",
  method: "",
  against: "",
  picked: "",
};

/** @param {Partial<Turn>} [given] @returns {Turn} */
export const newTurn = (given = {}) => ({ ...structuredClone(BLANK), ...given });

/** Pictures uploaded in this tab. They are in no address, and gone when the tab is closed. @type {Map<string, Blob>} */
const uploads = new Map();
const KEPT = "dqecir-upload";

/** @param {Blob} picture @returns {Promise<string>} its name in the address of this tab */
export async function keepUpload(picture) {
  // An address of another tab must not open this picture.
  const name = Date.now().toString(36);
  uploads.set(name, picture);
  try {
    // The browser keeps it for this tab alone, so that it outlives loading the page anew.
    sessionStorage.setItem(KEPT, JSON.stringify({ name, data: await encoded(picture) }));
  } catch {
    // It is too large to be kept; it lasts until the page is loaded anew.
    sessionStorage.removeItem(KEPT);
  }
  return name;
}

/** @param {Blob} picture @returns {Promise<string>} a data URL */
const encoded = (picture) =>
  new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(picture);
  });

/** Take up the picture that this tab kept when it was loaded anew. */
export function recallUpload() {
  try {
    const { name, data } = JSON.parse(sessionStorage.getItem(KEPT) ?? "");
    const [head, body] = data.split(",");
    const bytes = Uint8Array.from(atob(body), (sign) => sign.charCodeAt(0));
    uploads.set(name, new Blob([bytes], { type: /^data:([^;]*)/.exec(head)?.[1] }));
  } catch {
    // Nothing was kept.
  }
}

/**
 * The references of the turn at `place`: the first, which is an item, an upload, an upload that is gone, or nothing
 * yet, and further items.
 * @param {Trail} trail @param {number} place
 * @returns {{item: string | null, image: Blob | null, lost: boolean, further: string[]}}
 */
export function referencesOf(trail, place) {
  const { also } = trail.turns[place];
  const before = trail.turns.slice(0, place).findLast(({ picked }) => picked)?.picked ?? trail.item;
  if (before) return { item: before, image: null, lost: false, further: also };
  if (trail.upload === null) return { item: also[0] ?? null, image: null, lost: false, further: also.slice(1) };
  const image = uploads.get(trail.upload) ?? null;
  return { item: null, image, lost: image === null, further: also };
}

/** @param {Trail} trail */
export const present = (trail) => trail.turns[trail.turns.length - 1];

/** @param {Trail} trail @param {Partial<Turn>} change @returns {Trail} the trail with its last turn changed */
export const changed = (trail, change) => ({
  ...trail,
  turns: [...trail.turns.slice(0, -1), { ...present(trail), ...change }],
});

/** Where the turns about the present reference begin. @param {Trail} trail */
const begun = ({ turns }) => turns.slice(0, -1).findLastIndex(({ picked }) => picked) + 1;

/** The places of earlier turns about the present reference that have a text; what they ask for is kept. @param {Trail} trail @returns {number[]} */
export const earlierPlaces = (trail) =>
  trail.turns.flatMap(({ text }, place) =>
    text && place >= begun(trail) && place < trail.turns.length - 1 ? [place] : [],
  );

/** @param {Trail} trail @returns {string[]} */
export const earlierOf = (trail) => earlierPlaces(trail).map((place) => trail.turns[place].text);

/** A further text is a turn of its own, about the same reference. @param {Trail} trail @param {string} text @returns {Trail} */
export function saidNext(trail, text) {
  const turn = present(trail);
  return !text || !turn.text
    ? changed(trail, { text: text || turn.text })
    : { ...trail, turns: [...trail.turns, { ...turn, text }] };
}

/** One text takes the place of all turns about the present reference. @param {Trail} trail @param {string} text @returns {Trail} */
export const restated = (trail, text) => ({
  ...trail,
  turns: [...trail.turns.slice(0, begun(trail)), { ...present(trail), text }],
});

/**
 * Search again without one of the references. If it was the first, the next one takes its place.
 * @param {Trail} trail @param {string | null} id  null: an upload
 * @returns {Trail}
 */
export function withoutReference(trail, id) {
  const left = present(trail).also.filter((one) => one !== id);
  if (left.length < present(trail).also.length) return changed(trail, { also: left });
  const turns = trail.turns.slice(begun(trail));
  const also = (/** @type {Turn} */ turn) => turn.also.filter((one) => one !== left[0]);
  return { item: left[0], upload: null, turns: turns.map((turn) => ({ ...turn, also: also(turn) })) };
}

/** The last turn is taken back, or the text of the only one. @param {Trail} trail @returns {Trail} */
export const undone = (trail) =>
  trail.turns.length > 1 ? walkedBack(trail, trail.turns.length - 2) : changed(trail, { text: "" });

/** What stays when a search begins from another reference. @param {Trail} trail @returns {Partial<Turn>} */
export function lasting(trail) {
  const { filters, where, soldOut, order, method, against } = present(trail);
  return { filters, where, soldOut, order, method, against };
}

/** An answer becomes the next reference; filter and methods stay. @param {Trail} trail @param {string} id @returns {Trail} */
export function pickedUp(trail, id) {
  const walked = changed(trail, { picked: id });
  return { ...walked, turns: [...walked.turns, newTurn(lasting(trail))] };
}

/** Back to the turn at `place`. @param {Trail} trail @param {number} place @returns {Trail} */
export const walkedBack = (trail, place) =>
  changed({ ...trail, turns: trail.turns.slice(0, place + 1) }, { picked: "" });

/** @param {Trail} trail @returns {string} the part of the address behind # */
export function written(trail) {
  const parts = new URLSearchParams();
  if (trail.item) parts.set("item", trail.item);
  if (trail.upload) parts.set("upload", trail.upload);
  const turns = trail.turns.map(told);
  if (turns.length > 1 || Object.keys(turns[0]).length) parts.set("turns", JSON.stringify(turns));
  return parts.toString();
}

/** What differs from a blank turn. @param {Turn} turn */
const told = (turn) =>
  Object.fromEntries(
    Object.entries(turn).filter(
      ([name, value]) => JSON.stringify(value) !== JSON.stringify(BLANK[/** @type {keyof Turn} */ (name)]),
    ),
  );

/** Read an address; whatever in it cannot be read counts as not said. @param {string} hash @returns {Trail} */
export function read(hash) {
  const parts = new URLSearchParams(hash.replace(/^#/, ""));
  const item = parts.get("item");
  const trail = { item, upload: item ? null : parts.get("upload"), turns: [newTurn()] };
  try {
    const turns = JSON.parse(parts.get("turns") ?? "[]");
    if (Array.isArray(turns) && turns.length) trail.turns = turns.map(cleaned);
  } catch {
    // A shortened or garbled address still opens at its reference.
  }
  return trail;
}

/** Only what has the kind of a turn's own values is taken from an address. @param {any} raw @returns {Turn} */
function cleaned(raw) {
  const turn = newTurn();
  for (const name of /** @type {const} */ (["text", "where", "order", "method", "against", "picked"]))
    if (typeof raw?.[name] === "string") turn[name] = raw[name];
  for (const name of /** @type {const} */ (["also", "more", "less"]))
    if (Array.isArray(raw?.[name])) turn[name] = raw[name].filter((/** @type {any} */ id) => typeof id === "string");
  if (raw?.weights && typeof raw.weights === "object")
    turn.weights = Object.fromEntries(
      Object.entries(raw.weights).flatMap(([name, value]) => (Number.isFinite(value) ? [[name, Number(value)]] : [])),
    );
  if (!["cheap", "dear"].includes(turn.order)) turn.order = "";
  turn.soldOut = raw?.soldOut === true;
  turn.filters = cleanedFilters(raw?.filters);
  return turn;
}
