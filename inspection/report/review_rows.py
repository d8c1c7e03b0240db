"""What people said of the records of a span: of each record the review that stands, and whether it was drawn for review."""

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from pathlib import Path

import polars as pl

from inspection.report.snapshot import reviews_at_one_moment
from inspection.reviews import DRAWN_RANK, standing
from inspection.types import Review

_NOTED_FROM = 3  # schema of the file from which on each review says whether its part was drawn


@dataclass(frozen=True, slots=True)
class Said:
    """What stands of records that were reviewed (``dispositions``), ``unsure`` where nobody has decided.

    ``drawn``: whether an OK part belongs to the random sample, of those that were reviewed and those that wait; None where
    its reviews are from before that was noted.  Of no other part up to the row ``looked_to`` it does.
    """

    dispositions: Mapping[str, str] = field(default_factory=dict)
    drawn: Mapping[str, bool | None] = field(default_factory=dict)
    looked_to: int = 0


def what_people_said(store: Path, record_ids: pl.Series) -> Said:
    """Of those of the records that were reviewed or wait as drawn; StoreError when the reviews cannot be read."""
    with reviews_at_one_moment(store) as database:
        if database is None:
            return Said()
        noted = int(database.execute("PRAGMA user_version").fetchone()[0]) >= _NOTED_FROM
        sql = f"""SELECT record_id, disposition, reviewer, at, {"drawn" if noted else "NULL"} FROM reviews
                  ORDER BY record_id, review_id"""
        rows = database.execute(sql).fetchall()
        drawn, looked_to = _waiting(database)
    reviewed = pl.Series("record_id", list({row[0] for row in rows}), dtype=pl.String)
    wanted = set(record_ids.filter(record_ids.is_in(reviewed.implode())).to_list())
    drawn |= _noted((row[0], row[4]) for row in rows if row[0] in wanted)
    return Said(_standing(row[:4] for row in rows if row[0] in wanted), drawn, looked_to)


def _waiting(database: sqlite3.Connection) -> tuple[dict[str, bool | None], int]:
    """The drawn ones in the queue, and the last record that was looked at for it."""
    waiting = database.execute("SELECT record_id FROM waiting WHERE rank = ?", (DRAWN_RANK,)).fetchall()
    row = database.execute("SELECT max(row) FROM seen").fetchone()[0]
    return dict.fromkeys((record_id for (record_id,) in waiting), True), int(row or 0)


def _noted(rows: Iterable[tuple[str, int | None]]) -> dict[str, bool | None]:
    """Of each record what the first of its reviews says that says it: the queue may have been begun anew since."""
    found: dict[str, bool | None] = {}
    for record_id, drawn in rows:
        if found.get(record_id) is None:
            found[record_id] = None if drawn is None else bool(drawn)
    return found


def _standing(rows: Iterable[tuple[str, str, str, str]]) -> dict[str, str]:
    found = {}
    for record_id, group in groupby(rows, key=lambda row: row[0]):
        given = [Review(name, word, who, datetime.fromisoformat(at)) for name, word, who, at in group]  # type: ignore[arg-type]
        stands = standing(given)
        found[record_id] = "unsure" if stands is None else str(stands.disposition)
    return found
