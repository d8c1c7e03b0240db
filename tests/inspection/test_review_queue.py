import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from inspection.evidence import is_sampled
from inspection.record_reader import RecordReader
from inspection.review_queue import LEASE_S, NO_PICTURE, UNREADABLE, ReviewQueue
from inspection.reviews import ReviewStore, reviews_path
from inspection.store import Store
from inspection.types import Disposition, Judgement, Reason, Record, Review, Trigger, Verdict

NOW = datetime(2026, 11, 23, tzinfo=UTC)
OK, NG, REVIEW, ERROR = Verdict.OK, Verdict.NG, Verdict.REVIEW, Verdict.ERROR
CLAIMER = """
import sys
from pathlib import Path
from inspection.record_reader import RecordReader
from inspection.review_queue import ReviewQueue
from inspection.reviews import ReviewStore, reviews_path
path = Path(sys.argv[1])
queue = ReviewQueue(ReviewStore(reviews_path(path)), RecordReader(path), ok_share=0)
sys.stdin.readline()
held = 0
while True:
    got = queue.claim(sys.argv[2], "seat", held + 5)
    if len(got) == held:
        break
    held = len(got)
print("\\n".join(got))
"""


class Clock:
    """A wall clock that a test sets."""

    def __init__(self) -> None:
        self.at = 1_000_000.0

    def __call__(self) -> float:
        return self.at


class Bench:
    """A record store with its queue."""

    def __init__(self, folder: Path, *, ok_share: float = 0.0) -> None:
        self.store = Store(folder / "records.sqlite")
        self.reader = RecordReader(self.store.path)
        self.reviews = ReviewStore(reviews_path(self.store.path))
        self.clock = Clock()
        self.queue = ReviewQueue(self.reviews, self.reader, ok_share=ok_share, now=self.clock)
        self.said = 0
        self.name = "record"

    def judged(self, verdict: Verdict, *, evidence: str = "kept") -> str:
        """Store one more record; its id."""
        number = self.store.count()
        reasons = () if verdict == OK else (Reason("rule", "text"),)
        made = Record(
            trigger=Trigger(f"t{number}", f"S{number}", "L1", "board-a", NOW, number),
            judgement=Judgement(verdict, reasons), detections=(), frame_ids=("f",), recipe_sha256="a",
            model_sha256="b", station_id="st1", stage_ms=(), simulated=True, judged_at=NOW, evidence=evidence,
            record_id=f"{self.name}-{number}",
        )  # fmt: skip
        self.store.accept(made.trigger)
        self.store.commit(made)
        return made.record_id

    def says(self, person: str, record_id: str, disposition: Disposition) -> None:
        """Add a review."""
        self.said += 1
        self.reviews.add(Review(record_id, disposition, person, NOW), key=f"key-{self.said:06d}")

    def exchange(self, aside: Path, back: Path | None = None) -> None:
        """Put the record store aside into a folder, and one in its place that was put ``back``, or a new one."""
        self.store.close()
        path = self.store.path
        aside.mkdir()
        for source, target in ((path.parent, aside), (back, path.parent)):
            for end in ("", "-wal", "-shm"):
                if source is not None and (source / f"{path.name}{end}").exists():
                    (source / f"{path.name}{end}").rename(target / f"{path.name}{end}")
        self.store = Store(path)

    def close(self) -> None:
        """Close all files."""
        for opened in (self.store, self.reader, self.reviews):
            opened.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with closing(Bench(tmp_path)) as made:
        yield made


def test_review_comes_before_ng_and_the_oldest_first(bench: Bench) -> None:
    """What the machine could not decide is most urgent; ERROR parts do not wait for a person, nor OK ones not drawn."""
    made = [bench.judged(verdict) for verdict in (NG, OK, NG, REVIEW, ERROR, REVIEW, NG)]
    assert (made[3], made[5], made[0], made[2], made[6]) == bench.queue.claim("ann", "a", 9)


def test_drawn_good_parts_come_last_and_only_with_a_picture(tmp_path: Path) -> None:
    """The same OK parts as the station keeps pictures of wait; without a picture there is nothing to look at."""
    with closing(Bench(tmp_path, ok_share=0.5)) as bench:
        drawn = [name for name in (bench.judged(OK) for _ in range(20)) if is_sampled(name, 0.5)]
        for _ in range(20):
            bench.judged(OK, evidence="")
            bench.judged(OK, evidence="skipped: queue full")
        rejected = bench.judged(NG)
        assert 3 < len(drawn) < 17
        assert (rejected, *drawn) == bench.queue.claim("ann", "a", 50)
        assert [True, False] == [bench.queue.is_sample(name) for name in (drawn[0], rejected)]


