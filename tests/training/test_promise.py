"""What may be claimed of limits, against exact numbers and against simulated plants whose truth is known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from inspection.errors import UsageError
from inspection.recipe_config import LEAST_SCORE, RuleSection
from training.promise import (
    MOST_SCORE,
    Limits,
    Scores,
    Wish,
    choose,
    in_few_digits,
    middle,
    most_events,
    needed_trials,
    units,
    upper_bound,
    walk_down,
    walk_up,
)

SCORE = st.floats(0, 1)
RATE = st.floats(0.01, 0.5)


def one_class(bad: list[float], good: list[float], groups: list[int] | None = None) -> Scores:
    defective = np.array([True] * len(bad) + [False] * len(good))
    numbers = np.arange(len(defective)) if groups is None else np.array(groups)
    return Scores(np.array([*bad, *good], float)[:, None], defective[:, None], defective, numbers)


def passing(parts: NDArray[np.float64], limits: Limits) -> NDArray[np.bool_]:
    """Which parts (N, C) pass as OK."""
    return (parts < [review for _, review in limits]).all(1)


def rejected(parts: NDArray[np.float64], limits: Limits) -> NDArray[np.bool_]:
    """Which parts (N, C) are NG."""
    return (parts >= [ng for ng, _ in limits]).any(1)


def test_exact_numbers_of_the_claim() -> None:
    """59 defects without a miss allow the claim of 5 % at 95 %, 58 do not; 93 with one miss; 299 for 1 %."""
    assert (0, -1) == (most_events(59, 0.05, 0.95), most_events(58, 0.05, 0.95))
    assert [59, 93, 124] == [needed_trials(missed, 0.05, 0.95) for missed in range(3)]
    assert needed_trials(0, 0.01, 0.95) == 299 == math.ceil(math.log(0.05) / math.log(0.99))
    assert upper_bound(0, 59, 0.95) == pytest.approx(1 - 0.05 ** (1 / 59))
    assert upper_bound(0, 0, 0.95) == 1.0


@given(st.integers(0, 12), RATE, st.floats(0.6, 0.99))
def test_number_needed_is_the_smallest(missed: int, rate: float, confidence: float) -> None:
    """One trial fewer does not allow the claim, and the bound says the same as the test."""
    needed = needed_trials(missed, rate, confidence)
    assert most_events(needed, rate, confidence) >= missed
    assert most_events(needed - 1, rate, confidence) < missed
    assert upper_bound(missed, needed, confidence) <= rate + 1e-9


def test_claim_stands_with_59_defects_and_falls_with_58() -> None:
    """The limit goes up to the lowest defective score and no further."""
    assert (0.5, True) == (walk_up(np.full(59, 0.5), 0.05, 0.95).limit, walk_up(np.full(59, 0.5), 0.05, 0.95).proven)
    fallen = walk_up(np.full(58, 0.5), 0.05, 0.95)
    assert (fallen.limit, fallen.proven, fallen.trials) == (0.5, False, 58)


def test_no_defective_part_draws_no_limit() -> None:
    """Without any there is nothing to claim and nothing to keep."""
    walk = walk_up(np.zeros(0), 0.05, 0.95)
    assert (walk.limit, walk.proven, walk.trials) == (MOST_SCORE, False, 0)


def test_defects_that_the_model_never_finds_cannot_be_claimed() -> None:
    """All score below the lowest limit: no limit would help."""
    walk = walk_up(np.full(500, 0.001), 0.05, 0.95)
    assert (walk.proven, walk.unavoidable) == (False, 500)


def test_equal_scores_pass_or_stop_together() -> None:
    """93 defects allow one miss; two at the lowest score would be two, so the limit does not leave them behind."""
    walk = walk_up(np.array([0.1, 0.1] + [0.6] * 91), 0.05, 0.95)
    assert (walk.limit, walk.proven) == (0.1, True)
    choice = choose(one_class([0.1, 0.1] + [0.6] * 91, [0.3] * 50), Wish(0.05), ((0.4, 0.4),))
    assert choice.limits[0][1] <= 0.1


def test_one_good_part_draws_a_limit_above_it_and_no_claim() -> None:
    """A single good part is no evidence, but a first limit."""
    choice = choose(one_class([], [0.2]), Wish(0.05, overkill_rate=0.01), ((0.4, 0.4),))
    assert 0.2 < choice.limits[0][0] <= MOST_SCORE
    assert not choice.escape.proven
    assert not choice.overkill_kept


def test_good_parts_alone_carry_an_overkill_claim() -> None:
    """299 good parts without a rejected one stand for 1 %; the limit lies above all of them."""
    good = list(np.linspace(0.05, 0.3, 299))
    choice = choose(one_class([], good), Wish(0.05, overkill_rate=0.01), ((0.4, 0.4),))
    assert choice.overkill_kept
    assert choice.limits[0][0] > 0.3
    assert not choice.escape.proven


def test_too_few_good_parts_take_the_conformal_quantile() -> None:
    """99 good parts cannot prove 2 %, but their second highest score keeps it on average."""
    good = np.arange(1, 100) / 200
    walk = walk_down(good, 0.02, 0.95)
    assert (walk.limit, walk.proven) == (good[-2], False)


def test_rates_that_exclude_each_other_open_a_review_band() -> None:
    """Where defective and good scores mix, parts in between go to review, and both promises stand."""
    rng = np.random.default_rng(0)
    bad, good = rng.beta(4, 2, 300), rng.beta(2, 4, 300)
    choice = choose(one_class(list(bad), list(good)), Wish(0.05, overkill_rate=0.05), ((0.4, 0.4),))
    ng, review = choice.limits[0]
    assert review < ng
    assert choice.escape.proven
    assert choice.overkill_kept
    assert upper_bound(int((bad < review).sum()), 300, 0.95) <= 0.05
    assert upper_bound(int((good >= ng).sum()), 300, 0.95) <= 0.05


def test_review_rate_is_kept_at_the_cost_of_the_overkill_claim() -> None:
    """With no one to review, the band closes downwards: the escape rate comes first."""
    rng = np.random.default_rng(0)
    bad, good = rng.beta(4, 2, 300), rng.beta(2, 4, 300)
    parts = one_class(list(bad), list(good))
    for most in (0.0, 0.1):
        choice = choose(parts, Wish(0.05, overkill_rate=0.05, review_rate=most), ((0.4, 0.4),))
        ng, review = choice.limits[0]
        assert ((good >= review) & (good < ng)).mean() <= most
        assert choice.escape.proven
        assert not choice.overkill_kept


def test_separable_parts_get_one_limit_in_the_middle() -> None:
    """With a wide gap nothing is left to review, and the limit lies half way in log-odds."""
    choice = choose(one_class([0.9] * 100, [0.1] * 100), Wish(0.05, overkill_rate=0.05), ((0.3, 0.3),))
    assert choice.limits[0] == pytest.approx((0.5, 0.5))


def test_costs_move_the_limit_within_the_promise() -> None:
    """A dear overkill lifts the limit, but never above what the escape rate allows."""
    rng = np.random.default_rng(1)
    parts = one_class(list(rng.beta(4, 2, 400)), list(rng.beta(2, 4, 400)))
    cheap, dear = (choose(parts, Wish(0.2, costs=costs), ((0.3, 0.3),)) for costs in ((20.0, 1.0), (1.0, 20.0)))
    assert cheap.limits[0][0] < dear.limits[0][0] <= dear.escape.limit


def test_class_without_a_sample_keeps_its_limit_and_is_not_covered() -> None:
    """What no part shows is neither moved nor promised."""
    scores = np.column_stack([np.r_[np.full(80, 0.8), np.full(80, 0.1)], np.full(160, 0.05)])
    defective = np.arange(160) < 80
    parts = Scores(scores, np.column_stack([defective, np.zeros(160, bool)]), defective, np.arange(160))
    choice = choose(parts, Wish(0.05), ((0.4, 0.3), (0.6, 0.5)))
    assert choice.limits[1] == (0.6, 0.5)
    assert choice.covered == (True, False)


def test_groups_count_once_with_their_worst_part() -> None:
    """Sixty pictures of six parts are six."""
    values, groups = np.tile([0.9, 0.8, 0.1], 20), np.repeat(np.arange(6), 10)
    assert len(units(values, groups, "groups", np.minimum)) == 6
    assert len(units(values, groups, "parts", np.minimum)) == 60
    assert [0.1] == sorted(set(units(values, groups, "groups", np.minimum)))
    bad = one_class([0.9] * 60, [0.1] * 60, [*groups, *(groups + 6)])
    assert not choose(bad, Wish(0.05), ((0.4, 0.4),)).escape.proven
    assert choose(bad, Wish(0.05, count="parts"), ((0.4, 0.4),)).escape.proven


@pytest.mark.parametrize(
    "wrong",
    [{"escape_rate": 0.0}, {"escape_rate": 1.0}, {"escape_rate": 5.0}, {"confidence": 0.4}, {"confidence": 1.0},
     {"overkill_rate": 0.0}, {"costs": (1.0, 0.0)}, {"costs": (math.inf, 1.0)}, {"review_rate": -0.1},
     {"overkill_rate": 0.1, "costs": (1.0, 1.0)}, {"defect_rate": 0.1}, {"escape_rate": math.nan}],
)  # fmt: skip
def test_nonsense_is_refused(wrong: dict) -> None:
    """Rates outside 0..1, costs of nothing, two wishes at once."""
    with pytest.raises(UsageError):
        Wish(**{"escape_rate": 0.05, **wrong})


@given(st.lists(SCORE, min_size=1, max_size=80), st.lists(SCORE, max_size=80), RATE, st.none() | RATE,
       st.none() | st.floats(0, 0.9))  # fmt: skip
def test_limits_are_always_such_that_a_recipe_takes_them(
    bad: list[float], good: list[float], rate: float, overkill: float | None, review: float | None
) -> None:
    """In range and in order, and a claim is never made against the counts."""
    choice = choose(one_class(bad, good), Wish(rate, overkill_rate=overkill, review_rate=review), ((0.4, 0.3),))
    ng, low = choice.limits[0]
    RuleSection(defect_class="any", ng_score=ng, review_score=low)
    if choice.escape.proven:
        assert low <= choice.escape.limit
        assert upper_bound(sum(score < low for score in bad), len(bad), 0.95) <= rate + 1e-9
    if choice.overkill_kept and overkill is not None:
        assert upper_bound(sum(score >= ng for score in good), len(good), 0.95) <= overkill + 1e-9


@given(st.floats(LEAST_SCORE, MOST_SCORE))
def test_limits_in_few_digits_are_never_above_the_proven_ones(score: float) -> None:
    """A limit is rounded down, never up past what was proven, and one that is short already stays as it is."""
    short = in_few_digits(score)
    assert LEAST_SCORE <= short <= score < short * 1.001
    assert short == in_few_digits(short) == float(f"{short:.4g}")


def test_chosen_limits_are_short_and_proven() -> None:
    """Four digits where that keeps both promises; an NG limit just above the good parts keeps all of its digits."""
    bad, good = [0.98765] * 60, [0.1] * 60
    assert (0.9876, 0.9876) == choose(one_class(bad, []), Wish(0.05), ((0.99, 0.99),)).limits[0]
    choice = choose(one_class([0.500012] * 60, [0.500004] * 60), Wish(0.05, overkill_rate=0.05), ((0.3, 0.3),))
    assert choice.overkill_kept
    assert 0.500004 < choice.limits[0][0] <= 0.500012
    assert choose(one_class(bad, good), Wish(0.05), ((0.4, 0.4),)).limits[0][0] == pytest.approx(0.75, abs=0.3)


@given(SCORE, SCORE)
def test_middle_separates_two_scores(one: float, other: float) -> None:
    """Above the lower, not above the higher, as far as the range of a recipe lets it."""
    low, high = sorted((one, other))
    at = middle(low, high)
    assert LEAST_SCORE <= at <= MOST_SCORE
    if low < high and low < MOST_SCORE and high > LEAST_SCORE:
        assert low < at or at == LEAST_SCORE
        assert at <= high


def logistic(rng: np.random.Generator, centre: list[float], count: int) -> NDArray[np.float64]:
    """Scores (count, classes) with normal log-odds."""
    return 1 / (1 + np.exp(-(rng.normal(0, 1.2, (count, len(centre))) + centre)))


def drawn_plant(rng: np.random.Generator, bad: int, good: int) -> Scores:
    """Parts of a plant with three defect classes, two of which are easy and one is hard; a defect may fire elsewhere."""
    which = rng.choice(3, bad, p=[0.5, 0.3, 0.2])
    scores = np.vstack([logistic(rng, [-3, -3.5, -4], bad), logistic(rng, [-3, -3.5, -4], good)])
    peaks = logistic(rng, [3, 1.5, 0], bad)[np.arange(bad), which]
    scores[np.arange(bad), which] = peaks
    defective = np.arange(bad + good) < bad
    present = np.zeros((bad + good, 3), bool)
    present[np.arange(bad), which] = True
    return Scores(scores, present, defective, np.arange(bad + good))


@pytest.mark.parametrize(
    ("bad", "good", "wish"),
    [
        (70, 60, Wish(0.05)),
        (70, 60, Wish(0.1, overkill_rate=0.1)),
        (150, 40, Wish(0.1, costs=(1.0, 50.0), defect_rate=0.05)),
        (120, 200, Wish(0.15, confidence=0.8, overkill_rate=0.05)),
        (120, 200, Wish(0.15, confidence=0.8, overkill_rate=0.2, review_rate=0.05)),
    ],
)
def test_promise_holds_in_as_many_plants_as_it_says(bad: int, good: int, wish: Wish) -> None:
    """Of 400 calibrations of one plant, the claimed rate is exceeded in no more than 1 - confidence (and chance)."""
    rng = np.random.default_rng(bad + good)
    truth = drawn_plant(rng, 20_000, 20_000)
    own = ((0.4, 0.4),) * 3
    wrong_escape, wrong_overkill, claims = 0, 0, 0
    draws = 400
    for _ in range(draws):
        choice = choose(drawn_plant(rng, bad, good), wish, own)
        if choice.escape.proven and all(choice.covered):
            claims += 1
            wrong_escape += passing(truth.scores[truth.defective], choice.limits).mean() > wish.escape_rate
        if choice.overkill_kept and wish.overkill_rate is not None:
            wrong_overkill += rejected(truth.scores[~truth.defective], choice.limits).mean() > wish.overkill_rate
    chance = 3 * math.sqrt(wish.confidence * (1 - wish.confidence) / draws)
    assert claims > 0.1 * draws
    assert wrong_escape / draws <= 1 - wish.confidence + chance
    assert wrong_overkill / draws <= 1 - wish.confidence + chance


def test_pictures_of_one_part_do_not_count_as_many() -> None:
    """Ten pictures of each part, all alike: by groups the claim holds as often as it says, by pictures it does not."""
    rng = np.random.default_rng(5)
    wrong = {"groups": 0, "parts": 0}
    for _ in range(300):
        peaks = np.repeat(rng.uniform(0, 1, 40), 10)
        parts = one_class(list(peaks), [0.01], [*np.repeat(np.arange(40), 10), 40])
        for count in wrong:
            choice = choose(parts, Wish(0.1, count=count, costs=(1.0, 1000.0)), ((0.9, 0.9),))  # type: ignore[arg-type]
            wrong[count] += choice.escape.proven and choice.escape.limit > 0.1
    assert wrong["groups"] <= 300 * 0.05 + 3 * math.sqrt(300 * 0.05 * 0.95)
    assert wrong["parts"] > 300 * 0.1
