"""The camera of pylon against pylon's own emulated cameras, which share all of the driver but the wire."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from inspection.cameras import make_camera
from inspection.cameras.own_process import OwnProcessCamera
from inspection.cameras.pylon import PylonCamera, PylonCameraConfig, list_devices
from inspection.errors import CameraError, CameraTimeout, ConfigError, DriverMissing, FrameCorrupt
from inspection.images import write_png
from inspection.types import Frame, Trigger, utc_now

pytest.importorskip("pypylon", reason='emulated Basler cameras need pypylon: pip install "lineside[pylon]"')

PICTURES = 20
Opened = Callable[..., PylonCamera]


def trigger(number: int = 1) -> Trigger:
    return Trigger(f"t{number}", "", "L", "r", utc_now())


def numbered(number: int) -> np.ndarray:
    """A picture (48, 64) uint8 that no other number gives."""
    picture = np.random.default_rng(number).integers(0, 256, (48, 64), np.uint8)
    picture[:8] = number
    return picture


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(PICTURES):
        write_png(folder / f"{number:03}.png", numbered(number))
    return folder


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Opens emulated cameras, and closes them after the test."""
    cameras: list[PylonCamera] = []

    def make(**options: Any) -> PylonCamera:
        made = PylonCamera(PylonCameraConfig(**{"device": "0815-0000", **options}), camera_id="top")
        cameras.append(made)
        made.open()
        return made

    yield make
    for made in cameras:
        made.close()


def arrived(camera: PylonCamera, count: int) -> None:
    """Wait until so many frames lie in the buffers."""
    give_up_s = time.monotonic() + 60
    while camera._camera.NumReadyBuffers.Value < count:
        assert time.monotonic() < give_up_s
        time.sleep(0.01)


def shown(frame: Frame) -> int:
    """Which of the numbered pictures a frame shows, pixel for pixel; -1 for none."""
    number = int(frame.image[0, 0])
    return number if np.array_equal(numbered(number), frame.image) else -1


# ---- the frame belongs to the trigger


def test_five_hundred_triggers_get_their_frames_in_order(opened: Opened, pictures: Path) -> None:
    """Every software trigger gets the next picture of the folder, whole and none twice."""
    camera = opened(emulated_images=str(pictures))
    frames = [camera.grab(trigger(number), 5000) for number in range(500)]
    assert [number % PICTURES for number in range(500)] == list(map(shown, frames))
    assert 500 == len({frame.frame_id for frame in frames})
    assert all(frame.simulated and frame.camera_id == "top" for frame in frames)


def test_frame_is_newer_than_its_trigger(opened: Opened) -> None:
    """The time of capture lies between the trigger and the frame's arrival."""
    asked = trigger()
    frame = opened().grab(asked, 5000)
    assert asked.at <= frame.captured_at <= utc_now()


@pytest.mark.parametrize("pause_s", [0.0, 0.1], ids=["on its way", "in the buffer"])
def test_late_frame_is_never_given_to_the_next_trigger(opened: Opened, pictures: Path, pause_s: float) -> None:
    """A frame that came after its time is thrown away: the acquisition starts anew, here with the first picture."""
    camera = opened(emulated_images=str(pictures))
    assert [0, 1] == [shown(camera.grab(trigger(number), 5000)) for number in range(2)]
    with pytest.raises(CameraTimeout, match="no frame in 1 ms after trigger t3"):
        camera.grab(trigger(3), 1)
    time.sleep(pause_s)
    assert [0, 1] == [shown(camera.grab(trigger(number), 5000)) for number in range(2)]


def test_frame_nobody_asked_for_is_thrown_away(opened: Opened, pictures: Path) -> None:
    """What lies in the buffers when a part comes shows an earlier one."""
    camera = opened(emulated_images=str(pictures))
    for _ in range(3):
        camera._fire(time.monotonic() + 5)
    arrived(camera, 3)
    assert 3 == shown(camera.grab(trigger(), 5000))


