"""Tells the publishers of every record: at least once, in order, each from a thread of its own.

What has to be told is written in the transaction of the record itself, so neither a crash nor days without a receiver
lose anything.  A receiver that stays away too long loses the oldest rows, and is then told which: the disk is finite.
"""

import json
import logging
import random
import sqlite3
import threading
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Protocol

from inspection.errors import InspectionError, StoreError
from inspection.log import event
from inspection.outbox_file import Cursor, CursorFile, OutboxReader, open_cursors
from inspection.plugins import resolve
from inspection.publishers import PUBLISHERS, Publisher
from inspection.store import Store

BATCH = 100
POLL_S = 1.0
STATE_S = 5.0  # how often a publisher is asked to show the state, which also finds a connection that is gone
DURABLE_S = 10.0  # how often a cursor is forced onto the disk; rows are dropped only behind such a cursor
STEADY_S = 30.0  # a connection that lasts so long ends the back-off
REMIND_S = 300.0  # the same failure is logged again after so long
TRIM_ROWS = 200  # confirmed rows are dropped when there are so many
TRIM_MOST = 1000  # and at most so many a time
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
OFFLINE = "OFFLINE"


class PublisherSection(Protocol):
    """A publisher's config: any of the union in ``config.py``."""

    @property
    def kind(self) -> str: ...


@dataclass(frozen=True, slots=True)
class PublisherStatus:
    """How one publisher fares.  ``waiting`` rows are not confirmed yet; counts begin with the program."""

    connected: bool
    waiting: int
    sent: int
    gaps: int
    failures: int
    last_error: str


def pause_s(failures: int, chance: float) -> float:
    """Seconds to wait after so many failures in a row; ``chance`` 0..1 spreads stations that lost the same receiver."""
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 10)) * (0.75 + 0.5 * chance)


class Delivery:
    """Moves one publisher's cursor along the outbox: read, publish, remember.  Without a thread.

    After a failure messages go one by one and then in growing batches: what a receiver refuses stands alone soon, and
    what comes before it is not sent again and again.
    """

    def __init__(self, name: str, publisher: Publisher, start: Cursor) -> None:
        self.name = name
        self.publisher = publisher
        self.cursor = start
        self.durable = start.sequence  # survives a power cut; read by the station's thread
        self.sent = self.gaps = 0
        self._batch = BATCH
        self._durable_s = monotonic()

    def turn(self, reader: OutboxReader, file: CursorFile) -> bool:
        """Hand over the next messages; false when none wait.  After any error they are still the next ones."""
        messages = reader.after(self.cursor, self._batch)
        if not messages:
            return False
        batch, self._batch = self._batch, 1
        self.publisher.publish(messages)
        self._remember(Cursor(messages[-1].sequence, messages[-1].key), file)
        self._batch = min(BATCH, batch * 2)
        if messages[0].kind == "gap":
            self.gaps += 1
            event("outbox.gap", level=logging.ERROR, publisher=self.name, **json.loads(messages[0].body))
        else:
            self.sent += len(messages)
        return True

    def _remember(self, cursor: Cursor, file: CursorFile) -> None:
        durable = monotonic() - self._durable_s >= DURABLE_S or cursor.sequence - self.durable >= TRIM_ROWS
        file.move(self.name, cursor, durable=durable)
        self.cursor = cursor
        if durable:
            self.durable, self._durable_s = cursor.sequence, monotonic()


class _Sender(threading.Thread):
    """Keeps one publisher connected and delivers to it; what other threads call never blocks."""

    def __init__(self, delivery: Delivery, files: tuple[Path, Path], station_id: str) -> None:
        super().__init__(name=f"publisher-{delivery.name}", daemon=True)
        self.delivery = delivery
        self.wake = threading.Event()
        self.state = ""
        self.connected = False
        self.failures, self.last_error = 0, ""
        self._store, self._cursors = files
        self._station_id = station_id
        self._closing = threading.Event()
        self._deadline_s = 0.0
        self._in_a_row, self._logged_s, self._connected_s = 0, 0.0, 0.0

    def finish(self, deadline_s: float) -> None:
        """Deliver what waits until ``deadline_s`` (monotonic), then end; without a connection after one more try."""
        self._deadline_s = deadline_s
        self._closing.set()
        self.wake.set()

    def run(self) -> None:
        while True:
            closing_already = self._closing.is_set()
            try:
                self._serve()
                return
            except (InspectionError, sqlite3.Error, OSError) as error:
                self._failed(error, None)
            except Exception as error:  # whatever a driver raises, a record must not stay behind for ever
                self._failed(error, error)
            finally:
                self.connected = False
                self.delivery.publisher.close()
            # Told to end while it waits here: the receiver may be back, so there is one more try, but no second one.
            told = closing_already or self._closing.wait(pause_s(self._in_a_row, random.random()))
            if told and (closing_already or monotonic() >= self._deadline_s):
                return

    def _serve(self) -> None:
        with (
            closing(OutboxReader(self._store, station_id=self._station_id)) as reader,
            closing(CursorFile(self._cursors)) as file,
        ):
            self.delivery.publisher.open()
            self.connected, self._connected_s = True, monotonic()
            event("publisher.connected", publisher=self.delivery.name)
            shown, shown_s = "", 0.0
            while True:
                self.wake.clear()
                state = self.state
                if state and (state != shown or monotonic() - shown_s >= STATE_S):
                    self.delivery.publisher.show_state(state)
                    shown, shown_s = state, monotonic()
                delivered = self.delivery.turn(reader, file)
                self._went_well(delivered)
                if self._closing.is_set() and (not delivered or monotonic() >= self._deadline_s):
                    self.delivery.publisher.show_state(OFFLINE)
                    return
                if not delivered:
                    self.wake.wait(POLL_S)

    def _went_well(self, delivered: bool) -> None:
        if delivered or monotonic() - self._connected_s >= STEADY_S:
            self._in_a_row, self.last_error = 0, ""

    def _failed(self, error: Exception, unforeseen: Exception | None) -> None:
        self._in_a_row += 1
        self.failures += 1
        text = error.what if isinstance(error, InspectionError) else f"{type(error).__name__}: {error}"
        fix = error.fix if isinstance(error, InspectionError) else "report it with this log; it is tried again"
        if text != self.last_error or monotonic() - self._logged_s >= REMIND_S:
            self._logged_s = monotonic()
            event(
                "publisher.failed", level=logging.ERROR, error=unforeseen, publisher=self.delivery.name, what=text,
                fix=fix, failures=self.failures,
            )  # fmt: skip
        self.last_error = text


