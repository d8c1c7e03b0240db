"""Control charts and Nelson's tests, against published worked examples and a second, naive implementation.

The examples of the NIST/SEMATECH e-Handbook of Statistical Methods (public domain):
6.3.3.1 Counts Control Charts       www.itl.nist.gov/div898/handbook/pmc/section3/pmc331.htm
6.3.3.2 Proportions Control Charts  www.itl.nist.gov/div898/handbook/pmc/section3/pmc332.htm
6.3.2.2 Individuals Control Charts  www.itl.nist.gov/div898/handbook/pmc/section3/pmc322.htm
"""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspection.report.control_charts import (
    D2,
    ROUGH_RULES,
    ControlChart,
    Episode,
    Known,
    episodes,
    individuals_chart,
    moving_range_chart,
    p_chart,
    u_chart,
)
from inspection.report.nelson import ALL_RULES, CHANCE, RULES, Signal, chance, nelson

# NIST 6.3.3.1: defects on each of 25 successive wafers of 100 chips.
WAFER_DEFECTS = [16, 14, 28, 16, 12, 20, 10, 12, 10, 17, 19, 17, 14, 16, 15, 13, 14, 16, 11, 20, 11, 19, 16, 31, 13]
# NIST 6.3.3.2: chips out of register on each of 30 wafers of 50 chips.
BAD_CHIPS = [
    12, 15, 8, 10, 4, 7, 16, 9, 14, 10, 5, 6, 17, 12, 22, 8, 10, 5, 13, 11, 20, 18, 24, 15, 9, 12, 7, 13, 9, 6,
]  # fmt: skip
# NIST 6.3.2.2: flow rate of ten batches.
FLOW_RATE = [49.6, 47.6, 49.9, 51.3, 47.8, 51.2, 52.6, 52.4, 53.6, 52.1]
# Pyzdek and Keller, The Handbook for Quality Management, table 9.6: bruised peaches in crates of 250, one or two a shipment.
BRUISED = [
    47, 42, 55, 51, 46, 61, 39, 44, 41, 51, 88, 101, 101, 40, 48, 47, 50, 48, 57, 45, 43, 105, 98, 100, 96,
]  # fmt: skip
PEACHES = [500 if shipment in (11, 12, 13, 22, 23, 24, 25) else 250 for shipment in range(1, 26)]


def beyond(chart: ControlChart) -> list[int]:
    """The points outside the limits, counted from 1 as the books do."""
    return [signal.index + 1 for signal in chart.signals if signal.rule == 1]


def test_counts_chart_equals_nist_6_3_3_1() -> None:
    """NIST 6.3.3.1, wafer defects: centre 16, limits 4 and 28, and wafer 24 with 31 defects is out of control."""
    chart = u_chart(WAFER_DEFECTS, [1] * 25, spread="counting")
    assert (16, 4, 28) == (chart.centre, chart.lower[0], chart.upper[0])
    assert [24] == beyond(chart)


def test_proportions_chart_equals_nist_6_3_3_2() -> None:
    """NIST 6.3.3.2, chips on wafers: centre 0.2313, limits 0.0524 and 0.4102, and wafers 15 and 23 are out of control."""
    chart = p_chart(BAD_CHIPS, [50] * 30, spread="counting")
    assert ("0.2313", "0.0524", "0.4102") == tuple(
        f"{line:.4f}" for line in (chart.centre, chart.lower[0], chart.upper[0])
    )
    assert [15, 23] == beyond(chart)


def test_individuals_chart_equals_nist_6_3_2_2() -> None:
    """NIST 6.3.2.2, flow rate: centre 50.81, mean moving range 1.8778, limits 45.8159 and 55.8041, all in control."""
    chart = individuals_chart(FLOW_RATE, least=10)
    lines = (chart.centre, chart.sigma[0] * D2, chart.lower[0], chart.upper[0])
    assert ("50.8100", "1.8778", "45.8159", "55.8041") == tuple(f"{line:.4f}" for line in lines)
    assert () == chart.signals


def test_moving_range_chart_has_the_mean_range_of_nist_6_3_2_2() -> None:
    """The moving ranges of NIST 6.3.2.2 as printed, around their mean, with the limit D4 times as high."""
    chart = moving_range_chart(FLOW_RATE, least=10)
    assert [None, 2.0, 2.3, 1.4, 3.5, 3.4, 1.4, 0.2, 1.2, 1.5] == [
        point if point is None else round(point, 1) for point in chart.points
    ]
    assert (1.8778, 0.0) == (round(chart.centre, 4), chart.lower[1])
    assert math.isclose(3.267 * chart.centre, chart.upper[1])


