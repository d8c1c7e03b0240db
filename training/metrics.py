"""Detection metrics: average precision, F-score, exact binomial intervals.

Average precision is COCO's: detections in order of score, each matched to the free ground-truth box of its class with
the highest IoU at or above the threshold, precision made monotone and read at 101 recall points.  DeepPCB's rule
(Tang et al. 2019, section 4) is the same matching at IoU 0.33.  ``tests/training/test_metrics.py`` checks both against
an independent implementation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEAST_STEP = 0.5  # log-odds above the highest score of a good part
RECALL_POINTS = np.linspace(0, 1, 101)
COCO_IOUS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))


@dataclass(frozen=True, slots=True)
class Scored:
    """Ground truth and detections of one image: boxes (M, 4) xyxy pixels, labels (M,), scores (M,)."""

    true_boxes: Floats
    true_labels: NDArray[np.int64]
    boxes: Floats
    labels: NDArray[np.int64]
    scores: Floats


def box_iou(first: Floats, second: Floats) -> Floats:
    """Intersection over union of (M, 4) and (K, 4) xyxy boxes -> (M, K)."""
    top = np.maximum(first[:, None, :2], second[None, :, :2])
    bottom = np.minimum(first[:, None, 2:], second[None, :, 2:])
    inner = np.clip(bottom - top, 0, None).prod(2)
    area = [np.clip(b[:, 2:] - b[:, :2], 0, None).prod(1) for b in (first, second)]
    return np.asarray(inner / np.maximum(area[0][:, None] + area[1][None, :] - inner, 1e-12))


def match(image: Scored, label: int, iou: float) -> tuple[Floats, NDArray[np.bool_], int]:
    """Scores of one class's detections (descending), which of them hit, and how many true boxes there are."""
    truth = image.true_boxes[image.true_labels == label]
    chosen = np.flatnonzero(image.labels == label)
    chosen = chosen[np.argsort(-image.scores[chosen], kind="stable")]
    hits, free = np.zeros(len(chosen), bool), np.ones(len(truth), bool)
    if len(truth) and len(chosen):
        overlap = box_iou(image.boxes[chosen], truth)
        for row in range(len(chosen)):
            candidate = np.where(free, overlap[row], -1.0)
            best = int(np.argmax(candidate))
            if candidate[best] >= iou:
                hits[row], free[best] = True, False
    return image.scores[chosen], hits, len(truth)


def _pooled(images: Sequence[Scored], label: int, iou: float) -> tuple[Floats, NDArray[np.bool_], int]:
    parts = [match(image, label, iou) for image in images]
    scores = np.concatenate([part[0] for part in parts]) if parts else np.zeros(0)
    hits = np.concatenate([part[1] for part in parts]) if parts else np.zeros(0, bool)
    return scores, hits, sum(part[2] for part in parts)


