"""Pure functions on boxes, tiles and affine matrices.  Arrays in, arrays out."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inspection.types import Box

Floats = NDArray[np.float64]
Matrix = NDArray[np.float64]  # 2x3 affine
Window = tuple[int, int, int, int]  # x1, y1, x2, y2 pixels, half-open


@dataclass(frozen=True, slots=True)
class Tile:
    """A window of the frame: ``x1, y1, x2, y2`` pixels to look at, and the ``core`` part it answers for."""

    window: Window
    core: tuple[float, float, float, float]


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, 0..1."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    if wide <= 0 or high <= 0:
        return 0.0
    both = wide * high
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return both / (areas - both)


def tiles(width: int, height: int, *, side: int, overlap: int) -> Iterator[Tile]:
    """Cut a frame into square windows of ``side`` pixels that overlap by ``overlap``; cores cover it exactly once.

    ValueError unless 0 <= ``overlap`` < ``side``: such windows would not cover the frame.
    """
    if not 0 <= overlap < side:
        raise ValueError(f"windows of {side} px cannot overlap by {overlap} px")
    columns, rows = _starts(width, side, overlap), _starts(height, side, overlap)
    for row, y in enumerate(rows):
        for column, x in enumerate(columns):
            window = (x, y, min(x + side, width), min(y + side, height))
            core = (
                _edge(columns, column, side), _edge(rows, row, side),
                _edge(columns, column + 1, side, width), _edge(rows, row + 1, side, height),
            )  # fmt: skip
            yield Tile(window, core)


def _starts(length: int, side: int, overlap: int) -> list[int]:
    if length <= side:
        return [0]
    count = -(-(length - overlap) // (side - overlap))
    return [round(index * (length - side) / (count - 1)) for index in range(count)]


def _edge(starts: list[int], index: int, side: int, length: int = 0) -> float:
    """Border between window ``index`` - 1 and ``index``: the middle of their overlap."""
    if index == 0:
        return float("-inf")
    if index == len(starts):
        return float("inf")
    return (starts[index] + starts[index - 1] + side) / 2


def invert(matrix: Matrix) -> Matrix:
    """Inverse of a 2x3 affine matrix."""
    inner = np.linalg.inv(matrix[:, :2])
    return np.hstack([inner, -inner @ matrix[:, 2:]])


def compose(outer: Matrix, inner: Matrix) -> Matrix:
    """The affine matrix that applies ``inner`` first, then ``outer``."""
    return np.hstack([outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2:] + outer[:, 2:]])


def apply(matrix: Matrix, points: Floats) -> Floats:
    """Move points (M, 2) by a 2x3 affine matrix."""
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2])


def seen_again(boxes: Floats, labels: NDArray[np.int64], owners: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which findings (M, 4), best first, repeat a better one that another window (``owners``, (M,)) has given.

    The same class (``labels``) at IoU > 0.45 or with centres within 4 px, or any class at IoU > 0.6.
    """
    again = np.zeros(len(boxes), bool)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    for row in range(1, len(boxes)):
        inner = np.minimum(boxes[:row, 2:], boxes[row, 2:]) - np.maximum(boxes[:row, :2], boxes[row, :2])
        shared = np.clip(inner, 0, None).prod(1)
        iou = shared / (area[:row] + area[row] - shared)
        near = np.abs(centre[:row] - centre[row]).max(1) <= 4
        alike = (labels[:row] == labels[row]) & ((iou > 0.45) | near) | (iou > 0.6)
        again[row] = bool(np.any(alike & (owners[:row] != owners[row]) & ~again[:row]))
    return again


def hull(matrix: Matrix, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """The upright box around a box moved by a 2x3 affine matrix."""
    x1, y1, x2, y2 = box
    moved = apply(matrix, np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], float))
    (a, b), (c, d) = moved.min(0), moved.max(0)
    return float(a), float(b), float(c), float(d)
