"""Reads the serial of a part from a code on it (DataMatrix, QR, Code 128) and settles it with the controller's.

The controller's word and the code are never mixed silently: which of them counts is the recipe's choice, and a code that
cannot be read, is not the only one, or says something else than the controller, ends as a reason, never as a guess.
The reader is zxing-cpp, which ``pip install "lineside[codes]"`` brings; it is imported when the first code is read.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from inspection.errors import DriverMissing, SerialError
from inspection.images import to_grey
from inspection.types import Reason, Verdict

Image = NDArray[np.uint8]
Corners = tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]
CodeFormat = Literal["DataMatrix", "QRCode", "Code128"]
LONGEST = 64  # characters of a serial: what fits on a label, in a record and on a page
_Pixel = Annotated[int, Field(ge=0, le=65535)]
_DOUBLED_BELOW = 4_000_000  # pixels of a picture that is also read at twice its size, which takes four times as long
_SMALL_SIDE = 120  # pixels; smaller pictures are not halved, a code would be lost
_TILTS_DEG = tuple(11.25 * step for step in range(16))  # a linear code is found along rows only, 6 degrees either way
_ROW_STEP = 3


class SerialSection(BaseModel):
    """Where the serial of a part comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Literal["controller", "frame", "either", "both"] = Field(
        default="controller", description="who says the serial: controller; frame = the code on the part; either = the "
        "controller, and the code where it gave none; both = controller and code, which must be equal",
    )  # fmt: skip
    camera: str = Field(
        default="", pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$",
        description="role of the camera that sees the code; empty = the recipe's first camera",
    )  # fmt: skip
    formats: tuple[CodeFormat, ...] = Field(
        default=("DataMatrix", "QRCode", "Code128"), min_length=1, description="kinds of code that are looked for"
    )
    roi_px: tuple[_Pixel, _Pixel, _Pixel, _Pixel] | None = Field(
        default=None, description="box x1, y1, x2, y2 in which the code lies, pixels; left out = the whole frame"
    )
    pattern: str = Field(
        default=f".{{1,{LONGEST}}}", min_length=1, max_length=200,
        description="regular expression that a code's whole text must match to be the serial; other codes on the part "
        f"are passed over. Only printable characters, {LONGEST} at most, are accepted in any case",
    )  # fmt: skip
    unreadable: Literal["error", "review"] = Field(
        default="error", description="verdict for a part whose serial cannot be read; it is never OK"
    )
    repeated: Literal["accept", "error"] = Field(
        default="accept",
        description="verdict for a serial that was judged before in this lot: accept = as it is judged",
    )

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        return pattern

    @field_validator("roi_px")
    @classmethod
    def _holds_pixels(cls, roi: tuple[int, int, int, int] | None) -> tuple[int, int, int, int] | None:
        if roi is not None and not (roi[2] > roi[0] and roi[3] > roi[1]):
            raise ValueError(f"box must have x2 > x1 and y2 > y1, got {roi}")
        return roi


@dataclass(frozen=True, slots=True)
class ReadSerial:
    """A serial as it stands on the part: its text, the kind of code, and the code's corners in frame pixels."""

    text: str
    format: str
    corners: Corners


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """The picture made easier to read, and the transform (2, 3) from its pixels back to those of the frame."""

    image: Image
    back: NDArray[np.float64]


def require_reader(section: SerialSection) -> None:
    """DriverMissing when the recipe has codes read and their reader is not installed; asked before the first part."""
    if section.source != "controller":
        _reader()


def resolve_serial(
    section: SerialSection, trigger_serial: str, frame_image: Image | None
) -> tuple[str, Reason | None, Verdict | None]:
    """The serial read from the frame ("" where none was asked for or found), and why the part may not pass, if so.

    ``frame_image`` (H, W) or (H, W, 3) uint8, None where there is no frame.  The verdict is ERROR or REVIEW and comes
    with its reason.  DriverMissing when codes have to be read and their reader is not installed.
    """
    if section.source == "controller" or (section.source == "either" and trigger_serial):
        return "", None, None
    try:
        read = read_serial(frame_image, section)
    except SerialError as error:
        verdict = Verdict.REVIEW if section.unreadable == "review" else Verdict.ERROR
        return "", Reason(error.rule_id, f"{error.what}: {error.fix}"), verdict
    if section.source == "both" and read.text != trigger_serial:
        said = f"the controller says {_shown(trigger_serial)}" if trigger_serial else "the controller gave none"
        text = f"the code on the part says {_shown(read.text)}, {said}: parts and triggers are out of step"
        return read.text, Reason("serial.mismatch", text), Verdict.ERROR
    return read.text, None, None


def read_serial(image: Image | None, section: SerialSection) -> ReadSerial:
    """The one serial on a frame (H, W) or (H, W, 3) RGB uint8.

    SerialError: no code, none that matches the pattern, or several that do and differ.  Takes milliseconds where the code
    is easily read; where there is none, as long as all attempts take: at 5 megapixels about a second with Code128, a
    tenth of that without it.  A roi_px makes it shorter.
    """
    found = _codes(_looked_at(image, section), section)
    texts = dict.fromkeys(code.text for code in found)
    fitting = [text for text in texts if _fits(text, section)]
    if len(fitting) == 1:
        return next(code for code in found if code.text == fitting[0])
    if fitting:
        raise SerialError(
            f"{len(fitting)} codes may be the serial ({_listed(fitting)})", rule_id="serial.ambiguous",
            fix="set roi_px around the right code, or a pattern that only it matches",
        )  # fmt: skip
    if texts:
        raise SerialError(
            f"no code reads as a serial should ({_listed(list(texts))})", rule_id="serial.pattern",
            fix=f"check the label; the pattern is {section.pattern}, printable characters, {LONGEST} at most",
        )  # fmt: skip
    raise SerialError(
        f"no {' or '.join(section.formats)} code could be read", rule_id="serial.unreadable",
        fix="check label, light and focus; a module of the code needs three pixels and a light border four modules wide",
    )  # fmt: skip


