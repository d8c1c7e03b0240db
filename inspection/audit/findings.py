"""What an audit says: of each file what is wrong first, how much is wrong, and what is proven up to where."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

FindingKind = Literal[
    "altered", "missing", "added", "moved",  # rows against the chain
    "chain", "rewritten", "cut",  # the chain itself, and the chain against the checkpoints
    "unsigned", "checkpoint", "change_point", "damaged", "schema", "picture",
    "unverified",  # signed with a key that was not given: neither good nor bad
]  # fmt: skip
MOST_KEPT = 1000  # findings kept of a table; beyond that they are counted
HOW_ENTERED = "a start of the station enters those whose record the store has"
FEW = 3  # files that the ledger does not know are named


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it was written.

    ``row`` is the row's number (where a row is missing: the one it had), ``entry`` its number in the chain, None where
    that is not known; ``place`` orders the findings of a file.  ``line`` is that of a checkpoint.
    """

    kind: FindingKind
    what: str
    table: str = ""
    row: int | None = None
    entry: int | None = None
    record_id: str = ""
    serial: str = ""
    at: str = ""
    line: int | None = None
    place: float = 0


def counted(count: int, name: str) -> str:
    """A count with its word, which is given as for many: ``1 entry``, ``2 entries``."""
    if count == 1:
        name = f"{name.removesuffix('ies')}y" if name.endswith("ies") else name.removesuffix("s")
    return f"{count} {name}"


@dataclass(frozen=True, slots=True)
class Delay:
    """Rows that were signed later than they should have been: what was changed before does not show."""

    table: str
    row: int
    at: str
    signed_at: datetime
    late_by: timedelta


@dataclass(slots=True)
class Findings:
    """Collects findings: all are counted, the first ``MOST_KEPT`` are kept."""

    kept: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, finding: Finding, times: int = 1) -> None:
        """Count a finding, and keep it while there is room."""
        self.counts[finding.kind] += times
        if len(self.kept) < MOST_KEPT:
            self.kept.append(finding)

    def extend(self, other: "Findings") -> None:
        """Take in those of another part of the same file."""
        self.kept.extend(other.kept)
        self.counts.update(other.counts)


@dataclass(frozen=True, slots=True)
class FileAudit:
    """What is said of one file.

    ``damage`` is about the file as a whole (SQLite's own check, schema, where reading ended); ``findings`` are in the
    order of the chain, the first affected row first.  ``rows`` counts each table, ``uncovered`` its rows from before
    there was a chain, ``proven`` those that are as a signed checkpoint has them, ``newer`` those after the last checkpoint.
    ``proven_row`` is the last proven row of the first table with rows, ``proven_at`` when that was signed.
    """

    name: str
    path: str
    there: bool
    rows: dict[str, int]
    uncovered: dict[str, int]
    entries: int
    damage: tuple[Finding, ...]
    findings: tuple[Finding, ...]
    counts: dict[str, int]
    proven: int
    proven_row: int | None
    proven_record: str
    proven_at: datetime | None
    newer: int
    delays: tuple[Delay, ...]
    delayed: int

    @property
    def first(self) -> Finding | None:
        """The first row or entry that is affected; what is said of the whole file where no row is."""
        return next(iter((*self.findings, *self.damage)), None)

    @property
    def good(self) -> bool:
        """Whether nothing was found."""
        return not self.damage and not self.findings


@dataclass(frozen=True, slots=True)
class LinesAudit:
    """What is said of the file of checkpoints: its lines, how many are signed by a known key, what is wrong, remarks.

    ``unverified``: there are signatures, and none is of a key that was given.
    """

    path: str
    lines: int
    signed: int
    unsigned: int
    first_at: datetime | None
    last_at: datetime | None
    keys: tuple[str, ...]
    findings: tuple[Finding, ...]
    counts: dict[str, int]
    remarks: tuple[str, ...]
    unverified: bool


@dataclass(frozen=True, slots=True)
class Unknown:
    """Picture files of which neither good nor bad is said: how many, and the first of them, relative to the evidence folder."""

    files: int = 0
    first: tuple[str, ...] = ()

    def with_more(self, names: Sequence[str]) -> "Unknown":
        """Together with these."""
        return Unknown(self.files + len(names), tuple(sorted((*self.first, *names))[:FEW]))


@dataclass(frozen=True, slots=True)
class AuditResult:
    """What an audit says altogether; ``pictures`` and what follows from them are None where they were not looked at.

    ``unknown`` pictures are not in the ledger, ``unreadable`` ones may not be read here, and of ``begun`` ones the deletion
    was begun, but they still lie there.  ``closed`` are folders that may not be read.
    """

    files: tuple[FileAudit, ...]
    checkpoints: LinesAudit
    copy: LinesAudit | None
    pictures: FileAudit | None
    remarks: tuple[str, ...]
    seconds: float
    unknown: Unknown | None = None
    unreadable: Unknown | None = None
    begun: Unknown | None = None
    closed: Unknown | None = None

    @property
    def complete(self) -> bool:
        """Whether all could be read that was to be looked at."""
        return not any(some is not None and some.files for some in (self.unreadable, self.closed))

    @property
    def only_unverified(self) -> bool:
        """Whether all that is found is signatures of keys that were not given."""
        looked = (*self.files, *([self.pictures] if self.pictures else []))
        lines = (self.checkpoints, *([self.copy] if self.copy else []))
        found = {kind for counts in ([one.counts for one in looked] + [one.counts for one in lines]) for kind in counts}
        return found == {"unverified"}

    @property
    def good(self) -> bool:
        """Whether nothing was found anywhere."""
        looked = (*self.files, *([self.pictures] if self.pictures else []))
        lines = (self.checkpoints, *([self.copy] if self.copy else []))
        return all(one.good for one in looked) and not any(one.findings for one in lines)
