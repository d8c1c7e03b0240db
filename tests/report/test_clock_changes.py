"""Local time in reports where clocks are set forward and back: shifts, hours, axes and the page are those of the station's wall."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("jinja2", reason='needs jinja2: pip install "lineside[report]"')
pytest.importorskip("matplotlib", reason='needs matplotlib: pip install "lineside[report]"')
pytest.importorskip("polars", reason='needs polars: pip install "lineside[report]"')

from inspection.report.local_time import moments, offset_at, offsets, on_the_clock
from inspection.report.time_axis import TimeAxis
from inspection.store import Store
from inspection.types import Judgement, Record, Trigger, Verdict

BERLIN, KOLKATA = ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Kolkata")
EVERY = timedelta(minutes=15)
STATION = """
station_id = "line-1"
recipe = "recipe"
store = "records.sqlite"
[evidence]
folder = "evidence"
[cameras.top]
kind = "folder"
folder = "frames"
[controller]
kind = "simulated"
"""


@dataclass(frozen=True)
class Case:
    """A span in a zone, and what the page is to say of its hours."""

    zone: str
    since: str
    until: str
    hours: tuple[str, ...]
    shifts: tuple[str, ...]
    names: str


CASES = {
    "back": Case(
        "Europe/Berlin", "2026-10-24T22:00", "2026-10-25T08:00",
        ("22:00", "23:00", "00:00", "01:00", "02:00 (UTC+02:00)", "02:00 (UTC+01:00)", "03:00", "04:00", "05:00", "06:00", "07:00"),
        ("22:00", "06:00"), "UTC+02:00, UTC+01:00",
    ),
    "forward": Case(
        "Europe/Berlin", "2026-03-28T22:00", "2026-03-29T08:00",
        ("22:00", "23:00", "00:00", "01:00", "03:00", "04:00", "05:00", "06:00", "07:00"),
        ("22:00", "06:00"), "UTC+01:00, UTC+02:00",
    ),
    "half an hour": Case(
        "Asia/Kolkata", "2026-10-25T04:00", "2026-10-25T08:00", ("04:00", "05:00", "06:00", "07:00"), ("22:00", "06:00"),
        "UTC+05:30",
    ),
}  # fmt: skip


def station(folder: Path, begin: datetime, end: datetime) -> Path:
    """A station that judged a part every quarter of an hour from ``begin`` to before ``end``."""
    (folder / "station.toml").write_text(STATION, encoding="utf-8")
    store = Store(folder / "records.sqlite")
    for number in range((end - begin) // EVERY):
        at = begin + number * EVERY
        trigger = Trigger(f"t{number}", f"SN-{number}", "LOT-1", "demo", at)
        store.accept(trigger)
        store.commit(
            Record(
                trigger, Judgement(Verdict.OK), (), ("f1",), "ab" * 32, "cd" * 32, "line-1", (("total", 40.0),), False, at,
                record_id=f"{number:032x}", recipe_id="demo",
            )
        )  # fmt: skip
    store.close()
    return folder / "station.toml"


def reported(config: Path, zone: str, *span: str) -> Path:
    """The folder that `lineside report` writes on a computer in that zone."""
    out = config.with_name("out")
    command = [sys.executable, "-m", "inspection", "report", str(config), "-o", str(out), *span]
    subprocess.run(command, check=True, env={**os.environ, "TZ": zone}, capture_output=True)
    return out


@pytest.mark.parametrize("name", CASES)
def test_the_page_shows_the_clock_on_the_wall(tmp_path: Path, name: str) -> None:
    """Each hour has its own row and its parts, the doubled one both with their offset; shifts begin at their times."""
    case = CASES[name]
    zone = ZoneInfo(case.zone)
    since, until = (
        datetime.fromisoformat(text).replace(tzinfo=zone).astimezone(UTC) for text in (case.since, case.until)
    )
    out = reported(
        station(tmp_path, since - EVERY, until + EVERY), case.zone, "--since", case.since, "--until", case.until
    )
    html, found = (out / "report.html").read_text(encoding="utf-8"), json.loads((out / "report.json").read_bytes())
    assert f"from {case.since.replace('T', ' ')}:00 to before {case.until.replace('T', ' ')}:00" in html
    assert f"All times are local to the station ({case.names})." in html
    trend = html[html.index('<section id="trend"') : html.index('<section id="control"')]
    assert list(case.hours) == re.findall(r'<th scope="row" class="time">\d{4}-\d\d-\d\d ([^<]+)</th>', trend)
    assert [4] * len(case.hours) == [row["tally"]["parts"] for row in found["hours"]]
    assert list(case.hours) == [
        on_the_clock(datetime.fromisoformat(row["begin"]), "%H:%M", zone) for row in found["hours"]
    ]
    begins = [datetime.fromisoformat(row["begin"]).astimezone(zone) for row in found["shifts"]]
    assert case.shifts == tuple(f"{at:%H:%M}" for at in begins)
    assert all(f'<td class="time">{at:%Y-%m-%d %H:%M}</td>' in html for at in begins)
    assert case.names == ", ".join(f"UTC+{timedelta(seconds=offset)!s:0>8}"[:9] for _, offset in found["utc_offsets"])


def test_the_day_on_which_clocks_go_back_has_25_hours(tmp_path: Path) -> None:
    """From midnight to midnight, days after the span began in another offset: 25 hours with all of their parts."""
    begin = datetime(2026, 10, 24, 22, tzinfo=UTC)
    out = reported(station(tmp_path, begin, begin + timedelta(hours=26)), "Europe/Berlin", "--until", "2026-10-26")
    found = json.loads((out / "report.json").read_bytes())
    assert [4] * 25 == [row["tally"]["parts"] for row in found["hours"]]
    assert [["2026-10-24T22:00:00+00:00", 7200.0], ["2026-10-25T01:00:00+00:00", 3600.0]] == found["utc_offsets"]


@pytest.mark.parametrize(
    ("begin", "wanted"),
    [
        (datetime(2026, 10, 24, 22, tzinfo=UTC), "00:00|10-25 01:00 02:00|+02:00 02:00|+01:00 03:00 04:00"),
        (datetime(2026, 3, 28, 23, tzinfo=UTC), "00:00|03-29 01:00 03:00 04:00 05:00 06:00"),
        (datetime(2026, 10, 25, 0, 30, tzinfo=UTC), "02:00|10-25 +01:00 03:00 04:00 05:00 06:00"),
    ],
)
def test_an_axis_over_the_change_has_every_hour(begin: datetime, wanted: str) -> None:
    """The doubled hour has two marks with their offsets; the lost one has none."""
    marks, labels = TimeAxis(begin, begin + timedelta(hours=5), BERLIN).ticks()
    assert wanted == " ".join(labels).replace("\n", "|")
    assert len({*marks}) == len(marks)


@given(
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)),
    st.sampled_from([BERLIN, KOLKATA, ZoneInfo("Australia/Lord_Howe")]),
)
def test_no_two_moments_look_alike(at: datetime, zone: ZoneInfo) -> None:
    """What the clock shows leads back to its moment, with the offset where it shows it twice."""
    moment = at.replace(tzinfo=UTC, microsecond=0)
    shown = moments(moment.astimezone(zone), zone)
    assert moment in shown
    assert (len(shown) > 1) == ("(" in on_the_clock(moment, "%H:%M", zone))
    assert len(shown) == len({on_the_clock(one, "%H:%M:%S", zone) for one in shown})


@given(st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)), st.integers(0, 3000))
def test_the_offsets_of_a_span_are_those_of_each_moment(begin: datetime, days: int) -> None:
    """Each stretch begins with its offset and ends the second before the next."""
    first = begin.replace(tzinfo=UTC, microsecond=0)
    found = offsets(first, first + timedelta(days=days), BERLIN)
    assert found[0] == (first, offset_at(first, BERLIN))
    assert all((at.minute, at.second, at.hour) == (0, 0, 1) for at, _ in found[1:])
    assert all(
        offset_at(at, BERLIN) == offset != offset_at(at - timedelta(seconds=1), BERLIN) for at, offset in found[1:]
    )
