"""Reads a station's record store from outside the station, without ever holding it up.

The file is opened read only, so no lock that a writer needs can be taken here; in write-ahead mode even a reader that is
stopped in the middle of a query makes no commit wait.  Each query is read to its end at once, so that the write-ahead log
can be folded back into the file.
"""

import os
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inspection.errors import StoreError
from inspection.sqlite_file import Unshared, Value, check_version, named, read_only, rows_of
from inspection.store import MIGRATIONS, RECORD_STORE, WITH_LATE, UnreadableRecord, read_record
from inspection.types import Record, Verdict

OLDEST_SCHEMA = 2  # earlier files lack late results
MOST = 1000  # records a query gives at most
BUSY_S = 5.0  # only a store that is being made or mended makes a reader wait
LAST = 2**63 - 1  # before every row there can be
SIMULATED = "CASE WHEN json_valid(json) THEN json_extract(json, '$.simulated') END"
_IN_SPAN = "judged_at >= ? AND judged_at < ? AND (? = '' OR lot = ?)"
_PICTURES = "json_extract({0}, '$.evidence') NOT IN ('') AND json_extract({0}, '$.evidence') NOT LIKE 'skipped:%'"


@dataclass(frozen=True, slots=True)
class Heading:
    """What is known of a record without reading it whole.  ``rowid`` counts records in the order they were stored."""

    rowid: int
    record_id: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Outline:
    """What counting needs of a record.  ``record`` is there for those that are not OK, but for an ``unreadable`` one."""

    rowid: int
    lot: str
    verdict: Verdict
    judged_at: datetime
    record: Record | None
    simulated: bool = False
    unreadable: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """Records judged from ``since`` until before ``until`` (None: no end), of one ``lot`` ("": of all)."""

    since: datetime | None = None
    until: datetime | None = None
    lot: str = ""

    def values(self) -> tuple[str, str, str, str]:
        """What ``_IN_SPAN`` asks for."""
        since = "" if self.since is None else self.since.astimezone(UTC).isoformat()
        until = "~" if self.until is None else self.until.astimezone(UTC).isoformat()  # "~" sorts after every time
        return since, until, self.lot, self.lot

    def holds(self, record: Record) -> bool:
        """Whether a record lies in it."""
        late_enough = self.since is None or record.judged_at >= self.since
        early_enough = self.until is None or record.judged_at < self.until
        return late_enough and early_enough and (not self.lot or record.trigger.lot == self.lot)


