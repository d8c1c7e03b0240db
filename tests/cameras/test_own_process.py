import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspection.cameras import make_camera
from inspection.cameras.child_process import ChildProcess
from inspection.cameras.folder import FolderCameraConfig
from inspection.cameras.opencv import OpencvCameraConfig
from inspection.cameras.own_process import OwnProcessCamera
from inspection.cameras.simulated import CameraFault, FaultKind, SimulatedCamera, SimulatedCameraConfig
from inspection.cameras.wire import FrameBlock, Message, error_message, read_error, read_trigger, trigger_message
from inspection.errors import (
    CameraError,
    CameraTimeout,
    ConfigError,
    DriverMissing,
    FrameCorrupt,
    InspectionError,
    UsageError,
)
from inspection.images import write_png
from inspection.log import OWN
from inspection.types import Frame, Trigger, utc_now

PATIENCE_S = 60.0  # only says that something hangs
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="cameras in their own process need Linux")
pytestmark = needs_linux


def trigger(number: int) -> Trigger:
    return Trigger(f"t{number}", "", "L", "r", utc_now(), sequence=number)


def simulated(*faults: FaultKind, every_n: int = 1, **options: Any) -> SimulatedCameraConfig:
    wanted = tuple(CameraFault(every_n=every_n, kind=kind) for kind in faults)
    return SimulatedCameraConfig(faults=wanted, **{"size_px": (160, 120), **options})


@contextmanager
def opened(config: Any) -> Iterator[OwnProcessCamera]:
    camera = OwnProcessCamera(config, camera_id="top")
    try:
        camera.open()
        yield camera
    finally:
        camera.close()


def until(condition: Callable[[], Any], what: str) -> None:
    limit_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < limit_s, f"{what} did not happen in {PATIENCE_S} s"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def words() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Every event of the log with its fields."""
    heard: list[tuple[str, dict[str, Any]]] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append((record.getMessage(), getattr(record, "fields", {})))

    listener, logger = Listener(), logging.getLogger(OWN)
    level = logger.level
    logger.addHandler(listener)
    logger.setLevel(logging.INFO)
    yield heard
    logger.setLevel(level)
    logger.removeHandler(listener)


# ---- frames


def test_frames_cross_unchanged() -> None:
    """500 frames through the process are, pixel for pixel and id for id, those of the driver itself."""
    config = simulated()
    plain = SimulatedCamera(config, camera_id="top")
    plain.open()
    with opened(config) as camera:
        for number in range(500):
            asked = trigger(number)
            there, here = camera.grab(asked, 10_000), plain.grab(asked, 10_000)
            assert (here.frame_id, "top", True) == (there.frame_id, there.camera_id, there.simulated)
            assert there.captured_at >= asked.at
            assert not there.image.flags.writeable
            assert np.array_equal(here.image, there.image)


def test_frames_of_changing_size_and_their_goldens_cross(tmp_path: Path) -> None:
    """A frame larger than all before gets a larger block; colour, grey and golden templates come through."""
    rng = np.random.default_rng(1)
    pictures = {
        "a": rng.integers(0, 256, (24, 32), np.uint8),
        "b": rng.integers(0, 256, (1500, 1500, 3), np.uint8),
        "c": rng.integers(0, 256, (20, 10), np.uint8),
    }
    for name, picture in pictures.items():
        write_png(tmp_path / f"{name}.png", picture)
    write_png(tmp_path / "c.golden.png", pictures["c"])
    with opened(FolderCameraConfig(folder=str(tmp_path))) as camera:
        frames = [camera.grab(trigger(number), 10_000) for number in range(3)]
    assert all(np.array_equal(picture, frame.image) for picture, frame in zip(pictures.values(), frames, strict=True))
    assert frames[1].golden is None
    assert frames[2].golden is not None
    assert np.array_equal(pictures["c"], frames[2].golden)


@given(
    sides=st.lists(
        st.tuples(st.integers(1, 40), st.integers(1, 40), st.booleans(), st.booleans()), min_size=1, max_size=4
    ),
    seed=st.integers(0, 99),
)
def test_block_gives_back_what_was_written(sides: list[tuple[int, int, bool, bool]], seed: int) -> None:
    """Images, 16-bit raw pixels and goldens of any size come out of the shared memory as they went in."""
    rng, writer, reader = np.random.default_rng(seed), FrameBlock(), FrameBlock()
    try:
        for height, width, colored, with_raw in sides:
            image = rng.integers(0, 256, (height, width, 3) if colored else (height, width), np.uint8)
            raw = rng.integers(0, 4096, (height, width)).astype(np.uint16) if with_raw else None
            header, block = writer.write(Frame(image, "x", utc_now(), "id#1", simulated=False, raw=raw))
            if block is not None:
                reader.attach(block)
            frame = reader.read(json.loads(json.dumps(header)), "top")
            assert np.array_equal(image, frame.image)
            assert (raw is None) == (frame.raw is None)
            assert raw is None or (np.array_equal(raw, frame.raw) and frame.raw.dtype == np.uint16)
    finally:
        writer.close()
        reader.close()


@pytest.mark.parametrize(
    "image", [[[10_000, 10_000], "uint8", 0], [[2, 2], "float64", 0], [[2, 2], "uint8", -4], [[0, 2], "uint8", 0]]
)
def test_header_that_does_not_fit_the_block_is_refused(image: list[Any]) -> None:
    """What a process that went mad says about its frame is never read beyond the block."""
    writer = FrameBlock()
    try:
        header, block = writer.write(Frame(np.ones((4, 4), np.uint8), "x", utc_now(), "id#1", simulated=False))
        assert block is not None
        os.close(block)
        header["arrays"]["image"] = image
        with pytest.raises(ValueError):
            writer.read(header, "top")
    finally:
        writer.close()


@pytest.mark.parametrize("kind", [CameraError, CameraTimeout, FrameCorrupt, ConfigError, DriverMissing, UsageError])
def test_error_crosses_with_its_class(kind: type[InspectionError]) -> None:
    """Who waits for a frame sees the driver's own error."""
    error = kind("what happened", fix="what to do")
    back = read_error(json.loads(json.dumps(error_message(error))))
    assert (type(error), "what happened", "what to do") == (type(back), back.what, back.fix)


