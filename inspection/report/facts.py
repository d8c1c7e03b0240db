"""What a report is counted from: the records of a span as polars frames, with their late results and reviews.

A million records are read in seconds: SQLite cuts out of each record's JSON what is needed, and only records that are not
OK are read whole.  Pages of records are turned into frames one after the other, so that little is held twice.
"""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from inspection.config import StationConfig
from inspection.errors import UsageError
from inspection.evidence import is_sampled
from inspection.report.contents import ChangePoint, Span
from inspection.report.known_names import what_it_holds
from inspection.report.late_rows import late_verdicts
from inspection.report.record_rows import Rows, read_rows
from inspection.report.review_rows import Said, what_people_said
from inspection.report.snapshot import store_at_one_moment, where
from inspection.types import MEASURING_SCHEMA

MOST = 4_000_000  # records; each takes up to half a kilobyte of memory
BACK_S = 1.0  # by which a clock may be put right without being called set back


@dataclass(frozen=True, slots=True)
class ClockStep:
    """The clock was set back: a record judged ``at`` came after one that was judged ``by_s`` seconds later."""

    at: datetime
    by_s: float
    rowid: int


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """The records of a span, in the order they were stored.

    ``parts``, a row a record: rowid, record_id, serial, lot, recipe_id, recipe_sha256, model_sha256, station_id, verdict
    (OK, NG, REVIEW, ERROR as answered), judged_at (UTC), simulated, schema, evidence (its text in the record), rule_id
    (the first reason's, "" for OK), total_ms (null where nothing was inspected), late_verdict, disposition (what stands of
    its reviews: null where there are none, unsure where nobody has decided), sampled (an OK part drawn for review: as its
    reviews say and the queue holds it, by the share of the config only where neither knows the part; null where its
    reviews are from before that was noted).
    ``findings``, a row a finding of a part that is not OK: rowid, defect_class, score, camera, roi_id, x1, y1, x2, y2 (frame
    pixels), decisive (a reason names it).  ``reasons``: rowid, rule_id.  ``stages`` and ``measured``: rowid, judged_at, then a
    column for each stage (ms) and each measured value.
    ``held``: when the store's earliest and latest record were judged (ISO 8601), where the span has none.
    """

    span: Span
    parts: pl.DataFrame
    findings: pl.DataFrame
    reasons: pl.DataFrame
    stages: pl.DataFrame
    measured: pl.DataFrame
    changes: tuple[ChangePoint, ...]
    clock_steps: tuple[ClockStep, ...]
    unreadable: int
    store_version: int
    old_schemas: tuple[tuple[int, int], ...]
    snapshot_rowid: int
    came_since: int
    held: tuple[str, str] | None = None

    def only(self, *, simulated: bool) -> "Facts":
        """The same of simulated records alone, or of all others."""
        if not (self.parts["simulated"] != simulated).any():
            return self
        parts = self.parts.filter(pl.col("simulated") == simulated)
        kept = parts.select("rowid")
        frames = (frame.join(kept, on="rowid", how="semi", maintain_order="left") for frame in self._others())
        findings, reasons, stages, measured = frames
        return Facts(
            self.span, parts, findings, reasons, stages, measured, changes_in(parts), self.clock_steps, self.unreadable,
            self.store_version, self.old_schemas, self.snapshot_rowid, self.came_since, self.held,
        )  # fmt: skip

    def _others(self) -> tuple[pl.DataFrame, ...]:
        return self.findings, self.reasons, self.stages, self.measured


