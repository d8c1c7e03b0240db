// Decisions that the server has not acknowledged: kept in this browser, sent again until it has.
//
// Each is one entry of localStorage, written before the next part is shown, so that a lost connection, an expired session
// or a closed page loses none.  (A browser that is killed may lose what it was given in its last seconds; what was
// acknowledged is on the server's disk.)  Its key makes the server store it once.  Only those of the person who has logged
// in are sent.
import { send } from "/static/send.js";

const ENTRY = "lineside.decision.";
const FIRST_MS = 500, LONGEST_MS = 5000, LIMIT_MS = 10000;

export class Keep {
  // changed(state): {waiting, others: [names], refused: [{text, decision}], trouble: "" | "offline" | "login", text, unkept}
  constructor(person, changed) {
    this.person = person;
    this.changed = changed;
    this.entries = new Map();      // key -> decision, oldest first
    this.others = new Set();
    this.refused = [];
    this.trouble = "";
    this.text = "";
    this.unkept = false;
    this.pause = FIRST_MS;
    this.sending = false;
    this.timer = 0;
    this.#load();
    window.addEventListener("online", () => this.send());
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
    for (const decision of found) {
      if (decision.person === this.person) this.entries.set(decision.key, decision);
      else this.others.add(decision.person);
    }
    this.number = found.length;
  }

  add(record_id, disposition, comment) {
    const decision = { key: crypto.randomUUID?.() ?? random(), record_id, disposition, comment, person: this.person,
                       at: Date.now(), number: this.number++ };
    this.entries.set(decision.key, decision);
    try { localStorage.setItem(ENTRY + decision.key, JSON.stringify(decision)); } catch { this.unkept = true; }
    this.send();
    return decision;
  }

  has(record_id) {
    return [...this.entries.values()].some((decision) => decision.record_id === record_id);
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
    try {
      await within(LIMIT_MS, send("/review/decisions", body));
    } catch (error) {
      if (error.status !== 422) throw error;
      this.refused.push({ decision, text: error.message });  // can never be stored; the person is told
    }
    this.entries.delete(key);
    try { localStorage.removeItem(ENTRY + key); } catch { /* it was never there */ }
    this.pause = FIRST_MS;
    this.trouble = "";
    this.#tell();
  }

  #failed(error) {
    this.text = error.status ? error.message : "";
    this.trouble = error.status === 401 || error.status === 403 ? "login" : "offline";
    this.timer = setTimeout(() => this.send(), this.pause);
    this.pause = Math.min(LONGEST_MS, this.pause * 2);
  }

  #tell() {
    this.changed({ waiting: this.entries.size, others: [...this.others], refused: this.refused, trouble: this.trouble,
                   text: this.text, unkept: this.unkept });
  }
}

// randomUUID is there only on https and this computer's own pages.
export function random() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function within(limit_ms, promise) {
  return Promise.race([promise, new Promise((_, fail) => setTimeout(() => fail(new Error("no answer")), limit_ms))]);
}
