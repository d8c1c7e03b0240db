"""Retention: what rules and limits touch, what they never touch, and what is left when it is killed."""

import itertools
import json
import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest
from cryptography.exceptions import InvalidSignature
from evidence_bench import NOISE, SOFT, PictureBench
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from inspection.audit.pictures import check_pictures
from inspection.chain import canonical
from inspection.cli import main
from inspection.errors import ConfigError, StoreError
from inspection.evidence import evidence_files, picture_of
from inspection.evidence_ledger import LEDGER, MARK, MIGRATIONS, EvidenceLedger, Picture, deleted_of, ledger_path
from inspection.log import OWN
from inspection.picture_state import PictureLedger, in_words
from inspection.read_only import ReadOnlyFile
from inspection.retention.ages import Clock
from inspection.retention.budget import Budget
from inspection.retention.folder import EvidenceFolder
from inspection.retention.plan import planned
from inspection.retention.rules import Part, fitting, protection, to_be_done
from inspection.retention.run import Retention
from inspection.retention.section import RetentionRule, RetentionSection
from inspection.retention.stop import Stop
from inspection.signing_keys import fingerprint_of, make_key, raw_public, read_public_key

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 23, tzinfo=UTC)
OLD_OK_GO = '[[retention.rules]]\nverdicts = ["OK"]\nafter_days = 30\nkeep = "nothing"\n'
OK_COMPRESSED = '[[retention.rules]]\nverdicts = ["OK"]\nafter_days = 7\nkeep = "compressed"\n'
REVIEWED_GO = (
    '[[retention.rules]]\nverdicts = ["NG", "REVIEW"]\ndispositions = ["confirmed", "false_call"]\nafter_days = 45\n'
    'keep = "nothing"\n'
)


@pytest.fixture
def bench(tmp_path: Path, demo_recipe: Path) -> PictureBench:
    return PictureBench(tmp_path, demo_recipe)


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """The log as it was: the command line sends it to a stderr that ends with its test."""
    log, root = logging.getLogger(OWN), logging.getLogger()
    before = log.handlers[:], root.handlers[:], log.level, log.propagate
    yield
    log.handlers[:], root.handlers[:], level, log.propagate = before
    log.setLevel(level)


def ledger_of(bench: PictureBench) -> ReadOnlyFile:
    return ReadOnlyFile(ledger_path(bench.store), LEDGER, mark=MARK, newest=len(MIGRATIONS))


def faults(bench: PictureBench) -> list[str]:
    """What the audit finds wrong with the pictures."""
    return [finding.what for finding in check_pictures(ledger_path(bench.store), bench.evidence).said.findings]


# Rules


VERDICTS = st.sampled_from(["OK", "NG", "REVIEW", "ERROR"])
DISPOSITIONS = st.sampled_from(["confirmed", "false_call", "escape", "unsure"])
CLASSES = st.sampled_from(["short", "open", "spur"])


@st.composite
def any_rule(draw: st.DrawFn) -> RetentionRule | None:
    """A rule with any words; None where the config refuses it."""
    try:
        return RetentionRule(
            verdicts=tuple(draw(st.lists(VERDICTS, min_size=1, max_size=4, unique=True))),
            classes=tuple(draw(st.lists(CLASSES, max_size=2, unique=True))),
            dispositions=tuple(draw(st.lists(DISPOSITIONS, max_size=4, unique=True))),
            after_days=draw(st.floats(0, 100)),
            keep=draw(st.sampled_from(["lossless", "compressed", "nothing"])),
        )
    except ValidationError:
        return None


@st.composite
def any_part(draw: st.DrawFn) -> Part:
    return Part(
        draw(VERDICTS), NOW - timedelta(days=draw(st.floats(0, 200))),
        late_verdict=draw(st.sampled_from(["", "OK", "NG", "REVIEW"])),
        classes=frozenset(draw(st.lists(CLASSES, max_size=3))),
        disposition=draw(st.sampled_from([None, "confirmed", "false_call", "escape"])),
        reviews=draw(st.integers(0, 2)), known=draw(st.booleans()),
    )  # fmt: skip


@given(st.lists(any_rule(), max_size=5), any_part())
def test_no_rule_ever_touches_what_is_protected(rules: list[RetentionRule | None], part: Part) -> None:
    """Whatever rules a config can hold: escapes, and NG and REVIEW parts that nobody decided on, stay as they are."""
    kept = [rule for rule in rules if rule is not None]
    chosen = to_be_done(kept, part, NOW)
    if part.disposition == "escape" or (
        {part.verdict, part.late_verdict} & {"NG", "REVIEW"} and part.disposition not in ("confirmed", "false_call")
    ):
        assert protection(part)
        assert chosen is None
    if chosen is not None:
        assert chosen is fitting(kept, part, NOW)
        assert chosen.keep != "lossless"
        assert part.verdict in chosen.verdicts
        assert NOW - part.at >= timedelta(days=chosen.after_days)


