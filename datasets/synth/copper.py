"""A sheet of copper that knows its nets: features are laid only where they keep clear of other nets.

Points are ``(x, y)`` pixels, origin top-left, x right, y down; headings count eighths of a turn from +x towards +y.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Points = NDArray[np.float64]
KEEP_OUT = -1  # no copper may be laid here
_SHIFT = 4  # coordinates are drawn in sixteenths of a pixel


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """A round-ended line through ``points`` (N, 2), a disc (one point), or, when ``filled``, a polygon with an edge.

    ``width_px`` is the line's width, the disc's diameter, or the width of the polygon's edge (it rounds the corners).
    """

    points: Points
    width_px: float
    filled: bool = False

    def draw(self, mask: NDArray[np.uint8] | NDArray[np.int16], value: int, grow_px: float = 0.0) -> None:
        """Draw into ``mask`` (H, W), each outline moved outwards by ``grow_px``."""
        width = self.width_px + 2 * grow_px
        corners = np.round(self.points * (1 << _SHIFT)).astype(np.int32)
        if len(corners) == 1:
            centre = (int(corners[0, 0]), int(corners[0, 1]))
            cv2.circle(mask, centre, round(width / 2 * (1 << _SHIFT)), value, -1, cv2.LINE_8, _SHIFT)
            return
        if self.filled:
            cv2.fillPoly(mask, [corners], value, cv2.LINE_8, _SHIFT)
        if not self.filled or width > 1.5:
            cv2.polylines(mask, [corners], self.filled, value, max(1, round(width)), cv2.LINE_8, _SHIFT)

    def bounds(self, grow_px: float) -> tuple[int, int, int, int]:
        """``x1, y1, x2, y2`` of a box that holds all drawn pixels."""
        reach = self.width_px / 2 + grow_px + 2
        low, high = self.points.min(0) - reach, self.points.max(0) + reach
        return int(low[0]), int(low[1]), int(high[0]) + 1, int(high[1]) + 1


@dataclass(frozen=True, slots=True)
class Pad:
    """A place where a track may start: its centre, how far its copper surely reaches, its net, the way out."""

    x: float
    y: float
    radius_px: float
    net: int
    heading: int


class Copper:
    """The sheet: ``nets`` (H, W) int16 holds 0 for bare substrate, KEEP_OUT, or the number of the net."""

    def __init__(self, size_px: tuple[int, int]) -> None:
        width, height = size_px
        self.width, self.height = width, height
        self.nets: NDArray[np.int16] = np.zeros((height, width), np.int16)
        self.holes: Image = np.zeros((height, width), np.uint8)
        self.pads: list[Pad] = []
        self._scratch: Image = np.zeros((height, width), np.uint8)
        self._last_net = 0

    def new_net(self) -> int:
        """A net number not used before."""
        self._last_net += 1
        return self._last_net

    def fits(self, shapes: Sequence[Shape], clearance_px: float, own: tuple[int, ...] = ()) -> bool:
        """Whether the shapes keep ``clearance_px`` from all copper but that of the ``own`` nets."""
        window = self._window(shapes, clearance_px)
        for shape in shapes:
            shape.draw(self._scratch, 1, clearance_px)
        nets, wanted = self.nets[window], self._scratch[window]
        foreign = nets != 0
        for net in own:
            foreign &= nets != net
        clear = not bool(np.any(foreign & wanted.view(np.bool_)))
        wanted[:] = 0
        return clear

    def all_on(self, points: Points, net: int) -> bool:
        """Whether all points (N, 2) lie on the board and on this net."""
        columns, rows = np.round(points).astype(int).T
        inside = (columns >= 0) & (rows >= 0) & (columns < self.width) & (rows < self.height)
        return bool(inside.all()) and bool(np.all(self.nets[rows, columns] == net))

    def put(self, shapes: Sequence[Shape], net: int) -> int:
        """Lay the shapes without looking; returns the net."""
        for shape in shapes:
            shape.draw(self.nets, net)
        return net

    def add(self, shapes: Sequence[Shape], clearance_px: float, net: int = 0) -> int:
        """Lay the shapes as ``net`` (a new one when 0) if they keep clear; returns the net, 0 when they do not."""
        if not self.fits(shapes, clearance_px, (net,) if net else ()):
            return 0
        return self.put(shapes, net or self.new_net())

    def drill(self, x: float, y: float, radius_px: float) -> None:
        """A hole through whatever copper is or will be there."""
        Shape(np.array([[x, y]]), 2 * radius_px).draw(self.holes, 1)

    def join(self, kept: int, absorbed: int) -> None:
        """Make two nets one."""
        self.nets[self.nets == absorbed] = kept

    def fill(self, mask: NDArray[np.bool_], net: int) -> None:
        """Lay copper on the pixels of ``mask`` (H, W)."""
        self.nets[mask] = net

    def fill_pieces(self, mask: Image, min_area_px: int) -> list[int]:
        """Lay copper on ``mask`` (H, W) of zeros and ones, each piece as a net, and return the nets.

        Pieces less than 7 px apart are one net, because a camera would join them; small ones are left out.
        """
        labels = cv2.connectedComponents(cv2.dilate(mask, np.ones((7, 7), np.uint8)), connectivity=8)[1] * mask
        areas = np.bincount(labels.ravel())
        names = np.zeros(len(areas), np.int16)
        kept = [piece for piece in range(1, len(areas)) if areas[piece] >= min_area_px]
        names[kept] = [self.new_net() for _ in kept]
        laid = names[labels]
        np.copyto(self.nets, laid, where=laid > 0)
        return [int(name) for name in names[kept]]

    def mask(self) -> Image:
        """The etched board (H, W): 1 copper, 0 substrate; slits under 4 px and whiskers under 3 px are gone."""
        round_5 = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
        copper = cv2.morphologyEx((self.nets > 0).astype(np.uint8), cv2.MORPH_CLOSE, round_5)
        copper = cv2.morphologyEx(copper, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        copper[self.holes > 0] = 0
        return np.asarray(copper, dtype=np.uint8)

    def _window(self, shapes: Sequence[Shape], grow_px: float) -> tuple[slice, slice]:
        bounds = np.array([shape.bounds(grow_px) for shape in shapes])
        x1, y1 = np.maximum(bounds[:, :2].min(0), 0)
        x2, y2 = np.maximum(bounds[:, 2:].max(0), 0)
        return slice(int(y1), int(y2)), slice(int(x1), int(x2))


def disc(x: float, y: float, radius_px: float) -> Shape:
    """A round pad."""
    return Shape(np.array([[x, y]]), 2 * radius_px)


def line(points: Sequence[tuple[float, float]] | Points, width_px: float) -> Shape:
    """A track."""
    return Shape(np.asarray(points, np.float64), width_px)


def polygon(points: Points, corner_px: float = 0.0) -> Shape:
    """A filled outline (N, 2), corners rounded by ``corner_px`` outside it."""
    return Shape(points, max(1.0, 2 * corner_px), filled=True)


def heading_vector(heading: float) -> Points:
    """The unit vector (2,) of a heading."""
    return np.array([np.cos(heading * np.pi / 4), np.sin(heading * np.pi / 4)])


def turned(points: Points, angle: float) -> Points:
    """Points (N, 2) rotated about the origin by ``angle`` radians."""
    return np.asarray(points @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]))


def random_point(copper: Copper, rng: np.random.Generator) -> tuple[float, float]:
    """A pixel anywhere on the board."""
    return float(rng.integers(copper.width)), float(rng.integers(copper.height))


def random_angle(rng: np.random.Generator) -> float:
    """Mostly a quarter turn, sometimes an eighth, rarely askew (radians)."""
    quarter = float(rng.integers(4)) * np.pi / 2
    chance = rng.random()
    if chance < 0.88:
        return quarter
    return quarter + (np.pi / 4 if chance < 0.94 else rng.uniform(-0.6, 0.6))
