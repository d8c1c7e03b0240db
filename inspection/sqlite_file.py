"""One SQLite file that survives a power cut: its schema in steps, its transactions, and its errors in words.

The record store, the reviews and whatever else is kept beside them share this, so that each says in the same way that
the disk is full, the file damaged, or written by a newer program.
"""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspection.errors import StoreError

Value = str | int | float | None
MARK = "\ufffd"  # what is put in place of bytes that are no text


@dataclass(frozen=True, slots=True)
class Kind:
    """What a file is called in messages, and what to do when the disk is full or a text cannot be kept."""

    name: str
    no_space: str
    bad_text: str
    refused: str = "use the lineside version that wrote it"


_TO_READ = "to read it only, copy it with its -wal, where there is one, into a folder of your own"
_FIXES = {
    "SQLITE_READONLY": (
        "is read-only",
        "give the user that lineside runs as write permission on the file and its folder",
    ),
    "SQLITE_PERM": (
        "may not be written",
        "give the user that lineside runs as write permission on the file and its folder",
    ),
    "SQLITE_BUSY": (
        "is locked by another program",
        "close the program that has it open; copy the file to look into it",
    ),
    "SQLITE_CANTOPEN": (
        "cannot be opened",
        f"create the folder and give the user that lineside runs as write permission on it; {_TO_READ}",
    ),
    "SQLITE_CORRUPT": ("is damaged", "put the file aside and restore the last backup; lineside then goes on there"),
    "SQLITE_IOERR": ("cannot be read or written", "check the disk and its cables, and that it is not full"),
}


@contextmanager
def named(path: Path, kind: Kind) -> Iterator[None]:
    """Translate what SQLite raises into StoreError."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise StoreError(
            f"the {kind.name} {path} cannot keep {error.object!r}: it is no valid text", fix=kind.bad_text
        ) from error
    except (sqlite3.Error, OverflowError, UnicodeDecodeError) as error:  # a damaged schema is quoted in damaged letters
        how, fix = _in_words(getattr(error, "sqlite_errorname", ""), kind)
        raise StoreError(f"the {kind.name} {path} {how} ({error})", fix=fix) from error


def _in_words(code: str, kind: Kind) -> tuple[str, str]:
    family = "_".join(code.split("_")[:2])
    if code == "SQLITE_READONLY_DIRECTORY":
        return "cannot be opened, for nothing may be made beside it", f"give write permission on its folder; {_TO_READ}"
    own = {
        "SQLITE_FULL": ("is full", kind.no_space),
        "SQLITE_NOTADB": (f"is not a {kind.name}", "name another file; this one was left as it is"),
        "SQLITE_CONSTRAINT": ("refused a row", kind.refused),
    }
    otherwise = ("cannot be used", "close other programs that use the file, then try again")
    return own.get(family) or _FIXES.get(family, otherwise)


class Unshared(sqlite3.Connection):
    """A connection to a file that nobody writes: readers and writers could not see each other.  Not to be kept for long."""

    opened: tuple[int, ...] | None = None


def read_only(path: Path, *, busy_s: float) -> sqlite3.Connection:
    """A connection that can write nothing and takes no lock that a writer needs; sqlite3.Error when there is no file.

    Unshared where SQLite may not make the files by which readers and writers see each other, and no writer has made them.
    """
    connection = sqlite3.connect(
        _uri(path, "mode=ro"), uri=True, timeout=busy_s, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        if not cannot_be_opened(error) or _beside(path, "-wal") or _beside(path, "-shm"):
            return connection  # what is wrong is said where it is read
        connection.close()
        opened = _as_on_disk(path)
        unshared = Unshared(_uri(path, "mode=ro&immutable=1"), uri=True, isolation_level=None, check_same_thread=False)
        unshared.opened = opened
        return unshared
    return connection


def cannot_be_opened(error: Exception) -> bool:
    """Whether a file was not looked into at all: its place or its permissions are in the way."""
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM"))


def check_unwritten(connection: sqlite3.Connection, path: Path) -> None:
    """StoreError when an unshared file was written since it was opened: what was read may be of two moments."""
    written = _beside(path, "-wal") or _beside(path, "-shm")
    if isinstance(connection, Unshared) and (written or connection.opened != _as_on_disk(path)):
        raise StoreError(f"{path} was written while it was read", fix="try again, now that its station runs")


def rows_of(connection: sqlite3.Connection, sql: str, values: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
    """All rows of a query.  A text that is no UTF-8 is given with its bad bytes replaced and ``MARK`` put before it.

    That makes JSON of it unreadable, and of no other row.
    """
    try:
        return connection.execute(sql, values).fetchall()
    except sqlite3.OperationalError as error:
        if hasattr(error, "sqlite_errorcode"):
            raise
    connection.text_factory = marked_text  # for this query alone: every text costs a call of it
    try:
        return connection.execute(sql, values).fetchall()
    finally:
        connection.text_factory = str


def marked_text(raw: bytes) -> str:
    """Text for SQLite's bytes: what is no UTF-8 has ``MARK`` before it."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return f"{MARK}{raw.decode('utf-8', 'replace')}"


