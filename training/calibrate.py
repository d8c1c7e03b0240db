"""`lineside calibrate`: limits for an exported model that keep an escape rate, and what may be claimed of them.

The model judges labelled samples it was not trained on, on the runtime's own path; `training/promise.py` chooses the
limits and says what is guaranteed.  A part that could not be judged (ERROR) is no escape and no proof of being found:
defective ones are left out of the count, good ones count as rejected.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.manifest import Dataset
from datasets.sample import Sample
from inspection.errors import UsageError
from inspection.judge import Rule
from inspection.model import Calibration, ClassLimit, LoadedModel, ModelCard
from inspection.recipe_config import LEAST_SCORE, MOST_SCORE
from inspection.types import Verdict
from training.evaluate import Case, Evaluation, evaluate
from training.export import SCORE_TOLERANCE, write_card
from training.promise import Choice, Limits, Scores, Walk, Wish, choose, needed_trials, units, upper_bound


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The card with its new limits, the report of `lineside calibrate --json`, and whether all that was asked for is
    kept."""

    card: ModelCard
    report: dict[str, Any]
    kept: bool


@dataclass(frozen=True, slots=True)
class Ground:
    """What a calibration stands on: the dataset, which samples of it in words, and why nothing may be claimed, if so."""

    dataset: Dataset
    where: str
    barred: str = ""


@dataclass(frozen=True, slots=True)
class _Result:
    """What one calibration rests on: the parts judged by the chosen limits, and why there is no claim, if so."""

    evaluation: Evaluation
    parts: Scores
    wish: Wish
    choice: Choice
    where: str
    barred: str  # why nothing may be claimed whatever the counts, or empty

    @property
    def judged(self) -> tuple[Case, ...]:
        """The cases in the order of ``parts``: all but defective parts that could not be judged."""
        return tuple(case for case in self.evaluation.cases if _counts(case))


def pick(
    dataset: Dataset, *, split: str, groups: Sequence[str], card: ModelCard, allow_seen: bool
) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    """The samples to calibrate on, with the SHA-256 of their images.

    ``split``: train, val, test or all.  UsageError when none is left, when the model does not know a class, and, unless
    ``allow_seen``, when the model was trained on some of them.
    """
    rows = [
        (sample, digest.image)
        for sample, digest in zip(dataset.samples, dataset.digests, strict=True)
        if (split == "all" or sample.split == split) and (not groups or sample.group in groups)
    ]
    if not rows:
        counts = Counter(sample.split or "no split" for sample in dataset.samples)
        listed = ", ".join(f"{count} in {name}" for name, count in sorted(counts.items()))
        raise UsageError(
            f"no sample of {dataset.name} was chosen ({listed})",
            fix="choose --split val, test or all and --groups, or divide the dataset with `lineside data split`",
        )
    strange = sorted({name for sample, _ in rows for name in sample.defect_classes} - set(card.classes))
    if strange and card.task != "anomaly":
        raise UsageError(
            f"the model does not know the classes {', '.join(strange)}", fix=f"it knows {', '.join(card.classes)}"
        )
    seen = _seen(card, rows)
    if seen and not allow_seen:
        raise UsageError(
            f"{seen} of the {len(rows)} samples are not new to the model (their images are in its card, or their split is "
            "train): limits chosen on them promise nothing",
            fix="calibrate on held-out samples (--split val or test, --groups), or add --allow-seen and get no claim",
        )
    return tuple(sample for sample, _ in rows), tuple(digest for _, digest in rows)


def _seen(card: ModelCard, rows: Sequence[tuple[Sample, str]]) -> int:
    trained = set(card.trained_on.images_sha256)
    return sum(digest[:12] in trained or sample.split == "train" for sample, digest in rows)


def calibrate(
    model: LoadedModel, samples: Sequence[Sample], digests: Sequence[str], wish: Wish, dataset: Dataset, split: str
) -> Calibrated:
    """Judge the samples, choose limits that keep the wish, and say in the card what is promised, or why nothing is.

    UsageError when there are good parts alone and no overkill rate is asked for: then nothing draws a limit.
    """
    if not any(sample.defective for sample in samples) and wish.overkill_rate is None:
        raise UsageError(
            f"the {len(samples)} samples are all good: they say nothing about escapes, and no limit follows from them",
            fix="add defective parts, or give --overkill-rate to set the limit by good parts alone",
        )
    seen = _seen(model.card, list(zip(samples, digests, strict=True)))
    barred = f"{seen} of the {len(samples)} samples were seen in training" if seen else ""
    where = f"{'all splits' if split == 'all' else split} of {dataset.name} {dataset.version[:12]}"
    return calibrate_on(evaluate(model, samples, digests, None), model, wish, Ground(dataset, where, barred))


