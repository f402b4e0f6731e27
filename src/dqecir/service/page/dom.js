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

/** Call `act` once calls have paused for `ms`; `cancel` drops a call that waits. @param {(...given: any[]) => void} act @param {number} ms */
export function debounced(act, ms) {
  let timer = 0;
  const later = (/** @type {any[]} */ ...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...given), ms);
  };
  later.cancel = () => clearTimeout(timer);
  return later;
}

const SHORT = 160;

/** A text of which a long one is cut visibly; a press shows the rest. @param {string} text @param {string} more  what the button says */
export function cut(text, more) {
  const signs = [...text];
  if (signs.length <= SHORT) return el("span", { text });
  const whole = el("span", {}, `${signs.slice(0, SHORT).join("")}… `);
  const button = el("button", {
    type: "button",
    class: "link",
    text: more,
    on: {
      click: () => {
        whole.textContent = text;
      },
    },
  });
  whole.append(button);
  return whole;
}
