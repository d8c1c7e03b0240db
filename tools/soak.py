"""Runs a whole station for a while under faults of all kinds at once, and then compares what everybody saw.

A real station process with two cameras (each in a process of its own), a PLC over Modbus TCP (the line simulator with
all its faults) and an MQTT broker (mosquitto).  At random moments, with a seed that is printed: cameras, PLC, broker
and station are frozen, killed and started again; the store is locked, the disk is full or read-only; file descriptors
run out; hostile bytes and a second controller come to the station's port; the system clock jumps.  Afterwards:
triggers = records = answers, no defective part was passed, every record reached the broker's subscriber, `lineside
audit` finds the records as they were written, and the station's memory and open files did not grow.

    python -m tools.soak --minutes 30 --seed 1 --out FOLDER

Exit code: 0 everything held, 1 something did not, 2 wrong usage, 3 a counterpart is not installed.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from inspection.types import Record
from tools.jumping_clock import JumpingClock
from tools.kill_test import PART_LIMIT_S, RECIPE, ROOT, START_LIMIT_S, LineLog, compare, present_parts, rows

SECOND_RUN, SECOND_SEQUENCE = 1, 99  # the part that the second controller presents
EXPECTED = {  # what the PLC rightly notes under these faults: that it was told, or that the station stood still
    "  writes refused because another client had the write side": "exception_code=6)",
    "  heartbeat that stood longer than 3 s": "heartbeat stood",
}
DISK_MB = 256  # size of the station's disk where one of its own can be mounted
GOOD, DEFECTIVE, DARK, TORN = "good", "defective", "dark", "torn"


# The bench


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def make_recipe(folder: Path) -> Path:
    """The demo recipe with two views, top and side, of the same board; sealed anew."""
    from inspection.recipe import LOCK, seal

    target = folder / "soak"
    shutil.copytree(RECIPE, target, ignore=shutil.ignore_patterns("selftest", LOCK))
    toml = (target / "recipe.toml").read_text(encoding="utf-8")
    head, view = toml.split("[views.top]", 1)
    head = head.replace('recipe_id = "demo-pcb"', 'recipe_id = "soak"\ndeadline_ms = 1500')
    view = "[views.top]" + view
    (target / "recipe.toml").write_text(head + view + "\n" + view.replace("views.top", "views.side"), encoding="utf-8")
    seal(target)
    return target


def make_frames(folder: Path, seed: int) -> None:
    """Frames played in turn, named by what they show: good, defective, a dark one and a torn file."""
    from datasets.synth.boards import generate_pair
    from datasets.synth.camera import CameraModel
    from inspection.images import read_grey, write_png

    folder.mkdir(parents=True)
    golden = read_grey(RECIPE / "golden.png")
    camera = CameraModel(shift_px=12, rotate_deg=1.0, scale=0.01)
    for number, kind in enumerate((GOOD, DEFECTIVE, GOOD, GOOD, DARK, GOOD, DEFECTIVE, TORN, GOOD)):
        path = folder / f"{number}-{kind}.png"
        if kind == DARK:
            write_png(path, np.zeros_like(golden))
            continue
        defects = 3 if kind == DEFECTIVE else 0
        pair = generate_pair(np.random.default_rng(seed + number), golden, defects=defects, camera=camera)
        write_png(path, pair.frame)
        if kind == TORN:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_config(out: Path, disk: Path, recipe: Path, *, port: int, broker: int) -> Path:
    """A station with two cameras in processes of their own, Modbus and MQTT."""
    cameras = "".join(
        f'[cameras.{role}]\nkind = "folder"\nfolder = "frames-{role}"\nloop = true\nown_process = true\n\n'
        for role in ("top", "side")
    )
    path = out / "station.toml"
    path.write_text(
        f"""station_id = "soak"
recipe = {json.dumps(str(recipe))}
store = {json.dumps(str(disk / "records.sqlite"))}

[evidence]
folder = {json.dumps(str(disk / "evidence"))}
min_free_mb = 8

{cameras}[controller]
kind = "modbus_tcp"
port = {port}

