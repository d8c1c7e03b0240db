"""The acceptance of the audit: a thousand random alterations of a small station's files, each named at its place."""

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from audit_bench import LATE, RECORDS, REVIEWS, STORE, Copies, make, tampering, verify

from inspection.audit.covered import COVERED
from inspection.audit.findings import AuditResult, FileAudit, Finding
from inspection.checkpoints import chained_files

FILES = {"records": "", "reviews": ".reviews", "evidence": ".evidence"}
# Every table that is covered, with the file it lies in; rows are numbered by rowid.
TABLES = {
    "records": "records", "triggers": "records", "late_results": "records", "judged_by": "records", "chain": "records",
    "reviews": "reviews", "pictures": "evidence", "compressed": "evidence", "deleted": "evidence",
}  # fmt: skip
ROWS = {"records": RECORDS, "triggers": RECORDS, "late_results": len(LATE), "judged_by": 2, "chain": RECORDS + len(LATE),
        "reviews": REVIEWS, "pictures": 6, "compressed": 1, "deleted": 1}  # fmt: skip
CHAINED = {"records": "record", "late_results": "late", "reviews": "review", "pictures": "picture"}


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Copies:
    return Copies(make(tmp_path_factory.mktemp("made")))


def of(path: Path, file: str) -> Path:
    return path.with_name(STORE + FILES[file])


def said_of(result: AuditResult, file: str) -> FileAudit:
    return next(one for one in result.files if one.name == file)


def first_of(result: AuditResult, file: str) -> Finding:
    """The first row that is named in a file; in no other file is anything named."""
    assert not result.good
    assert [one.name for one in result.files if not one.good] == [file]
    finding = said_of(result, file).findings[0]
    assert not result.checkpoints.findings
    return finding


def entry_of(database: sqlite3.Connection, table: str, row: int) -> int:
    """Which entry of the chain belongs to a row: those of a table stand in the order of its rows."""
    sql = "SELECT sequence FROM chain WHERE kind = ? ORDER BY sequence LIMIT 1 OFFSET ?"
    found = database.execute(sql, (CHAINED[table], row - 1)).fetchone()
    return int(found[0])


def changed(value: Any, dice: random.Random) -> Any:
    """The value with one byte changed; of a text, bytes, which may be no text any more."""
    if isinstance(value, int):
        return value ^ (dice.randrange(1, 256) << 8 * dice.randrange(2))
    raw = bytearray(value.encode() if isinstance(value, str) else value)
    place = dice.randrange(len(raw))
    raw[place] ^= dice.randrange(1, 256)
    return bytes(raw)


def change_byte(database: sqlite3.Connection, table: str, dice: random.Random) -> tuple[int, str] | None:
    """Change one byte of a random column of a random row; row and column, None where the table cannot hold it."""
    columns = [name for _, name, *_ in database.execute(f"PRAGMA table_info({table})")]
    row, column = dice.randint(1, ROWS[table]), dice.choice(columns)
    if table == "judged_by":
        row = (1, 30)[row - 1]
    value = database.execute(f"SELECT {column} FROM {table} WHERE rowid = ?", (row,)).fetchone()[0]
    if value == "":
        return None
    new = changed(value, dice)
    target = "CAST(? AS TEXT)" if isinstance(value, str) else "?"
    try:
        database.execute(f"UPDATE {table} SET {column} = {target} WHERE rowid = ?", (new, row))
    except sqlite3.IntegrityError:
        return None
    return row, column


NUMBERS = {("chain", "sequence"), ("reviews", "review_id"), ("judged_by", "first_row")}  # changing it moves the row


@pytest.mark.parametrize("table", TABLES)
def test_each_changed_byte_is_named(table: str, copies: Copies, tmp_path: Path) -> None:
    """A byte of any column of any covered table: its row is the first that is named."""
    dice, done = random.Random(f"bytes {table}"), 0
    while done < 45:
        path = copies.write(tmp_path)
        with tampering(of(path, TABLES[table])) as database:
            hit = change_byte(database, table, dice)
        if hit is None:
            continue
        done += 1
        row, column = hit
        finding = first_of(verify(path), TABLES[table])
        where = (table, row, column, finding)
        if table == "chain":
            assert finding.entry == row or (
                column == "sequence" and finding.entry is not None and finding.entry < row
            ), where
        elif table == "judged_by":
            assert (finding.table, finding.kind) == ("judged_by", "change_point"), where
            assert finding.row == row or (column == "first_row" and (finding.row or 0) < row), where
        elif (table, column) in NUMBERS:
            assert finding.table == table, where
            assert finding.row is not None and finding.row <= row, where  # noqa: PT018
        else:
            named = "records" if table == "triggers" else table
            assert (finding.table, finding.row, finding.kind) == (named, row, "altered"), where


