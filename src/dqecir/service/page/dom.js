/**
 * Make an element.
 *
 * `properties` are set as attributes; `on` holds listeners, `text` the text, and a property that is
 * null or false is left out.
 * @param {string} tag
 * @param {Object<string, any>} [properties]
 * @param {...(Node | string | null)} children
 * @returns {any}
 */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, listen] of Object.entries(value)) made.addEventListener(event, listen);
    else if (name === "text") made.textContent = value;
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** @param {string} id @returns {any} */
export const byId = (id) => document.getElementById(id);

/** A drawing of the sprite in index.html; it says nothing to a screen reader. @param {string} name */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** Call `act` once calls have paused for `ms`. @param {(...given: any[]) => void} act @param {number} ms */
export function debounced(act, ms) {
  let timer = 0;
  return (/** @type {any[]} */ ...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...given), ms);
  };
}

const PRICES = /\b(?:prices?|cost|rrp|msrp)\b/;

/** A value, or what several come to: the price from which a product is sold, all of others. @param {string} name @param {string | string[]} value */
const told = (name, value) => !Array.isArray(value) ? value : PRICES.test(readable(name)) ? `from ${value[0]}` : value.join(", ");

/** What a picture shows, in words. @param {{id: string, attributes: Object<string, string | string[]>}} item */
export function describe(item) {
  const said = Object.entries(item.attributes).map(([name, value]) => /** @type {const} */ ([name, told(name, value)])).filter(([, value]) => !["", "no", "none"].includes(String(value)));
  const words = said.map(([name, value]) =>
    value === "yes" ? `with ${name}` : Number.isFinite(Number(value)) ? `${name} ${value}` : String(value),
  );
  if (item.sold_out) words.push("sold out");
  return words.length ? words.join(", ").replaceAll("_", " ") : item.id;
}

/** @param {string} name */
export const readable = (name) => name.replaceAll("_", " ");
