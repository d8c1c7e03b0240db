// Draws one part: its pictures with outlines, golden and heat map laid over each other, and what is known of it in words.
// Everything that came from outside becomes text, never markup.
const SVG = "http://www.w3.org/2000/svg";
const RETRY_MS = 1000, RETRIES = 5;
const LONGEST_MS = 10000;     // so long a picture is waited for
export const BLINK_MS = 500;

export const fill = (text, values) => text.replace(/\{(\w+)\}/g, (all, name) => values[name] ?? all);

export function make(tag, text = "", name = "") {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  if (name) made.className = name;
  return made;
}

// A picture that is loaded and decoded before it is shown; one that the server was too busy for is asked for again.
// ``ready`` tells whether it is there; it may still come after ``ready`` has told that it is not.
export function picture(url, alt) {
  const img = new Image();
  img.alt = alt;
  const late = new Promise((tell) => setTimeout(() => tell(false), LONGEST_MS));
  img.ready = Promise.race([asked(img, url), late]).then((there) => { img.failed = !there; return there; });
  return img;
}

async function asked(img, url) {
  for (let left = RETRIES; ; left--) {
    img.src = url;
    try { await img.decode(); return true; } catch { if (!left) return false; }
    await new Promise((go) => setTimeout(go, RETRY_MS));
  }
}

// Loads all pictures of a part but the heat maps, which the model has to be run for.
export function load(part, words) {
  if (part.loaded) return part.loaded;
  part.layers = part.frames.map((frame) => ({
    ...frame,
    frameImg: picture(frame.frame, fill(words.alt_frame, { role: frame.role })),
    goldenImg: frame.golden && picture(frame.golden, fill(words.alt_golden, { role: frame.role })),
  }));
  for (const finding of part.findings) {
    finding.frameImg = picture(finding.frame, fill(words.alt_finding, { n: finding.number, class: finding.class }));
    finding.goldenImg = finding.golden && picture(finding.golden, fill(words.alt_finding_golden, { n: finding.number }));
  }
  const all = [...part.layers, ...part.findings].flatMap((one) => [one.frameImg.ready, one.goldenImg?.ready]);
  part.loaded = Promise.all(all);
  return part.loaded;
}

// Lets go of the pictures of a part; should it come back, they are loaded again.
export function unload(part) {
  for (const layer of part.layers ?? []) if (layer.heatImg) URL.revokeObjectURL(layer.heatImg.src);
  part.loaded = part.layers = null;
  for (const finding of part.findings) finding.frameImg = finding.goldenImg = null;
}

