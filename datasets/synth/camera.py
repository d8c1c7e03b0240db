"""A camera model: what a line camera does to a board before the detector sees it.

Geometry (shift, rotation, scale), elastic edge displacement, blur, illumination gradient, noise, optional
binarisation and JPEG.  One seeded generator makes the whole picture, so the same seed gives the same bytes.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class CameraModel:
    """Largest effect of each kind; every photograph draws between nothing and that.

    ``shift_px``, ``rotate_deg``, ``scale`` move the board under the camera; ``blur_px`` is a Gaussian sigma;
    ``edge_px`` displaces edges smoothly; ``gradient`` is the relative illumination change across the image;
    ``noise`` is a standard deviation in grey levels; ``binarise`` is the share of pictures that are thresholded.
    """

    shift_px: float = 0.0
    rotate_deg: float = 0.0
    scale: float = 0.0
    blur_px: float = 1.4
    edge_px: float = 0.9
    gradient: float = 0.25
    noise: float = 12.0
    binarise: float = 0.8
    jpeg_quality: int = 75


def board_motion(rng: np.random.Generator, model: CameraModel, shape: tuple[int, int]) -> NDArray[np.float64]:
    """A random 2x3 matrix that moves board pixels to frame pixels, about the image centre."""
    angle = rng.uniform(-model.rotate_deg, model.rotate_deg)
    scale = 1.0 + rng.uniform(-model.scale, model.scale)
    matrix = np.array(cv2.getRotationMatrix2D((shape[1] / 2, shape[0] / 2), angle, scale), dtype=np.float64)
    matrix[:, 2] += rng.uniform(-model.shift_px, model.shift_px, 2)
    return matrix


def photograph(board: Image, rng: np.random.Generator, model: CameraModel) -> tuple[Image, NDArray[np.float64]]:
    """Take a picture of ``board`` (H, W) uint8; returns the frame and the 2x3 board-to-frame matrix."""
    height, width = board.shape
    matrix = board_motion(rng, model, (height, width))
    x, y = _sampling_grid(matrix, rng, model.edge_px, (height, width))
    picture = cv2.remap(board, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    sigma = rng.uniform(0.0, model.blur_px)
    if sigma > 0.3:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), dtype=np.float32)
    if rng.random() < model.binarise:
        picture = _binarise(picture, rng, model.noise)
    else:
        picture = _illuminate(picture, rng, model)
    frame = np.clip(picture, 0, 255).astype(np.uint8)
    if model.jpeg_quality < 100:
        quality = int(rng.integers(model.jpeg_quality, 99))
        encoded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        frame = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE), dtype=np.uint8)
    return frame, matrix


def _sampling_grid(
    matrix: NDArray[np.float64], rng: np.random.Generator, edge_px: float, shape: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    height, width = shape
    inverse = cv2.invertAffineTransform(matrix)
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    x = inverse[0, 0] * columns + inverse[0, 1] * rows + inverse[0, 2]
    y = inverse[1, 0] * columns + inverse[1, 1] * rows + inverse[1, 2]
    cells = (max(2, height // int(rng.integers(5, 40))), max(2, width // int(rng.integers(5, 40))))
    amplitude = edge_px * rng.random()
    for axis in (x, y):
        coarse = rng.normal(0.0, amplitude, cells).astype(np.float32)
        axis += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return x.astype(np.float32), y.astype(np.float32)


def _noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> NDArray[np.float32]:
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(sigma)


def _binarise(picture: NDArray[np.float32], rng: np.random.Generator, noise: float) -> NDArray[np.float32]:
    # Correlated noise before the threshold makes the ragged edges of a real binarised photograph.
    rough = cv2.GaussianBlur(_noise(rng, picture.shape, 1.0), (0, 0), rng.uniform(0.5, 1.2))
    level = 127.5 + rng.uniform(-45, 45)
    return np.where(picture + rough * noise * rng.uniform(0, 6) > level, 255.0, 0.0).astype(np.float32)


def _illuminate(picture: NDArray[np.float32], rng: np.random.Generator, model: CameraModel) -> NDArray[np.float32]:
    height, width = picture.shape
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, model.gradient)
    rows = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None] * np.float32(np.sin(angle))
    columns = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :] * np.float32(np.cos(angle))
    light = np.float32(rng.uniform(0.75, 1.15)) * (1 + np.float32(strength) * (rows + columns))
    lifted = picture + np.float32(rng.uniform(0, 40)) * (1 - picture / 255)
    return lifted * light + _noise(rng, picture.shape, float(rng.uniform(0, model.noise)))
