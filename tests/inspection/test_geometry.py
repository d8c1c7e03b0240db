from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspection.geometry import Tile, apply, compose, hull, invert, seen_again, tiles

SIZES = st.integers(1, 2000)
SIDES = st.tuples(st.integers(100, 700), st.floats(0, 0.6)).map(lambda pair: (pair[0], int(pair[0] * pair[1])))
NUMBERS = st.floats(-300, 300)


@st.composite
def matrices(draw: st.DrawFn) -> np.ndarray:
    """Affine matrices that can be inverted: a turn, a stretch of each axis, a shift."""
    angle = draw(st.floats(-3.2, 3.2))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = np.diag([draw(st.floats(0.2, 5)), draw(st.floats(0.2, 5))])
    return np.hstack([turn @ stretch, [[draw(NUMBERS)], [draw(NUMBERS)]]])


POINTS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=8).map(np.array)


def grid(width: int, height: int, cut: tuple[int, int]) -> list[Tile]:
    return list(tiles(width, height, side=cut[0], overlap=cut[1]))


def holds(core: tuple[float, float, float, float], x: float, y: float) -> bool:
    return core[0] <= x < core[2] and core[1] <= y < core[3]


@given(SIZES, st.integers(1, 800), SIDES, st.floats(-50, 3050), st.floats(-50, 3050))
def test_every_point_of_the_plane_belongs_to_one_core(
    width: int, height: int, cut: tuple[int, int], x: float, y: float
) -> None:
    """Wherever a finding's centre lies, inside the frame or beyond it, exactly one tile answers for it."""
    assert sum(holds(tile.core, x, y) for tile in grid(width, height, cut)) == 1


@given(SIZES, st.integers(1, 800), SIDES)
def test_borders_between_cores_belong_to_one_core(width: int, height: int, cut: tuple[int, int]) -> None:
    """A centre exactly on a seam, or where four tiles meet, is neither doubled nor lost."""
    made = grid(width, height, cut)
    sides = [tile.core for tile in made]
    for x, y in {(core[0], core[1]) for core in sides} | {(core[2], core[3]) for core in sides}:
        at = (0.0 if np.isinf(x) else x, 0.0 if np.isinf(y) else y)
        assert sum(holds(tile.core, *at) for tile in made) == 1


@given(SIZES, st.integers(1, 800), SIDES)
def test_windows_lie_inside_the_frame_and_cover_it(width: int, height: int, cut: tuple[int, int]) -> None:
    """Each window holds pixels of the frame only, is no larger than a tile, and together they see all of it."""
    made = grid(width, height, cut)
    for axis, length in ((0, width), (1, height)):
        spans = sorted({(tile.window[axis], tile.window[axis + 2]) for tile in made})
        assert spans[0][0] == 0
        assert spans[-1][1] == length
        assert all(0 < end - start <= cut[0] for start, end in spans)
        assert all(after[0] <= before[1] for before, after in pairwise(spans))


@given(SIZES, st.integers(1, 800), SIDES)
def test_core_lies_within_its_window(width: int, height: int, cut: tuple[int, int]) -> None:
    """A tile never answers for pixels that it does not see."""
    for tile in grid(width, height, cut):
        for axis, length in ((0, width), (1, height)):
            assert tile.window[axis] <= max(0, tile.core[axis])
            assert min(length, tile.core[axis + 2]) <= tile.window[axis + 2]


@given(SIZES, st.integers(641, 2000))
def test_neighbouring_windows_overlap_as_asked(width: int, height: int) -> None:
    """What lies on a seam is seen whole by both neighbours: they share at least the overlap."""
    rows = sorted({(tile.window[1], tile.window[3]) for tile in grid(width, height, (640, 128))})
    assert all(before[1] - after[0] >= 128 for before, after in pairwise(rows))


def test_small_frame_is_one_tile() -> None:
    """A frame that fits into one window is not cut."""
    (only,) = tiles(640, 17, side=640, overlap=128)
    assert (0, 0, 640, 17) == only.window


