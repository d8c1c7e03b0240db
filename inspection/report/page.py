"""Writes a report as one HTML file: no script, and no picture, font or style from elsewhere."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from inspection.report import charts, condition, limit_charts
from inspection.report.contents import ChartView, GalleryItem, GroupRow, HourRow, Report, Span
from inspection.report.control_charts import Episode, episodes
from inspection.report.defect_map import as_uri, draw_map
from inspection.report.nelson import chance
from inspection.report.svg import Chart
from inspection.report.wording import DASH, Language, Wording

FOLDER = Path(__file__).with_name("templates")
SECTIONS = (
    "limits", "totals", "reasons", "pareto", "map", "gallery", "trend", "control", "stages", "health", "versions",
    "false_calls", "escapes", "reviews", "definitions", "check",
)  # fmt: skip
MOST_ROWS, MOST_GROUPS, MOST_SIGNALS, MOST_HOURS = 60, 31, 30, 20
MOST_RISES, MOST_MAPS = 40, 12
MOST_TWICE = 20  # serials that are named because they were used more than once
RULES = 8
_CLASS = "class:"


@dataclass(frozen=True, slots=True)
class GroupView:
    """A table of shifts or lots; ``more`` of them stand only in ``file``."""

    caption: str
    head: str
    begin: str
    rows: tuple[GroupRow, ...]
    more: int
    file: str
    intervals: bool


@dataclass(frozen=True, slots=True)
class SignalRow:
    """A stretch of points with signals, in words."""

    first: str
    last: str
    rules: str
    values: str
    limits: str


@dataclass(frozen=True, slots=True)
class ControlView:
    """A control chart as the page shows it; ``more`` stretches of signals are not in ``signals``."""

    chart: Chart | None
    said: tuple[str, ...]
    caption: str
    signals: tuple[SignalRow, ...]
    more: int


def render(report: Report, language: Language) -> str:
    """The page as text."""
    wording = Wording(language, report.zone)
    words = wording.words("page")
    stages = [replace(row, stage=stage_name(row.stage, wording)) for row in report.stages]
    # Serials, lots and class names come from outside: whatever they hold is text, never markup.
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        r=report, t=wording, w=words, totals=asdict(report.totals), span=wording.span(report.span),
        baseline=wording.span(Span(report.baseline.since, report.baseline.until)), sections=SECTIONS,
        style=_style(), caveats=_caveats(report, wording),
        twice=report.totals.serials_used_twice[:MOST_TWICE], most_rows=MOST_ROWS,
        groups=_groups(report, wording),
        pareto=charts.pareto(report.pareto, words), trend=charts.trend(report, words, wording.zone),
        undrawn=charts.undrawn_changes(report), worst=_worst(report.hours),
        controls=[_control(report, view, wording) for view in report.charts],
        stages=charts.stages(stages, words), stage_rows=stages, health=condition.health(report, wording),
        judged=condition.judged(report, wording), rules=sorted({rule for view in report.charts for rule in view.chart.rules}),
        rises=[(row, condition.cause(row, wording)) for row in report.rises[:MOST_RISES]],
        maps=[(view, draw_map(view, wording)) for view in report.maps[:MOST_MAPS]],
        gallery=[_pictures(item) for item in report.gallery],
        why=lambda item: _why(item, wording), not_covered=lambda text: _not_covered(text, wording),
        definitions=list(wording.words("define").values()),
    )  # fmt: skip


def stage_name(name: str, wording: Wording) -> str:
    """The name of a stage; with several cameras the camera's role stands before it."""
    role, dot, stage = name.rpartition(".")
    return f"{role}{dot}{wording.words('stage').get(stage, stage)}"


def _style() -> str:
    return (FOLDER / "style.css").read_text(encoding="utf-8")


def _caveats(report: Report, wording: Wording) -> list[str]:
    """What takes something away from the numbers; a camera that had changed is said here too, not only far below."""
    said = [wording.text("caveat", caveat.key, caveat.values) for caveat in report.caveats]
    return [*condition.first(report.rises, wording), *said]


def _worst(hours: Sequence[HourRow]) -> list[HourRow]:
    """All hours of a short span; of a long one those with the highest share that is not OK, the worst first."""
    if len(hours) <= MOST_HOURS:
        return list(hours)
    judged = [row for row in hours if row.tally.parts]
    return sorted(judged, key=lambda row: (row.tally.ok / row.tally.parts, row.begin))[:MOST_HOURS]