@given(st.lists(any_rule(), max_size=4), any_part())
def test_the_first_rule_that_fits_decides(rules: list[RetentionRule | None], part: Part) -> None:
    """No rule further down the list has a say once one fits."""
    kept = [rule for rule in rules if rule is not None]
    chosen = fitting(kept, part, NOW)
    alone = [rule for rule in kept if fitting([rule], part, NOW)]
    assert chosen is (alone[0] if alone else None)


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ('verdicts = ["NG"]\nafter_days = 9\nkeep = "nothing"', "nobody has reviewed"),
        ('verdicts = ["OK", "REVIEW"]\nafter_days = 9\nkeep = "compressed"', "nobody has reviewed"),
        ('verdicts = ["OK"]\ndispositions = ["escape"]\nafter_days = 9\nkeep = "compressed"', "always kept"),
        ('verdicts = ["NG"]\ndispositions = ["confirmed", "unsure"]\nafter_days = 9\nkeep = "nothing"', "always kept"),
        ('verdicts = ["OK"]\nafter_days = -1\nkeep = "nothing"', "greater than or equal to 0"),
        ('verdicts = []\nafter_days = 1\nkeep = "nothing"', "at least 1 item"),
        ('verdicts = ["OK"]\nafter_days = 1\nkeep = "little"', "lossless"),
        ('verdicts = ["OK"]\nafter_days = 1\nkeep = "nothing"\nforce = true', "unknown key"),
    ],
)
def test_a_rule_that_must_not_be_is_refused_with_the_reason(bench: PictureBench, rule: str, why: str) -> None:
    """A config that asks for what is never done does not load, and says why."""
    with pytest.raises(ConfigError, match=why):
        bench.config(f"[[retention.rules]]\n{rule}")


def test_a_rule_that_can_never_fit_is_refused(bench: PictureBench) -> None:
    """Shorter age first hides the longer one: that is said, not found out months later."""
    with pytest.raises(ConfigError, match="rule 2 can never fit: rule 1"):
        bench.config(OK_COMPRESSED + OLD_OK_GO)
    assert len(bench.config(OLD_OK_GO + OK_COMPRESSED).retention.rules) == 2


# What a pass does


def test_without_a_section_nothing_is_touched(bench: PictureBench, capsys: pytest.CaptureFixture[str]) -> None:
    """The default deletes nothing, and the command says so."""
    old = bench.add("OK", days=4000)
    bench.add()
    bench.config()
    assert main(["retention", str(bench.folder / "station.toml"), "--dry-run"]) == 0
    assert "every picture stays" in capsys.readouterr().out
    assert bench.run("").deleted == 0
    assert ["top.png"] == bench.files(old)


def test_old_pictures_go_and_leave_a_tombstone(bench: PictureBench) -> None:
    """Age decides: the old part's files are gone, their names and hashes stay, young ones and empty folders as they should."""
    old, young = bench.add("OK", days=31), bench.add("OK", days=29)
    foreign = bench.evidence / old.evidence.split("/")[0] / "keep.txt"
    gone = bench.add("OK", days=60)
    bench.add()
    foreign.write_text("mine")
    summary = bench.run(OLD_OK_GO)
    assert (summary.deleted, bench.files(old), bench.files(young)) == (2, [], ["top.png"])
    assert foreign.exists()
    assert not (bench.evidence / gone.evidence).parent.parent.exists()
    ledger = ledger_of(bench)
    (tombstone,) = deleted_of(ledger, old.record_id)
    ledger.close()
    assert [f"{old.evidence}_top.png"] == [file for file, _ in tombstone.named]
    assert "rule 1: OK after 30 days keep nothing" == tombstone.rule
    assert ("", "") == (tombstone.key, tombstone.signature)
    assert faults(bench) == []


def test_tombstones_are_signed_with_the_station_s_key(bench: PictureBench) -> None:
    """Who, what, when and why of a deletion cannot be changed without the key."""
    make_key(bench.folder / "audit.key")
    old = bench.add("OK", days=31)
    bench.add()
    bench.run(OLD_OK_GO + '[audit]\nkey = "audit.key"\n')
    ledger = ledger_of(bench)
    (tombstone,) = deleted_of(ledger, old.record_id)
    ledger.close()
    public = read_public_key(bench.folder / "audit.key.pub")
    *signed, signature = (getattr(tombstone, name) for name in tombstone.__slots__)
    assert fingerprint_of(raw_public(public)) == tombstone.key
    public.verify(bytes.fromhex(signature), canonical(signed))
    with pytest.raises(InvalidSignature):
        public.verify(bytes.fromhex(signature), canonical([*signed[:2], "by hand", *signed[3:]]))


@pytest.mark.parametrize(
    ("verdict", "disposition", "stays"),
    [("NG", "", True), ("NG", "unsure", True), ("NG", "confirmed", False), ("NG", "false_call", False),
     ("REVIEW", "", True), ("REVIEW", "false_call", False), ("OK", "escape", True), ("OK", "unsure", True),
     ("OK", "confirmed", False), ("OK", "", False), ("ERROR", "", False)],
)  # fmt: skip
def test_protected_parts_stay_even_beyond_the_limit(
    bench: PictureBench, verdict: str, disposition: str, stays: bool
) -> None:
    """Rules for everything and a limit of nearly nothing touch no part that is undecided, and no escape."""
    record = bench.add(verdict, days=400)
    bench.add(image=NOISE)
    if disposition:
        bench.review(record, disposition)
    rules = OLD_OK_GO + REVIEWED_GO + '[[retention.rules]]\nverdicts = ["ERROR"]\nafter_days = 1\nkeep = "nothing"\n'
    summary = bench.run(f"max_gb = 0.000001\n{rules}")
    assert (["top.png"] if stays else []) == bench.files(record)
    assert stays == bool(summary.over_bytes)


def test_an_error_part_whose_late_result_was_ng_is_protected(bench: PictureBench) -> None:
    """The true verdict counts, not only what was answered at the deadline."""
    late, plain = bench.add("ERROR", days=9, late="NG"), bench.add("ERROR", days=9, late="OK")
    bench.add()
    bench.run('[[retention.rules]]\nverdicts = ["ERROR"]\nafter_days = 1\nkeep = "nothing"\n')
    assert (bench.files(late), bench.files(plain)) == (["top.png"], [])