class RecordReader:
    """The records in the store ``path``, newest row numbers last; used by any number of threads.

    Every method raises StoreError when the store is missing, damaged, or of a schema that this program does not know.
    A store that was put aside and made anew under the same name is noticed and opened again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] = (0, 0)
        self._closed = False
        with self._lock:
            self._connected()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        with self._lock:
            self._closed = True
            self._let_go()

    def newest(self, limit: int) -> list[tuple[int, Record]]:
        """The last records with their row numbers, newest first."""
        return self.before(LAST, limit)

    def before(self, rowid: int, limit: int) -> list[tuple[int, Record]]:
        """Records stored before the row, newest first."""
        return self._records("records.rowid < ? ORDER BY records.rowid DESC LIMIT ?", rowid, _some(limit))

    def after(self, rowid: int, limit: int) -> list[tuple[int, Record]]:
        """Records stored after the row (0: from the first), oldest first."""
        return self._records("records.rowid > ? ORDER BY records.rowid LIMIT ?", rowid, _some(limit))

    def by_serial(self, serial: str, limit: int) -> list[tuple[int, Record]]:
        """Records of a serial, newest first."""
        return self._records("serial = ? ORDER BY records.rowid DESC LIMIT ?", serial, _some(limit))

    def find(self, record_id: str) -> Record | None:
        """The record of this id; None when there is none."""
        found = self._records("records.record_id = ?", record_id)
        return found[0][1] if found else None

    def rowid_of(self, record_id: str) -> int:
        """The row number of a record, 0 when there is none."""
        rows = self.rows("SELECT rowid FROM records WHERE record_id = ?", (record_id,))
        return int(rows[0][0]) if rows else 0

    def last_rowid(self) -> int:
        """The row number of the newest record, 0 before the first."""
        return int(self.rows("SELECT coalesce(max(rowid), 0) FROM records")[0][0])

    def headings(self, after: int, limit: int) -> list[Heading]:
        """Row number, id and verdict of the records after a row, oldest first, up to ``MOST`` of them."""
        sql = "SELECT rowid, record_id, verdict FROM records WHERE rowid > ? ORDER BY rowid LIMIT ?"
        return [Heading(row, name, Verdict(verdict)) for row, name, verdict in self.rows(sql, (after, _some(limit)))]

    def outlines_before(self, rowid: int, limit: int) -> list[Outline]:
        """What counting needs of the records stored before a row, newest first; OK records are not read whole."""
        return self._outlines("rowid < ?", rowid, _some(limit))

    def outlines_of_lot(self, lot: str, rowid: int, limit: int) -> list[Outline]:
        """The same of one lot."""
        return self._outlines("lot = ? AND rowid < ?", lot, rowid, _some(limit))

    def _outlines(self, where: str, *values: Value) -> list[Outline]:
        sql = f"""SELECT rowid, lot, verdict, judged_at, CASE WHEN verdict = 1 THEN NULL ELSE json END, {SIMULATED}
                  FROM records WHERE {where} ORDER BY rowid DESC LIMIT ?"""
        found = []
        for rowid, lot, verdict, at, text, simulated in self.rows(sql, values):
            record = None if text is None else self._readable(rowid, text, None)
            unreadable = isinstance(record, UnreadableRecord)
            found.append(
                Outline(
                    int(rowid), lot, Verdict(verdict), datetime.fromisoformat(at),
                    None if isinstance(record, UnreadableRecord) else record, bool(simulated), unreadable,
                )
            )  # fmt: skip
        return found

    def rejected_before(
        self, rowid: int, recipe_id: str, limit: int, *, span: int
    ) -> list[tuple[int, Record | UnreadableRecord]]:
        """NG and REVIEW records of a recipe among the ``span`` records before a row, newest first, with the error in place
        of one that cannot be read.
        """
        where = """records.rowid < ? AND records.rowid >= ? AND recipe_id = ? AND verdict IN (2, 3)
                   ORDER BY records.rowid DESC LIMIT ?"""
        return self._each(where, rowid, rowid - span, recipe_id, _some(limit))

    def span_rows(self, span: Span) -> tuple[int, int]:
        """The lowest and the highest row number of the records in a span; (0, -1) when there are none."""
        sql = f"SELECT coalesce(min(rowid), 0), coalesce(max(rowid), -1) FROM records WHERE {_IN_SPAN}"
        first, last = self.rows(sql, span.values())[0]
        return int(first), int(last)

    def with_pictures(self, rowids: Sequence[int], span: Span) -> list[int]:
        """Those of some rows, at most ``MOST``, that lie in a span and whose records name pictures, in the order given."""
        marks = ",".join("?" * len(rowids[:MOST]))
        sql = f"""SELECT records.rowid FROM records LEFT JOIN late_results USING (record_id)
                  WHERE records.rowid IN ({marks}) AND {_IN_SPAN} AND (
                      (json_valid(records.json) AND {_PICTURES.format("records.json")})
                      OR (json_valid(late_results.json) AND {_PICTURES.format("late_results.json")})
                  )"""
        found = {int(row[0]) for row in self.rows(sql, (*rowids[:MOST], *span.values()))}
        return [rowid for rowid in rowids[:MOST] if rowid in found]

    def _records(self, where: str, *values: Value) -> list[tuple[int, Record]]:
        rows = self.rows(f"{WITH_LATE} WHERE {where}", values)
        return [(int(rowid), read_record(rowid, text, late, self.path)) for rowid, text, late in rows]

    def readable_after(self, rowid: int, limit: int) -> list[tuple[int, Record | UnreadableRecord]]:
        """``after``, with the error in place of a record that cannot be read."""
        return self._each("records.rowid > ? ORDER BY records.rowid LIMIT ?", rowid, _some(limit))

    def readable_before(self, rowid: int, limit: int) -> list[tuple[int, Record | UnreadableRecord]]:
        """``before``, with the error in place of a record that cannot be read."""
        return self._each("records.rowid < ? ORDER BY records.rowid DESC LIMIT ?", rowid, _some(limit))

    def readable_by_serial(self, serial: str, limit: int) -> list[tuple[int, Record | UnreadableRecord]]:
        """``by_serial``, with the error in place of a record that cannot be read."""
        return self._each("serial = ? ORDER BY records.rowid DESC LIMIT ?", serial, _some(limit))

    def _each(self, where: str, *values: Value) -> list[tuple[int, Record | UnreadableRecord]]:
        rows = self.rows(f"{WITH_LATE} WHERE {where}", values)
        return [(int(rowid), self._readable(rowid, text, late)) for rowid, text, late in rows]

    def _readable(self, rowid: int, text: str, late: str | None) -> Record | UnreadableRecord:
        try:
            return read_record(rowid, text, late, self.path)
        except UnreadableRecord as error:
            return error

    def lies_in(self, rowid: int, span: Span) -> bool:
        """Whether the columns of a row lie in a span, whatever its text says."""
        return bool(self.rows(f"SELECT 1 FROM records WHERE rowid = ? AND {_IN_SPAN}", (rowid, *span.values())))

    def rows(self, sql: str, values: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query; the reading is over when they are returned."""
        with self._lock:
            if self._closed:
                raise StoreError(f"the record store {self.path} was closed", fix="open it again")
            connection = self._connected()
            with named(self.path, RECORD_STORE):
                return rows_of(connection, sql, values)

    def _connected(self) -> sqlite3.Connection:
        """The connection to the file that is there now."""
        there = self._on_disk()
        if self._connection is not None and self._file == there and not isinstance(self._connection, Unshared):
            return self._connection
        self._let_go()
        with named(self.path, RECORD_STORE):
            connection = read_only(self.path, busy_s=BUSY_S)
        try:
            self._check(connection)
        except StoreError:
            connection.close()
            raise
        self._connection, self._file = connection, there
        return connection

    def _check(self, connection: sqlite3.Connection) -> None:
        with named(self.path, RECORD_STORE):
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            tables = connection.execute("SELECT name FROM sqlite_schema WHERE name = 'records'").fetchall()
        check_version(version, len(MIGRATIONS), self.path, RECORD_STORE)
        if not tables:
            raise StoreError(
                f"{self.path} is not a record store, or holds nothing yet",
                fix="name the file given as `store` in the station's config, and start the station once",
            )
        if version < OLDEST_SCHEMA:
            raise StoreError(
                f"the record store {self.path} has schema {version}, which only an earlier version reads",
                fix="start the station of this version on it once: it brings the file up to date",
            )

    def _on_disk(self) -> tuple[int, int]:
        """What tells one file from another under the same name."""
        try:
            found = os.stat(self.path)  # noqa: PTH116  (as quick as it gets: asked before every query)
        except OSError as error:
            self._let_go()
            raise StoreError(
                f"there is no record store {self.path} ({error.strerror})",
                fix="put the file back if it was moved, start the station to get one, or correct `store` in the station's config",
            ) from error
        return found.st_dev, found.st_ino

    def _let_go(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None


def _some(limit: int) -> int:
    return max(0, min(limit, MOST))
