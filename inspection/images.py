"""Reads and writes image files without surprises: no silently half-decoded picture, no channel order left open.

Pixels come back as stored: uint8, grey ``(H, W)`` or colour ``(H, W, 3)`` in RGB order.  EXIF rotation is not
applied, because labels and regions are given in stored pixels.
"""

import os
import re
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.errors import FrameCorrupt, InspectionError, UsageError
from inspection.types import new_id

Image = NDArray[np.uint8]
GOLDEN_END = ".golden"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_PNG, _JPEG, _BMP, _TIFF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", (b"II*\0", b"MM\0*")
# Inside JPEG scan data 0xFF is followed by 0x00 (a data byte) or 0xD0-0xD7 (a restart); anything else is a marker.
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])", re.DOTALL)
_JPEG_END, _JPEG_BARE = 0xD9, {0x01, 0xD8, *range(0xD0, 0xD8)}
_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # tables and arithmetic conditioning, no frames
_HEAD = 1 << 18  # bytes before which a JPEG says its size, behind the tables and texts of other programs


def read_image(path: Path) -> Image:
    """The picture in a PNG, JPEG, BMP or TIFF file, ``(H, W)`` or ``(H, W, 3)`` RGB uint8.

    UsageError: there is no such file, it is no image, or it has 16 bits or transparent pixels.
    FrameCorrupt: the file is empty, truncated or damaged.
    """
    return decode_image(read_bytes(path), str(path))


def read_grey(path: Path) -> Image:
    """The picture in a file as grey ``(H, W)`` uint8; colour becomes luma.  Errors as ``read_image``."""
    return to_grey(read_image(path))


