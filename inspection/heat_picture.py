"""Draws on one frame what was found: boxes with their scores, and the heat map of models that give one.

A heat map is laid over the frame in grey, so that colour means heat alone.  The colours (plasma) grow lighter from blue
over red to yellow, which every kind of colour vision can order, and cold places stay as plain as they are in the frame.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.images import to_grey
from inspection.inspect_frame import Inspection
from inspection.part_detector import HOT
from inspection.types import Detection, Verdict

Image = NDArray[np.uint8]
Heat = NDArray[np.float32]
BOX = (213, 94, 0)  # RGB, stands out from grey and from colour pictures alike
_WHITE = (255, 255, 255)
_OPAQUE = 0.75  # share of colour at the hottest place: the part stays visible below
_PLAIN_BELOW, _FULL_FROM = 0.05, 0.5  # heats between which colour comes in
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_UNIT_PX = 400  # a frame of this size has lines of one pixel


def draw_inspection(image: Image, seen: Inspection, *, limit: float = 0.5) -> Image:
    """The frame (H, W) or (H, W, 3) uint8 as RGB with the findings its verdict rests on, and its heat map if any.

    ``limit``: the score from which a finding rejects a part, see ``draw_heat``.  An ERROR gives the plain frame.
    """
    if seen.judgement.verdict == Verdict.ERROR:
        return _in_colour(image).copy()
    counted = tuple(found for reason in seen.judgement.reasons for found in reason.detections)
    if seen.heat is None:
        return draw_boxes(image, counted)
    return draw_heat(image, seen.heat, counted, limit=limit)


def draw_heat(image: Image, heat: Heat, detections: Sequence[Detection], *, limit: float = 0.5) -> Image:
    """The frame (H, W) or (H, W, 3) uint8 in grey under its heat map (h, w) in 0..1, as RGB (H, W, 3).

    With findings, a line goes around each hot region (at least half the peak) and a box with its score around each
    finding.  ``limit``: the heat that is drawn as 0.5; give the threshold of the model, because what is hot to one that
    rejects from 0.04 is cold to one that rejects from 0.9.
    """
    height, width = image.shape[:2]
    # Cubic resizing overshoots; linear resizing of a coarse map shows its grid less after a blur of half a cell.
    cell = max(height / heat.shape[0], width / heat.shape[1])
    smooth = cv2.resize(np.asarray(heat, np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    smooth = cv2.GaussianBlur(smooth, (0, 0), cell / 2) if cell > 1 else smooth
    picture = _coloured(to_grey(image), _around(smooth, limit))
    if len(detections):
        hot = (smooth >= HOT * float(smooth.max())).astype(np.uint8)
        outlines, _ = cv2.findContours(hot, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        _twice(picture, lambda colour, weight: cv2.drawContours(picture, outlines, -1, colour, weight), (0, 0, 0))
    return draw_boxes(picture, detections)


def draw_boxes(image: Image, detections: Sequence[Detection]) -> Image:
    """The frame (H, W) or (H, W, 3) uint8 as RGB with a box, class and score for each finding, best on top."""
    picture = _in_colour(image).copy()
    for found in sorted(detections, key=lambda detection: detection.score):
        _box(picture, found)
    return picture


def _in_colour(image: Image) -> Image:
    return image if image.ndim == 3 else np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), np.uint8)


def _around(heat: Heat, limit: float) -> Heat:
    """Heat moved along the axis of log-odds so that ``limit`` lies at 0.5."""
    hot, cold = heat * (1 - limit), limit * (1 - heat)
    return np.asarray(hot / np.maximum(hot + cold, 1e-12), np.float32)


def _coloured(grey: Image, heat: Heat) -> Image:
    colours = cv2.cvtColor(cv2.applyColorMap(np.rint(255 * heat).astype(np.uint8), cv2.COLORMAP_PLASMA), cv2.COLOR_BGR2RGB)
    share = _OPAQUE * np.clip((heat - _PLAIN_BELOW) / (_FULL_FROM - _PLAIN_BELOW), 0, 1)[:, :, None]
    return np.asarray(np.rint((1 - share) * grey[:, :, None] + share * colours), np.uint8)


def _line_px(picture: Image) -> int:
    return max(1, round(max(picture.shape[:2]) / _UNIT_PX))
