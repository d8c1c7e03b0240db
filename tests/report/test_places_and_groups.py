"""Where findings lie on the golden, and which hour and shift a part belongs to."""

import math
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pl = pytest.importorskip("polars", reason='pip install "lineside[report]"')

from inspection.hmi.counts import shift_at  # noqa: E402
from inspection.report import grouping  # noqa: E402
from inspection.report.contents import Tally  # noqa: E402
from inspection.report.places import placed_on  # noqa: E402
from inspection.report.versions_here import Golden  # noqa: E402

GOLDEN = Golden(b"", "00" * 32, 640, 400)
SHIFTS = ("06:00", "14:00", "22:00")
BERLIN, KOLKATA = ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Kolkata")


def findings(boxes: list[tuple[float, float, float, float]], **measured: float) -> pl.DataFrame:
    columns = dict(zip(("x1", "y1", "x2", "y2"), zip(*boxes, strict=True), strict=True))
    words = {"defect_class": "open", "verdict": "NG", "disposition": None, "record_id": "1"}
    values = {f"top.{name}": value for name, value in measured.items()}
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.Float32)).with_columns(
        *(pl.lit(value, pl.String).alias(name) for name, value in words.items()),
        *(pl.lit(value).alias(name) for name, value in values.items()),
    )


@given(
    st.floats(0, 640),
    st.floats(0, 400),
    st.floats(-40, 40),
    st.floats(-40, 40),
    st.floats(-5, 5),
    st.floats(0.95, 1.05),
)
def test_a_point_of_the_golden_is_found_again(
    x: float, y: float, dx: float, dy: float, turn: float, scale: float
) -> None:
    """What the golden shows at a place, moved onto the frame as registration measures it, is mapped back there."""
    angle, centre = math.radians(turn), (GOLDEN.width / 2, GOLDEN.height / 2)
    across, down = x - centre[0], y - centre[1]
    frame = (
        centre[0] + dx + scale * (math.cos(angle) * across - math.sin(angle) * down),
        centre[1] + dy + scale * (math.sin(angle) * across + math.cos(angle) * down),
    )
    box = (frame[0] - 6, frame[1] - 8, frame[0] + 6, frame[1] + 8)
    placed = placed_on(GOLDEN, findings([box], shift_x_px=dx, shift_y_px=dy, turn_deg=turn, scale=scale), "top")
    found = placed.row(0)
    assert found[:2] == pytest.approx((x, y), abs=0.01)
    assert found[2] == pytest.approx(10 / scale, rel=1e-3)


def test_findings_of_an_unmeasured_frame_have_no_place() -> None:
    """Without a measured shift nothing is put onto the map."""
    assert placed_on(GOLDEN, findings([(1, 2, 3, 4)]), "top").height == 0
    assert placed_on(GOLDEN, findings([(1, 2, 3, 4)], shift_x_px=1.0), "top").height == 0


def parts(*times: datetime) -> pl.DataFrame:
    """As ``grouping.with_findings`` gives them."""
    frame = {
        "rowid": range(1, len(times) + 1),
        "judged_at": times,
        "verdict": ["OK"] * len(times),
        "findings": [0] * len(times),
    }
    return pl.DataFrame(frame, schema_overrides={"judged_at": pl.Datetime("us", "UTC")})


@settings(max_examples=30)
@given(st.lists(st.datetimes(datetime(2026, 3, 20), datetime(2026, 11, 5)), min_size=1, max_size=30))
def test_every_part_is_in_the_shift_that_the_pages_show(times: list[datetime]) -> None:
    """Shifts of the report are those of the operator's page, also where clocks are set forward and back."""
    moments = [at.replace(tzinfo=UTC) for at in times]
    rows = grouping.shifts(parts(*moments), SHIFTS, BERLIN)
    wanted: dict[datetime, int] = {}
    for at in moments:
        begin = shift_at(at, SHIFTS, BERLIN).begin
        wanted[begin] = wanted.get(begin, 0) + 1
    assert wanted == {row.begin: row.tally.parts for row in rows}
    assert all(row.begin.astimezone(BERLIN).strftime("%H:%M") == SHIFTS[int(row.name[-1]) - 1] for row in rows)


def test_the_night_shift_bears_the_day_on_which_it_begins() -> None:
    """A part judged after midnight belongs to the evening's shift."""
    at = datetime(2026, 11, 24, 2, 30, tzinfo=BERLIN)
    (row,) = grouping.shifts(parts(at.astimezone(UTC)), SHIFTS, BERLIN)
    assert row.name == "2026-11-23/3"


def test_hours_are_local_where_offsets_are_odd() -> None:
    """Where local time is half an hour off, hours begin with the local hour; empty ones are there."""
    at = datetime(2026, 11, 23, 9, 45, tzinfo=KOLKATA)
    rows = grouping.hours(parts(at.astimezone(UTC), (at + timedelta(hours=2)).astimezone(UTC)), KOLKATA)
    assert [9, 10, 11] == [row.begin.astimezone(KOLKATA).hour for row in rows]
    assert {0} == {row.begin.astimezone(KOLKATA).minute for row in rows}
    assert [1, 0, 1] == [row.tally.parts for row in rows]
    assert rows[1].tally == Tally()


def test_hours_far_apart_are_not_filled_in() -> None:
    """A clock that once stood at 1970 does not make half a million empty hours."""
    rows = grouping.hours(parts(datetime(1970, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)), UTC)
    assert len(rows) == 2
