"""Who may use the pages: accounts, log-ins and the audit, in one SQLite file beside the record store."""

import hashlib
import json
import logging
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from inspection.errors import InspectionError, StoreError, UsageError
from inspection.hmi import lockout
from inspection.hmi.passwords import Busy, NotTaken, Passwords, check_new, plain
from inspection.hmi.people_file import LONGEST_NAME, check_name, name_key, open_people, put_in_audit
from inspection.log import event
from inspection.sqlite_file import SqliteFile
from inspection.types import utc_now
from inspection.web.access import Role, Session, User, role_named

MOST_SESSIONS = 20  # at once for one account; beyond that the one unused for longest ends
MOST_AUDIT = 500  # entries a query gives at most
ABSOLUTE_S = 24 * 3600.0
IDLE_S = {Role.OPERATOR: 16 * 3600.0, Role.REVIEWER: 1800.0, Role.ENGINEER: 1800.0}
SEEN_EVERY_S = 60.0  # how exactly the last use of a session is kept: each is a write
OWN_PAGES = ("/password", "/logout")  # what is open before a first password was changed


class LogInRefused(InspectionError):
    """Name and password do not fit, or it must be waited: ``wait_s`` seconds, 0 when the password was checked.

    ``named`` is the address that must wait, where it is not the name.
    """

    def __init__(self, what: str, *, fix: str, wait_s: int = 0, word: str = "wrong", named: str = "") -> None:
        super().__init__(what, fix=fix)
        self.wait_s = wait_s
        self.word = word
        self.named = named


