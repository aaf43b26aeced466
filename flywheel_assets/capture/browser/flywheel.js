/* flywheel.js tells capture what a person does with a model's text; the guide is docs/clients.md.
<script src="https://capture.example/flywheel.js" data-application="assistant"></script>
flywheel.watch(document.querySelector("textarea"), { prompt, threadId }) */
(() => {
"use strict";
const HIGH_RATING = 0.8;
const RETRYABLE = [408, 429, 502, 503, 504];
const CLOSING_BYTES = 60000; // browsers carry 64 KiB over the end of a page
const MOST_WAITING = 500;
const MOST_THREADS = 100;
const TYPE = "application/cloudevents-batch+json";
const script = document.currentScript;
const config = { url: script && new URL(".", script.src).href, source: "browser", positiveShare: 0.01, ...script?.dataset };
const counts = { accepted: 0, refused: 0, dropped: 0, sampledOut: 0, onlyRead: 0 };
const watchers = new Map(); // by element
const regenerated = new WeakMap(); // by element, the watcher whose output another one replaces
const threads = new Map(); // thread id → the watcher of its last answer
const waiting = []; // events as JSON, not yet answered
let inFlight = 0, attempt = 0, timer = 0;

// The hash of clients/python/flywheel_client/sampling.py: a prediction is in the sample everywhere or nowhere.
function position(id) {
  let h = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(id)) h = Math.imul(h ^ byte, 0x01000193);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return ((h ^ (h >>> 16)) >>> 0) / 2 ** 32;
}

// crypto.randomUUID is missing on pages without TLS.
const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
const textOf = (element) => element.value ?? element.innerText;
const contentOf = ({ content }) =>
  typeof content === "string" ? content : (content ?? []).map((part) => part.text ?? `[${part.type}]`).join("\n");
const wellFormed = (_, value) => value?.toWellFormed?.() ?? value;

function endpoint() {
  const url = new URL(`v1/${encodeURIComponent(config.application)}/events`, config.url);
  if (config.key) url.searchParams.set("key", config.key); // a beacon carries no headers
  return url;
}

function batchFrom(start) {
  let end = start, size = 0;
  do size += waiting[end++].length; while (end < waiting.length && size + waiting[end].length < CLOSING_BYTES / 4);
  return [end, new Blob([`[${waiting.slice(start, end)}]`], { type: TYPE })];
}

async function pump() {
  if (inFlight || timer || !waiting.length) return;
  const [end, body] = batchFrom(0);
  inFlight = end;
  let pause_s;
  try {
    const answer = await fetch(endpoint(), { method: "POST", body, credentials: "omit", keepalive: body.size < CLOSING_BYTES });
    if (RETRYABLE.includes(answer.status)) pause_s = Number(answer.headers.get("retry-after")) || 0;
    else {
      const { accepted = 0 } = await answer.json().catch(() => ({}));
      counts.accepted += accepted;
      counts.refused += end - accepted;
      waiting.splice(0, end);
      attempt = 0;
    }
  } catch {
    pause_s = 0;
  }
  inFlight = 0;
  if (pause_s === undefined) return pump();
  pause_s += Math.random() * Math.min(30, 0.5 * 2 ** attempt++);
  timer = setTimeout(() => { timer = 0; pump(); }, pause_s * 1000);
}

function sendBeacons() {
  // What is in flight outlives the page by itself.
  for (let start = inFlight; start < waiting.length; ) {
    const [end, body] = batchFrom(start);
    if (navigator.sendBeacon(endpoint(), body)) waiting.splice(start, end - start);
    else start = end;
  }
}

class Watcher {
  constructor(element, options) {
    Object.assign(this, { element, options, shownAt: new Date(), given: new Map(), revisions: {}, sent: 0, name: newId() });
    this.predictionId = options.predictionId ?? newId();
    this.output = options.output ?? textOf(element);
    this.isText = typeof this.output === "string";
    this.text = this.sentText = this.shown = this.isText ? this.output : contentOf(this.output);
    this.listening = new AbortController();
    // In the capture phase: before the page's own handlers replace the text.
    const how = { capture: true, signal: this.listening.signal };
    const root = options.controls ?? element.closest("[data-flywheel-box]") ?? element.parentElement ?? element;
    // Only what the person types: a page that writes into the field itself fires no input event.
    element.addEventListener("input", () => this.edited(textOf(element)), how);
    element.addEventListener("copy", () => this.signal("copy"), how);
    element.closest("form")?.addEventListener("submit", () => this.signal("accept"), how);
    root.addEventListener("click", (event) => this.control(event), how);
    root.addEventListener("change", (event) => this.control(event), how);
  }

  control({ type, target }) {
    const control = target.closest("[data-flywheel]");
    const name = control?.dataset.flywheel;
    if (name === "rating") {
      if (type === "change") this.signal(name, { value: control.value / (control.max || control.dataset.max || 5) });
    } else if (type === "click" && name) {
      if (name === "undo" || name === "retract") this[name]();
      else if (name === "up" || name === "down") this.signal("thumb", { value: name === "up" ? 1 : -1 });
      else this.signal(name);
    }
  }

  edited(text) {
    this.text = text;
    this.editedAt = new Date();
  }

  undo() {
    this.edited(this.shown);
    this.save();
  }

  save() {
    this.checkpoint();
    pump();
  }

  signal(name, fields = {}) {
    this.given.set(name, { name, fields, at: new Date() });
    if (name === "regenerate") { // the next output is an interaction of its own
      regenerated.set(this.element, this);
      this.end();
    }
  }

  // Says what came instead: once the person takes the second answer, the two are a comparison.
  replacedBy(second) {
    if (!this.given.has("regenerate")) this.signal("regenerate");
    regenerated.delete(this.element);
    this.checkpoint();
    second.isSecond = true;
    const sibling = { sibling_id: second.predictionId, final_text: second.output };
    this.queue("regenerate", this.given.get("regenerate").at, { ...this.carried(), ...sibling });
    pump();
  }

  retract() {
    this.given.clear();
    this.sentText = this.text;
    this.queue("retract", new Date(), {});
    this.end();
    pump();
  }

  // An edit and a comparison do without their prediction.
  carried() {
    const { prompt, tools } = this.options;
    return { prompt, tools, original_output: this.output };
  }

  // A person who edits a message leaves its tool calls as they are.
  answer(text) {
    return this.isText ? text : { ...this.output, content: text };
  }

  // Queues what the interaction is worth so far and was not sent before.
  checkpoint() {
    const { text, output, options: { prompt, tools } } = this;
    const isEdited = text !== this.shown;
    const given = [...this.given.values()].filter(({ name }) => !isEdited || (name !== "copy" && name !== "accept"));
    const objects = ({ name, fields: { value } }) => name === "regenerate" || name === "comment"
      || (name === "thumb" && value < 0) || (name === "rating" && value < HIGH_RATING);
    const share = isEdited || this.isSecond || given.some(objects) ? 1 : Number(config.positiveShare);
    const fresh = position(this.predictionId) < share ? given.filter((signal) => !signal.isSent) : [];
    if (fresh.length && !this.isLogged) this.queue("", this.shownAt, { prompt, tools, output });
    for (const signal of fresh) {
      signal.isSent = this.isLogged = true;
      const final_text = isEdited && (signal.name === "thumb" || signal.name === "rating") ? this.answer(text) : undefined;
      this.queue(signal.name, signal.at, { ...signal.fields, final_text, sampling_probability: share });
    }
    if (text !== this.sentText) this.queue("edit", this.editedAt, { ...this.carried(), final_text: this.answer(text) });
    this.sentText = text;
  }

  queue(signal, at, fields) {
    const { threadId, userId, userToken, modelVersion, doNotTrain } = this.options;
    const data = {
      prediction_id: this.predictionId, signal: signal || undefined, thread_id: threadId, user_id: userId, user_token: userToken,
      model_version: modelVersion, do_not_train: doNotTrain, ...fields,
    };
    const type = `flywheel.${signal ? "feedback" : "prediction"}`;
    // One statement per signal of one visit: what is sent again is its next revision.
    if (signal) data.revision = this.revisions[signal] = (this.revisions[signal] ?? 0) + 1;
    const id = signal ? `${this.predictionId}/${signal}/${this.name}` : `${this.predictionId}/prediction`;
    this.sent++;
    const event = { specversion: "1.0", type, source: config.source, id, time: at, data };
    if (waiting.length < MOST_WAITING) waiting.push(JSON.stringify(event, wellFormed));
    else counts.dropped++;
  }

  end() {
    if (watchers.get(this.element) !== this) return;
    watchers.delete(this.element);
    this.listening.abort();
    this.checkpoint();
    if (!this.sent) counts[this.given.size ? "sampledOut" : "onlyRead"]++;
    pump();
  }
}

const checkpoint = () => watchers.forEach((watcher) => watcher.checkpoint());
addEventListener("pagehide", () => { checkpoint(); sendBeacons(); });
document.addEventListener("visibilitychange", () => {
  // On a telephone a page in the background may never hear of its end.
  if (document.visibilityState === "hidden") { checkpoint(); pump(); }
});

window.flywheel = {
  counts,
  configure: (options) => Object.assign(config, options),
  watch(element, options = {}) {
    if (!element) console.warn("flywheel: there is no such element to watch");
    element ??= document.createElement("p"); // a product must not fail over its telemetry
    watchers.get(element)?.end();
    const watcher = new Watcher(element, options);
    watchers.set(element, watcher);
    const { threadId, prompt } = options;
    if (threadId !== undefined) {
      threads.delete(threadId);
      threads.set(threadId, watcher);
      if (threads.size > MOST_THREADS) threads.delete(threads.keys().next().value);
    }
    const before = regenerated.get(element);
    regenerated.delete(element);
    const isSamePrompt = before && JSON.stringify(before.options.prompt) === JSON.stringify(prompt);
    (options.regenerates ?? (isSamePrompt ? before : null))?.replacedBy(watcher);
    return watcher;
  },
  choose(preferred, other) {
    const sibling = { sibling_id: other.predictionId, final_text: preferred.output, original_output: other.output };
    preferred.queue("choice", new Date(), { ...preferred.carried(), ...sibling });
    pump();
  },
  conversation(threadId, name, fields) {
    const last = threads.get(threadId);
    if (!last) return console.warn("flywheel: no answer of this conversation was watched; call watch with its threadId first");
    last.signal(name, fields);
    last.save();
  },
};
})();
