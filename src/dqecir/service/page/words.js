/** The texts of the page, from one file a language. The browser's languages choose the file. */

const LANGUAGES = ["en", "de"];

/** @type {Object<string, string | Object<string, string>>} */
let table = {};
let language = LANGUAGES[0];
let numbers = new Intl.NumberFormat(language);
let plurals = new Intl.PluralRules(language);

/** Read the texts in the first language that there is a file for. @param {readonly string[]} wanted  such as ["de-AT", "en"] */
export async function speak(wanted) {
  const primary = wanted.map((tag) => tag.toLowerCase().split("-")[0]);
  language = primary.find((tag) => LANGUAGES.includes(tag)) ?? LANGUAGES[0];
  const locale = wanted.find((tag) => tag.toLowerCase().split("-")[0] === language) ?? language;
  numbers = new Intl.NumberFormat(locale);
  plurals = new Intl.PluralRules(language);
  table = await (await fetch(new URL(`words.${language}.json`, import.meta.url))).json();
}

export const spoken = () => language;

/** A number as people of this language write it. @param {number} value @param {Intl.NumberFormatOptions} [options] */
export const number = (value, options) =>
  options ? new Intl.NumberFormat(numbers.resolvedOptions().locale, options).format(value) : numbers.format(value);

/**
 * A text of the page. `{name}` in it stands for a value; of a text with several forms, `n` chooses one.
 * @param {string} key @param {Object<string, string | number>} [values]
 */
export function word(key, values = {}) {
  const found = table[key];
  const text = typeof found === "object" ? (found[plurals.select(Number(values.n))] ?? found.other) : found;
  return text.replace(/\{(\w+)\}/g, (_, name) =>
    typeof values[name] === "number" ? number(values[name]) : values[name],
  );
}

/** The text of a key if there is one. @param {string} key @param {string} otherwise */
export const wordOr = (key, otherwise) => (Object.hasOwn(table, key) ? word(key) : otherwise);

/** Write the texts that elements name by `data-words` (content) and `data-words-…` (an attribute). @param {ParentNode} root */
export function fillIn(root) {
  for (const element of root.querySelectorAll("*"))
    for (const { name, value } of [...element.attributes])
      if (name === "data-words") element.textContent = word(value);
      else if (name.startsWith("data-words-")) element.setAttribute(name.slice("data-words-".length), word(value));
}
