"""GigE Vision on the wire: the fake camera of Aravis as a process of its own, killed, frozen and started again."""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from inspection.cameras.found import FoundCamera
from inspection.cameras.genicam import SHORT_IDS, GenicamCamera, GenicamCameraConfig, is_newer, list_devices
from inspection.cameras.own_process import OwnProcessCamera
from inspection.errors import CameraError, CameraTimeout, ConfigError, FrameCorrupt
from inspection.types import Frame, Trigger, utc_now

FAKE = shutil.which("arv-fake-gv-camera-0.8")
INSTALL = 'pip install "lineside[genicam]" && apt install gir1.2-aravis-0.8 aravis-tools'
ADDRESS = "127.0.0.1"
SERIAL = f"T{os.getpid()}"
WHOLE_LEVEL = {"exposure_us": 10_000.0, "gain": 0.0}  # with these the fake shows its pattern unscaled
LONG_S = 20.0  # only against hanging


def aravis() -> Any:
    gi = pytest.importorskip("gi", reason=f"PyGObject is missing: {INSTALL}")
    try:
        gi.require_version("Aravis", "0.8")
    except ValueError:
        pytest.skip(f"Aravis is missing: {INSTALL}")
    from gi.repository import Aravis

    return Aravis


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    if FAKE is None:
        pytest.skip(f"the fake GigE Vision camera is missing: {INSTALL}")
    aravis()


