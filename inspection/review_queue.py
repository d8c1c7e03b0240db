"""Which parts wait for a person, and who has which: no two people ever hold the same part.

NG and REVIEW parts wait, and the OK parts that are drawn at random and left a picture.  ERROR parts do not: nothing was
judged there, so there is nothing to confirm; they are inspected again.  REVIEW comes before NG before the drawn ones, the
oldest first; a part that somebody was unsure about comes last, and never to that person again.  A drawn part without a
picture is not offered: nobody could see that it is good.  It is counted instead.

A part is held by a lease that its page renews.  It is free again when the page lets go, when it was decided, or when the
lease ends because the browser is gone.  A part that cannot be shown is held by nobody for a lease, so that it holds up
no other, and is tried again when that ends.
"""

import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inspection.evidence import SKIPPED, is_sampled
from inspection.log import event
from inspection.record_reader import MOST, Heading, RecordReader
from inspection.reviews import DRAWN_RANK, LEFT_OUT, ReviewStore
from inspection.store import UnreadableRecord
from inspection.types import Verdict

LEASE_S = 120.0
SLACK_S = 10.0  # by which the clock may be set back without a lease being lost
LOOK_S = 0.2  # how long a request may look through new records; a long backlog is taken over in several
UNREADABLE, NO_PICTURE = "unreadable", "no-picture"  # why a part is not shown now
_NOBODY = ""  # holds what is not shown now
_RANK = {Verdict.REVIEW: 0, Verdict.NG: 1, Verdict.OK: DRAWN_RANK}
_SHOWN = f"""done = 0 AND NOT EXISTS
             (SELECT 1 FROM claims WHERE claims.record_id = waiting.record_id AND person = '{_NOBODY}'
              AND until > ? AND until <= ?)"""
