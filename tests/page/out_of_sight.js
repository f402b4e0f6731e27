// Elements that reach beyond the window at its left or right, where nothing scrolls to them.
() => {
  const width = document.documentElement.clientWidth;
  const scrolls = (element) => element && (["auto", "scroll"].includes(getComputedStyle(element).overflowX)
    || scrolls(element.parentElement));
  const isOutside = ({ left, right }) => left < -1 || right > width + 1;
  return [...document.querySelectorAll("body *")]
    .filter((element) => element.checkVisibility() && !scrolls(element.parentElement))
    .filter((element) => !element.closest(".unseen, .skip, .sprite, [aria-hidden=true]"))
    .filter((element) => isOutside(element.getBoundingClientRect()))
    .map((element) => element.outerHTML.slice(0, 120));
}
