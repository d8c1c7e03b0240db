// Saving: what is said of it, why it is done, and what to do when two people saved one image.

import { toast } from "/static/send.js";
import { Drawing, merged } from "./drawing.js";
import { Keeper } from "./keeper.js";
import { byId, element, figure, fill } from "./panels.js";
import { page, root, t } from "./page.js";
import { neighbour, showProgress } from "./queue.js";
import { choose, open, show, showHead } from "./relabel.js";

export const keeper = new Keeper(root.dataset.dataset, { saved, conflict: showConflict, changed: showSaving });

export async function save() {
  if (!page.open) return false;
  if (!sessionStorage.getItem("why") && !(await askWhy())) return false;
  const { drawing, open: { sample, row } } = page, labels = drawing.labels(), image_class = drawing.state.imageClass;
  if (row.to_draw && !labels.length && !image_class) { toast(t.escape_empty); return false; }
  if (drawing.unplaced) { choose(drawing.unplaced.id); toast(t.box_unplaced); return false; }
  toast("");
  keeper.dropDraft(sample.name);
  drawing.dirty = false;
  page.touched = true;
  page.after = keeper.put({ sample: sample.name, n: row.n, base: page.base, after: page.after, labels, image_class,
                            why: sessionStorage.getItem("why") });
  Object.assign(row, { done: true, today: true, labels: labels.length, image_class, to_draw: false, who: root.dataset.who,
    changed: new Date().toISOString(), why: sessionStorage.getItem("why"),
    classes: [...new Set([...labels.map((one) => one.defect_class), image_class].filter(Boolean))] });
  page.fetched.delete(row.n);
  showProgress();
  showHead();
  show();
  return true;
}

export async function saveNext() {
  const after = neighbour(1);
  if (!(await save())) return;
  if (after) await open(after.n); else toast(t.last_one);
}

function saved(entry, stored) {
  if (page.open?.sample.name !== entry.sample) return;
  if (page.after === entry.key) page.base = stored.revision;
  else if (!page.drawing.dirty && !keeper.last(entry.sample)) reopen(entry); // saved in another tab
}

export function showSaving() {
  const waiting = keeper.waiting(), stuck = waiting.filter((entry) => entry.refused || entry.conflict);
  const { failed } = keeper, count = waiting.length, saying = byId("saving");
  const words = { count, what: failed ? `${failed.what}${failed.fix ? ` - ${failed.fix}` : ""}` : "" };
  let text = page.drawing?.dirty ? t.unsaved : t.all_saved;
  if (count && failed) text = fill(t[`kept_${failed.kind}`], words);
  else if (count > stuck.length) text = fill(t.saving, words);
  else if (count) text = fill(t.stuck, words);
  if (keeper.unstored.size) text += ` ${t.no_room}`;
  if (saying.textContent !== text) saying.textContent = text;
  saying.classList.toggle("waiting", Boolean(count && (failed || stuck.length)));
  saying.dataset.waiting = count;
  byId("letDown").replaceChildren(...stuck.map((entry) => {
    const look = element("button", { type: "button", class: "small", text: entry.conflict ? t.look : t.open_again });
    look.addEventListener("click", () => (entry.conflict ? showConflict(entry) : void open(entry.n)));
    const drop = element("button", { type: "button", class: "small", text: t.discard });
    drop.addEventListener("click", () => keeper.discard(entry));
    const conflict = entry.conflict?.saved_by === root.dataset.who ? t.conflict_own : t.conflict;
    const why = entry.refused ? `${entry.refused.what} - ${entry.refused.fix}` : conflict;
    return element("div", { class: "alarm card break" }, element("p", { text: `${entry.sample}: ${why}` }), look, ...(entry.refused ? [drop] : []));
  }));
}

async function showConflict(entry) {
  const dialog = byId("conflict");
  if (dialog.open) return;
  const { theirs, saved_by: by, size, image } = entry.conflict;
  const own = by === root.dataset.who; // every window that was let in is this person's
  byId("conflictTitle").textContent = own ? t.conflict_own : t.conflict;
  byId("conflictText").textContent = fill(own ? t.conflict_own_text : t.conflict_text, { name: entry.sample, who: by || "?" });
  byId("theirs").querySelector("figcaption").textContent = fill(t.theirs, { who: by || "?" });
  figure(byId("mine"), image, size, entry.labels, page.colours);
  figure(byId("theirs"), image, size, theirs.labels, page.colours);
  const here = page.open?.sample.name === entry.sample;
  byId("keepMine").onclick = () => { dialog.close(); if (here) page.base = theirs.revision; keeper.rebase(entry, theirs.revision); };
  byId("takeTheirs").onclick = () => { dialog.close(); keeper.discard(entry); keeper.dropDraft(entry.sample); reopen(entry); };
  byId("mergeBoth").onclick = () => {
    const both = merged(entry.labels, theirs.labels), image_class = entry.image_class || theirs.image_class;
    const drawing = new Drawing(both, image_class, size);
    dialog.close();
    keeper.discard(entry);
    reopen(entry, { ...drawing.snapshot(), base: theirs.revision });
  };
  dialog.showModal();
}

function reopen(entry, draft = null) {
  page.fetched.delete(entry.n);
  if (page.open?.sample.name === entry.sample) page.drawing.dirty = false;
  void open(entry.n, draft);
}

export function asked(dialog, input, value) {
  input.value = value;
  dialog.returnValue = "";
  dialog.showModal();
  input.select();
  return new Promise((resolve) => dialog.addEventListener("close", () => {
    byId("stage").focus({ preventScroll: true });
    resolve(dialog.returnValue === "yes" ? input.value.trim() : "");
  }, { once: true }));
}

export async function askWhy() {
  const given = await asked(byId("askWhy"), byId("whyText"), sessionStorage.getItem("why") || t.why_usual);
  if (given) sessionStorage.setItem("why", given);
  byId("why").textContent = sessionStorage.getItem("why") ?? "";
  return given;
}
