// Fills the lists of the panel.  Every text from outside is set as text, never as HTML.

import { sizeText } from "./drawing.js";

export const byId = (id) => document.getElementById(id);

export function element(tag, { text, class: name, ...attributes } = {}, ...children) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
const swatch = (number) => element("span", { class: `swatch c${number % 8}`, "aria-hidden": "true" });

function row(current, click, ...content) {
  const button = element("button", { type: "button", "aria-current": String(current) }, ...content);
  button.addEventListener("click", click);
  return element("li", {}, button);
}

// A list keeps its focus when it is filled anew: who goes through it by Tab is not thrown out.
function refill(list, rows) {
  const at = [...list.children].findIndex((one) => one.contains(document.activeElement));
  list.replaceChildren(...rows);
  if (at >= 0) list.children[Math.min(at, rows.length - 1)]?.querySelector("button")?.focus();
}

export function showClasses(classes, current, choose) {
  refill(byId("classes"), classes.map((name, number) => {
    const key = number < 9 ? String(number + 1) : number < 18 ? `⇧${number - 8}` : "";
    const button = element("button", { type: "button", class: "class", "aria-pressed": String(name === current) },
      swatch(number), element("span", { text: name }), ...(key ? [element("kbd", { text: key })] : []));
    button.addEventListener("click", () => choose(name));
    return element("span", {}, button);
  }));
}

export function showBoxes(boxes, selected, colours, words, choose) {
  byId("boxCount").textContent = boxes.length;
  refill(byId("boxes"), boxes.map((box) => row(selected?.id === box.id && !selected.proposal, () => choose(box.id),
    swatch(colours[box.defect_class] ?? 0),
    element("span", { class: "grow", text: `${box.defect_class} ${sizeText(box.box_px)}` }),
    ...(box.polygons_px.length ? [element("span", { class: "badge", text: words.outline })] : []),
    ...(box.unplaced ? [element("span", { class: "badge", text: words.unplaced })] : []))));
}

export function showProposals(proposals, selected, colours, words, choose) {
  byId("proposalCount").textContent = proposals.length;
  refill(byId("proposals"), proposals.map((one) => row(selected?.id === one.id && selected.proposal, () => choose(one.id),
    swatch(colours[one.defect_class] ?? 0),
    element("span", { class: "grow", text: `${one.defect_class} ${sizeText(one.box_px.map(Math.round))}` }),
    element("span", { text: `${Math.round(one.score * 100)} %` }))));
}

export function showQueue(rows, current, state, open) {
  const at = Math.max(rows.findIndex((one) => one.n === current), 0), first = Math.max(at - 3, 0);
  const shown = rows.slice(first, first + 60);
  byId("queue").start = first + 1;
  refill(byId("queue"), shown.map((one) => row(one.n === current, () => open(one.n),
    element("span", { class: "number", text: String(rows.indexOf(one) + 1) }),
    element("span", { class: "grow", text: one.name }), element("span", { class: "soft", text: state(one) }))));
  const list = byId("queue"), here = list.querySelector('[aria-current="true"]')?.parentElement;
  if (here) list.scrollTop = here.offsetTop - list.offsetTop - 40;
}

export function options(select, pairs, value) {
  select.replaceChildren(...pairs.map(([key, text]) => element("option", { value: key, text })));
  select.value = pairs.some(([key]) => key === value) ? value : pairs[0][0];
}

// A picture with its boxes, for looking at two versions side by side.
export function figure(place, image, size, labels, colours) {
  place.querySelector("svg")?.remove();
  const NS = "http://www.w3.org/2000/svg", svg = document.createElementNS(NS, "svg");
  svg.setAttribute("viewBox", `0 0 ${size[0]} ${size[1]}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", labels.map((box) => `${box.defect_class} ${sizeText(box.box_px)}`).join("; ") || "-");
  const picture = document.createElementNS(NS, "image");
  for (const [key, value] of [["href", image], ["width", size[0]], ["height", size[1]]]) picture.setAttribute(key, value);
  svg.append(picture);
  for (const label of labels) {
    const [x1, y1, x2, y2] = label.box_px;
    for (const name of ["halo", `box c${(colours[label.defect_class] ?? 0) % 8}`]) {
      const box = document.createElementNS(NS, "rect");
      for (const [key, value] of Object.entries({ x: x1, y: y1, width: x2 - x1, height: y2 - y1, class: name })) {
        box.setAttribute(key, value);
      }
      svg.append(box);
    }
  }
  place.prepend(svg);
}
