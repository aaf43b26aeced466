// Loads the page again once its numbers have changed; focus, opened tables and a half-written search stay as they were.
"use strict";

const foot = document.querySelector("[data-state]");
const kept = "flywheel-kept";

function restore() {
  const saved = JSON.parse(sessionStorage.getItem(kept) ?? "null");
  sessionStorage.removeItem(kept);
  if (!saved || saved.path !== location.pathname) return;
  for (const at of saved.opened) document.querySelectorAll("details")[at]?.setAttribute("open", "");
  for (const [id, value] of Object.entries(saved.written)) {
    const field = document.getElementById(id);
    if (field) field.value = value;
  }
  scrollTo(0, saved.top);
  focusable()[saved.focused]?.focus({ preventScroll: true });
}

function focusable() {
  return [...document.querySelectorAll("a[href], button, input, summary, [tabindex='0']")];
}

function leave() {
  const opened = [...document.querySelectorAll("details")].flatMap((each, at) => (each.open ? [at] : []));
  const fields = [...document.querySelectorAll("input[id]")];
  const written = Object.fromEntries(fields.map((field) => [field.id, field.value]));
  const focused = focusable().indexOf(document.activeElement);
  sessionStorage.setItem(kept, JSON.stringify({ path: location.pathname, opened, written, focused, top: scrollY }));
  location.reload();
}

if (foot) {
  restore();
  const says = document.getElementById("refresh-says");
  const button = document.getElementById("refresh");
  const of = foot.dataset.application ? `?application=${encodeURIComponent(foot.dataset.application)}` : "";
  let isOn = sessionStorage.getItem("flywheel-refresh") !== "off";

  const look = async () => {
    if (!isOn || document.hidden) return;
    try {
      const answer = await fetch(`/wheel-state${of}`);
      if (!answer.ok) return;
      // A field in use is left alone: the next look comes soon.
      const isWriting = document.activeElement instanceof HTMLInputElement;
      if ((await answer.json()).state !== foot.dataset.state && !isWriting) leave();
    } catch {
      says.textContent = "The service does not answer; trying again.";
    }
  };
  const show = () => {
    says.textContent = isOn ? "New numbers come by themselves." : "New numbers come when the page is loaded again.";
    button.textContent = isOn ? "Stop" : "Go on";
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    isOn = !isOn;
    sessionStorage.setItem("flywheel-refresh", isOn ? "on" : "off");
    show();
  });
  show();
  setInterval(look, 1000 * Number(foot.dataset.every));
  document.addEventListener("visibilitychange", look);
}
