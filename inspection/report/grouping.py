"""Parts by hour, by shift and by lot.  Shifts begin at local times, and hours with the local hour."""

from collections.abc import Sequence
from datetime import datetime, timedelta, tzinfo

import polars as pl

from inspection.hmi.counts import shift_at
from inspection.report.contents import GroupRow, HourRow, Tally
from inspection.report.counting import TALLY, first_pass_yield
from inspection.report.facts import Facts

HOUR = timedelta(hours=1)
MOST_HOURS = 2000  # up to which hours without a part have a row too


def with_findings(facts: Facts) -> pl.DataFrame:
    """rowid, judged_at, verdict, lot, and how many findings reasons of the part name."""
    counted = facts.findings.filter("decisive").group_by("rowid").agg(pl.len().alias("findings"))
    parts = facts.parts.select("rowid", "judged_at", "verdict", "lot").drop_nulls("judged_at")
    return parts.join(counted, on="rowid", how="left").with_columns(pl.col("findings").fill_null(0))


def hour_of(zone: tzinfo | None, first: datetime) -> pl.Expr:
    """The hour of ``judged_at``: whole hours of local time, whose offset need not be whole hours."""
    offset = first.astimezone(zone).utcoffset() or timedelta()
    odd = offset % HOUR
    return (pl.col("judged_at") + odd).dt.truncate("1h") - odd


def hours(parts: pl.DataFrame, zone: tzinfo | None) -> tuple[HourRow, ...]:
    """Parts (of ``with_findings``) by the hour, the earliest first."""
    if parts.is_empty():
        return ()
    begin = hour_of(zone, parts["judged_at"].min()).alias("begin")  # type: ignore[arg-type]
    counted = parts.group_by(begin).agg(*TALLY, pl.col("findings").sum())
    rows = {row[0]: HourRow(row[0], Tally(*row[1:5]), row[5]) for row in counted.iter_rows()}
    first, last = min(rows), max(rows)
    every = (last - first) // HOUR + 1
    if every > MOST_HOURS:
        return tuple(rows[at] for at in sorted(rows))
    begins = (first + number * HOUR for number in range(every))
    return tuple(rows.get(at) or HourRow(at, Tally(), 0) for at in begins)


def shifts(parts: pl.DataFrame, starts: Sequence[str], zone: tzinfo | None) -> tuple[GroupRow, ...]:
    """Parts by the shift; shifts without a part are left out."""
    named = _shifts_of(parts, starts, zone)
    if not named:
        return ()
    begins = pl.DataFrame({"begin": list(named)}, schema={"begin": pl.Datetime("us", "UTC")})
    sorted_parts = parts.sort("judged_at").join_asof(begins, left_on="judged_at", right_on="begin")
    counted = sorted_parts.group_by("begin").agg(*TALLY, pl.col("findings").sum()).sort("begin")
    return tuple(_row(named[row[0]][0], row[0], named[row[0]][1], row[1:]) for row in counted.iter_rows())


def _shifts_of(parts: pl.DataFrame, starts: Sequence[str], zone: tzinfo | None) -> dict[datetime, tuple[str, datetime]]:
    """Name and end of each shift that has parts, by its begin."""
    found: dict[datetime, tuple[str, datetime]] = {}
    for hour in parts.select(pl.col("judged_at").dt.truncate("1h").unique().sort()).to_series():
        for at in (hour, hour + HOUR - timedelta(microseconds=1)):  # a shift may begin within the hour
            shift = shift_at(at, starts, zone)
            found[shift.begin] = (shift_name(shift.begin, starts, zone), shift.end)
    return dict(sorted(found.items()))


def shift_name(begin: datetime, starts: Sequence[str], zone: tzinfo | None) -> str:
    """DATE/NUMBER of the shift that begins then; the shifts of a day are numbered from 1."""
    local = begin.astimezone(zone)
    # Where clocks were set forward over it, a shift begins later than its time says.
    number = sum(start <= local.strftime("%H:%M") for start in starts)
    return f"{local.date().isoformat()}/{max(1, number)}"


def lots(parts: pl.DataFrame) -> tuple[GroupRow, ...]:
    """Parts by the lot, in the order of their first records; parts without a lot are one group with an empty name."""
    spans = (pl.col("judged_at").min().alias("begin"), pl.col("judged_at").max().alias("end"), pl.col("rowid").min())
    counted = parts.group_by("lot").agg(*TALLY, pl.col("findings").sum(), *spans).sort("rowid")
    return tuple(_row(str(row[0] or ""), row[6], row[7], row[1:6]) for row in counted.iter_rows())


def _row(name: str, begin: datetime, end: datetime, counts: Sequence[int]) -> GroupRow:
    tally = Tally(*counts[:4])
    return GroupRow(name, begin, end, tally, counts[4], first_pass_yield(tally))
