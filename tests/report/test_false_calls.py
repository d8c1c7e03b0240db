"""False calls by board, component and opportunity: what is counted, what is carried over, and what is not claimed."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspection.report.false_calls import Call, false_calls, places
from inspection.report.intervals import Stratum, expected, interval, lower_bound, share_of_all, upper_bound


def calls(verdict: str, *, false: int = 0, confirmed: int = 0, waiting: int = 0, units: int = 1) -> list[Call]:
    """So many calls of one verdict by what review said."""
    said = ["false_call"] * false + ["confirmed"] * confirmed + [""] * waiting
    return [Call(verdict, disposition, units) for disposition in said]


def test_three_denominators_give_three_rates_of_the_same_calls() -> None:
    """One board called falsely at three places, of 1000 boards with 21 places and 5 classes: 0.1 %, 143 ppm, 29 DPMO."""
    components, opportunities = places([(20, 5)])
    assert (21, 105) == (components, opportunities)
    rows = [
        false_calls("board", [Call("NG", "false_call")], 1000, parts=1000),
        false_calls("component", [Call("NG", "false_call", 3)], 1000 * components, parts=1000),
        false_calls("opportunity", [Call("NG", "false_call", 3)], 1000 * opportunities, parts=1000),
    ]
    assert [(1, 1000), (3, 21_000), (3, 105_000)] == [(row.false_calls, row.of) for row in rows]
    assert ["0.10 %", "143", "29"] == [
        f"{rows[0].rate.value:.2%}".replace("%", " %"),
        *(f"{row.rate.value * 1e6:.0f}" for row in rows[1:]),
    ]


def test_views_add_up() -> None:
    """Two cameras: regions and the rest around them are places, each with the classes of its own view."""
    assert (3 + 1, 3 * 4 + 1 * 2) == places([(2, 4), (0, 2)])
    assert (0, 0) == places([])


def test_a_rate_of_all_reviewed_has_the_exact_interval() -> None:
    """5 of 1000 boards falsely called, all called ones reviewed: Clopper and Pearson give 0.1625 % to 1.1629 %."""
    claim = false_calls("board", calls("NG", false=5, confirmed=15), 1000, parts=1000).rate
    assert ("0.001625", "0.011629") == (f"{claim.low:.6f}", f"{claim.high:.6f}")
    assert (0.005, "false_calls_counted") == (claim.value, claim.text_key)
    assert {"reviewed": 20, "unreviewed": 0, "least": 0.005, "most": 0.005} == dict(claim.values)


def test_unreviewed_calls_are_a_range_and_are_carried_over_with_a_wider_interval() -> None:
    """A quarter reviewed: the rate is carried over and says so; no unreviewed call false is the least, all the most."""
    claim = false_calls("board", calls("NG", false=5, confirmed=15, waiting=60), 1000, parts=1000).rate
    assert ("false_calls_extrapolated", 0.02) == (claim.text_key, claim.value)
    assert {"reviewed": 20, "unreviewed": 60, "least": 0.005, "most": 0.065} == dict(claim.values)
    counted = false_calls("board", calls("NG", false=20, confirmed=60), 1000, parts=1000).rate
    assert claim.low < counted.low < counted.value < counted.high < claim.high


def test_ng_and_review_are_carried_over_each_for_itself() -> None:
    """People look at REVIEW first, where more is false; that must not raise the rate of the NG nobody looked at."""
    seen = calls("REVIEW", false=90, confirmed=10) + calls("NG", false=1, confirmed=9, waiting=990)
    assert math.isclose((90 + 100) / 100_000, false_calls("board", seen, 100_000, parts=100_000).rate.value)


def test_a_verdict_that_nobody_reviewed_may_be_all_false_or_not_at_all() -> None:
    """The interval then spans both, and the value goes by the other verdict."""
    claim = false_calls(
        "board", calls("NG", false=50, confirmed=50) + calls("REVIEW", waiting=100), 1000, parts=1000
    ).rate
    assert math.isclose(0.1, claim.value)
    assert claim.low < 0.05 < 0.15 < claim.high


def test_no_reviews_no_rate() -> None:
    """Without a review there is a range but no rate, and the reason stands there."""
    claim = false_calls("board", calls("NG", waiting=10), 1000, parts=1000).rate
    assert (None, None, None, "false_calls_no_reviews") == (claim.value, claim.low, claim.high, claim.why_not)
    assert (0.0, 0.01) == (dict(claim.values)["least"], dict(claim.values)["most"])
    unsure = false_calls("board", [Call("NG", "unsure")], 1000, parts=1000).rate
    assert "false_calls_no_reviews" == unsure.why_not


def test_nothing_called_is_no_false_call() -> None:
    """Where nothing was called nothing can be false, whether or not anybody reviewed: 0 with its upper bound."""
    claim = false_calls("board", [], 1000, parts=1000).rate
    assert (0.0, 0.0) == (claim.value, claim.low)
    assert math.isclose(1 - 0.025 ** (1 / 1000), claim.high)


def test_nothing_inspected_or_an_unknown_recipe_gives_no_rate() -> None:
    """Of no part, and of places that nobody can count, there is no rate."""
    assert "nothing_inspected" == false_calls("board", [], 0, parts=0).rate.why_not
    row = false_calls("component", calls("NG", false=1), None, parts=9)
    assert (1, None, "false_calls_recipe_unknown") == (row.false_calls, row.of, row.rate.why_not)


def test_more_calls_than_places_give_no_rate() -> None:
    """Records that name more places than their recipe has: the rate is not claimed, and the reason tells both numbers."""
    claim = false_calls("component", calls("NG", false=2, units=9), 10, parts=2).rate
    assert (None, "false_calls_more_than_places") == (claim.value, claim.why_not)
    assert (("called", 18), ("places", 10)) == claim.values


def test_all_ng_and_all_false_is_a_rate_of_one() -> None:
    """Every board called and every call false."""
    claim = false_calls("board", calls("NG", false=50), 50, parts=50).rate
    assert (1.0, 1.0) == (claim.value, claim.high)
    assert claim.low > 0.9


def test_places_on_one_part_are_not_independent() -> None:
    """Ten false places on one part say less than one each on ten parts: the interval is wider, the value the same."""
    alone = false_calls("component", calls("NG", false=10, units=1), 10_000, parts=500).rate
    bundled = false_calls("component", calls("NG", false=1, units=10), 10_000, parts=500).rate
    assert alone.value == bundled.value
    assert bundled.low < alone.low < alone.high < bundled.high


def test_the_interval_of_bundled_places_holds() -> None:
    """Boards with false calls in bundles of 1 to 9 places: the 95 % interval holds the true rate in 95 % of 600 runs."""
    rng = np.random.default_rng(5)
    boards, regions, share, runs = 2000, 20, 0.01, 600
    held = 0
    for _ in range(runs):
        units = rng.integers(1, 10, rng.binomial(boards, share))
        claim = false_calls(
            "component", [Call("NG", "false_call", int(count)) for count in units], boards * regions, parts=boards
        ).rate
        held += claim.low <= share * 5 / regions <= claim.high
    assert held / runs >= 0.95


@pytest.mark.parametrize("part", [0.1, 0.5])
def test_the_interval_of_a_partial_review_holds(part: float) -> None:
    """A random part of the calls reviewed: the 95 % interval holds the true rate in 95 % of 400 runs."""
    rng = np.random.default_rng(6)
    boards, called, truly_false, runs = 5000, 0.03, 0.4, 400
    held = 0
    for _ in range(runs):
        count = rng.binomial(boards, called)
        said = np.where(rng.random(count) < truly_false, "false_call", "confirmed")
        said[rng.random(count) >= part] = ""
        claim = false_calls("board", [Call("NG", str(word)) for word in said], boards, parts=boards).rate
        held += claim.low <= called * truly_false <= claim.high
    assert held / runs >= 0.95


@pytest.mark.parametrize("call", [("OK", "", 1), ("ERROR", "", 1), ("NG", "", 0)])
def test_what_is_no_call_is_refused(call: tuple[str, str, int]) -> None:
    """OK and ERROR parts are not called, a call is at one place at least, and no more are called than were judged."""
    with pytest.raises(ValueError):
        Call(*call)
    with pytest.raises(ValueError):
        false_calls("board", calls("NG", waiting=2), 1, parts=1)


@given(st.lists(st.sampled_from(["false_call", "confirmed", "unsure", "", "escape"]), max_size=40), st.integers(1, 9))
def test_value_and_range_are_in_order(said: list[str], units: int) -> None:
    """Whatever was reviewed: low <= value <= high, and the value lies between the least and the most."""
    seen = [Call("NG" if at % 2 else "REVIEW", word, units) for at, word in enumerate(said)]
    claim = false_calls("component", seen, 1000, parts=100).rate
    if claim.value is None:
        assert claim.why_not == "false_calls_no_reviews"
    else:
        known = dict(claim.values)
        assert 0 <= claim.low <= claim.value <= claim.high <= 1
        assert known["least"] <= claim.value + 1e-12 <= known["most"] + 1e-9


def test_intervals_are_those_of_the_tables() -> None:
    """Clopper and Pearson: 0 of 59 is at most 5 % at 95 %, 3 of 10 lies between 6.67 % and 65.25 %, nothing says nothing."""
    assert ("0.0495", "0.0503") == (f"{upper_bound(0, 59, 0.05):.4f}", f"{upper_bound(0, 58, 0.05):.4f}")
    assert ("0.0667", "0.6525") == tuple(f"{bound:.4f}" for bound in interval(3, 10))
    assert (0.0, 1.0) == interval(0, 0)
    assert (0.0, 1.0) == (lower_bound(0, 9, 0.05), upper_bound(9, 9, 0.05))


def test_strata_that_nobody_decided() -> None:
    """They go by the others, and by nothing where there are none; impossible counts are refused."""
    assert (10, 15, 0) == (
        expected([Stratum(20, 10, 5)]),
        expected([Stratum(20, 10, 5), Stratum(10, 0, 0)]),
        expected([Stratum(20, 0, 0)]),
    )
    assert (0.0, 0.0) == share_of_all([], 100, 0.01)
    with pytest.raises(ValueError):
        Stratum(3, 4, 1)
