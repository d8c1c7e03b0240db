import shutil
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from inspection.cameras import CAMERAS, Camera
from inspection.cameras.folder import FolderCamera, FolderCameraConfig
from inspection.cameras.genicam import GenicamCamera, GenicamCameraConfig
from inspection.cameras.opencv import OpencvCamera, OpencvCameraConfig
from inspection.cameras.pylon import PylonCamera, PylonCameraConfig
from inspection.cameras.simulated import CameraFault, FaultKind, SimulatedCamera, SimulatedCameraConfig
from inspection.errors import CameraError, CameraTimeout, FrameCorrupt
from inspection.images import read_image, write_png
from inspection.plugins import resolve
from inspection.types import Trigger, utc_now

Make = Callable[[Path], Camera]


def trigger(number: int, serial: str = "") -> Trigger:
    return Trigger(f"t{number}", serial, "L", "r", utc_now())


def picture(level: int, *, width: int = 32) -> np.ndarray:
    return np.full((24, width), level, np.uint8)


def fill(folder: Path, names: str = "a b c") -> Path:
    for number, name in enumerate(names.split()):
        write_png(folder / f"{name}.png", picture(10 * number))
    return folder


def folder_camera(folder: Path, **options: Any) -> FolderCamera:
    return FolderCamera(FolderCameraConfig(folder=str(folder), **options), camera_id="top")


def video(folder: Path) -> Path:
    writer = cv2.VideoWriter(str(folder / "three.avi"), cv2.VideoWriter.fourcc(*"FFV1"), 25, (32, 24))
    for level in (10, 20, 30):
        writer.write(np.full((24, 32, 3), level, np.uint8))
    writer.release()
    return folder / "three.avi"


def opencv_camera(file: Path, **options: Any) -> OpencvCamera:
    return OpencvCamera(OpencvCameraConfig(source=str(file), **options), camera_id="top")


def simulated(*faults: FaultKind, every_n: int = 1, **options: Any) -> SimulatedCamera:
    wanted = tuple(CameraFault(every_n=every_n, kind=kind) for kind in faults)
    camera = SimulatedCamera(SimulatedCameraConfig(faults=wanted, size_px=(64, 48), **options), camera_id="top")
    camera.open()
    return camera


def pylon_camera(**options: Any) -> PylonCamera:
    """An emulated Basler camera."""
    pytest.importorskip("pypylon", reason='emulated Basler cameras need pypylon: pip install "lineside[pylon]"')
    return PylonCamera(PylonCameraConfig(device="0815-0000", **options), camera_id="top")


class Meddled(GenicamCamera):
    """A camera whose region another program changes once it is open."""

    def open(self) -> None:
        super().open()
        assert self._link is not None
        self._link.camera.set_region(0, 0, 16, 8)


def genicam_camera(kind: type[GenicamCamera] = GenicamCamera, **options: Any) -> GenicamCamera:
    """The camera inside Aravis."""
    install = 'pip install "lineside[genicam]" && apt install gir1.2-aravis-0.8'
    gi = pytest.importorskip("gi", reason=f"GenICam cameras need PyGObject: {install}")
    try:
        gi.require_version("Aravis", "0.8")
    except ValueError:
        pytest.skip(f"GenICam cameras need Aravis: {install}")
    return kind(GenicamCameraConfig(device="Fake_1", roi_px=(0, 0, 64, 48), **options), camera_id="top")


