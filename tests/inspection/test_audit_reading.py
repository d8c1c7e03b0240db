"""The audit, and what shares its reading, by somebody who may only read, or not even that; and by keys that are away."""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from audit_bench import KEY, NOW, STORE, add_records, at, make, verify
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from inspection.audit_cli import in_words
from inspection.chain import canonical
from inspection.checkpoints import Checkpoints, checkpoints_path, heads_of
from inspection.errors import StoreError, UsageError
from inspection.evidence_ledger import EvidenceLedger, Picture, Tombstone, ledger_path
from inspection.record_reader import RecordReader
from inspection.signing_keys import fingerprint_of, raw_public
from inspection.sqlite_file import Unshared, check_unwritten, read_only
from inspection.store import Store, UnreadableRecord
from inspection.types import Record

OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(7, 39)))
PICTURE = b"a picture"
TELL = """
import os, sys
from contextlib import closing
from types import SimpleNamespace
from audit_bench import record
from dataclasses import replace
from inspection.picture_state import PictureLedger
if os.getuid() == 0: os.setuid(65534)
store, folder = sys.argv[1:]
config = SimpleNamespace(store=store, evidence=SimpleNamespace(folder=folder))
with closing(PictureLedger(config)) as ledger:
    for number in (1, 9):
        part = replace(record(number), evidence=f"2026-11-23/L0/{number:032x}")
        print([(one.file, one.state) for one in ledger.states(part)])
"""
AS_NOBODY = """
import os, sys
from contextlib import closing
from pathlib import Path
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from inspection.audit.run import audit
from inspection.audit_cli import in_words
from inspection.errors import StoreError
from inspection.record_reader import RecordReader
from audit_bench import KEY, NOW
if os.getuid() == 0: os.setuid(65534)
store = Path(sys.argv[1])
pictures = Path(sys.argv[2]) if len(sys.argv) > 2 else None
try:
    with closing(RecordReader(store)) as reader:
        print(len(reader.newest(10)), "newest")
    result = audit(store, public_keys=[KEY.public_key()], checkpoint_s=10.0, now=NOW, pictures=pictures)
    print(*in_words(result), sep="\\n")
except StoreError as error:
    print(f"StoreError: {error}")
"""


def as_nobody(*words: Path, program: str = AS_NOBODY) -> str:
    """What somebody is told who owns nothing here."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)], capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def kept() -> Iterator[Path]:
    """A folder that everybody finds; those of pytest are for their owner alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


def given(folder: Path) -> None:
    """Everybody may read the files of a folder, and nobody write there."""
    for path in folder.iterdir():
        path.chmod(0o755 if path.is_dir() else 0o444)
    folder.chmod(0o555)


def test_a_copy_that_may_only_be_read_is_audited(kept: Path) -> None:
    """No -wal beside it, and nothing may be made there: it is read as it lies, and nothing is left behind."""
    path = make(kept)
    given(kept)
    names = sorted(file.name for file in kept.iterdir())
    told = as_nobody(path)
    assert "10 newest" in told
    assert "all as it was written" in told
    assert sorted(file.name for file in kept.iterdir()) == names


def test_what_cannot_be_opened_is_no_tampering(kept: Path) -> None:
    """A -wal that holds rows needs files that may not be made: that is an error with a remedy, and no finding."""
    path = make(kept)
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE more (x)")
        log = path.with_name(f"{STORE}-wal").read_bytes()
    path.with_name(f"{STORE}-wal").write_bytes(log)
    given(kept)
    told = as_nobody(path)
    assert told.startswith("StoreError:")
    assert "copy it with its -wal" in told
    assert "NOT AS IT WAS WRITTEN" not in told


def test_a_copy_that_is_written_meanwhile_is_not_judged(tmp_path: Path) -> None:
    """What was read of a file that somebody then wrote may be of two moments."""
    path = make(tmp_path)
    with closing(Unshared(path)) as database:
        database.opened = (0,)
        with pytest.raises(StoreError, match="was written while it was read"):
            check_unwritten(database, path)
    with closing(read_only(path, busy_s=1.0)) as database:
        check_unwritten(database, path)


def pictured(folder: Path) -> tuple[Path, Path, list[str]]:
    """A station's files with three pictures that lie there as they were entered: store, evidence folder, files."""
    path, evidence = folder / STORE, folder / "evidence"
    with closing(Store(path)) as store:
        add_records(store, 1, 3)
    files = [f"2026-11-23/L0/{number:032x}_top.png" for number in (1, 2, 3)]
    (evidence / "2026-11-23/L0").mkdir(parents=True)
    with closing(EvidenceLedger(ledger_path(path))) as ledger:
        for number, file in enumerate(files, 1):
            (evidence / file).write_bytes(PICTURE)
            row = Picture(f"{number:032x}", file, sha256(PICTURE).hexdigest(), 9, at(number).isoformat(), "NG")
            ledger.enter([row])
    Checkpoints(checkpoints_path(path), "cell-1", KEY).add(heads_of(path), at(61))
    return path, evidence, files


