import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from audit_bench import (
    BEGAN,
    KEY,
    NOW,
    RECORDS,
    STORE,
    Copies,
    add_records,
    add_reviews,
    at,
    late,
    make,
    record,
    renamed,
    tampering,
    verify,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from inspection.audit.findings import counted
from inspection.audit.unknown import unknown_files
from inspection.audit_cli import in_words, printable
from inspection.chain import append
from inspection.checkpoints import Checkpoints, Heads, checkpoints_path, heads_of
from inspection.errors import StoreError
from inspection.evidence_ledger import EvidenceLedger, ledger_path
from inspection.reviews import ReviewStore, reviews_path
from inspection.signing_keys import fingerprint_of, make_key, raw_public
from inspection.store import Store
from inspection.types import utc_now

OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Copies:
    return Copies(make(tmp_path_factory.mktemp("made")))


@pytest.fixture
def path(copies: Copies, tmp_path: Path) -> Path:
    return copies.write(tmp_path)


def forge(path: Path, number: int, serial: str) -> None:
    """Give a record another serial and make the chain anew from there on, as somebody without the key can."""
    with tampering(path) as database:
        one = renamed(record(number), serial)
        database.execute("UPDATE records SET serial = ?, json = ? WHERE rowid = ?", (serial, one.to_json(), number))
        database.execute("DELETE FROM chain")
        rows = database.execute(
            """SELECT record_id, records.trigger_id, serial, lot, recipe_id, verdict, judged_at, records.json, triggers.json,
               accepted_at FROM records JOIN triggers USING (trigger_id) ORDER BY records.rowid"""
        ).fetchall()
        lates = dict(database.execute("SELECT record_id, json FROM late_results").fetchall())
        for row in rows:
            append(database, "record", row[0], row)
            if row[0] in lates:
                append(database, "late", row[0], (row[0], lates[row[0]]))


def sign_anew(path: Path, key: Ed25519PrivateKey | None) -> None:
    """Write all checkpoints anew: one for everything."""
    checkpoints_path(path).unlink()
    Checkpoints(checkpoints_path(path), "cell-1", key).add(heads_of(path), at(61))


def test_untouched_files_are_good(path: Path) -> None:
    """Nothing is named, everything is counted, and all of it is proven by a signature."""
    result = verify(path)
    assert result.good
    assert [file.rows for file in result.files] == [
        {"records": 60, "late_results": 3}, {"reviews": 20}, {"pictures": 6, "compressed": 1, "deleted": 1},
    ]  # fmt: skip
    assert [file.proven for file in result.files] == [63, 20, 8]
    assert [file.newer for file in result.files] == [0, 0, 0]
    assert (result.files[0].proven_row, result.files[0].proven_at) == (60, at(61))


def test_a_station_that_has_judged_nothing_is_good(tmp_path: Path) -> None:
    """An empty store is no finding."""
    Store(tmp_path / STORE).close()
    assert verify(tmp_path / STORE).good


def test_a_store_that_is_not_there_is_no_proof_of_anything(path: Path, tmp_path: Path) -> None:
    """Everything deleted, or a wrong path, or a file with nothing in it: that is said, and is no good result."""
    for file in path.parent.iterdir():
        file.unlink()
    with pytest.raises(StoreError, match="there is no record store"):
        verify(path)
    path.touch()
    with pytest.raises(StoreError, match="nothing to verify"):
        verify(path)
    path.unlink()
    Checkpoints(checkpoints_path(path), "cell-1", KEY).add(Heads(), at(1))
    with pytest.raises(StoreError, match="no checkpoint that knows of one"):
        verify(path)


def test_the_verb_says_that_there_is_no_store(station: Path) -> None:
    """Exit code 3 as that of the other verbs, and a remedy."""
    for file in station.parent.glob(f"{STORE}*"):
        file.unlink()
    done = lineside(str(station))
    assert (done.returncode, done.stdout) == (3, "")
    assert "correct `store`" in done.stderr


def test_a_forged_chain_is_named_between_its_checkpoints(path: Path) -> None:
    """Who makes the whole chain anew cannot make the checkpoints anew: the forgery lies between two of them."""
    forge(path, 34, "FORGED")
    result = verify(path)
    finding = result.files[0].findings[0]
    assert finding.kind == "rewritten"
    assert (finding.line, finding.row) == (4, 31)
    assert "entries 33 to 42" in finding.what
    assert result.files[0].proven == 32


@pytest.mark.parametrize("key", [None, OTHER_KEY], ids=["unsigned", "another-key"])
def test_checkpoints_made_anew_without_the_key_are_named(path: Path, key: Ed25519PrivateKey | None) -> None:
    """Chain and checkpoints made anew, unsigned or with a key of the forger's, are no proof."""
    forge(path, 34, "FORGED")
    sign_anew(path, key)
    result = verify(path)
    assert not result.good
    assert result.files[0].proven == 0
    assert "signed" in result.checkpoints.findings[0].what


def test_checkpoints_made_anew_with_the_key_show_against_a_copy_kept_elsewhere(path: Path, tmp_path: Path) -> None:
    """Who has key and disk is found only by a copy: without it the audit is content, with it the place is named."""
    copy = tmp_path / "copy"
    shutil.copy(checkpoints_path(path), copy)
    forge(path, 34, "FORGED")
    sign_anew(path, KEY)
    assert verify(path).good
    result = verify(path, copy=copy)
    assert "copy" in result.checkpoints.findings[0].what
    assert (result.files[0].findings[0].kind, result.files[0].findings[0].row) == ("rewritten", 31)


def test_a_copy_that_is_older_than_the_file_agrees(path: Path, tmp_path: Path) -> None:
    """The file goes on where the copy ends; also when the copy was made in the middle of a line."""
    content = checkpoints_path(path).read_bytes()
    for size in (len(content), len(content) // 2, 0):
        (tmp_path / "copy").write_bytes(content[:size])
        assert verify(path, copy=tmp_path / "copy").good


def test_lines_cut_off_with_their_records_show_against_a_copy(path: Path, tmp_path: Path) -> None:
    """Who cuts off records, chain and checkpoints alike leaves files that agree; the copy knows better."""
    copy = tmp_path / "copy"
    shutil.copy(checkpoints_path(path), copy)
    with tampering(path) as database:
        keep = [json.loads(line) for line in checkpoints_path(path).read_bytes().splitlines()][4]["records"][0]
        database.execute("DELETE FROM late_results WHERE record_id IN (SELECT record_id FROM records WHERE rowid > 50)")
        database.execute("DELETE FROM records WHERE rowid > 50")
        database.execute("DELETE FROM chain WHERE sequence > ?", (keep,))
    lines = checkpoints_path(path).read_bytes().splitlines(keepends=True)
    checkpoints_path(path).write_bytes(b"".join(lines[:5]))
    assert verify(path).good
    result = verify(path, copy=copy)
    assert "cut off" in result.checkpoints.findings[0].what
    assert (result.files[0].findings[0].kind, result.files[0].findings[0].entry) == ("cut", keep + 1)


def test_unsigned_checkpoints_are_plainly_said_to_prove_little(tmp_path: Path) -> None:
    """Without a key nothing is named, nothing counts as proven, and the result says what that means."""
    result = verify(make(tmp_path, key=None), public_keys=[])
    assert result.good
    assert result.files[0].proven == 0
    assert any("not signed" in remark for remark in result.remarks)


def test_signed_checkpoints_without_a_public_key_cannot_be_verified(path: Path) -> None:
    """The audit asks for the public key instead of believing a signature."""
    result = verify(path, public_keys=[])
    assert not result.good
    assert "--public" in result.checkpoints.findings[0].what


def test_another_public_key_is_said_in_one_line(path: Path) -> None:
    """Given a key that signed nothing: that is what is said, not that checkpoints are missing or unsigned."""
    result = verify(path, public_keys=[OTHER_KEY.public_key()])
    assert not result.good
    (finding,) = result.checkpoints.findings
    names = [fingerprint_of(raw_public(key.public_key()))[:16] for key in (OTHER_KEY, KEY)]
    assert f"none of 6 checkpoints is signed with the key given ({names[0]}); they name {names[1]}" in finding.what
    assert (result.checkpoints.unverified, result.files[0].good) == (True, True)
    said = "\n".join(in_words(result))
    assert "not signed:" not in said
    assert "taken away" not in said
    assert "nothing of 63 rows is proven" in said


def test_a_key_that_was_changed_needs_both_public_keys(path: Path) -> None:
    """Lines of an earlier key stay good when its public key is given too."""
    with closing(Store(path)) as store:
        add_records(store, 61, 62)
        Checkpoints(checkpoints_path(path), "cell-1", OTHER_KEY).add(heads_of(path), at(63))
    assert not verify(path).good
    assert verify(path, public_keys=[KEY.public_key(), OTHER_KEY.public_key()]).good


def test_what_no_checkpoint_has_yet_is_counted_and_after_a_while_named(path: Path) -> None:
    """New records are in flight for as long as a checkpoint may take; then the missing one is a finding."""
    with closing(Store(path)) as store:
        add_records(store, 61, 63)
        fresh = verify(path, now=at(70))
        assert (fresh.good, fresh.files[0].newer) == (True, 3)
        stale = verify(path, now=at(7000))
    finding = stale.files[0].findings[0]
    assert (finding.kind, finding.row) == ("unsigned", 61)


def test_a_long_time_without_checkpoints_is_remarked(path: Path) -> None:
    """A station that was killed signs late: no alarm for ever after, but said, with the rows it concerns."""
    with closing(Store(path)) as store:
        add_records(store, 61, 63)
        Checkpoints(checkpoints_path(path), "cell-1", KEY).add(heads_of(path), at(7000))
    result = verify(path, now=at(7001))
    assert (result.good, result.files[0].delayed, result.files[0].delays[0].row) == (True, 1, 61)
    assert any("signed later" in remark for remark in result.remarks)


def test_a_clock_that_went_back_is_remarked(path: Path) -> None:
    """Lines in their order with times out of order: said, not called tampering."""
    with closing(Store(path)) as store:
        add_records(store, 61, 61)
        Checkpoints(checkpoints_path(path), "cell-1", KEY).add(heads_of(path), at(30))
    result = verify(path)
    assert result.good
    assert any("clock went back" in remark for remark in result.remarks)


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("DROP TRIGGER records_keep", "the trigger records_keep is missing"),
        ("DROP INDEX records_by_serial", "the index records_by_serial is missing"),
        ("CREATE TRIGGER more AFTER INSERT ON records BEGIN DELETE FROM outbox; END", "the trigger more was added"),
        ("CREATE VIEW parts AS SELECT * FROM records", "the view parts was added"),
        ("PRAGMA user_version = 4", "older than this version's"),
        ("PRAGMA application_id = 7", "mark 0x7"),
    ],
)
def test_a_schema_that_no_migration_made_is_named(path: Path, statement: str, named: str) -> None:
    """Guards that were taken away, and whatever else was put into the file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(statement)
    result = verify(path)
    assert not result.good
    assert named in " ".join(finding.what for finding in result.files[0].damage)


def test_a_row_that_an_index_hides_is_found(path: Path) -> None:
    """A record that is there, but that nobody finds by its serial any more: SQLite's own check names the index."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA writable_schema = ON")
        sql = database.execute("SELECT sql FROM sqlite_schema WHERE name = 'records_by_serial'").fetchone()[0]
        database.execute(
            "UPDATE sqlite_schema SET sql = ? WHERE name = 'records_by_serial'", (sql + " WHERE serial <> 'S0013'",)
        )
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("REINDEX records_by_serial")
        database.execute("PRAGMA writable_schema = ON")
        database.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'records_by_serial'", (sql,))
    said = verify(path).files[0]
    assert any("records_by_serial" in finding.what for finding in said.damage)


