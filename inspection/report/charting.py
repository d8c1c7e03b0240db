"""The series of the control charts: defective parts and findings by hour, by shift, by lot."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from inspection.report.contents import Baseline, ChartView, GroupRow, HourRow
from inspection.report.control_charts import Baseline as Limits
from inspection.report.control_charts import ControlChart, Known, p_chart, u_chart

MOST_POINTS = 200  # of a chart by the hour; a longer span is charted by the shift
WHAT: tuple["Charted", ...] = ("defective", "findings")
Row = HourRow | GroupRow
Charted = Literal["defective", "findings"]
What = Charted | Literal["not_ok"]
By = Literal["hour", "shift", "lot"]
Grouped = dict[By, tuple[Row, ...]]


def charts(groups: Grouped, baseline: Baseline, before: Grouped | None = None) -> tuple[ChartView, ...]:
    """A p chart of defective parts and a u chart of findings for each grouping that has points.

    ``before``: the groups of a baseline that lies outside the span, whose limits hold here.
    """
    made = []
    for by in _groupings(groups):
        rows = tuple(row for row in groups[by] if by != "lot" or row.tally.parts)
        known = None if before is None else before.get(by, ())
        made += [_view(what, by, rows, baseline, known) for what in WHAT]
    return tuple(made)


def _groupings(groups: Grouped) -> list[By]:
    time: By = "hour" if len(groups["hour"]) <= MOST_POINTS else "shift"
    return [by for by in (time, "lot") if len(groups[by]) > (1 if by == "lot" else 0)]


def _view(what: Charted, by: By, rows: Sequence[Row], baseline: Baseline, known: Sequence[Row] | None) -> ChartView:
    begins = tuple(row.begin for row in rows)
    labels = tuple(row.name if isinstance(row, GroupRow) else row.begin.isoformat() for row in rows)
    limits = stretch(begins, baseline) if known is None else limits_from(what, known)
    sizes = tuple(row.tally.judged for row in rows)
    return ChartView(what, by, labels, begins, sizes, chart_of(what, rows, limits))


def chart_of(what: What, rows: Sequence[Row], limits: Limits) -> ControlChart:
    """The p chart of defective parts, the u chart of findings, or the p chart of all that are not OK, ERROR included."""
    sizes = [row.tally.judged for row in rows]
    if what == "not_ok":
        return p_chart(
            [row.tally.parts - row.tally.ok for row in rows], [row.tally.parts for row in rows], baseline=limits
        )
    if what == "defective":
        return p_chart([row.tally.ng + row.tally.review for row in rows], sizes, baseline=limits)
    return u_chart([row.findings for row in rows], sizes, baseline=limits)


def limits_from(what: What, rows: Sequence[Row]) -> Limits:
    """The limits that the baseline's own chart has; where it gives none, the points have none either."""
    chart = chart_of(what, rows, None)
    if chart.centre is None:
        return slice(0, 0)
    return Known(chart.centre, chart.sigma_z if chart.sigma_z is not None else 1.0)


def stretch(begins: Sequence[datetime], baseline: Baseline) -> slice | None:
    """Which points the baseline is; None where none was declared: then it is all of them."""
    if not baseline.declared:
        return None
    inside = [index for index, at in enumerate(begins) if _holds(baseline, at)]
    return slice(inside[0], inside[-1] + 1) if inside else slice(0, 0)


def _holds(baseline: Baseline, at: datetime) -> bool:
    return (baseline.since is None or at >= baseline.since) and (baseline.until is None or at < baseline.until)