def read_facts(config: StationConfig, span: Span) -> Facts:
    """Read the records of a span.

    StoreError when the store or the reviews beside it cannot be read; UsageError when it holds more than ``MOST`` records,
    or when nothing was ever recorded of the lot, serial or recipe that is asked for.
    """
    store = Path(config.store)
    with store_at_one_moment(store) as database:
        version = int(database.execute("PRAGMA user_version").fetchone()[0])
        snapshot = int(database.execute("SELECT coalesce(max(rowid), 0) FROM records").fetchone()[0])
        _refuse_too_many(database, span)
        rows = read_rows(database, span)
        late = late_verdicts(database, span)
        held = what_it_holds(database, span) if rows.parts.is_empty() else None
    said = what_people_said(store, rows.parts["record_id"])
    parts = rows.parts.with_columns(
        _looked_up("rowid", late).alias("late_verdict"),
        _looked_up("record_id", said.dispositions).alias("disposition"),
        _sampled(rows.parts, said, config.hmi.review_ok_share),
    )
    return Facts(
        span, parts, rows.findings, rows.reasons, rows.stages, rows.measured, changes_in(parts), _clock_steps(parts),
        rows.unreadable, version, _old_schemas(rows), snapshot, _came_since(store, snapshot, span), held,
    )  # fmt: skip


def _refuse_too_many(database: sqlite3.Connection, span: Span) -> None:
    condition, values = where(span)
    records = int(database.execute(f"SELECT count(*) FROM records WHERE {condition}", values).fetchone()[0])
    if records > MOST:
        raise UsageError(
            f"the span holds {records} records; a report is made of up to {MOST}",
            fix="give a shorter one with --since and --until, or one lot with --lot",
        )


def _looked_up(column: str, words: Mapping[int, str] | Mapping[str, str]) -> pl.Expr:
    """The word for each value of a column; a join would copy all the other columns."""
    return (
        pl.col(column).replace_strict(words, default=None, return_dtype=pl.String) if words else pl.lit(None, pl.String)
    )


def _sampled(parts: pl.DataFrame, said: Said, share: float) -> pl.Series:
    # The share may have been another one: it says only which parts that nobody looked through yet will be drawn.
    drawn = [
        verdict == "OK"
        and (
            said.drawn[name] if name in said.drawn else rowid > said.looked_to and share > 0 and is_sampled(name, share)
        )
        for rowid, name, verdict in zip(
            parts["rowid"], parts["record_id"], parts["verdict"].cast(pl.String), strict=True
        )
    ]
    return pl.Series("sampled", drawn, dtype=pl.Boolean)


def changes_in(parts: pl.DataFrame) -> tuple[ChangePoint, ...]:
    """Where another recipe or model began to judge; the first is what judged at the beginning."""
    names = ("recipe_id", "recipe_sha256", "model_sha256")
    by_whom = parts.filter(pl.col("recipe_sha256") != "")  # of an ERROR before any recipe was at hand nothing is known
    differs = pl.any_horizontal(*(pl.col(name) != pl.col(name).shift(1) for name in names))
    found = by_whom.filter(differs.fill_null(True)).select("judged_at", "rowid", *names)
    return tuple(ChangePoint(*row) for row in found.iter_rows())


def _clock_steps(parts: pl.DataFrame) -> tuple[ClockStep, ...]:
    # Against the latest time so far: after a step back every record is earlier, and only the first of them is the step.
    before = pl.col("judged_at").shift(1)
    back = (before - pl.col("judged_at")).dt.total_microseconds() / 1e6
    falls = parts.select("judged_at", back.alias("by_s"), "rowid").filter(pl.col("by_s") > BACK_S)
    return tuple(ClockStep(*row) for row in falls.iter_rows())


def _old_schemas(rows: Rows) -> tuple[tuple[int, int], ...]:
    """Schemas from before anything was measured, each with its records."""
    counted = (
        rows.parts.filter(pl.col("schema").is_between(1, MEASURING_SCHEMA - 1)).group_by("schema").len().sort("schema")
    )
    return tuple((int(schema), int(records)) for schema, records in counted.iter_rows())


def _came_since(store: Path, snapshot: int, span: Span) -> int:
    """Records of the span that were stored while the others were read."""
    condition, values = where(span)
    with store_at_one_moment(store) as database:
        sql = f"SELECT count(*) FROM records WHERE rowid > ? AND {condition}"
        return int(database.execute(sql, [snapshot, *values]).fetchone()[0])