def calibrate_on(evaluation: Evaluation, model: LoadedModel, wish: Wish, ground: Ground) -> Calibrated:
    """Choose limits from parts that were judged already, as ``calibrate`` does."""
    parts = scores_of(evaluation)
    choice = choose(parts, wish, own_limits(model.card))
    rules = [Rule(name, *limit) for name, limit in zip(model.card.classes, choice.limits, strict=True)]
    result = _Result(evaluation.judged_by(rules), parts, wish, choice, ground.where, ground.barred)
    return _calibrated(result, ground.dataset, model)


def _counts(case: Case) -> bool:
    return case.verdict != Verdict.ERROR or not case.sample.defective


def scores_of(evaluation: Evaluation) -> Scores:
    """The best score of each class on each part that counts; of a good part that could not be judged, 1."""
    cases, classes = [case for case in evaluation.cases if _counts(case)], evaluation.card.classes
    scores = np.zeros((len(cases), len(classes)))
    present = np.zeros((len(cases), len(classes)), bool)
    for row, case in enumerate(cases):
        if case.verdict == Verdict.ERROR:
            scores[row] = 1.0
        for found in case.prediction.inspection.detections:
            column = classes.index(found.defect_class)
            scores[row, column] = max(scores[row, column], found.score)
        names = case.sample.defect_classes
        present[row] = case.sample.defective if evaluation.card.task == "anomaly" else [n in names for n in classes]
    defective = np.array([case.sample.defective for case in cases], bool)
    numbers = {name: number for number, name in enumerate(sorted({case.sample.group for case in cases}))}
    return Scores(scores, present, defective, np.array([numbers[case.sample.group] for case in cases], np.int64))


def own_limits(card: ModelCard) -> Limits:
    """The limits the model has until now."""
    given = {limit.defect_class: (limit.ng_score, limit.review_score) for limit in card.limits}
    return tuple(given.get(name, (card.threshold, card.threshold)) for name in card.classes)


def copy_with_card(source: Path, target: Path, card: ModelCard) -> None:
    """Write a copy of the model file with this card; ``target`` may be ``source``.  It appears whole or not at all."""
    partial = target.with_name(target.name + ".partial")
    try:
        partial.write_bytes(source.read_bytes())
        write_card(partial, card)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _calibrated(result: _Result, dataset: Dataset, model: LoadedModel) -> Calibrated:
    calibration = _calibration(result, dataset, model.card)
    names = model.card.classes
    card = model.card.model_copy(
        update={
            "limits": tuple(
                ClassLimit(defect_class=name, ng_score=ng, review_score=review)
                for name, (ng, review) in zip(names, result.choice.limits, strict=True)
            ),
            "threshold": min(ng for ng, _ in result.choice.limits),
            "threshold_from": f"calibration on {result.where}",
            "escape_bound": _escape_sentence(result) if calibration.escape_bound is not None else "",
            "calibration": calibration,
        }
    )
    asked = result.wish.overkill_rate is not None
    kept = calibration.escape_bound is not None and (not asked or calibration.overkill_bound is not None)
    report = {
        "model": card.name,
        "model_sha256": model.sha256,
        **calibration.model_dump(),
        "kept": kept,
        "review_good": sum(case.verdict == Verdict.REVIEW and not case.sample.defective for case in result.judged),
        "classes": [_row(result, index) for index in range(len(names))],
    }
    return Calibrated(card, report, kept)


def _calibration(result: _Result, dataset: Dataset, card: ModelCard) -> Calibration:
    choice, wish, counts = result.choice, result.wish, result.evaluation.parts()
    claimed = choice.escape.proven and not result.barred
    covered = zip(card.classes, choice.covered, strict=True)
    return Calibration(
        statement=" ".join([_escape_sentence(result), *_overkill_sentence(result), *_notes(result, card)]),
        dataset=dataset.name,
        dataset_version=dataset.version,
        confidence=wish.confidence,
        counted=wish.count,
        defective=int(result.parts.defective.sum()),
        defective_units=choice.escape.trials,
        escapes=counts.escapes,
        escape_rate=wish.escape_rate,
        escape_bound=wish.escape_rate if claimed else None,
        good=counts.good,
        good_units=len(_good_units(result)),
        overkill=counts.overkill,
        overkill_rate=wish.overkill_rate,
        overkill_bound=wish.overkill_rate if choice.overkill_kept and not result.barred else None,
        review=counts.review,
        errors=counts.errors,
        not_covered=tuple(name for name, known in covered if not (claimed and known)),
    )


def _row(result: _Result, index: int) -> dict[str, Any]:
    """Counts of one class, and the bound that its counts would have if its limits had been given beforehand."""
    has = result.parts.present[:, index]
    passed = np.array([case.verdict == Verdict.OK for case in result.judged], bool)
    ng, review = result.choice.limits[index]
    defective, escapes = int(has.sum()), int((has & passed).sum())
    return {
        "class": result.evaluation.card.classes[index],
        "defective": defective,
        "escapes": escapes,
        "ng_score": ng,
        "review_score": review,
        "bound": upper_bound(escapes, defective, result.wish.confidence) if defective else None,
    }


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _units_word(result: _Result, count: int, kind: str) -> str:
    word = "part" if result.wish.count == "parts" or _alone(result) else "group"
    if word == "part":
        return f"{count} {kind} part{'' if count == 1 else 's'}"
    return f"{count} group{'' if count == 1 else 's'} with {kind} parts"


def _alone(result: _Result) -> bool:
    """Whether every part is a group of its own."""
    return len(np.unique(result.parts.groups)) == len(result.parts.groups)


def _missed_units(result: _Result) -> int:
    """Groups, or parts, of which a defective part passed."""
    passed = np.array([case.verdict == Verdict.OK for case in result.judged], float)[result.parts.defective]
    return int(units(passed, result.parts.groups[result.parts.defective], result.wish.count, np.maximum).sum())


def _good_units(result: _Result) -> NDArray[np.float64]:
    """1 for each group, or part, of which a good part was rejected, else 0."""
    rejected = np.array([case.verdict in (Verdict.NG, Verdict.ERROR) for case in result.judged], float)
    good = ~result.parts.defective
    return units(rejected[good], result.parts.groups[good], result.wish.count, np.maximum)


def _escape_sentence(result: _Result) -> str:
    """The promise, or why there is none and what it would take."""
    wish, walk = result.wish, result.choice.escape
    asked = f"{_percent(wish.escape_rate)} at {_percent(wish.confidence)} confidence"
    if result.barred:
        return f"No escape rate is claimed: {result.barred}."
    if not walk.trials:
        return (
            f"No escape rate is claimed: there is no defective part in {result.where}; {asked} needs "
            f"{needed_trials(0, wish.escape_rate, wish.confidence)} of them without a miss."
        )
    missed = _missed_units(result)
    if walk.proven:
        return (
            f"At most {_percent(wish.escape_rate)} of defective parts pass as OK, with {_percent(wish.confidence)} "
            f"confidence ({missed} of {_units_word(result, walk.trials, 'defective')} passed; {result.where})."
        )
    return f"No escape rate is claimed: {_shortfall(result, walk, asked)}."


def _shortfall(result: _Result, walk: Walk, asked: str) -> str:
    wish = result.wish
    have = _units_word(result, walk.trials, "defective")
    if walk.unavoidable > wish.escape_rate * walk.trials and walk.unavoidable:
        return (
            f"{walk.unavoidable} of {have} score below {LEAST_SCORE}, the lowest limit there is, and pass whatever is "
            f"chosen, which is more than {_percent(wish.escape_rate)}; more parts do not help, the model must find them"
        )
    needed = needed_trials(walk.unavoidable, wish.escape_rate, wish.confidence)
    missed = "without a miss" if not walk.unavoidable else f"with {walk.unavoidable} missed"
    return f"{have} are too few; {asked} needs {needed} {missed}, {needed - walk.trials} more"


def _overkill_sentence(result: _Result) -> list[str]:
    wish, walk = result.wish, result.choice.overkill
    if wish.overkill_rate is None or walk is None or result.barred:
        return []
    asked = f"{_percent(wish.overkill_rate)} at {_percent(wish.confidence)} confidence"
    rejected, trials = _good_units(result), _units_word(result, walk.trials, "good")
    if result.choice.overkill_kept:
        return [f"At most {_percent(wish.overkill_rate)} of good parts are rejected, with {_percent(wish.confidence)} "
                f"confidence (rejected: {int(rejected.sum())} of {trials})."]  # fmt: skip
    if walk.proven:
        return [f"No overkill rate is claimed: {_percent(wish.overkill_rate)} would send more than "
                f"{_percent(wish.review_rate or 0)} of the good parts to review."]  # fmt: skip
    if walk.unavoidable > wish.overkill_rate * walk.trials:
        return [f"No overkill rate is claimed: {walk.unavoidable} of {trials} score {MOST_SCORE} or more, the highest "
                f"limit there is, or cannot be judged, which is more than {asked}."]  # fmt: skip
    needed = needed_trials(walk.unavoidable, wish.overkill_rate, wish.confidence)
    return [f"No overkill rate is claimed: {trials} are too few; {asked} needs {needed}, {needed - walk.trials} more; "
            f"{int(rejected.sum())} of them were rejected."]  # fmt: skip


def _notes(result: _Result, card: ModelCard) -> list[str]:
    """What a reader of the promise must know beside it."""
    choice, wish, parts = result.choice, result.wish, result.parts
    notes = []
    if not all(choice.covered):
        names = [name for name, covered in zip(card.classes, choice.covered, strict=True) if not covered]
        notes.append(f"No part shows {', '.join(names)}: these keep the model's limit, and no claim covers them.")
    if not _alone(result) and choice.escape.trials:
        notes.append(_other_count(result))
    errors = result.evaluation.parts().errors
    if errors:
        notes.append(f"{errors} parts could not be judged; defective ones among them are not counted.")
    if choice.escape.unavoidable and choice.escape.proven:
        notes.append(
            f"{choice.escape.unavoidable} of {_units_word(result, choice.escape.trials, 'defective')} score below "
            f"{LEAST_SCORE}, the lowest limit a recipe may name, and pass."
        )
    loud = int((parts.scores[~parts.defective] >= MOST_SCORE).any(1).sum())
    if loud:
        notes.append(f"{loud} good parts score {MOST_SCORE} or more, the highest limit a recipe may name.")
    if not card.trained_on.images_sha256 and not result.barred:
        notes.append("The model does not say which images it was trained on, so it was not checked that these are new.")
    near = _near_limits(result)
    if near:
        notes.append(
            f"{near} parts score within {SCORE_TOLERANCE} of a limit: another machine may judge them otherwise."
        )
    if wish.overkill_rate is None and (~parts.defective).any():
        counts = result.evaluation.parts()
        notes.append(f"{counts.overkill} of {counts.good} good parts were rejected; no overkill rate was asked for.")
    return notes


def _near_limits(result: _Result) -> int:
    """Parts so near to a limit that rounding may decide their verdict."""
    near = [
        np.abs(result.parts.scores - np.array(side)) < SCORE_TOLERANCE
        for side in zip(*result.choice.limits, strict=True)
    ]
    return int((near[0] | near[1]).any(1).sum())


def _other_count(result: _Result) -> str:
    """Where several parts share a group: what the other way of counting would say."""
    bad, wish = result.parts.defective, result.wish
    groups = len(np.unique(result.parts.groups[bad]))
    passed = np.array([case.verdict == Verdict.OK for case in result.judged], bool)[bad]
    if wish.count == "parts":
        return (
            f"The {int(bad.sum())} defective parts lie in {groups} groups and were counted as independent: the figures hold "
            "for further parts of these groups, not of others."
        )
    bound = upper_bound(int(passed.sum()), len(passed), wish.confidence)
    return (
        f"The {len(passed)} defective parts lie in {groups} groups, and groups are what is counted; part by part "
        f"{int(passed.sum())} passed (bound {_percent(bound)} if parts of one group were independent)."
    )


def as_text(made: Calibrated) -> str:
    """The table of the classes and the statement, for people."""
    report = made.report
    width = max(5, *(len(row["class"]) for row in report["classes"]))
    head = f"{'class':{width}s}{'defective':>11s}{'NG from':>10s}{'review from':>13s}{'escapes':>9s}{'bound':>9s}"
    lines = [head]
    for row in report["classes"]:
        bound = "-" if row["bound"] is None else _percent(row["bound"])
        lines.append(
            f"{row['class']:{width}s}{row['defective']:11d}{row['ng_score']:10.5f}{row['review_score']:13.5f}"
            f"{row['escapes']:9d}{bound:>9s}"
        )
    return "\n".join(
        [
            *lines,
            f"(bound: of each class alone at {_percent(report['confidence'])}, as if its limits had been given beforehand)",
            f"escapes {report['escapes']} of {report['defective']}   overkill {report['overkill']} of {report['good']}   "
            f"review {report['review']} (good {report['review_good']})   errors {report['errors']}",
            report["statement"],
        ]
    )
