"""Finds the part in a picture of one casting, and the edges on it, so that defects lie where they can lie."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.images import to_grey

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Places = NDArray[np.intp]
_SIDE_PX = 128  # the longer side of the small picture in which part and edges are looked for
_LEAST_SHARE, _MOST_SHARE = 0.04, 0.97
_FAINT = 12.0  # grey levels a pixel of the small picture: a weaker slope is no edge
_LEAST_SPAN = 60  # grey levels between the darkest and brightest tone of a mark, in a flat picture too


def find_part(image: Image) -> Mask:
    """Where the part lies (H, W) in a picture (H, W) or (H, W, 3); all True when part and background cannot be told.

    The background is what reaches the picture's border without crossing an edge, so that a light part on dark, a dark
    one on light, and one with its own shadow are all found.
    """
    small = _small(image)
    return _full_size(_part_of(small), image.shape[:2])


def _small(image: Image) -> Image:
    factor = _SIDE_PX / max(image.shape[:2])
    if factor >= 1:
        return to_grey(image)
    size = (max(2, round(image.shape[1] * factor)), max(2, round(image.shape[0] * factor)))
    return to_grey(np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8))


def _full_size(mask: Mask, shape: tuple[int, ...]) -> Mask:
    grown = cv2.resize(mask.astype(np.uint8) * np.uint8(255), (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(grown > 127)


def _part_of(small: Image) -> Mask:
    for candidate in (_enclosed_by_edges(small), _unlike_the_border(small)):
        if _LEAST_SHARE < float(candidate.mean()) < _MOST_SHARE:
            return candidate
    return np.ones(small.shape, bool)


def _slope(small: Image) -> NDArray[np.float32]:
    """Grey levels a pixel (h, w)."""
    soft = cv2.GaussianBlur(small, (3, 3), 0)
    along_x, along_y = cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1)
    return np.asarray(cv2.magnitude(along_x, along_y) / 8, dtype=np.float32)


def _enclosed_by_edges(small: Image) -> Mask:
    """What edges keep apart from the border, less its shadow: the border between the two is moved to where the
    picture changes most."""
    beyond = _reaching_the_border(small)
    rough = _one_piece(~beyond)
    if not _LEAST_SHARE < float(rough.mean()) < _MOST_SHARE:
        return rough
    reach = max(3, int(0.16 * np.sqrt(rough.sum())) | 1)
    markers = np.zeros(small.shape, np.int32)
    markers[cv2.erode(rough.astype(np.uint8), np.ones((reach, reach), np.uint8)) > 0] = 2
    markers[~rough] = 1
    markers[0] = markers[-1] = markers[:, 0] = markers[:, -1] = 1
    cv2.watershed(cv2.cvtColor(cv2.GaussianBlur(small, (3, 3), 0), cv2.COLOR_GRAY2BGR), markers)
    return _one_piece(markers == 2)


def _reaching_the_border(small: Image) -> Mask:
    """Pixels (h, w) joined to the border without an edge between, with the faintest edges that still close."""
    slope = _slope(small)
    strong = float(np.percentile(slope[::2, ::2], 99))
    for share in (0.04, 0.07, 0.12):
        edges = slope > max(_FAINT / 6, share * strong)
        closed = cv2.dilate(edges.astype(np.uint8), np.ones((3, 3), np.uint8))
        _, labels = cv2.connectedComponents(1 - closed, connectivity=4)
        beyond = np.zeros(int(labels.max()) + 1, bool)
        beyond[np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])] = True
        beyond[0] = False
        background = beyond[labels]
        if background.mean() > 0.1:
            break
    return np.asarray(background)


def _unlike_the_border(small: Image) -> Mask:
    _, light = cv2.threshold(small, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    border = np.concatenate([light[0], light[-1], light[:, 0], light[:, -1]])
    return _one_piece(np.asarray(1 - light if border.mean() > 0.5 else light, dtype=np.uint8))


def _one_piece(mask: NDArray[np.generic]) -> Mask:
    """The largest piece of a mask (h, w) of zeros and ones, its holes filled, hairs cut off."""
    opened = cv2.morphologyEx(np.asarray(mask, dtype=np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    outlines, _ = cv2.findContours(opened, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    piece = np.zeros(opened.shape, np.uint8)
    if outlines:
        cv2.drawContours(piece, [max(outlines, key=cv2.contourArea)], -1, 1, -1)
    return piece.astype(bool)


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What a picture tells about where and how defects show.

    ``part`` (H, W) bool; ``surface``, ``outline`` and ``edges`` are places (N, 2) as x, y in pixels of the picture: on
    the part, on its contour, on strong edges within; ``tones`` the darkest and brightest grey level; ``edge_px`` the
    Gaussian sigma of its edges.
    """

    part: Mask
    surface: NDArray[np.float64]
    outline: NDArray[np.float64]
    edges: NDArray[np.float64]
    tones: tuple[float, float]
    edge_px: float


def read_scene(image: Image, part: Mask | None = None) -> Scene:
    """Look at a picture (H, W) or (H, W, 3); the part is looked for when its mask (H, W) is not given."""
    small = _small(image)
    within = _part_of(small) if part is None else _shrunk(part, small.shape)
    full = _full_size(within, image.shape[:2]) if part is None else part
    slope = _slope(small)
    inner = cv2.erode(within.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    rim = cv2.dilate(within.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~inner
    strong = slope > max(_FAINT, 0.3 * float(slope.max()))
    contour = rim & (slope > _FAINT)  # where the contour lies beside an edge, the edge it is
    scale = np.array([image.shape[1] / small.shape[1], image.shape[0] / small.shape[0]])
    places = [_places(mask, scale) for mask in (within, contour if contour.any() else rim, strong & inner)]
    low, high = (float(v) for v in np.percentile(small[::2, ::2], (1, 99)))
    if high - low < _LEAST_SPAN:
        low, high = max(0.0, low - _LEAST_SPAN), min(255.0, high + _LEAST_SPAN)
    return Scene(full, places[0], places[1], places[2], (low, high), _edge_sigma(image, high - low))


def _shrunk(part: Mask, shape: tuple[int, ...]) -> Mask:
    small = cv2.resize(part.astype(np.uint8) * np.uint8(255), (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    return np.asarray(small > 127) if np.any(small > 127) else np.ones(shape, bool)


def _places(mask: Mask, scale: NDArray[np.float64]) -> NDArray[np.float64]:
    rows, columns = np.nonzero(mask)
    return (np.stack([columns, rows], 1) + 0.5) * scale - 0.5


def _edge_sigma(image: Image, span: float) -> float:
    """Gaussian sigma of the sharpest edges: a step blurred by s has its steepest slope at height / (s sqrt(2 pi))."""
    rows = image[::4] if image.ndim == 2 else image[::4, :, 1]
    steepest = float(np.abs(np.diff(rows.astype(np.int16), axis=1)).max(initial=0))
    return float(np.clip(0.8 * span / (max(steepest, 1.0) * np.sqrt(2 * np.pi)), 0.3, 1.5)) if steepest > 20 else 0.6
