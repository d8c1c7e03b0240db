"""Counts parts by shift, lot and half hour, one record after the other.  No clock, disk or network.

The order in which records come does not matter, so that those of before a start may be counted from the newest backwards
while new ones arrive.  What is kept is bounded: the shifts, half hours, lots and names that were used last.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import TypeVar

from inspection.judge import asked_for
from inspection.types import Judgement, Verdict

Key = TypeVar("Key", bound=Hashable)
Kept = TypeVar("Kept")
SLOT = timedelta(minutes=30)
SHIFTS_KEPT, SLOTS_KEPT, LOTS_KEPT, NAMES_KEPT = 12, 400, 64, 200
OTHERS = ""  # the name under which defects beyond NAMES_KEPT are counted
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Entry:
    """What counts of a record.  ``names`` are its defect classes, or the rules that made it an ERROR, each once.

    Of an ``unreadable`` one it counts only that it could not be read.
    """

    lot: str
    verdict: Verdict
    judged_at: datetime
    names: tuple[str, ...] = ()
    simulated: bool = False
    unreadable: bool = False


@dataclass(frozen=True, slots=True)
class Tally:
    """Parts by verdict; ``simulated`` of all of them were no production.  ``unreadable`` further ones are in no number."""

    ok: int = 0
    ng: int = 0
    review: int = 0
    error: int = 0
    simulated: int = 0
    unreadable: int = 0

    @property
    def parts(self) -> int:
        """All of them that could be read."""
        return self.ok + self.ng + self.review + self.error

    @property
    def share_ok(self) -> float | None:
        """The yield: OK parts of those that could be judged, 0..1; None while there are none."""
        judged = self.parts - self.error
        return self.ok / judged if judged else None

    def plus(self, entry: Entry) -> "Tally":
        """With one part more."""
        if entry.unreadable:
            return replace(self, unreadable=self.unreadable + 1)
        name = entry.verdict.name.lower()
        return replace(self, **{name: getattr(self, name) + 1}, simulated=self.simulated + entry.simulated)


@dataclass(frozen=True, slots=True)
class Shift:
    """From ``begin`` to before ``end``, UTC."""

    begin: datetime
    end: datetime

    def holds(self, at: datetime) -> bool:
        """Whether a moment lies in it."""
        return self.begin <= at < self.end


@dataclass(frozen=True, slots=True)
class Slot:
    """A half hour that begins at ``begin`` (UTC)."""

    begin: datetime
    tally: Tally


def names_of(judgement: Judgement) -> tuple[str, ...]:
    """What a part is counted under beside its verdict: defect classes, or for a reason without findings its rule."""
    names: dict[str, None] = {}
    for reason in judgement.reasons:
        classes = [found.defect_class for found in reason.detections if asked_for(reason) != Verdict.ERROR]
        names.update(dict.fromkeys(classes or [reason.rule_id]))
    return tuple(names)


def shift_at(at: datetime, starts: Sequence[str], zone: tzinfo | None = None) -> Shift:
    """The shift that a moment lies in; ``starts`` are HH:MM in local time (``zone``, or that of the computer).

    Clocks that are set forward or back make a shift an hour shorter or longer; it begins at its local time all the same.
    """
    day = at.astimezone(zone).date()
    begins = sorted({_moment(day + timedelta(days=off), start, zone) for off in range(-2, 3) for start in starts})
    last = max(index for index, begin in enumerate(begins) if begin <= at)
    return Shift(begins[last], begins[last + 1])


def _moment(day: date, start: str, zone: tzinfo | None) -> datetime:
    return datetime.combine(day, time.fromisoformat(start), zone).astimezone(UTC)


class Counts:
    """The running counts of one station."""

    def __init__(self, starts: Sequence[str], zone: tzinfo | None = None) -> None:
        self._starts = tuple(starts)
        self._zone = zone
        self._last: Shift | None = None
        self._shifts: OrderedDict[datetime, Tally] = OrderedDict()
        self._names: OrderedDict[datetime, Counter[str]] = OrderedDict()
        self._slots: OrderedDict[int, Tally] = OrderedDict()
        self._lots: OrderedDict[str, Tally] = OrderedDict()

    def add(self, entry: Entry) -> None:
        """Count a part for its shift and half hour; for its lot by ``add_to_lot``."""
        begin = self.shift(entry.judged_at).begin
        _used(self._shifts, begin, Tally, SHIFTS_KEPT)
        self._shifts[begin] = self._shifts[begin].plus(entry)
        names = _used(self._names, begin, Counter, SHIFTS_KEPT)
        for name in entry.names:
            names[name if name in names or len(names) < NAMES_KEPT else OTHERS] += 1
        slot = _slot(entry.judged_at)
        self._slots[slot] = _used(self._slots, slot, Tally, SLOTS_KEPT).plus(entry)

    def add_to_lot(self, entry: Entry) -> None:
        """Count a part for its lot."""
        self._lots[entry.lot] = _used(self._lots, entry.lot, Tally, LOTS_KEPT).plus(entry)

    def shift(self, at: datetime) -> Shift:
        """The shift a moment lies in."""
        if self._last is None or not self._last.holds(at):
            self._last = shift_at(at, self._starts, self._zone)
        return self._last

    def of_shift(self, at: datetime) -> Tally:
        """Parts of the shift that a moment lies in."""
        return self._shifts.get(self.shift(at).begin, Tally())

    def of_lot(self, lot: str) -> Tally:
        """Parts of a lot."""
        return self._lots.get(lot, Tally())

    def knows_lot(self, lot: str) -> bool:
        """Whether parts of a lot were counted, and not too many other lots since."""
        return lot in self._lots

    def pareto(self, at: datetime, most: int) -> tuple[tuple[str, int], ...]:
        """What parts of the shift were rejected for, and how many of each, the commonest first."""
        names = self._names.get(self.shift(at).begin, Counter())
        return tuple(sorted(names.items(), key=lambda item: (-item[1], item[0])))[:most]

    def trend(self, at: datetime, slots: int) -> tuple[Slot, ...]:
        """The last half hours up to the one that a moment lies in, oldest first."""
        last = _slot(at)
        return tuple(
            Slot(_EPOCH + number * SLOT, self._slots.get(number, Tally()))
            for number in range(last - slots + 1, last + 1)
        )


def _slot(at: datetime) -> int:
    return (at - _EPOCH) // SLOT


def _used(kept: "OrderedDict[Key, Kept]", key: Key, new: Callable[[], Kept], most: int) -> Kept:
    """What is kept under a key, made where there is none; the one that was not used for longest makes room."""
    if key not in kept:
        kept[key] = new()
        if len(kept) > most:
            kept.popitem(last=False)
    kept.move_to_end(key)
    return kept[key]
