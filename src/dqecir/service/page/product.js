/** A product as a shopper sees it: title, price, link and attributes, told apart by what each column is for. */

import { cut, el } from "./dom.js";
import { number, word } from "./words.js";

/** @import { About, Attribute, Item } from "./types.js" */

/** Columns that are no attributes to a shopper. */
const SILENT = ["id", "title", "url", "currency", "availability", "description"];
const CODES = new Set(Intl.supportedValuesOf("currency"));
const SIGNS = { "€": "EUR", "£": "GBP", zł: "PLN", "₹": "INR" };
/** What a shop pays or once asked is no price of the product, if there is another. */
const OTHER_PRICES = /\b(?:cost|rrp|msrp|compare|list|regular|old|was|before)\b/;
const REDUCED = /\b(?:sale|special|offer|reduced)\b/;

/** @type {Object<string, Attribute>} */
let attributes = {};
let target = "_blank";
let expert = false;

/** Learn from the service what its columns are for, and how its page shows them. @param {About} about */
export function know(about) {
  attributes = about.attributes;
  target = about.link_target;
  expert = about.expert;
}

export const isExpert = () => expert;

/** @param {string} name */
export const readable = (name) => name.replaceAll("_", " ");

/** @param {string} name */
export const roleOf = (name) => (Object.hasOwn(attributes, name) ? attributes[name].role : "attribute");

/** Whether a column is shown to filter by, and among the details. @param {string} name */
export const isShown = (name) => expert || !SILENT.includes(roleOf(name));

/** The columns that have prices, the one that a shopper pays first. @param {string[]} names */
function prices(names) {
  const place = (/** @type {string} */ name) => {
    const words = readable(name);
    if (REDUCED.test(words)) return 0;
    if (OTHER_PRICES.test(words)) return 3;
    return words === "price" ? 1 : 2;
  };
  return names.filter((name) => roleOf(name) === "price").sort((one, other) => place(one) - place(other));
}

/** Whether any product may have a price. */
export const havePrices = () => prices(Object.keys(attributes)).length > 0;

/** @param {Item} item @param {string} role @returns {string} its first value */
function valueOf(item, role) {
  for (const [name, value] of Object.entries(item.attributes))
    if (roleOf(name) === role && value !== "") return String(Array.isArray(value) ? value[0] : value);
  return "";
}

/** @param {Item} item */
export const titleOf = (item) => valueOf(item, "title");

