"""What was measured of each camera's frames, by the hour, and whether a camera explains bad hours."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, tzinfo

import polars as pl

from inspection.report.charting import chart_of, limits_from, stretch
from inspection.report.contents import Baseline, CameraChange, HealthChart, HourRow, RiseRow
from inspection.report.control_charts import Baseline as Limits
from inspection.report.control_charts import ControlChart, Known
from inspection.report.facts import Facts
from inspection.report.grouping import HOUR, hour_of, with_findings
from inspection.report.grouping import hours as hour_rows
from inspection.report.health import QUANTITIES, Changed, Rise, health_chart, judge_cameras, stretches

SHARES = (0.05, 0.5, 0.95)


def cameras(
    facts: Facts, rows: Sequence[HourRow], baseline: Baseline, before: Facts | None, zone: tzinfo | None
) -> tuple[tuple[HealthChart, ...], tuple[RiseRow, ...], tuple[CameraChange, ...]]:
    """A chart for each measured quantity of each camera over the hours of ``rows``; every rise of bad parts; and what
    changed of a camera, whether parts were bad then or not.

    ``before``: the facts of a baseline that lies outside the span.
    """
    if not rows:
        return (), (), ()
    hours = tuple(row.begin for row in rows)
    limits = stretch(hours, baseline)
    made: list[HealthChart] = []
    by_hour = _by_hour(facts, zone)
    for name in _charted(facts):
        own: Limits = limits if before is None else _known(before, name, zone)
        made.append(_chart(name, by_hour, hours, own))
    charts = {(one.camera, one.quantity): one.chart for one in made if one.chart is not None}
    of_parts: Limits = limits if before is None else limits_from("not_ok", hour_rows(with_findings(before), zone))
    changes, rises = judge_cameras(charts, chart_of("not_ok", rows, of_parts))  # a lens may be too dirty to judge by
    return (
        tuple(_with_suspects(one, changes, rises) for one in made),
        tuple(_row(one, hours) for one in rises),
        tuple(_changed(one, charts[one.camera, one.quantity], hours) for one in changes if _optical(one)),
    )


def _optical(change: Changed) -> bool:
    return QUANTITIES[change.quantity].optical


def _changed(change: Changed, chart: ControlChart, hours: Sequence[datetime]) -> CameraChange:
    usual, first, last = chart.centre or 0.0, hours[min(change.hours)], hours[max(change.hours)] + HOUR
    unit = QUANTITIES[change.quantity].unit
    together = max(len(stretch) for stretch in stretches(sorted(change.hours), apart=1))
    most = round(usual + change.most, 4)
    return CameraChange(
        change.camera, change.quantity, unit, first, last, len(change.hours), round(usual, 4), most, together
    )


def _charted(facts: Facts) -> list[str]:
    """Columns ROLE.QUANTITY in the order of the cameras, of each in the order of ``QUANTITIES``."""
    order = list(QUANTITIES)
    named = [name for name in facts.measured.columns[2:] if name.rpartition(".")[2] in order]
    return sorted(named, key=lambda name: (name.rpartition(".")[0], order.index(name.rpartition(".")[2])))


def _by_hour(facts: Facts, zone: tzinfo | None) -> pl.DataFrame:
    """Begin of the hour; for each column its quantiles and how many frames they are of."""
    timed = facts.measured.drop_nulls("judged_at")
    first = timed["judged_at"].min()
    begin = hour_of(zone, first if isinstance(first, datetime) else datetime.now(UTC)).alias("begin")
    columns = timed.columns[2:]
    wanted = [
        pl.col(name).quantile(share, "equiprobable").cast(pl.Float64).round(4).alias(f"{name}/{share}")
        for name in columns
        for share in SHARES
    ]
    return timed.group_by(begin).agg(*wanted, *(pl.col(name).count().alias(f"{name}/n") for name in columns))


def _chart(name: str, by_hour: pl.DataFrame, hours: Sequence[datetime], limits: Limits) -> HealthChart:
    camera, _, quantity = name.rpartition(".")
    columns = [f"{name}/{share}" for share in SHARES]
    rows = {row[0]: row[1:] for row in by_hour.select("begin", *columns, f"{name}/n").iter_rows()}
    low, values, high, frames = zip(*(rows.get(hour, (None, None, None, 0)) for hour in hours), strict=True)
    chart = health_chart(values, baseline=limits)
    return HealthChart(camera, quantity, QUANTITIES[quantity].unit, tuple(hours), values, low, high, frames, chart)


def _known(before: Facts, name: str, zone: tzinfo | None) -> Limits:
    """The limits that the baseline's own hours give; where these give none, there are none."""
    if name not in before.measured.columns:
        return slice(0, 0)
    values = _by_hour(before, zone).sort("begin")[f"{name}/{SHARES[1]}"].to_list()
    chart = health_chart(values)
    sigma = next((one for one in chart.sigma if one is not None), None)
    return Known(chart.centre, sigma) if chart.centre is not None and sigma is not None else slice(0, 0)


def _with_suspects(one: HealthChart, changes: Sequence[Changed], rises: Sequence[Rise]) -> HealthChart:
    own = {
        hour
        for change in changes
        if (change.camera, change.quantity) == (one.camera, one.quantity)
        for hour in change.hours
    }
    blamed = {hour for rise in rises if rise.cause == "camera" for hour in rise.hours}
    return replace(one, suspect=tuple(sorted(own & blamed)))


def _row(rise: Rise, hours: Sequence[datetime]) -> RiseRow:
    return RiseRow(hours[rise.hours[0]], hours[rise.hours[-1]] + HOUR, len(rise.hours), rise.cause, rise.because)
