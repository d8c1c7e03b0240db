"""The difference of two dataset versions as one HTML page that opens anywhere, also without a network."""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from datasets.diff import KINDS, BoxChange, DatasetDiff, SampleDiff
from datasets.sample import LabelledBox, Sample
from inspection.errors import DriverMissing, InspectionError, UsageError
from inspection.images import Image, read_image, write_whole
from inspection.types import Box

MOST_CARDS = 300  # of one kind; the rest are named
_SIDE_PX = 340  # longer side of a picture of a whole sample
_CROP_PX = 150  # side of a close-up
_MOST_CROPS = 8
_LEAST_CROP = 48  # pixels of the image that a close-up shows at least
_ROUND = 3.0  # a close-up shows this many times the box
_QUALITY = 85


@dataclass(frozen=True, slots=True)
class Picture:
    """A part of an image as a data URI; ``view`` is x, y, width, height in pixels of the image."""

    uri: str
    view: tuple[float, float, float, float]
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Card:
    """One sample on the page: the whole picture, close-ups of what changed, or why there is no picture."""

    sample: SampleDiff
    picture: Picture | None
    missing: str
    close_ups: tuple[tuple[BoxChange, Picture], ...]
    untold: int


def write_page(path: Path, found: DatasetDiff) -> None:
    """Write the page; the file appears whole or not at all.

    DriverMissing when Jinja2 is not installed, UsageError when the file cannot be written.  An image that cannot be read
    is said on the page.
    """
    try:
        write_whole(path, page(found).encode())
    except OSError as problem:
        raise UsageError(f"cannot write {path}: {problem.strerror}", fix="give a file in a folder with space") from None


def page(found: DatasetDiff) -> str:
    """The page as text."""
    try:
        from jinja2 import Environment, StrictUndefined
    except ModuleNotFoundError as error:
        raise DriverMissing(
            f"a page needs the package {error.name!r}, which is not installed", fix='pip install "lineside[data]"'
        ) from error
    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = made.from_string((Path(__file__).parent / "diff_page.html").read_text(encoding="utf-8"))
    sections = [
        (
            title,
            "1 sample" if len(samples) == 1 else f"{len(samples)} samples",
            [_card(sample) for sample in samples[:MOST_CARDS]],
            samples[MOST_CARDS:],
        )
        for title, samples in (("Changed", found.changed), ("Added", found.added), ("Removed", found.removed))
        if samples
    ]
    return template.render(diff=found, sections=sections, kinds=KINDS, sides=_sides)


def _sides(change: BoxChange) -> Iterator[tuple[str, LabelledBox]]:
    """The labels of a change with the names of their styles; the dashed one last, where both lie in one place."""
    if change.after is not None:
        yield "after", change.after
    if change.before is not None:
        yield "before", change.before


def _card(sample: SampleDiff) -> Card:
    shown = sample.after or sample.before
    assert shown is not None
    image = _image(shown)
    if isinstance(image, str):
        return Card(sample, None, image, (), 0)
    height, width = image.shape[:2]
    whole = _picture(image, (0, 0, width, height), _SIDE_PX)
    close = tuple(
        (change, _picture(image, _around(change.boxes, width, height), _CROP_PX))
        for change in sample.changes[:_MOST_CROPS]
    )
    return Card(sample, whole, "", close, max(0, len(sample.changes) - _MOST_CROPS))


def _image(sample: Sample) -> Image | str:
    try:
        return read_image(sample.image)
    except InspectionError as problem:
        return problem.what


def _around(boxes: Sequence[Box], width: int, height: int) -> tuple[int, int, int, int]:
    """A square around boxes, x1, y1, x2, y2 within the image (smaller where the image is)."""
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    x1, y1, x2, y2 = min(lefts), min(tops), max(rights), max(bottoms)
    side = max(_LEAST_CROP, _ROUND * max(x2 - x1, y2 - y1))
    wide, high = min(side, width), min(side, height)
    left = min(max((x1 + x2 - wide) / 2, 0), width - wide)
    top = min(max((y1 + y2 - high) / 2, 0), height - high)
    return round(left), round(top), round(left + wide), round(top + high)


def _picture(image: Image, part: tuple[int, int, int, int], side: int) -> Picture:
    x1, y1, x2, y2 = part
    cut = image[y1:y2, x1:x2]
    scale = side / max(cut.shape[:2])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    small = cv2.resize(cut, None, fx=scale, fy=scale, interpolation=method)
    stored = small if small.ndim == 2 else cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    content = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
    uri = "data:image/jpeg;base64," + base64.b64encode(content).decode()
    return Picture(uri, (x1, y1, x2 - x1, y2 - y1), small.shape[1], small.shape[0])
