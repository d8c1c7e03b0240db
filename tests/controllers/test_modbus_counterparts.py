"""Modbus against programs that share no code with us: mbpoll, and PLCs written in C with libmodbus, killed and frozen."""

import itertools
import multiprocessing
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.client import ModbusTcpClient

from inspection.controllers import Controller, StationState
from inspection.controllers import register_map as at
from inspection.controllers.modbus_client import ModbusClientConfig, ModbusClientController
from inspection.controllers.modbus_frames import (
    Access,
    BadTelegram,
    Refusal,
    decode_access,
    decode_header,
    decode_reply,
    encode_access,
    encode_refusal,
    encode_reply,
    encode_telegram,
)
from inspection.controllers.modbus_tcp import ModbusTcpConfig, ModbusTcpController
from inspection.types import Detection, Judgement, PrepareRecipe, Reason, Record, Region, Trigger, Verdict, utc_now

HERE = Path(__file__).parent
CLASSES = ("open", "short")
PARTS = 1000
HAS_LIBMODBUS = shutil.which("gcc") is not None and Path("/usr/include/modbus/modbus.h").exists()
needs_libmodbus = pytest.mark.skipif(
    not HAS_LIBMODBUS, reason="gcc or libmodbus is missing: apt-get install -y gcc libmodbus-dev"
)
needs_mbpoll = pytest.mark.skipif(
    shutil.which("mbpoll") is None, reason="mbpoll is missing: apt-get install -y mbpoll"
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], limit_s: float = 30.0) -> Any:
    """The first true value of ``condition``, asked again and again for a bounded time."""
    deadline_s = time.monotonic() + limit_s
    while not (value := condition()):
        assert time.monotonic() < deadline_s, "did not come about in time"
        time.sleep(0.005)
    return value


def judged(serial: str) -> Judgement:
    """A verdict that follows from the serial alone, so that an answer to another part is found out."""
    number = int(serial.removeprefix("SN-"))
    verdict, count = Verdict(number % 4), number % 5 + 1
    if verdict == Verdict.OK:
        return Judgement(verdict)
    boxes = [Region((float(x), 0.0, x + 1.0, 1.0)) for x in range(count if verdict != Verdict.ERROR else 0)]
    found = tuple(Detection(CLASSES[index % 2], 0.9, box) for index, box in enumerate(boxes))
    return Judgement(verdict, (Reason(f"{verdict.name.lower()}.x", "text", found),))


def record(trigger: Trigger) -> Record:
    judgement = judged(trigger.serial)
    return Record(trigger, judgement, (), ("f",), "r", "m", "st", (), True, utc_now())


@dataclass(frozen=True)
class Line:
    """One line in the log of a PLC."""

    part: int
    run: int
    verdict: int
    findings: int
    first_count: int
    second_count: int
    took_us: int

    def is_right(self) -> bool:
        """Whether this is the answer that the serial asks for."""
        judgement = judged(f"SN-{self.part:06d}")
        found = [one.defect_class for reason in judgement.reasons for one in reason.detections]
        counts = (len(found), found.count("open"), found.count("short"))
        return (judgement.verdict, *counts) == (self.verdict, self.findings, self.first_count, self.second_count)


def lines(log: Path) -> list[Line]:
    text = log.read_text() if log.exists() else ""
    return [Line(*map(int, row.split())) for row in text.splitlines(keepends=True) if row.endswith("\n")]


class Station:
    """A station without cameras: answers at once, and a part it knows from its record."""

    def __init__(self, make: Callable[[], Controller]) -> None:
        self._make = make
        self.records: dict[str, Record] = {}
        self.wishes: list[str] = []
        self._stop = threading.Event()
        self._start()

    def _start(self) -> None:
        self._stop.clear()
        self.controller = self._make()
        self.controller.set_recipe("board-a", CLASSES)
        self.controller.open()
        self.controller.set_state(StationState.READY)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stop.is_set():
            taken = self.controller.wait(50)
            if isinstance(taken, PrepareRecipe):
                self.wishes.append(taken.recipe_id)
                self.controller.prepared(taken.recipe_id, None if taken.recipe_id == "b" else Reason("recipe.unknown", "?"))
            elif taken is not None:
                self.controller.set_state(StationState.SINGLE_EXECUTION)
                self.controller.acquired(taken)
                known = self.records.setdefault(taken.trigger_id, record(taken))
                self.controller.answer(known)
                self.controller.set_state(StationState.READY)

    def restart(self) -> None:
        """As after a restart of the service: another controller, the same records."""
        self.close()
        self._start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.controller.close()


