import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspection.errors import StoreError
from inspection.store import MIGRATIONS, Store
from inspection.types import Judgement, Reason, Record, Trigger, Verdict

NOW = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "records.db")
    yield opened
    opened.close()


def trigger(number: int, *, lot: str = "L1") -> Trigger:
    return Trigger(f"t{number}", f"S{number}", lot, "board-a", NOW, number)


def record(of: Trigger, *, verdict: Verdict = Verdict.OK) -> Record:
    reasons = () if verdict == Verdict.OK else (Reason("rule", "text"),)
    return Record(
        trigger=of, judgement=Judgement(verdict, reasons), detections=(), frame_ids=("f",), recipe_sha256="a",
        model_sha256="b", station_id="st1", stage_ms=(("total", 1.5),), simulated=True, judged_at=NOW,
    )  # fmt: skip


def add(store: Store, count: int, *, lot: str = "L1", start: int = 0) -> list[Record]:
    made = [record(trigger(number, lot=lot)) for number in range(start, start + count)]
    for one in made:
        store.accept(one.trigger)
        store.commit(one)
    return made


def insert_then(store: Store, second: Callable[[sqlite3.Connection], object]) -> None:
    with store.transaction() as database:
        database.execute("INSERT INTO triggers VALUES ('a', '{}', '')")
        second(database)


def test_new_store_is_empty(store: Store) -> None:
    """A new file holds nothing and says so."""
    assert (0, (), [], None) == (store.count(), store.unanswered(), list(store.records()), store.find_by_trigger("t1"))


def test_committed_record_is_found_again(store: Store) -> None:
    """What was stored comes back unchanged, by trigger and by id."""
    (made,) = add(store, 1)
    assert made == store.find_by_trigger("t0")
    assert made == store.find(made.record_id)
    assert store.find("no such id") is None


def test_records_survive_closing(tmp_path: Path) -> None:
    """A second opening finds what the first one stored."""
    first = Store(tmp_path / "records.db")
    made = add(first, 3)
    first.close()
    second = Store(tmp_path / "records.db")
    assert made[::-1] == list(second.records())
    second.close()


def test_closing_twice_is_harmless(store: Store) -> None:
    """A station that stops twice does not fail; using the closed store does."""
    store.close()
    store.close()
    with pytest.raises(StoreError, match="cannot be used"):
        store.count()


def test_accepting_the_same_trigger_twice_is_harmless(store: Store) -> None:
    """A controller may ask again; the journal keeps one row."""
    store.accept(trigger(1))
    store.accept(trigger(1))
    assert (trigger(1),) == store.unanswered()


def test_another_part_under_a_known_trigger_id_is_refused(store: Store) -> None:
    """Two parts never share a trigger."""
    store.accept(trigger(1))
    with pytest.raises(StoreError, match="another part"):
        store.accept(replace(trigger(1), serial="other"))


def test_second_record_for_one_trigger_is_refused(store: Store) -> None:
    """Every trigger gets exactly one record."""
    (made,) = add(store, 1)
    with pytest.raises(StoreError, match=r"UNIQUE.*trigger_id"):
        store.commit(record(trigger(0), verdict=Verdict.NG))
    assert [made] == list(store.records())


def test_record_without_accepted_trigger_is_refused(store: Store) -> None:
    """A record belongs to a journaled trigger."""
    with pytest.raises(StoreError, match="FOREIGN KEY"):
        store.commit(record(trigger(5)))


def test_unanswered_are_the_triggers_without_record_oldest_first(store: Store) -> None:
    """After a crash the station learns which parts nobody was told about."""
    add(store, 2)
    store.accept(trigger(9))
    store.accept(trigger(4))
    assert ["t9", "t4"] == [one.trigger_id for one in store.unanswered()]


def test_records_come_newest_first_and_limited(store: Store) -> None:
    """A screen asks for the last few."""
    made = add(store, 5)
    assert made[:2:-1] == list(store.records(2))
    assert [] == list(store.records(0))


def test_records_are_read_across_pages(store: Store) -> None:
    """More records than one page come complete and in order."""
    made = add(store, 210)
    assert [one.record_id for one in reversed(made)] == [one.record_id for one in store.records()]
    assert len(made) == store.count()


def test_records_of_one_lot_and_one_serial(store: Store) -> None:
    """A report reads one lot, a repair bench one serial."""
    add(store, 2)
    other = add(store, 2, lot="L2", start=10)
    assert other[::-1] == list(store.records(lot="L2"))
    assert [other[0]] == list(store.records(serial="S10", lot="L2"))
    assert [] == list(store.records(serial="S10", lot="L1"))