WORKING: dict[str, Make] = {
    "folder": lambda folder: folder_camera(fill(folder), loop=True),
    "genicam": lambda folder: genicam_camera(),
    "pylon": lambda folder: pylon_camera(emulated_images=str(fill(folder))),
    "opencv": lambda folder: opencv_camera(video(folder), loop=True),
    "simulated": lambda folder: SimulatedCamera(SimulatedCameraConfig(size_px=(64, 48)), camera_id="top"),
}
SILENT: dict[str, Make] = {
    "folder": lambda folder: folder_camera(fill(folder, "")),
    "genicam": lambda folder: genicam_camera(trigger="line", line="Line0"),
    "pylon": lambda folder: pylon_camera(trigger="line"),
    "simulated": lambda folder: simulated("missing"),
}
TORN: dict[str, Make] = {
    "folder": lambda folder: folder_camera(torn_folder(folder)),
    "genicam": lambda folder: genicam_camera(Meddled),
    "opencv": lambda folder: opencv_camera(video(folder), size_px=(640, 480)),
    "pylon": lambda folder: pylon_camera(emulated_failures=1),
    "simulated": lambda folder: SimulatedCamera(
        SimulatedCameraConfig(faults=(CameraFault(every_n=1, kind="torn"),)), camera_id="top"
    ),
}


