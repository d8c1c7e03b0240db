"""Champion and challenger on the same parts: what changed, and the gates that a promotion hangs on.

Pure: verdicts in, ``comparison.json`` out.  What is independent is a group, so bounds are counted on groups; counts are of
parts.  A defective part that is sent to review is no escape; a good part that cannot be judged is overkill.  A part that
cannot be judged was not measured: nobody knows what would pass when its picture is a better one.  So no gate rests on it, and
none holds where more of them came with the challenger or where a file could not be read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from datasets.manifest import Dataset
from datasets.sample import Sample
from inspection.types import Verdict
from training.by_recipe import Latency
from training.evaluate import Case, Evaluation
from training.metrics import clopper_pearson
from training.promise import upper_bound
from training.sides import Escape, named

SCHEMA = 1
CONFIDENCE = 0.95
LEAST = 29  # of fewer independent groups, or good parts, even none that is wrong leaves more than 10 % possible
_ORDER = ("worse", "other", "better")


@dataclass(frozen=True, slots=True)
class Gate:
    """One thing that must not be worse than with the champion; ``text`` says on what it rests, ``few`` that it is little."""

    name: str
    title: str
    held: bool
    champion: float
    challenger: float
    text: str
    few: str = ""


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of one recipe on the holdout.

    ``interval``s are exact 95 % intervals of the rate by parts; ``escape_bound`` is the one-sided upper bound of the share
    of groups with judged defective parts of which any passed.  ``errors`` could not be judged, ``unread`` of them because a
    file could not be read.
    """

    defective: int
    escapes: int
    escape_interval: tuple[float, float]
    escape_units: int
    escaped_units: int
    escape_bound: float
    good: int
    overkill: int
    overkill_interval: tuple[float, float]
    review_good: int
    review_defective: int
    defective_errors: int
    good_errors: int
    defective_unread: int
    good_unread: int

    @property
    def errors(self) -> int:
        """Parts that could not be judged."""
        return self.defective_errors + self.good_errors


@dataclass(frozen=True, slots=True)
class Change:
    """A part whose verdict is another one than before; ``side``: holdout, escape or both."""

    before: Case
    after: Case
    truth: str
    side: str

    @property
    def sample(self) -> Sample:
        """The part."""
        return self.before.sample

    @property
    def kind(self) -> Literal["worse", "other", "better"]:
        """Whether the new verdict is nearer to the truth or farther from it."""
        step = _wrongness(self.after, self.truth) - _wrongness(self.before, self.truth)
        return "worse" if step > 0 else "better" if step < 0 else "other"


@dataclass(frozen=True, slots=True)
class Judged:
    """What both recipes say of the holdout, and of the earlier escapes in the order of ``escapes``."""

    holdout: Dataset
    champion: Evaluation
    challenger: Evaluation
    escapes: tuple[Escape, ...]
    champion_escapes: Evaluation
    challenger_escapes: Evaluation
    champion_latency: Latency
    challenger_latency: Latency
    deadline_ms: float


def tally(evaluation: Evaluation) -> Tally:
    """Counts and bounds of one recipe."""
    parts = evaluation.parts()
    bad = [case for case in evaluation.cases if case.sample.defective]
    groups = {case.sample.group for case in bad if case.verdict != Verdict.ERROR}
    escaped = {case.sample.group for case in bad if case.verdict == Verdict.OK}
    looked_at = [case.sample.defective for case in evaluation.cases if case.verdict == Verdict.REVIEW]
    unread = [case.sample.defective for case in evaluation.cases if case.unread]
    return Tally(
        parts.defective,
        parts.escapes,
        clopper_pearson(parts.escapes, parts.defective),
        len(groups),
        len(escaped),
        upper_bound(len(escaped), len(groups), CONFIDENCE),
        parts.good,
        parts.overkill,
        clopper_pearson(parts.overkill, parts.good),
        looked_at.count(False),
        looked_at.count(True),
        parts.defective_errors,
        parts.good_errors,
        unread.count(True),
        unread.count(False),
    )


