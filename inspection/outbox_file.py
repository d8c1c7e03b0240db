"""What the outbox reads and remembers: the rows that wait in the record store, and how far each publisher has come.

The cursors lie in a file of their own beside the store, so that a publisher's writing never makes a part's record wait.
"""

import json
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from inspection.publishers import Message

BUSY_S = 5.0
MOST_BYTES = 4_000_000  # a batch ends here, so that a hundred records with thousands of findings fit into memory
_WAITING = """
    SELECT outbox.sequence, outbox.kind, outbox.record_id,
           CASE outbox.kind WHEN 'late' THEN late_results.json ELSE records.json END
    FROM outbox JOIN records ON records.record_id = outbox.record_id
    LEFT JOIN late_results ON late_results.record_id = outbox.record_id
    WHERE outbox.sequence > ? ORDER BY outbox.sequence LIMIT ?
"""


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last row that a publisher's receiver has confirmed, and the record it was about (empty: not known)."""

    sequence: int
    record_id: str = ""


class OutboxReader:
    """Reads the outbox of the store in ``path`` through a read-only connection; it never makes the station wait.

    Used by one thread.  Raises ``sqlite3.Error``.
    """

    def __init__(self, path: Path, *, station_id: str) -> None:
        self._station_id = station_id
        self._connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_S, isolation_level=None,
            check_same_thread=False,
        )  # fmt: skip

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._connection.close()

    def after(self, cursor: Cursor, limit: int) -> tuple[Message, ...]:
        """The next messages, oldest first, or the one gap that was torn behind ``cursor``, or none."""
        # One transaction sees one state of the file: rows that come or go in between would look like a gap.
        self._connection.execute("BEGIN")
        try:
            messages = self._messages(cursor.sequence, limit)
            newest = self.newest()
        finally:
            self._connection.execute("COMMIT")
        first = messages[0].sequence if messages else newest + 1
        if first > cursor.sequence + 1:
            return (self._gap(cursor.sequence + 1, first - 1),)
        return messages

    def newest(self) -> int:
        """The sequence of the last row that was ever put down, 0 before the first."""
        row = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
        return 0 if row is None else int(row[0])

    def before_oldest(self) -> Cursor:
        """Where a publisher starts that was never there before."""
        row = self._connection.execute("SELECT min(sequence) FROM outbox").fetchone()
        return Cursor(self.newest() if row[0] is None else int(row[0]) - 1)

    def fits(self, cursor: Cursor) -> bool:
        """Whether ``cursor`` was made on this store, and not on one that was here under its name before."""
        if cursor.sequence > self.newest():
            return False
        sql = "SELECT record_id FROM outbox WHERE sequence = ?"
        row = self._connection.execute(sql, (cursor.sequence,)).fetchone()
        return row is None or not cursor.record_id or row[0] == cursor.record_id

    def _messages(self, after: int, limit: int) -> tuple[Message, ...]:
        messages, size = [], 0
        for sequence, kind, record_id, text in self._connection.execute(_WAITING, (after, limit)):
            body = f'{{"record_id":{json.dumps(record_id)},"late":{text}}}' if kind == "late" else text
            messages.append(Message(sequence, kind, record_id, body))
            size += len(body)
            if size >= MOST_BYTES:
                break
        return tuple(messages)

    def _gap(self, first: int, last: int) -> Message:
        body = {"station_id": self._station_id, "first_sequence": first, "last_sequence": last}
        return Message(last, "gap", "", json.dumps(body, separators=(",", ":")))


class CursorFile:
    """The cursors of all publishers in one small SQLite file.  Used by one thread.  Raises ``sqlite3.Error``."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS cursors "
                "(publisher TEXT PRIMARY KEY, sequence INTEGER NOT NULL, record_id TEXT NOT NULL) STRICT"
            )
        except sqlite3.Error:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._connection.close()

    def read(self) -> dict[str, Cursor]:
        """The cursor of each publisher."""
        rows = self._connection.execute("SELECT publisher, sequence, record_id FROM cursors").fetchall()
        return {name: Cursor(sequence, record_id) for name, sequence, record_id in rows}

    def move(self, name: str, cursor: Cursor, *, durable: bool) -> None:
        """Remember ``cursor``: a crash of the program does not undo it, and with ``durable`` no power cut does."""
        self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        self._connection.execute(
            "INSERT INTO cursors VALUES (?, ?, ?) ON CONFLICT (publisher) "
            "DO UPDATE SET sequence = excluded.sequence, record_id = excluded.record_id",
            (name, cursor.sequence, cursor.record_id),
        )

    def forget_all_but(self, names: Iterable[str]) -> None:
        """Drop the cursors of publishers that are configured no more."""
        for gone in set(self.read()) - set(names):
            self._connection.execute("DELETE FROM cursors WHERE publisher = ?", (gone,))


def open_cursors(path: Path) -> tuple[CursorFile, bool]:
    """The cursor file, and whether a damaged one had to be put aside: then all that waits is sent again."""
    try:
        return CursorFile(path), False
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorname", "") not in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
            raise
    path.replace(path.with_name(path.name + ".damaged"))
    for beside in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + beside).unlink()
    return CursorFile(path), True
