// Shows one image with its boxes; zoom, pan, drawing, moving and sizing by mouse, pen and fingers.
// Boxes are in pixels of the image, half-open: the box 2,3 - 5,7 covers three columns and four rows.  What a person
// draws lies on whole pixels.  Nothing is stored here: finished gestures are told to `on` and the page draws anew.

const SVG = "http://www.w3.org/2000/svg";
const HANDLES = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];
const GRIP_PX = 11, DRAG_PX = 4, MOST_ZOOM = 64, NAMES_SHOWN = 150;

const make = (name, attributes, parent) => {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent?.append(made);
  return made;
};

export class Stage {
  // on: drawn(box), placed(id, box), chosen(id or null), chosenProposal(id), seen() after each change of the view
  constructor(element, on) {
    this.element = element;
    this.on = on;
    this.panes = [...element.querySelectorAll(".pane")].map((pane) => ({
      pane, picture: pane.querySelector(".picture"), svg: pane.querySelector("svg") }));
    this.golden = element.querySelector(".blink");
    this.size = [1, 1];
    this.view = { x: 0, y: 0, zoom: 1 };
    this.shown = { boxes: [], proposals: [], selected: null, colours: {} };
    this.panning = this.hidden = false;
    this.fingers = new Map();
    const [{ pane }] = this.panes;
    pane.addEventListener("pointerdown", (event) => this.#down(event));
    pane.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) pane.addEventListener(end, (event) => this.#up(event));
    element.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    pane.addEventListener("contextmenu", (event) => event.preventDefault());
    new ResizeObserver(() => (this.fitted ? this.fit() : this.#place())).observe(pane);
  }

  show(size, image, golden) {
    this.size = size;
    this.gesture = null;
    this.fingers.clear();
    const [frame, beside] = this.panes;
    for (const [picture, url] of [[frame.picture, image], [beside.picture, golden], [this.golden, golden]]) {
      if (url) picture.src = url; else picture.removeAttribute("src");
      [picture.width, picture.height] = size;
    }
    this.fit();
  }

  // ---- the view

  get area() { const { width, height } = this.panes[0].pane.getBoundingClientRect(); return [width, height]; }

  fit() {
    const [width, height] = this.area, zoom = Math.min(width / this.size[0], height / this.size[1]) * 0.96 || 1;
    this.view = { zoom, x: (width - this.size[0] * zoom) / 2, y: (height - this.size[1] * zoom) / 2 };
    this.fitted = true;
    this.#place();
  }

  zoomBy(factor, at = this.area.map((side) => side / 2)) {
    const least = Math.min(1, ...this.area.map((side, i) => side / this.size[i])) / 4;
    const zoom = Math.min(Math.max(this.view.zoom * factor, least), MOST_ZOOM), grown = zoom / this.view.zoom;
    this.view = { zoom, x: at[0] - (at[0] - this.view.x) * grown, y: at[1] - (at[1] - this.view.y) * grown };
    this.fitted = false;
    this.#place();
  }

  actual() { this.zoomBy(1 / this.view.zoom); }

  panBy(dx, dy) {
    this.view.x += dx;
    this.view.y += dy;
    this.fitted = false;
    this.#place();
  }

  // The part of the image in view, in pixels of the image.
  inView() {
    const [width, height] = this.area, { x, y, zoom } = this.view;
    const cut = (value, most) => Math.min(Math.max(value, 0), most);
    return [cut(-x / zoom, this.size[0]), cut(-y / zoom, this.size[1]),
            cut((width - x) / zoom, this.size[0]), cut((height - y) / zoom, this.size[1])];
  }

  bringIntoView(box) {
    const seen = this.inView();
    if (box[0] >= seen[0] && box[1] >= seen[1] && box[2] <= seen[2] && box[3] <= seen[3]) return;
    const [width, height] = this.area, { zoom } = this.view;
    this.panBy(width / 2 - ((box[0] + box[2]) / 2) * zoom - this.view.x,
               height / 2 - ((box[1] + box[3]) / 2) * zoom - this.view.y);
  }

  #place() {
    const { x, y, zoom } = this.view, form = `translate(${x}px, ${y}px) scale(${zoom})`;
    for (const picture of [...this.panes.map((one) => one.picture), this.golden]) {
      picture.style.transform = form;
      picture.classList.toggle("crisp", zoom > 1);
    }
    this.draw(this.shown);
    this.on.seen?.();
  }

  // ---- boxes

  // boxes: [{id, defect_class, box_px, polygons_px, unplaced}]; proposals: [{id, defect_class, box_px, score}];
  // selected: {id, proposal}; colours: class -> number of its colour
  draw(shown) {
    this.shown = shown;
    for (const { svg } of this.panes) {
      svg.replaceChildren();
      if (this.hidden) continue;
      const draft = this.gesture?.box;
      const ordered = [...shown.boxes].sort((a, b) => extent(b.box_px) - extent(a.box_px));
      for (const proposal of shown.proposals) this.#outline(svg, proposal, proposal.box_px, true);
      for (const box of ordered) {
        this.#outline(svg, box, draft && this.gesture.id === box.id ? draft : box.box_px, false);
      }
      if (draft && this.gesture.kind === "draw") this.#rectangle(svg, draft, { class: "box draft" });
    }
    this.#grips();
  }

  #rectangle(parent, [x1, y1, x2, y2], attributes) {
    const { x, y, zoom } = this.view;
    return make("rect", { x: x1 * zoom + x, y: y1 * zoom + y, width: (x2 - x1) * zoom, height: (y2 - y1) * zoom,
                          ...attributes }, parent);
  }

  #outline(svg, thing, box, proposal) {
    const { x, y, zoom } = this.view, chosen = this.shown.selected;
    const selected = chosen?.id === thing.id && Boolean(chosen.proposal) === proposal;
    const colour = `c${(this.shown.colours[thing.defect_class] ?? 0) % 8}`;
    const group = make("g", { class: `${proposal ? "proposal" : "label"} ${colour}${selected ? " selected" : ""}${thing.unplaced ? " unplaced" : ""}` }, svg);
    for (const polygon of thing.polygons_px ?? []) {
      make("polygon", { points: polygon.map((p) => `${p[0] * zoom + x},${p[1] * zoom + y}`).join(" ") }, group);
    }
    const edge = { class: "box", [proposal ? "data-proposal" : "data-box"]: thing.id };
    this.#rectangle(group, box, { ...edge, class: "halo" });
    this.#rectangle(group, box, edge);
    if (this.shown.boxes.length + this.shown.proposals.length > NAMES_SHOWN && !selected) return;
    const text = make("text", { x: box[0] * zoom + x + 1, y: Math.max(box[1] * zoom + y - (selected ? GRIP_PX + 5 : 4), 12) }, group);
    text.textContent = proposal ? `${thing.defect_class} ${Math.round(thing.score * 100)} %` : thing.defect_class;
  }

