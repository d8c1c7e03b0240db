"""Where a record stands in the chain of its store, and which signed checkpoint is the first that holds it.

Says where, and whether the record still is what its entry holds; not that the chain is whole: that is for `lineside
audit` to prove.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from inspection.chain import canonical, link_of
from inspection.trace_queries import TraceQueries

CHECKPOINTS_END = ".checkpoints"
WHY_NOT = {
    "no_chain": "the store was made by an earlier version and has no chain",
    "not_named": "the chain does not name this record: it is older than the chain, or `lineside audit` tells more",
}
MOST_LINE = 100_000  # bytes of one checkpoint


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
    "entry" (the entry itself, which does not follow from the one before).
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
    """The place of the record in the row; entries stand in the order of the rows."""
    if not queries.has_chain():
        return ChainPlace(why_not="no_chain")
    low, high = 1, queries.chain_end() + 1  # the entry is the first that is not before it, found by halving
    while low < high:
        middle = (low + high) // 2
        entry = queries.chain_from(middle, "record")
        if entry is None or queries.row_of(entry[1]) >= row:
            high = middle
        else:
            low = entry[0] + 1
    entry = queries.chain_from(low, "record")
    if entry is None or entry[1] != record_id:
        return ChainPlace(why_not="not_named")
    sequence, _, link, content = entry
    sound = link == link_of(queries.link_before(sequence), sequence, "record", record_id, content)
    checkpoint = _checkpoint_from(checkpoints_path(store), sequence)
    return ChainPlace(
        sequence,
        link.hex(),
        checkpoint,
        altered=(*_altered(queries, record_id, sequence, content), *(() if sound else ("entry",))),
    )


def _altered(queries: TraceQueries, record_id: str, sequence: int, content: bytes) -> Iterator[str]:
    """What is not as it was written; compared with the entries alone."""
    if sha256(canonical(queries.content_of(record_id))).digest() != content:
        yield "record"
    late = queries.late_of(record_id)
    held = queries.late_entry(record_id, sequence, anywhere=bool(late))
    if held != (sha256(canonical(late)).digest() if late else None):
        yield "late"


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
