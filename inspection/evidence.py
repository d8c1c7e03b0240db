"""Writes evidence images behind the line: a slow or full disk costs pictures, never a part's answer.

Each file is entered into the evidence ledger right after it was written (``evidence_entries``), by the same thread.
"""

import hashlib
import logging
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from queue import Empty, SimpleQueue
from threading import BoundedSemaphore, Thread

import numpy as np
from numpy.typing import NDArray

from inspection.evidence_entries import Entries
from inspection.evidence_ledger import Picture
from inspection.images import encode_png, flush_folder, write_whole
from inspection.log import event
from inspection.types import Record, utc_now

Image = NDArray[np.uint8] | NDArray[np.uint16]
ENDINGS = (".png", ".jpg")  # as written; and what retention makes of it
IDLE_S = 0.05  # between two looks for older pictures that are not in the ledger
SKIPPED = "skipped:"  # how the evidence text of a record begins when no picture was taken in
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)  # device names on Windows shares


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    record_id: str
    verdict: str
    stem: PurePosixPath
    images: tuple[tuple[str, Image], ...]


class EvidenceWriter:
    """Writes PNG files below ``folder`` in a thread of its own, as ``DATE/LOT/RECORD_NAME.png`` (UTC date).

    ``skipped`` counts records whose pictures found the queue full, ``failed`` those the disk did not take (full,
    read-only, less than ``min_free_mb`` left); ``last_error`` says why.  With ``store``, the record store of the station,
    files are entered into the ledger beside it; ``unentered`` files wait for a ledger that cannot be written.
    """

    def __init__(self, folder: Path, *, queue_size: int, min_free_mb: int, store: Path | None = None) -> None:
        self.folder = folder
        self.min_free_mb = min_free_mb
        self.skipped = 0
        self.failed = 0
        self.last_error = ""
        self._room = BoundedSemaphore(queue_size)
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._closed = False
        self._entries = None if store is None else Entries(store, folder)
        self._thread = Thread(target=self._run, name="evidence", daemon=True)
        self._thread.start()

    @property
    def unentered(self) -> int:
        """Files that lie on the disk and could not be entered into the ledger yet."""
        return 0 if self._entries is None else self._entries.waiting

    def offer(self, record_id: str, lot: str, images: Sequence[tuple[str, Image]], *, verdict: str = "") -> str:
        """Take the named images of a record, each (H, W), (H, W, 3) RGB uint8 or (H, W) uint16; never blocks, never raises.

        ``verdict`` is what the part was answered, for the ledger.

        Returns the text for the record's ``evidence`` field: the common start of the files' names relative to the
        folder (see ``evidence_files``), or ``skipped: ...``.  The images must not be changed afterwards.
        """
        if self._closed or not self._room.acquire(blocking=False):
            self.skipped += 1
            event("evidence.skipped", level=logging.WARNING, record_id=record_id, skipped=self.skipped)
            return f"{SKIPPED} {'writer closed' if self._closed else 'queue full'}"
        stem = PurePosixPath(utc_now().date().isoformat(), file_name(lot, "no-lot"), file_name(record_id, "no-id"))
        self._jobs.put(_Job(record_id, verdict, stem, tuple(images)))
        return stem.as_posix()

    def close(self, timeout_s: float = 10.0) -> None:
        """``finish``, and close the ledger; a second call does nothing."""
        self.finish(timeout_s)
        if self._entries is not None and not self._thread.is_alive():  # a thread that hangs still has it
            self._entries.close()

    def finish(self, timeout_s: float = 10.0) -> None:
        """Write and enter what waits, for at most ``timeout_s``; what is left then counts as failed."""
        if self._closed:
            return
        self._closed = True
        self._jobs.put(None)
        self._thread.join(timeout_s)
        left = self._jobs.qsize() - 1
        if self._thread.is_alive() and left > 0:
            self._fail(f"the pictures of {left} records were not written within {timeout_s} s", left)

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._write(job)
            except Exception as error:  # nothing that goes wrong with a picture may stop the thread
                self._fail(f"{self.folder / job.stem}: {error}", 1)
            finally:
                self._room.release()
        if self._entries is not None:
            self._entries.finish()

    def _next(self) -> _Job | None:
        """The next job; while there is none, older pictures are entered into the ledger a few at a time."""
        while self._entries is not None and self._entries.is_behind:
            try:
                return self._jobs.get(timeout=IDLE_S)
            except Empty:
                self._entries.catch_up()
        return self._jobs.get()

    def _write(self, job: _Job) -> None:
        target = self.folder / job.stem
        target.parent.mkdir(parents=True, exist_ok=True)
        free_mb = shutil.disk_usage(target.parent).free / 1e6
        if free_mb < self.min_free_mb:
            raise OSError(f"{free_mb:.0f} MB are free, min_free_mb is {self.min_free_mb}")
        written = []
        try:
            for name, image in job.images:
                file = job.stem.with_name(f"{job.stem.name}_{file_name(name, 'no-role')}.png")
                content = encode_png(image)
                write_whole(self.folder / file, content)
                digest = hashlib.sha256(content).hexdigest()
                written.append(
                    Picture(job.record_id, str(file), digest, len(content), utc_now().isoformat(), job.verdict)
                )
            flush_folder(target.parent)
        finally:  # those before the one that failed are there
            self._enter(written)

    def _enter(self, written: list[Picture]) -> None:
        if self._entries is None or not written:
            return
        self._entries.enter(written)
        if self._entries.fault:
            self.last_error = self._entries.fault

    def _fail(self, why: str, records: int) -> None:
        self.failed += records
        self.last_error = why
        event("evidence.failed", level=logging.ERROR, why=why, failed=self.failed)


def is_sampled(record_id: str, share: float) -> bool:
    """Whether a record is one of the ``share`` (0..1) that is drawn at random; the same answer wherever it is asked."""
    digest = hashlib.sha256(record_id.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") < share * 2**48


def evidence_of(record: Record) -> str:
    """The ``evidence`` text that counts for a record: its own, or that of its late result."""
    return record.evidence or (record.late.evidence if record.late else "")


def evidence_files(folder: Path, evidence: str) -> tuple[Path, ...]:
    """The files that a record's ``evidence`` text stands for, in name order; () when none were written.

    Of a picture that lies there as PNG and as JPEG, as it does for a moment while it is compressed, the PNG.
    """
    if not evidence or evidence.startswith(SKIPPED):
        return ()
    parts = PurePosixPath(evidence).parts
    if not all(_PLAIN.fullmatch(part) for part in parts):
        return ()
    found: dict[str, Path] = {}
    for ending in reversed(ENDINGS):
        found |= {path.stem: path for path in (folder / evidence).parent.glob(f"{parts[-1]}_*{ending}")}
    return tuple(sorted(found.values()))


def picture_of(folder: Path, evidence: str, name: str) -> Path | None:
    """The picture of a camera (its role, or the role with ``_raw`` or ``_golden`` behind it); None when there is none."""
    stem = f"{evidence.rpartition('/')[2]}_{file_name(name, 'no-role')}"
    return next((path for path in evidence_files(folder, evidence) if path.stem == stem), None)


def file_name(text: str, empty: str) -> str:
    """A safe file name for any text: plain short text as it is, other text cleaned and told apart by a hash."""
    if not text:
        return empty
    if _PLAIN.fullmatch(text) and not _RESERVED.fullmatch(text) and text != empty:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"x{re.sub(r'[^A-Za-z0-9_-]+', '_', text)[:40]}-{digest}"
