"""Watches the station for all browsers together: one thread that looks for new records and at the station's status.

It asks for the newest row number ten times a second and reads only what is new, read only; the station never waits for it.
A record that cannot be read is counted as such, and is trouble only while it is the newest.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING

from inspection.errors import InspectionError, StoreError
from inspection.hmi.alarms import Alarm, Lately, Situation, alarms, situation
from inspection.hmi.backlog import Backlog, entry_of_record
from inspection.hmi.counts import SLOT, Counts, Entry, Shift, Slot, Tally
from inspection.log import event
from inspection.review_queue import ReviewQueue
from inspection.station_link import StationStatus, free_mb, is_stale, read_status, status_path
from inspection.store import UnreadableRecord
from inspection.types import Record, Verdict, utc_now

if TYPE_CHECKING:
    from inspection.hmi.context import Context

LOOK_S = 0.1
HURRY_S = 0.01  # between two pieces of what was recorded before the start
STATUS_S = 0.5
FIGURES_S = 5.0  # time goes on without parts: so often at least the figures are made anew
QUEUE_S = 15.0
FAST_S = 0.6  # parts that follow sooner are shown without cut-outs: nobody could look at them
LATELY_S = 600.0  # so long lost pictures are an alarm
ALIVE_S = 2.0
PIECE = 500
STRIP = 12  # parts that were not OK, kept in sight
TREND_SLOTS = 16
PARETO = 6


@dataclass(frozen=True, slots=True)
class Figures:
    """Counts of the present shift and lot.  ``complete``: nothing of before the start is missing in them."""

    shift: Shift
    of_shift: Tally
    lot: str
    of_lot: Tally
    pareto: tuple[tuple[str, int], ...]
    trend: tuple[Slot, ...]
    counting: bool
    complete: bool


@dataclass(frozen=True, slots=True)
class Sight:
    """All that the page shows, at one moment.

    ``record`` is the newest, ``rejected`` the last that were not OK; ``fast`` while parts follow each other so fast that
    only verdict and frame are worth showing.
    """

    situation: Situation
    record: Record | None
    fast: bool
    rejected: tuple[Record, ...]
    figures: Figures
    status: StationStatus | None
    trouble: InspectionError | None
    alarms: tuple[Alarm, ...]
    store_free_mb: float | None  # as the pages measure it
    stale: bool  # the status is old: nothing in it is the present state


class Watch:
    """Starts with the first who looks; ``close`` ends it."""

    def __init__(self, context: "Context") -> None:
        self._context = context
        self._counts = Counts(context.config.hmi.shifts)
        self._backlog: Backlog | None = None
        self._row = 0
        self._record: Record | None = None
        self._rejected: tuple[Record, ...] = ()
        self._status: StationStatus | None = None
        self._status_mark = 0
        self._free_mb: float | None = None
        self._unread: UnreadableRecord | None = None  # the newest record, where it cannot be read
        self._trouble: InspectionError | None = None
        self._lost: list[tuple[float, int, int]] = []  # when, skipped, failed since the station's start
        self._to_review = 0
        self._due: dict[str, float] = {}
        self._changed = True
        self._sight: Sight | None = None
        self._callers: set[Callable[[], None]] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._first = threading.Event()
        self._ticked_s = 0.0
        self._taken_s = -FAST_S
        self._fast = False
        self._errors = 0  # parts in a row, up to the newest
        self._thread: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Whether the thread looked lately: while it does not, nobody may be told that all is well."""
        return monotonic() - self._ticked_s < ALIVE_S

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def sight(self) -> Sight:
        """What is seen now; the first caller waits for the first look."""
        with self._lock:
            if self._thread is None and not self._ended.is_set():
                self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
                self._thread.start()
        self._first.wait(timeout=10)
        if self._sight is None:
            raise StoreError("the records cannot be watched", fix="start the pages again; their log says more")
        return self._sight

    def call(self, caller: Callable[[], None]) -> Callable[[], None]:
        """Have ``caller`` called, from the thread, after each change; gives what ends that."""
        with self._lock:
            self._callers.add(caller)

        def end() -> None:
            with self._lock:
                self._callers.discard(caller)

        return end

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._look()
            except Exception as error:  # without this thread every page would stand still: it goes on, and says so
                event("watch.failed", level=logging.ERROR, error=error)
                self._ended.wait(1.0)
                continue
            self._ticked_s = monotonic()
            self._first.set()
            self._ended.wait(LOOK_S if self._backlog is None or self._backlog.done else HURRY_S)

    def _look(self) -> None:
        before = self._trouble
        try:
            self._read_records()
            self._trouble = self._unread
        except StoreError as error:
            self._trouble = error
        self._changed |= (self._trouble and self._trouble.what) != (before and before.what)
        if self._fast and monotonic() - self._taken_s > FAST_S:
            self._fast, self._changed = False, True
        if self._is_due("status", STATUS_S):
            self._free_mb = free_mb(self._context.store.parent)
            self._read_status()
        if self._is_due("queue", QUEUE_S):
            self._count_queue()
        stale = self._status is not None and is_stale(self._status)
        lately = self._lately()
        now = situation(
            self._status,
            stale=stale,
            trouble=self._trouble is not None,
            parts=self._record is not None,
            full=lately.full,
        )
        shown = self._sight.situation if self._sight is not None else ""
        if self._changed or now != shown or self._is_due("figures", FIGURES_S):
            self._changed = False
            self._sight = self._seen(now, lately, stale=stale)
            with self._lock:
                callers = tuple(self._callers)
            for caller in callers:
                caller()

    def _is_due(self, name: str, every_s: float) -> bool:
        if monotonic() < self._due.get(name, 0.0):
            return False
        self._due[name] = monotonic() + every_s
        return True

    # ---- records

    def _read_records(self) -> None:
        reader = self._context.reader
        last = reader.last_rowid()
        if self._backlog is None or last < self._row:  # the first look, or a store that was made anew
            self._begin(last)
        while self._row < last and (found := reader.readable_after(self._row, PIECE)):
            for row, record in found:
                if isinstance(record, UnreadableRecord):
                    self._pass_over(row, record)
                else:
                    self._take(row, record)
        if self._backlog is not None and not self._backlog.done:
            older = [record for record in self._backlog.step(reader) if record not in self._rejected]
            self._rejected = (*self._rejected, *older)[:STRIP]
            self._changed = True

    def _begin(self, last: int) -> None:
        self._counts = Counts(self._context.config.hmi.shifts)
        since = min(self._counts.shift(utc_now()).begin, utc_now() - TREND_SLOTS * SLOT)
        newest = next((found for _, found in self._context.reader.readable_before(last + 1, 1)), None)
        self._backlog = Backlog(self._counts, last + 1, since - timedelta(minutes=5))
        self._row, self._rejected, self._changed, self._errors = last, (), True, 0
        self._unread = newest if isinstance(newest, UnreadableRecord) else None
        self._record = None if isinstance(newest, UnreadableRecord) else newest
        if self._record is not None and self._record.trigger.lot:
            self._backlog.want_lot(self._record.trigger.lot, last + 1)

    def _take(self, row: int, record: Record) -> None:
        entry = entry_of_record(record)
        self._count(row, entry)
        self._errors = self._errors + 1 if entry.verdict == Verdict.ERROR else 0
        if entry.verdict != Verdict.OK:
            self._rejected = (record, *self._rejected)[:STRIP]
        self._row, self._record, self._unread, self._changed = row, record, None, True
        self._fast = monotonic() - self._taken_s < FAST_S
        self._taken_s = monotonic()

    def _pass_over(self, row: int, error: UnreadableRecord) -> None:
        """Count a record that cannot be read for the shift and lot that its row names."""
        for outline in self._context.reader.outlines_before(row + 1, 1):
            self._count(row, Entry(outline.lot, outline.verdict, outline.judged_at, unreadable=True))
        self._row, self._record, self._unread, self._changed = row, None, error, True

    def _count(self, row: int, entry: Entry) -> None:
        self._counts.add(entry)
        if entry.lot:
            if self._backlog is not None and not self._counts.knows_lot(entry.lot) and not self._counting(entry.lot):
                self._backlog.want_lot(entry.lot, row)
            self._counts.add_to_lot(entry)

    def _counting(self, lot: str) -> bool:
        return self._backlog is not None and self._backlog.counting_lot(lot)

    # ---- the station

    def _read_status(self) -> None:
        try:
            mark = status_path(self._context.store).stat().st_mtime_ns
        except OSError:
            mark = 0
        if mark == self._status_mark and self._status is not None:
            return
        status = read_status(self._context.store) if mark else None
        self._status_mark = mark
        self._changed |= status != self._status
        self._status = status
        if status is not None:
            self._lost.append((monotonic(), status.evidence.skipped, status.evidence.failed))
            if (status.evidence.skipped, status.evidence.failed) < self._lost[0][1:]:
                self._lost = self._lost[-1:]  # the station was started anew
            self._lost = [row for row in self._lost[-2000:] if row[0] > monotonic() - LATELY_S] or self._lost[-1:]

    def _count_queue(self) -> None:
        with suppress(InspectionError):  # the review page itself says what is wrong with its file
            share = self._context.config.hmi.review_ok_share
            queue = ReviewQueue(self._context.reviews, self._context.reader, ok_share=share)
            queue.look(budget_s=0.05)
            self._to_review = queue.counts("").waiting

    # ---- what is shown

    def _why(self) -> str:
        """The reason of the newest part, as the station gave it."""
        reasons = self._record.judgement.reasons if self._record is not None else ()
        return reasons[0].text if reasons else ""

    def _lately(self) -> Lately:
        _, skipped, failed = self._lost[-1] if self._lost else (0.0, 0, 0)
        _, skipped_before, failed_before = self._lost[0] if self._lost else (0.0, 0, 0)
        return Lately(
            skipped - skipped_before, failed - failed_before, self._to_review,
            self._context.config.evidence.min_free_mb, self._errors, self._why(), self._free_mb,
        )  # fmt: skip

    def _seen(self, now: Situation, lately: Lately, *, stale: bool) -> Sight:
        return Sight(
            now, self._record, self._fast, self._rejected, self._figures(), self._status, self._trouble,
            alarms(self._status, stale=stale, trouble=self._trouble, lately=lately), self._free_mb, stale,
        )  # fmt: skip

    def _figures(self) -> Figures:
        at = utc_now()
        lot = self._record.trigger.lot if self._record is not None else ""
        backlog = self._backlog
        return Figures(
            shift=self._counts.shift(at), of_shift=self._counts.of_shift(at), lot=lot, of_lot=self._counts.of_lot(lot),
            pareto=self._counts.pareto(at, PARETO), trend=self._counts.trend(at, TREND_SLOTS),
            counting=backlog is not None and not backlog.done, complete=backlog is not None and backlog.complete,
        )  # fmt: skip
