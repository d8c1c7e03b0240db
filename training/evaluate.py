"""Scores an exported model through the runtime's own path, on labelled images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from datasets.sample import Sample
from inspection.model import LoadedModel
from inspection.predict import Prediction, Request, card_criteria, predict
from inspection.types import Verdict
from training.metrics import (
    COCO_IOUS,
    FScore,
    Scored,
    average_precision,
    best_f_score,
    clopper_pearson,
    f_score_at,
    mean_average_precision,
)

IOU_DEEPPCB = 0.33


@dataclass(frozen=True, slots=True)
class PartCounts:
    """Whole parts: how many defective ones there were and how many passed as OK, and the same for good ones."""

    defective: int
    escapes: int
    good: int
    overkill: int
    errors: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything `lineside evaluate` reports."""

    classes: tuple[str, ...]
    images: tuple[Scored, ...]
    parts: PartCounts
    ms: tuple[float, ...]
    threshold: float
    seen_in_training: int

    def f_given(self) -> FScore:
        """F-score at the model's own threshold."""
        return f_score_at(self.images, len(self.classes), iou=IOU_DEEPPCB, threshold=self.threshold)

    def f_best(self) -> FScore:
        """F-score at the threshold that is best for these images."""
        return best_f_score(self.images, len(self.classes), iou=IOU_DEEPPCB)

    def map_at(self, ious: Sequence[float]) -> float:
        """Mean average precision over classes and IoU thresholds."""
        return mean_average_precision(self.images, len(self.classes), ious)


def evaluate(
    model: LoadedModel, samples: Sequence[Sample], digests: Sequence[str], threshold: float | None
) -> Evaluation:
    """Judge every sample with the exported file and compare with its labels.

    ``digests``: SHA-256 of each image, to tell how many of them the model was trained on.
    """
    classes = model.card.classes
    criteria = card_criteria(model, threshold)
    requests = [Request(sample.image, sample.golden) for sample in samples]
    predictions = tqdm(predict(model, requests, criteria), total=len(samples), desc="evaluate", unit="img")
    images, counts, times = [], [0, 0, 0, 0, 0], []
    for sample, prediction in zip(samples, predictions, strict=True):
        images.append(_scored(sample, prediction, classes))
        _count(sample, prediction, counts)
        times.append(prediction.ms)
    trained = set(model.card.trained_on.images_sha256)
    seen = sum(digest[:12] in trained for digest in digests)
    limit = criteria.rules[0].ng_score
    return Evaluation(classes, tuple(images), PartCounts(*counts), tuple(times), limit, seen)


def _scored(sample: Sample, prediction: Prediction, classes: tuple[str, ...]) -> Scored:
    found = prediction.inspection.detections
    return Scored(
        np.array([label.box_px for label in sample.labels], float).reshape(-1, 4),
        np.array([classes.index(label.defect_class) for label in sample.labels], np.int64),
        np.array([d.region.xyxy_px for d in found], float).reshape(-1, 4),
        np.array([classes.index(d.defect_class) for d in found], np.int64),
        np.array([d.score for d in found], float),
    )


def _count(sample: Sample, prediction: Prediction, counts: list[int]) -> None:
    verdict = prediction.inspection.judgement.verdict
    counts[4] += verdict == Verdict.ERROR
    if sample.labels:
        counts[0] += 1
        counts[1] += verdict == Verdict.OK
    else:
        counts[2] += 1
        counts[3] += verdict != Verdict.OK


def as_json(result: Evaluation, model: LoadedModel, dataset: str) -> dict[str, Any]:
    """The report of `lineside evaluate --json`."""
    given, best, parts = result.f_given(), result.f_best(), result.parts
    times = np.array(result.ms or (0.0,))
    return {
        "model": model.card.name,
        "model_sha256": model.sha256,
        "dataset": dataset,
        "images": len(result.images),
        "images_seen_in_training": result.seen_in_training,
        "map_33": result.map_at((IOU_DEEPPCB,)),
        "map_50": result.map_at((0.5,)),
        "map_75": result.map_at((0.75,)),
        "map_50_95": result.map_at(COCO_IOUS),
        "ap_33": {
            name: average_precision(result.images, label, IOU_DEEPPCB) for label, name in enumerate(result.classes)
        },
        "f_score": {"threshold": given.threshold, "threshold_from": model.card.threshold_from, **_f(given)},
        "f_score_best_here": {"threshold": best.threshold, "threshold_from": "these very images", **_f(best)},
        "escape": _rate(parts.escapes, parts.defective),
        "overkill": _rate(parts.overkill, parts.good),
        "errors": parts.errors,
        "ms": {"median": float(np.median(times)), "p99": float(np.percentile(times, 99))},
    }


def _f(score: FScore) -> dict[str, float]:
    return {"f": score.f, "hits": score.hits, "false_calls": score.false_calls, "missed": score.missed}


def _rate(events: int, trials: int) -> dict[str, Any]:
    low, high = clopper_pearson(events, trials)
    return {"count": events, "of": trials, "rate": events / trials if trials else None, "interval_95": [low, high]}


def as_text(report: dict[str, Any]) -> str:
    """The report for people."""
    given, best = report["f_score"], report["f_score_best_here"]
    lines = [
        f"{report['images']} images of {report['dataset']}",
        f"mAP@0.33 {100 * report['map_33']:.2f}   @0.5 {100 * report['map_50']:.2f}   "
        f"@0.75 {100 * report['map_75']:.2f}   @0.5:0.95 {100 * report['map_50_95']:.2f}",
        "AP@0.33  " + "  ".join(f"{name} {100 * value:.2f}" for name, value in report["ap_33"].items()),
        f"F {100 * given['f']:.2f} at threshold {given['threshold']:.3f} (chosen on {given['threshold_from']}): "
        f"{given['hits']} hits, {given['false_calls']} false calls, {given['missed']} missed",
        f"F {100 * best['f']:.2f} at threshold {best['threshold']:.3f} (chosen on these very images)",
        "escape   " + _rate_text(report["escape"], "defective parts passed"),
        "overkill " + _rate_text(report["overkill"], "good parts rejected"),
        f"errors   {report['errors']}",
        f"runtime path {report['ms']['median']:.1f} ms median, {report['ms']['p99']:.1f} ms p99",
    ]
    if report["images_seen_in_training"]:
        lines.insert(1, f"WARNING: the model was trained on {report['images_seen_in_training']} of these images")
    return "\n".join(lines)


def _rate_text(rate: dict[str, Any], what: str) -> str:
    if not rate["of"]:
        return f"not measurable: 0 {what.split()[0]} parts here"
    low, high = rate["interval_95"]
    return f"{rate['count']} of {rate['of']} {what} (95 % interval {100 * low:.2f}..{100 * high:.2f} %)"