def average_precision(images: Sequence[Scored], label: int, iou: float) -> float:
    """AP of one class at one IoU threshold; NaN when the class has no true box."""
    scores, hits, total = _pooled(images, label, iou)
    if total == 0:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(hits[order])
    precision = found / np.arange(1, len(found) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(found / total, RECALL_POINTS, side="left")
    padded = np.append(precision, 0.0)
    return float(np.mean(padded[np.minimum(at, len(precision))]))


def mean_average_precision(images: Sequence[Scored], classes: int, ious: Sequence[float]) -> float:
    """Mean AP over the classes that occur and the IoU thresholds; NaN without any true box."""
    values = [average_precision(images, label, iou) for label in range(classes) for iou in ious]
    return float(np.nanmean(values)) if np.any(np.isfinite(values)) else float("nan")


@dataclass(frozen=True, slots=True)
class FScore:
    """F1 over all classes at a score threshold, with the counts it comes from."""

    threshold: float
    f: float
    hits: int
    false_calls: int
    missed: int


def f_score_at(images: Sequence[Scored], classes: int, *, iou: float, threshold: float) -> FScore:
    """F1 at a given threshold, all classes pooled."""
    parts = [_pooled(images, label, iou) for label in range(classes)]
    hits = sum(int(np.sum(found & (scores >= threshold))) for scores, found, _ in parts)
    shown = sum(int(np.sum(scores >= threshold)) for scores, _, _ in parts)
    total = sum(count for _, _, count in parts)
    f = 2 * hits / (shown + total) if shown + total else float("nan")
    return FScore(threshold, f, hits, shown - hits, total - hits)


def best_f_score(images: Sequence[Scored], classes: int, *, iou: float) -> FScore:
    """The threshold with the highest F1 and its counts (chosen on these very images: say so when quoting it)."""
    parts = [_pooled(images, label, iou) for label in range(classes)]
    scores = np.concatenate([part[0] for part in parts])
    hits = np.concatenate([part[1] for part in parts])
    total = sum(part[2] for part in parts)
    if not len(scores):
        return FScore(1.0, 0.0, 0, 0, total)
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(hits[order])
    f = 2 * found / (np.arange(1, len(found) + 1) + total)
    last = np.append(np.diff(scores[order]) != 0, True)  # equal scores cannot be told apart by a threshold
    best = int(np.argmax(np.where(last, f, -1)))
    return f_score_at(images, classes, iou=iou, threshold=float(scores[order][best]))


def area_under_roc(scores: Floats, defective: NDArray[np.bool_]) -> float:
    """Probability that a defective part scores above a good one, ties counting half (Mann and Whitney 1947); NaN when
    one side is empty."""
    from scipy.stats import rankdata

    bad, good = int(defective.sum()), int((~defective).sum())
    if not bad or not good:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[defective].sum() - bad * (bad + 1) / 2) / (bad * good))


def middle_threshold(scores: Floats, defective: NDArray[np.bool_]) -> float:
    """The threshold with the fewest wrong parts, in the middle between the two scores it lies between, as log-odds.

    Of several equally good ones the lowest: an escape costs more than an overkill.  Without defective parts it lies half
    as far above the highest good score as that lies above the median, and a step at least: a first guess, no promise.
    """
    odds = np.log(np.clip(scores, 1e-6, 1 - 1e-6) / (1 - np.clip(scores, 1e-6, 1 - 1e-6)))
    if not defective.any():
        chosen = float(odds.max() + max(LEAST_STEP, 0.5 * (odds.max() - np.median(odds)))) if len(odds) else 0.0
    elif defective.all():
        chosen = float(odds.min())
    else:
        steps = np.unique(odds)
        wrong = [int((defective & (odds <= s)).sum() + (~defective & (odds > s)).sum()) for s in steps]
        # Passing up to steps[k]; passing none is no choice.
        k = int(np.argmin(wrong))
        chosen = float((steps[k] + steps[min(k + 1, len(steps) - 1)]) / 2)
    return float(np.clip(1 / (1 + np.exp(-chosen)), 0.02, 0.99))


def balanced_threshold(scores: Floats, defective: NDArray[np.bool_]) -> float:
    """The threshold as many standard deviations above the mean good part as below the mean defective one, in log-odds.

    For parts that were learnt from: their few outliers were learnt by heart and say less than how the sides spread.
    ``middle_threshold`` where a side has fewer than two parts.
    """
    odds = np.log(np.clip(scores, 1e-6, 1 - 1e-6) / (1 - np.clip(scores, 1e-6, 1 - 1e-6)))
    sides = [odds[~defective], odds[defective]]
    if min(map(len, sides)) < 2:
        return middle_threshold(scores, defective)
    (good, bad), (narrow, wide) = [side.mean() for side in sides], [side.std() + 1e-3 for side in sides]
    chosen = (good * wide + bad * narrow) / (narrow + wide)
    return float(np.clip(1 / (1 + np.exp(-chosen)), 0.02, 0.99))


def clopper_pearson(events: int, trials: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Exact two-sided interval for a proportion (Clopper and Pearson 1934); (0, 1) without trials."""
    from scipy.stats import beta

    if trials == 0:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = 0.0 if events == 0 else float(beta.ppf(tail, events, trials - events + 1))
    high = 1.0 if events == trials else float(beta.ppf(1 - tail, events + 1, trials - events))
    return low, high
