"""A small station's files for the tests of the audit: made by the stores themselves, signed, and then copied and altered."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from inspection.audit.findings import AuditResult
from inspection.audit.run import audit
from inspection.checkpoints import Checkpoints, checkpoints_path, heads_of
from inspection.evidence_ledger import Compressed, EvidenceLedger, Picture, Tombstone, ledger_path
from inspection.reviews import ReviewStore, reviews_path
from inspection.store import Store
from inspection.types import Judgement, LateResult, Reason, Record, Review, Trigger, Verdict

BEGAN = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
NOW = BEGAN + timedelta(seconds=200)
RECORDS, REVIEWS, LATE = 60, 20, (7, 23, 41)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
STORE = "records.sqlite"


def at(second: float) -> datetime:
    return BEGAN + timedelta(seconds=second)


def record(number: int) -> Record:
    """Part ``number`` (from 1), one a second; every seventh NG, with a text long enough for pages of its own."""
    bad = number % 7 == 0
    reasons = (Reason("defect.short", "copper where none belongs: " + "x" * (number * 90)),) if bad else ()
    return Record(
        trigger=Trigger(f"t{number:04}", f"S{number:04}", f"L{number // 20}", "board-a", at(number), number),
        judgement=Judgement(Verdict.NG if bad else Verdict.OK, reasons), detections=(), frame_ids=(f"frame{number}",),
        recipe_sha256="ab" * 32 if number < 30 else "cd" * 32, model_sha256="ef" * 32, station_id="cell-1",
        stage_ms=(("detect", 12.5), ("total", 31.0)), simulated=False, judged_at=at(number), recipe_id="board-a",
        record_id=f"{number:032x}", measured=(("top.sharpness", 12.0),),
    )  # fmt: skip


def late(number: int) -> LateResult:
    return LateResult(Judgement(Verdict.OK), (), (("total", 900.0),), at(number))


def add_records(store: Store, first: int, last: int) -> None:
    for number in range(first, last + 1):
        made = record(number)
        store.accept(made.trigger)
        store.commit(made)
        if number in LATE:
            store.commit_late(made.record_id, late(number))


def add_reviews(reviews: ReviewStore, first: int, last: int) -> None:
    for number in range(first, last + 1):
        review = Review(
            f"{1 + number % 6 * 7:032x}", "confirmed", f"person-{number % 3}", at(number), "seen, it is one"
        )
        reviews.add(review, key=f"decision-{number:04}")


def add_pictures(ledger: EvidenceLedger) -> None:
    for number in range(1, 7):
        file = f"2026-11-23/L0/{number:032x}_top.png"
        ledger.enter([Picture(f"{number:032x}", file, f"{number:064x}", 1000 + number, at(number).isoformat(), "NG")])
    first, second = (f"2026-11-23/L0/{number:032x}_top" for number in (1, 2))
    ledger.put_down(
        [
            Compressed(
                f"{1:032x}",
                f"{first}.png",
                f"{1:064x}",
                f"{first}.jpg",
                "9" * 64,
                100,
                "compress.ok",
                at(50).isoformat(),
                "1",
            )
        ],
        [Tombstone(f"{2:032x}", f'[["{second}.png","{2:064x}"]]', "delete.ng", at(51).isoformat(), "1")],
    )


def make(folder: Path, *, key: Ed25519PrivateKey | None = KEY) -> Path:
    """The files of 60 parts with 3 late results, 20 reviews and 6 pictures, a checkpoint after each 10 parts."""
    path = folder / STORE
    checkpoints = Checkpoints(checkpoints_path(path), "cell-1", key)
    with closing(Store(path)) as store, closing(ReviewStore(reviews_path(path))) as reviews:
        with closing(EvidenceLedger(ledger_path(path))) as ledger:
            add_pictures(ledger)
        for block in range(6):
            add_records(store, 10 * block + 1, 10 * block + 10)
            if block < 4:
                add_reviews(reviews, 5 * block + 1, 5 * block + 5)
            checkpoints.add(heads_of(path), at(10 * block + 11))
    return path


class Copies:
    """The files as they were made, to be written anew for every try."""

    def __init__(self, made: Path) -> None:
        files = [file for file in made.parent.iterdir() if not file.name.endswith(("-shm", "-wal"))]
        self.content = {file.name: file.read_bytes() for file in files}

    def write(self, folder: Path) -> Path:
        for old in folder.iterdir():
            old.unlink()
        for name, content in self.content.items():
            (folder / name).write_bytes(content)
        return folder / STORE


def verify(path: Path, **options: Any) -> AuditResult:
    return audit(path, **{"public_keys": [KEY.public_key()], "checkpoint_s": 10.0, "now": NOW, **options})


@contextmanager
def tampering(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection for which the guards were taken away; they stand as before when it is closed."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        guards = database.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        database.execute("PRAGMA ignore_check_constraints = ON")
        database.execute("PRAGMA synchronous = OFF")
        database.execute("BEGIN")
        for name, _ in guards:
            database.execute(f"DROP TRIGGER {name}")
        try:
            yield database
        finally:
            for _, sql in guards:
                database.execute(sql)
            database.execute("COMMIT")


def renamed(one: Record, serial: str) -> Record:
    return replace(one, trigger=replace(one.trigger, serial=serial))
