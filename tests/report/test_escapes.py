"""The promised escape bound beside what review observed: exact bounds, that they hold, and what they do not cover."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspection.model import Calibration, ClassLimit, ModelCard, TrainedOn
from inspection.recipe_config import ViewSection
from inspection.report.escapes import Promise, Reviewed, escapes, promise_of
from inspection.report.intervals import Stratum
from inspection.report.reviewing import _as_calibrated

NG = Stratum(1000, 400, 360)
SEEN = Reviewed(ok=99_000, drawn=500, decided=500, escapes=0, called=(NG,))
CARD = ModelCard(
    name="m", task="detect", classes=("short", "open"), golden_guided=True, threshold=0.5, threshold_from="",
    trained_on=TrainedOn(source="real"), trainer="t", trainer_licence="Apache-2.0", command="", seed=1, trained_minutes=1,
)  # fmt: skip


def test_no_escape_among_300_drawn_parts_leaves_one_percent() -> None:
    """0 of 300 at 95 %: at most 0.9936 % (1 - 0.05 ** (1/300)) of the OK parts are defective; 2 of 300: 2.0836 %."""
    none = escapes(Promise(None), Reviewed(10_000, 300, 300, 0)).share
    two = escapes(Promise(None), Reviewed(10_000, 300, 300, 2)).share
    assert (0.0, 0.0, 300) == (none.value, none.low, none.of)
    assert math.isclose(1 - 0.05 ** (1 / 300), dict(none.values)["bound"])
    assert ("0.9936 %", "2.0836 %") == tuple(f"{dict(one.values)['bound'] * 100:.4f} %" for one in (none, two))
    assert two.low < two.value < dict(two.values)["bound"] < two.high


def test_the_escape_rate_is_of_all_defective_parts() -> None:
    """1 of 500 drawn OK parts escaped and 90 % of 1000 NG are true: 198 of 1098 defective parts passed."""
    rate = escapes(Promise(None), replace(SEEN, escapes=1)).rate
    assert math.isclose(198 / 1098, rate.value)
    assert rate.low < rate.value < rate.high


def test_review_parts_are_caught_parts_with_a_share_of_their_own() -> None:
    """A REVIEW part did not pass; how many of them are truly defective is taken from reviewed REVIEW parts alone."""
    seen = replace(SEEN, escapes=1, called=(NG, Stratum(200, 100, 10)))
    assert math.isclose(198 / (198 + 900 + 20), escapes(Promise(None), seen).rate.value)


@pytest.mark.parametrize(
    ("seen", "share", "rate"),
    [
        (Reviewed(0, 0, 0, 0), "escapes_no_ok_parts", "escapes_no_ok_parts"),
        (Reviewed(0, 0, 0, 0, called=(NG,)), "escapes_no_ok_parts", "escapes_no_ok_parts"),
        (Reviewed(900, 9, 0, 0, called=(NG,)), "escapes_no_ok_reviewed", "escapes_no_ok_reviewed"),
        (Reviewed(900, 9, 9, 0), "", "escapes_nothing_called"),
        (Reviewed(900, 9, 9, 0, called=(Stratum(0, 0, 0),)), "", "escapes_nothing_called"),
        (Reviewed(900, 9, 9, 1, called=(Stratum(5, 0, 0),)), "", "escapes_no_ng_reviewed"),
        (Reviewed(900, 9, 9, 0, called=(Stratum(5, 5, 0),)), "", "escapes_nothing_defective"),
    ],
)
def test_what_cannot_be_said_is_not_said(seen: Reviewed, share: str, rate: str) -> None:
    """No OK parts, none reviewed, nothing called, nothing defective: a reason stands there instead of a number."""
    said = escapes(Promise(0.05), seen)
    assert (share, rate) == (said.share.why_not, said.rate.why_not)
    assert (said.rate.value, said.against) == (None, "nothing_observed")


def test_escapes_that_were_not_drawn_are_never_used_for_the_rate() -> None:
    """Escapes found by chance are counted and named; both numbers stay as they are."""
    said, with_chance = (escapes(Promise(0.05), replace(SEEN, chance_escapes=count)) for count in (0, 40))
    assert (said.share, said.rate) == (with_chance.share, with_chance.rate)
    assert "chance" in with_chance.not_covered
    assert "chance" not in said.not_covered


def test_parts_of_which_it_is_not_known_whether_they_were_drawn_are_named() -> None:
    """They change no number; where nothing else was decided, they are the reason why there is none."""
    said, with_older = (escapes(Promise(0.05), replace(SEEN, drawn_unknown=count)) for count in (0, 40))
    assert (said.share, said.rate) == (with_older.share, with_older.rate)
    assert ("drawn_unknown" in said.not_covered, "drawn_unknown" in with_older.not_covered) == (False, True)
    nothing = escapes(Promise(0.05), replace(SEEN, decided=0, escapes=0, drawn_unknown=40))
    assert ("escapes_draw_not_known",) * 2 == (nothing.share.why_not, nothing.rate.why_not)


def test_the_promise_is_judged_by_the_whole_interval() -> None:
    """Kept only when the upper bound is not above it, broken only when the lower bound is; else undecided."""
    many = Reviewed(ok=99_000, drawn=60_000, decided=60_000, escapes=3, called=(Stratum(1000, 1000, 900),))
    assert "kept" == escapes(Promise(0.05), many).against
    assert "undecided" == escapes(Promise(0.05), SEEN).against
    assert "broken" == escapes(Promise(0.05), replace(many, escapes=300)).against
    assert "no_promise" == escapes(Promise(None), many).against


def test_a_promise_for_other_limits_is_no_promise() -> None:
    """Where every part was judged by limits that the promise was not given for, nothing is compared; it is said."""
    seen = Reviewed(ok=99_000, drawn=60_000, decided=60_000, escapes=3, called=(Stratum(1000, 1000, 900),))
    some, every = (escapes(Promise(0.05), replace(seen, other_limits=count)) for count in (99_999, 100_000))
    assert ("kept", "no_promise") == (some.against, every.against)
    assert "other_limits" in every.not_covered
    assert "other_limits" not in escapes(Promise(None), replace(seen, other_limits=1)).not_covered


def test_a_keep_out_is_not_what_the_limits_were_proven_for() -> None:
    """A recipe judges as calibrated with the card's own limits and nothing else: no keep-out, region, area or count."""
    rule = {"defect_class": "open", "ng_score": 0.4, "review_score": 0.3}
    card = CARD.model_copy(update={"limits": (ClassLimit.model_validate(rule),)})
    region = {"id": "rim", "box_px": (0, 0, 500, 500)}

    def calibrated(rois: tuple[dict, ...], *more: dict, **change: float) -> bool:
        view = ViewSection.model_validate({"rois": rois, "rules": [rule | change, *more]})
        return _as_calibrated({"top": view}, {"top": card})

    assert calibrated(())
    assert calibrated((region,))
    assert not calibrated((region | {"kind": "keep_out"},))
    assert not calibrated((region,), rule | {"roi": "rim"})
    assert not any(
        calibrated((), **change) for change in ({"min_area_mm2": 0.1}, {"allowed_count": 1}, {"ng_score": 0.5})
    )