@pytest.mark.parametrize("with_chain", [False, True], ids=["rows", "rows-and-entries"])
def test_each_deletion_is_named(with_chain: bool, copies: Copies, tmp_path: Path) -> None:
    """Rows that are deleted, with or without their entries in the chain: the first is named."""
    dice = random.Random(f"deletions {with_chain}")
    for _ in range(90):
        path = copies.write(tmp_path)
        table = dice.choice([*CHAINED])
        first = dice.randint(1, ROWS[table])
        last = min(first + dice.randrange(3), ROWS[table])
        with tampering(of(path, TABLES[table])) as database:
            entries = [entry_of(database, table, row) for row in range(first, last + 1)]
            database.execute(f"DELETE FROM {table} WHERE rowid BETWEEN ? AND ?", (first, last))
            if with_chain:
                database.executemany("DELETE FROM chain WHERE sequence = ?", [(entry,) for entry in entries])
        finding = first_of(verify(path), TABLES[table])
        assert finding.entry == entries[0], (table, first, last, finding)
        if not with_chain:
            assert (finding.kind, finding.table, finding.row) == ("missing", table, first)


def swap(database: sqlite3.Connection, table: str, number: str, one: int, other: int) -> None:
    for old, new in ((one, -1), (other, one), (-1, other)):
        database.execute(f"UPDATE {table} SET {number} = ? WHERE {number} = ?", (new, old))


def test_each_swap_of_two_rows_is_named(copies: Copies, tmp_path: Path) -> None:
    """Two rows, or two entries of the chain, that changed places: the first of the two places is named."""
    dice = random.Random("swaps")
    for _ in range(125):
        path = copies.write(tmp_path)
        table = dice.choice([*CHAINED, "chain"])
        one, other = sorted(dice.sample(range(1, ROWS[table] + 1), 2))
        with tampering(of(path, TABLES[table])) as database:
            swap(database, table, {"chain": "sequence", "reviews": "review_id"}.get(table, "rowid"), one, other)
        finding = first_of(verify(path), TABLES[table])
        assert one == (finding.entry if table == "chain" else finding.row), (table, one, other, finding)


@pytest.mark.parametrize("with_chain", [False, True], ids=["rows", "rows-and-entries"])
def test_each_cut_tail_is_named(with_chain: bool, copies: Copies, tmp_path: Path) -> None:
    """The newest rows, with or without their entries, taken away: the checkpoints know that they were there."""
    dice = random.Random(f"tails {with_chain}")
    for _ in range(50):
        path = copies.write(tmp_path)
        table = dice.choice(["records", "reviews"])
        left = dice.randrange(ROWS[table])
        with tampering(of(path, table)) as database:
            sequence = entry_of(database, table, left + 1)
            if with_chain and table == "records":
                gone = "(SELECT record_id FROM records WHERE rowid > ?)"
                database.execute(f"DELETE FROM late_results WHERE record_id IN {gone}", (left,))
                database.execute("DELETE FROM judged_by WHERE first_row > ?", (left,))
            database.execute(f"DELETE FROM {table} WHERE rowid > ?", (left,))
            if with_chain:
                database.execute("DELETE FROM chain WHERE sequence >= ?", (sequence,))
        finding = first_of(verify(path), table)
        assert finding.entry == sequence, (table, left, finding)
        assert finding.kind == ("cut" if with_chain else "missing")


def test_each_added_row_is_named(copies: Copies, tmp_path: Path) -> None:
    """A copy of a row under a name of its own, put at the end, is named, and so is one with an entry in the chain."""
    dice = random.Random("additions")
    for number in range(40):
        path = copies.write(tmp_path)
        row = dice.randint(1, RECORDS)
        with tampering(path) as database:
            columns = "'copy' || record_id, 'copy' || trigger_id, serial, lot, recipe_id, verdict, judged_at, json"
            database.execute("INSERT INTO triggers SELECT 'copy' || trigger_id, json, accepted_at FROM triggers WHERE rowid = ?",
                             (row,))  # fmt: skip
            place = 1000 + number if number % 2 else -number
            database.execute(f"INSERT INTO records (rowid, record_id, trigger_id, serial, lot, recipe_id, verdict, judged_at, json)"
                             f" SELECT {place}, {columns} FROM records WHERE rowid = ?", (row,))  # fmt: skip
        finding = first_of(verify(path), "records")
        assert (finding.kind, finding.row) == ("added", place), finding


