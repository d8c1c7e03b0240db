// Keeps every save in this browser until the server has acknowledged it, and sends it again after a lost connection,
// a killed server, an ended session or a reload.  Sending twice does no harm: the server knows what it has stored.

import { send, token } from "/static/send.js";

const PAUSES_MS = [300, 700, 1500, 3000, 5000];

export class Keeper {
  // on: saved(entry, answer), conflict(entry), changed()
  // An entry is one save: sample, base (the revision it rests on), labels, image_class, why; and `after`, the key of the
  // save that it follows on, whose answer then tells its base.
  constructor(dataset, on) {
    this.prefix = `lineside.relabel.${dataset}.`;
    this.on = on;
    this.unstored = new Map(); // what localStorage had no room for; lost with the page, which the state says
    this.failed = null; // {what, fix, kind} of the last attempt
    this.tries = 0;
    this.number = 0;
    this.others = new BroadcastChannel(this.prefix);
    this.stored = new Set(); // keys: another tab's answer may be here before its change of localStorage is
    this.others.onmessage = ({ data }) => {
      this.stored.add(data.entry.key);
      this.on.saved(data.entry, data.answer);
      this.on.changed();
    };
    addEventListener("online", () => void this.flush());
  }

  // ---- what is kept

  #keys(kind) {
    const start = `${this.prefix}${kind}.`;
    const kept = Object.keys(localStorage).filter((key) => key.startsWith(start));
    return [...kept, ...[...this.unstored.keys()].filter((key) => key.startsWith(start))].sort();
  }

  #read(key) { try { return JSON.parse(this.unstored.get(key) ?? localStorage.getItem(key)); } catch { return null; } }

  #write(key, value) {
    const text = JSON.stringify(value);
    try { localStorage.setItem(key, text); this.unstored.delete(key); } catch { this.unstored.set(key, text); }
  }

  #drop(key) { localStorage.removeItem(key); this.unstored.delete(key); }

  waiting() { return this.#keys("save").filter((key) => !this.stored.has(key)).map((key) => this.#read(key)).filter(Boolean); }
  last(sample) { return this.waiting().filter((entry) => entry.sample === sample).at(-1); }

  put(entry) {
    const key = `${this.prefix}save.${String(Date.now()).padStart(15, "0")}.${String(this.number++).padStart(6, "0")}.${token().slice(0, 6)}`;
    for (const old of this.waiting()) if (old.sample === entry.sample && (old.refused || old.conflict)) this.#drop(old.key);
    this.#write(key, { ...entry, key, at: new Date().toISOString() });
    this.tries = 0;
    void this.flush();
    return key;
  }

  // Save on top of what is stored now.
  rebase(entry, base) { this.#write(entry.key, { ...entry, base, conflict: undefined, refused: undefined }); void this.flush(); }
  discard(entry) { this.#drop(entry.key); this.on.changed(); }

  // Unfinished work on an image, for when the page is closed or another image opened.
  draft(sample) { return this.#read(`${this.prefix}draft.${sample}`); }
  drafts() { const start = `${this.prefix}draft.`; return this.#keys("draft").map((key) => key.slice(start.length)); }
  putDraft(sample, draft) { this.#write(`${this.prefix}draft.${sample}`, draft); }
  dropDraft(sample) { this.#drop(`${this.prefix}draft.${sample}`); }

  // ---- sending

  async flush() {
    clearTimeout(this.timer);
    if (this.busy) { this.again = true; return; }
    this.busy = true;
    this.on.changed();
    try {
      await navigator.locks.request(`${this.prefix}sending`, () => this.#sendAll());
    } finally {
      this.busy = false;
      this.on.changed();
    }
    const open = this.waiting().filter((entry) => !entry.refused && !entry.conflict);
    if (!open.length) { this.tries = 0; return; }
    this.timer = setTimeout(() => void this.flush(), this.again ? 0 : PAUSES_MS[Math.min(this.tries++, PAUSES_MS.length - 1)]);
    this.again = false;
  }

  async #sendAll() {
    const stuck = new Set();
    this.failed = null;
    for (const { key } of this.waiting()) {
      const entry = this.#read(key); // anew: an answer may have changed what it is based on
      if (!entry || entry.refused || entry.conflict || stuck.has(entry.sample)) continue;
      try {
        const { sample, base, labels, image_class, why } = entry;
        this.#acknowledged(entry, await send("/save", { sample, base, labels, image_class, why }));
      } catch (error) {
        stuck.add(entry.sample);
        if (!(await this.#notStored(entry, error))) break;
      }
      this.on.changed();
    }
  }

  #acknowledged(entry, answer) {
    this.#drop(entry.key);
    this.stored.add(entry.key);
    for (const later of this.waiting()) {
      if (later.after === entry.key) this.#write(later.key, { ...later, base: answer.revision });
    }
    const draft = this.draft(entry.sample);
    if (draft?.after === entry.key) this.putDraft(entry.sample, { ...draft, base: answer.revision });
    this.tries = 0;
    this.on.saved(entry, answer);
    this.others.postMessage({ entry, answer });
  }

  // Whether the next one may go better.
  async #notStored(entry, error) {
    const { status, json } = error, told = { what: json?.what || error.message, fix: json?.fix || "" };
    const final = status >= 400 && status < 500 && status !== 401 && status !== 403; // sent again, it is refused again
    if (final && this.#superseded(entry)) return true;
    if (json?.conflict) {
      this.#write(entry.key, { ...entry, conflict: json.conflict });
      this.on.conflict(this.#read(entry.key));
      return true;
    }
    if (status === 401 || status === 403) {
      this.failed = { ...told, kind: "ended" };
      await this.#renew();
      return false;
    }
    if (!status) {
      this.failed = { ...told, kind: "away" };
      return false;
    }
    if (status >= 500) {
      this.failed = { ...told, kind: "disk" };
      return true;
    }
    this.#write(entry.key, { ...entry, refused: told });
    return true;
  }

  // Whether a later save of this browser stands in its place; then that one alone is decided on.
  #superseded(entry) {
    const later = this.waiting().find((other) => other.after === entry.key);
    if (!later) return false;
    this.#write(later.key, { ...later, base: entry.base, after: entry.after });
    this.#drop(entry.key);
    return true;
  }

  // The session may have been opened anew in another tab: then its token is another.
  async #renew() {
    try {
      const answer = await fetch("/session", { headers: { Accept: "application/json" } });
      if (answer.ok) document.querySelector('meta[name="csrf-token"]').content = (await answer.json()).csrf_token;
    } catch { /* the next attempt tells */ }
  }
}
