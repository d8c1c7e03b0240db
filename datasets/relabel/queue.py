"""Puts the samples that teach most first, so that an hour of drawing boxes is spent where the model is weak.

A sample is worth more when the model is unsure of it, contradicts what a person said, or expects a rare class on it.
The next one is always the sample with the largest product of its worth and its distance to the nearest picture that is
labelled already or stands before it (a tenth of its worth it keeps when that is no distance at all): so the first fifty
are not fifty pictures of one thing.  That is the greedy k-center choice of Sener and Savarese (Active learning for
convolutional neural networks: a core-set approach, ICLR 2018), on cheap features instead of a net's, weighted by worth.
What `python -m tools.queue_curve` measured of it is in deploy/pictures/queue_curve.png.

Deterministic: the order in which the samples are given does not matter, and equals go by name.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from datasets.look_alikes import joined
from datasets.relabel.looks import Look, copies, looks_of
from datasets.sample import Sample
from inspection.judge import Rule
from inspection.predict import Prediction
from inspection.types import Box, Detection, Verdict

Values: TypeAlias = NDArray[np.float64]

DEFAULT_LIMIT = 0.4  # the score from which a finding counts, where no rules are given
SPREAD_FIRST = 1000  # so many are chosen one by one; behind them worth and distance stay as they are by then
_WIDTH = 2.0  # log-odds from a limit at which a score is no longer in doubt: 0.08 and 0.83 for a limit of 0.4
_OVERLAP = 0.33  # of a finding with a label of its class, from which on they are the same (DeepPCB's rule)
_OLD_NEWS = 0.1  # share of its worth that a picture keeps that is no news at all
_CHUNK = 256  # labelled pictures compared with all others at a time
_PLAIN, _BALANCE = 0.05, 0.5  # worth of a sample of which nothing is known; weight of balance beside the others


@dataclass(frozen=True, slots=True)
class Ranked:
    """A place in the queue.  ``rank`` counts from 1; ``folded`` are the names of its copies, which have no place.

    ``reasons``, each 0..1: ``uncertainty`` (findings near their limit: 0.5 is usual for samples that have any, or one
    finding right at it; 1 where nothing could be judged), ``disagreement`` (of the model with labels), ``novelty``
    (distance to the nearest picture labelled or ranked before), ``balance`` (classes expected here that have few labels).
    """

    name: str
    rank: int
    reasons: Mapping[str, float]
    folded: tuple[str, ...]


def rank(
    samples: Sequence[Sample],
    predictions: Mapping[str, Prediction],
    *,
    reviewed: Collection[str] = (),
    looks: Mapping[str, Look] | None = None,
    rules: Sequence[Rule] = (),
) -> list[Ranked]:
    """All samples, the one that teaches most first; copies stand folded below one of them.

    ``predictions`` by name of the sample; a sample without one counts as not judged.  ``reviewed``: names of samples
    whose labels, or whose having none, a person vouches for; they come by how much the model contradicts them, and the
    others' labels count where they have any.  ``looks`` (see ``looks_of``) are read from the images when left out.
    ``rules`` are the limits of the model (``inspection.predict.rules_of``).  ValueError when two samples share a name.
    """
    ordered = sorted(samples, key=lambda sample: sample.name)
    if len({sample.name for sample in ordered}) != len(ordered):
        raise ValueError("two samples have the same name")
    seen = looks_of(ordered) if looks is None else looks
    field = _Field(ordered, [predictions.get(s.name) for s in ordered], frozenset(reviewed), rules)
    place = {sample.name: number for number, sample in enumerate(ordered)}
    pairs = [(place[one], place[other]) for one, other in copies(list(place), seen)]
    return _order(ordered, seen, field, pairs)


class _Field:
    """What is known of each sample before any is chosen, as arrays in the order of the samples."""

    def __init__(
        self,
        samples: Sequence[Sample],
        predictions: Sequence[Prediction | None],
        reviewed: frozenset[str],
        rules: Sequence[Rule],
    ) -> None:
        limits = _Limits(rules)
        found = [() if p is None else p.inspection.detections for p in predictions]
        self.reviewed = np.array([s.name in reviewed for s in samples], bool)
        judged = [p is not None and p.inspection.judgement.verdict != Verdict.ERROR for p in predictions]
        unsure = np.array([_doubt(f, limits) for f in found])
        self.doubt = np.where(judged, unsure / (unsure + max(1.0, _median_positive(unsure))), 1.0)
        self.doubt[self.reviewed] = 0.0
        spoken = [j and (s.defective or s.name in reviewed) for s, j in zip(samples, judged, strict=True)]
        rows = zip(samples, found, spoken, strict=True)
        self.dispute = np.array([_dispute(s, f, limits) if told else 0.0 for s, f, told in rows])
        self.said = [tuple(sorted(d.defect_class for d in f if d.score >= limits.of(d)[1])) for f in found]
        labelled = [s for s in samples if s.name in reviewed]
        self.labels = Counter(name for s in labelled for name in _classes(s))
        self.classes = sorted({d.defect_class for f in found for d in f} | set(self.labels))
        self.expected = np.array([[_best(f, name) for name in self.classes] for f in found])
        self.expected = self.expected.reshape(len(samples), len(self.classes))

    def counts(self) -> Values:
        """Labels of each class (C,) on the reviewed samples."""
        return np.array([self.labels[name] for name in self.classes], float)


class _Limits:
    """Review and NG score of each class, the same for all where there are no rules."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rows: dict[str, tuple[float, float]] = {}
        for rule in rules:
            low, high = self.rows.get(rule.defect_class, (1.0, 1.0))
            self.rows[rule.defect_class] = min(low, rule.review_score), min(high, rule.ng_score)

    def of(self, detection: Detection) -> tuple[float, float]:
        """The scores from which a finding is looked at and rejects; those between are in doubt."""
        return self.rows.get(detection.defect_class, (DEFAULT_LIMIT, DEFAULT_LIMIT))