class Outbox:
    """All publishers of one station; the store in ``store_path`` must exist.  Called by the station's thread.

    ``limit`` is the number of rows that may wait for a receiver.  StoreError when the cursors, in ``*.outbox`` beside the
    store, cannot be read; DriverMissing when a publisher needs a package that is not installed.
    """

    def __init__(
        self, store_path: Path, configs: Mapping[str, PublisherSection], *, station_id: str, limit: int = 1_000_000
    ) -> None:
        self._limit = limit
        self._files = store_path, store_path.with_name(store_path.name + ".outbox")
        publishers: dict[str, Publisher] = {
            name: resolve(PUBLISHERS, config.kind, "publisher")(config, station_id=station_id)
            for name, config in configs.items()
        }
        try:
            starts = self._starts(tuple(configs), station_id)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"the file {self._files[1]}, which says how far each publisher has come, cannot be used ({error})",
                fix="give the station's user write permission on it and its folder, and free space on that disk",
            ) from error
        self._senders = {
            name: _Sender(Delivery(name, publisher, starts[name]), self._files, station_id)
            for name, publisher in publishers.items()
        }
        self._dropping = False
        self._newest = 0

    def open(self) -> None:
        """Start the publishers; returns at once, whether receivers are there or not."""
        for sender in self._senders.values():
            sender.start()

    def notify(self) -> None:
        """Say that a record or late result was committed.  Never blocks."""
        for sender in self._senders.values():
            sender.wake.set()

    def show_state(self, state: str) -> None:
        """Let every receiver that has a place for it know the station's state; only the last one counts.  Never blocks."""
        for sender in self._senders.values():
            sender.state = state
            sender.wake.set()

    def trim(self, store: Store) -> int:
        """Drop rows that all receivers confirmed, and the oldest beyond the limit; how many.  To be called between parts.

        At most one short transaction.  StoreError when the store does not take it.
        """
        oldest, newest = store.outbox_span()
        confirmed = min((sender.delivery.durable for sender in self._senders.values()), default=newest)
        # The row at the cursor itself stays: by it a cursor is known to belong to this store.
        end, beyond = confirmed - 1, newest - self._limit
        if end - oldest < TRIM_ROWS and beyond - oldest < min(TRIM_ROWS, self._limit // 100):
            return 0
        if (dropping := beyond > end) and not self._dropping:
            event("outbox.full", level=logging.ERROR, limit=self._limit, behind=self._behind(beyond))
        self._dropping = dropping
        return store.drop_outbox(min(max(end, beyond), oldest + TRIM_MOST - 1))

    def status(self) -> dict[str, PublisherStatus]:
        """How each publisher fares; may be called by any thread."""
        try:
            with closing(OutboxReader(self._files[0], station_id="")) as reader:
                self._newest = reader.newest()
        except sqlite3.Error as error:
            event("outbox.unreadable", level=logging.ERROR, what=str(error))
        return {
            name: PublisherStatus(
                sender.connected, max(0, self._newest - sender.delivery.cursor.sequence), sender.delivery.sent,
                sender.delivery.gaps, sender.failures, sender.last_error,
            )
            for name, sender in self._senders.items()
        }  # fmt: skip

    def close(self, timeout_s: float = 3.0) -> None:
        """Deliver what waits for at most ``timeout_s``, show Offline, disconnect.  What is left goes at the next start."""
        deadline_s = monotonic() + timeout_s
        alive = [sender for sender in self._senders.values() if sender.is_alive()]
        for sender in alive:
            sender.finish(deadline_s)
        for sender in alive:
            # A driver in the middle of a call ends by its own time limit; the program need not wait for that.
            sender.join(max(0.0, deadline_s - monotonic()) + 0.5)
        left = {name: status.waiting for name, status in self.status().items() if status.waiting} if alive else {}
        if left:
            event("outbox.left", level=logging.WARNING, waiting=left)

    def _starts(self, names: tuple[str, ...], station_id: str) -> dict[str, Cursor]:
        file, damaged = open_cursors(self._files[1])
        with closing(file), closing(OutboxReader(self._files[0], station_id=station_id)) as reader:
            if damaged:
                event("outbox.cursors_damaged", level=logging.ERROR, fix="receivers get what waits once more")
            file.forget_all_but(names)
            known, starts = file.read(), {}
            for name in names:
                start = known.get(name)
                if start is not None and not reader.fits(start):
                    event("outbox.other_store", level=logging.WARNING, publisher=name, cursor=start.sequence)
                    start = None
                starts[name] = start or reader.before_oldest()
                file.move(name, starts[name], durable=True)
        return starts

    def _behind(self, end: int) -> list[str]:
        return [name for name, sender in self._senders.items() if sender.delivery.cursor.sequence < end]
