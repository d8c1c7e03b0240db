import numpy as np
import pytest

from datasets.synth.boards import BoardPair, generate_pair
from datasets.synth.camera import CameraModel
from datasets.synth.defects import DefectStyle

STILL = CameraModel(blur_px=0.0, edge_px=0.0, gradient=0.0, noise=0.0, binarise=1.0, jpeg_quality=100)
MOVING = CameraModel(
    shift_px=14, rotate_deg=4, scale=0.04, blur_px=0, edge_px=0, gradient=0, noise=0, binarise=1.0, jpeg_quality=100
)
BARE = np.full((240, 300), 255, np.uint8)
BARE[112:128, 142:158] = 0  # one pad in the middle; whatever else is dark in a frame of it is a defect
MIDDLE = (slice(80, 160), slice(110, 190))


def pair(seed: int, camera: CameraModel, *, style: DefectStyle = DefectStyle(box_margin_px=0.0)) -> BoardPair:  # noqa: B008
    return generate_pair(np.random.default_rng(seed), BARE, defects=6, camera=camera, style=style)


def test_board_is_drawn_when_no_golden_is_given() -> None:
    """Frame and golden have the size asked for."""
    made = generate_pair(np.random.default_rng(1), None, size_px=(200, 160), defects=3, camera=CameraModel())
    assert (160, 200) == made.golden.shape == made.frame.shape


def test_given_golden_comes_back_unchanged() -> None:
    """The golden of the pair is the one given."""
    assert pair(1, MOVING).golden is BARE
    assert int(np.sum(BARE == 0)) == 256


def test_without_defects_the_still_frame_is_the_golden() -> None:
    """A camera that does nothing, and no defect, give the golden back and an empty list."""
    made = generate_pair(np.random.default_rng(2), BARE, defects=0, camera=STILL)
    assert () == made.defects
    assert np.array_equal(made.golden, made.frame)


@pytest.mark.parametrize("camera", [STILL, MOVING])
@pytest.mark.parametrize("seed", range(10))
def test_boxes_follow_the_board_into_the_frame(seed: int, camera: CameraModel) -> None:
    """Whatever is dark in the frame of a bare board lies in a box, and each box holds something dark."""
    made = pair(seed, camera)
    dark = made.frame < 128
    dark[MIDDLE] = False
    for defect in made.defects:
        x1, y1, x2, y2 = defect.changed_px
        window = (slice(max(0, y1 - 1), y2 + 1), slice(max(0, x1 - 1), x2 + 1))
        assert dark[window].any() or (100 < x1 < 200 and 70 < y1 < 170)
        dark[window] = False
    assert dark.sum() <= 12  # less than _LEAST_PX at the border is no defect


@pytest.mark.parametrize("seed", range(10))
def test_boxes_lie_inside_the_frame(seed: int) -> None:
    """Boxes are clipped to the frame and hold their changed pixels."""
    camera = CameraModel(shift_px=60, rotate_deg=8, scale=0.1)
    for defect in pair(seed, camera, style=DefectStyle()).defects:
        x1, y1, x2, y2 = defect.box_px
        a, b, c, d = defect.changed_px
        assert 0 <= x1 <= a < c <= x2 <= 300
        assert 0 <= y1 <= b < d <= y2 <= 240


def test_defect_that_left_the_frame_is_not_listed() -> None:
    """A board pushed far aside loses defects, and the list with it."""
    near = [len(pair(seed, STILL).defects) for seed in range(12)]
    far = [len(pair(seed, CameraModel(shift_px=250, binarise=1.0)).defects) for seed in range(12)]
    assert sum(far) < sum(near)


@pytest.mark.parametrize("seed", range(12))
def test_defect_that_the_camera_lost_is_not_listed(seed: int) -> None:
    """Of hairlines under a blurring, thresholding camera only those that can be seen are listed."""
    blurring = CameraModel(blur_px=4.0, edge_px=0.0, noise=0.0, binarise=1.0)
    made = pair(seed, blurring, style=DefectStyle(area_px=(4, 30)))
    for defect in made.defects:
        x1, y1, x2, y2 = defect.changed_px
        seen, added = made.frame[y1:y2, x1:x2], defect.defect_class in ("copper", "spur", "short")
        assert (seen < 200).any() if added else (seen > 55).any()


def test_same_seed_gives_the_same_pair() -> None:
    """A pair depends on its seed alone."""
    one, same, other = (
        generate_pair(np.random.default_rng(seed), None, size_px=(160, 160), defects=3, camera=CameraModel())
        for seed in (7, 7, 8)
    )
    assert one.frame.tobytes() == same.frame.tobytes()
    assert one.defects == same.defects
    assert one.frame.tobytes() != other.frame.tobytes()
