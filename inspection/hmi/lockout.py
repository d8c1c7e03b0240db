"""How many guesses a name and an address have: after five wrong passwords each further one must wait, twice as long each time.

An attempt is written down before its password is checked and struck out when it was right, so that guesses that come at
once count as guesses that come one after the other.  Names that are no account are counted alike.
"""

import ipaddress
import math
import re
import sqlite3
from dataclasses import dataclass
from typing import Literal

FREE = 5  # wrong passwords before the first wait
FIRST_WAIT_S = 30.0
LONGEST_WAIT_S = 900.0
# How long a wrong password counts: for a name longer, as many people share the address of a panel.
ACCOUNT_MEMORY_S = 3600.0
ADDRESS_MEMORY_S = 900.0
SLACK_S = 60.0  # an attempt that lies farther in the future is from before the clock was set back: it counts no more
_UNKNOWN = "unknown"
MOST_ROWS = 20_000  # of attempts that are remembered; beyond that nobody new may try


@dataclass(frozen=True, slots=True)
class Wait:
    """How many seconds the next attempt must wait, and what is locked: the name, the address, or the whole log-in."""

    wait_s: int
    locked: Literal["account", "address", "all"]


SCHEMA = """
    CREATE TABLE attempts (
        attempt_id INTEGER PRIMARY KEY AUTOINCREMENT,
        account    TEXT NOT NULL,
        address    TEXT NOT NULL,
        at         REAL NOT NULL
    ) STRICT;
    CREATE INDEX attempts_by_account ON attempts (account, at);
    CREATE INDEX attempts_by_address ON attempts (address, at);
"""


def is_address(text: str) -> bool:
    """Whether a text names an address or a network; no account's name does."""
    return network_of(text) != _UNKNOWN


def network_of(address: str) -> str:
    """What counts as one address: an IPv4 address, or the 64 bits of an IPv6 network that one household may choose from.

    What it gives is its own network.
    """
    try:
        found = ipaddress.ip_address(re.split("[%/]", address, maxsplit=1)[0])
    except ValueError:
        return _UNKNOWN
    if isinstance(found, ipaddress.IPv6Address):
        return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
    return str(found)


def begin(database: sqlite3.Connection, account: str, address: str, now: float) -> int | Wait:
    """Write down an attempt, within the caller's transaction.

    Gives its number, or how long to wait; an attempt that must wait is not counted.
    """
    database.execute("DELETE FROM attempts WHERE at < ? OR at > ?", (now - ACCOUNT_MEMORY_S, now + SLACK_S))
    if (wait := locked(database, account, address, now)) is not None:
        return wait
    if database.execute("SELECT count(*) FROM attempts").fetchone()[0] >= MOST_ROWS:
        return Wait(int(LONGEST_WAIT_S), "all")
    row = database.execute("INSERT INTO attempts (account, address, at) VALUES (?, ?, ?)", (account, address, now))
    return int(row.lastrowid or 0)


def locked(database: sqlite3.Connection, account: str, address: str, now: float) -> Wait | None:
    """How long the next attempt on an account from an address must wait; None when it may be made now."""
    by_account = _wait(database, "account", account, now, ACCOUNT_MEMORY_S)
    by_address = _wait(database, "address", address, now, ADDRESS_MEMORY_S)
    if max(by_account, by_address) == 0:
        return None
    if by_account >= by_address:
        return Wait(math.ceil(by_account), "account")
    return Wait(math.ceil(by_address), "address")


def locked_names(database: sqlite3.Connection, now: float) -> tuple[tuple[str, Wait], ...]:
    """Every name and every address that must wait at this moment."""
    found: list[tuple[str, Wait]] = []
    columns: dict[Literal["account", "address"], float] = {"account": ACCOUNT_MEMORY_S, "address": ADDRESS_MEMORY_S}
    for column, memory_s in columns.items():
        sql = f"""SELECT {column} FROM attempts WHERE at BETWEEN ? AND ?
                  GROUP BY {column} HAVING count(*) >= ? ORDER BY {column}"""
        for (value,) in database.execute(sql, (now - memory_s, now + SLACK_S, FREE)).fetchall():
            if (left_s := _wait(database, column, value, now, memory_s)) > 0:
                found.append((str(value), Wait(math.ceil(left_s), column)))
    return tuple(found)


def _wait(database: sqlite3.Connection, column: str, value: str, now: float, memory_s: float) -> float:
    sql = f"SELECT count(*), max(at) FROM attempts WHERE {column} = ? AND at BETWEEN ? AND ?"
    wrong, last = database.execute(sql, (value, now - memory_s, now + SLACK_S)).fetchone()
    if wrong < FREE:
        return 0.0
    delay_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(int(wrong) - FREE, 30))
    return max(0.0, min(float(last), now) + delay_s - now)


def forget(database: sqlite3.Connection, *, account: str = "", attempt: int = 0) -> int:
    """Strike out the attempts on an account, or one attempt; how many there were."""
    sql = "DELETE FROM attempts WHERE (? <> '' AND account = ?) OR attempt_id = ?"
    return database.execute(sql, (account, account, attempt)).rowcount


def unlock(database: sqlite3.Connection, account: str, address: str) -> int:
    """Strike out the attempts on an account and from every address that tried it, and from an address; how many."""
    sql = """DELETE FROM attempts WHERE account = ? OR address = ?
             OR address IN (SELECT address FROM attempts WHERE account = ?)"""
    return database.execute(sql, (account, address, account)).rowcount
