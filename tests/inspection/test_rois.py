import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from inspection.rois import Point, Roi, is_simple, layout_faults, share_covered
from inspection.types import Box

SQUARE = Roi("square", "inspect", ((10, 10), (50, 10), (50, 50), (10, 50)))
# A frame around nothing: U-shaped, open above.
U_SHAPE = Roi("u", "keep_out", ((0, 0), (10, 0), (10, 40), (40, 40), (40, 0), (50, 0), (50, 50), (0, 50)))
COORDINATE = st.integers(0, 60).map(float)
BOXES = st.tuples(COORDINATE, COORDINATE, st.integers(1, 40), st.integers(1, 40)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
TRIANGLES = st.tuples(*[st.tuples(COORDINATE, COORDINATE)] * 3)


def triangle(corners: tuple[Point, ...]) -> Roi:
    assume(is_simple(corners))
    return Roi("t", "inspect", corners)


@pytest.mark.parametrize(
    ("point", "inside"), [((30, 30), True), ((10, 30), True), ((10, 10), True), ((9.9, 30), False), ((51, 30), False)]
)
def test_outline_belongs_to_the_region(point: Point, inside: bool) -> None:
    """A point on the outline is inside."""
    assert inside == SQUARE.holds(point)


@pytest.mark.parametrize(
    ("box", "inside"),
    [
        ((20, 20, 30, 30), True),
        ((10, 10, 50, 50), True),
        ((10, 10, 50, 51), False),
        ((0, 0, 60, 60), False),
        ((60, 60, 70, 70), False),
    ],
)
def test_box_is_inside_when_all_of_it_is(box: Box, inside: bool) -> None:
    """Touching the outline from within is inside; reaching over it is not."""
    assert inside == SQUARE.contains(box)


def test_box_across_the_opening_of_a_bent_region_is_not_inside() -> None:
    """All four corners inside are not enough where the region is not convex."""
    assert not U_SHAPE.contains((2, 20, 48, 45))
    assert U_SHAPE.contains((2, 41, 48, 49))
    assert U_SHAPE.contains((1, 1, 9, 49))


@pytest.mark.parametrize(
    ("box", "distance"),
    [
        ((20, 25, 30, 35), 10.0),
        ((12, 25, 22, 35), 2.0),
        ((5, 25, 15, 35), 0.0),
        ((0, 0, 60, 60), 0.0),
        ((53, 54, 60, 60), 5.0),
        ((50, 20, 60, 30), 0.0),
    ],
)
def test_distance_to_the_outline(box: Box, distance: float) -> None:
    """From the nearest point of the box, inside and outside alike; 0 where the outline runs through it."""
    assert distance == pytest.approx(SQUARE.edge_distance_px(box))


def test_region_moves_with_the_part() -> None:
    """A turned and shifted part carries its regions along; without a golden they stay."""
    turned = SQUARE.moved(np.array([[0.0, -1, 100], [1, 0, 5]]))
    assert turned.polygon_px == ((90, 15), (90, 55), (50, 55), (50, 15))
    assert (turned.roi_id, turned.area_px) == ("square", SQUARE.area_px)
    assert SQUARE.moved(None) is SQUARE


@pytest.mark.parametrize(
    ("polygon", "simple"),
    [
        (SQUARE.polygon_px, True),
        (U_SHAPE.polygon_px, True),
        (((0, 0), (9, 0), (0, 9), (9, 9)), False),
        (((0, 0), (9, 0), (18, 0)), False),
        (((0, 0), (9, 0), (9, 9), (9, 0)), False),
        (((0, 0), (9, 0), (9, 9), (4, 0), (0, 9)), False),
        (((0, 0), (0, 0), (9, 9), (0, 9)), False),
        ((), False),
    ],
)
def test_polygons_that_cross_or_enclose_nothing_are_known(polygon: tuple[Point, ...], simple: bool) -> None:
    """What is inside must be beyond doubt."""
    assert simple == is_simple(polygon)


def test_share_counts_overlaps_once() -> None:
    """Two regions at one place cover what one of them covers."""
    half = Roi("a", "keep_out", ((0, 0), (50, 0), (50, 100), (0, 100)))
    assert share_covered([half, half], (100, 100)) == pytest.approx(0.5, abs=0.02)
    assert share_covered([], (100, 100)) == 0


def test_large_pictures_are_measured_as_well() -> None:
    """The share does not depend on the size of the picture."""
    half = Roi("a", "keep_out", ((0, 0), (4000, 0), (4000, 6000), (0, 6000)))
    assert share_covered([half], (6000, 8000)) == pytest.approx(0.5, abs=0.01)


def test_layout_that_would_switch_the_check_off_is_told() -> None:
    """Keep-outs above half of the picture, and regions outside of it, are named."""
    most = Roi("most", "keep_out", ((0, 0), (100, 0), (100, 60), (0, 60)))
    away = Roi("away", "inspect", ((200, 0), (300, 0), (300, 60)))
    share, outside = layout_faults((most,), (100, 100)), layout_faults((away,), (100, 100))
    assert "keep-outs cover 6" in share[0]
    assert "region away lies outside the picture of 100x100 px" in outside[0]
    assert () == layout_faults((SQUARE, U_SHAPE), (100, 100))
    assert () == layout_faults((Roi("most", "inspect", most.polygon_px),), (100, 100))


@given(TRIANGLES, BOXES)
def test_shared_area_is_within_both(corners: tuple[Point, ...], box: Box) -> None:
    """What two areas share is no larger than either, and a box that is inside shares all of itself."""
    roi, whole = triangle(corners), (box[2] - box[0]) * (box[3] - box[1])
    shared = roi.shared_px(box)
    assert -1e-6 <= shared <= min(roi.area_px, whole) + 1e-6
    corners_inside = all(roi.holds((x, y)) for x in (box[0], box[2]) for y in (box[1], box[3]))
    assert corners_inside == roi.contains(box)  # a triangle is convex


@given(TRIANGLES, BOXES)
def test_box_that_does_not_meet_the_outline_is_inside_or_outside(corners: tuple[Point, ...], box: Box) -> None:
    """A distance above zero leaves only two cases: wholly inside, or nothing in common."""
    roi = triangle(corners)
    if roi.edge_distance_px(box) > 1e-6:
        assert roi.contains(box) or roi.shared_px(box) == pytest.approx(0, abs=1e-6)


@given(TRIANGLES, BOXES, st.floats(-50, 50), st.floats(-50, 50))
def test_moving_part_and_finding_together_changes_nothing(
    corners: tuple[Point, ...], box: Box, x: float, y: float
) -> None:
    """Region and finding shifted alike keep their distance."""
    roi = triangle(corners)
    moved = roi.moved(np.array([[1.0, 0, x], [0, 1.0, y]]))
    shifted = (box[0] + x, box[1] + y, box[2] + x, box[3] + y)
    assert moved.edge_distance_px(shifted) == pytest.approx(roi.edge_distance_px(box), abs=1e-6)
