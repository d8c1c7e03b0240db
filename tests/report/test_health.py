"""Camera health: a dirty lens is not reported as a bad lot, and a bad lot is not excused by a steady camera."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from inspection.report.control_charts import ControlChart, p_chart
from inspection.report.health import (
    QUANTITIES,
    Changed,
    Rise,
    changed,
    health_chart,
    judge_cameras,
    raised,
    rises,
    trend_per_day,
)
from inspection.types import Verdict
from tools.month_parts import MEASURED, OF_DIRT, SPREAD, USUAL
from tools.month_plan import Wanted, make_plan
from tools.month_plan import dirt as dirt_of

HOURS = 24 * 14
DIRT = slice(24 * 6, 24 * 9)  # the lens gets dirty over three days, then it is wiped
LOT = slice(24 * 11, 24 * 11 + 8)  # eight hours of a bad lot
PARTS = 1000


def dirt() -> np.ndarray:
    """0 for a clean lens to 1, by the hour."""
    share = np.zeros(HOURS)
    share[DIRT] = np.linspace(0, 1, 72)
    return share


def sharpness(*, dirty: bool, seed: int = 1) -> list[float | None]:
    """Hourly medians around 212 grey levels, down to 117 on a dirty lens."""
    values = np.random.default_rng(seed).normal(212, 1.0, HOURS) - 95 * (dirt() if dirty else 0)
    return [float(value) for value in values]


def not_ok(*, dirty: bool = False, bad_lot: bool = False, seed: int = 2) -> ControlChart:
    """The chart of parts that are not OK, 3 % of a thousand an hour and more where something is planted."""
    share = 0.03 * (1 + 2 * dirt() * dirty)
    share[LOT] *= 3 if bad_lot else 1
    rng = np.random.default_rng(seed)
    return p_chart([int(count) for count in rng.binomial(PARTS, share)], [PARTS] * HOURS, baseline=slice(0, 24 * 5))


def charts(values: list[float | None], quantity: str = "sharpness") -> dict[tuple[str, str], ControlChart]:
    """Of one camera, with the first five days as the baseline."""
    return {("top", quantity): health_chart(values, baseline=slice(0, 24 * 5))}


def test_a_lens_that_gets_dirty_is_not_a_bad_lot() -> None:
    """Sharpness falls over three days while NG and ERROR rise: the rise is put down to the camera, and the hours are named."""
    changes, found = judge_cameras(charts(sharpness(dirty=True)), not_ok(dirty=True))
    assert [("top", "sharpness")] == [(change.camera, change.quantity) for change in changes]
    assert {"camera"} == {rise.cause for rise in found}
    hours = [hour for rise in found for hour in rise.hours]
    assert len(hours) > 36
    assert DIRT.start <= min(hours) <= max(hours) < DIRT.stop + 4
    assert {("top", "sharpness")} == {name for rise in found for name in rise.because if rise.cause == "camera"}


def test_a_bad_lot_under_a_steady_camera_is_the_parts() -> None:
    """NG rise for one lot while the optics stay as they were: it is put down to the parts, nothing is suspect."""
    changes, found = judge_cameras(charts(sharpness(dirty=False)), not_ok(bad_lot=True))
    assert () == changes
    assert [("parts", ())] == [(rise.cause, rise.because) for rise in found]
    assert set(range(LOT.start, LOT.stop)) <= set(found[0].hours) <= set(range(LOT.start - 4, LOT.stop + 4))


def test_both_in_one_span_are_told_apart() -> None:
    """A dirty lens in one week and a bad lot in the next: each rise has its own cause."""
    _, found = judge_cameras(charts(sharpness(dirty=True)), not_ok(dirty=True, bad_lot=True))
    causes = {rise.cause: rise.hours for rise in sorted(found, key=lambda rise: len(rise.hours))}
    assert max(causes["camera"]) < LOT.start
    assert set(range(LOT.start, LOT.stop)) <= set(causes["parts"])


def test_a_camera_that_changed_without_harm_is_told_before_it_does_harm() -> None:
    """Sharpness falls and the parts stay good: the change is reported, and no rise is."""
    changes, found = judge_cameras(charts(sharpness(dirty=True)), not_ok())
    assert [(-95 - 5 < changes[0].most < -95 + 5)] == [True]
    assert () == found


@pytest.mark.parametrize(("to", "found"), [(178.0, True), (152.0, True), (167.0, False)])
def test_light_is_off_on_either_side(to: float, found: bool) -> None:
    """Brightness counts upwards and downwards from 5 %; a smaller step is significant and still does not matter."""
    values = list(np.random.default_rng(3).normal(165, 0.3, HOURS))
    values[200:240] = [to + value - 165 for value in values[200:240]]
    chart = charts(values, "brightness")["top", "brightness"]
    assert any(signal.index in range(200, 240) for signal in chart.signals)
    change = changed("top", "brightness", chart)
    assert found == (change is not None and set(range(200, 240)) == set(change.hours))


def test_a_sharper_camera_is_no_fault() -> None:
    """Sharpness that rises (somebody set the focus) is no change for the worse."""
    values = sharpness(dirty=False)
    values[200:] = [value + 60 for value in values[200:]]
    assert None is changed("top", "sharpness", charts(values)["top", "sharpness"])


def test_fit_never_excuses_a_lot() -> None:
    """How well a part fits the golden depends on the part, so a fall of it leaves the parts suspect."""
    values = list(np.random.default_rng(4).normal(0.99, 0.001, HOURS))
    values[LOT] = [value - 0.1 for value in values[LOT]]
    both = charts(values, "fit") | charts(sharpness(dirty=False))
    changes, found = judge_cameras(both, not_ok(bad_lot=True))
    assert ["fit"] == [change.quantity for change in changes]
    assert "parts" == max(found, key=lambda rise: len(rise.hours)).cause


def test_hours_that_were_not_measured_excuse_nobody() -> None:
    """Records from before frames were measured: the rise is there, and its cause is not claimed."""
    values = sharpness(dirty=False)
    values[LOT] = [None] * 8
    _, found = judge_cameras(charts(values), not_ok(bad_lot=True))
    assert ["unmeasured"] == [rise.cause for rise in found]
    _, nothing = judge_cameras({}, not_ok(bad_lot=True))
    assert {"unmeasured"} == {rise.cause for rise in nothing}


CAUSES = [
    ([], "parts", ()),
    ([1], "unclear", (("top", "sharpness"),)),
    ([1, 2], "camera", (("top", "sharpness"),)),
]


@pytest.mark.parametrize(("off", "cause", "because"), CAUSES)
def test_half_of_the_hours_decide(off: list[int], cause: str, because: object) -> None:
    """A rise of four hours: the camera from two hours on, the parts with none, unclear in between."""
    changes = [Changed("top", "sharpness", tuple(off), -50.0)] if off else []
    assert (Rise((1, 2, 3, 4), cause, because),) == rises([1, 2, 3, 4], range(10), changes)


def test_neighbouring_hours_are_one_rise() -> None:
    """A pause of three hours does not cut a rise in two, one of five does; no raised hour, no rise."""
    assert [(1, 5), (10,)] == [rise.hours for rise in rises([1, 5, 10], range(20), [])]
    assert () == rises([], range(20), [])


def test_charts_of_other_hours_are_refused() -> None:
    """Series that do not share their hours are a mistake of the program."""
    with pytest.raises(ValueError):
        judge_cameras({("top", "sharpness"): health_chart([1.0])}, not_ok())


def test_no_limits_no_change() -> None:
    """Too few hours, or a quantity nobody knows, change nothing; a chart without limits is raised nowhere."""
    assert None is changed("top", "sharpness", health_chart([200.0, 10.0]))
    assert None is changed("top", "mood", charts(sharpness(dirty=True))["top", "sharpness"])
    assert () == raised(p_chart([0] * 30, [10] * 30))
    assert {"sharpness", "brightness", "contrast", "fit", "coverage"} < set(QUANTITIES)


def test_the_trend_is_the_planted_one() -> None:
    """2 grey levels a day are found with an interval around them, outliers and holes notwithstanding."""
    begin = datetime(2026, 11, 1, tzinfo=UTC)
    hours = [begin + timedelta(hours=at) for at in range(HOURS)]
    rng = np.random.default_rng(5)
    values: list[float | None] = [200 - 2 * at / 24 + float(rng.normal(0, 1)) for at in range(HOURS)]
    values[50:60] = [None] * 10
    values[100] = 10.0
    claim = trend_per_day(hours, values)
    assert -2.1 < claim.low < -2.0 < claim.high < -1.9
    assert abs(claim.value + 2) < 0.05
    assert HOURS - 10 == claim.of


def test_a_long_trend_stays_quick_and_right() -> None:
    """Three years of hours are taken together first; a steady quantity has a slope around 0."""
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    count = 24 * 365 * 3
    noise = np.random.default_rng(6).normal(100, 1, count)
    claim = trend_per_day([begin + timedelta(hours=at) for at in range(count)], list(noise))
    assert claim.low < 0 < claim.high
    assert abs(claim.value) < 0.001


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_hours_have_no_trend(count: int) -> None:
    """Less than three hours carry no trend."""
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    hours = [begin + timedelta(hours=at) for at in range(count)]
    assert (None, "trend_too_short") == (
        trend_per_day(hours, [1.0] * count).value,
        trend_per_day(hours, [1.0] * count).why_not,
    )


def test_chance_is_no_rise() -> None:
    """Forty fortnights in which nothing was wrong: hardly one has a rise, though the eight tests signal in all of them."""
    quiet = [not_ok(seed=seed) for seed in range(40)]
    assert all(chart.signals for chart in quiet)
    assert sum(bool(raised(chart)) for chart in quiet) <= 1


@pytest.mark.parametrize(("parts", "ng"), [(1_000_000, 30_000), (200_000, 6_000)])
def test_the_planted_events_of_the_generated_month_are_found_and_nothing_else(parts: int, ng: int) -> None:
    """`tools.month`: the dirty lens is a camera, the drift of a class is the parts, and no other hour of the month is raised."""
    plan = make_plan(Wanted(parts, ng, reviews=0))
    hours = 30 * 24
    size = np.bincount(plan.hour, minlength=hours)
    bad = np.bincount(plan.hour[plan.verdict != Verdict.OK], minlength=hours)
    measured = np.random.default_rng(1).normal(USUAL, SPREAD, (parts, len(USUAL)))
    measured += dirt_of(plan.planted, plan.hour)[:, None] * np.array(OF_DIRT)
    medians = [np.median(rows, axis=0) for rows in np.split(measured, np.cumsum(size)[:-1])]
    series = {("top", name): health_chart([float(row[at]) for row in medians]) for at, name in enumerate(MEASURED)}
    changes, found = judge_cameras(series, p_chart(bad.tolist(), size.tolist()))
    assert {"sharpness", "brightness", "contrast"} == {change.quantity for change in changes}
    dirty, drift = (range(*hours) for hours in (plan.planted.dirty_hours, plan.planted.drift_hours))
    assert {"camera", "parts"} == {rise.cause for rise in found}
    by_cause = {
        cause: {hour for rise in found if rise.cause == cause for hour in rise.hours} for cause in ("camera", "parts")
    }
    assert len(by_cause["camera"] & set(dirty)) > len(dirty) / 4
    assert by_cause["camera"] <= set(range(dirty.start, dirty.stop + 4))
    assert set(drift) <= by_cause["parts"] <= set(range(drift.start - 4, drift.stop + 4))
