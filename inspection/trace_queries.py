"""What a trace asks of a record store: short lists and exact counts, each by an index.

A store of an earlier schema, which has neither the indexes nor the chain, is read as far as it goes, only slower.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from inspection.chain import FIRST_LINK
from inspection.errors import StoreError
from inspection.record_reader import MOST, SIMULATED, RecordReader
from inspection.sqlite_file import Value
from inspection.types import Verdict

INDEXED = 5  # the schema from which on there are a chain, change points, and indexes by time
LAST = 2**63 - 1  # before every row there can be
LATE_WITHIN = 10_000  # entries of the chain after a record among which one of its late result is looked for
CONTENT = """SELECT records.*, triggers.json, accepted_at FROM records LEFT JOIN triggers USING (trigger_id)
             WHERE record_id = ?"""
TALLY = "SELECT verdict, count(*), min(judged_at), max(judged_at) FROM records"
NOT_OK_BETWEEN = """SELECT verdict, count(*) FROM records INDEXED BY records_not_ok
                    WHERE verdict <> 1 AND rowid BETWEEN ? AND ? GROUP BY verdict"""
NOT_OK_SINCE = """SELECT records.rowid, records.record_id, serial, lot, verdict, judged_at, records.json, late_results.json
                  FROM records LEFT JOIN late_results ON late_results.record_id = records.record_id
                  WHERE verdict <> 1 AND judged_at >= ? AND judged_at < ? AND (judged_at, records.rowid) > (?, ?)
                  AND (instr(records.json, ?) OR instr(coalesce(late_results.json, ''), ?))
                  ORDER BY judged_at, records.rowid LIMIT ?"""
CHANGES_BY_READING = """SELECT number, recipe_id, coalesce(recipe, ''), coalesce(model, '') FROM (
    SELECT number, recipe_id, recipe, model, (recipe_id, recipe, model) IS (lag(recipe_id) OVER rows_in_order,
           lag(recipe) OVER rows_in_order, lag(model) OVER rows_in_order) AS same
    FROM (SELECT rowid AS number, recipe_id,
                 CASE WHEN json_valid(json) THEN json_extract(json, '$.recipe_sha256') END AS recipe,
                 CASE WHEN json_valid(json) THEN json_extract(json, '$.model_sha256') END AS model FROM records)
    WINDOW rows_in_order AS (ORDER BY number)) WHERE NOT same ORDER BY number"""


@dataclass(frozen=True, slots=True)
class Line:
    """A record in a list: which part, judged how and when.

    ``as_written`` is None where that was not looked at or the chain does not name the record; so is ``readable`` True.
    """

    rowid: int
    record_id: str
    serial: str
    lot: str
    verdict: Verdict
    judged_at: datetime
    simulated: bool = False
    as_written: bool | None = None
    readable: bool = True

    @property
    def sound(self) -> bool:
        """Whether nothing is known against it."""
        return self.readable and self.as_written is not False


@dataclass(frozen=True, slots=True)
class NotOk:
    """A record that is not OK, and its text and that of its late result, unread."""

    line: Line
    judged_at: str
    text: str
    late: str | None


@dataclass(frozen=True, slots=True)
class Tally:
    """How many records there are of each verdict, and when the earliest and the latest of them were judged."""

    counts: dict[Verdict, int]
    first: datetime | None = None
    last: datetime | None = None

    @property
    def parts(self) -> int:
        """All of them."""
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """From this row on this recipe and this model (several joined by commas) judged, up to the next such row."""

    first_row: int
    recipe_id: str
    recipe_sha256: str
    model_sha256: str


class TraceQueries:
    """Asks a record store; every method raises StoreError as its reader does."""

    def __init__(self, reader: RecordReader) -> None:
        self._reader = reader
        self._rows = reader.rows

    def schema(self) -> int:
        """The schema of the store: how far an older file was brought up to date."""
        return int(self._rows("PRAGMA user_version")[0][0])

    def of_serial(self, serial: str, limit: int) -> list[Line]:
        """Which records a serial has, newest first."""
        return self._lines("serial = ? ORDER BY rowid DESC LIMIT ?", serial, _some(limit))

    def count_of_serial(self, serial: str) -> int:
        """How many records a serial has."""
        return int(self._rows("SELECT count(*) FROM records WHERE serial = ?", (serial,))[0][0])

    def serials_from(self, prefix: str, limit: int) -> list[str]:
        """Serials that begin with a text, in order, each once."""
        sql = "SELECT DISTINCT serial FROM records WHERE serial >= ? AND serial < ? ORDER BY serial LIMIT ?"
        return [str(row[0]) for row in self._rows(sql, (prefix, prefix + "\U0010ffff", _some(limit)))]

    def of_lot(self, lot: str, limit: int, *, before: int = LAST) -> list[Line]:
        """Which records a lot has, of those stored before a row; newest first."""
        return self._lines("lot = ? AND rowid < ? ORDER BY rowid DESC LIMIT ?", lot, before, _some(limit))

    def count_of_lot(self, lot: str) -> int:
        """How many records a lot has."""
        return int(self._rows("SELECT count(*) FROM records WHERE lot = ?", (lot,))[0][0])

    def tally_of_lot(self, lot: str) -> Tally:
        """How a lot was judged; reads every record of it, though not whole."""
        return _tally(self._rows(f"{TALLY} WHERE lot = ? GROUP BY verdict", (lot,)))

    def between(self, first: int, last: int, limit: int) -> list[Line]:
        """Which records lie in the rows ``first`` to ``last``, newest first."""
        return self._lines("rowid BETWEEN ? AND ? ORDER BY rowid DESC LIMIT ?", first, last, _some(limit))

    def tally_between(self, first: int, last: int) -> Tally:
        """How the parts in the rows ``first`` to ``last`` were judged; first and last are those of the end rows.

        Rows have no gaps, for a record is never deleted, so those that are OK need not be read to be counted.
        """
        if self.schema() < INDEXED:
            return _tally(self._rows(f"{TALLY} WHERE rowid BETWEEN ? AND ? GROUP BY verdict", (first, last)))
        rows = self._rows(NOT_OK_BETWEEN, (first, last))
        counts = {Verdict(verdict): int(count) for verdict, count in rows}
        counts[Verdict.OK] = max(0, last - first + 1) - sum(counts.values())
        ends = [line.judged_at for row in (first, last) for line in self.between(row, row, 1)]
        return Tally({verdict: count for verdict, count in counts.items() if count}, *ends[:2])

    def not_ok(self, since: str, until: str, after: tuple[str, int], limit: int, *, holding: str) -> list[NotOk]:
        """Records that are not OK, judged from ``since`` and before ``until``, after one of them, oldest first.

        Only those whose text holds ``holding``.  Times are texts in UTC as ``datetime.isoformat`` gives them.
        """
        values = (max(since, after[0]), until, *after, holding, holding, _some(limit))
        return [NotOk(self._line(row[:6]), *row[5:]) for row in self._rows(NOT_OK_SINCE, values)]

    def span(self) -> tuple[datetime, datetime] | None:
        """When the earliest and the latest of all records were judged; None before the first."""
        ends = [self._rows(f"SELECT {end}(judged_at) FROM records")[0][0] for end in ("min", "max")]
        return (datetime.fromisoformat(ends[0]), datetime.fromisoformat(ends[1])) if all(ends) else None

    def change_points(self) -> list[ChangePoint]:
        """Where another recipe or model began to judge, oldest first; StoreError in a store of an earlier schema."""
        sql = "SELECT first_row, recipe_id, recipe_sha256, model_sha256 FROM judged_by ORDER BY first_row"
        return [ChangePoint(*row) for row in self._rows(sql)]

    def change_points_by_reading(self) -> list[ChangePoint]:
        """The same by reading every record of the store: for one that an earlier version left, which keeps no list."""
        return [ChangePoint(*row) for row in self._rows(CHANGES_BY_READING)]

    def has_chain(self) -> bool:
        """Whether the store has a chain at all."""
        return self.schema() >= INDEXED

    def row_of(self, record_id: str) -> int:
        """The row of a record, 0 when there is none."""
        return self._reader.rowid_of(record_id)

    def last_row(self) -> int:
        """The row of the newest record, 0 before the first."""
        return self._reader.last_rowid()

    def chain_end(self) -> int:
        """The sequence of the newest entry of the chain; 0 where there is none, or none yet."""
        if self.schema() < INDEXED:
            return 0
        return int(self._rows("SELECT coalesce(max(sequence), 0) FROM chain")[0][0])

    def chain_from(self, sequence: int, kind: str) -> tuple[int, str, bytes, bytes] | None:
        """Sequence, subject, link and content hash of the first entry of a kind from a sequence on; None without one."""
        sql = """SELECT sequence, subject, link, content_sha256 FROM chain WHERE sequence >= ? AND kind = ?
                 ORDER BY sequence LIMIT 1"""
        rows = self._rows(sql, (sequence, kind))
        return (int(rows[0][0]), str(rows[0][1]), bytes(rows[0][2]), bytes(rows[0][3])) if rows else None

    def link_before(self, sequence: int) -> bytes:
        """The link of the entry before a sequence; that before the first where there is none."""
        rows = self._rows("SELECT link FROM chain WHERE sequence = ?", (sequence - 1,))
        return bytes(rows[0][0]) if rows else FIRST_LINK

    def content_of(self, record_id: str) -> list[str | int]:
        """What the chain holds of a record: its columns, and those of its trigger, as ``Store.commit`` chains them."""
        rows = self._rows(CONTENT, (record_id,))
        return list(rows[0]) if rows else []

    def late_of(self, record_id: str) -> list[str | int]:
        """The columns of its late result; none when there is none."""
        rows = self._rows("SELECT record_id, json FROM late_results WHERE record_id = ?", (record_id,))
        return list(rows[0]) if rows else []

    def late_entry(self, record_id: str, sequence: int, *, anywhere: bool) -> bytes | None:
        """The content hash of the entry of a late result after that of its record; None when there is none.

        Looked for among the ``LATE_WITHIN`` entries that follow, for a late result is only a little late; with ``anywhere``
        also beyond.
        """
        sql = """SELECT content_sha256 FROM chain WHERE sequence > ? AND sequence <= ? AND kind = 'late' AND subject = ?
                 ORDER BY sequence LIMIT 1"""
        for last in (sequence + LATE_WITHIN, *([LAST] if anywhere else [])):
            if rows := self._rows(sql, (sequence, last, record_id)):
                return bytes(rows[0][0])
        return None

    def _lines(self, where: str, *values: Value) -> list[Line]:
        sql = f"SELECT rowid, record_id, serial, lot, verdict, judged_at, {SIMULATED} FROM records WHERE {where}"
        return [self._line(row) for row in self._rows(sql, values)]

    def _line(self, row: Sequence[Any]) -> Line:
        rowid, record_id, serial, lot, verdict, judged_at, *simulated = row
        try:
            at = datetime.fromisoformat(judged_at)
            return Line(int(rowid), record_id, serial, lot, Verdict(verdict), at, any(simulated))
        except ValueError as error:
            raise StoreError(
                f"row {rowid} of {self._reader.path} cannot be read: {error}",
                fix="`lineside audit` names what was altered",
            ) from error


def _some(limit: int) -> int:
    return max(0, min(limit, MOST))


def _tally(rows: Sequence[Sequence[Any]]) -> Tally:
    counts = {Verdict(verdict): int(count) for verdict, count, _, _ in rows}
    times = [datetime.fromisoformat(text) for _, _, *ends in rows for text in ends]
    return Tally(counts, min(times, default=None), max(times, default=None))
