"""The pure judge: findings, rules and regions in, verdict with its reasons out.  No clock, disk, network or state."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from inspection.errors import ConfigError
from inspection.rois import Point, Roi
from inspection.types import Detection, Judgement, Reason, Verdict


@dataclass(frozen=True, slots=True)
class Rule:
    """When findings of a class make the part NG, and when a person must look (REVIEW).

    With ``roi`` it holds for findings whose centre lies in that region, and goes before the general rule.  Findings of
    less than ``min_area_mm2`` do not count, and ``allowed_count`` are tolerated; but nearer than ``edge_mm`` to the
    region's outline every finding counts.
    """

    defect_class: str
    ng_score: float
    review_score: float
    roi: str = ""
    min_area_mm2: float = 0.0
    allowed_count: int = 0
    edge_mm: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.review_score <= self.ng_score <= 1:
            raise ValueError(
                f"rule {self.defect_class!r}: wanted 0 < review_score <= ng_score <= 1, "
                f"got {self.review_score} and {self.ng_score}"
            )
        if min(self.min_area_mm2, self.allowed_count, self.edge_mm) < 0 or (self.edge_mm and not self.roi):
            raise ValueError(f"rule {self.defect_class!r}: negative, or edge_mm without a region")

    @property
    def needs_scale(self) -> bool:
        """Whether it names millimetres, and so needs to know how large a pixel is."""
        return self.min_area_mm2 > 0 or self.edge_mm > 0


@dataclass(frozen=True, slots=True)
class Ground:
    """What findings are laid on: the regions in frame pixels, and millimetres per pixel where they are known."""

    rois: tuple[Roi, ...] = ()
    mm_per_px: float | None = None


def settle(detections: Iterable[Detection], rules: Sequence[Rule], ground: Ground) -> tuple[Detection, ...]:
    """The findings, each with the region that decides about it.

    A keep-out that holds all of it, or else the smallest region around its centre that has a rule for its class, or
    else the smallest region around its centre, or none.
    """
    if not ground.rois:
        return tuple(detections)
    ruled = {(rule.defect_class, rule.roi) for rule in rules}
    smallest_first = sorted(ground.rois, key=lambda roi: roi.area_px)
    return tuple(replace(found, roi_id=_roi_of(found, ruled, smallest_first)) for found in detections)


def _roi_of(found: Detection, ruled: set[tuple[str, str]], smallest_first: Sequence[Roi]) -> str:
    centre = _centre(found)
    around = []
    for roi in smallest_first:
        if roi.kind == "keep_out":
            if roi.contains(found.region.xyxy_px):
                return roi.roi_id
        elif roi.holds(centre):
            around.append(roi.roi_id)
    with_rule = [roi_id for roi_id in around if (found.defect_class, roi_id) in ruled]
    return next(iter(with_rule + around), "")


def _centre(found: Detection) -> Point:
    x1, y1, x2, y2 = found.region.xyxy_px
    return (x1 + x2) / 2, (y1 + y2) / 2


def judge(detections: Iterable[Detection], rules: Sequence[Rule], ground: Ground | None = None) -> Judgement:
    """The verdict for one view of a part: NG before REVIEW before OK, one reason a rule.

    A finding of a class that no rule names makes the verdict ERROR: what the recipe does not know it cannot pass.
    ConfigError when a rule names millimetres and the ground does not say how large a pixel is.
    """
    ground = ground or Ground()
    findings = settle(detections, rules, ground)
    known = {rule.defect_class for rule in rules if not rule.roi}
    strange = tuple(found for found in findings if found.defect_class not in known)
    if strange:
        names = ", ".join(sorted({found.defect_class for found in strange}))
        return Judgement(Verdict.ERROR, (Reason("judge.no_rule", f"the recipe has no rule for {names}", strange),))
    by_rule = _by_rule(findings, rules, ground)
    ng = tuple(_reasons(by_rule, Verdict.NG, ground))
    review = tuple(_reasons(by_rule, Verdict.REVIEW, ground))
    if ng:
        return Judgement(Verdict.NG, ng + review)
    if review:
        return Judgement(Verdict.REVIEW, review)
    return Judgement(Verdict.OK)


def _by_rule(findings: Iterable[Detection], rules: Sequence[Rule], ground: Ground) -> dict[Rule, tuple[Detection, ...]]:
    """The findings that each rule decides about; those in a keep-out are left out."""
    kept_out = {roi.roi_id for roi in ground.rois if roi.kind == "keep_out"}
    rule_of = {(rule.defect_class, rule.roi): rule for rule in rules}
    parts: dict[Rule, tuple[Detection, ...]] = dict.fromkeys(rules, ())
    for found in findings:
        if found.roi_id not in kept_out:
            key = (found.defect_class, found.roi_id)
            rule = rule_of.get(key) or rule_of[found.defect_class, ""]
            parts[rule] = (*parts[rule], found)
    return parts


def _reasons(by_rule: Mapping[Rule, tuple[Detection, ...]], verdict: Verdict, ground: Ground) -> Iterator[Reason]:
    for rule, findings in by_rule.items():
        hits = _hits(rule, findings, verdict, ground)
        if hits:
            low = rule.ng_score if verdict == Verdict.NG else rule.review_score
            best = max(found.score for found in hits)
            plural = "finding" if len(hits) == 1 else "findings"
            place = f" in {rule.roi}" if rule.roi else ""
            allowed = f", {rule.allowed_count} allowed" if rule.allowed_count else ""
            text = (
                f"{len(hits)} {plural} of {rule.defect_class}{place}, best score {best:.2f} (limit {low:.2f}{allowed})"
            )
            where = f"@{rule.roi}" if rule.roi else ""
            yield Reason(f"{verdict.name.lower()}.{rule.defect_class}{where}", text, hits)


def _hits(rule: Rule, findings: tuple[Detection, ...], verdict: Verdict, ground: Ground) -> tuple[Detection, ...]:
    """The findings for which this rule asks for this verdict.

    What is near the edge is not tolerated; of the rest more than the allowed count must reach the score.
    """
    low = rule.ng_score if verdict == Verdict.NG else rule.review_score
    reached = tuple(found for found in findings if found.score >= low)
    near = tuple(found for found in reached if _near_edge(rule, found, ground))
    rest = tuple(found for found in reached if found not in near and _large(rule, found, ground))
    many = rest if len(rest) > rule.allowed_count else ()
    if verdict == Verdict.NG:
        return tuple(found for found in reached if found in near or found in many)
    # What already makes the part NG is not named again as a reason to look.
    ng = _hits(rule, findings, Verdict.NG, ground)
    counted = tuple(found for found in reached if found in near or found in many)
    return tuple(found for found in counted if found not in ng)


def _large(rule: Rule, found: Detection, ground: Ground) -> bool:
    if not rule.min_area_mm2:
        return True
    return found.region.area_px * _scale(rule, ground) ** 2 >= rule.min_area_mm2


def _near_edge(rule: Rule, found: Detection, ground: Ground) -> bool:
    if not rule.edge_mm:
        return False
    roi = next(roi for roi in ground.rois if roi.roi_id == rule.roi)
    return roi.edge_distance_px(found.region.xyxy_px) * _scale(rule, ground) < rule.edge_mm


def _scale(rule: Rule, ground: Ground) -> float:
    if ground.mm_per_px is None:
        raise ConfigError(
            f"the rule for {rule.defect_class} names millimetres, and how large a pixel is was not told",
            fix="write the camera's millimetres per pixel under [scale_mm_per_px] in the station config",
        )
    return ground.mm_per_px


def combined(judgements: Mapping[str, Judgement]) -> Judgement:
    """The verdict for a part from those of its views, by camera role: NG before ERROR before REVIEW before OK.

    The reasons of all views, those of the verdict first; with several views each names its camera.
    """
    if len(judgements) == 1:
        return next(iter(judgements.values()))
    verdicts = {judgement.verdict for judgement in judgements.values()}
    verdict = next(v for v in (Verdict.NG, Verdict.ERROR, Verdict.REVIEW, Verdict.OK) if v in verdicts)
    reasons = [
        (asked_for(reason), replace(reason, text=f"camera {role}: {reason.text}"))
        for role, judgement in judgements.items()
        for reason in judgement.reasons
    ]
    ordered = sorted(reasons, key=lambda pair: pair[0] != verdict)
    return Judgement(verdict, tuple(reason for _, reason in ordered))


def asked_for(reason: Reason) -> Verdict:
    """The verdict that a reason asks for, by its rule."""
    family = reason.rule_id.partition(".")[0]
    return {"ng": Verdict.NG, "review": Verdict.REVIEW}.get(family, Verdict.ERROR)


def ng_score(detections: Iterable[Detection]) -> float:
    """How sure the part is NG, 0..1: the best score among the findings."""
    return max((found.score for found in detections), default=0.0)
