"""Trains the part net: a classifier from labelled parts, or an anomaly model from good parts alone."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from datasets.sample import Sample
from inspection.errors import UsageError
from training.graphs import PartGraph
from training.lessons.part import PartLesson
from training.lessons.part_crops import PartSupply
from training.lessons.pictures import Picture, load_pictures
from training.models.part_net import PartNet
from training.train import train
from training.trainers import Job, Trained
from training.trainers.frames import channels_of, examples, image_limits, median_size, turns_of

FEW = 300  # labelled defective parts below which injected defects carry most of the teaching
INJECT_UNTIL = 0.6  # with more, injected defects bring variety first; then what is labelled is learnt alone, to the end


@dataclass(frozen=True, slots=True)
class PartKind:
    """A net that the part lesson can teach, and what the ModelCard says of it.

    ``make``: channels of the image and number of classes in, a net like ``PartNet`` out.
    """

    make: Callable[[int, int], nn.Module]
    trainer: str
    licence: str


OWN = PartKind(PartNet, "lineside part net", "Apache-2.0")


def train_classifier(job: Job, kind: PartKind = OWN) -> Trained:
    """One score for each class, and a heat map.

    With one class, some of the good parts get injected defects: most where labelled defective parts are few.
    """
    require_both_sides(job)
    counts = {name: sum(name in s.defect_classes for s in job.taught) for name in job.classes}
    injected = 0.0
    if len(job.classes) == 1 and job.config.inject:
        injected = 0.6 if counts[job.classes[0]] < FEW else 0.3
    return _train(job, job.taught, job.classes, injected=injected, anomaly=False, kind=kind)


def require_both_sides(job: Job) -> int:
    """The number of good parts to learn from; UsageError when a class, or beside a single class a good part, is missing."""
    good = sum(not sample.defective for sample in job.taught)
    missing = sorted(name for name in job.classes if not any(name in s.defect_classes for s in job.taught))
    if missing or not job.classes or (len(job.classes) == 1 and not good):
        what = f"no sample of class {', '.join(missing)}" if missing else "no good part"
        what = what if job.classes else "no defective part"
        raise UsageError(
            f"there is {what} to learn from",
            fix="a classifier needs both sides; `lineside train anomaly` learns from good parts alone",
        )
    return good


def train_anomaly(job: Job) -> Trained:
    """One score, and a heat map, learnt from good parts with injected defects; defective samples are left out."""
    good = tuple(sample for sample in job.taught if not sample.defective)
    if not good:
        raise UsageError(
            "there is no good part to learn from", fix="name the folder of good parts at import: --good NAME"
        )
    return _train(job, good, ("anomaly",), injected=0.5, anomaly=True)


def _train(
    job: Job, taught: tuple[Sample, ...], classes: tuple[str, ...], *,
    injected: float, anomaly: bool, kind: PartKind = OWN,
) -> Trained:  # fmt: skip
    config = job.config
    if config.shape is not None and config.shape.size is not None:
        channels, shrink, size = (1 if config.shape.channels == 1 else 3), config.shape.shrink, config.shape.size
    else:
        channels = channels_of(taught)
        shrink, size = input_size(median_size(taught), config.input_px)
    pictures = _load(taught, job.classes, channels, shrink, anomaly=anomaly)
    held_out = _load(job.held_out, job.classes, channels, shrink, anomaly=anomaly)
    until = INJECT_UNTIL if sum(picture.defective for picture in pictures) >= FEW else 1.0
    supply = PartSupply(classes, pictures, size, turns_of(config), injected, config.seed, inject_until=until)
    print(_announce(supply, len(held_out)), file=sys.stderr)
    net, trained_s = train(config, PartLesson(supply, held_out, kind.make))
    share = f" + defects injected into good parts ({100 * injected:.0f} % of crops)" if injected else ""
    return Trained(
        graph=PartGraph(net, size, shrink=shrink, anomaly=anomaly),
        task="anomaly" if anomaly else "classify",
        classes=classes,
        channels=channels,
        trainer=kind.trainer,
        licence=kind.licence,
        source=("real good parts" if anomaly else "real labelled parts") + share,
        trained_s=trained_s,
        examples=examples(taught),
        images=image_limits(taught),
        taught=taught,
    )


def _load(
    samples: tuple[Sample, ...], classes: tuple[str, ...], channels: int, shrink: int, *, anomaly: bool
) -> tuple[Picture, ...]:
    pictures = load_pictures(samples, classes, channels=channels, shrink=shrink)
    if not anomaly:
        return pictures
    none = np.zeros((0, 5), np.float32)
    return tuple(
        replace(picture, labels=none, polygons=(), present=np.array([picture.defective], np.float32))
        for picture in pictures
    )


def input_size(frame: tuple[int, int], input_px: int) -> tuple[int, tuple[int, int]]:
    """By how much frames are averaged down, and the net's input (height, width): as much area as a square of
    ``input_px``, the frame's proportions, multiples of 16; never more pixels than the frame has."""
    area = min(input_px**2, frame[0] * frame[1])
    scale = (area / (frame[0] * frame[1])) ** 0.5
    height, width = (max(64, 16 * round(side * scale / 16)) for side in frame)
    return max(1, int(min(frame[0] / height, frame[1] / width))), (height, width)


def _announce(supply: PartSupply, held_out: int) -> str:
    good = sum(not picture.defective for picture in supply.pictures)
    height, width = supply.size
    return (
        f"{good} good and {len(supply.pictures) - good} defective parts, {held_out} held out; input {width}x{height} px, "
        f"{100 * supply.injected:.0f} % of crops with injected defects"
    )