def _uri(path: Path, how: str) -> str:
    return f"{path.absolute().as_uri()}?{how}"


def _beside(path: Path, ending: str) -> bool:
    return path.with_name(path.name + ending).exists()


def _as_on_disk(path: Path) -> tuple[int, ...] | None:
    """Tells one state of a file from another; None when it cannot be looked at."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def check_version(version: int, newest: int, path: Path, kind: Kind) -> None:
    """StoreError when the schema ``version`` of the file is newer than what this program knows."""
    if version > newest:
        raise StoreError(
            f"the {kind.name} {path} has schema {version}; this program knows up to {newest}",
            fix="use the newer lineside that wrote it, or name another file",
        )


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file has this name now; None when there is none or it cannot be looked at."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class SqliteFile:
    """The file ``path``, made when missing, brought to the newest of ``migrations``; its folder must exist.

    Any number of threads and programs may use the file at once: the threads of one SqliteFile take turns, programs wait
    up to ``busy_s`` for each other.  Every method raises StoreError when the file cannot be read or written; writes are
    on the disk when they return.  ``mark`` (SQLite's application_id) tells files of ours apart from each other; 0 = none.
    """

    def __init__(self, path: Path, migrations: Sequence[str], kind: Kind, *, busy_s: float, mark: int = 0) -> None:
        self.path = path
        self.kind = kind
        self._migrations = migrations
        self._mark = mark
        self._lock = threading.RLock()
        if not path.parent.is_dir():
            raise StoreError(f"there is no folder {path.parent} for the {kind.name}", fix="create the folder")
        with named(path, kind):
            self._connection = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except StoreError:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        with self._lock, named(self.path, self.kind):
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All writes within it reach the disk together, or none does."""
        with self._lock, named(self.path, self.kind):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._check_in_place()
                self._connection.execute("COMMIT")
            except BaseException:
                # A full disk makes SQLite roll back by itself.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def rows(self, sql: str, values: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query; the reading is over when they are returned."""
        with self._lock, named(self.path, self.kind):
            return self._connection.execute(sql, values).fetchall()

    def _check_in_place(self) -> None:
        # SQLite goes on writing into a file that has no name any more; all of it would be gone at the end.
        if _identity(self.path) != self._opened:
            raise StoreError(
                f"the {self.kind.name} {self.path} was moved, replaced or deleted while it was in use",
                fix="put it back where it was, or restart what writes it, which makes a new one",
            )

    def _prepare(self) -> None:
        with named(self.path, self.kind):
            version = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
            mark = int(self._connection.execute("PRAGMA application_id").fetchone()[0])
            self._opened = _identity(self.path)
            empty = not self.rows("SELECT name FROM sqlite_schema LIMIT 1")
            if not empty and (version == 0 or mark != self._mark):
                raise StoreError(
                    f"{self.path} is an SQLite file, but not a {self.kind.name}",
                    fix="name another file; this one was left as it is",
                )
            check_version(version, len(self._migrations), self.path, self.kind)
            mode = self._connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if mode != "wal":
                raise StoreError(
                    f"{self.path} lies on a disk without write-ahead logging (journal mode {mode})",
                    fix=f"put the {self.kind.name} on a local disk, not on a network share",
                )
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
        for step in range(version, len(self._migrations)):
            self._migrate(step)

    def _migrate(self, step: int) -> None:
        """Apply one migration and its bookkeeping together; nothing when another program was faster."""
        with self.transaction() as database:
            if int(database.execute("PRAGMA user_version").fetchone()[0]) == step:
                for statement in _statements(self._migrations[step]):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {step + 1}")
                database.execute(f"PRAGMA application_id = {self._mark}")


def _statements(script: str) -> Iterator[str]:
    """The statements of a script, one by one: ``executescript`` would end the transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