def test_a_part_that_the_store_does_not_know_is_kept_unless_it_was_ok(bench: PictureBench) -> None:
    """Without its record nobody can tell whether somebody still has to decide on it."""
    ng, ok = bench.add("NG", days=60, stored=False), bench.add("OK", days=60, stored=False)
    bench.review(ng, "confirmed")
    bench.add()
    bench.run(OLD_OK_GO + REVIEWED_GO)
    assert (bench.files(ng), bench.files(ok)) == (["top.png"], [])


def test_classes_choose(bench: PictureBench) -> None:
    """A deleting rule needs all classes of a part among its own, a keeping one any."""
    keep = '[[retention.rules]]\nverdicts = ["NG"]\nclasses = ["crack"]\nafter_days = 0\nkeep = "lossless"\n'
    drop = REVIEWED_GO.replace("after_days = 45", 'classes = ["short", "crack"]\nafter_days = 1')
    parts = {
        names: bench.add("NG", days=5, classes=names) for names in (("short",), ("short", "open"), ("crack", "short"))
    }
    for part in parts.values():
        bench.review(part, "confirmed")
    bench.add()
    bench.run(keep + drop)
    assert {("short",): 0, ("short", "open"): 1, ("crack", "short"): 1} == {
        names: len(bench.files(part)) for names, part in parts.items()
    }


def test_compressing_makes_a_jpeg_and_says_so(bench: PictureBench) -> None:
    """The frame becomes a smaller JPEG that looks the same, the raw picture goes with a tombstone, the ledger knows both."""
    record = bench.add("OK", days=8, raw=True)
    bench.add()
    before = sum(path.stat().st_size for path in evidence_files(bench.evidence, record.evidence))
    summary = bench.run(OK_COMPRESSED)
    assert (["top.jpg"], 1, 1) == (bench.files(record), summary.compressed, summary.deleted)
    path = picture_of(bench.evidence, record.evidence, "top")
    assert path is not None
    assert np.abs(cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(int) - SOFT).mean() < 4
    assert summary.freed_bytes == before - path.stat().st_size
    pictures = PictureLedger(bench.config())
    states = {state.name: state for state in pictures.states(record)}
    pictures.close()
    assert {"top": "compressed", "top_raw": "deleted"} == {name: state.state for name, state in states.items()}
    assert "only a compressed picture is left" in in_words(states["top"])
    assert "rule 1: OK after 7 days keep compressed" in in_words(states["top_raw"])
    assert (bench.run(OK_COMPRESSED).compressed, faults(bench)) == (0, [])
    bench.run(OK_COMPRESSED.replace("compressed", "nothing"))
    assert ([], []) == (bench.files(record), faults(bench))


def test_what_is_no_smaller_as_jpeg_stays_a_png(bench: PictureBench) -> None:
    """Noise in a JPEG saves nothing: the lossless picture is kept, and nothing else is left behind."""
    record = bench.add("OK", days=8, image=np.zeros((4, 4), np.uint8))
    bench.add()
    assert ["is no smaller as JPEG"] == [why.partition(" ")[2] for why in bench.run(OK_COMPRESSED).left.values()]
    assert (["top.png"], []) == (bench.files(record), faults(bench))


def test_the_limit_takes_what_cannot_be_compressed_like_any_other(bench: PictureBench) -> None:
    """A picture that is no smaller as JPEG is passed over by the rule alone: as the oldest it is the first that the limit takes."""
    flat = np.full((48, 64), 200, np.uint8)
    old, young = (bench.add("OK", days=days, image=flat) for days in (9, 0))
    size = (bench.evidence / f"{old.evidence}_top.png").stat().st_size
    with closing(Retention(bench.config(f"max_gb = {2.5 * size / 1e9:.12f}\n{OK_COMPRESSED}"), Stop())) as work:
        assert ([old.record_id], 0) == (list((first := work.one_pass()).left), first.deleted)
        again = bench.add("OK", image=flat)
        second = work.one_pass()
    assert ({}, 1) == (second.left, second.deleted)
    assert [[], ["top.png"], ["top.png"]] == [bench.files(record) for record in (old, young, again)]


def test_the_limit_takes_ok_then_error_then_reviewed_the_oldest_first(bench: PictureBench) -> None:
    """Beyond the limit pictures go in the stated order, and no more of them than needed."""
    order = [bench.add("OK", days=3), bench.add("OK", days=1), bench.add("ERROR", days=9), bench.add("NG", days=50)]
    kept = bench.add("OK", days=8, classes=())
    bench.review(order[3], "false_call")
    bench.review(kept, "confirmed")
    undecided = bench.add("NG", days=90)
    size = (bench.evidence / f"{kept.evidence}_top.png").stat().st_size
    wish = '[[retention.rules]]\nverdicts = ["OK"]\ndispositions = ["confirmed"]\nafter_days = 0\nkeep = "lossless"\n'
    gone = []
    for files in range(5, 0, -1):
        bench.run(f"max_gb = {(files * size + size / 2) / 1e9:.12f}\n{wish}")
        gone.append([bench.files(part) == [] for part in (*order, kept, undecided)].count(True))
    assert [1, 2, 3, 4, 5] == gone
    summary = bench.run(f"max_gb = {size / 2 / 1e9:.12f}\n{wish}")
    assert (["top.png"], {"not reviewed": 1}) == (bench.files(undecided), dict(summary.protected))
    assert summary.over_bytes > 0


