import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from inspection.errors import StoreError
from inspection.store import Store
from inspection.types import Judgement, Record, Trigger, Verdict

NOW = datetime(2026, 11, 23, tzinfo=UTC)
WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_store_faults import add
from inspection.store import Store
store = Store(Path(sys.argv[1]))
number = 0
while True:
    add(store, number, size=2000)
    print(number, flush=True)
    number += 1
"""


def add(store: Store, number: int, *, size: int = 0) -> None:
    trigger = Trigger(f"t{number}", "S", "x" * size, "r", NOW)
    store.accept(trigger)
    store.commit(Record(trigger, Judgement(Verdict.OK), (), (), "", "", "st", (), True, NOW))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.name != "posix" or mount is None or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(folder)], check=True)


def intact(path: Path) -> bool:
    database = sqlite3.connect(path)
    verdict = database.execute("PRAGMA integrity_check").fetchone()[0]
    database.close()
    return bool(verdict == "ok")


def fill(store: Store, start: int = 0) -> None:
    """Add records until the store takes no more."""
    for number in range(start, start + 10_000):
        add(store, number, size=5000)


def test_full_disk_is_a_store_error_and_every_acknowledged_record_stays(small_disk: Path) -> None:
    """On a full disk a write fails with what to do, nothing acknowledged is lost, and space makes it work again."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(300_000))
    store = Store(small_disk / "records.db")
    with pytest.raises(StoreError, match=r"is full|cannot be read or written") as caught:
        fill(store)
    kept = [record.trigger.trigger_id for record in store.records()]
    assert "full" in caught.value.fix or "free space" in caught.value.fix
    assert [f"t{number}" for number in reversed(range(len(kept)))] == kept
    assert kept
    with pytest.raises(StoreError):
        fill(store, start=20_000)
    ballast.unlink()
    store.probe()
    add(store, 50_000)
    store.close()
    assert intact(small_disk / "records.db")


def test_store_with_a_page_limit_reports_full(tmp_path: Path) -> None:
    """SQLite's own report of a full database becomes a StoreError that says so."""
    store = Store(tmp_path / "records.db")
    with store.transaction() as database:
        database.execute("PRAGMA max_page_count = 40")
    with pytest.raises(StoreError, match="is full") as caught:
        fill(store)
    assert "free space" in caught.value.fix
    assert store.count() > 0
    with store.transaction() as database:
        database.execute("PRAGMA max_page_count = 4000")
    add(store, 20_000)
    store.close()


def test_read_only_disk_is_a_store_error(small_disk: Path) -> None:
    """A disk that turned read-only is named as such."""
    store = Store(small_disk / "records.db")
    add(store, 1)
    store.close()
    remount(small_disk, "ro")
    with pytest.raises(StoreError, match=r"read-only|cannot be opened") as caught:
        Store(small_disk / "records.db")
    assert "write permission" in caught.value.fix


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_write_permission_is_a_store_error(tmp_path: Path) -> None:
    """A folder that the station's user may not write is named."""
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(tmp_path / "records.db")
    tmp_path.chmod(0o700)


def test_missing_folder_is_a_store_error(tmp_path: Path) -> None:
    """A store is not put somewhere else, and no folder is made by chance."""
    with pytest.raises(StoreError, match="there is no folder"):
        Store(tmp_path / "nowhere" / "records.db")
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("replaced", [False, True])
def test_store_that_was_moved_away_is_a_store_error(tmp_path: Path, replaced: bool) -> None:
    """No record goes into a file that nobody will find; put back, the store goes on with every record."""
    path, aside = tmp_path / "records.db", tmp_path / "aside.db"
    store = Store(path)
    try:
        add(store, 0)
        path.rename(aside)
        if replaced:
            path.write_bytes(b"")
        for write in (lambda: add(store, 1), store.probe):
            with pytest.raises(StoreError, match="was moved, replaced or deleted"):
                write()
        aside.replace(path)
        add(store, 1)
        assert store.count() == 2
    finally:
        store.close()


def test_folder_in_place_of_the_file_is_a_store_error(tmp_path: Path) -> None:
    """A folder cannot be a store."""
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(tmp_path)


def test_file_that_is_no_database_is_left_as_it_is(tmp_path: Path) -> None:
    """A text file named by mistake is refused and keeps its bytes."""
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be mistaken for one " * 40)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not a record store"):
        Store(path)
    assert before == path.read_bytes()


def test_database_of_another_program_is_left_as_it_is(tmp_path: Path) -> None:
    """An SQLite file that is no record store gets no tables of ours."""
    path = tmp_path / "other.db"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE birds (name TEXT)")
    database.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not a record store"):
        Store(path)
    assert before == path.read_bytes()


def test_damaged_file_is_a_store_error(tmp_path: Path) -> None:
    """A file with overwritten pages is reported as damaged."""
    path = tmp_path / "records.db"
    store = Store(path)
    for number in range(30):
        add(store, number, size=2000)
    store.close()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"damaged|not a record store"):
        list(Store(path).records())


def test_store_locked_by_another_program_is_a_store_error(tmp_path: Path) -> None:
    """A program that holds the file for long is named as the reason."""
    store = Store(tmp_path / "records.db")
    other = sqlite3.connect(tmp_path / "records.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked by another program"):
        add(store, 1)
    other.execute("ROLLBACK")
    other.close()
    add(store, 1)
    assert store.count() == 1
    store.close()


def test_two_programs_may_read_and_write_in_turn(tmp_path: Path) -> None:
    """A page that reads does not stop the line that writes, and sees what was committed."""
    line, page = Store(tmp_path / "records.db"), Store(tmp_path / "records.db")
    for number in range(3):
        add(line, number)
        assert number + 1 == page.count()
    line.close()
    page.close()


@pytest.mark.parametrize("enough", [1, 25])
def test_killed_program_loses_no_acknowledged_record(tmp_path: Path, enough: int) -> None:
    """After a kill in the middle of writing the file is whole, and holds every record that was acknowledged."""
    path = tmp_path / "records.db"
    command = [sys.executable, "-c", WRITER, str(path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        acknowledged = [int(next(writer.stdout)) for _ in range(enough)]
        writer.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in writer.stdout]
    assert intact(path)
    store = Store(path)
    assert all(store.find_by_trigger(f"t{number}") for number in acknowledged)
    assert len(store.unanswered()) <= 1
    store.close()
