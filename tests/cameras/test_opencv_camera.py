import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from inspection.cameras import Camera, make_camera
from inspection.cameras.opencv import OpencvCamera, OpencvCameraConfig
from inspection.cameras.stream import StreamClock
from inspection.config import load_station
from inspection.errors import CameraError, CameraTimeout, ConfigError, FrameCorrupt
from inspection.images import write_png
from inspection.types import Frame, Trigger, utc_now

PATIENCE_S = 60.0  # only says that something hangs
SERVER = Path(__file__).with_name("rtsp_server.py")
HOW_TO_SERVE = (
    "needs an RTSP server: apt-get install gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-ugly gstreamer1.0-plugins-good; "
    'pip install "lineside[genicam]"'
)


def trigger(number: int) -> Trigger:
    return Trigger(f"t{number}", "", "L", "r", utc_now())


def until(condition: Callable[[], Any], what: str) -> float:
    began_s = time.monotonic()
    while not condition():
        assert time.monotonic() < began_s + PATIENCE_S, f"{what} did not happen in {PATIENCE_S} s"
        time.sleep(0.02)
    return time.monotonic() - began_s


@contextmanager
def opened(source: object, *, hosted: bool = False, **options: Any) -> Iterator[Camera]:
    config = OpencvCameraConfig(source=str(source), **options)
    camera = make_camera(config, "top") if hosted else OpencvCamera(config, camera_id="top")
    try:
        camera.open()
        yield camera
    finally:
        camera.close()


# ---- files


def numbered(number: int) -> np.ndarray:
    """A picture (48, 64, 3) RGB that holds its number: thousands in red, hundreds in green, the rest in blue."""
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[...] = (number // 1000, number // 100 % 10 * 20, number % 100 * 2)
    picture[number % 48, number % 64] = 255
    return picture


def video(path: Path, count: int, codec: str = "FFV1") -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 25, (64, 48))
    assert writer.isOpened()
    for number in range(count):
        writer.write(cv2.cvtColor(numbered(number), cv2.COLOR_RGB2BGR))
    writer.release()
    return path


@pytest.mark.parametrize("name", ["line.avi", "line.mkv"])
def test_frames_of_a_lossless_video_come_in_order(name: str, tmp_path: Path) -> None:
    """500 triggers get the 500 frames of the file, pixel for pixel, through the camera's own process."""
    with opened(video(tmp_path / name, 500), hosted=True, size_px=(64, 48)) as camera:
        for number in range(500):
            asked = trigger(number)
            frame = camera.grab(asked, 10_000)
            assert np.array_equal(numbered(number), frame.image), number
            assert (f"{name}#{number + 1}", "top", True) == (frame.frame_id, frame.camera_id, frame.simulated)
            assert frame.captured_at >= asked.at
        with pytest.raises(CameraTimeout, match="500 frames"):
            camera.grab(trigger(500), 10_000)
        assert camera.fault() == ""


def test_numbered_pictures_are_played_as_a_video(tmp_path: Path) -> None:
    """A pattern of file names is a source too."""
    for number in range(12):
        write_png(tmp_path / f"part_{number:04d}.png", numbered(number))
    with opened(tmp_path / "part_%04d.png") as camera:
        frames = [camera.grab(trigger(number), 1000) for number in range(12)]
        assert all(np.array_equal(numbered(number), frame.image) for number, frame in enumerate(frames))
        with pytest.raises(CameraTimeout):
            camera.grab(trigger(12), 1000)


def test_video_starts_again_when_told_to(tmp_path: Path) -> None:
    """With loop the first frame follows the last, under an id of its own."""
    with opened(video(tmp_path / "line.avi", 3), loop=True) as camera:
        frames = [camera.grab(trigger(number), 1000) for number in range(7)]
    assert all(np.array_equal(numbered(number % 3), frame.image) for number, frame in enumerate(frames))
    assert len({frame.frame_id for frame in frames}) == 7


def test_grey_stays_exact(tmp_path: Path) -> None:
    """A grey picture that is stored in colour comes back with the same grey levels."""
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_png(tmp_path / "grey_0.png", levels)
    with opened(tmp_path / "grey_%01d.png", color="grey") as camera:
        assert np.array_equal(levels, camera.grab(trigger(1), 1000).image)


def test_frame_of_another_size_is_refused(tmp_path: Path) -> None:
    """A camera that was set to another size does not reach the detector."""
    with (
        opened(video(tmp_path / "line.avi", 2), size_px=(640, 480)) as camera,
        pytest.raises(FrameCorrupt, match="64 x 48"),
    ):
        camera.grab(trigger(1), 1000)


