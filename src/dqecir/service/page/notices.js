/** What a person is told beside the pictures: what is waited for, what went wrong, what has changed. */

import { busy, key } from "./api.js";
import { byId, el } from "./dom.js";
import { word } from "./words.js";

const SLOW_MS = 1500;

/** Say something to a screen reader. @param {string} sentence */
export function say(sentence) {
  byId("status").textContent = sentence;
}

/**
 * Show a problem and what can be done about it.
 * @param {string} sentence
 * @param {...[string, () => void]} ways  what a button says, and what it does
 */
export function showProblem(sentence, ...ways) {
  const buttons = ways.map(([text, act]) => el("button", { type: "button", class: "plain", text, on: { click: act } }));
  byId("problem").replaceChildren(el("p", { text: sentence }), ...buttons);
}

export const clearProblem = () => byId("problem").replaceChildren();

/** One thing is waited for at a time; a new one takes the old one's place. */
export class Waiting {
  /** @param {() => void} cancelled  called when a person cancels */
  constructor(cancelled) {
    this.cancelled = cancelled;
    this.place = byId("waiting");
    this.controller = new AbortController();
    this.timer = 0;
    this.overload = 0;
    busy.tell = (seconds) => {
      this.overload = seconds;
      this.show();
    };
  }

  /** @returns {AbortSignal} aborted when a person cancels or something newer begins */
  begin() {
    this.controller.abort();
    clearInterval(this.timer);
    this.controller = new AbortController();
    this.since = Date.now();
    this.overload = 0;
    this.place.replaceChildren();
    clearProblem();
    this.timer = setInterval(() => this.show(), 500);
    return this.controller.signal;
  }

  /** @param {AbortSignal} signal */
  end(signal) {
    if (signal !== this.controller.signal) return;
    clearInterval(this.timer);
    this.timer = 0;
    this.place.replaceChildren();
  }

  show() {
    const waited = Date.now() - (this.since ?? 0);
    if (!this.timer || (waited < SLOW_MS && !this.overload)) return;
    if (!this.place.firstChild) {
      const cancel = el("button", {
        type: "button",
        class: "plain",
        text: word("cancel"),
        on: { click: () => this.cancel() },
      });
      this.place.append(
        el("span", { class: "spinner", "aria-hidden": "true" }),
        el("p"),
        el("span", { class: "seconds", "aria-hidden": "true" }),
        cancel,
      );
    }
    const words = this.overload ? word("wait.busy", { n: this.overload }) : word("wait.slow");
    const told = /** @type {Element} */ (this.place.querySelector("p"));
    // Written only when it changes, so that a screen reader hears it once and not every second.
    if (told.textContent !== words) told.textContent = words;
    /** @type {Element} */ (this.place.querySelector(".seconds")).textContent = word("wait.seconds", {
      n: Math.round(waited / 1000),
    });
  }

  cancel() {
    const { signal } = this.controller;
    this.controller.abort();
    this.end(signal);
    this.cancelled();
  }
}

/** Ask for a key; `then` is called when one was given. @param {string} sentence @param {() => void} then */
export function askForKey(sentence, then) {
  const dialog = byId("key-dialog");
  byId("key-note").textContent = sentence;
  byId("key").value = "";
  byId("key-cancel").onclick = () => dialog.close();
  byId("key-form").onsubmit = () => {
    key.set(byId("key").value.trim());
    then();
  };
  if (!dialog.open) dialog.showModal();
}
