import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from inspection.cli import main
from inspection.errors import UsageError
from inspection.heat_picture import BOX, Pictures, draw_boxes, draw_heat, draw_inspection, lay_heat, picture_names
from inspection.images import read_image, write_png
from inspection.inspect_frame import Inspection
from inspection.types import Detection, Judgement, Reason, Region, Verdict, error_judgement

GREY = np.full((96, 128), 120, np.uint8)
SPOT = Detection("dent", 0.9, Region((64, 48, 96, 80)))


def spot(value: float = 0.9) -> np.ndarray:
    """A map of 8 x 6 cells, hot in the four that SPOT covers."""
    heat = np.zeros((6, 8), np.float32)
    heat[3:5, 4:6] = value
    return heat


def coloured(picture: np.ndarray) -> np.ndarray:
    """Where a picture is not grey."""
    return np.ptp(picture.astype(int), axis=2) > 3


def test_cold_places_stay_plain_and_hot_ones_are_coloured() -> None:
    """Colour means heat: none of it where the map is cold, even on a colour frame."""
    frame = np.dstack([GREY, GREY // 2, GREY])
    for image in (GREY, frame):
        picture = lay_heat(image, spot(), outlined=False)
        assert picture.dtype == np.uint8
        assert picture.shape == (96, 128, 3)
        assert coloured(picture)[56:72, 72:88].all()
        assert not coloured(picture)[:30].any()
        assert not coloured(picture)[:, :40].any()


def test_heat_grows_smoothly_over_the_cells() -> None:
    """No cell border is seen: neighbouring pixels differ by little, though the map has one step."""
    heat = np.zeros((4, 4), np.float32)
    heat[:, 2:] = 0.4
    row = lay_heat(GREY, heat, outlined=False)[48].astype(int)
    assert np.abs(np.diff(row, axis=0)).max() < 25


def test_hotter_places_look_different_and_keep_their_order() -> None:
    """Brightness grows with heat, which also those see who cannot tell the hues apart."""
    luma = [
        lay_heat(GREY, np.full((2, 2), heat, np.float32), outlined=False)[48, 64].mean() for heat in (0.5, 0.7, 0.9)
    ]
    assert luma == sorted(luma)
    assert luma[0] < luma[-1] - 20


@pytest.mark.parametrize("limit", [0.04, 0.9])
def test_threshold_of_the_model_lies_in_the_middle(limit: float) -> None:
    """What is at the limit of any model looks alike, and a hundredth of it looks cold."""
    at_limit = lay_heat(GREY, np.full((2, 2), limit, np.float32), outlined=False, limit=limit)
    half = lay_heat(GREY, np.full((2, 2), 0.5, np.float32), outlined=False)
    cold = lay_heat(GREY, np.full((2, 2), limit / 100, np.float32), outlined=False, limit=limit)
    assert np.abs(at_limit.astype(int) - half).max() <= 2
    assert not coloured(cold).any()


def test_outline_and_box_come_with_a_finding_alone() -> None:
    """A good part has a warmest place too; without a finding no line draws the eye to it."""
    plain, found = draw_heat(GREY, spot(), ()), draw_heat(GREY, spot(), (SPOT,))
    assert np.array_equal(plain, lay_heat(GREY, spot(), outlined=False))
    assert (found == BOX).all(2).any()
    assert (lay_heat(GREY, spot(), outlined=True) == 255).all(2).any()
    assert not (plain == 255).all(2).any()


def test_box_lies_around_its_finding() -> None:
    """Both sides of the box are drawn where the region ends, also on a grey frame; the frame itself is left alone."""
    frame = GREY.copy()
    picture = draw_boxes(frame, (SPOT,))
    assert (picture[64, 62:67] == BOX).all(1).any()
    assert (picture[64, 93:98] == BOX).all(1).any()
    assert np.array_equal(frame, GREY)


@pytest.mark.parametrize("box", [(-50.0, -50.0, 500.0, 500.0), (0.0, 0.0, 128.0, 96.0), (127.2, 95.1, 127.4, 95.2)])
@pytest.mark.parametrize("shape", [(96, 128), (1, 1), (3, 900, 3), (2000, 1500)])
def test_any_box_on_any_frame_is_drawn(box: tuple[float, float, float, float], shape: tuple[int, ...]) -> None:
    """Boxes beyond the border, tiny ones, odd class names and flat frames do not fail."""
    found = Detection("größer ☃", 1.0, Region(box))
    assert draw_heat(np.zeros(shape, np.uint8), spot(), (found,)).shape[:2] == shape[:2]


def test_findings_that_did_not_count_are_not_drawn() -> None:
    """Candidates far below the limit would cover the part; the picture shows what the verdict rests on."""
    judgement = Judgement(Verdict.NG, (Reason("ng.dent", "one finding", (SPOT,)),))
    low = Detection("dent", 0.01, Region((5, 5, 30, 30)))
    seen = Inspection(judgement, (SPOT, low), ())
    assert np.array_equal(draw_boxes(GREY, (SPOT,)), draw_inspection(GREY, seen))
    assert np.array_equal(
        draw_heat(GREY, spot(), ()), draw_inspection(GREY, Inspection(Judgement(Verdict.OK), (), (), spot()))
    )


def test_part_that_could_not_be_judged_is_shown_as_it_is() -> None:
    """An ERROR has no findings and no heat; its picture is the frame."""
    seen = Inspection(error_judgement("quality.blur", "the image is blurred"), (), ())
    assert np.array_equal(np.dstack([GREY] * 3), draw_inspection(GREY, seen))


def test_every_image_has_a_name_of_its_own() -> None:
    """Equal stems are told apart, also by case alone and where a number is taken already."""
    paths = [Path(name) for name in ("a/x.png", "b/x.jpg", "c/X.png", "x-2.png", "x-2.bmp", "y.png")]
    names = picture_names(paths)
    assert ["x.png", "x-2.png", "X-3.png", "x-2-2.png", "x-2-3.png", "y.png"] == names
    assert len({name.casefold() for name in picture_names([Path("x.png")] * 3000)}) == 3000


def test_present_picture_is_refused_before_anything_is_judged(tmp_path: Path) -> None:
    """Nothing is overwritten, and one waits for no run to learn of it."""
    (tmp_path / "a.png").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"already holds a\.png"):
        Pictures(tmp_path, [Path("b.png"), Path("a.jpg")])
    assert (tmp_path / "a.png").read_bytes() == b"mine"


def test_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """A file in the way is named."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="cannot make the folder"):
        Pictures(tmp_path / "file" / "in", [Path("a.png")])


@pytest.fixture
def folder(tmp_path: Path, demo_recipe: Path) -> Path:
    """Two frames of equal name in two folders, and a third that is torn."""
    for name in ("one", "two"):
        (tmp_path / "in" / name).mkdir(parents=True)
    shutil.copyfile(demo_recipe / "selftest" / "four-defects.png", tmp_path / "in" / "one" / "board.png")
    write_png(tmp_path / "in" / "two" / "board.png", read_image(demo_recipe / "golden.png"))
    (tmp_path / "in" / "two" / "torn.png").write_bytes((demo_recipe / "golden.png").read_bytes()[:500])
    return tmp_path / "in"


def predict(demo_recipe: Path, folder: Path, pictures: Path) -> int:
    given = [str(demo_recipe / "model.onnx"), str(folder), "--golden", str(demo_recipe / "golden.png")]
    return main(["predict", *given, "--pictures", str(pictures)])


def test_predict_draws_every_image(
    capsys: pytest.CaptureFixture[str], demo_recipe: Path, folder: Path, tmp_path: Path
) -> None:
    """One PNG an image; what cannot be read has none, is named, and stdout stays the JSON alone."""
    assert predict(demo_recipe, folder, tmp_path / "out") == 0
    told = capsys.readouterr()
    assert ["NG", "OK", "ERROR"] == [row["verdict"] for row in json.loads(told.out)]
    assert ["board-2.png", "board.png"] == sorted(path.name for path in (tmp_path / "out").iterdir())
    assert "2 pictures" in told.err
    assert "torn.png" in told.err
    bad, good = (read_image(tmp_path / "out" / name) for name in ("board.png", "board-2.png"))
    assert (bad == BOX).all(2).any()
    assert not (good == BOX).all(2).any()


def test_predict_leaves_present_pictures(
    capsys: pytest.CaptureFixture[str], demo_recipe: Path, folder: Path, tmp_path: Path
) -> None:
    """A second run into the same folder is a usage error, and the first run's pictures stay."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "board.png").write_bytes(b"first")
    assert predict(demo_recipe, folder, tmp_path / "out") == 2
    assert "nothing is overwritten" in capsys.readouterr().err
    assert (tmp_path / "out" / "board.png").read_bytes() == b"first"