@pytest.mark.parametrize("name", ["SystemExit", "annotations", "", "StoreError"])
def test_unknown_error_is_a_camera_error(name: str) -> None:
    """Only errors that a driver should raise are made from a name."""
    assert type(read_error({"error": name, "what": "w", "fix": "f"})) is CameraError


@given(
    st.builds(Trigger, st.text(min_size=1), st.text(), st.text(), st.text(), st.just(utc_now()), st.integers(0, 2**32))
)
def test_trigger_crosses(asked: Trigger) -> None:
    """The driver sees the trigger as the controller gave it."""
    assert asked == read_trigger(json.loads(json.dumps(trigger_message(asked))))


@pytest.mark.parametrize(
    ("fault", "kind", "limit_ms"), [("torn", FrameCorrupt, 60_000), ("missing", CameraTimeout, 300)]
)
def test_errors_of_the_driver_come_through(fault: FaultKind, kind: type[InspectionError], limit_ms: int) -> None:
    """A torn or missing frame has the driver's words, and the camera stays usable."""
    with opened(simulated(fault, every_n=2)) as camera:
        camera.grab(trigger(1), 30_000)
        with pytest.raises(kind, match="trigger t2") as caught:
            camera.grab(trigger(2), limit_ms)
        assert "simulated" in caught.value.fix
        assert camera.fault() == ""
        camera.grab(trigger(3), 30_000)


# ---- processes that hang or die


def test_frozen_process_times_out_and_is_replaced(words: list[tuple[str, dict[str, Any]]]) -> None:
    """A process that stands still costs one time-out; it is told, ended and replaced, and frames come again."""
    with opened(simulated()) as camera:
        camera.grab(trigger(1), 30_000)
        frozen = camera.process_id
        os.kill(frozen, signal.SIGSTOP)
        began_s = time.monotonic()
        with pytest.raises(CameraTimeout, match="trigger t2"):
            camera.grab(trigger(2), 300)
        assert 0.3 <= time.monotonic() - began_s < PATIENCE_S
        assert "does not answer" in camera.fault()
        with pytest.raises(CameraError, match="does not answer"):
            camera.grab(trigger(3), 60_000)
        until(lambda: not camera.fault(), "recovery")
        assert camera.grab(trigger(4), 30_000).frame_id == "frame#1"
        assert gone(frozen)
    assert ["camera.lost", "camera.back"] == [word for word, fields in words if fields.get("camera") == "top"]


