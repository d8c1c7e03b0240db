"""Shewhart control charts: p and u for counts, individuals and moving range for measured values.  Pure.

Limits lie three sigma on either side of the centre of a declared baseline: a stretch of the points themselves, or limits
known from before.  Without one they rest on all points of the chart, which then are judged by themselves; ``declared``
tells the two apart.  A baseline that cannot carry limits (too short, all 0, all defective, without spread) gives none, and
``why_not`` says so: the points are there, and nothing is claimed of them.

Many parts.  The binomial (Poisson) sigma of an hour of a thousand parts is so small that ordinary differences from lot to
lot put every second point outside.  Laney's p' and u' charts (David B. Laney, "Improved Control Charts for Attributes",
Quality Engineering 14(4), 2002, pages 531-537) widen the limits by ``sigma_z``, the spread that the standardised points of
the baseline really have, from their mean moving range.  That is the default here, with one difference: the limits are never
made narrower than the counting alone allows, because with few defectives most moving ranges are 0 and sigma_z comes out too
small.  ``sigma_z`` is reported as it was estimated: near 1 the two charts are the same, and a sigma_z of 3 says that what
the parts share within an hour matters three times as much as chance.  spread="counting" gives the textbook chart.

Formulas as in the NIST/SEMATECH e-Handbook of Statistical Methods, sections 6.3.3.1, 6.3.3.2 and 6.3.2.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from inspection.report.contents import Values
from inspection.report.nelson import ALL_RULES, Floats, Signal, nelson

Kind = Literal["p", "u", "individuals", "moving_range"]
Spread = Literal["laney", "counting"]
Points = tuple[float | None, ...]
LEAST_POINTS = 20  # a baseline rests on; the sigma of fewer moving ranges is off by more than a sixth
LEAST_EXPECTED = 5.0  # defectives at a point; below it a normal distribution is a rough picture of them
ROUGH_RULES = (
    1,
    2,
    3,
    4,
)  # Nelson keeps tests 5 to 8, which count on the zones of a normal distribution, from such points
D2 = 1.128  # mean range of two normal values in sigmas, and the factor of its upper limit, as NIST prints them
D4 = 3.267


@dataclass(frozen=True, slots=True)
class Known:
    """Limits known from before: the centre, and sigma: of a value, or for counts the ``sigma_z`` (1: counting alone)."""

    centre: float
    sigma: float = 1.0


Baseline = slice | Known | None


@dataclass(frozen=True, slots=True)
class ControlChart:
    """Points with limits, in the unit of the points; None where there is no point (an hour without parts).

    ``centre`` is one line; ``lower``, ``upper`` and ``sigma`` go with each point and are empty when there are no limits,
    as ``signals`` is.  ``baseline``: first index and end of the points that the limits rest on, (0, 0) when they were
    known; ``declared``: whether somebody chose it.  ``sigma_z``: Laney's ratio as estimated, None where it does not apply;
    ``spread``: which limits these are.  ``rules``: the tests that were made.  ``rough``: points where fewer than 5
    defectives (or good parts) are expected, so that limits of a normal distribution are rough there.  ``why_not`` is a
    word of ``texts/*.toml`` filled by ``values``, empty when there are limits.
    """

    kind: Kind
    points: Points
    centre: float | None = None
    lower: Points = ()
    upper: Points = ()
    sigma: Points = ()
    signals: tuple[Signal, ...] = ()
    baseline: tuple[int, int] = (0, 0)
    declared: bool = False
    spread: Spread = "counting"
    sigma_z: float | None = None
    rules: tuple[int, ...] = ()
    rough: int = 0
    why_not: str = ""
    values: Values = ()


@dataclass(frozen=True, slots=True)
class Episode:
    """Signals at points that follow one another: from ``first`` to ``last`` index, by which rules."""

    first: int
    last: int
    rules: tuple[int, ...]


def p_chart(
    defective: Sequence[int],
    inspected: Sequence[int],
    *,
    baseline: Baseline = None,
    spread: Spread = "laney",
    least: int = LEAST_POINTS,
) -> ControlChart:
    """Share of defective parts of each sample; samples of 0 parts are no points.  ``least`` points make a baseline."""
    found, size = _columns(defective, inspected)
    if (found > size).any():
        raise ValueError("more defective parts than were inspected")
    return _attribute("p", (found, size), baseline, spread, least)


def u_chart(
    defects: Sequence[int],
    units: Sequence[float],
    *,
    baseline: Baseline = None,
    spread: Spread = "laney",
    least: int = LEAST_POINTS,
) -> ControlChart:
    """Defects per unit (a part, a board, a square metre) of each sample; with one unit each it is the c chart."""
    return _attribute("u", _columns(defects, units), baseline, spread, least)


def individuals_chart(
    values: Sequence[float | None], *, baseline: Baseline = None, least: int = LEAST_POINTS
) -> ControlChart:
    """Single values, sigma from the mean moving range of the baseline."""
    points = tuple(values)
    blank = _blank("individuals", points, baseline)
    known = _measured_limits(points, baseline, least)
    if isinstance(known, _Absent):
        return replace(blank, why_not=known.word, values=known.values)
    return _measured(blank, known, lower=known.centre - 3 * known.sigma, rules=ALL_RULES)


def moving_range_chart(
    values: Sequence[float | None], *, baseline: Baseline = None, least: int = LEAST_POINTS
) -> ControlChart:
    """How much each value differs from the one before it; only test 1, for neighbouring ranges share a value.

    A known baseline gives the sigma of the values, as for the individuals chart.
    """
    blank = _blank("moving_range", _moving_ranges(values), baseline)
    known = _measured_limits(tuple(values), baseline, least)
    if isinstance(known, _Absent):
        return replace(blank, why_not=known.word, values=known.values)
    centre = known.sigma * D2
    return _measured(blank, Known(centre, (D4 - 1) * centre / 3), lower=0.0, rules=(1,))


def episodes(chart: ControlChart) -> tuple[Episode, ...]:
    """The signals put together where they stand at neighbouring points, for a table that people can read."""
    at: dict[int, set[int]] = {}
    for signal in chart.signals:
        at.setdefault(signal.index, set()).add(signal.rule)
    real = [index for index, point in enumerate(chart.points) if point is not None]
    found: list[Episode] = []
    before = None
    for index in real:
        rules = at.get(index)
        if rules and before in at and found:
            found[-1] = Episode(found[-1].first, index, tuple(sorted({*found[-1].rules, *rules})))
        elif rules:
            found.append(Episode(index, index, tuple(sorted(rules))))
        before = index
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Absent:
    """Why a baseline gives no limits."""

    word: str
    values: Values = ()


def _columns(counts: Sequence[int], sizes: Sequence[float]) -> tuple[Floats, Floats]:
    found, size = np.asarray(counts, np.float64), np.asarray(sizes, np.float64)
    if found.shape != size.shape or found.ndim != 1:
        raise ValueError(f"one count a sample: got {found.shape} counts and {size.shape} sizes")
    if not (np.isfinite(found) & np.isfinite(size) & (found >= 0) & (size >= 0)).all() or (found[size == 0] > 0).any():
        raise ValueError("counts and sizes are finite and not negative, and nothing is found in a sample of 0")
    return found, size


def _attribute(
    kind: Literal["p", "u"], counts: tuple[Floats, Floats], baseline: Baseline, spread: Spread, least: int
) -> ControlChart:
    found, size = counts
    real = size > 0
    rate = np.divide(found, size, out=np.zeros_like(found), where=real)
    blank = _blank(kind, _points(rate, real), baseline)
    centre = _attribute_centre(kind, counts, baseline, least)
    if isinstance(centre, _Absent):
        return replace(blank, why_not=centre.word, values=centre.values)
    variance = centre * (1 - centre) if kind == "p" else centre
    counting = np.sqrt(variance / np.where(real, size, 1.0))
    sigma_z = _sigma_z((rate - centre) / counting, real, baseline)
    sigma = counting * (max(1.0, sigma_z) if spread == "laney" else 1.0)
    expected = size * (min(centre, 1 - centre) if kind == "p" else centre)
    rough = int(np.count_nonzero(real & (expected < LEAST_EXPECTED)))
    rules = ALL_RULES if rough == 0 else ROUGH_RULES
    return replace(
        blank,
        centre=centre,
        lower=_points(np.maximum(0.0, centre - 3 * sigma), real),
        upper=_points(np.minimum(1.0 if kind == "p" else np.inf, centre + 3 * sigma), real),
        sigma=_points(sigma, real),
        signals=nelson(_points((rate - centre) / sigma, real), rules),
        spread=spread,
        sigma_z=sigma_z,
        rules=rules,
        rough=rough,
    )


def _attribute_centre(kind: Kind, counts: tuple[Floats, Floats], baseline: Baseline, least: int) -> float | _Absent:
    """The centre line: all defects of the baseline by all of its parts."""
    if isinstance(baseline, Known):
        good = 0 < baseline.centre < (1 if kind == "p" else np.inf)
        return baseline.centre if good else _Absent("chart_known_impossible")
    found, size = (column[_stretch(baseline)] for column in counts)
    points = int(np.count_nonzero(size > 0))
    if points < least:
        return _Absent("chart_baseline_short", (("points", points), ("needed", least)))
    if found.sum() == 0:
        return _Absent("chart_baseline_all_good", (("parts", int(size.sum())),))
    if kind == "p" and found.sum() == size.sum():
        return _Absent("chart_baseline_all_defective", (("parts", int(size.sum())),))
    return float(found.sum() / size.sum())


def _sigma_z(z: Floats, real: NDArray[np.bool_], baseline: Baseline) -> float:
    """Laney's ratio: the mean moving range of the baseline's standardised points, by d2; as known, where it is known."""
    if isinstance(baseline, Known):
        return baseline.sigma
    part = _stretch(baseline)
    own = z[part][real[part]]
    return float(np.abs(np.diff(own)).mean() / D2) if len(own) > 1 else 1.0


def _measured(blank: ControlChart, known: Known, *, lower: float, rules: tuple[int, ...]) -> ControlChart:
    """With the same limits at every point."""
    lines = [
        tuple(None if point is None else line for point in blank.points)
        for line in (lower, known.centre + 3 * known.sigma, known.sigma)
    ]
    z = [None if point is None else (point - known.centre) / known.sigma for point in blank.points]
    return replace(
        blank,
        centre=known.centre,
        lower=lines[0],
        upper=lines[1],
        sigma=lines[2],
        signals=nelson(z, rules),
        rules=rules,
    )


def _measured_limits(points: Points, baseline: Baseline, least: int) -> Known | _Absent:
    """Mean and sigma of the baseline's values."""
    if isinstance(baseline, Known):
        return baseline if baseline.sigma > 0 else _Absent("chart_known_impossible")
    own = [point for point in points[_stretch(baseline)] if point is not None]
    if len(own) < max(2, least):
        return _Absent("chart_baseline_short", (("points", len(own)), ("needed", max(2, least))))
    sigma = float(np.abs(np.diff(own)).mean() / D2)
    if not sigma > 0:
        return _Absent("chart_baseline_constant", (("points", len(own)),))
    return Known(float(np.mean(own)), sigma)


def _moving_ranges(values: Sequence[float | None]) -> Points:
    """Of each value and the one before it that exists; the first has none."""
    ranges: list[float | None] = []
    before = None
    for value in values:
        ranges.append(None if value is None or before is None else abs(value - before))
        before = before if value is None else value
    return tuple(ranges)


def _blank(kind: Kind, points: Points, baseline: Baseline) -> ControlChart:
    """The points without limits, and which of them are the baseline."""
    first, end = (0, 0) if isinstance(baseline, Known) else _stretch(baseline).indices(len(points))[:2]
    return ControlChart(kind, points, baseline=(first, max(first, end)), declared=baseline is not None)


def _stretch(baseline: slice | Known | None) -> slice:
    return baseline if isinstance(baseline, slice) else slice(None)


def _points(values: Floats, real: NDArray[np.bool_]) -> Points:
    return tuple(float(value) if there else None for value, there in zip(values, real, strict=True))