def _looked_at(image: Image | None, section: SerialSection) -> Image:
    if image is None:
        raise SerialError(
            "there is no frame to read the serial from", rule_id="serial.unreadable", fix="check the camera"
        )
    if section.roi_px is None:
        return to_grey(image)
    x1, y1, x2, y2 = section.roi_px
    if y2 > image.shape[0] or x2 > image.shape[1]:
        raise SerialError(
            f"roi_px {section.roi_px} reaches beyond the frame of {image.shape[1]} x {image.shape[0]} pixels",
            rule_id="serial.unreadable",
            fix="correct roi_px in the recipe's section serial",
        )
    return to_grey(image[y1:y2, x1:x2])


def _fits(text: str, section: SerialSection) -> bool:
    short = 0 < len(text) <= LONGEST and text.isprintable()  # first: a pattern never sees an endless text
    return short and re.fullmatch(section.pattern, text) is not None


def _shown(text: str) -> str:
    """A text of unknown origin for a page or a log: control characters escaped, and never long."""
    clear = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: LONGEST + 1])
    return f"'{clear[:LONGEST]}...'" if len(clear) > LONGEST else f"'{clear}'"


def _listed(texts: list[str]) -> str:
    return ", ".join(map(_shown, texts[:3])) + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")


def _codes(grey: Image, section: SerialSection) -> list[ReadSerial]:
    """The codes of the plain picture and of the smoothed one; those of the first harder attempt when there are none."""
    origin = (0, 0) if section.roi_px is None else section.roi_px[:2]
    whole = ",".join(section.formats)
    found = [code for view in _plain_views(grey) for code in _decoded(view, whole, origin)]
    if found:
        return found
    return next(filter(None, (_decoded(view, formats, origin) for view, formats in _harder(grey, section))), [])


def _harder(grey: Image, section: SerialSection) -> Iterator[tuple[_View, str]]:
    """Further attempts with the formats to look for, made one by one as they are needed."""
    for view in _resized(grey):
        yield view, ",".join(section.formats)
    if "Code128" in section.formats:
        for view in _tilted(grey):
            yield view, "Code128"


def _plain_views(grey: Image) -> Iterator[_View]:
    """As it is, and without the noise that breaks up the modules of a DataMatrix."""
    yield _View(grey, np.eye(2, 3))
    yield _View(_smoothed(grey), np.eye(2, 3))


def _resized(grey: Image) -> Iterator[_View]:
    if grey.size < _DOUBLED_BELOW:
        doubled = cv2.resize(grey, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
        yield _View(np.asarray(doubled, np.uint8), np.eye(2, 3) / 2)
    if min(grey.shape) >= _SMALL_SIDE:
        halved = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        yield _View(np.asarray(halved, np.uint8), np.eye(2, 3) * 2)


def _tilted(grey: Image) -> Iterator[_View]:
    """Turned about the centre; dark on light and light on dark.

    Every third row is taken, and three of these are averaged: along the bars that keeps them sharp and takes the noise.
    """
    height, width = grey.shape
    side = int(np.ceil(np.hypot(width, height)))
    rows = max(1, side // _ROW_STEP)
    for angle in _TILTS_DEG:
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
        turn[:, 2] += (side - width) / 2, (side - height) / 2
        turn[1] /= _ROW_STEP
        turned = cv2.warpAffine(grey, turn, (side, rows), borderMode=cv2.BORDER_REPLICATE)
        averaged = np.asarray(cv2.blur(turned, (1, 3)), np.uint8)
        back = np.asarray(cv2.invertAffineTransform(turn), np.float64)
        yield _View(averaged, back)
        yield _View(np.asarray(255 - averaged, np.uint8), back)


def _smoothed(grey: Image) -> Image:
    return np.asarray(cv2.GaussianBlur(grey, (0, 0), 1.0), np.uint8)


def _decoded(view: _View, formats: str, origin: tuple[int, ...]) -> list[ReadSerial]:
    zxing = _reader()
    codes = zxing.read_barcodes(
        np.ascontiguousarray(view.image),
        formats=zxing.barcode_formats_from_str(formats),
        text_mode=zxing.TextMode.Plain,
    )
    return [ReadSerial(code.text, _plain_name(code.format), _corners(code.position, view, origin)) for code in codes]


def _plain_name(code_format: Any) -> str:
    """DataMatrix, QRCode or Code128, as the recipe writes them; versions of the reader differ in their spaces."""
    return str(code_format).replace("BarcodeFormat.", "").replace(" ", "")


def _corners(position: Any, view: _View, origin: tuple[int, ...]) -> Corners:
    """Top-left, top-right, bottom-right, bottom-left of the code as it is printed, in frame pixels."""

    def in_frame(point: Any) -> tuple[float, float]:
        x, y = view.back @ (point.x, point.y, 1.0)
        return float(x) + origin[0], float(y) + origin[1]

    return (
        in_frame(position.top_left), in_frame(position.top_right),
        in_frame(position.bottom_right), in_frame(position.bottom_left),
    )  # fmt: skip


def _reader() -> Any:
    try:
        import zxingcpp
    except ModuleNotFoundError as error:
        raise DriverMissing(
            "reading serials from the frame needs the package zxing-cpp, which is not installed",
            fix='pip install "lineside[codes]"',
        ) from error
    return zxingcpp
