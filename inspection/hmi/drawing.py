"""Cuts, scales and marks pictures for pages.  Arrays in, arrays and JPEG bytes out."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.geometry import Window
from inspection.types import Box

Image = NDArray[np.uint8]
WIDTHS = (96, 160, 320, 480, 640, 960, 1280, 1920, 2560)
JPEG_QUALITY = 88
_AROUND = 1.8  # side of a cut-out, as a multiple of the finding's longer side
_LEAST_PX = 96  # side of the smallest cut-out
_INNER, _OUTER = (190, 40, 0), (255, 255, 255)  # RGB
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def width_for(wanted: int) -> int:
    """The least of ``WIDTHS`` that is at least as wide, so that few sizes are made."""
    return next((width for width in WIDTHS if width >= wanted), WIDTHS[-1])


def fitted(image: Image, width: int) -> Image:
    """An image (H, W) or (H, W, 3) made at most ``width`` pixels wide; never enlarged."""
    if image.shape[1] <= width:
        return image
    size = (width, max(1, round(image.shape[0] * width / image.shape[1])))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def window_around(box: Box, shape: tuple[int, ...]) -> Window:
    """A square around a finding, within an image (height, width, ..); where the image is small, as much as it has."""
    height, width = shape[:2]
    x1, y1, x2, y2 = box
    side = max(_LEAST_PX, round(_AROUND * max(x2 - x1, y2 - y1)))
    left, right = _span((x1 + x2) / 2, side, width)
    top, bottom = _span((y1 + y2) / 2, side, height)
    return left, top, right, bottom


def _span(centre: float, side: int, length: int) -> tuple[int, int]:
    side = min(side, length)
    start = min(max(0, round(centre - side / 2)), length - side)
    return start, start + side


def cut_out(image: Image, window: Window, side: int) -> Image:
    """A window of an image, its longer side brought to ``side`` pixels."""
    x1, y1, x2, y2 = window
    part = image[y1:y2, x1:x2]
    scale = side / max(part.shape[:2])
    size = (max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))
    return np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC), np.uint8)


def outlined(image: Image, boxes: Sequence[tuple[int, Box]], scale: float) -> Image:
    """An image (H, W) or (H, W, 3) as RGB with a numbered outline for each box, given in pixels before ``scale``."""
    picture = np.array(image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), np.uint8)
    height, width = picture.shape[:2]
    line = max(2, round(max(height, width) / 400))
    for number, box in reversed(boxes):  # the first on top
        x1, y1, x2, y2 = (round(scale * side) for side in box)
        start = (max(line, x1 - 2 * line), max(line, y1 - 2 * line))  # a little outside: the defect stays bare
        end = (min(width - 1 - line, x2 + 2 * line), min(height - 1 - line, y2 + 2 * line))
        cv2.rectangle(picture, start, end, _OUTER, 3 * line)
        cv2.rectangle(picture, start, end, _INNER, line)
        _number(picture, str(number), start, line)
    return picture


def _number(picture: Image, text: str, corner: tuple[int, int], line: int) -> None:
    """The number of a finding at the upper left of its outline."""
    size = 0.36 * line
    (wide, high), _ = cv2.getTextSize(text, _FONT, size, line)
    left = min(max(0, corner[0] - wide - 3 * line), picture.shape[1] - wide - 4 * line)
    top = min(max(0, corner[1] - high - 3 * line), picture.shape[0] - high - 4 * line)
    cv2.rectangle(picture, (left, top), (left + wide + 3 * line, top + high + 3 * line), _INNER, -1)
    cv2.putText(picture, text, (left + line, top + high + line), _FONT, size, _OUTER, line, cv2.LINE_AA)


def jpeg(image: Image) -> bytes:
    """A grey or RGB image as a JPEG file."""
    stored = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, content = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise ValueError(f"an image of shape {image.shape} cannot be written as JPEG")
    return content.tobytes()
