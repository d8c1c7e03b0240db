"""A contact sheet of generated castings, for people: a row of good parts, and one for each class of defect."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.synth.casting_defects import CASTING_CLASSES, CastingDefect
from datasets.synth.casting_set import CastingPart
from inspection.images import write_png

Image = NDArray[np.uint8]
_CELL_PX, _NAME_PX, _GAP_PX = 160, 190, 6
_CROP_PX = 48  # pixels of the part around a defect; larger ones are shown smaller
_BOX_COLOUR = (220, 30, 30)


def casting_sheet(parts: Sequence[CastingPart], path: Path, *, per_class: int = 12) -> Path:
    """Write a PNG: good parts above, then for each class crops without and with the box; returns ``path``.

    OSError when the file cannot be written.
    """
    good = [_fitted(part.image, _CELL_PX) for part in parts if not part.defects]
    rows = [_row("good", f"{len(good)} made", good, per_class)]
    for name in CASTING_CLASSES:
        found = [(part.image, defect) for part in parts for defect in part.defects if defect.defect_class == name]
        shown = list(islice(found, per_class))
        plain, boxed = ([_cell(image, defect, boxed=box) for image, defect in shown] for box in (False, True))
        rows += [_row(name, f"{len(found)} made", plain, per_class), _row("", "", boxed, per_class)]
    write_png(path, np.vstack(rows))
    return path


def _row(name: str, note: str, cells: Sequence[Image], places: int) -> Image:
    row = np.full((_CELL_PX + _GAP_PX, _NAME_PX + places * (_CELL_PX + _GAP_PX), 3), 235, np.uint8)
    for text, baseline in ((name, _CELL_PX // 2), (note, _CELL_PX // 2 + 35)):
        cv2.putText(row, text, (8, baseline), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (20, 20, 20), 2, cv2.LINE_AA)
    for number, cell in enumerate(islice(cells, places)):
        left = _NAME_PX + number * (_CELL_PX + _GAP_PX)
        row[:_CELL_PX, left : left + _CELL_PX] = cell
    return row


def _fitted(image: Image, side: int) -> Image:
    """The picture (H, W) or (H, W, 3) as a square in colour (side, side, 3)."""
    method = cv2.INTER_AREA if image.shape[0] > side else cv2.INTER_CUBIC
    small = cv2.resize(image, (side, side), interpolation=method)
    return np.asarray(small if small.ndim == 3 else cv2.cvtColor(small, cv2.COLOR_GRAY2RGB), dtype=np.uint8)


def _cell(image: Image, defect: CastingDefect, *, boxed: bool) -> Image:
    """The surroundings of a defect, enlarged to one cell; beyond the picture its border goes on."""
    x1, y1, x2, y2 = defect.box_px
    side = max(_CROP_PX, round(1.4 * max(x2 - x1, y2 - y1)))
    left, top = round((x1 + x2 - side) / 2), round((y1 + y2 - side) / 2)
    padded = cv2.copyMakeBorder(image, side, side, side, side, cv2.BORDER_REPLICATE)
    cell = _fitted(np.asarray(padded[top + side : top + 2 * side, left + side : left + 2 * side]), _CELL_PX)
    if boxed:
        scale = _CELL_PX / side
        a, b = ((round((x - left) * scale), round((y - top) * scale)) for x, y in ((x1, y1), (x2, y2)))
        cv2.rectangle(cell, a, b, _BOX_COLOUR, 1)
    return cell