def gates(judged: Judged) -> tuple[Gate, ...]:
    """All gates.  What cannot be measured is not held: nothing would be known of it."""
    before, after = tally(judged.champion), tally(judged.challenger)
    return (_escape_gate(before, after), _overkill_gate(before, after), _returned_gate(judged), _latency_gate(judged))


def _escape_gate(before: Tally, after: Tally) -> Gate:
    lost = (before.defective_errors, after.defective_errors)
    unread = max(before.defective_unread, after.defective_unread)
    measured = _measured(after.defective, lost, unread)
    held = measured and after.escapes <= before.escapes and after.escape_bound <= before.escape_bound
    if not after.defective:
        text = "There is no defective part in the holdout, so nothing is known of escapes: add defective parts to it."
    else:
        text = (
            f"{before.escapes} of {before.defective} defective parts passed with the champion, {after.escapes} with the "
            f"challenger. {_not_judged(lost, unread)}Upper bound at {_percent(CONFIDENCE)} confidence, counted on "
            f"{after.escape_units} independent groups: {_percent(before.escape_bound)}, now {_percent(after.escape_bound)}."
        )
    few = _few(after.escape_units, "independent groups of defective parts", "escapes") if after.escape_units else ""
    return Gate("escape_bound", "Escapes not worse", held, before.escape_bound, after.escape_bound, text, few)


def _measured(parts: int, lost: tuple[int, int], unread: int) -> bool:
    return lost[1] < parts and lost[1] <= lost[0] and not unread


def _not_judged(lost: tuple[int, int], unread: int) -> str:
    """How many parts neither passed nor were rejected, with the champion and with the challenger; "" for none."""
    if not any(lost):
        return ""
    files = f"; of {unread} a file could not be read" if unread else ""
    return f"Could not be judged, so not measured: {lost[0]} of them with the champion, {lost[1]} with the challenger{files}. "