class CPlc:
    """A PLC of its own process; started again it takes a new run and goes on behind the last part in its log."""

    def __init__(self, program: Path, port: int, log: Path, last: int = PARTS) -> None:
        self._program, self._port, self.log, self._last = program, port, log, last
        self._run = 0
        self.start()

    def start(self) -> None:
        self._run += 1
        first = lines(self.log)[-1].part + 1 if lines(self.log) else 1
        numbers = map(str, (self._port, self._run, first, self._last))
        self.process = subprocess.Popen([str(self._program), *numbers, str(self.log)])

    def answered(self, count: int) -> None:
        """Wait until so many parts are in the log."""
        until(lambda: len(lines(self.log)) >= count, limit_s=60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def freeze(self, frozen_s: float) -> None:
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(frozen_s)
        self.process.send_signal(signal.SIGCONT)


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the compiled PLCs."""
    folder = tmp_path_factory.mktemp("plc")
    for name in ("plc_client", "plc_server"):
        source = str(HERE / f"{name}.c")
        command = ["gcc", "-Wall", "-Wextra", "-Werror", "-I/usr/include/modbus", "-o", str(folder / name), source, "-lmodbus"]
        subprocess.run(command, check=True, timeout=60)
    return folder


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def served(port: int) -> Iterator[Station]:
    """A station that is the Modbus server."""
    config = ModbusTcpConfig(port=port, heartbeat_ms=20, writer_idle_ms=1000, idle_ms=2000)
    station = Station(lambda: ModbusTcpController(config))
    yield station
    station.close()


@pytest.fixture
def polling(port: int) -> Iterator[Station]:
    """A station that is the Modbus client."""
    config = ModbusClientConfig(host="127.0.0.1", port=port, poll_ms=1, timeout_ms=300, heartbeat_ms=20)
    station = Station(lambda: ModbusClientController(config))
    yield station
    station.close()


def check(answers: list[Line], station: Station, *, lives: int) -> None:
    """No answer lost, doubled or mismatched; no part inspected twice but one for each life of the PLC."""
    assert [line.part for line in answers] == list(range(1, PARTS + 1))
    assert [line for line in answers if not line.is_right()] == []
    for line in answers:
        assert station.records[f"{line.run:08x}-{line.part:010d}"].trigger.serial == f"SN-{line.part:06d}"
    assert PARTS <= len(station.records) < PARTS + lives


def tell(name: str, answers: list[Line], took_s: float) -> None:
    """Print the figures (pytest -s)."""
    took_ms = sorted(line.took_us / 1000 for line in answers)
    middle, slow = statistics.median(took_ms), took_ms[int(0.99 * len(took_ms))]
    print(f"\n{name}: {len(answers) / took_s:.0f} parts/s, trigger to result median {middle:.2f} ms, p99 {slow:.2f} ms")


# A PLC in C as the client of our server


@needs_libmodbus
def test_a_c_plc_gets_every_answer_from_our_server(programs: Path, port: int, served: Station, tmp_path: Path) -> None:
    """A thousand parts by the documented handshake: each answered once, with the verdict of its own serial."""
    began_s = time.monotonic()
    plc = CPlc(programs / "plc_client", port, tmp_path / "log")
    try:
        assert plc.process.wait(timeout=120) == 0
    finally:
        plc.kill()
    tell("libmodbus client", lines(plc.log), time.monotonic() - began_s)
    check(lines(plc.log), served, lives=1)


@needs_libmodbus
def test_a_c_plc_that_dies_and_freezes_gets_every_answer(
    programs: Path, port: int, served: Station, tmp_path: Path
) -> None:
    """Killed, frozen and started again in mid-run, and the station restarted: no answer lost, doubled or mismatched."""
    plc = CPlc(programs / "plc_client", port, tmp_path / "log")
    try:
        for count in (100, 250, 400):
            plc.answered(count)
            plc.kill()
            plc.start()
        plc.answered(550)
        plc.freeze(1.5)
        plc.answered(700)
        served.restart()
        plc.answered(850)
        plc.freeze(0.1)
        assert plc.process.wait(timeout=120) == 0
    finally:
        plc.kill()
    check(lines(plc.log), served, lives=4)


# A PLC in C that only serves


@needs_libmodbus
def test_a_c_plc_that_only_serves_gets_every_answer(
    programs: Path, port: int, polling: Station, tmp_path: Path
) -> None:
    """The station polls a libmodbus server, which was not there at first: a thousand parts, each answered once."""
    time.sleep(0.2)
    began_s = time.monotonic()
    plc = CPlc(programs / "plc_server", port, tmp_path / "log")
    try:
        plc.answered(PARTS)
    finally:
        plc.kill()
    tell("libmodbus server", lines(plc.log), time.monotonic() - began_s)
    check(lines(plc.log), polling, lives=1)


@needs_libmodbus
def test_a_c_plc_that_only_serves_dies_and_freezes(
    programs: Path, port: int, polling: Station, tmp_path: Path
) -> None:
    """Killed, frozen and started again in mid-run, and the station restarted: no answer lost, doubled or mismatched."""
    plc = CPlc(programs / "plc_server", port, tmp_path / "log")
    try:
        for count in (100, 250, 400):
            plc.answered(count)
            plc.kill()
            plc.start()
        plc.answered(550)
        plc.freeze(1.0)  # longer than the station waits for a reply
        plc.answered(700)
        polling.restart()
        plc.answered(850)
        plc.freeze(0.1)
        plc.answered(PARTS)
    finally:
        plc.kill()
    check(lines(plc.log), polling, lives=4)