def test_of_a_damaged_file_the_rows_before_the_damage_are_verified(path: Path) -> None:
    """A page in the middle overwritten: where reading ended is named, what lies before is counted as good."""
    with closing(sqlite3.connect(path)) as database:
        size = database.execute("PRAGMA page_size").fetchone()[0]
        pages = [page for (page,) in database.execute(
            "SELECT pageno FROM dbstat WHERE name = 'records' AND pagetype = 'leaf' ORDER BY path"
        )] if has_dbstat(database) else []  # fmt: skip
    if not pages:
        pytest.skip("this SQLite has no dbstat: use the Python of a distribution that compiles it in")
    content = bytearray(path.read_bytes())
    start = (pages[len(pages) // 2] - 1) * size
    content[start : start + size] = bytes(size)
    path.write_bytes(content)
    said = verify(path).files[0]
    ended = [finding for finding in said.findings if finding.kind == "damaged"]
    assert ended and ended[0].row is not None  # noqa: PT018
    assert 0 < said.rows["records"] < RECORDS
    assert said.rows["records"] == ended[0].row - 1
    assert said.proven == said.rows["records"] + said.rows["late_results"]


def has_dbstat(database: sqlite3.Connection) -> bool:
    return bool(database.execute("SELECT 1 FROM pragma_module_list WHERE name = 'dbstat'").fetchall())


@pytest.mark.parametrize("name", ["", ".reviews", ".evidence"])
def test_a_file_that_is_gone_is_named(path: Path, name: str) -> None:
    """The checkpoints know that there were rows."""
    path.with_name(path.name + name).unlink()
    said = next(file for file in verify(path).files if file.path.endswith(STORE + name))
    assert (said.there, said.damage[0].kind) == (False, "cut")


def test_missing_checkpoints_are_named(path: Path) -> None:
    """A store whose checkpoints were deleted is not good, though every row fits its chain."""
    checkpoints_path(path).unlink()
    result = verify(path)
    assert result.files[0].findings[0].kind == "unsigned"
    assert any("no checkpoints" in remark for remark in result.remarks)


def test_a_file_that_is_no_store_is_named(path: Path) -> None:
    """Bytes of any kind in place of the file."""
    path.write_bytes(b"no SQLite file at all" * 300)
    assert not verify(path).good


def test_altered_column_is_held_against_the_record_itself(path: Path) -> None:
    """The verdict column alone was changed: the audit says that the JSON has another."""
    with tampering(path) as database:
        database.execute("UPDATE records SET verdict = 1 WHERE rowid = 14")
    finding = verify(path).files[0].findings[0]
    assert (finding.row, finding.serial, finding.at) == (14, "S0014", at(14).isoformat())
    assert finding.what.endswith("its JSON says otherwise of: verdict")


def test_several_alterations_are_all_counted(path: Path) -> None:
    """The first is named first; the numbers count all."""
    with tampering(path) as database:
        database.execute("UPDATE records SET lot = 'X' WHERE rowid IN (5, 9, 30)")
        database.execute("DELETE FROM records WHERE rowid = 20")
    said = verify(path).files[0]
    assert [(finding.kind, finding.row) for finding in said.findings] == [
        ("altered", 5), ("altered", 9), ("missing", 20), ("altered", 30),
    ]  # fmt: skip
    assert said.counts == {"altered": 3, "missing": 1}
    assert said.proven == 63 - 4


def test_everything_altered_is_counted(path: Path) -> None:
    """All rows of a table changed at once."""
    with tampering(path) as database:
        database.execute("UPDATE records SET lot = 'X'")
    with tampering(reviews_path(path)) as database:
        database.execute("UPDATE reviews SET reviewer = 'someone'")
    result = verify(path)
    assert (result.files[0].counts, result.files[1].counts) == ({"altered": 60}, {"altered": 20})


def test_a_store_that_is_written_meanwhile_is_good(tmp_path: Path) -> None:
    """Parts are judged, reviewed and signed while audits run: none of them finds anything, and no commit fails."""
    path = tmp_path / STORE
    stop, failed = threading.Event(), []
    begun = utc_now()

    def live() -> None:
        try:
            with closing(Store(path)) as store, closing(ReviewStore(reviews_path(path))) as reviews:
                checkpoints = Checkpoints(checkpoints_path(path), "cell-1", KEY)
                number = 0
                while not stop.is_set():
                    number += 1
                    made = replace(record(number), judged_at=utc_now())
                    store.accept(made.trigger)
                    store.commit(made)
                    if number % 5 == 0:
                        store.commit_late(made.record_id, late(number))
                        add_reviews(reviews, number, number)
                        checkpoints.add(heads_of(path), utc_now())
        except Exception as error:  # told to the test
            failed.append(error)

    Store(path).close()
    ReviewStore(reviews_path(path)).close()
    writer = threading.Thread(target=live)
    writer.start()
    try:
        while heads_of(path).records[0] == 0 and not failed:
            time.sleep(0.01)
        results = [verify(path, now=utc_now()) for _ in range(15)]
    finally:
        stop.set()
        writer.join()
    assert failed == []
    assert [[*file.damage, *file.findings] for result in results for file in result.files if not file.good] == []
    assert all(result.good for result in results)
    assert results[-1].files[0].rows["records"] > 0
    assert begun < utc_now()


def test_the_audit_writes_nothing(path: Path) -> None:
    """Files under audit stay as they are, byte for byte."""
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    verify(path)
    after = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    assert {name: after[name] for name in before} == before


STATION = """
station_id = "cell-1"
recipe = "recipe"
store = "records.sqlite"
[audit]
key = "station.key"
[evidence]
folder = "evidence"
[cameras.top]
kind = "simulated"
[controller]
kind = "simulated"
"""


def lineside(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "inspection", "audit", *words], capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip


@pytest.fixture
def station(tmp_path: Path) -> Path:
    """A station's config beside files that its key signed just now."""
    make_key(tmp_path / "station.key")
    (tmp_path / "station.toml").write_text(STATION, encoding="utf-8")
    from inspection.signing_keys import read_private_key

    make(tmp_path, key=read_private_key(tmp_path / "station.key"))
    return tmp_path / "station.toml"


def test_the_verb_says_what_is_proven_and_what_is_not(station: Path) -> None:
    """Exit code 0, the counts, the limits of the proof."""
    done = lineside(str(station))
    assert done.returncode == 0, done.stderr
    assert "60 records" in done.stdout
    assert "What it does not prove" in done.stdout


def test_the_verb_names_the_first_altered_record(station: Path) -> None:
    """Exit code 1; the row, the record, the serial and the time, on one line that no serial can break."""
    with tampering(station.with_name(STORE)) as database:
        database.execute("UPDATE records SET serial = 'S\x1b[2J\nall good' WHERE rowid = 12")
    done = lineside(str(station))
    assert done.returncode == 1
    line = next(line for line in done.stdout.splitlines() if line.startswith("  first:"))
    assert "row 12 of records" in line
    assert "all good" in line
    assert "\x1b" not in done.stdout
    document = json.loads(lineside(str(station), "--json").stdout)
    assert document["good"] is False
    assert document["files"][0]["findings"][0]["row"] == 12


def test_the_verb_asks_for_a_public_key_that_is_away(station: Path) -> None:
    """Without the public key beside the private one the verb says what to give, and takes it."""
    station.with_name("station.key.pub").rename(station.with_name("elsewhere.pub"))
    assert "--public" in lineside(str(station)).stderr
    assert lineside(str(station), "--public", str(station.with_name("elsewhere.pub"))).returncode == 0


def test_pictures_are_held_against_the_ledger(tmp_path: Path) -> None:
    """A picture that was changed, one that is gone, and one that is there again after it was deleted, are named."""
    path = make(tmp_path)
    evidence = tmp_path / "evidence"
    with closing(EvidenceLedger(ledger_path(path))) as ledger:
        ledger.finished([f"2026-11-23/L0/{number:032x}_top.png" for number in (1, 2)])
    said = verify(path, pictures=evidence).pictures
    assert said is not None
    assert said.counts == {"picture": 5}  # the deleted one is gone as it should be
    deleted = evidence / f"2026-11-23/L0/{2:032x}_top.png"
    deleted.parent.mkdir(parents=True)
    deleted.write_bytes(b"again")
    (evidence / f"2026-11-23/L0/{3:032x}_top.png").write_bytes(b"another picture")
    said = verify(path, pictures=evidence).pictures
    assert said is not None
    words = {finding.row: finding.what.rpartition(": ")[2] for finding in said.findings}
    assert words[2] == "it was deleted by retention, and is there again"
    assert words[3] == "it is not as it was written"
    assert words[4] == "it is missing"


def lying(evidence: Path, *names: str, age_s: float = 100.0) -> None:
    """Files in a lot's folder that the ledger does not know."""
    for name in names:
        file = evidence / "2026-11-23" / "L0" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"edited")
        os.utime(file, (time.time() - age_s,) * 2)


def test_pictures_without_a_ledger_are_counted_and_not_vouched_for(station: Path) -> None:
    """No ledger at all: exit code 0, but the pictures are counted, the first named, and the last line excepts them."""
    for file in station.parent.glob(f"{STORE}*"):
        file.unlink()
    Store(station.with_name(STORE)).close()
    lying(station.parent / "evidence", *(f"{number:032x}_top.png" for number in range(30)))
    lying(station.parent / "evidence", "evil\nall good.png", "notes.txt", ".1.partial")
    done = lineside(str(station), "--pictures")
    assert done.returncode == 0, done.stdout
    assert "31 pictures that the ledger does not know: nothing vouches for them" in done.stdout
    assert f"first 2026-11-23/L0/{0:032x}_top.png" in done.stdout
    assert "all as it was written, except 31 pictures that nobody vouches for" in done.stdout
    assert "none yet (" not in next(line for line in done.stdout.splitlines() if line.startswith("pictures"))
    assert json.loads(lineside(str(station), "--pictures", "--json").stdout)["unknown"]["files"] == 31


def test_a_picture_beside_the_ledger_with_the_name_of_a_record_is_a_finding(tmp_path: Path) -> None:
    """Slipped in under a record: named.  Under another name: counted.  Just written, or in the ledger: neither."""
    path, evidence = make(tmp_path), tmp_path / "evidence"
    lying(evidence, f"{1:032x}_top.jpg", f"{3:032x}_top.png")  # in the ledger
    lying(evidence, f"{8:032x}_side.png", "somebody.jpg")
    lying(evidence, f"{9:032x}_top.png", age_s=1)
    lying(evidence, f"{10:032x}_top.png", age_s=-1e6)  # a time that hides nothing
    result = verify(path, pictures=evidence)
    assert result.unknown is not None
    assert (result.unknown.files, result.good) == (3, False)
    assert result.pictures is not None
    added = [one for one in result.pictures.findings if "does not know it" in one.what]
    assert [one.record_id for one in added] == [f"{8:032x}", f"{10:032x}"]


def test_many_unknown_pictures_are_looked_at_a_few_at_a_time(tmp_path: Path) -> None:
    """However many lie in one folder, each is counted once."""
    lying(tmp_path / "evidence", *(f"{number}.png" for number in range(1201)))
    seen = list(unknown_files(tmp_path / "evidence", lambda _, files: [(file,) for file in files[:1]]))
    assert (max(map(len, seen)) <= 500, sum(map(len, seen))) == (True, 1198)


def test_a_count_of_one_has_its_own_word() -> None:
    """One entry, one late result, two rows."""
    assert [counted(1, "entries"), counted(1, "late results"), counted(2, "rows"), counted(1, "deleted")] == [
        "1 entry", "1 late result", "2 rows", "1 deleted",
    ]  # fmt: skip


def test_words_for_people_hold_every_finding_on_its_line(path: Path) -> None:
    """Nothing that was written into a file can make lines of its own in what is printed."""
    with tampering(path) as database:
        database.execute(
            "UPDATE records SET serial = char(10) || 'forged line', judged_at = x'ff' || '' WHERE rowid = 3"
        )
    lines = list(in_words(verify(path)))
    assert not [line for line in lines if "\n" in line or line.startswith("forged")]
    assert printable("a\x1b\n\udcff") == "a\\x1b\\x0a\\udcff"
    assert BEGAN < NOW