/** The address of a product, if it is one that a browser may open from here. @param {Item} item @returns {string | null} */
export function linkOf(item) {
  const given = valueOf(item, "url").trim();
  if (!/^(?:https?:)?\/\//i.test(given)) return null;
  try {
    const address = new URL(given.startsWith("//") ? `https:${given}` : given);
    return ["http:", "https:"].includes(address.protocol) ? address.href : null;
  } catch {
    return null;
  }
}

/** A link to the product around `text`, or the text alone. @param {Item} item @param {string} text @param {string} [className] */
export function linked(item, text, className) {
  const href = linkOf(item);
  return href
    ? el("a", { href, target, rel: "noopener", class: className, text })
    : el("span", { class: className, text });
}

/** A cell of a price: its plain number, if it can be read in one way only, and its currency, if it tells one. @param {string} cell */
function readPrice(cell) {
  const [, before = "", digits, behind = ""] =
    /^\s*([^\d\s.,-]*)\s*(\d+(?:\.\d{1,2})?)\s*([^\d\s.,-]*)\s*$/u.exec(cell) ?? [];
  const sign = before || behind;
  const code = CODES.has(sign.toUpperCase()) ? sign.toUpperCase() : SIGNS[/** @type {"€"} */ (sign)];
  return digits === undefined || (sign && !code) ? null : { amount: Number(digits), code: code ?? "" };
}

/** The column of the price that a shopper pays. @param {Item} item */
const priceColumn = (item) => prices(Object.keys(item.attributes)).find((name) => item.attributes[name] !== "");

/** The price with its currency, as people of this language write it, or as the shop wrote it. @param {Item} item */
export function priceOf(item) {
  const name = priceColumn(item);
  if (name === undefined) return "";
  const value = item.attributes[name];
  const cell = String(Array.isArray(value) ? value[0] : value);
  const found = readPrice(cell);
  const named =
    readable(name)
      .toUpperCase()
      .split(/[^A-Z]+/)
      .find((part) => CODES.has(part)) ?? "";
  const own = valueOf(item, "currency").trim();
  const currency = found?.code || (CODES.has(own.toUpperCase()) ? own.toUpperCase() : named);
  let told = cell;
  if (found)
    told = currency
      ? number(found.amount, { style: "currency", currency })
      : number(found.amount, { minimumFractionDigits: cell.includes(".") ? 2 : 0 });
  if (found && !currency && own) told += ` ${own}`;
  return Array.isArray(value) && value.length > 1 ? word("product.from", { price: told }) : told;
}

/** The number to order by, or NaN. @param {Item} item */
export function amountOf(item) {
  const name = priceColumn(item);
  if (name === undefined) return NaN;
  const value = item.attributes[name];
  const digits = String(Array.isArray(value) ? value[0] : value).replace(/[^\d.,]/g, "");
  // The last sign parts the fraction where one or two digits follow it; all others part thousands.
  const [, whole, fraction = ""] = /^(.*?)(?:[.,](\d{1,2}))?$/.exec(digits) ?? ["", ""];
  const plain = whole.replace(/[.,]/g, "");
  return plain || fraction ? Number(`${plain || 0}.${fraction || 0}`) : NaN;
}

/** The attributes of a product, for a list of details: name and value. @param {Item} item @returns {[string, string][]} */
const detailsOf = (item) =>
  Object.entries(item.attributes)
    .filter(
      ([name, value]) =>
        (isShown(name) || roleOf(name) === "description") && String(value) !== "" && name !== priceColumn(item),
    )
    .map(([name, value]) => [
      readable(name),
      plain(Array.isArray(value) ? value.join(", ") : String(value), roleOf(name)),
    ]);

/** Shops write descriptions with tags; only their words are shown. @param {string} text @param {string} role */
const plain = (text, role) =>
  role === "description"
    ? text
        .replace(/<[^>]*>/g, " ")
        .replace(/\s+/g, " ")
        .trim()
    : text;

/** The details as a list. @param {Item} item @returns {HTMLElement} */
export function detailList(item) {
  const details = detailsOf(item);
  if (!details.length) return el("p", { class: "hint", text: word("card.no_details") });
  return el(
    "dl",
    { class: "details" },
    ...details.flatMap(([name, value]) => [el("dt", { text: name }), el("dd", {}, cut(value, word("more")))]),
  );
}

/** What the attributes say, in words. @param {Item} item */
function inWords(item) {
  const told = Object.entries(item.attributes)
    .filter(
      ([name, value]) =>
        !SILENT.includes(roleOf(name)) && roleOf(name) !== "price" && !["", "no", "none"].includes(String(value)),
    )
    .map(([name, value]) => {
      if (value === "yes") return word("product.with", { name: readable(name) });
      const text = (Array.isArray(value) ? value.join(", ") : String(value)).replaceAll("_", " ");
      return Number.isFinite(Number(text)) ? `${readable(name)} ${text}` : text;
    });
  return told.join(", ");
}

/** What a shopper calls a product: its title, or what it shows. @param {Item} item */
export const nameOf = (item) => titleOf(item) || inWords(item) || (expert ? item.id : word("product.unnamed"));

/** Title and attributes, instead of the picture. @param {Item} item */
export const describe = (item) =>
  [titleOf(item), inWords(item), item.sold_out ? word("product.sold_out") : ""].filter(Boolean).join(", ") ||
  nameOf(item);