def test_sizes_that_vary_give_each_point_its_own_limits() -> None:
    """Pyzdek's peaches: the shares as printed, and limits as much nearer as the square root of the crates says."""
    chart = p_chart(BRUISED, PEACHES, spread="counting")
    assert ["0.188", "0.244", "0.176", "0.160", "0.210"] == [f"{chart.points[at]:.3f}" for at in (0, 5, 10, 13, 21)]
    assert (1544, 8000, "0.193") == (sum(BRUISED), sum(PEACHES), f"{chart.centre:.3f}")
    assert math.isclose(math.sqrt(2), (chart.upper[0] - chart.centre) / (chart.upper[10] - chart.centre))
    assert [] == beyond(chart)


PLANTED = [
    (1, [0.5, -0.5, 3.1], 2, (2,)),
    (2, [-1.5, *[0.3, 0.9, 0.2, 1.2, 0.1, 0.4, 0.2, 0.6, 0.3]], 9, tuple(range(1, 10))),
    (3, [0.2, -0.9, -0.5, -0.1, 0.3, 0.7, 1.1], 6, tuple(range(1, 7))),
    (3, [0.2, 0.9, 0.5, 0.1, -0.3, -0.7, -1.1], 6, tuple(range(1, 7))),
    (4, [0.5, -0.5] * 7, 13, tuple(range(14))),
    (5, [0.1, 2.2, 0.3, 2.4], 3, (1, 3)),
    (5, [0.1, -2.2, -2.4], 2, (1, 2)),
    (6, [0.1, 1.2, 1.3, 0.2, 1.4, 1.1], 5, (1, 2, 4, 5)),
    (6, [0.1, -1.2, -1.3, -0.2, -1.4, -1.1], 5, (1, 2, 4, 5)),
    (7, [1.2, *[0.1, -0.3, 0.2, 0.4, -0.1] * 3], 15, tuple(range(1, 16))),
    (8, [0.1, *[1.1, -1.2, 1.3, 1.4, -1.1, 1.2, -1.5, 1.6]], 8, tuple(range(1, 9))),
]


@pytest.mark.parametrize(("rule", "points", "index", "of"), PLANTED)
def test_each_planted_pattern_is_found_at_the_point_that_completes_it(
    rule: int, points: list[float], index: int, of: tuple[int, ...]
) -> None:
    """Nelson 1984: each of the eight tests finds its pattern, once, and names the points that it rests on."""
    assert (Signal(rule, index, of),) == nelson(points, (rule,))


ALMOST = [
    (1, [3.0, -3.0]),
    (2, [0.3, 0.9, 0.2, 1.2, 0.1, 0.4, 0.2, 0.6]),
    (2, [0.3, 0.9, 0.2, 1.2, 0.0, 0.4, 0.2, 0.6, 0.3]),
    (3, [-0.9, -0.5, -0.1, 0.3, 0.7]),
    (3, [-0.9, -0.5, -0.1, -0.1, 0.3, 0.7]),
    (4, [0.5, -0.5] * 6 + [0.5]),
    (4, [0.5, -0.5] * 3 + [-0.5] + [0.5, -0.5] * 3 + [0.5]),
    (5, [2.2, 0.1, 0.2, 2.2]),
    (5, [2.2, -2.2, 0.1]),
    (5, [2.0, 2.0, 2.0]),
    (6, [1.2, 1.3, 0.2, 0.1, 1.4, 1.1]),
    (6, [1.2, 1.3, -1.2, -1.3, 1.2]),
    (7, [0.1, -0.3] * 7),
    (7, [0.1] * 14 + [1.0]),
    (8, [1.1, -1.2, 1.3, 1.4, -1.1, 1.2, -1.5]),
    (8, [1.1] * 8),
    (8, [1.1, -1.2, 1.3, 1.0, -1.1, 1.2, -1.5, 1.2]),
]


@pytest.mark.parametrize(("rule", "points"), ALMOST)
def test_almost_a_pattern_is_none(rule: int, points: list[float]) -> None:
    """One point less, a point on the line, or the other side: no signal."""
    assert () == nelson(points, (rule,))


def naive(z: list[float | None]) -> set[tuple[int, int]]:
    """(rule, index) by the sentences of the paper, window by window, with nothing in common with the product's code."""
    kept = [(place, value) for place, value in enumerate(z) if value is not None]
    found = set()
    for end in range(len(kept)):
        place = kept[end][0]
        before = [value for _, value in kept[: end + 1]]

        def last(count: int, before: list[float] = before) -> list[float]:
            return before[-count:] if len(before) >= count else []

        def ups(values: list[float]) -> list[bool | None]:
            return [None if b == a else b > a for a, b in zip(values, values[1:])]  # noqa: B905, RUF007

        nine, six, fourteen, fifteen, eight = last(9), last(6), last(14), last(15), last(8)
        steps = ups(fourteen)
        rules = {
            1: abs(before[-1]) > 3,
            2: bool(nine) and (min(nine) > 0 or max(nine) < 0),
            3: bool(six) and (set(ups(six)) in ({True}, {False})),
            4: bool(fourteen) and None not in steps and all(a != b for a, b in zip(steps, steps[1:])),  # noqa: B905, RUF007
            5: any(s * before[-1] > 2 and sum(s * v > 2 for v in before[-3:]) >= 2 for s in (1, -1)),
            6: any(s * before[-1] > 1 and sum(s * v > 1 for v in before[-5:]) >= 4 for s in (1, -1)),
            7: bool(fifteen) and all(-1 < v < 1 for v in fifteen),
            8: bool(eight) and all(v < -1 or v > 1 for v in eight) and min(eight) < 0 < max(eight),
        }
        found |= {(rule, place) for rule, met in rules.items() if met}
    return found


