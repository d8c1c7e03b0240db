"""The defect map: findings over the greyed golden, each as a mark of its class, or where they are many as a density."""

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from inspection.errors import InspectionError
from inspection.images import decode_image, to_grey
from inspection.report.contents import MapPoint, MapView
from inspection.report.wording import Wording

MOST_MARKS = 600  # findings up to which each is a mark
WIDTH_PX = 900  # of the golden in the page
CELLS_ACROSS = 40
SPOTS = 5
_DARKEST = 0.9
_LEAST_SPOT = 3
_JPEG_QUALITY = 72
_PALE = (185, 250)  # grey levels between which the golden is drawn
# Okabe and Ito, darkened until each stands out from the pale golden; the shape says the same.
COLOURS = ("#0072b2", "#b8500a", "#007a5a", "#a8518a", "#6b5900", "#16202a")
OTHER_COLOUR = "#4a5967"
_SHAPES = (
    ((-1, -1), (1, -1), (1, 1), (-1, 1)),
    ((0, -1.25), (1.15, 0.85), (-1.15, 0.85)),
    ((0, -1.35), (1.35, 0), (0, 1.35), (-1.35, 0)),
    ((-0.45, -1.3), (0.45, -1.3), (0.45, -0.45), (1.3, -0.45), (1.3, 0.45), (0.45, 0.45), (0.45, 1.3), (-0.45, 1.3),
     (-0.45, 0.45), (-1.3, 0.45), (-1.3, -0.45), (-0.45, -0.45)),
    ((0, 1.25), (1.15, -0.85), (-1.15, -0.85)),
    ((-1.3, -0.6), (1.3, -0.6), (1.3, 0.6), (-1.3, 0.6)),
)  # fmt: skip
_OTHER_SHAPE = ((-0.6, -1.3), (0.6, -1.3), (0.6, 1.3), (-0.6, 1.3))


@dataclass(frozen=True, slots=True)
class Mark:
    """A drawn finding in golden pixels, or an entry of the legend (around 0, 0) with its class and count."""

    path: str
    colour: str
    name: str = ""
    count: int = 0


@dataclass(frozen=True, slots=True)
class Cell:
    """A square of the golden with findings."""

    x: int
    y: int
    side: int
    opacity: float


@dataclass(frozen=True, slots=True)
class Spot:
    """Three by three squares with many findings: corner, middle of the findings in golden pixels, how many, their share."""

    left: int
    top: int
    x: int
    y: int
    count: int
    share: float
    name: str


@dataclass(frozen=True, slots=True)
class MapDrawing:
    """What the page draws of a map; either ``marks`` or ``cells``.  ``letter`` is the size of labels, golden pixels."""

    uri: str
    alt: str
    marks: tuple[Mark, ...]
    cells: tuple[Cell, ...]
    legend: tuple[Mark, ...]
    hot: tuple[Spot, ...]
    cell_px: int
    spot_px: int
    letter: float


