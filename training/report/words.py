"""The figures of an evaluation in words: every number with the count it rests on, and a plain refusal where none is."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from datasets.look_alikes import Leak
from inspection.judge import Rule
from inspection.model import ModelCard
from inspection.types import Verdict
from training.evaluate import Evaluation
from training.metrics import clopper_pearson
from training.report.curves import auroc_interval, box_hits, mean_ap_interval

Row = tuple[str, str]
NOT_MEASURABLE = "not measurable"


@dataclass(frozen=True, slots=True)
class Figure:
    """One headline figure: its value, the counts and interval it rests on, and what it means."""

    name: str
    value: str
    rests_on: str
    means: str


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence on what the figures may be relied on for.

    ``weight``: "warning" where they may not, "promise" where something was shown.
    """

    title: str
    text: str
    weight: Literal["warning", "promise"]


@dataclass(frozen=True, slots=True)
class ClassRow:
    """The defective parts of one class."""

    name: str
    parts: int
    escapes: int
    interval: str
    review: int
    boxes: int
    ap_50: str


def headline(result: Evaluation, figures: dict[str, Any]) -> list[Figure]:
    """The figures at the top of the page; ``figures`` are those of ``as_json``."""
    parts = result.parts()
    seen = f"{parts.review} of {figures['images']}"
    made = [
        _rate("Escapes", figures["escape"], "defective", "defective parts that passed as OK"),
        _rate("Overkill", figures["overkill"], "good", "good parts that were rejected (NG) or could not be judged (ERROR)"),
        Figure("Review", seen, _share(parts.review, figures["images"]), "parts that a person must look at"),
        Figure(
            "Errors", f"{parts.errors} of {figures['images']}", _share(parts.errors, figures["images"]),
            "parts that could not be judged; they are never passed",
        ),
        _auroc(result, figures),
    ]  # fmt: skip
    if figures["task"] == "detect":
        made += _box_figures(result, figures)
    return made


def _rate(name: str, rate: dict[str, Any], kind: str, means: str) -> Figure:
    if not rate["of"]:
        return Figure(name, NOT_MEASURABLE, f"there is no {kind} part here", means)
    low, high = rate["interval_95"]
    between = f"{percent(rate['rate'])}; 95\N{NO-BREAK SPACE}% interval {percent(low)} to {percent(high)}"
    between += f"; {rate['errors']} of the {rate['of']} could not be judged" if rate["errors"] else ""
    return Figure(name, f"{rate['count']} of {rate['of']}", between, means)


def _share(count: int, of: int) -> str:
    low, high = clopper_pearson(count, of)
    return (
        f"{percent(count / of)}; 95\N{NO-BREAK SPACE}% interval {percent(low)} to {percent(high)}"
        if of
        else "no part here"
    )


def _auroc(result: Evaluation, figures: dict[str, Any]) -> Figure:
    means = "how often a defective part scores above a good one"
    scores, defective = result.part_scores()
    if math.isnan(figures["auroc"]):
        missing = "good" if defective.any() else "defective"
        return Figure("AUROC", NOT_MEASURABLE, f"there is no {missing} part here", means)
    counts = f"{int(defective.sum())} defective and {int((~defective).sum())} good parts"
    return Figure("AUROC", f"{figures['auroc']:.4f}", f"{counts}; {_between(auroc_interval(scores, defective))}", means)


def _between(interval: tuple[float, float] | None) -> str:
    if interval is None:
        return "no interval: every resample of these parts gives the same"
    return f"95\N{NO-BREAK SPACE}% interval {interval[0]:.4f} to {interval[1]:.4f} (resampled)"


def _box_figures(result: Evaluation, figures: dict[str, Any]) -> Iterator[Figure]:
    boxes, score = sum(len(image.true_boxes) for image in result.images), figures["f_score"]
    if not boxes:
        yield Figure("mAP@0.5", NOT_MEASURABLE, "no defect is marked with a box here", "boxes at the right place")
        return
    found = [box_hits(result.images, label, 0.5) for label in range(len(result.card.classes))]
    yield Figure(
        "mAP@0.5", f"{figures['map_50']:.4f}",
        f"{boxes} boxes in {figures['images']} images; {_between(mean_ap_interval(found))}",
        "precision of the findings over all thresholds, mean of the classes; a finding hits at IoU 0.5",
    )  # fmt: skip
    yield Figure(
        "F-score", f"{score['f']:.4f}",
        f"{score['hits']} hits, {score['false_calls']} false calls, {score['missed']} missed of {boxes} boxes",
        f"findings that score at least {number(score['threshold'])}; a finding hits at IoU 0.33",
    )  # fmt: skip


