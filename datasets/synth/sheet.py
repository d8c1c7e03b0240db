"""A contact sheet of generated defects, for people: does the generator make what the class names say?"""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.synth.boards import BoardPair
from datasets.synth.defects import PCB_CLASSES, Defect
from inspection.images import write_png

Image = NDArray[np.uint8]
_CROP_PX = 64  # pixels of the board around a defect; larger ones are shown smaller
_CELL_PX = 160
_NAME_PX = 190
_GAP_PX = 6
_BOX_COLOUR = (220, 30, 30)


def defect_sheet(pairs: Sequence[BoardPair], path: Path, *, per_class: int = 12) -> Path:
    """Write a PNG with a row for each class: golden crops above frame crops with the label box; returns ``path``.

    Classes beyond the usual six follow them in name order.  OSError when the file cannot be written.
    """
    found = {defect.defect_class for pair in pairs for defect in pair.defects}
    classes = (*PCB_CLASSES, *sorted(found - set(PCB_CLASSES)))
    write_png(path, np.vstack([_row(name, pairs, per_class) for name in classes]))
    return path


def _row(name: str, pairs: Sequence[BoardPair], per_class: int) -> Image:
    row = np.full((2 * _CELL_PX + 3 * _GAP_PX, _NAME_PX + per_class * (_CELL_PX + _GAP_PX), 3), 235, np.uint8)
    examples = list(_examples(name, pairs))
    _write(row, name, _CELL_PX - 10)
    _write(row, f"{len(examples)} made", _CELL_PX + 25)
    for number, (pair, defect) in enumerate(islice(examples, per_class)):
        left = _NAME_PX + number * (_CELL_PX + _GAP_PX)
        cells = _cell(pair.golden, defect, boxed=False), _cell(pair.frame, defect, boxed=True)
        for cell, top in zip(cells, (_GAP_PX, 2 * _GAP_PX + _CELL_PX), strict=True):
            row[top : top + _CELL_PX, left : left + _CELL_PX] = cell
    return row


def _examples(name: str, pairs: Sequence[BoardPair]) -> Iterator[tuple[BoardPair, Defect]]:
    return ((pair, defect) for pair in pairs for defect in pair.defects if defect.defect_class == name)


def _write(row: Image, text: str, baseline: int) -> None:
    cv2.putText(row, text, (8, baseline), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (20, 20, 20), 2, cv2.LINE_AA)


def _cell(image: Image, defect: Defect, *, boxed: bool) -> Image:
    """The surroundings of a defect, enlarged to one cell (_CELL_PX, _CELL_PX, 3); beyond the image is grey."""
    x1, y1, x2, y2 = defect.box_px
    side = max(_CROP_PX, round(1.4 * max(x2 - x1, y2 - y1)))
    left, top = round((x1 + x2 - side) / 2), round((y1 + y2 - side) / 2)
    padded = cv2.copyMakeBorder(image, side, side, side, side, cv2.BORDER_CONSTANT, value=128)
    crop = padded[top + side : top + 2 * side, left + side : left + 2 * side]
    method = cv2.INTER_NEAREST if side < _CELL_PX else cv2.INTER_AREA
    cell = cv2.cvtColor(cv2.resize(crop, (_CELL_PX, _CELL_PX), interpolation=method), cv2.COLOR_GRAY2RGB)
    if boxed:
        scale = _CELL_PX / side
        a, b = ((round((x - left) * scale), round((y - top) * scale)) for x, y in ((x1, y1), (x2, y2)))
        cv2.rectangle(cell, a, b, _BOX_COLOUR, 2)
    return np.asarray(cell, dtype=np.uint8)
