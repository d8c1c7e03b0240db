"""What became of the pictures of a record: whole, compressed, deleted by a rule, missing, altered, not to be read."""

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from inspection.evidence import SKIPPED, evidence_files, evidence_of
from inspection.evidence_ledger import (
    LEDGER,
    MARK,
    MIGRATIONS,
    Compressed,
    Picture,
    Tombstone,
    compressed_of,
    deleted_of,
    ledger_path,
    pictures_of,
)
from inspection.read_only import ReadOnlyFile
from inspection.station_places import Places
from inspection.types import Record

State = Literal["whole", "compressed", "deleted", "begun", "returned", "missing", "altered", "unentered", "unreadable"]
REMOVED = "SELECT 1 FROM unfinished WHERE file = ? AND step = 'remove' AND sha256 = ?"
_PIECE = 1 << 20
NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENAMETOOLONG)


@dataclass(frozen=True, slots=True)
class PictureState:
    """One picture of a record.

    ``name`` is the camera's role (with ``_raw`` or ``_golden`` behind it), ``file`` relative to the evidence folder,
    ``path`` the file that is there.  ``rule`` and ``at`` say by which rule and when it was compressed or deleted.
    ``unentered``: there, but the ledger does not know it, so nothing vouches for it.  ``begun``: retention began to delete
    it, and it still lies there.  ``returned``: something lies there though it was deleted.  ``unreadable``: it, or its
    folder, may not be read here, so nothing is known of it but what the ledger says.  ``vouched_from`` is set where an
    older file was entered later: what was done to it before that nobody can tell.
    """

    name: str
    file: str
    state: State
    rule: str = ""
    at: datetime | None = None
    path: Path | None = None
    vouched_from: datetime | None = None


class PictureLedger:
    """The evidence ledger of a station, read only; used by any number of threads.

    A ledger that is not there is fine: then nothing vouches for any picture.  Methods raise StoreError when it is there
    and cannot be read.
    """

    def __init__(self, config: Places) -> None:
        self._folder = Path(config.evidence.folder)
        self._file = ReadOnlyFile(ledger_path(Path(config.store)), LEDGER, mark=MARK, newest=len(MIGRATIONS))

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()

    def states(self, record: Record) -> tuple[PictureState, ...]:
        """Every picture that was written of a record, and any further one that lies there under its name.

        Reads and hashes each file that is there.  () when none was ever written, or the record says that it was skipped.
        """
        compressed, deleted = self._fates(record.record_id)
        written = pictures_of(self._file, record.record_id)
        told = [self._state(picture, compressed.get(picture.file), deleted) for picture in written]
        known = {self._folder / file for file in [one.file for one in written] + [one.file for one in told]}
        evidence = evidence_of(record)
        stem = evidence.rpartition("/")[2]
        for path in self._there(evidence):
            if path not in known:
                name = path.stem.removeprefix(f"{stem}_")
                told.append(PictureState(name, self._relative(path), "unentered", path=path))
        if not told and evidence and not evidence.startswith(SKIPPED):
            lists = may_list((self._folder / evidence).parent)
            told.append(PictureState("", evidence, "missing" if lists else "unreadable"))
        return tuple(told)

    def _there(self, evidence: str) -> tuple[Path, ...]:
        """The files under a record's name, () where the folder may not be read: each that was entered is told of by name."""
        try:
            return evidence_files(self._folder, evidence)
        except OSError:
            return ()

    def gone(self, record: Record) -> Tombstone | None:
        """The tombstone of a record whose pictures were deleted; None when nothing was."""
        tombstones = deleted_of(self._file, record.record_id)
        return tombstones[-1] if tombstones else None

    def _fates(self, record_id: str) -> tuple[dict[str, Compressed], dict[str, Tombstone]]:
        tombstones = deleted_of(self._file, record_id)
        deleted = {file: tombstone for tombstone in tombstones for file, _ in tombstone.named}
        return compressed_of(self._file, record_id), deleted

    def _state(self, picture: Picture, compressed: Compressed | None, deleted: dict[str, Tombstone]) -> PictureState:
        name = Path(picture.file).stem.removeprefix(f"{picture.record_id}_")
        since = datetime.fromisoformat(picture.entered_later) if picture.entered_later else None
        file = compressed.new_file if compressed else picture.file
        path, buried = self._folder / file, deleted.get(file)
        fate = buried or compressed
        rule, at = (fate.rule, datetime.fromisoformat(fate.at)) if fate else ("", None)
        try:
            found = hash_of(path)
        except OSError:
            return PictureState(name, file, "unreadable", *((rule, at) if buried else ("", None)), None, since)
        if buried is not None:
            begun = found is not None and self._file.rows(REMOVED, (file, found))
            state: State = "begun" if begun else "deleted" if found is None else "returned"
            return PictureState(name, file, state, rule, at, path if begun else None, since)
        if found is None:
            return PictureState(name, file, "missing", vouched_from=since)
        if found != (compressed.new_sha256 if compressed else picture.sha256):
            return PictureState(name, file, "altered", path=path, vouched_from=since)
        return PictureState(name, file, "compressed" if compressed else "whole", rule, at, path, since)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()


def hash_of(path: Path) -> str | None:
    """SHA-256 of a plain file, hexadecimal; None when there is none.  OSError when that cannot be seen, or not be read."""
    digest = hashlib.sha256()
    try:
        opened = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        if error.errno in NO_FILE:
            return None
        raise
    with os.fdopen(opened, "rb") as file:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            return None
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def may_list(folder: Path) -> bool:
    """Whether the names in a folder can be seen, or that there is no such folder."""
    try:
        with os.scandir(folder):
            return True
    except OSError as error:
        return error.errno in NO_FILE


def in_words(state: PictureState) -> str:
    """What became of a picture, as a sentence."""
    when = f" on {state.at.astimezone().isoformat(' ', 'minutes')}" if state.at else ""
    vouched = (
        f"; the ledger vouches for it from {state.vouched_from.astimezone():%Y-%m-%d} on" if state.vouched_from else ""
    )
    return {
        "whole": f"as it was written{vouched}",
        "compressed": f"only a compressed picture is left (JPEG, since {state.rule}{when}){vouched}",
        "deleted": f"deleted{when} by retention: {state.rule}",
        "begun": f"its deletion by retention was begun{when} ({state.rule}), and the file is still there{vouched}",
        "returned": f"deleted{when} by retention ({state.rule}), and something lies there again: nothing vouches for it",
        "unreadable": "it cannot be read here (permissions, or its disk): nothing is said of it"
        + (f"; the ledger says that retention deleted it{when}: {state.rule}" if state.rule else ""),
        "missing": "missing: it is not there, and the ledger knows of no deletion",
        "altered": "altered: it is not what was written",
        "unentered": "not in the ledger: nothing vouches for it",
    }[state.state]
