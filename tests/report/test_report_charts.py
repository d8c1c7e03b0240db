"""Charts and maps of reports: any numbers that a report can hold give a picture, or none where there is nothing to show."""

import base64
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("jinja2", reason='needs jinja2: pip install "lineside[report]"')
pytest.importorskip("matplotlib", reason='needs matplotlib: pip install "lineside[report]"')
pytest.importorskip("polars", reason='needs polars: pip install "lineside[report]"')

from report_samples import BEGIN, sample_report

from inspection.report import charts, limit_charts
from inspection.report.contents import ChartView, GroupRow, HourRow, MapPoint, MapView, Report, Tally
from inspection.report.control_charts import individuals_chart, p_chart, u_chart
from inspection.report.defect_map import CELLS_ACROSS, MOST_MARKS, SPOTS, draw_map
from inspection.report.page import MOST_GROUPS, MOST_HOURS, render
from inspection.report.svg import canvas, columns_of, shortened
from inspection.report.tables import as_json, tables
from inspection.report.time_axis import TimeAxis
from inspection.report.wording import Wording

WORDING = Wording("en", UTC)
WORDS = WORDING.words("page")
GOLDEN = MapView("top", "demo", "ab", None, 640, 480, (), 0, 0)
places = st.tuples(
    st.floats(-50, 700), st.floats(-50, 700), st.sampled_from(["open", "short", "划伤", "<b>", *"abcdefg"])
)


@pytest.fixture(scope="module")
def report() -> Report:
    """The small complete report."""
    return sample_report()


def view(defective: list[int], inspected: list[int], kind: str = "hour") -> ChartView:
    begins = tuple(BEGIN + timedelta(hours=number) for number in range(len(inspected)))
    labels = tuple(f"LOT-{number}" for number in range(len(inspected)))
    chart = p_chart(defective, inspected)
    return ChartView("defective", kind, labels, begins, tuple(inspected), chart)  # type: ignore[arg-type]


@settings(max_examples=6)
@example([], "hour")
@example([(0, 0)] * 3, "shift")
@example([(0, 9)], "lot")
@example([(5, 100), (0, 0), (7, 110)] * 12, "hour")
@example([(90, 90)] * 25, "lot")
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 400)), max_size=60), st.sampled_from(["hour", "shift", "lot"])
)
def test_any_counts_give_a_control_chart(counts: list[tuple[int, int]], kind: str) -> None:
    """Hours without parts, all good, all bad, one hour, none: a chart of the points there are, or None without any."""
    inspected = [parts for _, parts in counts]
    drawn = limit_charts.control(view([min(bad, parts) for bad, parts in counts], inspected, kind), WORDS, UTC)
    assert (drawn is None) == (not any(inspected))


def test_a_month_of_hours_stays_readable_and_small(report: Report) -> None:
    """720 hours, three shifts a day and 240 lots give charts of some hundred kilobytes and tables of bounded length."""
    hours = tuple(HourRow(BEGIN + timedelta(hours=n), Tally(1300 + n % 7, 40 + n % 11, 5, 1), 60) for n in range(720))
    claim = report.shifts[0].first_pass_yield
    groups = tuple(
        GroupRow(
            f"G{n}", BEGIN + timedelta(hours=3 * n), BEGIN + timedelta(hours=3 * n + 3), Tally(4000, 99), 120, claim
        )
        for n in range(240)
    )
    chart = view([40 + n % 11 for n in range(720)], [1400] * 720)
    month = replace(report, hours=hours, lots=groups, shifts=groups[:90], charts=(chart,))
    trend = charts.trend(month, WORDS, UTC)
    control = limit_charts.control(chart, WORDS, UTC)
    assert trend is not None
    assert control is not None
    assert len(trend.uri) < 500_000
    assert len(control.uri) < 500_000
    html = render(month, "en")
    assert MOST_GROUPS == html.count('<tr><th scope="row">G', html.index("By lot"))
    assert MOST_HOURS == html.count('<tr><th scope="row" class="time">')
    assert "209 more rows are in tables/lots.csv" in html


def test_changes_without_end_are_counted_and_not_drawn(report: Report) -> None:
    """Where the recipe alternates from part to part no chart shows a change; page and tables say how often it changed."""
    every = tuple(
        replace(report.changes[0], at=BEGIN + timedelta(minutes=n), rowid=n + 1) for n in range(charts.MOST_CHANGES + 2)
    )
    many, few, none = (replace(report, changes=changes) for changes in (every, every[:-1], ()))
    drawn = {name: charts.trend(one, WORDS, UTC) for name, one in (("many", many), ("few", few), ("none", none))}
    assert drawn["many"] == drawn["none"] != drawn["few"]
    html = render(many, "en")
    pictures = re.compile(r'data:image/svg[^"]*')
    assert pictures.findall(html) == pictures.findall(render(none, "en"))
    assert html.count("The recipe or model changed 61 times: too often for lines in the charts") == 2
    assert "2 more rows are in tables/changes.csv" in html
    assert len(list(tables(many)["changes"][1])) == len(every) == len(json.loads(as_json(many))["changes"])
    assert "too often for lines" not in render(few, "en")