@pytest.mark.parametrize("overlap", [64, 128, -1])
def test_overlap_that_cannot_cover_the_frame_is_refused(overlap: int) -> None:
    """Windows that overlap wholly would give no tile at all, and so no finding."""
    with pytest.raises(ValueError, match="overlap"):
        list(tiles(640, 640, side=64, overlap=overlap))


@given(matrices(), POINTS)
def test_inverse_moves_points_back(matrix: np.ndarray, points: np.ndarray) -> None:
    """A motion followed by its inverse leaves every point where it was."""
    np.testing.assert_allclose(apply(invert(matrix), apply(matrix, points)), points, atol=1e-6)


@given(matrices(), matrices(), POINTS)
def test_composed_motion_applies_the_inner_one_first(outer: np.ndarray, inner: np.ndarray, points: np.ndarray) -> None:
    """compose(outer, inner) is inner, then outer."""
    np.testing.assert_allclose(apply(compose(outer, inner), points), apply(outer, apply(inner, points)), atol=1e-6)


def test_identity_changes_nothing() -> None:
    """The identity is neutral for all of them."""
    same, shift = np.eye(2, 3), np.array([[1.0, 0, 5], [0, 1, -7]])
    np.testing.assert_array_equal(same, invert(same))
    np.testing.assert_array_equal(shift, compose(same, shift))
    np.testing.assert_array_equal([[6, -5]], apply(shift, np.array([[1.0, 2.0]])))


@given(matrices(), NUMBERS, NUMBERS, st.floats(0.5, 200), st.floats(0.5, 200), st.floats(0, 1), st.floats(0, 1))
def test_hull_holds_every_point_of_the_moved_box(
    matrix: np.ndarray, x: float, y: float, width: float, height: float, u: float, v: float
) -> None:
    """Whatever lay in the box lies in the upright box around the moved one, and that box is no larger than needed."""
    box = (x, y, x + width, y + height)
    a, b, c, d = hull(matrix, box)
    px, py = apply(matrix, np.array([[x + u * width, y + v * height]]))[0]
    assert a - 1e-6 <= px <= c + 1e-6
    assert b - 1e-6 <= py <= d + 1e-6
    corners = apply(matrix, np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]]))
    np.testing.assert_allclose([a, b, c, d], [*corners.min(0), *corners.max(0)])


AGAIN = {
    "nothing": ([], []),
    "one finding": ([(0, 0, 10, 10, 0, 0)], [False]),
    "the same box from two tiles": ([(0, 0, 10, 10, 0, 0), (1, 0, 11, 10, 0, 1)], [False, True]),
    "the same box from one tile is the model's own affair": ([(0, 0, 10, 10, 0, 0), (1, 0, 11, 10, 0, 0)], [False] * 2),
    "another class, same place": ([(0, 0, 20, 20, 0, 0), (1, 0, 21, 20, 1, 1)], [False, True]),
    "another class, half beside": ([(0, 0, 20, 20, 0, 0), (8, 0, 28, 20, 1, 1)], [False, False]),
    "small boxes a pixel or two apart": ([(0, 0, 4, 4, 0, 0), (3, 0, 7, 4, 0, 1)], [False, True]),
    "two defects side by side": ([(0, 0, 20, 20, 0, 0), (15, 0, 35, 20, 0, 1)], [False, False]),
    "a repetition does not repeat for a third": (
        [(0, 0, 20, 20, 0, 0), (6, 0, 26, 20, 0, 1), (12, 0, 32, 20, 0, 0)],
        [False, True, False],
    ),
}


@pytest.mark.parametrize(("rows", "expected"), AGAIN.values(), ids=AGAIN.keys())
def test_what_two_windows_saw_counts_once(rows: list[tuple[int, ...]], expected: list[bool]) -> None:
    """Of a finding that two windows gave, the worse one is marked; two findings stay two."""
    table = np.array(rows, np.float64).reshape(-1, 6)
    seen = seen_again(table[:, :4], table[:, 4].astype(np.int64), table[:, 5].astype(np.int64))
    assert expected == seen.tolist()