def test_each_review_says_whether_its_part_was_drawn(tmp_path: Path) -> None:
    """Noted with the decision: whatever share is drawn later, a part found by chance is told from one that was drawn."""
    with closing(Bench(tmp_path, ok_share=0.5)) as bench:
        made = [bench.judged(OK) for _ in range(20)] + [bench.judged(NG)]
        without = next(name for name in (bench.judged(OK, evidence="") for _ in range(99)) if is_sampled(name, 0.5))
        bench.queue.claim("ann", "a", 50)
        for name in (*made, without):
            bench.says("ann", name, "confirmed")
        noted = bench.reviews.rows("SELECT drawn FROM reviews ORDER BY review_id")
        drawn = {name: is_sampled(name, 0.5) for name in made[:-1]}
        assert 3 < sum(drawn.values()) < 17
        assert [*drawn.values(), False, False] == [bool(one) for (one,) in noted]


def test_drawn_parts_without_a_picture_are_counted_beside_the_queue(tmp_path: Path) -> None:
    """They are in no other count, and one whose picture is deleted later joins them; what was decided stays decided."""
    with closing(Bench(tmp_path, ok_share=1.0)) as bench:
        made = [bench.judged(OK, evidence=evidence) for evidence in ("kept", "kept", "", "skipped: queue full")]
        assert tuple(made[:2]) == bench.queue.claim("ann", "a", 9)
        assert (2, 2) == (bench.queue.counts("ann").waiting, bench.queue.counts("ann").no_picture)
        bench.says("ann", made[1], "confirmed")
        for record_id in made[:2]:
            bench.queue.leave_out(record_id)
        assert () == bench.queue.claim("ann", "a", 9)
        assert (0, 3) == (bench.queue.counts("ann").waiting, bench.queue.counts("ann").no_picture)
        assert bench.queue.is_sample(made[0])


def test_a_part_that_cannot_be_shown_is_tried_again(bench: Bench) -> None:
    """It takes nobody's place and is counted apart until a lease is over; then whoever asks next is given it."""
    made = [bench.judged(NG) for _ in range(3)]
    assert (made[0],) == bench.queue.claim("ann", "a")
    bench.queue.set_aside(made[0], UNREADABLE)
    bench.queue.set_aside(made[1], NO_PICTURE)
    assert (made[2],) == bench.queue.claim("ann", "a", 3)
    counts = bench.queue.counts("bob")
    assert (1, 1, (made[0],), 1) == (counts.waiting, counts.held, counts.unreadable, counts.no_picture)
    bench.clock.at += LEASE_S + 1
    counts = bench.queue.counts("bob")
    assert (3, 0, (), 0) == (counts.waiting, counts.held, counts.unreadable, counts.no_picture)
    assert tuple(made) == bench.queue.claim("bob", "b", 3)


def test_a_drawn_part_whose_record_cannot_be_read_keeps_waiting(tmp_path: Path) -> None:
    """Looking through new records goes on past it: whether it has a picture is not known."""
    with closing(Bench(tmp_path, ok_share=1.0)) as bench:
        made = [bench.judged(OK, evidence="") for _ in range(2)] + [bench.judged(NG)]
        with closing(sqlite3.connect(bench.store.path)) as database, database:
            database.execute("DROP TRIGGER records_keep")
            database.execute("UPDATE records SET json = '{}' WHERE record_id = ?", (made[0],))
        assert (made[2], made[0]) == bench.queue.claim("ann", "a", 9)
        assert 1 == bench.queue.counts("ann").no_picture


def test_two_people_hold_different_parts(bench: Bench) -> None:
    """What one has on the screen another does not get, nor another tab of the same person."""
    made = [bench.judged(NG) for _ in range(6)]
    assert (made[0], made[1]) == bench.queue.claim("ann", "a", 2)
    assert (made[2],) == bench.queue.claim("bob", "b")
    assert (made[3],) == bench.queue.claim("ann", "other tab")
    assert (made[0], made[1], made[4]) == bench.queue.claim("ann", "a", 3)
    assert (6, 4) == (bench.queue.counts("bob", "b").waiting, bench.queue.counts("bob", "b").held)


