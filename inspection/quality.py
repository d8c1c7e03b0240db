"""Image-quality gate: refuses a frame that no one could judge, before the detector sees it."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.types import Reason


@dataclass(frozen=True, slots=True)
class QualityLimits:
    """Least contrast (standard deviation, grey levels), least sharpness, brightness range (mean grey level).

    Sharpness is the steepest slope on the frame (grey difference across three pixels after a 3x3 mean; the 30th largest,
    so that a dead pixel does not count), which falls with focus and does not depend on how much artwork the frame shows.
    """

    min_contrast: float = 1.0
    min_sharpness: float = 12.0
    min_brightness: float = 3.0
    max_brightness: float = 255.0


@dataclass(frozen=True, slots=True)
class FrameQuality:
    """What the gate measured, in grey levels of 0..255."""

    contrast: float
    sharpness: float
    brightness: float


def measure(grey: NDArray[np.uint8]) -> FrameQuality:
    """Measure a grey frame (H, W) uint8; on frames above two megapixels every n-th row and column block is read."""
    step = max(1, int(np.sqrt(grey.size / 2e6)))
    sample = grey[: grey.shape[0] // step, : grey.shape[1] // step] if step == 1 else _blocks(grey, step)
    mean, deviation = cv2.meanStdDev(sample)
    smooth = cv2.blur(sample, (3, 3))
    slope = cv2.absdiff(smooth[:, 3:], smooth[:, :-3]) if sample.shape[1] > 3 else np.zeros((1, 1), np.uint8)
    histogram = cv2.calcHist([slope], [0], None, [256], [0, 256]).ravel()
    steep = np.flatnonzero(np.cumsum(histogram[::-1])[::-1] >= min(30, slope.size))
    return FrameQuality(float(deviation[0, 0]), float(steep[-1]) if steep.size else 0.0, float(mean[0, 0]))


def _blocks(grey: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Bands of whole rows, so that neighbouring pixels stay neighbours."""
    bands = [grey[row : row + 16] for row in range(0, grey.shape[0], 16 * step * step)]
    return np.vstack(bands)


def gate(quality: FrameQuality, limits: QualityLimits) -> Reason | None:
    """The reason to refuse a frame, or None when it can be judged."""
    if quality.brightness < limits.min_brightness or quality.brightness > limits.max_brightness:
        return Reason(
            "quality.brightness",
            f"mean grey {quality.brightness:.0f} is outside {limits.min_brightness:.0f}..{limits.max_brightness:.0f}: "
            "check exposure and strobe",
        )
    if quality.contrast < limits.min_contrast:
        return Reason(
            "quality.contrast",
            f"contrast {quality.contrast:.1f} is below {limits.min_contrast:.1f}: no part, lens cap or light off",
        )
    if quality.sharpness < limits.min_sharpness:
        return Reason(
            "quality.sharpness",
            f"sharpness {quality.sharpness:.0f} is below {limits.min_sharpness:.0f}: check focus and vibration",
        )
    return None
