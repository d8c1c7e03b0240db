"""Draws inspected parts side by side: frame with its findings, verdict and reason, golden template beside it."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.types import Detection, Record, Verdict

Image = NDArray[np.uint8]
COLOURS = {  # RGB
    Verdict.OK: (20, 130, 60),
    Verdict.NG: (200, 30, 40),
    Verdict.REVIEW: (215, 130, 0),
    Verdict.ERROR: (120, 50, 160),
}
_SIDE, _BAR, _GAP = 300, 66, 10
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One inspected part: its record, and the images there are (None where none could be taken)."""

    record: Record
    frame: Image | None
    golden: Image | None


def draw_sheet(parts: Sequence[Part], *, columns: int = 3) -> Image:
    """One RGB picture (H, W, 3) uint8 of all parts."""
    cells = [_cell(part) for part in parts]
    blank = np.full_like(cells[0], 255) if cells else np.full((_SIDE, _SIDE, 3), 255, np.uint8)
    cells += [blank] * (-len(cells) % columns or (0 if cells else columns))
    rows = [np.hstack(cells[start : start + columns]) for start in range(0, len(cells), columns)]
    return np.vstack(rows)


def _cell(part: Part) -> Image:
    width = 2 * _SIDE + 3 * _GAP
    cell = np.full((_BAR + _SIDE + 2 * _GAP, width, 3), 255, np.uint8)
    verdict = part.record.judgement.verdict
    cv2.rectangle(cell, (0, 0), (width - 1, _BAR), COLOURS[verdict], -1)
    _write(cell, f"{verdict.name}  {part.record.trigger.serial}", (10, 27), 0.8, 2)
    reasons = "; ".join(reason.text for reason in part.record.judgement.reasons) or "no finding above its limit"
    _write(cell, _shortened(reasons, 78), (10, 53), 0.45, 1)
    top = _BAR + _GAP
    for left, image, title in ((_GAP, part.frame, "frame"), (2 * _GAP + _SIDE, part.golden, "golden")):
        cell[top : top + _SIDE, left : left + _SIDE] = _thumbnail(image, part.record, title)
    return cell


def _thumbnail(image: Image | None, record: Record, title: str) -> Image:
    if image is None:
        empty = np.full((_SIDE, _SIDE, 3), 225, np.uint8)
        cv2.putText(empty, f"no {title}", (90, 155), _FONT, 0.8, (90, 90, 90), 2, cv2.LINE_AA)
        return empty
    scale = _SIDE / max(image.shape[:2])
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    colour = cv2.cvtColor(small, cv2.COLOR_GRAY2RGB) if small.ndim == 2 else small
    canvas = np.full((_SIDE, _SIDE, 3), 255, np.uint8)
    canvas[: colour.shape[0], : colour.shape[1]] = colour
    if title == "frame":
        for reason in record.judgement.reasons:
            verdict = Verdict.REVIEW if reason.rule_id.startswith("review.") else Verdict.NG
            for found in reason.detections:
                _box(canvas, found, scale, COLOURS[verdict])
    cv2.rectangle(canvas, (0, 0), (_SIDE - 1, _SIDE - 1), (150, 150, 150), 1)
    return canvas


def _box(canvas: Image, found: Detection, scale: float, colour: tuple[int, int, int]) -> None:
    x1, y1, x2, y2 = (round(side * scale) for side in found.region.xyxy_px)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, 2)
    text = f"{found.defect_class} {found.score:.2f}"
    (width, height), _ = cv2.getTextSize(text, _FONT, 0.4, 1)
    left, bottom = max(0, min(x1, _SIDE - width - 4)), y1 - 3 if y1 > height + 6 else y2 + height + 5
    cv2.rectangle(canvas, (left, bottom - height - 3), (left + width + 4, bottom + 3), (255, 255, 255), -1)
    cv2.putText(canvas, text, (left + 2, bottom), _FONT, 0.4, colour, 1, cv2.LINE_AA)


def _write(image: Image, text: str, place: tuple[int, int], size: float, weight: int) -> None:
    plain = text.encode("ascii", "replace").decode()
    cv2.putText(image, plain, place, _FONT, size, (255, 255, 255), weight, cv2.LINE_AA)


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
