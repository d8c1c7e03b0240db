// What is drawn on one image - boxes, the class of the image, answers to proposals - with undo and redo.  No page here.

const copy = (thing) => JSON.parse(JSON.stringify(thing));
export const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
export const sizeText = ([x1, y1, x2, y2]) => `${round(x1)},${round(y1)} – ${round(x2)},${round(y2)} (${round(x2 - x1)}×${round(y2 - y1)})`;
const round = (value) => Math.round(value * 100) / 100;

export function overlap(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  const shared = Math.max(width, 0) * Math.max(height, 0);
  return shared / (area(a) + area(b) - shared);
}

// Two boxes are the same label when class and sides are.
export const sameBox = (a, b) => a.defect_class === b.defect_class && a.box_px.every((v, i) => v === b.box_px[i]);

export function merged(mine, theirs) {
  return [...theirs, ...mine.filter((box) => !theirs.some((other) => sameBox(box, other)))];
}

export class Drawing {
  // labels as the server stores them; size [width, height] in pixels
  constructor(labels, imageClass, size) {
    this.size = size;
    this.next = 1;
    this.state = { boxes: labels.map((label) => this.#own(label)), imageClass, good: false, answers: {} };
    this.undone = [];
    this.done = [];
    this.key = "";
    this.dirty = false;
  }

  #own(label) {
    return { id: this.next++, defect_class: label.defect_class, box_px: [...label.box_px],
             polygons_px: label.polygons_px || [], edited: false };
  }

  // One step that undo takes back; steps of the same key (nudging one box) become one.
  #step(key, change) {
    const before = copy(this.state);
    change(this.state);
    if (JSON.stringify(before) === JSON.stringify(this.state)) return;
    if (!key || key !== this.key) this.done.push(before);
    if (this.done.length > 200) this.done.shift();
    this.key = key;
    this.undone = [];
    this.dirty = true;
  }

  box(id) { return this.state.boxes.find((box) => box.id === id); }

  labels() {
    return this.state.boxes.map(({ defect_class, box_px, polygons_px }) => ({ defect_class, box_px, polygons_px }));
  }

  snapshot() { return copy({ state: this.state, next: this.next }); }

  restore({ state, next }) {
    this.state = copy(state);
    this.next = next;
    this.dirty = true;
  }

  undo() { return this.#back(this.done, this.undone); }
  redo() { return this.#back(this.undone, this.done); }
  #back(from, to) {
    if (!from.length) return false;
    to.push(copy(this.state));
    this.state = from.pop();
    this.key = "";
    return (this.dirty = true);
  }

  // An unplaced box is there to be moved: it gives way to the next one, and is not stored where nobody put it.
  add(defectClass, box, unplaced = false) {
    const made = { ...this.#own({ defect_class: defectClass, box_px: this.inside(box) }), edited: true, unplaced };
    this.#step("", (state) => {
      state.boxes = [...state.boxes.filter((one) => !one.unplaced), made];
      state.good = false;
    });
    return made.id;
  }

  get unplaced() { return this.state.boxes.find((box) => box.unplaced); }

  // A new place or size.  An outline no longer fits a box that was edited, so it is let go of (the page says so).
  place(id, box, key = "") {
    this.#step(key, () => {
      const found = this.box(id), sides = this.inside(box);
      if (found.box_px.some((value, i) => value !== sides[i])) {
        Object.assign(found, { box_px: sides, polygons_px: [], edited: true, unplaced: false });
      }
    });
  }

  nudge(id, dx, dy, sizing) {
    const [x1, y1, x2, y2] = this.box(id).box_px, [width, height] = this.size;
    const cut = (value, least, most) => Math.min(Math.max(value, least), most);
    if (sizing) {
      this.place(id, [x1, y1, cut(x2 + dx, x1 + 1, width), cut(y2 + dy, y1 + 1, height)], `size ${id}`);
    } else {
      const mx = cut(dx, -x1, width - x2), my = cut(dy, -y1, height - y2);
      this.place(id, [x1 + mx, y1 + my, x2 + mx, y2 + my], `move ${id}`);
    }
  }

  inside([x1, y1, x2, y2]) {
    const [width, height] = this.size, cut = (value, most) => Math.min(Math.max(value, 0), most);
    const [left, right] = [cut(Math.min(x1, x2), width - 1), cut(Math.max(x1, x2), width)];
    const [top, bottom] = [cut(Math.min(y1, y2), height - 1), cut(Math.max(y1, y2), height)];
    return [left, top, Math.max(right, left + 1), Math.max(bottom, top + 1)];
  }

  reclass(id, defectClass) { this.#step("", () => { this.box(id).defect_class = defectClass; }); }
  remove(id) { this.#step("", (state) => { state.boxes = state.boxes.filter((box) => box.id !== id); }); }
  setImageClass(name) { this.#step("", (state) => { state.imageClass = name; state.good = state.good && !name; }); }
  good() { this.#step("", (state) => { Object.assign(state, { boxes: [], imageClass: "", good: true }); }); }

  // proposals: [{id, defect_class, box_px, score}]; null for a box they give no place
  accept(proposals) {
    this.#step("", (state) => {
      for (const proposal of proposals) {
        state.answers[proposal.id] = "accepted";
        state.boxes.push({ ...this.#own(proposal), box_px: this.inside(proposal.box_px.map(Math.round)), edited: true });
        state.good = false;
      }
    });
  }

  reject(proposals) {
    this.#step("", (state) => { for (const { id } of proposals) state.answers[id] = "rejected"; });
  }

  // Those without an answer, and not drawn already.
  open(proposals) {
    const drawn = (one) => this.state.boxes.some(
      (box) => box.defect_class === one.defect_class && overlap(box.box_px, one.box_px) > 0.5);
    return proposals.filter((one) => !this.state.answers[one.id] && !drawn(one));
  }
}
