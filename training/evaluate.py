"""Scores an exported model through the runtime's own path, on labelled images."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from datasets.sample import Sample
from inspection.judge import Rule, judge, ng_score
from inspection.model import LoadedModel, ModelCard
from inspection.predict import Prediction, Request, card_criteria, predict, rules_of
from inspection.types import Verdict
from training.metrics import (
    COCO_IOUS,
    Floats,
    FScore,
    Scored,
    area_under_roc,
    average_precision,
    best_f_score,
    clopper_pearson,
    f_score_at,
    mean_average_precision,
)

IOU_DEEPPCB = 0.33
GOOD = "good"  # row and column of the confusion matrix


@dataclass(frozen=True, slots=True)
class Case:
    """One sample and what the model said of it; ``unread``: its picture or golden could not be read."""

    sample: Sample
    prediction: Prediction
    unread: bool = False

    @property
    def verdict(self) -> Verdict:
        """The verdict by the limits of the evaluation."""
        return self.prediction.inspection.judgement.verdict

    @property
    def score(self) -> float:
        """How sure the part is NG, 0..1; a part that could not be judged was not passed: 1."""
        return 1.0 if self.verdict == Verdict.ERROR else ng_score(self.prediction.inspection.detections)


@dataclass(frozen=True, slots=True)
class PartCounts:
    """Whole parts: how many defective ones there were and how many passed as OK, and the same for good ones.

    ``defective_errors`` and ``good_errors`` could not be judged: of these it is not known whether they would pass.
    """

    defective: int
    escapes: int
    good: int
    overkill: int
    review: int
    defective_errors: int
    good_errors: int

    @property
    def errors(self) -> int:
        """Parts that could not be judged."""
        return self.defective_errors + self.good_errors


@dataclass(frozen=True)
class Evaluation:
    """Every case with the rules it was judged by; everything `lineside evaluate` reports follows from it."""

    card: ModelCard
    cases: tuple[Case, ...]
    rules: tuple[Rule, ...]
    seen_in_training: int

    @cached_property
    def images(self) -> tuple[Scored, ...]:
        """Boxes of truth and of findings, for detection metrics."""
        return tuple(_scored(case, self.card.classes) for case in self.cases)

    @property
    def threshold(self) -> float:
        """The lowest limit from which a finding rejects a part."""
        return min(rule.ng_score for rule in self.rules)

    def part_scores(self) -> tuple[Floats, NDArray[np.bool_]]:
        """Score of each part, and whether it is defective."""
        scores = np.array([case.score for case in self.cases], float)
        return scores, np.array([case.sample.defective for case in self.cases], bool)

    def parts(self) -> PartCounts:
        """Escapes and overkill by whole parts; a part sent to review is neither passed nor rejected."""
        bad = [case.verdict for case in self.cases if case.sample.defective]
        good = [case.verdict for case in self.cases if not case.sample.defective]
        both = Counter(bad + good)
        rejected = sum(verdict in (Verdict.NG, Verdict.ERROR) for verdict in good)
        return PartCounts(
            len(bad),
            bad.count(Verdict.OK),
            len(good),
            rejected,
            both[Verdict.REVIEW],
            bad.count(Verdict.ERROR),
            good.count(Verdict.ERROR),
        )

    def judged_by(self, rules: Sequence[Rule]) -> "Evaluation":
        """The same findings judged by other rules; what could not be judged stays ERROR."""
        return replace(self, rules=tuple(rules), cases=tuple(_rejudged(case, rules) for case in self.cases))

    def f_given(self) -> FScore:
        """F-score at the model's own threshold."""
        return f_score_at(self.images, len(self.card.classes), iou=IOU_DEEPPCB, threshold=self.threshold)

    def f_best(self) -> FScore:
        """F-score at the threshold that is best for these images."""
        return best_f_score(self.images, len(self.card.classes), iou=IOU_DEEPPCB)

    def map_at(self, ious: Sequence[float]) -> float:
        """Mean average precision over classes and IoU thresholds."""
        return mean_average_precision(self.images, len(self.card.classes), ious)

    def confusion(self) -> dict[str, dict[str, int]]:
        """Counts by truth (the part's classes; good) and by the class of the finding that rejected it best."""
        table: dict[str, Counter[str]] = {}
        for case in self.cases:
            for truth in sorted(case.sample.defect_classes) or [GOOD]:
                table.setdefault(truth, Counter())[_said(case)] += 1
        return {truth: dict(row) for truth, row in sorted(table.items())}


