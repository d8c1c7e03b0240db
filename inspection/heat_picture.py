"""Draws on one frame what was found: boxes with their scores, and the heat map of models that give one.

A heat map is laid over the frame in grey, so that colour means heat alone.  Its colours (plasma: blue, red, yellow) grow
lighter all the way, so that every kind of colour vision can order them; cold places stay as plain as they are.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.errors import InspectionError, UsageError
from inspection.images import read_image, to_grey, write_png
from inspection.inspect_frame import Inspection
from inspection.part_detector import HOT
from inspection.types import Detection

Image = NDArray[np.uint8]
Heat = NDArray[np.float32]
BOX = (190, 40, 0)  # RGB; on white it has a contrast of 6.5
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_OPAQUE = 0.7  # share of colour where it is hot: the part stays visible below
_PLAIN_BELOW, _FULL_FROM = 0.1, 0.5  # heats between which the colour comes in
_LINE_PX = 400  # side of a frame that is drawn on with lines of one pixel
_TEXT, _TEXT_PX = 0.45, 800  # size of the text, and side of a frame up to which it is that
_FONT = cv2.FONT_HERSHEY_SIMPLEX


class Pictures:
    """A folder that takes the drawn picture of each image of a run; nothing in it is overwritten.

    UsageError when the folder cannot be made or holds a file of a name that is needed.
    """

    def __init__(self, folder: Path, images: Sequence[Path]) -> None:
        self.folder = folder
        self.drawn = 0
        self.unreadable: list[Path] = []
        self._names = iter(picture_names(images))
        present = [name for name in picture_names(images) if (folder / name).exists()]
        if present:
            raise UsageError(
                f"{folder} already holds {present[0]} ({len(present)} of {len(images)} pictures)",
                fix="give a new folder to --pictures; nothing is overwritten",
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"cannot make the folder {folder} ({error.strerror})", fix="give another one to --pictures"
            ) from error

    def draw(self, image: Path, seen: Inspection, limit: float) -> None:
        """Write the picture of the next image; one that cannot be read has none, and is counted."""
        name = next(self._names)
        try:
            picture = draw_inspection(read_image(image), seen, limit=limit)
        except InspectionError:
            self.unreadable.append(image)
            return
        write_png(self.folder / name, picture)
        self.drawn += 1

    def summary(self) -> str:
        """How many pictures there are, and which images have none."""
        without = f"; unreadable, so not drawn: {', '.join(map(str, self.unreadable))}" if self.unreadable else ""
        return f"{self.drawn} pictures in {self.folder}{without}"


def picture_names(images: Iterable[Path]) -> list[str]:
    """A PNG name for each image, after its stem; -2, -3 and so on tell equal stems apart (upper and lower case alike)."""
    taken: set[str] = set()
    used: Counter[str] = Counter()  # where to go on, so that thousands of equal stems take no longer than others
    names = []
    for image in images:
        while (name := _numbered(image.stem, used[image.stem.casefold()])).casefold() in taken:
            used[image.stem.casefold()] += 1
        taken.add(name.casefold())
        names.append(name)
    return names


def _numbered(stem: str, before: int) -> str:
    return f"{stem}-{before + 1}.png" if before else f"{stem}.png"


def draw_inspection(image: Image, seen: Inspection, *, limit: float = 0.5) -> Image:
    """The frame (H, W) or (H, W, 3) uint8 as RGB with the findings its verdict rests on, and its heat map if any.

    ``limit``: as for ``lay_heat``.  A part that is OK, or could not be judged, has no such findings.
    """
    counted = tuple(found for reason in seen.judgement.reasons for found in reason.detections)
    if seen.heat is None:
        return draw_boxes(image, counted)
    return draw_heat(image, seen.heat, counted, limit=limit)


def draw_heat(image: Image, heat: Heat, detections: Sequence[Detection], *, limit: float = 0.5) -> Image:
    """``lay_heat`` with a box for each finding, and outlines where there are findings."""
    return draw_boxes(lay_heat(image, heat, outlined=bool(detections), limit=limit), detections)


def lay_heat(image: Image, heat: Heat, *, outlined: bool, limit: float = 0.5) -> Image:
    """The frame (H, W) or (H, W, 3) uint8 in grey under its heat map (h, w) in 0..1, as RGB (H, W, 3).

    ``outlined``: a line around the hot regions, half the peak and more, as the runtime takes them.
    ``limit``: the heat that is drawn as 0.5.  Give the threshold of the model: what is hot to one that rejects from
    0.04 is cold to one that rejects from 0.9.
    """
    size = (image.shape[1], image.shape[0])
    joined = cv2.resize(np.asarray(heat, np.float32), size, interpolation=cv2.INTER_CUBIC)
    smooth: Heat = np.asarray(np.clip(joined, 0, 1), np.float32)  # cubic curves shoot beyond the values they join
    picture = _coloured(to_grey(image), _around(smooth, limit))
    if outlined:
        hot = (smooth >= HOT * smooth.max()).astype(np.uint8)
        outlines, _ = cv2.findContours(hot, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, _BLACK, 3 * _line_px(picture))
        cv2.drawContours(picture, outlines, -1, _WHITE, _line_px(picture))
    return picture


def draw_boxes(image: Image, detections: Sequence[Detection]) -> Image:
    """The frame (H, W) or (H, W, 3) uint8 as RGB with box, class and score of each finding, the best on top."""
    colour = image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    picture = np.array(colour, np.uint8)
    worst_first = sorted(detections, key=lambda detection: detection.score)
    for found in worst_first:
        _label(picture, found)
    for found in worst_first:  # over all labels: none may hide a place
        start, end = _corners(picture, found)
        cv2.rectangle(picture, start, end, _WHITE, 3 * _line_px(picture))
        cv2.rectangle(picture, start, end, BOX, _line_px(picture))
    return picture


def _around(heat: Heat, limit: float) -> Heat:
    """Heat moved along the axis of log-odds until ``limit`` lies at 0.5."""
    for_it, against = heat * (1 - limit), (1 - heat) * limit
    return np.asarray(for_it / np.maximum(for_it + against, 1e-12), np.float32)


def _coloured(grey: Image, heat: Heat) -> Image:
    levels = np.rint(255 * heat).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_PLASMA), cv2.COLOR_BGR2RGB)
    share = _OPAQUE * np.clip((heat - _PLAIN_BELOW) / (_FULL_FROM - _PLAIN_BELOW), 0, 1)[:, :, None]
    return np.asarray(np.rint((1 - share) * grey[:, :, None] + share * colours), np.uint8)


def _corners(picture: Image, found: Detection) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and last pixel of a box; one that reaches beyond the picture keeps its sides visible."""
    line, (height, width) = _line_px(picture), picture.shape[:2]
    x1, y1, x2, y2 = (round(side) for side in found.region.xyxy_px)
    return (max(line, x1), max(line, y1)), (min(width - 1 - line, x2 - 1), min(height - 1 - line, y2 - 1))


def _label(picture: Image, found: Detection) -> None:
    """Class and score above the box, or below it where there is no room."""
    (x1, y1), (_, y2) = _corners(picture, found)
    line, (height, width) = _line_px(picture), picture.shape[:2]
    text = f"{found.defect_class} {found.score:.2f}".encode("ascii", "replace").decode()
    size = _TEXT * max(1.0, max(height, width) / _TEXT_PX)
    weight = max(1, round(size / _TEXT))
    (wide, high), below = cv2.getTextSize(text, _FONT, size, weight)
    left = max(0, min(x1, width - wide - 4))
    bottom = y1 - below - 2 * line if y1 > high + below + 4 * line else min(height - below, y2 + high + 3 * line)
    cv2.rectangle(picture, (left, bottom - high - 2), (left + wide + 3, bottom + below // 2), _WHITE, -1)
    cv2.putText(picture, text, (left + 2, bottom), _FONT, size, BOX, weight, cv2.LINE_AA)


def _line_px(picture: Image) -> int:
    height, width = picture.shape[:2]
    return max(1, round(int(max(height, width)) / _LINE_PX))
