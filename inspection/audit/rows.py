"""The rows of one table against the entries of the chain that were made with them, in one pass over both.

Where the two differ, the nearest place where they agree again is looked for, as a comparison of two texts does; what lies
between is then told apart (``differences``).
"""

import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Generic, TypeVar

from inspection.audit.delays import Delays
from inspection.audit.differences import Entry, Row, Stretch, Table, meeting, told_apart
from inspection.audit.files import UNREADABLE
from inspection.audit.findings import MOST_KEPT, Finding, Findings
from inspection.audit.links import ChainAudit
from inspection.chain import canonical

WINDOWS = (8, 64, 512, 8192)  # how far is looked for the next place where rows and entries agree
Observer = Callable[[int, tuple[object, ...]], None]


@dataclass(slots=True)
class TableAudit:
    """What the rows of a table say.  ``where`` are the rows of entries that the chain itself is doubted at."""

    rows: int = 0
    uncovered: int = 0
    proven: int = 0
    newer: int = 0
    last_proven: Row | None = None
    where: dict[int, Row] = field(default_factory=dict)
    findings: Findings = field(default_factory=Findings)
    ended: str = ""


Item = TypeVar("Item")


class _Ahead(Generic[Item]):
    """An iterator that can be looked ahead into; ``ended`` says why SQLite could not read on."""

    def __init__(self, source: Iterable[Item]) -> None:
        self._source = iter(source)
        self._seen: deque[Item] = deque()
        self.ended = ""

    def pop(self) -> Item | None:
        return self._seen.popleft() if self._seen else self._read()

    def back(self, *items: Item) -> None:
        self._seen.extendleft(reversed(items))

    def ahead(self, count: int) -> list[Item]:
        while len(self._seen) < count and (item := self._read()) is not None:
            self._seen.append(item)
        return [self._seen[i] for i in range(min(count, len(self._seen)))]

    def _read(self) -> Item | None:
        try:
            return next(self._source, None)
        except UNREADABLE as error:
            self.ended = str(error)
            self._source = iter(())
            return None


