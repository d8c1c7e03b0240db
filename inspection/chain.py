"""The hash chain of a file: each row that is added gets an entry that also holds the SHA-256 of every entry before it.

So a row that is changed, taken out, put in between or moved later on no longer fits, and neither does any entry after
it.  Whoever can write the file can make a whole new chain: against that the ends of the chains are signed (``notary``).

    entry 1: link = SHA-256(32 zero bytes + [1,"record",record_id,SHA-256 of the row])
    entry n: link = SHA-256(link of n-1   + [n,kind,subject,SHA-256 of the row])

``[...]`` and the row itself are canonical JSON (RFC 8785) in UTF-8.  Entries are made in the transaction of their row.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256

from inspection.sqlite_file import SqliteFile

Content = Sequence[str | int]

CHAIN_SQL = """
    CREATE TABLE chain (
        sequence       INTEGER PRIMARY KEY,
        kind           TEXT NOT NULL,
        subject        TEXT NOT NULL,
        content_sha256 BLOB NOT NULL,
        link           BLOB NOT NULL
    ) STRICT;
    CREATE TRIGGER chain_keep BEFORE UPDATE ON chain BEGIN SELECT RAISE(ABORT, 'the chain is append only'); END;
    CREATE TRIGGER chain_stay BEFORE DELETE ON chain BEGIN SELECT RAISE(ABORT, 'the chain is append only'); END;
    CREATE TRIGGER chain_next BEFORE INSERT ON chain
        WHEN NEW.sequence IS NOT (SELECT coalesce(max(sequence), 0) + 1 FROM chain)
        BEGIN SELECT RAISE(ABORT, 'the chain is append only'); END;
"""
FIRST_LINK = bytes(32)  # what stands before entry 1
BEGIN = "begin"  # kind of the entry that says how many rows a table had before it was chained
_AS_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_INSERT = "INSERT INTO chain VALUES (?, ?, ?, ?, ?)"


def canonical(values: Content) -> bytes:
    """RFC 8785 canonical JSON, in UTF-8, of texts and whole numbers below 2**53."""
    return _AS_JSON(values).encode()


def link_of(before: bytes, sequence: int, kind: str, subject: str, content_sha256: bytes) -> bytes:
    """The link of an entry after the one whose link is ``before``."""
    return sha256(before + canonical([sequence, kind, subject, content_sha256.hex()])).digest()


def head(database: sqlite3.Connection) -> tuple[int, bytes]:
    """Sequence and link of the newest entry; (0, 32 zero bytes) before the first."""
    row = database.execute("SELECT sequence, link FROM chain ORDER BY sequence DESC LIMIT 1").fetchone()
    return (0, FIRST_LINK) if row is None else (int(row[0]), bytes(row[1]))


def append(database: sqlite3.Connection, kind: str, subject: str, content: Content) -> None:
    """Add the entry of a row with the columns ``content``, within the transaction (BEGIN IMMEDIATE) that adds the row."""
    before, link = head(database)
    digest = sha256(canonical(content)).digest()
    link = link_of(link, before + 1, kind, subject, digest)
    database.execute(_INSERT, (before + 1, kind, subject, digest, link))


def append_many(database: sqlite3.Connection, rows: Iterable[tuple[str, str, Content]]) -> None:
    """``append`` for many rows (kind, subject, content) in a transaction; nothing else may be appended meanwhile."""
    database.executemany(_INSERT, _entries(*head(database), rows))


def _entries(
    sequence: int, link: bytes, rows: Iterable[tuple[str, str, Content]]
) -> Iterator[tuple[int, str, str, bytes, bytes]]:
    for kind, subject, content in rows:
        sequence += 1
        digest = sha256(canonical(content)).digest()
        link = link_of(link, sequence, kind, subject, digest)
        yield sequence, kind, subject, digest, link


def begin(file: SqliteFile, *tables: str) -> None:
    """Where a file has rows from before it had a chain: note how many, as the chain's first entries.

    An entry of kind ``begin`` for each such table, with the table as subject and [rows, last rowid] as content: what those
    rows say is not covered, that none joins them is.
    """
    if file.rows("SELECT 1 FROM chain LIMIT 1"):
        return
    with file.transaction() as database:
        if head(database)[0]:  # another program was faster
            return
        for table in tables:
            rows, last = database.execute(f"SELECT count(*), coalesce(max(rowid), 0) FROM {table}").fetchone()
            if rows:
                append(database, BEGIN, table, [int(rows), int(last)])