@pytest.mark.parametrize("number", [7, 6, 0])
def test_frame_with_an_old_number_is_refused(opened: Opened, number: int) -> None:
    """A frame whose number is not above the last one's is older, unless the counter began again."""
    camera = opened()
    camera._last_number = 7
    assert camera._is_older(_Numbered(number), None)
    assert not camera._is_older(_Numbered(8), None)
    camera._last_number = 65535
    assert not camera._is_older(_Numbered(1), None)


def test_frame_older_by_the_cameras_clock_is_refused(opened: Opened) -> None:
    """A time stamp before the trigger's is an older frame, whatever its number says."""
    camera = opened()
    assert camera._is_older(_Numbered(9, stamp=999), 1000)
    assert not camera._is_older(_Numbered(9, stamp=1000), 1000)


class _Numbered:
    """The number and time stamp of a frame, as the driver tells them."""

    def __init__(self, number: int, stamp: int = 0) -> None:
        self.GetBlockID = lambda: number
        self.GetTimeStamp = lambda: stamp


def test_free_running_camera_gives_newer_frames(opened: Opened, pictures: Path) -> None:
    """A camera that runs by itself gives frames exposed after the trigger: those already begun are passed over."""
    camera = opened(trigger="free", emulated_images=str(pictures))
    arrived(camera, camera.config.buffers)
    before = utc_now()
    frame = camera.grab(trigger(), 5000)
    assert shown(frame) >= camera.config.buffers
    assert frame.captured_at > before


def test_line_without_a_signal_times_out(opened: Opened) -> None:
    """No pulse at the input is a timeout that names the line and the edge, part after part."""
    camera = opened(trigger="line", line="Line2", edge="falling")
    for number in range(3):
        with pytest.raises(CameraTimeout) as caught:
            camera.grab(trigger(number), 50)
        assert "Line2, falling edge" in caught.value.fix
    assert "" == camera.fault()


# ---- damaged frames, lost cameras


def test_damaged_frame_is_named_and_the_next_one_is_right(opened: Opened, pictures: Path) -> None:
    """A buffer that arrives incomplete costs its own trigger, in the driver's words, and no other."""
    camera = opened(emulated_images=str(pictures), emulated_failures=3)
    for number in range(3):
        with pytest.raises(FrameCorrupt, match="incompletely grabbed") as caught:
            camera.grab(trigger(number), 5000)
        assert caught.value.fix
    assert [3, 4, 5] == [shown(camera.grab(trigger(number), 5000)) for number in range(3)]


def test_frame_of_another_size_is_corrupt(opened: Opened) -> None:
    """A camera that was changed by someone else is found out by its first frame."""
    camera = opened(roi_px=(0, 0, 64, 48))
    camera._size_px = (640, 480)
    with pytest.raises(FrameCorrupt, match="64 x 48 pixels, it is set to"):
        camera.grab(trigger(), 5000)


def test_disconnected_camera_says_so_at_once(opened: Opened) -> None:
    """A camera that was unplugged is a fault in a sentence; parts get an error without waiting; opening brings it back."""
    camera = opened()
    assert "" == camera.fault()
    pull_the_plug(camera)
    assert "0815-0000) was disconnected" in camera.fault()
    began_s = time.monotonic()
    with pytest.raises(CameraError, match="disconnected") as caught:
        camera.grab(trigger(), 60_000)
    assert not isinstance(caught.value, CameraTimeout)
    assert time.monotonic() - began_s < 30
    camera.open()
    assert "" == camera.fault()
    assert camera.grab(trigger(), 5000).image.size


def test_acquisition_that_stopped_is_started_again(opened: Opened) -> None:
    """A driver that ended its acquisition costs no part its frame."""
    camera = opened()
    camera._camera.StopGrabbing()
    assert camera.grab(trigger(), 5000).image.size


def pull_the_plug(camera: PylonCamera) -> None:
    """Let the driver believe that the camera was unplugged, and wait until it has noticed."""
    camera._camera.GetNodeMap().GetNode("FirePnPCallback").Execute()
    give_up_s = time.monotonic() + 20
    while not camera.fault() and time.monotonic() < give_up_s:
        time.sleep(0.01)