def test_process_frozen_while_idle_is_found() -> None:
    """A process that stands still between two parts shows as a fault before the next part comes."""
    with opened(simulated()) as camera:
        os.kill(camera.process_id, signal.SIGSTOP)
        until(camera.fault, "fault")
        until(lambda: not camera.fault(), "recovery")
        camera.grab(trigger(1), 30_000)


def test_process_killed_while_a_frame_is_awaited_is_an_error_at_once() -> None:
    """Nobody waits out the time allowed for a process that is dead."""
    with opened(simulated(frame_ms=50_000)) as camera:

        def kill() -> None:
            until(lambda: camera._wanted, "the request")
            time.sleep(0.3)  # it waits for the answer by now
            os.kill(camera.process_id, signal.SIGKILL)

        threading.Thread(target=kill).start()
        began_s = time.monotonic()
        with pytest.raises(CameraError, match="ended") as caught:
            camera.grab(trigger(1), 60_000)
        assert time.monotonic() - began_s < 20
        assert not isinstance(caught.value, CameraTimeout)


def test_killed_again_and_again_it_comes_back_and_leaves_nothing() -> None:
    """Processes that were killed leave no shared memory, no zombie and no open descriptor behind."""
    shared = set(Path("/dev/shm").iterdir())
    with opened(simulated()) as camera:
        camera.grab(trigger(1), 30_000)
        pids, descriptors = [], psutil.Process().num_fds()
        for number in range(3):
            pids.append(camera.process_id)
            os.kill(camera.process_id, signal.SIGKILL)
            until(camera.fault, "fault")
            until(lambda: not camera.fault(), "recovery")
            camera.grab(trigger(number), 30_000)
        assert psutil.Process().num_fds() <= descriptors  # what earlier tests left open may be closed meanwhile
        pids.append(camera.process_id)
    assert camera.process_id == 0
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert not {path for path in set(Path("/dev/shm").iterdir()) - shared if "lineside" in path.name}


def test_late_frame_is_never_given_to_a_later_trigger(words: list[tuple[str, dict[str, Any]]]) -> None:
    """A frame that comes after its time-out is thrown away and logged; the next trigger gets its own."""
    with opened(simulated(frame_ms=200)) as camera:
        camera.grab(trigger(1), 30_000)
        os.kill(camera.process_id, signal.SIGSTOP)
        threading.Timer(0.6, os.kill, (camera.process_id, signal.SIGCONT)).start()
        pid = camera.process_id
        with pytest.raises(CameraTimeout):
            camera.grab(trigger(2), 400)
        until(lambda: not camera.fault(), "the late answer")
        frame = camera.grab(trigger(3), 30_000)
        if camera.process_id == pid:  # else the computer was so busy that the process was replaced
            assert "camera.late_answer" in [word for word, _ in words]
            assert frame.frame_id in ("frame#2", "frame#3")
        assert frame.captured_at > utc_now().replace(year=2000)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_for_the_station_do_not_end_the_camera(number: int) -> None:
    """Ctrl-C and a service manager's stop reach the whole group; the station closes its cameras itself."""
    with opened(simulated()) as camera:
        os.kill(camera.process_id, number)
        pid = camera.process_id
        camera.grab(trigger(1), 30_000)
        time.sleep(0.3)
        assert ("", pid) == (camera.fault(), camera.process_id)