def torn_folder(folder: Path) -> Path:
    write_png(folder / "half.png", picture(1))
    content = (folder / "half.png").read_bytes()
    (folder / "half.png").write_bytes(content[: len(content) // 2])
    return folder


# ---- one suite for all cameras


def test_every_camera_is_in_this_suite() -> None:
    """A camera without these tests is not offered."""
    assert set(CAMERAS) == set(WORKING) == set(TORN)


@pytest.mark.parametrize("kind", CAMERAS)
def test_camera_is_found_by_its_name(kind: str) -> None:
    """The name table leads to a class with the three methods of a camera."""
    found = resolve(CAMERAS, kind, "camera")
    assert all(callable(getattr(found, method)) for method in ("open", "grab", "close"))


@pytest.mark.parametrize("kind", WORKING)
def test_frame_says_where_and_when_it_comes_from(kind: str, tmp_path: Path) -> None:
    """A frame is newer than its trigger, carries the camera's name, an id, and that it is simulated."""
    camera = WORKING[kind](tmp_path)
    camera.open()
    asked = trigger(1)
    frame = camera.grab(asked, 10_000)
    assert ("top", True) == (frame.camera_id, frame.simulated)
    assert frame.captured_at >= asked.at
    assert not frame.image.flags.writeable
    camera.close()


@pytest.mark.parametrize("kind", WORKING)
def test_every_trigger_gets_a_frame_of_its_own(kind: str, tmp_path: Path) -> None:
    """Frame ids never repeat, and images are not shared between parts."""
    camera = WORKING[kind](tmp_path)
    camera.open()
    frames = [camera.grab(trigger(number), 10_000) for number in range(7)]
    assert len({frame.frame_id for frame in frames}) == 7
    assert not any(np.shares_memory(one.image, other.image) for one, other in pairwise(frames))
    camera.close()


@pytest.mark.parametrize("kind", WORKING)
def test_opening_again_plays_the_same_frames_again(kind: str, tmp_path: Path) -> None:
    """A replay gives the same pixels."""
    camera, runs = WORKING[kind](tmp_path), []
    for _ in range(2):
        camera.open()
        runs.append([camera.grab(trigger(number), 10_000).image.tobytes() for number in range(4)])
        camera.close()
    assert runs[0] == runs[1]


@pytest.mark.parametrize("kind", WORKING)
def test_camera_that_is_not_open_gives_an_error(kind: str, tmp_path: Path) -> None:
    """Before opening and after closing, twice over, there is no frame."""
    camera = WORKING[kind](tmp_path)
    with pytest.raises(CameraError, match="not open"):
        camera.grab(trigger(1), 10)
    camera.open()
    camera.close()
    camera.close()
    with pytest.raises(CameraError, match="not open"):
        camera.grab(trigger(2), 10)


@pytest.mark.parametrize("kind", TORN)
def test_torn_frame_is_never_delivered(kind: str, tmp_path: Path) -> None:
    """A damaged frame is an error that says what to do, not a repaired picture."""
    camera = TORN[kind](tmp_path)
    camera.open()
    with pytest.raises(FrameCorrupt) as caught:
        camera.grab(trigger(1), 10_000)
    assert caught.value.fix
    camera.close()


# ---- the folder camera


def test_files_are_played_in_name_order(tmp_path: Path) -> None:
    """The first trigger gets the first name."""
    camera = folder_camera(fill(tmp_path, "b c a"))
    camera.open()
    assert ["a.png#1", "b.png#2", "c.png#3"] == [camera.grab(trigger(n), 10).frame_id for n in range(3)]


def test_played_folder_times_out(tmp_path: Path) -> None:
    """Without loop a trigger after the last file gets no frame, and no earlier one."""
    camera = folder_camera(fill(tmp_path, "a"))
    camera.open()
    camera.grab(trigger(1), 10)
    for number in (2, 3):
        with pytest.raises(CameraTimeout, match="has played all its 1 files"):
            camera.grab(trigger(number), 10)


def test_loop_starts_again(tmp_path: Path) -> None:
    """With loop the folder is played for ever."""
    camera = folder_camera(fill(tmp_path, "a b"), loop=True)
    camera.open()
    assert ["a.png#1", "b.png#2", "a.png#3"] == [camera.grab(trigger(n), 10).frame_id for n in range(3)]


def test_file_named_like_the_serial_belongs_to_that_part(tmp_path: Path) -> None:
    """A serial gets its file, or the one that starts with it and an underscore; others take their turn."""
    camera = folder_camera(fill(tmp_path, "S1 S10_top S2_top a"))
    camera.open()
    asked = ["S2", "S1", "S10", "unknown"]
    frames = [camera.grab(trigger(n, serial), 10).frame_id for n, serial in enumerate(asked)]
    assert ["S2_top.png#1", "S1.png#2", "S10_top.png#3", "S1.png#4"] == frames


@pytest.mark.parametrize("serial", ["../secret", "*", "", "a/b", "\0", "S"])
def test_hostile_serial_never_leaves_the_folder(tmp_path: Path, serial: str) -> None:
    """A serial is compared with names and never becomes a path or a pattern."""
    (tmp_path / "frames").mkdir()
    write_png(tmp_path / "secret.png", picture(99))
    camera = folder_camera(fill(tmp_path / "frames", "S1"))
    camera.open()
    assert camera.grab(trigger(1, serial), 10).frame_id == "S1.png#1"


def test_golden_beside_a_frame_goes_out_with_it(tmp_path: Path) -> None:
    """S1.golden.png is the golden template of S1.png and is never played as a frame."""
    fill(tmp_path, "S1 S2")
    write_png(tmp_path / "S1.golden.png", picture(200))
    camera = folder_camera(tmp_path)
    camera.open()
    first, second = camera.grab(trigger(1), 10), camera.grab(trigger(2), 10)
    assert first.golden is not None
    assert (first.golden == 200).all()
    assert ("S2.png#2", None) == (second.frame_id, second.golden)


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\x89PNG\r\n\x1a\n"])
def test_unreadable_file_is_named_and_not_played_again(tmp_path: Path, content: bytes) -> None:
    """A broken file costs its trigger; the next trigger gets the next file."""
    (fill(tmp_path, "b") / "a.png").write_bytes(content)
    camera = folder_camera(tmp_path)
    camera.open()
    with pytest.raises(FrameCorrupt, match=r"a\.png"):
        camera.grab(trigger(1), 10)
    assert camera.grab(trigger(2), 10).frame_id == "b.png#2"


def test_file_that_vanished_is_corrupt(tmp_path: Path) -> None:
    """A file that was deleted after opening is named."""
    camera = folder_camera(fill(tmp_path, "a"))
    camera.open()
    (tmp_path / "a.png").unlink()
    with pytest.raises(FrameCorrupt, match=r"a\.png"):
        camera.grab(trigger(1), 10)


def test_frame_of_another_size_is_corrupt(tmp_path: Path) -> None:
    """With size_px given, a frame of another size is refused with both sizes."""
    camera = folder_camera(fill(tmp_path, "a b"), size_px=(32, 24))
    write_png(tmp_path / "b.png", picture(1, width=33))
    camera.open()
    assert camera.grab(trigger(1), 10).image.shape == (24, 32)
    with pytest.raises(FrameCorrupt, match=r"33 x 24 pixels.*\(32, 24\)"):
        camera.grab(trigger(2), 10)


def test_colour_stays_colour(tmp_path: Path) -> None:
    """An RGB file is delivered as (H, W, 3) in RGB order."""
    write_png(tmp_path / "a.png", np.full((4, 5, 3), (200, 100, 50), np.uint8))
    camera = folder_camera(tmp_path)
    camera.open()
    assert (camera.grab(trigger(1), 10).image == (200, 100, 50)).all()


def test_folder_without_frames_is_an_error_on_open(tmp_path: Path) -> None:
    """An empty folder, other files, goldens and folders alone are no camera."""
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "dir.png").mkdir()
    write_png(tmp_path / "S1.golden.png", picture(1))
    with pytest.raises(CameraError, match="found no image"):
        folder_camera(tmp_path).open()


def test_a_folder_that_goes_is_a_fault_until_it_is_back(tmp_path: Path) -> None:
    """A removed folder is said before a part is lost; frames fail at once, and come again when it is back, listed anew."""
    frames = tmp_path / "frames"
    frames.mkdir()
    camera = folder_camera(fill(frames, "a b"))
    camera.open()
    camera.grab(trigger(1), 1000)
    assert "" == camera.fault()
    shutil.rmtree(frames)
    assert "not there" in until(camera.fault)
    with pytest.raises(CameraError, match="is not there any more"):
        camera.grab(trigger(2), 1000)
    frames.mkdir()
    assert "found no image" in until(lambda: "image" in camera.fault() and camera.fault())
    fill(frames, "c")
    assert until(lambda: camera.fault() == "")
    assert "c.png" in camera.grab(trigger(3), 1000).frame_id
    camera.close()
    assert "" == camera.fault()


def until(condition: Callable[[], Any]) -> Any:
    """The first true value of ``condition``, for at most half a minute."""
    end_s = time.monotonic() + 30
    while not (value := condition()):
        assert time.monotonic() < end_s, "did not come about in time"
        time.sleep(0.02)
    return value


def test_missing_folder_is_an_error_on_open(tmp_path: Path) -> None:
    """The error names the folder."""
    with pytest.raises(CameraError, match="nowhere"):
        folder_camera(tmp_path / "nowhere").open()


# ---- the simulated camera


def test_missing_frame_times_out() -> None:
    """No frame within the time allowed is a timeout that names trigger and time."""
    with pytest.raises(CameraTimeout, match="no frame in 5 ms after trigger t1"):
        simulated("missing").grab(trigger(1), 5)


def test_late_frame_is_never_given_to_the_next_trigger() -> None:
    """A frame that came too late belongs to nobody: the next trigger gets its own."""
    camera = simulated("late", every_n=2, late_ms=1)
    frames = [camera.grab(trigger(1), 20).frame_id]
    with pytest.raises(CameraTimeout):
        camera.grab(trigger(2), 20)
    frames += [camera.grab(trigger(3), 500).frame_id]
    assert ["frame#1", "frame#3"] == frames


def test_only_late_frames_give_only_timeouts() -> None:
    """A camera that is always late never answers with the frame before."""
    camera = simulated("late", late_ms=1)
    for number in range(4):
        with pytest.raises(CameraTimeout):
            camera.grab(trigger(number), 10)


def test_stale_frame_is_refused() -> None:
    """A camera that hands out the previous part's picture again gets a timeout that says so."""
    camera = simulated("stale", every_n=2)
    camera.grab(trigger(1), 20)
    with pytest.raises(CameraTimeout, match="1 older frames were refused"):
        camera.grab(trigger(2), 20)
    assert camera.grab(trigger(3), 20).frame_id == "frame#3"


def test_stale_on_the_first_trigger_is_a_timeout() -> None:
    """Without an earlier frame there is nothing to hand out."""
    with pytest.raises(CameraTimeout):
        simulated("stale").grab(trigger(1), 5)


def test_frame_slower_than_the_time_allowed_times_out() -> None:
    """The time to take a picture counts."""
    camera = simulated(frame_ms=30)
    with pytest.raises(CameraTimeout):
        camera.grab(trigger(1), 5)
    assert camera.grab(trigger(2), 500).frame_id == "frame#2"


def test_first_due_fault_applies() -> None:
    """Of several faults the first in the list wins where both are due."""
    faults = (CameraFault(every_n=4, kind="torn"), CameraFault(every_n=2, kind="missing"))
    camera = SimulatedCamera(SimulatedCameraConfig(faults=faults), camera_id="top")
    camera.open()
    outcomes = []
    for number in range(8):
        try:
            outcomes.append(camera.grab(trigger(number), 3).frame_id)
        except CameraError as error:
            outcomes.append(type(error).__name__)
    once = ["CameraTimeout", "FrameCorrupt"]
    assert ["frame#1", once[0], "frame#3", once[1], "frame#5", once[0], "frame#7", once[1]] == outcomes


def test_image_is_shown_with_its_noise(tmp_path: Path) -> None:
    """The picture given is what the frames show, give or take the noise, in colour where it is."""
    write_png(tmp_path / "g.png", np.full((20, 30, 3), (10, 120, 240), np.uint8))
    camera = SimulatedCamera(SimulatedCameraConfig(image=str(tmp_path / "g.png"), noise=2.0), camera_id="top")
    camera.open()
    frame = camera.grab(trigger(1), 20)
    assert 0 < np.abs(frame.image.astype(int) - read_image(tmp_path / "g.png")).mean() < 6


def test_without_noise_the_picture_is_exact(tmp_path: Path) -> None:
    """With noise 0 every frame is the picture."""
    write_png(tmp_path / "g.png", picture(77))
    camera = SimulatedCamera(SimulatedCameraConfig(image=str(tmp_path / "g.png"), noise=0.0), camera_id="top")
    camera.open()
    assert np.array_equal(picture(77), camera.grab(trigger(1), 20).image)


def test_unusable_image_is_an_error_on_open(tmp_path: Path) -> None:
    """A missing picture is reported before the first part."""
    config = SimulatedCameraConfig(image=str(tmp_path / "gone.png"))
    with pytest.raises(CameraError, match=r"gone\.png"):
        SimulatedCamera(config, camera_id="top").open()


@pytest.mark.parametrize("size_px", [(16, 16), (640, 480), (33, 200)])
def test_pattern_has_the_size_asked_for(size_px: tuple[int, int]) -> None:
    """The test pattern is (height, width) for a size of (width, height), and not plain."""
    camera = SimulatedCamera(SimulatedCameraConfig(size_px=size_px, noise=0.0), camera_id="top")
    camera.open()
    image = camera.grab(trigger(1), 100).image
    assert size_px[::-1] == image.shape
    assert np.ptp(image) > 100


# ---- configuration


@pytest.mark.parametrize("config", [FolderCameraConfig, OpencvCameraConfig, SimulatedCameraConfig, CameraFault])
def test_every_camera_setting_is_described(config: Any) -> None:
    """The reference page is made from these texts."""
    fields = {name: field for name, field in config.model_fields.items() if name != "kind" or config is CameraFault}
    assert all(field.description for field in fields.values())


@pytest.mark.parametrize(
    ("config", "values"),
    [
        (FolderCameraConfig, {}),
        (FolderCameraConfig, {"folder": ""}),
        (FolderCameraConfig, {"folder": "f", "lop": True}),
        (FolderCameraConfig, {"folder": "f", "size_px": [0, 5]}),
        (FolderCameraConfig, {"folder": "f", "kind": "simulated"}),
        (SimulatedCameraConfig, {"noise": -1}),
        (SimulatedCameraConfig, {"faults": [{"every_n": 0, "kind": "late"}]}),
        (SimulatedCameraConfig, {"faults": [{"every_n": 1, "kind": "tired"}]}),
    ],
)
def test_wrong_setting_is_refused(config: Any, values: dict[str, Any]) -> None:
    """Unknown keys and values out of range do not become a camera."""
    with pytest.raises(ValidationError):
        config.model_validate(values)
