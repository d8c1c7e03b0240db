"""Retention at work: a pass over everything on the disk, again and again, while the station runs."""

import fcntl
import logging
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from math import ceil
from pathlib import Path

import cv2

from inspection.audit.findings import HOW_ENTERED, Unknown
from inspection.audit.unknown import unknown_files
from inspection.config import StationConfig
from inspection.errors import StoreError
from inspection.evidence_ledger import LEDGER, MARK, MIGRATIONS, EvidenceLedger, Rows, ledger_path, total_bytes
from inspection.log import event
from inspection.read_only import ReadOnlyFile
from inspection.retention.budget import Budget
from inspection.retention.folder import EvidenceFolder
from inspection.retention.reserve import Reserve
from inspection.retention.section import RetentionSection
from inspection.retention.selection import Parts, Selection
from inspection.retention.steps import Done, Order, Signer, Steps
from inspection.retention.stop import Stop
from inspection.signing_keys import read_private_key
from inspection.types import utc_now

AT_ONCE = 16  # records that share the commits of the ledger
MOST_LEFT = 100_000
LOOK_S = 3600.0  # between two looks for files that the ledger does not know
_YOUNG = timedelta(days=2)  # folders of these days may be written into


@dataclass(slots=True)
class Summary:
    """What one pass did.  ``over_bytes`` are left above the limit; ``protected`` counts parts that may not go, by reason.

    ``unknown`` are files that the ledger does not know: retention leaves them alone, and no limit counts them.
    """

    compressed: int = 0
    deleted: int = 0
    freed_bytes: int = 0
    total_bytes: int = 0
    over_bytes: int = 0
    protected: Counter[str] = field(default_factory=Counter)
    left: dict[str, str] = field(default_factory=dict)
    unknown: Unknown = field(default_factory=Unknown)

    def add(self, done: Done) -> None:
        """Count what a batch did."""
        self.compressed += done.compressed
        self.deleted += done.deleted
        self.freed_bytes += done.freed_bytes
        self.left |= done.left


def over_limit(section: RetentionSection, folder: Path, total: int) -> tuple[int, str]:
    """How many bytes of ``total``, what the pictures take, are to go, and by which limit; (0, "") when none are."""
    disk = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists()))
    over = (
        (total - section.max_gb * 1e9, section.max_gb, f"limit: max_gb = {section.max_gb:g}"),
        (total - section.max_share * disk.total, section.max_share, f"limit: max_share = {section.max_share:g}"),
        (section.min_free_gb * 1e9 - disk.free, section.min_free_gb, f"limit: min_free_gb = {section.min_free_gb:g}"),
    )
    most, _, words = max((one for one in over if one[1]), default=(0, 0, ""))
    return (ceil(most), words) if most > 0 else (0, "")


