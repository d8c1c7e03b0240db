"""Trains the detect net: boxes of defects on any part, from labelled boxes."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from inspection.errors import UsageError
from training.graphs import DetectGraph
from training.lessons.box import BoxLesson
from training.lessons.box_crops import BoxSupply
from training.lessons.pictures import Picture, load_pictures
from training.train import Lesson, train
from training.trainers import Job, Trained
from training.trainers.frames import channels_of, examples, image_limits, median_size, turns_of

LARGEST_TILE_PX = 1280
SMALL_PX = 24.0  # boxes of this side and below need cells of 4 px


@dataclass(frozen=True, slots=True)
class BoxKind:
    """A net that learns boxes from the crops of ``BoxSupply``, and what the ModelCard says of it.

    ``lesson``: crops, held-out pictures and the finest stride in px in, a lesson out.  ``graph``: the trained net in, a
    graph of the model contract out, for images whose sides are multiples of 32.
    """

    lesson: Callable[[BoxSupply, tuple[Picture, ...], int], Lesson]
    graph: Callable[[Any], nn.Module]
    trainer: str
    licence: str


OWN = BoxKind(BoxLesson, DetectGraph, "lineside detect net", "Apache-2.0")


def train_detector(job: Job, kind: BoxKind = OWN) -> Trained:
    """Boxes, scores and labels; images up to the size of a tile are looked at whole."""
    config = job.config
    require_boxes(job)
    channels = channels_of(job.taught) if config.shape is None else 1 if config.shape.channels == 1 else 3
    pictures = load_pictures(job.taught, job.classes, channels=channels)
    held_out = load_pictures(job.held_out, job.classes, channels=channels)
    supply, first_stride, tile_px = _plan(job, pictures)
    print(_announce(supply, first_stride, len(held_out)), file=sys.stderr)
    net, trained_s = train(config, kind.lesson(supply, held_out, first_stride))
    return Trained(
        graph=kind.graph(net),
        task="detect",
        classes=job.classes,
        channels=channels,
        trainer=kind.trainer,
        licence=kind.licence,
        source="real labelled frames",
        trained_s=trained_s,
        examples=examples(job.taught),
        images=image_limits(job.taught),
        tile_px=tile_px,
        taught=job.taught,
    )


def require_boxes(job: Job) -> None:
    """UsageError when a class has no box, or a defective sample has none."""
    counts = dict.fromkeys(job.classes, 0)
    for sample in job.taught:
        for label in sample.labels:
            counts[label.defect_class] += 1
    missing = [name for name, count in counts.items() if not count]
    if missing:
        raise UsageError(
            f"there is no box of class {', '.join(missing)} to learn from",
            fix="a detector needs boxes; for images labelled as a whole use `lineside train classify`",
        )
    unplaced = [s.name for s in job.taught if s.image_class and not s.labels]
    if unplaced:
        raise UsageError(
            f"{len(unplaced)} defective samples have no box, the first is {unplaced[0]!r}: they would be learnt as good",
            fix="mark their defects, or leave them out",
        )


def _plan(job: Job, pictures: tuple[Picture, ...]) -> tuple[BoxSupply, int, int]:
    """What crops are cut, the finest stride of the net, and the tile large frames are cut into."""
    height, width = median_size(job.taught)
    sides = np.concatenate([p.labels[:, 2:4] - p.labels[:, :2] for p in pictures])
    small = float(np.percentile(np.sqrt(sides.prod(1)), 25))
    longest = 32 * -(-max(height, width) // 32)
    crop = job.config.crop_px
    whole = longest <= 1.25 * crop
    size = (32 * -(-height // 32), 32 * -(-width // 32)) if whole else (crop, crop)
    turns = replace(turns_of(job.config), rotate_deg=5.0, scale=0.3, shift=0.1)  # a turned box fits its defect badly
    supply = BoxSupply(job.classes, pictures, size, whole, turns, job.config.seed)
    if job.config.shape is not None:
        return supply, job.config.shape.first_stride, job.config.shape.tile_px
    return supply, 4 if small < SMALL_PX else 8, min(LARGEST_TILE_PX, max(64, longest))


def _announce(supply: BoxSupply, first_stride: int, held_out: int) -> str:
    boxes = sum(len(picture.labels) for picture in supply.pictures)
    kind = "whole pictures of" if supply.whole else "windows of"
    return (
        f"{len(supply.pictures)} pictures with {boxes} boxes, {held_out} held out; {kind} "
        f"{supply.crop_px[1]}x{supply.crop_px[0]} px, finest cells {first_stride} px"
    )
