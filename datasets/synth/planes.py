"""Wide copper: polygons, poured planes with clearances and thermal spokes, planes cut apart by slits."""

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.synth.copper import Copper, Pad, Points, Shape, disc, line, polygon, random_angle, random_point, turned
from datasets.synth.tracks import Rules, bundle, meander, stray_via, walk

Image = NDArray[np.uint8]


def _outline(rng: np.random.Generator, size_px: Points) -> Shape:
    """A wide polygon about the origin: a chamfered box, an L, a disc or an octagon."""
    half, kind = size_px / 2, rng.random()
    if kind < 0.15:
        return disc(0.0, 0.0, float(half.mean()))
    cut = min(float(half.min()) * rng.uniform(0.15, 0.9), 80.0)
    cuts = np.where(rng.random(4) < 0.55, cut, 1.0)
    corners: list[tuple[float, float]] = []
    for (sx, sy), c in zip(((-1, -1), (1, -1), (1, 1), (-1, 1)), cuts, strict=True):
        a, b = (sx * half[0], sy * (half[1] - c)), (sx * (half[0] - c), sy * half[1])
        corners += [a, b] if sx * sy > 0 else [b, a]
    if kind > 0.7:  # an L: the last corner is taken out
        notch = half * rng.uniform(-0.3, 0.5, 2)
        corners[-2:] = [(-notch[0], half[1]), (-notch[0], notch[1]), (-half[0], notch[1])]
    return polygon(np.array(corners), rng.choice([0.0, 3.0, 8.0]))


def area(copper: Copper, rng: np.random.Generator, rules: Rules) -> None:
    """A wide piece of copper with holes and tracks leaving it; smaller ones are tried where large ones do not fit."""
    size = rng.uniform(0.12, 0.8, 2) * (copper.width, copper.height)
    size = np.clip(size, 3 * rules.track_px + 20, 520.0)
    for _ in range(5):
        shape, centre = _outline(rng, size), np.array(random_point(copper, rng))
        moved = Shape(turned(shape.points, random_angle(rng)) + centre, shape.width_px, shape.filled)
        net = copper.add([moved], rules.clearance_px)
        if net:
            _furnish(copper, rng, rules, (moved, net))
            return
        size = np.maximum(size * 0.75, 30)


def _furnish(copper: Copper, rng: np.random.Generator, rules: Rules, area: tuple[Shape, int]) -> None:
    shape, net = area
    low, high = shape.points.min(0), shape.points.max(0)
    radius = rng.uniform(4, 14)
    for _ in range(int(rng.integers(0, 6)) if rules.drilled else 0):
        x, y = rng.uniform(low, np.maximum(high, low + 1))
        ring = disc(float(x), float(y), radius + 8)
        if _within(copper, ring, net):
            copper.drill(float(x), float(y), radius)
    if rng.random() < 0.6 and len(shape.points) > 1:
        corner = int(rng.integers(len(shape.points)))
        inner = 0.6 * shape.points[corner] + 0.4 * shape.points.mean(0)
        pad = Pad(float(inner[0]), float(inner[1]), rules.track_px, net, int(rng.integers(4)) * 2)
        walk(copper, rng, rules, pad, width_px=rules.track_px * rng.choice([1.0, 1.8]))


def _within(copper: Copper, shape: Shape, net: int) -> bool:
    canvas = np.zeros(copper.nets.shape, np.uint8)
    shape.draw(canvas, 1)
    return bool(np.all(copper.nets[canvas > 0] == net)) and not bool(np.any(copper.holes[canvas > 0]))


