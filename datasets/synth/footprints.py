"""Places the copper of parts: pads of chips, pin rows, connectors and grids, fiducials and the odd mark."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from datasets.synth.copper import Copper, Pad, Points, Shape, disc, line, polygon, turned
from datasets.synth.tracks import Rules


@dataclass(frozen=True, slots=True, eq=False)
class Footprint:
    """Pads of one part about its centre: ``centres`` (N, 2), ``sizes`` (N, 2) along x and y, ways out (N,)."""

    centres: Points
    sizes: Points
    headings: tuple[int, ...]
    hole_px: float = 0.0


def pad_shape(style: str, centre: Points, size: Points, angle: float) -> Shape:
    """A pad of ``size`` (2,) about ``centre``: round, oblong, square, rounded or octagon."""
    half = size / 2
    if style == "round":
        return disc(float(centre[0]), float(centre[1]), float(half.min()))
    if style == "oblong":
        run = np.array([half[0] - half.min(), half[1] - half.min()])
        return line(turned(np.stack([-run, run]), angle) + centre, 2 * float(half.min()))
    if style == "octagon":
        x, y, cut = float(half[0]), float(half[1]), 0.58 * float(half.min())
        right = [(x - cut, -y), (x, cut - y), (x, y - cut), (x - cut, y)]
        return polygon(turned(np.array([*right, *((-a, -b) for a, b in right)]), angle) + centre)
    corner = 0.45 * float(half.min()) if style == "rounded" else 0.0
    inner = half - corner
    corners_xy = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * inner
    return polygon(turned(corners_xy, angle) + centre, corner)


def place(copper: Copper, rules: Rules, part: Footprint, *, at: tuple[float, float], angle: float) -> tuple[Pad, ...]:
    """Lay a part with all its pads on nets of their own; nothing and () when a pad has no room."""
    centres = turned(part.centres, angle) + at
    style = rules.pad if part.hole_px == 0 or rules.pad != "rounded" else "octagon"
    shapes = [pad_shape(style, c, s, angle) for c, s in zip(centres, part.sizes, strict=True)]
    if not copper.fits(shapes, rules.clearance_px):
        return ()
    eighths, pads = round(angle / (np.pi / 4)), []
    for shape, (x, y), size, way in zip(shapes, centres, part.sizes, part.headings, strict=True):
        net = copper.put([shape], copper.new_net())
        pads.append(Pad(float(x), float(y), float(size.min()) / 2, net, way + eighths))
        if part.hole_px:
            copper.drill(float(x), float(y), part.hole_px)
    copper.pads.extend(pads)
    return tuple(pads)


def _pads(centres: list[tuple[float, float]], size: tuple[float, float], headings: list[int]) -> Footprint:
    return Footprint(np.array(centres), np.tile(np.array(size), (len(centres), 1)), tuple(headings))


def chip(rng: np.random.Generator, rules: Rules) -> Footprint:
    """Two pads."""
    side = rules.pad_px * rng.uniform(0.8, 1.6)
    gap = side / 2 + rules.clearance_px / 2 + rng.uniform(0, 1.5) * side
    return _pads([(-gap, 0), (gap, 0)], (side, side * rng.uniform(1.0, 1.6)), [4, 0])


def pin_rows(rng: np.random.Generator, rules: Rules) -> Footprint:
    """A small-outline package: two rows of long pads."""
    pins, breadth = int(rng.integers(3, 11)), max(5.0, rules.pad_px * rng.uniform(0.45, 0.7))
    pitch, length = breadth + rules.clearance_px * rng.uniform(1.0, 1.5), breadth * rng.uniform(1.6, 3.0)
    apart = length + rng.uniform(2, 5) * breadth
    xs = (np.arange(pins) - (pins - 1) / 2) * pitch
    rows = [(float(x), sign * apart / 2) for sign in (-1, 1) for x in xs]
    return _pads(rows, (breadth, length), [6] * pins + [2] * pins)


def quad(rng: np.random.Generator, rules: Rules) -> Footprint:
    """A quad flat package: four rows."""
    pins, breadth = int(rng.integers(5, 14)), max(5.0, rules.pad_px * rng.uniform(0.4, 0.6))
    pitch, length = breadth + rules.clearance_px * rng.uniform(1.0, 1.3), breadth * rng.uniform(2.0, 3.0)
    reach = (pins / 2 + 0.5) * pitch + length
    xs = (np.arange(pins) - (pins - 1) / 2) * pitch
    top = np.stack([xs, np.full(pins, -reach)], axis=1)
    sides = [turned(top, quarter * np.pi / 2) for quarter in range(4)]
    sizes = [np.tile([breadth, length] if quarter % 2 == 0 else [length, breadth], (pins, 1)) for quarter in range(4)]
    headings = [6] * pins + [0] * pins + [2] * pins + [4] * pins
    return Footprint(np.vstack(sides), np.vstack(sizes).astype(np.float64), tuple(headings))


def grid(rng: np.random.Generator, rules: Rules) -> Footprint:
    """A ball grid array, or a field of test points."""
    rows, columns = (int(n) for n in rng.integers(3, 9, 2))
    side = rules.pad_px * rng.uniform(0.8, 1.1)
    pitch = side + max(rules.clearance_px * 1.2, rng.uniform(0.6, 1.3) * side)
    y, x = np.mgrid[:rows, :columns]
    centres = np.stack([(x - (columns - 1) / 2).ravel(), (y - (rows - 1) / 2).ravel()], axis=1) * pitch
    present = rng.random(len(centres)) > (0.25 if rng.random() < 0.4 else 0.0)
    centres = centres[present] if present.any() else centres
    angles = np.round(np.arctan2(centres[:, 1], centres[:, 0]) / (np.pi / 4)).astype(int) % 8
    return Footprint(centres, np.full((len(centres), 2), side), tuple(int(a) for a in angles))


def header(rng: np.random.Generator, rules: Rules) -> Footprint:
    """A connector or dual-in-line part: one or two rows of drilled pads."""
    rows, pins = int(rng.integers(1, 3)), int(rng.integers(2, 9))
    side = max(20.0, rules.pad_px * rng.uniform(1.2, 1.8))
    long = side * (rng.uniform(1.2, 1.5) if rules.pad in ("oblong", "octagon") else 1.0)
    pitch, apart = side + rules.clearance_px * rng.uniform(1.0, 2.5), rng.uniform(1.6, 5) * long + rules.clearance_px
    centres = [
        ((pin - (pins - 1) / 2) * pitch, (row - (rows - 1) / 2) * apart) for row in range(rows) for pin in range(pins)
    ]
    headings = [6 if row == 0 else 2 for row in range(rows) for _ in range(pins)]
    part = _pads(centres, (side, long), headings)
    return Footprint(part.centres, part.sizes, part.headings, max(3.5, side * rng.uniform(0.2, 0.3)))


def single(rng: np.random.Generator, rules: Rules) -> Footprint:
    """One drilled pad."""
    side = max(20.0, rules.pad_px * rng.uniform(1.2, 2.4))
    hole = max(3.5, side * rng.uniform(0.15, 0.3))
    way = int(rng.integers(4)) * 2
    return Footprint(np.zeros((1, 2)), np.array([[side, side * rng.choice([1.0, 1.0, 1.4])]]), (way,), hole)


PARTS: dict[str, Callable[[np.random.Generator, Rules], Footprint]] = {
    "chip": chip,
    "pin_rows": pin_rows,
    "quad": quad,
    "grid": grid,
    "header": header,
    "single": single,
}


def fiducial(copper: Copper, rng: np.random.Generator, rules: Rules, *, at: tuple[float, float]) -> None:
    """A dot in a wide clearing, sometimes ringed."""
    radius = rng.uniform(9, 22)
    if not copper.add([disc(*at, radius)], 2 * radius) or rng.random() < 0.6:
        return
    turns = np.linspace(0, 2 * np.pi, 49)
    ring = np.stack([np.cos(turns), np.sin(turns)], axis=1) * (radius * 1.6 + rules.clearance_px) + at
    copper.add([line(ring, rng.uniform(5, 9))], rules.clearance_px)


def mark(copper: Copper, rng: np.random.Generator, rules: Rules, *, at: tuple[float, float]) -> None:
    """A few letters and digits etched in copper."""
    text = "".join(rng.choice(list("ABCDEFHJKLMNPRSTUVXYZ0123456789-"), int(rng.integers(2, 6))))
    scale, thick = rng.uniform(0.9, 2.2), int(rng.integers(4, 7))
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
    box = np.array([[0, -height - thick], [width, -height - thick], [width, below], [0, below]], np.float64) + at
    if copper.fits([polygon(box)], rules.clearance_px + thick):
        letters = np.zeros(copper.nets.shape, np.uint8)
        cv2.putText(letters, text, (round(at[0]), round(at[1])), cv2.FONT_HERSHEY_SIMPLEX, scale, 1, thick)
        copper.fill(letters > 0, copper.new_net())