def _groups(report: Report, wording: Wording) -> list[GroupView]:
    """Shifts and lots: all of them in the order of time, or where they are many those with the lowest yield, it first."""
    views = []
    for kind, rows in (("shift", report.shifts), ("lot", report.lots)):
        shown = rows if len(rows) <= MOST_GROUPS else tuple(sorted(rows, key=_yield)[:MOST_GROUPS])
        numbers = {"n": len(shown), "all": len(rows)}
        key = f"{kind}s_caption" if len(shown) == len(rows) else f"{kind}s_worst"
        if rows:
            intervals = any(row.first_pass_yield.low is not None for row in shown)
            heads = wording.text("page", kind), wording.text("page", f"{kind}_begin")
            views.append(GroupView(wording.text("page", key, numbers), *heads, shown,
                                   len(rows) - len(shown), f"tables/{kind}s.csv", intervals))  # fmt: skip
    return views


def _yield(row: GroupRow) -> float:
    return 1.0 if row.first_pass_yield.value is None else row.first_pass_yield.value


def _control(report: Report, view: ChartView, wording: Wording) -> ControlView:
    changes = charts.numbered_changes(report, view.begins[0], view.begins[-1]) if view.begins else []
    drawn = limit_charts.control(view, wording.words("page"), wording.zone, changes)
    found = episodes(view.chart)
    rows = tuple(_signal_row(view, episode, wording) for episode in found[:MOST_SIGNALS])
    numbers = {"n": len(view.chart.signals), "episodes": len(found)}
    caption = wording.text("page", "signals_caption", numbers)
    return ControlView(drawn, _said(view, wording), caption, rows, max(0, len(found) - MOST_SIGNALS))


def _said(view: ChartView, wording: Wording) -> tuple[str, ...]:
    """What the limits of a chart rest on; or why there are none."""
    chart = view.chart
    title = wording.words("page")[f"axis_{chart.kind}_{view.grouped_by}"]
    if chart.centre is None:
        why = wording.text("why_not", chart.why_not or "unknown", chart.values)
        return (f"{title}{wording.words('page')['colon']}{wording.text('page', 'no_limits')} {why}",)
    said = [_spread(view, wording)]
    if chart.rough:
        said.append(wording.text("page", "rough", {"n": chart.rough}))
    said.append(_rules(chart.rules, wording))
    if not chart.signals:
        said.append(wording.text("page", "no_signals"))
    return tuple(said)


def _rules(made: Sequence[int], wording: Wording) -> str:
    """Which rules were used, and at how many points they signal by chance, where that is known of these rules."""
    said = [
        wording.text("page", "rules_all" if len(made) == RULES else "rules_made", {"rules": ", ".join(map(str, made))})
    ]
    share = chance(made)
    if share is not None:
        said.append(wording.text("page", "rules_chance", {"share": wording.percent(share)}))
    return " ".join(said)


def _spread(view: ChartView, wording: Wording) -> str:
    chart = view.chart
    if chart.spread == "counting" or chart.sigma_z is None:
        return wording.text("page", "spread_counting")
    key = "spread_laney" if chart.sigma_z > 1 else "spread_laney_narrow"
    return wording.text("page", key, {"z": round(chart.sigma_z, 2)})


def _signal_row(view: ChartView, episode: Episode, wording: Wording) -> SignalRow:
    chart = view.chart
    shown = wording.percent if chart.kind == "p" else wording.number
    reached = range(episode.first, episode.last + 1)
    values = [value for value in (chart.points[at] for at in reached) if value is not None]
    low, high = chart.lower[episode.last], chart.upper[episode.last]
    limits = f"{shown(low)} {DASH} {shown(high)}" if low is not None and high is not None else DASH
    between = shown(values[0]) if len(values) == 1 else f"{shown(min(values))} {DASH} {shown(max(values))}"
    return SignalRow(
        _point_name(view, episode.first, wording), _point_name(view, episode.last, wording),
        ", ".join(str(rule) for rule in episode.rules), between, limits,
    )  # fmt: skip


def _point_name(view: ChartView, index: int, wording: Wording) -> str:
    return wording.minute(view.begins[index]) if view.grouped_by == "hour" else view.labels[index]


def _pictures(item: GalleryItem) -> tuple[GalleryItem, str, str]:
    return item, as_uri(item.frame_jpg) if item.frame_jpg else "", as_uri(item.golden_jpg) if item.golden_jpg else ""


def _why(item: GalleryItem, wording: Wording) -> str:
    """Why a picture is not there: a word with its text, and behind a colon what the disk or the record said of it."""
    word, _, detail = item.why_not.partition(":")
    text = wording.text("gallery", word) if wording.has("gallery", word) else item.why_not
    return f"{text} ({wording.value(detail.strip())})" if detail and wording.has("gallery", word) else text


def _not_covered(text: str, wording: Wording) -> str:
    if text.startswith(_CLASS):
        return wording.text("not_covered", "class", {"name": text.removeprefix(_CLASS)})
    return wording.text("not_covered", text)
