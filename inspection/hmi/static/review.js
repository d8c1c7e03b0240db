// The review page: parts come ahead of time, one key or tap decides each, and no decision is lost (review_keep.js).
import { send, toast as say, token } from "/static/send.js";
import { Keep, random, within } from "/static/hmi/review_keep.js";
import { showKept } from "/static/hmi/review_kept.js";
import { Stage, fill, load, make, showFacts, unload, word } from "/static/hmi/review_show.js";

const AHEAD = 5;              // parts loaded beyond the one on the screen
const RENEW_MS = 30000;       // the lease lasts 120 s
const IDLE_MS = 15 * 60000;   // after so long without a touch the parts are given back
const LEAST_MS = 250;         // a picture on the screen for less was not looked at: a bounced key
const LIMIT_MS = 10000, FIRST_MS = 500, LONGEST_MS = 5000;
const UNDOABLE = 50, KEPT = 3;  // decisions that can be undone, and those of them whose pictures stay in memory
const KEYS = {
  1: "confirmed", c: "confirmed", 2: "false_call", f: "false_call", 3: "escape", e: "escape", 4: "unsure", u: "unsure",
  z: "undo", backspace: "undo", escape: "keep", b: "blink", h: "heat", o: "outlines", m: "comment",
};

const at = (id) => document.getElementById(id);
const root = at("review");
const words = JSON.parse(root.dataset.words);
const seat = random();
const stage = new Stage(words, toast, settled);
const parts = new Map();      // record id -> part
const decided = new Set();    // record ids decided here
const history = [];           // {part, choice}, the latest last
const undone = [];            // those gone back over, the latest first
let queue = [], current = null, shownAt = Infinity, counts = null, paused = false, lastInput = performance.now();
let asking = false, again = false, pause = FIRST_MS, timer = 0, offline = "";

const keep = new Keep(root.dataset.person, showKeeping);

function toast(text) {
  say(text);
  setTimeout(() => say(""), 3000);
}

// ---- parts

async function refill() {
  clearTimeout(timer);
  if (paused) return;
  if (asking) { again = true; return; }
  asking = true;
  try {
    const count = AHEAD + 1 + keep.entries.size;
    const answer = await within(LIMIT_MS, send("/review/parts", { seat, count: Math.min(count, 100), known: known() }));
    asking = false;
    offline = "";
    pause = FIRST_MS;
    take(answer);
    if (keep.trouble === "offline") keep.send();
    timer = setTimeout(renew, !answer.caught_up || (!current && stillLooking()) ? FIRST_MS : RENEW_MS);
  } catch (error) {
    offline = error.status ? error.message : words.no_connection;
    timer = setTimeout(refill, pause);
    pause = Math.min(LONGEST_MS, pause * 2);
    if (!current) showEmpty();
  } finally {
    asking = false;
    if (again) { again = false; refill(); }
  }
}

const known = () => [...new Set([...queue, ...(current ? [current] : [])])].slice(0, 100).map((part) => part.record_id);

function take(answer) {
  counts = answer;
  for (const part of answer.parts) parts.set(part.record_id, part);
  const open = answer.held.filter((id) => parts.has(id) && !decided.has(id) && !keep.has(id));
  if (current && !current.reopened && !open.includes(current.record_id)) {
    current = null;
    toast(words.taken);
  }
  queue = open.filter((id) => id !== current?.record_id).map((id) => parts.get(id));
  for (const id of parts.keys()) {
    if (!answer.held.includes(id) && id !== current?.record_id && !history.some((one) => one.part.record_id === id)) parts.delete(id);
  }
  if (!current) next();
  loadAhead();
  showWaiting();
}

async function loadAhead() {
  for (const part of [current, ...queue.slice(0, AHEAD)]) if (part) await load(part, words);
}

function renew() {
  if (performance.now() - lastInput > IDLE_MS && !keep.entries.size) {
    paused = true;
    current = null;
    queue = [];
    release();
    showEmpty();
  } else {
    refill();
  }
}

