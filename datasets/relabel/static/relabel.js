// The page around the editor: which image is open, what every key does.

import { send, toast } from "/static/send.js";
import { Drawing, sizeText } from "./drawing.js";
import { byId, element, fill, showBoxes, showClasses, showProposals } from "./panels.js";
import { get, page, root, t } from "./page.js";
import { applyAlike, filter, loadQueue, neighbour, place, setClasses, showAlike, sortAnew } from "./queue.js";
import { askWhy, asked, keeper, save, saveNext, showSaving } from "./saving.js";
import { Stage } from "./stage.js";

const PREFETCHED = 5, POLL_MS = 1500;
const reduced = matchMedia("(prefers-reduced-motion: reduce)");

const stage = new Stage(byId("stage"), {
  drawn: (box) => add(box),
  placed: (id, box) => { page.drawing.place(id, box); choose(id); },
  chosen: (id) => choose(id),
  chosenProposal: (id) => chooseProposal(id),
  seen: () => { byId("zoom").textContent = `${Math.round(stage.view.zoom * 100)} %`; },
});

// ---- one image

function fetched(n) {
  if (!page.fetched.has(n)) {
    const coming = get(`/sample/${n}`).then((sample) => {
      const pictures = [sample.image, sample.golden].filter(Boolean).map((url) => Object.assign(new Image(), { src: url }));
      return { sample, pictures };
    });
    coming.catch(() => page.fetched.delete(n));
    page.fetched.set(n, coming);
    while (page.fetched.size > 3 * PREFETCHED) page.fetched.delete(page.fetched.keys().next().value);
  }
  return page.fetched.get(n);
}

export async function open(n, draft = null) {
  keepDraft();
  page.touched ||= Boolean(page.open); // who has been to a second image is not led elsewhere
  page.asked = n;
  root.toggleAttribute("data-opening", true); // what is typed meanwhile is not meant for the image still in view
  let sample;
  try {
    ({ sample } = await fetched(n));
  } catch (error) {
    if (page.asked !== n) return;
    toast(error.status ? error.message : t.away);
    if (!error.status || error.status === 401) setTimeout(() => { if (page.asked === n) void open(n, draft); }, 1000);
    return;
  }
  if (page.asked !== n) return;
  toast("");
  root.toggleAttribute("data-opening", false);
  page.fetched.delete(n); // the next time its labels are read anew
  const row = page.queue.rows.find((one) => one.n === n);
  const waiting = keeper.last(sample.name), kept = draft ?? keeper.draft(sample.name);
  const from = waiting ?? sample;
  page.drawing = new Drawing(from.labels, from.image_class, sample.size);
  page.base = kept?.base ?? waiting?.base ?? sample.revision;
  page.after = kept ? kept.after : waiting?.key;
  if (kept) page.drawing.restore(kept);
  page.open = { row, sample };
  page.selected = null;
  history.replaceState(null, "", `#${n}`);
  stage.show(sample.size, sample.trouble ? "" : sample.image, sample.trouble ? "" : sample.golden);
  root.toggleAttribute("data-trouble", Boolean(sample.trouble)); // without its size nothing can be drawn in its pixels
  byId("trouble").hidden = !sample.trouble;
  byId("trouble").textContent = sample.trouble ? `${sample.trouble.what} - ${sample.trouble.fix}` : "";
  showGolden();
  showHead();
  filter();
  show();
  if (!sample.judged && page.queue.background.of > 0) void refreshProposals().catch(() => {});
  for (let step = 1; step <= PREFETCHED; step++) if (neighbour(step)) void fetched(neighbour(step).n).catch(() => {});
}

export function showHead() {
  const { row, sample } = page.open;
  byId("name").textContent = sample.name;
  document.title = `${sample.name} - ${t.title}`;
  const marks = [];
  if (row.to_draw) marks.push(element("span", { class: "badge", text: t.escape }));
  if (row.folded.length) {
    const alike = element("button", { type: "button", class: "small", text: fill(t.more_alike, { count: row.folded.length }) });
    alike.addEventListener("click", () => showAlike(row));
    marks.push(alike);
  }
  byId("alike").hidden = true;
  byId("marks").replaceChildren(...marks);
  const reasons = Object.entries(row.reasons ?? {}).filter(([, value]) => value >= 0.05)
    .map(([name, value]) => `${t[`reason_${name}`] ?? name} ${Math.round(value * 100)} %`);
  if (row.changed) reasons.push(fill(t.last_change, { who: row.who, at: new Date(row.changed).toLocaleString(document.documentElement.lang), why: row.why }));
  byId("reasons").textContent = reasons.join(" · ");
}

