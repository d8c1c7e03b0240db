"""Picture files against the ledger of evidence, and the signatures of what retention deleted."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from inspection.audit.files import UNREADABLE, open_snapshot
from inspection.audit.findings import FileAudit, Finding, Findings, Unknown
from inspection.chain import canonical
from inspection.evidence_ledger import Tombstone
from inspection.picture_state import REMOVED, hash_of

TABLE = "pictures"
_SQL = "SELECT rowid, record_id, file, sha256, written_at FROM pictures ORDER BY rowid"
_COMPRESSED = "SELECT new_file, new_sha256 FROM compressed WHERE file = ?"
_DELETED = "SELECT record_id, files, rule, at, version, key, signature FROM deleted WHERE record_id = ?"
UNREADABLE_HERE, BEGUN = "may not be read", "deletion begun"  # of such a picture nothing is wrong, nor is it good


class Tombstones:
    """Sees each row of what was deleted, and verifies its signature."""

    def __init__(self, keys: Mapping[str, Ed25519PublicKey]) -> None:
        self._altered = Findings()
        self._strange: dict[str, list[int]] = {}  # rows by a key that was not given
        self._keys = keys

    @property
    def findings(self) -> Findings:
        """What is wrong, and for each key that was not given one that could not be verified."""
        found = Findings()
        found.extend(self._altered)
        for key, rows in self._strange.items():
            which = (
                f"row {rows[0]} of deleted is"
                if len(rows) == 1
                else f"{len(rows)} rows of deleted, from row {rows[0]} on, are"
            )
            what = f"{which} signed with the key {key[:16]}, whose public key was not given (--public KEY.pub)"
            found.add(Finding("unverified", what, table="deleted", row=rows[0]), times=len(rows))
        return found

    def saw(self, number: int, content: tuple[object, ...]) -> None:
        """A tombstone was read."""
        *signed, key, signature = (str(value) for value in content)
        if not key and not signature:
            return
        if key not in self._keys:
            self._strange.setdefault(key, []).append(number)
            return
        fault = self._fault([*signed, key], key, signature)
        if fault:
            what = f"row {number} of deleted: {fault}"
            self._altered.add(Finding("altered", what, table="deleted", row=number, record_id=signed[0], at=signed[3]))

    def _fault(self, content: list[str], key: str, signature: str) -> str:
        try:
            self._keys[key].verify(bytes.fromhex(signature), canonical(content))
        except (InvalidSignature, ValueError):
            return "its signature is not that of the key that it names"
        return ""


@dataclass(frozen=True, slots=True)
class Looked:
    """What is said of the pictures in the ledger; nothing is said of ``unreadable`` ones.

    ``begun``: retention put down that it deletes them, and they still lie there.
    """

    said: FileAudit
    unreadable: Unknown
    begun: Unknown


def check_pictures(ledger: Path, folder: Path) -> Looked:
    """Read every picture file that should be there by the ledger, and look that those that were deleted are gone."""
    findings, damage, count = Findings(), Findings(), 0
    aside = {UNREADABLE_HERE: Unknown(), BEGUN: Unknown()}
    if ledger.exists():
        try:
            with closing(open_snapshot(ledger)) as database:
                for number, record_id, file, digest, at in database.execute(_SQL):
                    count += 1
                    fault = _fault(database, folder, record_id, file, digest)
                    if fault and fault != UNREADABLE_HERE:
                        fault = _fault_now(ledger, folder, record_id, file, digest)
                    if fault in aside:
                        aside[fault] = aside[fault].with_more([file])
                    elif fault:
                        what = f"picture {file}: {fault}"
                        finding = Finding("picture", what, TABLE, number, record_id=record_id, at=at, place=count)
                        findings.add(finding)
        except (*UNREADABLE, ValueError) as error:
            damage.add(Finding("damaged", f"the ledger cannot be read on after picture {count} ({error})"))
    said = FileAudit(
        name="pictures", path=str(folder), there=ledger.exists(), rows={"pictures": count}, uncovered={}, entries=0,
        damage=tuple(damage.kept), findings=tuple(findings.kept), counts=dict(findings.counts + damage.counts), proven=0,
        proven_row=None, proven_record="", proven_at=None, newer=0, delays=(), delayed=0,
    )  # fmt: skip
    return Looked(said, aside[UNREADABLE_HERE], aside[BEGUN])


def _fault_now(ledger: Path, folder: Path, record_id: str, file: str, digest: str) -> str:
    """The same by the ledger as it is at this moment: retention may have gone on since."""
    with closing(open_snapshot(ledger)) as database:
        return _fault(database, folder, record_id, file, digest)


def _fault(database: sqlite3.Connection, folder: Path, record_id: str, file: str, digest: str) -> str:
    """What is wrong with a picture and the JPEG in its place, "" when both are as the ledger says."""
    compressed = database.execute(_COMPRESSED, (file,)).fetchone()
    buried = {name for row in database.execute(_DELETED, (record_id,)) for name, _ in Tombstone(*row).named}
    said = []
    for name, due in (compressed, (file, digest)) if compressed else ((file, digest),):
        gone = "it was deleted by retention" if name in buried else ""
        if compressed and name == file:
            gone = "it was replaced by a JPEG"
        said.append(_fault_of_file(database, folder, str(name), due, gone=gone))
    faults = [one for one in said if one and one not in (UNREADABLE_HERE, BEGUN)]
    return next(iter(faults), "") or next((one for one in (UNREADABLE_HERE, BEGUN) if one in said), "")


def _fault_of_file(database: sqlite3.Connection, folder: Path, name: str, due: str, *, gone: str) -> str:
    """The same of one file; ``gone``: why it should not be there, "" when it should."""
    if not _is_inside(name):
        return "its name leads out of the folder of evidence"
    try:
        found = hash_of(folder / name)
    except OSError:
        return UNREADABLE_HERE
    if gone:
        begun = found is not None and database.execute(REMOVED, (name, found)).fetchone()
        return BEGUN if begun else "" if found is None else f"{gone}, and is there again"
    return "" if found == due else "it is missing" if found is None else "it is not as it was written"


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts
