from pathlib import Path

import numpy as np

from datasets.synth.boards import BoardPair, generate_pair
from datasets.synth.camera import CameraModel
from datasets.synth.defects import Defect
from datasets.synth.sheet import defect_sheet
from inspection.images import read_image


def pairs() -> list[BoardPair]:
    return [
        generate_pair(np.random.default_rng(seed), None, size_px=(256, 256), defects=6, camera=CameraModel())
        for seed in range(4)
    ]


def test_sheet_has_a_row_for_each_class(tmp_path: Path) -> None:
    """The sheet is a colour PNG with six rows of equal height and something drawn in each."""
    path = defect_sheet(pairs(), tmp_path / "sheet.png", per_class=5)
    sheet = read_image(path)
    assert sheet.shape[0] % 6 == 0
    assert all(row.min() < 60 for row in np.split(sheet, 6))


def test_sheet_without_any_defect_is_still_a_sheet(tmp_path: Path) -> None:
    """With nothing to show the class names remain."""
    assert read_image(defect_sheet([], tmp_path / "empty.png")).ndim == 3


def test_defect_is_shown_with_its_box_below_the_golden(tmp_path: Path) -> None:
    """The upper crop is the golden's, the lower one the frame's with a red box, even at the image's corner."""
    frame, golden = np.full((90, 90), 40, np.uint8), np.full((90, 90), 200, np.uint8)
    made = BoardPair(frame, golden, (Defect("scorch", (0.0, 0.0, 12.0, 9.0), (2, 2, 10, 8)),))
    row = np.split(read_image(defect_sheet([made], tmp_path / "one.png", per_class=1)), 7)[6]
    upper, lower = row[10:160, 200:340], row[180:330, 200:340]
    assert (upper == 200).all(2).any()
    assert (lower == 40).all(2).any()
    assert ((lower[..., 0] > 200) & (lower[..., 1] < 60)).any()
    assert not ((upper[..., 0] > 200) & (upper[..., 1] < 60)).any()


def test_large_defect_is_shown_whole(tmp_path: Path) -> None:
    """A defect wider than the usual crop is shown smaller, with its box inside the cell."""
    frame = np.full((400, 400), 90, np.uint8)
    made = BoardPair(frame, frame, (Defect("open", (20.0, 20.0, 380.0, 390.0), (25, 25, 375, 385)),))
    row = np.split(read_image(defect_sheet([made], tmp_path / "wide.png", per_class=1)), 6)[0]
    red = (row[..., 0] > 200) & (row[..., 1] < 60)
    columns = np.flatnonzero(red.any(0))
    assert columns[-1] - columns[0] > 90
