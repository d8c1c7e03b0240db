"""Random fields for metal surfaces: smooth noise, soft outlines, and the shading of a relief under one light."""

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]
Points = NDArray[np.float64]
Size = tuple[int, int]
_SUBPIXEL = 4  # bits behind the point that cv2 draws with


def smooth_noise(rng: np.random.Generator, shape: Size, scale_px: float) -> Plane:
    """Noise (H, W) of mean 0 and deviation of about 1, whose lumps are about ``scale_px`` wide."""
    cells = tuple(max(2, round(side / max(1.0, scale_px)) + 2) for side in shape)
    coarse = rng.standard_normal(cells, dtype=np.float32)
    if scale_px <= 1.0:
        return coarse[: shape[0], : shape[1]]
    return np.asarray(cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def fractal_noise(rng: np.random.Generator, shape: Size, scale_px: float, octaves: int = 3) -> Plane:
    """Noise (H, W) with detail at ``scale_px`` and at each half of it, deviation of about 1."""
    total = smooth_noise(rng, shape, scale_px)
    for octave in range(1, octaves):
        total += smooth_noise(rng, shape, scale_px / 2**octave) * np.float32(0.6**octave)
    return total * np.float32(0.8)


def blurred(plane: Plane, sigma_px: float) -> Plane:
    """Gaussian blur of (H, W) or (H, W, C); below 0.3 px nothing is blurred."""
    if sigma_px < 0.3:
        return plane
    soft = np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma_px), dtype=np.float32)
    return soft.reshape(plane.shape)


def clipped(plane: Plane) -> Plane:
    """The plane held between 0 and 1."""
    return np.asarray(np.clip(plane, 0.0, 1.0), dtype=np.float32)


def filled(shape: Size, outline: Points) -> Plane:
    """Coverage (H, W) 0 to 1 of a polygon with corners (N, 2) as x, y."""
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [_fixed_point(outline)], 255, cv2.LINE_AA, _SUBPIXEL)
    return canvas.astype(np.float32) / np.float32(255)


def dotted(shape: Size, centres: Points, radii_px: NDArray[np.float64]) -> Plane:
    """Coverage (H, W) 0 to 1 of discs at (N, 2) x, y with (N,) radii."""
    canvas = np.zeros(shape, np.uint8)
    for (x, y), radius in zip(_fixed_point(centres), np.round(radii_px * (1 << _SUBPIXEL)).astype(int), strict=True):
        cv2.circle(canvas, (int(x), int(y)), int(radius), 255, -1, cv2.LINE_AA, _SUBPIXEL)
    return canvas.astype(np.float32) / np.float32(255)


def drawn_line(shape: Size, path: Points, widths_px: NDArray[np.float64]) -> Plane:
    """Coverage (H, W) 0 to 1 of a line through (N, 2) x, y that is (N,) pixels wide; thin lines grow faint."""
    times = 3
    canvas = np.zeros((shape[0] * times, shape[1] * times), np.uint8)
    fixed = _fixed_point(path * times + (times - 1) / 2)
    for one, two, width in zip(fixed[:-1], fixed[1:], widths_px, strict=False):
        cv2.line(canvas, one.tolist(), two.tolist(), 255, max(1, round(width * times)), cv2.LINE_8, _SUBPIXEL)
    small = cv2.resize(canvas, shape[::-1], interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / np.float32(255)


def _fixed_point(points: Points) -> NDArray[np.int32]:
    return np.round(points * (1 << _SUBPIXEL)).astype(np.int32)


def slope(height: Plane, light: float) -> Plane:
    """Slope (H, W) of a relief along the direction ``light`` (radians), scaled so that the steepest is 1."""
    along_x = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3)
    along_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3)
    rise = np.asarray(along_x * np.float32(np.cos(light)) + along_y * np.float32(np.sin(light)), dtype=np.float32)
    return rise / max(1e-6, float(np.abs(rise).max()))


def wavy_outline(rng: np.random.Generator, length_px: float, flat: float, rough: float) -> Points:
    """A closed outline (40, 2) about the origin: an ellipse ``length_px`` long whose radius wavers by ``rough``."""
    turns = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radius = np.ones(40)
    for harmonic in range(2, 8):
        radius += rng.normal(0, rough / harmonic) * np.cos(harmonic * turns + rng.uniform(0, 6.3))
    oval = np.stack([np.cos(turns) * radius, np.sin(turns) * radius * flat], 1) * length_px / 2
    angle = rng.uniform(0, np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.asarray(oval @ turn.T, dtype=np.float64)


def wander(rng: np.random.Generator, length_px: float, bend: float, step_px: float = 2.0) -> Points:
    """A path (N, 2) centred on the origin that turns by ``bend`` radians (deviation) at each step."""
    steps = max(3, round(length_px / step_px))
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, bend, steps))
    path = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1), axis=0) * length_px / steps
    return np.asarray(path - (path.max(0) + path.min(0)) / 2, dtype=np.float64)
