"""Regions of interest: polygons drawn on the golden template, laid over a frame, and which findings lie in them.

Pure geometry in pixels.  Coordinates as everywhere: origin top-left, x right, y down.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import cv2
import numpy as np

from inspection.geometry import Matrix, apply
from inspection.types import Box

RoiKind = Literal["inspect", "keep_out"]
Point = tuple[float, float]
Side = tuple[Point, Point]
MOST_KEPT_OUT = 0.5  # share of the picture


@dataclass(frozen=True, slots=True)
class Roi:
    """A simple polygon with the name that rules use."""

    roi_id: str
    kind: RoiKind
    polygon_px: tuple[Point, ...]

    @property
    def area_px(self) -> float:
        """Its area in square pixels."""
        return abs(_signed_area(self.polygon_px))

    def holds(self, point: Point) -> bool:
        """Whether a point lies inside or on the outline."""
        contour = np.array(self.polygon_px, np.float32)
        return cv2.pointPolygonTest(contour, point, measureDist=False) >= 0

    def contains(self, box: Box) -> bool:
        """Whether a box lies wholly inside; touching the outline from within is inside."""
        whole = (box[2] - box[0]) * (box[3] - box[1])
        return self.shared_px(box) >= whole * (1 - 1e-6)

    def shared_px(self, box: Box) -> float:
        """Area it has in common with a box, square pixels."""
        return abs(_signed_area(_clipped(self.polygon_px, box)))

    def edge_distance_px(self, box: Box) -> float:
        """From the nearest point of a box to the outline; 0 where the outline runs through the box."""
        x1, y1, x2, y2 = box
        if any(x1 <= x <= x2 and y1 <= y <= y2 for x, y in self.polygon_px):
            return 0.0
        around = tuple(_sides(((x1, y1), (x2, y1), (x2, y2), (x1, y2))))
        return min(_apart(mine, side) for mine in _sides(self.polygon_px) for side in around)

    def moved(self, matrix: Matrix | None) -> "Roi":
        """Laid over a frame by a 2x3 matrix from golden pixels to frame pixels; None = the two are the same."""
        if matrix is None:
            return self
        points = apply(matrix, np.array(self.polygon_px, float))
        return replace(self, polygon_px=tuple((float(x), float(y)) for x, y in points))


def is_simple(polygon: Sequence[Point]) -> bool:
    """Whether a polygon encloses an area and no two of its sides cross or touch, but neighbours at their corner."""
    sides = list(_sides(polygon))
    if abs(_signed_area(polygon)) < 1e-6 or any(one == other for one, other in sides):
        return False
    count = len(sides)
    for first in range(count):
        for second in range(first + 2, count):
            if (first, second) != (0, count - 1) and _apart(sides[first], sides[second]) == 0:
                return False
    return True


def share_covered(rois: Iterable[Roi], shape: tuple[int, ...]) -> float:
    """Share of a picture (height, width, ..) that the regions cover together, overlaps counted once."""
    scale = min(1.0, 1024 / max(shape[:2]))
    height, width = (max(1, round(side * scale)) for side in shape[:2])
    mask = np.zeros((height, width), np.uint8)
    for roi in rois:
        points = (np.array(roi.polygon_px, float) * scale - 0.5) * 16  # shift = 4: sixteenths of a pixel
        cv2.fillPoly(mask, [points.round().astype(np.int32)], (1,), shift=4)
    return float(mask.mean())


def layout_faults(rois: tuple[Roi, ...], shape: tuple[int, int]) -> tuple[str, ...]:
    """What is wrong with regions on a picture of (height, width): outside of it, or keep-outs that leave too little."""
    picture = (0.0, 0.0, float(shape[1]), float(shape[0]))
    size = f"the picture of {shape[1]}x{shape[0]} px"
    faults = [f"region {roi.roi_id} lies outside {size}" for roi in rois if roi.shared_px(picture) <= 0]
    share = share_covered((roi for roi in rois if roi.kind == "keep_out"), shape)
    if share > MOST_KEPT_OUT:
        faults.append(
            f"keep-outs cover {100 * share:.0f} % of {size}; more than {100 * MOST_KEPT_OUT:.0f} % would switch the check off"
        )
    return tuple(faults)


def _sides(polygon: Sequence[Point]) -> Iterator[Side]:
    return pairwise((*polygon, *polygon[:1]))


def _signed_area(polygon: Sequence[Point]) -> float:
    if len(polygon) < 3:
        return 0.0
    return sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in _sides(polygon)) / 2


def _clipped(polygon: Sequence[Point], box: Box) -> list[Point]:
    """The part of a polygon within a box (Sutherland and Hodgman 1974); its area is right for any simple polygon."""
    points = list(polygon)
    for axis, limit, sign in ((0, box[0], 1), (1, box[1], 1), (0, box[2], -1), (1, box[3], -1)):
        kept: list[Point] = []
        for one, other in _sides(points):
            inside, next_inside = sign * (one[axis] - limit) >= 0, sign * (other[axis] - limit) >= 0
            if inside:
                kept.append(one)
            if inside != next_inside:
                along = (limit - one[axis]) / (other[axis] - one[axis])
                kept.append((one[0] + along * (other[0] - one[0]), one[1] + along * (other[1] - one[1])))
        points = kept
    return points


def _apart(one: Side, other: Side) -> float:
    """Distance between two line segments; 0 where they cross or touch."""
    if _cross(one, other):
        return 0.0
    ends = [(point, other) for point in one] + [(point, one) for point in other]
    return min(_point_apart(point, side) for point, side in ends)


def _cross(one: Side, other: Side) -> bool:
    turns = [_turn(*one, other[0]) * _turn(*one, other[1]), _turn(*other, one[0]) * _turn(*other, one[1])]
    return turns[0] < 0 and turns[1] < 0


def _turn(a: Point, b: Point, c: Point) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _point_apart(point: Point, side: Side) -> float:
    (ax, ay), (bx, by) = side
    dx, dy = bx - ax, by - ay
    length = dx * dx + dy * dy
    along = 0.0 if length == 0 else max(0.0, min(1.0, ((point[0] - ax) * dx + (point[1] - ay) * dy) / length))
    return math.hypot(point[0] - ax - along * dx, point[1] - ay - along * dy)
