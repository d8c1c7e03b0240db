"""A bench for whole stations: builds recipes and configs in a folder, runs stations on it, reads what they recorded."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inspection.config import load_station
from inspection.images import read_grey, write_png
from inspection.model import file_sha256
from inspection.recipe import LOCK, seal
from inspection.station import Station
from inspection.store import Store
from inspection.types import Judgement, Record

Image = NDArray[np.uint8]
ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 180.0
PATIENT = "deadline_ms = 60000\n"  # which no machine misses, however busy it is
FOLDER = 'kind = "folder"\nfolder = "frames"'


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
    """The first true value of ``condition``, asked again and again for a bounded time."""
    end_s = time.monotonic() + limit_s
    while not (value := condition()):
        assert time.monotonic() < end_s, "did not come about in time"
        time.sleep(0.005)
    return value


def simulated_line(*serials: str, more: str = "") -> str:
    """The config of a controller that presents these parts."""
    return f'kind = "simulated"\nserials = {json.dumps(serials)}\n{more}'


def modbus_line(port: int) -> str:
    return f'kind = "modbus_tcp"\nport = {port}\nheartbeat_ms = 20'


@dataclass
class Bench:
    """One station's folder.  ``sealed`` is the recipe of the product with time enough, which is never written to."""

    folder: Path
    sealed: Path
    stations: list[Station] = field(default_factory=list)

    @property
    def store(self) -> Path:
        return self.folder / "records.sqlite"

    @property
    def golden(self) -> Image:
        return read_grey(self.sealed / "golden.png")

    def sealed_frame(self, verdict: str) -> Image:
        """A frame of which the sealed recipe itself says that it must get this verdict."""
        rows = json.loads((self.sealed / "selftest" / "expected.json").read_text(encoding="utf-8"))
        name = next(row["frame"] for row in rows if row["verdict"] == verdict)
        return read_grey(self.sealed / "selftest" / name)

    def frame(self, serial: str, image: Image) -> Path:
        """Put a frame where the folder camera finds it for this serial."""
        path = self.folder / "frames" / f"{serial}.png"
        path.parent.mkdir(exist_ok=True)
        write_png(path, image)
        return path

    def recipe(self, name: str, change: Callable[[str], str] = str, *, lock: bool = True) -> Path:
        """A copy of the sealed recipe without self-test, its recipe.toml changed, sealed again; it has time enough
        unless the change sets a deadline."""
        folder = self.folder / name
        shutil.copytree(self.sealed, folder, ignore=shutil.ignore_patterns("selftest", LOCK))
        toml = folder / "recipe.toml"
        text = change(toml.read_text(encoding="utf-8").removeprefix(PATIENT))
        toml.write_text(text if "deadline_ms" in text else PATIENT + text, encoding="utf-8")
        if lock:
            seal(folder)
        return folder

    def config(
        self, controller: str, *, camera: str = FOLDER, recipe: Path | None = None, evidence: str = "", top: str = ""
    ) -> Path:
        """Write station.toml; the sections are given as TOML."""
        path = self.folder / "station.toml"
        path.write_text(
            f'station_id = "bench-1"\nrecipe = {json.dumps(str(recipe or self.sealed))}\nstore = "records.sqlite"\n'
            f'threads = 1\n{top}\n[evidence]\nfolder = "evidence"\nmin_free_mb = 0\n{evidence}\n'
            f"[cameras.top]\n{camera}\n\n[controller]\n{controller}\n",
            encoding="utf-8",
        )
        return path

    def station(self, config: Path) -> Station:
        """A station in this process; closed with the test."""
        made = Station(load_station(config))
        self.stations.append(made)
        return made

    def play(self, config: Path) -> list[Record]:
        """Run a station with a simulated controller until its line is finished; returns the answers it got."""
        station = self.station(config)
        station.open()
        run_until_finished(station)
        station.close()
        return answers(station)

    def start(self, config: Path) -> "Child":
        """A station in a process of its own; killed with ``Child.close``."""
        return Child(config)

    def records(self) -> list[Record]:
        """What the store holds, oldest first."""
        store = Store(self.store)
        records = list(store.records())[::-1]
        store.close()
        return records

    def open_triggers(self) -> int:
        """How many triggers were accepted and have no record."""
        store = Store(self.store)
        count = len(store.unanswered())
        store.close()
        return count

    def close(self) -> None:
        for station in self.stations:
            station.close()


def answers(station: Station) -> list[Record]:
    """What the simulated line was told."""
    given: list[Record] = station.controller.answers  # type: ignore[attr-defined]
    return given


def found(record: Record) -> Judgement:
    """What the inspection itself came to: where the deadline passed before, that stands beside the ERROR."""
    return record.late.judgement if record.late else record.judgement


def run_until_finished(station: Station, between: Callable[[int], None] = lambda answered: None) -> None:
    """Answer every part of the simulated line; ``between`` is told the number of answers before each turn."""
    end_s = time.monotonic() + LIMIT_S

    def stop() -> bool:
        between(len(answers(station)))
        assert time.monotonic() < end_s, "the station did not come to its end"
        return bool(station.controller.finished) and station.healthy  # type: ignore[attr-defined]

    station.run(stop)


class Child:
    """A station as it runs on a line: a process of its own with its log on stderr."""

    def __init__(self, config: Path) -> None:
        self._log = config.with_name(f"{os.urandom(4).hex()}.log")
        command = [sys.executable, "-m", "inspection", "run", str(config)]
        with self._log.open("wb") as stderr:
            self._process = subprocess.Popen(command, cwd=ROOT, stderr=stderr, stdout=subprocess.PIPE)

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def events(self, name: str) -> list[dict[str, Any]]:
        """The fields of the log lines of one event."""
        lines = [json.loads(line) for line in self.log.splitlines(keepends=True) if line.endswith("}\n")]
        return [line for line in lines if line["event"] == name]

    def ready(self) -> "Child":
        """Wait until it has reported Ready."""
        until(lambda: self.events("station.ready") or self._process.poll() is not None)
        assert self._process.poll() is None, self.log
        return self

    def ended(self) -> int:
        """Wait for its end; returns the exit code."""
        return self._process.wait(timeout=LIMIT_S)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end, as a service or a person does; returns the exit code."""
        self.ask_to_stop(number)
        return self.ended()

    def ask_to_stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """The same without waiting for its end."""
        self._process.send_signal(number)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def lock_as_it_is(folder: Path) -> None:
    """Seal whatever lies in the folder, as a careless tool would: without looking at it."""
    files = {p.relative_to(folder).as_posix(): file_sha256(p) for p in folder.rglob("*") if p.is_file()}
    (folder / LOCK).write_text(json.dumps({"schema": 1, "files": files}), encoding="utf-8")


def sql(path: Path, statement: str) -> list[tuple[Any, ...]]:
    """Run one statement on a store without the code under test."""
    with closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as database:
        return database.execute(statement).fetchall()
