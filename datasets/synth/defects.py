"""Injects the six PCB defects into any golden image, with exact boxes.

A random outline is laid over the artwork, copper is added or removed inside it, and the **topology** of the
result says which defect it is, so that a shape can be anything and its class is still right:

    removed copper   copper falls apart, or two gaps join     open
                     a new gap, surrounded by copper          pin-hole
                     neither                                  mousebite
    added copper     copper joins up, or a gap is divided     short
                     a new island of copper                   spurious copper
                     neither                                  spur

The change is made in the artwork, before the camera model, so that pasted edges look like every other edge.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.synth.shapes import Patch, arc, draw_shape
from inspection.types import Box

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]
PCB_CLASSES = ("open", "short", "mousebite", "spur", "copper", "pin-hole")
_AROUND = 14  # pixels of surroundings that decide the topology
_PIECE_PX = 40  # a smaller piece is a crumb, unless it goes on outside the surroundings


@dataclass(frozen=True, slots=True)
class DefectStyle:
    """Sizes of injected defects, in pixels of the image.

    ``area_px``: least and most changed pixels.  ``box_margin_px``: how far the label box lies outside the changed
    pixels on each side (people draw loose boxes: about 11 px in DeepPCB; 0 gives tight ones).
    """

    area_px: tuple[int, int] = (18, 1400)
    box_margin_px: float = 11.0
    box_jitter_px: float = 0.0


@dataclass(frozen=True, slots=True)
class Defect:
    """One injected defect: its class, its label box, and the box of the pixels that really changed."""

    defect_class: str
    box_px: Box
    changed_px: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Artwork:
    """A golden image with its copper: ``copper`` is the mask, ``dark_copper`` the polarity, ``edge_px`` its blur."""

    image: Image
    copper: Mask
    dark_copper: bool
    edge_px: float


def read_artwork(golden: Image, *, dark_copper: bool) -> Artwork:
    """Separate copper from substrate (Otsu) in a golden image (H, W) uint8 and measure how soft its edges are."""
    level, light = cv2.threshold(golden, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    if int(golden.max()) - int(golden.min()) < 16:  # bare board: no two materials to separate
        level, light = 127.0, np.where(golden > 127, np.uint8(255), np.uint8(0))
    copper = (light == 0) if dark_copper else (light > 0)
    return Artwork(golden, copper, dark_copper, _edge_sigma(golden, float(level)))


def _edge_sigma(golden: Image, level: float) -> float:
    """Gaussian sigma of the edges: a step of height h blurred by s has its steepest slope h / (s sqrt(2 pi))."""
    light, dark = golden[golden > level], golden[golden <= level]
    if not light.size or not dark.size:
        return 0.0
    step = float(np.median(light)) - float(np.median(dark))
    smooth = golden[::2].astype(np.float32)
    slope = np.abs(np.diff(smooth, axis=1))
    steep = slope[slope > 0.2 * step]
    if not steep.size:
        return 0.0
    return float(np.clip(step / (np.percentile(steep, 80) * np.sqrt(2 * np.pi)) - 0.4, 0.0, 4.0))


def inject(
    artwork: Artwork, rng: np.random.Generator, *, count: int, style: DefectStyle, avoid: tuple[Box, ...] = ()
) -> tuple[Image, tuple[Defect, ...]]:
    """Put up to ``count`` defects into a copy of the artwork, away from ``avoid`` and from each other.

    Classes are drawn evenly as far as the artwork allows (a board without narrow gaps takes few shorts).
    """
    image, copper = artwork.image.copy(), artwork.copper.copy()
    places = _Places(copper)
    taken, defects = list(avoid), []
    for _ in range(count):
        wanted = PCB_CLASSES[int(rng.integers(len(PCB_CLASSES)))]
        for _attempt in range(12):
            found = _try_defect(wanted, copper, places, rng, style)
            if found is None:
                continue
            change, origin, actual = found
            if actual != wanted and rng.random() < 0.7:
                continue
            defect = _labelled(change, origin, actual, rng, style, copper.shape)
            if _touches(defect.changed_px, taken):
                continue
            _paint(image, copper, artwork, (change, origin), rng)
            taken.append(tuple(float(v) for v in defect.changed_px))  # type: ignore[arg-type]
            defects.append(defect)
            break
    return image, tuple(defects)


class _Places:
    """Where each kind of defect can start: distance maps of copper and substrate, made once an image."""

    def __init__(self, copper: Mask) -> None:
        self.inside, self.outside = (
            np.asarray(cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3), dtype=np.float32)
            for mask in (copper, ~copper)
        )

    def choose(self, wanted: str, rng: np.random.Generator) -> tuple[int, int] | None:
        """A random starting pixel (row, column) for the class, or None when a few draws found none."""
        height, width = self.inside.shape
        rows, columns = rng.integers(0, height, 400), rng.integers(0, width, 400)
        inside, outside = self.inside[rows, columns], self.outside[rows, columns]
        # Tracks and gaps of all widths break, but the narrow ones far more often than their share of the area.
        reach = rng.choice([5, 9, 22, 60], p=[0.47, 0.32, 0.14, 0.07])
        fits = {
            "open": (inside > 0) & (inside < reach),
            "short": (outside > 0) & (outside < reach),
            "mousebite": (inside > 0) & (inside < 5),
            "spur": (outside > 0) & (outside < 5),
            "copper": outside > 4,
            "pin-hole": inside > 3,
        }[wanted]
        hits = np.flatnonzero(fits)
        return (int(rows[hits[0]]), int(columns[hits[0]])) if hits.size else None

    def across(self, row: int, column: int, *, of_copper: bool) -> tuple[float, float, tuple[int, int]]:
        """Direction (radians) across the track or gap at a pixel, its width in pixels, and its centre."""
        distance = self.inside if of_copper else self.outside
        row, column = self._climb(distance, row, column)
        top, left = max(0, row - 3), max(0, column - 3)
        around = distance[top : row + 4, left : column + 4]
        slope_y, slope_x = np.gradient(around)
        # The distance map is a ridge along the middle: its slopes point across the track.
        tensor = np.array(
            [[np.sum(slope_x**2), np.sum(slope_x * slope_y)], [np.sum(slope_x * slope_y), np.sum(slope_y**2)]]
        )
        vector = np.linalg.eigh(tensor)[1][:, 1]
        return float(np.arctan2(vector[1], vector[0])), 2.0 * float(distance[row, column]), (row, column)

    @staticmethod
    def _climb(distance: NDArray[np.float32], row: int, column: int) -> tuple[int, int]:
        for _ in range(24):
            top, left = max(0, row - 1), max(0, column - 1)
            around = distance[top : row + 2, left : column + 2]
            step = np.unravel_index(int(np.argmax(around)), around.shape)
            following = (top + int(step[0]), left + int(step[1]))
            if distance[following] <= distance[row, column]:
                break
            row, column = following
        return row, column


def _try_defect(
    wanted: str, copper: Mask, places: _Places, rng: np.random.Generator, style: DefectStyle
) -> tuple[Mask, tuple[int, int], str] | None:
    start = places.choose(wanted, rng)
    if start is None:
        return None
    removes = wanted in ("open", "mousebite", "pin-hole")
    angle, length, shape = rng.uniform(0, np.pi), _length(rng), None
    if wanted in ("open", "short") and max(places.inside[start], places.outside[start]) < 6 and rng.random() < 0.25:
        length, shape = rng.uniform(14, 44), arc  # a hook from edge to edge cuts a corner off, or closes a gap
    elif wanted in ("open", "short"):
        angle, width, start = places.across(*start, of_copper=removes)
        # A slanted stroke needs more length to get across, and hand-drawn ones overshoot.
        slant = rng.normal(0, 0.35)
        length = (width + rng.uniform(1, 6)) / max(0.5, np.cos(slant)) + rng.exponential(2.0)
        angle += slant
        start = (start[0] + int(rng.integers(-2, 3)), start[1] + int(rng.integers(-2, 3)))
    elif rng.random() < 0.25:  # long shallow bites and spurs lie along the edge
        angle = places.across(*start, of_copper=removes)[0] + np.pi / 2 + rng.normal(0, 0.2)
    patch = draw_shape(rng, max(4.0, length), angle, shape)
    origin = (start[0] - patch.shape[0] // 2, start[1] - patch.shape[1] // 2)
    if min(origin) < 3 or origin[0] + patch.shape[0] > copper.shape[0] - 3:
        return None
    if origin[1] + patch.shape[1] > copper.shape[1] - 3:
        return None
    return _change(copper, patch, origin, removes, style)


def _length(rng: np.random.Generator) -> float:
    """Mostly about 12 px, but one in four up to 60: length alone must not tell a bite from an open."""
    return float(rng.uniform(15, 60)) if rng.random() < 0.25 else float(np.exp(rng.normal(np.log(12), 0.5)))


def _change(
    copper: Mask, patch: Patch, origin: tuple[int, int], removes: bool, style: DefectStyle
) -> tuple[Mask, tuple[int, int], str] | None:
    """The pixels that flip, their origin and the class they make; None when too few, too many or not a defect."""
    under = copper[origin[0] : origin[0] + patch.shape[0], origin[1] : origin[1] + patch.shape[1]]
    flips = _largest_group(patch & (under if removes else ~under))
    if not style.area_px[0] <= int(flips.sum()) <= style.area_px[1]:
        return None
    rows, columns = np.flatnonzero(flips.any(1)), np.flatnonzero(flips.any(0))
    flips = flips[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    row, column = origin[0] + int(rows[0]), origin[1] + int(columns[0])
    top, left = max(0, row - _AROUND), max(0, column - _AROUND)
    before = copper[top : row + flips.shape[0] + _AROUND, left : column + flips.shape[1] + _AROUND]
    change = np.zeros_like(before)
    change[row - top : row - top + flips.shape[0], column - left : column - left + flips.shape[1]] = flips
    actual = classify_change(before, change, removes=removes)
    return None if actual is None else (change, (top, left), actual)


def _largest_group(change: Mask) -> Mask:
    """The largest group of pixels lying within 3 px of each other: one defect, not two."""
    near = cv2.dilate(change.astype(np.uint8), np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(near, connectivity=8)
    if count <= 2:
        return change
    return np.asarray(change & (labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))))


def _parts(mask: Mask) -> int:
    """How many connected pieces the mask has (4-connected, so a corner touch does not join).

    Crumbs left at the edge of a bite do not make it an open: pieces below 40 px count only where they touch the
    border, and so go on outside.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    leaving = np.zeros(count, bool)
    for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        leaving[side] = True
    area = stats[:, cv2.CC_STAT_AREA]
    return int(np.sum((area[1:] >= _PIECE_PX) | (leaving[1:] & (area[1:] >= 5))))


