"""The evidence ledger: every picture has its row, whatever happens to the ledger, and what changes on the disk shows."""

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from evidence_bench import SOFT, PictureBench

from inspection.audit.pictures import check_pictures
from inspection.chain import canonical, link_of
from inspection.errors import StoreError
from inspection.evidence import EvidenceWriter, evidence_files, picture_of
from inspection.evidence_ledger import (
    CONTENTS,
    LEDGER,
    MARK,
    MIGRATIONS,
    EvidenceLedger,
    Picture,
    compressed_of,
    ledger_path,
    pictures_of,
    total_bytes,
)
from inspection.images import write_png
from inspection.picture_state import PictureLedger, in_words
from inspection.read_only import ReadOnlyFile
from inspection.types import new_id

IMAGE = np.random.default_rng(1).integers(0, 256, (40, 60), dtype=np.uint8)


@pytest.fixture
def bench(tmp_path: Path, demo_recipe: Path) -> PictureBench:
    return PictureBench(tmp_path, demo_recipe)


def writer_of(bench: PictureBench) -> EvidenceWriter:
    return EvidenceWriter(bench.evidence, queue_size=50, min_free_mb=0, store=bench.store)


def until(reached: Callable[[], object]) -> None:
    """Wait for the writer's thread, for at most two minutes."""
    end_s = time.monotonic() + 120
    while not reached():
        assert time.monotonic() < end_s, "did not come about in time"
        time.sleep(0.01)


def entered(bench: PictureBench) -> list[Picture]:
    """The rows of the ledger, in the order they were entered."""
    with closing(reader_of(bench)) as ledger:
        return [Picture(*row[1:]) for row in ledger.rows(CONTENTS["picture"])]


def entered_by_now(bench: PictureBench) -> list[Picture]:
    """The same while the writer makes the ledger: before it is whole nothing is entered."""
    try:
        return entered(bench)
    except StoreError:
        return []


def reader_of(bench: PictureBench) -> ReadOnlyFile:
    return ReadOnlyFile(ledger_path(bench.store), LEDGER, mark=MARK, newest=len(MIGRATIONS))


def faults(bench: PictureBench) -> list[str]:
    """What the audit finds wrong with the pictures."""
    return [
        finding.what.rpartition(": ")[2]
        for finding in check_pictures(ledger_path(bench.store), bench.evidence).said.findings
    ]


# Entering


def test_each_file_is_entered_with_its_hash(bench: PictureBench) -> None:
    """Right after a file was written its row says which record, how many bytes, what was in it, and the verdict."""
    writer = writer_of(bench)
    record_id = new_id()
    text = writer.offer(record_id, "L", [("top", IMAGE), ("top_raw", IMAGE.astype(np.uint16))], verdict="NG")
    writer.close()
    rows = entered(bench)
    for row, path in zip(rows, evidence_files(bench.evidence, text), strict=True):
        content = path.read_bytes()
        assert (record_id, "NG", "", len(content)) == (row.record_id, row.verdict, row.entered_later, row.bytes)
        assert hashlib.sha256(content).hexdigest() == row.sha256
        assert bench.evidence / row.file == path
    assert faults(bench) == []


def test_rows_are_links_of_one_chain(bench: PictureBench) -> None:
    """Every row of the three kinds, in its order, is what the chain says, and each link holds the one before it."""
    for days in (40, 8):
        bench.add("OK", days=days, raw=True)
    bench.add()
    rule = '[[retention.rules]]\nverdicts = ["OK"]\nafter_days = {}\nkeep = "{}"\n'
    bench.run(rule.format(30, "nothing") + rule.format(7, "compressed"))
    with closing(reader_of(bench)) as ledger:
        contents = {kind: iter(ledger.rows(sql)) for kind, sql in CONTENTS.items()}
        links = ledger.rows("SELECT sequence, kind, subject, content_sha256, link FROM chain ORDER BY sequence")
    before = bytes(32)
    for number, (sequence, kind, subject, digest, link) in enumerate(links, 1):
        expected, *content = next(contents[kind])
        assert (number, expected) == (sequence, subject)
        assert hashlib.sha256(canonical(content)).digest() == digest
        before = link_of(before, sequence, kind, subject, digest)
        assert before == link
    assert {"picture", "compressed", "deleted"} == {kind for _, kind, _, _, _ in links}
    assert [] == [row for rows in contents.values() for row in rows]


