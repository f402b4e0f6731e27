/** Pictures of a person's own: chosen, dropped, pasted or photographed. */

import { byId } from "./dom.js";

const LONGEST = 1280;
const LIGHT = 1_500_000;
/** Kinds that every service reads; others that the browser can read are sent as one of them. */
const COMMON = ["image/jpeg", "image/png", "image/webp"];

/**
 * Listen for pictures everywhere on the page.
 * @param {(picture: File) => void} given
 */
export function listen(given) {
  for (const id of ["file", "camera"]) {
    const field = byId(id);
    field.addEventListener("change", () => {
      if (field.files[0]) given(field.files[0]);
      field.value = "";
    });
  }
  const zone = document.documentElement;
  let depth = 0;
  const over = (/** @type {number} */ change) => {
    depth = Math.max(0, depth + change);
    document.body.classList.toggle("dropping", depth > 0);
  };
  const carries = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes("Files");
  zone.addEventListener("dragenter", (event) => carries(event) && over(1));
  zone.addEventListener("dragleave", (event) => carries(event) && over(-1));
  zone.addEventListener("dragover", (event) => carries(event) && event.preventDefault());
  zone.addEventListener("drop", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    depth = 0;
    over(0);
    const file = event.dataTransfer?.files[0];
    if (file) given(file);
  });
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])][0];
    if (!file) return;
    event.preventDefault();
    given(file);
  });
}

/**
 * The picture as it is sent: a heavy photo is made smaller here, because phones have slow lines and the model
 * looks at few pixels. What the browser cannot read goes as it is, for the service to judge.
 * @param {Blob} file
 * @returns {Promise<{picture: Blob, isRead: boolean}>} whether the browser could read it
 */
export async function lightened(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return { picture: file, isRead: false };
  }
  const scale = LONGEST / Math.max(bitmap.width, bitmap.height);
  if (scale >= 1 && file.size <= LIGHT && COMMON.includes(file.type)) return { picture: file, isRead: true };
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * Math.min(1, scale)));
  canvas.height = Math.max(1, Math.round(bitmap.height * Math.min(1, scale)));
  const painter = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  // JPEG knows no transparency; the service, too, lays pictures on white.
  painter.fillStyle = "#fff";
  painter.fillRect(0, 0, canvas.width, canvas.height);
  painter.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) =>
    canvas.toBlob((made) => resolve({ picture: made ?? file, isRead: true }), "image/jpeg", 0.92),
  );
}