export class Stage {
  // tell(text) says why there is no heat map; settled(part) that its picture is on the screen, or that there is none.
  constructor(words, tell, settled) {
    this.words = words;
    this.tell = tell;
    this.settled = settled;
    this.box = document.getElementById("stage");
    this.label = document.getElementById("shown");
    this.buttons = Object.fromEntries(["blink", "heat", "outlines"].map((id) => [id, document.getElementById(id)]));
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    this.on = { blink: false, heat: false, outlines: true };
    this.golden = false;
    this.timer = 0;
    this.layer = null;
    for (const [id, button] of Object.entries(this.buttons)) button.addEventListener("click", () => this.toggle(id));
    this.still.addEventListener("change", () => this.#paint());
  }

  show(part) {
    this.part = part;
    this.on.heat = false;
    const roles = document.getElementById("roles");
    roles.replaceChildren(...(part.layers.length > 1 ? part.layers.map((layer) => this.#roleButton(layer)) : []));
    this.choose(part.layers[0] ?? null);
  }

  #roleButton(layer) {
    const button = make("button", layer.role);
    button.type = "button";
    button.addEventListener("click", () => this.choose(layer));
    layer.button = button;
    return button;
  }

  choose(layer) {
    this.layer = layer;
    this.box.replaceChildren();
    for (const other of this.part.layers) other.button?.setAttribute("aria-pressed", String(other === layer));
    if (layer) this.box.append(layer.frameImg, ...(layer.golden ? [layer.goldenImg] : []), this.#outlines(layer));
    this.waiting = Boolean(layer);
    this.#paint();
    this.#await(this.part, layer);
  }

  // A picture that does not come is said, as one that was never kept: then a person may decide without it, knowingly.
  async #await(part, layer) {
    const lack = document.getElementById("no-picture");
    lack.hidden = true;
    const there = layer ? await layer.frameImg.ready : false;
    if (this.part !== part || this.layer !== layer) return;
    lack.textContent = layer ? fill(this.words.no_picture_came, { role: layer.role }) : part.no_picture;
    lack.hidden = there || !lack.textContent;
    if (layer && !there) layer.frameImg.addEventListener("load", () => { lack.hidden ||= this.layer === layer; });
    this.waiting = false;
    this.#lay();
    this.settled(part);
  }

  toggle(id) {
    this.on[id] = !this.on[id];
    if (id === "blink" && this.on.blink) this.on.heat = false;
    if (id === "heat" && this.on.heat) this.on.blink = false;
    this.#paint();
  }

  // Blinking is two changes a second at most; where motion is not wanted, the key changes the picture once.
  #paint() {
    clearInterval(this.timer);
    this.golden = this.on.blink && Boolean(this.layer?.golden);
    if (this.golden && !this.still.matches) {
      this.timer = setInterval(() => { this.golden = !this.golden; this.#lay(); }, BLINK_MS);
    }
    if (this.on.heat && this.layer) {
      if (!this.layer.heatImg) this.#askHeat(this.layer);
      else if (!this.layer.heatImg.isConnected) this.layer.frameImg.after(this.layer.heatImg);
    }
    this.buttons.blink.hidden = Boolean(this.layer) && !this.layer.golden;
    this.buttons.heat.hidden = Boolean(this.layer) && !this.layer.heat;
    for (const [id, button] of Object.entries(this.buttons)) {
      button.setAttribute("aria-pressed", String(this.on[id]));
      button.disabled = !this.layer;
    }
    this.#lay();
  }

  // The model has to look at the frame again for this, so it is asked for only when it is wanted.
  async #askHeat(layer) {
    if (layer.asking) return;
    layer.asking = true;
    let said = {};
    try {
      const answer = await fetch(layer.heat, { headers: { Accept: "application/json" } });
      if (answer.ok) {
        const heat = picture(URL.createObjectURL(await answer.blob()), fill(this.words.alt_heat, { role: layer.role }));
        await heat.ready;
        layer.heatImg = heat;
      } else {
        said = await answer.json();
      }
    } catch { said = { what: this.words.no_connection }; }
    layer.asking = false;
    if (said.word === "no_heat") layer.heat = "";
    if (said.what) this.tell(said.what);
    if (this.layer !== layer) return;
    this.on.heat = Boolean(layer.heatImg) && this.on.heat;
    this.#paint();
  }

  #lay() {
    if (!this.layer) { this.label.textContent = ""; return; }
    const { frameImg, goldenImg, heatImg } = this.layer;
    const heat = this.on.heat && heatImg;  // until it is there the frame stays
    const top = heat ? heatImg : this.golden ? goldenImg : frameImg;
    for (const img of [frameImg, goldenImg, heatImg]) if (img) img.classList.toggle("behind", img !== top);
    this.box.querySelector("svg")?.classList.toggle("behind", !this.on.outlines);
    this.label.textContent = this.waiting ? this.words.no_picture_yet : heat ? this.words.shown_heat : this.golden ? this.words.shown_golden : this.words.shown_frame;
  }

  #outlines(layer) {
    const [width, height] = layer.size;
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    const size = Math.max(width, height) / 30;
    for (const finding of this.part.findings.filter((one) => one.role === layer.role)) {
      for (const name of ["halo", ""]) svg.append(outline(finding, name, size / 4));
    }
    for (const finding of this.part.findings.filter((one) => one.role === layer.role)) {
      const [x1, y1] = finding.box;
      const place = { x: Math.max(0, x1 - size / 4), y: Math.max(size, y1 - size / 2), "font-size": size };
      svg.append(draw("text", place, String(finding.number)));
    }
    return svg;
  }
}

function draw(tag, attributes, text = "") {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  if (text) made.textContent = text;
  return made;
}

function outline(finding, name, margin) {
  const [x1, y1, x2, y2] = finding.box;
  if (finding.polygon.length > 2) {
    return draw("polygon", { points: finding.polygon.map(([x, y]) => `${x},${y}`).join(" "), class: name });
  }
  const [width, height] = [x2 - x1 + 2 * margin, y2 - y1 + 2 * margin];
  return draw("rect", { x: x1 - margin, y: y1 - margin, width, height, class: name });
}

// ---- in words

const time = (iso) => new Date(iso).toLocaleString("sv-SE");  // year-month-day in every language, in local time

export function showFacts(part, words) {
  const at = (id) => document.getElementById(id);
  at("verdict").textContent = words[part.verdict];
  at("verdict").className = `verdict verdict-${part.verdict.toLowerCase()}`;
  at("serial").textContent = part.serial || words.no_serial;
  at("sample").hidden = !part.sample;
  const when = time(part.judged_at);
  at("about").textContent = fill(words.about, { lot: part.lot || "-", recipe: part.recipe_id, at: when });
  at("reasons").replaceChildren(...(part.reasons.length ? part.reasons : [words.no_reason]).map((text) => make("li", text)));
  at("decided").hidden = !part.reopened;
  at("decided").textContent = part.reopened ? fill(words.decided, { word: word(words, part.reopened, part.verdict) }) : "";
  const more = part.more_findings ? [make("p", fill(words.more_findings, { n: part.more_findings }), "soft")] : [];
  at("findings").replaceChildren(...part.findings.map((finding) => showFinding(finding, words)), ...more);
  const said = part.reviews.map((review) => make("p", fill(words.said, {
    who: review.who, word: word(words, review.disposition, part.verdict), comment: review.comment,
  }), "break soft"));
  at("said").replaceChildren(...said);
  at("facts").scrollTop = 0;
  scrollTo(0, 0);
}

export const word = (words, disposition, verdict) =>
  words[disposition === "confirmed" ? `confirmed_${verdict === "OK" ? "good" : "bad"}` : disposition];

function showFinding(finding, words) {
  const box = make("article", "", "finding");
  const role = finding.roi ? `${finding.role} / ${finding.roi}` : finding.role;
  const title = fill(words.finding, { n: finding.number, class: finding.class, score: finding.score.toFixed(2), role });
  const pair = make("div", "", "pair");
  pair.append(figure(finding.frameImg, words.shown_frame));
  if (finding.golden) pair.append(figure(finding.goldenImg, words.shown_golden));
  box.append(make("h2", title, "break"), pair, ...showEarlier(finding.earlier, words));
  return box;
}

function figure(img, caption) {
  const made = make("figure");
  made.append(img, make("figcaption", caption));
  return made;
}

function showEarlier(earlier, words) {
  const unread = earlier.unread ? [make("p", fill(words.earlier_unread, { n: earlier.unread }), "soft")] : [];
  if (!earlier.parts) return [make("p", words.earlier_none, "soft"), ...unread];
  const name = { confirmed: words.earlier_confirmed, false_call: words.earlier_false_call, unsure: words.earlier_unsure,
                 open: words.earlier_open, escape: words.escape };
  const counts = Object.entries(earlier.counts).map(([key, n]) => `${name[key]} ${n}`).join(", ");
  const list = make("ul", "", "earlier");
  for (const one of earlier.last) {
    const item = make("li");
    const img = picture(one.picture, "");
    const when = time(one.judged_at);
    const text = `${one.serial || "-"}, ${one.class}, ${when}: ${name[one.disposition]}${one.who ? ` (${one.who})` : ""}`;
    item.append(img, make("span", text));
    list.append(item);
  }
  return [make("p", fill(words.earlier, { n: earlier.parts, counts }), "strong"), list, ...unread];
}
