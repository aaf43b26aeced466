// Keys for what the page can do without them: every key presses a button, follows a link or focuses a field of the page.
"use strict";

let isLeaving = false; // a key held down, or pressed while the next page loads, must not decide about two rows
addEventListener("pageshow", () => { isLeaving = false; });
addEventListener("submit", (event) => {
  if (isLeaving) event.preventDefault();
  isLeaving = true;
});

addEventListener("keydown", (event) => {
  const field = event.target.closest("textarea, input:not([type=checkbox])");
  if (field) {
    if (event.key === "Escape") field.blur();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && field.form) {
      event.preventDefault();
      field.form.requestSubmit(field.form.querySelector("button"));
    }
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.isComposing || isLeaving) return;
  const target = [...document.querySelectorAll("[data-key]")].find((each) => each.dataset.key === event.key);
  if (target) {
    event.preventDefault();
    if (target.matches("textarea")) target.focus();
    else target.click();
  } else {
    moveInQueue(event);
  }
});

function moveInQueue(event) {
  const rows = [...document.querySelectorAll("[data-row]")];
  const at = rows.findIndex((row) => row.contains(document.activeElement));
  if (event.key === "x" && at >= 0) rows[at].querySelector("input").click();
  const step = { j: 1, k: -1 }[event.key];
  if (!step || !rows.length) return;
  const to = at < 0 ? 0 : Math.min(Math.max(at + step, 0), rows.length - 1);
  rows[to].querySelector("a").focus();
}