def test_writing_while_reading_pages_loses_nothing(store: Store) -> None:
    """New records during a long reading do not shift it."""
    made = add(store, 210)
    reading = store.records()
    first = next(reading)
    add(store, 5, start=1000)
    assert made[::-1] == [first, *reading]


@pytest.mark.parametrize("statement", ["UPDATE records SET verdict = 1", "DELETE FROM records"])
def test_database_itself_refuses_to_change_history(store: Store, statement: str) -> None:
    """Records are append only, whatever program has the file open."""
    add(store, 1)
    with pytest.raises(StoreError, match="append only"), store.transaction() as database:
        database.execute(statement)
    other = sqlite3.connect(store.path)
    with pytest.raises(sqlite3.IntegrityError, match="append only"):
        other.execute(statement)
    other.close()


def test_transaction_is_all_or_nothing(store: Store) -> None:
    """What fails half way leaves no trace, and the store goes on."""
    with pytest.raises(StoreError, match="UNIQUE"):
        insert_then(store, lambda database: database.execute("INSERT INTO triggers VALUES ('a', '{}', '')"))
    assert () == store.unanswered()
    assert len(add(store, 1)) == store.count()


def test_error_inside_a_transaction_rolls_back(store: Store) -> None:
    """An error that has nothing to do with the database undoes the writes as well."""
    with pytest.raises(ZeroDivisionError):
        insert_then(store, lambda _: 1 / 0)
    assert () == store.unanswered()


@pytest.mark.parametrize("text", ["Ü-製品", "'; DROP TABLE records; --", "a\0b", "../../etc", '"', "\n\t"])
def test_any_text_from_the_line_is_kept_as_it_is(store: Store, text: str) -> None:
    """Serial and lot are data, whatever they contain."""
    made = record(Trigger(text, text, text, text, NOW))
    store.accept(made.trigger)
    store.commit(made)
    assert made == store.find_by_trigger(text)


def test_text_that_is_no_unicode_is_a_store_error(store: Store) -> None:
    """Bytes that were decoded wrongly are refused with the reason, and the store goes on."""
    with pytest.raises(StoreError, match="no valid text"):
        store.accept(Trigger("t", "\ud800", "l", "r", NOW))
    assert len(add(store, 1)) == store.count()


def test_file_is_durable_and_checks_references(store: Store) -> None:
    """The journal mode is WAL with full synchronisation, and foreign keys are on."""
    with store.transaction() as database:
        asked = [
            database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
        assert ["wal", 2, 1] == asked
        assert len(MIGRATIONS) == database.execute("PRAGMA user_version").fetchone()[0]


def test_store_of_a_newer_program_is_left_alone(tmp_path: Path) -> None:
    """A schema that this program does not know is refused by its number."""
    path = tmp_path / "records.db"
    Store(path).close()
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(StoreError, match=f"schema 99; this program knows up to {len(MIGRATIONS)}"):
        Store(path)


def test_probe_passes_on_a_healthy_store_and_leaves_no_trace(store: Store) -> None:
    """Asking whether writes work changes neither triggers nor records."""
    store.probe()
    store.probe()
    assert (0, ()) == (store.count(), store.unanswered())


def test_record_of_an_unknown_form_is_a_store_error(store: Store) -> None:
    """A row that cannot be read is named, not skipped."""
    store.accept(trigger(1))
    with store.transaction() as database:
        database.execute("INSERT INTO records VALUES ('r', 't1', '', '', '', 1, '', '{}')")
    with pytest.raises(StoreError, match="cannot be read"):
        list(store.records())


RECIPES = st.lists(st.tuples(st.sampled_from("xy"), st.sampled_from("12"), st.sampled_from("ab")), max_size=12)


def judged_by(path: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT * FROM judged_by ORDER BY first_row").fetchall()


@settings(max_examples=20, deadline=None)
@given(RECIPES)
def test_every_change_of_recipe_or_model_is_put_down(recipes: list[tuple[str, str, str]]) -> None:
    """The rows from which on another recipe or model judged are the same whether written part by part or from an old store."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records.db"
        store = Store(path)
        for number, (recipe_id, recipe_sha256, model_sha256) in enumerate(recipes):
            store.accept(trigger(number))
            made = record(trigger(number))
            store.commit(replace(made, recipe_id=recipe_id, recipe_sha256=recipe_sha256, model_sha256=model_sha256))
        store.close()
        changes = [(n + 1, *one) for n, one in enumerate(recipes) if n == 0 or one != recipes[n - 1]]
        assert judged_by(path) == changes
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            for name in ("TABLE judged_by", "TABLE IF EXISTS chain", "INDEX records_by_time", "INDEX records_not_ok"):
                database.execute(f"DROP {name}")  # a store of before the migration
            database.execute("PRAGMA user_version = 4")
        Store(path).close()
        assert judged_by(path) == changes
