// The operator's page: says at once when what it shows is not current any more.
const QUIET_MS = 3000;  // the server beats every second
const ASK_MS = 5000;
const board = document.getElementById("board");
let heard = -Infinity, heardByClock = 0, offset = 0, asked = 0;

function listen(event) {
  const source = event.detail.source;
  if (source.lineside) return;
  source.lineside = true;
  source.addEventListener("beat", (beat) => {
    heard = performance.now();
    heardByClock = Date.now();
    offset = JSON.parse(beat.data).now - Date.now() / 1000;  // the clocks of server and browser differ
    board.classList.remove("unsure", "connecting");
    age();
  });
}

function look() {
  // Two clocks: one stands still while the computer sleeps, the other can be set.
  const quiet = performance.now() - heard > QUIET_MS || Math.abs(Date.now() - heardByClock) > QUIET_MS;
  board.classList.toggle("unsure", quiet);
  if (quiet && performance.now() > QUIET_MS) board.classList.remove("connecting");
  if (quiet && performance.now() - asked > ASK_MS) ask();
  age();
}

// A session that ended looks like a lost connection: then to the log-in.
async function ask() {
  asked = performance.now();
  try {
    const answer = await fetch("/board/alive", { headers: { "Accept": "application/json" }, cache: "no-store" });
    if (answer.status === 401 || answer.status === 403) window.location.assign("/");
  } catch { /* not reachable: the page already says so */ }
}

function age() {
  for (const shown of board.querySelectorAll(".age")) {
    const seconds = Math.max(0, Math.round(Date.now() / 1000 + offset - Number(shown.dataset.at)));
    shown.textContent = seconds < 86400 ? `(${seconds} ${shown.dataset.ago})` : "";
  }
}

document.body.addEventListener("htmx:sseOpen", listen);
document.addEventListener("visibilitychange", look);
window.addEventListener("pageshow", look);
setInterval(look, 500);
