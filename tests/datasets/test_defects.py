from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from datasets.synth.artwork import draw_board
from datasets.synth.camera import CameraModel, photograph
from datasets.synth.defects import PCB_CLASSES, Defect, DefectStyle, inject, read_artwork

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]
SEEDS = range(16)
TIGHT = DefectStyle(box_margin_px=0.0)


def sharp_board(seed: int, *, dark_copper: bool) -> Image:
    board = draw_board(np.random.default_rng(seed), size_px=(320, 320), dark_copper=dark_copper)
    return np.where(board > 127, 255, 0).astype(np.uint8)


def grey_board(seed: int, *, dark_copper: bool) -> Image:
    rng = np.random.default_rng(seed)
    board = draw_board(rng, size_px=(320, 320), dark_copper=dark_copper)
    return photograph(board, rng, CameraModel(binarise=0.0, noise=5.0))[0]


def injected(golden: Image, seed: int, *, dark_copper: bool, count: int = 6) -> tuple[Image, tuple[Defect, ...]]:
    artwork = read_artwork(golden, dark_copper=dark_copper)
    return inject(artwork, np.random.default_rng([seed, 1]), count=count, style=TIGHT)


def parts(mask: Mask) -> int:
    """Pieces of at least 40 px, and smaller ones (5 px and more) that go on beyond the border."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    border = {int(label) for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]) for label in side} - {0}
    areas = stats[:, cv2.CC_STAT_AREA]
    return sum(bool(areas[label] >= (5 if label in border else 40)) for label in range(1, len(areas)))


def solid(change: Mask) -> Mask:
    """The change without the slivers inside it, as an eye sees a scribble."""
    closed = cv2.morphologyEx(np.pad(change, 4).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    outside = cv2.connectedComponents(1 - closed, connectivity=4)[1]
    return (outside != outside[0, 0])[4:-4, 4:-4] & np.ones_like(change)


def around(defect: Defect, reach: int = 14) -> tuple[slice, slice]:
    x1, y1, x2, y2 = defect.changed_px
    return slice(max(0, y1 - reach), y2 + reach), slice(max(0, x1 - reach), x2 + reach)


def touches(change: Mask, other: Mask) -> bool:
    return bool(np.any(cv2.dilate(change.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & other))


def check_removed(defect: Defect, before: Mask, change: Mask) -> None:
    after = before & ~solid(change)
    separated = parts(after) > parts(before) or parts(~after) < parts(~before)
    assert separated == (defect.defect_class == "open")
    if not separated:
        assert touches(change, ~before) == (defect.defect_class == "mousebite")


def check_added(defect: Defect, before: Mask, change: Mask) -> None:
    after = before | solid(change)
    joined = parts(after) < parts(before) or (touches(change, before) and parts(~after) > parts(~before))
    assert joined == (defect.defect_class == "short")
    if not joined:
        assert touches(change, before) == (defect.defect_class == "spur")


@pytest.mark.parametrize("dark_copper", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_each_defect_does_to_the_copper_what_its_class_says(seed: int, dark_copper: bool) -> None:
    """Opens separate copper or join gaps, shorts join copper or divide gaps, islands are called copper, and so on."""
    golden = sharp_board(seed, dark_copper=dark_copper)
    image, defects = injected(golden, seed, dark_copper=dark_copper)
    before, after = ((picture < 128) == dark_copper for picture in (golden, image))
    for defect in defects:
        window = around(defect)
        x1, y1, x2, y2 = defect.changed_px
        change = np.zeros_like(before)
        change[y1:y2, x1:x2] = (before != after)[y1:y2, x1:x2]
        removes = defect.defect_class in ("open", "mousebite", "pin-hole")
        assert bool(before[change].all() if removes else not before[change].any())
        (check_removed if removes else check_added)(defect, before[window], change[window])


@pytest.mark.parametrize("seed", SEEDS)
def test_on_sharp_artwork_every_changed_pixel_lies_in_a_box_and_reaches_its_sides(seed: int) -> None:
    """Without margin a box is exactly the box of the changed pixels."""
    golden = sharp_board(seed, dark_copper=True)
    image, defects = injected(golden, seed, dark_copper=True)
    changed = image != golden
    for defect in defects:
        x1, y1, x2, y2 = defect.changed_px
        assert (x1, y1, x2, y2) == defect.box_px
        inside = changed[y1:y2, x1:x2]
        assert all(side.any() for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
        changed[y1:y2, x1:x2] = False
    assert not changed.any()


@pytest.mark.parametrize("dark_copper", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_grey_goldens_take_defects_too(seed: int, dark_copper: bool) -> None:
    """On a photographed golden every clearly changed pixel lies within a pixel of a defect's box."""
    golden = grey_board(seed, dark_copper=dark_copper)
    image, defects = injected(golden, seed, dark_copper=dark_copper)
    changed = np.abs(image.astype(int) - golden) > 60
    assert defects
    for defect in defects:
        x1, y1, x2, y2 = defect.changed_px
        window = (slice(y1 - 1, y2 + 1), slice(x1 - 1, x2 + 1))
        assert changed[window].any() or np.ptp(golden) < 130
        changed[window] = False
    assert not changed.any()