def test_first_ok_then_error_then_reviewed(bench: PictureBench) -> None:
    """The very next one to go is always the one that the order names."""
    order = [bench.add("OK", days=3), bench.add("OK", days=1), bench.add("ERROR", days=9), bench.add("NG", days=50)]
    bench.review(order[3], "false_call")
    bench.add("NG", days=90)
    size = (bench.evidence / f"{order[0].evidence}_top.png").stat().st_size
    for gone in range(1, 5):
        bench.run(f"max_gb = {((5 - gone) * size + size / 2) / 1e9:.12f}")
        assert [[]] * gone + [["top.png"]] * (4 - gone) == [bench.files(part) for part in order]


def test_dry_run_changes_nothing_and_says_what_would_be(bench: PictureBench) -> None:
    """The plan names the rules with their counts; every file and the ledger stay as they are."""
    bench.add("NG", days=60)
    bench.add("OK", days=40)
    bench.add()
    config = bench.config(OLD_OK_GO + REVIEWED_GO)
    before = {path: path.read_bytes() for path in bench.folder.rglob("*.png")}
    summary, by_rule = planned(config)
    assert {"rule 1: OK after 30 days keep nothing": 1} == dict(by_rule)
    assert summary.total_bytes == sum(map(len, before.values()))
    assert before == {path: path.read_bytes() for path in bench.folder.rglob("*.png")}


def test_a_clock_that_leapt_ahead_ages_no_picture(bench: PictureBench) -> None:
    """Age counts up to the newest picture: a computer that believes in another year deletes nothing for it."""
    record = bench.add("OK", days=2)
    bench.add("OK", days=1)
    work = Retention(bench.config("budget_ms_per_s = 1000\n" + OLD_OK_GO), Stop())
    work.one_pass(now=datetime.now(UTC) + timedelta(days=3650))
    work.close()
    assert ["top.png"] == bench.files(record)


TIMES = st.lists(st.floats(0, 60), min_size=1, max_size=8)  # days between pictures


def clock_after(days: list[float]) -> Clock:
    clock = Clock()
    for day in days:
        clock.saw(NOW + timedelta(days=day))
    return clock


@given(TIMES)
def test_pictures_age_by_the_clock(pauses: list[float]) -> None:
    """Whatever the pauses, up to two months: the newest picture counts, and pictures age for a day after it."""
    days = [*itertools.accumulate(pauses)]
    clock, last = clock_after(days), NOW + timedelta(days=days[-1])
    assert clock.at == last
    assert clock.limit(last + timedelta(days=9)) == last + timedelta(days=1)
    assert clock.limit(last) == last


@given(TIMES, st.data())
def test_no_leap_of_less_than_a_day_ages_anything(pauses: list[float], drawn: st.DataObject) -> None:
    """Leaps ahead that were put right within a day, however many and far: at no moment is a later time believed."""
    days: list[float] = []
    for true in itertools.accumulate(pauses):
        days.append(true)
        leap = drawn.draw(st.floats(200, 40000))
        days += [true + leap + more for more in drawn.draw(st.lists(st.floats(0, 0.99), max_size=3).map(sorted))]
        at = clock_after(days).at
        assert at is not None
        assert at <= NOW + timedelta(days=true)
    assert clock_after([*days, true]).at == NOW + timedelta(days=true)


def test_a_clock_that_leapt_ahead_with_a_part_ages_nothing_until_it_is_borne_out(bench: PictureBench) -> None:
    """One part judged in another year, and a pass in that year, delete nothing; a line that goes on there a day later ages."""
    record = bench.add("OK", days=40)
    bench.add("OK", days=-1000)
    there = datetime.now(UTC) + timedelta(days=1002)
    config = bench.config("budget_ms_per_s = 1000\n" + OLD_OK_GO)
    assert planned(config, there)[1] == {}
    work = Retention(config, Stop())
    assert work.one_pass(now=there).deleted == 0
    bench.add("OK", days=-1001)
    assert work.one_pass(now=there).deleted == 1
    work.close()
    assert [] == bench.files(record)


# What is not as the ledger says


def test_altered_and_missing_pictures_are_left_for_people_to_see(bench: PictureBench) -> None:
    """Retention neither deletes nor compresses what is not what was written: that would hide it."""
    altered, missing, link = (bench.add("OK", days=40) for _ in range(3))
    bench.add()
    (bench.evidence / f"{altered.evidence}_top.png").write_bytes(b"\x89PNG other")
    (bench.evidence / f"{missing.evidence}_top.png").unlink()
    path = bench.evidence / f"{link.evidence}_top.png"
    aside = path.rename(bench.folder / "aside.png")
    path.symlink_to(aside)
    summary = bench.run(OLD_OK_GO)
    assert (0, {altered.record_id, missing.record_id, link.record_id}) == (summary.deleted, summary.left.keys())
    pictures = PictureLedger(bench.config())
    assert [["altered"], ["missing"], ["missing"]] == [
        [state.state for state in pictures.states(record)] for record in (altered, missing, link)
    ]
    pictures.close()
    assert aside.exists()


def test_a_folder_that_is_a_link_is_not_followed(bench: PictureBench) -> None:
    """A lot's folder that leads elsewhere is no folder of ours."""
    record = bench.add("OK", days=40)
    bench.add()
    lot = (bench.evidence / record.evidence).parent
    aside = lot.rename(bench.folder / "elsewhere")
    lot.symlink_to(aside)
    assert bench.run(OLD_OK_GO).deleted == 0
    assert [f"{record.record_id}_top.png"] == [path.name for path in aside.iterdir()]