POINT = st.one_of(
    st.floats(-4, 4),
    st.sampled_from([-3.0, -2.5, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]),
    st.none(),
)


@given(st.lists(POINT, max_size=60))
@settings(max_examples=300, deadline=None)
def test_the_tests_agree_with_a_naive_second_implementation(points: list[float | None]) -> None:
    """Any points, also on the lines and with holes: the same signals as by reading the paper's sentences window by window."""
    signals = nelson(points)
    assert naive(points) == {(signal.rule, signal.index) for signal in signals}
    assert all(signal.of[-1] == signal.index for signal in signals)
    assert all(points[place] is not None for signal in signals for place in signal.of)
    needed = {rule.number: rule.needed for rule in RULES}
    assert all(len(signal.of) >= needed[signal.rule] for signal in signals)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.4, 1.0, 1.6]))
@settings(max_examples=60, deadline=None)
def test_the_tests_agree_on_long_series(seed: int, scale: float) -> None:
    """Normal points, calm and wild ones, where the long windows of tests 2, 4, 7 and 8 are met."""
    points = list(np.random.default_rng(seed).normal(scale=scale, size=400))
    assert naive(points) == {(signal.rule, signal.index) for signal in nelson(points)}


def test_the_share_of_false_alarms_is_the_stated_one() -> None:
    """While nothing is wrong the eight tests mark the share of points that is stated, test 1 alone 0.27 %."""
    points = list(np.random.default_rng(7).normal(size=200_000))
    signals = nelson(points)
    assert abs(len({signal.index for signal in signals}) / len(points) - CHANCE) < 0.002
    assert abs(sum(signal.rule == 1 for signal in signals) / len(points) - 0.0027) < 0.0005
    assert (chance(ALL_RULES), chance((1, 3))) == (CHANCE, None)
    for rules in ((1,), ROUGH_RULES):
        found = {signal.index for signal in signals if signal.rule in rules}
        assert abs(len(found) / len(points) - (chance(rules) or 0)) < 0.0015


def test_a_declared_baseline_judges_the_points_after_it() -> None:
    """Limits come from the declared stretch alone, so that a bad hour after it cannot widen them."""
    calm = [10, 12, 9, 11, 8, 10, 13, 9, 10, 11] * 2
    chart = p_chart([*calm, 40], [1000] * 21, baseline=slice(0, 20))
    assert ((0, 20), True, sum(calm) / 20_000) == (chart.baseline, chart.declared, chart.centre)
    assert [21] == beyond(chart)
    whole = p_chart([*calm, 40], [1000] * 21)
    assert ((0, 21), False) == (whole.baseline, whole.declared)


def test_known_limits_need_no_baseline() -> None:
    """Centre and sigma known from before judge even a single point."""
    chart = p_chart([50], [1000], baseline=Known(0.01))
    assert ([1], 0.01, (0, 0), True) == (beyond(chart), chart.centre, chart.baseline, chart.declared)
    assert [2] == beyond(individuals_chart([5.0, 9.1], baseline=Known(5.0, 1.0)))
    assert "chart_known_impossible" == p_chart([50], [1000], baseline=Known(0.0)).why_not
    assert "chart_known_impossible" == individuals_chart([5.0], baseline=Known(5.0, 0.0)).why_not


NO_LIMITS = [
    (p_chart([], []), "chart_baseline_short", (("points", 0), ("needed", 20))),
    (p_chart([1], [10]), "chart_baseline_short", (("points", 1), ("needed", 20))),
    (p_chart([0] * 30, [0] * 30), "chart_baseline_short", (("points", 0), ("needed", 20))),
    (p_chart([0] * 30, [10] * 30), "chart_baseline_all_good", (("parts", 300),)),
    (p_chart([10] * 30, [10] * 30), "chart_baseline_all_defective", (("parts", 300),)),
    (u_chart([0] * 30, [10] * 30), "chart_baseline_all_good", (("parts", 300),)),
    (p_chart([3] * 30, [10] * 30, baseline=slice(25, 90)), "chart_baseline_short", (("points", 5), ("needed", 20))),
    (individuals_chart([5.0] * 30), "chart_baseline_constant", (("points", 30),)),
    (individuals_chart([None] * 30), "chart_baseline_short", (("points", 0), ("needed", 20))),
    (moving_range_chart([5.0] * 30), "chart_baseline_constant", (("points", 30),)),
]