def contents(path: Path) -> Any:
    """Every row of every covered table, with the types of its columns; None when it cannot be read."""
    tables = {table for table, file in TABLES.items() if path.name == STORE + FILES[file]} | {"chain"}
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            database.text_factory = bytes
            said: list[Any] = [
                database.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY 2").fetchall()
            ]
            for table in sorted(tables):
                names = [name.decode() for _, name, *_ in database.execute(f"PRAGMA table_info({table})")]
                shown = ", ".join(f"typeof({name}), hex({name})" for name in names)
                said.append(
                    database.execute(f"SELECT rowid, {shown} FROM {table} NOT INDEXED ORDER BY rowid").fetchall()
                )
        return said
    except (sqlite3.Error, UnicodeDecodeError):
        return None


@pytest.mark.parametrize("file", FILES)
def test_each_flipped_byte_of_a_file_is_found(file: str, copies: Copies, tmp_path: Path) -> None:
    """A byte anywhere in a file: it is found unless every row of every covered table is what it was."""
    dice = random.Random(f"flips {file}")
    before = contents(of(copies.write(tmp_path), file))
    assert before is not None
    found = 0
    for _ in range(100):
        path = copies.write(tmp_path)
        target = of(path, file)
        content = bytearray(target.read_bytes())
        place = dice.randrange(len(content))
        content[place] ^= dice.randrange(1, 256)
        target.write_bytes(content)
        now, result = contents(target), verify(path)
        found += not result.good
        assert now == before or [one.name for one in result.files if not one.good] == [file], place
    assert found > 5


def test_each_file_cut_short_is_found(copies: Copies, tmp_path: Path) -> None:
    """A file that ends early is damaged, and what can still be read of it is verified."""
    dice = random.Random("cut short")
    for _ in range(60):
        path = copies.write(tmp_path)
        file = dice.choice([*FILES])
        target = of(path, file)
        target.write_bytes(target.read_bytes()[: dice.randrange(target.stat().st_size)])
        result = verify(path)
        assert [one.name for one in result.files if not one.good] == [file]


def test_each_alteration_of_the_checkpoints_is_found(copies: Copies, tmp_path: Path) -> None:
    """A changed byte, a line taken out, two lines swapped, or the end cut off, each named at its line or the one after."""
    dice = random.Random("checkpoints")
    lines = copies.content[f"{STORE}.checkpoints"].splitlines(keepends=True)

    def byte(place: int) -> list[bytes]:
        line = bytearray(lines[place])
        line[dice.randrange(len(line))] ^= dice.randrange(1, 256)
        return [*lines[:place], bytes(line), *lines[place + 1 :]]

    def out(place: int) -> list[bytes]:
        return [*lines[:place], *lines[place + 1 :]]

    def swapped(place: int) -> list[bytes]:
        other = (place + 1) % len(lines)
        new = list(lines)
        new[place], new[other] = new[other], new[place]
        return new

    def cut(place: int) -> list[bytes]:
        return lines[:place]

    ways: list[Callable[[int], list[bytes]]] = [byte, byte, byte, out, swapped, cut]
    for number in range(120):
        path = copies.write(tmp_path)
        place = dice.randrange(len(lines))
        way = ways[number % len(ways)]
        altered = b"".join(way(place))
        path.with_name(f"{STORE}.checkpoints").write_bytes(altered)
        result = verify(path, now=None)
        assert not result.good, (way, place)
        named = [one.line for one in result.checkpoints.findings]
        first = 0 if way is swapped and place == len(lines) - 1 else place
        if way is cut or (way is not swapped and place == len(lines) - 1):
            assert named or said_of(result, "records").findings[0].kind == "unsigned"
        else:
            # A byte may become the end of a line: of the two that one line is then, the second counts too.
            more = max(0, altered.count(b"\n") - len(lines))
            assert first + 1 <= named[0] <= first + 2 + more, (way, place, result.checkpoints.findings)


def test_a_checkpoint_torn_in_two_or_joined_with_the_next_is_named(copies: Copies, tmp_path: Path) -> None:
    """The line at which a line feed was put in or taken away is the one that is named."""
    lines = copies.content[f"{STORE}.checkpoints"].splitlines(keepends=True)
    for place in range(len(lines) - 1):
        for changed in (lines[place][:40] + b"\n" + lines[place][41:], lines[place][:-1] + b" "):
            path = copies.write(tmp_path)
            path.with_name(f"{STORE}.checkpoints").write_bytes(b"".join([*lines[:place], changed, *lines[place + 1 :]]))
            assert place + 1 == verify(path, now=None).checkpoints.findings[0].line


def test_every_covered_table_is_tampered_with() -> None:
    """The tables that the audit covers are the ones that are altered here."""
    audited = {table.name for covered in COVERED for table in covered.tables}
    assert audited | {"triggers", "judged_by", "chain"} == set(TABLES)
    assert set(chained_files(Path(STORE))) == set(FILES)
