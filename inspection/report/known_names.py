"""What a store holds, for who asked for a span without a record: its times, and whether the names are known at all."""

import sqlite3

from inspection.errors import UsageError
from inspection.report.contents import Span

_MOST = 10  # names in a sentence
_NAMED = (("lot", "lot"), ("serial", "serial"), ("recipe_id", "recipe"))  # column and field of a span, option


def what_it_holds(database: sqlite3.Connection, span: Span) -> tuple[str, str] | None:
    """When its earliest and its latest record were judged, ISO 8601; None where it holds none.

    UsageError when no record at all has the lot, serial or recipe of the span: a slip of the pen, not a quiet time.
    """
    first, last = database.execute("SELECT min(judged_at), max(judged_at) FROM records").fetchone()
    for column, option in _NAMED:
        name = getattr(span, column)
        if name and not database.execute(f"SELECT 1 FROM records WHERE {column} = ? LIMIT 1", (name,)).fetchone():
            raise UsageError(
                f"there is no record of the {option} {_plain(name)}", fix=_fix(database, column, option, first, last)
            )
    return None if first is None else (str(first), str(last))


def _fix(database: sqlite3.Connection, column: str, option: str, first: str | None, last: str | None) -> str:
    if first is None:
        return "the record store is empty: is this the right station?"
    holds = f"the store holds records from {first} to {last}"
    if column != "recipe_id":
        return f"give --{option} as the controller named it; {holds}"
    sql = "SELECT DISTINCT recipe_id FROM records ORDER BY recipe_id LIMIT ?"
    known = [_plain(str(row[0])) for row in database.execute(sql, (_MOST,)) if row[0]]
    return f"give one of {', '.join(known) or 'none'}; {holds}"


def _plain(text: str) -> str:
    """Names come from outside: nothing in them may move the terminal's cursor."""
    return "".join(char if char.isprintable() else "?" for char in text[:200])
