"""A PLC for trying and testing a station: presents parts over Modbus TCP and checks every answer.

Written against ``deploy/register_map.md`` alone.  It shares no code with the station, so a mistake in the station's
register map cannot hide behind the same mistake here.  It survives the death of the station: it connects again with
growing pauses and presents the same request again until it is answered.

Exit code: 0 every check passed, 1 some check failed, 2 wrong usage, 3 the station was never reached.
"""

import argparse
import json
import logging
import os
import random
import secrets
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException

PROTOCOL_VERSION = 1
REQUEST_AT, PLC_HEARTBEAT_AT, ACKNOWLEDGE_AT, TRIGGER_AT = 0, 40, 41, 42
STATION_AT, STATION_REGISTERS = 100, 33
FAULTS = ("double", "busy", "lost_ack", "reconnect")
VERDICTS = ("ERROR", "OK", "NG", "REVIEW")
REJECT_BUSY, REJECT_NOT_READY = 1, 2

POLL_S = 0.005
REPLY_LIMIT_S = 1.0
VALID_FALLS_WITHIN_S = 1.0
HEARTBEAT_STANDS_S = 3.0
PLC_BEAT_S = 0.1
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 0.5

Outcome = TypeVar("Outcome")


class LinkError(Exception):
    """The connection broke, or the station did not reply in time."""


class NoAnswerError(Exception):
    """The station did not answer within the time allowed."""


@dataclass(frozen=True, slots=True)
class Part:
    """One request of the PLC."""

    run: int
    sequence: int
    serial: str
    lot: str
    recipe_id: str

    @property
    def trigger_id(self) -> str:
        """How the station names this request in its records."""
        return f"{self.run:08x}-{self.sequence:010d}"

    def words(self) -> list[int]:
        """Registers 0..39: run, sequence, serial, lot, recipe id."""
        texts = f"{self.serial:\0<32}{self.lot:\0<16}{self.recipe_id:\0<24}".encode("ascii")
        return list(struct.unpack(">40H", struct.pack(">II", self.run, self.sequence) + texts))


@dataclass(frozen=True, slots=True)
class Status:
    """The station block, registers 100..132."""

    version: int
    heartbeat: int
    state: int
    trigger_ready: int
    busy: int
    alarms: int
    lost_acks: int
    repeats: int
    rejects: int
    reject_code: int
    reject_run: int
    reject_sequence: int
    run: int
    sequence: int
    verdict: int
    reason_code: int
    findings: int
    counts: tuple[int, ...]
    other_findings: int
    processing_ms: int
    valid: int

    @staticmethod
    def of(words: Sequence[int]) -> "Status":
        """The status in the 33 words that begin at register 100."""
        values = struct.unpack(">10H4I3H8HHIH", struct.pack(">33H", *words))
        fields: list[Any] = [*values[:17], values[17:25], *values[25:]]
        return Status(*fields)

    def answers(self, part: Part) -> bool:
        """Whether a valid result for this part stands in the registers."""
        return self.valid == 1 and (self.run, self.sequence) == (part.run, part.sequence)

    def rejects_part(self, part: Part) -> bool:
        """Whether the last refused request was this one."""
        return self.rejects > 0 and (self.reject_run, self.reject_sequence) == (part.run, part.sequence)

    def result(self) -> dict[str, Any]:
        """What is said of the part, without the state of the station."""
        names = ("run", "sequence", "verdict", "reason_code", "findings", "counts", "other_findings", "processing_ms")
        return {name: getattr(self, name) for name in names}


def problems(status: Status) -> list[str]:
    """What is wrong with a valid result by the register map alone; empty when nothing is."""
    checks = (
        (status.valid == 1, f"valid is {status.valid}"),
        (status.busy == 0, "valid and busy stand together"),
        (0 <= status.verdict < len(VERDICTS), f"verdict {status.verdict} is not 0..3"),
        ((status.verdict == 1) == (status.reason_code == 0), f"verdict {status.verdict}, reason {status.reason_code}"),
        (status.reason_code <= 255, f"reason code {status.reason_code} is above 255"),
        (status.verdict != 1 or status.findings == 0, f"OK with {status.findings} findings"),
        (
            status.findings == sum(status.counts) + status.other_findings,
            f"{status.findings} findings, but counts {status.counts} and {status.other_findings} others",
        ),
    )
    return [text for passed, text in checks if not passed]


