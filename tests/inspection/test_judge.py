import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspection.errors import ConfigError
from inspection.judge import Ground, Rule, combined, judge, ng_score, settle
from inspection.rois import Roi, RoiKind
from inspection.types import Detection, Judgement, Reason, Region, Verdict, error_judgement

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


# --- regions, sizes and counts

LEFT = Roi("left", "inspect", ((0, 0), (100, 0), (100, 100), (0, 100)))
INNER = Roi("inner", "inspect", ((40, 40), (60, 40), (60, 60), (40, 60)))
LABEL = Roi("label", "keep_out", ((200, 0), (300, 0), (300, 100), (200, 100)))
GROUND = Ground((LEFT, INNER, LABEL), mm_per_px=0.1)
GENERAL = Rule("open", 0.5, 0.2)


def at(x: float, y: float, score: float = 0.9, *, side: float = 10, defect_class: str = "open") -> Detection:
    """A finding with its centre at a place."""
    return Detection(defect_class, score, Region((x - side / 2, y - side / 2, x + side / 2, y + side / 2)))


def verdict(rules: tuple[Rule, ...], *findings: Detection, ground: Ground = GROUND) -> str:
    return judge(findings, rules, ground).verdict.name


@pytest.mark.parametrize(
    ("x", "y", "score", "said"),
    [
        (150, 50, 0.6, "NG"),  # nowhere: the general rule
        (20, 20, 0.6, "REVIEW"),  # in left
        (20, 20, 0.8, "NG"),
        (50, 50, 0.8, "OK"),  # in inner, which lies in left: the smaller one goes before
        (50, 50, 0.96, "NG"),
        (100, 50, 0.6, "REVIEW"),  # on the outline is inside
        (101, 50, 0.6, "NG"),
    ],
)
def test_rule_of_the_smallest_region_around_the_centre_decides(x: float, y: float, score: float, said: str) -> None:
    """The most specific rule wins: that of the region that holds the finding's centre, else the general one."""
    rules = (GENERAL, Rule("open", 0.7, 0.3, roi="left"), Rule("open", 0.95, 0.9, roi="inner"))
    assert said == verdict(rules, at(x, y, score))


def test_region_without_a_rule_for_the_class_leaves_it_to_the_region_around_it() -> None:
    """A small region that says nothing of a class does not hide the rule of a larger one."""
    rules = (GENERAL, Rule("open", 0.95, 0.95, roi="left"))
    assert verdict(rules, at(50, 50, 0.9)) == "OK"
    assert [("left", "open")] == [(f.roi_id, f.defect_class) for f in settle([at(50, 50, 0.9)], rules, GROUND)]


@pytest.mark.parametrize(
    ("x", "side", "said"), [(250, 10, "OK"), (250, 100, "OK"), (203, 10, "NG"), (205, 10, "OK"), (250, 101, "NG")]
)
def test_only_what_lies_wholly_in_a_keep_out_is_left_out(x: float, side: float, said: str) -> None:
    """A finding that reaches out of a keep-out counts as anywhere else."""
    assert said == verdict((GENERAL,), at(x, 50, side=side))


def test_finding_in_a_keep_out_is_kept_with_its_name() -> None:
    """What does not count can still be seen in the record."""
    assert ["label"] == [found.roi_id for found in settle([at(250, 50)], (GENERAL,), GROUND)]


@pytest.mark.parametrize(("side", "said"), [(9.9, "OK"), (10, "NG"), (30, "NG")])
def test_findings_below_the_area_do_not_count(side: float, said: str) -> None:
    """Ten pixels of 0.1 mm squared are 1 mm2; a box of exactly that size counts."""
    assert said == verdict((Rule("open", 0.5, 0.2, min_area_mm2=1.0),), at(150, 50, side=side))


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([0.9, 0.9], "OK"),
        ([0.9, 0.9, 0.9], "NG"),
        ([0.9, 0.9, 0.3], "REVIEW"),
        ([0.3, 0.3], "OK"),
        ([0.3, 0.3, 0.3], "REVIEW"),
        ([0.9, 0.9, 0.1], "OK"),
    ],
)
def test_so_many_findings_are_tolerated(scores: list[float], said: str) -> None:
    """With two allowed, the third that reaches the limit makes the verdict."""
    findings = [at(150, 20 * number, score) for number, score in enumerate(scores, 1)]
    assert said == verdict((Rule("open", 0.5, 0.2, allowed_count=2),), *findings)


