import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from inspection.errors import StoreError
from inspection.record_reader import RecordReader
from inspection.store import MIGRATIONS, Store, UnreadableRecord
from inspection.types import Judgement, LateResult, Reason, Record, Trigger, Verdict

NOW = datetime(2026, 11, 23, tzinfo=UTC)
HOLDER = """
import sqlite3, sys
reader = sqlite3.connect(sys.argv[1], uri=True, isolation_level=None)
reader.execute("BEGIN")
print(reader.execute("SELECT count(*) FROM records").fetchone()[0], flush=True)
sys.stdin.read()
"""


def record(number: int, *, verdict: Verdict = Verdict.OK, recipe: str = "board-a") -> Record:
    reasons = () if verdict == Verdict.OK else (Reason("rule", "text"),)
    return Record(
        trigger=Trigger(f"t{number}", f"S{number % 7}", "L1", recipe, NOW, number),
        judgement=Judgement(verdict, reasons), detections=(), frame_ids=("f",), recipe_sha256="a", model_sha256="b",
        station_id="st1", stage_ms=(("total", 1.5),), simulated=True, judged_at=NOW, recipe_id=recipe,
    )  # fmt: skip


def commit(store: Store, *records: Record) -> None:
    for one in records:
        store.accept(one.trigger)
        store.commit(one)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "records.sqlite")) as opened:
        yield opened


@pytest.fixture
def reader(store: Store) -> Iterator[RecordReader]:
    with closing(RecordReader(store.path)) as opened:
        yield opened


def test_records_are_read_in_both_directions(store: Store, reader: RecordReader) -> None:
    """A page pages forwards from what it has seen, and backwards into the past."""
    assert (0, [], []) == (reader.last_rowid(), reader.newest(3), reader.after(0, 3))
    made = [record(number) for number in range(5)]
    commit(store, *made)
    assert [(5, made[4]), (4, made[3])] == reader.newest(2)
    assert [(3, made[2]), (4, made[3])] == reader.after(2, 2)
    assert [(2, made[1]), (1, made[0])] == reader.before(3, 9)
    assert [] == reader.newest(-1)
    assert 5 == reader.last_rowid()


def test_records_are_found_by_id_and_serial(store: Store, reader: RecordReader) -> None:
    """A link names a record, a repair bench a serial."""
    made = [record(number) for number in range(8)]
    commit(store, *made)
    assert made[3] == reader.find(made[3].record_id)
    assert (None, 0) == (reader.find("no such id"), reader.rowid_of("no such id"))
    assert [(8, made[7]), (1, made[0])] == reader.by_serial("S0", 5)
    assert 4 == reader.rowid_of(made[3].record_id)


def test_a_late_result_comes_with_its_record(store: Store, reader: RecordReader) -> None:
    """The truth about a part that missed its deadline is shown where the part is."""
    made = record(1, verdict=Verdict.ERROR)
    late = LateResult(Judgement(Verdict.OK), (), (("total", 99.0),), NOW)
    commit(store, made)
    store.commit_late(made.record_id, late)
    assert replace(made, late=late) == reader.find(made.record_id)


def test_rejected_parts_of_one_recipe(store: Store, reader: RecordReader) -> None:
    """Earlier findings are looked for among rejected parts of the same recipe, not further back than asked."""
    kinds = [(Verdict.NG, "a"), (Verdict.OK, "a"), (Verdict.REVIEW, "a"), (Verdict.NG, "b"), (Verdict.NG, "a")]
    made = [record(number, verdict=verdict, recipe=recipe) for number, (verdict, recipe) in enumerate(kinds)]
    commit(store, *made)
    assert [(3, made[2]), (1, made[0])] == reader.rejected_before(5, "a", 10, span=100)
    assert [(3, made[2])] == reader.rejected_before(5, "a", 10, span=3)
    assert [Verdict.OK, Verdict.REVIEW] == [heading.verdict for heading in reader.headings(1, 2)]


def test_a_record_that_cannot_be_read_takes_no_other_along(store: Store, reader: RecordReader) -> None:
    """What pages and counts read in pieces names it in its place; its row still says when and where it was judged."""
    made = [record(number, verdict=Verdict.NG) for number in range(3)]
    commit(store, *made)
    with closing(sqlite3.connect(store.path)) as database, database:
        database.execute("DROP TRIGGER records_keep")
        database.execute("UPDATE records SET json = '{}' WHERE rowid = 2")
    for found in (reader.readable_before(4, 9), reader.rejected_before(4, "board-a", 9, span=9)):
        assert [(3, Record), (2, UnreadableRecord), (1, Record)] == [(row, type(one)) for row, one in found]
    for outlines in (reader.outlines_before(4, 9), reader.outlines_of_lot("L1", 4, 9)):
        assert [(False, made[2]), (True, None), (False, made[0])] == [(one.unreadable, one.record) for one in outlines]
        assert ("L1", Verdict.NG, NOW) == (outlines[1].lot, outlines[1].verdict, outlines[1].judged_at)


