import hashlib
import json
import multiprocessing
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from audit_bench import add_records, add_reviews, at, late, record
from hypothesis import given
from hypothesis import strategies as st

from inspection.audit.run import audit
from inspection.chain import CHAIN_SQL, FIRST_LINK, append, append_many, canonical, head
from inspection.reviews import MARK, ReviewStore, reviews_path
from inspection.reviews import MIGRATIONS as REVIEW_MIGRATIONS
from inspection.store import MIGRATIONS, Store
from inspection.types import Review

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.lists(TEXTS | st.integers(-(2**53) + 1, 2**53 - 1), max_size=6)


def chained() -> sqlite3.Connection:
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.executescript(CHAIN_SQL)
    return database


def entries(database: sqlite3.Connection) -> list[tuple[int, str, str, bytes, bytes]]:
    return database.execute("SELECT * FROM chain ORDER BY sequence").fetchall()


def by_hand(value: str | int) -> str:
    """A value as RFC 8785 writes it: the seven short escapes, control characters in lower-case hex, all else as it is."""
    short = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    if isinstance(value, int):
        return str(value)
    return '"' + "".join(short.get(char, f"\\u{ord(char):04x}" if ord(char) < 32 else char) for char in value) + '"'


@given(VALUES)
def test_canonical_text_leaves_no_choice(values: list[str | int]) -> None:
    """Rows are written as RFC 8785 says, byte for byte."""
    assert canonical(values).decode() == "[" + ",".join(by_hand(value) for value in values) + "]"


def test_canonical_text_of_the_specification() -> None:
    """The strings of the example in RFC 8785, section 3.2.2, are written as it prints them."""
    string = "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"\u002f"
    assert canonical([string]) == '["€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"]'.encode()


@given(st.lists(st.tuples(st.sampled_from(["record", "late"]), TEXTS, VALUES), max_size=8))
def test_each_entry_holds_all_before_it(rows: list[tuple[str, str, list[str | int]]]) -> None:
    """Links are what anybody computes with a SHA-256 and a JSON writer, one by one or in bulk."""
    with closing(chained()) as one, closing(chained()) as bulk:
        for row in rows:
            append(one, *row)
        append_many(bulk, rows)
        assert entries(one) == entries(bulk)
        link = bytes(32)
        for number, (kind, subject, content) in enumerate(rows, start=1):
            digest = hashlib.sha256(json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode())
            entry = json.dumps([number, kind, subject, digest.hexdigest()], ensure_ascii=False, separators=(",", ":"))
            link = hashlib.sha256(link + entry.encode()).digest()
            assert entries(one)[number - 1] == (number, kind, subject, digest.digest(), link)
        assert head(one) == (len(rows), link)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE chain SET subject = 'b'",
        "DELETE FROM chain",
        "INSERT INTO chain VALUES (3, 'record', 'x', x'00', x'00')",
        "INSERT OR REPLACE INTO chain VALUES (1, 'record', 'x', x'00', x'00')",
    ],
)
def test_entries_are_append_only(statement: str) -> None:
    """The file itself refuses to change, delete or replace an entry, or to leave a gap."""
    with closing(chained()) as database:
        append(database, "record", "a", ["a"])
        with pytest.raises(sqlite3.IntegrityError, match="append only"):
            database.execute(statement)


def test_records_and_late_results_are_chained_as_they_are_stored(tmp_path: Path) -> None:
    """One entry for each record and late result, in their order; a record that is refused leaves none."""
    with closing(Store(tmp_path / "r")) as store:
        add_records(store, 1, 8)  # the seventh has a late result
        with pytest.raises(Exception, match="refused"):
            store.commit(record(3))
        with store.transaction() as database:
            kinds = [(kind, subject) for _, kind, subject, _, _ in entries(database)]
            row = database.execute(
                "SELECT records.*, triggers.json, accepted_at FROM records JOIN triggers USING (trigger_id) LIMIT 1"
            ).fetchone()
            digest = entries(database)[0][3]
    assert kinds == [*(("record", f"{n:032x}") for n in range(1, 8)), ("late", f"{7:032x}"), ("record", f"{8:032x}")]
    assert digest == hashlib.sha256(canonical(row)).digest()
    assert late(7).to_json()


def test_a_review_that_is_sent_again_gets_no_second_entry(tmp_path: Path) -> None:
    """The chain of the reviews has an entry a review."""
    with closing(ReviewStore(tmp_path / "r")) as reviews:
        review = Review("part", "confirmed", "ann", at(1))
        assert reviews.add(review, key="12345678") == reviews.add(review, key="12345678")
        with reviews.transaction() as database:
            assert [entry[:3] for entry in entries(database)] == [(1, "review", "part")]


def review_many(path: str, person: int) -> None:
    with closing(ReviewStore(Path(path))) as reviews:
        for number in range(20):
            reviews.add(
                Review(f"part-{number}", "confirmed", f"person-{person}", at(number)), key=f"{person}-{number:08}"
            )


