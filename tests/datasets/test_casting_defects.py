from collections import Counter

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from datasets.synth.casting_defects import (
    CASTING_CLASSES,
    CastingDefect,
    CastingDefectStyle,
    inject_casting_defects,
    inject_shams,
)
from datasets.synth.casting_part import find_part

Image = NDArray[np.uint8]


def ring(side: int = 200, *, metal: int = 190, ground: int = 90, seed: int = 0) -> Image:
    """A grained disc with a bore on an even ground."""
    image = np.full((side, side), ground, np.uint8)
    cv2.circle(image, (side // 2, side // 2), int(side * 0.4), metal, -1, cv2.LINE_AA)
    cv2.circle(image, (side // 2, side // 2), int(side * 0.15), 30, -1, cv2.LINE_AA)
    noise = np.random.default_rng(seed).normal(0, 2.0, image.shape)
    return np.clip(cv2.GaussianBlur(image, (0, 0), 0.8) + noise, 0, 255).astype(np.uint8)


def coloured(grey: Image) -> Image:
    return np.stack([grey, grey // 2 + 40, 255 - grey], axis=2).astype(np.uint8)


def injected(image: Image, seed: int, *, count: int = 3, **style: object) -> tuple[Image, tuple[CastingDefect, ...]]:
    chosen = CastingDefectStyle(**style)  # type: ignore[arg-type]
    return inject_casting_defects(image, np.random.default_rng(seed), count=count, style=chosen)


def check_changes(before: Image, after: Image, defects: tuple[CastingDefect, ...]) -> None:
    """The masks are just the changed pixels, apart from each other, and each box is its mask's."""
    changed = before != after if before.ndim == 2 else (before != after).any(axis=2)
    together = np.zeros(changed.shape, bool)
    for defect in defects:
        assert defect.mask.shape == changed.shape
        assert not (together & defect.mask).any()
        together |= defect.mask
        rows, columns = np.flatnonzero(defect.mask.any(1)), np.flatnonzero(defect.mask.any(0))
        assert (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) == defect.box_px
    assert np.array_equal(together, changed)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("image", [ring(), ring(metal=60, ground=210), coloured(ring())], ids=["light", "dark", "rgb"])
def test_boxes_and_masks_are_exactly_what_changed(image: Image, seed: int) -> None:
    """A box is the box of the changed pixels, and nothing changes outside; on light, dark and coloured parts."""
    after, defects = injected(image, seed, count=4)
    assert defects
    check_changes(image, after, defects)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), rows=st.integers(24, 150), columns=st.integers(24, 150), count=st.integers(0, 5))
def test_any_size_is_accepted(seed: int, rows: int, columns: int, count: int) -> None:
    """Whatever the picture's size, masks are exact and no more defects come than were asked for."""
    image = np.ascontiguousarray(ring()[:rows, :columns])
    after, defects = injected(image, seed, count=count)
    assert len(defects) <= count
    check_changes(image, after, defects)


@pytest.mark.parametrize("defect_class", CASTING_CLASSES)
def test_each_class_can_be_asked_for(defect_class: str) -> None:
    """A style with one class makes that class, nearly always, and visibly."""
    made = [injected(ring(), seed, count=1, classes=(defect_class,)) for seed in range(20)]
    assert sum(len(defects) for _, defects in made) >= 17
    assert {defect.defect_class for _, defects in made for defect in defects} == {defect_class}
    for after, defects in made:
        difference = np.abs(after.astype(int) - ring())
        assert all(difference[defect.mask].max() >= 5 for defect in defects)


def test_all_classes_occur_by_themselves() -> None:
    """Over many parts the usual style makes every class."""
    made = Counter(d.defect_class for seed in range(80) for d in injected(ring(), seed, count=3)[1])
    assert set(CASTING_CLASSES) == set(made)


def test_sizes_reach_from_specks_to_a_good_part_of_the_casting() -> None:
    """Lengths span more than one order of magnitude."""
    boxes = [d.box_px for seed in range(80) for d in injected(ring(300), seed, count=2)[1]]
    lengths = [max(x2 - x1, y2 - y1) for x1, y1, x2, y2 in boxes]
    assert min(lengths) <= 5
    assert max(lengths) >= 75


def test_contrast_follows_the_style() -> None:
    """Strong defects change more grey levels than faint ones."""

    def strength(low: float, high: float) -> float:
        changes = []
        for seed in range(30):
            after, _ = injected(ring(), seed, count=1, contrast=(low, high), classes=("blowhole",))
            changes.append(int(np.abs(after.astype(int) - ring()).max()))
        return float(np.median(changes))

    assert strength(0.9, 1.0) > 2 * strength(0.1, 0.15)


def test_surface_defects_lie_on_the_part() -> None:
    """Those of the surface do not leave the part that is given by more than the camera's blur."""
    part = np.zeros((200, 200), bool)
    part[40:120, 30:170] = True
    around = cv2.dilate(part.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
    style = CastingDefectStyle(classes=("blowhole", "crack", "shrinkage", "stain"))
    for seed in range(20):
        rng = np.random.default_rng(seed)
        _, defects = inject_casting_defects(ring(), rng, count=3, style=style, part=part)
        assert all(not (defect.mask & ~around).any() for defect in defects)


def test_flash_lies_at_an_edge() -> None:
    """Flash keeps close to the contour or to an edge within the part."""
    edges = cv2.dilate(cv2.Canny(ring(), 60, 120), np.ones((25, 25), np.uint8)) > 0
    for seed in range(20):
        for defect in injected(ring(), seed, count=1, classes=("flash",))[1]:
            assert edges[defect.mask].mean() > 0.8


def test_same_seed_gives_the_same_bytes_and_another_does_not() -> None:
    """Injection depends on picture and generator alone, and leaves the picture itself alone."""
    image = ring()
    kept = image.copy()
    images = [injected(image, seed)[0].tobytes() for seed in (1, 1, 2)]
    assert images[0] == images[1]
    assert images[0] != images[2]
    assert np.array_equal(kept, image)


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("shape", [(64, 64), (64, 64, 3), (300, 200)])
def test_blank_picture_is_accepted(level: int, shape: tuple[int, ...]) -> None:
    """Without a part in it the whole picture counts as part; masks are exact all the same."""
    image = np.full(shape, level, np.uint8)
    assert find_part(image).all()
    made = 0
    for seed in range(10):
        after, defects = injected(image, seed)
        check_changes(image, after, defects)
        made += len(defects)
    assert made > 5


def test_without_an_edge_no_edge_defect_is_made() -> None:
    """On an even picture flash and chipping are left out, at once."""
    image = np.full((300, 300), 90, np.uint8)
    after, defects = injected(image, 1, count=30, classes=("flash", "chipping"))
    assert () == defects
    assert np.array_equal(image, after)


@pytest.mark.parametrize(("metal", "ground"), [(200, 60), (60, 200), (150, 110)])
def test_part_is_found(metal: int, ground: int) -> None:
    """A disc is found on a lighter and on a darker ground, its bore counted in, to within a few pixels."""
    rows, columns = np.mgrid[:200, :200]
    disc = np.hypot(rows - 100, columns - 100) < 80
    found = find_part(ring(metal=metal, ground=ground))
    assert (found & disc).sum() / (found | disc).sum() > 0.9


@pytest.mark.parametrize("image", [ring(), coloured(ring()), ring(64), np.full((40, 30), 7, np.uint8)])
def test_shams_are_seeded_and_hardly_seen(image: Image) -> None:
    """Shams keep shape and kind of the picture, depend on the generator alone, and change little on the average."""
    kept = image.copy()
    one, same, other = (inject_shams(image, np.random.default_rng(seed), 3) for seed in (3, 3, 4))
    assert (image.shape, image.dtype) == (one.shape, one.dtype)
    assert np.array_equal(one, same)
    assert np.array_equal(image, kept)
    assert not np.array_equal(one, other) or not image.any() or np.ptp(image) == 0
    assert np.abs(one.astype(int) - image).mean() < 6


def test_no_sham_is_no_change() -> None:
    """A count of 0 gives the picture back."""
    assert np.array_equal(ring(), inject_shams(ring(), np.random.default_rng(1), 0))