[publishers.plant]
kind = "mqtt"
host = "127.0.0.1"
port = {broker}
keepalive_s = 5
""",
        encoding="utf-8",
    )
    return path


class StationLives:
    """The station process, started again whenever it ends, as its service would."""

    def __init__(self, config: Path, log: Path, clock: JumpingClock | None) -> None:
        self.config = config
        self._command = [sys.executable, "-m", "inspection", "run", str(config)]
        self._log, self._clock = log, clock
        self._stopping = False
        self.starts = 0
        self.exits: Counter[int] = Counter()
        self.process = self._start()
        self._thread = threading.Thread(target=self._keep_alive, daemon=True)
        self._thread.start()

    def _start(self) -> "subprocess.Popen[bytes]":
        self.starts += 1
        environment = dict(os.environ)
        if self._clock is not None:
            environment |= self._clock.environment
        with self._log.open("ab") as stderr:
            return subprocess.Popen(self._command, stderr=stderr, cwd=ROOT, env=environment)

    def _keep_alive(self) -> None:
        while not self._stopping:
            code = self.process.poll()
            if code is not None and not self._stopping:
                self.exits[code] += 1
                time.sleep(0.2)
                self.process = self._start()
            time.sleep(0.05)

    def cameras(self) -> list[psutil.Process]:
        """The camera processes of the station."""
        with contextlib.suppress(psutil.Error):
            return [
                child
                for child in psutil.Process(self.process.pid).children()
                if "tracker" not in "".join(child.cmdline())
            ]
        return []

    def stop(self) -> int:
        """End it in an orderly way; returns its exit code."""
        self._stopping = True
        self._thread.join(timeout=5)
        self.process.terminate()
        try:
            return self.process.wait(timeout=START_LIMIT_S)
        finally:
            self.process.kill()


class Broker:
    """A mosquitto that keeps what it accepted over a restart, and a subscriber that is told of everything."""

    def __init__(self, folder: Path, port: int) -> None:
        folder.mkdir()
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {folder}/\n"
            "autosave_interval 1\nmax_queued_messages 0\nuser root\n",
            encoding="utf-8",
        )
        self.port = port
        self.received: list[str] = []
        self.process = self.start()
        self._client = self._subscribe()

    def start(self) -> "subprocess.Popen[bytes]":
        """Begin to serve."""
        name = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        self.process = subprocess.Popen(
            [name, "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        return self.process

    def _subscribe(self) -> Any:
        import paho.mqtt.client as mqtt

        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="soak-subscriber", clean_session=False)
        client.on_message = lambda _client, _, message: self.received.append(
            json.loads(message.payload).get("record_id", "") if message.topic.endswith("/records") else ""
        )
        client.on_connect = lambda connected, *_: connected.subscribe("#", qos=1)
        client.reconnect_delay_set(0.2, 1)
        client.connect_async("127.0.0.1", self.port, keepalive=5)
        client.loop_start()
        return client

    def stop(self) -> None:
        """End broker and subscriber."""
        self._client.loop_stop()
        self.process.kill()
        self.process.wait()


# The faults


@dataclass(slots=True)
class Bench:
    """What the faults are done to."""

    station: StationLives
    plc: Any
    broker: Broker
    store: Path
    port: int
    clock: JumpingClock | None
    mounted: bool
    spared: frozenset[str]
    chance: random.Random
    stop: threading.Event
    done: Counter[str] = field(default_factory=Counter)

    def pause(self, least_s: float, most_s: float) -> None:
        """Wait a random time, or until the end."""
        self.stop.wait(self.chance.uniform(least_s, most_s))


def freeze(bench: Bench, pid: int, least_s: float, most_s: float) -> None:
    """Stop a process for a while."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        bench.pause(least_s, most_s)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def camera_frozen(bench: Bench) -> None:
    """A camera process stands still."""
    for camera in bench.chance.sample(bench.station.cameras(), k=min(1, len(bench.station.cameras()))):
        freeze(bench, camera.pid, 1, 4)


def camera_killed(bench: Bench) -> None:
    """A camera process dies."""
    cameras = bench.station.cameras()
    if cameras:
        with contextlib.suppress(psutil.Error):
            bench.chance.choice(cameras).kill()


def plc_frozen(bench: Bench) -> None:
    """The PLC stands still in mid-request."""
    freeze(bench, bench.plc.pid, 0.5, 4)


def station_frozen(bench: Bench) -> None:
    """The station stands still, as under a debugger or a swapping machine."""
    freeze(bench, bench.station.process.pid, 0.5, 3)


def station_killed(bench: Bench) -> None:
    """The station dies."""
    bench.station.process.kill()


def broker_frozen(bench: Bench) -> None:
    """The broker stands still."""
    freeze(bench, bench.broker.process.pid, 2, 12)


def broker_down(bench: Bench) -> None:
    """The broker is away for a while."""
    bench.broker.process.terminate()
    bench.broker.process.wait()
    bench.pause(2, 20)
    bench.broker.start()


