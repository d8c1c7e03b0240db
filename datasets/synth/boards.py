"""Makes one generated sample: a golden, its photograph with defects in it, and the boxes in frame pixels."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.synth.artwork import draw_board
from datasets.synth.camera import CameraModel, photograph
from datasets.synth.defects import Defect, DefectStyle, inject, is_visible, read_artwork
from inspection.geometry import hull
from inspection.types import Box

Image = NDArray[np.uint8]
_LEAST_PX = 3  # a defect cut by the frame's border must show at least this much of its width and height


@dataclass(frozen=True, slots=True, eq=False)
class BoardPair:
    """``frame`` and ``golden`` (H, W) uint8 of one board; ``defects`` lie in the pixels of the frame."""

    frame: Image
    golden: Image
    defects: tuple[Defect, ...]


def generate_pair(
    rng: np.random.Generator,
    golden: Image | None,
    *,
    size_px: tuple[int, int] = (640, 640),
    dark_copper: bool = True,
    defects: int,
    camera: CameraModel,
    style: DefectStyle = DefectStyle(),  # noqa: B008 - frozen
) -> BoardPair:
    """Photograph a board with up to ``defects`` defects; only those that can be seen in the frame are listed.

    The board is ``golden`` (H, W) uint8, or drawn with ``size_px`` (width, height) when that is None.
    """
    if golden is None:
        golden = draw_board(rng, size_px=size_px, dark_copper=dark_copper)
    board, made = inject(read_artwork(golden, dark_copper=dark_copper), rng, count=defects, style=style)
    frame, matrix = photograph(board, rng, camera)
    clean, injected = _seen_from(golden, matrix), _seen_from(board, matrix)
    moved = (_moved(defect, matrix, (frame.shape[1], frame.shape[0])) for defect in made)
    visible = tuple(defect for defect in moved if defect and is_visible(frame, clean, injected, defect))
    return BoardPair(frame, golden, visible)


def _seen_from(board: Image, matrix: NDArray[np.float64]) -> Image:
    """The board (H, W) as an ideal camera sees it."""
    size = (board.shape[1], board.shape[0])
    seen = cv2.warpAffine(board, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(seen, dtype=np.uint8)


def _moved(defect: Defect, matrix: NDArray[np.float64], size_px: tuple[int, int]) -> Defect | None:
    """The defect in frame pixels, its boxes upright and clipped; None when too little of it lies in the frame."""
    x1, y1, x2, y2 = _clipped(hull(matrix, tuple(float(side) for side in defect.changed_px)), size_px)  # type: ignore[arg-type]
    changed = (int(np.floor(x1)), int(np.floor(y1)), int(np.ceil(x2)), int(np.ceil(y2)))
    narrow = min(_LEAST_PX, defect.changed_px[2] - defect.changed_px[0])
    low = min(_LEAST_PX, defect.changed_px[3] - defect.changed_px[1])
    if changed[2] - changed[0] < narrow or changed[3] - changed[1] < low:
        return None
    return replace(defect, box_px=_clipped(hull(matrix, defect.box_px), size_px), changed_px=changed)


def _clipped(box: Box, size_px: tuple[int, int]) -> Box:
    width, height = size_px
    x1, x2 = (min(max(x, 0.0), float(width)) for x in (box[0], box[2]))
    y1, y2 = (min(max(y, 0.0), float(height)) for y in (box[1], box[3]))
    return x1, y1, x2, y2
