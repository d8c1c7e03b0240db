"""Camera health by the hour: did the camera change, or the parts?  Pure functions over hourly medians.

Each measured quantity of a camera gets an individuals chart of its hourly medians against the declared baseline.  A
camera counts as changed in an hour when both hold:
* tests 1, 2, 5 or 6 of Nelson signal the hour, on the side on which the quantity gets worse;
* it is off the centre by what matters (``QUANTITIES``), for a thousand frames an hour make harmless changes significant.

A rise is a stretch of hours in which the share of parts that are not OK is signalled above its centre (the same tests), and
which as a whole lies five of its sigmas above it: in a month of hours single signals come by chance.  It is put down to
* ``camera``   when a camera had changed in at least half of its hours: a dirty lens, lost focus, light or fixture is to be
               looked at before a lot is called bad;
* ``parts``    when no camera had changed in any of them;
* ``unclear``  in between;
* ``unmeasured`` when fewer than half of the hours have measured frames (records of before they were kept).

What it cannot tell: parts that really look different (another solder mask) change brightness and contrast as light does;
sharpness depends least on the part, and fit and coverage depend on it so much that they are charted and never excuse a
lot.  A camera that was already bad in the baseline looks steady.  Two causes at once are put down to the camera.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Literal

import numpy as np

from inspection.report.contents import Claim, HealthChart
from inspection.report.control_charts import Baseline, ControlChart, individuals_chart

Cause = Literal["camera", "parts", "unclear", "unmeasured"]
SHIFTED = (1, 2, 5, 6)  # the tests that find another level, rather than a pattern
TOGETHER = 4  # hours; what lies no farther apart is one rise
RISE_SIGMAS = 5.0
MOST_TREND_POINTS = 500  # Theil and Sen look at every pair


@dataclass(frozen=True, slots=True)
class Quantity:
    """What is measured of frames: its unit, on which side it gets worse (-1, 1, or 0 for both), and what change matters.

    ``relative``: ``least`` is a share of the centre, else it is in the unit.  ``optical``: it speaks of the camera.
    """

    unit: str
    worse: int
    least: float
    relative: bool = False
    optical: bool = True


QUANTITIES = {
    "sharpness": Quantity("grey", -1, 0.1, relative=True),
    "contrast": Quantity("grey", -1, 0.1, relative=True),
    "brightness": Quantity("grey", 0, 0.05, relative=True),
    "shift_x_px": Quantity("px", 0, 2.0),
    "shift_y_px": Quantity("px", 0, 2.0),
    "turn_deg": Quantity("deg", 0, 0.2),
    "scale": Quantity("", 0, 0.003),
    "fit": Quantity("", -1, 0.03, optical=False),
    "coverage": Quantity("", -1, 0.02, optical=False),
}


@dataclass(frozen=True, slots=True)
class Changed:
    """One quantity of one camera was off in these hours (indices), at the worst by ``most`` in its unit, with its sign."""

    camera: str
    quantity: str
    hours: tuple[int, ...]
    most: float


@dataclass(frozen=True, slots=True)
class Rise:
    """Hours (indices, first to last) with too many parts that are not OK, and what they are put down to.

    ``because``: (camera, quantity) that had changed, the one with most hours first.  ``hours`` are the raised ones.
    """

    hours: tuple[int, ...]
    cause: Cause
    because: tuple[tuple[str, str], ...] = ()


def health_chart(values: Sequence[float | None], *, baseline: Baseline = None) -> ControlChart:
    """Hourly medians of one quantity; None where an hour has no measured frame."""
    return individuals_chart(values, baseline=baseline)


def trend_per_day(hours: Sequence[datetime], values: Sequence[float | None]) -> Claim:
    """How much a quantity changes in a day: the median of all slopes, with its 95 % interval (Theil 1950, Sen 1968).

    Long series are taken together to medians of neighbouring hours first.  Hours that resemble their neighbours make the
    interval narrower than it should be.
    """
    from scipy.stats import theilslopes

    pairs = [(hour.timestamp() / 86_400, value) for hour, value in zip(hours, values, strict=True) if value is not None]
    if len(pairs) < 3 or pairs[0][0] == pairs[-1][0]:
        return Claim(None, of=len(pairs), why_not="trend_too_short", values=(("hours", len(pairs)),))
    points = np.array(sorted(pairs), np.float64)  # (N, 2): day, value
    parts = np.array_split(points, min(len(points), MOST_TREND_POINTS))
    day, value = np.array([np.median(part, axis=0) for part in parts]).T
    slope = theilslopes(value, day, alpha=0.95)
    return Claim(float(slope[0]), float(slope[2]), float(slope[3]), len(pairs), text_key="trend_per_day")


def raised(chart: ControlChart) -> tuple[int, ...]:
    """The points (hours) of a chart of defective parts that belong to a rise."""
    kept = [stretch for stretch in stretches(_signalled(chart, side=1)) if _together(chart, stretch) >= RISE_SIGMAS]
    return tuple(hour for stretch in kept for hour in stretch)


def changed(camera: str, quantity: str, chart: ControlChart) -> Changed | None:
    """In which hours a quantity was off by what matters; None when in none, or when it has no limits."""
    kind = QUANTITIES.get(quantity)
    if kind is None or chart.centre is None:
        return None
    least = kind.least * (abs(chart.centre) if kind.relative else 1.0)
    off = {hour: _value(chart, hour) - chart.centre for hour in _signalled(chart, side=kind.worse)}
    hours = tuple(hour for hour, by in off.items() if abs(by) >= least)
    return Changed(camera, quantity, hours, max((off[hour] for hour in hours), key=abs)) if hours else None


def rises(
    raised_hours: Collection[int], measured_hours: Collection[int], changes: Sequence[Changed]
) -> tuple[Rise, ...]:
    """Every rise with its cause; all hours are indices of one axis, ``measured_hours`` those with a camera's median."""
    optical = [change for change in changes if QUANTITIES[change.quantity].optical]
    off = {hour for change in optical for hour in change.hours}
    measured = set(measured_hours)
    found = []
    for stretch in stretches(sorted(raised_hours)):
        cause = _cause(stretch, measured, off)
        shared = [(len(set(change.hours) & set(stretch)), change) for change in optical]
        shared.sort(key=lambda pair: -pair[0])
        because = tuple((change.camera, change.quantity) for count, change in shared if count)
        found.append(Rise(tuple(stretch), cause, because))
    return tuple(found)