@pytest.mark.parametrize(("name", "share"), [("line.avi", 0.5), ("line.mkv", 0.9)])
def test_truncated_video_gives_no_torn_frame(name: str, share: float, tmp_path: Path) -> None:
    """Of a file that was cut off, whole frames come in order, and then none."""
    content = video(tmp_path / name, 60).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * share)])
    with opened(tmp_path / name) as camera:
        for number in range(60):
            try:
                assert np.array_equal(numbered(number), camera.grab(trigger(number), 1000).image), number
            except CameraTimeout:
                break
        assert 5 < number < 59


@pytest.mark.parametrize("content", [None, b"", b"no video at all"])
def test_unusable_file_is_an_error_on_open(content: bytes | None, tmp_path: Path) -> None:
    """A file that is missing, empty or no video is named."""
    if content is not None:
        (tmp_path / "line.avi").write_bytes(content)
    with pytest.raises(CameraError, match=r"line\.avi"), opened(tmp_path / "line.avi"):
        pass


STATION = """
station_id = "S1"
recipe = "r"
store = "s.sqlite"
evidence = { folder = "e" }
controller = { kind = "simulated" }
[cameras]
file = { kind = "opencv", source = "clips/a.avi" }
usb = { kind = "opencv", source = "0" }
net = { kind = "opencv", source = "rtsp://h/x" }
"""


def test_relative_file_counts_from_the_station_config(tmp_path: Path) -> None:
    """A video beside station.toml is found from any folder; devices and streams keep their names."""
    (tmp_path / "station.toml").write_text(STATION, encoding="utf-8")
    cameras = load_station(tmp_path / "station.toml").cameras
    expected = (str(tmp_path / "clips" / "a.avi"), "0", "rtsp://h/x")
    assert expected == tuple(getattr(cameras[name], "source", None) for name in ("file", "usb", "net"))


# ---- settings


@pytest.mark.parametrize(
    "values",
    [{}, {"source": ""}, {"source": "0", "latency_ms": -1}, {"source": "0", "fps": 0}, {"source": "0", "speed": 1},
     {"source": "0", "color": "blue"}, {"source": "0", "size_px": [0, 1]}, {"source": "0", "read_timeout_ms": 1}],
)  # fmt: skip
def test_wrong_setting_is_refused(values: dict[str, Any]) -> None:
    """Unknown keys and values out of range do not become a camera."""
    with pytest.raises(ValidationError):
        OpencvCameraConfig.model_validate(values)


def test_password_comes_from_the_environment_and_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the config file nor a message holds it."""
    monkeypatch.setenv("LINE_CAMERA_PASSWORD", "s3cr:t")
    options = {"password_env": "LINE_CAMERA_PASSWORD", "open_timeout_ms": 500}
    with pytest.raises(CameraError) as caught, opened("rtsp://eye:{password}@127.0.0.1:9/line", **options):
        pass
    assert "rtsp://127.0.0.1:9/line" in str(caught.value)
    assert "s3cr" not in str(caught.value)
    monkeypatch.delenv("LINE_CAMERA_PASSWORD")
    with pytest.raises(ConfigError, match="LINE_CAMERA_PASSWORD"), opened("rtsp://eye:{password}@h/line", **options):
        pass


def test_device_that_is_not_there_is_an_error_on_open() -> None:
    """A USB camera that is not plugged in is named by its number."""
    with pytest.raises(CameraError, match="63"), opened(63):
        pass


# ---- the clock of a stream


@given(
    steps=st.lists(st.tuples(st.floats(0.001, 1), st.floats(0, 1)), min_size=1, max_size=60),
    start_s=st.floats(0, 1e6),
    zero_ms=st.floats(0, 1e6),
)
def test_frame_is_never_thought_newer_than_it_may_be(
    steps: list[tuple[float, float]], start_s: float, zero_ms: float
) -> None:
    """However frames are held up, the estimate is at most the fastest frame's travel time after the true exposure."""
    clock, made_s, arrived_s, fastest_s = StreamClock(), start_s, start_s, float("inf")
    for step_s, delay_s in steps:
        made_s += step_s
        arrived_s = max(arrived_s, made_s + delay_s)
        fastest_s = min(fastest_s, arrived_s - made_s)
        estimate_s = clock.exposed_s(arrived_s, (made_s - start_s) * 1000 + zero_ms)
        assert estimate_s <= arrived_s
        if arrived_s - start_s < 9:  # later the fastest frame may be forgotten
            assert estimate_s <= made_s + fastest_s + 1e-3


def test_held_up_frame_is_known_to_be_old() -> None:
    """Frames that pile up in a frozen network and then come all at once keep their true times."""
    clock = StreamClock()
    for number in range(50):
        clock.exposed_s(100 + number * 0.04, number * 40.0)
    late = [clock.exposed_s(110.0, number * 40.0) for number in range(50, 60)]
    assert late == pytest.approx([100 + number * 0.04 for number in range(50, 60)])


