"use strict";
// The tooltip of a mark appears beside the pointer, or beside the finger that touches the mark.
const tip = document.getElementById("tip");
function show(event) {
  const mark = event.target instanceof Element ? event.target.closest("[data-tip]") : null;
  tip.hidden = mark === null;
  if (mark === null) return;
  tip.textContent = mark.getAttribute("data-tip");
  const box = tip.getBoundingClientRect();
  const rightmost = document.documentElement.clientWidth - box.width - 4;
  tip.style.left = Math.max(4, Math.min(event.clientX + 12, rightmost)) + "px";
  tip.style.top = Math.max(4, event.clientY - box.height - 12) + "px";
}
for (const kind of ["pointermove", "pointerdown"]) document.addEventListener(kind, show, {passive: true});
document.addEventListener("scroll", () => { tip.hidden = true; }, {passive: true});
