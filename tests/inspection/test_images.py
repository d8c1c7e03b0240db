import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from inspection.errors import FrameCorrupt, UsageError
from inspection.images import decode_image, picture_size, read_grey, read_image, to_grey, write_png, write_whole

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (40, 60), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)  # BGR, as OpenCV encodes it


def encoded(suffix: str, image: np.ndarray, *settings: int) -> bytes:
    return cv2.imencode(suffix, image, list(settings))[1].tobytes()


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_grey_file_keeps_its_pixels(tmp_path: Path, suffix: str) -> None:
    """A lossless grey file comes back as (H, W) with exactly its pixels."""
    file = tmp_path / f"a{suffix}"
    file.write_bytes(encoded(suffix, GREY))
    np.testing.assert_array_equal(GREY, read_image(file).reshape(40, 60, -1)[:, :, 0])


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_colour_file_comes_back_as_rgb(suffix: str) -> None:
    """A colour file comes back as (H, W, 3) with red first."""
    np.testing.assert_array_equal(COLOUR[:, :, ::-1], decode_image(encoded(suffix, COLOUR), "a"))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("restart", [0, 2])
def test_whole_jpeg_is_accepted(channels: int, progressive: int, restart: int) -> None:
    """Baseline and progressive JPEGs, with and without restart markers, are complete."""
    image = GREY if channels == 1 else COLOUR
    settings = (cv2.IMWRITE_JPEG_PROGRESSIVE, progressive, cv2.IMWRITE_JPEG_RST_INTERVAL, restart)
    assert image.shape == decode_image(encoded(".jpg", image, *settings), "a").shape


