// A PLC on the text interface, written without anything of lineside: node text_plc.js PORT RUN FIRST LAST [ACK|MUTE]
// Presents the parts FIRST..LAST one after the other and prints one JSON line a result.  MUTE: never acknowledges.
const net = require("net");
const [port, run, first, last, manner] = process.argv.slice(2);
let part = Number(first), step = "", socket = null, text = "";
const say = (line) => socket.write(line + "\r\n");
const present = () => { step = "asked"; say(`TRIGGER ${run} ${part} SN-${part} LOT-1 -`); };

function next() {
  part += 1;
  if (part > Number(last)) { socket.end(); process.exit(0); }
  step = "wanted";
  say("STATE?");
}

function hear(line) {
  const field = line.split(" ");
  if (field[0] === "STATE" && field[2] === "ready=1" && step === "wanted") present();
  if (field[0] === "REFUSED" && Number(field[2]) === part) { step = "wanted"; setTimeout(() => say("STATE?"), 5); }
  if (field[0] === "NONE" && step === "lost") { step = "wanted"; say("STATE?"); }
  if (field[0] === "RESULT" && Number(field[1]) === Number(run) && Number(field[2]) === part && step !== "told") {
    console.log(JSON.stringify({ sequence: part, verdict: field[3], record: field[7] }));
    step = "told";
    if (manner === "MUTE") next(); else say(`ACK ${run} ${part}`);
  } else if (field[0] === "RESULT" && step === "lost") { step = "wanted"; say("STATE?"); }
  if (field[0] === "ACKNOWLEDGED" && Number(field[2]) === part && step === "told") next();
  if (field[0] === "ERROR" && field[1] === "NO_RESULT" && step === "told") next();
  if (field[0] === "ERROR" && field[1] === "NOT_WRITER") setTimeout(() => say("RESULT?"), 50);
}

function connect() {
  text = "";
  socket = net.connect(Number(port), "127.0.0.1", () => {
    if (step === "told") say(`ACK ${run} ${part}`);
    else { step = "lost"; say("RESULT?"); }
  });
  socket.setNoDelay(true);
  socket.on("data", (bytes) => {
    text += bytes.toString("latin1");
    for (let end; (end = text.indexOf("\r\n")) >= 0;) { const line = text.slice(0, end); text = text.slice(end + 2); hear(line); }
  });
  socket.on("error", () => {});
  socket.on("close", () => setTimeout(connect, 50));
}
setInterval(() => { if (socket && !socket.connecting && !socket.destroyed) say("HEARTBEAT 1"); }, 200);
connect();
