import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspection.judge import Rule, judge, ng_score
from inspection.types import Detection, Region, Verdict

RULES = (Rule("open", 0.5, 0.2), Rule("spur", 0.9, 0.3), Rule("short", 0.4, 0.4))
WORSE = {Verdict.OK: 0, Verdict.REVIEW: 1, Verdict.NG: 2}


def found(defect_class: str, score: float) -> Detection:
    return Detection(defect_class, score, Region((0, 0, 5, 5)))


KNOWN = st.builds(found, st.sampled_from(["open", "spur", "short"]), st.floats(0, 1))
FINDINGS = st.lists(KNOWN, max_size=6)


@pytest.mark.parametrize(
    ("detections", "verdict"),
    [
        ([], Verdict.OK),
        ([("open", 0.19)], Verdict.OK),
        ([("open", 0.2)], Verdict.REVIEW),
        ([("open", 0.49)], Verdict.REVIEW),
        ([("open", 0.5)], Verdict.NG),
        ([("open", 1.0)], Verdict.NG),
        ([("spur", 0.5), ("open", 0.5)], Verdict.NG),
        ([("spur", 0.5), ("short", 0.39)], Verdict.REVIEW),
        ([("short", 0.4)], Verdict.NG),
        ([("open", 1.0), ("scratch", 0.01)], Verdict.ERROR),
    ],
)
def test_rules_decide(detections: list[tuple[str, float]], verdict: Verdict) -> None:
    """Scores on a limit count; NG goes before REVIEW before OK; what no rule names is an ERROR."""
    assert verdict == judge([found(*one) for one in detections], RULES).verdict


@given(FINDINGS, st.integers(0, 5), st.floats(0, 1))
def test_verdict_is_monotone_in_scores(findings: list[Detection], which: int, raised: float) -> None:
    """A higher score of any finding never makes the verdict better."""
    before = judge(findings, RULES).verdict
    if findings:
        old = findings[which % len(findings)]
        findings[which % len(findings)] = found(old.defect_class, max(old.score, raised))
    assert WORSE[judge(findings, RULES).verdict] >= WORSE[before]


@given(FINDINGS, KNOWN)
def test_another_finding_never_makes_the_verdict_better(findings: list[Detection], more: Detection) -> None:
    """Adding a finding leaves the verdict or makes it worse."""
    assert WORSE[judge([*findings, more], RULES).verdict] >= WORSE[judge(findings, RULES).verdict]


@given(FINDINGS)
def test_worst_single_finding_decides(findings: list[Detection]) -> None:
    """NG dominates REVIEW, and REVIEW dominates OK."""
    alone = [WORSE[judge([one], RULES).verdict] for one in findings]
    assert max(alone, default=0) == WORSE[judge(findings, RULES).verdict]


@given(st.permutations([("open", 0.6), ("open", 0.3), ("spur", 0.4), ("short", 0.1), ("spur", 0.95)]))
def test_order_of_findings_is_irrelevant(rows: list[tuple[str, float]]) -> None:
    """The same findings in any order give the same verdict, rules and texts."""
    seen = judge([found(*row) for row in rows], RULES)
    assert ["ng.open", "ng.spur", "review.open", "review.spur"] == [reason.rule_id for reason in seen.reasons]
    assert seen.reasons[0].text == "1 finding of open, best score 0.60 (limit 0.50)"


@given(st.lists(st.builds(found, st.sampled_from(["open", "spur", "short", "dent"]), st.floats(0, 1)), max_size=5))
def test_only_ok_has_no_reason(findings: list[Detection]) -> None:
    """Every verdict but OK has a reason, and each reason names findings that were there."""
    seen = judge(findings, RULES)
    assert (seen.verdict == Verdict.OK) == (not seen.reasons)
    assert all(reason.detections and set(reason.detections) <= set(findings) for reason in seen.reasons)


def test_unknown_class_is_named() -> None:
    """The reason of the ERROR lists the classes without a rule."""
    seen = judge([found("dent", 0.9), found("burr", 0.1), found("open", 0.9)], RULES)
    assert [("judge.no_rule", "the recipe has no rule for burr, dent")] == [(r.rule_id, r.text) for r in seen.reasons]


def test_any_finding_without_rules_is_an_error() -> None:
    """Without rules nothing can be passed but a part without findings."""
    assert judge([found("open", 0.9)], ()).verdict == Verdict.ERROR


@pytest.mark.parametrize(
    ("ng", "review"), [(0.5, 0.6), (0.5, 0.0), (1.1, 0.5), (float("nan"), 0.2), (0.5, float("nan"))]
)
def test_rule_that_switches_itself_off_cannot_exist(ng: float, review: float) -> None:
    """Limits out of order, at zero, beyond one or not a number are refused."""
    with pytest.raises(ValueError, match="review_score <= ng_score"):
        Rule("open", ng, review)


@given(FINDINGS)
def test_ng_score_is_the_best_score(findings: list[Detection]) -> None:
    """A part is as surely NG as its surest finding, and not at all without one."""
    assert max([0.0, *(one.score for one in findings)]) == ng_score(findings)