@pytest.mark.parametrize("draw", [sharp_board, grey_board])
def test_boxes_with_margin_lie_inside_the_image(draw: Callable[..., Image]) -> None:
    """A label box is wider than the changed pixels by the margin, but never leaves the image."""
    for seed in range(6):
        artwork = read_artwork(draw(seed, dark_copper=True), dark_copper=True)
        _, defects = inject(artwork, np.random.default_rng(seed), count=8, style=DefectStyle(box_jitter_px=3.0))
        for defect in defects:
            x1, y1, x2, y2 = defect.box_px
            a, b, c, d = defect.changed_px
            assert 0 <= x1 <= a < c <= x2 <= 320
            assert 0 <= y1 <= b < d <= y2 <= 320


def test_changed_area_keeps_to_the_style() -> None:
    """A defect changes no fewer and no more pixels than the style allows."""
    style = DefectStyle(area_px=(40, 90))
    for seed in range(20):
        golden = sharp_board(seed, dark_copper=True)
        image, _ = inject(read_artwork(golden, dark_copper=True), np.random.default_rng(seed), count=1, style=style)
        assert int(np.sum(image != golden)) in (0, *range(40, 91))


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not() -> None:
    """Injection depends on artwork and seed alone."""
    golden = sharp_board(1, dark_copper=True)
    images = [injected(golden, seed, dark_copper=True)[0].tobytes() for seed in (1, 1, 2)]
    assert images[0] == images[1]
    assert images[0] != images[2]


def test_golden_itself_is_left_alone() -> None:
    """Injection works on a copy."""
    golden = sharp_board(2, dark_copper=True)
    kept = golden.copy()
    injected(golden, 2, dark_copper=True)
    assert np.array_equal(kept, golden)


def test_defects_keep_away_from_labels_that_are_there_already() -> None:
    """No injected defect touches a box of ``avoid`` or another injected defect."""
    avoid = ((0.0, 0.0, 320.0, 160.0),)
    artwork = read_artwork(sharp_board(3, dark_copper=True), dark_copper=True)
    _, defects = inject(artwork, np.random.default_rng(3), count=12, style=TIGHT, avoid=avoid)
    assert all(defect.changed_px[1] >= 160 for defect in defects)
    for number, one in enumerate(defects):
        for other in defects[number + 1 :]:
            a, b = one.changed_px, other.changed_px
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_all_six_classes_are_made() -> None:
    """Over a few boards every class occurs."""
    made = {
        d.defect_class
        for seed in SEEDS
        for d in injected(sharp_board(seed, dark_copper=True), seed, dark_copper=True)[1]
    }
    assert set(PCB_CLASSES) == made


@pytest.mark.parametrize("grey", [0, 255])
@pytest.mark.parametrize("dark_copper", [True, False])
def test_bare_board_and_full_plane_are_accepted(grey: int, dark_copper: bool) -> None:
    """An image without any edge takes islands or pin-holes and nothing else."""
    golden = np.full((160, 160), grey, np.uint8)
    _, defects = injected(golden, 1, dark_copper=dark_copper)
    assert {d.defect_class for d in defects} <= {"copper", "pin-hole"}