def store_locked(bench: Bench) -> None:
    """Another program holds the store."""
    with contextlib.suppress(sqlite3.Error):
        database = sqlite3.connect(bench.store, timeout=1, isolation_level=None)
        with contextlib.closing(database):
            database.execute("BEGIN IMMEDIATE")
            bench.pause(0.5, 4)
            database.execute("ROLLBACK")


def disk_full(bench: Bench) -> None:
    """The disk has no space left."""
    filler = bench.store.with_name("filler")
    try:
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while not bench.stop.is_set():
                file.write(bytes(1 << 16))
        with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
            while not bench.stop.is_set():
                file.write(bytes(512))
        bench.pause(1, 4)
    finally:
        _remove(filler)


def _remove(file: Path) -> None:
    """Delete a file, also when the other fault of that disk has made it read-only in the meantime."""
    while True:
        try:
            return file.unlink(missing_ok=True)
        except OSError:
            time.sleep(0.1)


def disk_read_only(bench: Bench) -> None:
    """The disk takes no writes; a program that has files open for writing keeps the mount busy, and that is no fault."""
    folder = str(bench.store.parent)
    if subprocess.run(["mount", "-o", "remount,ro", folder], capture_output=True, check=False).returncode == 0:
        bench.pause(1, 4)
    subprocess.run(["mount", "-o", "remount,rw", folder], capture_output=True, check=False)


def no_descriptors(bench: Bench) -> None:
    """The station may open no further file."""
    pid = bench.station.process.pid
    with contextlib.suppress(OSError, psutil.Error):
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (psutil.Process(pid).num_fds() + 1, hard))
        bench.pause(1, 4)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


def hostile_bytes(bench: Bench) -> None:
    """Somebody throws bytes at the station's port and leaves connections half open."""
    held = []
    for _ in range(bench.chance.randrange(1, 12)):
        with contextlib.suppress(OSError):
            held.append(socket.create_connection(("127.0.0.1", bench.port), timeout=1))
            held[-1].sendall(bench.chance.randbytes(bench.chance.choice((1, 7, 12, 300, 70000))))
    bench.pause(0.2, 2)
    for one in held:
        one.close()