@pytest.mark.parametrize("file", ["../aside.png", "/etc/passwd", "2026-01-01/L/../../x.png", "2026-01-01/L/x.toml"])
def test_no_row_leads_out_of_the_folder(bench: PictureBench, file: str) -> None:
    """A ledger that somebody wrote into cannot make retention touch anything but pictures below the folder."""
    aside = bench.folder / "aside.png"
    aside.write_bytes(b"x")
    bench.add()
    work = Retention(bench.config(OLD_OK_GO), Stop())
    with work._ledger.transaction() as database:
        database.execute("INSERT INTO unfinished VALUES (?, 'make', '')", (file,))
    work.one_pass()
    work.close()
    assert aside.exists()


def test_a_jpeg_of_somebody_else_is_not_overwritten(bench: PictureBench) -> None:
    """Where a file has the name that ours would get, the picture stays a PNG."""
    record = bench.add("OK", days=8)
    bench.add()
    foreign = bench.evidence / f"{record.evidence}_top.jpg"
    foreign.write_bytes(b"mine")
    assert [f"{record.evidence}_top.jpg lies there already"] == [*bench.run(OK_COMPRESSED).left.values()]
    assert (["top.jpg", "top.png"], b"mine") == (bench.files(record), foreign.read_bytes())


def test_only_one_retention_at_a_time(bench: PictureBench) -> None:
    """A second one is refused in words, and may begin when the first has ended."""
    bench.add()
    first = Retention(bench.config(OLD_OK_GO), Stop())
    with pytest.raises(StoreError, match="another retention is at work"):
        bench.run(OLD_OK_GO)
    first.close()
    bench.run(OLD_OK_GO)


def test_pictures_that_the_ledger_does_not_know_are_counted(
    bench: PictureBench, capsys: pytest.CaptureFixture[str]
) -> None:
    """No rule or limit reaches them: pass and plan say how many there are, and how they get entered."""
    record = bench.add("OK", days=1)
    for number in range(3):
        file = bench.evidence / f"{record.evidence}_more{number}.png"
        file.write_bytes(b"x")
        os.utime(file, (time.time() - 100,) * 2)
    config = bench.config("budget_ms_per_s = 1000\n" + OLD_OK_GO)
    for option in ("--dry-run", "--once"):
        assert main(["retention", str(bench.folder / "station.toml"), option]) == 0
        out = capsys.readouterr().out
        assert json.loads(out.splitlines()[0])["unknown_files"] == 3
        assert "3 pictures that the ledger does not know, not managed (a start of the station enters those" in out
        assert f"{record.record_id}_more0.png" in out
    assert planned(config)[0].unknown.files == 3


def test_beside_a_store_that_is_not_there_nothing_is_left(bench: PictureBench) -> None:
    """A wrong `store` is said; no lock, ledger or reserve is made there."""
    config = bench.config(OLD_OK_GO)
    for begin in (lambda: Retention(config, Stop()), lambda: planned(config)):
        with pytest.raises(StoreError, match="there is no record store"):
            begin()
    assert ["station.toml"] == [path.name for path in bench.folder.iterdir()]


@pytest.fixture
def read_only(bench: PictureBench) -> Iterator[PictureBench]:
    """A bench with old pictures in folders that nobody may write."""
    bench.add("OK", days=40)
    bench.add("OK", days=8, raw=True)
    bench.add()
    if os.getuid() != 0:
        folders = [path for path in bench.evidence.rglob("*") if path.is_dir()]
        for folder in folders:
            folder.chmod(0o555)
        yield bench
        for folder in folders:
            folder.chmod(0o755)
        return
    mount = shutil.which("mount") or "mount"
    bound = subprocess.run([mount, "--bind", bench.evidence, bench.evidence], check=False, capture_output=True)
    if bound.returncode != 0:
        pytest.skip("needs the right to mount: run it as a normal user instead of root")
    try:
        subprocess.run([mount, "-o", "remount,bind,ro", bench.evidence], check=True)
        yield bench
    finally:
        subprocess.run(["umount", "--lazy", bench.evidence], check=True)


