"""Which records are replayed: those that are named, all of a span, or some drawn at random."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from inspection.errors import UsageError
from inspection.record_reader import MOST, RecordReader, Span
from inspection.store import UnreadableRecord
from inspection.types import Record

Chosen = Record | UnreadableRecord  # the error stands for a record that cannot be read

LOOKED_AT = 2_000_000  # rows that are looked at, at most, for records that have pictures


@dataclass(frozen=True, slots=True)
class Drawn:
    """Row numbers drawn at random among those that name pictures; ``looked_at`` rows were looked at for them."""

    rowids: tuple[int, ...]
    looked_at: int


def named(reader: RecordReader, record_ids: Sequence[str]) -> Iterator[Chosen]:
    """The records of these ids; UsageError for one that is not there, with what its serial would give."""
    for record_id in record_ids:
        try:
            record = reader.find(record_id)
        except UnreadableRecord as error:
            yield error
            continue
        if record is None:
            others = [other.record_id for _, other in reader.readable_by_serial(record_id, 5)]
            fix = (
                f"parts of this serial have the records {', '.join(others)}"
                if others
                else "`lineside trace` finds records"
            )
            raise UsageError(f"there is no record {record_id[:80]!r} in {reader.path}", fix=fix)
        yield record


def in_span(reader: RecordReader, span: Span) -> Iterator[Chosen]:
    """All records of a span, oldest first."""
    first, last = reader.span_rows(span)
    at = first - 1
    while at < last and (page := reader.readable_after(at, MOST)):
        at = page[-1][0]
        for rowid, record in page:
            held = span.holds(record) if isinstance(record, Record) else reader.lies_in(rowid, span)
            if rowid <= last and held:
                yield record


def drawn(reader: RecordReader, span: Span, count: int, seed: int) -> Drawn:
    """``count`` records of a span that name pictures, each as likely as any other; the same again for the same seed."""
    first, last = reader.span_rows(span)
    found: list[int] = []
    looked_at = 0
    order = shuffled(first, last, random.Random(seed))
    while len(found) < count and looked_at < LOOKED_AT and (some := list(islice(order, MOST))):
        found += reader.with_pictures(some, span)
        looked_at += len(some)
    return Drawn(tuple(found[:count]), looked_at)


def of_rows(reader: RecordReader, rowids: Sequence[int]) -> Iterator[Chosen]:
    """The records of these rows."""
    for rowid in rowids:
        yield from (record for at, record in reader.readable_after(rowid - 1, 1) if at == rowid)


def shuffled(first: int, last: int, rng: random.Random) -> Iterator[int]:
    """The whole numbers ``first`` .. ``last``, each once, in random order; memory grows with how many are taken."""
    moved: dict[int, int] = {}
    for at in range(first, last + 1):
        other = rng.randrange(at, last + 1)
        here = moved.pop(at, at)
        yield here if other == at else moved.get(other, other)
        if other != at:
            moved[other] = here
