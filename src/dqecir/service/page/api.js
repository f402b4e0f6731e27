/** The service's routes. Every failure is a `Problem` with one sentence for the person who searches. */

/** @import { About, Item, SearchReply, HeatMap } from "./types.js" */

import { word } from "./words.js";

/** A proxy may show the service under a path of its own. */
const V1 = new URL("../v1", import.meta.url).href;
/** Whether this runs on a page of another origin, whose <img> may not show pictures from here. */
const IS_EMBEDDED = new URL(V1).origin !== location.origin;
const KEY = "dqecir-key";
const RETRIES = 5;
const PICTURE_RETRIES = 2;

export class Problem extends Error {
  /**
   * @param {"dead" | "key" | "refused" | "overload" | "missing"} kind
   * @param {string} sentence
   */
  constructor(kind, sentence) {
    super(sentence);
    this.kind = kind;
  }
}

/** A key that a shop's page holds; it is stored nowhere. */
let held = "";

/** The key of a person lives as long as the tab, and nowhere else. */
export const key = {
  get: () => held || (IS_EMBEDDED ? "" : (sessionStorage.getItem(KEY) ?? "")),
  hold: (/** @type {string} */ value) => {
    held = value;
  },
  set: (/** @type {string} */ value) => sessionStorage.setItem(KEY, value),
};

/** Told how many seconds an overloaded service asked us to wait; 0 when the wait is over. */
export const busy = { tell: (/** @type {number} */ _seconds) => {} };

/** @param {string} path @returns {Promise<any>} */
const json = async (path, /** @type {RequestInit} */ init = {}) => (await ask(path, init)).json();

/** @param {AbortSignal} [signal] @returns {Promise<About>} */
export const about = (signal) => json(`${V1}/about`, { signal });

/**
 * @param {Object<string, string | number>} query
 * @param {AbortSignal} [signal]
 * @returns {Promise<{items: Item[], next: string | null}>}
 */
export const items = (query, signal) => json(`${V1}/items?${parameters(query)}`, { signal });

/** @param {string} id @param {AbortSignal} [signal] @returns {Promise<Item>} */
export const item = (id, signal) => json(`${V1}/items/${encoded(id)}`, { signal });

/** @param {string} text @param {string | null} of @param {number} limit @param {AbortSignal} [signal] */
export async function suggestions(text, of, limit, signal) {
  /** @type {Record<string, string | number>} */
  const query = of === null ? { text, limit } : { text, limit, item: of };
  return /** @type {string[]} */ ((await json(`${V1}/suggestions?${parameters(query)}`, { signal })).suggestions);
}

/** @param {Object} request @param {Blob | null} image @param {AbortSignal} signal @returns {Promise<SearchReply>} */
export const search = (request, image, signal) => json(`${V1}/search`, body(request, image, signal));

/**
 * @param {Object} request @param {Blob | null} image @param {AbortSignal} [signal]
 * @returns {Promise<{reference: HeatMap, target: HeatMap}>}
 */
export const explanation = (request, image, signal) => json(`${V1}/explanations`, body(request, image, signal));

/** @param {Object} request @param {Blob | null} image @param {AbortSignal} signal @returns {Promise<{image: string}>} */
export const edit = (request, image, signal) => json(`${V1}/edits`, body(request, image, signal));

/** Say in its frame that a picture is not there. @param {HTMLImageElement} image */
export function markBroken(image) {
  const frame = /** @type {HTMLElement | null} */ (image.closest(".frame"));
  if (!frame) return;
  frame.dataset.broken = word("no_picture");
  frame.classList.add("broken");
}

/** @type {Map<string, Promise<string>>} */
const pictures = new Map();

/**
 * Give an <img> an item's picture, or mark its frame as broken. Where a key is set the picture is asked for with it,
 * because an <img> alone sends none; and an <img> asks once, so what a busy service refused is asked for again here.
 * @param {HTMLImageElement} image @param {string} id @param {number} size
 */
