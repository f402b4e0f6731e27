/** The trail of turns: what is asked, how it is written into the address, and how it is walked. */

import { cleanedFilters } from "./filters.js";

/** @import { Trail, Turn } from "./types.js" */

/** @type {Turn} */
const BLANK = { text: "", weights: {}, more: [], less: [], filters: {}, where: "", soldOut: false, method: "", against: "", picked: "" };

/** @param {Partial<Turn>} [given] @returns {Turn} */
export const newTurn = (given = {}) => ({ ...structuredClone(BLANK), ...given });

/** Pictures uploaded in this tab. They are in no address, and gone when the tab is closed. @type {Map<string, Blob>} */
const uploads = new Map();

/** @param {Blob} picture @returns {string} its name in the address of this tab */
export function keepUpload(picture) {
  // An address of another tab, or from before this one was loaded anew, must not open this picture.
  const name = Date.now().toString(36);
  uploads.set(name, picture);
  return name;
}

/**
 * The reference of the turn at `place`: an item, an upload, an upload that is gone, or nothing yet.
 * @param {Trail} trail @param {number} place
 * @returns {{item: string | null, image: Blob | null, lost: boolean}}
 */
export function referenceOf(trail, place) {
  const before = place > 0 ? trail.turns[place - 1].picked : trail.item;
  if (before) return { item: before, image: null, lost: false };
  const image = trail.upload === null ? null : (uploads.get(trail.upload) ?? null);
  return { item: null, image, lost: trail.upload !== null && image === null };
}

/** @param {Trail} trail */
export const present = (trail) => trail.turns[trail.turns.length - 1];

/** @param {Trail} trail @param {Partial<Turn>} change @returns {Trail} the trail with its last turn changed */
export const changed = (trail, change) => ({
  ...trail,
  turns: [...trail.turns.slice(0, -1), { ...present(trail), ...change }],
});

/** An answer becomes the next reference; filter and methods stay. @param {Trail} trail @param {string} id @returns {Trail} */
export function pickedUp(trail, id) {
  const { filters, where, soldOut, method, against } = present(trail);
  const walked = changed(trail, { picked: id });
  return { ...walked, turns: [...walked.turns, newTurn({ filters, where, soldOut, method, against })] };
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
    Object.entries(turn).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(BLANK[/** @type {keyof Turn} */ (name)])),
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
  for (const name of /** @type {const} */ (["text", "where", "method", "against", "picked"]))
    if (typeof raw?.[name] === "string") turn[name] = raw[name];
  for (const name of /** @type {const} */ (["more", "less"]))
    if (Array.isArray(raw?.[name])) turn[name] = raw[name].filter((/** @type {any} */ id) => typeof id === "string");
  if (raw?.weights && typeof raw.weights === "object")
    turn.weights = Object.fromEntries(
      Object.entries(raw.weights).flatMap(([name, value]) =>
        Number.isFinite(value) ? [[name, Number(value)]] : [],
      ),
    );
  turn.soldOut = raw?.soldOut === true;
  turn.filters = cleanedFilters(raw?.filters);
  return turn;
}
