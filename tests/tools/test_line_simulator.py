"""The line simulator as a child process against the real Modbus controller, answered by a small loop."""

import argparse
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest

from inspection.controllers import StationState
from inspection.controllers import register_map as at
from inspection.controllers.modbus_tcp import ModbusTcpConfig, ModbusTcpController
from inspection.types import Detection, Judgement, Reason, Record, Region, Trigger, Verdict, utc_now
from tools import line_simulator

ROOT = Path(__file__).parents[2]
CLASSES = ("open", "short")
RUN = 0xABCD0123


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def inspect(trigger: Trigger) -> Record:
    """Each verdict in turn; NG and REVIEW with some findings."""
    verdict = Verdict(trigger.sequence % 4)
    named = verdict in (Verdict.NG, Verdict.REVIEW)
    boxes = [Region((float(x), 0.0, x + 1.0, 1.0)) for x in range(trigger.sequence % 3 + 1 if named else 0)]
    found = tuple(Detection(CLASSES[index % 2], 0.9, box) for index, box in enumerate(boxes))
    reasons = () if verdict == Verdict.OK else (Reason(f"{verdict.name.lower()}.x", "text", found),)
    judgement = Judgement(verdict, reasons)
    return Record(trigger, judgement, found, ("f",), "r", "m", "st", (), True, utc_now())


class Book:
    """The records of the station, kept in a file of JSON lines, so that they survive its death."""

    def __init__(self, path: Path, most: int | None = None) -> None:
        """``most``: before a further new part is inspected the program stands still, until somebody lets it go on."""
        self._path, self._left = path, most
        path.touch()
        self.records = {
            record.trigger.trigger_id: record for record in map(Record.from_json, path.read_text().splitlines())
        }

    def record(self, trigger: Trigger, inspection_s: float) -> Record:
        """The record of the part; inspected only when there is none yet."""
        if trigger.trigger_id not in self.records:
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGSTOP)
            self._left = None if self._left is None else self._left - 1
            time.sleep(inspection_s)  # the inspection takes its time
            self.records[trigger.trigger_id] = made = inspect(trigger)
            with self._path.open("a") as file:
                file.write(made.to_json() + "\n")
        return self.records[trigger.trigger_id]


def serve(
    port: int, path: Path, stop: Callable[[], bool], change: Callable[[Record], Record], most: int | None = None
) -> None:
    """A station in small: every trigger gets its record as the answer, until ``stop``."""
    book = Book(path, most)
    controller = ModbusTcpController(ModbusTcpConfig(port=port, heartbeat_ms=20), classes=CLASSES)
    controller.open()
    try:
        while not stop():
            controller.set_state(StationState.READY)
            trigger = controller.wait(20)
            if trigger is not None:
                controller.set_state(StationState.SINGLE_EXECUTION)
                controller.answer(change(book.record(trigger, inspection_s=0.03)))
    finally:
        controller.close()


def serve_for_ever(port: int, path: Path, most: int | None = None) -> None:
    serve(port, path, lambda: False, lambda record: record, most)


class Station:
    """The small station in a thread of the test."""

    def __init__(self, path: Path) -> None:
        self.port = free_port()
        self.path = path
        self.change: Callable[[Record], Record] = lambda record: record
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=serve, args=(self.port, path, self._stop.is_set, lambda record: self.change(record))
        )
        self._thread.start()

    def recorded(self) -> list[str]:
        return [Record.from_json(line).trigger.trigger_id for line in self.path.read_text().splitlines()]

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    running = Station(tmp_path / "records.jsonl")
    yield running
    running.close()


def command(port: int, log: Path, *options: str) -> list[str]:
    fixed = ["--port", str(port), "--log", str(log), "--run-number", str(RUN), "--give-up-s", "120"]
    return [sys.executable, "-m", "tools.line_simulator", *fixed, *options]


