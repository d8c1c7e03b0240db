"""One file under audit: opened for reading alone, SQLite's own check of it, and its schema against the migrations."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from threading import Thread

from inspection.audit.findings import Finding, Findings
from inspection.sqlite_file import read_only

BUSY_S = 10.0
CACHE_KB = 65536
MOST_FAULTS = 20  # of SQLite's own check
# A damaged schema makes SQLite quote bytes in its message that Python cannot read as text.
UNREADABLE = (sqlite3.Error, UnicodeDecodeError, OverflowError)
Objects = dict[tuple[str, str], str]


def open_snapshot(path: Path) -> sqlite3.Connection:
    """A connection that sees the file as it is now, whatever is written meanwhile; sqlite3.Error when it cannot be read.

    Texts that are no UTF-8 come with surrogates in place of the bytes, so that they differ from any that was written.
    """
    database = read_only(path, busy_s=BUSY_S)
    try:
        database.text_factory = _as_text
        database.execute("PRAGMA trusted_schema = OFF")
        database.execute(f"PRAGMA cache_size = -{CACHE_KB}")
        database.execute("BEGIN")
        try:
            database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except UNREADABLE:
            # A file that was cut short is refused whole, unless the schema counts as writable; nothing is written.
            database.execute("PRAGMA writable_schema = ON")
            database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except BaseException:
        database.close()
        raise
    return database


def _as_text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


class IntegrityCheck:
    """SQLite's own check of a file, indexes included, in a thread beside the audit's own reading."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._faults: list[str] = []
        self._thread = Thread(target=self._run, name="integrity", daemon=True)
        self._thread.start()

    def faults(self) -> list[str]:
        """What is wrong, after waiting for the end; [] when nothing is."""
        self._thread.join()
        return self._faults

    def _run(self) -> None:
        try:
            with closing(read_only(self._path, busy_s=BUSY_S)) as database:
                database.text_factory = _as_text
                database.execute("PRAGMA cell_size_check = ON")
                rows = database.execute(f"PRAGMA integrity_check({MOST_FAULTS})").fetchall()
            self._faults = [str(text) for (text,) in rows if text != "ok"]
        except UNREADABLE as error:
            self._faults = [str(error)]


def is_empty(database: sqlite3.Connection) -> bool:
    """Whether there is nothing in the file, not even a schema; sqlite3.Error when it cannot be read."""
    return not int(database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])


def check_schema(database: sqlite3.Connection, migrations: Sequence[str], mark: int, findings: Findings) -> bool:
    """Compare tables, indexes and guard triggers with what the migrations make; whether there is a chain to follow."""
    try:
        version = int(database.execute("PRAGMA user_version").fetchone()[0])
        found_mark = int(database.execute("PRAGMA application_id").fetchone()[0])
        found = _objects(database)
    except UNREADABLE as error:
        findings.add(Finding("damaged", f"its schema cannot be read ({error})"))
        return False
    if not 0 <= version <= len(migrations) or found_mark != mark:
        findings.add(Finding("schema", f"schema {version} and mark {found_mark:#x} are none that this version writes"))
    elif version < len(migrations):
        findings.add(
            Finding("schema", f"schema {version} is older than this version's: start its station and pages once")
        )
    expected = _expected(tuple(migrations))
    for kind, name in sorted(expected.keys() | found.keys()):
        made, there = expected.get((kind, name)), found.get((kind, name))
        if made != there and not (made is None and name.startswith("sqlite_stat")):
            how = "is missing" if there is None else "was added" if made is None else "was changed"
            findings.add(Finding("schema", f"the {kind} {name} {how}"))
    return ("table", "chain") in found


def _objects(database: sqlite3.Connection) -> Objects:
    rows = database.execute("SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema").fetchall()
    return {(str(kind), str(name)): f"{table}\n{sql}" for kind, name, table, sql in rows}


@lru_cache(maxsize=8)
def _expected(migrations: tuple[str, ...]) -> Objects:
    with closing(sqlite3.connect(":memory:")) as database:
        for script in migrations:
            database.executescript(script)
        return _objects(database)
