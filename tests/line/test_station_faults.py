"""What fails around a station: store, disk, controller, program; and how it ends."""

import json
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from line_bench import (
    ROOT,
    Bench,
    Child,
    answers,
    free_port,
    modbus_line,
    run_until_finished,
    simulated_line,
    sql,
    until,
)

from inspection.audit.pictures import check_pictures
from inspection.cameras.folder import FolderCamera
from inspection.controllers import StationState
from inspection.controllers.simulated import SimulatedController
from inspection.errors import ControllerError, StoreError
from inspection.evidence_ledger import ledger_path
from inspection.station import Station
from inspection.types import Frame, Record, Trigger, utc_now
from tools.kill_test import LineLog, compare
from tools.line_simulator import FAULTS, Journal, Link, Part, Status

STORE_FAILED = ("ERROR", "store.failed")


def outcomes(records: list[Record]) -> list[tuple[str, str]]:
    return [(r.judgement.verdict.name, r.judgement.reasons[0].rule_id if r.judgement.reasons else "") for r in records]


class Plc:
    """A line that presents parts to a station process, one by one."""

    def __init__(self, bench: Bench, port: int) -> None:
        self._journal = Journal(bench.folder / "line.jsonl")
        self.port = port
        self.link = Link("127.0.0.1", port, self._journal)
        self.link.connect(float("inf"))
        self._sequence = 0

    def status(self, state: StationState) -> Status:
        """The station block as soon as the station shows this state."""
        return until(lambda: (status := self.link.read()).state == state and status)  # type: ignore[no-any-return]

    def present(self) -> Part:
        """Trigger the next part."""
        self._sequence += 1
        part = Part(0xBEE, self._sequence, f"S{self._sequence}", "LOT", "")
        self.link.write(41, [0, 0])
        self.link.write(0, part.words())
        self.link.write(42, [1])
        return part

    def inspected(self) -> Status:
        """The answer to the next part."""
        self.status(StationState.READY)
        part = self.present()
        return until(lambda: (status := self.link.read()).answers(part) and status)  # type: ignore[no-any-return]

    def close(self) -> None:
        self.link.drop()
        self._journal.close()


@pytest.fixture
def good_frames(bench: Bench) -> str:
    """Config of a camera that shows a good part for ever."""
    bench.frame("frame", bench.sealed_frame("OK"))
    return 'kind = "folder"\nfolder = "frames"\nloop = true'


@pytest.fixture
def child(bench: Bench, good_frames: str) -> Iterator[tuple[Child, Plc]]:
    """A station in its own process, ready, and its line."""
    port = free_port()
    station = bench.start(bench.config(modbus_line(port), camera=good_frames))
    station.ready()
    plc = Plc(bench, port)
    yield station, plc
    plc.close()
    station.close()


# The store


def test_a_locked_store_costs_the_part_and_not_the_station(bench: Bench, good_frames: str) -> None:
    """A part that cannot even be accepted is answered ERROR; it is recorded so when the store takes writes again."""
    station = bench.station(bench.config(simulated_line("A", "B", "C"), camera=good_frames))
    station.open()
    with closing(sqlite3.connect(bench.store, isolation_level=None)) as other:

        def between(answered: int) -> None:
            if answered == 1 and not other.in_transaction and station.healthy:
                other.execute("BEGIN IMMEDIATE")
            elif answered == 2 and other.in_transaction:
                assert (bench_count(bench), station.healthy) == (1, False)
                other.execute("ROLLBACK")

        run_until_finished(station, between)
    station.close()
    given = answers(station)
    assert [("OK", ""), STORE_FAILED, ("OK", "")] == outcomes(given) == outcomes(bench.records())
    assert [record.trigger for record in given] == [record.trigger for record in bench.records()]


def bench_count(bench: Bench) -> int:
    return int(sql(bench.store, "SELECT count(*) FROM records")[0][0])


def test_a_full_store_loses_nothing_and_recovers(bench: Bench, good_frames: str) -> None:
    """While the store is full each part is answered ERROR and nothing new is accepted; then all goes on."""
    station = bench.station(bench.config(simulated_line(*"ABCDEFGH"), camera=good_frames))
    station.open()
    limited: list[int] = []

    def limit(pages: int) -> None:
        with station.store.transaction() as database:
            database.execute(f"PRAGMA max_page_count = {pages}")

    def between(answered: int) -> None:
        if answered == 2 and not limited:
            limited.append(sql(bench.store, "PRAGMA page_count")[0][0])
            limit(limited[0])
        elif limited and not station.healthy:
            limit(limited[0] + 1000)

    run_until_finished(station, between)
    station.close()
    given = answers(station)
    assert outcomes(given) == outcomes(bench.records())
    assert {("OK", ""), STORE_FAILED} == set(outcomes(given))
    assert [record.trigger for record in given] == [record.trigger for record in bench.records()]
    assert bench.open_triggers() == 0