STATION = """
import sys, time
from inspection.cameras.own_process import OwnProcessCamera
from inspection.cameras.simulated import SimulatedCameraConfig
from inspection.types import Trigger, utc_now
camera = OwnProcessCamera(SimulatedCameraConfig(), camera_id="top")
camera.open()
camera.grab(Trigger("t", "", "", "r", utc_now()), 30_000)
print(camera.process_id, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("frozen", [False, True])
def test_killed_station_leaves_no_process_behind(frozen: bool, root: Path) -> None:
    """A station that is killed takes the processes of its cameras along, also one that stands still."""
    station = subprocess.Popen([sys.executable, "-c", STATION], stdout=subprocess.PIPE, text=True, cwd=root)
    assert station.stdout is not None
    with station.stdout:
        child = int(station.stdout.readline())
        try:
            if frozen:
                os.kill(child, signal.SIGSTOP)
            station.kill()
            station.wait()
            until(lambda: gone(child), "the end of the camera's process")
        finally:
            station.kill()
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


# ---- cameras that are away


def test_camera_that_is_away_when_the_station_starts_comes_later(tmp_path: Path) -> None:
    """Opening does not fail for a camera that is away: its fault says so, and it comes back by itself."""
    folder = tmp_path / "later"
    with opened(FolderCameraConfig(folder=str(folder))) as camera:
        assert str(folder) in camera.fault()
        began_s = time.monotonic()
        with pytest.raises(CameraError, match="cannot read its folder"):
            camera.grab(trigger(1), 60_000)
        assert time.monotonic() - began_s < 20
        folder.mkdir()
        write_png(folder / "a.png", np.full((8, 8), 9, np.uint8))
        until(lambda: not camera.fault(), "recovery")
        assert camera.grab(trigger(2), 30_000).frame_id == "a.png#1"


def test_wrong_setting_is_an_error_when_the_station_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waiting cannot mend is told at once, and no process stays."""
    monkeypatch.delenv("NO_SUCH_PASSWORD", raising=False)
    config = OpencvCameraConfig(source="rtsp://u:{password}@127.0.0.1:9/x", password_env="NO_SUCH_PASSWORD")
    camera = OwnProcessCamera(config, camera_id="top")
    with pytest.raises(ConfigError, match="NO_SUCH_PASSWORD"):
        camera.open()
    assert camera.process_id == 0
    assert "not open" in camera.fault()


def test_last_word_of_a_process_is_heard_though_it_ended_with_a_question_unread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A station so busy that it listens only when the process has ended still learns why it never can be opened."""
    monkeypatch.delenv("NO_SUCH_PASSWORD", raising=False)

    def hear_late(child: ChildProcess, message: Message) -> None:
        if message["say"] == "opening":
            child.wire.send({"do": "ping"})
            os.waitid(os.P_PID, child.process.pid, os.WEXITED | os.WNOWAIT)
        hear(child, message)

    hear = ChildProcess.hear
    monkeypatch.setattr(ChildProcess, "hear", hear_late)
    config = OpencvCameraConfig(source="rtsp://u:{password}@127.0.0.1:9/x", password_env="NO_SUCH_PASSWORD")
    with pytest.raises(ConfigError, match="NO_SUCH_PASSWORD"):
        OwnProcessCamera(config, camera_id="top").open()


def test_camera_that_is_not_open_says_so() -> None:
    """Before opening and after closing, twice over, there is no frame and a fault."""
    camera = OwnProcessCamera(simulated(), camera_id="top")
    for _ in range(2):
        assert "not open" in camera.fault()
        with pytest.raises(CameraError, match="not open"):
            camera.grab(trigger(1), 1000)
        camera.open()
        assert camera.fault() == ""
        assert camera.grab(trigger(1), 30_000).frame_id == "frame#1"
        camera.close()
        camera.close()


def test_closing_ends_a_wait_for_a_frame() -> None:
    """Nobody waits for a frame of a camera that is closed meanwhile."""
    with opened(simulated(frame_ms=50_000)) as camera:
        threading.Timer(0.3, camera.close).start()
        with pytest.raises(CameraError):
            camera.grab(trigger(1), 60_000)


def test_cameras_that_may_hang_get_their_own_process(tmp_path: Path) -> None:
    """The table decides which driver is hosted."""
    assert isinstance(make_camera(OpencvCameraConfig(source=str(tmp_path / "a.avi")), "top"), OwnProcessCamera)
    assert isinstance(make_camera(simulated(), "top"), SimulatedCamera)
    assert cv2.__version__
