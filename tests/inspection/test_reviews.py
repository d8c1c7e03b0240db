import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspection.errors import ReviewConflict, StoreError
from inspection.reviews import ReviewStore, reviews_path, standing
from inspection.types import Disposition, Review

NOW = datetime(2026, 11, 23, tzinfo=UTC)
WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from inspection.reviews import ReviewStore
from inspection.types import Review
store = ReviewStore(Path(sys.argv[1]))
for number in range(10000):
    key = f"{sys.argv[2]}-{number:08d}"
    store.add(Review(f"r{number}", "confirmed", sys.argv[2], datetime.now(UTC)), key=key)
    print(key, flush=True)
"""


def review(
    record_id: str = "r1", disposition: Disposition = "confirmed", who: str = "ann", comment: str = ""
) -> Review:
    return Review(record_id, disposition, who, NOW, comment)


@pytest.fixture
def reviews(tmp_path: Path) -> Iterator[ReviewStore]:
    with closing(ReviewStore(reviews_path(tmp_path / "records.sqlite"))) as opened:
        yield opened


def test_reviews_lie_beside_the_record_store(reviews: ReviewStore) -> None:
    """The station's own file is never written by who reviews."""
    assert "records.sqlite.reviews" == reviews.path.name


def test_reviews_are_appended(reviews: ReviewStore) -> None:
    """Every disposition stays, in order, with who, when and why."""
    given = [review(), review(disposition="false_call", who="bob", comment="looked <again>"), review("r2", "unsure")]
    numbers = [reviews.add(one, key=f"key-{number:06d}") for number, one in enumerate(given)]
    assert [1, 2, 3] == numbers
    assert (given[0], given[1]) == reviews.of("r1")
    assert [(2, given[1]), (3, given[2])] == reviews.after(1, 10)
    assert ((), []) == (reviews.of("other"), reviews.after(3, 10))


def test_the_same_decision_sent_again_is_stored_once(reviews: ReviewStore) -> None:
    """A browser that did not hear the answer sends again; the time of the first stays."""
    number = reviews.add(review(), key="key-000001")
    again = replace(review(), at=NOW + timedelta(minutes=5))
    assert number == reviews.add(again, key="key-000001")
    assert (review(),) == reviews.of("r1")


@pytest.mark.parametrize(
    "other", [review("r2"), review(disposition="escape"), review(who="bob"), review(comment="changed")]
)
def test_a_key_stands_for_one_decision(reviews: ReviewStore, other: Review) -> None:
    """Another content under a known key is an error, and changes nothing."""
    reviews.add(review(), key="key-000001")
    with pytest.raises(ReviewConflict, match="another decision"):
        reviews.add(other, key="key-000001")
    assert [(1, review())] == reviews.after(0, 10)


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        (review(), "short"),
        (review(), "k" * 81),
        (review(), "key with spaces"),
        (review(who=""), "key-000001"),
        (review(comment="x" * 2001), "key-000001"),
        (review(disposition="maybe"), "key-000001"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_review_is_refused(reviews: ReviewStore, wrong: Review, key: str) -> None:
    """A review needs a key, a name, one of four words and a comment of some length."""
    with pytest.raises(ReviewConflict, match="was refused"):
        reviews.add(wrong, key=key)
    assert [] == reviews.after(0, 10)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE reviews SET disposition = 'escape'",
        "DELETE FROM reviews",
        "INSERT OR REPLACE INTO reviews VALUES (1, 'key-000009', 'r9', 'escape', 'eve', '', '', 0)",
        "INSERT OR REPLACE INTO reviews VALUES (9, 'key-000001', 'r9', 'escape', 'eve', '', '', 0)",
    ],
)
def test_the_database_itself_refuses_to_change_history(reviews: ReviewStore, statement: str) -> None:
    """Reviews are append only, whatever program has the file open."""
    reviews.add(review(), key="key-000001")
    with closing(sqlite3.connect(reviews.path)) as other, pytest.raises(sqlite3.IntegrityError, match="append only"):
        other.execute(statement)
    assert [(1, review())] == reviews.after(0, 10)


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "'; DROP TABLE reviews; --", "製品\n\t\0", "../../etc"])
def test_any_comment_is_kept_as_it_is(reviews: ReviewStore, text: str) -> None:
    """What a person writes is text, whatever it looks like."""
    reviews.add(review(comment=text), key="key-000001")
    assert text == reviews.of("r1")[0].comment


