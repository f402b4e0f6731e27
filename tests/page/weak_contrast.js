// Texts that stand out from their ground by less than 4.5 : 1 (WCAG AA), and how many were looked at.
() => {
  const parsed = (text) => (text.match(/[\d.]+/g) ?? []).map(Number);
  const luminance = (rgb) => {
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = rgb.map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const over = (top, below) => top.slice(0, 3).map((c, i) => c * (top[3] ?? 1) + below[i] * (1 - (top[3] ?? 1)));
  const ground = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const colour = parsed(getComputedStyle(at).backgroundColor);
      if ((colour[3] ?? 1) > 0) layers.push(colour);
      if ((colour[3] ?? 1) === 1) break;
    }
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const weak = [];
  let seen = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility({ visibilityProperty: true })) continue;
    if (element.closest(".unseen, .skip, .drop, noscript")) continue;
    const below = ground(element);
    const ink = over(parsed(getComputedStyle(element).color), below);
    const [light, dark] = [luminance(ink), luminance(below)].sort((a, b) => b - a);
    seen += 1;
    if ((light + 0.05) / (dark + 0.05) < 4.5) weak.push(`${element.className || element.tagName}: ${walker.currentNode.textContent.trim()}`);
  }
  return [seen, [...new Set(weak)]];
}
