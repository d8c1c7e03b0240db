"""The station's clock: local time as it was at each moment, also where clocks were set forward or back.

``zone`` None is the zone of this computer throughout.
"""

from datetime import UTC, datetime, timedelta, tzinfo

DAY, SECOND = timedelta(days=1), timedelta(seconds=1)
Offsets = tuple[tuple[datetime, timedelta], ...]


def offset_at(at: datetime, zone: tzinfo | None) -> timedelta:
    """How far local time is ahead of UTC at a moment."""
    return at.astimezone(zone).utcoffset() or timedelta()


def offsets(first: datetime, last: datetime, zone: tzinfo | None) -> Offsets:
    """The offset from UTC at ``first``, and each that came into force up to ``last`` with the second at which it did."""
    at = first.astimezone(UTC)
    found = [(at, offset_at(at, zone))]
    while at < last:
        before, at = at, min(at + DAY, last.astimezone(UTC))
        offset = offset_at(at, zone)
        if offset != found[-1][1]:
            found.append((_changed(before, at, zone), offset))
    return tuple(found)


def _changed(before: datetime, after: datetime, zone: tzinfo | None) -> datetime:
    """When the offset that holds at ``after`` came into force."""
    new = offset_at(after, zone)
    while after - before > SECOND:
        middle = before + (after - before) / 2
        before, after = (before, middle) if offset_at(middle, zone) == new else (middle, after)
    return after.replace(microsecond=0)


def moments(clock: datetime, zone: tzinfo | None) -> tuple[datetime, ...]:
    """When (UTC) a local clock shows this: twice where it was set back over it, and once, later, where it was set forward."""
    first, again = (
        (naive if zone is None else naive.replace(tzinfo=zone)).astimezone(UTC)
        for naive in (clock.replace(tzinfo=None, fold=fold) for fold in (0, 1))
    )
    return (first, again) if again > first else (first,)


def on_the_clock(at: datetime, pattern: str, zone: tzinfo | None) -> str:
    """A moment on the station's clock; one that it showed twice has its offset behind it."""
    local = at.astimezone(zone)
    text = local.strftime(pattern)
    return f"{text} ({zone_name(offset_at(at, zone))})" if len(moments(local, zone)) > 1 else text


def signed(offset: timedelta) -> str:
    """An offset from UTC: +08:00, -03:30."""
    minutes = round(offset.total_seconds() / 60)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"


def zone_name(offset: timedelta) -> str:
    """The zone in words: UTC, UTC+08:00, UTC-03:30."""
    return f"UTC{signed(offset)}" if offset else "UTC"