def test_text_that_is_no_unicode_is_an_error(reviews: ReviewStore) -> None:
    """A damaged comment is refused in words, and the file goes on."""
    with pytest.raises(StoreError, match="no valid text"):
        reviews.add(review(comment="\ud800"), key="key-000001")
    assert 1 == reviews.add(review(), key="key-000001")


def test_a_record_store_is_no_file_of_reviews(tmp_path: Path) -> None:
    """Two files changed for one another are found out before anything is written."""
    from inspection.store import Store

    Store(tmp_path / "records.sqlite").close()
    with pytest.raises(StoreError, match="not a file of reviews"):
        ReviewStore(tmp_path / "records.sqlite")


def test_the_file_is_durable(reviews: ReviewStore) -> None:
    """An acknowledged decision survives a power cut: write-ahead log, full synchronisation."""
    assert ["wal", 2] == [reviews.rows(f"PRAGMA {name}")[0][0] for name in ("journal_mode", "synchronous")]


def test_threads_and_processes_write_at_once(reviews: ReviewStore) -> None:
    """Two killed programs and eight threads lose no acknowledged decision and store none twice."""
    command = [sys.executable, "-c", WRITER, str(reviews.path)]
    writers = [subprocess.Popen([*command, f"person{n}"], stdout=subprocess.PIPE, text=True) for n in range(2)]
    try:
        with ThreadPoolExecutor(8) as threads:
            numbers = list(threads.map(lambda n: reviews.add(review(f"r{n % 20}"), key=f"key-{n % 20:06d}"), range(80)))
        assert 20 == len(set(numbers))
        acknowledged = [str(writer.stdout.readline()).strip() for writer in writers if writer.stdout is not None]
    finally:
        for writer in writers:
            writer.kill()
            acknowledged += [line.strip() for line in writer.communicate()[0].splitlines() if line.endswith("0")]
    keys = [row[0] for row in reviews.rows("SELECT key FROM reviews")]
    assert len(keys) == len(set(keys))
    assert set(acknowledged) <= set(keys)
    assert [("ok",)] == reviews.rows("PRAGMA integrity_check")


def test_what_stands_of_each_record(reviews: ReviewStore) -> None:
    """A page asks for the dispositions of a list of records at once."""
    given = [review(), review("r2", "unsure"), review("r1", "unsure", "bob"), review("r3", "unsure", "bob")]
    for number, one in enumerate(given):
        reviews.add(one, key=f"key-{number:06d}")
    assert {"r1": given[0], "r2": given[1]} == reviews.latest_by_record(["r1", "r2", "r1", "r9"])


def test_a_decision_that_comes_late_does_not_replace_a_later_one(reviews: ReviewStore) -> None:
    """What Anna decided eight hours ago, and her browser kept until now, does not override what Ben decided since."""
    ben = replace(review(disposition="escape", who="ben"), at=NOW - timedelta(hours=1))
    anna = replace(review(who="anna"), at=NOW - timedelta(hours=8))
    for number, one in enumerate((ben, anna)):
        reviews.add(one, key=f"key-{number:06d}")
    assert ({"r1": ben}, (ben, anna)) == (reviews.latest_by_record(["r1"]), reviews.of("r1"))
    for number, one in enumerate(replace(one, record_id="r2", disposition="unsure") for one in (ben, anna)):
        reviews.add(one, key=f"key-unsure-{number:06d}")
    assert "ben" == reviews.latest_by_record(["r2"])["r2"].reviewer


SAID = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.sampled_from(["confirmed", "false_call", "escape", "unsure"]), st.integers(0, 9)
    )
)


@given(SAID)
def test_a_persons_later_word_replaces_the_earlier_one(said: list[tuple[str, Disposition, int]]) -> None:
    """What stands is the latest decision among each person's last words; taken back by ``unsure``, it is gone."""
    spoken = [
        replace(review("r", disposition, who), at=NOW + timedelta(minutes=minute)) for who, disposition, minute in said
    ]
    in_time = sorted(range(len(said)), key=lambda number: (said[number][2], number))
    last = {said[number][0]: number for number in in_time}
    deciding = [number for number in in_time if number in last.values() and said[number][1] != "unsure"]
    assert (spoken[deciding[-1]] if deciding else None) == standing(spoken)