@pytest.mark.parametrize(("chart", "word", "values"), NO_LIMITS)
def test_a_baseline_that_cannot_carry_limits_gives_none(chart: ControlChart, word: str, values: object) -> None:
    """Too short, all good, all defective, constant: the reason stands there instead of limits, and nothing is signalled."""
    assert (word, values) == (chart.why_not, chart.values)
    assert (None, (), (), (), ()) == (chart.centre, chart.lower, chart.upper, chart.sigma, chart.signals)


def test_hours_without_parts_are_no_points() -> None:
    """An empty hour has no point and no limits, and does not end a run."""
    found, size = [3, 0, 2, 4] * 6, [100, 0, 120, 90] * 6
    chart = p_chart(found, size, least=18)
    assert [None] * 6 == [*chart.points[1::4]]
    assert all(line[place] is None for line in (chart.lower, chart.upper, chart.sigma) for place in range(1, 24, 4))
    assert (Signal(3, 7, (0, 2, 3, 4, 6, 7)),) == nelson([0.1, None, 0.2, 0.3, 0.4, None, 0.5, 0.6], (3,))


def test_laney_widens_the_limits_by_the_spread_that_the_points_have() -> None:
    """p' of Laney 2002: sigma_z = mean moving range of z by 1.128; where lots differ the textbook chart is all alarms."""
    rng = np.random.default_rng(3)
    size = np.full(200, 20_000)
    found = rng.binomial(size, np.clip(rng.normal(0.03, 0.004, 200), 0.001, 1))
    laney, textbook = p_chart(found, size), p_chart(found, size, spread="counting")
    z = (np.array(textbook.points, float) - textbook.centre) / np.array(textbook.sigma, float)
    assert math.isclose(np.abs(np.diff(z)).mean() / 1.128, laney.sigma_z)
    assert math.isclose(laney.sigma_z, laney.sigma[0] / textbook.sigma[0])
    assert (laney.sigma_z, "laney", "counting") == (textbook.sigma_z, laney.spread, textbook.spread)
    assert len(beyond(textbook)) > 50 > 3 >= len(beyond(laney))


def test_laney_limits_are_never_narrower_than_counting_allows() -> None:
    """Few defectives make most moving ranges 0 and sigma_z small; it is reported, and the limits stay the binomial ones."""
    found = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0] * 5
    chart = p_chart(found, [100] * 50)
    assert chart.sigma_z < 1
    assert p_chart(found, [100] * 50, spread="counting").upper == chart.upper


def test_few_expected_defectives_are_said_and_take_tests_5_to_8_away() -> None:
    """Below five expected defectives a point is rough: the chart counts such points and makes tests 1 to 4 alone."""
    rough, fine = p_chart([1, 2, 0, 3] * 10, [100] * 40), p_chart([10, 12, 8, 13] * 10, [1000] * 40)
    assert (40, (1, 2, 3, 4)) == (rough.rough, rough.rules)
    assert (0, ALL_RULES) == (fine.rough, fine.rules)


def test_limits_stay_where_values_can_be() -> None:
    """A share never has a limit below 0 or above 1."""
    low, high = p_chart([1, 0] * 10, [10] * 20), p_chart([9, 10] * 10, [10] * 20)
    assert (0.0, 1.0) == (low.lower[0], high.upper[0])


@pytest.mark.parametrize(
    ("found", "size"), [([1], [0]), ([-1], [3]), ([4], [3]), ([1, 2], [3]), ([1], [math.inf]), ([math.nan], [3])]
)
def test_impossible_counts_are_refused(found: list[float], size: list[float]) -> None:
    """Counts that cannot be are a mistake of the program and never become a chart."""
    with pytest.raises(ValueError):
        p_chart(found, size)


def test_neighbouring_signals_become_one_episode() -> None:
    """A shift that lasts is one row of the table, with all tests that met it; holes do not cut it in two."""
    chart = individuals_chart([0.0, 1.0, 1.2, 0.1] * 6 + [9.0, None, 9.5, 9.2] + [0.5, 0.6], baseline=slice(0, 24))
    shift = episodes(chart)[0]
    assert (24, 27) == (shift.first, shift.last)
    assert {1, 5} <= set(shift.rules)
    assert () == episodes(replace(chart, signals=()))
    apart = replace(chart, signals=(Signal(1, 3, (3,)), Signal(1, 5, (5,))))
    assert (Episode(3, 3, (1,)), Episode(5, 5, (1,))) == episodes(apart)