@pytest.mark.parametrize("tally", [Tally(), Tally(1), Tally(0, 1), Tally(0, 0, 0, 1)])
def test_one_hour_gives_a_trend(report: Report, tally: Tally) -> None:
    """One part, or an hour without any, is a trend of one hour."""
    one = replace(report, hours=(HourRow(BEGIN, tally, 0),))
    assert charts.trend(one, WORDS, UTC) is not None
    assert charts.trend(replace(report, hours=()), WORDS, UTC) is None


def test_hours_without_measured_frames_are_gaps(report: Report) -> None:
    """A camera that was not measured in some hours is drawn with gaps; one that never was is not drawn."""
    gaps = tuple(None if hour in (2, 3) else 40.0 + hour for hour in range(8))
    some = replace(
        report.health[0], values=gaps, low=gaps, high=gaps, chart=individuals_chart(list(gaps), least=3), suspect=()
    )
    nothing = (None,) * 8
    assert limit_charts.health(some, WORDS, UTC, "top") is not None
    assert limit_charts.health(replace(some, values=nothing, low=nothing, high=nothing), WORDS, UTC, "top") is None


def test_findings_per_part_are_no_shares() -> None:
    """A u chart has no per cent on its axis, a p chart has."""
    units = view([3] * 30, [100] * 30)
    counted = replace(units, what="findings", chart=u_chart([3, 5] * 15, [100.0] * 30))
    texts = []
    for one in (units, counted):
        drawn = limit_charts.control(one, WORDS, UTC)
        assert drawn is not None
        svg = ElementTree.fromstring(_svg(drawn.uri))
        texts.append([element.text or "" for element in svg.iter() if element.tag.endswith("}text")])
    assert any(text.endswith("%") for text in texts[0])
    assert not any(text.endswith("%") for text in texts[1])


def test_numbers_on_an_axis_keep_their_digits() -> None:
    """What makes the picture small shortens its paths, never a number that is read."""
    with canvas(1.0) as drawn:
        axes = drawn.figure.subplots()
        axes.plot([0, 1], [0.1234567, 7.654321])
        axes.set_yticks([0.125, 1.03125], ["0.125", "1.03125"])
        svg = drawn.svg()
    assert ">0.125<" in svg
    assert ">1.03125<" in svg
    assert not re.search(r'd="[^"]*\d\.\d{3}', svg)


def _svg(uri: str) -> bytes:
    return base64.b64decode(uri.partition(",")[2])


# ---- the axis of time


@given(st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1)), st.floats(0, 20_000), st.integers(-12, 14))
def test_marks_are_few_and_stand_at_whole_local_hours(begin: datetime, hours: float, zone: int) -> None:
    """Whatever the span and zone, a bounded number of marks lies within it, each at a whole local hour."""
    start = begin.replace(tzinfo=UTC)
    axis = TimeAxis(start, start + timedelta(hours=hours), timezone(timedelta(hours=zone)))
    marks, labels = axis.ticks()
    assert len(marks) == len(labels) <= 16
    assert all(-1e-6 <= mark <= axis.length for mark in marks)
    moments = [start + timedelta(hours=mark) for mark in marks]
    assert all((at + timedelta(milliseconds=1)).minute == 0 for at in moments)


# ---- the map


def placed(points: list[tuple[float, float, str]]) -> MapView:
    made = tuple(MapPoint(x, y, 5.0, name, "NG", "", "0" * 32) for x, y, name in points)
    return replace(GOLDEN, points=made, placed=len(made))


@given(st.lists(places, max_size=60))
def test_every_finding_is_on_the_map(points: list[tuple[float, float, str]]) -> None:
    """Up to a limit each finding is a mark, the legend counts all of them, and no two places of the table overlap."""
    drawing = draw_map(placed(points), WORDING)
    assert drawing is not None
    assert len(points) == len(drawing.marks) == sum(entry.count for entry in drawing.legend)
    for number, spot in enumerate(drawing.hot):
        for other in drawing.hot[:number]:
            apart = max(abs(spot.left - other.left), abs(spot.top - other.top))
            assert apart >= drawing.spot_px
    assert sum(spot.count for spot in drawing.hot) <= len(points)


def test_many_findings_are_a_density_with_its_hot_spot() -> None:
    """Beyond the limit squares are drawn, and the place where most findings lie leads the table with its class."""
    even = [(float(n * 37 % 640), float(n * 91 % 480), "open") for n in range(MOST_MARKS)]
    hot = [(402.0 + n % 5, 151.0 + n % 3, "short") for n in range(300)]
    drawing = draw_map(placed(even + hot), WORDING)
    assert drawing is not None
    assert not drawing.marks
    assert 0 < len(drawing.cells) <= CELLS_ACROSS**2
    assert len(drawing.hot) <= SPOTS
    first = drawing.hot[0]
    assert abs(first.x - 404) < 8
    assert abs(first.y - 152) < 8
    assert first.name == "short"
    assert 300 <= first.count <= 320


def test_without_a_golden_there_is_no_map() -> None:
    """A camera whose recipe has no golden gets words in place of a map."""
    assert draw_map(replace(GOLDEN, width=0, height=0), WORDING) is None


# ---- texts in charts


@given(st.text(max_size=80), st.integers(2, 40))
def test_texts_are_shortened_to_their_columns(text: str, most: int) -> None:
    """A text in a chart takes no more columns than it may, and what was cut off ends in an ellipsis."""
    shown = shortened(text, most)
    assert sum(columns_of(character) for character in shown) <= most
    assert shown.endswith("\u2026") or shown == shortened(text, 1000)
