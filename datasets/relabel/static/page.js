// What the modules of the page share: its words, what is open, and asking the server.

import { byId } from "./panels.js";

export const root = byId("relabel"), t = JSON.parse(root.dataset.words);
// queue: as the server gave it; rows: those shown; open: {row, sample}; drawing, selected, current class; base and after:
// what a save rests on; fetched: images asked for before their turn; touched: whether a person has begun.
export const page = { queue: null, rows: [], colours: {}, current: "", open: null, drawing: null, selected: null, fetched: new Map() };

export const get = async (url) => {
  const answer = await fetch(url, { headers: { Accept: "application/json" } });
  const json = await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Error([json.what, json.fix].filter(Boolean).join(" - ")), { status: answer.status });
  return json;
};