  #grips() {
    const { boxes, selected } = this.shown, { x, y, zoom } = this.view, { svg } = this.panes[0];
    const chosen = !this.hidden && selected && !selected.proposal && boxes.find((box) => box.id === selected.id);
    if (!chosen) return;
    const [x1, y1, x2, y2] = this.gesture?.box ?? chosen.box_px;
    for (const side of HANDLES) {
      const at = [side.includes("w") ? x1 : side.includes("e") ? x2 : (x1 + x2) / 2,
                  side.includes("n") ? y1 : side.includes("s") ? y2 : (y1 + y2) / 2];
      // Grips stand outside of the box, so that a box of few pixels can still be seen and moved.
      const off = (GRIP_PX / 2) * 1.2, dx = side.includes("w") ? -off : side.includes("e") ? off : 0;
      const dy = side.includes("n") ? -off : side.includes("s") ? off : 0;
      make("rect", { class: `grip ${side}`, "data-grip": side, x: at[0] * zoom + x + dx - GRIP_PX / 2,
                     y: at[1] * zoom + y + dy - GRIP_PX / 2, width: GRIP_PX, height: GRIP_PX }, svg);
    }
  }

  // ---- gestures

  #at(event) {
    const place = this.panes[0].pane.getBoundingClientRect(), { x, y, zoom } = this.view;
    const screen = [event.clientX - place.left, event.clientY - place.top];
    return { screen, image: [(screen[0] - x) / zoom, (screen[1] - y) / zoom] };
  }

  #wheel(event) {
    event.preventDefault();
    if (event.shiftKey) this.panBy(-event.deltaY - event.deltaX, 0);
    else this.zoomBy(Math.exp(-Math.sign(event.deltaY) * Math.min(Math.abs(event.deltaY), 120) / 400), this.#at(event).screen);
  }

  #down(event) {
    this.element.focus({ preventScroll: true });
    const at = this.#at(event);
    this.fingers.set(event.pointerId, at.screen);
    this.panes[0].pane.setPointerCapture(event.pointerId);
    if (this.fingers.size > 1) {
      this.gesture = { kind: "pinch" };
      this.draw(this.shown);
      return;
    }
    const { grip, box, proposal } = event.target.dataset, selected = this.shown.selected;
    const started = { from: at, id: null, start: null };
    if (event.button === 1 || event.button === 2 || this.panning) this.gesture = { ...started, kind: "pan" };
    else if (grip && !event.shiftKey) this.gesture = { ...started, kind: grip, id: selected.id, start: this.#sides(selected.id) };
    else if (box && !selected?.proposal && selected?.id === Number(box) && !event.shiftKey) {
      this.gesture = { ...started, kind: "move", id: Number(box), start: this.#sides(Number(box)) };
    } else this.gesture = { ...started, kind: "draw", click: { box, proposal } };
  }

  #sides(id) { return this.shown.boxes.find((box) => box.id === id).box_px; }

  #move(event) {
    const gesture = this.gesture, before = this.fingers.get(event.pointerId);
    if (!gesture || !before) return;
    const at = this.#at(event);
    if (gesture.kind === "pinch") this.#pinch(event.pointerId, before, at.screen);
    else if (gesture.kind === "pan") this.panBy(at.screen[0] - before[0], at.screen[1] - before[1]);
    else {
      const far = Math.hypot(at.screen[0] - gesture.from.screen[0], at.screen[1] - gesture.from.screen[1]) >= DRAG_PX;
      if (far || gesture.box) {
        gesture.box = this.#gestured(gesture, at.image);
        this.draw(this.shown);
      }
    }
    this.fingers.set(event.pointerId, at.screen);
  }

  #pinch(moved, before, now) {
    const other = [...this.fingers].find(([id]) => id !== moved)?.[1];
    if (!other) return;
    const distance = (place) => Math.max(Math.hypot(place[0] - other[0], place[1] - other[1]), 10);
    this.panBy((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
    this.zoomBy(distance(now) / distance(before), [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2]);
  }

  // The box that the gesture has made so far, on whole pixels, within the image.
  #gestured({ kind, from, start }, [x, y]) {
    const [width, height] = this.size, cut = (value, most) => Math.min(Math.max(value, 0), most);
    if (kind === "draw") {
      const [left, right] = [from.image[0], x].sort((a, b) => a - b).map((v) => cut(v, width));
      const [top, bottom] = [from.image[1], y].sort((a, b) => a - b).map((v) => cut(v, height));
      return whole(Math.round(left), Math.round(top), Math.round(right), Math.round(bottom), width, height);
    }
    const dx = Math.round(x - from.image[0]), dy = Math.round(y - from.image[1]);
    let [x1, y1, x2, y2] = start;
    if (kind === "move") {
      const mx = Math.min(Math.max(dx, -x1), width - x2), my = Math.min(Math.max(dy, -y1), height - y2);
      return [x1 + mx, y1 + my, x2 + mx, y2 + my];
    }
    if (kind.includes("w")) x1 = Math.min(cut(Math.round(start[0]) + dx, width), Math.ceil(x2) - 1);
    if (kind.includes("e")) x2 = Math.max(cut(Math.round(start[2]) + dx, width), Math.floor(x1) + 1);
    if (kind.includes("n")) y1 = Math.min(cut(Math.round(start[1]) + dy, height), Math.ceil(y2) - 1);
    if (kind.includes("s")) y2 = Math.max(cut(Math.round(start[3]) + dy, height), Math.floor(y1) + 1);
    return [x1, y1, x2, y2];
  }

  #up(event) {
    const gesture = this.gesture;
    this.fingers.delete(event.pointerId);
    if (!gesture || (gesture.kind === "pinch" && this.fingers.size)) return;
    this.gesture = null;
    if (event.type === "pointercancel" || ["pan", "pinch"].includes(gesture.kind)) return this.draw(this.shown);
    if (gesture.box) {
      if (gesture.kind === "draw") this.on.drawn(gesture.box); else this.on.placed(gesture.id, gesture.box);
    } else if (gesture.click?.proposal) this.on.chosenProposal(gesture.click.proposal);
    else if (gesture.click) this.on.chosen(gesture.click.box ? Number(gesture.click.box) : null);
    else this.draw(this.shown);
  }

  // Leave a gesture as if it had not begun; whether there was one.
  cancel() {
    const had = Boolean(this.gesture);
    this.gesture = null;
    this.draw(this.shown);
    return had;
  }
}

const extent = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);

// At least one pixel each way, within the image.
function whole(x1, y1, x2, y2, width, height) {
  const left = Math.min(x1, width - 1), top = Math.min(y1, height - 1);
  return [left, top, Math.max(x2, left + 1), Math.max(y2, top + 1)];
}
