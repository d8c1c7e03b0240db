"""Pixel formats, against a reference that picks every bit by itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from inspection.cameras.pixels import FORMATS, decode
from inspection.errors import ConfigError, FrameCorrupt

GREY = sorted(name for name, layout in FORMATS.items() if layout.colours == "Mono")
BAYER = sorted(name for name in FORMATS if name.startswith("Bayer"))


def bit_places(name: str, pixel: int) -> list[int]:
    """Where the bits of a pixel lie in the buffer (bit 8 b + n is bit n of byte b), the lowest first."""
    layout = FORMATS[name]
    if layout.packing == "p":
        return [pixel * layout.bits + bit for bit in range(layout.bits)]
    if layout.packing == "":
        return [pixel * (8 if layout.bits == 8 else 16) + bit for bit in range(layout.bits)]
    low, first = layout.bits - 8, pixel // 2 * 24
    middle = [first + 8 + (4 if pixel % 2 else 0) + bit for bit in range(low)]
    return middle + [first + (16 if pixel % 2 else 0) + bit for bit in range(8)]


def encode(values: list[int], name: str) -> bytes:
    """The reference: every bit of every value is put into its place alone."""
    buffer = bytearray(FORMATS[name].size_bytes(len(values)))
    for pixel, value in enumerate(values):
        for bit, place in enumerate(bit_places(name, pixel)):
            buffer[place // 8] |= (value >> bit & 1) << place % 8
    return bytes(buffer)


@st.composite
def frames(draw: st.DrawFn, names: list[str]) -> tuple[str, NDArray[np.uint16]]:
    name = draw(st.sampled_from(names))
    least = 3 if name in BAYER else 1
    height, width = draw(st.integers(least, 7)), draw(st.integers(least, 9))
    top = 2 ** FORMATS[name].bits - 1
    values = draw(st.lists(st.integers(0, top), min_size=height * width, max_size=height * width))
    return name, np.array(values, np.uint16).reshape(height, width)


@given(frames(GREY))
def test_grey_is_read_as_it_was_written(case: tuple[str, NDArray[np.uint16]]) -> None:
    """The image has the upper eight bits of each value, raw the value itself where that is more."""
    name, values = case
    height, width = values.shape
    found = decode(encode(values.ravel().tolist(), name), name, width, height)
    assert np.array_equal(values >> (FORMATS[name].bits - 8), found.image)
    if FORMATS[name].bits == 8:
        assert found.raw is None
    else:
        assert found.raw is not None
        assert found.raw.dtype == np.uint16
        assert np.array_equal(values, found.raw)


@given(frames(BAYER))
def test_bayer_keeps_its_mosaic(case: tuple[str, NDArray[np.uint16]]) -> None:
    """Raw is the mosaic as the sensor gave it, whatever the demosaicing did."""
    name, values = case
    height, width = values.shape
    found = decode(np.frombuffer(encode(values.ravel().tolist(), name), np.uint8), name, width, height)
    assert found.raw is not None
    assert np.array_equal(values, found.raw)
    assert found.raw.dtype == (np.uint8 if FORMATS[name].bits == 8 else np.uint16)
    assert (height, width, 3) == found.image.shape


def filter_rows(name: str) -> tuple[str, str]:
    """Colours of the filters over the first two pixels of the first two rows."""
    return name[5:7], {"RG": "GB", "GR": "BG", "GB": "RG", "BG": "GR"}[name[5:7]]


def mosaic(name: str, picture: NDArray[np.uint8]) -> list[int]:
    """What a sensor with the filters that ``name`` says sees of an RGB picture, its row-by-row values."""
    height, width, _ = picture.shape
    scale = FORMATS[name].bits - 8
    rows = filter_rows(name)
    return [int(picture[y, x, "RGB".index(rows[y % 2][x % 2])]) << scale for y in range(height) for x in range(width)]


@pytest.mark.parametrize("name", BAYER)
@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 100, 50)])
def test_bayer_shows_the_colour_that_was_seen(name: str, colour: tuple[int, int, int]) -> None:
    """A plain red, green, blue or orange part is that colour in the image, border included."""
    picture = np.full((8, 10, 3), colour, np.uint8)
    found = decode(encode(mosaic(name, picture), name), name, 10, 8)
    assert np.array_equal(picture, found.image)


@pytest.mark.parametrize("name", ["BayerRG8", "BayerGR8", "BayerGB8", "BayerBG8"])
def test_bayer_keeps_a_place_where_it_is(name: str) -> None:
    """A measured value is found at its own place and channel: the picture is not shifted."""
    rng = np.random.default_rng(1)
    values = rng.integers(0, 256, (8, 10)).astype(np.uint8)
    image = decode(values, name, 10, 8).image
    rows = filter_rows(name)
    inner = [(y, x) for y in range(1, 7) for x in range(1, 9)]
    assert all(values[y, x] == image[y, x, "RGB".index(rows[y % 2][x % 2])] for y, x in inner)


@pytest.mark.parametrize(("name", "reverse"), [("RGB8", 1), ("RGB8Packed", 1), ("BGR8", -1), ("BGR8Packed", -1)])
def test_colour_is_red_first(name: str, reverse: int) -> None:
    """Colour images are RGB, whatever order the camera sends."""
    sent = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    found = decode(sent.tobytes(), name, 5, 4)
    assert np.array_equal(sent[..., ::reverse], found.image)
    assert found.raw is None


@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize("surplus", [-1, 1, 4096])
def test_wrong_length_is_refused(name: str, surplus: int) -> None:
    """A buffer that is too short or too long is no frame; the error names both lengths."""
    right = FORMATS[name].size_bytes(16 * 12)
    with pytest.raises(FrameCorrupt, match=rf"sent {right + surplus} bytes, a frame of 16 x 12 {name} has {right}"):
        decode(bytes(right + surplus), name, 16, 12)


@pytest.mark.parametrize(
    ("name", "size"), [("Mono8", 192), ("Mono10", 384), ("Mono10p", 240), ("Mono12Packed", 288), ("RGB8", 576)]
)
def test_size_of_a_frame(name: str, size: int) -> None:
    """The length of a frame of 16 x 12 pixels, worked out by hand."""
    assert size == FORMATS[name].size_bytes(192)


@pytest.mark.parametrize("name", ["", "mono8", "YUV422_8", "Mono8 "])
def test_unknown_format_lists_the_known(name: str) -> None:
    """The user sees what may be chosen."""
    with pytest.raises(ConfigError) as caught:
        decode(b"", name, 1, 1)
    assert "BayerRG8" in caught.value.fix


@pytest.mark.parametrize(("name", "value"), [("Mono10", 1024), ("Mono12", 0x8000), ("BayerBG12", 4096)])
def test_value_beyond_the_format_is_refused(name: str, value: int) -> None:
    """Pixels aligned to the upper bits would wrap around: they are refused, not shown."""
    with pytest.raises(FrameCorrupt, match=f"value {value} in a frame of {name}"):
        decode(np.full(9, value, "<u2").tobytes(), name, 3, 3)


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (-1, -1)])
def test_frame_without_pixels_is_refused(width: int, height: int) -> None:
    """No pixels are no frame."""
    with pytest.raises(FrameCorrupt, match="cannot be read as Mono8"):
        decode(bytes(max(0, width * height)), "Mono8", width, height)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_buffer_may_be_filled_again(name: str) -> None:
    """A decoded frame does not change when the camera fills the buffer with the next."""
    buffer = np.zeros(FORMATS[name].size_bytes(64), np.uint8)
    found = decode(buffer, name, 8, 8)
    buffer[:] = 255
    assert not found.image.any()
    assert found.raw is None or not found.raw.any()
