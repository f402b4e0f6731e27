/** How the text was read: a chip for each request, which a click takes back, and what had no effect. */

import { byId, el, icon } from "./dom.js";
import { readable } from "./product.js";
import { number as written, word, wordOr } from "./words.js";

/** @import { SearchReply } from "./types.js" */

const BETWEEN = "[\\s\\p{P}]*";
const LOOSE = /^(?:\s*(?:\b(?:and|but|now)\b|[,;])\s*)+|(?:\s*(?:\b(?:and|but|in|now|with)\b|[,;])\s*)+$/giu;

/** @param {string} words */
const pattern = (words) =>
  words
    .split(/\s+/u)
    .map((word) => word.replace(/[.*+?^${}()|[\]\\]/gu, "\\$&"))
    .join(BETWEEN);

/** Where words are in a text, as whole words; a regular expression. @param {string} words */
export const spot = (words) => `(?<![\\p{L}\\p{N}])${pattern(words)}(?![\\p{L}\\p{N}])`;

/** The text without some of its words, and without what joined them to others. @param {string} text @param {string} words */
export const without = (text, words) =>
  text
    .replace(new RegExp(spot(words), "iu"), " ")
    .replace(/\s+(?=[,;])/gu, "")
    .replace(/(\s*\b(?:and|but)\b|\s*[,;])(?:\s*\b(?:and|but)\b|\s*[,;])+/giu, "$1")
    .replace(/\s+/gu, " ")
    .replace(LOOSE, "")
    .trim();

/** @param {string} text @param {string} word @param {string} by */
const replaced = (text, word, by) => text.replace(new RegExp(spot(word), "iu"), by);

/** @param {{attribute: string, order: string, number: number | null}} bound */
const bounded = ({ attribute, order, number }) =>
  number === null
    ? word("reading.unknown", { attribute: readable(attribute) })
    : `${readable(attribute)} ${order} ${written(number)}`;

/**
 * What was understood, and the words that say it.
 * @param {SearchReply} reply @returns {{told: string, words: string}[]}
 */
const understoodOf = ({ asked, bounds, searched }) => [
  ...asked.map(({ attribute, value, words }) => ({
    told: value ? word("reading.value", { attribute: readable(attribute), value }) : readable(attribute),
    words,
  })),
  ...bounds.map((bound) => ({ told: bounded(bound), words: bound.words })),
  ...searched.words.map((words) => ({
    told: word("reading.searched", { columns: searched.columns.map(readable).join(", "), word: words }),
    words,
  })),
];

/** Words that had no effect. @param {SearchReply} reply */
const idleOf = ({ unread, searched }) => unread.filter((word) => !searched.words.includes(word));

/**
 * Show how the text of a turn was read.
 * @param {SearchReply} reply @param {string} text
 * @param {(text: string) => void} ask  search again with another text
 */
export function showReading(reply, text, ask) {
  const again = (/** @type {string} */ next) => {
    ask(next);
    byId("results").focus({ preventScroll: true });
  };
  const understood = (/** @type {{told: string, words: string}} */ { told, words }) =>
    words
      ? el(
          "button",
          {
            type: "button",
            class: "chip understood",
            "aria-label": word("reading.take_back", { told, words }),
            on: { click: () => again(without(text, words)) },
          },
          el("span", { text: told }),
          icon("close"),
        )
      : el("span", { class: "chip understood", text: told });
  const chips = [
    ...understoodOf(reply).map(understood),
    ...idleOf(reply).map((text) =>
      el(
        "span",
        { class: "chip unread" },
        el("s", { text }),
        el("span", { class: "unseen", text: word("reading.no_effect") }),
      ),
    ),
    ...reply.corrections.map(({ word: slip, read_as: by }) =>
      el(
        "button",
        { type: "button", class: "chip", on: { click: () => again(replaced(text, slip, by)) } },
        el("span", { text: word("reading.did_you_mean", { word: by }) }),
        el("span", { class: "unseen", text: word("reading.did_you_mean.of", { word: slip }) }),
      ),
    ),
  ];
  byId("reading").replaceChildren(...chips.map((chip) => el("li", {}, chip)));
  byId("reading").hidden = !chips.length;
  byId("reading-note").textContent = notesOf(reply, text).join(" ");
}

/** Sentences about the whole text, and about requests that no product fulfils. @param {SearchReply} reply @param {string} text */
function notesOf({ lacking, nowhere, language, alike, no_text: noText, searched, decided_by: decidedBy }, text) {
  return [
    language !== "English" && word("reading.language", { language: wordOr(`language.${language}`, language) }),
    ...lacking.map(({ attribute, words }) => word("reading.lacking", { attribute: readable(attribute), words })),
    ...nowhere.map(({ attribute, value }) =>
      word("reading.nowhere", { attribute: readable(attribute), value: value ?? "" }),
    ),
    noText && `${noText[0].toUpperCase()}${noText.slice(1)}.`,
    alike && decidedBy === null && text && word("reading.alike"),
    decidedBy && decided(decidedBy, searched.columns),
  ].filter(Boolean);
}

/** What the chips show, in sentences. @param {SearchReply} reply */
export function chipsInWords(reply) {
  const [understood, idle] = [understoodOf(reply), idleOf(reply)];
  return [
    ...(understood.length
      ? [word("reading.understood", { parts: understood.map(({ told }) => told).join(", ") })]
      : []),
    ...reply.corrections.map(({ word: slip, read_as: by }) => word("reading.read_as", { word: slip, by })),
    ...(idle.length ? [word("reading.idle", { words: idle.join(", ") })] : []),
  ];
}

/** All that has to be said of how a text was read, where there are no chips. @param {SearchReply} reply @param {string} text */
export const sentencesOf = (reply, text) => [...chipsInWords(reply), ...notesOf(reply, text)];

/** What decided a search by words alone, as the service names it; all else are words of columns. @type {Object<string, () => string>} */
const DECIDING = {
  "requested values": () => word("decided.values"),
  numbers: () => word("decided.numbers"),
  "the embedding of the text": () => word("decided.meaning"),
};

/** @param {string[]} parts  what decided @param {string[]} columns  whose texts were searched @returns {string} */
function decided(parts, columns) {
  const told = parts.map((part) => DECIDING[part]?.() ?? word("decided.words", { columns: listed(columns) }));
  return told.length ? word("reading.decided", { parts: listed(told) }) : word("reading.undecided");
}

/** @param {string[]} names */
const listed = (names) => names.map(readable).join(word("nothing.and"));

/** Nothing is searched for by words. */
export function forgetReading() {
  byId("reading").replaceChildren();
  byId("reading").hidden = true;
  byId("reading-note").textContent = "";
}
