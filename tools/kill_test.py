"""Kills a station again and again, and then compares what the line saw with what the store holds.

A real station process (`lineside run`) is ended with SIGKILL at random moments, in start-up and at work, and started
again, while a PLC (the line simulator with all its faults, in a process of its own) keeps presenting parts over Modbus
TCP.  Afterwards every trigger that the PLC sent and that was not refused must have exactly one record, and every
answer that the PLC read must be what its record says.

    python -m tools.kill_test --kills 200 --parts-interval-ms 20 --seed 1 --out FOLDER

Exit code: 0 nothing was lost, doubled or contradicted, 1 something was, 2 wrong usage.  Ends by itself (--limit-s).
"""

import argparse
import json
import logging
import multiprocessing
import random
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from inspection.controllers.register_map import reason_code
from inspection.types import Record
from tools.line_simulator import FAULTS, Journal, Link, NoAnswerError, Part, Plc, fault_order

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "deploy" / "recipes" / "demo-pcb"
LOT, RECIPE_ID = "KILL", "demo-pcb"
RESULT = ("run", "sequence", "verdict", "reason_code", "findings", "counts", "other_findings", "processing_ms")

START_LIMIT_S = 60.0  # from the start of a process until it is ready
PART_LIMIT_S = 120.0  # from presenting a part until its answer, over several deaths
KILLED_IN_START_UP = 0.2  # share of the kills that do not wait for a ready station
AT_WORK_S = 0.8  # the other kills come up to so much later than ready: several parts
STARTING, UNSENT, UNACCEPTED, UNRECORDED, UNREAD = PHASES = (
    "in start-up",
    "between two parts",
    "part presented, not accepted yet",
    "part accepted, no record yet",
    "part recorded, answer not read yet",
)


# The line


def present_parts(
    port: int, log: Path, seed: int, *, interval_ms: int, stop: Event, recipe_id: str = RECIPE_ID
) -> None:
    """A PLC that presents parts, and misbehaves, until told to stop; runs as a process of its own."""
    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # a lost link is noted in the log of the line
    journal = Journal(log)
    link = Link("127.0.0.1", port, journal)
    part = Part(random.Random(seed).randrange(1, 2**32), 0, "", LOT, recipe_id)
    plc = Plc(link, journal, part, give_up_s=PART_LIMIT_S)
    faults: list[str] = []
    try:
        link.connect(time.monotonic() + START_LIMIT_S)
        while not stop.is_set():
            faults = faults or fault_order(FAULTS, 100, seed + part.sequence)
            plc.idle_until(time.monotonic() + interval_ms / 1000)
            part = plc.next_part()
            plc.complete(part, faults.pop())
    except NoAnswerError as error:
        journal.fail(f"{part.trigger_id}: gave up: {error}")
    finally:
        link.drop()
        journal.close()


@dataclass(slots=True)
class LineLog:
    """What the PLC noted, read while it is still being written."""

    path: Path
    events: list[dict[str, Any]] = field(default_factory=list)
    _read: int = 0

    def update(self) -> "LineLog":
        """Take in the lines that came since the last time."""
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self._read)
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read += len(whole)
            self.events += [json.loads(line) for line in whole.splitlines()]
        return self

    def ids(self, event: str) -> list[str]:
        """The trigger ids of one kind of event, in order."""
        return [row["trigger_id"] for row in self.events if row["event"] == event]

    def in_progress(self) -> str:
        """The trigger id that the PLC waits for, or ""."""
        waiting = [""]
        for row in self.events:
            if row["event"] == "sent" and row["trigger_id"] != waiting[-1]:
                waiting.append(row["trigger_id"])
            elif row["event"] == "rejected":
                waiting.pop()
            elif row["event"] == "answer":
                waiting = [""]
        return waiting[-1]

    def intruders(self) -> set[str]:
        """Parts that were presented while another one was in progress."""
        pairs = zip(self.events, self.events[1:], strict=False)
        return {b["trigger_id"] for a, b in pairs if a.get("fault") == "busy" and b["event"] == "sent"}


# The station