@contextmanager
def fake(address: str = ADDRESS, serial: str = SERIAL, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A fake camera as a process, reachable at ``address``; killed at the end."""
    assert FAKE is not None
    command = [FAKE, "-i", address, "-s", serial, *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: process.poll() is not None or answers(address))
        if process.poll() is not None:
            pytest.fail(f"the fake camera did not start at {address}")
        yield process
    finally:
        process.kill()  # a stopped process ends as well
        process.wait()


def answers(address: str) -> bool:
    """Whether somebody holds the port of GigE Vision control at the address."""
    packed = "".join(f"{int(part):02X}" for part in reversed(address.split(".")))
    return f"{packed}:{3956:04X}" in Path("/proc/net/udp").read_text()


def wait_until(true: Callable[[], object]) -> None:
    end_s = time.monotonic() + LONG_S
    while not true():
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.02)


@contextmanager
def second_address() -> Iterator[str]:
    """Another address of this computer, for a second camera."""
    address = "127.0.77.2"
    added = subprocess.run(["ip", "addr", "add", f"{address}/32", "dev", "lo"], capture_output=True, check=False)
    if added.returncode:
        pytest.skip(f"needs the right to add an address: ip addr add {address}/32 dev lo")
    try:
        yield address
    finally:
        subprocess.run(["ip", "addr", "del", f"{address}/32", "dev", "lo"], capture_output=True, check=False)


@contextmanager
def opened(**options: Any) -> Iterator[GenicamCamera]:
    camera = made(**options)
    try:
        camera.open()
        yield camera
    finally:
        camera.close()


def made(**options: Any) -> GenicamCamera:
    options = {"device": ADDRESS, "roi_px": (0, 0, 320, 240), **WHOLE_LEVEL, **options}
    return GenicamCamera(GenicamCameraConfig(**options), camera_id="top")


def trigger(number: int) -> Trigger:
    return Trigger(f"t{number}", "", "L", "r", utc_now())


def number_of(frame: Frame) -> int:
    """The frame's number on the wire, which the picture carries too."""
    return int(frame.frame_id.rpartition("/")[2])


def pattern(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """What the fake camera shows in the frame of that number."""
    y, x = np.mgrid[:height, :width]
    return ((x + y + number) % 255).astype(np.uint8)


# ---- frames


def test_every_trigger_gets_its_own_frame_in_order() -> None:
    """500 software triggers give 500 different frames in order, each with exactly the pixels of its number."""
    with fake(), opened() as camera:
        assert camera._link is not None
        camera._link.camera.set_frame_rate(200.0)  # the fake paces its triggers by it
        frames = [camera.grab(trigger(number), 5000) for number in range(500)]
    numbers = [number_of(frame) for frame in frames]
    # The fake counts over 65535 on the way.  Not each number is there: a command that a busy machine sends a second time
    # makes it take a second frame, which is thrown away.
    assert all(is_newer(after, before) for before, after in pairwise(numbers))
    assert SHORT_IDS in numbers or 1 in numbers or min(numbers) < 1000 < max(numbers)
    assert all(np.array_equal(pattern(number_of(frame), 320, 240), frame.image) for frame in frames)
    assert len({frame.frame_id for frame in frames}) == 500


def test_frame_says_where_and_when_it_comes_from() -> None:
    """A frame is newer than its trigger, and one of the library's fake camera is marked as simulated."""
    with fake(), opened() as camera:
        asked = trigger(1)
        frame = camera.grab(asked, 5000)
    assert ("top", True, None) == (frame.camera_id, frame.simulated, frame.raw)
    assert frame.captured_at >= asked.at
    assert frame.frame_id.startswith(f"{SERIAL}#1/")


@pytest.mark.parametrize("roi_px", [(0, 0, 1280, 1024), (100, 60, 133, 77), (2047, 2047, 2048, 2048), None])
def test_region_is_what_is_delivered(roi_px: tuple[int, int, int, int] | None) -> None:
    """A frame has the size of the region, and without one that of the sensor, whatever was set in the camera before."""
    with fake(), opened(roi_px=(0, 0, 64, 64)):
        pass
    with fake(), opened(roi_px=roi_px) as camera:
        frame = camera.grab(trigger(1), 5000)
    x1, y1, x2, y2 = roi_px or (0, 0, 2048, 2048)
    width, height = x2 - x1, y2 - y1
    assert np.array_equal(pattern(number_of(frame), width, height), frame.image)


def test_exposure_and_gain_reach_the_camera() -> None:
    """A longer exposure and more gain make a brighter picture."""
    means = []
    with fake():
        for exposure_us, gain in ((1000.0, 0.0), (5000.0, 0.0), (5000.0, 10.0)):
            with opened(exposure_us=exposure_us, gain=gain) as camera:
                means.append(camera.grab(trigger(1), 5000).image.mean())
    assert means[0] < means[1] < means[2]


@pytest.mark.parametrize(
    ("name", "shape", "raw"),
    [
        ("Mono8", (240, 320), None),
        ("Mono16", (240, 320), np.uint16),
        ("RGB8", (240, 320, 3), None),
        ("BayerRG8", (240, 320, 3), np.uint8),
        ("BayerGB8", (240, 320, 3), np.uint8),
        ("BayerGR8", (240, 320, 3), np.uint8),
        ("BayerBG8", (240, 320, 3), np.uint8),
    ],
)
def test_pixel_formats_of_the_camera(name: str, shape: tuple[int, ...], raw: type | None) -> None:
    """Grey, deep grey, colour and mosaics come as images, with the sensor's values kept where the image has less."""
    with fake(), opened(pixel_format=name) as camera:
        frame = camera.grab(trigger(1), 5000)
    assert shape == frame.image.shape
    assert (None if frame.raw is None else frame.raw.dtype.type) == raw
    if frame.raw is not None:
        assert frame.raw.shape == (240, 320)


def test_two_cameras_at_once() -> None:
    """Two cameras on one computer do not mix their frames, and serial numbers tell them apart."""
    with ExitStack() as stack:
        address = stack.enter_context(second_address())
        stack.enter_context(fake(ADDRESS, f"{SERIAL}a"))
        stack.enter_context(fake(address, f"{SERIAL}b"))
        one = stack.enter_context(opened(device=f"{SERIAL}a"))
        other = stack.enter_context(opened(device=f"{SERIAL}b", roi_px=(0, 0, 64, 48)))
        for number in range(20):
            frames = one.grab(trigger(number), 5000), other.grab(trigger(number), 5000)
            assert [(240, 320), (48, 64)] == [frame.image.shape for frame in frames]
            assert [f"{SERIAL}a", f"{SERIAL}b"] == [frame.frame_id.partition("#")[0] for frame in frames]
        with pytest.raises(CameraError, match="2 answered") as caught:
            made(device="").open()
        assert f"{SERIAL}a" in str(caught.value)
        assert f"{SERIAL}b" in str(caught.value)


def test_free_run_gives_only_frames_that_began_after_the_call() -> None:
    """What the camera sent between two parts is thrown away, the next frames are new and distinct."""
    with fake(), opened(trigger="free") as camera:
        numbers = [number_of(camera.grab(trigger(1), 5000))]
        time.sleep(1.0)  # many more than the buffers hold
        numbers += [number_of(camera.grab(trigger(2), 5000)) for _ in range(5)]
    assert len(set(numbers)) == 6
    assert (numbers[1] - numbers[0]) % SHORT_IDS > 10
    assert all(is_newer(after, before) for before, after in pairwise(numbers))


# ---- late, missing, torn


def test_line_without_a_pulse_times_out_and_is_no_fault() -> None:
    """A trigger line on which nothing happens is a missing frame, not a missing camera."""
    with fake(), opened(trigger="line", line="Line0") as camera:
        for number in range(3):
            with pytest.raises(CameraTimeout, match=f"no frame in 150 ms after trigger t{number}"):
                camera.grab(trigger(number), 150)
        assert camera.fault() == ""


def test_late_frame_is_never_given_to_the_next_trigger() -> None:
    """Frames that come after their time belong to nobody: every later frame was made after its own trigger."""
    with fake(), opened() as camera:
        timeouts, numbers = 0, []
        for number in range(40):
            try:
                before = camera.grab(trigger(number), 5000 if number % 2 else 3)  # the fake needs about 20 to 40 ms
                numbers.append(number_of(before))
            except CameraTimeout:
                timeouts += 1
        after = camera.grab(trigger(99), 5000)
    assert timeouts > 0
    assert len(set(numbers)) == len(numbers) >= 20
    assert np.array_equal(pattern(number_of(after), 320, 240), after.image)
    assert is_newer(number_of(after), numbers[-1])


def clocked(folder: Path, now_ns: int) -> Path:
    """The fake's own description with a clock that always says ``now_ns``."""
    aravis().get_n_interfaces()  # its description is packed into the library, which is loaded with the first call
    from gi.repository import Gio

    packed = Gio.resources_lookup_data("/org/aravis/arv-fake-camera.xml", Gio.ResourceLookupFlags.NONE)
    text = bytes(packed.get_data()).decode()
    clock = (
        f'<Integer Name="TimestampLatchValue" NameSpace="Standard"><Value>{now_ns}</Value></Integer>'
        '<Command Name="TimestampLatch" NameSpace="Standard"><Value>0</Value><CommandValue>1</CommandValue></Command>'
    )
    file = folder / "clocked.xml"
    file.write_text(text.replace("</RegisterDescription>", clock + "</RegisterDescription>"))
    return file


@pytest.mark.parametrize(("ahead_s", "given"), [(-3600, True), (3600, False)])
def test_camera_clock_decides_whether_a_frame_is_new(tmp_path: Path, ahead_s: int, given: bool) -> None:
    """A frame stamped before what the camera's clock said at the call is refused, and the refusal is told."""
    description = clocked(tmp_path, time.time_ns() + ahead_s * 10**9)  # the fake stamps with the time of the day
    with fake(ADDRESS, SERIAL, "-g", str(description)), opened() as camera:
        if given:
            assert camera.grab(trigger(1), 5000).image.any()
        else:
            with pytest.raises(CameraTimeout, match="1 older frames were refused"):
                camera.grab(trigger(1), 3000)


def test_frame_with_missing_packets_is_corrupt() -> None:
    """A frame that lost packets is refused; the error has the status and counts them."""
    message = r"damaged frame for trigger t1: [a-z-]+, \d+ packets are missing"
    with (
        fake(ADDRESS, SERIAL, "-r", "400"),
        opened(packet_resend=False) as camera,
        pytest.raises(FrameCorrupt, match=message),
    ):
        grab_until_something_comes(camera)


def grab_until_something_comes(camera: GenicamCamera) -> Frame:
    """The fake may lose the packet a frame starts with too: then none comes."""
    for _ in range(20):
        try:
            return camera.grab(trigger(1), 1000)
        except CameraTimeout:
            continue
    raise AssertionError("nothing came")


def test_socket_buffer_smaller_than_a_frame_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Where the system grants less than a frame needs, the log and the error name the setting that allows more."""
    with fake(), opened(socket_buffer_kb=64, roi_px=None) as camera:
        events = [record for record in caplog.records if record.getMessage() == "camera.socket_buffer"]
        camera_note = camera._link.socket_note if camera._link else ""
    assert len(events) == 1
    assert "sysctl -w net.core.rmem_max=8388608" in camera_note
    assert "grants a socket buffer of 65536 bytes, a frame has 4194304" in camera_note


@pytest.mark.parametrize("packet_size", [576, 1500, 9000, 16000])
def test_packet_sizes(packet_size: int) -> None:
    """Any packet size of GigE Vision that the network passes gives the same pixels."""
    with fake(), opened(packet_size=packet_size) as camera:
        frame = camera.grab(trigger(1), 5000)
    assert np.array_equal(pattern(number_of(frame), 320, 240), frame.image)


# ---- gone and back


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_dead_camera_is_an_error_in_time(how: signal.Signals) -> None:
    """A camera that dies or freezes costs its trigger no more than the time allowed, and soon shows as a fault."""
    with ExitStack() as stack:
        process = stack.enter_context(fake())
        camera = stack.enter_context(opened())
        camera.grab(trigger(1), 5000)
        process.send_signal(how)
        asked_s = time.monotonic()
        with pytest.raises(CameraError) as caught:
            camera.grab(trigger(2), 1000)
        assert "the camera itself answers" not in str(caught.value)
        assert (
            time.monotonic() - asked_s < 2.0
        )  # Aravis alone needs 2.5 s, and says nothing when only frames are missing
        wait_until(camera.fault)
        asked_s = time.monotonic()
        with pytest.raises(CameraError) as caught:
            camera.grab(trigger(3), 5000)
        assert not isinstance(caught.value, CameraTimeout)
        assert time.monotonic() - asked_s < 4.0  # at once, not after the time allowed: it is known to be gone
        revive(stack, process)


def test_camera_that_dies_between_parts_shows_as_a_fault() -> None:
    """Without any trigger the loss is noticed, and fault never blocks."""
    with ExitStack() as stack:
        process = stack.enter_context(fake())
        camera = stack.enter_context(opened())
        assert camera.fault() == ""
        process.kill()
        longest_s, end_s = 0.0, time.monotonic() + LONG_S
        while not (fault := timed(camera.fault))[0]:
            longest_s = max(longest_s, fault[1])
            assert time.monotonic() < end_s
            time.sleep(0.05)
        assert "top" in fault[0]
        assert longest_s < 2.0  # Aravis asks for 2.5 s
        revive(stack, process)


def revive(stack: ExitStack, process: subprocess.Popen[bytes]) -> None:
    """Have a camera there that answers, because Aravis takes 11 s to let go of one that does not."""
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
    else:
        stack.enter_context(fake())


def timed(call: Callable[[], str]) -> tuple[str, float]:
    start_s = time.monotonic()
    return call(), time.monotonic() - start_s


def test_lost_line_and_lost_camera_are_told_apart() -> None:
    """With a line trigger no question is asked for the frame itself: silence alone must still show a dead camera."""
    with fake() as process, opened(trigger="line", line="Line0") as camera:
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(CameraError) as caught:
            camera.grab(trigger(1), 3000)
        process.send_signal(signal.SIGCONT)
    assert not isinstance(caught.value, CameraTimeout)


def test_short_freeze_costs_a_trigger_and_nothing_else() -> None:
    """A camera that stood still for a moment goes on, and its late frame is given to nobody."""
    with fake() as process, opened() as camera:
        before = camera.grab(trigger(1), 5000)
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(CameraError):
            camera.grab(trigger(2), 200)
        process.send_signal(signal.SIGCONT)
        after = camera.grab(trigger(3), 5000)
        assert camera.fault() == ""
    assert is_newer(number_of(after), number_of(before))
    assert np.array_equal(pattern(number_of(after), 320, 240), after.image)


def test_camera_that_was_started_again_is_opened_again() -> None:
    """After a power cycle the settings are written anew."""
    with fake(), opened() as camera:
        camera.grab(trigger(1), 5000)
    camera = made()
    with pytest.raises(CameraError, match="cannot be opened"):
        camera.open()
    with fake():
        camera.open()
        try:
            assert camera.grab(trigger(2), 5000).image.shape == (240, 320)
        finally:
            camera.close()


def test_camera_in_use_is_not_taken() -> None:
    """Two stations never share a camera: the second is told, and the first goes on."""
    with fake(), opened() as camera:
        with pytest.raises(CameraError):
            made().open()
        camera.grab(trigger(1), 5000)


def test_reopening_leaks_no_files_or_threads() -> None:
    """A camera that comes and goes for years does not use up the process."""
    with fake(), opened():
        pass
    with fake():
        before = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
        for number in range(5):
            with opened() as camera:
                camera.grab(trigger(number), 5000)
        after = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    # What earlier tests left open may be closed meanwhile.
    assert all(one <= other for one, other in zip(after, before, strict=True))


# ---- through a process of its own


def test_in_its_own_process_it_dies_and_comes_back() -> None:
    """Hosted as in a station: frames, an error in time when the camera is killed, and frames again after a restart."""
    config = GenicamCameraConfig(device=ADDRESS, roi_px=(0, 0, 320, 240), **WHOLE_LEVEL)
    camera = OwnProcessCamera(config, camera_id="top")
    try:
        with fake():
            camera.open()
            wait_until(lambda: not camera.fault())
            frames = [camera.grab(trigger(number), 5000) for number in range(20)]
            assert all(np.array_equal(pattern(number_of(frame), 320, 240), frame.image) for frame in frames)
        asked_s = time.monotonic()
        with pytest.raises(CameraError):
            camera.grab(trigger(50), 500)
        assert time.monotonic() - asked_s < 2.0
        wait_until(camera.fault)
        with fake():
            wait_until_long(lambda: not camera.fault())
            assert camera.grab(trigger(60), 5000).image.shape == (240, 320)
    finally:
        camera.close()


def wait_until_long(true: Callable[[], object]) -> None:
    """Aravis takes 11 s to let go of a camera that does not answer."""
    end_s = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.1)


# ---- finding and setting up


def test_list_names_what_a_station_config_needs() -> None:
    """Each camera is listed with id, make, serial number and address; the one inside the library is not."""
    with fake():
        found = [one for one in list_devices() if one.serial == SERIAL]
        assert [FoundCamera("genicam", f"Aravis-Fake-{SERIAL}", "Aravis Fake", SERIAL, ADDRESS)] == found
        assert not any(one.device.startswith("Fake_") for one in list_devices())
        for name in (found[0].device, SERIAL):
            with opened(device=name) as camera:
                camera.grab(trigger(1), 5000)


def test_unknown_camera_lists_those_that_answer() -> None:
    """A serial number with a typing error is corrected from the message."""
    with fake(), pytest.raises(CameraError, match=f"'T-nobody' was looked for, none answered.*{SERIAL}"):
        made(device="T-nobody").open()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exposure_us": 5e7}, "exposure_us = 5e[+]07 is out of this camera's range"),
        ({"gain": 11.0}, "gain = 11 is out"),
        (
            {"pixel_format": "Mono12p"},
            "no pixel format 'Mono12p'\npixel_format can be: .*BayerRG8, Mono16, Mono8, RGB8",
        ),
        ({"roi_px": (2000, 0, 2100, 10)}, "leaves the sensor\nit has 2048 x 2048"),
        ({"trigger": "line", "line": "Line9"}, "no trigger source 'Line9'\nit has: Line0, Software"),
        ({"trigger": "line", "line": "Line0", "edge": "falling"}, "cannot trigger on a falling edge"),
    ],
)
def test_setting_the_camera_does_not_have(options: dict[str, Any], message: str) -> None:
    """Aravis writes what is out of range without a word; here the user sees what is allowed."""
    with fake(), pytest.raises(ConfigError, match=f"(?s){message}"):
        made(**options).open()


def test_camera_inside_the_library() -> None:
    """Fake_1 needs no network and gives simulated frames."""
    with opened(device="Fake_1", roi_px=(0, 0, 64, 48)) as camera:
        frames = [camera.grab(trigger(number), 5000) for number in range(3)]
    assert all(frame.simulated for frame in frames)
    assert all(np.array_equal(pattern(number_of(frame), 64, 48), frame.image) for frame in frames)


@pytest.mark.parametrize(
    "values",
    [
        {"pixel_format": "Mono9"},
        {"packet_size": 100},
        {"packet_size": 20000},
        {"roi_px": [0, 0, 0, 5]},
        {"roi_px": [10, 10, 5, 20]},
        {"exposure_us": 0},
        {"trigger": "wish"},
        {"edge": "both"},
        {"buffers": 1},
        {"exposure_ms": 3},
    ],
)
def test_wrong_setting_is_refused(values: dict[str, Any]) -> None:
    """Unknown keys and impossible values are told before any camera is asked."""
    with pytest.raises(ValidationError):
        GenicamCameraConfig.model_validate(values)


# ---- numbers of frames


@given(st.integers(1, SHORT_IDS), st.integers(1, 1000))
def test_short_numbers_begin_anew(last: int, step: int) -> None:
    """After 65535 comes 1: later numbers are newer, the same or earlier ones are not."""
    later = (last - 1 + step) % SHORT_IDS + 1
    assert is_newer(later, last)
    assert not is_newer(last, later)
    assert not is_newer(last, last)


@given(st.integers(SHORT_IDS + 1, 2**63), st.integers(1, 2**32))
def test_long_numbers_only_grow(last: int, step: int) -> None:
    """Numbers of 64 bits (USB3 Vision, GigE Vision 2) never begin anew."""
    assert is_newer(last + step, last)
    assert not is_newer(last, last + step)
    assert not is_newer(last, last)
    assert is_newer(last, None)