def _few(count: int, what: str, wrong: str) -> str:
    """What so small a holdout cannot rule out; "" when it is large enough."""
    if count >= LEAST:
        return ""
    bound = _percent(upper_bound(0, count, CONFIDENCE))
    return (
        f"This rests on {count} {what}, fewer than {LEAST}: even if none of them is among the {wrong}, up to {bound} may be "
        f"at {_percent(CONFIDENCE)} confidence."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _overkill_gate(before: Tally, after: Tally) -> Gate:
    lost, unread = (before.good_errors, after.good_errors), max(before.good_unread, after.good_unread)
    held = _measured(after.good, lost, unread) and after.overkill <= before.overkill
    if not after.good:
        text = "There is no good part in the holdout, so nothing is known of overkill: add good parts to it."
    else:
        text = (
            f"{before.overkill} of {before.good} good parts were rejected or could not be judged with the champion, "
            f"{after.overkill} with the challenger. {_not_judged(lost, unread)}A person had to look at "
            f"{before.review_good} good parts, now at {after.review_good}."
        )
    judged = after.good - after.good_errors
    few = _few(judged, "good parts", "rejected ones") if judged else ""
    return Gate("overkill", "Overkill not worse", held, before.overkill, after.overkill, text, few)


def _returned_gate(judged: Judged) -> Gate:
    passed = [_said(one, Verdict.OK) for one in (judged.champion_escapes, judged.challenger_escapes)]
    lost = _said(judged.challenger_escapes, Verdict.ERROR)
    count, learnt = len(judged.escapes), sum(escape.learnt for escape in judged.escapes)
    if not count:
        text = "No earlier escape is known."
    else:
        text = (
            f"{len(passed[0])} of {count} earlier escapes pass with the champion, {len(passed[1])} with the challenger"
            + (f": {named(passed[1])}. " if passed[1] else ". ")
            + (f"{len(lost)} could not be judged with the challenger, so not measured: {named(lost)}. " if lost else "")
            + (f"{learnt} of the {count} were learnt from." if learnt else "None of them was learnt from.")
        )
    held = not passed[1] and not lost
    return Gate("returned_escapes", "No earlier escape returns", held, len(passed[0]), len(passed[1]), text)


def _said(evaluation: Evaluation, verdict: Verdict) -> list[str]:
    return [case.sample.name for case in evaluation.cases if case.verdict == verdict]


def _latency_gate(judged: Judged) -> Gate:
    before, after = judged.champion_latency, judged.challenger_latency
    held = after.parts > 0 and after.p99_ms <= judged.deadline_ms
    what = "frames" if after.cameras == 1 else f"parts with a frame of each of {after.cameras} cameras"
    text = (
        f"99 of 100 {what} are judged within {after.p99_ms:.1f} ms (median {after.median_ms:.1f} ms; champion "
        f"{before.p99_ms:.1f} ms), allowed are {judged.deadline_ms:g} ms. {after.parts} timed on {after.computer}, without "
        "camera and store, whatever else the computer had to do."
    )
    if not after.parts:
        text = "No frame of the holdout could be read, so the latency is not known."
    return Gate("latency", "Fast enough", held, _finite(before.p99_ms), _finite(after.p99_ms), text)


def _finite(ms: float) -> float:
    return round(ms, 3) if np.isfinite(ms) else -1.0


def changes(judged: Judged) -> tuple[Change, ...]:
    """Every part whose verdict changed, once: what got worse first, defective parts before good ones."""
    found: dict[str, Change] = {}
    digests = {escape.sample.image: escape.digest for escape in judged.escapes}
    digests |= {s.image: d.image for s, d in zip(judged.holdout.samples, judged.holdout.digests, strict=True)}
    escaped = {escape.digest for escape in judged.escapes}
    sides = (
        ("holdout", judged.champion, judged.challenger),
        ("earlier escape", judged.champion_escapes, judged.challenger_escapes),
    )
    for side, before, after in sides:
        for one, other in zip(before.cases, after.cases, strict=True):
            digest = digests[one.sample.image]
            if one.verdict != other.verdict and digest not in found:
                both = side == "holdout" and digest in escaped
                where = "holdout, earlier escape" if both else side
                found[digest] = Change(one, other, truth_of(one.sample, escape=digest in escaped), where)
    return tuple(sorted(found.values(), key=lambda c: (_ORDER.index(c.kind), c.truth == "good", c.sample.name)))


def truth_of(sample: Sample, *, escape: bool = False) -> str:
    """What a person said of the part: good, or the classes of its defects."""
    return ", ".join(sorted(sample.defect_classes)) or ("defective" if escape else "good")


def _wrongness(case: Case, truth: str) -> int:
    """0 right, 1 a person must look, 2 wrong."""
    if case.verdict == Verdict.REVIEW:
        return 1
    right = Verdict.OK if truth == "good" else Verdict.NG
    return 0 if case.verdict == right else 2 if case.verdict != Verdict.ERROR or truth == "good" else 1


def as_json(judged: Judged, held: Sequence[Gate], changed: Sequence[Change], facts: dict[str, Any]) -> dict[str, Any]:
    """The content of ``comparison.json``.  ``facts``: what else it says, of versions, limits and commands."""
    return {
        "schema": SCHEMA,
        **facts,
        "holdout_version": judged.holdout.version,
        "holdout_parts": len(judged.holdout.samples),
        "gates": [
            {
                "name": gate.name,
                "held": gate.held,
                "champion": gate.champion,
                "challenger": gate.challenger,
                "text": gate.text,
                "few": gate.few,
            }
            for gate in held
        ],
        "changed": [
            {
                "sample": change.sample.name,
                "truth": change.truth,
                "before": change.before.verdict.name,
                "after": change.after.verdict.name,
            }
            for change in changed
        ],
        "escapes": {"known": len(judged.escapes), "learnt": sum(escape.learnt for escape in judged.escapes)},
    }