def test_rows_cannot_be_changed_or_taken_out(bench: PictureBench) -> None:
    """The database itself refuses."""
    bench.add()
    with closing(sqlite3.connect(ledger_path(bench.store), isolation_level=None)) as database:
        for statement in ("UPDATE pictures SET sha256 = 'x'", "DELETE FROM pictures", "DELETE FROM chain"):
            with pytest.raises(sqlite3.IntegrityError, match="append only"):
                database.execute(statement)


def test_a_file_is_entered_once(bench: PictureBench) -> None:
    """The same file again keeps its first row."""
    bench.add()
    (row,) = entered(bench)
    with closing(EvidenceLedger(ledger_path(bench.store))) as ledger:
        assert ledger.enter([row, row]) == 0
        assert total_bytes(ledger) == row.bytes
    assert [row] == entered(bench)


# A ledger that fails


def test_a_ledger_that_cannot_be_opened_costs_no_picture(bench: PictureBench) -> None:
    """The picture is written, counted as not entered and named; the next start enters it as what it is."""
    ledger_path(bench.store).write_text("something else, long enough to be no database" * 30)
    writer, record_id = writer_of(bench), new_id()
    text = writer.offer(record_id, "L", [("top", IMAGE)], verdict="NG")
    bench.add_record(record_id, text)
    until(lambda: writer.unentered)
    assert (0, 0, 1) == (writer.failed, writer.skipped, len(evidence_files(bench.evidence, text)))
    assert "ledger of pictures" in writer.last_error
    writer.close()
    ledger_path(bench.store).unlink()
    again = writer_of(bench)
    until(lambda: entered_by_now(bench))
    again.close()
    assert [True] == [bool(row.entered_later) for row in entered(bench)]