def test_a_lease_ends_and_is_renewed(bench: Bench) -> None:
    """The part of a browser that died is free after the lease; that of a page that is open stays."""
    first, second = bench.judged(NG), bench.judged(NG)
    bench.queue.claim("ann", "a")
    bench.queue.claim("bob", "b")
    bench.clock.at += LEASE_S - 1
    assert (second,) == bench.queue.claim("bob", "b")
    bench.clock.at += 2
    assert (first,) == bench.queue.claim("cy", "c")
    assert (second,) == bench.queue.claim("bob", "b", 2)


def test_a_clock_set_back_does_not_lock_parts_away(bench: Bench) -> None:
    """A lease that seems to last longer than any is over."""
    made = bench.judged(NG)
    bench.queue.claim("ann", "a")
    bench.clock.at -= 7200
    assert (made,) == bench.queue.claim("bob", "b")


def test_a_claim_that_had_to_wait_takes_nothing_away(bench: Bench) -> None:
    """Who waits for another program's write goes by the time after it, and leaves the leases made meanwhile alone."""
    made = bench.judged(NG)
    bench.queue.look()
    with closing(ReviewStore(bench.reviews.path)) as other, ThreadPoolExecutor(1) as thread:
        waiting = ReviewQueue(other, bench.reader, ok_share=0, now=bench.clock)
        with bench.reviews.transaction() as database:
            claimed = thread.submit(waiting.claim, "bob", "b")
            time.sleep(0.3)
            bench.clock.at += 60
            until = bench.clock.at + LEASE_S
            database.execute("INSERT INTO claims VALUES (?, 'ann', 'a', ?)", (made, until))
        assert () == claimed.result()


def test_a_page_that_closes_lets_go(bench: Bench) -> None:
    """Parts that were loaded ahead are free for others at once."""
    made = [bench.judged(NG) for _ in range(3)]
    bench.queue.claim("ann", "a", 3)
    bench.queue.release("bob", "a")
    assert () == bench.queue.claim("bob", "b", 3)
    bench.queue.release("ann", "a")
    assert tuple(made) == bench.queue.claim("bob", "b", 3)


def test_a_decided_part_does_not_come_again(bench: Bench) -> None:
    """One person's decision is enough."""
    made = [bench.judged(NG) for _ in range(2)]
    bench.queue.claim("ann", "a")
    bench.says("ann", made[0], "false_call")
    assert (made[1],) == bench.queue.claim("ann", "a", 5)
    assert () == bench.queue.claim("bob", "b")


def test_an_unsure_part_goes_to_somebody_else_at_the_end(bench: Bench) -> None:
    """Unsure is no decision: another person gets the part last, the same one never again, and it is counted."""
    made = [bench.judged(NG) for _ in range(3)]
    bench.queue.claim("ann", "a")
    bench.says("ann", made[0], "unsure")
    assert (made[1], made[2]) == bench.queue.claim("ann", "a", 5)
    assert (3, 1) == (bench.queue.counts("ann").waiting, bench.queue.counts("ann").for_others)
    assert 0 == bench.queue.counts("bob").for_others
    bench.queue.release("ann", "a")
    assert (made[1], made[2], made[0]) == bench.queue.claim("bob", "b", 5)
    bench.says("bob", made[0], "confirmed")
    assert 2 == bench.queue.counts("ann").waiting


def test_a_decision_taken_back_puts_the_part_back(bench: Bench) -> None:
    """Who decided may look again, and a decision that is withdrawn waits for somebody else."""
    made = bench.judged(NG)
    bench.queue.claim("ann", "a")
    bench.says("ann", made, "confirmed")
    assert bench.queue.reopen("ann", "a", made)
    assert not bench.queue.reopen("bob", "b", made)
    bench.says("ann", made, "unsure")
    assert () == bench.queue.claim("ann", "a")
    assert (made,) == bench.queue.claim("bob", "b")


def test_a_decision_that_comes_late_leaves_the_new_holder_alone(bench: Bench) -> None:
    """A person who was cut off and says unsure after the lease does not hand the part to a third one."""
    made = bench.judged(NG)
    bench.queue.claim("ann", "a")
    bench.clock.at += LEASE_S + 1
    assert (made,) == bench.queue.claim("bob", "b")
    bench.says("ann", made, "unsure")
    assert () == bench.queue.claim("cy", "c")
    assert (made,) == bench.queue.claim("bob", "b")


