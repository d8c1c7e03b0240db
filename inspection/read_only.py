"""Reads an SQLite file that another program writes, without ever holding that program up.

The file is opened read only, so no lock that a writer needs can be taken here, and each query is read to its end at once.
"""

import os
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from inspection.errors import StoreError
from inspection.sqlite_file import Kind, Unshared, Value, check_version, named, read_only, rows_of

BUSY_S = 5.0  # only a file that is being made or mended makes a reader wait


class ReadOnlyFile:
    """The file ``path`` of a ``kind``, told from other files by ``mark``; ``newest`` is the last schema that is known.

    Used by any number of threads.  A file that is not there is one without rows: it is made when there is something to
    put into it.  StoreError when it is there and cannot be read, is another file, or of a newer schema.
    """

    def __init__(self, path: Path, kind: Kind, *, mark: int, newest: int) -> None:
        self.path = path
        self._kind, self._mark, self._newest = kind, mark, newest
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    def close(self) -> None:
        """Close the file; it is opened again when it is asked for again."""
        with self._lock:
            self._let_go()

    def rows(self, sql: str, values: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query; none when there is no file."""
        with self._lock:
            connection = self._connected()
            if connection is None:
                return []
            with named(self.path, self._kind):
                return rows_of(connection, sql, values)

    def _connected(self) -> sqlite3.Connection | None:
        """The connection to the file that is there now; None when there is none, or nothing was put into it yet."""
        there = self._on_disk()
        if there != self._file or isinstance(self._connection, Unshared):
            self._let_go()
        if self._connection is not None or there is None:
            return self._connection
        with named(self.path, self._kind):
            connection = read_only(self.path, busy_s=BUSY_S)
        try:
            ready = self._is_ready(connection)
        except StoreError:
            connection.close()
            raise
        if not ready:
            connection.close()
            return None
        self._connection, self._file = connection, there
        return connection

    def _is_ready(self, connection: sqlite3.Connection) -> bool:
        with named(self.path, self._kind):
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            mark = int(connection.execute("PRAGMA application_id").fetchone()[0])
            empty = not connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
        if empty:
            return False
        if mark != self._mark:
            raise StoreError(
                f"{self.path} is an SQLite file, but not a {self._kind.name}",
                fix="put the right file back under this name",
            )
        check_version(version, self._newest, self.path, self._kind)
        return True

    def _on_disk(self) -> tuple[int, int] | None:
        """What tells one file from another under the same name; None when there is none."""
        try:
            found = os.stat(self.path)  # noqa: PTH116  (as quick as it gets: asked before every query)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(
                f"the {self._kind.name} {self.path} cannot be looked at ({error.strerror})",
                fix="check the disk and the permissions of its folder",
            ) from error
        return found.st_dev, found.st_ino

    def _let_go(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection, self._file = None, None
