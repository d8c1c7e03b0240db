"""Charts with control limits: p and u charts with Nelson's signals, and the condition of the cameras."""

from collections.abc import Sequence
from datetime import tzinfo
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from inspection.report.charts import (
    BLUE,
    FEW_MARKS,
    VERMILION,
    Changes,
    Floats,
    Words,
    change_lines,
    change_numbers,
    percent_tick,
    plain_tick,
)
from inspection.report.contents import ChartView, HealthChart
from inspection.report.control_charts import ControlChart
from inspection.report.svg import SOFT, Canvas, Chart, canvas
from inspection.report.time_axis import TimeAxis

SAND = "#f2ead2"
_ROW_IN = 0.17  # height of a row of signals


def control(view: ChartView, words: Words, zone: tzinfo | None, changes: Changes = ()) -> Chart | None:
    """A control chart with centre, limits and baseline; below it one row for each of Nelson's rules that gave a signal.

    A chart without limits shows its points alone; None without any point.
    """
    chart = view.chart
    if all(point is None for point in chart.points):
        return None
    rules = sorted({signal.rule for signal in chart.signals})
    by_time = view.grouped_by != "lot"
    axis = TimeAxis(view.begins[0], view.begins[-1], zone)
    places = np.array([axis.hours(at) for at in view.begins]) if by_time else np.arange(len(view.begins), dtype=float)
    title = words[f"axis_{chart.kind}_{view.grouped_by}"]
    with canvas(2.35 + _ROW_IN * len(rules) + (0.0 if by_time else 0.5)) as drawn:
        heights = (1.9, _ROW_IN * len(rules)) if rules else (1.9,)
        plots = drawn.figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        _limits(plots[0], chart, places)
        plots[0].set_title(drawn.text(title, 100))
        plots[0].yaxis.set_major_formatter(FuncFormatter(percent_tick if chart.kind == "p" else plain_tick))
        if rules:
            names = [drawn.text(words["rule_short"].format(n=number), 20) for number in rules]
            _rule_rows(plots[1], chart, places, (rules, names))
        if by_time:
            for axes in plots:
                change_lines(axes, axis, changes)
            change_numbers(plots[0], axis, changes)
            axis.dress(plots[-1])
        else:
            _named(plots[-1], view.labels, drawn)
        return drawn.chart(words["alt_control"].format(title=title, n=len(chart.points), signals=len(chart.signals)))


def _limits(axes: Axes, chart: ControlChart, places: Floats) -> None:
    points = _floats(chart.points)
    few = len(points) <= FEW_MARKS
    highest = [points]
    if chart.centre is not None:
        start, stop = chart.baseline
        if stop > start:
            axes.axvspan(places[start], places[stop - 1], color=SAND, lw=0, zorder=0)
        axes.axhline(chart.centre, color=SOFT, lw=0.8)
        for limit in (chart.lower, chart.upper):
            axes.plot(places, _floats(limit), color=VERMILION, lw=0.8, ls="--", drawstyle="steps-mid", **_alone(points))
            highest.append(_floats(limit)[np.isfinite(points)])
    axes.plot(places, points, color=BLUE, lw=0.9 if few else 0.6, marker="o" if few else "", ms=2.5)
    hit = sorted({signal.index for signal in chart.signals})
    axes.plot(places[hit], points[hit], "s", ms=4.5 if few else 3, mfc="white", mec=VERMILION, mew=1.1 if few else 0.8)
    drawn = np.concatenate(highest)
    low, top = float(np.nanmin(drawn)), float(np.nanmax(drawn))
    room = (top - low) or abs(top) or 1.0
    axes.set_ylim(low - 0.06 * room, top + 0.08 * room)
    axes.yaxis.set_major_locator(MaxNLocator(5))


def _alone(points: Floats) -> dict[str, Any]:
    """How a limit is drawn where there is one point only, through which no line goes."""
    return {"marker": "_", "ms": 18, "mew": 1.0} if len(points) == 1 else {}


def _rule_rows(axes: Axes, chart: ControlChart, places: Floats, rows: tuple[Sequence[int], Sequence[str]]) -> None:
    rules, labels = rows
    for row, rule in enumerate(rules):
        hit = [places[signal.index] for signal in chart.signals if signal.rule == rule]
        axes.plot(hit, np.full(len(hit), row), "|", color=VERMILION, ms=7, mew=1.2)
    axes.set_yticks(range(len(rules)), labels)
    axes.set_ylim(len(rules) - 0.4, -0.6)
    axes.grid(axis="x", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _named(axes: Axes, labels: Sequence[str], drawn: Canvas) -> None:
    """Names under points that are no moments: as many as there is room for."""
    step = -(-len(labels) // 24)
    shown = range(0, len(labels), step)
    axes.set_xlim(-0.01 * len(labels) - 0.5, 1.01 * len(labels) - 0.5)
    axes.set_xticks(list(shown), [drawn.text(labels[at], 14) for at in shown], rotation=40, ha="right",
                    rotation_mode="anchor", fontsize=7.5)  # fmt: skip


def health(view: HealthChart, words: Words, zone: tzinfo | None, title: str) -> Chart | None:
    """A quantity of a camera by the hour: median and band, control limits, and hours that explain the lot."""
    if all(value is None for value in view.values):
        return None
    axis = TimeAxis(view.hours[0], view.hours[-1], zone)
    places = np.array([axis.hours(at) for at in view.hours])
    with canvas(1.75) as drawn:
        axes = drawn.figure.subplots()
        axes.fill_between(places, _floats(view.low), _floats(view.high), color="#d5e3ee", lw=0)
        axes.plot(
            places, _floats(view.values), color=BLUE, lw=1, marker="o" if len(places) <= FEW_MARKS else "", ms=2.5
        )
        if view.chart is not None and view.chart.centre is not None:
            for limit in (view.chart.lower, view.chart.upper):
                axes.plot(places, _floats(limit), color=VERMILION, ls="--", lw=0.8, **_alone(places))
        hit = list(view.suspect)
        axes.plot(places[hit], _floats(view.values)[hit], "s", ms=3, mfc="white", mec=VERMILION, mew=1)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(FuncFormatter(plain_tick))
        axis.dress(axes)
        return drawn.chart(words["alt_health"].format(title=title, n=len(view.hours), suspect=len(hit)))


def _floats(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], np.float64)
