"""Harmless edits: what a good part's picture may go through without being defective.

A net that learns from injected defects could learn the traces of editing instead: a patch a little softer, a changed
grain, a smooth blob of light.  Shams leave just such traces on pictures that stay good.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.synth.textures import Plane, blurred, clipped, filled, fractal_noise, wavy_outline

Image = NDArray[np.uint8]
_LEAST_PX = 8  # half a window
_FAINTEST = 3.0  # grey levels that nobody sees on metal

Sham = Callable[[Plane, np.random.Generator], Plane]


def inject_shams(image: Image, rng: np.random.Generator, count: int) -> Image:
    """A copy of a picture (H, W) or (H, W, 3) uint8 with ``count`` harmless edits; the part is as good as before."""
    picture = image.copy()
    for _ in range(count):
        sham = SHAMS[int(rng.integers(len(SHAMS)))]
        window = _window(image.shape, rng, wide=sham is lit)
        before = picture[window].astype(np.float32).reshape(*picture[window].shape[:2], -1)
        after = before + _cover(before.shape, rng, soft=sham is lit) * (sham(before, rng) - before)
        picture[window] = np.clip(np.rint(after), 0, 255).astype(np.uint8).reshape(picture[window].shape)
    return picture


def _window(shape: tuple[int, ...], rng: np.random.Generator, *, wide: bool) -> tuple[slice, slice]:
    side = min(shape[:2])
    most = side / 2 if wide else side / 5
    half = max(_LEAST_PX, round(float(np.exp(rng.uniform(np.log(most / 6), np.log(most))))))
    y, x = int(rng.integers(shape[0])), int(rng.integers(shape[1]))
    return slice(max(0, y - half), y + half + 1), slice(max(0, x - half), x + half + 1)


def _cover(shape: tuple[int, ...], rng: np.random.Generator, *, soft: bool) -> Plane:
    """Where the edit is made (h, w, 1), 0 to 1: an outline as a defect has, its border sharp or soft."""
    rows, columns = shape[:2]
    side = min(rows, columns)
    outline = wavy_outline(rng, 0.6 * side, rng.uniform(0.3, 1.0), rng.uniform(0.0, 0.3))
    cover = filled((rows, columns), outline + np.array([columns / 2, rows / 2]))
    return blurred(cover, 0.12 * side if soft else rng.uniform(0.0, 2.0))[:, :, None]


def lit(window: Plane, rng: np.random.Generator) -> Plane:
    """A little more or less light, from a lamp or a reflection far away."""
    return window * np.float32(1 + rng.uniform(-0.12, 0.12))


def resampled(window: Plane, rng: np.random.Generator) -> Plane:
    """Moved by part of a pixel."""
    matrix = np.array([[1, 0, rng.uniform(-0.5, 0.5)], [0, 1, rng.uniform(-0.5, 0.5)]])
    size = (window.shape[1], window.shape[0])
    moved = cv2.warpAffine(window, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, dtype=np.float32).reshape(window.shape)


def softened(window: Plane, rng: np.random.Generator) -> Plane:
    """A little out of focus."""
    return blurred(window, rng.uniform(0.3, 0.8))


def sharpened(window: Plane, rng: np.random.Generator) -> Plane:
    """A little sharper."""
    return window + (window - blurred(window, 1.0)) * np.float32(rng.uniform(0.1, 0.4))


def grained(window: Plane, rng: np.random.Generator) -> Plane:
    """With more of the camera's noise."""
    noise = blurred(rng.standard_normal(window.shape[:2], dtype=np.float32), rng.uniform(0.0, 0.8))
    return window + noise[:, :, None] * np.float32(rng.uniform(0.5, _FAINTEST))


def tinged(window: Plane, rng: np.random.Generator) -> Plane:
    """A change of level or cloudiness too faint to be seen."""
    clouds = clipped(fractal_noise(rng, window.shape[:2], max(3.0, window.shape[0] / 6)) + np.float32(1))
    return window + clouds[:, :, None] * np.float32(rng.uniform(-_FAINTEST, _FAINTEST))


SHAMS: tuple[Sham, ...] = (lit, resampled, softened, sharpened, grained, tinged)
