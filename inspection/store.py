"""Keeps every trigger and record in one SQLite file that survives a power cut.  Written by the station alone.

A trigger is journaled before the part is inspected and its record is committed before the controller is answered, so
that after a crash ``unanswered`` names exactly the parts that nobody was told about.  Records are append only; the
database itself refuses to change or delete them.  Pages and reports read with ``record_reader``; what people say of a
record is kept beside it (``reviews``), so that no page ever holds up the line.
"""

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

from inspection.chain import CHAIN_SQL, append, begin
from inspection.errors import StoreError
from inspection.sqlite_file import Kind, SqliteFile, named
from inspection.types import LateResult, Record, Trigger, utc_now

MIGRATIONS = (
    """
    CREATE TABLE triggers (
        trigger_id  TEXT PRIMARY KEY,
        json        TEXT NOT NULL,
        accepted_at TEXT NOT NULL
    ) STRICT;
    CREATE TABLE records (
        record_id  TEXT PRIMARY KEY,
        trigger_id TEXT NOT NULL UNIQUE REFERENCES triggers (trigger_id),
        serial     TEXT NOT NULL,
        lot        TEXT NOT NULL,
        recipe_id  TEXT NOT NULL,
        verdict    INTEGER NOT NULL,
        judged_at  TEXT NOT NULL,
        json       TEXT NOT NULL
    ) STRICT;
    CREATE INDEX records_by_serial ON records (serial);
    CREATE INDEX records_by_lot ON records (lot);
    CREATE TABLE reviews (
        review_id   INTEGER PRIMARY KEY,
        record_id   TEXT NOT NULL REFERENCES records (record_id),
        disposition TEXT NOT NULL,
        reviewer    TEXT NOT NULL,
        at          TEXT NOT NULL,
        comment     TEXT NOT NULL
    ) STRICT;
    CREATE INDEX reviews_by_record ON reviews (record_id);
    CREATE TABLE probes (one INTEGER PRIMARY KEY CHECK (one = 1), filler TEXT NOT NULL) STRICT;
    CREATE TRIGGER records_keep BEFORE UPDATE ON records BEGIN SELECT RAISE(ABORT, 'records are append only'); END;
    CREATE TRIGGER records_stay BEFORE DELETE ON records BEGIN SELECT RAISE(ABORT, 'records are append only'); END;
    CREATE TRIGGER reviews_keep BEFORE UPDATE ON reviews BEGIN SELECT RAISE(ABORT, 'reviews are append only'); END;
    CREATE TRIGGER reviews_stay BEFORE DELETE ON reviews BEGIN SELECT RAISE(ABORT, 'reviews are append only'); END;
    """,
    """
    CREATE TABLE late_results (
        record_id TEXT PRIMARY KEY REFERENCES records (record_id),
        json      TEXT NOT NULL
    ) STRICT;
    CREATE TRIGGER late_keep BEFORE UPDATE ON late_results BEGIN SELECT RAISE(ABORT, 'late results are append only'); END;
    CREATE TRIGGER late_stay BEFORE DELETE ON late_results BEGIN SELECT RAISE(ABORT, 'late results are append only'); END;
    CREATE TABLE outbox (
        sequence  INTEGER PRIMARY KEY AUTOINCREMENT,
        kind      TEXT NOT NULL,
        record_id TEXT NOT NULL REFERENCES records (record_id)
    ) STRICT;
    """,
    """
    CREATE TABLE open_triggers (trigger_id TEXT PRIMARY KEY REFERENCES triggers (trigger_id)) STRICT;
    INSERT INTO open_triggers
        SELECT trigger_id FROM triggers WHERE NOT EXISTS (SELECT 1 FROM records WHERE records.trigger_id = triggers.trigger_id);
    """,
    "DROP TABLE reviews;",  # no program ever wrote it; reviews are in a file of their own
    """
    CREATE INDEX records_by_time ON records (judged_at);
    CREATE INDEX records_not_ok ON records (judged_at, verdict) WHERE verdict <> 1;
    CREATE TABLE judged_by (
        first_row     INTEGER PRIMARY KEY,
        recipe_id     TEXT NOT NULL,
        recipe_sha256 TEXT NOT NULL,
        model_sha256  TEXT NOT NULL
    ) STRICT;
    INSERT INTO judged_by
        SELECT number, recipe_id, coalesce(recipe, ''), coalesce(model, '') FROM (
            SELECT number, recipe_id, recipe, model, (recipe_id, recipe, model) IS (lag(recipe_id) OVER rows_in_order,
                   lag(recipe) OVER rows_in_order, lag(model) OVER rows_in_order) AS same
            FROM (SELECT rowid AS number, recipe_id,
                         CASE WHEN json_valid(json) THEN json_extract(json, '$.recipe_sha256') END AS recipe,
                         CASE WHEN json_valid(json) THEN json_extract(json, '$.model_sha256') END AS model FROM records)
            WINDOW rows_in_order AS (ORDER BY number)
        ) WHERE NOT same;
    """
    + CHAIN_SQL,
)
_RECORD_ID = re.compile(r'"record_id": ?"([0-9A-Za-z_-]{1,64})"')
BUSY_MS = 2000
ACCEPTED = "SELECT json, accepted_at FROM triggers WHERE trigger_id = ?"
WITH_LATE = """SELECT records.rowid, records.json, late_results.json
               FROM records LEFT JOIN late_results ON late_results.record_id = records.record_id"""
