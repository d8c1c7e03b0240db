"""Compresses and deletes pictures such that a kill at any point is put right by the next run.

    compress  1 the ledger says which JPEG is to be made   2 it is made   3 the ledger says that it stands for the PNG
              4 the PNG is removed   5 the ledger says that nothing is open
    delete    1 the ledger has the tombstone   2 the files are removed   3 the ledger says that nothing is open

Until step 3 (or 1) has reached the disk the picture is as it was, and what was made is thrown away; from then on the rest
is carried on (``finish``).  So no file goes without its row, and no row stays whose file is still there.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

import cv2
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from inspection.chain import canonical
from inspection.evidence_ledger import (
    Compressed,
    EvidenceLedger,
    Tombstone,
    unfinished,
)
from inspection.log import event
from inspection.retention.budget import Budget
from inspection.retention.folder import EvidenceFolder
from inspection.retention.lying import Lying, frames_of, lying_of, raw_of, refusal_of
from inspection.retention.section import Keep
from inspection.signing_keys import fingerprint_of, raw_public
from inspection.types import utc_now

_PAGE = 500
_MOST_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Order:
    """What is to become of the pictures of a record, and the rule in words; ``bytes`` is what they take by the ledger."""

    record_id: str
    keep: Keep
    rule: str
    bytes: int


@dataclass(slots=True)
class Done:
    """What a run did: files, and the bytes that were freed; ``left`` are records that were not touched, with why.

    ``refused`` are records that could not be touched, and files that could not be removed, with why: the next pass tries
    them again.
    """

    compressed: int = 0
    deleted: int = 0
    freed_bytes: int = 0
    left: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


class Signer:
    """Signs tombstones with the station's key; without one they stay unsigned."""

    def __init__(self, key: Ed25519PrivateKey | None) -> None:
        self._key = key
        self.fingerprint = "" if key is None else fingerprint_of(raw_public(key.public_key()))

    def tombstone(self, record_id: str, files: Sequence[Lying], rule: str) -> Tombstone:
        """The tombstone of files that are about to be deleted."""
        named = _json([[one.file, one.sha256] for one in files])
        content = (record_id, named, rule, utc_now().isoformat(), program_version(), self.fingerprint)
        signature = "" if self._key is None else self._key.sign(canonical(content)).hex()
        return Tombstone(*content, signature)