def percent(share: float) -> str:
    """A share as percent, two digits behind the point."""
    return f"{100 * share:.2f}\N{NO-BREAK SPACE}%"


def number(score: float) -> str:
    """A score or threshold, three significant digits; those next to 1 keep what tells them from it."""
    return f"{score:.3g}" if score < 0.99 else f"{score:.5f}".rstrip("0").rstrip(".")


def model_rows(card: ModelCard, sha256: str) -> list[Row]:
    """What was judged: the model."""
    seen = card.trained_on
    return [
        ("name", card.name),
        ("file (SHA-256)", sha256),
        ("task", card.task + (", compares with a golden template" if card.golden_guided else "")),
        ("classes", ", ".join(card.classes)),
        ("precision", f"{card.precision} {card.precision_note}".strip()),
        ("trainer", f"{card.trainer} ({card.trainer_licence})"),
        ("trained on", seen.source),
        ("dataset of training", f"{seen.dataset} {seen.dataset_version[:12]}".strip() or "none"),
        ("size of training", f"{seen.labelled_frames} labelled frames, {seen.goldens} goldens, {_groups(card)}"),
        ("length of training", f"{card.trained_minutes:g} minutes, seed {card.seed}"),
        ("commit", card.commit or "not recorded"),
        ("exported file against trained net", card.parity or "not compared"),
    ]


def _groups(card: ModelCard) -> str:
    learnt, held_out = len(card.trained_on.groups), len(card.trained_on.held_out)
    return f"{learnt or 'unnamed'} groups; {held_out or 'no'} groups held out"


def dataset_rows(result: Evaluation, dataset: str) -> list[Row]:
    """What it was judged on: the dataset."""
    parts, samples = result.parts(), [case.sample for case in result.cases]
    splits = Counter(sample.split or "unsplit" for sample in samples)
    labels = sum(len(sample.labels) for sample in samples)
    whole = sum(bool(sample.image_class) and not sample.labels for sample in samples)
    return [
        ("dataset and version", dataset),
        ("images", f"{len(samples)}: {parts.defective} of defective parts, {parts.good} of good ones"),
        ("labels", f"{labels} boxes; {whole} images labelled only as a whole"),
        ("groups", str(len({sample.group for sample in samples}))),
        ("splits", ", ".join(f"{name} {count}" for name, count in sorted(splits.items()))),
    ]


def operating_point(result: Evaluation) -> str:
    """How a part is judged here, and where the limits come from."""
    limits = {(rule.ng_score, rule.review_score) for rule in result.rules}
    if len(limits) > 1:
        how = "Each class has limits of its own: see the table."
    else:
        ((ng, review),) = limits
        how = f"A part is rejected (NG) when a finding scores at least {number(ng)}"
        if review < ng:
            how += f", a person must look at it (REVIEW) from {number(review)}, and it passes (OK) below."
        else:
            how += ", and it passes (OK) below; no part is sent to review."
    if own_limits(result.card, result.rules):
        return f"{how} These are the limits of the model itself, chosen on: {result.card.threshold_from}."
    return f"{how} These limits were given for this evaluation; the model itself has others."


def own_limits(card: ModelCard, rules: Sequence[Rule]) -> bool:
    """Whether the rules are those that the card gives."""
    own = dict.fromkeys(card.classes, (card.threshold, card.threshold))
    if card.limits:
        own = {row.defect_class: (row.ng_score, row.review_score) for row in card.limits}
    return own == {rule.defect_class: (rule.ng_score, rule.review_score) for rule in rules}


def statements(result: Evaluation, dataset: str, leak: Leak | None) -> list[Statement]:
    """What the figures may be relied on for: promise of the calibration, images of the training, copies of them."""
    return [_promise(result, dataset), _seen(result), _copies(leak)]


def _copies(leak: Leak | None) -> Statement:
    title = "Copies of training images"
    if leak is None:
        return Statement(title, "Nobody looked whether these images look like some of the training.", "warning")
    text = leak.statement()
    sure = not leak and leak.source != "none"
    return Statement(title, f"{text[0].upper()}{text[1:]}.", "promise" if sure else "warning")