_OPEN = """FROM waiting WHERE done = 0
           AND NOT EXISTS (SELECT 1 FROM claims WHERE claims.record_id = waiting.record_id)
           AND (unsure = 0 OR NOT EXISTS
                (SELECT 1 FROM reviews WHERE reviews.record_id = waiting.record_id AND reviewer = :person))"""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many parts wait.  ``held`` of them are on other screens, ``for_others`` were unsure to this person.

    Beyond those: ``unreadable`` are the records that wait and cannot be read, ``no_picture`` counts drawn OK parts without
    a picture.
    """

    waiting: int
    held: int
    for_others: int
    caught_up: bool  # false while older records are still being looked through
    unreadable: tuple[str, ...] = ()
    no_picture: int = 0


class ReviewQueue:
    """The queue of one record store; any number of threads and programs may have one on it.

    ``ok_share`` (0..1) of the OK parts is drawn, the same ones as the station keeps pictures of.  Raises StoreError.
    """

    def __init__(
        self, reviews: ReviewStore, reader: RecordReader, *, ok_share: float, now: Callable[[], float] = time.time
    ) -> None:
        self.reviews = reviews
        self.reader = reader
        self._ok_share = ok_share
        self._now = now  # a lease outlives the program and is read by others, so it goes by the wall clock
        self._caught_up = False

    def look(self, budget_s: float = LOOK_S) -> bool:
        """Take over what was recorded since the last look; false when time was up before the newest record."""
        until_s = time.monotonic() + budget_s
        row = self._seen()
        while headings := self.reader.headings(row, MOST):
            self._take_over(row, headings)
            row = self._seen()
            if len(headings) < MOST:
                break
            if time.monotonic() > until_s:
                self._caught_up = False
                return False
        self._caught_up = True
        return True

    def claim(self, person: str, seat: str, count: int = 1) -> tuple[str, ...]:
        """Record ids held by the person's ``seat`` (one open page): those it has, renewed, filled up to ``count``."""
        self.look()
        with self.reviews.transaction() as database:
            now = _drop_ended(database, self._now)
            names = {"person": person, "seat": seat, "until": now + LEASE_S}
            database.execute("UPDATE claims SET until = :until WHERE person = :person AND seat = :seat", names)
            rows = database.execute(
                """SELECT record_id FROM claims JOIN waiting USING (record_id)
                   WHERE person = :person AND seat = :seat AND done = 0 ORDER BY unsure, rank, row""",
                names,
            ).fetchall()
            if len(rows) < count:
                names["missing"] = count - len(rows)
                free = database.execute(
                    f"SELECT record_id {_OPEN} ORDER BY unsure, rank, row LIMIT :missing", names
                ).fetchall()
                for (record_id,) in free:
                    _hold(database, record_id, person, seat, now + LEASE_S)
                rows += free
        return tuple(record_id for (record_id,) in rows)

    def reopen(self, person: str, seat: str, record_id: str) -> bool:
        """Hold a part that was decided, to decide it anew; false while somebody else holds it."""
        with self.reviews.transaction() as database:
            now = _drop_ended(database, self._now)
            held = database.execute("SELECT person FROM claims WHERE record_id = ?", (record_id,)).fetchone()
            if held is not None and held[0] != person:
                return False
            _hold(database, record_id, person, seat, now + LEASE_S)
        return True

    def release(self, person: str, seat: str) -> None:
        """Let go of everything that the seat holds."""
        with self.reviews.transaction() as database:
            database.execute("DELETE FROM claims WHERE person = ? AND seat = ?", (person, seat))

    def counts(self, person: str, seat: str = "") -> Counts:
        """How many parts wait, for everybody and for this person's seat."""
        now = self._now()
        latest = now + LEASE_S + SLACK_S
        waiting, for_others = self.reviews.rows(
            f"""SELECT count(*), coalesce(sum(unsure > 0 AND EXISTS (SELECT 1 FROM reviews
                       WHERE reviews.record_id = waiting.record_id AND reviewer = ?)), 0)
                FROM waiting WHERE {_SHOWN}""",
            (person, now, latest),
        )[0]
        claims = self.reviews.rows(
            """SELECT record_id, person, seat FROM claims JOIN waiting USING (record_id)
               WHERE done = 0 AND until > ? AND until <= ? ORDER BY row""",
            (now, latest),
        )
        held = sum(holder != _NOBODY and (holder, of) != (person, seat) for _, holder, of in claims)
        aside = [(record_id, why) for record_id, holder, why in claims if holder == _NOBODY]
        left_out = self.reviews.rows("SELECT count(*) FROM waiting WHERE done = ?", (LEFT_OUT,))[0][0]
        return Counts(
            int(waiting), held, int(for_others), self._caught_up,
            unreadable=tuple(record_id for record_id, why in aside if why == UNREADABLE),
            no_picture=int(left_out) + sum(why == NO_PICTURE for _, why in aside),
        )  # fmt: skip

    def set_aside(self, record_id: str, why: str) -> None:
        """Hold a part that cannot be shown now (``UNREADABLE`` or ``NO_PICTURE``) for nobody, until it is tried again."""
        with self.reviews.transaction() as database:
            _hold(database, record_id, _NOBODY, why, self._now() + LEASE_S)

    def leave_out(self, record_id: str) -> None:
        """Count a drawn part among those without a picture for good: retention deleted its pictures."""
        with self.reviews.transaction() as database:
            database.execute("UPDATE waiting SET done = ? WHERE record_id = ? AND done = 0", (LEFT_OUT, record_id))
            database.execute("DELETE FROM claims WHERE record_id = ?", (record_id,))

    def is_sample(self, record_id: str) -> bool:
        """Whether a part waits because it was drawn among the OK ones."""
        sql = "SELECT 1 FROM waiting WHERE record_id = ? AND rank = ?"
        return bool(self.reviews.rows(sql, (record_id, DRAWN_RANK)))

    def forget(self, record_id: str) -> None:
        """Take a part out of the queue whose record is not in the store; nobody decided it, so it is not marked as done."""
        event("review.record_gone", level=logging.WARNING, record_id=record_id)
        with self.reviews.transaction() as database:
            database.execute("DELETE FROM waiting WHERE record_id = ?", (record_id,))
            database.execute("DELETE FROM claims WHERE record_id = ?", (record_id,))

    def _seen(self) -> int:
        """The last row that was looked at; 0, with an empty queue, when the store is another one than then."""
        rows = self.reviews.rows("SELECT row, record_id FROM seen")
        if not rows:
            return 0
        row, record_id = int(rows[0][0]), rows[0][1]
        there = self.reader.headings(row - 1, 1)
        if there and there[0].record_id == record_id:
            return row
        self._begin_anew(record_id)
        return 0

    def _begin_anew(self, seen: str) -> None:
        """Empty the queue: all of it follows from the records and reviews, and those of another store cannot be shown."""
        with self.reviews.transaction() as database:
            if database.execute("DELETE FROM seen WHERE record_id = ?", (seen,)).rowcount:
                database.execute("DELETE FROM waiting")
                database.execute("DELETE FROM claims")
                event("review.other_store", level=logging.WARNING, last_seen=seen)

    def _take_over(self, start: int, headings: Sequence[Heading]) -> None:
        wanted = [(heading, 0) for heading in headings if heading.verdict in (Verdict.NG, Verdict.REVIEW)]
        wanted += [(heading, 0 if pictured else LEFT_OUT) for heading, pictured in self._drawn(headings)]
        last = headings[-1]
        with self.reviews.transaction() as database:
            seen = database.execute("SELECT row FROM seen").fetchone()
            if start and (seen is None or int(seen[0]) != start):
                return  # another program was faster
            for heading, done in wanted:
                database.execute(
                    "INSERT OR IGNORE INTO waiting (record_id, row, rank, done) VALUES (?, ?, ?, ?)",
                    (heading.record_id, heading.rowid, _RANK[heading.verdict], done),
                )
                self.reviews.settle(database, heading.record_id)
            database.execute("INSERT OR REPLACE INTO seen VALUES (1, ?, ?)", (last.rowid, last.record_id))

    def _drawn(self, headings: Sequence[Heading]) -> list[tuple[Heading, bool]]:
        """The OK parts that were drawn, and whether they were given a picture to look at."""
        drawn = [one for one in headings if one.verdict == Verdict.OK and is_sampled(one.record_id, self._ok_share)]
        told = [(one, self._has_picture(one.record_id)) for one in drawn]
        without = sum(not pictured for _, pictured in told)
        if without:
            event("review.no_picture", level=logging.WARNING, drawn=len(drawn), without_picture=without)
        return told

    def _has_picture(self, record_id: str) -> bool:
        try:
            record = self.reader.find(record_id)
        except UnreadableRecord:
            return True  # it waits, and is counted as unreadable when it is asked for
        return record is not None and record.evidence != "" and not record.evidence.startswith(SKIPPED)


def _hold(database: sqlite3.Connection, record_id: str, person: str, seat: str, until: float) -> None:
    database.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?)", (record_id, person, seat, until))


def _drop_ended(database: sqlite3.Connection, clock: Callable[[], float]) -> float:
    """Free what a browser that is gone held; a lease longer than any is left from before the clock was set back.

    Gives the time, which is read within the transaction: before it, a wait for another program would make it stale.
    """
    now = clock()
    database.execute("DELETE FROM claims WHERE until <= ? OR until > ?", (now, now + LEASE_S + SLACK_S))
    return now
