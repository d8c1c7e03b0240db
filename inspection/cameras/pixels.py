"""From the bytes of a camera to an image: the pixel formats of the GenICam naming convention (PFNC).

A format is known by its name: colours and their order, bits of a pixel, and how these lie in the buffer.

    Mono8, BayerRG8, RGB8       a byte a value
    Mono10, Mono12, Mono16      two bytes a pixel, the lower first, the upper bits zero
    Mono10p, Mono12p            PFNC packing: one stream of bits, the lowest bit of the first pixel first
    Mono10Packed, Mono12Packed  GigE Vision packing: two pixels in three bytes, the middle one holds the low bits of both

Rows follow each other without padding.  Bayer formats have the same packings.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.errors import ConfigError, FrameCorrupt

Bytes = NDArray[np.uint8]
Mosaic = NDArray[np.uint8] | NDArray[np.uint16]
Packing = Literal["", "p", "Packed"]
# OpenCV names a mosaic after its second row, from the second pixel on; PFNC after the first two pixels of the first row.
DEMOSAIC = {
    "RG": cv2.COLOR_BayerBG2RGB,
    "GR": cv2.COLOR_BayerGB2RGB,
    "GB": cv2.COLOR_BayerGR2RGB,
    "BG": cv2.COLOR_BayerRG2RGB,
}
LEAST_BAYER_SIDE = 3  # pixels: below, some colour has no neighbour to be taken from


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """A decoded buffer.  ``image`` (H, W) or (H, W, 3) RGB uint8; both arrays own their memory.

    ``raw`` (H, W) is what the sensor gave where ``image`` holds less: uint16 for more than eight bits a pixel, uint8 for
    a Bayer mosaic of eight bits; else None.
    """

    image: NDArray[np.uint8]
    raw: Mosaic | None


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How the pixels of one format lie in a buffer."""

    colours: Literal["Mono", "RGB", "BGR", "RG", "GR", "GB", "BG"]
    bits: int
    packing: Packing = ""

    def size_bytes(self, count: int) -> int:
        """Bytes of ``count`` pixels."""
        if self.colours in ("RGB", "BGR"):
            return 3 * count
        if self.packing == "p":
            return (count * self.bits + 7) // 8
        if self.packing == "Packed":
            return (count * 3 + 1) // 2
        return count if self.bits == 8 else 2 * count


FORMATS: dict[str, PixelFormat] = {
    "RGB8": PixelFormat("RGB", 8), "RGB8Packed": PixelFormat("RGB", 8),
    "BGR8": PixelFormat("BGR", 8), "BGR8Packed": PixelFormat("BGR", 8),
    **{f"Mono{bits}": PixelFormat("Mono", bits) for bits in (8, 10, 12, 14, 16)},
    **{f"Mono{bits}{way}": PixelFormat("Mono", bits, way) for bits in (10, 12) for way in ("p", "Packed")},
    **{f"Bayer{two}{bits}": PixelFormat(two, bits) for two in ("RG", "GR", "GB", "BG") for bits in (8, 10, 12, 16)},
    **{
        f"Bayer{two}{bits}{way}": PixelFormat(two, bits, way)
        for two in ("RG", "GR", "GB", "BG") for bits in (10, 12) for way in ("p", "Packed")
    },
}  # fmt: skip


def pixel_format(name: str) -> PixelFormat:
    """The format of a PFNC name; ConfigError listing the known ones."""
    if name not in FORMATS:
        raise ConfigError(f"pixel format {name!r} cannot be read", fix=f"known: {', '.join(sorted(FORMATS))}")
    return FORMATS[name]