@pytest.mark.parametrize(
    ("x", "score", "said"),
    [(10.9, 0.9, "NG"), (11.1, 0.9, "OK"), (10.9, 0.3, "REVIEW"), (98, 0.9, "NG"), (30, 0.9, "OK")],
)
def test_near_the_edge_every_finding_counts(x: float, score: float, said: str) -> None:
    """A pore of any size nearer than 1 mm (10 px) to the outline breaks the part, one further inside is tolerated."""
    rule = Rule("open", 0.5, 0.2, roi="left", min_area_mm2=5.0, allowed_count=3, edge_mm=1.0)
    assert said == verdict((GENERAL, rule), at(x, 20, score, side=2))


def test_rule_in_millimetres_without_a_scale_is_an_error() -> None:
    """A size that cannot be known is never taken for small enough."""
    for rule in (Rule("open", 0.5, 0.2, min_area_mm2=1.0), Rule("open", 0.5, 0.2, roi="left", edge_mm=1.0)):
        with pytest.raises(ConfigError, match="millimetres"):
            judge([at(50, 20)], (GENERAL if rule.roi else Rule("x", 1, 1), rule), Ground((LEFT,)))


def test_reason_names_region_and_allowed_count() -> None:
    """The operator reads where, how many, and how many would be tolerated."""
    rules = (GENERAL, Rule("open", 0.5, 0.2, roi="left", allowed_count=1))
    (reason,) = judge([at(20, 20, 0.75), at(70, 20)], rules, GROUND).reasons
    assert reason.rule_id == "ng.open@left"
    assert reason.text == "2 findings of open in left, best score 0.90 (limit 0.50, 1 allowed)"
    assert {"left"} == {found.roi_id for found in reason.detections}


@pytest.mark.parametrize(
    "bad", [{"min_area_mm2": -1}, {"allowed_count": -1}, {"edge_mm": -1, "roi": "a"}, {"edge_mm": 1}]
)
def test_rule_that_makes_no_sense_is_refused(bad: dict[str, float]) -> None:
    """A rule with negative limits, or an edge of no region, cannot be made."""
    with pytest.raises(ValueError, match="open"):
        Rule("open", 0.5, 0.2, **bad)  # type: ignore[arg-type]


PLACES = st.builds(
    at, st.floats(0, 320), st.floats(0, 110), st.floats(0, 1), side=st.floats(1, 60),
    defect_class=st.sampled_from(["open", "spur", "short"]),
)  # fmt: skip
SIZED = st.builds(
    Rule, st.just("open"), st.just(0.5), st.sampled_from([0.2, 0.5]), min_area_mm2=st.floats(0, 20),
    allowed_count=st.integers(0, 3),
)  # fmt: skip
IN_LEFT = st.builds(
    Rule, st.just("open"), st.floats(0.5, 1), st.just(0.4), roi=st.sampled_from(["left", "inner"]),
    min_area_mm2=st.floats(0, 20), allowed_count=st.integers(0, 3), edge_mm=st.floats(0, 3),
)  # fmt: skip
SETS = st.tuples(SIZED, IN_LEFT, st.just(RULES[1]), st.just(RULES[2]))
LISTS = st.lists(PLACES, max_size=8)


@given(LISTS, PLACES, SETS)
def test_another_finding_anywhere_never_makes_the_verdict_better(
    findings: list[Detection], more: Detection, rules: tuple[Rule, ...]
) -> None:
    """With regions, sizes and counts too, adding a finding leaves the verdict or makes it worse."""
    assert WORSE[judge([*findings, more], rules, GROUND).verdict] >= WORSE[judge(findings, rules, GROUND).verdict]


