"""Puts the pictures into the gallery: a cut-out of the frame with its finding outlined, and the same place on the golden.

What is missing, altered, deleted or cannot be read gives no picture and the word that says why; a frame that is only there
as JPEG is shown and said to be one.  Count and bytes are bounded, so that the page stays small enough to be sent around.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from inspection.config import StationConfig
from inspection.errors import InspectionError, StoreError
from inspection.evidence_ledger import ledger_path
from inspection.geometry import Window
from inspection.hmi.drawing import cut_out, window_around
from inspection.images import Image, read_image
from inspection.no_picture import NoPicture
from inspection.picture_state import PictureLedger, PictureState
from inspection.recipe_config import GOLDEN, RAW
from inspection.recipe_of_record import RecipesOfRecords
from inspection.record_reader import RecordReader
from inspection.report.contents import GalleryItem
from inspection.types import Box, Record

MOST_ITEMS = 64  # with pictures; those beyond say that they were left out
MOST_BYTES = 4_000_000  # of all pictures together
SIDE_PX = 240
_QUALITY = 82
_INNER, _OUTER = (190, 40, 0), (255, 255, 255)  # RGB
_TOLD = {"deleted", "returned", "missing", "altered", "unreadable"}  # states without a picture to show


def with_pictures(config: StationConfig, items: Sequence[GalleryItem]) -> tuple[GalleryItem, ...]:
    """The same items with their pictures, or with the word why one has none.

    StoreError when the record store or the evidence ledger cannot be read at all.
    """
    if not items:
        return ()
    with closing(RecordReader(Path(config.store))) as reader, closing(PictureLedger(config)) as ledger:
        cutter = _Cutter(reader, ledger, RecipesOfRecords(config), has_ledger=ledger_path(Path(config.store)).exists())
        made: list[GalleryItem] = []
        spent = 0
        for number, item in enumerate(items):
            if number >= MOST_ITEMS or spent >= MOST_BYTES:
                made.append(replace(item, why_not="bounded"))
                continue
            made.append(cutter.cut(item))
            spent += len(made[-1].frame_jpg or b"") + len(made[-1].golden_jpg or b"")
    return tuple(made)


@dataclass(slots=True)
class _Cutter:
    """Looks up records and frames; the last frame is kept, for findings of one part follow one another."""

    reader: RecordReader
    ledger: PictureLedger
    recipes: RecipesOfRecords
    has_ledger: bool
    _last: tuple[Path, Image] | None = None

    def cut(self, item: GalleryItem) -> GalleryItem:
        """One item with its pictures."""
        try:
            record = self.reader.find(item.record_id)
        except StoreError:  # of this one record: one that is damaged does not cost the report
            record = None
        if record is None:
            return replace(item, why_not="no_record")
        state, why = _frame_of(self.ledger.states(record), item.camera)
        if state is None or state.path is None:
            return replace(item, why_not=why)
        role = item.camera or state.name
        try:
            frame = self._frame(state.path)
        except InspectionError as error:
            return replace(item, why_not=f"damaged: {error.what}")
        window = window_around(item.box, frame.shape)
        note = why if state.state != "unentered" or self.has_ledger else ""
        seen = replace(item, frame_jpg=_jpeg(_outlined(frame, item.box, window)), why_not=note)
        return self._with_golden(seen, record, role, (frame, window))

    def _frame(self, path: Path) -> Image:
        if self._last is None or self._last[0] != path:
            self._last = (path, read_image(path))
        return self._last[1]

    def _with_golden(self, item: GalleryItem, record: Record, role: str, seen: tuple[Image, Window]) -> GalleryItem:
        frame, window = seen
        try:
            golden = self.recipes.golden_around(record, role, frame, window)
        except NoPicture as refused:
            return replace(item, why_not=f"{refused.word}: {refused.detail}" if refused.detail else refused.word)
        whole = (0, 0, golden.shape[1], golden.shape[0])
        return replace(item, golden_jpg=_jpeg(cut_out(golden, whole, SIDE_PX)))


def _frame_of(states: Sequence[PictureState], role: str) -> tuple[PictureState | None, str]:
    """The state of the camera's frame, and the word for what became of it ("" when it is as it was written)."""
    frames = [state for state in states if not state.name.endswith((RAW, GOLDEN))]
    state = next((state for state in frames if not role or state.name in (role, "")), None)
    if state is None:
        return None, "not_written" if states else "none"
    word = {"whole": "", "missing": "not_written"}.get(state.state, state.state)
    if state.at is not None:
        word += f": {state.at.isoformat()}"
    return (None if state.state in _TOLD else state), word


def _outlined(frame: Image, box: Box, window: Window) -> Image:
    """The window of a frame as RGB, brought to size, with an outline a little outside the box: the defect stays bare."""
    part = cut_out(frame, window, SIDE_PX)
    picture = np.array(part if part.ndim == 3 else cv2.cvtColor(part, cv2.COLOR_GRAY2RGB), np.uint8)
    scale = SIDE_PX / max(window[2] - window[0], window[3] - window[1])
    height, width = picture.shape[:2]
    start = tuple(max(2, round(scale * (side - edge)) - 4) for side, edge in zip(box[:2], window[:2], strict=True))
    end = tuple(
        min(most - 3, round(scale * (side - edge)) + 4)
        for side, edge, most in zip(box[2:], window[:2], (width, height), strict=True)
    )
    cv2.rectangle(picture, start, end, _OUTER, 4)
    cv2.rectangle(picture, start, end, _INNER, 2)
    return picture


def _jpeg(image: Image) -> bytes:
    stored = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