def test_a_part_answered_error_at_the_very_end_is_recorded_too(bench: Bench, good_frames: str) -> None:
    """A station that is told to stop while its store fails tries once more to record what it has answered."""
    station = bench.station(bench.config(simulated_line("A"), camera=good_frames))
    station.open()
    with closing(sqlite3.connect(bench.store, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        def stop() -> bool:
            if answers(station) and other.in_transaction:
                other.execute("ROLLBACK")
            return bool(answers(station))

        station.run(stop)
    station.close()
    assert [STORE_FAILED] == outcomes(answers(station)) == outcomes(bench.records())


@pytest.fixture
def small_disk(bench: Bench) -> Iterator[Path]:
    """The station's folder on a disk of two megabytes."""
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(bench.folder)]
    if mount is None or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    yield bench.folder
    subprocess.run(["umount", "--lazy", str(bench.folder)], check=True)


def test_a_full_disk_shows_state_error_until_there_is_space(
    small_disk: Path, bench: Bench, child: tuple[Child, Plc]
) -> None:
    """On a full disk the line hears ERROR with reason 44 and sees state Error; with space the station is Ready again."""
    station, plc = child
    verdicts = [plc.inspected().verdict]
    ballast = small_disk / "ballast"
    fill(ballast)
    failed = plc.inspected()
    while failed.verdict == 1:  # what is written fits into pages that the store has already
        verdicts.append(failed.verdict)
        failed = plc.inspected()
    assert (failed.verdict, failed.reason_code) == (0, 44)
    assert plc.status(StationState.ERROR).trigger_ready == 0
    refused = plc.present()
    until(lambda: plc.link.read().rejects_part(refused))
    ballast.unlink()
    verdicts += [failed.verdict, plc.inspected().verdict]
    assert station.stop() == 0
    assert verdicts == [int(record.judgement.verdict) for record in bench.records()]
    assert [("ok",)] == sql(bench.store, "PRAGMA integrity_check")
    assert (len(station.events("store.failed")), len(station.events("store.recovered"))) == (1, 1)


@pytest.fixture
def disk_of_pictures(bench: Bench) -> Iterator[Path]:
    """The station's folder on a disk that holds some dozen pictures."""
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(bench.folder)]
    if mount is None or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    yield bench.folder
    subprocess.run(["umount", "--lazy", str(bench.folder)], check=True)


def test_retention_frees_a_full_disk_and_the_line_goes_on(disk_of_pictures: Path, bench: Bench) -> None:
    """A disk filled to the last byte: ERROR with reason 44; retention deletes pictures of OK parts; then Ready and OK again."""
    bench.frame("frame", bench.sealed_frame("OK"))
    port = free_port()
    limits = 'keep = "all"\n[retention]\nmin_free_gb = 0.001\nbudget_ms_per_s = 1000'
    camera = 'kind = "folder"\nfolder = "frames"\nloop = true'
    config = bench.config(modbus_line(port), camera=camera, evidence=limits)
    station = bench.start(config)
    command = [sys.executable, "-m", "inspection", "retention", str(config), "--once"]
    plc = None
    try:
        station.ready()
        plc = Plc(bench, port)
        verdicts = [plc.inspected().verdict for _ in range(5)]

        def freed() -> int:
            done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
            return int(json.loads(done.stdout)["deleted_files"])

        assert freed() == 0  # it runs beside the station from the beginning
        fill(disk_of_pictures / "ballast")
        failed = plc.inspected()
        while failed.verdict == 1:  # what is written fits into pages that the store has already
            verdicts.append(failed.verdict)
            failed = plc.inspected()
        assert (failed.verdict, failed.reason_code) == (0, 44)
        verdicts.append(failed.verdict)
        for _ in range(
            5
        ):  # pictures that wait for the ledger can go only after the first ones made room for their rows
            assert until(freed, 240.0) > 0
            verdicts.append(plc.inspected().verdict)
            if verdicts[-1] == 1:
                break
        assert station.stop() == 0
    finally:
        if plc is not None:
            plc.close()
        station.close()
    assert verdicts == [int(record.judgement.verdict) for record in bench.records()]
    assert verdicts[-1] == 1
    assert [("ok",)] == sql(bench.store, "PRAGMA integrity_check")
    assert () == check_pictures(ledger_path(bench.store), bench.folder / "evidence").said.findings


def fill(ballast: Path) -> None:
    """Take all space that is left on the disk."""
    with ballast.open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


def test_two_stations_on_one_store_are_refused(bench: Bench, good_frames: str) -> None:
    """A second station does not take the part in progress of the first for one that a crash left open."""
    config = bench.config(simulated_line("A"), camera=good_frames)
    first, second = bench.station(config), bench.station(config)
    first.open()
    first.store.accept(Trigger("t1", "A", "", "", utc_now()))
    with pytest.raises(StoreError, match="another station is running") as caught:
        second.open()
    assert "store of its own" in caught.value.fix
    assert bench.open_triggers() == 1
    first.close()
    second.open()
    assert bench.open_triggers() == 0


# The controller and the program


class DeadLink(SimulatedController):
    """A line whose link dies when the first answer is to be given."""

    def answer(self, record: Record) -> None:
        raise ControllerError("the link is dead", fix="see to it")


class BrokenLink(SimulatedController):
    """A line with a mistake in it."""

    def answer(self, record: Record) -> None:
        raise ZeroDivisionError("division by zero")


