"""Opens the files of a station for one report: read only, and each as it stood at one moment.

The record store goes on being written meanwhile.  Nothing here takes a lock that a writer needs; a reader keeps the
write-ahead log from being folded back for the seconds that the reading takes, and no longer.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from inspection.record_reader import BUSY_S, RecordReader
from inspection.report.contents import Span
from inspection.reviews import MARK, MIGRATIONS, REVIEWS, reviews_path
from inspection.sqlite_file import Value, check_unwritten, check_version, named, read_only
from inspection.store import RECORD_STORE


@contextmanager
def store_at_one_moment(path: Path) -> Iterator[sqlite3.Connection]:
    """The record store as it is now, until the block ends; StoreError when it is missing, damaged or of another kind."""
    RecordReader(path).close()  # says in words what is wrong with the file
    with named(path, RECORD_STORE), closing(read_only(path, busy_s=BUSY_S)) as database:
        database.execute("BEGIN")
        database.execute("SELECT 1 FROM records LIMIT 1").fetchone()  # the moment is that of the first reading
        yield database
        check_unwritten(database, path)


@contextmanager
def reviews_at_one_moment(store: Path) -> Iterator[sqlite3.Connection | None]:
    """The reviews beside a record store, None where nobody ever reviewed; StoreError when the file cannot be read."""
    path = reviews_path(store)
    if not path.exists():
        yield None
        return
    with named(path, REVIEWS), closing(read_only(path, busy_s=BUSY_S)) as database:
        database.execute("BEGIN")
        version = int(database.execute("PRAGMA user_version").fetchone()[0])
        if version == 0:  # made this moment by the first page
            yield None
            return
        check_version(version, len(MIGRATIONS), path, REVIEWS)
        if int(database.execute("PRAGMA application_id").fetchone()[0]) != MARK:
            raise sqlite3.DatabaseError("it is not marked as a file of reviews")
        yield database
        check_unwritten(database, path)


def where(span: Span) -> tuple[str, list[Value]]:
    """The SQL condition on ``records`` that a span stands for, with its values.  Times are stored as UTC in ISO 8601."""
    conditions: list[str] = []
    values: list[Value] = []
    for condition, value in (
        ("judged_at >= ?", _text(span.since)), ("judged_at < ?", _text(span.until)), ("lot = ?", span.lot),
        ("serial = ?", span.serial), ("recipe_id = ?", span.recipe_id),
    ):  # fmt: skip
        if value:
            conditions.append(f"records.{condition}")
            values.append(value)
    return " AND ".join(conditions) or "1", values


def where_in_order(database: sqlite3.Connection, span: Span) -> tuple[str, list[Value]]:
    """The same for reading in the order of the rows without sorting them.

    A lot and a serial have an index in which rows stand in order; for a stretch of time it is looked up which rows it
    begins and ends with, and these are gone through.
    """
    condition, values = where(span)
    if span.lot or span.serial or (span.since is None and span.until is None):
        return condition, values
    ends = database.execute(f"SELECT min(rowid), max(rowid) FROM records WHERE {condition}", values).fetchone()
    plain = condition.replace("records.judged_at", "+records.judged_at")  # keeps SQLite from the index on times
    return f"records.rowid BETWEEN ? AND ? AND {plain}", [*(end or 0 for end in ends), *values]


def _text(at: datetime | None) -> str:
    return "" if at is None else at.astimezone(UTC).isoformat()