function proposals() {
  const floor = Number(byId("floor").value);
  return page.drawing.open((page.open.sample.proposals ?? []).filter((one) => one.score >= floor));
}

export function show() {
  if (!page.open) return;
  const { drawing, colours, selected } = page, { boxes, imageClass, good } = drawing.state, offered = proposals();
  stage.draw({ boxes, proposals: offered, selected, colours });
  showClasses(page.classes, selected && !selected.proposal ? drawing.box(selected.id).defect_class : page.current, pickClass);
  showBoxes(boxes, selected, colours, t, choose);
  showProposals(offered, selected, colours, t, chooseProposal);
  byId("imageClass").value = imageClass;
  byId("good").setAttribute("aria-pressed", String(good));
  byId("undo").disabled = !drawing.done.length;
  byId("redo").disabled = !drawing.undone.length;
  const box = selected && !selected.proposal && drawing.box(selected.id);
  byId("sides").hidden = !box;
  for (const [i, id] of ["x1", "y1", "x2", "y2"].entries()) if (box && document.activeElement !== byId(id)) byId(id).value = box.box_px[i];
  byId("chosen").textContent = box ? `${box.defect_class}: ${sizeText(box.box_px)} px` : `${page.open.sample.size.join(" × ")} px`;
  for (const id of ["accept", "reject", "acceptAll"]) byId(id).disabled = !offered.length;
  keepDraft();
  showSaving();
}

function keepDraft() {
  if (page.open && page.drawing.dirty) keeper.putDraft(page.open.sample.name, { ...page.drawing.snapshot(), base: page.base, after: page.after });
}

// ---- what a person does

export function choose(id) {
  toast(""); // what was said of the step before; on a phone it lies over the buttons
  page.selected = id === null ? null : { id };
  if (id !== null) stage.bringIntoView(page.drawing.box(id).box_px);
  show();
}

function chooseProposal(id) {
  page.selected = { id, proposal: true };
  stage.bringIntoView(page.open.sample.proposals.find((one) => one.id === id).box_px);
  show();
}

function add(box, unplaced = false) {
  if (!page.current) { toast(t.class_first); return askClass(); }
  return choose(page.drawing.add(page.current, box, unplaced));
}

function newBox() {
  const [x1, y1, x2, y2] = stage.inView(), middle = [(x1 + x2) / 2, (y1 + y2) / 2];
  const half = Math.max(2, Math.round(Math.min(x2 - x1, y2 - y1) / 16));
  const [left, top] = middle.map((value) => Math.round(value) - half);
  add([left, top, left + 2 * half, top + 2 * half], true);
}

function pickClass(name) {
  page.current = name;
  if (page.selected && !page.selected.proposal) page.drawing.reclass(page.selected.id, name);
  show();
}

function nextBox(step) {
  const ids = page.drawing.state.boxes.map((box) => box.id);
  if (!ids.length) return;
  const at = page.selected && !page.selected.proposal ? ids.indexOf(page.selected.id) : step > 0 ? -1 : 0;
  choose(ids[(at + step + ids.length) % ids.length]);
}

function nextProposal() {
  const offered = proposals();
  if (!offered.length) return;
  const at = page.selected?.proposal ? offered.findIndex((one) => one.id === page.selected.id) : -1;
  chooseProposal(offered[(at + 1) % offered.length].id);
}

function answer(how) {
  const offered = proposals(), chosen = page.selected?.proposal && offered.find((one) => one.id === page.selected.id);
  if (!chosen) return nextProposal();
  if (how === "accept" && !page.classes.includes(chosen.defect_class)) return toast(fill(t.unknown_class, { name: chosen.defect_class }));
  page.drawing[how]([chosen]);
  page.selected = null;
  if (proposals().length) nextProposal(); else show();
}

function acceptAll() {
  page.drawing.accept(proposals().filter((one) => page.classes.includes(one.defect_class)));
  page.selected = null;
  show();
}

function remove() {
  if (!page.selected) return;
  if (page.selected.proposal) return answer("reject");
  page.drawing.remove(page.selected.id);
  choose(null);
}

