// Controls that are hard to hit with a finger.
() => [...document.querySelectorAll("button, summary, select, label.box, label.button")]
  .filter((control) => control.checkVisibility())
  .map((control) => [control.innerText || control.getAttribute("aria-label"), control.getBoundingClientRect()])
  .filter(([, box]) => box.width < 32 || box.height < 32).map(([name]) => name)
