"""The pure judge: findings and rules in, verdict with its reasons out.  No clock, disk, network or state."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from inspection.types import Detection, Judgement, Reason, Verdict


@dataclass(frozen=True, slots=True)
class Rule:
    """From which score a finding of a class makes the part NG, and from which a person must look (REVIEW)."""

    defect_class: str
    ng_score: float
    review_score: float

    def __post_init__(self) -> None:
        if not 0 < self.review_score <= self.ng_score <= 1:
            raise ValueError(
                f"rule {self.defect_class!r}: wanted 0 < review_score <= ng_score <= 1, "
                f"got {self.review_score} and {self.ng_score}"
            )


def judge(detections: Iterable[Detection], rules: Sequence[Rule]) -> Judgement:
    """The verdict for one part: NG before REVIEW before OK, one reason a class.

    A finding of a class that no rule names makes the verdict ERROR: what the recipe does not know it cannot pass.
    """
    findings = tuple(detections)
    known = {rule.defect_class for rule in rules}
    strange = tuple(found for found in findings if found.defect_class not in known)
    if strange:
        names = ", ".join(sorted({found.defect_class for found in strange}))
        return Judgement(Verdict.ERROR, (Reason("judge.no_rule", f"the recipe has no rule for {names}", strange),))
    ng = tuple(_reasons(findings, rules, Verdict.NG))
    review = tuple(_reasons(findings, rules, Verdict.REVIEW))
    if ng:
        return Judgement(Verdict.NG, ng + review)
    if review:
        return Judgement(Verdict.REVIEW, review)
    return Judgement(Verdict.OK)


def _reasons(findings: tuple[Detection, ...], rules: Sequence[Rule], verdict: Verdict) -> Iterable[Reason]:
    for rule in rules:
        low = rule.ng_score if verdict == Verdict.NG else rule.review_score
        high = 2.0 if verdict == Verdict.NG else rule.ng_score
        hits = tuple(f for f in findings if f.defect_class == rule.defect_class and low <= f.score < high)
        if hits:
            best = max(found.score for found in hits)
            plural = "finding" if len(hits) == 1 else "findings"
            text = f"{len(hits)} {plural} of {rule.defect_class}, best score {best:.2f} (limit {low:.2f})"
            yield Reason(f"{verdict.name.lower()}.{rule.defect_class}", text, hits)


def ng_score(detections: Iterable[Detection]) -> float:
    """How sure the part is NG, 0..1: the best score among the findings."""
    return max((found.score for found in detections), default=0.0)