def slit_planes(copper: Copper, rng: np.random.Generator) -> None:
    """Planes cut apart by slits and clearings: a board drawn in the negative, where copper is what is left standing."""
    cuts = Copper((copper.width, copper.height))
    slit = rng.uniform(10, 24)
    rules = Rules(slit, rng.uniform(16, 70), rng.uniform(8, 50), rng.uniform(20, 110), False, False, "sharp", "square")
    for _ in range(int(rng.integers(0, 3))):
        bundle(cuts, rng, rules, tracks=int(rng.integers(1, 4)), width_px=slit)
    for _ in range(int(rng.integers(0, 9))):
        meander(cuts, rng, rules, width_px=slit)
    for _ in range(int(rng.integers(0, 4))):
        area(cuts, rng, rules)
    for _ in range(int(rng.integers(1, 9))):
        stray_via(cuts, rng, rules)
    plane = np.zeros_like(copper.holes)
    if rng.random() < 0.4:
        plane[:] = 1
    for _ in range(int(rng.integers(1, 4))):
        centre = np.array(random_point(copper, rng))
        side = rng.uniform(250, 900, 2)
        shape = disc(0.0, 0.0, float(side[0]) / 2) if rng.random() < 0.4 else _outline(rng, side)
        Shape(shape.points + centre, shape.width_px, shape.filled).draw(plane, 1)
    plane[cuts.nets > 0] = 0
    copper.fill_pieces(_opened(plane), 900)


def pour(copper: Copper, rng: np.random.Generator, rules: Rules) -> None:
    """Flood a region with a plane that keeps clear of everything; some drilled pads join it through thermal spokes."""
    taken = (copper.nets != 0).astype(np.uint8)
    gap = max(rules.clearance_px, rng.uniform(8, 18))
    distance = cv2.distanceTransform(1 - taken, cv2.DIST_L2, 5)
    region = np.zeros_like(taken)
    if rng.random() < 0.5:
        region[:] = 1
    else:
        shape = _outline(rng, rng.uniform(0.5, 1.2, 2) * (copper.width, copper.height))
        Shape(shape.points + np.array(random_point(copper, rng)), shape.width_px, shape.filled).draw(region, 1)
    region[distance <= gap] = 0
    plane = _opened(region)
    if rng.random() < 0.25:
        plane = _hatched(plane, rng)
    for net in copper.fill_pieces(plane, 1500):
        _thermals(copper, rng, (net, gap))


def _opened(plane: Image) -> Image:
    """The plane without necks and whiskers under 9 px."""
    round_9 = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    return np.asarray(cv2.morphologyEx(plane, cv2.MORPH_OPEN, round_9), dtype=np.uint8)


def _hatched(plane: Image, rng: np.random.Generator) -> Image:
    """The plane with a lattice of square windows cut out; windows that its rim would leave tiny stay closed."""
    pitch, bar, edge = int(rng.integers(30, 70)), int(rng.integers(10, 16)), int(rng.integers(10, 20))
    y, x = np.mgrid[: plane.shape[0], : plane.shape[1]]
    across, along = (x + y, x - y) if rng.random() < 0.5 else (x, y)
    inner = cv2.erode(plane, np.ones((2 * edge + 1, 2 * edge + 1), np.uint8), borderValue=1)
    windows = ((across % pitch >= bar) & (along % pitch >= bar)).astype(np.uint8) & inner
    windows = np.asarray(cv2.morphologyEx(windows, cv2.MORPH_OPEN, np.ones((7, 7), np.uint8)), dtype=np.uint8)
    return np.asarray(plane & (1 - windows), dtype=np.uint8)


def _thermals(copper: Copper, rng: np.random.Generator, plane: tuple[int, float]) -> None:
    net, gap = plane
    for pad in copper.pads:
        if rng.random() > 0.25 or pad.radius_px < 8:
            continue
        reach, width = pad.radius_px * 1.45 + gap + 6, max(5.0, 0.5 * pad.radius_px)
        ends = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]]) * reach + (pad.x, pad.y)
        spokes = [line(ends[:2], width), line(ends[2:], width)]
        if copper.all_on(ends, net) and copper.fits(spokes, gap * 0.6, (net, pad.net)):
            copper.put(spokes, net)
            copper.join(net, pad.net)
