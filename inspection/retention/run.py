"""Retention at work: a pass over everything on the disk, again and again, while the station runs."""

import fcntl
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path

import cv2

from inspection.audit.findings import FEW, HOW_ENTERED, Unknown
from inspection.audit.unknown import unknown_files
from inspection.config import StationConfig
from inspection.errors import StoreError
from inspection.evidence_ledger import LEDGER, EvidenceLedger, ledger_path, total_bytes
from inspection.log import event
from inspection.retention.ages import Clock
from inspection.retention.budget import Budget
from inspection.retention.folder import EvidenceFolder
from inspection.retention.limit import over_limit
from inspection.retention.missing import Missing, missing_files
from inspection.retention.reserve import BYTES, Reserve
from inspection.retention.selection import Parts, Selection
from inspection.retention.steps import Done, Order, Signer, Steps
from inspection.retention.stop import Stop
from inspection.retention.summary import REFUSED, Summary
from inspection.signing_keys import read_private_key
from inspection.types import utc_now

AT_ONCE = 16  # records that share the commits of the ledger
MOST_LEFT = 100_000
LOOK_S = 3600.0  # between two looks for files that the ledger does not know
WORDS = replace(
    LEDGER,
    no_space=f"free {BYTES // 1024} KiB or more on that disk by other means: a tombstone needs room before its pictures can go",
)
_YOUNG = timedelta(days=2)  # folders of these days may be written into
_MOST_SHARE = 0.1  # of the time may go into looking for missing files


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
        self._incompressible: set[str] = set()
        self._told = ""
        self._refused: set[str] = set()
        self._unknown = Unknown()
        self._looked_s = -LOOK_S
        self._clock = Clock()
        self._missing = Missing()
        self._look_again_s = 0.0
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
        """Finish what was left open, do what the rules ask for, then free what the limit asks for.

        What a file or folder refuses is in the summary; the rest is done.
        """
        if any(self._ledger.rows(f"SELECT 1 FROM {table} LIMIT 1") for table in ("present", "unfinished")):
            self._folder.check_there()
        self._reserve.hold()
        summary = Summary(refused=self._steps.finish())
        now = now or utc_now()
        self._clock.read(self._ledger, self.budget)
        selection = Selection(
            self._ledger, self._parts, self.section, now=now, aged_to=self._clock.limit(now), budget=self.budget,
            left=self._left, incompressible=self._incompressible,
        )  # fmt: skip
        try:
            self._carry_out(selection.by_rules(), summary)
        except OSError as error:  # a full disk has no room for a JPEG beside its PNG; deleting makes some
            event("retention.disk", level=logging.WARNING, why=str(error))
            summary.refused |= self._steps.finish()
        self._keep_limit(selection, summary)
        with self.budget.spend():
            self._folder.drop_empty((now - _YOUNG).date().isoformat())
            self._reserve.hold()
        summary.protected = selection.protected
        summary.add(Done(left=selection.unreadable))
        self._left.update(selection.unreadable)
        summary.unknown = self._look()
        self._tell(summary)
        return summary

    def _keep_limit(self, selection: Selection, summary: Summary) -> None:
        total = total_bytes(self._ledger)
        hourly = time.monotonic() >= self._looked_s + LOOK_S
        # Only what lies there can make room: before anything goes for a limit the disk itself is asked.
        if hourly or over_limit(self.section, self._folder.root, total)[0]:
            self._look_for_missing()
        total -= self._missing.bytes
        over, words = over_limit(self.section, self._folder.root, total)
        orders = selection.by_limit(words)
        while over > 0 and not self.stop.is_set() and (some := _enough(orders, over)):
            freed = self._carry_out(some, summary)
            over, total = over - freed, total - freed
        summary.over_bytes, summary.total_bytes, summary.missing = max(0, over), total, self._missing

    def _carry_out(self, orders: Iterable[Order], summary: Summary) -> int:
        """Carry out orders, so many at once; how many bytes that freed."""
        orders, before = iter(orders), summary.freed_bytes
        while not self.stop.is_set() and (some := list(islice(orders, AT_ONCE))):
            done = self._steps.carry_out(some)
            for order in some:
                if order.record_id in done.left:  # what cannot be compressed can still be deleted
                    passed_over = self._incompressible if order.keep == "compressed" else self._left
                    if len(passed_over) > MOST_LEFT:
                        passed_over.clear()
                    passed_over.add(order.record_id)
            summary.add(done)
        return summary.freed_bytes - before

    def _look_for_missing(self) -> None:
        """Which files are missing, as of now; no more often than ``_MOST_SHARE`` of the time allows."""
        began_s = time.monotonic()
        if began_s < self._look_again_s:
            return
        found, walk = Missing(), missing_files(self._ledger, self._folder)
        while not self.stop.is_set():
            with self.budget.spend():
                some = next(walk, None)
            if some is None:
                ended_s = time.monotonic()
                self._look_again_s = ended_s + (ended_s - began_s) / _MOST_SHARE
                if found.files and found.files != self._missing.files:
                    event(
                        "retention.missing", level=logging.WARNING, files=found.files, first=found.first,
                        mb=round(found.bytes / 1e6, 1), fix="`lineside audit STATION.toml --pictures` names all of them",
                    )  # fmt: skip
                self._missing = found
                break
            found.add(some)

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
        if new := {*summary.refused.values()} - self._refused:
            event(
                "retention.refused", level=logging.ERROR, records_or_files=len(summary.refused), what=sorted(new)[:FEW],
                fix=REFUSED,
            )  # fmt: skip
        self._refused = {*summary.refused.values()}
        told = f"{summary.over_bytes // 100_000_000} {sorted(summary.protected)}" if summary.over_bytes else ""
        if told != self._told and told:
            event(
                "retention.over_limit", level=logging.ERROR, over_mb=round(summary.over_bytes / 1e6, 1),
                protected=dict(summary.protected),
            )  # fmt: skip
        self._told = told

    def _open(self, path: Path) -> None:
        self._ledger = EvidenceLedger(path, kind=WORDS)
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


def _enough(orders: Iterator[Order], over_bytes: int) -> list[Order]:
    """The next orders that together free so many bytes, no more of them than share the commits of the ledger."""
    some: list[Order] = []
    while len(some) < AT_ONCE and sum(one.bytes for one in some) < over_bytes and (one := next(orders, None)):
        some.append(one)
    return some