def _promise(result: Evaluation, dataset: str) -> Statement:
    title, card = "Calibration", result.card
    found = card.calibration
    if found is None:
        bound = f" The card says of its threshold: {card.escape_bound}." if card.escape_bound else ""
        text = f"The limits are not calibrated: nothing is promised about escapes on the line.{bound}"
        return Statement(title, text, "warning")
    counts = (
        f"Chosen on {found.defective} defective and {found.good} good parts of {found.dataset} "
        f"{found.dataset_version[:12]}, with {found.escapes} escapes, {found.overkill} overkill, {found.review} in review."
    )
    text = f"{found.statement} {counts}"
    if found.dataset_version and found.dataset_version[:12] in dataset:
        text += (
            " That is the dataset judged here: the figures test the promise only where other parts of it were chosen."
        )
    if not own_limits(card, result.rules):
        return Statement(title, f"{text} This evaluation used other limits, so the promise is not about it.", "warning")
    return Statement(title, text, "warning" if found.escape_bound is None else "promise")


def _seen(result: Evaluation) -> Statement:
    title, count = "Images seen in training", len(result.cases)
    known = len(result.card.trained_on.images_sha256)
    if result.seen_in_training:
        text = f"The model was trained on {result.seen_in_training} of these {count} images: the figures are too good."
        return Statement(title, text, "warning")
    if not known:
        return Statement(title, "The card does not list the images of the training: it cannot be told.", "warning")
    return Statement(
        title, f"None of these {count} images is among the {known} of the training (by SHA-256).", "promise"
    )


def differing_limits(rules: Sequence[Rule]) -> list[tuple[str, str, str]]:
    """Class, limit of NG and limit of REVIEW of each rule, where they are not all alike."""
    if len({(rule.ng_score, rule.review_score) for rule in rules}) < 2:
        return []
    return [
        (
            rule.defect_class,
            number(rule.ng_score),
            number(rule.review_score) if rule.review_score < rule.ng_score else "none",
        )
        for rule in rules
    ]


VERDICTS = (Verdict.OK, Verdict.REVIEW, Verdict.NG, Verdict.ERROR)


def verdict_counts(result: Evaluation) -> list[tuple[str, list[int]]]:
    """Defective and good parts by verdict, in the order of ``VERDICTS``."""
    rows = []
    for name, defective in (("defective", True), ("good", False)):
        said = Counter(case.verdict for case in result.cases if case.sample.defective == defective)
        rows.append((name, [said[verdict] for verdict in VERDICTS]))
    return rows


def class_rows(result: Evaluation, figures: dict[str, Any]) -> list[ClassRow]:
    """One row for each class that a defective part has or the model knows; a part with two classes counts in both."""
    named = {name for case in result.cases for name in case.sample.defect_classes}
    known = result.card.classes if result.card.task != "anomaly" else ()
    return [_class_row(result, figures, name) for name in [*known, *sorted(named - set(known))]]


def _class_row(result: Evaluation, figures: dict[str, Any], name: str) -> ClassRow:
    cases = [case for case in result.cases if name in case.sample.defect_classes]
    said = Counter(case.verdict for case in cases)
    low, high = clopper_pearson(said[Verdict.OK], len(cases))
    boxes = sum(label.defect_class == name for case in cases for label in case.sample.labels)
    precision = figures.get("ap_50", {}).get(name, float("nan"))
    return ClassRow(
        name, len(cases), said[Verdict.OK], f"{percent(low)} to {percent(high)}" if cases else "no part here",
        said[Verdict.REVIEW], boxes, f"{precision:.4f}" if np.isfinite(precision) else "no box here",
    )  # fmt: skip


def timing_rows(result: Evaluation, figures: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Median and p99 in milliseconds of the whole path and of each stage."""
    rows = [("whole runtime path", figures["ms"]["median"], figures["ms"]["p99"])]
    stages: dict[str, list[float]] = {}
    for case in result.cases:
        for name, ms in case.prediction.inspection.stage_ms:
            stages.setdefault(name, []).append(ms)
    return rows + [(name, float(np.median(ms)), float(np.percentile(ms, 99))) for name, ms in stages.items()]
