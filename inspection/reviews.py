"""Keeps what people say of records in a file of its own beside the record store, append only.

The station never opens this file, and whoever reviews never writes the station's: neither can make the other wait.
A decision carries a key that was made where it was taken, so that it may be sent again and again and is stored once.
"""

import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from inspection.chain import CHAIN_SQL, append, begin
from inspection.errors import ReviewConflict, StoreError
from inspection.read_only import ReadOnlyFile
from inspection.sqlite_file import Kind, SqliteFile
from inspection.types import Review

MIGRATIONS = (
    """
    CREATE TABLE reviews (
        review_id   INTEGER PRIMARY KEY AUTOINCREMENT,
        key         TEXT NOT NULL UNIQUE,
        record_id   TEXT NOT NULL,
        disposition TEXT NOT NULL CHECK (disposition IN ('confirmed', 'false_call', 'escape', 'unsure')),
        reviewer    TEXT NOT NULL CHECK (reviewer <> ''),
        at          TEXT NOT NULL,
        comment     TEXT NOT NULL
    ) STRICT;
    CREATE INDEX reviews_by_record ON reviews (record_id, review_id);
    CREATE TRIGGER reviews_keep BEFORE UPDATE ON reviews BEGIN SELECT RAISE(ABORT, 'reviews are append only'); END;
    CREATE TRIGGER reviews_stay BEFORE DELETE ON reviews BEGIN SELECT RAISE(ABORT, 'reviews are append only'); END;
    CREATE TRIGGER reviews_once BEFORE INSERT ON reviews
        WHEN EXISTS (SELECT 1 FROM reviews WHERE review_id = NEW.review_id OR key = NEW.key)
        BEGIN SELECT RAISE(ABORT, 'reviews are append only'); END;

    CREATE TABLE waiting (
        record_id TEXT PRIMARY KEY,
        row       INTEGER NOT NULL,
        rank      INTEGER NOT NULL,
        unsure    INTEGER NOT NULL DEFAULT 0,
        done      INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX waiting_next ON waiting (unsure, rank, row) WHERE done = 0;
    CREATE TABLE seen (
        one       INTEGER PRIMARY KEY CHECK (one = 1),
        row       INTEGER NOT NULL,
        record_id TEXT NOT NULL
    ) STRICT;
    CREATE TABLE claims (
        record_id TEXT PRIMARY KEY,
        person    TEXT NOT NULL,
        seat      TEXT NOT NULL,
        until     REAL NOT NULL
    ) STRICT;
    CREATE INDEX claims_by_seat ON claims (person, seat);
    """,
    CHAIN_SQL,
    "ALTER TABLE reviews ADD COLUMN drawn INTEGER CHECK (drawn IN (0, 1));",  # NULL: from before it was noted
)
REVIEWS = Kind(
    "file of reviews",
    no_space="free space on that disk; decisions wait in the browser until they are stored",
    bad_text="write the comment without damaged characters",
)
MARK = 0x4C535256  # SQLite's application_id of these files: "LSRV"
BUSY_S = 10.0
DRAWN_RANK = 2  # in the table ``waiting``, of the OK parts that were drawn at random
LEFT_OUT = 2  # there in place of ``done``: a drawn part that has no picture any more, or never had one
MOST = 1000  # reviews a query gives at most
MOST_COMMENT = 2000  # characters
_KEY = re.compile(r"[A-Za-z0-9_-]{8,80}")
_COLUMNS = "review_id, record_id, disposition, reviewer, at, comment"


def reviews_path(store: Path) -> Path:
    """Where the reviews of a record store lie."""
    return store.with_name(store.name + ".reviews")


def standing(reviews: Sequence[Review]) -> Review | None:
    """What counts of a record's reviews (in the order in which they came), None while nobody has decided.

    Each person's latest word replaces the earlier ones of that person, also when it is ``unsure``; of these the latest
    that decides stands.  The latest is the one that was decided last, as one that waited in a browser comes late; of the
    same moment, the one that came last.
    """
    latest: dict[str, Review] = {}
    for review in in_order(reviews):
        latest.pop(review.reviewer, None)
        latest[review.reviewer] = review
    decided = [review for review in latest.values() if review.disposition != "unsure"]
    return decided[-1] if decided else None


def in_order(reviews: Iterable[Review]) -> list[Review]:
    """Reviews in the order in which they were decided, out of that in which they came."""
    return sorted(reviews, key=lambda review: review.at)