def draw_map(view: MapView, wording: Wording) -> MapDrawing | None:
    """The map of a camera; None where there is no golden to draw on and nothing to place."""
    if view.width < 1 or view.height < 1:
        return None
    side = max(1, -(-max(view.width, view.height) // CELLS_ACROSS))
    hot = _spots(view.points, side)
    marked = len(view.points) <= MOST_MARKS
    styles = _styles(view.points)
    size = 0.008 * max(view.width, view.height)
    marks = tuple(_mark(point, styles, size) for point in view.points) if marked else ()
    cells = () if marked else _cells(view.points, side)
    key, where = ("map_alt", {"x": hot[0].x, "y": hot[0].y}) if hot else ("map_alt_none", {})
    alt = wording.text("page", key, {"camera": view.camera, "n": len(view.points), **where})
    return MapDrawing(
        _greyed(view.golden_png), alt, marks, cells, _legend(view.points, styles) if marked else (), hot, side,
        3 * side, round(1.2 * side, 1),
    )  # fmt: skip


def _greyed(png: bytes | None) -> str:
    """The golden as a pale grey picture, so that what lies on it stands out; empty where it cannot be read."""
    if png is None:
        return ""
    try:
        grey = to_grey(decode_image(png, "golden"))
    except InspectionError:
        return ""
    if grey.shape[1] > WIDTH_PX:
        height = max(1, round(grey.shape[0] * WIDTH_PX / grey.shape[1]))
        grey = np.asarray(cv2.resize(grey, (WIDTH_PX, height), interpolation=cv2.INTER_AREA), np.uint8)
    pale = (_PALE[0] + grey.astype(np.float32) * (_PALE[1] - _PALE[0]) / 255).astype(np.uint8)
    return as_uri(cv2.imencode(".jpg", pale, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes())


def as_uri(jpg: bytes) -> str:
    """A JPEG file as data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(jpg).decode()


def _styles(points: Sequence[MapPoint]) -> dict[str, int]:
    """Place in ``COLOURS`` and ``_SHAPES`` of the most frequent classes."""
    counts = Counter(point.defect_class for point in points)
    return {name: place for place, (name, _) in enumerate(counts.most_common(len(COLOURS)))}


def _path(place: int | None, x: float, y: float, size: float) -> str:
    shape = _OTHER_SHAPE if place is None else _SHAPES[place]
    return "M" + "L".join(f"{x + size * across:.1f} {y + size * down:.1f}" for across, down in shape) + "Z"


def _mark(point: MapPoint, styles: dict[str, int], size: float) -> Mark:
    place = styles.get(point.defect_class)
    return Mark(_path(place, point.x, point.y, size), OTHER_COLOUR if place is None else COLOURS[place])


def _legend(points: Sequence[MapPoint], styles: dict[str, int]) -> tuple[Mark, ...]:
    counts = Counter(point.defect_class for point in points)
    named = [Mark(_path(place, 0, 0, 5.0), COLOURS[place], name, counts[name]) for name, place in styles.items()]
    others = sum(count for name, count in counts.items() if name not in styles)
    return (*named, *([Mark(_path(None, 0, 0, 5.0), OTHER_COLOUR, "", others)] if others else []))


def _cells(points: Sequence[MapPoint], side: int) -> tuple[Cell, ...]:
    counts = Counter((int(point.x // side), int(point.y // side)) for point in points)
    most = max(counts.values())
    return tuple(
        Cell(column * side, row * side, side, round(_DARKEST * (count / most) ** 0.5, 3))
        for (column, row), count in sorted(counts.items())
    )


def _spots(points: Sequence[MapPoint], side: int) -> tuple[Spot, ...]:
    """The places with most findings, most first, none overlapping another; findings that stand alone are no place."""
    squares: dict[tuple[int, int], list[MapPoint]] = {}
    for point in points:
        squares.setdefault((int(point.x // side), int(point.y // side)), []).append(point)
    spots: list[Spot] = []
    while squares and len(spots) < SPOTS:
        column, row = min(squares, key=lambda place: (-len(squares[place]), place))
        around = [(column + across, row + down) for across in (-1, 0, 1) for down in (-1, 0, 1)]
        here = [point for place in around for point in squares.pop(place, ())]
        if len(here) < _LEAST_SPOT:
            break
        if any(
            abs(spot.left - (column - 1) * side) < 3 * side and abs(spot.top - (row - 1) * side) < 3 * side
            for spot in spots
        ):
            continue  # the rim of a place that is there already
        x, y = (round(sum(values) / len(here)) for values in zip(*((point.x, point.y) for point in here), strict=True))
        name = Counter(point.defect_class for point in here).most_common(1)[0][0]
        spots.append(Spot((column - 1) * side, (row - 1) * side, x, y, len(here), len(here) / len(points), name))
    return tuple(sorted(spots, key=lambda spot: -spot.count))