def second_controller(bench: Bench) -> None:
    """Another client writes requests to the station's registers."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", bench.port), timeout=1) as link:
        words = (0, SECOND_RUN, 0, SECOND_SEQUENCE, *[0x5858] * 16, *[0x4C4C] * 8, *[0] * 12, 0, 0, 1)
        body = b"".join(word.to_bytes(2, "big") for word in words)
        request = bytes((1, 16, 0, 0, 0, len(words), len(body))) + body
        link.sendall(b"\0\1\0\0" + len(request).to_bytes(2, "big") + request)
        with contextlib.suppress(OSError):
            link.recv(64)


def clock_jump(bench: Bench) -> None:
    """The system clock is set back or forward."""
    if bench.clock is not None:
        bench.clock.jump(bench.chance.choice((-3600, 7200, -86400, 0)))


FAULTS: dict[str, tuple[Callable[[Bench], None], int]] = {  # how often, by weight
    "camera frozen": (camera_frozen, 6),
    "camera killed": (camera_killed, 5),
    "PLC frozen": (plc_frozen, 4),
    "station frozen": (station_frozen, 2),
    "station killed": (station_killed, 1),
    "broker frozen": (broker_frozen, 3),
    "broker down": (broker_down, 3),
    "store locked": (store_locked, 4),
    "disk full": (disk_full, 2),
    "disk read-only": (disk_read_only, 2),
    "no file descriptors": (no_descriptors, 2),
    "hostile bytes": (hostile_bytes, 6),
    "second controller": (second_controller, 4),
    "clock jump": (clock_jump, 4),
}
NEEDS_MOUNT = frozenset({"disk full", "disk read-only"})


def trouble(bench: Bench) -> None:
    """One random fault after the other until told to stop; run by two threads, so that faults meet."""
    names = [name for name in FAULTS if (bench.mounted or name not in NEEDS_MOUNT) and name not in bench.spared]
    weights = [FAULTS[name][1] for name in names]
    while not bench.stop.is_set():
        name = bench.chance.choices(names, weights)[0]
        FAULTS[name][0](bench)
        bench.done[name] += 1
        bench.pause(1, 6)


# Memory and files


@dataclass(slots=True)
class Life:
    """What one life of the station took: seconds since its start, resident bytes and open files at each."""

    pid: int
    at_s: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)


def watch(bench: Bench, lives: list[Life]) -> None:
    """Note memory and open files of the station twice a second."""
    while not bench.stop.wait(0.5):
        pid = bench.station.process.pid
        if not lives or lives[-1].pid != pid:
            lives.append(Life(pid))
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            lives[-1].resident.append(process.memory_info().rss)
            lives[-1].files.append(process.num_fds())
            lives[-1].at_s.append(time.monotonic())


def clear_evidence(bench: Bench) -> None:
    """Delete pictures older than half a minute, so that the disk is full only when a fault fills it."""
    while not bench.stop.wait(5.0):
        limit_s = time.time() - 30
        for file in bench.store.parent.glob("evidence/**/*.png"):
            with contextlib.suppress(OSError):
                if file.stat().st_mtime < limit_s:
                    file.unlink()


def growth(lives: list[Life]) -> dict[str, str]:
    """Slope of the resident memory and the open files at both ends of the longest life, its first minute left out."""
    life = max(lives, key=lambda one: one.at_s[-1] - one.at_s[0] if one.at_s else 0.0)
    start_s = life.at_s[0] + min(60.0, (life.at_s[-1] - life.at_s[0]) / 3)
    kept = [index for index, at_s in enumerate(life.at_s) if at_s >= start_s]
    minutes = np.array([(life.at_s[index] - start_s) / 60 for index in kept])
    megabytes = np.array([life.resident[index] / 1e6 for index in kept])
    slope, level = np.polyfit(minutes, megabytes, 1)
    noise = float(np.std(megabytes - (slope * minutes + level)))
    files = [life.files[index] for index in kept]
    quarter = max(1, len(files) // 4)
    return {
        "longest life, minutes": f"{(life.at_s[-1] - life.at_s[0]) / 60:.1f}",
        "resident MB at its start / end": f"{megabytes[0]:.0f} / {megabytes[-1]:.0f}",
        "slope MB a minute / scatter MB": f"{slope:+.3f} / {noise:.2f}",
        "open files, median of first / last quarter": f"{np.median(files[:quarter]):.0f} / {np.median(files[-quarter:]):.0f}",
    }


# The run


@contextlib.contextmanager
def disk_of_its_own(folder: Path) -> Iterator[bool]:
    """A small disk for the station where this user may mount one; else its folder stays an ordinary one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "soak", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


def wrong_oks(records: list[Record]) -> list[str]:
    """Records with verdict OK though a frame of theirs shows a defect, is dark or torn."""
    bad = (DEFECTIVE, DARK, TORN)
    return [
        record.record_id
        for record in records
        if record.judgement.verdict.name == "OK" and any(word in frame for frame in record.frame_ids for word in bad)
    ]