RECORD_STORE = Kind(
    "record store",
    no_space="free space on that disk, then start the station again; nothing is judged without a record",
    bad_text="let the controller send serial and lot as ASCII or UTF-8",
    refused="each trigger gets one record, and records are never changed",
)


class UnreadableRecord(StoreError):
    """A record that is there, in ``row``, and cannot be read; ``record_id`` is what its text says it is called."""

    def __init__(self, why: object, path: Path, row: int, record_id: str) -> None:
        name = f"record {record_id} (row {row})" if record_id else f"the record in row {row}"
        super().__init__(
            f"{name} of {path} cannot be read: {why}",
            fix="`lineside audit` tells whether it was altered; if not, use the lineside version that wrote it",
        )
        self.row = row
        self.record_id = record_id


def read_record(row: int, text: str, late: str | None, path: Path) -> Record:
    """The record in the columns of ``WITH_LATE``; UnreadableRecord naming it and the store ``path`` when it cannot be read."""
    try:
        record = Record.from_json(text)
        return record if late is None else replace(record, late=LateResult.from_json(late))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        said = _RECORD_ID.search(text)
        raise UnreadableRecord(error, path, int(row), said[1] if said else "") from error


class Store:
    """The record store of one station in the file ``path``, made when missing; its folder must exist.

    Used by one thread at a time; another thread or program opens a Store of its own.  Every method raises
    StoreError when the file cannot be read or written; writes are on the disk when they return.  With ``outbox`` what is
    committed is also put down for the publishers, in the same transaction.
    """

    def __init__(self, path: Path, *, outbox: bool = False) -> None:
        self.path = path
        self.outbox = outbox
        self._claim: sqlite3.Connection | None = None
        self._file = SqliteFile(path, MIGRATIONS, RECORD_STORE, busy_s=BUSY_MS / 1000)
        self._rows = self._file.rows
        try:
            begin(self._file, "records", "late_results")
        except StoreError:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file and give up the claim; a second call does nothing."""
        self._file.close()
        if self._claim is not None:
            self._claim.close()

    def claim(self) -> None:
        """Keep every other station off this store until ``close`` or the end of the program, however it ends.

        StoreError when another station has it: it would take a part in progress there for one that a crash left open.
        Pages and reports, which only read, need no claim.
        """
        beside = self.path.with_name(self.path.name + ".station")
        with named(self.path, RECORD_STORE):
            self._claim = sqlite3.connect(beside, timeout=0, isolation_level=None, check_same_thread=False)
            try:
                self._claim.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                if getattr(error, "sqlite_errorname", "") != "SQLITE_BUSY":
                    raise
                raise StoreError(
                    f"another station is running on the record store {self.path}",
                    fix="stop that one, or name a store of its own in the config of each station",
                ) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All writes within it reach the disk together, or none does."""
        with self._file.transaction() as database:
            yield database

    def accept(self, trigger: Trigger) -> None:
        """Journal a trigger; the same trigger again is harmless, another part under its id is a StoreError."""
        text = json.dumps(asdict(trigger) | {"at": trigger.at.isoformat()}, ensure_ascii=False)
        with self.transaction() as database:
            row = database.execute("SELECT json FROM triggers WHERE trigger_id = ?", (trigger.trigger_id,)).fetchone()
            if row is None:
                values = (trigger.trigger_id, text, utc_now().isoformat())
                database.execute("INSERT INTO triggers VALUES (?, ?, ?)", values)
                database.execute("INSERT INTO open_triggers VALUES (?)", (trigger.trigger_id,))
            elif not same_part(_trigger(row[0]), trigger):
                raise StoreError(
                    f"trigger {trigger.trigger_id} was already accepted for another part",
                    fix="the controller must give every part a trigger id of its own",
                )

    def commit(self, record: Record) -> None:
        """Store a record; StoreError when its trigger was never accepted or has a record already."""
        trigger = record.trigger
        row = (
            record.record_id, trigger.trigger_id, record.serial, trigger.lot, record.recipe_id or trigger.recipe_id,
            int(record.judgement.verdict), record.judged_at.isoformat(), record.to_json(),
        )  # fmt: skip
        with self.transaction() as database:
            added = database.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            accepted = database.execute(ACCEPTED, (trigger.trigger_id,)).fetchone()
            append(database, "record", record.record_id, (*row, *accepted))
            _note_change(database, int(added.lastrowid or 0), (row[4], record.recipe_sha256, record.model_sha256))
            database.execute("DELETE FROM open_triggers WHERE trigger_id = ?", (trigger.trigger_id,))
            self._put_down(database, "record", record.record_id)

    def commit_late(self, record_id: str, late: LateResult) -> None:
        """Append the true result of a part that missed its deadline to its record; once a record."""
        with self.transaction() as database:
            row = (record_id, late.to_json())
            database.execute("INSERT INTO late_results VALUES (?, ?)", row)
            append(database, "late", record_id, row)
            self._put_down(database, "late", record_id)

    def _put_down(self, database: sqlite3.Connection, kind: str, record_id: str) -> None:
        if self.outbox:
            database.execute("INSERT INTO outbox (kind, record_id) VALUES (?, ?)", (kind, record_id))

    def outbox_span(self) -> tuple[int, int]:
        """Sequences of the oldest and the newest row that wait in the outbox, (1, 0) when none does."""
        oldest, newest = self._rows(
            "SELECT (SELECT min(sequence) FROM outbox), (SELECT max(sequence) FROM outbox)", ()
        )[0]
        return (1, 0) if oldest is None else (int(oldest), int(newest))

    def drop_outbox(self, last: int) -> int:
        """Drop the outbox's rows up to the sequence ``last``; how many there were."""
        with self.transaction() as database:
            return database.execute("DELETE FROM outbox WHERE sequence <= ?", (last,)).rowcount

    def find_by_trigger(self, trigger_id: str) -> Record | None:
        """The record of a trigger; None when it has none."""
        rows = self._rows(f"{WITH_LATE} WHERE trigger_id = ?", (trigger_id,))
        return read_record(rows[0][0], rows[0][1], rows[0][2], self.path) if rows else None

    def find(self, record_id: str) -> Record | None:
        """The record of this id; None when there is none."""
        rows = self._rows(f"{WITH_LATE} WHERE records.record_id = ?", (record_id,))
        return read_record(rows[0][0], rows[0][1], rows[0][2], self.path) if rows else None

    def judged(self, serial: str, lot: str) -> Record | None:
        """The newest record of a serial in a lot with a verdict other than ERROR; None when there is none."""
        sql = f"{WITH_LATE} WHERE serial = ? AND lot = ? AND verdict <> 0 ORDER BY records.rowid DESC LIMIT 1"
        rows = self._rows(sql, (serial, lot))
        return read_record(rows[0][0], rows[0][1], rows[0][2], self.path) if rows else None

    def unanswered(self) -> tuple[Trigger, ...]:
        """Triggers that were accepted but have no record, oldest first: a crash came between."""
        rows = self._rows("SELECT json FROM triggers JOIN open_triggers USING (trigger_id) ORDER BY triggers.rowid", ())
        return tuple(_trigger(row[0]) for row in rows)

    def records(self, limit: int | None = None, *, lot: str = "", serial: str = "") -> Iterator[Record]:
        """Records newest first, of one lot and one serial where these are given; read in pages, not all at once."""
        before, left = 2**63 - 1, 2**63 - 1 if limit is None else limit
        sql = f"""{WITH_LATE} WHERE records.rowid < ? AND (? = '' OR lot = ?) AND (? = '' OR serial = ?)
                  ORDER BY records.rowid DESC LIMIT ?"""
        while left > 0:
            rows = self._rows(sql, (before, lot, lot, serial, serial, min(left, 200)))
            if not rows:
                return
            for row, text, late in rows:
                yield read_record(row, text, late, self.path)
            before = rows[-1][0]
            left -= len(rows)

    def count(self) -> int:
        """How many records there are."""
        return int(self._rows("SELECT count(*) FROM records", ())[0][0])

    def probe(self) -> None:
        """Write something of the size of a record; StoreError when the store does not take writes now."""
        with self.transaction() as database:
            database.execute("INSERT OR REPLACE INTO probes VALUES (1, hex(randomblob(4096)))")


def _note_change(database: sqlite3.Connection, row: int, judged_by: tuple[str, str, str]) -> None:
    """Put down that from this row on another recipe or model judges."""
    columns = "recipe_id, recipe_sha256, model_sha256"
    last = database.execute(f"SELECT {columns} FROM judged_by ORDER BY first_row DESC LIMIT 1").fetchone()
    if last != judged_by:
        database.execute("INSERT INTO judged_by VALUES (?, ?, ?, ?)", (row, *judged_by))


def _trigger(text: str) -> Trigger:
    fields = json.loads(text)
    return Trigger(**{**fields, "at": datetime.fromisoformat(fields["at"])})


def same_part(one: Trigger, other: Trigger) -> bool:
    """Whether two triggers name the same part: serial, lot and recipe."""
    return (one.serial, one.lot, one.recipe_id) == (other.serial, other.lot, other.recipe_id)