export async function showPicture(image, id, size) {
  const address = `${V1}/images/${encoded(id)}?size=${size}`;
  image.dataset.address = address;
  let left = PICTURE_RETRIES;
  image.onerror = () => {
    if (left === 0) markBroken(image);
    else
      setTimeout(
        () => {
          if (image.dataset.address === address) image.src = address;
        },
        (PICTURE_RETRIES + 1 - left) * 1000,
      );
    left -= 1;
  };
  if (!key.get() && !IS_EMBEDDED) {
    image.src = address;
    return;
  }
  let made = pictures.get(address);
  if (!made) {
    made = ask(address, {}).then(async (response) => URL.createObjectURL(await response.blob()));
    pictures.set(address, made);
  }
  try {
    const found = await made;
    // An <img> may have been given another picture meanwhile.
    if (image.dataset.address === address) image.src = found;
  } catch {
    pictures.delete(address);
    if (image.dataset.address === address) markBroken(image);
  }
}

/** @param {string} id */
const encoded = (id) => id.split("/").map(encodeURIComponent).join("/");

/** @param {Object<string, string | number>} query */
const parameters = (query) =>
  new URLSearchParams(Object.entries(query).map(([name, value]) => [name, String(value)])).toString();

/** @param {Object} request @param {Blob | null} image @param {AbortSignal} [signal] @returns {RequestInit} */
function body(request, image, signal) {
  if (!image) {
    const headers = { "Content-Type": "application/json" };
    return { method: "POST", headers, body: JSON.stringify(request), signal };
  }
  const form = new FormData();
  form.append("request", JSON.stringify(request));
  form.append("image", image, "picture");
  return { method: "POST", body: form, signal };
}

/** @param {string} path @param {RequestInit} init @returns {Promise<Response>} */
async function ask(path, init) {
  const headers = new Headers(init.headers);
  if (key.get()) headers.set("Authorization", `Bearer ${key.get()}`);
  for (let attempt = 1; ; attempt += 1) {
    const response = await reach(path, { ...init, headers });
    if (response.ok) return response;
    if (response.status !== 429 || attempt === RETRIES) throw await problem(response);
    const seconds = Math.min(Math.max(Number(response.headers.get("Retry-After")) || 1, 1), 30);
    busy.tell(seconds);
    try {
      await pause(seconds * 1000, init.signal ?? null);
    } finally {
      busy.tell(0);
    }
  }
}

/** @param {string} path @param {RequestInit} init */
async function reach(path, init) {
  try {
    return await fetch(path, init);
  } catch (error) {
    if (/** @type {Error} */ (error).name === "AbortError") throw error;
    throw new Problem("dead", word("problem.dead"));
  }
}

/** @type {Object<number, ["key" | "missing" | "overload" | "refused", string]>} */
const KINDS = {
  401: ["key", "problem.key"],
  403: ["key", "problem.key"],
  404: ["missing", "problem.missing"],
  413: ["refused", "problem.large"],
  429: ["overload", "problem.overload"],
  503: ["overload", "problem.overload"],
  504: ["overload", "problem.late"],
};

/** @param {Response} response */
async function problem(response) {
  const [kind, words] = KINDS[response.status] ?? ["refused", "problem.refused"];
  let reason = "";
  try {
    reason = (await response.json()).detail ?? "";
  } catch {
    // Something between the page and the service answered; its words are not for people.
  }
  if (!reason || !["refused", "missing"].includes(kind)) return new Problem(kind, word(words));
  const sentence = reason.charAt(0).toUpperCase() + reason.slice(1) + (/[.!?…]$/.test(reason) ? "" : ".");
  return new Problem(kind, word("problem.reason", { reason: sentence }));
}

/** @param {number} ms @param {AbortSignal | null} signal @returns {Promise<void>} */
function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("cancelled", "AbortError"));
    });
  });
}