def measured_hours(charts: Mapping[tuple[str, str], ControlChart]) -> frozenset[int]:
    """Hours in which any optical quantity that has limits was measured; charts by (camera, quantity)."""
    return frozenset(
        hour
        for (_, quantity), chart in charts.items()
        if quantity in QUANTITIES and QUANTITIES[quantity].optical and chart.centre is not None
        for hour, point in enumerate(chart.points)
        if point is not None
    )


def unjudged(charts: Sequence[HealthChart]) -> tuple[HealthChart, ...]:
    """Charts of optical quantities without limits: of these nobody can say whether the camera changed."""
    return tuple(
        one
        for one in charts
        if one.quantity in QUANTITIES
        and QUANTITIES[one.quantity].optical
        and (one.chart is None or one.chart.centre is None)
    )


def judge_cameras(
    charts: Mapping[tuple[str, str], ControlChart], defective: ControlChart
) -> tuple[tuple[Changed, ...], tuple[Rise, ...]]:
    """All of it at once: charts by (camera, quantity), and that of parts not OK, over the same hours."""
    lengths = {len(chart.points) for chart in (*charts.values(), defective)}
    if len(lengths) > 1:
        raise ValueError(f"the charts are not over the same hours: {sorted(lengths)} points")
    changes = tuple(
        change
        for (camera, quantity), chart in charts.items()
        if (change := changed(camera, quantity, chart)) is not None
    )
    return changes, rises(raised(defective), measured_hours(charts), changes)


def _cause(stretch: Sequence[int], measured: set[int], off: set[int]) -> Cause:
    if 2 * len(measured & set(stretch)) < len(stretch):
        return "unmeasured"
    shared = len(off & set(stretch))
    if 2 * shared >= len(stretch):
        return "camera"
    return "unclear" if shared else "parts"


def _signalled(chart: ControlChart, *, side: int) -> tuple[int, ...]:
    """Points of level signals on one side of the centre (0: either)."""
    if chart.centre is None:
        return ()
    hours = {hour for signal in chart.signals if signal.rule in SHIFTED for hour in signal.of}
    return tuple(hour for hour in sorted(hours) if side == 0 or (_value(chart, hour) - chart.centre) * side > 0)


def _together(chart: ControlChart, stretch: Sequence[int]) -> float:
    """How many sigmas these hours as one lie above the centre."""
    above = [(_value(chart, hour) - (chart.centre or 0.0)) / (chart.sigma[hour] or float("nan")) for hour in stretch]
    return sum(above) / math.sqrt(len(above))


def _value(chart: ControlChart, hour: int) -> float:
    point = chart.points[hour]
    return float("nan") if point is None else point  # a signal rests on points that exist


def stretches(hours: Sequence[int], *, apart: int = TOGETHER) -> list[list[int]]:
    """Hours in order, cut where two are farther apart than that."""
    if not hours:
        return []
    cuts = [place + 1 for place, (before, after) in enumerate(pairwise(hours)) if after - before > apart]
    return [list(hours[first:end]) for first, end in pairwise((0, *cuts, len(hours)))]
