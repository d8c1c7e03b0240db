"""Outlines that defects take: strokes, bars, scribbles, blobs, clusters.  Each is a small boolean patch."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Patch = NDArray[np.bool_]
_HALF = 72  # patches are 2 * _HALF pixels wide before trimming


def _canvas() -> NDArray[np.uint8]:
    return np.zeros((2 * _HALF, 2 * _HALF), np.uint8)


def _direction(angle: float) -> NDArray[np.float64]:
    return np.array([np.cos(angle), np.sin(angle)])


def stroke(rng: np.random.Generator, length_px: float, angle: float) -> Patch:
    """A brush stroke: a gently curving line whose width swells and tapers."""
    canvas, steps = _canvas(), max(3, int(length_px))
    bend, radius = rng.normal(0, 1.6) / steps, rng.uniform(0.8, max(1.2, min(5.0, length_px / 3.5)))
    wobble, phase = rng.uniform(0, 0.5), rng.uniform(0, 6.3)
    thin = rng.uniform(0, 0.9) if rng.random() < 0.4 else 0.0  # one end drawn out to a point
    point = _HALF - _direction(angle) * length_px / 2
    for step in range(steps + 1):
        width = radius * (1 - wobble * abs(np.sin(phase + 3 * step / steps))) * (1 - thin * step / steps)
        cv2.circle(canvas, (round(point[0]), round(point[1])), max(1, round(width)) - 1, 1, -1)
        cv2.circle(canvas, (round(point[0] + 0.5), round(point[1])), max(1, round(width)) - 1, 1, -1)
        point = point + _direction(angle + bend * (step - steps / 2)) * length_px / steps
    return canvas.astype(bool)


def bar(rng: np.random.Generator, length_px: float, angle: float) -> Patch:
    """A straight bar with square ends, sometimes with a foot (an L or a T)."""
    canvas, across = _canvas(), angle + np.pi / 2
    thick = rng.uniform(1.5, max(2.5, min(9.0, length_px / 1.5)))
    if rng.random() < 0.5:  # image editors draw along the axes
        angle, across = round(angle / (np.pi / 2)) * np.pi / 2, round(across / (np.pi / 2)) * np.pi / 2
    _quad(canvas, np.array([_HALF, _HALF]), (angle, length_px), thick)
    if rng.random() < 0.3:
        end = _HALF + _direction(angle) * length_px / 2 * rng.choice([-1, 0, 1])
        _quad(canvas, end, (across, length_px * rng.uniform(0.3, 1.0)), thick)
    return canvas.astype(bool)


def _quad(canvas: NDArray[np.uint8], centre: NDArray[np.float64], run: tuple[float, float], thick: float) -> None:
    along, across = _direction(run[0]) * run[1] / 2, _direction(run[0] + np.pi / 2) * thick / 2
    corners = [centre - along - across, centre + along - across, centre + along + across, centre - along + across]
    cv2.fillPoly(canvas, [np.round(corners).astype(np.int32)], 1)


def scribble(rng: np.random.Generator, length_px: float, angle: float) -> Patch:
    """Several thin lines to and fro, leaving slivers between them."""
    canvas, spread = _canvas(), rng.uniform(0.1, 0.45) * length_px + 1.5
    lines = int(rng.integers(2, 7))
    points = []
    for line in range(lines):
        side = _HALF + _direction(angle + np.pi / 2) * (line / max(1, lines - 1) - 0.5) * spread * 2
        sign = 1 if line % 2 else -1
        points += [side + _direction(angle) * sign * s * length_px / 2 * rng.uniform(0.6, 1.0) for s in (-1, 1)]
    path = np.array(points) + rng.normal(0, 0.8, (len(points), 2))
    thick = 1 if rng.random() < 0.6 else 2
    if rng.random() < 0.4:
        for a, b in zip(path[::2], path[1::2], strict=True):
            cv2.line(canvas, tuple(np.round(a).astype(int)), tuple(np.round(b).astype(int)), 1, thick)
    else:
        cv2.polylines(canvas, [np.round(path).astype(np.int32)], False, 1, thick)
    return canvas.astype(bool)


def blob(rng: np.random.Generator, length_px: float, angle: float) -> Patch:
    """A rounded lump: an ellipse whose radius wavers."""
    turns = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    flat = rng.uniform(0.4, 1.0)
    radius = np.ones(40)
    for harmonic in range(2, 6):
        radius += rng.normal(0, 0.22 / harmonic) * np.cos(harmonic * turns + rng.uniform(0, 6.3))
    oval = np.stack([np.cos(turns) * radius, np.sin(turns) * radius * flat], 1) * length_px / 2
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    canvas = _canvas()
    cv2.fillPoly(canvas, [np.round(oval @ turn.T + _HALF).astype(np.int32)], 1)
    return canvas.astype(bool)


def cluster(rng: np.random.Generator, length_px: float, angle: float) -> Patch:
    """Overlapping small dots around a line: a ragged lump."""
    canvas = _canvas()
    for _ in range(int(rng.integers(3, 12))):
        along = rng.uniform(-0.5, 0.5) * length_px
        centre = _HALF + _direction(angle) * along + rng.normal(0, min(2.5, 0.15 * length_px + 0.5), 2)
        cv2.circle(
            canvas, (round(centre[0]), round(centre[1])), int(rng.integers(0, max(2, int(length_px / 6)))), 1, -1
        )
    return canvas.astype(bool)


def arc(rng: np.random.Generator, length_px: float, angle: float) -> Patch:
    """A hook or ring drawn with a thin brush."""
    canvas, radius = _canvas(), max(2, round(length_px / 2 * rng.uniform(0.5, 1.0)))
    axes = (radius, max(2, round(radius * rng.uniform(0.4, 1.0))))
    sweep = rng.uniform(120, 360)
    cv2.ellipse(canvas, (_HALF, _HALF), axes, np.degrees(angle), 0, sweep, 1, int(rng.integers(1, 4)))
    return canvas.astype(bool)


def chain(rng: np.random.Generator, length_px: float, angle: float) -> Patch:
    """A dotted wandering line: specks in a row, near enough to be one defect."""
    canvas, point = _canvas(), _HALF - _direction(angle) * length_px / 2
    size = int(rng.integers(0, 2))
    for _ in range(max(2, int(length_px / 3))):
        centre = np.clip(np.round(point), 3, 2 * _HALF - 4).astype(int)
        cv2.circle(canvas, (int(centre[0]), int(centre[1])), size, 1, -1)
        angle += rng.normal(0, 0.35)
        point = point + _direction(angle) * rng.uniform(2.0, 3.4)
    return canvas.astype(bool)


Shape = Callable[[np.random.Generator, float, float], Patch]
SHAPES: tuple[tuple[Shape, float], ...] = (
    (stroke, 0.38),
    (bar, 0.16),
    (scribble, 0.16),
    (blob, 0.14),
    (cluster, 0.10),
    (arc, 0.06),
    (chain, 0.05),
)


def draw_shape(rng: np.random.Generator, length_px: float, angle: float, shape: Shape | None = None) -> Patch:
    """An outline about ``length_px`` long along ``angle`` (radians), trimmed to its pixels; a random one by default."""
    weights = np.array([weight for _, weight in SHAPES])
    shape = shape or SHAPES[int(rng.choice(len(SHAPES), p=weights / weights.sum()))][0]
    patch = shape(rng, min(length_px, 2 * _HALF - 8), angle)
    if rng.random() < 0.5:
        patch = _roughen(rng, patch)
    rows, columns = np.flatnonzero(patch.any(1)), np.flatnonzero(patch.any(0))
    if not rows.size:
        return np.ones((1, 1), bool)
    return patch[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _roughen(rng: np.random.Generator, patch: Patch) -> Patch:
    rough = cv2.GaussianBlur(rng.standard_normal(patch.shape, dtype=np.float32), (0, 0), 1.0)
    soft = cv2.GaussianBlur(patch.astype(np.float32), (0, 0), 0.7)
    return np.asarray(soft + rough * np.float32(rng.uniform(0, 0.7)) > 0.45)