def test_several_processes_review_into_one_chain(tmp_path: Path) -> None:
    """Reviews written by processes at once leave one unbroken chain in the order of the reviews."""
    store = tmp_path / "records.sqlite"
    Store(store).close()
    path = reviews_path(store)
    processes = [
        multiprocessing.get_context("spawn").Process(target=review_many, args=(str(path), person))
        for person in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    said = next(file for file in audit(store).files if file.name == "reviews")
    assert (said.good, said.rows, said.entries) == (True, {"reviews": 60}, 60)


def old_store(path: Path) -> None:
    """A store of five records and a late result as the version before the chain left it."""
    with closing(Store(path)) as store:
        add_records(store, 1, 8)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for statement in (
            "DROP TABLE chain", "DROP TABLE judged_by", "DROP INDEX records_by_time", "DROP INDEX records_not_ok",
        ):  # fmt: skip
            database.execute(statement)
        database.execute("PRAGMA user_version = 4")


def test_a_store_from_before_the_chain_begins_one_behind_its_rows(tmp_path: Path) -> None:
    """The first entries say how many rows were there; what is added later is chained, and the change points are there."""
    path = tmp_path / "records.sqlite"
    old_store(path)
    with closing(Store(path)) as store:
        add_records(store, 9, 12)
    with closing(Store(path)) as store, store.transaction() as database:
        kinds = [(kind, subject) for _, kind, subject, _, _ in entries(database)]
    assert kinds[:2] == [("begin", "records"), ("begin", "late_results")]
    assert [kind for kind, _ in kinds[2:]] == ["record"] * 4
    said = audit(path).files[0]
    assert said.uncovered == {"records": 8, "late_results": 1}
    assert [finding.kind for finding in (*said.damage, *said.findings)] == ["unsigned"]


def test_a_row_among_those_from_before_the_chain_is_noticed(tmp_path: Path) -> None:
    """Nobody adds to, or takes from, the rows that were there when the chain began."""
    path = tmp_path / "records.sqlite"
    old_store(path)
    Store(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("DROP TRIGGER records_stay")
        database.execute("DELETE FROM records WHERE rowid = 3")
        database.execute(
            "CREATE TRIGGER records_stay BEFORE DELETE ON records BEGIN SELECT RAISE(ABORT, 'records are append only'); END"
        )
    assert "from before the chain" in audit(path).files[0].findings[0].what


def test_reviews_from_before_the_chain_go_on(tmp_path: Path) -> None:
    """A file of reviews of the version before is brought up to date, and says how many it had."""
    store = tmp_path / "records.sqlite"
    Store(store).close()
    path = reviews_path(store)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.executescript(REVIEW_MIGRATIONS[0])
        database.execute(
            "INSERT INTO reviews (key, record_id, disposition, reviewer, at, comment) "
            "VALUES ('12345678', 'p', 'confirmed', 'ann', ?, '')", (at(0).isoformat(),)
        )  # fmt: skip
        database.execute("PRAGMA user_version = 1")
        database.execute(f"PRAGMA application_id = {MARK}")
    with closing(ReviewStore(path)) as reviews:
        add_reviews(reviews, 1, 3)
    said = audit(store).files[1]
    assert (said.good, said.uncovered, said.entries, said.rows) == (True, {"reviews": 1}, 4, {"reviews": 4})


@pytest.mark.parametrize(
    ("change", "row"), [("", None), ("drawn = 0 WHERE review_id = 1", 1), ("drawn = NULL WHERE review_id = 2", 2)]
)
def test_reviews_from_before_they_said_whether_their_part_was_drawn(
    change: str, row: int | None, tmp_path: Path
) -> None:
    """They verify as they were chained, without that column; what is put into it, or taken out of it, is named."""
    store = tmp_path / "records.sqlite"
    Store(store).close()
    path = reviews_path(store)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for migration in REVIEW_MIGRATIONS[:2]:
            database.executescript(migration)
        old = ("12345678", "p", "confirmed", "ann", at(0).isoformat(), "")
        database.execute(
            "INSERT INTO reviews (key, record_id, disposition, reviewer, at, comment) VALUES (?, ?, ?, ?, ?, ?)", old
        )
        append(database, "review", "p", (1, *old))
        database.execute("PRAGMA user_version = 2")
        database.execute(f"PRAGMA application_id = {MARK}")
    said = audit(store).files[1]
    assert ({"reviews": 1}, {"schema": 2}) == (said.rows, dict(said.counts))  # older, and the row fits its entry
    with closing(ReviewStore(path)) as reviews:
        add_reviews(reviews, 2, 3)
    if change:
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            guard = database.execute("SELECT sql FROM sqlite_schema WHERE name = 'reviews_keep'").fetchone()[0]
            database.execute("DROP TRIGGER reviews_keep")
            database.execute(f"UPDATE reviews SET {change}")
            database.execute(guard)
    said = audit(store).files[1]
    assert ([] if row is None else [("altered", row)]) == [(one.kind, one.row) for one in said.findings]
    assert (said.damage, said.rows) == ((), {"reviews": 3})


def test_the_first_link_stands_on_nothing() -> None:
    """Before the first entry the end of a chain is 0 and 32 zero bytes."""
    with closing(chained()) as database:
        assert head(database) == (0, FIRST_LINK) == (0, bytes(32))
    assert CHAIN_SQL in MIGRATIONS[-1]