class Steps:
    """Carries out orders on one evidence folder.  ``write`` does what writes the ledger (see Reserve).

    StoreError when the ledger cannot be written, OSError when the disk has no room for a JPEG; what was begun then is put right
    by the next ``finish``.
    """

    def __init__(
        self, ledger: EvidenceLedger, folder: EvidenceFolder, signer: Signer, *, quality: int,
        budget: Budget, write: Callable[[Callable[[], None]], None],
    ) -> None:  # fmt: skip
        self._ledger, self._folder, self._signer = ledger, folder, signer
        self._quality, self._budget, self._write = quality, budget, write
        self._shut: dict[str, str] = {}  # folders in which a removal failed though nothing spoke against it, with why

    def finish(self) -> dict[str, str]:
        """Put right what a kill or a refusal left open; the files that still cannot be removed, with why."""
        count, after, refused = 0, "", dict[str, str]()
        self._shut.clear()
        while page := unfinished(self._ledger, _PAGE, after=after):
            after = page[-1][0]
            with self._budget.spend():
                done = [file for file, step, digest in page if self._is_put_right(file, step, digest, refused)]
                self._close(done)
            count += len(done)
        if count:
            event("retention.finished", files=count)
        return refused

    def carry_out(self, orders: Sequence[Order]) -> Done:
        """Compress and delete; all of a record's pictures or none of them."""
        done = Done()
        with self._budget.spend():
            lying = {order.record_id: lying_of(self._ledger, order.record_id) for order in orders}
            # Before anything is put down: what cannot be removed is not to be called deleted.
            whys = {record_id: self._refusal(files) for record_id, files in lying.items()}
        done.refused |= {record_id: why for record_id, why in whys.items() if why}
        orders = [order for order in orders if order.record_id not in done.refused]
        compressed: list[Compressed] = []
        tombstones: list[Tombstone] = []
        to_make = self._begun([lying[order.record_id] for order in orders if order.keep == "compressed"])
        for order in orders:
            files = lying[order.record_id]
            if order.keep == "compressed":
                made = self._made(order, files, done)
                compressed += made
                graves = raw_of(files) if made else []
            else:
                graves = files
                if not files:
                    done.left[order.record_id] = "the ledger knows of no file that is left"
            if graves and order.record_id not in done.left and self._are_whole(graves, done):
                tombstones.append(self._signer.tombstone(order.record_id, graves, order.rule))
        self._settle(compressed, tombstones, {one.file: one.bytes for files in lying.values() for one in files}, done)
        unmade = {*to_make} - {row.new_file for row in compressed}
        if unmade:
            self._write(lambda: self._ledger.finished(sorted(unmade)))
        return done

    # ---- the steps

    def _begun(self, records: list[list[Lying]]) -> list[str]:
        """Put down which JPEGs are to be made; a name that is taken already is not one of them."""
        with self._budget.spend():
            names = [one.jpeg for files in records for one in frames_of(files)]
            free = [name for name in names if not self._folder.has(name)]
            if free:
                self._write(lambda: self._ledger.begin_making(free))
        return free

    def _settle(
        self, compressed: list[Compressed], tombstones: list[Tombstone], sizes: dict[str, int], done: Done
    ) -> None:
        with self._budget.spend():
            if compressed or tombstones:
                self._write(lambda: self._ledger.put_down(compressed, tombstones))
            buried = [file for row in tombstones for file, _ in row.named]
            gone = [file for file in [row.file for row in compressed] + buried if self._is_removed(file, done.refused)]
            self._close(gone)
        done.compressed += len(compressed)
        done.deleted += len({*gone} & {*buried})
        done.freed_bytes += sum(sizes[file] for file in gone) - sum(row.new_bytes for row in compressed)

    def _is_removed(self, file: str, refused: dict[str, str]) -> bool:
        """Remove a file; one that cannot be goes into ``refused``, its step stays open, and the others go on."""
        try:
            self._folder.remove(file)
        except OSError as error:
            refused[file] = f"the picture {self._folder.root / file} cannot be removed ({error.strerror})"
            self._shut[file.rpartition("/")[0]] = refused[file]
            return False
        return True

    def _refusal(self, files: Sequence[Lying]) -> str:
        shut = (self._shut.get(one.file.rpartition("/")[0], "") for one in files)
        return next(filter(None, shut), "") or refusal_of(self._folder, files)

    def _close(self, files: list[str]) -> None:
        """The files are what the ledger says: bring that to the disk, then say so."""
        if files:
            self._folder.flush({file.rpartition("/")[0] for file in files})
            self._write(lambda: self._ledger.finished(files))

    def _is_put_right(self, file: str, step: str, digest: str, refused: dict[str, str]) -> bool:
        if why := self._folder.refusal(file):
            refused[file] = why
            return False
        if step == "make":
            return self._is_removed(file, refused)
        content = self._folder.read(file, _MOST_BYTES)
        if content is None:
            if self._folder.lacks(file):
                return True  # gone already, or a link that is not ours
            refused[file] = f"the picture {self._folder.root / file} was to be removed, and cannot be read"
            return False
        if _sha256(content) == digest:
            return self._is_removed(file, refused)
        event("retention.left", file=file, why="it is not what was to be removed any more")
        return True

    def _are_whole(self, files: list[Lying], done: Done) -> bool:
        """Whether all files are what the ledger says; what is missing or altered is left for people to see."""
        for one in files:
            with self._budget.spend():
                whole = self._folder.holds(one.file, one.sha256, one.bytes) is not None
            if not whole:
                done.left[one.record_id] = f"{one.file} is missing or altered"
                return False
        return True

    # ---- JPEG

    def _made(self, order: Order, files: list[Lying], done: Done) -> list[Compressed]:
        """Make the JPEGs of a record; [] when one cannot be made, is no gain, or a picture is not what was written."""
        made: list[Compressed] = []
        if not frames_of(files):
            done.left[order.record_id] = "there is no PNG to compress"
        for one in frames_of(files):
            with self._budget.spend():
                row = self._one_made(order, one, done)
            if row is None:
                self._undo(made)
                return []
            made.append(row)
        return made

    def _one_made(self, order: Order, one: Lying, done: Done) -> Compressed | None:
        content = self._folder.holds(one.file, one.sha256, one.bytes)
        jpeg = None if content is None else _as_jpeg(content, self._quality)
        if content is None or jpeg is None:
            why = "is missing or altered" if content is None else "cannot be a JPEG"
            done.left[one.record_id] = f"{one.file} {why}"
        elif len(jpeg) >= one.bytes:
            done.left[one.record_id] = f"{one.file} is no smaller as JPEG"
        elif self._folder.has(one.jpeg):
            done.left[one.record_id] = f"{one.jpeg} lies there already"
        else:
            self._folder.make(one.jpeg, jpeg)
            return Compressed(
                one.record_id, one.file, one.sha256, one.jpeg, _sha256(jpeg), len(jpeg), order.rule,
                utc_now().isoformat(), program_version(),
            )  # fmt: skip
        return None

    def _undo(self, made: list[Compressed]) -> None:
        """Throw away JPEGs that stand for nothing."""
        for row in made:
            self._folder.remove(row.new_file)


def program_version() -> str:
    """The version of this program, as it stands in tombstones."""
    try:
        return version("lineside")
    except PackageNotFoundError:  # run from a folder that was never installed
        return "unknown"


def _json(rows: list[list[str]]) -> str:
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _as_jpeg(content: bytes, quality: int) -> bytes | None:
    """The JPEG of a PNG with eight bits a channel; None for any other."""
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint8:
        return None
    done, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return encoded.tobytes() if done else None
