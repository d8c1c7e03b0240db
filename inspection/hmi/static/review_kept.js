// Says which decisions are kept in this browser, why, and what the person can do about it.
import { NOT_HERE } from "/static/hmi/review_keep.js";
import { fill, make } from "/static/hmi/review_show.js";

const MOST_SERIALS = 5;

// ``discard(status)`` is called when the person gives up what was refused with that status.
export function showKept(box, state, words, discard) {
  const lines = [...linesOf(state, words), ...refusedOf(state.refused, words)];
  const mark = JSON.stringify(lines);
  if (box.dataset.mark === mark) return;  // nothing is read out twice
  box.dataset.mark = mark;
  box.replaceChildren(...lines.flatMap(([text, status]) => {
    if (status === "login") return [text, " ", logIn(words), " "];
    return status ? [text, " ", discardButton(words, () => discard(status)), " "] : [text, " "];
  }));
  box.hidden = !lines.length;
}

// Each line is a text, and what stands behind it: "login", the status of a refusal, or nothing.
function linesOf(state, words) {
  const lines = [];
  if (state.waiting && state.trouble === "offline") {
    lines.push([fill(words.unsent, { n: state.waiting })]);
    if (state.text) lines.push([state.text]);
  }
  if (state.waiting && state.trouble === "login") lines.push([fill(words.log_in_again, { n: state.waiting }), "login"]);
  if (state.others.length) lines.push([fill(words.of_others, { names: state.others.join(", ") })]);
  if (state.unkept && (state.waiting || state.refused.length)) lines.push([words.unkept]);
  return lines;
}

function refusedOf(refused, words) {
  const missing = refused.filter((one) => one.status === NOT_HERE);
  const wrong = refused.filter((one) => one.status !== NOT_HERE);
  const lines = [];
  if (missing.length) lines.push([fill(words.not_here, { n: missing.length, serials: serialsOf(missing) }), NOT_HERE]);
  if (wrong.length) lines.push([fill(words.refused, { serial: serialsOf(wrong), text: wrong[0].text }), wrong[0].status]);
  return lines;
}

function serialsOf(refused) {
  const serials = [...new Set(refused.map((one) => one.decision.serial || "-"))];
  return serials.slice(0, MOST_SERIALS).join(", ") + (serials.length > MOST_SERIALS ? ", ..." : "");
}

function logIn(words) {
  const link = make("a", words.log_in);
  link.href = "/review";
  return link;
}

function discardButton(words, discard) {
  const button = make("button", words.discard);
  button.type = "button";
  button.addEventListener("click", () => { if (confirm(words.discard_sure)) discard(); });
  return button;
}
