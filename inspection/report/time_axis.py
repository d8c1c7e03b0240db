"""The axis of local time under a chart: hours since its begin, with marks where a day, a half day or an hour begins."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from matplotlib.axes import Axes

_STEPS_H = (1, 2, 3, 6, 12, 24, 48, 72, 168, 336, 720, 1440, 4320, 8760)
_MOST_TICKS = 14


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """Moments as hours since ``begin`` (UTC); ``zone`` None is the zone of this computer."""

    begin: datetime
    end: datetime
    zone: tzinfo | None = None

    def hours(self, at: datetime) -> float:
        """Where a moment stands."""
        return (at - self.begin).total_seconds() / 3600

    @property
    def length(self) -> float:
        """Hours from begin to end, at least one."""
        return max(1.0, self.hours(self.end))

    def dress(self, axes: Axes) -> None:
        """Marks and limits of the lower axis."""
        places, labels = self.ticks()
        axes.set_xlim(-0.01 * self.length, 1.01 * self.length)
        axes.set_xticks(places, labels)

    def ticks(self) -> tuple[list[float], list[str]]:
        """Places and their texts: local midnights, or hours of the day where the span is short."""
        step = next((step for step in _STEPS_H if self.length / step <= _MOST_TICKS), _STEPS_H[-1])
        local = self.begin.astimezone(self.zone)
        midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
        count = int((self.length + 24) // step) + 2
        moments = [_later(midnight, step * number, self.zone) for number in range(count)]
        inside = [at for at in moments if -1e-9 <= self.hours(at) <= self.length]
        return [self.hours(at) for at in inside], self._labels(inside, step)

    def _labels(self, moments: Sequence[datetime], step: int) -> list[str]:
        if step >= 24:
            return [f"{at:%m-%d}" for at in moments]
        labels, day = [], ""
        for at in moments:
            here = f"{at:%m-%d}"
            labels.append(f"{at:%H:%M}" if here == day else f"{at:%H:%M}\n{here}")
            day = here
        return labels


def _later(midnight: datetime, hours: int, zone: tzinfo | None) -> datetime:
    """A local time so many hours of the clock later: days stay days where clocks are set forward or back."""
    days, rest = divmod(hours, 24)
    naive = midnight.replace(tzinfo=None) + timedelta(days=days, hours=rest)
    return (naive.replace(tzinfo=zone) if zone is not None else naive).astimezone(UTC).astimezone(zone)
