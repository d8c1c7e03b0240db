// Sends a change to the server with the session's token; gives the answer's JSON, or throws an Error in words.
export const token = () => document.querySelector('meta[name="csrf-token"]').content;

export async function send(url, body, method = "POST") {
  const answer = await fetch(url, {
    method,
    headers: { "Content-Type": "application/json", "Accept": "application/json", "X-CSRF-Token": token() },
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