def _odds(score: float) -> float:
    score = min(max(score, 1e-6), 1 - 1e-6)
    return math.log(score / (1 - score))


def _doubt(found: Sequence[Detection], limits: _Limits) -> float:
    """How unsure the model is: the number of findings at their limit, those farther away counting less."""
    total = 0.0
    for detection in found:
        low, high = limits.of(detection)
        off = max(_odds(low) - _odds(detection.score), _odds(detection.score) - _odds(high), 0.0)
        total += max(0.0, 1.0 - off / _WIDTH)
    return total


def _median_positive(values: Values) -> float:
    return float(np.median(values[values > 0])) if (values > 0).any() else 0.0


def _dispute(sample: Sample, found: Sequence[Detection], limits: _Limits) -> float:
    """How much findings and labels contradict each other, 0..1: one of them certain and unmatched gives 0.5."""
    if sample.image_class and not sample.labels:
        called = max((d.score for d in found if d.defect_class != sample.image_class), default=0.0)
        total = 1.0 - _best(found, sample.image_class)
        total += called if any(d.score >= limits.of(d)[1] for d in found if d.defect_class != sample.image_class) else 0
        return total / (1.0 + total)
    free, total = list(sample.labels), 0.0
    for detection in sorted(found, key=lambda d: (-d.score, d.defect_class, d.region.xyxy_px)):
        same = [label for label in free if label.defect_class == detection.defect_class]
        overlap = [_iou(detection.region.xyxy_px, label.box_px) for label in same]
        if overlap and max(overlap) >= _OVERLAP:
            free.remove(same[overlap.index(max(overlap))])
            total += 1.0 - detection.score
        elif detection.score >= limits.of(detection)[1]:
            total += detection.score
    total += len(free)
    return total / (1.0 + total)