@pytest.mark.parametrize("size", [(1, 1), (40, 60), (300, 700)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("suffix", "settings"), [(".png", ()), (".jpg", ()), (".jpg", (cv2.IMWRITE_JPEG_PROGRESSIVE, 1))]
)
def test_size_is_read_from_the_first_bytes(
    tmp_path: Path, suffix: str, settings: tuple[int, ...], size: tuple[int, int], channels: int
) -> None:
    """Width and height of a PNG or JPEG, whatever is said before them, also where the rest is missing; else none."""
    content = encoded(suffix, np.zeros((*size, channels), np.uint8), *settings)
    texts = b"".join(b"\xff\xe1" + (60_002).to_bytes(2, "big") + b"\xff\xc0x" * 20_000 for _ in range(2))
    whole = content if suffix == ".png" else content[:2] + texts + content[2:]
    file = tmp_path / "a"
    for there in (whole, whole[: 200_000 if suffix == ".jpg" else 24]):
        file.write_bytes(there)
        assert size[::-1] == picture_size(file)
    for there in (b"", whole[:3], whole[:20], b"GIF89a" + whole):
        file.write_bytes(there)
        assert picture_size(file) is None


def test_size_of_what_is_not_there(tmp_path: Path) -> None:
    """A missing file and a folder have none."""
    assert picture_size(tmp_path) is None
    assert picture_size(tmp_path / "a") is None


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
def test_truncated_file_is_corrupt(suffix: str, share: float) -> None:
    """A file cut anywhere is refused instead of being half decoded."""
    whole = encoded(suffix, COLOUR)
    with pytest.raises(FrameCorrupt, match=r"part\.img"):
        decode_image(whole[: int(len(whole) * share)], "part.img")


def test_thumbnail_does_not_make_a_truncated_jpeg_whole() -> None:
    """The end marker of an embedded thumbnail does not count as the end of the picture."""
    thumbnail, whole = encoded(".jpg", GREY[:8, :8]), encoded(".jpg", GREY)
    with_thumbnail = whole[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + whole[2:]
    assert GREY.shape == decode_image(with_thumbnail, "a").shape
    with pytest.raises(FrameCorrupt):
        decode_image(with_thumbnail[: len(thumbnail) + 200], "a")


@pytest.mark.parametrize("at", [1, 2, 3])
def test_jpeg_that_ends_inside_a_marker_is_corrupt(at: int) -> None:
    """A JPEG that breaks off within its first segment header is refused."""
    with pytest.raises(FrameCorrupt):
        decode_image(encoded(".jpg", GREY)[: 2 + at] if at > 1 else b"\xff\xd8\xff", "a")


def test_damaged_png_is_corrupt() -> None:
    """A PNG with one flipped byte is found by its checksum."""
    content = bytearray(encoded(".png", GREY))
    content[len(content) // 2] ^= 0xFF
    with pytest.raises(FrameCorrupt):
        decode_image(bytes(content), "a")


def test_png_without_end_chunk_is_corrupt() -> None:
    """A PNG whose last chunk is missing altogether is truncated."""
    with pytest.raises(FrameCorrupt):
        decode_image(encoded(".png", GREY)[:-12], "a")


def test_undecodable_content_behind_a_good_header_is_corrupt() -> None:
    """A file that only begins like an image is refused."""
    with pytest.raises(FrameCorrupt):
        decode_image(b"\xff\xd8\xff\xd9", "a")


def test_cut_files_are_refused_quietly(capfd: pytest.CaptureFixture[str]) -> None:
    """Refusing a truncated PNG, JPEG or BMP leaves nothing of the decoder's own on stderr."""
    for suffix in (".png", ".jpg", ".bmp"):
        with pytest.raises(FrameCorrupt):
            decode_image(encoded(suffix, GREY)[:-30], "a")
    assert capfd.readouterr().err == ""


def test_empty_file_is_corrupt(tmp_path: Path) -> None:
    """A file of 0 bytes is a frame that did not arrive."""
    (tmp_path / "a.png").touch()
    with pytest.raises(FrameCorrupt, match="empty"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["missing.png", "."])
def test_missing_file_and_folder_are_usage_errors(tmp_path: Path, name: str) -> None:
    """A path without a readable file is the caller's mistake, and is named."""
    with pytest.raises(UsageError, match=str(tmp_path)) as caught:
        read_image(tmp_path / name)
    assert caught.value.fix


def test_text_file_is_a_usage_error() -> None:
    """A text file given as image is refused with the kinds that are accepted."""
    with pytest.raises(UsageError, match="no PNG, JPEG, BMP or TIFF"):
        decode_image(b"x1,y1,x2,y2", "labels.txt")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_refused(suffix: str) -> None:
    """16-bit images are refused rather than scaled in an unknown way."""
    with pytest.raises(UsageError, match="16 bits"):
        decode_image(encoded(suffix, GREY.astype(np.uint16) * 200), "a")


def test_opaque_alpha_is_dropped() -> None:
    """An alpha channel that is fully opaque carries nothing and goes."""
    bgra = np.dstack([COLOUR, np.full((40, 60), 255, np.uint8)])
    np.testing.assert_array_equal(COLOUR[:, :, ::-1], decode_image(encoded(".png", bgra), "a"))


def test_transparent_pixels_are_refused() -> None:
    """A transparent pixel has no colour, so the image cannot be inspected."""
    bgra = np.dstack([COLOUR, np.full((40, 60), 255, np.uint8)])
    bgra[3, 4, 3] = 254
    with pytest.raises(UsageError, match="transparent"):
        decode_image(encoded(".png", bgra), "a")


def test_grey_is_luma_of_rgb() -> None:
    """Green weighs most and blue least in the grey image."""
    red, green, blue = (to_grey(np.full((1, 1, 3), np.eye(3)[i] * 255, np.uint8))[0, 0] for i in range(3))
    assert (red, green, blue) == (76, 150, 29)


@pytest.mark.parametrize("image", [GREY, COLOUR], ids=["grey", "colour"])
def test_png_round_trip_under_a_non_ascii_name(tmp_path: Path, image: np.ndarray) -> None:
    """What write_png wrote, read_image gives back, whatever letters the name has."""
    file = tmp_path / "Prüfling 板 ü.png"
    write_png(file, image)
    np.testing.assert_array_equal(image, read_image(file))
    assert read_grey(file).shape == (40, 60)
    assert [file] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "image",
    [np.zeros((0, 5), np.uint8), np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4)), np.zeros(4, np.uint8)],
    ids=["empty", "two channels", "float", "one axis"],
)
def test_other_arrays_are_not_written(tmp_path: Path, image: np.ndarray) -> None:
    """An array that is no image is refused and leaves no file."""
    with pytest.raises(UsageError, match="cannot be written"):
        write_png(tmp_path / "a.png", image)
    assert list(tmp_path.iterdir()) == []


def test_failed_write_leaves_no_partial_file(tmp_path: Path) -> None:
    """When the name cannot be taken the temporary file goes, too."""
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError):
        write_whole(tmp_path / "taken", b"x")
    assert [tmp_path / "taken"] == list(tmp_path.iterdir())
