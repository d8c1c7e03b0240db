"""`lineside trace`: everything about a part, and all parts of a lot, with a defect, by a model or a recipe."""

import json
import math
import os
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from inspection.chain import canonical
from inspection.chain_place import checkpoints_path
from inspection.cli import main
from inspection.config import load_station
from inspection.errors import ConfigError, StoreError
from inspection.golden_place import on_golden
from inspection.recipe_versions import find_version
from inspection.record_reader import RecordReader
from inspection.reviews import ReviewStore, reviews_path
from inspection.station_places import read_places
from inspection.store import Store
from inspection.trace import Tracer
from inspection.trace_queries import INDEXED
from inspection.trace_search import DefectSearch, find_defect, find_judged_by, find_lot
from inspection.types import Detection, Judgement, Reason, Record, Region, Review, Trigger, Verdict, new_id, utc_now
from tools.month import make_month
from tools.month_plan import Wanted

BEGIN = datetime(2026, 10, 1, tzinfo=UTC)
SIZE = (640, 640)
HOT = (412.0, 236.0)


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("month") / "station"
    make_month(folder, Wanted(parts=1200, ng=240, reviews=120, pictures=8))
    return folder


@pytest.fixture(scope="module")
def names(month: Path) -> frozenset[str]:
    """Everything that can be searched for in the month; drawn texts hold words of the program, such as a defect class."""
    found = set()
    for one in records(month):
        found |= {one.record_id, one.serial, one.trigger.lot, *(finding.defect_class for finding in one.detections)}
    return frozenset(found)


@pytest.fixture
def own_month(month: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(month, tmp_path / "own"))


@pytest.fixture
def tracer(month: Path) -> Iterator[Tracer]:
    with tracing(month) as made:
        yield made


@contextmanager
def tracing(folder: Path) -> Iterator[Tracer]:
    """A tracer of the station in a folder."""
    places = read_places(folder / "station.toml")
    with closing(RecordReader(Path(places.store))) as reader, closing(Tracer(places, reader)) as made:
        yield made


def rows(folder: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "records.sqlite")) as database:
        return database.execute(sql, values).fetchall()


def records(folder: Path) -> list[Record]:
    return [Record.from_json(text) for (text,) in rows(folder, "SELECT json FROM records ORDER BY rowid")]


def trace(folder: Path, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["trace", str(folder / "station.toml"), *map(str, words)])
    out = capsys.readouterr()
    return code, out.out, out.err