def test_driver_error_becomes_a_camera_error(opened: Opened) -> None:
    """What the driver raises when the camera goes away in the middle of a part comes out in its own words."""
    camera = opened()
    camera._camera.Close()
    with (
        pytest.raises(CameraError, match=r"failed for trigger t5: .") as caught,
        camera._errors("failed for trigger t5"),
    ):
        camera._fire(time.monotonic() + 5)
    assert "Exception" not in caught.value.what


def test_camera_the_driver_closed_has_a_fault(opened: Opened) -> None:
    """A camera that is no longer open is not taken for one that can be used."""
    camera = opened()
    camera._camera.Close()
    assert "disconnected" in camera.fault()
    with pytest.raises(CameraError, match="disconnected"):
        camera.grab(trigger(), 100)


def test_camera_that_is_not_open_has_a_fault() -> None:
    """Before opening and after closing there is a sentence instead of a frame."""
    camera = PylonCamera(PylonCameraConfig(device="0815-0000"), camera_id="top")
    assert "not open" in camera.fault()
    camera.close()
    with pytest.raises(CameraError, match="not open"):
        camera.grab(trigger(), 10)


def test_camera_runs_in_a_process_of_its_own(pictures: Path) -> None:
    """As the station uses it, every frame arrives whole and in order, and damaged ones are told as such."""
    config = PylonCameraConfig(device="0815-0000", emulated_images=str(pictures), emulated_failures=1)
    camera = make_camera(config, "top")
    assert isinstance(camera, OwnProcessCamera)
    try:
        camera.open()
        with pytest.raises(FrameCorrupt, match="incompletely grabbed"):
            camera.grab(trigger(0), 5000)
        assert list(range(1, PICTURES)) == [shown(camera.grab(trigger(number), 5000)) for number in range(1, PICTURES)]
    finally:
        camera.close()


# ---- settings


@pytest.mark.parametrize("roi_px", [(0, 0, 640, 480), (16, 8, 656, 488), (1, 3, 4, 5), (3000, 3000, 4096, 4096)])
def test_region_is_what_the_frame_shows(opened: Opened, roi_px: tuple[int, int, int, int]) -> None:
    """The frame has the size of the region, and the camera its place."""
    camera = opened(roi_px=roi_px)
    x1, y1, x2, y2 = roi_px
    assert (y2 - y1, x2 - x1) == camera.grab(trigger(), 5000).image.shape
    assert (x1, y1) == (camera._camera.OffsetX.Value, camera._camera.OffsetY.Value)


def test_region_of_before_does_not_stand_in_the_way(opened: Opened) -> None:
    """A camera that comes with another region set takes the one of the station."""
    first = opened(roi_px=(3500, 3500, 4096, 4096))
    first.close()
    assert (4096, 4000) == opened(roi_px=(96, 0, 4096, 4096)).grab(trigger(), 5000).image.shape


def test_exposure_and_gain_reach_the_camera(opened: Opened) -> None:
    """The camera exposes as long, and amplifies as much, as the station says."""
    node_map = opened(exposure_us=1234.0, gain=6.0)._camera.GetNodeMap()
    assert pytest.approx(1234, abs=1) == node_map.GetNode("ExposureTime").GetValue()
    assert pytest.approx(6, abs=0.2) == node_map.GetNode("Gain").GetValue()


def test_automatic_exposure_is_switched_off(opened: Opened) -> None:
    """An exposure time that is given holds, even if the camera last chose its own."""
    camera = opened()
    camera._camera.ExposureAuto.Value = "Continuous"
    camera._switch_off("ExposureAuto")
    assert "Off" == camera._camera.ExposureAuto.Value


@pytest.mark.parametrize(
    ("pixel_format", "colour", "raw_type"),
    [
        ("Mono8", False, None),
        ("Mono10", False, np.uint16),
        ("Mono12", False, np.uint16),
        ("Mono16", False, np.uint16),
        ("RGB8Packed", True, None),
        ("BGR8Packed", True, None),
        ("BayerRG8", True, np.uint8),
        ("BayerGB12", True, np.uint16),
    ],
)
def test_pixel_format_is_delivered(opened: Opened, pixel_format: str, colour: bool, raw_type: Any) -> None:
    """Grey, colour and mosaics arrive as uint8, with the sensor's own values beside them where those say more."""
    frame = opened(pixel_format=pixel_format, roi_px=(0, 0, 320, 240)).grab(trigger(), 5000)
    assert ((240, 320, 3) if colour else (240, 320)) == frame.image.shape
    assert np.ptp(frame.image) > 100
    assert raw_type == (None if frame.raw is None else frame.raw.dtype)