def test_what_is_not_covered_is_listed() -> None:
    """Unreviewed NG, drawn parts nobody decided, errors, other limits and uncovered classes, each only where it is so."""
    assert ("not_drawn", "reviewers", "not_seen", "unreviewed_ng") == escapes(Promise(0.05), SEEN).not_covered
    seen = replace(SEEN, drawn=600, unsure=20, errors=3, other_limits=7, called=(Stratum(5, 5, 5),))
    assert {
        "not_drawn", "reviewers", "not_seen", "drawn_unreviewed", "unsure",
        "errors", "other_limits", "class:open",
    } == set(escapes(Promise(0.05, classes=("open",)), seen).not_covered)  # fmt: skip


def test_the_promise_comes_from_the_card() -> None:
    """Bound, confidence, sentence and uncovered classes as `lineside calibrate` wrote them; none without calibration."""
    calibration = Calibration(
        statement="At most 5 % pass.", dataset="d", dataset_version="v", confidence=0.95, defective=100, escapes=1,
        escape_bound=0.05, good=100, overkill=2, not_covered=("open",),
    )  # fmt: skip
    card = CARD.model_copy(update={"calibration": calibration})
    assert Promise(0.05, 0.95, "At most 5 % pass.", ("open",)) == promise_of(card)
    assert Promise(None) == promise_of(CARD)


