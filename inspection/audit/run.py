"""The audit of a station's files: records, reviews, evidence ledger, and the checkpoints that sign their chains."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from inspection.audit.change_points import ChangePoints
from inspection.audit.covered import COVERED, RECORDS, Covered
from inspection.audit.delays import Delays, moment_of
from inspection.audit.differences import Table
from inspection.audit.files import UNREADABLE, IntegrityCheck, check_schema, is_empty, open_snapshot
from inspection.audit.findings import AuditResult, FileAudit, Finding, Findings, LinesAudit, Unknown, counted
from inspection.audit.lines import Lines, compare_copy, heads_of_both, read_lines
from inspection.audit.links import ChainAudit, SignedHead, follow
from inspection.audit.pictures import Looked, Tombstones, check_pictures
from inspection.audit.rows import TableAudit, compare
from inspection.audit.unknown import check_unknown
from inspection.checkpoints import CHAINED, chained_files, checkpoints_path
from inspection.errors import StoreError, UsageError
from inspection.signing_keys import fingerprint_of, raw_public
from inspection.sqlite_file import cannot_be_opened, check_unwritten, named
from inspection.types import Verdict, utc_now

SLACK_S = 60.0  # that a checkpoint may be late without being remarked, besides twice the time between two


def audit(
    path: Path,
    *,
    public_keys: Sequence[Ed25519PublicKey] = (),
    checkpoint_s: float = 60.0,
    copy: Path | None = None,
    pictures: Path | None = None,
    now: datetime | None = None,
) -> AuditResult:
    """Verify the record store ``path`` and what lies beside it; nothing is written, and no writer is held up.

    Checkpoints have to be signed with one of ``public_keys`` where any is given.  ``copy`` is a copy of the checkpoints
    that was kept elsewhere, ``pictures`` the folder of evidence, whose files are then read too.  StoreError when there is
    no store and no checkpoint that knows of one, when a file or the checkpoints cannot be opened, or the copy is not there;
    UsageError when the copy is the file itself.
    """
    began, now = monotonic(), now or utc_now()
    keys = {fingerprint_of(raw_public(key)): key for key in public_keys}
    # Read before the files: whatever a checkpoint names is in what is read after it.
    lines = read_lines(checkpoints_path(path), keys, signed_wanted=bool(keys))
    kept, differs = _kept_copy(copy, lines, keys)
    allowed = timedelta(seconds=2 * checkpoint_s + SLACK_S)
    places = chained_files(path)
    files = tuple(
        _FileReading(covered, places[covered.name], lines, kept if differs else None, allowed, now, keys).run()
        for covered in COVERED
    )
    said = lines.said if differs is None else _with_finding(lines, differs)
    looked = None if pictures is None else _pictures(path, places["evidence"], pictures)
    remarks = _remarks(files, lines, bool(keys))
    result = AuditResult(
        files, said, kept.said if kept else None, looked[0].said if looked else None, remarks, monotonic() - began,
        *((looked[1], looked[0].unreadable, looked[0].begun, looked[2]) if looked else ()),
    )  # fmt: skip
    if files[0].good and not files[0].rows and (result.good or not lines.size):
        raise StoreError(
            f"there is no record store {path}, or nothing in it, and no checkpoint that knows of one: nothing to verify",
            fix="put the file back, mount the disk that it lies on, or correct `store` in the station's config; "
            "a new station makes it when it starts",
        )
    return result


def _pictures(store: Path, ledger: Path, folder: Path) -> tuple[Looked, Unknown, Unknown]:
    looked = check_pictures(ledger, folder)
    unknown, found, closed = check_unknown(store, ledger, folder)
    said = looked.said
    counts = dict(Counter(said.counts) + found.counts)
    return replace(looked, said=replace(said, findings=(*said.findings, *found.kept), counts=counts)), unknown, closed


def _kept_copy(
    copy: Path | None, lines: Lines, keys: Mapping[str, Ed25519PublicKey]
) -> tuple[Lines | None, Finding | None]:
    if copy is None:
        return None, None
    if not copy.is_file():
        raise StoreError(f"there is no copy of the checkpoints {copy}", fix="correct --checkpoints")
    if lines.path.exists() and copy.samefile(lines.path):
        raise UsageError(
            f"{copy} is the station's own file of checkpoints, which agrees with itself whatever was done to it",
            fix="give --checkpoints a copy that was kept elsewhere",
        )
    kept = read_lines(copy, keys, signed_wanted=bool(keys))
    return kept, compare_copy(lines, kept)


def _with_finding(lines: Lines, finding: Finding) -> LinesAudit:
    said = lines.said
    counts = {**said.counts, "checkpoint": said.counts.get("checkpoint", 0) + 1}
    return replace(said, findings=(finding, *said.findings), counts=counts)


class _FileReading:
    def __init__(
        self,
        covered: Covered,
        path: Path,
        lines: Lines,
        copy: Lines | None,
        allowed: timedelta,
        now: datetime,
        keys: Mapping[str, Ed25519PublicKey],
    ) -> None:
        self._covered = covered
        self._path = path
        self._lines = lines
        self._copy = copy
        self._allowed = allowed
        self._now = now
        self._tombstones = Tombstones(keys)
        self._damage = Findings()
        self._found = Findings()
        self._tables: dict[str, TableAudit] = {}
        self._chain = ChainAudit()
        self._delays = Delays(iter(()), allowed)

    def run(self) -> FileAudit:
        if not self._path.exists():
            self._gone()
            return self._said(there=False)
        integrity = IntegrityCheck(self._path)
        try:
            with closing(open_snapshot(self._path)) as database:
                try:
                    self._read(database)
                finally:
                    integrity.faults()
                    check_unwritten(database, self._path)
        except UNREADABLE as error:
            if cannot_be_opened(error):  # nothing of it was seen, so nothing can be said of it
                with named(self._path, CHAINED):
                    raise
            self._damage.add(Finding("damaged", f"it cannot be read ({error})"))
        for fault in integrity.faults():
            self._damage.add(Finding("damaged", f"SQLite's own check: {fault}"))
        return self._said(there=True)

    def _read(self, database: sqlite3.Connection) -> None:
        if is_empty(database):  # made this moment, or emptied
            self._gone()
        elif check_schema(database, self._covered.migrations, self._covered.mark, self._damage):
            self._follow(database)
        elif not self._damage.kept:
            self._damage.add(Finding("schema", "it has no chain: nothing of it is covered"))

    def _gone(self) -> None:
        newest = None
        for newest in self._heads():  # noqa: B007  (the last one is wanted)
            pass
        if newest is not None and newest.sequence:
            what = f"the file is gone or empty; checkpoint line {newest.line} has entry {newest.sequence} of its chain"
            self._damage.add(Finding("cut", what, line=newest.line))

    def _heads(self) -> Iterator[SignedHead]:
        return heads_of_both(self._lines, self._copy, self._covered.name)

    def _follow(self, database: sqlite3.Connection) -> None:
        tables = self._covered.tables
        self._chain = chain = follow(database, self._heads(), frozenset(table.kind for table in tables))
        self._delays = Delays(self._heads(), self._allowed)
        for number, table in enumerate(tables):
            try:
                self._table(database, table, self._delays if number == 0 else Delays(iter(()), self._allowed))
            except UNREADABLE as error:
                self._damage.add(
                    Finding("damaged", f"the table {table.name} cannot be read ({error})", table=table.name)
                )
        where = {entry: row for said in self._tables.values() for entry, row in said.where.items()}
        for finding in chain.findings.kept:
            row = where.get(finding.entry or 0)
            self._found.kept.append(
                finding if row is None
                else replace(finding, row=row.number, record_id=row.subject, serial=row.serial, at=row.at)
            )  # fmt: skip
        self._found.counts.update(chain.findings.counts)
        for said in self._tables.values():
            self._found.extend(said.findings)
        self._found.extend(self._tombstones.findings)
        self._found.kept.sort(key=lambda finding: finding.place)
        self._found.kept[:] = [self._explained(database, finding) for finding in self._found.kept]

    def _table(self, database: sqlite3.Connection, table: Table, delays: Delays) -> None:
        if table.kind != "record":
            observe = self._tombstones.saw if table.kind == "deleted" else None
            self._tables[table.name] = compare(database, table, self._chain, delays, observe)
            return
        try:
            points = ChangePoints(database)
        except UNREADABLE as error:
            self._damage.add(Finding("damaged", f"the table judged_by cannot be read ({error})", table="judged_by"))
            self._tables[table.name] = compare(database, table, self._chain, delays)
            return
        self._tables[table.name] = said = compare(database, table, self._chain, delays, points.saw)
        if not said.ended:
            points.end()
        for finding in points.findings:
            said.findings.add(replace(finding, place=float("inf")))

    def _explained(self, database: sqlite3.Connection, finding: Finding) -> Finding:
        """With which columns of an altered record contradict what its JSON says."""
        if finding.kind != "altered" or finding.table != "records" or finding.row is None:
            return finding
        try:
            differ = _contradictions(database, finding.row)
        except UNREADABLE:
            return finding
        return replace(finding, what=f"{finding.what}; {differ}") if differ else finding

    def _said(self, *, there: bool) -> FileAudit:
        tables, chain = self._tables, self._chain
        self._look_at_newest()
        proven = next((one.last_proven for one in tables.values() if one.last_proven is not None), None)
        head = chain.last_head if chain.last_head and chain.last_head.signed else None
        return FileAudit(
            name=self._covered.name, path=str(self._path), there=there,
            rows={name: one.rows for name, one in tables.items()},
            uncovered={name: one.uncovered for name, one in tables.items() if one.uncovered},
            entries=chain.entries, damage=tuple(self._damage.kept), findings=tuple(self._found.kept),
            counts=dict(self._damage.counts + self._found.counts),
            proven=sum(one.proven for one in tables.values()),
            proven_row=proven.number if proven else None, proven_record=proven.subject if proven else "",
            proven_at=head.at if head else None, newer=sum(one.newer for one in tables.values()),
            delays=tuple(self._delays.kept), delayed=self._delays.count,
        )  # fmt: skip

    def _look_at_newest(self) -> None:
        """Records that no checkpoint has, though one should have been written by now."""
        waiting = self._delays.waiting
        if self._covered is not RECORDS or waiting is None or "unverified" in self._lines.said.counts:
            return  # whether a checkpoint has it cannot be told
        table, row, at = waiting
        written = moment_of(at)
        if written is not None and self._now - written <= self._allowed:
            return
        what = (
            f"no checkpoint has row {row} of {table} or any after it, though one was due long ago: the station did not end "
            "in order or cannot write checkpoints (start it once), or checkpoints were taken away"
        )
        self._found.add(Finding("unsigned", what, table=table, row=row, at=at, place=float("inf")))


def _contradictions(database: sqlite3.Connection, row: int) -> str:
    sql = "SELECT record_id, trigger_id, serial, lot, verdict, judged_at, json FROM records WHERE rowid = ?"
    found = database.execute(sql, (row,)).fetchone()
    try:
        document = json.loads(found[-1])
        trigger = document["trigger"]
        said = {
            "record_id": document["record_id"], "trigger_id": trigger["trigger_id"],
            "serial": document["read_serial"] or trigger["serial"], "lot": trigger["lot"],
            "verdict": int(Verdict[document["judgement"]["verdict"]]), "judged_at": document["judged_at"],
        }  # fmt: skip
    except (ValueError, KeyError, TypeError, RecursionError):
        return "its JSON cannot be read"
    differ = [name for (name, value), column in zip(said.items(), found, strict=False) if value != column]
    return f"its JSON says otherwise of: {', '.join(differ)}" if differ else ""


def _remarks(files: Sequence[FileAudit], lines: Lines, keyed: bool) -> tuple[str, ...]:
    remarks = list(lines.said.remarks)
    if not lines.size:
        remarks.append("there are no checkpoints: nobody signed anything, and a tail that was cut off does not show")
    elif not lines.said.signed and not lines.said.unverified:
        remarks.append(
            "the checkpoints are not signed: whoever can write the files can change records and make chain and checkpoints "
            "anew; name a key in [audit]" + ("" if keyed else ", or give --public KEY.pub")
        )
    for file in files:
        remarks += [f"{counted(count, 'rows')} of {table} from before there was a chain: what is said there is not covered"
                    for table, count in file.uncovered.items()]  # fmt: skip
        if file.delayed:
            first, times = file.delays[0], "once" if file.delayed == 1 else f"{file.delayed} times"
            remarks.append(
                f"{file.name}: rows were signed later than they should have been {times}, first row {first.row} of "
                f"{first.table}, judged {first.at}, signed {first.signed_at.isoformat()}: what was changed in between "
                "does not show"
            )
    return tuple(remarks)
