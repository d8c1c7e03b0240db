"""The limits of a retrained recipe: new ones from the calibration side, where they are better there than those it had."""

from collections.abc import Sequence
from dataclasses import dataclass

from datasets.manifest import Dataset
from inspection.model import Calibration, ClassLimit, LoadedModel, ModelCard
from inspection.recipe_config import LEAST_SCORE, RuleSection
from inspection.types import Verdict
from inspection.view import View
from training.by_recipe import judge_all, keep_low_scores, set_rules
from training.calibrate import Ground, calibrate_on
from training.evaluate import Evaluation
from training.promise import ESCAPE_WEIGHT, Wish, in_few_digits

REVIEW_WEIGHT = 0.25  # of a share of good parts that a person must look at, against the same share rejected
DEFAULT_ESCAPE_RATE = 0.05


@dataclass(frozen=True, slots=True)
class Chosen:
    """The rules of the view from now on, the card with their limits, whether they are new, and what they stand on."""

    rules: tuple[RuleSection, ...]
    card: ModelCard
    new: bool
    note: str


def choose_limits(view: View, calibration: Dataset | None, known: Sequence[str]) -> Chosen:
    """Limits for a view with its new model, chosen on samples that the model has not seen.

    ``known``: first 12 digits of the SHA-256 of each picture that the model learnt from.  The limits of before are kept
    where there is nothing to choose on, and where the new ones are no better there.  Rules of regions follow the
    general rule of their class where they had its limits, and else stay as they were written.
    """
    before = tuple(view.section.rules)
    if calibration is None:
        return _kept(view, before, "nothing was left to choose others on")
    parts = f"{len(calibration.samples)} parts of {calibration.name}"
    bad = sum(sample.defective for sample in calibration.samples)
    if not bad or bad == len(calibration.samples):
        side = "no defective part" if not bad else "no good part"
        return _kept(view, before, f"there is {side} among the {parts} to choose others on")
    keep_low_scores(view)
    beyond = view.section.beyond_scores
    ground = _ground(calibration, known, beyond)
    old = judge_all(view, calibration.samples, "limits")
    made = calibrate_on(old, _with_limits(view.model, before), _wish(view.model.card), ground)
    after = _renewed(before, made.card.limits)
    set_rules(view, [rule.rule() for rule in after])
    new = judge_all(view, calibration.samples, "limits again")
    set_rules(view, [rule.rule() for rule in before])
    if after == before or _weight(new) >= _weight(old):
        return _kept(view, before, f"others were no better on the {parts} ({bad} defective)")
    claim = made.card.calibration
    if claim is not None and beyond:
        claim = _by_the_recipe(claim, new, ground.barred)
    note = f"chosen anew on {parts} ({bad} defective). {claim.statement if claim else ''}"
    limits = _class_limits(after)
    update = {"limits": limits, "threshold": _threshold(limits), "calibration": claim}
    return Chosen(after, made.card.model_copy(update=update), True, note.strip())


def _by_the_recipe(claim: Calibration, judged: Evaluation, barred: str) -> Calibration:
    """The calibration with the counts of the recipe's own rules: those by scores alone would say too few escapes."""
    counts = judged.parts()
    return claim.model_copy(
        update={
            "statement": f"No escape rate is claimed: {barred}. By its rules {counts.escapes} of {claim.defective} "
            f"defective parts passed and {counts.overkill} of {claim.good} good ones were rejected.",
            "escapes": counts.escapes,
            "overkill": counts.overkill,
            "review": counts.review,
            "errors": counts.errors,
        }
    )


def _kept(view: View, rules: tuple[RuleSection, ...], why: str) -> Chosen:
    limits = _class_limits(rules)
    update = {
        "limits": limits,
        "threshold": _threshold(limits),
        "threshold_from": f"the recipe that was retrained: {why}",
        "calibration": None,
        "escape_bound": "",
    }
    return Chosen(rules, view.model.card.model_copy(update=update), False, f"kept as they were: {why}.")


def _class_limits(rules: Sequence[RuleSection]) -> tuple[ClassLimit, ...]:
    return tuple(
        ClassLimit(defect_class=rule.defect_class, ng_score=rule.ng_score, review_score=rule.review_score)
        for rule in rules
        if not rule.roi
    )


def _threshold(limits: Sequence[ClassLimit]) -> float:
    return min(limit.ng_score for limit in limits)


def _with_limits(model: LoadedModel, rules: Sequence[RuleSection]) -> LoadedModel:
    """The model with the recipe's limits in its card, which are kept for classes that no part shows."""
    of = {limit.defect_class: limit for limit in _class_limits(rules)}
    card = model.card.model_copy(update={"limits": tuple(of[name] for name in model.card.classes)})
    return LoadedModel(model.path, card, model.sha256, model.session)


def _wish(card: ModelCard) -> Wish:
    """What was asked for when the model was last calibrated; without that, few escapes."""
    made: Calibration | None = card.calibration
    if made is None or made.escape_rate is None:
        return Wish(DEFAULT_ESCAPE_RATE)
    return Wish(made.escape_rate, made.confidence, made.overkill_rate, count=made.counted)


def _ground(calibration: Dataset, known: Sequence[str], beyond: Sequence[str]) -> Ground:
    """``beyond``: what in the recipe lets findings pass whatever they score, so that limits alone prove nothing."""
    learnt = set(known)
    seen = sum(digest.image[:12] in learnt for digest in calibration.digests)
    barred = [f"{seen} of the {len(calibration.samples)} samples were seen in training"] if seen else []
    if beyond:
        barred.append(f"limits are proven by scores alone, and this recipe judges by more ({', '.join(beyond)})")
    return Ground(calibration, f"{calibration.name} {calibration.version[:12]}", "; ".join(barred))


def _renewed(rules: Sequence[RuleSection], limits: Sequence[ClassLimit]) -> tuple[RuleSection, ...]:
    """The rules with new limits; where a person was asked below the NG limit, that band keeps its share of it."""
    new = {limit.defect_class: limit for limit in limits}
    old = {rule.defect_class: rule for rule in rules if not rule.roi}
    made = []
    for rule in rules:
        general, limit = old[rule.defect_class], new[rule.defect_class]
        if (rule.ng_score, rule.review_score) == (general.ng_score, general.review_score):
            share, review = general.review_score / general.ng_score, limit.review_score
            if share < 1:
                review = min(review, max(LEAST_SCORE, in_few_digits(limit.ng_score * share)))
            rule = rule.model_copy(update={"ng_score": limit.ng_score, "review_score": review})
        made.append(rule)
    return tuple(made)


def _weight(evaluation: Evaluation) -> float:
    """What the wrong verdicts weigh; an escape most, a good part in review least."""
    counts = evaluation.parts()
    looked_at = sum(case.verdict == Verdict.REVIEW and not case.sample.defective for case in evaluation.cases)
    return ESCAPE_WEIGHT * counts.escapes / max(1, counts.defective) + (
        counts.overkill + REVIEW_WEIGHT * looked_at
    ) / max(1, counts.good)
