/** Heat maps of where the query looked. */

import { el } from "./dom.js";

/** @import { HeatMap } from "./types.js" */

/** What was looked at glows; what was not lies in shade. @param {number} value 0..1 @returns {number[]} RGBA */
function colour(value) {
  if (value < 0.5) return [20, 22, 60, 150 - 220 * value];
  const warmth = (value - 0.5) * 2;
  return [255, 150 - 90 * warmth, 20, 40 + 150 * warmth];
}

/** @param {HeatMap} map @returns {HTMLCanvasElement} */
export function drawn(map) {
  const canvas = el("canvas", { class: "heat", width: map.columns, height: map.rows, "aria-hidden": "true" });
  const painter = canvas.getContext("2d");
  const pixels = painter.createImageData(map.columns, map.rows);
  map.values.forEach((value, place) => pixels.data.set(colour(value), 4 * place));
  painter.putImageData(pixels, 0, 0);
  return canvas;
}

/**
 * Lay a map over the picture in `frame`, or take the one there away. The picture stands whole in the middle of a
 * square frame, and a map covers the picture alone.
 * @param {Element} frame @param {HeatMap | null} map
 */
export function lay(frame, map) {
  frame.querySelector(".heat")?.remove();
  if (!map) return;
  const picture = /** @type {HTMLImageElement} */ (frame.querySelector("img"));
  const slender = picture.naturalWidth / picture.naturalHeight || 1;
  const canvas = drawn(map);
  canvas.style.width = `${100 * Math.min(1, slender)}%`;
  canvas.style.height = `${100 * Math.min(1, 1 / slender)}%`;
  frame.append(canvas);
}
