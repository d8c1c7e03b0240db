"""Who trains what.  A trainer is a function from a ``Job`` to ``Trained``; what follows is the same for all of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray
from torch import nn

from datasets.sample import Sample
from inspection.errors import UsageError
from inspection.model import ImageLimits, Task
from inspection.plugins import resolve
from inspection.types import Box
from training.config import TrainConfig

Image = NDArray[np.uint8]
Product = Literal["pcb", "classify", "detect", "anomaly"]

TRAINERS: dict[str, str] = {
    "lineside:pcb": "training.trainers.pcb:train_pcb",
    "lineside:classify": "training.trainers.part:train_classifier",
    "lineside:anomaly": "training.trainers.part:train_anomaly",
    "lineside:detect": "training.trainers.box:train_detector",
    "torchvision:classify": "training.trainers.torchvision_nets:train_classifier",
    "torchvision:detect": "training.trainers.torchvision_nets:train_detector",
    "ultralytics:classify": "training.trainers.ultralytics_yolo:train_classifier",
    "ultralytics:detect": "training.trainers.ultralytics_yolo:train_detector",
}


@dataclass(frozen=True, slots=True)
class Job:
    """What to learn: the config of the run, its classes, the samples to learn from and those to measure on.

    ``false_calls``: by the name of a sample, boxes where an earlier model called what is no defect.
    """

    config: TrainConfig
    classes: tuple[str, ...]
    taught: tuple[Sample, ...]
    held_out: tuple[Sample, ...]
    false_calls: Mapping[str, tuple[Box, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trained:
    """What a trainer gives back: a graph that fulfils the model contract, and what the ModelCard must say of it.

    ``examples``: frames with their goldens, to compare the export on where nothing was held out.
    """

    graph: nn.Module
    task: Task
    classes: tuple[str, ...]
    channels: Literal[1, 3]
    trainer: str
    licence: str
    source: str
    trained_s: float
    examples: tuple[tuple[Image, Image | None], ...]
    images: ImageLimits | None = None
    tile_px: int = 640
    golden_guided: bool = False
    copper: Literal["dark", "light", ""] = ""
    goldens: int = 0
    labels_used: bool = True
    taught: tuple[Sample, ...] = field(default=())


def open_trainer(trainer: str, product: str) -> Callable[[Job], Trained]:
    """The function that trains ``product``; UsageError listing the trainers of that product when there is none."""
    name = f"{trainer}:{product}"
    if name not in TRAINERS:
        known = [key.split(":")[0] for key in TRAINERS if key.endswith(f":{product}")]
        raise UsageError(f"no trainer {trainer!r} for {product}", fix=f"known: --trainer {', '.join(known)}")
    return cast(Callable[[Job], Trained], resolve(TRAINERS, name, "trainer"))
