"""The shapes of generated castings: a design is drawn once, its relief can be had at any turn.

A design is a product; each of its parts has the same shape.  Lengths are in units of the part's radius.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.synth.textures import Plane, clipped

KINDS = ("impeller", "flange", "pulley", "lever", "housing")


@dataclass(frozen=True, slots=True)
class CastingDesign:
    """A product family: what all its good parts share.

    ``radius``: of the part, share of half the picture's shorter side; ``steps``: four rising radii within the part, of
    which each kind makes bore, hub, groove and rim; ``count``: vanes, bolt holes or spokes; ``twist``: of the vanes
    (radians); ``width``: of spokes and walls; ``tone`` and ``ground``: grey level of metal and of the table, 0 to 1;
    ``sand``: roughness of the cast skin; ``turned``: brightness of the bow-tie highlights on machined faces;
    ``edge``: how soft the edges of the relief are.
    """

    kind: str
    radius: float
    steps: tuple[float, float, float, float]
    count: int
    twist: float
    width: float
    tone: float
    ground: float
    sand: float
    turned: float
    edge: float


@dataclass(frozen=True, slots=True, eq=False)
class Relief:
    """The shape of one part, planes (H, W): ``cover`` 0 to 1 where there is metal, ``height`` 0 (the table) to 1,
    ``machined`` 0 to 1 where a tool has been; ``radius`` and ``turn`` (radians) are the polar places of each pixel."""

    cover: Plane
    height: Plane
    machined: Plane
    radius: Plane
    turn: Plane


def draw_design(rng: np.random.Generator) -> CastingDesign:
    """A random product."""
    light = rng.random() < 0.75
    return CastingDesign(
        kind=KINDS[int(rng.integers(len(KINDS)))],
        radius=float(rng.uniform(0.74, 0.9)),
        steps=(
            float(rng.uniform(0.12, 0.2)),
            float(rng.uniform(0.24, 0.34)),
            float(rng.uniform(0.54, 0.66)),
            float(rng.uniform(0.72, 0.84)),
        ),
        count=int(rng.integers(3, 9)),
        twist=float(rng.uniform(1.0, 2.6) * rng.choice([-1, 1])),
        width=float(rng.uniform(0.08, 0.15)),
        tone=float(rng.uniform(0.55, 0.8) if light else rng.uniform(0.28, 0.42)),
        ground=float(rng.uniform(0.1, 0.5) if light else rng.uniform(0.65, 0.9)),
        sand=float(rng.uniform(0.4, 1.2)),
        turned=float(rng.uniform(0.05, 0.3)),
        edge=float(rng.uniform(0.012, 0.03)),
    )


def relief(design: CastingDesign, x: Plane, y: Plane) -> Relief:
    """The shape at places ``x``, ``y`` (H, W), in radii from the middle of the part."""
    radius, turn = np.hypot(x, y), np.arctan2(y, x)
    cover, height, machined = _SHAPES[design.kind](design, x, y, radius, turn)
    return Relief(cover, np.asarray(height * cover, dtype=np.float32), machined, radius, turn)


Layers = tuple[Plane, Plane, Plane]
Shape = Callable[[CastingDesign, Plane, Plane, Plane, Plane], Layers]


def _below(values: Plane, limit: float, edge: float) -> Plane:
    """1 where the values lie below the limit, 0 above, with a ramp ``edge`` wide."""
    return clipped((np.float32(limit) - values) / np.float32(edge) + np.float32(0.5))


def _ring(radius: Plane, inner: float, outer: float, edge: float) -> Plane:
    return _below(radius, outer, edge) - _below(radius, inner, edge)


def _impeller(design: CastingDesign, x: Plane, y: Plane, radius: Plane, turn: Plane) -> Layers:
    """A machined face with a groove, curved vanes in a deep eye, a hub with a bore."""
    bore, hub, eye, _ = design.steps
    edge = design.edge
    face = _ring(radius, eye + 0.08, 1.0, edge)
    collar = _ring(radius, eye - 0.05, eye + 0.035, edge)
    boss = _ring(radius, bore, hub, edge)
    wave = np.cos(design.count * (turn - design.twist * radius))
    vanes = clipped((wave - 0.55) * 4) * _ring(radius, hub, eye - 0.05, edge)
    height = 0.85 * face - 0.1 * radius * face + 0.9 * collar + 0.95 * boss + 0.28 * vanes + 0.15
    inside = _below(radius, bore, edge)
    return _below(radius, 1.0, edge), height + 0.25 * inside, clipped(face + collar + boss)


def _holes(design: CastingDesign, x: Plane, y: Plane, at: float, size: float) -> Plane:
    """Where bolt holes are (H, W), 0 to 1."""
    holes = np.zeros_like(x)
    for number in range(design.count):
        angle = 2 * np.pi * number / design.count
        away = np.hypot(x - np.float32(at * np.cos(angle)), y - np.float32(at * np.sin(angle)))
        np.maximum(holes, _below(away, size, design.edge), out=holes)
    return holes


def _flange(design: CastingDesign, x: Plane, y: Plane, radius: Plane, turn: Plane) -> Layers:
    """A cast disc with bolt holes, a raised machined face, a bore."""
    _, hub, face, _ = design.steps
    edge = design.edge
    through = _below(radius, hub - 0.02, edge)
    holes = _holes(design, x, y, (1 + face) / 2, 0.085)
    raised = _ring(radius, hub - 0.02, face, 2 * edge)
    spot = clipped(_holes(design, x, y, (1 + face) / 2, 0.13) - holes)
    cover = _below(radius, 1.0, edge) * (1 - through) * (1 - holes)
    height = np.float32(0.5) + 0.4 * raised - 0.06 * spot - 0.1 * _ring(radius, face - 0.12, face - 0.07, edge)
    return cover, height, clipped(raised + spot)


def _pulley(design: CastingDesign, x: Plane, y: Plane, radius: Plane, turn: Plane) -> Layers:
    """A rim, straight spokes, a hub."""
    bore, hub, _, rim = design.steps
    edge = design.edge
    count = max(3, min(6, design.count))
    nearest = (turn + np.pi / count) % (2 * np.pi / count) - np.pi / count
    across = np.abs(radius * np.sin(nearest)) - design.width * (0.4 - 0.15 * radius)
    spokes = _below(across, 0.0, 2 * edge) * _ring(radius, hub - 0.02, rim + 0.02, edge)
    band, boss = _ring(radius, rim, 1.0, edge), _ring(radius, bore, hub, 2 * edge)
    cover = clipped(band + boss + spokes)
    groove = _ring(radius, (1 + rim) / 2 - 0.03, (1 + rim) / 2 + 0.03, edge)
    height = np.maximum(np.maximum(0.9 * band - 0.25 * groove, boss), 0.55 * spokes)
    return cover, height, clipped(band + _ring(radius, bore, hub - 0.04, edge))


def _capsule(x: Plane, y: Plane, ends: NDArray[np.float64], sizes: tuple[float, float]) -> Plane:
    """Distance from a bar between two ends (2, 2) whose half widths are ``sizes``; negative within."""
    run = ends[1] - ends[0]
    along = clipped(((x - ends[0, 0]) * run[0] + (y - ends[0, 1]) * run[1]) / float(run @ run))
    width = np.float32(sizes[0]) + along * np.float32(sizes[1] - sizes[0])
    away = np.hypot(x - np.float32(ends[0, 0]) - along * run[0], y - np.float32(ends[0, 1]) - along * run[1])
    return np.asarray(away - width, dtype=np.float32)


def _lever(design: CastingDesign, x: Plane, y: Plane, radius: Plane, turn: Plane) -> Layers:
    """Two bosses with bores, a tapering arm with a rib between them."""
    bore, hub, _, _ = design.steps
    edge, ends = design.edge, np.array([[-0.62, 0.0], [0.68, 0.12 * np.sign(design.twist)]])
    arm = _capsule(x, y, ends, (hub * 0.75, hub * 0.5))
    rib = _capsule(x, y, ends, (0.05, 0.03))
    away = [np.hypot(x - np.float32(a), y - np.float32(b)) for a, b in ends]
    bosses = np.maximum(_below(away[0], hub + 0.06, 2 * edge), _below(away[1], hub - 0.04, 2 * edge))
    holes = np.maximum(_below(away[0], bore + 0.02, edge), _below(away[1], bore - 0.04, edge))
    cover = clipped(np.maximum(_below(arm, 0.0, edge), bosses)) * (1 - holes)
    height = np.maximum(0.45 * _below(arm, 0.0, 2 * edge), np.maximum(0.95 * bosses, 0.75 * _below(rib, 0.0, 3 * edge)))
    return cover, height, np.maximum(_below(away[0], hub + 0.02, edge), _below(away[1], hub - 0.08, edge))


def _housing(design: CastingDesign, x: Plane, y: Plane, radius: Plane, turn: Plane) -> Layers:
    """A cover with rounded corners, a machined sealing edge, corner holes, a sunk floor with ribs."""
    x, y, radius = (np.asarray(plane * np.float32(1.2), dtype=np.float32) for plane in (x, y, radius))
    edge, corner, aspect = design.edge, np.float32(0.25), np.float32(0.62 + design.width)
    px, py = np.abs(x) - (0.98 - corner), np.abs(y) - (aspect - corner)
    rounded, flat = np.hypot(np.maximum(px, 0), np.maximum(py, 0)), np.minimum(np.maximum(px, py), 0)
    outer = np.asarray(rounded + flat - corner, dtype=np.float32)
    plate, floor = _below(outer, 0.0, edge), _below(outer, -0.2, 2 * edge)
    away = np.hypot(np.abs(x) - (0.98 - 0.14), np.abs(y) - (aspect - 0.14))
    holes = _below(np.asarray(away, dtype=np.float32), 0.06, edge)
    wave = np.abs(np.sin(x * np.float32(design.count))) / np.float32(design.count)
    ribs = _below(np.asarray(wave, dtype=np.float32), 0.025, edge) * floor
    boss = _ring(radius, design.steps[0], design.steps[1], 2 * edge)
    height = 0.8 * plate - 0.5 * floor + np.maximum(0.22 * ribs, 0.45 * boss)
    return plate * (1 - holes), height, clipped(plate - floor + boss)


_SHAPES: dict[str, Shape] = {
    "impeller": _impeller,
    "flange": _flange,
    "pulley": _pulley,
    "lever": _lever,
    "housing": _housing,
}