def simulate(port: int, log: Path, *options: str) -> tuple[int, str, list[dict[str, Any]]]:
    """Exit code, summary and events of one run of the simulator."""
    done = subprocess.run(command(port, log, *options), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stderr == ""
    return done.returncode, done.stdout, events(log)


def events(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def ids(log: list[dict[str, Any]], event: str) -> list[str]:
    return [row["trigger_id"] for row in log if row["event"] == event]


def trigger_ids(first: int, last: int) -> list[str]:
    return [f"{RUN:08x}-{sequence:010d}" for sequence in range(first, last + 1)]


def test_every_part_is_answered_once_with_all_fields(station: Station, tmp_path: Path) -> None:
    """A good station passes: each part sent, recorded and answered once, each answer as the station gave it."""
    code, summary, log = simulate(station.port, tmp_path / "log", "--parts", "5", "--lot", "L9", "--recipe-id", "b")
    assert code == 0, summary
    assert ids(log, "sent") == ids(log, "answer") == station.recorded() == trigger_ids(1, 5)
    sent = next(row for row in log if row["event"] == "sent")
    assert (sent["serial"], sent["lot"], sent["recipe_id"]) == ("L9-000001", "L9", "b")
    shown = [(row["verdict"], row["findings"], row["counts"][:2]) for row in log if row["event"] == "answer"]
    assert shown == [(1, 0, [0, 0]), (2, 3, [2, 1]), (3, 1, [1, 0]), (0, 0, [0, 0]), (1, 0, [0, 0])]


def test_the_summary_counts_what_happened(station: Station, tmp_path: Path) -> None:
    """The table at the end has the number of parts per verdict and of failed checks."""
    _, summary, _ = simulate(station.port, tmp_path / "log", "--parts", "4")
    rows = {line[:28].strip(): line[28:] for line in summary.splitlines()}
    assert rows["verdicts"] == "ERROR 1 NG 1 OK 1 REVIEW 1"
    assert (rows["parts answered"], rows["failed checks"]) == ("4", "0")


def test_a_double_trigger_is_inspected_once(station: Station, tmp_path: Path) -> None:
    """Fault "double": presented again while busy and after the answer, recorded once, answered alike."""
    code, summary, log = simulate(station.port, tmp_path / "log", "--parts", "4", "--faults", "double")
    doubled = ids(log, "staged")
    assert (code, len(doubled)) == (0, 2), summary
    assert station.recorded() == trigger_ids(1, 4)
    assert all(ids(log, "answer").count(one) == 2 for one in doubled)


def test_a_part_presented_too_early_is_refused(station: Station, tmp_path: Path) -> None:
    """Fault "busy": the intruder is refused as busy and never recorded; every other part is answered."""
    code, summary, log = simulate(station.port, tmp_path / "log", "--parts", "4", "--faults", "busy")
    refused = ids(log, "rejected")
    too_late = sum(row["event"] in ("missed", "accepted") for row in log)  # on a machine under load
    assert (code, len(refused) + too_late) == (0, 2), summary
    taken = {one for one in ids(log, "sent") if one not in refused}
    assert taken == set(station.recorded()) == set(ids(log, "answer"))
    assert len(taken) == len(station.recorded()) == len(ids(log, "answer"))


def test_a_lost_acknowledge_is_counted(station: Station, tmp_path: Path) -> None:
    """Fault "lost_ack": the next part is accepted and the station has counted the loss."""
    code, summary, log = simulate(station.port, tmp_path / "log", "--parts", "5", "--faults", "lost_ack")
    last = [row for row in log if row["event"] == "answer"][-1]
    lost = [one for one in ids(log, "staged") if one != trigger_ids(5, 5)[0]]
    assert (code, last["lost_acks"]) == (0, len(lost)), summary
    assert lost


def test_a_lost_connection_loses_no_part(station: Station, tmp_path: Path) -> None:
    """Fault "reconnect": the connection drops in mid-cycle and the part is still recorded and answered once."""
    code, summary, log = simulate(station.port, tmp_path / "log", "--parts", "4", "--faults", "reconnect")
    dropped = [row for row in log if row["event"] == "link_lost" and row["text"] == "dropped on purpose"]
    assert (code, len(dropped)) == (0, 2), summary
    assert ids(log, "answer") == station.recorded() == trigger_ids(1, 4)


def test_all_faults_together_pass(station: Station, tmp_path: Path) -> None:
    """The faults can be combined, in an order that the seed decides."""
    names = "double,busy,lost_ack,reconnect"
    code, summary, log = simulate(station.port, tmp_path / "log", "--parts", "10", "--faults", names, "--seed", "3")
    assert code == 0, summary
    assert {row["fault"] for row in log if row["event"] == "staged"} == set(names.split(","))


def test_another_answer_the_second_time_fails_the_run(station: Station, tmp_path: Path) -> None:
    """A station that inspects a repeated part anew is found out."""
    took_ms = count(1)
    station.change = lambda record: replace(record, stage_ms=(("total", float(next(took_ms))),))
    code, summary, _ = simulate(station.port, tmp_path / "log", "--parts", "2", "--faults", "double")
    assert (code, "presented again was answered otherwise" in summary) == (1, True)


def test_the_killed_station_loses_no_part(tmp_path: Path) -> None:
    """SIGKILL after SIGKILL: the same request is presented until it is answered, and no part is recorded twice."""
    port, records, log = free_port(), tmp_path / "records.jsonl", tmp_path / "log"
    spawn, parts = multiprocessing.get_context("spawn"), 24
    options = ("--parts", str(parts), "--faults", "double,busy,lost_ack,reconnect")
    with subprocess.Popen(command(port, log, *options), cwd=ROOT, stdout=subprocess.PIPE, text=True) as simulator:
        kills, deadline_s = 0, time.monotonic() + 300
        while simulator.poll() is None and time.monotonic() < deadline_s:
            # However late it is killed, it leaves parts for the next one.
            station = spawn.Process(target=serve_for_ever, args=(port, records, 5 if kills < 4 else None))
            station.start()
            answered = len(ids(events_so_far(log), "answer"))
            while (  # let it answer a few parts, then kill it at whatever it is doing
                simulator.poll() is None
                and time.monotonic() < deadline_s
                and (kills == 4 or len(ids(events_so_far(log), "answer")) < answered + 4)
            ):
                time.sleep(0.01)
            station.kill()
            station.join()
            kills += 1
        simulator.kill()
        summary = simulator.communicate()[0]
    assert (simulator.returncode, kills) == (0, 5), summary
    recorded = [Record.from_json(line).trigger.trigger_id for line in records.read_text().splitlines()]
    answered_ids = set(ids(events(log), "answer"))
    assert len(recorded) == len(set(recorded))
    assert answered_ids <= set(recorded) <= set(ids(events(log), "sent"))
    assert len(answered_ids) >= parts


def test_the_frozen_station_loses_no_part(tmp_path: Path) -> None:
    """A station that stops replying and thaws later, with old telegrams still to read, records every part once."""
    port, records, log = free_port(), tmp_path / "records.jsonl", tmp_path / "log"
    station = multiprocessing.get_context("spawn").Process(target=serve_for_ever, args=(port, records, 3))
    station.start()  # it stops by itself, with the fourth part in its hands
    options = ("--parts", "12")
    with subprocess.Popen(command(port, log, *options), cwd=ROOT, stdout=subprocess.PIPE, text=True) as simulator:
        assert station.pid is not None
        until(lambda: psutil.Process(station.pid).status() == psutil.STATUS_STOPPED)
        before = sum(row["event"] == "link_lost" for row in events_so_far(log))
        try:
            until(lambda: sum(row["event"] == "link_lost" for row in events_so_far(log)) > before)
        finally:
            os.kill(station.pid, signal.SIGCONT)
        summary = simulator.communicate(timeout=300)[0]
    station.kill()
    station.join()
    recorded = [Record.from_json(line).trigger.trigger_id for line in records.read_text().splitlines()]
    assert simulator.returncode == 0, summary
    assert recorded == trigger_ids(1, 12)


def until(condition: Callable[[], bool], limit_s: float = 120.0) -> None:
    """Ask again and again, for a bounded time."""
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s, "did not come about in time"
        time.sleep(0.01)


def events_so_far(log: Path) -> list[dict[str, Any]]:
    """The complete lines of a log that is still being written."""
    text = log.read_text() if log.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def test_a_station_that_was_never_there_is_exit_code_3(tmp_path: Path) -> None:
    """No station is another outcome than a failed check."""
    code, summary, _ = simulate(free_port(), tmp_path / "log", "--give-up-s", "0.3")
    assert (code, "no connection" in summary) == (3, True)


@pytest.mark.parametrize("wrong", [("--faults", "double,late"), ("--lot", "é"), ("--lot", "x" * 17), ("--nope",)])
def test_wrong_usage_is_exit_code_2(wrong: tuple[str, ...]) -> None:
    """An unknown fault or a text that the registers cannot hold is refused before anything is sent."""
    with pytest.raises(SystemExit, match="2"):
        line_simulator.parser().parse_args(wrong)


def test_both_sides_write_a_request_alike() -> None:
    """The simulator, written from the page alone, and the station agree on the request block."""
    part = line_simulator.Part(RUN, 70_000, "SN 1", "LOT", "board-a")
    request = at.decode_request([*part.words(), 0, 0, 0])
    assert request == at.Request(RUN, 70_000, "SN 1", "LOT", "board-a")


def test_both_sides_read_a_result_alike() -> None:
    """Every field of a result comes out of the station block under the same name and value."""
    result = at.Result(RUN, 70_000, Verdict.NG, 5, 45, (1, 2, 3, 4, 5, 6, 7, 8), 9, 100_000)
    image = [0] * at.STATION_BLOCK.stop
    image[at.RESULT], image[at.VALID] = at.encode_result(result), [1]
    status = line_simulator.Status.of(image[at.STATION_BLOCK])
    assert status.result() == {
        "run": RUN,
        "sequence": 70_000,
        "verdict": 2,
        "reason_code": 5,
        "findings": 45,
        "counts": (1, 2, 3, 4, 5, 6, 7, 8),
        "other_findings": 9,
        "processing_ms": 100_000,
    }
    assert line_simulator.problems(status) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"valid": 0}, "valid is 0"),
        ({"busy": 1}, "busy"),
        ({"verdict": 4}, "not 0..3"),
        ({"reason_code": 0}, "reason 0"),
        ({"reason_code": 300}, "above 255"),
        ({"verdict": 1, "reason_code": 0}, "OK with 3 findings"),
        ({"findings": 4}, "4 findings, but counts"),
    ],
)
def test_an_answer_against_the_page_is_found(change: dict[str, int], found: str) -> None:
    """Each rule of the result block is checked."""
    words = [1, 1, 4, 1, 0, *[0] * 9, 0, 1, 0, 2, 2, 1, 3, 1, 2, *[0] * 6, 0, 0, 9, 1]
    good = line_simulator.Status.of(words)
    assert line_simulator.problems(good) == []
    assert any(found in text for text in line_simulator.problems(replace(good, **change)))


def test_the_fault_order_is_the_seeds() -> None:
    """Every fault comes once a round, and the same seed gives the same order."""
    order = line_simulator.fault_order(("double", "busy"), 6, seed=5)
    assert order == line_simulator.fault_order(("double", "busy"), 6, seed=5)
    assert sorted(order[:3]) == sorted(order[3:]) == ["", "busy", "double"]


def test_every_log_line_is_on_the_disk_at_once(tmp_path: Path) -> None:
    """A line can be read by others before the next step of the simulator."""
    journal = line_simulator.Journal(tmp_path / "log")
    journal.note("sent", trigger_id="a")
    seen = ids(events(tmp_path / "log"), "sent")
    journal.close()
    assert seen == ["a"]


def test_the_parser_knows_the_documented_options() -> None:
    """The page's command line is accepted."""
    page = (ROOT / "deploy" / "register_map.md").read_text(encoding="utf-8")
    line = next(line for line in page.splitlines() if "tools.line_simulator" in line)
    options = line_simulator.parser().parse_args(line.split("tools.line_simulator ")[1].split())
    assert isinstance(options, argparse.Namespace)
    assert (options.parts, options.faults) == (100, line_simulator.FAULTS)
