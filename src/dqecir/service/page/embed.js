/**
 * The search on a shop's own page: one script tag, which this file follows with an element of its own.
 * What the tag may say stands in docs/embedding.md.
 */
(() => {
  const script = /** @type {HTMLScriptElement} */ (document.currentScript);
  const host = document.createElement("div");
  const place = script.dataset.into ? document.querySelector(script.dataset.into) : null;
  if (place) place.append(host);
  else script.after(host);
  import(new URL("embedded.js", script.src).href).then(
    ({ embed }) => embed(host, script.dataset),
    () => console.warn(`dqecir: ${location.origin} is not allowed`),
  );
})();
