import cv2
import numpy as np
import pytest
from faster_coco_eval.core import mask as reference
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays

from datasets.importers.outlines import mask_of_runs, regions

masks = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))


def filled(shape: tuple[int, ...], polygons: list[tuple[tuple[float, float], ...]]) -> np.ndarray:
    """Which pixels have their centre inside one of the polygons."""
    inside = np.zeros(shape, bool)
    for polygon in polygons:
        contour = np.array(polygon, np.float32)
        for y, x in np.ndindex(*shape):
            inside[y, x] |= cv2.pointPolygonTest(contour, (x + 0.5, y + 0.5), False) > 0
    return inside


def without_holes(mask: np.ndarray) -> np.ndarray:
    """The mask with every hole of a region filled; background touches by sides only."""
    padded = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    _, numbers = cv2.connectedComponents(padded, connectivity=4)
    return (numbers != numbers[0, 0])[1:-1, 1:-1]


@settings(max_examples=200, deadline=None)
@given(masks)
def test_outlines_run_along_the_sides_of_the_pixels(mask: np.ndarray) -> None:
    """What an outline encloses is the region with its holes filled, to the pixel."""
    found = list(regions(mask))
    assert (without_holes(mask) == filled(mask.shape, [outline for _, outline, _ in found])).all()
    assert int(mask.sum()) == sum(area for _, _, area in found)


@settings(max_examples=100, deadline=None)
@given(masks)
def test_box_is_the_extent_of_the_outline(mask: np.ndarray) -> None:
    """Box and outline of a region say the same, and lie in the mask."""
    for (x1, y1, x2, y2), outline, area in regions(mask):
        xs, ys = zip(*outline, strict=True)
        assert (x1, y1, x2, y2) == (min(xs), min(ys), max(xs), max(ys))
        assert mask[int(y1) : int(y2), int(x1) : int(x2)].sum() >= area
        assert len(outline) >= 4


def test_region_inside_a_ring_is_found() -> None:
    """A region in the hole of another is a region of its own; pixels that touch by corners are one."""
    mask = np.zeros((9, 9), bool)
    mask[0:9, 0:9] = True
    mask[1:8, 1:8] = False
    mask[3, 3] = mask[4, 4] = True
    assert [(0, 0, 9, 9), (3, 3, 5, 5)] == [box for box, _, _ in regions(mask)]


@settings(max_examples=200, deadline=None)
@given(masks)
def test_compressed_runs_are_read_as_by_the_reference(mask: np.ndarray) -> None:
    """Run lengths that another program compressed give the mask it had."""
    runs = reference.encode(np.asfortranarray(mask.astype(np.uint8)))
    text = runs["counts"].decode() if isinstance(runs["counts"], bytes) else runs["counts"]
    assert (mask == mask_of_runs(text, *mask.shape)).all()


def test_long_runs_are_read() -> None:
    """Run lengths of several characters, rising and falling, are read."""
    mask = np.zeros((700, 900), np.uint8)
    mask[100:600, 3:7] = mask[5:650, 500:890] = 1
    runs = reference.encode(np.asfortranarray(mask))["counts"]
    text = runs.decode() if isinstance(runs, bytes) else runs
    assert (mask == mask_of_runs(text, 700, 900)).all()


def test_plain_runs_go_down_the_columns() -> None:
    """Plain run lengths begin with background and go column by column."""
    assert [[0, 1], [0, 0], [1, 0]] == mask_of_runs([2, 2, 2], 3, 2).astype(int).tolist()


@pytest.mark.parametrize("counts", [[2, 2], [7], [-1, 7], "", "é", "P", "06é"])
def test_runs_that_do_not_fit_are_refused(counts: str | list[int]) -> None:
    """Too few, too many, negative or cut off run lengths give no mask."""
    with pytest.raises(ValueError):
        mask_of_runs(counts, 3, 2)
