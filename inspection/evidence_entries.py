"""Enters picture files into the evidence ledger, for the evidence thread: at once, or later when that was not possible.

A ledger that cannot be written costs no picture and never holds up the line: the files wait, counted and named, and are
entered with the next ones.  What a crash, a full disk or an earlier version of the program left without a row is found
after each start and entered as what it is: vouched for from that time on.
"""

import hashlib
import logging
import os
import re
import stat
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from time import monotonic

from inspection.errors import StoreError
from inspection.evidence_ledger import EvidenceLedger, Picture, ledger_path
from inspection.log import event
from inspection.record_reader import RecordReader
from inspection.types import Record, utc_now

MOST_WAITING = 10_000  # files that wait in memory for the ledger; those beyond it are found at the next start
RETRY_S = 2.0  # a ledger that could not be opened or written is left alone for so long
BUSY_S = 2.0  # the retention process holds the ledger for milliseconds at a time
AT_ONCE = 5  # older files that are entered in one transaction
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_PICTURE = re.compile(r"([0-9a-f]{32})_[A-Za-z0-9][A-Za-z0-9_-]{0,63}\.png")


class Entries:
    """The evidence thread's way to the ledger of the record store ``store``; nothing here raises.

    ``waiting`` files are written and not entered yet; ``fault`` says why ("" = the ledger takes them).
    """

    def __init__(self, store: Path, folder: Path) -> None:
        self._store, self._folder = store, folder
        self._ledger: EvidenceLedger | None = None
        self._waiting: deque[Picture] = deque(maxlen=MOST_WAITING)
        self._older: Iterator[Picture] | None = None
        self._left_s = 0.0
        self._found = 0
        self._searched = False
        self.fault = ""

    @property
    def waiting(self) -> int:
        """How many files wait for the ledger."""
        return len(self._waiting)

    @property
    def is_behind(self) -> bool:
        """Whether there may be files without a row."""
        return not self._searched or bool(self._waiting)

    def enter(self, pictures: list[Picture]) -> None:
        """Enter files that were just written, and those that wait."""
        self._waiting.extend(pictures)
        self._let_in()

    def catch_up(self) -> None:
        """Enter what waits, or a few of the files that have no row; to be called while nothing else is to be done."""
        if self._waiting:
            self._let_in()
        elif not self._searched and monotonic() >= self._left_s:
            try:
                self._enter_older()
            except (StoreError, OSError) as error:
                self._failed(str(error).partition("\n")[0])
                self._older = None

    def finish(self) -> None:
        """Enter what waits, as far as that is possible now."""
        self._left_s = 0.0
        self._let_in()

    def close(self) -> None:
        """Close the ledger; a second call does nothing."""
        if self._ledger is not None:
            with suppress(StoreError):
                self._ledger.close()

    def _let_in(self) -> None:
        if not self._waiting or monotonic() < self._left_s:
            return
        pictures = list(self._waiting)
        try:
            self._opened().enter(pictures)
        except StoreError as error:
            self._failed(error.what)
            return
        self._waiting.clear()
        if self.fault:
            event("evidence.entered", files=len(pictures))
        self.fault = ""

    def _failed(self, why: str) -> None:
        self._left_s = monotonic() + RETRY_S
        if why != self.fault:
            event("evidence.not_entered", level=logging.ERROR, why=why, waiting=len(self._waiting))
        self.fault = why

    def _opened(self) -> EvidenceLedger:
        if self._ledger is None:
            self._ledger = EvidenceLedger(ledger_path(self._store), busy_s=BUSY_S)
        return self._ledger

    # ---- files without a row

    def _enter_older(self) -> None:
        if self._older is None:
            self._older = self._without_row(self._opened())
        some = list(islice(self._older, AT_ONCE))
        if some:
            self._found += self._opened().enter(some)
        if len(some) < AT_ONCE:
            self._searched = True
            if self._found:
                event("evidence.entered_later", files=self._found)
        self.fault = ""

    def _without_row(self, ledger: EvidenceLedger) -> Iterator[Picture]:
        """Pictures below the folder that a record names and the ledger does not know, the oldest day first."""
        records = RecordReader(self._store)
        try:
            for lot in lot_folders(self._folder):
                name = f"{lot.parent.name}/{lot.name}"
                files = {f"{name}/{file}" for file in _pictures(lot)} - ledger.known(name)
                for file in sorted(files):
                    picture = _entry(self._folder, file, records)
                    if picture is not None:
                        yield picture
        finally:
            records.close()


def _record_of(file: str, records: RecordReader) -> Record | None:
    """The record of this station that names the file as its picture; None when none does, or it cannot be read."""
    stem = file.partition("_")[0]
    with suppress(StoreError):
        record = records.find(stem.rpartition("/")[2])
        if record is not None and stem in (record.evidence, record.late.evidence if record.late else ""):
            return record
    return None


def _entry(folder: Path, file: str, records: RecordReader) -> Picture | None:
    """The row of a file that was written earlier; None when it is no picture of a record, or gone."""
    record = _record_of(file, records)
    if record is None:
        return None
    try:
        opened = os.open(folder / file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(opened, "rb") as stream:
            content = stream.read() if stat.S_ISREG(os.fstat(opened).st_mode) else b""
    except OSError:
        return None
    if not content:
        return None
    digest, verdict = hashlib.sha256(content).hexdigest(), record.judgement.verdict.name
    at = record.judged_at.isoformat()
    return Picture(record.record_id, file, digest, len(content), at, verdict, utc_now().isoformat())


def lot_folders(folder: Path, closed: Callable[[Path], object] = lambda folder: None) -> Iterator[Path]:
    """The folders DATE/LOT below the evidence folder (no links), in order; ``closed`` is told what cannot be read."""
    for day in _folders(folder, _DATE, closed):
        yield from _folders(day, _PLAIN, closed)


def _folders(folder: Path, named: re.Pattern[str], closed: Callable[[Path], object]) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [one.name for one in entries if named.fullmatch(one.name) and one.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []  # removed meanwhile, or nothing was written yet
    except OSError:
        closed(folder)
        return []
    return [folder / name for name in sorted(names)]


def _pictures(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [one.name for one in entries if _PICTURE.fullmatch(one.name) and one.is_file(follow_symlinks=False)]
    except OSError:
        return []