class _Comparison:
    def __init__(
        self, database: sqlite3.Connection, table: Table, chain: ChainAudit, delays: Delays, observe: Observer | None
    ) -> None:
        self.said = TableAudit()
        self._table = table
        self._chain = chain
        self._delays = delays
        self._wanted = {finding.entry for finding in chain.findings.kept}
        self._stretches: list[Stretch] = []
        self._dropped = 0
        self._after = 0  # number of the last row that was passed
        self._proven = iter(chain.proven)
        self._span = next(self._proven, None)
        self._newest = chain.last_head.sequence if chain.last_head else 0
        self._entries = _Ahead(_entries(database, table.kind))
        self._rows = _Ahead(_rows(database, table.sql, observe))

    def run(self) -> TableAudit:
        self._skip_uncovered()
        pop_entry, pop_row, agree = self._entries.pop, self._rows.pop, self._agree
        while True:
            entry, row = pop_entry(), pop_row()
            if entry is not None and row is not None:
                if row.digest == entry.digest and row.subject == entry.subject:
                    agree(entry, row)
                    continue
            elif entry is None and row is None:
                break
            if entry is not None:
                self._entries.back(entry)
            if row is not None:
                self._rows.back(row)
            if self._rows.ended or self._entries.ended:
                break  # the rest cannot be told
            self._differ()
        self._end()
        return self.said

    def _agree(self, entry: Entry, row: Row) -> None:
        said = self.said
        said.rows += 1
        self._after = row.number
        while self._span is not None and entry.sequence > self._span[1]:
            self._span = next(self._proven, None)
        if self._span is not None and entry.sequence >= self._span[0]:
            said.proven += 1
            said.last_proven = row
        if entry.sequence > self._newest:
            said.newer += 1
        self._delays.saw(self._table.name, entry.sequence, row.number, row.at)
        if entry.sequence in self._wanted:
            said.where[entry.sequence] = row

    def _skip_uncovered(self) -> None:
        """Pass the rows from before the chain: their count and their last number are its first content."""
        begin = self._chain.begins.get(self._table.name)
        if begin is None:
            return
        passed: list[Row] = []
        count = 0
        while (row := self._rows.pop()) is not None:
            count += 1
            passed = [*passed[-3:], row]
            if sha256(canonical([count, row.number])).digest() == begin:
                self.said.uncovered = self.said.rows = count
                self._after = row.number
                return
        what = (
            "the number of rows from before the chain is not what its first entry says: some were added or taken away"
        )
        self.said.findings.add(Finding("altered", what, table=self._table.name, entry=1, place=0))
        self.said.uncovered = self.said.rows = count
        self._entries = _Ahead(())  # no row can be told from the others

    def _differ(self) -> None:
        """Put aside the entries and rows up to the next place where both agree."""
        entries, rows = self._tomeeting()
        place = entries[0].sequence if entries else self._next_place()
        self.said.rows += len(rows)
        for entry, row in zip(entries, rows, strict=False):
            if entry.sequence in self._wanted:
                self.said.where[entry.sequence] = row
        if len(entries) == len(rows) == 1 and entries[0].sequence in self._chain.broken:
            pass  # the entry is what was altered; whether the row was too cannot be told
        elif len(self._stretches) < MOST_KEPT:
            self._stretches.append(Stretch(entries, rows, self._after, place))
        else:
            self._dropped += max(len(entries), len(rows))
        if rows:
            self._after = rows[-1].number

    def _next_place(self) -> float:
        following = self._entries.ahead(1)
        if not following:
            return self._chain.last + 0.5
        # An entry that is doubted comes first: the rows may well stand as they were.
        return following[0].sequence + (0.5 if following[0].sequence in self._chain.broken else -0.5)

    def _tomeeting(self) -> tuple[list[Entry], list[Row]]:
        entries, rows = self._entries.ahead(1), self._rows.ahead(1)
        if self._table.once and entries and rows and entries[0].subject == rows[0].subject:
            return self._take(1, 1)
        for window in WINDOWS:
            entries, rows = self._entries.ahead(window), self._rows.ahead(window)
            met = meeting(entries, rows)
            if met is not None:
                return self._take(*met)
            if len(entries) < window and len(rows) < window:
                break
        return self._take(len(entries), len(rows))

    def _take(self, entries: int, rows: int) -> tuple[list[Entry], list[Row]]:
        return _popped(self._entries, entries), _popped(self._rows, rows)

    def _end(self) -> None:
        said, name = self.said, self._table.name
        for finding in told_apart(self._stretches, self._table, self._chain):
            said.findings.add(finding)
        if self._dropped:
            what = f"{self._dropped} more rows or entries of {name} do not fit each other; too much differs to tell how"
            said.findings.add(Finding("altered", what, table=name, place=float("inf")), times=self._dropped)
        for side, what in ((self._rows, "rows"), (self._entries, "chain entries")):
            if side.ended:
                said.ended = side.ended
                text = f"reading the {what} of {name} ended after row {self._after} ({side.ended}); the rest is not verified"
                said.findings.add(Finding("damaged", text, table=name, row=self._after + 1, place=float("inf")))


def compare(
    database: sqlite3.Connection, table: Table, chain: ChainAudit, delays: Delays, observe: Observer | None = None
) -> TableAudit:
    """Hold the rows of a table against the chain; ``observe`` is given number and content of each row as it is read."""
    return _Comparison(database, table, chain, delays, observe).run()


def _popped(side: _Ahead[Item], count: int) -> list[Item]:
    return [item for item in (side.pop() for _ in range(count)) if item is not None]


def _entries(database: sqlite3.Connection, kind: str) -> Iterator[Entry]:
    sql = "SELECT sequence, subject, content_sha256 FROM chain WHERE kind = ? ORDER BY sequence"
    return (Entry(sequence, str(subject), digest) for sequence, subject, digest in database.execute(sql, (kind,)))


def _rows(database: sqlite3.Connection, sql: str, observe: Observer | None) -> Iterator[Row]:
    for number, subject, serial, at, *content in database.execute(sql):
        if observe is not None:
            observe(number, tuple(content))
        if content[-1] is None:  # a row from before the table had this column was chained without it
            content.pop()
        yield Row(number, str(subject), str(serial), str(at), _digest(content))


def _digest(content: list[str | int]) -> bytes | None:
    try:
        return sha256(canonical(content)).digest()
    except (UnicodeEncodeError, TypeError, ValueError):  # bytes that are no text, or a blob in place of a text
        return None
