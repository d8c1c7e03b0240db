"""Turns the rows of the record store into frames, a page of rows at a time."""

import sqlite3
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from inspection.report.contents import Span
from inspection.report.not_ok_rows import NotOk, record_of
from inspection.report.record_fields import PLAIN, FieldReader, Fields
from inspection.report.snapshot import where_in_order
from inspection.sqlite_file import MARK, marked_text
from inspection.types import Verdict

PAGE = 10_000  # records that are turned into frames at once
VERDICTS = ("ERROR", "OK", "NG", "REVIEW")  # in the order of their numbers
OK = int(Verdict.OK)
NAMES = pl.Categorical()
PARTS: dict[str, Any] = {
    "rowid": pl.Int64, "record_id": pl.String, "serial": pl.String, "lot": NAMES, "recipe_id": NAMES,
    "verdict": pl.Enum(VERDICTS), "judged_at": pl.Datetime("us", "UTC"), "station_id": NAMES, "simulated": pl.Boolean,
    "schema": pl.Int64, "recipe_sha256": NAMES, "model_sha256": NAMES, "evidence": pl.String, "rule_id": NAMES,
    "total_ms": pl.Float32,
}  # fmt: skip
FINDINGS: dict[str, Any] = {
    "rowid": pl.Int64, "defect_class": NAMES, "score": pl.Float32, "camera": NAMES, "roi_id": NAMES,
    "x1": pl.Float32, "y1": pl.Float32, "x2": pl.Float32, "y2": pl.Float32, "decisive": pl.Boolean,
}  # fmt: skip
REASONS: dict[str, Any] = {"rowid": pl.Int64, "rule_id": NAMES}
TIMED: dict[str, Any] = {"rowid": pl.Int64, "judged_at": pl.Datetime("us", "UTC")}


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The frames of ``facts.Facts`` before late results and reviews are joined; ``unreadable`` counts damaged records."""

    parts: pl.DataFrame
    findings: pl.DataFrame
    reasons: pl.DataFrame
    stages: pl.DataFrame
    measured: pl.DataFrame
    unreadable: int


def read_rows(database: sqlite3.Connection, span: Span) -> Rows:
    """Read the records of a span, in the order they were stored."""
    try:
        return _read(database, span)
    except sqlite3.OperationalError:  # one damaged text ends the whole query
        database.text_factory = marked_text
        return _read(database, span)
    finally:
        database.text_factory = str


def _read(database: sqlite3.Connection, span: Span) -> Rows:
    condition, values = where_in_order(database, span)
    sql = f"""SELECT rowid, record_id, serial, lot, recipe_id, verdict, judged_at, CAST(json AS BLOB)
              FROM records WHERE {condition} ORDER BY rowid"""
    gathered = _Gathered(marked=database.text_factory is marked_text)
    cursor = database.execute(sql, values)
    with ThreadPoolExecutor(1, "records") as worker:  # takes one page apart while the next is read
        before: Future[None] | None = None
        while rows := cursor.fetchmany(PAGE):
            if before is not None:
                before.result()
            before = worker.submit(gathered.add, rows)
        if before is not None:
            before.result()
    return gathered.rows()


@dataclass(eq=False)
class _Gathered:
    """The frames of the pages so far; ``marked``: texts that are no UTF-8 have a mark before them."""

    marked: bool
    parts: list[pl.DataFrame] = field(default_factory=list)
    findings: list[pl.DataFrame] = field(default_factory=list)
    reasons: list[pl.DataFrame] = field(default_factory=list)
    stages: list[pl.DataFrame] = field(default_factory=list)
    measured: list[pl.DataFrame] = field(default_factory=list)
    reader: FieldReader = field(default_factory=FieldReader)
    unreadable: int = 0

    def add(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Take in a page of rows."""
        rowids, *plain, verdicts, times, texts = zip(*rows, strict=True)
        fields = self.reader.read(texts)
        not_ok = NotOk()
        spoilt = {rowids[index] for index in fields.unreadable} | (_marked(rowids, plain) if self.marked else set())
        rules = [""] * len(rows)
        for index, is_plain_ok in enumerate(fields.is_plain_ok):
            if not is_plain_ok and verdicts[index] == OK and record_of(texts[index], OK) is None:
                spoilt.add(rowids[index])
        for index in (index for index, verdict in enumerate(verdicts) if verdict != OK):
            if rowids[index] not in spoilt:
                rules[index] = not_ok.take_in(rowids[index], texts[index], verdicts[index])
        parts = _parts((rowids, *plain), verdicts, _times(times), fields, rules)
        damaged = parts.filter(pl.col("judged_at").is_null() | pl.Series(verdicts).is_between(0, 3).not_())["rowid"]
        self.unreadable += len(not_ok.unreadable | spoilt | set(damaged))
        when = parts.select("rowid", "judged_at")
        self.parts.append(parts)
        self.findings.append(pl.DataFrame(not_ok.findings, schema=FINDINGS, orient="row"))
        self.reasons.append(pl.DataFrame(not_ok.reasons, schema=REASONS, orient="row"))
        self.stages.append(when.hstack(fields.stages))
        self.measured.append(when.hstack(fields.measured))

    def rows(self) -> Rows:
        """All of them together."""
        return Rows(
            _together(self.parts, PARTS), _together(self.findings, FINDINGS), _together(self.reasons, REASONS),
            _together(self.stages, TIMED), _together(self.measured, TIMED), self.unreadable,
        )  # fmt: skip


def _marked(rowids: Sequence[int], plain: Sequence[Sequence[Any]]) -> set[int]:
    """Rows with a text that is no UTF-8."""
    return {rowid for column in plain for rowid, text in zip(rowids, column, strict=True) if str(text).startswith(MARK)}


def _times(texts: Sequence[str]) -> pl.Series:
    """Null where a time cannot be read."""
    return pl.Series("judged_at", texts, dtype=pl.String).str.to_datetime(
        "%Y-%m-%dT%H:%M:%S%.f%:z", time_unit="us", time_zone="UTC", strict=False
    )


def _parts(
    plain: tuple[Sequence[Any], ...], verdicts: Sequence[int], times: pl.Series, fields: Fields, rules: list[str]
) -> pl.DataFrame:
    known = dict(enumerate(VERDICTS))
    by_name: dict[str, Any] = dict(zip(PARTS, plain, strict=False))
    by_name["verdict"] = [known.get(verdict, "ERROR") for verdict in verdicts]
    by_name |= {name: fields.plain[name] for name in PLAIN}
    by_name["rule_id"] = rules
    made = {name: pl.Series(name, values).cast(PARTS[name]) for name, values in by_name.items()}
    total = fields.stages["total"] if "total" in fields.stages.columns else pl.Series([None] * len(rules))
    return pl.DataFrame(made | {"judged_at": times, "total_ms": total.cast(pl.Float32)}).select(list(PARTS))


def _together(frames: list[pl.DataFrame], schema: dict[str, Any]) -> pl.DataFrame:
    whole = pl.concat(frames, how="diagonal") if frames else pl.DataFrame(schema=schema)
    frames.clear()  # each was copied; with a million records it counts
    return whole