def test_a_locked_ledger_is_caught_up_with(bench: PictureBench) -> None:
    """While another program holds the ledger pictures are written; their rows come when it lets go, as if at once."""
    bench.add()
    with closing(sqlite3.connect(ledger_path(bench.store), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writer = writer_of(bench)
        text = writer.offer(new_id(), "L", [("top", IMAGE)])
        until(lambda: writer.unentered)
        assert evidence_files(bench.evidence, text)
        other.execute("ROLLBACK")
    until(lambda: not writer.unentered)
    writer.close()
    assert ["", ""] == [row.entered_later for row in entered(bench)]


def test_rows_that_wait_are_entered_at_the_end(bench: PictureBench) -> None:
    """A station that is told to stop enters what waits."""
    bench.add()
    with closing(sqlite3.connect(ledger_path(bench.store), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writer = writer_of(bench)
        writer.offer(new_id(), "L", [("top", IMAGE)])
        until(lambda: writer.unentered)
        other.execute("ROLLBACK")
    writer.close()
    assert (2, 0) == (len(entered(bench)), writer.unentered)


# What was there before


def test_older_pictures_are_entered_in_the_background(bench: PictureBench) -> None:
    """An evidence folder from before there was a ledger is entered after the first start, with the verdicts of its records."""
    records = [bench.add(verdict, days=3) for verdict in ("OK", "NG", "ERROR")]
    ledger_path(bench.store).unlink()
    stranger = bench.evidence / f"2026-01-01/L/{'a' * 32}_top.png"
    stranger.parent.mkdir(parents=True)
    write_png(stranger, IMAGE)
    for foreign in ("2026-01-01/L/notes.txt", "2026-01-01/L/picture.png", "other/L/x.png"):
        (bench.evidence / foreign).parent.mkdir(parents=True, exist_ok=True)
        (bench.evidence / foreign).write_text("mine")
    (stranger.parent / f"{'b' * 32}_top.png").symlink_to(stranger)
    writer = writer_of(bench)
    until(lambda: len(entered_by_now(bench)) == 3)
    writer.close()
    rows = {row.record_id: row for row in entered(bench)}
    assert ["OK", "NG", "ERROR"] == [rows[record.record_id].verdict for record in records]
    assert 3 == len(rows)  # a picture that no record of this station names is not ours to vouch for
    assert all(row.entered_later for row in rows.values())
    assert records[0].judged_at.isoformat() == rows[records[0].record_id].written_at
    with closing(PictureLedger(bench.config())) as pictures:
        (state,) = pictures.states(records[0])
    assert (state.state, "vouches for it from" in in_words(state)) == ("whole", True)


def test_new_pictures_go_before_older_ones(bench: PictureBench) -> None:
    """While older files are entered, a new picture has its row at once."""
    for _ in range(40):
        bench.add(days=3)
    ledger_path(bench.store).unlink()
    EvidenceLedger(ledger_path(bench.store)).close()
    record_id = new_id()
    with closing(sqlite3.connect(ledger_path(bench.store), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # nothing is entered before the new picture is there
        writer = writer_of(bench)
        writer.offer(record_id, "L", [("top", IMAGE)])
        until(lambda: writer.unentered)
        other.execute("ROLLBACK")
    until(lambda: len(entered(bench)) == 41)
    assert record_id in {row.record_id for row in entered(bench)[:20]}
    writer.close()


# What changes on the disk


def test_missing_and_altered_pictures_are_found(bench: PictureBench) -> None:
    """One changed byte and one missing file are named; whole ones are not."""
    whole, altered, missing = (bench.add("NG", days=1) for _ in range(3))
    path = bench.evidence / f"{altered.evidence}_top.png"
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    path.write_bytes(content)
    (bench.evidence / f"{missing.evidence}_top.png").unlink()
    assert ["it is not as it was written", "it is missing"] == faults(bench)
    with closing(PictureLedger(bench.config())) as pictures:
        told = {
            record.record_id: [state.state for state in pictures.states(record)] for record in (whole, altered, missing)
        }
    assert [["whole"], ["altered"], ["missing"]] == list(told.values())


def test_a_deleted_picture_that_is_back_is_found(bench: PictureBench) -> None:
    """A tombstone and its file contradict each other."""
    record = bench.add("OK", days=40)
    bench.add()
    path = bench.evidence / f"{record.evidence}_top.png"
    content = path.read_bytes()
    bench.run('[[retention.rules]]\nverdicts = ["OK"]\nafter_days = 30\nkeep = "nothing"\n')
    assert faults(bench) == []
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert ["it was deleted by retention, and is there again"] == faults(bench)


def test_without_a_ledger_nothing_is_vouched_for(bench: PictureBench) -> None:
    """A station that has none yet shows its pictures as what they are: not entered."""
    record = bench.add()
    ledger_path(bench.store).unlink()
    with closing(PictureLedger(bench.config())) as pictures:
        (state,) = pictures.states(record)
    assert ("top", "unentered") == (state.name, state.state)
    assert "nothing vouches" in in_words(state)


def test_a_record_whose_pictures_never_came_says_missing(bench: PictureBench) -> None:
    """A record that names pictures, of which neither file nor row is there, does not look as if it had none."""
    record = bench.add()
    ledger_path(bench.store).unlink()
    (bench.evidence / f"{record.evidence}_top.png").unlink()
    with closing(PictureLedger(bench.config())) as pictures:
        assert ["missing"] == [state.state for state in pictures.states(record)]


def test_a_file_that_is_no_ledger_is_an_error_and_not_an_empty_one(bench: PictureBench) -> None:
    """Reading says what is wrong; nothing is made of another file."""
    record = bench.add()
    os.replace(bench.store, ledger_path(bench.store))  # noqa: PTH105
    with (
        closing(PictureLedger(bench.config())) as pictures,
        pytest.raises(StoreError, match="not a ledger of pictures"),
    ):
        pictures.states(record)


def test_the_lossless_picture_is_given_while_both_are_there(bench: PictureBench) -> None:
    """In the moment between JPEG and PNG a reader gets the PNG; afterwards the JPEG."""
    record = bench.add(image=SOFT)
    png = bench.evidence / f"{record.evidence}_top.png"
    jpeg = png.with_suffix(".jpg")
    jpeg.write_bytes(b"x")
    assert ((png,), png) == (
        evidence_files(bench.evidence, record.evidence),
        picture_of(bench.evidence, record.evidence, "top"),
    )
    png.unlink()
    assert ((jpeg,), jpeg) == (
        evidence_files(bench.evidence, record.evidence),
        picture_of(bench.evidence, record.evidence, "top"),
    )


def test_queries_of_a_record(bench: PictureBench) -> None:
    """Rows of one record only."""
    one, other = bench.add(raw=True), bench.add()
    with closing(reader_of(bench)) as ledger:
        assert (2, 1) == (len(pictures_of(ledger, one.record_id)), len(pictures_of(ledger, other.record_id)))
        assert {} == compressed_of(ledger, one.record_id)
