"""Picture files against the ledger of evidence, and the signatures of what retention deleted."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path, PurePosixPath

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from inspection.audit.files import UNREADABLE, open_snapshot
from inspection.audit.findings import FileAudit, Finding, Findings
from inspection.chain import canonical
from inspection.evidence_ledger import Tombstone
from inspection.picture_state import hash_of

TABLE = "pictures"
_SQL = "SELECT rowid, record_id, file, sha256, written_at FROM pictures ORDER BY rowid"
_COMPRESSED = "SELECT new_file, new_sha256 FROM compressed WHERE file = ?"
_DELETED = "SELECT record_id, files, rule, at, version, key, signature FROM deleted WHERE record_id = ?"
_UNFINISHED = "SELECT 1 FROM unfinished WHERE file = ?"


class Tombstones:
    """Sees each row of what was deleted, and verifies its signature."""

    def __init__(self, keys: Mapping[str, Ed25519PublicKey]) -> None:
        self.findings = Findings()
        self._keys = keys

    def saw(self, number: int, content: tuple[object, ...]) -> None:
        """A tombstone was read."""
        *signed, key, signature = (str(value) for value in content)
        if not key and not signature:
            return
        fault = self._fault([*signed, key], key, signature)
        if fault:
            what = f"row {number} of deleted: {fault}"
            self.findings.add(Finding("altered", what, table="deleted", row=number, record_id=signed[0], at=signed[3]))

    def _fault(self, content: list[str], key: str, signature: str) -> str:
        if key not in self._keys:
            return f"it is signed with the key {key[:16]}, whose public key was not given (--public KEY.pub)"
        try:
            self._keys[key].verify(bytes.fromhex(signature), canonical(content))
        except (InvalidSignature, ValueError):
            return "its signature is not that of the key that it names"
        return ""


def check_pictures(ledger: Path, folder: Path) -> FileAudit:
    """Read every picture file that should be there by the ledger, and look that those that were deleted are gone."""
    findings, damage, count = Findings(), Findings(), 0
    if ledger.exists():
        try:
            with closing(open_snapshot(ledger)) as database:
                for number, record_id, file, digest, at in database.execute(_SQL):
                    count += 1
                    fault = _fault(database, folder, record_id, file, digest)
                    if fault and (fault := _fault_now(ledger, folder, record_id, file, digest)):
                        what = f"picture {file}: {fault}"
                        finding = Finding("picture", what, TABLE, number, record_id=record_id, at=at, place=count)
                        findings.add(finding)
        except (*UNREADABLE, ValueError) as error:
            damage.add(Finding("damaged", f"the ledger cannot be read on after picture {count} ({error})"))
    return FileAudit(
        name="pictures", path=str(folder), there=ledger.exists(), rows={"pictures": count}, uncovered={}, entries=0,
        damage=tuple(damage.kept), findings=tuple(findings.kept), counts=dict(findings.counts + damage.counts), proven=0,
        proven_row=None, proven_record="", proven_at=None, newer=0, delays=(), delayed=0,
    )  # fmt: skip


def _fault_now(ledger: Path, folder: Path, record_id: str, file: str, digest: str) -> str:
    """The same by the ledger as it is at this moment: retention may have gone on since."""
    with closing(open_snapshot(ledger)) as database:
        return _fault(database, folder, record_id, file, digest)


def _fault(database: sqlite3.Connection, folder: Path, record_id: str, file: str, digest: str) -> str:
    """What is wrong with a picture, "" when it is as the ledger says."""
    compressed = database.execute(_COMPRESSED, (file,)).fetchone()
    name, due = compressed or (file, digest)
    if not _is_inside(str(name)):
        return "its name leads out of the folder of evidence"
    found = hash_of(folder / name)
    buried = any(
        name in (deleted for deleted, _ in Tombstone(*row).named) for row in database.execute(_DELETED, (record_id,))
    )
    if (found is None if buried else found == due) or database.execute(_UNFINISHED, (name,)).fetchone():
        return ""
    if buried:
        return "it was deleted by retention, and is there again"
    return "it is missing" if found is None else "it is not as it was written"


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts
