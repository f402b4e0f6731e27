/**
 * The shapes that travel between the page and the service, for editors and readers; nothing runs here.
 *
 * @typedef {{id: string, attributes: Object<string, string | string[]>, sold_out: boolean, image: string, product?: string, views?: string[]}} Item
 * How many items have a number in each of the equal parts between least and most.
 * @typedef {{least: number, most: number, counts: number[]}} Numbers
 * @typedef {{values: string[] | null, numeric: boolean, role: string, numbers: Numbers | null}} Attribute
 * @typedef {{name: string, title: string}} Method
 * What boxes and ranges say of one attribute, and of each.
 * @typedef {{values?: string[], least?: number, most?: number}} Condition
 * @typedef {Object<string, Condition>} Chosen
 * @typedef {Object} About
 * @property {string} version
 * @property {number} items
 * @property {number} [pictures]  where products, which are the items, may have several
 * @property {string} model
 * @property {Method[]} methods
 * @property {Object<string, Attribute>} attributes
 * @property {string[]} weights  names of attributes that have a slider
 * @property {boolean} has_sold_out  whether any item is sold out
 * @property {boolean} expert  whether scores, times and ids are shown
 * @property {string} link_target  where links to products open
 * @property {boolean} can_edit
 * @property {string} edit_note
 * @property {boolean} can_write
 * @property {{read: boolean, write: boolean}} key_needed
 * @property {{bytes: number, pixels: number, k: number, text: number, weight: number, references: number}} limits
 *
 * @typedef {{attribute: string, share: number}} Spoke
 * @typedef {Item & {score: number, spoke: Spoke[]}} Answer
 * @typedef {Object} SearchReply
 * @property {Answer[]} answers
 * @property {Object<string, number>} attribute_weights  as used
 * @property {Object<string, number>} own_weights  as the text decided
 * @property {{attribute: string, value: string | null, words: string}[]} asked
 * @property {{attribute: string, order: string, number: number | null, words: string}[]} bounds
 * @property {string[]} unread  words that nothing accounts for
 * @property {{words: string[], columns: string[]}} searched  unread words that texts of items were searched for
 * @property {string} no_text  why the index has no texts to search
 * @property {{word: string, read_as: string}[]} corrections
 * @property {{attribute: string, order: string, number: number | null, words: string}[]} lacking  of columns that no item has
 * @property {string} language  of the text
 * @property {boolean} alike  no request was found in the text
 * @property {string[]} filters  that were applied, as expressions
 * @property {number | null} sold_out_hidden  sold-out items that were left out; null: not counted
 * @property {string[] | null} decided_by  what decided a search by text alone; null: a search with a picture
 * @property {{attribute: string, value: string | null, words: string}[]} nowhere  requests that no item fulfils
 * @property {string} together  what this turn and earlier ones ask for; empty: a single turn
 * @property {string[][]} taken_back  of each of several turns, words that no longer count because of later ones
 * @property {string} sentence  how the text was read, in one line of English
 * @property {Object<string, number>} timings  step to milliseconds
 * @property {number} took_ms
 * @property {string} method
 * @property {number} generation
 *
 * @typedef {{rows: number, columns: number, values: number[]}} HeatMap
 *
 * One turn of a search; what is left out is at its default.
 * @typedef {Object} Turn
 * @property {string} text
 * @property {Object<string, number>} weights  empty: as the text decides
 * @property {string[]} also  items that are references, too
 * @property {string[]} more
 * @property {string[]} less
 * @property {Chosen} filters  of boxes and ranges
 * @property {string} where  an expression typed by hand, empty: none
 * @property {boolean} soldOut  whether sold-out products are shown, too
 * @property {string} order  "cheap" or "dear" orders the best by price; empty: the best first
 * @property {string} method  empty: the service's first
 * @property {string} against  a second method to compare with, empty: none
 * @property {string} picked  the answer that became the next turn's reference
 *
 * A reference is an item of the index or a picture that was uploaded in this tab.
 * @typedef {{item: string | null, upload: string | null, turns: Turn[]}} Trail
 */
export {};
