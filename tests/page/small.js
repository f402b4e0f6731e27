// Controls that are hard to hit with a finger; one within a text is as high as its line.
() => [...document.querySelectorAll("button:not(.link), summary, select, label.box, label.button")]
  .filter((control) => control.checkVisibility())
  .map((control) => [control.innerText || control.getAttribute("aria-label"), control.getBoundingClientRect()])
  .filter(([, box]) => box.width < 32 || box.height < 32).map(([name]) => name)