def test_in_a_folder_that_cannot_be_written_nothing_is_buried(
    read_only: PictureBench, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names the folder and the remedy, and the ledger calls nothing deleted or compressed."""
    bench = read_only
    for rules in (OLD_OK_GO, OK_COMPRESSED, "max_gb = 0.000000001\n"):
        bench.config("budget_ms_per_s = 1000\n" + rules)
        assert main(["retention", str(bench.folder / "station.toml"), "--once"]) == 3
        err = capsys.readouterr().err
        assert f"pictures in {bench.evidence}{os.sep}" in err
        assert "writable" in err
    ledger = ledger_of(bench)
    assert [[], [], []] == [ledger.rows(f"SELECT * FROM {name}") for name in ("deleted", "compressed", "unfinished")]
    ledger.close()
    assert faults(bench) == []


# What refuses to go holds up nothing else


def once(bench: PictureBench, retention: str = OLD_OK_GO, option: str = "--once") -> tuple[int, dict[str, object], str]:
    """A pass in a process that may do no more than an ordinary user: exit code, the line of JSON, what was said."""
    bench.config(f"budget_ms_per_s = 1000\n{retention}")
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.getuid() == 0 else []
    if drop and shutil.which("setpriv") is None:
        pytest.skip("root is refused nothing, and there is no setpriv")
    done = subprocess.run(
        [*drop, sys.executable, "-m", "inspection", "retention", str(bench.folder / "station.toml"), option],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    told = json.loads(done.stdout.splitlines()[-1 if option == "--dry-run" else 0]) if done.stdout else {}
    return done.returncode, told, done.stdout + done.stderr


def test_a_folder_that_cannot_be_written_holds_up_no_other(bench: PictureBench) -> None:
    """Its records are named, left and tried again; those of other folders go, and the exit code says that something stayed."""
    first, second = bench.add("OK", days=40), bench.add("OK", days=50)
    bench.add()
    shut = (bench.evidence / first.evidence).parent
    shut.chmod(0o555)
    code, told, said = once(bench, option="--dry-run")
    assert (code, told["left_as_they_are"]) == (3, 1)
    code, told, said = once(bench)
    assert (code, told["deleted_files"], told["left_as_they_are"]) == (3, 1, 1)
    assert f"pictures in {shut} can neither be replaced nor removed (Permission denied)\n" in said
    assert (["top.png"], []) == (bench.files(first), bench.files(second))
    assert faults(bench) == []
    shut.chmod(0o755)
    assert once(bench)[0] == 0
    assert [] == bench.files(first)


def test_a_picture_that_cannot_be_removed_is_named_and_not_called_deleted(bench: PictureBench) -> None:
    """An immutable file gets no tombstone; the others of its folder go; it goes itself when it may."""
    if shutil.which("chattr") is None or os.getuid() != 0:
        pytest.skip("needs root and chattr")
    stays, goes = bench.add("OK", days=40), bench.add("OK", days=40)
    bench.add()
    file = bench.evidence / f"{stays.evidence}_top.png"
    if subprocess.run(["chattr", "+i", file], check=False, capture_output=True).returncode != 0:
        pytest.skip("this file system knows no immutable files")
    try:
        code, told, said = once(bench)
    finally:
        subprocess.run(["chattr", "-i", file], check=True)
    assert (code, told["deleted_files"], told["left_as_they_are"]) == (3, 1, 1)
    assert f"the picture {file} can neither be replaced nor removed" in said
    ledger = ledger_of(bench)
    assert ([], 1) == (deleted_of(ledger, stays.record_id), len(deleted_of(ledger, goes.record_id)))
    ledger.close()
    assert once(bench)[0] == 0
    assert [] == bench.files(stays)


def test_a_deletion_that_fails_is_tried_again_and_the_others_go_on(bench: PictureBench) -> None:
    """Where only the system's refusal shows that a file stays, its step stays open and its folder gets no more tombstones."""
    if os.getuid() != 0:
        pytest.skip("needs root to give files to somebody else")
    stays = [bench.add("OK", days=40) for _ in range(40)]
    goes = bench.add("OK", days=35)
    bench.add()
    shut = (bench.evidence / stays[0].evidence).parent
    shut.chmod(0o1777)
    for path in (shut, *shut.iterdir()):
        os.chown(path, 65534, 65534)
    for _ in range(2):
        code, told, said = once(bench)
        assert code == 3
        assert "cannot be removed (Operation not permitted)" in said
        ledger = ledger_of(bench)
        assert ledger.rows("SELECT count(*) FROM unfinished WHERE step = 'remove'") == [(16,)]
        ledger.close()
    assert [] == bench.files(goes)
    assert told["on_disk_mb"] == round(sum(path.stat().st_size for path in bench.evidence.rglob("*.png")) / 1e6, 3)
    os.chown(shut, 0, 0)
    assert once(bench)[0] == 0
    assert [] == [*shut.parent.glob("LOT/*.png")]
    assert faults(bench) == []


def test_what_belongs_to_somebody_else_in_a_sticky_folder_is_not_buried(bench: PictureBench) -> None:
    """The refusal is foreseen, so that no tombstone is signed for a file that stays."""
    if os.getuid() != 0:
        pytest.skip("needs root to act as others")
    record = bench.add("OK", days=40)
    file = f"{record.evidence}_top.png"
    for path in (bench.evidence, *bench.evidence.parents):
        if path.is_relative_to(bench.folder.parent.parent):
            path.chmod(0o755)
    lot = (bench.evidence / file).parent
    lot.chmod(0o1777)
    os.chown(lot, 65534, 65534)
    folder = EvidenceFolder(bench.evidence)
    os.seteuid(65533)
    try:
        refusal = folder.refusal(file)
    finally:
        os.seteuid(0)
    assert "somebody else" in refusal
    assert folder.refusal(file) == ""


def test_a_record_that_cannot_be_read_is_left_and_the_others_go(bench: PictureBench) -> None:
    """Its pictures stay, it is named, and every other record's go as the rules say."""
    altered, other = bench.add("NG", days=60), bench.add("NG", days=60)
    for record in (altered, other):
        bench.review(record, "confirmed")
    bench.add()
    with closing(sqlite3.connect(bench.store, isolation_level=None)) as database:
        for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
            database.execute(f"DROP TRIGGER {name}")
        database.execute(
            "UPDATE records SET json = replace(json, 'NG', 'OK') WHERE record_id = ?", (altered.record_id,)
        )
    assert planned(bench.config(REVIEWED_GO))[0].left.keys() == {altered.record_id}
    code, told, said = once(bench, REVIEWED_GO)
    assert (code, told["deleted_files"], told["left_as_they_are"]) == (0, 1, 1)
    assert f'1 record left as they are; first "{altered.record_id}: ' in said
    assert (["top.png"], []) == (bench.files(altered), bench.files(other))


@pytest.mark.parametrize("since", ["2026-01-01T99", "2026-01-01 or so", ""])
def test_a_time_that_cannot_be_read_holds_up_nothing(bench: PictureBench, since: str) -> None:
    """A row that somebody wrote into the working list is left, whatever stands in it; a row's time may be any."""
    with closing(EvidenceLedger(ledger_path(bench.store))) as ledger:
        for number, at in enumerate(["0001-01-01", "9999-12-31T23:59:59+00:00", "0001-01-01T00:00:00+23:59"]):
            ledger.enter([Picture(f"{number}", f"2026-01-01/L/{number}_a.png", "0", 1, at, "OK")])
    odd, other = bench.add("OK", days=40), bench.add("OK", days=40)
    bench.add()
    with closing(sqlite3.connect(ledger_path(bench.store), isolation_level=None)) as database:
        database.execute("UPDATE present SET since = ? WHERE record_id = ?", (since, odd.record_id))
    summary = bench.run("max_gb = 0.000000001\n" + OLD_OK_GO)
    assert (["top.png"], []) == (bench.files(odd), bench.files(other))
    assert odd.record_id in summary.left
    assert planned(bench.config(OLD_OK_GO))[0].left


# The limit, and what lies on the disk


@given(st.lists(st.booleans(), min_size=1, max_size=12))
@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_files_that_are_missing_make_no_others_go(tmp_path: Path, demo_recipe: Path, there: list[bool]) -> None:
    """Whichever files people removed: what lies there within the limit stays, and one file too many costs one file."""
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        bench = PictureBench(Path(folder), demo_recipe)
        records = [bench.add("OK", days=5) for _ in there]
        files = [bench.evidence / f"{record.evidence}_top.png" for record in records]
        size = files[0].stat().st_size
        for file in (file for file, stays in zip(files, there, strict=True) if not stays):
            file.unlink()
        kept = sum(there)
        for fewer in (0, 1):
            limit = f"max_gb = {max(1, kept * size - fewer) / 1e9:.12f}\n"
            plan, _ = planned(bench.config(limit))
            summary = bench.run(limit)
            expected = min(fewer, kept)
            assert (expected, expected * size) == (summary.deleted, plan.freed_bytes)
            assert len(there) - kept == summary.missing.files == plan.missing.files
            assert sum(file.exists() for file in files) == kept - expected
            assert summary.total_bytes == (kept - expected) * size


def test_compressed_and_deleted_files_are_not_missing(bench: PictureBench) -> None:
    """What retention itself replaced or removed is where the ledger says; only what people took counts."""
    small, other = bench.add("OK", days=8, raw=True), bench.add("OK", days=8)
    bench.add()
    bench.run(OK_COMPRESSED)
    config = bench.config("max_gb = 0.000000001")
    assert planned(config)[0].missing.files == 0
    (bench.evidence / f"{small.evidence}_top.jpg").unlink()
    missing = planned(config)[0].missing
    assert (1, {small.record_id}, [f"{small.evidence}_top.jpg"]) == (missing.files, missing.records, missing.first)
    assert ["top.jpg"] == bench.files(other)


def test_a_pass_looks_for_missing_files_again(bench: PictureBench) -> None:
    """What people remove while retention runs is not counted at the next pass either."""
    records = [bench.add("OK", days=5) for _ in range(4)]
    size = (bench.evidence / f"{records[0].evidence}_top.png").stat().st_size
    work = Retention(bench.config(f"budget_ms_per_s = 1000\nmax_gb = {3 * size / 1e9:.12f}"), Stop())
    assert work.one_pass().deleted == 1
    (bench.evidence / f"{records[1].evidence}_top.png").unlink()
    bench.add()
    wait_for(lambda: time.monotonic() >= work._look_again_s)  # a look may take a tenth of the time
    summary = work.one_pass()
    work.close()
    assert (0, 1, 3 * size) == (summary.deleted, summary.missing.files, summary.total_bytes)


def test_the_limit_goes_on_behind_what_stays(bench: PictureBench) -> None:
    """A picture that was altered frees nothing: the next oldest goes in its place, in the same pass."""
    altered, other, young = (bench.add("OK", days=days) for days in (9, 8, 7))
    file = bench.evidence / f"{altered.evidence}_top.png"
    size = file.stat().st_size
    file.write_bytes(b"\x89PNG other")
    summary = bench.run(f"max_gb = {2 * size / 1e9:.12f}")
    assert (1, 0) == (summary.deleted, summary.over_bytes)
    assert ([], ["top.png"]) == (bench.files(other), bench.files(young))


def test_the_plan_says_what_it_frees_and_what_stays_above_the_limit(bench: PictureBench) -> None:
    """A limit that protected parts make impossible shows before anything is done."""
    gone, undecided = bench.add("OK", days=9), bench.add("NG", days=9)
    sizes = [(bench.evidence / f"{record.evidence}_top.png").stat().st_size for record in (gone, undecided)]
    code, told, _ = once(bench, "max_gb = 0.000000001", "--dry-run")
    assert (code, told["would_free_mb"]) == (0, round(sizes[0] / 1e6, 3))
    assert told["over_limit_mb"] == round((sizes[1] - 1) / 1e6, 3)
    assert once(bench, "max_gb = 0.000000001")[1]["over_limit_mb"] == told["over_limit_mb"]


@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
def test_without_its_evidence_folder_nothing_is_done(bench: PictureBench, left: str) -> None:
    """A disk that is not mounted is said; the ledger stays as it is, and the pictures are no missing ones."""
    record = bench.add("OK", days=40)
    bench.add()
    aside = bench.evidence.rename(bench.folder / "aside")
    if left != "nothing":
        bench.evidence.mkdir()
    for option in ("--dry-run", "--once"):
        code, told, said = once(bench, option=option)
        assert (code, told) == (3, {})
        assert f"evidence folder {bench.evidence}" in said
        assert "mount the disk" in said
    if left != "nothing":
        bench.evidence.rmdir()
    aside.rename(bench.evidence)
    assert once(bench)[1]["deleted_files"] == 1
    assert [] == bench.files(record)


def test_a_station_without_pictures_needs_no_folder(bench: PictureBench) -> None:
    """Before the first picture there is nothing to do, and that is no failure."""
    bench.add_record("a" * 32, "skipped: not sampled")
    assert [0, 0] == [once(bench, option=option)[0] for option in ("--dry-run", "--once")]


def test_a_key_that_may_not_be_read_is_not_to_be_made_anew(bench: PictureBench) -> None:
    """The remedy is permission, not another key."""
    if os.getuid() != 0:
        pytest.skip("needs root to give files to somebody else")
    bench.add()
    make_key(bench.folder / "audit.key")
    os.chown(bench.folder / "audit.key", 65534, 65534)
    code, _, said = once(bench, OLD_OK_GO + '[audit]\nkey = "audit.key"\n')
    assert code == 2
    assert "audit.key (Permission denied)\nrun this as the user who owns the key" in said


# Killed, beside a station, on a full disk


def test_killed_at_any_step_nothing_is_lost_and_the_next_run_finishes(bench: PictureBench) -> None:
    """SIGKILL before and after every write, commit, fsync and unlink of a pass: no file without its row, no row unfinished."""
    bench.add("OK", days=40, raw=True)
    bench.add("OK", days=8, raw=True)
    bench.add("NG", days=60)
    bench.add()
    bench.config("budget_ms_per_s = 1000\n" + OLD_OK_GO + OK_COMPRESSED)
    program = Path(__file__).with_name("retention_kills.py")
    done = subprocess.run(
        [sys.executable, str(program), str(bench.folder)], cwd=ROOT, capture_output=True, text=True, timeout=600,
        check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(program.parent)])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["wrong"] == []
    assert told["kills"] > 40


