"""The numbers of a report for other programs: CSV for spreadsheets, JSON, and Parquet of the parts and findings themselves.

All are made from the same ``Report`` as the page.  CSV files are UTF-8 with a byte-order mark, or spreadsheets take Chinese
names for something else.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from inspection.images import write_whole
from inspection.report.contents import ChartView, HealthChart, Report, Tally
from inspection.report.facts import Facts

Row = Sequence[object]
Table = tuple[Sequence[str], Iterable[Row]]
TALLY = ("parts", "ok", "ng", "review", "error")
CARRIED_OVER = ("reviewed", "unreviewed", "least", "most")  # what a rate of false calls rests on, where it has one
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what makes a spreadsheet take a text for something to be worked out


def write_tables(report: Report, facts: Facts, folder: Path) -> None:
    """Write report.json, report.parquet (the parts), findings.parquet and tables/*.csv into an empty folder."""
    write_whole(folder / "report.json", as_json(report).encode())
    facts.parts.write_parquet(folder / "report.parquet", compression="zstd")
    facts.findings.write_parquet(folder / "findings.parquet", compression="zstd")
    (folder / "tables").mkdir()
    for name, (columns, rows) in tables(report).items():
        write_whole(folder / "tables" / f"{name}.csv", as_csv(columns, rows).encode("utf-8-sig"))


def as_json(report: Report) -> str:
    """The whole report but for its pictures; times in UTC, ISO 8601, which ``utc_offsets`` make local."""
    lines = (f"{json.dumps(name)}: {_dumped(value)}" for name, value in _plain(report).items() if name != "zone")
    return "{\n" + ",\n".join(lines) + "\n}\n"  # a line for each section; indented throughout it takes seconds


def _dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _plain(value: object) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        found = {field.name: getattr(value, field.name) for field in fields(value)}
        plain = {name: _plain(one) for name, one in found.items() if not isinstance(one, bytes)}
        return plain | {"parts": value.parts, "judged": value.judged} if isinstance(value, Tally) else plain
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return value.total_seconds() if isinstance(value, timedelta) else value


def as_csv(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """A table as CSV; a text that a spreadsheet would take for a formula gets an apostrophe in front."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA):
        return f"'{value}"
    return value.isoformat() if isinstance(value, datetime) else value


def tables(report: Report) -> dict[str, Table]:
    """Every table by its file's name."""
    return {
        "totals": (("name", "value"), _totals(report)),
        "caveats": (("key", "values"), [(one.key, json.dumps(dict(one.values), ensure_ascii=False)) for one in report.caveats]),
        "reasons": _columns(("rule_id", "verdict", "parts"), report.reasons),
        "pareto": _columns(("defect_class", "findings", "parts", "share", "cumulative"), report.pareto),
        "hours": (("begin", *TALLY, "findings"), [(row.begin, *_tally(row.tally), row.findings) for row in report.hours]),
        "shifts": _groups(report.shifts),
        "lots": _groups(report.lots),
        "stages": _columns(("stage", "count", "median_ms", "p95_ms", "p99_ms", "max_ms"), report.stages),
        "versions": (
            ("recipe_id", "recipe_sha256", "model_sha256", "first", "last", *TALLY),
            [
                (one.recipe_id, one.recipe_sha256, one.model_sha256, one.first, one.last, *_tally(one.tally))
                for one in report.versions
            ],
        ),
        "changes": _columns(("at", "rowid", "recipe_id", "recipe_sha256", "model_sha256"), report.changes),
        "false_calls": _false_calls(report),
        "escapes": _escapes(report),
        "control_charts": (
            (
                "what", "grouped_by", "label", "begin", "inspected", "point", "centre", "lower", "upper", "nelson_rules",
                "spread", "sigma_z", "declared",
            ),
            [row for view in report.charts for row in _chart(view)],
        ),
        "camera_health": (
            ("camera", "quantity", "unit", "hour", "frames", "median", "low_5", "high_95", "centre", "suspect"),
            [row for view in report.health for row in _health(view)],
        ),
        "rises": (
            ("begin", "end", "hours", "cause", "because"),
            [(one.begin, one.end, one.hours, one.cause, " ".join(map(".".join, one.because))) for one in report.rises],
        ),
        "camera_changes": _columns(
            ("camera", "quantity", "unit", "begin", "end", "hours", "usual", "most", "together"), report.camera_changes
        ),
        "defect_map": (
            ("camera", "golden_sha256", "x_px", "y_px", "radius_px", "defect_class", "verdict", "disposition", "record_id"),
            [
                (view.camera, view.golden_sha256, *(getattr(point, field.name) for field in fields(point)))
                for view in report.maps
                for point in view.points
            ],
        ),
    }  # fmt: skip


def _columns(names: Sequence[str], rows: Iterable[object]) -> Table:
    return names, [[getattr(row, name) for name in names] for row in rows]


def _tally(tally: Tally) -> Row:
    return tuple(getattr(tally, name) for name in TALLY)


def _totals(report: Report) -> Iterator[Row]:
    totals = report.totals
    yield "station_id", report.station_id
    for name in ("since", "until", "lot", "serial", "recipe_id", "shift"):
        yield name, getattr(report.span, name)
    yield from zip(TALLY, _tally(totals.tally), strict=True)
    for field in fields(totals):
        value = getattr(totals, field.name)
        if isinstance(value, int):
            yield field.name, value
    for name in ("first_pass_yield", "final_yield", "error_rate"):
        claim = getattr(totals, name)
        yield name, claim.why_not if claim.value is None else claim.value
    yield "serials_used_twice", " ".join(totals.serials_used_twice)


def _groups(rows: Iterable[Any]) -> Table:
    columns = ("name", "begin", "end", *TALLY, "findings", "first_pass_yield")
    return columns, [
        (row.name, row.begin, row.end, *_tally(row.tally), row.findings, row.first_pass_yield.value) for row in rows
    ]


def _false_calls(report: Report) -> Table:
    rows = [
        (
            row.denominator, row.false_calls, row.of, row.rate.value, row.rate.low, row.rate.high, row.rate.why_not,
            row.rate.text_key, *(dict(row.rate.values).get(name) for name in CARRIED_OVER),
        )
        for row in report.false_calls
    ]  # fmt: skip
    return ("denominator", "false_calls", "of", "rate", "low", "high", "why_not", "defined_as", *CARRIED_OVER), rows


def _escapes(report: Report) -> Table:
    rows = [
        (
            one.model_sha256, one.promised_bound, one.confidence, one.drawn, one.reviewed_ok, one.escapes,
            one.chance_escapes, one.drawn_unknown, one.observed.value, one.observed.low, one.observed.high, one.observed.why_not,
            one.share.value, one.share.low, one.share.high, one.share.why_not, one.against,
            " ".join(one.not_covered),
        )
        for one in report.escapes
    ]  # fmt: skip
    return (
        "model_sha256", "promised_bound", "confidence", "drawn", "reviewed_ok", "escapes", "chance_escapes", "drawn_unknown",
        "rate", "low", "high", "why_not", "share_of_ok", "share_low", "share_high", "share_why_not", "against", "not_covered",
    ), rows  # fmt: skip


def _chart(view: ChartView) -> Iterator[Row]:
    chart = view.chart
    rules: dict[int, list[str]] = {}
    for signal in chart.signals:
        rules.setdefault(signal.index, []).append(str(signal.rule))
    nothing: tuple[None, ...] = (None,) * len(chart.points)
    limits = zip(chart.lower or nothing, chart.upper or nothing, strict=True)
    for index, (point, (lower, upper)) in enumerate(zip(chart.points, limits, strict=True)):
        yield (
            view.what, view.grouped_by, view.labels[index], view.begins[index], view.sizes[index], point, chart.centre,
            lower, upper, " ".join(rules.get(index, ())), chart.spread, chart.sigma_z, int(chart.declared),
        )  # fmt: skip


def _health(view: HealthChart) -> Iterator[Row]:
    suspect = set(view.suspect)
    centre = None if view.chart is None else view.chart.centre
    for index, hour in enumerate(view.hours):
        yield (
            view.camera, view.quantity, view.unit, hour, view.frames[index], view.values[index], view.low[index],
            view.high[index], centre, int(index in suspect),
        )  # fmt: skip
