"""Curves and intervals behind the report: what a threshold catches, and how far a figure may be off by chance."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.metrics import RECALL_POINTS, Floats, Scored, area_under_roc, box_iou, match

RESAMPLES = 500
_SEED = 1  # the same evaluation gives the same report
_TAILS = (2.5, 97.5)  # percent


@dataclass(frozen=True, slots=True)
class Rates:
    """Shares (T,) of parts that score at least each threshold, from the highest down; (0, 0) comes first."""

    thresholds: Floats
    caught: Floats
    rejected: Floats
    precision: Floats


def part_rates(scores: Floats, defective: NDArray[np.bool_]) -> Rates:
    """What each threshold would catch of the defective and reject of the good parts; both must be there."""
    thresholds = np.append(np.inf, np.unique(scores)[::-1])
    bad, good = np.sort(scores[defective]), np.sort(scores[~defective])
    caught = len(bad) - np.searchsorted(bad, thresholds, side="left")
    rejected = len(good) - np.searchsorted(good, thresholds, side="left")
    precision = caught / np.maximum(caught + rejected, 1)
    precision[0] = precision[1]  # of nothing rejected: as of the first that is
    return Rates(thresholds, caught / len(bad), rejected / len(good), precision)


@dataclass(frozen=True, slots=True)
class BoxHits:
    """The findings of one class over all images, best first: which hit (K,), in which image (K,); true boxes an image."""

    hits: NDArray[np.bool_]
    image: NDArray[np.int64]
    true_boxes: NDArray[np.int64]


def box_hits(images: Sequence[Scored], label: int, iou: float) -> BoxHits:
    """Match the findings of one class in every image."""
    matched = [match(image, label, iou) for image in images]
    scores = np.concatenate([row[0] for row in matched] or [np.zeros(0)])
    hits = np.concatenate([row[1] for row in matched] or [np.zeros(0, bool)])
    number = np.repeat(np.arange(len(matched)), [len(row[0]) for row in matched])
    order = np.argsort(-scores, kind="stable")
    return BoxHits(hits[order], number[order], np.array([row[2] for row in matched], np.int64))


def box_precision(found: BoxHits, times: NDArray[np.int64] | None = None) -> Floats:
    """Highest precision at 101 recalls from 0 to 1, NaN without a true box; its mean is the average precision.

    ``times``: how often each image counts (N,), once when not given.
    """
    each = np.ones(len(found.true_boxes), np.int64) if times is None else times
    total, weight = int((found.true_boxes * each).sum()), each[found.image]
    if total == 0:
        return np.full(len(RECALL_POINTS), np.nan)
    hits = np.cumsum(found.hits * weight)
    precision = np.maximum.accumulate((hits / np.maximum(np.cumsum(weight), 1))[::-1])[::-1]
    at = np.searchsorted(hits / total, RECALL_POINTS, side="left")
    return np.append(precision, 0.0)[np.minimum(at, len(precision))]


def mean_ap_interval(classes: Sequence[BoxHits]) -> tuple[float, float] | None:
    """95 % interval of the mean AP over classes by resampling images; None when it has no width or no box."""
    images = len(classes[0].true_boxes) if classes else 0
    if not sum(int(found.true_boxes.sum()) for found in classes):
        return None

    def draw(rng: np.random.Generator) -> float:
        times = np.bincount(rng.integers(0, images, images), minlength=images)
        values = [box_precision(found, times).mean() for found in classes if (found.true_boxes * times).any()]
        return float(np.mean(values)) if values else float("nan")

    return _interval(draw)


def box_confusion(images: Sequence[Scored], limits: Floats, iou: float) -> NDArray[np.int64]:
    """Counts (C + 1, C + 1) by class of the true box and class of the finding, whatever its class, that lies there.

    Findings that score at least the limit (C,) of their class, best first, each take the free true box with the highest
    IoU of at least ``iou``.  The last row is findings where nothing is, the last column true boxes without a finding.
    """
    none = len(limits)
    table = np.zeros((none + 1, none + 1), np.int64)
    for image in images:
        kept = np.flatnonzero(image.scores >= limits[image.labels])
        kept = kept[np.argsort(-image.scores[kept], kind="stable")]
        overlap, free = box_iou(image.boxes[kept], image.true_boxes), np.ones(len(image.true_boxes), bool)
        for row, finding in enumerate(kept):
            candidate = np.where(free, overlap[row], -1.0)
            hit = bool(len(candidate)) and candidate.max() >= iou
            truth = image.true_labels[candidate.argmax()] if hit else none
            table[truth, image.labels[finding]] += 1
            if hit:
                free[candidate.argmax()] = False
        np.add.at(table, (image.true_labels[free], none), 1)
    return table


def auroc_interval(scores: Floats, defective: NDArray[np.bool_]) -> tuple[float, float] | None:
    """95 % interval by resampling good and defective parts; None when it has no width or a side is empty."""
    bad, good = scores[defective], scores[~defective]
    if not len(bad) or not len(good):
        return None
    truth = np.arange(len(scores)) < len(bad)

    def draw(rng: np.random.Generator) -> float:
        return area_under_roc(np.concatenate([rng.choice(bad, len(bad)), rng.choice(good, len(good))]), truth)

    return _interval(draw)


def _interval(draw: Callable[[np.random.Generator], float]) -> tuple[float, float] | None:
    rng = np.random.default_rng(_SEED)
    low, high = np.nanpercentile([draw(rng) for _ in range(RESAMPLES)], _TAILS)
    return (float(low), float(high)) if high > low else None
