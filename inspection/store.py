"""Keeps every trigger, record and review in one SQLite file that survives a power cut.

A trigger is journaled before the part is inspected and its record is committed before the controller is answered, so
that after a crash ``unanswered`` names exactly the parts that nobody was told about.  Records and reviews are append
only; the database itself refuses to change or delete them.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from inspection.errors import StoreError
from inspection.types import LateResult, Record, Review, Trigger, utc_now

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
)
BUSY_MS = 2000
_WITH_LATE = """SELECT records.rowid, records.json, late_results.json
                FROM records LEFT JOIN late_results ON late_results.record_id = records.record_id"""
_NO_SPACE = "free space on that disk, then start the station again; nothing is judged without a record"
_FIXES = {
    "SQLITE_FULL": ("is full", _NO_SPACE),
    "SQLITE_READONLY": ("is read-only", "give the station's user write permission on the file and its folder"),
    "SQLITE_PERM": ("may not be written", "give the station's user write permission on the file and its folder"),
    "SQLITE_BUSY": (
        "is locked by another program",
        "close the program that has it open; copy the file to look into it",
    ),
    "SQLITE_CANTOPEN": ("cannot be opened", "create the folder and give the station's user write permission on it"),
    "SQLITE_NOTADB": ("is not a record store", "name another file; this one was left as it is"),
    "SQLITE_CORRUPT": ("is damaged", "put the file aside and restore the last backup; the station then goes on there"),
    "SQLITE_IOERR": ("cannot be read or written", "check the disk and its cables, and that it is not full"),
    "SQLITE_CONSTRAINT": ("refused a row", "each trigger gets one record, and records are never changed"),
}


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
        if not path.parent.is_dir():
            raise StoreError(f"there is no folder {path.parent} for the record store", fix="create the folder")
        with self._named():
            self._connection = sqlite3.connect(
                path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False
            )
        try:
            self._prepare()
        except StoreError:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the file and give up the claim; a second call does nothing."""
        with self._named():
            self._connection.close()
            if self._claim is not None:
                self._claim.close()

    def claim(self) -> None:
        """Keep every other station off this store until ``close`` or the end of the program, however it ends.

        StoreError when another station has it: it would take a part in progress there for one that a crash left open.
        Reviews and reports need no claim.
        """
        beside = self.path.with_name(self.path.name + ".station")
        with self._named():
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
        with self._named():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # A full disk makes SQLite roll back by itself.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

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
            database.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            database.execute("DELETE FROM open_triggers WHERE trigger_id = ?", (trigger.trigger_id,))
            self._put_down(database, "record", record.record_id)

    def commit_late(self, record_id: str, late: LateResult) -> None:
        """Append the true result of a part that missed its deadline to its record; once a record."""
        with self.transaction() as database:
            database.execute("INSERT INTO late_results VALUES (?, ?)", (record_id, late.to_json()))
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
        rows = self._rows(f"{_WITH_LATE} WHERE trigger_id = ?", (trigger_id,))
        return self._record(*rows[0][1:]) if rows else None

    def find(self, record_id: str) -> Record | None:
        """The record of this id; None when there is none."""
        rows = self._rows(f"{_WITH_LATE} WHERE records.record_id = ?", (record_id,))
        return self._record(*rows[0][1:]) if rows else None

    def judged(self, serial: str, lot: str) -> Record | None:
        """The newest record of a serial in a lot with a verdict other than ERROR; None when there is none."""
        sql = f"{_WITH_LATE} WHERE serial = ? AND lot = ? AND verdict <> 0 ORDER BY records.rowid DESC LIMIT 1"
        rows = self._rows(sql, (serial, lot))
        return self._record(*rows[0][1:]) if rows else None

    def unanswered(self) -> tuple[Trigger, ...]:
        """Triggers that were accepted but have no record, oldest first: a crash came between."""
        rows = self._rows("SELECT json FROM triggers JOIN open_triggers USING (trigger_id) ORDER BY triggers.rowid", ())
        return tuple(_trigger(row[0]) for row in rows)

    def records(self, limit: int | None = None, *, lot: str = "", serial: str = "") -> Iterator[Record]:
        """Records newest first, of one lot and one serial where these are given; read in pages, not all at once."""
        before, left = 2**63 - 1, 2**63 - 1 if limit is None else limit
        sql = f"""{_WITH_LATE} WHERE records.rowid < ? AND (? = '' OR lot = ?) AND (? = '' OR serial = ?)
                  ORDER BY records.rowid DESC LIMIT ?"""
        while left > 0:
            rows = self._rows(sql, (before, lot, lot, serial, serial, min(left, 200)))
            if not rows:
                return
            for _, text, late in rows:
                yield self._record(text, late)
            before = rows[-1][0]
            left -= len(rows)

    def count(self) -> int:
        """How many records there are."""
        return int(self._rows("SELECT count(*) FROM records", ())[0][0])

    def add_review(self, review: Review) -> None:
        """Append a review; StoreError when there is no such record."""
        row = (review.record_id, review.disposition, review.reviewer, review.at.isoformat(), review.comment)
        with self.transaction() as database:
            database.execute(
                "INSERT INTO reviews (record_id, disposition, reviewer, at, comment) VALUES (?, ?, ?, ?, ?)", row
            )

    def reviews(self, record_id: str) -> tuple[Review, ...]:
        """The reviews of a record, oldest first."""
        sql = "SELECT record_id, disposition, reviewer, at, comment FROM reviews WHERE record_id = ? ORDER BY review_id"
        return tuple(
            Review(row[0], row[1], row[2], datetime.fromisoformat(row[3]), row[4])
            for row in self._rows(sql, (record_id,))
        )

    def probe(self) -> None:
        """Write something of the size of a record; StoreError when the store does not take writes now."""
        with self.transaction() as database:
            database.execute("INSERT OR REPLACE INTO probes VALUES (1, hex(randomblob(4096)))")

    def _prepare(self) -> None:
        with self._named():
            version = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
            if version > len(MIGRATIONS):
                raise StoreError(
                    f"the record store {self.path} has schema {version}; this program knows up to {len(MIGRATIONS)}",
                    fix="use the newer lineside that wrote it, or name another file",
                )
            if version == 0 and self._rows("SELECT name FROM sqlite_schema LIMIT 1", ()):
                raise StoreError(
                    f"{self.path} is an SQLite file, but not a record store",
                    fix="name another file; this one was left as it is",
                )
            mode = self._connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if mode != "wal":
                raise StoreError(
                    f"{self.path} lies on a disk without write-ahead logging (journal mode {mode})",
                    fix="put the record store on a local disk, not on a network share",
                )
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
        for step in range(version, len(MIGRATIONS)):
            self._migrate(step)

    def _migrate(self, step: int) -> None:
        """Apply one migration and its bookkeeping together; nothing when another program was faster."""
        with self.transaction() as database:
            if int(database.execute("PRAGMA user_version").fetchone()[0]) == step:
                for statement in _statements(MIGRATIONS[step]):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {step + 1}")

    def _rows(self, sql: str, values: tuple[str | int, ...]) -> list[tuple[Any, ...]]:
        with self._named():
            return self._connection.execute(sql, values).fetchall()

    def _record(self, text: str, late: str | None) -> Record:
        try:
            record = Record.from_json(text)
            return record if late is None else replace(record, late=LateResult.from_json(late))
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"a record in {self.path} cannot be read: {error}", fix="use the lineside version that wrote it"
            ) from error

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Translate what SQLite raises."""
        try:
            yield
        except UnicodeEncodeError as error:
            raise StoreError(
                f"the record store {self.path} cannot keep {error.object!r}: it is no valid text",
                fix="let the controller send serial and lot as ASCII or UTF-8",
            ) from error
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorname", "")
            family = "_".join(code.split("_")[:2])
            how, fix = _FIXES.get(family, ("cannot be used", "close other programs that use the file, then try again"))
            raise StoreError(f"the record store {self.path} {how} ({error})", fix=fix) from error


def _statements(script: str) -> Iterator[str]:
    """The statements of a script, one by one: ``executescript`` would end the transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _trigger(text: str) -> Trigger:
    fields = json.loads(text)
    return Trigger(**{**fields, "at": datetime.fromisoformat(fields["at"])})


def same_part(one: Trigger, other: Trigger) -> bool:
    """Whether two triggers name the same part: serial, lot and recipe."""
    return (one.serial, one.lot, one.recipe_id) == (other.serial, other.lot, other.recipe_id)
