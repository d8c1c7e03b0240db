"""STORE.evidence: which picture files were written, what was in them, and what became of them.

    pictures    a file, entered right after it was written (or later, and then vouched for from that time on only)
    compressed  its PNG was replaced by a JPEG
    deleted     a tombstone: the files of a record that retention deleted, by which rule, signed where there is a key

These three are append only and links of one chain (``chain``).  Two working lists may change and are not chained:
``present`` is what lies on the disk now, ``unfinished`` are the steps that a kill may have left open.  The evidence thread
of the station and the retention process write here; the station's own thread never does.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from inspection.chain import CHAIN_SQL, append
from inspection.sqlite_file import Kind, SqliteFile, Value

MIGRATIONS = (
    """
    CREATE TABLE pictures (
        record_id     TEXT NOT NULL,
        file          TEXT NOT NULL UNIQUE,
        sha256        TEXT NOT NULL,
        bytes         INTEGER NOT NULL,
        written_at    TEXT NOT NULL,
        verdict       TEXT NOT NULL,
        entered_later TEXT NOT NULL
    ) STRICT;
    CREATE INDEX pictures_by_record ON pictures (record_id);
    CREATE TABLE compressed (
        record_id  TEXT NOT NULL,
        file       TEXT NOT NULL UNIQUE REFERENCES pictures (file),
        sha256     TEXT NOT NULL,
        new_file   TEXT NOT NULL UNIQUE,
        new_sha256 TEXT NOT NULL,
        new_bytes  INTEGER NOT NULL,
        rule       TEXT NOT NULL,
        at         TEXT NOT NULL,
        version    TEXT NOT NULL
    ) STRICT;
    CREATE INDEX compressed_by_record ON compressed (record_id);
    CREATE TABLE deleted (
        record_id TEXT NOT NULL,
        files     TEXT NOT NULL,
        rule      TEXT NOT NULL,
        at        TEXT NOT NULL,
        version   TEXT NOT NULL,
        key       TEXT NOT NULL,
        signature TEXT NOT NULL
    ) STRICT;
    CREATE INDEX deleted_by_record ON deleted (record_id);
    CREATE TRIGGER pictures_keep BEFORE UPDATE ON pictures BEGIN SELECT RAISE(ABORT, 'the ledger is append only'); END;
    CREATE TRIGGER pictures_stay BEFORE DELETE ON pictures BEGIN SELECT RAISE(ABORT, 'the ledger is append only'); END;
    CREATE TRIGGER compressed_keep BEFORE UPDATE ON compressed BEGIN SELECT RAISE(ABORT, 'the ledger is append only'); END;
    CREATE TRIGGER compressed_stay BEFORE DELETE ON compressed BEGIN SELECT RAISE(ABORT, 'the ledger is append only'); END;
    CREATE TRIGGER deleted_keep BEFORE UPDATE ON deleted BEGIN SELECT RAISE(ABORT, 'the ledger is append only'); END;
    CREATE TRIGGER deleted_stay BEFORE DELETE ON deleted BEGIN SELECT RAISE(ABORT, 'the ledger is append only'); END;

    CREATE TABLE present (
        record_id TEXT PRIMARY KEY,
        verdict   TEXT NOT NULL,
        since     TEXT NOT NULL,
        bytes     INTEGER NOT NULL,
        lossless  INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX present_by_age ON present (verdict, since, record_id);
    CREATE INDEX present_lossless ON present (verdict, since, record_id) WHERE lossless = 1;
    CREATE INDEX present_bytes ON present (bytes);
    CREATE TABLE unfinished (
        file   TEXT PRIMARY KEY,
        step   TEXT NOT NULL CHECK (step IN ('make', 'remove')),
        sha256 TEXT NOT NULL
    ) STRICT;
    """
    + CHAIN_SQL,
)
LEDGER = Kind(
    "ledger of pictures",
    no_space="free space on that disk; pictures are entered later",
    bad_text="only plain names are entered",
    refused="its rows are never changed",
)
MARK = 0x4C534556  # SQLite's application_id of these files: "LSEV"
BUSY_S = 10.0
COLUMNS = {
    "picture": ("pictures", "record_id, file, sha256, bytes, written_at, verdict, entered_later"),
    "compressed": (
        "compressed",
        "record_id, file, sha256, new_file, new_sha256, new_bytes, rule, at, version",
    ),
    "deleted": ("deleted", "record_id, files, rule, at, version, key, signature"),
}
# Of each kind of link: a query that gives its subject, then the content as it was chained, in the order of the chain.
CONTENTS = {
    kind: f"SELECT record_id, {columns} FROM {table} ORDER BY rowid" for kind, (table, columns) in COLUMNS.items()
}
_OF = {
    kind: f"SELECT {columns} FROM {table} WHERE record_id = ? ORDER BY rowid"
    for kind, (table, columns) in COLUMNS.items()
}


class Rows(Protocol):
    """The ledger, whether opened for writing or for reading alone."""

    def rows(self, sql: str, values: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query; StoreError when the file cannot be read."""
        ...


@dataclass(frozen=True, slots=True)
class Picture:
    """A file as it was written; ``file`` is relative to the evidence folder, ``entered_later`` "" or a time (ISO, UTC)."""

    record_id: str
    file: str
    sha256: str
    bytes: int
    written_at: str
    verdict: str
    entered_later: str = ""


@dataclass(frozen=True, slots=True)
class Compressed:
    """A PNG that was replaced by a JPEG, by which rule, when (ISO, UTC), by which version of the program."""

    record_id: str
    file: str
    sha256: str
    new_file: str
    new_sha256: str
    new_bytes: int
    rule: str
    at: str
    version: str


@dataclass(frozen=True, slots=True)
class Tombstone:
    """Files of a record that were deleted; ``files`` is JSON [[file, sha256], ...], ``key`` and ``signature`` "" unsigned."""

    record_id: str
    files: str
    rule: str
    at: str
    version: str
    key: str = ""
    signature: str = ""

    @property
    def named(self) -> tuple[tuple[str, str], ...]:
        """The files with their SHA-256."""
        return tuple((file, digest) for file, digest in json.loads(self.files))


@dataclass(frozen=True, slots=True)
class Present:
    """What lies on the disk of one record: bytes of all its files; ``since`` is ISO, UTC."""

    record_id: str
    verdict: str
    since: str
    bytes: int
    lossless: bool


def ledger_path(store: Path) -> Path:
    """Where the evidence ledger of a record store lies."""
    return store.with_name(store.name + ".evidence")


def _values(row: Any) -> tuple[str | int, ...]:
    return tuple(getattr(row, name) for name in row.__slots__)


class EvidenceLedger:
    """The ledger in the file ``path``, made when missing; its folder must exist.

    Used by any number of threads and programs.  Every method raises StoreError when the file cannot be read or written;
    writes are on the disk when they return.  ``kind`` says in whose words.
    """

    def __init__(self, path: Path, *, kind: Kind = LEDGER, busy_s: float = BUSY_S) -> None:
        self.path = path
        self._file = SqliteFile(path, MIGRATIONS, kind, busy_s=busy_s, mark=MARK)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()

    def rows(self, sql: str, values: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        return self._file.rows(sql, values)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All writes within it reach the disk together, or none does."""
        with self._file.transaction() as database:
            yield database

    # ---- the station's side

    def enter(self, pictures: Sequence[Picture]) -> int:
        """Enter files in one transaction; how many were new.  A file that has a row already keeps that one."""
        new = 0
        with self.transaction() as database:
            for picture in pictures:
                new += _enter(database, picture)
        return new

    def known(self, folder: str) -> set[str]:
        """The files of one folder DATE/LOT that have a row."""
        sql = "SELECT file FROM pictures WHERE file > ? AND file < ?"
        return {str(row[0]) for row in self.rows(sql, (f"{folder}/", f"{folder}0"))}  # "0" follows "/"

    # ---- the side of retention

    def begin_making(self, files: Sequence[str]) -> None:
        """Put down which JPEGs are about to be made: whatever lies there after a kill is ours, and unfinished."""
        with self.transaction() as database:
            database.executemany(
                "INSERT OR REPLACE INTO unfinished VALUES (?, 'make', '')", [(file,) for file in files]
            )

    def put_down(self, compressed: Sequence[Compressed], tombstones: Sequence[Tombstone]) -> None:
        """Together: JPEGs that stand in place of their PNGs, and what is deleted.  The old files are to be removed now."""
        with self.transaction() as database:
            for row in compressed:
                _insert(database, "compressed", row)
                database.execute("DELETE FROM unfinished WHERE file = ?", (row.new_file,))
                _to_remove(database, row.record_id, row.file, row.sha256)
                database.execute(
                    "UPDATE present SET bytes = bytes + ?, lossless = 0 WHERE record_id = ?",
                    (row.new_bytes, row.record_id),
                )
            for tombstone in tombstones:
                _insert(database, "deleted", tombstone)
                for file, digest in tombstone.named:
                    _to_remove(database, tombstone.record_id, file, digest)
                database.execute("DELETE FROM present WHERE record_id = ? AND bytes <= 0", (tombstone.record_id,))

    def finished(self, files: Sequence[str]) -> None:
        """These files are what the ledger says."""
        with self.transaction() as database:
            database.executemany("DELETE FROM unfinished WHERE file = ?", [(file,) for file in files])


def unfinished(ledger: Rows, limit: int, *, after: str = "") -> list[tuple[str, str, str]]:
    """Steps that were left open, of files behind ``after``: file, "make" or "remove", SHA-256 of what is to be removed."""
    sql = "SELECT file, step, sha256 FROM unfinished WHERE file > ? ORDER BY file LIMIT ?"
    rows = ledger.rows(sql, (after, limit))
    return [(str(file), str(step), str(digest)) for file, step, digest in rows]


def total_bytes(ledger: Rows) -> int:
    """Bytes of all pictures on the disk by the ledger; those whose removal is still open lie there too."""
    sql = """SELECT bytes FROM present
             UNION ALL SELECT bytes FROM unfinished JOIN pictures USING (file) WHERE step = 'remove'
             UNION ALL SELECT new_bytes FROM unfinished JOIN compressed ON new_file = unfinished.file WHERE step = 'remove'"""
    return sum(int(row[0]) for row in ledger.rows(f"SELECT coalesce(sum(bytes), 0) FROM ({sql})"))


def present(
    ledger: Rows, verdict: str, before: str, *, after: tuple[str, str] = ("", ""), limit: int, lossless: bool = False
) -> list[Present]:
    """Records of a verdict with pictures older than ``before``, oldest first, behind ``after`` (since, record_id).

    With ``lossless`` only those that still have a lossless picture.
    """
    sql = f"""SELECT record_id, verdict, since, bytes, lossless FROM present
              WHERE verdict = ? AND since < ? AND (since, record_id) > (?, ?) {"AND lossless = 1" if lossless else ""}
              ORDER BY since, record_id LIMIT ?"""
    rows = ledger.rows(sql, (verdict, before, *after, limit))
    return [Present(name, verdict, since, size, bool(whole)) for name, verdict, since, size, whole in rows]


def due_files(ledger: Rows, after: int, limit: int) -> tuple[int, list[tuple[str, str, int]]]:
    """The files that should lie on the disk of ``limit`` records behind row ``after``: record, file, bytes.

    With the last of these rows, 0 when there are no more records.
    """
    rows = ledger.rows("SELECT rowid FROM present WHERE rowid > ? ORDER BY rowid LIMIT ?", (after, limit))
    last = int(rows[-1][0]) if rows else 0
    within = "present CROSS JOIN {0} USING (record_id) {1} WHERE present.rowid > ? AND present.rowid <= ?"
    files = f"""SELECT present.record_id, coalesce(compressed.new_file, pictures.file),
                coalesce(compressed.new_bytes, pictures.bytes)
                FROM {within.format("pictures", "LEFT JOIN compressed ON compressed.file = pictures.file")}"""
    graves = f"SELECT {COLUMNS['deleted'][1]} FROM {within.format('deleted', '')}"
    buried = {file for row in ledger.rows(graves, (after, last)) for file, _ in Tombstone(*row).named}
    found = [(str(name), str(file), int(size)) for name, file, size in ledger.rows(files, (after, last))]
    return last, [one for one in found if one[1] not in buried]


def pictures_of(ledger: Rows, record_id: str) -> list[Picture]:
    """What was written of a record, in the order it was entered."""
    return [Picture(*row) for row in ledger.rows(_OF["picture"], (record_id,))]


def compressed_of(ledger: Rows, record_id: str) -> dict[str, Compressed]:
    """What was compressed of a record, by the PNG's name."""
    return {str(row[1]): Compressed(*row) for row in ledger.rows(_OF["compressed"], (record_id,))}


def deleted_of(ledger: Rows, record_id: str) -> list[Tombstone]:
    """The tombstones of a record, oldest first."""
    return [Tombstone(*row) for row in ledger.rows(_OF["deleted"], (record_id,))]


def _insert(database: sqlite3.Connection, kind: str, row: Any) -> None:
    """A chained row; its content is all its columns."""
    values = _values(row)
    table, columns = COLUMNS[kind]
    database.execute(f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(values))})", values)
    append(database, kind, row.record_id, values)


def _enter(database: sqlite3.Connection, picture: Picture) -> int:
    if database.execute("SELECT 1 FROM pictures WHERE file = ?", (picture.file,)).fetchone() is not None:
        return 0
    _insert(database, "picture", picture)
    database.execute(
        """INSERT INTO present VALUES (?, ?, ?, ?, 1)
           ON CONFLICT (record_id) DO UPDATE SET bytes = bytes + excluded.bytes, lossless = 1""",
        (picture.record_id, picture.verdict, picture.written_at, picture.bytes),
    )
    return 1


def _to_remove(database: sqlite3.Connection, record_id: str, file: str, digest: str) -> None:
    """A file that goes: its bytes are not present any more, and the step is open until it is gone."""
    sizes = "SELECT bytes FROM pictures WHERE file = ?1 UNION ALL SELECT new_bytes FROM compressed WHERE new_file = ?1"
    size = int(database.execute(sizes, (file,)).fetchone()[0])
    database.execute("UPDATE present SET bytes = bytes - ? WHERE record_id = ?", (size, record_id))
    database.execute("INSERT OR REPLACE INTO unfinished VALUES (?, 'remove', ?)", (file, digest))
