"""Outlines of the regions in a mask, and the run lengths in which COCO stores masks."""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.sample import Polygon
from inspection.types import Box

Mask = NDArray[np.bool_]
SMALLEST_REGION_PX = 2


def regions(mask: Mask) -> Iterator[tuple[Box, Polygon, int]]:
    """Box, outline and area (px) of each region of a mask ``(H, W)``; pixels touch by sides or corners.

    Box and outline run along the outer sides of the pixels; holes are not kept.
    """
    count, numbers, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    for number in range(1, count):
        x, y, width, height, area = (int(value) for value in stats[number])
        region = numbers[y : y + height, x : x + width] == number
        outline = tuple((px + x, py + y) for px, py in _outline(region))
        yield (float(x), float(y), float(x + width), float(y + height)), outline, area


def _outline(region: Mask) -> list[tuple[float, float]]:
    """The outer sides of the pixels of one region.  At double size each side has a pixel row of its own."""
    doubled = region.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    contours, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    corners = [(float((x + 1) // 2), float((y + 1) // 2)) for x, y in contours[0].reshape(-1, 2)]
    return [corner for i, corner in enumerate(corners) if corner != corners[i - 1]]


def mask_of_runs(counts: str | Sequence[int], height: int, width: int) -> Mask:
    """The mask ``(H, W)`` of COCO run lengths, plain or as compressed text; ValueError when they do not fit."""
    runs = _runs_in(counts) if isinstance(counts, str) else [int(run) for run in counts]
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError(f"run lengths cover {sum(runs)} pixels, the mask has {height}x{width}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape((height, width), order="F")


def _runs_in(text: str) -> list[int]:
    """Run lengths from COCO's text: five bits a character, low bits first, from the fourth on as differences."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(f"{character!r} does not belong into compressed run lengths")
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("compressed run lengths are cut off")
    return runs