function release() {
  navigator.sendBeacon("/review/release", new URLSearchParams({ seat, csrf_token: token() }));
}

function next() {
  current = queue.shift() ?? null;
  show();
}

// ---- what the person does

function decide(choice) {
  if (!current || !current.choices.includes(choice)) return;
  if (shownAt === Infinity) { toast(words.no_picture_yet); return; }
  if (performance.now() - shownAt < LEAST_MS) { toast(words.too_quick); return; }
  if (choice === "confirmed" && current.verdict === "OK" && !seen(current)) { toast(words.not_seen); return; }
  const part = current;
  keep.add(part, choice, at("comment").value.trim());
  decided.add(part.record_id);
  part.reopened = "";
  settle({ part, choice });
  if (history.length > UNDOABLE) history.shift();
  if (history.length > KEPT) unload(history.at(-1 - KEPT).part);
  at("comment").value = "";
  next();
  refill();
}

// Whether a picture of the part came: that it is good is said of what was seen alone.
const seen = (part) => part.layers.some((layer) => layer.frameImg.naturalWidth > 0);

async function undo() {
  const last = history.pop();
  if (!last) return;
  if (current?.reopened) {
    undone.push({ part: current, choice: current.reopened });
    current.reopened = "";
  } else if (current) {
    queue.unshift(current);
  }
  const part = last.part;
  part.reopened = last.choice;
  current = part;
  show();
  try {
    const answer = await send("/review/reopen", { seat, record_id: part.record_id });
    if (!answer.held && current === part) { toast(words.taken); back(); }
  } catch { /* without a connection the part is decided anew all the same: the later decision counts */ }
}

function back() {
  if (!current?.reopened) return;
  settle({ part: current, choice: current.reopened });
  current.reopened = "";
  next();
}

// Going back over several decisions keeps their order.
function settle(entry) {
  history.push(entry, ...undone.splice(0).reverse());
}

function act(word) {
  if (word === "undo") undo();
  else if (word === "keep") back();
  else if (word === "comment") at("comment").focus();
  else if (word === "blink" || word === "heat" || word === "outlines") { if (stage.layer && !at(word).hidden) stage.toggle(word); }
  else decide(word);
}

document.addEventListener("keydown", (event) => {
  lastInput = performance.now();
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  if (event.target.matches?.("input:not([type=checkbox]), textarea, select")) {
    if (event.key === "Escape" || event.key === "Enter") { event.preventDefault(); event.target.blur(); }
    return;
  }
  const plain = event.key === "Process" ? event.code.replace(/^(Digit|Numpad|Key)/, "") : event.key;
  const wanted = KEYS[plain.toLowerCase()];
  if (!wanted || !at("keys").checked || !Object.hasOwn(KEYS, plain.toLowerCase())) return;
  event.preventDefault();
  act(wanted);
});
document.addEventListener("pointerdown", () => { lastInput = performance.now(); });
for (const button of document.querySelectorAll("[data-choice]")) {
  button.addEventListener("click", () => decide(button.dataset.choice));
}
at("undo").addEventListener("click", undo);
at("undo-empty").addEventListener("click", undo);
at("keep").addEventListener("click", back);
at("decide").addEventListener("submit", (event) => event.preventDefault());
at("resume").addEventListener("click", () => { paused = false; lastInput = performance.now(); showEmpty(); refill(); });
try { at("keys").checked = localStorage.getItem("lineside.review.keys") !== "off"; } catch { /* keys are on */ }
at("keys").addEventListener("change", () => {
  try { localStorage.setItem("lineside.review.keys", at("keys").checked ? "on" : "off"); } catch { /* for this page only */ }
});

// ---- what the person sees