def tombstone(file: str, key: Ed25519PrivateKey) -> Tombstone:
    name = file.rpartition("/")[2].partition("_")[0]
    content = (name, f'[["{file}","{sha256(PICTURE).hexdigest()}"]]', "limit: max_gb", at(9).isoformat(), "1")
    signed = (*content, fingerprint_of(raw_public(key.public_key())))
    return Tombstone(*signed, key.sign(canonical(signed)).hex())


def test_pictures_that_may_not_be_read_are_not_called_missing(kept: Path) -> None:
    """They are counted apart, one that was deleted too; nothing is said of them, and the audit is not complete."""
    path, evidence, files = pictured(kept)
    with closing(EvidenceLedger(ledger_path(path))) as ledger:
        ledger.put_down([], [tombstone(files[0], KEY)])
        ledger.finished([files[0]])
    given(kept)
    evidence.chmod(0o700 if os.getuid() == 0 else 0o000)
    told = as_nobody(path, evidence)
    evidence.chmod(0o755)
    assert "3 pictures that may not be read here: nothing is said of them" in told
    assert "missing" not in told.partition("What it proves")[0]
    assert "good where they can be read" in told


@pytest.mark.parametrize("closed", ["evidence", "evidence/2026-11-23", "evidence/2026-11-23/L0"])
def test_a_folder_that_may_not_be_read_stops_no_trace(kept: Path, closed: str) -> None:
    """What the ledger knows, and a record whose pictures it does not know, are told as pictures that cannot be read."""
    path, evidence, files = pictured(kept)
    given(kept)
    (kept / closed).chmod(0o700 if os.getuid() == 0 else 0o000)
    told = as_nobody(path, evidence, program=TELL)
    (kept / closed).chmod(0o755)
    assert told.splitlines() == [
        str([(files[0], "unreadable")]),
        str([(f"2026-11-23/L0/{9:032x}", "unreadable")]),
    ]


def test_a_folder_of_unknown_pictures_that_may_not_be_read_is_named(kept: Path) -> None:
    """What lies there cannot show, so the audit says so, and is not complete."""
    path, evidence, _ = pictured(kept)
    (evidence / "2026-11-24" / "L1").mkdir(parents=True)
    given(kept)
    shut = evidence / "2026-11-24" / "L1"
    shut.chmod(0o700 if os.getuid() == 0 else 0o000)
    told = as_nobody(path, evidence)
    shut.chmod(0o755)
    assert (
        f"1 folder that may not be read here: what lies there and the ledger does not know does not show; first {shut}"
        in told
    )
    assert "all as it was written, except 1 folder that may not be read here" in told


def test_a_deletion_that_was_begun_is_said(tmp_path: Path) -> None:
    """Signed, and the file still there: neither good nor a finding; another file under that name is one."""
    path, evidence, files = pictured(tmp_path)
    with closing(EvidenceLedger(ledger_path(path))) as ledger:
        ledger.put_down([], [tombstone(files[0], KEY), tombstone(files[1], KEY)])
    result = verify(path, pictures=evidence)
    assert (result.good, result.begun and result.begun.first) == (True, (files[0], files[1]))
    assert "all as it was written, except 2 pictures whose deletion was begun" in "\n".join(in_words(result))
    (evidence / files[1]).write_bytes(b"another")
    (evidence / files[0]).unlink()
    result = verify(path, pictures=evidence)
    assert result.pictures is not None
    (finding,) = result.pictures.findings
    assert f"{files[1]}: it was deleted by retention, and is there again" in finding.what
    assert (result.begun and result.begun.files) == 0


def test_a_png_that_came_back_after_it_was_compressed_is_named(tmp_path: Path) -> None:
    """Also where the JPEG that stood for it was deleted since."""
    path = make(tmp_path)
    jpeg, png = (f"2026-11-23/L0/{1:032x}_top.{ending}" for ending in ("jpg", "png"))
    with closing(EvidenceLedger(ledger_path(path))) as ledger:
        ledger.finished([png, f"2026-11-23/L0/{2:032x}_top.png"])
        ledger.put_down(
            [], [Tombstone(f"{1:032x}", f'[["{jpeg}","{"9" * 64}"]]', "limit: max_gb", at(52).isoformat(), "1")]
        )
        ledger.finished([jpeg])
    (tmp_path / "evidence" / png).parent.mkdir(parents=True)
    (tmp_path / "evidence" / png).write_bytes(b"again")
    said = verify(path, pictures=tmp_path / "evidence").pictures
    assert said is not None
    assert "it was replaced by a JPEG, and is there again" in said.findings[0].what