PROCESSES = [
    # parts, truly defective, pass of the defective, overkill of the good, OK drawn, NG reviewed
    (20_000, 0.03, 0.05, 0.01, 0.05, 0.3),
    (20_000, 0.03, 0.005, 0.01, 0.05, 0.3),
    (2_000, 0.05, 0.2, 0.02, 0.2, 1.0),
    (300, 0.1, 0.1, 0.05, 0.5, 0.5),
]


@pytest.mark.parametrize("process", PROCESSES)
def test_the_intervals_hold_in_95_of_100_runs(process: tuple[float, ...]) -> None:
    """Simulated lines with a known escape rate: interval and one-sided bounds hold in at least 95 % of 400 runs."""
    parts, defective, passed, overkill, drawn, reviewed = process
    rng = np.random.default_rng(11)
    share = defective * passed / (defective * passed + (1 - defective) * (1 - overkill))
    held = {"rate": 0, "share": 0, "bound": 0}
    runs = 400
    for _ in range(runs):
        bad = rng.binomial(parts, defective)
        escaped, false = rng.binomial(bad, passed), rng.binomial(parts - bad, overkill)
        ok, caught = parts - bad - false + escaped, bad - escaped
        looked = rng.binomial(ok, drawn)
        judged = rng.binomial(caught + false, reviewed)
        found = rng.hypergeometric(escaped, ok - escaped, looked) if looked else 0
        true = rng.hypergeometric(caught, false, judged) if judged else 0
        said = escapes(Promise(None), Reviewed(ok, looked, looked, found, (Stratum(caught + false, judged, true),)))
        held["rate"] += said.rate.value is None or said.rate.low <= passed <= said.rate.high
        held["share"] += said.share.value is None or said.share.low <= share <= said.share.high
        held["bound"] += said.share.value is None or share <= dict(said.share.values)["bound"]
    assert all(count / runs >= 0.95 for count in held.values()), held


@given(st.integers(1, 500), st.data())
def test_values_lie_within_their_intervals(ok: int, data: st.DataObject) -> None:
    """Whatever was counted: 0 <= low <= value <= high <= 1, and more escapes never make the bounds fall."""
    drawn = data.draw(st.integers(1, ok))
    decided = data.draw(st.integers(1, drawn))
    found = data.draw(st.integers(0, decided))
    called = data.draw(st.integers(1, 200))
    reviewed = data.draw(st.integers(1, called))
    true = data.draw(st.integers(0, reviewed))
    seen = Reviewed(ok, drawn, decided, found, (Stratum(called, reviewed, true),))
    said = escapes(Promise(None), seen)
    for claim in (said.share, said.rate):
        assert claim.value is None or 0 <= claim.low <= claim.value + 1e-12 <= claim.high + 1e-12 <= 1 + 1e-9
    if found < decided and said.rate.value is not None:
        more = escapes(Promise(None), replace(seen, escapes=found + 1)).rate
        assert (more.low, more.high) >= (said.rate.low, said.rate.high)


def test_impossible_counts_are_refused() -> None:
    """More escapes than decided parts, or more decided than drawn, is a mistake of the program."""
    with pytest.raises(ValueError):
        Reviewed(10, 5, 3, 4)
    with pytest.raises(ValueError):
        Reviewed(10, 5, 4, 0, unsure=2)