def _said(case: Case) -> str:
    judgement = case.prediction.inspection.judgement
    if judgement.verdict in (Verdict.OK, Verdict.ERROR):
        return GOOD if judgement.verdict == Verdict.OK else "ERROR"
    found = [found for reason in judgement.reasons for found in reason.detections]
    return max(found, key=lambda detection: detection.score).defect_class


def _rejudged(case: Case, rules: Sequence[Rule]) -> Case:
    inspection = case.prediction.inspection
    if inspection.judgement.verdict == Verdict.ERROR:
        return case
    judged = replace(inspection, judgement=judge(inspection.detections, rules))
    return replace(case, prediction=replace(case.prediction, inspection=judged))


def evaluate(
    model: LoadedModel, samples: Sequence[Sample], digests: Sequence[str], threshold: float | None
) -> Evaluation:
    """Judge every sample with the exported file and compare with its labels.

    ``digests``: SHA-256 of each image, to tell how many of them the model was trained on.
    """
    criteria = card_criteria(model, threshold)
    requests = [Request(sample.image, sample.golden) for sample in samples]
    predictions = tqdm(predict(model, requests, criteria), total=len(samples), desc="evaluate", unit="img")
    cases = tuple(Case(sample, prediction) for sample, prediction in zip(samples, predictions, strict=True))
    trained = set(model.card.trained_on.images_sha256)
    seen = sum(digest[:12] in trained for digest in digests)
    return Evaluation(model.card, cases, criteria.rules, seen)


def _scored(case: Case, classes: tuple[str, ...]) -> Scored:
    found, labels = case.prediction.inspection.detections, case.sample.labels
    return Scored(
        np.array([label.box_px for label in labels], float).reshape(-1, 4),
        np.array([classes.index(label.defect_class) for label in labels], np.int64),
        np.array([d.region.xyxy_px for d in found], float).reshape(-1, 4),
        np.array([classes.index(d.defect_class) for d in found], np.int64),
        np.array([d.score for d in found], float),
    )


def as_json(result: Evaluation, model: LoadedModel, dataset: str) -> dict[str, Any]:
    """The report of `lineside evaluate --json`."""
    parts = result.parts()
    scores, defective = result.part_scores()
    times = np.array([case.prediction.ms for case in result.cases] or (0.0,))
    right = int(((scores >= result.threshold) == defective).sum())
    return {
        "model": model.card.name,
        "model_sha256": model.sha256,
        "task": model.card.task,
        "dataset": dataset,
        "images": len(result.cases),
        "images_seen_in_training": result.seen_in_training,
        **(_box_figures(result) if model.card.task == "detect" else {}),
        "auroc": area_under_roc(scores, defective),
        "accuracy": {"count": right, "of": len(scores), "threshold": result.threshold},
        "threshold_from": _origin(result),
        "limits": {rule.defect_class: [rule.ng_score, rule.review_score] for rule in result.rules},
        "escape": _rate(parts.escapes, parts.defective, parts.defective_errors),
        "overkill": _rate(parts.overkill, parts.good, parts.good_errors),
        "review": parts.review,
        "errors": parts.errors,
        "confusion": result.confusion(),
        "ms": {"median": float(np.median(times)), "p99": float(np.percentile(times, 99))},
    }


