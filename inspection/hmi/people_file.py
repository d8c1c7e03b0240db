"""The file of accounts, sessions, guesses and the audit, beside the record store; and what makes a name one account."""

import json
import os
import sqlite3
import unicodedata
from pathlib import Path

from inspection.errors import StoreError
from inspection.hmi import lockout
from inspection.hmi.passwords import NotTaken
from inspection.sqlite_file import Kind, SqliteFile
from inspection.types import utc_now

MIGRATIONS = (
    """
    CREATE TABLE accounts (
        key         TEXT PRIMARY KEY,
        name        TEXT NOT NULL,
        role        TEXT NOT NULL CHECK (role IN ('operator', 'reviewer', 'engineer')),
        hash        TEXT NOT NULL,
        must_change INTEGER NOT NULL,
        disabled    INTEGER NOT NULL DEFAULT 0,
        made_at     TEXT NOT NULL
    ) STRICT;
    CREATE TABLE sessions (
        token_sha256 TEXT PRIMARY KEY,
        account      TEXT NOT NULL REFERENCES accounts (key),
        csrf_token   TEXT NOT NULL,
        started      REAL NOT NULL,
        seen         REAL NOT NULL
    ) STRICT;
    CREATE INDEX sessions_by_account ON sessions (account);
    CREATE TABLE audit (
        audit_id INTEGER PRIMARY KEY AUTOINCREMENT,
        at       TEXT NOT NULL,
        who      TEXT NOT NULL,
        what     TEXT NOT NULL,
        details  TEXT NOT NULL
    ) STRICT;
    CREATE TRIGGER audit_keep BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit is append only'); END;
    CREATE TRIGGER audit_stay BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit is append only'); END;
    """
    + lockout.SCHEMA,
)
PEOPLE = Kind(
    "file of accounts",
    no_space="free space on that disk; nobody can log in until then, the line goes on",
    bad_text="use names without damaged characters",
    refused="the audit is never changed, and each name is one account",
)
MARK = 0x4C535045  # SQLite's application_id of these files: "LSPE"
BUSY_S = 10.0
LONGEST_NAME = 64  # characters
_JOINING = " .-_'"
_ALIKE = ("LATIN", "GREEK", "CYRILLIC")  # alphabets whose letters look alike


def people_path(store: Path) -> Path:
    """Where the accounts of a station lie whose record store is ``store``."""
    return store.with_name(store.name + ".people")


def name_key(name: str) -> str:
    """What makes two spellings of a name one account: compatibility forms, letter case and outer space do not count."""
    folded = unicodedata.normalize("NFKC", name[: 4 * LONGEST_NAME]).casefold()
    return unicodedata.normalize("NFKC", folded).strip()[:LONGEST_NAME]


def check_name(name: str) -> str:
    """The name as it is shown; UsageError for one that is none or looks like another."""
    shown = unicodedata.normalize("NFKC", name).strip()
    alphabets = {word for char in shown for word in _ALIKE if unicodedata.name(char, "").startswith(word)}
    wrong = (
        "it is empty" if not shown
        else f"it has more than {LONGEST_NAME} characters" if max(len(shown), len(shown.casefold())) > LONGEST_NAME
        else "it must begin with a letter" if not shown[0].isalpha()
        else "only letters, digits and . - _ ' and single spaces may be in it"
        if "  " in shown or not all(unicodedata.category(char)[0] in "LMN" or char in _JOINING for char in shown)
        else "it mixes alphabets whose letters look alike" if len(alphabets) > 1
        else ""
    )  # fmt: skip
    if wrong:
        raise NotTaken(
            f"the name {name[:LONGEST_NAME]!r} is not taken: {wrong}", fix="choose another name", word="name_refused"
        )
    return shown


def open_people(path: Path) -> SqliteFile:
    """The file, made when missing, for the eyes of its owner alone; StoreError when that cannot be."""
    if path.parent.is_dir() and not path.exists():
        try:
            path.touch(mode=0o600)  # before SQLite would make it readable to all
            if os.geteuid() == 0:  # an administrator makes the first account, the pages run as somebody else
                owner = path.parent.stat()
                os.chown(path, owner.st_uid, owner.st_gid)
        except OSError as error:
            raise StoreError(
                f"the file of accounts {path} cannot be made ({error.strerror})",
                fix="give the user that lineside runs as write permission on the folder",
            ) from error
    return SqliteFile(path, MIGRATIONS, PEOPLE, busy_s=BUSY_S, mark=MARK)


def put_in_audit(database: sqlite3.Connection, who: str, what: str, **details: object) -> None:
    """Append to the audit, within the caller's transaction."""
    row = (utc_now().isoformat(timespec="milliseconds"), who, what, json.dumps(details, default=str))
    database.execute("INSERT INTO audit (at, who, what, details) VALUES (?, ?, ?, ?)", row)