function arrows(dx, dy, sizing) {
  if (page.selected && !page.selected.proposal) {
    const before = page.drawing.box(page.selected.id).polygons_px.length;
    page.drawing.nudge(page.selected.id, dx, dy, sizing);
    choose(page.selected.id);
    if (before) toast(t.outline_gone);
  } else stage.panBy(-dx * 40, -dy * 40);
}

function back(step) {
  page.drawing[step]();
  if (page.selected && !page.selected.proposal && !page.drawing.box(page.selected.id)) page.selected = null;
  show();
}

function toggle(name) {
  const pressed = byId(name).getAttribute("aria-pressed") !== "true";
  byId(name).setAttribute("aria-pressed", String(pressed));
  if (name === "pan") { stage.panning = pressed; byId("stage").classList.toggle("panning", pressed); }
  if (name === "hide") { stage.hidden = pressed; show(); }
  if (name === "beside" || name === "blink") showGolden();
}

function showGolden() {
  const has = Boolean(page.open?.sample.golden), pressed = (id) => has && byId(id).getAttribute("aria-pressed") === "true";
  byId("beside").disabled = byId("blink").disabled = !has;
  byId("stage").querySelector(".second").hidden = !pressed("beside");
  clearInterval(page.blinking);
  stage.golden.hidden = !pressed("blink");
  if (pressed("blink") && !reduced.matches) page.blinking = setInterval(() => { stage.golden.hidden = !stage.golden.hidden; }, 600);
}

// ---- questions

async function askClass(given = "") {
  const name = await asked(byId("askClass"), byId("className"), given);
  byId("classRefused").textContent = "";
  if (!name) return;
  try {
    const { classes } = await send("/class", { name, why: sessionStorage.getItem("why") || t.add_class });
    setClasses(classes);
    page.current = name; // of the boxes to come: the selected one keeps what a person gave it
    show();
    if (page.selected && !page.selected.proposal) toast(fill(t.class_added, { name }));
  } catch (error) {
    byId("classRefused").textContent = error.status ? error.message : t.away;
    await askClass(name);
  }
}

async function upload(event) {
  const [file] = event.target.files, form = new FormData();
  if (!file) return;
  form.append("file", file);
  const headers = { Accept: "application/json", "X-CSRF-Token": document.querySelector('meta[name="csrf-token"]').content };
  try {
    const answer = await fetch("/proposals", { method: "POST", body: form, headers }), json = await answer.json();
    byId("uploaded").textContent = answer.ok ? json.text : [json.what, json.fix].filter(Boolean).join(" - ");
    if (answer.ok) { page.fetched.clear(); await refreshProposals(); }
  } catch { byId("uploaded").textContent = t.away; }
  event.target.value = "";
}

async function refreshProposals() {
  if (!page.open) return;
  const { row } = page.open, sample = await get(`/sample/${row.n}`);
  if (page.open.row !== row) return;
  page.open.sample.proposals = sample.proposals;
  page.open.sample.judged = sample.judged;
  show();
}

// ---- what happens behind

export function showJudging({ state, judged, of, text }) {
  byId("judging").textContent = text ? text : fill(t[`judging_${state}`], { judged, of });
}

async function poll() {
  try {
    const told = await get("/background");
    showJudging(told);
    page.queue.background.of = told.of;
    const sorted = told.order === page.queue.background.order;
    if (!sorted && !page.touched && !page.drawing?.dirty) await sortAnew(true);
    else byId("reorder").hidden = sorted;
    if (page.open && !page.open.sample.judged && told.judged > 0) { page.fetched.clear(); await refreshProposals(); }
    if (["done", "none", "failed"].includes(told.state)) return;
  } catch { /* the server is away: saving tells */ }
  setTimeout(() => void poll(), POLL_MS);
}

// ---- keys and buttons

