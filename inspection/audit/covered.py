"""What the audit covers: the files with a chain, and in each the tables whose rows are chained."""

from collections.abc import Sequence
from dataclasses import dataclass

from inspection import evidence_ledger, reviews, store
from inspection.audit.differences import Table


@dataclass(frozen=True, slots=True)
class Covered:
    """A file with a chain: the migrations and the mark that it has to have, and its chained tables."""

    name: str
    migrations: Sequence[str]
    mark: int
    tables: tuple[Table, ...]


RECORDS = Covered(
    "records", store.MIGRATIONS, 0,
    (
        Table(
            "records", "record",
            """SELECT records.rowid, record_id, serial, judged_at, record_id, trigger_id, serial, lot, recipe_id, verdict,
                      judged_at, records.json, triggers.json, triggers.accepted_at
               FROM records NOT INDEXED LEFT JOIN triggers USING (trigger_id) ORDER BY records.rowid""",
            once=True,
        ),
        Table(
            "late_results", "late",
            "SELECT rowid, record_id, '', '', record_id, json FROM late_results NOT INDEXED ORDER BY rowid",
            once=True,
        ),
    ),
)  # fmt: skip
REVIEWS = Covered(
    "reviews", reviews.MIGRATIONS, reviews.MARK,
    (
        Table(
            "reviews", "review",
            # All columns, in their order: a file from before the last one was added is read too.
            "SELECT review_id, record_id, '', at, reviews.* FROM reviews NOT INDEXED ORDER BY review_id",
            once=False,
        ),
    ),
)  # fmt: skip
_TIMES = {"picture": "written_at", "compressed": "at", "deleted": "at"}
EVIDENCE = Covered(
    "evidence", evidence_ledger.MIGRATIONS, evidence_ledger.MARK,
    tuple(
        Table(
            table, kind, f"SELECT rowid, record_id, '', {_TIMES[kind]}, {columns} FROM {table} NOT INDEXED ORDER BY rowid",
            once=False,
        )
        for kind, (table, columns) in evidence_ledger.COLUMNS.items()
    ),
)  # fmt: skip
COVERED = (RECORDS, REVIEWS, EVIDENCE)