def not_as_written(config: Path) -> list[str]:
    """What `lineside audit` has against the records, whatever the station went through."""
    command = [sys.executable, "-m", "inspection", "audit", str(config), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return [f"lineside audit: exit code {done.returncode}, {done.stdout}{done.stderr}"] if done.returncode else []


def run(options: argparse.Namespace) -> int:
    """Run, disturb, compare, print; returns the exit code."""
    out: Path = options.out
    out.mkdir(parents=True)
    print(f"seed {options.seed}, {options.minutes:g} minutes, {options.out}", flush=True)
    with disk_of_its_own(out / "disk") as mounted:
        return _run_on(options, out, mounted)


def _run_on(options: argparse.Namespace, out: Path, mounted: bool) -> int:
    recipe = make_recipe(out)
    for role, seed in (("top", options.seed), ("side", options.seed + 100)):
        make_frames(out / f"frames-{role}", seed)
    port, broker_port = free_port(), free_port()
    config = write_config(out, out / "disk", recipe, port=port, broker=broker_port)
    clock = JumpingClock(out) if shutil.which("gcc") else None
    spawn = multiprocessing.get_context("spawn")
    stop_line, line = spawn.Event(), LineLog(out / "line.jsonl")
    settings = {"interval_ms": options.interval_ms, "stop": stop_line, "recipe_id": "soak"}
    plc = spawn.Process(target=present_parts, args=(port, line.path, options.seed), kwargs=settings, daemon=True)
    broker = Broker(out / "broker", broker_port)
    station = StationLives(config, out / "station.log", clock)
    plc.start()
    stop, lives = threading.Event(), list[Life]()
    store = out / "disk" / "records.sqlite"
    bench = Bench(
        station, plc, broker, store, port, clock, mounted, frozenset(options.spare), random.Random(options.seed), stop
    )
    threads = [threading.Thread(target=trouble, args=(bench,)) for _ in range(2)]
    threads.append(threading.Thread(target=watch, args=(bench, lives)))
    threads.append(threading.Thread(target=clear_evidence, args=(bench,)))
    try:
        time.sleep(5)
        for thread in threads:
            thread.start()
        time.sleep(60 * options.minutes)
        stop.set()
        for thread in threads:
            thread.join()
        answered = len(line.update().ids("answer"))
        _until(lambda: len(line.update().ids("answer")) > answered + 3, PART_LIMIT_S)
        stop_line.set()
        plc.join(PART_LIMIT_S)
        told = _until(lambda: _untold(store, broker) == 0, 90)
        code = station.stop()
        return _report(bench, lives, line, code, all_told=told)
    finally:
        stop.set()
        plc.kill()
        station.stop()
        broker.stop()


def _until(condition: Callable[[], bool], limit_s: float) -> bool:
    end_s = time.monotonic() + limit_s
    while not (met := condition()) and time.monotonic() < end_s:
        time.sleep(0.2)
    return met


def _untold(store: Path, broker: Broker) -> int:
    stored = {row[0] for row in rows(store, "SELECT record_id FROM records")}
    return len(stored - set(broker.received))


def _report(bench: Bench, lives: list[Life], line: LineLog, code: int, *, all_told: bool) -> int:
    found = compare(line, bench.store, frozenset({f"{SECOND_RUN:08x}-{SECOND_SEQUENCE:010d}"}))
    records = [Record.from_json(row[0]) for row in rows(bench.store, "SELECT json FROM records ORDER BY rowid")]
    noted = {name: [text for text in found.violations if part in text] for name, part in EXPECTED.items()}
    violations = [text for text in found.violations if text not in chain.from_iterable(noted.values())]
    wrong = wrong_oks(records)
    violations += [f"record {record_id} passed a part that shows a defect" for record_id in wrong]
    if not all_told:
        violations.append(f"{_untold(bench.store, bench.broker)} records never reached the subscriber")
    if code:
        violations.append(f"the station ended with exit code {code} when asked to")
    violations += not_as_written(bench.station.config)
    told = [record_id for record_id in bench.broker.received if record_id]
    rules = Counter(r.judgement.reasons[0].rule_id for r in records if r.judgement.verdict.name == "ERROR")
    table: list[tuple[str, object]] = [
        *((f"fault: {name}", bench.done[name]) for name in FAULTS),
        ("station started / ended by itself", f"{bench.station.starts} / {dict(bench.station.exits)}"),
        *found.counts.items(),
        *((name, len(texts)) for name, texts in noted.items()),
        *((f"  ERROR {rule}", count) for rule, count in sorted(rules.items())),
        ("wrong OKs", len(wrong)),
        ("record messages received / of different records", f"{len(told)} / {len(set(told))}"),
        *growth(lives).items(),
        ("violations", len(violations)),
    ]
    if not bench.mounted:
        print("no disk of its own could be mounted here: full and read-only disk were left out")
    if bench.clock is None:
        print("gcc is not installed: the clock did not jump")
    print("\n".join(f"{name:<50}{value}" for name, value in table))
    print("".join(f"VIOLATION {text}\n" for text in violations), end="", flush=True)
    return 1 if violations else 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(prog="soak", description="A station under faults of all kinds at once.")
    options.add_argument("--minutes", type=float, default=30.0, help="how long faults are caused")
    options.add_argument("--seed", type=int, help="order and moments of the faults; random when left out")
    options.add_argument("--interval-ms", type=int, default=50, help="time from an answer to the next part, ms")
    options.add_argument(
        "--spare", nargs="*", default=[], choices=tuple(FAULTS), metavar="FAULT",
        help="faults not to cause, such as `station killed`, so that one life is long enough to see its memory grow",
    )  # fmt: skip
    options.add_argument("--out", type=Path, required=True, help="new folder for frames, store and logs")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Entry point; see the exit codes above."""
    options = parser().parse_args(arguments)
    if options.seed is None:
        options.seed = random.randrange(1, 1 << 31)
    if options.out.exists():
        print(f"{options.out} exists already\nname a new folder; results are not mixed", file=sys.stderr)
        return 2
    if not (shutil.which("mosquitto") or Path("/usr/sbin/mosquitto").exists()):
        print("mosquitto is not installed\napt install mosquitto", file=sys.stderr)
        return 3
    return run(options)


if __name__ == "__main__":
    sys.exit(main())
