"""The charts of a report: aggregated numbers in, SVG pictures with words for those who cannot see them out.

Blue and vermilion of Okabe and Ito stay apart for every colour vision and in grey print; nothing speaks by colour alone:
kinds differ in hatching, line or mark too, and signals stand in rows of their own that name their rule.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from inspection.report.contents import GroupRow, HourRow, ParetoRow, Report, StageRow, Tally
from inspection.report.local_time import on_the_clock
from inspection.report.svg import GRID, INK, SOFT, Chart, canvas
from inspection.report.time_axis import TimeAxis

BLUE, VERMILION, PALE = "#0072b2", "#b8500a", "#9fb4c5"
BARS = (("ng", VERMILION, ""), ("review", "#e2b77c", "///"), ("error", "#4a3560", "xxx"))
MOST_CLASSES = 20
MOST_CHANGES = 60  # of recipe or model that are drawn; of more, as on a mixed line, none is
FEW_MARKS = 120  # points up to which each gets a dot of its own
_FEW_SHIFTS = 30  # lines up to which they may be dark
Words = Mapping[str, str]
Floats = NDArray[np.float64]
Changes = Sequence[tuple[int, datetime]]  # number in the table of changes, and when


def count_tick(value: float, _: Any = None) -> str:
    """A tick of an axis of counts."""
    return f"{value:,.0f}"


def percent_tick(value: float, _: Any = None) -> str:
    """A tick of an axis of shares."""
    return f"{100 * value:.3g}%"


def plain_tick(value: float, _: Any = None) -> str:
    """A tick of an axis of measured numbers."""
    return f"{value:,.6g}".replace("-", "\u2212")


def pareto(rows: Sequence[ParetoRow], words: Words) -> Chart | None:
    """Bars by class, most first, and the line of their sum; None without findings."""
    shown = rows[:MOST_CLASSES]
    if not shown:
        return None
    with canvas(0.9 + 0.27 * len(shown)) as drawn:
        axes = drawn.figure.subplots()
        places = np.arange(len(shown))
        axes.barh(places, [row.findings for row in shown], color=BLUE, height=0.66)
        axes.set_yticks(places, [drawn.text(row.defect_class) for row in shown])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(drawn.text(words["axis_findings"], 60))
        axes.xaxis.set_major_formatter(FuncFormatter(count_tick))
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.set_xlim(0, 1.22 * shown[0].findings)
        beside = axes.twiny()
        beside.plot([row.cumulative for row in shown], places, color=INK, marker="o", ms=5, mec="white", ls="--", lw=1)
        beside.set_xlim(0, 1.22)
        beside.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1], ["0%", "20%", "40%", "60%", "80%", "100%"])
        beside.set_xlabel(drawn.text(words["axis_cumulative"], 60))
        beside.grid(visible=False)
        beside.spines["top"].set_visible(True)
        for place, row in zip(places, shown, strict=True):  # on top of the line, which may cross them
            beside.annotate(
                f"{row.findings:,} · {100 * row.share:.3g}%", (row.findings, place), (4, 0), xycoords=axes.transData,
                textcoords="offset points", va="center", fontsize=8, bbox={"fc": "white", "ec": "none", "pad": 0.6},
            )  # fmt: skip
        first = shown[0]
        return drawn.chart(
            words["alt_pareto"].format(n=len(rows), name=first.defect_class, share=percent_tick(first.share))
        )


def trend(report: Report, words: Words, zone: tzinfo | None) -> Chart | None:
    """Parts by the hour and the share of those that are not OK, with shifts and changes of recipe or model drawn in."""
    rows = report.hours
    if not rows:
        return None
    axis = TimeAxis(rows[0].begin, _end(rows), zone)
    changes = numbered_changes(report, rows[0].begin, _end(rows))
    starts = np.array([axis.hours(row.begin) for row in rows])
    width = float(np.min(np.diff(starts))) if len(starts) > 1 else 1.0
    with canvas(4.7) as drawn:
        above, below = drawn.figure.subplots(2, sharex=True, height_ratios=(2, 3))
        _stairs(above, starts, np.array([row.tally.parts for row in rows], float), width)
        above.set_title(drawn.text(words["axis_parts_hour"], 90))
        above.yaxis.set_major_formatter(FuncFormatter(count_tick))
        _bars(below, starts, width, [row.tally for row in rows])
        below.set_title(drawn.text(words["axis_not_ok_share"], 90))
        below.yaxis.set_major_formatter(FuncFormatter(percent_tick))
        for axes in (above, below):
            _shift_lines(axes, axis, report.shifts)
            change_lines(axes, axis, changes)
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_locator(MaxNLocator(4))
        change_numbers(above, axis, changes)
        axis.dress(below)
        worst = max(rows, key=lambda row: _share(row.tally))
        return drawn.chart(
            words["alt_trend"].format(
                n=len(rows),
                share=percent_tick(_share(worst.tally)),
                at=on_the_clock(worst.begin, "%Y-%m-%d %H:%M", zone),
            )
        )


def _end(rows: Sequence[HourRow]) -> datetime:
    return rows[-1].begin + (rows[-1].begin - rows[-2].begin if len(rows) > 1 else _hour(rows[0]))


def _hour(row: HourRow) -> Any:
    return row.begin.replace(hour=1) - row.begin.replace(hour=0)


def _share(tally: Tally) -> float:
    return (tally.parts - tally.ok) / tally.parts if tally.parts else 0.0


def _stairs(axes: Axes, starts: Floats, values: Floats, width: float) -> None:
    edges, level = np.append(starts, starts[-1] + width), np.append(values, values[-1])
    axes.fill_between(edges, 0, level, step="post", color=PALE, linewidth=0)


def _bars(axes: Axes, starts: Floats, width: float, tallies: Sequence[Tally]) -> None:
    """NG, REVIEW and ERROR of all parts, one on top of the other."""
    parts = np.array([max(1, tally.parts) for tally in tallies], float)
    edges, floor = np.append(starts, starts[-1] + width), np.zeros(len(tallies) + 1)
    few = len(tallies) <= FEW_MARKS  # hatching in bars as thin as a line would only be noise
    for name, colour, hatch in BARS:
        shares = np.array([getattr(tally, name) for tally in tallies], float) / parts
        level = floor + np.append(shares, shares[-1])
        if shares.any():
            axes.fill_between(edges, floor, level, step="post", facecolor=colour, linewidth=0,
                              hatch=hatch if few else None, edgecolor="white")  # fmt: skip
        floor = level


def _shift_lines(axes: Axes, axis: TimeAxis, shifts: Sequence[GroupRow]) -> None:
    colour = SOFT if len(shifts) <= _FEW_SHIFTS else GRID
    for shift in shifts[1:]:
        axes.axvline(axis.hours(shift.begin), color=colour, lw=0.5, ls=":", zorder=0.5)


def numbered_changes(report: Report, since: datetime, until: datetime) -> list[tuple[int, datetime]]:
    """Changes within a chart, with their number in the table of changes; what judged at its begin is no change."""
    if undrawn_changes(report):
        return []
    numbered = list(enumerate((change.at for change in report.changes), 1))
    return [(number, at) for number, at in numbered[1:] if since <= at <= until]


def undrawn_changes(report: Report) -> int:
    """How many changes there are where they are too many to be drawn into any chart; else 0."""
    changes = len(report.changes) - 1
    return changes if changes > MOST_CHANGES else 0


def change_lines(axes: Axes, axis: TimeAxis, changes: Changes) -> None:
    """A line at each change of recipe or model."""
    for _, at in changes:
        axes.axvline(axis.hours(at), color=INK, lw=0.9, ls=(0, (5, 2)))


def change_numbers(axes: Axes, axis: TimeAxis, changes: Changes) -> None:
    """The number of each change at the upper end of its line."""
    for number, at in changes:
        axes.annotate(f"{number}", (axis.hours(at), 0.98), (3, 0), xycoords=("data", "axes fraction"), va="top",
                      textcoords="offset points", fontsize=8, fontweight="bold",
                      bbox={"fc": "white", "ec": INK, "lw": 0.6, "pad": 1.2})  # fmt: skip


def stages(rows: Sequence[StageRow], words: Words) -> Chart | None:
    """Median, 95 % and 99 % of each stage's time."""
    if not rows:
        return None
    with canvas(0.8 + 0.3 * len(rows)) as drawn:
        axes = drawn.figure.subplots()
        places = np.arange(len(rows))
        axes.hlines(places, [row.median_ms for row in rows], [row.p99_ms for row in rows], color=PALE, lw=5)
        for name, mark, face in (("median_ms", "o", BLUE), ("p95_ms", "D", "white"), ("p99_ms", "s", VERMILION)):
            axes.plot([getattr(row, name) for row in rows], places, mark, mfc=face, mec=INK, mew=0.8, ms=5.5)
        axes.set_yticks(places, [drawn.text(row.stage) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        positive = [row.median_ms for row in rows if row.median_ms > 0]
        if positive and max(row.p99_ms for row in rows) > 40 * min(positive):
            axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(plain_tick))
        axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, at: ""))
        axes.set_xlabel(drawn.text(words["axis_ms"], 90))
        slowest = max(rows, key=lambda row: row.p99_ms)
        return drawn.chart(words["alt_stages"].format(name=slowest.stage, ms=plain_tick(round(slowest.p99_ms, 1))))