class Journal:
    """The log: one JSON object a line, on the disk before the next step; and the failed checks."""

    def __init__(self, path: Path | None) -> None:
        self._file = path.open("a", encoding="utf-8") if path else None
        self.failures: list[str] = []
        self.events: Counter[str] = Counter()

    def note(self, event: str, **fields: Any) -> None:
        """Write one event and wait until it is on the disk."""
        self.events[event] += 1
        if self._file is not None:
            row = {"at": datetime.now(UTC).isoformat(), "event": event, **fields}
            self._file.write(json.dumps(row, separators=(",", ":")) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def fail(self, text: str, **fields: Any) -> None:
        """Note a failed check."""
        self.failures.append(text)
        self.note("anomaly", text=text, **fields)

    def close(self) -> None:
        """Close the log file."""
        if self._file is not None:
            self._file.close()


class Link:
    """The connection to the station.  Every call raises LinkError when the station is away for REPLY_LIMIT_S."""

    def __init__(self, host: str, port: int, journal: Journal) -> None:
        self._where = (host, port)
        self._journal = journal
        self._client: ModbusTcpClient | None = None
        self._pause_s = FIRST_PAUSE_S
        self._heartbeat, self._moved_s, self._beaten_s, self._beats = -1, 0.0, 0.0, 0
        self.reached = False
        self.heartbeats_seen = 0

    def connect(self, deadline_s: float) -> None:
        """Connect, with growing pauses until a telegram is answered; NoAnswerError after ``deadline_s`` (monotonic)."""
        self.drop()
        host, port = self._where
        while True:
            if time.monotonic() > deadline_s:
                raise NoAnswerError(f"no connection to {host} port {port}")
            client = ModbusTcpClient(host, port=port, timeout=REPLY_LIMIT_S, retries=0)
            if client.connect():
                break
            client.close()
            time.sleep(self._pause_s)
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        self._client, self._heartbeat = client, -1
        self._journal.note("link_up")

    def drop(self) -> None:
        """Close the connection without a word to the station."""
        if self._client is not None:
            self._client.close()
        self._client = None

    def read(self) -> Status:
        """The station block, in one telegram.  Moves the PLC's heartbeat, watches the station's."""
        if time.monotonic() - self._beaten_s > PLC_BEAT_S:
            self._beaten_s, self._beats = time.monotonic(), (self._beats + 1) & 0xFFFF
            self.write(PLC_HEARTBEAT_AT, [self._beats])
        reply = self._exchange(lambda client: client.read_holding_registers(STATION_AT, count=STATION_REGISTERS))
        status = Status.of(reply.registers)
        self.reached, self._pause_s = True, FIRST_PAUSE_S
        if status.version != PROTOCOL_VERSION:
            raise NoAnswerError(
                f"the station speaks version {status.version} of the register map, not {PROTOCOL_VERSION}"
            )
        self._watch(status.heartbeat)
        return status

    def write(self, address: int, words: list[int]) -> None:
        """Write registers in one telegram."""
        self._exchange(lambda client: client.write_registers(address, words))

    def _exchange(self, call: Callable[[ModbusTcpClient], Any]) -> Any:
        if self._client is None:
            raise LinkError("not connected")
        try:
            reply = call(self._client)
        except (ModbusException, OSError) as error:
            raise LinkError(str(error)) from error
        if reply.isError():
            self._journal.fail(f"the station refused a telegram: {reply}")
            raise LinkError(str(reply))
        return reply

    def _watch(self, heartbeat: int) -> None:
        now_s = time.monotonic()
        if heartbeat != self._heartbeat:
            self.heartbeats_seen += self._heartbeat >= 0
            self._heartbeat, self._moved_s = heartbeat, now_s
        elif now_s - self._moved_s > HEARTBEAT_STANDS_S:
            self._journal.fail(f"the station's heartbeat stood at {heartbeat} for {now_s - self._moved_s:.1f} s")
            self._moved_s = now_s


class Plc:
    """The PLC program: presents parts one by one and reads their answers."""

    def __init__(self, link: Link, journal: Journal, template: Part, *, give_up_s: float) -> None:
        self.verdicts: Counter[str] = Counter()
        self.cycle_ms: list[float] = []
        self._link = link
        self._journal = journal
        self._last = template
        self._give_up_s = give_up_s
        self._deadline_s = 0.0
        self._sent: Counter[str] = Counter()

    def next_part(self) -> Part:
        """The part with the next sequence number."""
        sequence = self._last.sequence + 1
        self._last = replace(self._last, sequence=sequence, serial=f"{self._last.lot}-{sequence:06d}")
        return self._last

    def complete(self, part: Part, fault: str = "") -> None:
        """Get one part inspected and acknowledged; NoAnswerError when that does not succeed in time."""
        started_s = time.monotonic()
        status = self._inspect(part, fault)
        self.cycle_ms.append((time.monotonic() - started_s) * 1000)
        self.verdicts[VERDICTS[status.verdict] if status.verdict < len(VERDICTS) else str(status.verdict)] += 1
        if fault == "lost_ack":
            return
        self._through(lambda: self._acknowledge(part))
        if fault == "double":
            again = self._inspect(part, "")
            if again.result() != status.result():
                text = f"{part.trigger_id} presented again was answered otherwise"
                self._journal.fail(text, first=status.result(), again=again.result())
            self._through(lambda: self._acknowledge(part))

    def idle_until(self, due_s: float) -> None:
        """Watch the station until the next part is due (monotonic seconds)."""
        self._deadline_s = max(due_s, time.monotonic()) + self._give_up_s

        def watch() -> None:
            while (left_s := due_s - time.monotonic()) > 0:
                self._link.read()
                time.sleep(min(PLC_BEAT_S / 2, left_s))

        self._through(watch)

    def _inspect(self, part: Part, fault: str) -> Status:
        self._deadline_s = time.monotonic() + self._give_up_s
        faults = [fault] if fault else []
        status = self._through(lambda: self._attempt(part, faults))
        self._journal.note("answer", trigger_id=part.trigger_id, serial=part.serial, **asdict(status))
        for text in problems(status):
            self._journal.fail(f"{part.trigger_id}: {text}")
        return status

    def _through(self, step: Callable[[], Outcome]) -> Outcome:
        """Do ``step`` from its beginning over as many lost links as it takes."""
        while True:
            try:
                return step()
            except LinkError as lost:
                self._journal.note("link_lost", text=str(lost))
                self._link.connect(self._deadline_s)

    def _poll(self) -> Status:
        if time.monotonic() > self._deadline_s:
            raise NoAnswerError(f"no answer within {self._give_up_s:g} s")
        time.sleep(POLL_S)
        return self._link.read()

    def _attempt(self, part: Part, faults: list[str]) -> Status:
        """Present the part over this link until it is answered.  A fault is staged once and taken off ``faults``."""
        presented = False
        while not (status := self._poll()).answers(part):
            if presented and status.trigger_ready:  # neither busy nor answered: refused, or the station restarted
                self._journal.note("not_answered", trigger_id=part.trigger_id, **asdict(status))
                presented = False
            known_busy = status.busy and self._sent[part.trigger_id]
            if not presented and (status.trigger_ready or known_busy):
                self._present(part)
                presented = True
                self._check_lost_acknowledge(part, status)
                if faults:
                    self._stage(faults.pop(), part)
        return status

    def _present(self, part: Part) -> None:
        self._link.write(ACKNOWLEDGE_AT, [0, 0])
        self._link.write(REQUEST_AT, part.words())
        self._sent[part.trigger_id] += 1
        self._journal.note("sent", trigger_id=part.trigger_id, attempt=self._sent[part.trigger_id], **asdict(part))
        self._link.write(TRIGGER_AT, [1])

    def _check_lost_acknowledge(self, part: Part, before: Status) -> None:
        """A result that stood when another part was accepted has to be counted as never acknowledged."""
        after = self._link.read()
        expected = (before.lost_acks + 1) & 0xFFFF
        if before.valid and not after.rejects_part(part) and after.lost_acks != expected:
            self._journal.fail(f"{part.trigger_id}: lost acknowledges {after.lost_acks}, expected {expected}")

    def _stage(self, fault: str, part: Part) -> None:
        self._journal.note("staged", fault=fault, trigger_id=part.trigger_id)
        if fault == "double":
            self._link.write(TRIGGER_AT, [0])
            self._link.write(TRIGGER_AT, [1])
        elif fault == "reconnect":
            self._link.drop()
            raise LinkError("dropped on purpose")
        elif fault == "busy":
            self._intrude()

    def _intrude(self) -> None:
        """Present another part while one is in progress: it has to be refused with code BUSY."""
        before = self._link.read()
        if not before.busy:
            self._journal.note("missed", fault="busy")
            return
        intruder = self.next_part()
        self._present(intruder)
        after = self._link.read()
        if not after.rejects_part(intruder):  # the first part was answered in between, so this was no fault
            self._journal.note("accepted", trigger_id=intruder.trigger_id)
            self.complete(intruder)
            return
        self._journal.note("rejected", trigger_id=intruder.trigger_id, code=after.reject_code)
        # A part that was answered since leaves the station not yet Ready for a moment: that refusal is right as well.
        expected = (REJECT_BUSY,) if after.busy else (REJECT_BUSY, REJECT_NOT_READY)
        if after.reject_code not in expected or after.rejects != (before.rejects + 1) & 0xFFFF:
            text = f"{intruder.trigger_id}: refused with code {after.reject_code}, count {after.rejects}"
            self._journal.fail(f"{text} after {before.rejects}")

    def _acknowledge(self, part: Part) -> None:
        for _ in range(3):
            self._link.write(ACKNOWLEDGE_AT, [1, 0])
            falls_by_s = time.monotonic() + VALID_FALLS_WITHIN_S
            while (standing := self._link.read().answers(part)) and time.monotonic() < falls_by_s:
                time.sleep(POLL_S)
            self._link.write(ACKNOWLEDGE_AT, [0])
            if not standing:
                return
            self._journal.fail(f"{part.trigger_id}: valid still stands {VALID_FALLS_WITHIN_S:g} s after acknowledge")
        raise NoAnswerError("the station does not see the acknowledge")


def fault_order(faults: Sequence[str], parts: int, seed: int) -> list[str]:
    """Which fault to stage with each part, "" = none: shuffled rounds in which each comes once."""
    chance, order = random.Random(seed), list[str]()
    while len(order) < parts:
        order += chance.sample(["", *faults], len(faults) + 1)
    return order[:parts]


def run(options: argparse.Namespace) -> int:
    """Present all parts, print the summary, give the exit code."""
    journal = Journal(options.log)
    link = Link(options.host, options.port, journal)
    template = Part(options.run_number, 0, "", options.lot, options.recipe_id)
    plc = Plc(link, journal, template, give_up_s=options.give_up_s)
    started_s, part = time.monotonic(), template
    try:
        link.connect(started_s + options.give_up_s)
        for index, fault in enumerate(fault_order(options.faults, options.parts, options.seed)):
            plc.idle_until(started_s + index * options.interval_ms / 1000)
            part = plc.next_part()
            plc.complete(part, fault)
    except NoAnswerError as error:
        journal.fail(f"{part.trigger_id}: gave up: {error}")
    finally:
        link.drop()
        journal.close()
    print(summary(plc, link, journal, options.run_number))
    if not link.reached:
        return 3
    return 1 if journal.failures else 0


def summary(plc: Plc, link: Link, journal: Journal, run_number: int) -> str:
    """The table at the end, with every failed check."""
    cycle_ms = sorted(plc.cycle_ms) or [0.0]
    rows = [
        ("run number", f"{run_number:08x}"),
        ("parts answered", len(cycle_ms) if plc.cycle_ms else 0),
        ("verdicts", " ".join(f"{name} {count}" for name, count in sorted(plc.verdicts.items())) or "none"),
        ("requests sent", journal.events["sent"]),
        ("of which refused as busy", journal.events["rejected"]),
        ("presented again unanswered", journal.events["not_answered"]),
        ("faults staged / missed", f"{journal.events['staged']} / {journal.events['missed']}"),
        ("connections lost", journal.events["link_lost"]),
        ("heartbeats seen", link.heartbeats_seen),
        ("cycle ms, median / largest", f"{cycle_ms[len(cycle_ms) // 2]:.0f} / {cycle_ms[-1]:.0f}"),
        ("failed checks", len(journal.failures)),
    ]
    return "\n".join(
        [*(f"{name:<28}{value}" for name, value in rows), *(f"FAILED {text}" for text in journal.failures)]
    )


def _text(longest: int) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if len(text) > longest or not (text.isascii() and text.isprintable()):
            raise argparse.ArgumentTypeError(f"{text!r} is not printable ASCII of at most {longest} characters")
        return text

    return parse


def _faults(text: str) -> tuple[str, ...]:
    names = tuple(name for name in text.split(",") if name)
    if unknown := sorted(set(names) - set(FAULTS)):
        raise argparse.ArgumentTypeError(f"unknown {', '.join(unknown)}; known are {', '.join(FAULTS)}")
    return names


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(prog="line_simulator", description="A PLC that presents parts to a station.")
    options.add_argument("--host", default="127.0.0.1", help="address of the station")
    options.add_argument("--port", type=int, default=1502, help="TCP port of the station")
    options.add_argument("--parts", type=int, default=10, help="parts to present")
    options.add_argument("--interval-ms", type=int, default=0, help="time from one part to the next, ms; 0 = at once")
    options.add_argument("--lot", type=_text(16), default="LOT1", help="lot of every part, up to 16 characters")
    options.add_argument("--recipe-id", type=_text(24), default="demo", help="recipe asked for, up to 24 characters")
    options.add_argument("--faults", type=_faults, default=(), help=f"comma list of {', '.join(FAULTS)}")
    options.add_argument("--seed", type=int, default=0, help="order of the faults")
    options.add_argument("--log", type=Path, help="append JSON lines to this file, each on the disk at once")
    options.add_argument("--run-number", type=int, help="start-up number of the PLC; a random one when left out")
    options.add_argument("--give-up-s", type=float, default=60.0, help="longest time for one part, s")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; see the exit codes above."""
    options = parser().parse_args(arguments)
    if options.run_number is None:
        options.run_number = secrets.randbelow(0xFFFF_FFFF) + 1
    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # a lost link is noted in our own log
    return run(options)


if __name__ == "__main__":
    sys.exit(main())