@pytest.fixture
def started(bench: PictureBench) -> Iterator[subprocess.Popen[str]]:
    """Retention as it runs beside a station: a process of its own, at work on forty old parts."""
    for _ in range(40):
        bench.add("OK", days=40, image=SOFT)
    bench.add()
    bench.config("budget_ms_per_s = 20\nevery_s = 1\n" + OLD_OK_GO)
    command = [sys.executable, "-m", "inspection", "retention", str(bench.folder / "station.toml")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def wait_for(condition: object, limit_s: float = 300.0) -> None:
    end_s = time.monotonic() + limit_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end_s, "did not come about in time"
        time.sleep(0.02)


def test_the_process_steps_back_and_ends_in_order(bench: PictureBench, started: "subprocess.Popen[str]") -> None:
    """It has the lowest priority, keeps to its work, and on SIGTERM ends with exit code 0 and nothing half done."""
    count = len(list(bench.evidence.rglob("*.png")))
    wait_for(lambda: len(list(bench.evidence.rglob("*.png"))) < count or started.poll() is not None)
    assert os.getpriority(os.PRIO_PROCESS, started.pid) == 19
    assert os.sched_getscheduler(started.pid) == os.SCHED_BATCH
    started.send_signal(signal.SIGTERM)
    assert started.wait(timeout=300) == 0
    assert faults(bench) == []
    ledger = ledger_of(bench)
    assert [] == ledger.rows("SELECT * FROM unfinished")
    ledger.close()


def test_the_budget_is_held() -> None:
    """However long a step takes, the pause after it makes up for it; waiting for a processor is not work."""
    now, queued = [0.0], [0.0]

    def rest(seconds: float) -> None:
        now[0] += seconds

    budget = Budget(50, rest, clock=lambda: now[0], queued=lambda: queued[0])
    for took_s in (0.001, 0.2, 0.03) * 5:
        with budget.spend():
            now[0] += took_s
    assert budget.share == pytest.approx(0.05)
    with budget.spend():
        now[0] += 5.0
        queued[0] += 5.0
    assert budget.share < 0.05


def test_a_section_without_limits_asks_for_nothing() -> None:
    """Rules that keep losslessly delete nothing."""
    assert not RetentionSection().asks_for_something
    kept = RetentionRule(verdicts=("NG",), after_days=0, keep="lossless")
    assert not RetentionSection(rules=(kept,)).asks_for_something
    assert RetentionSection(max_gb=1).asks_for_something


@pytest.fixture
def small_disk(tmp_path: Path, demo_recipe: Path) -> Iterator[PictureBench]:
    """A station's folder on a disk of three megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    yield PictureBench(folder, demo_recipe)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Take the last byte of a disk."""
    with (folder / "ballast").open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    assert shutil.disk_usage(folder).free == 0


def test_on_a_disk_that_was_full_before_the_first_run_the_remedy_is_said(small_disk: PictureBench) -> None:
    """Without space for one tombstone nothing can go: how much to free, not that pictures are entered later."""
    bench = small_disk
    for _ in range(10):
        bench.add("OK", days=2, image=NOISE)
    work = Retention(bench.config("budget_ms_per_s = 1000\nmax_gb = 0.000006"), Stop())
    fill(bench.folder)
    with pytest.raises(StoreError, match="is full") as raised:
        work.one_pass()
    work.close()
    assert "free 512 KiB or more on that disk by other means" in raised.value.fix


def test_a_full_disk_is_freed(small_disk: PictureBench) -> None:
    """With not one byte left the tombstones still find room, and then there is space again."""
    bench = small_disk
    for _ in range(10):
        bench.add("OK", days=2, image=NOISE)
    undecided = bench.add("NG", days=2, image=NOISE)
    bench.run("max_gb = 1")  # has run before, as it does beside a station
    fill(bench.folder)
    work = Retention(bench.config("budget_ms_per_s = 1000\nmax_gb = 0.000006"), Stop())
    summary = work.one_pass()
    work.close()
    assert summary.deleted == 10
    assert shutil.disk_usage(bench.folder).free > 0
    assert (["top.png"], []) == (bench.files(undecided), faults(bench))