function show() {
  if (!current) { showEmpty(); return; }
  at("empty").hidden = true;
  at("part").hidden = at("decide").hidden = false;
  hold(true);
  if (current.layers?.some((layer) => layer.frameImg.failed)) unload(current);  // it is asked for once more
  load(current, words);
  stage.show(current);
  showFacts(current, words);
  for (const button of document.querySelectorAll("[data-choice]")) {
    const fits = current.choices.includes(button.dataset.choice);
    if (!fits && button === document.activeElement) at("main").focus();
    button.hidden = !fits;
    button.querySelector("span").textContent = word(words, button.dataset.choice, current.verdict);
  }
  at("keep").hidden = !current.reopened;
  const classes = current.findings.map((one) => one.class).join(", ");
  at("live").textContent = fill(words.announce, {
    verdict: words[current.verdict], serial: current.serial || words.no_serial, n: current.findings.length, classes,
  });
  showWaiting();
}

// Nothing is decided before the picture is on the screen, or it is said that there is none.
function settled(part) {
  if (part === current && shownAt === Infinity) hold(false);
}

function hold(held) {
  shownAt = held ? Infinity : performance.now();
  for (const button of document.querySelectorAll("[data-choice]")) button.setAttribute("aria-disabled", String(held));
}

function showEmpty() {
  at("part").hidden = at("decide").hidden = true;
  at("empty").hidden = false;
  at("resume").hidden = !paused;
  at("undo-empty").hidden = !history.length;
  const looking = asking || again || stillLooking();
  const title = paused ? words.paused : offline ? words.trouble : looking ? words.looking : words.nothing;
  at("empty-title").textContent = title;
  at("empty-text").textContent = paused ? words.paused_text : offline || (counts ? waitingText() : "");
  at("live").textContent = title;
}

// Whether a part that waits may be for this person: nobody else has it, and it was not decided here.
function stillLooking() {
  if (!counts || !counts.caught_up) return true;
  const sentSoon = keep.entries.size + keep.refused.size;
  return counts.waiting - counts.elsewhere - counts.for_others - sentSoon > 0;
}

function waitingText() {
  const said = [fill(words.waiting, { n: Math.max(0, counts.waiting - keep.entries.size) })];
  if (counts.elsewhere) said.push(fill(words.elsewhere, { n: counts.elsewhere }));
  if (counts.for_others) said.push(fill(words.for_others, { n: counts.for_others }));
  if (counts.no_picture) said.push(fill(words.drawn_without, { n: counts.no_picture }));
  if (!counts.caught_up) said.push(words.looking);
  return said.join(" · ");
}

// Records that cannot be read, each with the page that says more.
function showUnreadable() {
  const names = counts?.unreadable_ids ?? [], mark = `${counts?.unreadable} ${names}`;
  const links = names.flatMap((name) => {
    const link = make("a", name);
    link.href = `/part/${encodeURIComponent(name)}`;
    return [" ", link];
  });
  at("unreadable").hidden = !names.length;
  if (at("unreadable").dataset.mark === mark) return;  // nothing is read out twice
  at("unreadable").dataset.mark = mark;
  at("unreadable").replaceChildren(fill(words.unreadable, { n: counts?.unreadable ?? 0 }), ...links,
                                   counts?.unreadable > names.length ? " ..." : "");
}

function showWaiting() {
  showUnreadable();
  at("undo").disabled = !history.length;
  const last = history.at(-1);
  const done = last ? fill(words.done, { word: word(words, last.choice, last.part.verdict), serial: last.part.serial || words.no_serial }) : "";
  at("waiting").textContent = [done, counts ? waitingText() : ""].filter(Boolean).join(" · ");
  if (!current) showEmpty();
}

function showKeeping(state) {
  if (offline && !state.trouble && !state.waiting) refill();  // what was sent just now shows that the server is back
  showKept(at("keeping"), state, words, discard);
}

function discard(status) {
  for (const id of keep.discard(status)) decided.delete(id);
  refill();
}

// ---- coming and going

let leavingToLogIn = false;
at("keeping").addEventListener("click", (event) => { leavingToLogIn = event.target.matches("a"); });
window.addEventListener("beforeunload", (event) => {
  const unsaved = keep.entries.size || (keep.unkept && keep.refused.size);
  if (unsaved && !leavingToLogIn) event.preventDefault();
});
window.addEventListener("pagehide", release);
window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
window.addEventListener("online", refill);
showEmpty();
keep.send();
refill();