def test_a_record_that_is_gone_leaves_the_queue(bench: Bench) -> None:
    """A part whose record is no longer kept is not offered for ever."""
    made = [bench.judged(NG) for _ in range(2)]
    assert tuple(made) == bench.queue.claim("ann", "a", 2)
    bench.queue.forget(made[0])
    assert (made[1],) == bench.queue.claim("ann", "a", 2)


def test_reviews_outlive_their_queue_and_another_store(bench: Bench, tmp_path: Path) -> None:
    """A record store made anew is looked through from its first record, and decided parts stay decided."""
    made = [bench.judged(NG) for _ in range(3)]
    bench.queue.claim("ann", "a")
    bench.says("ann", made[0], "confirmed")
    bench.store.close()
    for end in ("", "-wal", "-shm"):
        (tmp_path / f"records.sqlite{end}").unlink(missing_ok=True)
    bench.store = Store(tmp_path / "records.sqlite")
    for verdict in (NG, OK, OK, NG):
        bench.judged(verdict)
    assert [made[1], made[2], "record-3"] == sorted(bench.queue.claim("bob", "b", 9))


@pytest.mark.parametrize("recorded", [0, 3])
def test_undecided_parts_wait_again_when_their_store_is_back(bench: Bench, tmp_path: Path, recorded: int) -> None:
    """While another store is in its place none of its parts is offered, held or counted; afterwards each waits again."""
    made = [bench.judged(NG) for _ in range(3)]
    bench.says("ann", made[0], "confirmed")
    assert tuple(made[1:]) == bench.queue.claim("bob", "b", 9)
    bench.exchange(tmp_path / "aside")
    bench.name = "other"
    for _ in range(recorded):
        bench.judged(OK)
    assert () == bench.queue.claim("cy", "c", 9)
    assert (0, 0) == (bench.queue.counts("ann").waiting, bench.queue.counts("ann").held)
    bench.queue.forget(made[1])  # as a page does that asks for it just then
    bench.exchange(tmp_path / "unused", tmp_path / "aside")
    assert tuple(made[1:]) == bench.queue.claim("cy", "c", 9)


def test_eight_threads_and_three_programs_share_500_parts(bench: Bench) -> None:
    """However many claim at once, each part is held once, and none is left over."""
    bench.judged(NG)
    text = bench.store.find("record-0")
    assert text is not None
    with bench.store.transaction() as database:  # one flush to the disk for all: what is tested is the claiming
        for number in range(1, 500):
            made = replace(text, record_id=f"record-{number}", trigger=replace(text.trigger, trigger_id=f"t{number}"))
            database.execute("INSERT INTO triggers VALUES (?, '{}', '')", (f"t{number}",))
            row = (made.record_id, f"t{number}", "S", "L", "board-a", 2, "", made.to_json())
            database.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    command = [sys.executable, "-c", CLAIMER, str(bench.store.path)]
    programs = [
        subprocess.Popen([*command, f"program{n}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for n in range(3)
    ]
    queue = ReviewQueue(bench.reviews, bench.reader, ok_share=0)

    def take(person: str) -> list[str]:
        held: tuple[str, ...] = ()
        while len(got := queue.claim(person, "seat", len(held) + 5)) > len(held):
            held = got
        return list(held)

    try:
        for program in programs:
            assert program.stdin is not None
            program.stdin.write("go\n")
            program.stdin.flush()
        began = time.monotonic()
        with ThreadPoolExecutor(8) as threads:
            held = [name for names in threads.map(take, [f"thread{n}" for n in range(8)]) for name in names]
        for program in programs:
            held += program.communicate(timeout=60)[0].split()
        print(f"500 parts claimed by 11 in {time.monotonic() - began:.2f} s")
    finally:
        for program in programs:
            program.kill()
            program.communicate()
    assert {1} == set(Counter(held).values())
    assert 500 == len(held)


def test_looking_does_not_begin_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was looked through once is not read again, also by the next program: a request costs new records only."""
    for _ in range(50):
        bench.judged(OK)
    bench.queue.look()
    read: list[int] = []
    headings = bench.reader.headings
    monkeypatch.setattr(bench.reader, "headings", lambda after, limit: read.append(after) or headings(after, limit))
    made = bench.judged(NG)
    later = ReviewQueue(bench.reviews, bench.reader, ok_share=0, now=bench.clock)
    assert (made,) == later.claim("ann", "a")
    assert 49 == min(read)
    assert later.counts("ann").caught_up