def decode(buffer: bytes | Bytes, name: str, width: int, height: int) -> Pixels:
    """The pixels of one frame; copies, so the buffer may be filled again at once.

    ``name`` is the PFNC name of the format, ``width`` and ``height`` are in pixels.  Of more than eight bits the image
    has the upper eight.  FrameCorrupt when the buffer has another length than such a frame, or a value has more bits
    than the format; ConfigError for an unknown format.
    """
    layout = pixel_format(name)
    stream = np.frombuffer(buffer, np.uint8) if isinstance(buffer, bytes) else buffer.reshape(-1)
    _check(stream, layout, name, (width, height))
    if layout.colours in ("RGB", "BGR"):
        image = stream.reshape(height, width, 3)
        return Pixels(image.copy() if layout.colours == "RGB" else np.ascontiguousarray(image[..., ::-1]), None)
    raw = _values(stream, layout, width * height).reshape(height, width)
    grey = raw if layout.bits == 8 else _upper_eight(raw, layout.bits, name)
    if layout.colours == "Mono":
        return Pixels(np.asarray(grey, np.uint8), None if layout.bits == 8 else raw)
    return Pixels(np.asarray(cv2.cvtColor(grey, DEMOSAIC[layout.colours]), np.uint8), raw)


def _check(stream: Bytes, layout: PixelFormat, name: str, size_px: tuple[int, int]) -> None:
    width, height = size_px
    least = LEAST_BAYER_SIDE if layout.colours in DEMOSAIC else 1
    if min(size_px) < least:
        raise FrameCorrupt(
            f"a frame of {width} x {height} pixels cannot be read as {name}",
            fix=f"set a region of at least {least} x {least} pixels",
        )
    wanted = layout.size_bytes(width * height)
    if stream.size != wanted:
        raise FrameCorrupt(
            f"the camera sent {stream.size} bytes, a frame of {width} x {height} {name} has {wanted}",
            fix="check the pixel format and region of the camera, and cable and network load",
        )


def _values(stream: Bytes, layout: PixelFormat, count: int) -> Mosaic:
    """The value of each pixel, (count,) uint8 or uint16."""
    if layout.packing == "p":
        return _bit_stream(stream, layout.bits, count)
    if layout.packing == "Packed":
        return _three_bytes(stream, layout.bits, count)
    if layout.bits == 8:
        return stream.copy()
    return np.frombuffer(stream.tobytes(), "<u2").astype(np.uint16)


def _bit_stream(stream: Bytes, bits: int, count: int) -> NDArray[np.uint16]:
    """PFNC packing of 10 or 12 bits: every pixel lies in two neighbouring bytes."""
    pixels, size = {10: (4, 5), 12: (2, 3)}[bits]  # of the smallest group that ends with a byte
    groups = _groups(stream, size)
    values = np.empty((len(groups), pixels), np.uint16)
    for place in range(pixels):
        at, shift = divmod(place * bits, 8)
        pair = groups[:, at] | groups[:, at + 1] << np.uint16(8)
        values[:, place] = pair >> np.uint16(shift) & np.uint16(2**bits - 1)
    return values.reshape(-1)[:count].copy()


def _three_bytes(stream: Bytes, bits: int, count: int) -> NDArray[np.uint16]:
    """GigE Vision packing of 10 or 12 bits: high byte, low bits of both pixels, high byte."""
    groups, low = _groups(stream, 3), np.uint16(bits - 8)
    rest = np.uint16(2 ** (bits - 8) - 1)
    values = np.empty((len(groups), 2), np.uint16)
    values[:, 0] = groups[:, 0] << low | groups[:, 1] & rest
    values[:, 1] = groups[:, 2] << low | groups[:, 1] >> np.uint16(4) & rest
    return values.reshape(-1)[:count].copy()


def _groups(stream: Bytes, size: int) -> NDArray[np.uint16]:
    """The stream in groups of ``size`` bytes (N, size), the last one filled up with zeros."""
    missing = -stream.size % size
    return np.pad(stream, (0, missing)).reshape(-1, size).astype(np.uint16)


def _upper_eight(raw: Mosaic, bits: int, name: str) -> NDArray[np.uint8]:
    highest = int(raw.max())
    if highest >= 1 << bits:
        raise FrameCorrupt(
            f"the camera sent the value {highest} in a frame of {name}, whose largest is {(1 << bits) - 1}",
            fix="the camera aligns its pixels to the upper bits: choose another pixel format",
        )
    return (raw >> (bits - 8)).astype(np.uint8)