class BrokenCamera(FolderCamera):
    """A driver with a mistake in it."""

    def grab(self, trigger: Trigger, timeout_ms: int) -> Frame:
        raise ZeroDivisionError("division by zero")


class StubbornCamera(FolderCamera):
    """A camera that cannot be closed."""

    def close(self) -> None:
        raise OSError("stuck")


def stopped_in_error(station: Station) -> ControllerError:
    with pytest.raises(ControllerError) as caught:
        run_until_finished(station)
    assert station.controller._state == StationState.ERROR  # type: ignore[attr-defined]
    station.close()
    return caught.value


def test_a_dead_controller_stops_the_station_and_keeps_the_record(bench: Bench, good_frames: str) -> None:
    """When an answer cannot be given the station stops in state Error; after a restart the record is answered."""
    config = bench.config(simulated_line("A", more="run_number = 7"), camera=good_frames)
    station = bench.station(config)
    station.controller = DeadLink(station.config.controller)  # type: ignore[arg-type]
    station.open()
    assert str(stopped_in_error(station)) == "the link is dead\nsee to it"
    (record,) = bench.records()
    assert [record] == bench.play(config) == bench.records()


def test_the_unforeseen_in_a_driver_is_error(bench: Bench, good_frames: str) -> None:
    """A mistake in a camera driver costs each part its verdict, and neither the record nor the station."""
    station = bench.station(bench.config(simulated_line("A", "B"), camera=good_frames))
    station.cameras["top"] = BrokenCamera(station.config.cameras["top"], camera_id="top")  # type: ignore[arg-type]
    station.open()
    run_until_finished(station)
    assert [("ERROR", "station.failed")] * 2 == outcomes(bench.records())
    assert "unforeseen ZeroDivisionError" in bench.records()[0].judgement.reasons[0].text


def test_the_unforeseen_stops_the_station_and_costs_no_record(bench: Bench, good_frames: str) -> None:
    """A mistake in the station's own thread stops it in state Error; after a restart the record is answered."""
    config = bench.config(simulated_line("A", more="run_number = 7"), camera=good_frames)
    station = bench.station(config)
    station.controller = BrokenLink(station.config.controller)  # type: ignore[arg-type]
    station.open()
    assert "unforeseen ZeroDivisionError: division by zero" in stopped_in_error(station).what
    (record,) = bench.records()
    assert [record] == bench.play(config) == bench.records()


def test_a_device_that_cannot_be_closed_does_not_keep_the_others_open(bench: Bench, good_frames: str) -> None:
    """Store, evidence and controller are closed whatever the camera does."""
    station = bench.station(bench.config(simulated_line("A"), camera=good_frames))
    good_camera = station.cameras["top"]
    station.cameras["top"] = StubbornCamera(station.config.cameras["top"], camera_id="top")  # type: ignore[arg-type]
    station.open()
    with pytest.raises(OSError, match="stuck"):
        station.close()
    with pytest.raises(StoreError):
        station.store.count()
    assert "writer closed" in station.evidence.offer("r", "lot", [])
    station.cameras["top"] = good_camera


# The whole station as it runs on a line


def test_a_station_and_a_line_with_all_faults_agree(bench: Bench, child: tuple[Child, Plc]) -> None:
    """Over Modbus TCP, with every fault of the line, each trigger has one record and was answered from it."""
    station, plc = child
    plc.close()
    log = bench.folder / "faults.jsonl"
    command = [
        sys.executable,
        "-m",
        "tools.line_simulator",
        "--port",
        str(plc.port),
        "--parts",
        "10",
        "--recipe-id",
        "",
    ]
    line = subprocess.run(
        [*command, "--faults", ",".join(FAULTS), "--log", str(log)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (line.returncode, station.stop()) == (0, 0), line.stdout + line.stderr
    assert compare(LineLog(log), bench.store).violations == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_station_that_is_told_to_stop_ends_in_order(
    bench: Bench, child: tuple[Child, Plc], number: signal.Signals
) -> None:
    """On SIGTERM and SIGINT the port is free, the store closed and whole, nothing half-written, exit code 0."""
    station, plc = child
    plc.inspected()
    plc.status(StationState.READY)
    assert (station.stop(number), "Traceback" in station.log) == (0, False)
    assert len(station.events("station.halted")) == 1
    with socket.create_server(("127.0.0.1", plc.port)):
        pass
    assert (len(bench.records()), bench.open_triggers()) == (1, 0)
    assert list(bench.folder.rglob("*.partial")) == list(bench.folder.glob("*-wal")) == []


def test_a_part_in_progress_is_recorded_before_the_station_ends(bench: Bench, child: tuple[Child, Plc]) -> None:
    """A part that was accepted when the station is told to stop still gets its record."""
    station, plc = child
    plc.status(StationState.READY)
    plc.present()
    until(lambda: sql(bench.store, "SELECT count(*) FROM triggers") == [(1,)])
    assert station.stop() == 0
    assert [("OK", "")] == outcomes(bench.records())
    assert bench.open_triggers() == 0
