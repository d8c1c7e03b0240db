import sqlite3
from contextlib import closing
from datetime import timedelta
from itertools import groupby

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from inspection.audit.delays import Delays
from inspection.audit.differences import Table
from inspection.audit.links import follow
from inspection.audit.rows import TableAudit, compare
from inspection.chain import CHAIN_SQL, append_many

FATES = st.lists(st.sampled_from(["keep", "keep", "keep", "alter", "delete", "add after"]), min_size=1, max_size=30)


def audited(fates: list[str], subjects: list[str], *, once: bool) -> TableAudit:
    """A table of rows that were chained, each of which then met its fate; rows are numbered 10, 20, 30 ..."""
    table = Table("parts", "part", "SELECT number, subject, '', '', number, subject, text FROM parts ORDER BY 1", once)
    rows = [(10 * number, subject, f"text {number}") for number, subject in enumerate(subjects, start=1)]
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.executescript("CREATE TABLE parts (number INTEGER PRIMARY KEY, subject TEXT, text TEXT);" + CHAIN_SQL)
        append_many(database, [("part", subject, (number, subject, text)) for number, subject, text in rows])
        for fate, (number, subject, text) in zip(fates, rows, strict=True):
            if fate != "delete":
                database.execute(
                    "INSERT INTO parts VALUES (?, ?, ?)", (number, subject, text + "!" * (fate == "alter"))
                )
            if fate == "add after":
                database.execute("INSERT INTO parts VALUES (?, ?, ?)", (number + 5, f"new {number}", "new"))
        chain = follow(database, iter(()), frozenset({"part"}))
        assert not chain.findings.kept
        return compare(database, table, chain, Delays(iter(()), timedelta()))


@settings(deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(FATES)
def test_every_row_that_was_altered_deleted_or_added_is_told_apart(fates: list[str]) -> None:
    """Whatever became of the rows, each is named with its own fate, in order, and no other."""
    # A row that was taken away and another put in its place is one that was altered: those are not drawn here.
    assume(not any({"delete", "add after"} <= set(run) for kept, run in groupby(fates, "keep".__eq__) if not kept))
    said = audited(fates, [f"part {number}" for number in range(len(fates))], once=True)
    kinds = {"alter": "altered", "delete": "missing", "add after": "added"}
    expected = [
        (kinds[fate], number if fate != "add after" else 10 * number + 5)
        for number, fate in enumerate(fates, start=1) if fate != "keep"
    ]  # fmt: skip
    # A missing row is known by its entry; entries count from 1.
    found = [(one.kind, one.row if one.kind == "added" else one.entry) for one in said.findings.kept]
    assert sorted(found) == sorted(expected)
    assert said.rows == len(fates) - fates.count("delete") + fates.count("add after")


@settings(deadline=None)
@given(FATES, st.integers(1, 4))
def test_of_rows_that_share_a_subject_the_first_affected_is_named_first(fates: list[str], kinds: int) -> None:
    """Several reviews of one record: the first finding stands where the first row was touched."""
    said = audited(fates, [f"part {number % kinds}" for number in range(len(fates))], once=False)
    touched = [number for number, fate in enumerate(fates, start=1) if fate != "keep"]
    assert bool(said.findings.kept) == bool(touched)
    if touched:
        assert touched[0] <= said.findings.kept[0].place <= touched[0] + 1


@settings(deadline=None, max_examples=20)
@given(st.permutations(range(12)))
def test_any_order_but_the_written_one_is_named(order: list[int]) -> None:
    """Rows whose numbers were exchanged in any way: found unless each has its own."""
    table = Table("parts", "part", "SELECT number, subject, '', '', subject FROM parts ORDER BY 1", once=True)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.executescript("CREATE TABLE parts (number INTEGER PRIMARY KEY, subject TEXT);" + CHAIN_SQL)
        append_many(database, [("part", f"part {number}", (f"part {number}",)) for number in range(12)])
        database.executemany(
            "INSERT INTO parts VALUES (?, ?)", [(n, f"part {part}") for n, part in enumerate(order, start=1)]
        )
        chain = follow(database, iter(()), frozenset({"part"}))
        said = compare(database, table, chain, Delays(iter(()), timedelta()))
    moved = [one.row for one in said.findings.kept]
    assert {one.kind for one in said.findings.kept} <= {"moved"}
    wrong = [n for n, part in enumerate(order, start=1) if n != part + 1]
    assert bool(moved) == bool(wrong)
    if wrong:
        assert moved[0] == wrong[0]