def document(folder: Path, capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    code, out, _ = trace(folder, capsys, *words, "--json")
    assert 0 == code
    return json.loads(out)


def add_record(folder: Path, **change: Any) -> Record:
    """Store one more record, as a station would."""
    like = records(folder)[-1]
    trigger = Trigger(new_id(), change.pop("serial", "EXTRA"), change.pop("lot", "EXTRA-LOT"), "demo-pcb", utc_now())
    record = replace(like, trigger=trigger, record_id=new_id(), judged_at=utc_now(), **change)
    with closing(Store(folder / "records.sqlite")) as store:
        store.accept(trigger)
        store.commit(record)
    return record


# ---- one part


def test_serial_gives_all_of_its_record(month: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The record, its findings, limits, chain place and counts are all there, and are those of the store."""
    wanted = [one for one in records(month) if one.judgement.verdict == Verdict.NG][-1]
    told = document(month, capsys, wanted.serial)
    part = told["parts"][0]
    assert json.loads(wanted.to_json()) == part["record"]
    assert len(wanted.detections) == len(part["findings"])
    assert {one for reason in wanted.judgement.reasons for one in (reason.detections[0].defect_class,)} <= {
        one["class"] for one in part["findings"] if one["decides"]
    }
    assert rows(month, "SELECT count(*) FROM records WHERE lot = ?", wanted.trigger.lot) == [(part["lot_parts"],)]
    assert [801, 1200] == part["rows_alike"]
    code, text, _ = trace(month, capsys, wanted.serial)
    assert 0 == code
    words = (
        "NG",
        "limits",
        "frames",
        "golden",
        "measured",
        "judged on  lineside 0.0, onnxruntime",
        "chain",
        "lineside replay",
    )
    for word in (wanted.record_id, *words):
        assert word in text


def test_serial_used_twice_is_said(month: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both records of a serial that was used twice are told, and that it was."""
    code, text, _ = trace(month, capsys, "PCB00000300")
    assert (0, True) == (code, "was used 2 times" in text)
    told = document(month, capsys, "PCB00000300")
    assert [600, 300] == [part["row"] for part in told["parts"]]
    assert (2, 2) == (told["records"], told["parts"][0]["serial_used"])


def test_records_of_a_serial_beyond_the_limit_are_counted(month: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--limit shortens what is told, and the text says by how many."""
    _, text, _ = trace(month, capsys, "PCB00000300", "--limit", 1)
    assert "1 more record of this serial" in text


def test_unknown_serial_names_those_that_begin_alike(month: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, and serials with the same beginning."""
    code, out, err = trace(month, capsys, "PCB0000030")
    assert (1, "") == (code, out)
    assert "PCB00000301" in err
    code, _, err = trace(month, capsys, "zzz")
    assert (1, True) == (code, "no serial begins like it" in err)


def test_record_is_found_by_its_id(month: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--record tells the same part; an unknown id is exit code 1."""
    wanted = records(month)[42]
    assert wanted.record_id == document(month, capsys, "--record", wanted.record_id)["record"]["record_id"]
    assert 1 == trace(month, capsys, "--record", wanted.record_id[:-1])[0]


def test_limits_are_those_of_the_version_that_judged(tracer: Tracer, month: Path) -> None:
    """Each part shows the limits of its own version; of one that is not kept here it says so."""
    first, second, third = (tracer._part(row, records(month)[row - 1], 1) for row in (1, 500, 1200))
    assert ("not_here", ()) == (first.version.why_not, first.version.limits)
    assert {0.5} == {limits.ng_score for limits in second.version.limits}
    assert {0.44} == {limits.ng_score for limits in third.version.limits}
    assert (False, True) == (second.version.in_force, third.version.in_force)


def test_versions_are_those_that_find_version_finds(tracer: Tracer, month: Path) -> None:
    """The quick look finds the same folder as the one that loads recipes."""
    for _, recipe_id, digest, _ in rows(month, "SELECT * FROM judged_by"):
        found = find_version(month / "recipes" / "demo-pcb", digest)
        assert (str(found) if found else "") == tracer.versions.of(recipe_id, digest).folder


def test_limits_of_a_changed_recipe_are_not_claimed(own_month: Path) -> None:
    """When recipe.toml is not as it was sealed, no limit is shown."""
    toml = own_month / "recipes" / "demo-pcb" / "recipe.toml"
    toml.write_text(toml.read_text().replace("0.440", "0.900"))
    with tracing(own_month) as tracer:
        part = tracer.record(records(own_month)[-1].record_id)
    assert part is not None
    assert ("changed", ()) == (part.version.why_not, part.version.limits)


def test_golden_tells_whether_it_is_as_sealed(own_month: Path) -> None:
    """A golden that was exchanged or lost is said, and the limits are told all the same."""
    golden = own_month / "recipes" / "demo-pcb" / "golden.png"
    states = []
    for change in (lambda: None, lambda: golden.write_bytes(golden.read_bytes() + b"x"), golden.unlink):
        change()
        with tracing(own_month) as tracer:
            part = tracer.record(records(own_month)[-1].record_id)
        assert part is not None
        states.append((part.version.goldens[0].state, len(part.version.limits)))
    assert [("sealed", 6), ("changed", 6), ("missing", 6)] == states


@pytest.mark.parametrize("name", ["../../etc", "a/b", "", "demo-pcb\n"])
def test_recipe_id_never_becomes_a_path(tracer: Tracer, name: str) -> None:
    """A recipe id or a SHA-256 of odd form is looked for nowhere."""
    assert "no_recipe" == tracer.versions.of(name, "0" * 64).why_not
    assert "no_recipe" == tracer.versions.of("demo-pcb", "../" + "0" * 61).why_not


def test_place_in_the_chain_is_that_of_the_entry(tracer: Tracer, month: Path) -> None:
    """Sequence and link are those of the entry that names the record, whatever else stands in between."""
    entries = {
        subject: (number, link.hex())
        for number, kind, subject, _, link in rows(month, "SELECT * FROM chain")
        if kind == "record"
    }
    signed = [json.loads(line) for line in checkpoints_path(month / "records.sqlite").read_text().splitlines()]
    for record in records(month)[::37]:
        part = tracer.record(record.record_id)
        assert part is not None
        assert entries[record.record_id] == (part.chain.sequence, part.chain.link)
        first = next(line for line in signed if line["records"][0] >= part.chain.sequence)
        assert part.chain.checkpoint is not None
        assert (first["number"], first["key"]) == (part.chain.checkpoint.number, part.chain.checkpoint.key)


def test_record_without_an_entry_in_the_chain_is_said(own_month: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A record whose entry was taken out of the chain is told as not as written, one that no checkpoint holds yet as such."""
    newest = add_record(own_month)
    with tracing(own_month) as tracer:
        part = tracer.record(newest.record_id)
    assert part is not None
    assert part.chain.sequence > 1200
    assert part.chain.checkpoint is None
    with closing(sqlite3.connect(own_month / "records.sqlite")) as database:
        database.execute("DROP TRIGGER chain_stay")
        database.execute("DELETE FROM chain WHERE subject = ?", (newest.record_id,))
        database.commit()
    with tracing(own_month) as tracer:
        part = tracer.record(newest.record_id)
    assert part is not None
    assert ("not_named", ("missing",)) == (part.chain.why_not, part.chain.altered)
    code, text, _ = trace(own_month, capsys, "--record", newest.record_id)
    assert (1, True) == (code, text.startswith("NOT as it was written: its entry in the chain is missing;"))
    code, out, _ = trace(own_month, capsys, "--lot", newest.trigger.lot, "--json")
    assert (1, [False]) == (code, [line["as_written"] for line in json.loads(out)["listed"]])


def test_records_from_before_the_chain_are_not_called_altered(tmp_path: Path, own_month: Path) -> None:
    """Rows that an earlier version stored have no entry and are not accused of it; those after them are checked."""
    path = tmp_path / "own" / "records.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.execute("DROP TRIGGER chain_stay")
        database.execute("DELETE FROM chain")
        database.commit()
    newest = add_record(own_month)  # a store that is opened anew begins its chain with how many rows there were
    with tracing(own_month) as tracer:
        lines = [line for row in (1, 700, 1200, 1201) for line in tracer.checked(tracer.queries.between(row, row, 1))]
        old, new = tracer.record(lines[1].record_id), tracer.record(newest.record_id)
    assert [None, None, None, True] == [line.as_written for line in lines]
    assert old is not None
    assert new is not None
    assert [("not_named", ()), ("", ())] == [(part.chain.why_not, part.chain.altered) for part in (old, new)]


def test_torn_line_among_the_checkpoints_hides_no_other(own_month: Path) -> None:
    """What a power cut left in the file of checkpoints does not keep the next checkpoint from being found."""
    path = checkpoints_path(own_month / "records.sqlite")
    lines = path.read_bytes().splitlines(keepends=True)
    middle = len(lines) // 2
    path.write_bytes(b"".join([*lines[:middle], b'{"at":"2026\n', *lines[middle:], b'{"torn']))
    numbers = []
    with tracing(own_month) as tracer:
        for record in records(own_month)[::50]:
            part = tracer.record(record.record_id)
            assert part is not None
            assert part.chain.checkpoint is not None
            first = next(one for one in map(json.loads, lines) if one["records"][0] >= part.chain.sequence)
            numbers.append(first["number"] == part.chain.checkpoint.number)
    assert all(numbers)


def test_reviews_tell_who_and_when_and_which_stands(own_month: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All reviews of a part are told; the latest deciding word stands."""
    record = next(one for one in records(own_month) if one.judgement.verdict == Verdict.REVIEW)
    with closing(ReviewStore(reviews_path(own_month / "records.sqlite"))) as reviews:
        for number, (who, word) in enumerate((("ann", "confirmed"), ("bob", "false_call"), ("ann", "unsure"))):
            reviews.add(Review(record.record_id, word, who, utc_now(), f"no {number}"), key=f"test-key-{number}")  # type: ignore[arg-type]
        given = reviews.of(record.record_id)
    told = document(own_month, capsys, "--record", record.record_id)["reviews"]
    assert [review.comment for review in given] == [review["comment"] for review in told]
    assert ["bob"] == [review["reviewer"] for review in told if review["stands"]]


def test_stored_pictures_are_told_with_their_state(own_month: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A picture that is there and one that is gone are told apart."""
    with_picture = [one for one in records(own_month) if one.evidence]
    gone, there = with_picture[-1], with_picture[-2]
    next((own_month / "evidence").rglob(f"{gone.record_id}*")).unlink()
    states = [
        {picture["state"] for picture in document(own_month, capsys, "--record", one.record_id)["pictures"]}
        for one in (gone, there)
    ]
    assert [{"missing"}, {"unentered"}] == states


def test_late_result_is_told(month: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What came after the deadline stands beside what the controller was told."""
    found = rows(month, "SELECT record_id FROM late_results")
    if not found:  # a small month may have none
        pytest.fail("choose a seed with a late result")
    code, text, _ = trace(month, capsys, "--record", found[0][0])
    assert (0, True) == (code, "late result" in text)


# ---- what was altered


def alter(folder: Path, table: str, sql: str, *values: Any) -> None:
    """Change a table behind the program's back, its guard dropped."""
    guard = {"records": "records_keep", "late_results": "late_keep"}[table]
    with closing(sqlite3.connect(folder / "records.sqlite")) as database:
        database.execute(f"DROP TRIGGER {guard}")
        database.execute(f"UPDATE {table} SET {sql}", values)
        database.commit()


def test_record_altered_in_text_and_columns_is_told_first(own_month: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A forged record is never lent the signature of its entry: the first line, the document and the exit code say so."""
    forged, left = [one for one in records(own_month) if one.judgement.verdict == Verdict.NG][-2:]
    text = replace(forged, judgement=Judgement(Verdict.OK), detections=()).to_json()
    alter(own_month, "records", "json = ?, verdict = 1 WHERE record_id = ?", text, forged.record_id)
    code, text, _ = trace(own_month, capsys, forged.serial)
    assert (1, True) == (code, text.startswith("NOT as it was written: the record was altered"))
    assert "lineside audit" in text.splitlines()[0]
    assert "signed with" not in next(line for line in text.splitlines() if line.startswith("  chain"))
    code, out, _ = trace(own_month, capsys, "--record", forged.record_id, "--json")
    told = json.loads(out)
    assert (1, False, ["record"]) == (code, told["as_written"], told["chain"]["altered"])
    assert document(own_month, capsys, "--record", left.record_id)["as_written"]


def test_entry_that_was_altered_along_with_its_record_is_told(own_month: Path) -> None:
    """An entry made to fit a forged record does not follow from the entry before it, and that is said."""
    forged = [one for one in records(own_month) if one.judgement.verdict == Verdict.NG][-1]
    text = replace(forged, judgement=Judgement(Verdict.OK), detections=()).to_json()
    alter(own_month, "records", "json = ?, verdict = 1 WHERE record_id = ?", text, forged.record_id)
    with tracing(own_month) as tracer:
        digest = sha256(canonical(tracer.queries.content_of(forged.record_id))).digest()
    with closing(sqlite3.connect(own_month / "records.sqlite")) as database:
        database.execute("DROP TRIGGER chain_keep")
        database.execute("UPDATE chain SET content_sha256 = ? WHERE subject = ?", (digest, forged.record_id))
        database.commit()
    with tracing(own_month) as tracer:
        part = tracer.record(forged.record_id)
    assert part is not None
    assert ("entry",) == part.chain.altered


def test_every_record_of_a_sound_store_is_as_written(tracer: Tracer, month: Path) -> None:
    """No record is called altered that is not, with and without a late result."""
    late = {name for (name,) in rows(month, "SELECT record_id FROM late_results")}
    chosen = [one.record_id for one in records(month) if one.record_id in late] + [
        one.record_id for one in records(month)[::31]
    ]
    assert late
    assert {()} == {part.chain.altered for part in map(tracer.record, chosen) if part is not None}


def test_altered_trigger_time_and_late_result_are_told(own_month: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the entry holds besides the record counts too: its trigger, and its late result, changed or taken away."""
    ((name, text),) = rows(own_month, "SELECT record_id, json FROM late_results LIMIT 1")
    alter(own_month, "late_results", "json = ? WHERE record_id = ?", text.replace("total", "totalled"), name)
    code, said, _ = trace(own_month, capsys, "--record", name)
    assert (1, True) == (code, "its late result was altered" in said.splitlines()[0])
    with closing(sqlite3.connect(own_month / "records.sqlite")) as database:
        database.execute("DROP TRIGGER late_stay")
        database.execute("DELETE FROM late_results WHERE record_id = ?", (name,))
        database.execute(
            "UPDATE triggers SET accepted_at = '2026-10-01T00:00:00+00:00' WHERE trigger_id ="
            " (SELECT trigger_id FROM records WHERE record_id = ?)",
            (name,),
        )
        database.commit()
    with tracing(own_month) as tracer:
        part = tracer.record(name)
    assert part is not None
    assert ("record", "late") == part.chain.altered


def test_record_that_cannot_be_read_is_named_and_hides_no_other(
    own_month: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A verdict that was edited without its reasons: the record and its row are named, the others of the serial are told."""
    first, second = (add_record(own_month, serial="TWO") for _ in range(2))
    ((row,),) = rows(own_month, "SELECT rowid FROM records WHERE record_id = ?", first.record_id)
    text = first.to_json().replace('"verdict":"NG"', '"verdict":"OK"')
    if text == first.to_json():
        text = text.replace('"verdict":"OK"', '"verdict":"NG"')
    alter(own_month, "records", "json = ? WHERE record_id = ?", text, first.record_id)
    code, said, _ = trace(own_month, capsys, "TWO")
    assert 1 == code
    for word in (f"record {first.record_id} (row {row})", "lineside audit", second.record_id):
        assert word in said
    code, out, err = trace(own_month, capsys, "--record", first.record_id, "--json")
    assert (1, first.record_id, row) == (code, json.loads(out)["record_id"], json.loads(out)["row"])
    assert first.record_id in err


@pytest.fixture
def forged(own_month: Path) -> tuple[Record, Record]:
    """Two NG records that were made OK in the store: one whole, one in its verdict alone, so that it cannot be read."""
    altered, unreadable = [one for one in records(own_month) if one.judgement.verdict == Verdict.NG][-2:]
    text = replace(altered, judgement=Judgement(Verdict.OK), detections=()).to_json()
    with closing(sqlite3.connect(own_month / "records.sqlite")) as database:
        database.execute("DROP TRIGGER records_keep")
        change = "UPDATE records SET json = ?, verdict = 1 WHERE record_id = ?"
        database.execute(change, (text, altered.record_id))
        text = unreadable.to_json().replace('"verdict":"NG"', '"verdict":"OK"')
        database.execute(change, (text, unreadable.record_id))
        database.commit()
    return altered, unreadable


def test_listed_records_that_are_not_sound_are_marked(
    own_month: Path, forged: tuple[Record, Record], capsys: pytest.CaptureFixture[str]
) -> None:
    """A list never shows the verdict of a forged record as if it were valid: line, first line, document and exit code say so."""
    altered, unreadable = forged
    for words in (("--lot", altered.trigger.lot), ("--lot", unreadable.trigger.lot), ("--recipe", "demo-pcb")):
        code, text, _ = trace(own_month, capsys, *words, "--limit", 1000)
        lines = [line for line in text.splitlines() if altered.record_id in line]
        lines_unread = [line for line in text.splitlines() if unreadable.record_id in line]
        assert (1, True) == (code, "NOT as written, or cannot be read (row " in text.splitlines()[0])
        assert lines or lines_unread
        assert all("  ------  " in line and "NOT AS WRITTEN" in line for line in lines + lines_unread)
        assert all(line.endswith("CANNOT BE READ") for line in lines_unread)
    told = json.loads(trace(own_month, capsys, "--lot", altered.trigger.lot, "--json")[1])
    marked = {
        line["record_id"]: (line["as_written"], line["readable"]) for line in told["listed"] if not line["as_written"]
    }
    assert (False, True) == marked.pop(altered.record_id)
    assert marked in ({}, {unreadable.record_id: (False, False)})
    assert [line["row"] for line in told["listed"] if not line["as_written"]] == told["not_sound"]
    assert told["parts"] == told["checked"]


def test_records_beyond_those_told_whole_are_checked_too(
    own_month: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A serial that was used more often than is told whole lists the rest checked, and a forged one of them is exit code 1."""
    monkeypatch.setattr("inspection.trace.MOST_RECORDS", 1)
    first = add_record(own_month, serial="OFTEN", judgement=Judgement(Verdict.OK), detections=())
    add_record(own_month, serial="OFTEN")
    assert 0 == trace(own_month, capsys, "OFTEN")[0]
    alter(own_month, "records", "lot = 'ANOTHER' WHERE record_id = ?", first.record_id)
    code, text, _ = trace(own_month, capsys, "OFTEN")
    line = next(line for line in text.splitlines() if first.record_id in line)
    assert (1, True) == (code, line.endswith("NOT AS WRITTEN, now says OK"))


def test_sound_records_are_never_marked(tracer: Tracer, month: Path) -> None:
    """Of a store that nobody changed every line is as it was written, in whatever order they are listed."""
    rows_of_it = [*range(1200, 0, -7), *range(1, 1200, 11), 600, 300, 599]
    lines = [line for row in rows_of_it for line in tracer.queries.between(row, row, 1)]
    assert {(True, True)} == {(line.as_written, line.readable) for line in tracer.checked(lines)}


def test_counts_that_were_not_checked_say_so(month: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Counts over more than was listed are said to be those of the columns; where all were checked nothing is said."""
    ((lot,),) = rows(month, "SELECT lot FROM records GROUP BY lot HAVING count(*) > 3 LIMIT 1")
    unchecked = "counted by the columns of the store, unchecked"
    assert f"{unchecked}; `lineside audit" in trace(month, capsys, "--lot", lot, "--limit", 0)[1]
    assert f"{unchecked} but for the 2 listed; `lineside audit" in trace(month, capsys, "--lot", lot, "--limit", 2)[1]
    assert unchecked not in trace(month, capsys, "--lot", lot, "--limit", 1000)[1]
    assert 2 == document(month, capsys, "--lot", lot, "--limit", 2)["checked"]


# ---- lists


def test_simulated_records_are_marked_in_lists(own_month: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever reads a list sees which of its parts were no production."""
    made = [add_record(own_month, lot="MIXED", simulated=simulated) for simulated in (True, False)]
    lines = trace(own_month, capsys, "--lot", "MIXED")[1].splitlines()[1:]
    assert {one.record_id: one.simulated for one in made} == {
        one.record_id: "SIMULATED" in line for one in made for line in lines if one.record_id in line
    }
    told = document(own_month, capsys, "--lot", "MIXED")["listed"]
    assert [False, True] == [line["simulated"] for line in told]


def test_times_are_local_with_their_offset(month: Path) -> None:
    """What is printed is what a person types: the computer's local time; documents keep UTC."""
    record = records(month)[700]
    program = f"from inspection.cli import main\nmain(['trace', {str(month / 'station.toml')!r}, '--record', {record.record_id!r}])"
    environment = {**os.environ, "TZ": "Asia/Shanghai"}
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    ).stdout
    at = record.judged_at.astimezone(timezone(timedelta(hours=8)))
    assert f"{at:%Y-%m-%d %H:%M:%S}+08:00" in said.splitlines()[0]
    assert "Z (" not in said


def test_places_of_a_version_that_is_not_kept_are_told_so(month: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the golden of the version in force stands in for another's, part and list say it."""
    of_first = [one for one in records(month)[:300] if one.judgement.verdict == Verdict.NG]
    part = document(month, capsys, "--record", of_first[0].record_id)
    assert part["places_by_version_in_force"]
    assert "by the golden of the version in force" in trace(month, capsys, "--record", of_first[0].record_id)[1]
    code, text, _ = trace(month, capsys, "--defect", "short", "--since", "2026-10-01")
    assert (0, True) == (code, "by the golden of the version in force" in text)
    newest = next(one for one in reversed(records(month)) if one.judgement.verdict == Verdict.NG)
    assert not document(month, capsys, "--record", newest.record_id)["places_by_version_in_force"]


def test_recipe_is_found_by_its_id(month: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All versions of a recipe are found by its id; an unknown name is answered with what the list is."""
    told = document(month, capsys, "--recipe", "demo-pcb", "--limit", 1)
    assert (1200, 3) == (told["parts"], len(told["periods"]))
    code, _, err = trace(month, capsys, "--recipe", "other")
    assert (1, True) == (code, "their ids and the beginnings of the SHA-256" in err and "demo-pcb" in err)
    code, _, err = trace(month, capsys, "--model", "zz")
    assert (1, True) == (code, "models that judged here" in err)


def test_unknown_camera_and_region_name_those_that_are_known(
    own_month: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A camera or region in which the class never was is answered with those in which it was."""
    one = Detection("scratch", 0.9, Region((405, 230, 415, 240)), roi_id="bay", camera="top")
    judgement = Judgement(Verdict.NG, (Reason("ng.scratch", "1 finding", (one,)),))
    add_record(own_month, judgement=judgement, detections=(one,))
    words = ("--defect", "scratch", "--since", "2026-10-01")
    assert "by the cameras top" in trace(own_month, capsys, *words, "--camera", "side")[2]
    assert "in the regions bay" in trace(own_month, capsys, *words, "--roi", "other")[2]
    assert (
        "the recipe in force knows open, short" in trace(own_month, capsys, "--defect", "x", "--since", "2026-10-01")[2]
    )


def test_lot_counts_are_those_of_sql(month: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All parts of a lot are counted by verdict, the newest are listed, and the rest is said."""
    ((lot, count),) = rows(month, "SELECT lot, count(*) AS n FROM records GROUP BY lot ORDER BY n DESC LIMIT 1")
    told = document(month, capsys, "--lot", lot, "--limit", 2)
    by_verdict = rows(month, "SELECT verdict, count(*) FROM records WHERE lot = ? GROUP BY verdict", lot)
    assert {Verdict(verdict).name: n for verdict, n in by_verdict} == told["by_verdict"]
    newest = rows(month, "SELECT rowid FROM records WHERE lot = ? ORDER BY rowid DESC LIMIT 2", lot)
    assert [row for (row,) in newest] == [line["row"] for line in told["listed"]]
    assert f"{count - 2} more" in trace(month, capsys, "--lot", lot, "--limit", 2)[1]
    assert 1 == trace(month, capsys, "--lot", "no such lot")[0]


def test_long_lists_are_read_to_their_end(tracer: Tracer, month: Path) -> None:
    """A limit beyond one page of the reader lists every part once."""
    sha = rows(month, "SELECT recipe_sha256 FROM judged_by ORDER BY first_row DESC")[0][0]
    found = find_judged_by(tracer, 5000, recipe=sha[:12])
    assert list(range(1200, 800, -1)) == [line.rowid for line in found.lines]


def on_golden_by_affine(record: Record, one: Detection) -> tuple[float, float]:
    """The same as ``on_golden``, by inverting the matrix that lays the golden over the frame."""
    measured = {name.partition(".")[2]: value for name, value in record.measured}
    turn, centre = math.radians(measured["turn_deg"]), np.array(SIZE) / 2
    across = measured["scale"] * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    shift = np.array([measured["shift_x_px"], measured["shift_y_px"]])
    x1, y1, x2, y2 = one.region.xyxy_px
    frame = np.array([(x1 + x2) / 2, (y1 + y2) / 2])
    x, y = np.linalg.solve(across, frame - centre - shift) + centre
    return float(x), float(y)


def test_parts_with_a_defect_at_a_place_are_all_found(tracer: Tracer, month: Path) -> None:
    """Exactly the parts whose verdict rests on that class within that distance on the golden, whatever the frame moved."""
    since, until = BEGIN + timedelta(days=3), BEGIN + timedelta(days=28)
    wanted = Counter[Verdict]()
    for record in records(month):
        spots = [
            on_golden_by_affine(record, one)
            for reason in record.judgement.reasons for one in reason.detections
            if one.defect_class == "short" and record.measured
        ]  # fmt: skip
        if since <= record.judged_at < until and any(math.dist(spot, HOT) <= 9.0 for spot in spots):
            wanted[record.judgement.verdict] += 1
    found = find_defect(tracer, DefectSearch("short", since, until, at=HOT, within_px=9.0, camera="top"), 5)
    late = found.tally.counts.pop(Verdict.ERROR, 0)
    assert dict(wanted) == found.tally.counts
    assert late <= 2  # what came too late has no place on the golden
    assert 5 == len(found.spots)
    assert all(spot.on_golden and math.dist(spot.place_px, HOT) <= 9.0 for spot in found.spots)


def test_findings_that_do_not_count_are_not_found(tracer: Tracer, month: Path) -> None:
    """Without a place, the parts of a class are those with a reason for it."""
    found = find_defect(tracer, DefectSearch("copper", BEGIN), 10_000)
    wanted = [
        record.record_id for record in records(month)
        if any(one.defect_class == "copper" for reason in record.judgement.reasons for one in reason.detections)
    ]  # fmt: skip
    late = [row[0] for row in rows(month, "SELECT record_id FROM late_results WHERE json LIKE '%ng.copper%'")]
    assert sorted([*wanted, *late]) == sorted(line.record_id for line in found.lines)


def test_place_that_cannot_be_corrected_is_said(own_month: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A record without measured values is compared where its finding lay on the frame, and the text says so."""
    one = Detection("scratch", 0.9, Region((405, 230, 415, 240)), roi_id="bay", camera="top")
    add_record(
        own_month,
        measured=(),
        schema=2,
        judgement=Judgement(Verdict.NG, (Reason("ng.scratch", "1 finding", (one,)),)),
        detections=(one,),
    )
    words = ("--defect", "scratch", "--since", "2026-10-01", "--at", "410,235")
    code, text, _ = trace(own_month, capsys, *words)
    assert (0, True) == (code, "1 part compared where the finding lay on the frame" in text)
    assert 0 == trace(own_month, capsys, *words, "--roi", "bay")[0]
    assert 1 == trace(own_month, capsys, *words, "--roi", "other")[0]
    assert 1 == trace(own_month, capsys, *words, "--camera", "side")[0]


def test_record_that_was_damaged_is_counted_apart(own_month: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A record that cannot be read is not counted as a part, and is named as unreadable."""
    ((row,),) = rows(own_month, "SELECT rowid FROM records WHERE verdict = 2 AND json LIKE '%ng.short%' LIMIT 1")
    with tracing(own_month) as tracer:
        before = find_defect(tracer, DefectSearch("short", BEGIN), 0).tally.parts
    with closing(sqlite3.connect(own_month / "records.sqlite")) as database:
        database.execute("DROP TRIGGER records_keep")
        database.execute("UPDATE records SET json = json || '}' WHERE rowid = ?", (row,))
        database.commit()
    code, out, _ = trace(own_month, capsys, "--defect", "short", "--since", "2026-09-30", "--json")
    told = json.loads(out)
    assert (1, before - 1, 1) == (code, told["parts"], told["unreadable"])
    ((at,),) = rows(own_month, "SELECT judged_at FROM records WHERE rowid = ?", row)
    end = (datetime.fromisoformat(at) + timedelta(microseconds=1)).isoformat()
    code, text, _ = trace(own_month, capsys, "--defect", "short", "--since", at, "--until", end)
    assert (1, True) == (code, "0 parts\n1 record could not be read" in text)


@pytest.mark.parametrize(("option", "column"), [("--model", "model_sha256"), ("--recipe", "recipe_sha256")])
def test_all_parts_judged_by_a_model_or_recipe(
    month: Path, capsys: pytest.CaptureFixture[str], option: str, column: str
) -> None:
    """Counts, first and last are those of an independent count over the records themselves."""
    for sha in {sha for (sha,) in rows(month, f"SELECT {column} FROM judged_by")}:
        of_it = [one for one in records(month) if getattr(one, column) == sha]
        told = document(month, capsys, option, sha[:10], "--limit", 1)
        assert Counter(one.judgement.verdict.name for one in of_it) == Counter(told["by_verdict"])
        assert (of_it[0].judged_at.isoformat(), of_it[-1].judged_at.isoformat()) == (told["first"], told["last"])
        assert [of_it[-1].record_id] == [line["record_id"] for line in told["listed"]]


def test_ambiguous_or_unknown_version_is_refused(month: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A beginning that fits two models asks for more digits, one that fits none lists those that judged."""
    code, _, err = trace(month, capsys, "--recipe", "0")
    assert (2, True) == (code, "0d0d0d0d0d0d0d0d" in err)
    code, _, err = trace(month, capsys, "--model", "beef")
    assert (1, True) == (code, "0e0e0e0e0e0e0e0e" in err)


# ---- any store, any text, any time


def test_store_of_an_earlier_schema_is_traced_more_slowly(own_month: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without chain, indexes and change points the answers are the same, and the text says that all was read."""
    wanted = [
        document(own_month, capsys, *words)["by_verdict"]
        for words in (("--model", "1eb"), ("--defect", "spur", "--since", "2026-10-05"))
    ]
    with closing(sqlite3.connect(own_month / "records.sqlite")) as database:
        for statement in (
            "DROP TABLE chain",
            "DROP TABLE judged_by",
            "DROP INDEX records_by_time",
            "DROP INDEX records_not_ok",
        ):
            database.execute(statement)
        database.execute(f"PRAGMA user_version = {INDEXED - 1}")
    told = [
        document(own_month, capsys, *words)
        for words in (("--model", "1eb"), ("--defect", "spur", "--since", "2026-10-05"))
    ]
    assert wanted == [one["by_verdict"] for one in told]
    assert all(one["slow"] and one["checked"] == 0 for one in told)
    assert {None} == {line["as_written"] for one in told for line in one["listed"]}
    assert "which has no chain to check them against" in trace(own_month, capsys, "--model", "1eb")[1]
    code, text, _ = trace(own_month, capsys, "PCB00000700")
    assert (0, True) == (code, "has no chain" in text)


def test_store_that_is_being_written_is_traced(own_month: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A writer in the middle of a transaction neither waits for a trace nor makes it wait."""
    with closing(Store(own_month / "records.sqlite")) as store, store.transaction() as database:
        database.execute("INSERT INTO probes VALUES (1, 'x')")
        assert 0 == trace(own_month, capsys, "PCB00000700")[0]
        assert 0 == trace(own_month, capsys, "--model", "1eb")[0]


@given(text=st.text(max_size=20))
def test_no_text_breaks_a_search(month: Path, names: frozenset[str], text: str) -> None:
    """Whatever a controller may have named a part that is not there, looking for it finds nothing, and is no error."""
    assume(text not in names)
    with tracing(month) as tracer:
        try:
            text.encode()
        except UnicodeEncodeError:
            with pytest.raises(StoreError):
                tracer.serial(text)
            return
        assert 0 == tracer.serial(text).count
        assert tracer.record(text) is None
        assert 0 == find_lot(tracer, text, 5).tally.parts
        assert 0 == find_defect(tracer, DefectSearch(text, BEGIN), 5).tally.parts


def test_hostile_names_do_not_reach_the_terminal(own_month: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing that came from a controller moves the cursor, rings the bell or turns the writing around."""
    serial = "A\x1b[2J\x07\u202eB"
    add_record(own_month, serial=serial, lot="L\r\nOT", station_id="s\x9b31m")
    code, text, _ = trace(own_month, capsys, serial)
    assert 0 == code
    assert {"\n"} == {letter for letter in text if not letter.isprintable()}
    assert "A\\x1b[2J\\x07\\u202eB" in text
    assert serial == document(own_month, capsys, serial)["parts"][0]["record"]["trigger"]["serial"]


def test_every_query_uses_an_index(month: Path) -> None:
    """No query of a trace reads the records one by one: each plan searches, or walks an index that leaves most out."""
    with tracing(month) as tracer:
        asked: list[str] = []
        tracer._reader._connected().set_trace_callback(asked.append)
        record = records(month)[700]
        tracer.serial(record.serial)
        tracer.serial("PCB")
        tracer.record(record.record_id)
        find_lot(tracer, record.trigger.lot, 5)
        find_defect(tracer, DefectSearch("short", BEGIN), 5)
        find_judged_by(tracer, 5, model="1eb")
        plans = [
            (sql, detail)
            for sql in dict.fromkeys(asked) if sql.startswith("SELECT")
            for *_, detail in tracer._reader.rows(f"EXPLAIN QUERY PLAN {sql}")
        ]  # fmt: skip
    assert len(plans) > 20
    reading = [(sql, detail) for sql, detail in plans if detail.startswith("SCAN") and "judged_by" not in detail]
    assert reading
    assert all(detail.endswith("INDEX records_not_ok") for _, detail in reading)


def test_trace_loads_nothing_heavy(month: Path) -> None:
    """A trace starts quickly: no picture library, no model runtime, no config of every camera."""
    program = (
        "import sys\nfrom inspection.cli import main\n"
        f"code = main(['trace', {str(month / 'station.toml')!r}, 'PCB00000700'])\nprint(code, *sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    code, *loaded = answer.stdout.splitlines()[-1].split()
    assert "0" == code
    assert {"cv2", "onnxruntime", "pydantic", "starlette", "cryptography", "polars", "torch"}.isdisjoint(loaded)


@pytest.mark.parametrize(
    "words",
    [
        [], ["A", "--lot", "B"], ["--defect", "short"], ["A", "--limit", "-1"], ["A", "--limit", "100000"],
        ["--defect", "short", "--since", "2026-10-01", "--within", "0"], ["\udcff"],
        ["--defect", "short", "--since", "2026-10-01", "--within", "5"], ["A", "--since", "2026-10-01"],
        ["--lot", "B", "--camera", "top"], ["--record", "A", "--roi", "bay"], ["--model", "1", "--at", "1,1"],
        ["--recipe", "1", "--until", "2026-10-01"], ["--lot", "B", "--within", "20"],
        ["--defect", "short", "--since", "2026-10-02", "--until", "2026-10-01"],
    ],
)  # fmt: skip
def test_wrong_words_are_usage_errors(month: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    """What cannot be traced is refused with what to give instead."""
    code, out, err = trace(month, capsys, *words)
    assert (2, "") == (code, out)
    assert 2 == len(err.splitlines())


def test_options_that_would_be_ignored_are_named(month: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What goes with --defect alone is named where something else is asked for, rather than passed over."""
    ((lot,),) = rows(month, "SELECT lot FROM records LIMIT 1")
    err = trace(month, capsys, "--lot", lot, "--since", "2026-11-01", "--camera", "nosuch", "--at", "1,1")[2]
    assert err.startswith("--since, --at, --camera: only with --defect")


NAMING = [
    ("trace", name) for name in ("--lot", "--record", "--model", "--recipe", "--defect", "--roi", "--camera", "--")
]
NAMING += [("report", name) for name in ("--lot", "--serial", "--recipe", "--shift")] + [
    ("replay", "--lot"),
    ("replay", "--"),
]


@pytest.mark.parametrize(("verb", "option"), NAMING)
def test_empty_names_are_refused(month: Path, capsys: pytest.CaptureFixture[str], verb: str, option: str) -> None:
    """A variable of a shell that is not set never asks for everything, or for parts without a name."""
    with pytest.raises(SystemExit) as stop:
        main([verb, str(month / "station.toml"), option, ""])
    assert (2, True) == (stop.value.code, "it is empty" in capsys.readouterr().err)


@pytest.mark.parametrize("words", [["-2+3"], ["--defect", "short", "--since", "2026-10-01", "--at", "-412,1"]])
def test_what_begins_with_a_dash_is_told_how_to_be_given(
    month: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    """A serial or a place that begins with a dash is refused with the way to give it, and taken in that way."""
    with pytest.raises(SystemExit):
        main(["trace", str(month / "station.toml"), *words])
    err = capsys.readouterr().err
    assert "--at=-412,1" in err
    assert "-- -2+3" in err
    given = [*words[:-2], f"{words[-2]}={words[-1]}"] if len(words) > 1 else ["--", *words]
    assert 1 == trace(month, capsys, *given)[0]


def test_time_without_any_record_is_told_so(month: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever searches after the last or before the first record hears of when the records are."""
    newest = max(one.judged_at for one in records(month)).astimezone()
    for words in (("--since", "2028-01-01"), ("--since", "2020-01-01", "--until", "2020-02-01")):
        code, _, err = trace(month, capsys, "--defect", "short", *words)
        assert (1, True) == (code, f"the last of {newest:%Y-%m-%d %H:%M:%S}" in err)


@pytest.mark.parametrize("words", [["--at", "here"], ["--at", "1"], ["--since", "soon"]])
def test_wrong_places_and_times_are_refused(month: Path, words: list[str]) -> None:
    """A place that is no place and a day that is no day stop the command before anything is read."""
    with pytest.raises(SystemExit) as stop:
        main(["trace", str(month / "station.toml"), "--defect", "short", *words])
    assert 2 == stop.value.code


def test_places_are_those_of_the_whole_config(month: Path) -> None:
    """The quick look at a station config says the same paths as the one that checks all of it."""
    quick, whole = read_places(month / "station.toml"), load_station(month / "station.toml")
    assert (whole.store, whole.recipe, whole.recipes) == (quick.store, quick.recipe, quick.recipes)
    assert whole.evidence.folder == quick.evidence.folder


def test_wrong_place_is_told_its_form(month: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A place that is none is answered with the form X,Y, a day that is none with a day."""
    for words, form in (
        (["--at", "412"], "give X,Y"),
        (["--at", "nan,1"], "give X,Y"),
        (["--since", "soon"], "no date"),
    ):
        with pytest.raises(SystemExit):
            main(["trace", str(month / "station.toml"), "--defect", "short", *words])
        assert form in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "store = 3\n", "store = 'x'\nrecipe = 'y'\nevidence = 1\n", "a = \n"])
def test_config_without_its_places_is_refused(tmp_path: Path, text: str) -> None:
    """A station config that does not say where things are is named with what is missing."""
    (tmp_path / "station.toml").write_text(text)
    with pytest.raises(ConfigError):
        read_places(tmp_path / "station.toml")


def test_missing_store_and_config_are_said(own_month: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A store that is not there is a device fault, a config that is not there a usage error."""
    (own_month / "records.sqlite").unlink()
    assert 3 == trace(own_month, capsys, "A")[0]
    (own_month / "station.toml").unlink()
    assert 2 == trace(own_month, capsys, "A")[0]


numbers = st.floats(-500, 500)


@given(x=numbers, y=numbers, shift=st.tuples(numbers, numbers), turn=st.floats(-180, 180), scale=st.floats(0.2, 5))
def test_place_on_the_golden_undoes_how_the_golden_lay(
    x: float, y: float, shift: tuple[float, float], turn: float, scale: float
) -> None:
    """A place on the golden, carried to the frame by shift, turn and scale about its centre, comes back to itself."""
    width, height, angle = 800, 600, math.radians(turn)
    across = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    centre = np.array([width, height]) / 2
    px, py = across @ (np.array([x, y]) - centre) + centre + np.array(shift)
    measured = {"c.shift_x_px": shift[0], "c.shift_y_px": shift[1], "c.turn_deg": turn, "c.scale": scale}
    place = on_golden((px - 3, py - 4, px + 3, py + 4), measured, "c", (width, height))
    assert place == pytest.approx((x, y), abs=1e-6)


@pytest.mark.parametrize("left_out", ["c.shift_x_px", "c.shift_y_px", "c.turn_deg", "c.scale"])
def test_no_place_is_claimed_without_all_of_it(left_out: str) -> None:
    """When any of what was measured is missing, or the golden's size, there is no place on the golden."""
    measured = {"c.shift_x_px": 1.0, "c.shift_y_px": 1.0, "c.turn_deg": 0.0, "c.scale": 1.0}
    assert on_golden((0, 0, 2, 2), measured, "c", (0, 0)) is None
    assert on_golden((0, 0, 2, 2), measured, "d", SIZE) is None
    del measured[left_out]
    assert on_golden((0, 0, 2, 2), measured, "c", SIZE) is None
