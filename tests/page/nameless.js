// Controls that a screen reader could not name.
() => [...document.querySelectorAll("button, input, select, a, summary, dialog, [role]")]
  .filter((control) => control.checkVisibility())
  .filter((control) => !["status", "alert", "presentation"].includes(control.getAttribute("role")))
  .filter((control) => {
    const by = control.getAttribute("aria-labelledby");
    const name = control.getAttribute("aria-label") || (by && document.getElementById(by)?.textContent)
      || [...(control.labels ?? [])].map((label) => label.innerText).join(" ") || control.innerText;
    return !name?.trim();
  }).map((control) => control.outerHTML)
