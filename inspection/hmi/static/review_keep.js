// Decisions that the server has not stored: kept in this browser, sent again until it has.
//
// Each is one entry of localStorage, written before the next part is shown, so that a lost connection, an expired session
// or a closed page loses none.  (A browser that is killed may lose what it was given in its last seconds; what was
// acknowledged is on the server's disk.)  Its key makes the server store it once, so every open page of the same person
// may send it.  Only those of the person who has logged in are sent.  What the server refuses stays until the person
// discards it.
import { send } from "/static/send.js";

const ENTRY = "lineside.decision.";
const FIRST_MS = 500, LONGEST_MS = 5000, LIMIT_MS = 10000;
const AGAIN_MS = 10000;        // between two tries to store what the server has no record of
export const NOT_HERE = 404;   // answered where another record store is in the place of the one that has the record
const NEVER = 422;

export class Keep {
  // changed(state): {waiting, others: [names], refused: [{decision, status, text}], trouble: "" | "offline" | "login", text,
  // unkept}
  constructor(person, changed) {
    this.person = person;
    this.changed = changed;
    this.entries = new Map();      // key -> decision, in the order in which they are sent
    this.refused = new Map();      // key -> {decision, status, text}
    this.others = new Map();       // key -> name of another person
    this.trouble = "";
    this.text = "";
    this.unkept = false;
    this.pause = FIRST_MS;
    this.sending = false;
    this.timer = 0;
    this.#load();
    window.addEventListener("online", () => this.send());
    window.addEventListener("storage", (event) => this.#heard(event));
    setInterval(() => this.#again(), AGAIN_MS);
  }

  #load() {
    const found = [];
    try {
      for (let n = 0; n < localStorage.length; n++) {
        const name = localStorage.key(n);
        if (name?.startsWith(ENTRY)) found.push(JSON.parse(localStorage.getItem(name)));
      }
    } catch { this.unkept = true; }
    found.sort((one, other) => one.at - other.at || one.number - other.number);
    for (const decision of found) this.#take(decision);
    this.number = found.length;
  }

  #take(decision) {
    if (decision.person === this.person) this.entries.set(decision.key, decision);
    else this.others.set(decision.key, decision.person);
  }

  // Another page of this browser keeps a decision, or has sent it.  It may be closed before it could: then this one does.
  #heard({ key, newValue }) {
    if (!key?.startsWith(ENTRY)) return;
    if (newValue === null) this.#forget(key.slice(ENTRY.length));
    else this.#take(JSON.parse(newValue));
    this.#tell();
    if (this.sending || !this.entries.size) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.send(), LONGEST_MS);
  }

  add(part, disposition, comment) {
    const decision = { key: crypto.randomUUID?.() ?? random(), record_id: part.record_id, serial: part.serial, disposition,
                       comment, person: this.person, at: Date.now(), number: this.number++ };
    this.entries.set(decision.key, decision);
    try { localStorage.setItem(ENTRY + decision.key, JSON.stringify(decision)); } catch { this.unkept = true; }
    this.send();
  }

  has(record_id) {
    const refused = [...this.refused.values()].map((one) => one.decision);
    return [...this.entries.values(), ...refused].some((decision) => decision.record_id === record_id);
  }

  // Gives up what was refused with a status, because a person said so; the record ids of it.
  discard(status) {
    const given_up = [...this.refused.values()].filter((one) => one.status === status).map((one) => one.decision);
    for (const { key } of given_up) this.#forget(key);
    this.#tell();
    return given_up.map((decision) => decision.record_id);
  }

  async send() {
    if (this.sending) return;
    this.sending = true;
    clearTimeout(this.timer);
    this.#tell();
    try {
      while (this.entries.size) await this.#sendOne(this.entries.values().next().value);
      this.trouble = "";
    } catch (error) {
      this.#failed(error);
    } finally {
      this.sending = false;
      this.#tell();
    }
  }

  async #sendOne(decision) {
    const { key, record_id, disposition, comment, person, at } = decision;
    const body = { key, record_id, disposition, comment, person, age_ms: Math.max(0, Date.now() - at) };
    // Of two decisions on a part the later one counts, so it must not overtake the first.
    const first = this.#notHere().find((one) => one.decision.record_id === record_id);
    let refused = first && first.decision.key !== key ? first : null;
    try {
      if (!refused) await within(LIMIT_MS, send("/review/decisions", body));
    } catch (error) {
      if (error.status !== NOT_HERE && error.status !== NEVER) throw error;
      refused = { status: error.status, text: error.message };
    }
    if (refused) this.refused.set(key, { decision, status: refused.status, text: refused.text });
    else this.#forget(key);
    this.entries.delete(key);
    this.pause = FIRST_MS;
    this.trouble = "";
    this.#tell();
  }

  #notHere() {
    return [...this.refused.values()].filter((one) => one.status === NOT_HERE);
  }

  // The store that has their records may be back: they go before what was decided since.
  #again() {
    const back = this.#notHere().map((one) => [one.decision.key, one.decision]);
    if (!back.length || this.sending) return;
    this.entries = new Map([...back, ...this.entries]);
    this.send();
  }

  #forget(key) {
    for (const kept of [this.entries, this.refused, this.others]) kept.delete(key);
    try { localStorage.removeItem(ENTRY + key); } catch { /* it was never there */ }
  }

  #failed(error) {
    this.text = error.status ? error.message : "";
    this.trouble = error.status === 401 || error.status === 403 ? "login" : "offline";
    this.timer = setTimeout(() => this.send(), this.pause);
    this.pause = Math.min(LONGEST_MS, this.pause * 2);
  }

  #tell() {
    this.changed({ waiting: this.entries.size, others: [...new Set(this.others.values())],
                   refused: [...this.refused.values()], trouble: this.trouble, text: this.text, unkept: this.unkept });
  }
}

// randomUUID is there only on https and this computer's own pages.
export function random() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function within(limit_ms, promise) {
  return Promise.race([promise, new Promise((_, fail) => setTimeout(() => fail(new Error("no answer")), limit_ms))]);
}
