// Sends a change to the server with the session's token; gives the answer's JSON, or throws an Error in words.
export const token = () => document.querySelector('meta[name="csrf-token"]').content;

// What a page asks by itself, with nobody at it, must not keep a session open: it carries a mark.
const PRESENT_MS = 60000;
let touched = performance.now();
for (const sign of ["pointerdown", "keydown", "wheel"]) {
  window.addEventListener(sign, () => { touched = performance.now(); }, { capture: true, passive: true });
}
export const marks = () => ({ "X-CSRF-Token": token(), ...(performance.now() - touched > PRESENT_MS && { "X-By-Itself": "1" }) });

export async function send(url, body, method = "POST") {
  const answer = await fetch(url, {
    method,
    headers: { "Content-Type": "application/json", "Accept": "application/json", ...marks() },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const json = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    throw Object.assign(new Error([json.what, json.fix].filter(Boolean).join(" - ") || answer.statusText),
                        { status: answer.status, json });
  }
  return json;
}

export function toast(text) {
  document.getElementById("toast").textContent = text;
}
