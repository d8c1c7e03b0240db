"""Puts the parts of a generated month (`tools.month`) into a record store, many at a time, with their chain."""

import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice, zip_longest
from pathlib import Path

from inspection.chain import append_many, head
from inspection.checkpoints import Heads
from tools.month_findings import Period
from tools.month_parts import Row

CHUNK = 10_000  # parts that are inserted at once
IN_A_TRANSACTION = 50 * CHUNK
CACHE_KIB = 600_000


def bulk(path: Path) -> sqlite3.Connection:
    """A connection for rows by the million: nothing is flushed before the end, which a power cut would not survive."""
    database = sqlite3.connect(path, isolation_level=None)
    for setting in ("synchronous = OFF", "foreign_keys = OFF", f"cache_size = -{CACHE_KIB}"):
        database.execute(f"PRAGMA {setting}")
    return database


def insert_parts(
    database: sqlite3.Connection, rows: Iterator[Row], periods: Sequence[Period]
) -> list[tuple[Heads, datetime]]:
    """Insert the parts; gives the ends of the chain at the times when a station would have signed some of them."""
    heads = []
    database.execute("BEGIN IMMEDIATE")
    for period in periods:
        values = (period.first_row, period.recipe_id, period.recipe_sha256, period.model_sha256)
        database.execute("INSERT INTO judged_by VALUES (?, ?, ?, ?)", values)
    begin_s, done = time.monotonic(), 0
    while chunk := list(islice(rows, CHUNK)):
        database.executemany(
            "INSERT INTO triggers VALUES (?, ?, ?)",
            ((row.trigger_id, row.trigger_text, row.accepted_at) for row in chunk),
        )
        database.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (_columns(row) for row in chunk))
        database.executemany(
            "INSERT INTO late_results VALUES (?, ?)", ((row.record_id, row.late) for row in chunk if row.late)
        )
        append_many(database, _chained(chunk))
        heads += _signed_hourly(database, chunk)
        done += len(chunk)
        if done % IN_A_TRANSACTION == 0:
            database.execute("COMMIT")
            database.execute("BEGIN IMMEDIATE")
            print(f"{done} parts in {time.monotonic() - begin_s:.0f} s", file=sys.stderr)
    database.execute("COMMIT")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return heads


def _signed_hourly(database: sqlite3.Connection, chunk: Sequence[Row]) -> Iterator[tuple[Heads, datetime]]:
    """The end of the chain whenever an hour was over in a chunk that was just added, and at its end."""
    sequence = head(database)[0] - len(chunk) - sum(bool(row.late) for row in chunk)
    for row, following in zip_longest(chunk, chunk[1:]):
        sequence += 1 + bool(row.late)
        if following is None or following.judged_at[:13] != row.judged_at[:13]:
            link = database.execute("SELECT link FROM chain WHERE sequence = ?", (sequence,)).fetchone()[0]
            yield Heads(records=(sequence, link.hex())), datetime.fromisoformat(row.judged_at)


def _columns(row: Row) -> tuple[str, str, str, str, str, int, str, str]:
    return (
        row.record_id, row.trigger_id, row.serial, row.lot, row.period.recipe_id, row.verdict, row.judged_at, row.text
    )  # fmt: skip


def _chained(chunk: Sequence[Row]) -> Iterator[tuple[str, str, tuple[str | int, ...]]]:
    for row in chunk:
        yield "record", row.record_id, (*_columns(row), row.trigger_text, row.accepted_at)
        if row.late:
            yield "late", row.record_id, (row.record_id, row.late)