const DEED = {
  undo: () => back("undo"), redo: () => back("redo"), new: newBox, pan: () => toggle("pan"), in: () => stage.zoomBy(1.25),
  out: () => stage.zoomBy(0.8), fit: () => stage.fit(), actual: () => stage.actual(), beside: () => toggle("beside"),
  blink: () => toggle("blink"), hide: () => toggle("hide"), help: () => byId("keysHelp").showModal(),
  back: () => neighbour(-1) && open(neighbour(-1).n), forth: () => neighbour(1) && open(neighbour(1).n), save, saveNext,
  remove, good: () => { page.drawing.good(); choose(null); }, accept: () => answer("accept"), reject: () => answer("reject"),
  acceptAll, addClass: () => askClass(), changeWhy: askWhy, applyAlike,
  reorder: () => sortAnew(false),
  invite: async () => { byId("invited").textContent = (await send("/invite", {})).address; },
};
const KEY = {
  z: DEED.undo, Z: DEED.redo, y: DEED.redo, n: DEED.new, d: DEED.pan, "+": DEED.in, "=": DEED.in, "-": DEED.out, f: DEED.fit,
  x: DEED.actual, c: DEED.beside, v: DEED.blink, h: DEED.hide, "?": DEED.help, k: DEED.back, PageUp: DEED.back, j: DEED.forth,
  PageDown: DEED.forth, s: DEED.save, Enter: DEED.saveNext, Delete: remove, Backspace: remove, g: DEED.good, a: DEED.accept,
  A: acceptAll, r: DEED.reject, p: nextProposal, b: () => nextBox(1), B: () => nextBox(-1),
  Escape: () => { if (!stage.cancel()) choose(null); },
};
const WHILE_BUSY = [DEED.back, DEED.forth, DEED.help, DEED.reorder];
const busy = () => root.hasAttribute("data-opening") || root.hasAttribute("data-trouble");
const ARROW = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function pressed(event) {
  const control = event.ctrlKey || event.metaKey, tag = event.target.tagName;
  if (document.querySelector("dialog[open]") || event.altKey || !page.open) return undefined;
  if (control && event.key === "s") return save;
  if (["INPUT", "SELECT", "TEXTAREA"].includes(tag)) {
    return event.key === "Escape" ? () => byId("stage").focus() : undefined;
  }
  const digit = /^Digit([1-9])$/.exec(event.code)?.[1];
  if (digit && !control) return () => { const name = page.classes[Number(digit) - 1 + (event.shiftKey ? 9 : 0)]; if (name) pickClass(name); };
  if (ARROW[event.key]) {
    const [dx, dy] = ARROW[event.key], step = control ? 10 : 1;
    return () => arrows(dx * step, dy * step, event.shiftKey);
  }
  if (control) return { z: event.shiftKey ? DEED.redo : DEED.undo, Z: DEED.redo, y: DEED.redo }[event.key];
  if (tag === "BUTTON" || tag === "A" || tag === "SUMMARY") if (event.key === "Enter" || event.key === " ") return undefined;
  return KEY[event.key];
}

document.addEventListener("keydown", (event) => {
  const deed = pressed(event);
  if (!deed) return;
  event.preventDefault();
  if (!busy() || WHILE_BUSY.includes(deed)) void deed();
});
for (const [id, deed] of Object.entries(DEED)) {
  byId(id).addEventListener("click", () => { if (page.open && (!busy() || WHILE_BUSY.includes(deed))) void deed(); });
}
byId("show").addEventListener("change", () => { filter(); if (place() < 0 && page.rows.length) void open(page.rows[0].n); });
byId("floor").addEventListener("change", () => { page.selected = null; show(); });
byId("imageClass").addEventListener("change", (event) => { page.drawing.setImageClass(event.target.value); show(); });
byId("upload").addEventListener("change", upload);
for (const id of ["x1", "y1", "x2", "y2"]) {
  byId(id).addEventListener("change", () => {
    const box = ["x1", "y1", "x2", "y2"].map((one) => Number(byId(one).value));
    if (box.every(Number.isFinite) && page.selected) { page.drawing.place(page.selected.id, box); show(); }
  });
}

async function start() {
  byId("why").textContent = sessionStorage.getItem("why") ?? "";
  try {
    await loadQueue();
  } catch (error) {
    byId("saving").textContent = error.status ? error.message : t.away;
    setTimeout(() => void start(), 1000);
    return;
  }
  const asked = Number(location.hash.slice(1)), first = page.rows.find((row) => !row.done) ?? page.rows[0];
  const n = page.queue.rows.some((row) => row.n === asked) && location.hash.length > 1 ? asked : first?.n;
  if (n === undefined) { toast(t.no_images); return; }
  page.touched = n === asked && location.hash.length > 1;
  await open(n);
  void keeper.flush();
  void poll();
}

void start();
