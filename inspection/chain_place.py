"""Where a record stands in the chain of its store, and which signed checkpoint is the first that holds it.

Says where, and whether the record still is what its entry holds; not that the chain is whole: that is for `lineside
audit` to prove.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from inspection.chain import canonical, link_of
from inspection.store import UnreadableRecord, read_record
from inspection.trace_queries import Line, TraceQueries
from inspection.types import Verdict

CHECKPOINTS_END = ".checkpoints"
WHY_NOT = {
    "no_chain": "the store was made by an earlier version and has no chain",
    "not_named": "the chain does not name this record: it is older than the chain, or `lineside audit` tells more",
}
NOT_WRITTEN = {  # what was done, by what `altered` names
    "record": "the record was altered",
    "late": "its late result was altered, added or taken away",
    "entry": "the entry itself was altered",
    "missing": "its entry in the chain is missing",
}
MOST_LINE = 100_000  # bytes of one checkpoint
VERDICT, TEXT = 5, 7  # places of these columns in what an entry holds
Entry = tuple[int, str, bytes, bytes]  # sequence, record, link, content hash


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The first checkpoint at or after a record; ``key`` is the fingerprint of its signature, "" for none."""

    number: int
    at: str
    key: str

    @property
    def moment(self) -> datetime | None:
        """When it was made; None where the file says nothing that is a time."""
        try:
            return datetime.fromisoformat(self.at)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class ChainPlace:
    """The entry of a record; ``sequence`` is 0 where the chain does not name it, and ``why_not`` is the word why.

    ``altered`` names what is not as its entry holds it: "record", "late" (its late result, or that there is none),
    "entry" (the entry itself, which does not follow from the one before), "missing" (there is none, though the chain names
    records of before).
    """

    sequence: int = 0
    link: str = ""
    checkpoint: Checkpoint | None = None
    why_not: str = ""
    altered: tuple[str, ...] = ()


def checkpoints_path(store: Path) -> Path:
    """Where the checkpoints of a record store lie."""
    return store.with_name(store.name + CHECKPOINTS_END)


def place_in_chain(queries: TraceQueries, store: Path, record_id: str, row: int) -> ChainPlace:
    """The place of the record in the row."""
    if not queries.has_chain():
        return ChainPlace(why_not="no_chain")
    entry = _entry(queries, record_id, row, near=0)
    if entry is None:
        return ChainPlace(why_not="not_named", altered=("missing",) if _is_missing(queries, row) else ())
    sequence, _, link, _ = entry
    checkpoint = _checkpoint_from(checkpoints_path(store), sequence)
    altered = _altered(queries, entry, queries.content_of(record_id))
    return ChainPlace(sequence, link.hex(), checkpoint, altered=altered)


def checked(queries: TraceQueries, lines: Iterable[Line], path: Path) -> Iterator[Line]:
    """The lines, each with whether its record in the store ``path`` is as it was written and can be read."""
    has_chain, ahead = queries.has_chain(), 0  # ahead: entries before a record that are not of records
    for line in lines:
        entry = _entry(queries, line.record_id, line.rowid, near=line.rowid + ahead) if has_chain else None
        content = queries.content_of(line.record_id)
        if entry is not None:
            ahead = entry[0] - line.rowid
            line = replace(line, as_written=not _altered(queries, entry, content))
        elif has_chain and _is_missing(queries, line.rowid):
            line = replace(line, as_written=False)
        try:
            late = queries.late_of(line.record_id)
            read_record(line.rowid, str(*content[TEXT : TEXT + 1]), str(late[1]) if late else None, path)
        except UnreadableRecord:
            line = replace(line, readable=False)
        yield line


def _entry(queries: TraceQueries, record_id: str, row: int, *, near: int) -> Entry | None:
    """The entry of the record in the row, for entries stand in the order of the rows; ``near`` is looked at first."""
    if near > 0 and (entry := queries.chain_from(near, "record")) is not None and entry[1] == record_id:
        return entry
    low, high = 1, queries.chain_end() + 1  # the entry is the first that is not before it, found by halving
    while low < high:
        middle = (low + high) // 2
        entry = queries.chain_from(middle, "record")
        if entry is None or queries.row_of(entry[1]) >= row:
            high = middle
        else:
            low = entry[0] + 1
    entry = queries.chain_from(low, "record")
    return entry if entry is not None and entry[1] == record_id else None


def _is_missing(queries: TraceQueries, row: int) -> bool:
    """Whether the record in a row that the chain does not name came after one that it names."""
    first = queries.chain_from(1, "record")
    return first is not None and 0 < queries.row_of(first[1]) < row


def _altered(queries: TraceQueries, entry: Entry, content: list[str | int]) -> tuple[str, ...]:
    """What is not as it was written."""
    # Looked at twice, for a late result may be written between two of the queries.
    return tuple(_unlike(queries, entry, content)) and tuple(_unlike(queries, entry, content))


def _unlike(queries: TraceQueries, entry: Entry, content: list[str | int]) -> Iterator[str]:
    """What is not as its entries hold it."""
    sequence, record_id, link, held = entry
    if sha256(canonical(content)).digest() != held:
        yield "record"
    late = queries.late_of(record_id)
    # Only of a part that was answered ERROR there can have been a late result.
    if late or Verdict.ERROR in content[VERDICT : VERDICT + 1]:
        held_late = queries.late_entry(record_id, sequence, anywhere=bool(late))
        if held_late != (sha256(canonical(late)).digest() if late else None):
            yield "late"
    if link != link_of(queries.link_before(sequence), sequence, "record", record_id, held):
        yield "entry"


def _checkpoint_from(path: Path, sequence: int) -> Checkpoint | None:
    """The first line that holds an entry, found by halving the file; None when there is none or it cannot be read."""
    try:
        with path.open("rb") as file:
            low, high = 0, os.fstat(file.fileno()).st_size
            while low < high:
                middle = (low + high) // 2
                found = _line_from(file, middle)
                if found is None or int(found[1]["records"][0]) >= sequence:
                    high = middle
                else:
                    low = found[0]
            last = _line_from(file, low)
        if last is None or int(last[1]["records"][0]) < sequence:
            return None
        return Checkpoint(int(last[1]["number"]), str(last[1]["at"]), str(last[1]["key"]))
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def _line_from(file: IO[bytes], begin: int) -> tuple[int, dict[str, Any]] | None:
    """Where the first whole line ends that begins at or after a byte, and what it says; None where there is none."""
    file.seek(max(0, begin - 1))
    if begin and file.read(1) != b"\n":
        file.readline(MOST_LINE)
    while (line := file.readline(MOST_LINE)).endswith(b"\n"):
        with suppress(ValueError):  # torn by a power cut
            return file.tell(), json.loads(line)
    return None