class StationProcess:
    """One life of the station; its log is appended to ``log``."""

    def __init__(self, config: Path, log: Path) -> None:
        self._log, self._from = log, log.stat().st_size if log.exists() else 0
        self.started_s = time.monotonic()
        with log.open("ab") as stderr:
            command = [sys.executable, "-m", "inspection", "run", str(config)]
            self._process = subprocess.Popen(command, stderr=stderr, cwd=ROOT)

    def is_ready(self) -> bool:
        """Whether it has reported Ready."""
        with self._log.open("rb") as file:
            file.seek(self._from)
            return b'"station.ready"' in file.read()

    def has_ended(self) -> bool:
        """Whether the process has ended by itself."""
        return self._process.poll() is not None

    def is_ready_or_ended(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.is_ready() or self.has_ended()

    def kill(self) -> None:
        """End it as a power cut would."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """End it in an orderly way; returns its exit code."""
        self._process.terminate()
        return self._process.wait(timeout=START_LIMIT_S)


def make_frames(folder: Path, seed: int) -> None:
    """A good board, some with defects, a black frame and a torn file, which are played in turn."""
    import numpy as np

    from datasets.synth.boards import generate_pair
    from datasets.synth.camera import CameraModel
    from inspection.images import read_grey, write_png

    folder.mkdir(parents=True)
    golden = read_grey(RECIPE / "golden.png")
    camera = CameraModel(shift_px=12, rotate_deg=1.0, scale=0.01)
    for number, defects in enumerate((0, 2, 4)):
        pair = generate_pair(np.random.default_rng(seed + number), golden, defects=defects, camera=camera)
        write_png(folder / f"frame-{number}.png", pair.frame)
    write_png(folder / "frame-3.png", np.zeros_like(golden))
    torn = (folder / "frame-0.png").read_bytes()
    (folder / "frame-4.png").write_bytes(torn[: len(torn) // 2])


def write_config(folder: Path, port: int) -> Path:
    """A station config that plays the frames in ``folder`` and listens on ``port``."""
    path = folder / "station.toml"
    path.write_text(
        f"""station_id = "kill-test"
recipe = {json.dumps(str(RECIPE))}
store = "records.sqlite"

[evidence]
folder = "evidence"
min_free_mb = 0

[cameras.top]
kind = "folder"
folder = "frames"
loop = true

[controller]
kind = "modbus_tcp"
port = {port}
""",
        encoding="utf-8",
    )
    return path


# The comparison


def rows(store: Path, sql: str) -> list[tuple[Any, ...]]:
    """Rows of the store, read without the code that wrote them; () while there is no store."""
    if not store.exists():
        return []
    with closing(sqlite3.connect(store, timeout=10)) as database:
        return database.execute(sql).fetchall()


def phase_of(line: LineLog, store: Path) -> str:
    """What a station that had been ready was doing when it was killed."""
    current = line.update().in_progress()
    accepted = {row[0] for row in rows(store, "SELECT trigger_id FROM triggers")}
    recorded = {row[0] for row in rows(store, "SELECT trigger_id FROM records")}
    if accepted - recorded:
        return UNRECORDED
    if not current:
        return UNSENT
    return UNREAD if current in recorded else UNACCEPTED


@dataclass(slots=True)
class Comparison:
    """The two stories side by side: counts for the table, and every contradiction."""

    counts: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def check(self, wrong: Iterable[str], text: str) -> None:
        """One violation for each trigger id in ``wrong``."""
        self.violations += [f"{trigger_id} {text}" for trigger_id in sorted(wrong)]


def compare(line: LineLog, store: Path, others: frozenset[str] = frozenset()) -> Comparison:
    """Hold the PLC's log against the store; to be called when both have stopped.

    ``others`` are trigger ids of another client: a part that it presented while it was the writer is rightly on record.
    """
    found = Comparison()
    sent = {row["trigger_id"]: row for row in line.update().events if row["event"] == "sent"}
    answers = [row for row in line.events if row["event"] == "answer"]
    answered, rejected = {row["trigger_id"] for row in answers}, set(line.ids("rejected"))
    cut = line.intruders() - rejected - answered  # the link broke before the PLC could see what became of it
    records = [Record.from_json(row[0]) for row in rows(store, "SELECT json FROM records ORDER BY rowid")]
    records = [record for record in records if record.trigger.trigger_id not in others]
    by_id = {record.trigger.trigger_id: record for record in records}
    times = Counter(record.trigger.trigger_id for record in records)
    accepted = {row[0] for row in rows(store, "SELECT trigger_id FROM triggers")} - others

    due = set(sent) - rejected - cut
    found.violations += [f"the line noted: {row['text']}" for row in line.events if row["event"] == "anomaly"]
    found.check(due - set(by_id), "was sent and has no record")
    found.check({name for name, count in times.items() if count > 1}, "has more than one record")
    found.check(set(by_id) - set(sent), "has a record and was never sent")
    found.check(rejected & accepted, "was refused as busy and accepted all the same")
    found.check(accepted - set(by_id), "was accepted and has no record")
    found.check(due - answered, "was never answered")
    if len(records) != len(due | (cut & set(by_id))):
        found.violations.append(f"{len(records)} records for {len(due)} triggers")
    for answer in answers:
        found.violations += contradictions(answer, sent[answer["trigger_id"]], by_id.get(answer["trigger_id"]))
    _check_repeats(line, answers, found)
    integrity = rows(store, "PRAGMA integrity_check")
    if integrity != [("ok",)]:
        found.violations.append(f"the store is damaged: {integrity}")

    restarted = {name for name, record in by_id.items() if _rule(record) == "station.restarted"}
    found.counts = {
        "triggers sent": len(sent),
        "  refused as busy": len(rejected),
        "  cut off while another was in progress": len(cut),
        "  to be inspected": len(due),
        "requests, with those presented again": len(line.ids("sent")),
        "records": len(records),
        **{f"  {name}": n for name, n in sorted(Counter(r.judgement.verdict.name for r in records).items())},
        "  ERROR because a kill cut the part off": len(restarted),
        "triggers answered": len(answered),
        "  answered ERROR after a restart": len(restarted & answered),
        "connections lost": sum(row["event"] == "link_lost" for row in line.events),
    }
    return found


def contradictions(answer: dict[str, Any], sent: dict[str, Any], record: Record | None) -> list[str]:
    """Where an answer differs from the request or the record of its trigger."""
    if record is None:
        return [f"{answer['trigger_id']} was answered without a record"]
    rule = _rule(record)
    pairs = (
        ("run and sequence", (answer["run"], answer["sequence"]), (sent["run"], sent["sequence"])),
        ("verdict", answer["verdict"], int(record.judgement.verdict)),
        ("reason", answer["reason_code"], reason_code(rule) if rule else 0),
        ("serial", record.trigger.serial, sent["serial"]),
    )
    return [f"{answer['trigger_id']}: {what} is {a}, not {b}" for what, a, b in pairs if a != b]


def _rule(record: Record) -> str:
    return record.judgement.reasons[0].rule_id if record.judgement.reasons else ""


def _check_repeats(line: LineLog, answers: list[dict[str, Any]], found: Comparison) -> None:
    """A trigger is answered once; one presented again after its answer twice, and both times alike."""
    doubled = {row["trigger_id"] for row in line.events if row.get("fault") == "double"}
    first: dict[str, dict[str, Any]] = {}
    for answer in answers:
        before = first.setdefault(answer["trigger_id"], answer)
        if any(before[name] != answer[name] for name in RESULT):
            found.violations.append(f"{answer['trigger_id']} was answered in two ways")
    times = Counter(answer["trigger_id"] for answer in answers)
    found.check({name for name, n in times.items() if n > 1 + (name in doubled)}, "was answered too often")


# The run


@dataclass(slots=True)
class Killing:
    """What came of the kills: in which phase each fell, and how long the starts took."""

    phases: Counter[str] = field(default_factory=Counter)
    start_s: list[float] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)


def run(options: argparse.Namespace) -> int:
    """Kill, restart, compare, print the table; returns the exit code."""
    out: Path = options.out
    make_frames(out / "frames", options.seed)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    config, line = write_config(out, port), LineLog(out / "line.jsonl")
    spawn = multiprocessing.get_context("spawn")
    stop = spawn.Event()
    settings = {"interval_ms": options.parts_interval_ms, "stop": stop}
    plc = spawn.Process(target=present_parts, args=(port, line.path, options.seed), kwargs=settings, daemon=True)
    plc.start()
    began_s = time.monotonic()
    killing = Killing()
    try:
        _kill_again_and_again(options, config, line, killing, began_s + options.limit_s)
        _finish(StationProcess(config, out / "station.log"), line, killing, end=(stop.set, plc.join, plc.is_alive))
    finally:
        plc.kill()
        plc.join()
    return _report(killing, compare(line, out / "records.sqlite"), time.monotonic() - began_s)


def _kill_again_and_again(
    options: argparse.Namespace, config: Path, line: LineLog, killing: Killing, end_s: float
) -> None:
    chance, log, store = random.Random(options.seed), options.out / "station.log", options.out / "records.sqlite"
    for number in range(options.kills):
        if time.monotonic() > end_s:
            killing.troubles.append(f"only {number} of {options.kills} kills within {options.limit_s:.0f} s")
            return
        station = StationProcess(config, log)
        typical_s = sorted(killing.start_s)[len(killing.start_s) // 2] if killing.start_s else START_LIMIT_S
        if killing.start_s and chance.random() < KILLED_IN_START_UP:
            _until(station.has_ended, chance.uniform(0, typical_s))
        elif _until(station.is_ready_or_ended, START_LIMIT_S) and not station.has_ended():
            killing.start_s.append(time.monotonic() - station.started_s)
            _until(station.has_ended, chance.uniform(0, AT_WORK_S))
        ended, ready = station.has_ended(), station.is_ready()
        station.kill()
        if ended:
            killing.troubles.append(f"the station ended by itself before kill {number + 1}; see {log}")
            return
        killing.phases[phase_of(line, store) if ready else STARTING] += 1


def _finish(
    station: StationProcess, line: LineLog, killing: Killing, end: tuple[Callable[[], None], Any, Callable[[], bool]]
) -> None:
    """Let the last station answer what is open, then end the line and the station in this order."""
    stop_line, join_line, line_is_alive = end
    try:
        answered = len(line.update().ids("answer"))
        _until(lambda: len(line.update().ids("answer")) > answered + 1 or not line_is_alive(), PART_LIMIT_S)
        stop_line()
        join_line(PART_LIMIT_S)
        if line_is_alive():
            killing.troubles.append(f"the line did not come to its end within {PART_LIMIT_S:.0f} s")
        if code := station.stop():
            killing.troubles.append(f"the station ended with exit code {code} when asked to")
    finally:
        with suppress(ProcessLookupError):
            station.kill()


def _until(condition: Callable[[], bool], limit_s: float) -> bool:
    """Ask again and again for ``limit_s``; whether it came true."""
    end_s = time.monotonic() + limit_s
    while not (met := condition()) and time.monotonic() < end_s:
        time.sleep(min(0.003, max(0.0, end_s - time.monotonic())))
    return met


def _report(killing: Killing, found: Comparison, spent_s: float) -> int:
    start_ms = sorted(1000 * start_s for start_s in killing.start_s) or [0.0]
    violations = [*killing.troubles, *found.violations]
    table: list[tuple[str, object]] = [
        ("kills", sum(killing.phases.values())),
        *((f"  {phase}", killing.phases[phase]) for phase in PHASES),
        *found.counts.items(),
        ("start to ready ms, median / largest", f"{start_ms[len(start_ms) // 2]:.0f} / {start_ms[-1]:.0f}"),
        ("minutes", f"{spent_s / 60:.1f}"),
        ("violations", len(violations)),
    ]
    print("\n".join(f"{name:<44}{value}" for name, value in table))
    print("".join(f"VIOLATION {text}\n" for text in violations), end="")
    return 1 if violations else 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(prog="kill_test", description="Kill a station often; see that nothing is lost.")
    options.add_argument("--kills", type=int, default=200, help="how often the station is killed")
    options.add_argument("--parts-interval-ms", type=int, default=20, help="time from an answer to the next part, ms")
    options.add_argument("--seed", type=int, default=1, help="moments of the kills and order of the line's faults")
    options.add_argument("--out", type=Path, required=True, help="new folder for frames, store and logs")
    options.add_argument("--limit-s", type=float, default=1800.0, help="no kill is begun later than this, s")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Entry point; see the exit codes above."""
    options = parser().parse_args(arguments)
    if options.out.exists():
        print(f"{options.out} exists already\nname a new folder; results are not mixed", file=sys.stderr)
        return 2
    return run(options)


if __name__ == "__main__":
    sys.exit(main())
