"""How many guesses a name and an address have: after five wrong passwords each further one must wait, twice as long each time.

An attempt is written down before its password is checked and struck out when it was right, so that guesses that come at
once count as guesses that come one after the other.  Names that are no account are counted alike.
"""

import ipaddress
import math
import sqlite3

FREE = 5  # wrong passwords before the first wait
FIRST_WAIT_S = 30.0
LONGEST_WAIT_S = 900.0
# How long a wrong password counts: for a name longer, as many people share the address of a panel.
ACCOUNT_MEMORY_S = 3600.0
ADDRESS_MEMORY_S = 900.0
MOST_ROWS = 20_000  # of attempts that are remembered; beyond that nobody new may try

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


def network_of(address: str) -> str:
    """What counts as one address: an IPv4 address, or the 64 bits of an IPv6 network that one household may choose from."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(found, ipaddress.IPv6Address):
        return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
    return str(found)


def begin(database: sqlite3.Connection, account: str, address: str, now: float) -> int:
    """Write down an attempt, within the caller's transaction.

    Gives its number, or how long to wait as a negative number of seconds; an attempt that must wait is not counted.
    """
    database.execute("DELETE FROM attempts WHERE at < ?", (now - ACCOUNT_MEMORY_S,))
    wait_s = locked_s(database, account, address, now)
    if wait_s == 0 and database.execute("SELECT count(*) FROM attempts").fetchone()[0] >= MOST_ROWS:
        wait_s = int(LONGEST_WAIT_S)
    if wait_s > 0:
        return -wait_s
    row = database.execute("INSERT INTO attempts (account, address, at) VALUES (?, ?, ?)", (account, address, now))
    return int(row.lastrowid or 0)


def locked_s(database: sqlite3.Connection, account: str, address: str, now: float) -> int:
    """Whole seconds until the next attempt on an account from an address; 0 when it may be made now."""
    by_account = _wait(database, "account", account, now, ACCOUNT_MEMORY_S)
    return math.ceil(max(by_account, _wait(database, "address", address, now, ADDRESS_MEMORY_S)))


def _wait(database: sqlite3.Connection, column: str, value: str, now: float, memory_s: float) -> float:
    sql = f"SELECT count(*), max(at) FROM attempts WHERE {column} = ? AND at >= ?"
    wrong, last = database.execute(sql, (value, now - memory_s)).fetchone()
    if wrong < FREE:
        return 0.0
    delay_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(int(wrong) - FREE, 30))
    return max(0.0, min(float(last), now) + delay_s - now)


def forget(database: sqlite3.Connection, *, account: str = "", attempt: int = 0) -> int:
    """Strike out the attempts on an account, or one attempt; how many there were."""
    sql = "DELETE FROM attempts WHERE (? <> '' AND account = ?) OR attempt_id = ?"
    return database.execute(sql, (account, account, attempt)).rowcount
