"""The axis of local time under a chart: hours since its begin, with marks where a day, a half day or an hour begins."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from matplotlib.axes import Axes

from inspection.report.local_time import moments, offset_at, signed

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
        midnight = local.replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0)
        count = int((self.length + 24) // step) + 2
        clocks = (midnight + timedelta(hours=step * number) for number in range(count))
        marks = sorted({at for clock in clocks for at in moments(clock, self.zone)[: 1 if step >= 24 else 2]})
        inside = [at for at in marks if -1e-9 <= self.hours(at) <= self.length]
        return [self.hours(at) for at in inside], self._labels(inside, step)

    def _labels(self, marks: Sequence[datetime], step: int) -> list[str]:
        """Of hours that the clock shows twice each has its offset."""
        if step >= 24:
            return [f"{at.astimezone(self.zone):%m-%d}" for at in marks]
        labels, day = [], ""
        for at in marks:
            local = at.astimezone(self.zone)
            here = f"{local:%m-%d}"
            twice = signed(offset_at(at, self.zone)) if len(moments(local, self.zone)) > 1 else ""
            below = " ".join(filter(None, ("" if here == day else here, twice)))
            labels.append(f"{local:%H:%M}\n{below}" if below else f"{local:%H:%M}")
            day = here
        return labels
