"""What several trainers ask of their samples: sizes, colour, limits for the image-quality gate, examples."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from datasets.sample import Sample
from inspection.errors import UsageError
from inspection.images import read_image, to_grey
from inspection.model import ImageLimits
from inspection.quality import measure
from training.config import TrainConfig
from training.lessons.pictures import Turns
from training.trainers import Image

LOOKED_AT = 200  # images from which sizes and limits are taken
EXAMPLES = 32


def _some(samples: Sequence[Sample], count: int) -> list[Sample]:
    step = max(1, len(samples) // count)
    return list(samples[::step][:count])


def read_some(samples: Sequence[Sample], count: int = LOOKED_AT) -> list[Image]:
    """Images of up to ``count`` samples, evenly chosen; UsageError when there is none."""
    if not samples:
        raise UsageError(
            "no sample is left to learn from", fix="hold out fewer groups, or check the splits of the dataset"
        )
    return [read_image(sample.image) for sample in _some(samples, count)]


def channels_of(samples: Sequence[Sample]) -> Literal[1, 3]:
    """3 when any of the images looked at has colour, 1 when all are grey or have three equal channels."""
    return 3 if any(_coloured(image) for image in read_some(samples, 50)) else 1


def _coloured(image: Image) -> bool:
    if image.ndim == 2:
        return False
    spread = image.max(2).astype(np.int16) - image.min(2)
    return float(np.mean(spread > 12)) > 0.005  # JPEG leaves grey pictures a little tinted


def median_size(samples: Sequence[Sample]) -> tuple[int, int]:
    """Median height and width in pixels."""
    sizes = np.array([image.shape[:2] for image in read_some(samples)])
    return int(np.median(sizes[:, 0])), int(np.median(sizes[:, 1]))


def image_limits(samples: Sequence[Sample]) -> ImageLimits:
    """Limits for the image-quality gate: half of the least contrast and sharpness seen, a wide margin of brightness."""
    seen = [measure(to_grey(image)) for image in read_some(samples)]
    dark, bright = min(q.brightness for q in seen), max(q.brightness for q in seen)
    return ImageLimits(
        min_contrast=_within(0.5 * min(q.contrast for q in seen), 0.1, 100),
        min_sharpness=_within(0.5 * min(q.sharpness for q in seen), 0.1, 250),
        min_brightness=_within(0.5 * dark, 0.1, 200),
        max_brightness=_within(bright + 0.5 * (255 - bright), 50, 255),
    )


def _within(value: float, low: float, high: float) -> float:
    return round(min(max(value, low), high), 2)


def examples(samples: Sequence[Sample]) -> tuple[tuple[Image, None], ...]:
    """Some frames to compare an export on."""
    return tuple((read_image(sample.image), None) for sample in _some(samples, EXAMPLES))


def turns_of(config: TrainConfig) -> Turns:
    """How far parts are turned in training: any way, unless the config says that they lie as they always do."""
    return Turns(right_angles=False, rotate_deg=4.0, scale=0.06) if config.fixed else Turns()