def _iou(one: Box, other: Box) -> float:
    """Intersection over union of two boxes."""
    sides = [min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1)]
    inner = max(sides[0], 0.0) * max(sides[1], 0.0)
    return inner / ((one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - inner)


def _best(found: Sequence[Detection], name: str) -> float:
    return max((d.score for d in found if d.defect_class == name), default=0.0)


def _classes(sample: Sample) -> list[str]:
    return [label.defect_class for label in sample.labels] or [sample.image_class] * bool(sample.image_class)


def _folds(field: _Field, pairs: Sequence[tuple[int, int]]) -> dict[int, tuple[int, ...]]:
    """The samples that stand in the queue, each with its copies; a reviewed one is never folded away."""
    alike = [(a, b) for a, b in pairs if field.said[a] == field.said[b] and not field.reviewed[[a, b]].any()]
    shown: dict[int, tuple[int, ...]] = dict.fromkeys(range(len(field.reviewed)), ())
    for group in joined(len(field.reviewed), alike):
        first = max(group, key=lambda number: (field.doubt[number] + field.dispute[number], -number))
        shown[first] = tuple(number for number in group if number != first)
        for other in shown[first]:
            del shown[other]
    return shown


def _order(
    samples: Sequence[Sample], looks: Mapping[str, Look], field: _Field, pairs: Sequence[tuple[int, int]]
) -> list[Ranked]:
    """The greedy choice; ``pairs`` are copies of each other."""
    groups = _folds(field, pairs)
    features, known = _features(samples, looks)
    waiting = np.zeros(len(samples), bool)
    waiting[list(groups)] = True
    nearest = np.where(known, _nearest(features, features[field.reviewed & known]), 1.0)
    nearest[[b for pair in pairs for a, b in (pair, pair[::-1]) if field.reviewed[a]]] = 0.0  # known, though turned
    counts = field.counts()
    queue: list[Ranked] = []
    gain, balance = _gain(field, nearest, counts, waiting)
    while waiting.any():
        spread = len(queue) < SPREAD_FIRST
        if spread:
            gain, balance = _gain(field, nearest, counts, waiting)
        chosen = int(np.where(waiting, gain, -np.inf).argmax())
        waiting[chosen] = False
        novelty = 0.0 if field.reviewed[chosen] else float(nearest[chosen])
        reasons = {
            "uncertainty": float(field.doubt[chosen]),
            "disagreement": float(field.dispute[chosen]),
            "novelty": novelty,
            "balance": float(balance[chosen]),
        }
        folded = tuple(samples[number].name for number in groups[chosen])
        queue.append(Ranked(samples[chosen].name, len(queue) + 1, reasons, folded))
        if spread and not field.reviewed[chosen]:
            counts = counts + field.expected[chosen]
            if known[chosen]:
                nearest = np.where(known, np.minimum(nearest, _nearest(features, features[[chosen]])), 1.0)
    return queue


def _gain(field: _Field, nearest: Values, counts: Values, waiting: NDArray[np.bool_]) -> tuple[Values, Values]:
    """What each sample would add, and its balance.  Reviewed ones need not be new: there the model contradicts."""
    rarity = 1.0 - counts / counts.max() if len(counts) and counts.max() > 0 else np.zeros(len(counts))
    balance = (field.expected * rarity).max(axis=1, initial=0.0)
    balance[field.reviewed] = 0.0
    worth = _PLAIN + field.doubt + field.dispute + _BALANCE * balance
    farthest = float(nearest[waiting & ~field.reviewed].max(initial=0.0)) or 1.0
    news = _OLD_NEWS + (1.0 - _OLD_NEWS) * nearest / farthest
    return np.where(field.reviewed, field.dispute, worth * news), balance


def _features(samples: Sequence[Sample], looks: Mapping[str, Look]) -> tuple[Values, NDArray[np.bool_]]:
    """Features (N, D), and of which samples they are known."""
    width = max((len(look.features) for look in looks.values()), default=0)
    blank = np.zeros(width)
    rows = [looks[s.name].features if s.name in looks else blank for s in samples]
    known = np.array([s.name in looks for s in samples], bool)
    return np.array(rows, float).reshape(len(samples), width), known


def _nearest(features: Values, others: Values) -> Values:
    """Distance (N,) of each picture (N, D) to the nearest of the others (M, D); 1 without any."""
    nearest, squares = np.ones(len(features)), (features**2).sum(axis=1)
    for start in range(0, len(others), _CHUNK):
        some = others[start : start + _CHUNK]
        apart = squares[:, None] + (some**2).sum(axis=1) - 2 * features @ some.T
        nearest = np.minimum(nearest, np.sqrt(np.clip(apart, 0.0, 1.0)).min(axis=1))
    return nearest