def test_a_reader_cannot_write(store: Store, reader: RecordReader) -> None:
    """Nothing outside the station can take the lock that a commit needs."""
    with pytest.raises(StoreError, match="read-only"):
        reader.rows("INSERT INTO probes VALUES (1, '')")


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system cannot stop a process")
def test_a_frozen_reader_makes_no_commit_wait(store: Store) -> None:
    """A page that hangs in the middle of a reading costs the line nothing: 200 records go in past it."""
    commit(store, record(0))
    source = f"{store.path.absolute().as_uri()}?mode=ro"
    command = [sys.executable, "-c", HOLDER, source]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert "1" == holder.stdout.readline().strip()
            os.kill(holder.pid, signal.SIGSTOP)
            waits_ms = []
            for number in range(1, 201):
                began = time.monotonic()
                commit(store, record(number))
                waits_ms.append(1000 * (time.monotonic() - began))
            assert 201 == store.count()
            print(f"200 commits past a frozen reader: longest {max(waits_ms):.1f} ms")
        finally:
            os.kill(holder.pid, signal.SIGKILL)


def test_reading_leaves_no_transaction_open(store: Store, reader: RecordReader) -> None:
    """After a query the write-ahead log can be folded back whole: no reader pins it."""
    commit(store, *(record(number) for number in range(20)))
    reader.newest(10)
    reader.headings(0, 5)
    with closing(sqlite3.connect(store.path)) as other:
        busy, written, folded = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert (0, written) == (busy, folded)
    assert 20 == len(reader.after(0, 100))


def test_a_busy_store_is_read_by_several_threads(store: Store, reader: RecordReader) -> None:
    """Pages read from several threads while the station writes; each sees rows without a hole."""
    failures: list[str] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            rows = [rowid for rowid, _ in reader.after(0, 1000)]
            if rows != list(range(1, len(rows) + 1)):
                failures.append(f"a hole in {rows}")

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        commit(store, *(record(number) for number in range(60)))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert 60 == reader.last_rowid()


def test_a_store_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A page that starts before the station says what to do, and makes no file."""
    with pytest.raises(StoreError, match="there is no record store") as caught:
        RecordReader(tmp_path / "records.sqlite")
    assert "start the station" in caught.value.fix
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(("version", "words"), [(99, "schema 99; this program knows up to"), (1, "only an earlier")])
def test_other_schemas_are_refused(store: Store, version: int, words: str) -> None:
    """A file of another version is not guessed at."""
    with closing(sqlite3.connect(store.path)) as database:
        database.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(StoreError, match=words):
        RecordReader(store.path)


def test_the_schema_before_this_one_is_read(tmp_path: Path) -> None:
    """Old stores stay readable without the station that would bring them up to date."""
    path = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(path)) as database:
        for step in MIGRATIONS[:3]:
            database.executescript(step)
        database.execute("PRAGMA user_version = 3")
    with closing(RecordReader(path)) as reader:
        assert [] == reader.newest(1)


def test_opening_an_old_store_drops_its_unused_reviews(tmp_path: Path) -> None:
    """Reviews lie beside the store; the table that nothing ever wrote is gone after the station starts."""
    path = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(path)) as database:
        for step in MIGRATIONS[:3]:
            database.executescript(step)
        database.execute("PRAGMA user_version = 3")
    with closing(Store(path)) as store:
        commit(store, record(1))
    with closing(sqlite3.connect(path)) as database:
        names = {row[0] for row in database.execute("SELECT name FROM sqlite_schema")}
    assert not [name for name in names if "review" in name]


@pytest.mark.parametrize("content", [b"", b"no database, but long enough to be taken for one " * 40])
def test_a_file_that_is_no_store_is_refused(tmp_path: Path, content: bytes) -> None:
    """Another file under the store's name is left as it is."""
    path = tmp_path / "records.sqlite"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="not a record store"):
        RecordReader(path)
    assert content == path.read_bytes()


def test_a_damaged_row_is_named(store: Store, reader: RecordReader) -> None:
    """A record that cannot be read is an error in words, never left out."""
    commit(store, record(0))
    store.accept(record(1).trigger)
    with store.transaction() as database:
        database.execute("INSERT INTO records VALUES ('r', 't1', '', '', '', 1, '', '{}')")
    with pytest.raises(StoreError, match="cannot be read"):
        reader.newest(5)
    assert 1 == len(reader.after(0, 1))


def test_a_store_made_anew_under_the_same_name_is_opened_again(store: Store, reader: RecordReader) -> None:
    """A damaged store that was put aside needs no restart of the pages."""
    commit(store, record(0))
    assert 1 == reader.last_rowid()
    store.close()
    for end in ("", "-wal", "-shm"):
        store.path.with_name(store.path.name + end).unlink(missing_ok=True)
    with pytest.raises(StoreError, match="there is no record store"):
        reader.last_rowid()
    with closing(Store(store.path)) as anew:
        assert 0 == reader.last_rowid()
        commit(anew, record(5), record(6))
        assert 2 == reader.last_rowid()


def test_a_closed_reader_says_so(reader: RecordReader) -> None:
    """Closing twice is harmless; reading afterwards is an error."""
    reader.close()
    reader.close()
    with pytest.raises(StoreError, match="was closed"):
        reader.newest(1)
