"""Counts what was recorded before the pages were started: backwards, in small pieces, no further than is shown."""

from datetime import datetime

from inspection.hmi.counts import Counts, Entry, names_of
from inspection.record_reader import Outline, RecordReader
from inspection.types import Record

PIECE = 1000  # records a step reads
MOST = 500_000  # records of before the start that are counted
MOST_OF_LOT = 200_000


class Backlog:
    """What is still to be counted: the records before row ``row`` down to those of ``since``, and those of lots."""

    def __init__(self, counts: Counts, row: int, since: datetime) -> None:
        self.complete = True  # false once a bound was reached: the counts are lower bounds then
        self._counts = counts
        self._row = row
        self._since = since
        self._left = MOST
        self._lots: dict[
            str, tuple[int, int]
        ] = {}  # lot: row before which its records are not counted yet, and how many may

    @property
    def done(self) -> bool:
        """Whether nothing waits to be counted."""
        return self._row <= 1 and not self._lots

    def counting_lot(self, lot: str) -> bool:
        """Whether records of a lot wait to be counted."""
        return lot in self._lots

    def want_lot(self, lot: str, row: int) -> None:
        """Count also the records of a lot before a row."""
        self._lots[lot] = (row, MOST_OF_LOT)

    def step(self, reader: RecordReader) -> list[Record]:
        """Count a piece; gives its records that are not OK, newest first.  Raises StoreError."""
        if self._row > 1:
            return self._step_back(reader)
        if self._lots:
            self._step_lot(reader, next(iter(self._lots)))
        return []

    def _step_back(self, reader: RecordReader) -> list[Record]:
        found = reader.outlines_before(self._row, PIECE)
        for outline in found:
            self._counts.add(entry_of(outline))
        self._left -= len(found)
        self._row = found[-1].rowid if found else 0
        # A clock that was set does not end it early: a whole piece must be of before.
        if all(outline.judged_at < self._since for outline in found):
            self._row = 0
        elif self._left <= 0:
            self._row, self.complete = 0, False
        return [outline.record for outline in found if outline.record is not None]

    def _step_lot(self, reader: RecordReader, lot: str) -> None:
        row, left = self._lots[lot]
        found = reader.outlines_of_lot(lot, row, PIECE)
        for outline in found:
            self._counts.add_to_lot(entry_of(outline))
        left -= len(found)
        if left <= 0:
            self.complete = False
        if len(found) < PIECE or left <= 0:
            del self._lots[lot]
        else:
            self._lots[lot] = (found[-1].rowid, left)


def entry_of(outline: Outline) -> Entry:
    """What counts of a record."""
    names = names_of(outline.record.judgement) if outline.record is not None else ()
    return Entry(
        outline.lot, outline.verdict, outline.judged_at, names, outline.simulated, unreadable=outline.unreadable
    )


def entry_of_record(record: Record) -> Entry:
    """The same of a whole record."""
    names = names_of(record.judgement)
    return Entry(record.trigger.lot, record.judgement.verdict, record.judged_at, names, record.simulated)
