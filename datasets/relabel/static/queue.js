// The queue: which images are shown in which order, how far the work is, and copies of one picture.

import { byId, element, fill, options, showQueue } from "./panels.js";
import { get, page, t } from "./page.js";
import { open, showHead, showJudging } from "./relabel.js";
import { keeper, save } from "./saving.js";

export async function loadQueue() {
  page.queue = await get("/queue");
  page.queue.byName = new Map(page.queue.rows.map((row) => [row.name, row]));
  setClasses(page.queue.classes);
  filter();
  showJudging(page.queue.background);
}

export function setClasses(classes) {
  page.classes = classes;
  page.colours = Object.fromEntries(classes.map((name, number) => [name, number]));
  if (!classes.includes(page.current)) page.current = classes[0] ?? "";
  options(byId("imageClass"), [["", t.no_class], ...classes.map((name) => [name, name])], page.drawing?.state.imageClass ?? "");
  const kinds = [["all", t.show_all], ["open", t.show_open], ["unlabelled", t.show_unlabelled], ["today", t.show_today], ["drafts", t.show_drafts]];
  options(byId("show"), [...kinds, ...classes.map((name) => [`class ${name}`, `${t.show_class} ${name}`])], byId("show").value);
}

function wanted(row) {
  const kind = byId("show").value;
  if (kind === "open") return !row.done;
  if (kind === "unlabelled") return !row.labels && !row.image_class && !row.done;
  if (kind === "today") return row.today;
  if (kind === "drafts") return keeper.drafts().includes(row.name);
  if (kind.startsWith("class ")) return row.classes.includes(kind.slice(6));
  return true;
}

export function filter() {
  page.rows = page.queue.rows.filter((row) => (row.folded_under < 0 || row.n === page.open?.row.n) && wanted(row));
  showProgress();
}

export function showProgress() {
  const { rows } = page.queue, done = rows.filter((row) => row.done).length;
  byId("progress").value = rows.length ? done / rows.length : 1;
  byId("progressText").textContent = fill(t.done_of, { done, total: rows.length });
  showQueue(page.rows, page.open?.row.n, stateOf, (n) => open(n));
  if (page.open) byId("place").textContent = fill(t.place_of, { place: place() + 1 || "–", total: page.rows.length });
}

function stateOf(row) {
  if (keeper.drafts().includes(row.name)) return t.draft;
  if (row.to_draw) return t.escape_short;
  if (row.done) return row.labels || row.image_class ? "✔" : `✔ ${t.good_short}`;
  return row.labels ? `${row.labels} ▢` : "";
}

export const place = () => page.rows.findIndex((row) => row.n === page.open?.row.n);
export const neighbour = (step) => page.rows[place() + step];

// Anew in the order that was worked out; who has not begun yet starts with the first.
export async function sortAnew(first) {
  await loadQueue();
  byId("reorder").hidden = true;
  if (first && page.rows.length) return open((page.rows.find((row) => !row.done) ?? page.rows[0]).n);
  page.open.row = page.queue.byName.get(page.open.sample.name);
  filter();
  showHead();
}

export function showAlike(row) {
  byId("alike").hidden = false;
  byId("alikeList").replaceChildren(...row.folded.map((n) => {
    const other = page.queue.rows.find((one) => one.n === n);
    const button = element("button", { type: "button", class: "alikeOne" },
      element("img", { src: `/thumb/${n}`, alt: "" }), element("span", { text: `${other.done ? "✔ " : ""}${other.name}` }));
    button.addEventListener("click", () => void open(n));
    return button;
  }));
  byId("alike").scrollIntoView({ block: "nearest" });
}

export async function applyAlike() {
  const { row } = page.open, labels = page.drawing.labels().map((label) => ({ ...label, polygons_px: [] }));
  if (!(await save())) return;
  for (const n of row.folded) {
    const { sample } = await get(`/sample/${n}`).then((one) => ({ sample: one }));
    keeper.put({ sample: sample.name, n, base: sample.revision, labels, image_class: page.drawing.state.imageClass,
                 why: `${sessionStorage.getItem("why")} (${fill(t.alike_why, { name: row.name })})` });
    Object.assign(page.queue.byName.get(sample.name), { done: true, today: true, labels: labels.length });
    page.fetched.delete(n);
  }
  showAlike(row);
  showProgress();
}
