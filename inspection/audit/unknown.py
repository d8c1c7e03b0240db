"""Picture files in the evidence folder that the ledger does not know: nothing vouches for them, nothing manages them."""

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from inspection.audit.files import UNREADABLE, open_snapshot
from inspection.audit.findings import Finding, Findings, Unknown
from inspection.evidence_entries import lot_folders

YOUNG_S = 60.0  # the station writes a picture first and enters it then
_AT_ONCE = 500
_PICTURE = re.compile(r"[^.].*\.(?:png|jpg)", re.DOTALL | re.IGNORECASE)
_KNOWN = """SELECT file FROM pictures WHERE file IN ({0}) UNION ALL SELECT new_file FROM compressed WHERE new_file IN ({0})
            UNION ALL SELECT file FROM unfinished WHERE file IN ({0})"""
_EVIDENCE = "CASE WHEN json_valid({0}.json) THEN json_extract({0}.json, '$.evidence') END"
_NAMES = f"""SELECT record_id, {_EVIDENCE.format("records")}, {_EVIDENCE.format("late_results")}
             FROM records LEFT JOIN late_results USING (record_id) WHERE record_id IN ({{0}})"""
_ENTERED = "SELECT record_id FROM pictures WHERE record_id IN ({0}) AND entered_later = ''"
Ask = Callable[[str, Sequence[str]], list[tuple[Any, ...]]]


def unknown_files(
    folder: Path, ask: Ask, closed: Callable[[Path], object] = lambda folder: None
) -> Iterator[list[str]]:
    """The files DATE/LOT/NAME.png or .jpg below ``folder`` that the ledger behind ``ask`` does not know, a few at a time.

    Those of the last minute are left out.  ``ask`` answers a query by the ledger as it is at that moment: it is asked
    after the files were seen, so that what is entered meanwhile is known.  ``closed`` is told of folders that cannot be read.
    """
    for lot in lot_folders(folder, closed):
        names = _pictures(lot, closed)
        while some := [f"{lot.parent.name}/{lot.name}/{name}" for name in islice(names, _AT_ONCE)]:
            known = {row[0] for row in ask(_KNOWN.format(_marks(some)), some)}
            yield [file for file in some if file not in known]


def check_unknown(store: Path, ledger: Path, folder: Path) -> tuple[Unknown, Findings, Unknown]:
    """Count them for the audit.  Those under the name of a record, where there is a ledger with pictures, are findings,
    but for those that a start of the station enters: a record names them, and none was entered with it.

    Last the folders that cannot be read.  Where ledger or store cannot be read that is found elsewhere.
    """
    unknown, findings, closed = Unknown(), Findings(), list[str]()
    try:
        ledgered = bool(_asked(ledger, "SELECT 1 FROM pictures LIMIT 1", ()))
        for names in unknown_files(
            folder,
            lambda sql, values: _asked(ledger, sql, values) if ledgered else [],
            lambda one: closed.append(str(one)),
        ):
            unknown = unknown.with_more(names)
            for file, record_id in _under_records(store, ledger, names) if ledgered else ():
                what = f"picture {file}: the ledger does not know it, though it has the name of a record"
                findings.add(Finding("picture", what, record_id=record_id))
    except UNREADABLE:
        pass  # the audit of that file names the damage
    return unknown, findings, Unknown().with_more(closed)


def _asked(path: Path, sql: str, values: Sequence[str]) -> list[tuple[Any, ...]]:
    if not path.exists():
        return []
    with closing(open_snapshot(path)) as database:
        if database.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone() is None:
            return []  # made this moment
        return database.execute(sql, values).fetchall()


def _under_records(store: Path, ledger: Path, files: Sequence[str]) -> list[tuple[str, str]]:
    """Those of the files that bear the id of a record of the store and do not wait to be entered, with that id."""
    ids = {file: file.rpartition("/")[2].partition("_")[0] for file in files}
    some = [*ids.values()]
    named = {row[0]: row[1:] for row in _asked(store, _NAMES.format(_marks(some)), some)}
    complete = {row[0] for row in _asked(ledger, _ENTERED.format(_marks(some)), some)}
    return [
        (file, record_id)
        for file, record_id in sorted(ids.items())
        if record_id in named and (record_id in complete or file.partition("_")[0] not in named[record_id])
    ]


def _marks(values: Sequence[str]) -> str:
    return ",".join(f"?{number}" for number in range(1, len(values) + 1))


def _pictures(folder: Path, closed: Callable[[Path], object]) -> Iterator[str]:
    """Names of pictures in a folder, in any order, but for those of this minute."""
    try:
        with os.scandir(folder) as entries:
            for one in entries:
                if _PICTURE.fullmatch(one.name) and not _is_young(one):
                    yield os.fsencode(one.name).decode("utf-8", "replace")  # what is no text no ledger knows
    except FileNotFoundError:
        return
    except OSError:
        closed(folder)


def _is_young(one: os.DirEntry[str]) -> bool:
    try:
        # A time far in the future is none of this minute: nobody hides a file by it.
        return abs(time.time() - one.stat(follow_symlinks=False).st_mtime) < YOUNG_S
    except OSError:
        return True  # gone meanwhile
