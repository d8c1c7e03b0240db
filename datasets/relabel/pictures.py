"""The image files of a dataset as a browser can show them, with the very bytes the dataset was made of."""

import hashlib
from functools import lru_cache
from pathlib import Path

import cv2

from inspection.errors import FrameCorrupt
from inspection.images import Image, decode_image, read_bytes

_SHOWN_AS_THEY_ARE = ((b"\x89PNG", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"BM", "image/bmp"))


def picture_bytes(path: Path, sha256: str) -> tuple[bytes, str]:
    """The file's bytes and media type, as PNG where browsers do not know its kind.

    FrameCorrupt when the file is another one than the dataset was made of, and as ``read_bytes`` and ``decode_image``.
    """
    content = _whole(path, sha256)
    for start, kind in _SHOWN_AS_THEY_ARE:
        if content.startswith(start):
            return content, kind
    return _png(decode_image(content, str(path))), "image/png"


def picture_size(path: Path, sha256: str) -> tuple[int, int]:
    """Width and height in pixels as stored; errors as ``picture_bytes``, also when the file changed a moment ago."""
    try:
        state = path.stat()
    except OSError:
        read_bytes(path)  # says why
        raise
    return _size(path, sha256, state.st_mtime_ns)


@lru_cache(maxsize=4096)
def _size(path: Path, sha256: str, changed_ns: int) -> tuple[int, int]:
    height, width = decode_image(_whole(path, sha256), str(path)).shape[:2]
    return width, height


def thumbnail(path: Path, sha256: str, side: int) -> bytes:
    """The picture within ``side`` x ``side`` pixels, as PNG."""
    image = decode_image(_whole(path, sha256), str(path))
    scale = min(1.0, side / max(image.shape[:2]))
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return _png(cv2.resize(image, size, interpolation=cv2.INTER_AREA))  # type: ignore[arg-type]


def _whole(path: Path, sha256: str) -> bytes:
    content = read_bytes(path)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise FrameCorrupt(f"{path} is another picture than the dataset was made of", fix="put the original file back")
    return content


def _png(image: Image) -> bytes:
    stored = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", stored, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