class Retention:
    """The retention of one station: only one at a time has its ledger.  ``stop`` ends a pass after the step in hand.

    UsageError when the key cannot be used; StoreError when a file cannot be, or another retention is running.
    """

    def __init__(self, config: StationConfig, stop: Stop) -> None:
        self.section = config.retention
        self.stop = stop
        self.budget = Budget(self.section.budget_ms_per_s, stop.wait)
        self._config = config
        self._left: set[str] = set()
        self._told = ""
        self._unknown = Unknown()
        self._looked_s = -LOOK_S
        self._stack = ExitStack()
        cv2.setNumThreads(1)
        store = Path(config.store)
        signer = Signer(read_private_key(Path(config.audit.key)) if config.audit.key else None)
        self._folder = EvidenceFolder(Path(config.evidence.folder))
        try:
            self._parts = Parts(config)  # first: beside a store that is not there no file is left
            self._stack.callback(self._parts.close)
            self._claim(store)
            self._reserve = Reserve(store.with_name(f"{store.name}.evidence.reserve"))
            self._reserve.write(lambda: self._open(ledger_path(store)))
            self._reserve.hold()
        except BaseException:
            self._stack.close()
            raise
        self._steps = Steps(
            self._ledger, self._folder, signer, quality=self.section.jpeg_level, budget=self.budget,
            write=self._reserve.write,
        )  # fmt: skip

    def close(self) -> None:
        """Close every file."""
        self._stack.close()

    def one_pass(self, now: datetime | None = None) -> Summary:
        """Finish what a kill left open, do what the rules ask for, then free what the limit asks for."""
        summary = Summary()
        self._steps.finish()
        now = now or utc_now()
        selection = Selection(
            self._ledger, self._parts, self.section, now=now, budget=self.budget, left=self._left
        )  # fmt: skip
        try:
            self._carry_out(selection.by_rules(), summary)
        except OSError as error:  # a full disk has no room for a JPEG beside its PNG; deleting makes some
            event("retention.disk", level=logging.WARNING, why=str(error))
            self._steps.finish()
        self._keep_limit(selection, summary)
        with self.budget.spend():
            self._folder.drop_empty((now - _YOUNG).date().isoformat())
            self._reserve.hold()
        summary.protected = selection.protected
        summary.unknown = self._look()
        self._tell(summary)
        return summary

    def _keep_limit(self, selection: Selection, summary: Summary) -> None:
        total = total_bytes(self._ledger)
        over, words = over_limit(self.section, self._folder.root, total)
        if over:
            self._carry_out(selection.by_limit(over, words), summary)
            left = total_bytes(self._ledger)
            summary.over_bytes = max(0, over - (total - left))
            total = left
        summary.total_bytes = total

    def _carry_out(self, orders: Iterator[Order], summary: Summary) -> None:
        while not self.stop.is_set() and (some := list(islice(orders, AT_ONCE))):
            done = self._steps.carry_out(some)
            if len(self._left) > MOST_LEFT:
                self._left.clear()
            self._left |= done.left.keys()
            summary.add(done)

    def _look(self) -> Unknown:
        """What the ledger does not know, as of this pass or of one within the last hour."""
        if time.monotonic() < self._looked_s + LOOK_S:
            return self._unknown
        found, walk = Unknown(), unknown_files(self._folder.root, self._ledger.rows)
        while not self.stop.is_set():
            with self.budget.spend():
                some = next(walk, None)
            if some is None:
                self._looked_s = time.monotonic()
                if found.files and found.files != self._unknown.files:
                    event(
                        "retention.unknown", level=logging.WARNING, files=found.files, first=list(found.first),
                        fix=f"nothing vouches for them and no rule or limit touches them; {HOW_ENTERED}",
                    )  # fmt: skip
                self._unknown = found
                break
            found = found.with_more(some)
        return self._unknown

    def _tell(self, summary: Summary) -> None:
        if summary.compressed or summary.deleted:
            event(
                "retention.pass", compressed=summary.compressed, deleted=summary.deleted,
                freed_mb=round(summary.freed_bytes / 1e6, 1), busy_share=round(self.budget.share, 3),
            )  # fmt: skip
        for record_id, why in summary.left.items():
            event("retention.left", level=logging.WARNING, record_id=record_id, why=why)
        told = f"{summary.over_bytes // 100_000_000} {sorted(summary.protected)}" if summary.over_bytes else ""
        if told != self._told and told:
            event(
                "retention.over_limit", level=logging.ERROR, over_mb=round(summary.over_bytes / 1e6, 1),
                protected=dict(summary.protected),
            )  # fmt: skip
        self._told = told

    def _open(self, path: Path) -> None:
        self._ledger = EvidenceLedger(path)
        self._stack.callback(self._ledger.close)

    def _claim(self, store: Path) -> None:
        """Keep every other retention off this ledger until ``close``, or the end of the program, however it ends."""
        path = store.with_name(f"{store.name}.evidence.lock")
        try:
            file = self._stack.enter_context(path.open("ab"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(
                f"another retention is at work on {store}", fix="let one run; the service restarts it by itself"
            ) from error
        except OSError as error:
            raise StoreError(
                f"cannot write {path} ({error.strerror})", fix="run it as the station's user, who may write there"
            ) from error


def planned(config: StationConfig, now: datetime | None = None) -> tuple[Summary, Counter[str]]:
    """What a pass would do now, and how many records by each rule; nothing is written."""
    section, summary, by_rule = config.retention, Summary(), Counter[str]()
    ledger: Rows = ReadOnlyFile(ledger_path(Path(config.store)), LEDGER, mark=MARK, newest=len(MIGRATIONS))
    with ExitStack() as stack:
        stack.callback(ledger.close)  # type: ignore[attr-defined]
        parts = Parts(config)
        stack.callback(parts.close)
        budget = Budget(1000, lambda seconds: None)
        selection = Selection(ledger, parts, section, now=now or utc_now(), budget=budget, left=set())
        taken = _count(selection.by_rules(), by_rule)
        summary.total_bytes = total_bytes(ledger)
        over, words = over_limit(section, Path(config.evidence.folder), summary.total_bytes)
        gone = {record_id for record_id, keep in taken.items() if keep == "nothing"}
        selection.left |= gone
        _count(selection.by_limit(over - sum(_bytes_of(ledger, record_id) for record_id in gone), words), by_rule)
        summary.protected = selection.protected
        for some in unknown_files(Path(config.evidence.folder), ledger.rows):
            summary.unknown = summary.unknown.with_more(some)
    return summary, by_rule


def _count(orders: Iterable[Order], by_rule: Counter[str]) -> dict[str, str]:
    taken: dict[str, str] = {}
    for order in orders:
        taken[order.record_id] = order.keep
        by_rule[order.rule] += 1
    return taken


def _bytes_of(ledger: Rows, record_id: str) -> int:
    return int(ledger.rows("SELECT bytes FROM present WHERE record_id = ?", (record_id,))[0][0])
