import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from inspection.cameras.found import FoundCamera
from inspection.cameras.reach import draw, look, measures, usb_devices
from inspection.cameras.simulated import SimulatedCameraConfig
from inspection.cameras_cli import _file_names, config_of
from inspection.errors import ConfigError
from inspection.images import read_image, write_png

needs_pylon = pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import pypylon"], check=False, capture_output=True).returncode != 0,
    reason='emulated Basler cameras need pypylon: pip install "lineside[pylon]"',
)
RUN = "import sys; from inspection.cli import main; sys.exit(main())"
WITHOUT = (
    "import sys; sys.modules['pypylon'] = sys.modules['gi'] = None; from inspection.cli import main; sys.exit(main())"
)


def lineside(*words: object, program: str = RUN, emulated: int = 0) -> subprocess.CompletedProcess[str]:
    """Run `lineside cameras WORDS` as its own process."""
    environment = {**os.environ, "PYLON_CAMEMU": str(emulated)}
    command = [sys.executable, "-c", program, "cameras", *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def station(folder: Path, *cameras: str) -> Path:
    """A station config with these camera sections, and a folder of two frames beside it."""
    (folder / "frames").mkdir()
    for number, level in enumerate((40, 90)):
        picture = np.full((60, 80), level, np.uint8)
        picture[:, 40:] = 255
        write_png(folder / "frames" / f"{number}.png", picture)
    path = folder / "station.toml"
    head = 'station_id = "s"\nrecipe = "r"\nstore = "s.sqlite"\n[evidence]\nfolder = "e"\n[controller]\nkind = "simulated"\n'
    path.write_text(head + "\n".join(cameras), encoding="utf-8")
    return path


FOLDER = '[cameras.side]\nkind = "folder"\nfolder = "frames"\n'
SIMULATED = '[cameras.top]\nkind = "simulated"\nsize_px = [64, 48]\n'
PYLON = '[cameras.left]\nkind = "pylon"\ndevice = "0815-0001"\nexposure_us = 1500\ngain = 3\ntrigger = "line"\n'
GONE = '[cameras.gone]\nkind = "folder"\nfolder = "nowhere"\n'


# ---- the cameras of a station


def test_cameras_of_a_station_are_tried(tmp_path: Path) -> None:
    """Each camera gives a picture, whose size, focus and light are told in one line."""
    answer = lineside("--station", station(tmp_path, FOLDER, SIMULATED))
    head, *rows = answer.stdout.splitlines()
    assert 0 == answer.returncode, answer.stderr
    assert [
        "camera",
        "kind",
        "size",
        "focus",
        "contrast",
        "brightness",
        "saturated",
        "exposure",
        "gain",
    ] == head.split()
    assert ["side", "folder", "80", "x", "60", "215", "107.5", "148", "50.0", "%"] == rows[0].split()[:10]
    assert ["top", "simulated"] == rows[1].split()[:2]


def test_pictures_are_saved_with_their_measures_below(tmp_path: Path) -> None:
    """The picture is the frame, pixel for pixel, with a strip of text below it."""
    answer = lineside("--station", station(tmp_path, FOLDER, SIMULATED), "-o", tmp_path / "new" / "out")
    assert 0 == answer.returncode, answer.stderr
    assert "2 pictures in" in answer.stdout
    saved = read_image(tmp_path / "new" / "out" / "side.png")
    frame = read_image(tmp_path / "frames" / "0.png")
    assert np.array_equal(np.dstack([frame] * 3), saved[:60, :80])
    assert (saved[60:].min(), saved[60:].max()) == (0, 255)
    assert (tmp_path / "new" / "out" / "top.png").is_file()


def test_pictures_can_be_taken_again(tmp_path: Path) -> None:
    """Who turns the lens runs it again and again into one folder."""
    path = station(tmp_path, SIMULATED)
    assert [0, 0] == [lineside("--station", path, "-o", tmp_path / "out").returncode for _ in range(2)]


@pytest.mark.parametrize("kind", ["folder", "simulated"])
def test_kind_chooses_among_the_cameras_of_a_station(tmp_path: Path, kind: str) -> None:
    """With --kind only these are opened."""
    answer = lineside("--station", station(tmp_path, FOLDER, SIMULATED), "--kind", kind)
    assert [kind] == [row.split()[1] for row in answer.stdout.splitlines()[1:]]


def test_kind_that_the_station_lacks_is_named(tmp_path: Path) -> None:
    """Trying no camera at all is no success."""
    answer = lineside("--station", station(tmp_path, FOLDER), "--kind", "simulated")
    assert 2 == answer.returncode
    assert "side (folder)" in answer.stderr


def test_camera_that_cannot_be_reached_ends_with_3(tmp_path: Path) -> None:
    """The other cameras are still shown; the one that is away is named with what to do."""
    answer = lineside("--station", station(tmp_path, GONE, SIMULATED), "-o", tmp_path / "out")
    assert 3 == answer.returncode
    assert "'gone'" in answer.stderr
    assert "1 picture in" in answer.stdout
    assert ["top.png"] == [path.name for path in (tmp_path / "out").iterdir()]


@needs_pylon
def test_pylon_camera_of_a_station_is_tried(tmp_path: Path) -> None:
    """Exposure and gain of the config are told; a camera that waits for a signal is triggered by software."""
    answer = lineside("--station", station(tmp_path, PYLON), "-o", tmp_path / "out")
    assert 0 == answer.returncode, answer.stderr
    assert ["left", "pylon", "1024", "x", "1040"] == answer.stdout.splitlines()[1].split()[:5]
    assert ["1500", "us", "3"] == answer.stdout.splitlines()[1].split()[-3:]
    assert 1024 == read_image(tmp_path / "out" / "left.png").shape[1]


@needs_pylon
def test_pylon_camera_that_is_away_ends_with_3(tmp_path: Path) -> None:
    """A serial number nobody answers to is an error with those that do."""
    answer = lineside("--station", station(tmp_path, PYLON.replace("0815-0001", "40123456")), emulated=1)
    assert 3 == answer.returncode
    assert "40123456 does not answer; reachable: 0815-0000" in answer.stderr


@needs_pylon
def test_setting_the_camera_refuses_ends_with_2(tmp_path: Path) -> None:
    """A wrong station config is no fault of the device."""
    answer = lineside("--station", station(tmp_path, PYLON.replace("1500", "0.5")))
    assert 2 == answer.returncode
    assert "refuses 0.5 for the exposure time" in answer.stderr


# ---- searching


@needs_pylon
def test_search_lists_what_a_station_config_needs() -> None:
    """Kind and device of each camera that answers can be written into a station config."""
    answer = lineside("--kind", "pylon", emulated=2)
    head, *rows = answer.stdout.splitlines()
    assert ["kind", "device", "model", "serial", "address", "note"] == head.split()
    assert [["pylon", "0815-0000"], ["pylon", "0815-0001"]] == [row.split()[:2] for row in rows]
    assert "emulated" in rows[0]


@needs_pylon
def test_found_cameras_are_photographed(tmp_path: Path) -> None:
    """With -o every camera that answers leaves a picture under its own name."""
    answer = lineside("--kind", "pylon", "-o", tmp_path / "out", emulated=2)
    assert 0 == answer.returncode, answer.stderr
    assert ["pylon-0815-0000.png", "pylon-0815-0001.png"] == sorted(path.name for path in (tmp_path / "out").iterdir())


def test_search_without_drivers_says_what_to_install() -> None:
    """A computer without the drivers of some kinds still searches for the others, and names the extras."""
    answer = lineside(program=WITHOUT)
    assert 0 == answer.returncode, answer.stderr
    assert 'pylon: not searched for, its driver is missing; pip install "lineside[pylon]"' in answer.stdout
    assert "genicam: not searched for" in answer.stdout


def test_search_for_a_kind_without_its_driver_ends_with_3() -> None:
    """Who asks for one kind by name gets an error instead of an empty list."""
    answer = lineside("--kind", "pylon", program=WITHOUT)
    assert 3 == answer.returncode
    assert "lineside[pylon]" in answer.stderr
    assert "" == answer.stdout


@needs_pylon
def test_nothing_found_is_said() -> None:
    """No camera is a sentence, not an empty page."""
    answer = lineside("--kind", "pylon")
    assert (0, True) == (answer.returncode, answer.stdout.startswith("no camera answers of kind pylon"))


def test_kind_that_cannot_be_searched_for_is_refused() -> None:
    """A folder is no device."""
    answer = lineside("--kind", "folder")
    assert 2 == answer.returncode
    assert "--station" in answer.stderr


def test_usb_cameras_are_listed_by_number(tmp_path: Path) -> None:
    """The first device of each camera is listed with its name, in the order of the numbers."""
    for number, index, name in ((10, "0", "Cam B"), (2, "0", "Cam A"), (3, "1", "Cam A"), (4, None, None)):
        entry = tmp_path / f"video{number}"
        entry.mkdir()
        if index is not None:
            (entry / "index").write_text(index + "\n")
            (entry / "name").write_text(f"{name}\n")
    (tmp_path / "v4l-subdev0").mkdir()
    found = usb_devices(tmp_path)
    assert [("2", "Cam A"), ("4", ""), ("10", "Cam B")] == [(camera.device, camera.model) for camera in found]


def test_computer_without_video_has_no_usb_camera(tmp_path: Path) -> None:
    """Where the system knows no video device there is none."""
    assert () == usb_devices(tmp_path / "none")


@pytest.mark.parametrize(("kind", "device"), [("opencv", "2"), ("pylon", "40123456")])
def test_found_camera_becomes_a_config(kind: str, device: str) -> None:
    """What was found can be used as it is."""
    config = config_of(FoundCamera(kind, device, "m", "s", ""))
    assert (kind, device) == (config.kind, config.source if kind == "opencv" else config.device)


def test_camera_with_an_impossible_name_is_an_error() -> None:
    """A name that no config can hold is told as such."""
    with pytest.raises(ConfigError):
        config_of(FoundCamera("pylon", "a/b", "m", "s", ""))


# ---- measuring and drawing


@pytest.mark.parametrize(("level", "saturated"), [(255, "100.0 %"), (254, "0.0 %")])
def test_saturation_counts_full_pixels(tmp_path: Path, level: int, saturated: str) -> None:
    """A pixel is saturated when one of its colours is full."""
    write_png(tmp_path / "a.png", np.full((20, 30, 3), (level, 10, 10), np.uint8))
    seen = look("top", SimulatedCameraConfig(image=str(tmp_path / "a.png"), noise=0))
    told = dict(measures(seen))
    assert (saturated, "30 x 20 colour") == (told["saturated"], told["size"])


def test_picture_that_is_out_of_focus_has_less_focus(tmp_path: Path) -> None:
    """The figure to turn the lens by grows with sharpness."""
    sharp = np.zeros((100, 100), np.uint8)
    sharp[:, 50:] = 200
    soft = np.tile(np.linspace(0, 200, 100).astype(np.uint8), (100, 1))
    figures = []
    for name, picture in (("sharp", sharp), ("soft", soft)):
        write_png(tmp_path / f"{name}.png", picture)
        seen = look("top", SimulatedCameraConfig(image=str(tmp_path / f"{name}.png"), noise=0))
        figures.append(float(dict(measures(seen))["focus"]))
    assert figures[0] > 5 * figures[1]


@pytest.mark.parametrize("size_px", [(16, 16), (640, 480), (2000, 500)])
def test_text_fits_under_every_picture(size_px: tuple[int, int]) -> None:
    """Small pictures get a strip wide enough to be read; large ones get larger letters."""
    seen = look("a camera with a longer name than most", SimulatedCameraConfig(size_px=size_px))
    drawn = draw(seen)
    assert max(640, size_px[0]) == drawn.shape[1]
    strip = drawn[size_px[1] :]
    assert strip.min() == 0
    assert (strip[:, -4:] == 255).all()


def test_camera_without_a_picture_is_not_drawn() -> None:
    """What went wrong is kept instead of the picture."""
    seen = look("top", SimulatedCameraConfig(image="/nowhere/at/all.png"))
    assert seen.error is not None
    assert () == measures(seen)
    with pytest.raises(ValueError, match="no picture"):
        draw(seen)


def test_names_become_file_names() -> None:
    """No name of a camera leads out of the folder or onto another's picture."""
    names = ["top", "top", "../../etc", "a b/c", "..."]
    assert ["top.png", "top-2.png", "_.._etc.png", "a_b_c.png", "camera.png"] == _file_names(names)