def _origin(result: Evaluation) -> str:
    """Where the limits come from."""
    return result.card.threshold_from if result.rules == rules_of(result.card) else "nothing: given by hand"


def _box_figures(result: Evaluation) -> dict[str, Any]:
    given, best = result.f_given(), result.f_best()
    classes = result.card.classes
    return {
        "map_33": result.map_at((IOU_DEEPPCB,)),
        "map_50": result.map_at((0.5,)),
        "map_75": result.map_at((0.75,)),
        "map_50_95": result.map_at(COCO_IOUS),
        "ap_33": {name: average_precision(result.images, label, IOU_DEEPPCB) for label, name in enumerate(classes)},
        "ap_50": {name: average_precision(result.images, label, 0.5) for label, name in enumerate(classes)},
        "f_score": {"threshold": given.threshold, "threshold_from": _origin(result), **_f(given)},
        "f_score_best_here": {"threshold": best.threshold, "threshold_from": "these very images", **_f(best)},
    }


def _f(score: FScore) -> dict[str, float]:
    return {"f": score.f, "hits": score.hits, "false_calls": score.false_calls, "missed": score.missed}


def _rate(events: int, trials: int, errors: int) -> dict[str, Any]:
    low, high = clopper_pearson(events, trials)
    rate = events / trials if trials else None
    return {"count": events, "of": trials, "errors": errors, "rate": rate, "interval_95": [low, high]}


def as_text(report: dict[str, Any]) -> str:
    """The report for people."""
    accuracy = report["accuracy"]
    lines = [f"{report['images']} images of {report['dataset']}"]
    if report["images_seen_in_training"]:
        lines.append(f"WARNING: the model was trained on {report['images_seen_in_training']} of these images")
    lines += _box_lines(report) if report["task"] == "detect" else []
    if report["auroc"] == report["auroc"]:
        lines.append(
            f"AUROC {report['auroc']:.4f}   right {accuracy['count']} of {accuracy['of']} parts at threshold "
            f"{accuracy['threshold']:.3f} (from: {report['threshold_from']})"
        )
    return "\n".join(
        [
            *lines,
            "escape   " + _rate_text(report["escape"], "defective parts passed"),
            "overkill " + _rate_text(report["overkill"], "good parts rejected"),
            f"review   {report['review']}   errors {report['errors']}",
            f"runtime path {report['ms']['median']:.1f} ms median, {report['ms']['p99']:.1f} ms p99",
        ]
    )


def _box_lines(report: dict[str, Any]) -> list[str]:
    given, best = report["f_score"], report["f_score_best_here"]
    lines = [
        f"mAP@0.33 {100 * report['map_33']:.2f}   @0.5 {100 * report['map_50']:.2f}   "
        f"@0.75 {100 * report['map_75']:.2f}   @0.5:0.95 {100 * report['map_50_95']:.2f}"
    ]
    for iou in ("33", "50"):
        row = "  ".join(f"{name} {100 * value:.2f}" for name, value in report[f"ap_{iou}"].items())
        lines.append(f"AP@0.{iou}  {row}")
    return [
        *lines,
        f"F {100 * given['f']:.2f} at threshold {given['threshold']:.3f} (chosen on {given['threshold_from']}): "
        f"{given['hits']} hits, {given['false_calls']} false calls, {given['missed']} missed",
        f"F {100 * best['f']:.2f} at threshold {best['threshold']:.3f} (chosen on these very images)",
    ]


def _rate_text(rate: dict[str, Any], what: str) -> str:
    if not rate["of"]:
        return f"not measurable: 0 {what.split()[0]} parts here"
    low, high = rate["interval_95"]
    errors = f"; {rate['errors']} of the {rate['of']} could not be judged" if rate["errors"] else ""
    return f"{rate['count']} of {rate['of']} {what} (95 % interval {100 * low:.2f}..{100 * high:.2f} %){errors}"
