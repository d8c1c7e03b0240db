"""Where rows and entries of the chain do not fit each other: what became of each, altered, missing, added or moved."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from inspection.audit.findings import Finding, FindingKind
from inspection.audit.links import ChainAudit


@dataclass(frozen=True, slots=True)
class Table:
    """A chained table.

    ``sql`` gives its rows in the order of their numbers: number, subject of its entry, serial, time ("" where it has
    none), then the content that was chained.  ``once``: each subject has one row at most.
    """

    name: str
    kind: str
    sql: str
    once: bool


class Row(NamedTuple):
    """A row of the table; ``digest`` is None where its content cannot have been written by us."""

    number: int
    subject: str
    serial: str
    at: str
    digest: bytes | None


class Entry(NamedTuple):
    """An entry of the chain."""

    sequence: int
    subject: str
    digest: bytes


Moved = dict[tuple[str, bytes | None], tuple[Entry, Row]]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Entries and rows between two places that agree; ``after`` is the number of the row before, ``place`` in the chain."""

    entries: list[Entry]
    rows: list[Row]
    after: int
    place: float


def meeting(entries: list[Entry], rows: list[Row]) -> tuple[int, int] | None:
    """How many entries and rows to pass until both agree, as few as possible; None when they do not meet."""
    places: dict[tuple[str, bytes | None], int] = {}
    for place, row in enumerate(rows):
        places.setdefault((row.subject, row.digest), place)
    best: tuple[int, int] | None = None
    for passed, entry in enumerate(entries):
        place = places.get((entry.subject, entry.digest), -1)
        if place >= 0 and (best is None or passed + place < sum(best)):
            best = (passed, place)
    return best


def told_apart(stretches: list[Stretch], table: Table, chain: ChainAudit) -> Iterator[Finding]:
    """What became of the entries and rows that do not fit each other, in the order of the chain."""
    belongs = {(entry.subject, entry.digest): entry for part in stretches for entry in part.entries}
    stands = {(row.subject, row.digest): row for part in stretches for row in part.rows}
    moved: Moved = {key: (entry, stands[key]) for key, entry in belongs.items() if key in stands}
    told: set[int] = set()
    for part in stretches:
        for finding in _moved(part, moved, table):
            if finding.entry not in told:  # once, at the first of its two places
                told.add(finding.entry or 0)
                yield finding
        rows = [row for row in part.rows if (row.subject, row.digest) not in moved]
        entries = [entry for entry in part.entries if (entry.subject, entry.digest) not in moved]
        yield from _altered(rows, entries, table, part.place)
        yield from _missing(entries, table, part.after)
        yield from _added(rows, table, part.place, chain)


def _moved(part: Stretch, moved: dict[tuple[str, bytes | None], tuple[Entry, Row]], table: Table) -> Iterator[Finding]:
    """Rows that stand here and belong elsewhere, then rows that belong here and stand elsewhere."""
    for row in part.rows:
        if (pair := moved.get((row.subject, row.digest))) is not None:
            what = f"row {row.number} of {table.name} stands where another belongs: its entry in the chain is {pair[0].sequence}"
            yield _of_row("moved", what, table, row, pair[0].sequence, part.place)
    for entry in part.entries:
        if (pair := moved.get((entry.subject, entry.digest))) is not None:
            row = pair[1]
            what = f"the row of {table.name} that belongs after row {part.after} stands as row {row.number}"
            finding = _of_row("moved", what, table, row, entry.sequence, part.place)
            yield replace(finding, row=part.after + 1)


def _altered(rows: list[Row], entries: list[Entry], table: Table, place: float) -> Iterator[Finding]:
    """Pairs of the two lists that are the same row, now of other content; they are taken out of both."""
    waiting: dict[str, list[Entry]] = {}
    for entry in reversed(entries):
        waiting.setdefault(entry.subject, []).append(entry)
    pairs = [(waiting[row.subject].pop(), row) for row in rows if waiting.get(row.subject)]
    taken, seen = {entry.sequence for entry, _ in pairs}, {row.number for _, row in pairs}
    entries[:] = [entry for entry in entries if entry.sequence not in taken]
    rows[:] = [row for row in rows if row.number not in seen]
    if len(entries) == len(rows):
        pairs += zip(entries, rows, strict=True)
        entries.clear()
        rows.clear()
    for entry, row in sorted(pairs, key=lambda pair: pair[1].number):
        other = "" if entry.subject == row.subject else f" (it was written as that of record {entry.subject})"
        what = f"row {row.number} of {table.name} is not as it was written{other}"
        yield _of_row("altered", what, table, row, entry.sequence, min(place, entry.sequence))


def _missing(entries: list[Entry], table: Table, after: int) -> Iterator[Finding]:
    for number, entry in enumerate(entries, start=after + 1):
        what = f"a row of {table.name} is missing after row {number - 1}: the chain has it as entry {entry.sequence}"
        yield Finding(
            "missing",
            what,
            table=table.name,
            row=number,
            entry=entry.sequence,
            record_id=entry.subject,
            place=entry.sequence,
        )


def _added(rows: list[Row], table: Table, place: float, chain: ChainAudit) -> Iterator[Finding]:
    lost = next((first for first, last in chain.gaps if first - 1 <= place <= last + 1), None)
    how = "has no entry in the chain: it was added" if lost is None else f"has lost its entry {lost} in the chain"
    for row in rows:
        yield _of_row("added", f"row {row.number} of {table.name} {how}", table, row, lost, place)


def _of_row(kind: FindingKind, what: str, table: Table, row: Row, entry: int | None, place: float) -> Finding:
    return Finding(
        kind, what, table=table.name, row=row.number, entry=entry, record_id=row.subject,
        serial=row.serial, at=row.at, place=place,
    )  # fmt: skip