class ReviewStore:
    """The reviews in the file ``path`` (see ``reviews_path``), made when missing; its folder must exist.

    Any number of threads and programs may use it at once.  Every method raises StoreError when the file cannot be read
    or written; what was added is on the disk when the method returns.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = SqliteFile(path, MIGRATIONS, REVIEWS, busy_s=BUSY_S, mark=MARK)
        self.rows = self._file.rows
        try:
            begin(self._file, "reviews")
        except StoreError:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All writes within it reach the disk together, or none does."""
        with self._file.transaction() as database:
            yield database

    def add(self, review: Review, *, key: str) -> int:
        """Append a review under the key that its browser made, and give its number.

        With it is noted whether its part waits, or waited, because it was drawn among the OK ones; a part that was never
        offered is found by chance, drawn or not.
        The same review under the same key again is harmless and gives the same number; ``at`` may differ then, the first
        one stays.  ReviewConflict when the key was used for something else, or the review cannot be kept as it is.
        """
        _check(review, key)
        row = (key, review.record_id, review.disposition, review.reviewer, review.at.isoformat(), review.comment)
        with self.transaction() as database:
            known = database.execute(f"SELECT {_COLUMNS} FROM reviews WHERE key = ?", (key,)).fetchone()
            if known is not None:
                if _content(_review(known)) != _content(review):
                    raise ReviewConflict(
                        f"the key {key} already stands for another decision", fix="load the page again and decide anew"
                    )
                return int(known[0])
            drawn = database.execute(
                "SELECT count(*) FROM waiting WHERE record_id = ? AND rank = ? AND done <> ?",
                (review.record_id, DRAWN_RANK, LEFT_OUT),
            ).fetchone()[0]
            added = database.execute(
                """INSERT INTO reviews (key, record_id, disposition, reviewer, at, comment, drawn)
                   VALUES (?, ?, ?, ?, ?, ?, ?)""",
                (*row, drawn),
            )
            number = int(added.lastrowid or 0)
            append(database, "review", review.record_id, (number, *row, drawn))
            self.settle(database, review.record_id)
            # Only the reviewer's own hold ends: somebody who got the part after its lease ended keeps it.
            database.execute(
                "DELETE FROM claims WHERE record_id = ? AND person = ?", (review.record_id, review.reviewer)
            )
            return number

    def of(self, record_id: str) -> tuple[Review, ...]:
        """The reviews of a record, oldest first."""
        return reviews_of(self, record_id)

    def after(self, review_id: int, limit: int) -> list[tuple[int, Review]]:
        """Reviews with their numbers after a number (0: from the first), oldest first, up to ``MOST`` of them."""
        sql = f"SELECT {_COLUMNS} FROM reviews WHERE review_id > ? ORDER BY review_id LIMIT ?"
        return [(int(row[0]), _review(row)) for row in self.rows(sql, (review_id, max(0, min(limit, MOST))))]

    def latest_by_record(self, record_ids: Sequence[str]) -> dict[str, Review]:
        """What stands of each record (see ``standing``); its latest ``unsure`` where nobody has decided."""
        found = {}
        for record_id in dict.fromkeys(record_ids):
            given = self.of(record_id)
            if given:
                found[record_id] = standing(given) or in_order(given)[-1]
        return found

    def settle(self, database: sqlite3.Connection, record_id: str) -> None:
        """Within a transaction: take a decided record out of the queue, or put it at the end when it is open (again)."""
        rows = database.execute(
            f"SELECT {_COLUMNS} FROM reviews WHERE record_id = ? ORDER BY review_id", (record_id,)
        ).fetchall()
        if rows:
            done = standing([_review(row) for row in rows]) is not None
            database.execute(
                "UPDATE waiting SET done = ?, unsure = ? WHERE record_id = ?", (int(done), len(rows), record_id)
            )


def reviews_of(file: "ReviewStore | ReadOnlyFile", record_id: str) -> tuple[Review, ...]:
    """The reviews of a record, oldest first, from the file as it was opened; () when there is no file."""
    rows = file.rows(f"SELECT {_COLUMNS} FROM reviews WHERE record_id = ? ORDER BY review_id", (record_id,))
    return tuple(_review(row) for row in rows)


def read_reviews(store: Path) -> ReadOnlyFile:
    """The reviews of a record store for reading alone: no lock that a page needs is taken."""
    return ReadOnlyFile(reviews_path(store), REVIEWS, mark=MARK, newest=len(MIGRATIONS))


def _check(review: Review, key: str) -> None:
    wrong = (
        "its key is not of 8 to 80 letters and digits" if not _KEY.fullmatch(key)
        else "nobody is named as its reviewer" if not review.reviewer
        else f"its comment has more than {MOST_COMMENT} characters" if len(review.comment) > MOST_COMMENT
        else "" if review.disposition in ("confirmed", "false_call", "escape", "unsure")
        else f"{review.disposition!r} is no disposition"
    )  # fmt: skip
    if wrong:
        raise ReviewConflict(
            f"the review of record {review.record_id} was refused: {wrong}", fix="correct and send again"
        )


def _content(review: Review) -> tuple[str, ...]:
    return review.record_id, review.disposition, review.reviewer, review.comment


def _review(row: Sequence[object]) -> Review:
    _, record_id, disposition, reviewer, at, comment = row
    try:
        return Review(str(record_id), disposition, str(reviewer), datetime.fromisoformat(str(at)), str(comment))  # type: ignore[arg-type]
    except ValueError as error:
        raise StoreError(
            f"a review of record {record_id} cannot be read: {error}", fix="use the lineside version that wrote it"
        ) from error
