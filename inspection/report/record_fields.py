"""Takes a few fields out of the JSON of a page of records: what is counted of all of them.

The reader of the dataframe library is many times as fast as Python's, but must be told beforehand which names to look for,
and passes over all others.  So the names of stages and of measured values are looked up in the text, and what was read is
counted against it; a page where the two do not agree is read again record by record.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from inspection.types import RECORD_SCHEMA

PLAIN: dict[str, Any] = {
    "station_id": pl.String, "simulated": pl.Boolean, "schema": pl.Int64, "recipe_sha256": pl.String,
    "model_sha256": pl.String, "evidence": pl.String,
}  # fmt: skip
NESTED = ("stage_ms", "measured")
_KNOWN = range(1, RECORD_SCHEMA + 1)
_SAID = {"trigger": pl.Struct({"trigger_id": pl.String}), "judgement": pl.Struct({"verdict": pl.String})}
_REASONS = {"judgement": pl.Struct({"reasons": pl.List(pl.Struct({"rule_id": pl.String}))})}
# How a record of an OK part is always written.  Such a one is not read whole: of a million that would take minutes.
_PLAIN_OK = b'"judgement":{"verdict":"OK","reasons":[]}'
# A quote within a JSON string is written \", so this can only be the field itself.
_OBJECTS = {name: re.compile(f'"{name}":{{([^{{}}]*)}}'.encode()) for name in NESTED}
_NAME = re.compile(rb'"([^"\\]+)":')


@dataclass(frozen=True, slots=True, eq=False)
class Fields:
    """Frames with a row a record, in their order; ``unreadable`` are the indices of damaged records.

    ``is_plain_ok``: the record says OK and gives no reason; one of an OK part that does not is to be read whole.
    """

    plain: pl.DataFrame
    stages: pl.DataFrame
    measured: pl.DataFrame
    is_plain_ok: Sequence[bool]
    unreadable: tuple[int, ...] = ()


class FieldReader:
    """Reads page after page; it remembers the names that it met."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, None]] = {name: {} for name in NESTED}

    def read(self, texts: Sequence[bytes]) -> Fields:
        """The fields of records of this JSON."""
        lines = b"\n".join(texts)
        objects = {name: b",".join(_OBJECTS[name].findall(lines)) for name in NESTED}
        return self._quick(lines, objects, len(texts)) or _slow(texts)

    def _quick(self, lines: bytes, objects: dict[str, bytes], records: int) -> Fields | None:
        """None where something is not as it is always written."""
        for again in (False, True):
            frame = self._parsed(lines)
            if frame is None or frame.height != records or not _whole(frame):
                return None
            nested = {name: self._opened(frame, name) for name in NESTED}
            if all(_values(one) == objects[name].count(b'":') for name, one in nested.items()):
                return Fields(
                    frame.select(list(PLAIN)), nested["stage_ms"], nested["measured"], _plain_ok(lines, frame)
                )
            if not again:
                self._learn(objects)
        return None

    def _parsed(self, lines: bytes) -> pl.DataFrame | None:
        nested = {name: pl.Struct(dict.fromkeys(names, pl.Float32)) for name, names in self._names.items() if names}
        try:
            return pl.read_ndjson(lines, schema=PLAIN | _SAID | nested)
        except (pl.exceptions.PolarsError, ValueError):
            return None

    def _opened(self, frame: pl.DataFrame, name: str) -> pl.DataFrame:
        return frame.select(pl.col(name).struct.unnest()) if self._names[name] else pl.DataFrame()

    def _learn(self, objects: dict[str, bytes]) -> None:
        for name, text in objects.items():
            self._names[name] |= dict.fromkeys(key.decode("utf-8", "replace") for key in _NAME.findall(text))


def _plain_ok(lines: bytes, frame: pl.DataFrame) -> list[bool]:
    is_ok = (frame["judgement"].struct.field("verdict") == "OK").fill_null(value=False)
    if lines.count(_PLAIN_OK) != is_ok.sum():  # else none of them has a reason, which takes longer to see
        reasons = pl.read_ndjson(lines, schema=_REASONS)["judgement"].struct.field("reasons")
        is_ok &= (reasons.list.len() == 0).fill_null(value=False)
    return (is_ok & frame["trigger"].struct.field("trigger_id").is_not_null()).to_list()


def _whole(frame: pl.DataFrame) -> bool:
    """Whether each record has what every record has, and is of a schema that is known."""
    if any(frame[name].null_count() for name in PLAIN if name != "evidence"):
        return False
    return bool(frame["schema"].is_between(_KNOWN[0], _KNOWN[-1]).all())


def _values(frame: pl.DataFrame) -> int:
    return frame.height * frame.width - sum(column.null_count() for column in frame)


def _slow(texts: Sequence[bytes]) -> Fields:
    """Record by record; a damaged one has empty fields."""
    plain, stages, measured, unreadable = [], [], [], []
    for index, text in enumerate(texts):
        try:
            row = json.loads(text.decode())
            found = [_plain(row[name]) for name in PLAIN if name != "evidence"]
            found.append(_plain(row.get("evidence", "")))
            if row["schema"] not in _KNOWN:
                raise ValueError(f"schema {row['schema']} is not known")
            times, values = _numbers(row["stage_ms"]), _numbers(row.get("measured", {}))
        except (ValueError, KeyError, TypeError, AttributeError):
            unreadable.append(index)
            found, times, values = ["", False, 0, "", "", ""], {}, {}
        plain.append(found)
        stages.append(times)
        measured.append(values)
    made = pl.DataFrame(plain, schema=PLAIN, orient="row", strict=False)
    return Fields(made, _wide(stages), _wide(measured), [False] * len(texts), tuple(unreadable))


def _plain(value: object) -> object:
    if not isinstance(value, str | int):
        raise TypeError(f"{value!r} is neither text nor number")
    return value


def _numbers(row: dict[str, Any]) -> dict[str, float]:
    return {
        name: float(value) for name, value in row.items() if isinstance(value, int | float) and math.isfinite(value)
    }


def _wide(rows: Sequence[dict[str, float]]) -> pl.DataFrame:
    names = dict.fromkeys(name for row in rows for name in row)
    return pl.DataFrame({name: pl.Series(name, [row.get(name) for row in rows], pl.Float32) for name in names})
