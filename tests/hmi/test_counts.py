"""Counts by shift, lot and half hour."""

from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspection.hmi.counts import (
    LOTS_KEPT,
    NAMES_KEPT,
    OTHERS,
    SLOT,
    Counts,
    Entry,
    Tally,
    names_of,
    shift_at,
)
from inspection.types import Detection, Judgement, Reason, Region, Verdict, error_judgement

STARTS = ("06:00", "14:00", "22:00")
BERLIN, SHANGHAI, KOLKATA = ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Shanghai"), ZoneInfo("Asia/Kolkata")
NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
moments = st.datetimes(datetime(2026, 3, 9), datetime(2026, 3, 11), timezones=st.just(UTC))
any_moment = st.datetimes(datetime(2024, 1, 1), datetime(2028, 12, 31), timezones=st.just(UTC))
zones = st.sampled_from([BERLIN, SHANGHAI, KOLKATA, ZoneInfo("America/St_Johns"), ZoneInfo("Australia/Lord_Howe"), UTC])
starts = st.lists(
    st.times().map(lambda time: time.strftime("%H:%M")), min_size=1, max_size=6, unique=True
).map(lambda times: tuple(sorted(times)))  # fmt: skip
entries = st.builds(
    Entry, st.sampled_from(["", "A", "B"]), st.sampled_from(Verdict), moments,
    st.lists(st.sampled_from(["open", "short", "pin-hole"]), max_size=2, unique=True).map(tuple),
)  # fmt: skip


def counted(given_entries: list[Entry]) -> Counts:
    counts = Counts(STARTS, BERLIN)
    for entry in given_entries:
        counts.add(entry)
        counts.add_to_lot(entry)
    return counts


@given(st.lists(entries, max_size=60), st.randoms(use_true_random=False), moments)
def test_counts_equal_a_recount_whatever_the_order(given_entries: list[Entry], random: object, now: datetime) -> None:
    """Counting one after the other, in any order, gives what counting all anew for a moment gives."""
    shuffled = list(given_entries)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    counts = counted(shuffled)
    shift = shift_at(now, STARTS, BERLIN)
    inside = [entry for entry in given_entries if shift.holds(entry.judged_at)]
    verdicts = Counter(entry.verdict for entry in inside)
    wanted = Tally(verdicts[Verdict.OK], verdicts[Verdict.NG], verdicts[Verdict.REVIEW], verdicts[Verdict.ERROR])
    assert wanted == counts.of_shift(now)
    assert Counter(name for entry in inside for name in entry.names) == Counter(dict(counts.pareto(now, 10)))
    for lot in ("", "A", "B"):
        assert sum(entry.lot == lot for entry in given_entries) == counts.of_lot(lot).parts
    slots = counts.trend(now, 16)
    known = [entry for entry in given_entries if slots[0].begin <= entry.judged_at < slots[-1].begin + SLOT]
    assert len(known) == sum(slot.tally.parts for slot in slots)


@given(any_moment, starts, zones)
def test_shifts_follow_each_other_without_gap(at: datetime, times: tuple[str, ...], zone: ZoneInfo) -> None:
    """Every moment lies in exactly one shift, also where clocks are set forward or back."""
    shift = shift_at(at, times, zone)
    assert shift.holds(at)
    assert shift.end == shift_at(shift.end, times, zone).begin
    assert shift == shift_at(shift.end - timedelta(microseconds=1), times, zone)
    assert shift == shift_at(shift.begin, times, zone)
    assert shift.end - shift.begin <= timedelta(hours=25)


@pytest.mark.parametrize(
    ("day", "hours"),
    [(datetime(2026, 3, 28, 23, tzinfo=UTC), 7), (datetime(2026, 10, 24, 23, tzinfo=UTC), 9), (NOW, 8)],
)
def test_night_shift_is_as_long_as_the_clocks_make_it(day: datetime, hours: int) -> None:
    """A shift begins and ends at its local time in the nights in which clocks are set."""
    night = shift_at(day.replace(hour=23), STARTS, BERLIN)
    assert timedelta(hours=hours) == night.end - night.begin
    assert "22:00 06:00" == f"{night.begin.astimezone(BERLIN):%H:%M} {night.end.astimezone(BERLIN):%H:%M}"


def test_shift_of_the_computers_own_zone() -> None:
    """Without a zone the computer's local time counts."""
    begin = shift_at(NOW, ("06:00",)).begin.astimezone()
    assert (6, 0) == (begin.hour, begin.minute)


def test_yield_leaves_errors_out() -> None:
    """A part that could not be judged is neither good nor bad; without judged parts there is no yield."""
    assert 0.75 == Tally(ok=3, ng=1, error=6).share_ok
    assert Tally(error=2).share_ok is None


def test_records_that_cannot_be_read_are_counted_apart() -> None:
    """They are in no other number of their shift and lot."""
    counts = counted([Entry("A", Verdict.NG, NOW, unreadable=number < 2) for number in range(5)])
    assert Tally(ng=3, unreadable=2) == counts.of_shift(NOW) == counts.of_lot("A")
    assert 3 == counts.of_shift(NOW).parts


def test_simulated_parts_are_counted_apart() -> None:
    """Of each shift and lot it is known how many of its parts were no production."""
    counts = counted([Entry("A", Verdict.OK, NOW, simulated=number < 2) for number in range(5)])
    assert (5, 2) == (counts.of_shift(NOW).parts, counts.of_shift(NOW).simulated)
    assert (5, 2) == (counts.of_lot("A").parts, counts.of_lot("A").simulated)


def test_what_is_kept_is_bounded() -> None:
    """Thousands of lots and names of defects take no more room than a few."""
    many = [
        Entry(f"lot-{number}", Verdict.NG, NOW + timedelta(days=number % 30), (f"name-{number}",))
        for number in range(3000)
    ]
    counts = counted(many)
    assert not counts.knows_lot("lot-0")
    assert LOTS_KEPT == sum(counts.knows_lot(f"lot-{number}") for number in range(3000))
    same_shift = counted([Entry("", Verdict.NG, NOW, (f"name-{number}",)) for number in range(1000)])
    names = dict(same_shift.pareto(NOW, 10**6))
    assert (NAMES_KEPT + 1, 1000 - NAMES_KEPT) == (len(names), names[OTHERS])


def test_parts_are_counted_once_a_class() -> None:
    """Three findings of a class on one part are one part with that class; an ERROR counts under its rule."""
    found = tuple(Detection("short", 0.9, Region((x, 0, x + 5, 5))) for x in (0, 10, 20))
    assert ("short",) == names_of(Judgement(Verdict.NG, (Reason("ng.short", "three", found),)))
    assert ("camera.timeout",) == names_of(error_judgement("camera.timeout", "late"))
    strange = Judgement(Verdict.ERROR, (Reason("judge.no_rule", "strange", found),))
    assert ("judge.no_rule",) == names_of(strange)


def test_shift_of_a_moment_in_another_zone() -> None:
    """Moments may carry any zone."""
    at = datetime(2026, 3, 10, 7, 30, tzinfo=timezone(timedelta(hours=1)))
    assert datetime(2026, 3, 10, 5, 0, tzinfo=UTC) == shift_at(at, STARTS, BERLIN).begin