@given(LISTS, st.integers(0, 7), st.floats(0, 1), SETS)
def test_a_higher_score_anywhere_never_makes_the_verdict_better(
    findings: list[Detection], which: int, raised: float, rules: tuple[Rule, ...]
) -> None:
    """With regions, sizes and counts too, raising a score leaves the verdict or makes it worse."""
    before = judge(findings, rules, GROUND).verdict
    if findings:
        old = findings[which % len(findings)]
        findings[which % len(findings)] = Detection(old.defect_class, max(old.score, raised), old.region)
    assert WORSE[judge(findings, rules, GROUND).verdict] >= WORSE[before]


@given(LISTS, SETS, st.randoms(use_true_random=False))
def test_order_of_findings_and_regions_is_irrelevant(
    findings: list[Detection], rules: tuple[Rule, ...], random
) -> None:  # type: ignore[no-untyped-def]
    """The same findings and regions in any order give the same verdict."""
    rois = list(GROUND.rois)
    shuffled = list(findings)
    random.shuffle(shuffled)
    random.shuffle(rois)
    assert judge(findings, rules, GROUND).verdict == judge(shuffled, rules, Ground(tuple(rois), 0.1)).verdict


@given(LISTS, SETS)
def test_keep_out_only_takes_findings_away(findings: list[Detection], rules: tuple[Rule, ...]) -> None:
    """A keep-out leaves the verdict of the findings that do not lie wholly inside, and never makes it worse."""
    without = Ground((LEFT, INNER), 0.1)
    outside = [found for found in findings if not LABEL.contains(found.region.xyxy_px)]
    assert judge(findings, rules, GROUND).verdict == judge(outside, rules, without).verdict
    assert WORSE[judge(findings, rules, GROUND).verdict] <= WORSE[judge(findings, rules, without).verdict]


@given(LISTS, SETS)
def test_settling_twice_changes_nothing(findings: list[Detection], rules: tuple[Rule, ...]) -> None:
    """The region of a finding depends on its place and class alone."""
    once = settle(findings, rules, GROUND)
    assert once == settle(once, rules, GROUND)


@given(st.lists(KNOWN, max_size=6), st.sampled_from(["inspect", "keep_out"]))
def test_regions_elsewhere_change_nothing(findings: list[Detection], kind: RoiKind) -> None:
    """A region far from every finding leaves the judgement as it is."""
    far = Roi("far", kind, ((500, 500), (600, 500), (600, 600)))
    assert judge(findings, RULES) == judge(findings, RULES, Ground((far,)))


# --- several views

OK, ERROR = Judgement(Verdict.OK), error_judgement("camera.timeout", "no frame")
NG = Judgement(Verdict.NG, (Reason("ng.open", "one"), Reason("review.spur", "two")))
REVIEW = Judgement(Verdict.REVIEW, (Reason("review.open", "three"),))


@pytest.mark.parametrize(
    ("views", "said", "rules"),
    [
        ((OK, OK), Verdict.OK, []),
        ((OK, REVIEW), Verdict.REVIEW, ["review.open"]),
        ((REVIEW, ERROR), Verdict.ERROR, ["camera.timeout", "review.open"]),
        ((ERROR, NG), Verdict.NG, ["ng.open", "camera.timeout", "review.spur"]),
        ((NG, OK), Verdict.NG, ["ng.open", "review.spur"]),
    ],
)
def test_views_are_combined(views: tuple[Judgement, ...], said: Verdict, rules: list[str]) -> None:
    """NG of any view before ERROR before REVIEW before OK; all reasons are kept, those of the verdict first."""
    whole = combined(dict(zip(("top", "side"), views, strict=True)))
    assert (said, rules) == (whole.verdict, [reason.rule_id for reason in whole.reasons])


def test_reasons_of_several_views_name_the_camera_and_a_single_one_stays_as_it_is() -> None:
    """With one camera nothing is added; with several the operator is told where to look."""
    assert combined({"top": NG}) is NG
    assert combined({"top": OK, "side": REVIEW}).reasons[0].text == "camera side: three"