@pytest.mark.parametrize(
    ("settings", "refused", "allowed"),
    [
        ({"exposure_us": 0.1}, "0.1 for the exposure time", "1 to 10000000"),
        ({"gain": 999.0}, "999.0 for the gain", "0 to 48"),
        ({"roi_px": (0, 0, 9999, 10)}, "9999 for the region", "1 to 4096 in steps of 1"),
        ({"roi_px": (4000, 0, 4100, 10)}, "4000 for the region", "0 to 3996"),
        ({"pixel_format": "Mono12p"}, "Mono12p for the pixel format", "Mono8, Mono10"),
        ({"trigger": "line", "line": "Line9"}, "Line9 for the trigger source", "Line1, Line2, Line3"),
    ],
    ids=str,
)
def test_setting_the_camera_refuses_is_named(
    opened: Opened, settings: dict[str, Any], refused: str, allowed: str
) -> None:
    """A value that this camera cannot take is an error on open, with what it takes."""
    with pytest.raises(ConfigError) as caught:
        opened(**settings)
    assert refused in caught.value.what
    assert allowed in caught.value.fix
    assert "Exception" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"device": "../x"},
        {"exposure_us": 0},
        {"roi_px": [5, 5, 5, 9]},
        {"pixel_format": "Mono7"},
        {"trigger": "sometimes"},
        {"edge": "both"},
        {"buffers": 1},
        {"emulated": 99},
        {"expsure_us": 5},
    ],
    ids=str,
)
def test_wrong_setting_is_refused(values: dict[str, Any]) -> None:
    """Unknown keys and values out of range do not become a camera."""
    with pytest.raises(ValidationError):
        PylonCameraConfig.model_validate(values)


def test_every_setting_is_described() -> None:
    """The reference page is made from these texts."""
    fields = PylonCameraConfig.model_fields
    assert all(field.description for name, field in fields.items() if name != "kind")


# ---- which camera


def test_unknown_device_lists_the_reachable_ones(opened: Opened) -> None:
    """A wrong serial number is answered with the right ones."""
    with pytest.raises(CameraError, match=r"device 40123456 does not answer; reachable: .*0815-0001") as caught:
        opened(device="40123456", emulated=2)
    assert "`device`" in caught.value.fix


def test_no_device_named_among_several_is_refused(opened: Opened) -> None:
    """With two cameras and no serial number it is not left to chance which one is used."""
    with pytest.raises(ConfigError, match=r"names no device, and .* answer: .*0815-0000"):
        opened(device="", emulated=2)


def test_two_cameras_do_not_mix_their_frames(opened: Opened, pictures: Path) -> None:
    """Each serial number is a camera of its own."""
    one = opened(device="0815-0000", emulated_images=str(pictures))
    other = opened(device="0815-0001", emulated_images=str(pictures))
    order = [(camera.grab(trigger(), 5000).frame_id[:9]) for camera in (one, other, one, other)]
    assert ["0815-0000", "0815-0001"] * 2 == order


def test_reachable_cameras_are_listed(opened: Opened) -> None:
    """A search finds every camera with what a station config writes to use it."""
    opened(device="0815-0001")
    found = {camera.device: camera for camera in list_devices()}
    assert {"0815-0000", "0815-0001"} <= set(found)
    assert ("pylon", "0815-0001", "emulated") == (
        found["0815-0001"].kind, found["0815-0001"].serial, found["0815-0001"].note,
    )  # fmt: skip


def test_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package the station says what to install; the configuration can be checked all the same."""
    monkeypatch.setitem(sys.modules, "pypylon", None)
    camera = PylonCamera(PylonCameraConfig(device="1"), camera_id="top")
    with pytest.raises(DriverMissing) as caught:
        camera.open()
    assert "lineside[pylon]" in caught.value.fix