@dataclass(frozen=True, slots=True)
class Account:
    """A person who may log in.  ``must_change``: the password was given by another person."""

    name: str
    role: Role
    must_change: bool
    disabled: bool
    made_at: str


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Something that was done: ``at`` (UTC, ISO), by whom, what, and its details."""

    number: int
    at: str
    who: str
    what: str
    details: dict[str, object]


class Accounts:
    """The accounts in the file ``path`` (see ``people_path``), made when missing; its folder must exist.

    Any number of threads and programs may use it at once.  StoreError when the file cannot be read or written.  ``by`` is
    who does it, for the audit.  ``clock`` gives seconds since 1970: sessions outlive a restart of the computer.
    """

    def __init__(
        self, path: Path, *, clock: Callable[[], float] = time.time, passwords: Passwords | None = None
    ) -> None:
        self.path = path
        self.clock = clock
        self.passwords = passwords or Passwords()
        self._lock = threading.Lock()
        self._file = open_people(path)
        self._known_as = _on_disk(path)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()

    def _people(self) -> SqliteFile:
        """The file as it is under its name now: who puts it aside must not be answered from the one that is gone."""
        with self._lock:
            if _on_disk(self.path) != self._known_as:
                event("accounts.replaced", level=logging.WARNING, path=str(self.path))
                self._file.close()
                self._file = open_people(self.path)
                self._known_as = _on_disk(self.path)
            return self._file

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._people().transaction() as database:
            yield database

    # Accounts

    def all(self) -> tuple[Account, ...]:
        """Every account by name."""
        sql = "SELECT name, role, must_change, disabled, made_at FROM accounts ORDER BY key"
        return tuple(_account(row) for row in self._people().rows(sql))

    def find(self, name: str) -> Account | None:
        """The account of a name in any spelling; None when there is none."""
        sql = "SELECT name, role, must_change, disabled, made_at FROM accounts WHERE key = ?"
        rows = self._people().rows(sql, (name_key(name),))
        return _account(rows[0]) if rows else None

    def add(self, name: str, role: str, password: str, *, by: str, must_change: bool = True) -> Account:
        """Make an account; UsageError when the name is taken, in any spelling, or the password is too easy."""
        shown = check_name(name)
        wanted = _role(role)
        check_new(password, shown)
        hashed = self.passwords.hashed(password)
        made = Account(shown, wanted, must_change, False, utc_now().isoformat(timespec="seconds"))
        with self._changing() as database:
            taken = database.execute("SELECT name FROM accounts WHERE key = ?", (name_key(shown),)).fetchone()
            if taken:
                raise NotTaken(
                    f"there is an account {taken[0]!r} already", fix="choose another name", word="name_taken"
                )
            row = (name_key(shown), shown, role, hashed, int(must_change), 0, made.made_at)
            database.execute("INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            put_in_audit(database, by, "account added", name=shown, role=role)
        return made

    def set_password(self, name: str, password: str, *, by: str, must_change: bool) -> None:
        """Give an account another password, which ends its sessions; ``must_change`` when another person chose it."""
        account = self._known(name)
        check_new(password, account.name)
        hashed = self.passwords.hashed(password)
        with self._changing() as database:
            database.execute(
                "UPDATE accounts SET hash = ?, must_change = ? WHERE key = ?",
                (hashed, int(must_change), name_key(name)),
            )
            database.execute("DELETE FROM sessions WHERE account = ?", (name_key(name),))
            put_in_audit(database, by, "password changed", name=account.name)

    def change_own_password(self, name: str, old: str, new: str, *, address: str) -> None:
        """As ``set_password`` by the person, who must know the old one: NotTaken when not, LogInRefused after many tries."""
        if not self._attempt(name, old, address):
            self.audit(name, "password change refused", address=address)
            raise NotTaken("the old password is wrong", fix="type the password you logged in with", word="old_wrong")
        if plain(old) == plain(new):
            raise NotTaken("the new password is the old one", fix="choose another one", word="same_again")
        self.set_password(name, new, by=name, must_change=False)

    def set_disabled(self, name: str, disabled: bool, *, by: str) -> None:
        """Forbid an account to log in, which ends its sessions, or allow it again."""
        account = self._known(name)
        with self._changing() as database:
            database.execute("UPDATE accounts SET disabled = ? WHERE key = ?", (int(disabled), name_key(name)))
            _keep_an_engineer(database, account)
            database.execute("DELETE FROM sessions WHERE account = ?", (name_key(name),))
            put_in_audit(database, by, "account disabled" if disabled else "account enabled", name=account.name)

    def set_role(self, name: str, role: str, *, by: str) -> None:
        """Give an account another role, in force with its next page."""
        account, wanted = self._known(name), _role(role)
        with self._changing() as database:
            database.execute("UPDATE accounts SET role = ? WHERE key = ?", (role, name_key(name)))
            _keep_an_engineer(database, account)
            put_in_audit(
                database,
                by,
                "role changed",
                name=account.name,
                role=wanted.name.lower(),
                before=account.role.name.lower(),
            )

    def unlock(self, name: str, *, by: str) -> None:
        """Forget the wrong passwords tried on a name, and from the addresses that tried it; or from an address.

        The name need be no account, as such names are locked alike; UsageError when nobody tried it either.
        """
        if lockout.is_address(name):
            with self._changing() as database:
                lockout.unlock(database, "", lockout.network_of(name))
                put_in_audit(database, by, "address unlocked", address=lockout.network_of(name))
            return
        account = self.find(name)
        with self._changing() as database:
            if not lockout.unlock(database, name_key(name), "") and account is None:
                raise _no_account(name)
            put_in_audit(database, by, "account unlocked", name=account.name if account else name[:LONGEST_NAME])

    def locked(self) -> tuple[tuple[str, lockout.Wait], ...]:
        """The names, be they accounts or not, and the addresses that must wait at this moment."""
        with self._changing() as database:
            return lockout.locked_names(database, self.clock())

    def _known(self, name: str) -> Account:
        found = self.find(name)
        if found is None:
            raise _no_account(name)
        return found

    # Log-ins

    def log_in(self, name: str, password: str, *, address: str, replaces: str = "") -> str:
        """A new session's token (256 bits, random); LogInRefused without telling why, or how long to wait.

        ``replaces`` is the token that the browser showed before: it ends.
        """
        key = name_key(name)
        checked = self._attempt(name, password, address)
        token = secrets.token_urlsafe(32)
        with self._changing() as database:
            sql = "SELECT name, hash FROM accounts WHERE key = ? AND disabled = 0"
            row = database.execute(sql, (key,)).fetchone()
            # Not when the password was changed, or the account disabled, while the old one was being checked.
            good = bool(checked) and row is not None and row[1] == checked
            if good:
                self._end(database, replaces)
                self._begin(database, key, token)
                put_in_audit(database, row[0], "logged in", address=address)
            else:
                wait = lockout.locked(database, key, lockout.network_of(address), self.clock())
                note = {"locked": wait.locked, "locked_s": wait.wait_s} if wait else {}
                put_in_audit(database, name[:LONGEST_NAME], "log-in refused", address=address, **note)
        if not good:
            raise LogInRefused(
                "name and password do not fit, or the account is disabled",
                fix="type both again; an engineer can give a new password",
            )
        return token

    def _attempt(self, name: str, password: str, address: str) -> str:
        """The hash that the password fits; "" when it does not.  LogInRefused with the time to wait, Busy."""
        key, network = name_key(name), lockout.network_of(address)
        with self._changing() as database:
            number = lockout.begin(database, key, network, self.clock())
        if isinstance(number, lockout.Wait):
            raise _must_wait(number, network)
        rows = (
            self._people().rows("SELECT hash FROM accounts WHERE key = ?", (key,)) if len(name) <= LONGEST_NAME else []
        )
        stored = str(rows[0][0]) if rows else None
        try:
            right = self.passwords.right(password, stored)
        except Busy:
            with self._changing() as database:
                lockout.forget(database, attempt=number)
            raise
        if not right or stored is None:
            return ""
        with self._changing() as database:
            lockout.forget(database, account=key)
        return stored

    def _begin(self, database: sqlite3.Connection, key: str, token: str) -> None:
        now = self.clock()
        database.execute("DELETE FROM sessions WHERE started < ? OR started > ?", (now - ABSOLUTE_S, now + 3600))
        database.execute(
            """DELETE FROM sessions WHERE account = ? AND token_sha256 NOT IN
               (SELECT token_sha256 FROM sessions WHERE account = ? ORDER BY seen DESC LIMIT ?)""",
            (key, key, MOST_SESSIONS - 1),
        )
        row = (_digest(token), key, secrets.token_urlsafe(24), now, now)
        database.execute("INSERT INTO sessions VALUES (?, ?, ?, ?, ?)", row)

    def session(self, token: str, *, used: bool = True) -> Session | None:
        """The session of a token; None when there is none, it was ended, or unused for too long.

        ``used``: a person does something; what a page asks by itself keeps no session open.
        """
        if not 0 < len(token) <= 100:
            return None
        sql = """SELECT name, role, must_change, disabled, csrf_token, started, seen
                 FROM sessions JOIN accounts ON accounts.key = sessions.account WHERE token_sha256 = ?"""
        rows = self._people().rows(sql, (_digest(token),))
        if not rows:
            return None
        name, role, must_change, disabled, csrf_token, started, seen = rows[0]
        user, now = User(name, role_named(role)), self.clock()
        # A clock that was set back must not make a session last longer: it then counts as over.
        over = now - started > ABSOLUTE_S or now - seen > IDLE_S[user.role] or now < started - SEEN_EVERY_S
        if disabled or over:
            return None
        if used and abs(now - seen) >= SEEN_EVERY_S:
            self._note_use(token, now)
        return Session(user, csrf_token, confined_to=OWN_PAGES if must_change else ())

    def _note_use(self, token: str, now: float) -> None:
        try:
            with self._changing() as database:
                database.execute("UPDATE sessions SET seen = ? WHERE token_sha256 = ?", (now, _digest(token)))
        except StoreError as error:  # a full disk must not close the pages at once: the session just ends earlier
            event("session.unnoted", level=logging.WARNING, why=error.what)

    def log_out(self, token: str) -> None:
        """End a session; one that has ended already is no error."""
        with self._changing() as database:
            self._end(database, token)

    def _end(self, database: sqlite3.Connection, token: str) -> None:
        database.execute("DELETE FROM sessions WHERE token_sha256 = ?", (_digest(token),))

    # Audit

    def audit(self, who: str, what: str, **details: object) -> None:
        """Append to the audit; it is on the disk when this returns."""
        with self._changing() as database:
            put_in_audit(database, who, what, **details)

    def audit_entries(self, *, before: int = 2**63 - 1, limit: int = 50) -> tuple[AuditEntry, ...]:
        """Entries with a number below ``before``, newest first."""
        sql = "SELECT audit_id, at, who, what, details FROM audit WHERE audit_id < ? ORDER BY audit_id DESC LIMIT ?"
        rows = self._people().rows(sql, (before, max(0, min(limit, MOST_AUDIT))))
        return tuple(AuditEntry(number, at, who, what, json.loads(details)) for number, at, who, what, details in rows)


def _on_disk(path: Path) -> tuple[int, int]:
    """What tells one file from another under the same name; (0, 0) for none."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def _keep_an_engineer(database: sqlite3.Connection, changed: Account) -> None:
    """NotTaken, which undoes the caller's transaction, when the last one who can give accounts was taken away."""
    left = database.execute("SELECT 1 FROM accounts WHERE role = 'engineer' AND disabled = 0").fetchone()
    if changed.role is Role.ENGINEER and not changed.disabled and not left:
        raise NotTaken(f"{changed.name} is the last engineer", fix="make another engineer first", word="last_engineer")


def _no_account(name: str) -> UsageError:
    return UsageError(f"there is no account {name[:LONGEST_NAME]!r}", fix="`lineside account list` names them")


def _must_wait(wait: lockout.Wait, network: str) -> LogInRefused:
    what = {"account": "for this name", "address": f"from the address {network}", "all": "for too many names"}
    named = network if wait.locked == "address" else ""
    return LogInRefused(
        f"too many wrong passwords {what[wait.locked]}: wait {wait.wait_s} seconds",
        fix=f"wait, or let an engineer run `lineside account unlock STATION.toml {named or 'NAME'}` at the station",
        wait_s=wait.wait_s, word=f"wait_{wait.locked}", named=named,
    )  # fmt: skip


def _account(row: tuple[object, ...]) -> Account:
    name, role, must_change, disabled, made_at = row
    return Account(str(name), role_named(str(role)), bool(must_change), bool(disabled), str(made_at))


def _role(name: str) -> Role:
    try:
        return role_named(name)
    except ValueError as error:
        raise UsageError(str(error), fix="choose one of these roles") from error


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