def to_grey(image: Image) -> Image:
    """Luma (0.299 R + 0.587 G + 0.114 B) of an RGB image ``(H, W, 3)``; a grey ``(H, W)`` image comes back as it is."""
    if image.ndim == 2:
        return image
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def read_bytes(path: Path) -> bytes:
    """The bytes of a file; UsageError when it is missing, a folder or locked, FrameCorrupt when it is empty."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}", fix="check the name and the folder") from None
    except OSError as problem:
        raise UsageError(f"cannot read {path}: {problem.strerror}", fix="give a file that may be read") from None
    if not content:
        raise FrameCorrupt(f"{path} is empty (0 bytes)", fix="copy or record the file again")
    return content


def golden_beside(frame: Path) -> Path | None:
    """The golden template lying beside a frame: NAME.golden.png for NAME.png, NAME_temp.* for NAME_test.*; else None."""
    named = frame.with_name(f"{frame.stem}{GOLDEN_END}.png")
    if named.is_file():
        return named
    if not frame.stem.endswith("_test"):
        return None
    stem = frame.stem.removesuffix("_test") + "_temp"
    found = (frame.with_name(stem + suffix) for suffix in (frame.suffix, *IMAGE_SUFFIXES))
    return next((path for path in found if path.is_file()), None)


def is_golden(path: Path) -> bool:
    """Whether a file is named as a golden template, and so is no frame to judge."""
    return path.stem.endswith((GOLDEN_END, "_temp"))


def decode_image(content: bytes, name: str) -> Image:
    """The picture in the bytes of an image file; ``name`` is what errors call it.  Errors as ``read_image``."""
    fault = _fault(content, name)
    if fault is not None:
        raise fault
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise _corrupt(name, "cannot be decoded")
    if pixels.dtype != np.uint8:
        raise UsageError(
            f"{name} has {pixels.dtype.itemsize * 8} bits per channel, 8 are supported",
            fix="set the camera to Mono8 or RGB8, or convert the file to 8 bits with a fixed scale",
        )
    return _in_rgb(np.asarray(pixels, dtype=np.uint8), name)


def _in_rgb(pixels: Image, name: str) -> Image:
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if channels == 1:
        return pixels.reshape(pixels.shape[:2])
    # A fully opaque alpha channel carries nothing and is dropped; transparent pixels have no colour to inspect.
    if channels == 4 and int(pixels[:, :, 3].min()) < 255:
        raise UsageError(f"{name} has transparent pixels", fix="save the image without an alpha channel")
    code = cv2.COLOR_BGRA2RGB if channels == 4 else cv2.COLOR_BGR2RGB
    return np.asarray(cv2.cvtColor(pixels, code), dtype=np.uint8)


def picture_size(path: Path) -> tuple[int, int] | None:
    """Width and height in pixels of a PNG or JPEG file, from its first bytes; None when they are not there."""
    with suppress(OSError, struct.error), path.open("rb") as file:
        head = file.read(_HEAD)
        width, height = 0, 0
        if head.startswith(_PNG):
            width, height = struct.unpack_from(">II", head, 16)
        elif head.startswith(_JPEG):
            height, width = _jpeg_height_width(head)
        if width > 0 and height > 0:
            return width, height
    return None


def _jpeg_height_width(head: bytes) -> tuple[int, int]:
    """From the start-of-frame segment; (0, 0) when there is none.  struct.error when it is cut off."""
    at = 2
    while (found := _JPEG_MARKER.search(head, at)) is not None:
        marker, at = found.group(1)[0], found.end()
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", head, at + 3)
            return int(height), int(width)
        if marker not in _JPEG_BARE:
            at += struct.unpack_from(">H", head, at)[0]
    return 0, 0


def _corrupt(name: str, how: str) -> FrameCorrupt:
    return FrameCorrupt(f"{name} {how}", fix="copy or record the file again")


def _fault(content: bytes, name: str) -> InspectionError | None:
    """What is wrong with the file before decoding: decoders fill a cut-off JPEG with grey and say nothing."""
    if content.startswith(_PNG):
        complete = _png_is_complete(content)
    elif content.startswith(_JPEG):
        complete = _jpeg_is_complete(content)
    elif content.startswith(_BMP):
        complete = len(content) >= 26 and len(content) >= struct.unpack_from("<I", content, 2)[0]
    elif content.startswith(_TIFF):
        complete = True  # the TIFF decoder itself refuses missing strips
    else:
        return UsageError(f"{name} is no PNG, JPEG, BMP or TIFF image", fix="give image files of one of these kinds")
    return None if complete else _corrupt(name, f"is truncated or damaged ({len(content)} bytes)")


def _png_is_complete(content: bytes) -> bool:
    """Walk the chunks (length, kind, data, CRC) up to IEND."""
    at = len(_PNG)
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        end = at + 12 + length
        if end > len(content):
            return False
        (expected,) = struct.unpack_from(">I", content, end - 4)
        if zlib.crc32(memoryview(content)[at + 4 : end - 4]) != expected:
            return False
        if content[at + 4 : at + 8] == b"IEND":
            return True
        at = end
    return False


def _jpeg_is_complete(content: bytes) -> bool:
    """Walk the segments up to the end-of-image marker, so that the one of an embedded thumbnail does not count."""
    at = 2
    while (found := _JPEG_MARKER.search(content, at)) is not None:
        marker, at = found.group(1)[0], found.end()
        if marker == _JPEG_END:
            return True
        if marker in _JPEG_BARE:
            continue
        if at + 2 > len(content):
            return False
        at += struct.unpack_from(">H", content, at)[0]
    return False


def write_png(path: Path, image: Image | NDArray[np.uint16]) -> None:
    """Write ``(H, W)`` uint8 or uint16, or ``(H, W, 3)`` RGB uint8 as PNG; the file appears whole or not at all.

    UsageError when the image is of another form; OSError when the disk is full or the folder missing.
    """
    write_whole(path, encode_png(image))


def encode_png(image: Image | NDArray[np.uint16]) -> bytes:
    """``(H, W)`` uint8 or uint16, or ``(H, W, 3)`` RGB uint8 as a PNG file; UsageError when it is of another form."""
    deep = image.dtype == np.uint16 and image.ndim == 2
    if not (deep or image.dtype == np.uint8) or image.size == 0 or not (image.ndim == 2 or image.shape[2:] == (3,)):
        raise UsageError(
            f"an image of shape {image.shape}, {image.dtype} cannot be written as PNG",
            fix="give (H, W) uint8 or uint16, or (H, W, 3) uint8, with at least one pixel",
        )
    stored = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", stored)[1].tobytes()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, flush it to disk, then give it its name; OSError names the file itself."""
    partial = path.with_name(f".{new_id()}.partial")
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        _remove(partial)
        raise OSError(error.errno, error.strerror, str(path)) from error
    except BaseException:
        _remove(partial)
        raise


def _remove(partial: Path) -> None:
    with suppress(OSError):
        partial.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """Bring the names of a folder's files to the disk, where the system lets a folder be opened."""
    if os.name != "posix":
        return
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