def classify_change(before: Mask, change: Mask, *, removes: bool) -> str | None:
    """Name the defect that flipping ``change`` makes of the copper mask ``before``; None when it is none of the six."""
    solid = _filled(change)
    if removes:
        return _classify_removed(before, solid & before)
    return _classify_added(before, solid & ~before)


def _classify_removed(before: Mask, change: Mask) -> str | None:
    after = before & ~change
    copper_more = _parts(after) - _parts(before)
    gaps_more = _parts(~after) - _parts(~before)
    touches_gap = bool(np.any(_grown(change) & ~before))
    if copper_more > 0 or gaps_more < 0:
        return "open"
    if copper_more < 0:
        return None  # a whole feature vanished
    return "mousebite" if touches_gap else "pin-hole"


def _classify_added(before: Mask, change: Mask) -> str | None:
    after = before | change
    copper_more = _parts(after) - _parts(before)
    gaps_more = _parts(~after) - _parts(~before)
    touches_copper = bool(np.any(_grown(change) & before))
    if copper_more < 0 or (gaps_more > 0 and touches_copper):
        return "short"
    if gaps_more < 0:
        return None  # a whole gap was filled
    return "spur" if touches_copper else "copper"


def _filled(change: Mask) -> Mask:
    """The change with the slivers inside it closed, as an eye sees a scribble."""
    closed = cv2.morphologyEx(np.pad(change, 4).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(closed, outlines, -1, 1, -1)
    return closed[4:-4, 4:-4].astype(bool)


def _grown(change: Mask) -> Mask:
    return cv2.dilate(change.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)


def _labelled(
    change: Mask,
    origin: tuple[int, int],
    defect_class: str,
    rng: np.random.Generator,
    style: DefectStyle,
    shape: tuple[int, ...],
) -> Defect:
    rows, columns = np.flatnonzero(change.any(1)), np.flatnonzero(change.any(0))
    y1, y2 = origin[0] + int(rows[0]), origin[0] + int(rows[-1]) + 1
    x1, x2 = origin[1] + int(columns[0]), origin[1] + int(columns[-1]) + 1
    m = style.box_margin_px + rng.uniform(-style.box_jitter_px, style.box_jitter_px, 4)
    box = (max(0.0, x1 - m[0]), max(0.0, y1 - m[1]), min(float(shape[1]), x2 + m[2]), min(float(shape[0]), y2 + m[3]))
    return Defect(defect_class, tuple(float(v) for v in box), (x1, y1, x2, y2))  # type: ignore[arg-type]


def _touches(box: tuple[int, int, int, int], taken: list[Box]) -> bool:
    gap = 6.0
    return any(
        box[0] - gap < t[2] and t[0] < box[2] + gap and box[1] - gap < t[3] and t[1] < box[3] + gap for t in taken
    )


def _paint(
    image: Image, copper: Mask, artwork: Artwork, place: tuple[Mask, tuple[int, int]], rng: np.random.Generator
) -> None:
    """Flip the changed pixels in image and copper, in the local grey of the other material, with the image's edges."""
    change, (top, left) = place
    window = (slice(top, top + change.shape[0]), slice(left, left + change.shape[1]))
    becomes_copper = not bool(copper[window][change].any())
    material = copper[window] if becomes_copper else ~copper[window]
    grey = image[window][cv2.erode(material.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0]
    if grey.size < 20:
        grey = artwork.image[artwork.copper if becomes_copper else ~artwork.copper]
    if not grey.size:  # bare board: there is none of the other material to copy from
        grey = np.array([0 if becomes_copper == artwork.dark_copper else 255], np.uint8)
    fill = float(np.median(grey)) + rng.normal(0, min(6.0, float(np.std(grey)))) * 0.3
    alpha = change.astype(np.float32)
    if artwork.edge_px > 0.3:
        alpha = np.asarray(cv2.GaussianBlur(alpha, (0, 0), artwork.edge_px), dtype=np.float32)
    mixed = image[window].astype(np.float32) * (1 - alpha) + np.float32(fill) * alpha
    image[window] = np.clip(mixed, 0, 255).astype(np.uint8)
    copper[window][change] = becomes_copper


def is_visible(frame: Image, golden: Image, injected: Image, defect: Defect) -> bool:
    """Whether a defect survived the camera: a hairline can vanish when the frame is binarised.

    All three images (H, W) uint8 are aligned; True when at least 30 % of the changed pixels in the frame are nearer to
    the injected image than to the golden.
    """
    x1, y1, x2, y2 = defect.changed_px
    window = (slice(y1, y2), slice(x1, x2))
    seen, clean, made = (image[window].astype(np.int16) for image in (frame, golden, injected))
    changed = np.abs(made - clean) > 40
    if not changed.any():
        return False
    follows = np.abs(seen - made)[changed] < np.abs(seen - clean)[changed]
    return bool(np.mean(follows) >= 0.3)