def test_stamps_that_stand_still_are_given_up() -> None:
    """A source without stamps is judged by arrival; until that is known its frames are refused."""
    clock = StreamClock()
    estimates = [clock.exposed_s(float(number), 0.0) for number in range(20)]
    assert float("-inf") in estimates[:11]
    assert [float(number) for number in range(11, 20)] == estimates[11:]
    assert not clock.steady


# ---- streams


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """The RTSP camera of ``rtsp_server.py`` in a process of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        self.address = f"rtsp://127.0.0.1:{self.port}/line"
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, str(SERVER), str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "serving\n":
            self.stop()
            pytest.skip(HOW_TO_SERVE)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    try:
        one.start()
        yield one
    finally:
        one.stop()


def shown(frame: Frame) -> tuple[float, int]:
    """When the server made the picture (seconds, monotonic clock of this computer), and its number."""
    code = (frame.image[8::16, 8::16] > 127).ravel()[:96].astype(int)
    made, number = (int("".join(map(str, part)), 2) for part in (code[:64], code[64:]))
    return made / 1e6, number


def fresh(camera: Camera, number: int) -> tuple[float, int]:
    """Grab, and check that what is seen was made after the call; a time-out of a loaded computer is tried again."""
    for _ in range(5):
        asked, asked_s = trigger(number), time.monotonic()
        try:
            frame = camera.grab(asked, 10_000)
        except CameraTimeout:
            continue
        made_s, count = shown(frame)
        assert asked_s < made_s <= time.monotonic()
        assert not frame.simulated
        assert frame.captured_at >= asked.at
        return made_s, count
    pytest.fail("no frame in five attempts")


def test_frames_of_a_stream_are_newer_than_their_triggers(server: Server) -> None:
    """What a picture itself shows proves that it was made after the trigger, also after a pause with a full buffer."""
    with opened(server.address, hosted=True, color="grey") as camera:
        seen = [fresh(camera, number) for number in range(15)]
        time.sleep(2)
        seen += [fresh(camera, number) for number in range(15, 20)]
    assert sorted(set(seen)) == seen


def test_killed_stream_is_a_fault_and_comes_back(server: Server) -> None:
    """A camera that loses power shows as fault and CameraError, and gives fresh frames after it is back."""
    with opened(server.address, hosted=True, color="grey", read_timeout_ms=1000) as camera:
        fresh(camera, 1)
        server.stop()
        until(camera.fault, "fault")
        with pytest.raises(CameraError):
            camera.grab(trigger(2), 1000)
        time.sleep(1)
        server.start()
        until(lambda: not camera.fault(), "recovery")
        fresh(camera, 3)


def test_stream_that_dies_during_a_grab_is_an_error(server: Server) -> None:
    """The part in progress gets an error, never an older frame."""
    with opened(server.address, hosted=True, color="grey", latency_ms=5000, read_timeout_ms=1000) as camera:
        server.stop()
        began_s = time.monotonic()
        with pytest.raises(CameraError):
            camera.grab(trigger(1), 60_000)
        assert time.monotonic() - began_s < 30


def test_frozen_stream_is_a_fault_and_comes_back(server: Server) -> None:
    """A camera that stands still without closing its connection is found by its silence."""
    with opened(server.address, hosted=True, color="grey", read_timeout_ms=1000) as camera:
        fresh(camera, 1)
        server.signal(signal.SIGSTOP)
        with pytest.raises(CameraError):
            camera.grab(trigger(2), 800)
        until(camera.fault, "fault")
        server.signal(signal.SIGCONT)
        until(lambda: not camera.fault(), "recovery")
        fresh(camera, 3)


def test_frozen_process_of_a_stream_is_replaced(server: Server) -> None:
    """The process of a real stream that stands still is ended, and a new one gives fresh frames."""
    config = OpencvCameraConfig(source=server.address, color="grey")
    camera: Any = make_camera(config, "top")
    try:
        camera.open()
        fresh(camera, 1)
        os.kill(camera.process_id, signal.SIGSTOP)
        with pytest.raises(CameraTimeout):
            camera.grab(trigger(2), 500)
        until(lambda: not camera.fault(), "recovery")
        fresh(camera, 3)
    finally:
        camera.close()


def test_stream_that_is_away_at_the_start_comes_later() -> None:
    """The station starts without its camera, shows the fault, and works once the camera is on."""
    server = Server()
    try:
        with opened(server.address, hosted=True, color="grey", open_timeout_ms=1000) as camera:
            assert server.address in camera.fault()
            server.start()
            until(lambda: not camera.fault(), "recovery")
            fresh(camera, 1)
    finally:
        server.stop()
