/** A product in full: its picture, which can be made larger, its further pictures, and the way to the product. */

import { showPicture } from "./api.js";
import { byId, el, icon } from "./dom.js";
import { describe, detailList, linked, linkOf, nameOf, priceOf } from "./product.js";
import { word } from "./words.js";

/** @import { Item } from "./types.js" */

const LARGE = 1024;
const SMALL = 96;

/** Show a product over the page. @param {Item} item @param {() => void} similar  called when a person searches on from it */
export function showProduct(item, similar) {
  const dialog = byId("viewer");
  const picture = el("img", { alt: describe(item) });
  const zoom = el(
    "button",
    { type: "button", class: "frame zoom", "aria-label": word("viewer.zoom"), "aria-pressed": "false" },
    picture,
  );
  zoom.addEventListener("click", (/** @type {MouseEvent} */ event) => {
    const large = zoom.classList.toggle("large");
    zoom.setAttribute("aria-pressed", String(large));
    // The place that was pressed stays in sight.
    const { left, top, width, height } = zoom.getBoundingClientRect();
    const [x, y] = event.detail ? [(event.clientX - left) / width, (event.clientY - top) / height] : [0.5, 0.5];
    zoom.scrollTo((zoom.scrollWidth - width) * x, (zoom.scrollHeight - height) * y);
  });
  const views = [item.id, ...(item.views ?? [])].map((id, place) => {
    const small = el("img", { alt: "" });
    showPicture(small, id, SMALL);
    return el(
      "button",
      {
        type: "button",
        class: "view",
        "aria-label": word("viewer.view", { n: place + 1 }),
        on: { click: () => show(place) },
      },
      small,
    );
  });
  function show(/** @type {number} */ place) {
    zoom.classList.remove("large", "broken");
    zoom.setAttribute("aria-pressed", "false");
    views.forEach((view, at) => view.setAttribute("aria-pressed", String(at === place)));
    showPicture(picture, place ? (item.views?.[place - 1] ?? item.id) : item.id, LARGE);
  }
  const close = el(
    "button",
    { type: "button", class: "quiet close", "aria-label": word("viewer.close"), on: { click: () => dialog.close() } },
    icon("close"),
  );
  const again = () => {
    dialog.close();
    similar();
  };
  dialog.replaceChildren(
    close,
    el(
      "div",
      { class: "viewed" },
      el(
        "div",
        { class: "pictures" },
        zoom,
        views.length > 1
          ? el("div", { class: "others", role: "group", "aria-label": word("viewer.views") }, ...views)
          : null,
      ),
      el(
        "div",
        { class: "facts" },
        el("h2", { text: nameOf(item) }),
        item.sold_out ? el("p", { class: "gone", text: word("product.sold_out") }) : null,
        priceOf(item) ? el("p", { class: "price", text: priceOf(item) }) : null,
        el(
          "div",
          { class: "row" },
          linkOf(item) ? linked(item, word("viewer.link"), "button primary") : null,
          el("button", { type: "button", class: "plain", text: word("card.again"), on: { click: again } }),
        ),
        detailList(item),
      ),
    ),
  );
  show(0);
  if (!dialog.open) dialog.showModal();
}