def test_a_key_that_was_not_given_is_one_line_and_no_tampering(tmp_path: Path) -> None:
    """However many checkpoints and tombstones it signed: could not be verified, and nothing is called altered."""
    path, _, files = pictured(tmp_path)
    with closing(EvidenceLedger(ledger_path(path))) as ledger:
        ledger.put_down([], [tombstone(file, KEY) for file in files])
    result = verify(path, public_keys=[OTHER.public_key()])
    lines = list(in_words(result))
    assert not result.good
    assert [file.counts for file in result.files] == [{}, {}, {"unverified": 3}]
    assert len([line for line in lines if "public key was not given" in line]) == 1
    assert any(line.startswith("nothing could be proven") for line in lines)
    assert not [line for line in lines if "altered" in line.partition("What")[0] and not line.startswith(" ")]
    assert "NOT AS IT WAS WRITTEN" not in "\n".join(lines)


def test_a_change_of_key_without_the_old_one_is_one_line(tmp_path: Path) -> None:
    """The lines of the old key are counted in one sentence; those of the new one are verified."""
    path, _, _ = pictured(tmp_path)
    for second in (62, 63, 64):
        Checkpoints(checkpoints_path(path), "cell-1", KEY).add(heads_of(path), at(second))
    Checkpoints(checkpoints_path(path), "cell-1", OTHER).add(heads_of(path), at(65))
    result = verify(path, public_keys=[OTHER.public_key()])
    (finding,) = result.checkpoints.findings
    assert "checkpoint lines 1 to 4: 4 are signed with the key" in finding.what
    assert (result.checkpoints.signed, result.checkpoints.counts) == (1, {"unverified": 4})
    assert any(line.startswith("not all could be proven") for line in in_words(result))


def test_the_checkpoints_are_no_copy_of_themselves(tmp_path: Path) -> None:
    """Compared with itself, or with a link to it, any file agrees: that is refused."""
    path = make(tmp_path)
    (tmp_path / "link").symlink_to(checkpoints_path(path))
    for copy in (checkpoints_path(path), tmp_path / "link"):
        with pytest.raises(UsageError, match="own file of checkpoints"):
            verify(path, copy=copy)
    shutil.copy(checkpoints_path(path), tmp_path / "kept")
    assert verify(path, copy=tmp_path / "kept").good


def test_one_text_that_is_no_utf8_spoils_no_other_record(tmp_path: Path) -> None:
    """The record is named by its row as one that cannot be read; those before and after it are read."""
    path = make(tmp_path)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DROP TRIGGER records_keep")
        text = database.execute("SELECT json FROM records WHERE rowid = 3").fetchone()[0].encode()
        database.execute(
            "UPDATE records SET json = CAST(? AS TEXT) WHERE rowid = 3", (text.replace(b"cell-1", b"cell-\xff"),)
        )
    with closing(RecordReader(path)) as reader:
        found = dict(reader.readable_after(0, 5))
        assert [type(found[row]) for row in (2, 3, 4)] == [Record, UnreadableRecord, Record]
        with pytest.raises(UnreadableRecord, match="row 3"):
            reader.find(f"{3:032x}")
        assert reader.find(f"{4:032x}") is not None


def test_pictures_that_the_station_has_yet_to_enter_are_a_note(tmp_path: Path) -> None:
    """A record names it and none was entered with it: the next start does; one beside an entered picture is a finding."""
    path, evidence, _ = pictured(tmp_path)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DROP TRIGGER records_keep")
        sql = 'UPDATE records SET json = replace(json, \'"evidence":""\', ?) WHERE rowid = ?'
        for row in (1, 2):
            database.execute(sql, (f'"evidence":"2026-11-23/L0/{row:032x}"', row))
    with closing(EvidenceLedger(ledger_path(path))) as ledger, ledger.transaction() as database:
        database.execute("DROP TRIGGER pictures_stay")
        database.execute("DELETE FROM pictures WHERE record_id = ?", (f"{2:032x}",))
    later = evidence / f"2026-11-23/L0/{1:032x}_side.png"
    later.write_bytes(PICTURE)
    for file in later.parent.iterdir():
        os.utime(file, (NOW.timestamp() - 1e6,) * 2)
    result = verify(path, pictures=evidence)
    assert result.pictures is not None
    assert result.unknown is not None
    assert (result.unknown.files, [one.record_id for one in result.pictures.findings]) == (2, [f"{1:032x}"])
