"""`lineside replay`: what a real station judged comes again to the last digit, and what differs is said."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from line_bench import FOLDER, Bench, Image, simulated_line

from datasets.from_records import from_records
from datasets.synth.boards import generate_pair
from datasets.synth.camera import CameraModel
from inspection.cli import main
from inspection.config import load_station
from inspection.evidence import evidence_files
from inspection.evidence_ledger import Compressed, EvidenceLedger, ledger_path
from inspection.images import read_grey, write_png
from inspection.picture_state import hash_of
from inspection.recipe import LOCK, lock_sha256, seal
from inspection.recipe_of_record import RecipesOfRecords
from inspection.recipe_versions import find_version
from inspection.replay_choice import shuffled
from inspection.replay_difference import Judged, differences
from inspection.reviews import ReviewStore, reviews_path
from inspection.types import Detection, Judgement, Reason, Record, Region, Review, Verdict, utc_now
from inspection.version_folder import store, versions_of
from tools import replay_check

KEEP_ALL = 'keep = "all"'
Change = Callable[[dict[str, Any]], object]


def played(bench: Bench, verdicts: str, **more: Any) -> list[Record]:
    """A run of parts P0, P1, ... with the sealed frames of these verdicts (O, N), every picture kept; its records."""
    serials = [f"P{number}" for number in range(len(verdicts))]
    for serial, verdict in zip(serials, verdicts, strict=True):
        bench.frame(serial, bench.sealed_frame({"O": "OK", "N": "NG"}[verdict]))
    bench.play(bench.config(simulated_line(*serials), evidence=KEEP_ALL, **more))
    return bench.records()


def replayed(bench: Bench, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the JSON of `lineside replay`."""
    capsys.readouterr()
    code = main(["replay", str(bench.folder / "station.toml"), *words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def one(bench: Bench, capsys: pytest.CaptureFixture[str], record: Record) -> dict[str, Any]:
    """What came of one record; the exit code is 0 exactly when it is the same."""
    code, found = replayed(bench, capsys, record.record_id)
    (row,) = found["records"]
    assert (code == 0) == (row["outcome"] == "same")
    return dict(row)


def kinds(row: dict[str, Any]) -> set[str]:
    return {difference["what"] for difference in row["differences"]}


def edit(bench: Bench, record: Record, change: Change) -> None:
    """Change a stored record behind the program's back."""
    document = json.loads(record.to_json())
    change(document)
    with closing(sqlite3.connect(bench.store, isolation_level=None)) as database:
        database.execute("DROP TRIGGER IF EXISTS records_keep")
        database.execute(
            "UPDATE records SET json = ? WHERE record_id = ?", (json.dumps(document), document["record_id"])
        )


def picture(bench: Bench, record: Record, role: str = "top") -> Path:
    files = evidence_files(bench.folder / "evidence", record.evidence)
    return next(path for path in files if path.stem.endswith(f"_{role}"))


# ---- the same


def test_a_run_comes_again_to_the_last_digit(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Verdicts, reasons, findings, scores and measured values of every part are equal, with one thread and with two."""
    records = played(bench, "ONNO")
    for threads in ("1", "2"):
        code, found = replayed(bench, capsys, "--since", "2000-01-01", "--threads", threads)
        assert (0, 4) == (code, found["counts"]["same"]), found
        assert sum(len(record.detections) for record in records) == found["counts"]["findings"] > 0
        assert sum(len(record.measured) for record in records) == found["counts"]["measured_values"] > 0
        assert threads == found["runs_on"]["threads"]


def test_frames_that_brought_their_golden_replay(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """The golden of each frame is kept beside it, and the part is compared with it again."""
    recipe = bench.recipe("brought", lambda text: text.replace('"golden.png"', '"with-frame"'))
    camera = CameraModel(shift_px=10, rotate_deg=0.8, scale=0.01)
    for number, defects in enumerate((0, 3)):
        golden = np.ascontiguousarray(np.rot90(bench.golden, number))
        pair = generate_pair(np.random.default_rng(number), golden, defects=defects, camera=camera)
        bench.frame(f"B{number}", pair.frame)
        write_png(bench.folder / "frames" / f"B{number}.golden.png", golden)
    bench.play(bench.config(simulated_line("B0", "B1"), recipe=recipe, evidence=KEEP_ALL))
    records = bench.records()
    assert "ERROR" not in {record.judgement.verdict.name for record in records}
    kept = read_grey(picture(bench, records[1], "golden"))
    assert np.array_equal(kept, np.rot90(bench.golden))
    assert ["same", "same"] == [one(bench, capsys, record)["outcome"] for record in records]

    config = load_station(bench.folder / "station.toml")
    frame = read_grey(picture(bench, records[1]))
    laid = RecipesOfRecords(config).golden_around(records[1], "top", frame, (0, 0, frame.shape[1], frame.shape[0]))
    assert np.corrcoef(laid.ravel(), frame.ravel())[0, 1] > 0.8
    with closing(ReviewStore(reviews_path(bench.store))) as reviews:
        for record in records:
            reviews.add(Review(record.record_id, "confirmed", "rita", utc_now()), key=f"key-of-{record.record_id}")
    dataset, _ = from_records(config, bench.folder / "ds")
    shapes = [read_grey(sample.golden) for sample in dataset.samples if sample.golden is not None]
    assert any(np.array_equal(kept, golden) for golden in shapes)

    picture(bench, records[1], "golden").unlink()
    row = one(bench, capsys, records[1])
    assert ("cannot", "picture.missing") == (row["outcome"], row["cannot"])


def test_parts_of_two_cameras_replay(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Each view is inspected again with its own frame, and a difference names its camera."""

    def two_views(text: str) -> str:
        head, view = text.split("[views.top]", 1)
        return head + "[views.top]" + view + "\n[views.side]" + view.replace("views.top", "views.side")

    (bench.folder / "side").mkdir()
    write_png(bench.folder / "side" / "P0.png", bench.sealed_frame("OK"))
    camera = f'{FOLDER}\n[cameras.side]\nkind = "folder"\nfolder = "side"'
    (record,) = played(bench, "N", camera=camera, recipe=bench.recipe("two", two_views))
    assert "same" == one(bench, capsys, record)["outcome"]
    shutil.copyfile(picture(bench, record, "top"), picture(bench, record, "side"))
    row = one(bench, capsys, record)
    assert {"side"} == {found["camera"] for found in row["differences"] if found["what"] == "finding.new"}
    assert any(note.startswith("the picture of camera top measures as it did") for note in row["notes"])


def test_a_late_result_is_what_is_compared(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """The missed deadline is the station's; the true result behind it comes again."""
    hasty = bench.recipe("hasty", lambda text: text.replace("[views.top]", "deadline_ms = 10\n[views.top]", 1))
    camera = f'kind = "simulated"\nimage = "{bench.sealed / "golden.png"}"'
    (record,) = played(bench, "O", camera=camera, recipe=hasty)
    assert record.late is not None
    row = one(bench, capsys, record)
    assert ("same", "ERROR", "OK") == (row["outcome"], row["verdict"], row["now"])
    assert "station.deadline" in row["taken_over"][0]
    edit(bench, record, lambda document: document.update(judgement={"verdict": "OK", "reasons": []}))
    row = one(bench, capsys, record)
    assert {"record.altered", "verdict"} == kinds(row)
    assert "the station answers ERROR by station.deadline" in row["differences"][1]["text"]


def test_a_repeated_serial_is_taken_over(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """That a serial was used before is in no picture: the reason is taken over, the inspection is repeated."""
    once = bench.recipe(
        "once", lambda text: text.replace("[views.top]", '[serial]\nrepeated = "error"\n[views.top]', 1)
    )
    bench.frame("S", bench.sealed_frame("OK"))
    bench.play(bench.config(simulated_line("S", "S"), recipe=once, evidence=KEEP_ALL))
    row = one(bench, capsys, bench.records()[1])
    assert ("same", "ERROR") == (row["outcome"], row["verdict"])
    assert "serial.repeated" in row["taken_over"][0]


def test_a_serial_that_could_not_be_read_cannot_be_read_again(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the recipe reads the serial from the frame, that is repeated too."""
    pytest.importorskip("zxingcpp", reason='pip install "lineside[codes]" brings the reader of codes')
    read = bench.recipe("read", lambda text: text.replace("[views.top]", '[serial]\nsource = "frame"\n[views.top]', 1))
    (record,) = played(bench, "O", recipe=read)
    assert ["serial.unreadable"] == [reason.rule_id for reason in record.judgement.reasons]
    assert "same" == one(bench, capsys, record)["outcome"]


# ---- what differs


def test_an_altered_picture_is_told(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """A defect that was painted over: the part is OK now, the picture is not what was written, and it measures otherwise."""
    (record,) = played(bench, "N")
    write_png(picture(bench, record), bench.sealed_frame("OK"))
    row = one(bench, capsys, record)
    assert ("differs", "NG", "OK") == (row["outcome"], row["verdict"], row["now"])
    assert {"verdict", "finding.gone", "picture.altered", "measured"} <= kinds(row)
    assert "verdict: NG then, OK now" in [found["text"] for found in row["differences"]]
    assert any("is not the one that was judged" in note for note in row["notes"])


def test_a_compressed_picture_is_told(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a JPEG the part is inspected again, and it is said that these are not the pixels that were judged."""
    (record,) = played(bench, "N")
    lossless = picture(bench, record)
    jpeg = lossless.with_suffix(".jpg")
    cv2.imwrite(str(jpeg), cv2.imread(str(lossless), cv2.IMREAD_UNCHANGED), [cv2.IMWRITE_JPEG_QUALITY, 80])
    file, small = (f"{record.evidence}_top{path.suffix}" for path in (lossless, jpeg))
    before, after = (str(hash_of(path)) for path in (lossless, jpeg))
    row = Compressed(
        record.record_id, file, before, small, after, jpeg.stat().st_size, "by age", "2026-11-23T00:00:00+00:00", "1"
    )
    with closing(EvidenceLedger(ledger_path(bench.store))) as ledger:
        ledger.begin_making([small])
        ledger.put_down([row], [])
    lossless.unlink()
    found = one(bench, capsys, record)
    assert ("differs", "NG") == (found["outcome"], found["now"])
    assert "picture.altered" not in kinds(found)
    assert {"finding.score", "measured"} <= kinds(found)
    assert any("compressed" in note and "by age" in note for note in found["notes"])


def test_missing_and_damaged_pictures_are_told(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """A picture that is gone and one that is torn give no verdict, but the reason why there is none."""
    first, second = played(bench, "NN")
    picture(bench, first).unlink()
    torn = picture(bench, second)
    torn.write_bytes(torn.read_bytes()[:2000])
    assert ("cannot", "picture.missing") == tuple(one(bench, capsys, first)[name] for name in ("outcome", "cannot"))
    assert ("cannot", "picture.damaged") == tuple(one(bench, capsys, second)[name] for name in ("outcome", "cannot"))


def test_an_edited_record_is_told(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Each value that was changed in the store is named with what it is now, and that the record was altered."""
    (record,) = played(bench, "N")
    score = record.detections[0].score

    def lower(document: dict[str, Any]) -> None:
        document["detections"][0]["score"] = 0.25

    edit(bench, record, lower)
    row = one(bench, capsys, record)
    assert {"record.altered", "finding.score"} == kinds(row)
    assert f"score 0.25 then, {score!r} now" in row["differences"][1]["text"]
    assert row["differences"][1]["by"] == score - 0.25

    edit(bench, record, lambda document: document["detections"][1]["region"]["xyxy_px"].__setitem__(0, 1.5))
    assert "finding.box" in kinds(one(bench, capsys, record))
    edit(bench, record, lambda document: document["detections"].pop())
    assert {"record.altered", "finding.new"} == kinds(one(bench, capsys, record))
    edit(bench, record, lambda document: document.update(judgement={"verdict": "OK", "reasons": []}))
    assert {"record.altered", "verdict", "reason.new"} == kinds(one(bench, capsys, record))
    edit(bench, record, lambda document: document["judgement"]["reasons"][0].update(text="nothing"))
    assert {"record.altered", "reason.text"} == kinds(one(bench, capsys, record))
    edit(bench, record, lambda document: document.update(model_sha256="0" * 64))
    assert {"record.altered", "model"} == kinds(one(bench, capsys, record))
    edit(bench, record, lambda document: document["measured"].update({"top.brightness": 1.0}))
    row = one(bench, capsys, record)
    assert {"record.altered", "measured"} == kinds(row)
    assert any("is as it was written: the record was altered" in note for note in row["notes"])
    assert any("`lineside audit`" in note for note in row["notes"])
    assert any(
        note.startswith("versions, processor, provider and number of threads are those") for note in row["notes"]
    )


def test_a_record_that_replays_the_same_though_it_was_altered_is_told(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    """What no picture can show, such as the serial, differs from the chain; so does a record without its pictures."""
    first, second = played(bench, "ON")
    edit(bench, first, lambda document: document["trigger"].update(serial="P9"))
    (difference,) = one(bench, capsys, first)["differences"]
    assert ("record.altered", "the record is NOT as it was written: the record was altered") == (
        difference["what"],
        difference["text"],
    )
    picture(bench, second).unlink()
    row = one(bench, capsys, second)
    assert ("cannot", set()) == (row["outcome"], kinds(row))
    edit(bench, second, lambda document: document["trigger"].update(serial="P9"))
    row = one(bench, capsys, second)
    assert ("cannot", {"record.altered"}) == (row["outcome"], kinds(row))
    assert 1 == main(["replay", str(bench.folder / "station.toml"), second.record_id])
    assert "NOT as it was written" in capsys.readouterr().out


def test_lengths_are_judged_by_the_size_of_a_pixel_of_then(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """A record replays by the scale that it was judged by, whatever the config says today; an older one by today's."""
    recipe = bench.folder / "in_mm"
    shutil.copytree(bench.sealed, recipe, ignore=shutil.ignore_patterns("selftest", LOCK))
    rules = (recipe / "recipe.toml").read_text(encoding="utf-8")
    (recipe / "recipe.toml").write_text(rules.replace("defect_class =", "min_area_mm2 = 0.001\ndefect_class ="))
    seal(recipe)
    bench.frame("P0", bench.sealed_frame("NG"))
    line = simulated_line("P0", more="[scale_mm_per_px]\ntop = 0.05")
    bench.play(bench.config(line, evidence=KEEP_ALL, recipe=recipe))
    (record,) = bench.records()
    assert ("NG", "0.05") == (record.judgement.verdict.name, dict(record.judged_on)["mm_per_px.top"])
    bench.config(line.replace("0.05", "0.0001"), evidence=KEEP_ALL, recipe=recipe)
    assert "same" == one(bench, capsys, record)["outcome"]
    edit(bench, record, lambda document: document["judged_on"].update({"mm_per_px.top": "wide"}))
    assert ("cannot", "recipe.changed") == tuple(one(bench, capsys, record)[name] for name in ("outcome", "cannot"))
    edit(bench, record, lambda document: document.pop("judged_on"))
    row = one(bench, capsys, record)
    assert "verdict" in kinds(row)
    assert any("as it is today" in note for note in row["notes"])
    assert any(note.endswith("is not in this record") for note in row["notes"])


def test_another_version_of_the_recipe_is_never_taken(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """A record is replayed with the version that judged it: kept, it replays; gone or changed, that is said."""
    recipe = bench.recipe("mine")
    (record,) = played(bench, "N", recipe=recipe)
    versions = versions_of(recipe)
    versions.mkdir(parents=True)
    store(versions, recipe, lock_sha256(recipe))
    toml = recipe / "recipe.toml"
    toml.write_text(
        toml.read_text(encoding="utf-8").replace("0.440", "0.990").replace("0.22", "0.980"), encoding="utf-8"
    )
    seal(recipe)
    assert "same" == one(bench, capsys, record)["outcome"]
    kept = find_version(recipe, record.recipe_sha256)
    assert kept is not None
    (kept / "recipe.toml").write_text(toml.read_text(encoding="utf-8"), encoding="utf-8")
    row = one(bench, capsys, record)
    assert ("cannot", "recipe.changed") == (row["outcome"], row["cannot"])
    assert "recipe.toml was changed" in row["text"]
    shutil.rmtree(kept)
    assert "recipe.missing" == one(bench, capsys, record)["cannot"]


def test_a_part_without_a_frame_has_nothing_to_replay(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """A camera that gave no frame is no inspection; the verdict's reason is said."""
    camera = 'kind = "simulated"\nfaults = [{every_n = 1, kind = "missing"}]'
    recipe = bench.recipe("hasty", lambda text: text.replace("[views.top]", "deadline_ms = 2000\n[views.top]", 1))
    (record,) = played(bench, "O", camera=camera, recipe=recipe)
    row = one(bench, capsys, record)
    assert ("cannot", "not_inspected") == (row["outcome"], row["cannot"])
    assert record.judgement.reasons[0].rule_id in row["text"]


# ---- which records


def test_records_are_drawn_among_those_with_pictures(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """--random passes over parts that left no picture by rule; the same seed draws the same; a span is kept to."""
    serials = [f"P{number}" for number in range(6)]
    for number, serial in enumerate(serials):
        bench.frame(serial, bench.sealed_frame("NG" if number % 2 else "OK"))
    bench.play(bench.config(simulated_line(*serials)))
    draws = [replayed(bench, capsys, "--random", "2", "--seed", seed)[1]["records"] for seed in ("1", "1", "2")]
    names = [[row["record_id"] for row in rows] for rows in draws]
    assert names[0] == names[1]
    assert {"NG"} == {row["verdict"] for rows in draws for row in rows}
    code, found = replayed(bench, capsys, "--random", "100")
    assert (0, 3) == (code, found["counts"]["records"])
    assert 1 == main(["replay", str(bench.folder / "station.toml"), "--since", "2000-01-01"])
    assert "6 records: 3 same, 0 differ, 3 cannot be replayed" in capsys.readouterr().out
    assert 2 == main(["replay", str(bench.folder / "station.toml"), "--until", "2000-01-01"])
    capsys.readouterr()
    assert 2 == main(["replay", str(bench.folder / "station.toml"), "--since", "2026-10-02", "--until", "2026-10-01"])
    assert "is not before --until" in capsys.readouterr().err
    assert 1 == main(["replay", str(bench.folder / "station.toml"), bench.records()[0].record_id])
    assert "1 record: 0 same, 0 differ, 1 cannot be replayed; 0 findings" in capsys.readouterr().out


def test_a_record_that_cannot_be_read_does_not_stop_the_others(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    """A clumsy edit is named with record and row and counted as one that cannot be replayed; all others are replayed."""
    first, second = played(bench, "NN")
    edit(bench, first, lambda document: document["judgement"].update(verdict="OK"))
    for words in (("--random", "5"), ("--since", "2000-01-01"), (first.record_id, second.record_id)):
        code, found = replayed(bench, capsys, *words)
        rows = {row["record_id"]: row for row in found["records"]}
        assert (1, "same") == (code, rows[second.record_id]["outcome"])
        assert ("cannot", "record.unreadable", 1) == tuple(
            rows[first.record_id][name] for name in ("outcome", "cannot", "row")
        )
        assert (1, {"record.unreadable": 1}) == (found["counts"]["cannot"], found["counts"]["records_by_hindrance"])
    assert 1 == main(["replay", str(bench.folder / "station.toml"), "--since", "2000-01-01"])
    out = capsys.readouterr().out
    assert f"record {first.record_id} (row 1)" in out
    assert "lineside audit" in out


@pytest.mark.parametrize("words", [(), ("--random", "0"), ("X", "--lot", "L")])
def test_wrong_usage_is_refused(bench: Bench, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    """Nothing chosen, a count of none, or both names and a span: exit code 2 and what to write."""
    played(bench, "O")
    try:
        code = main(["replay", str(bench.folder / "station.toml"), *words])
    except SystemExit as end:
        code = int(end.code or 0)
    assert 2 == code


def test_a_record_that_is_not_there_is_refused(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """A serial given in place of a record's name is answered with the records of that serial."""
    (record,) = played(bench, "O")
    assert 2 == main(["replay", str(bench.folder / "station.toml"), "P0"])
    assert record.record_id in capsys.readouterr().err


def test_hostile_names_do_not_reach_the_terminal(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters in a record are escaped in what is printed."""
    (record,) = played(bench, "O")
    edit(bench, record, lambda document: document.update(read_serial="\x1b[2J\u202eX"))
    main(["replay", str(bench.folder / "station.toml"), record.record_id])
    out = capsys.readouterr().out
    assert "\\x1b[2J" in out
    assert not {"\x1b", "\u202e"} & set(out)


def test_another_engine_differs_by_rounding_and_is_told_so(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Of another provider the verdict is the same, scores may differ in the last digits, and that is named as the cause."""
    pytest.importorskip("openvino", reason='pip install "lineside[openvino]" brings another engine')
    (record,) = played(bench, "N")
    config = bench.folder / "station.toml"
    config.write_text('provider = "openvino"\n' + config.read_text(encoding="utf-8"), encoding="utf-8")
    row = one(bench, capsys, record)
    assert row["now"] == row["verdict"]
    assert kinds(row) <= {"finding.score", "finding.box"}
    assert (row["outcome"] == "same") == (not any("another processor, provider" in note for note in row["notes"]))
    edit(bench, record, lambda document: document["detections"][0].update(score=0.25))
    (told,) = (note for note in one(bench, capsys, record)["notes"] if note.startswith("it was judged with another"))
    then, now = version("onnxruntime"), version("openvino")
    assert f"onnxruntime ({then} then, - now), " in told
    assert "provider (cpu then, openvino now)" in told
    assert f"openvino (- then, {now} now)" in told


# ---- pure functions

scores = st.floats(0, 1)
boxes = st.tuples(st.floats(0, 500), st.floats(0, 500), st.floats(1, 90), st.floats(1, 90)).map(
    lambda at: Region((at[0], at[1], at[0] + at[2], at[1] + at[3]))
)
findings = st.lists(st.builds(Detection, st.sampled_from(["open", "short"]), scores, boxes), max_size=6).map(tuple)


def judged(detections: tuple[Detection, ...]) -> Judged:
    reasons = (Reason("r", "t", detections[:1]),) if detections else ()
    return Judged(Judgement(Verdict.NG if reasons else Verdict.OK, reasons), detections, {"top.fit": 0.5}, "")


@given(findings)
def test_equal_inspections_do_not_differ(detections: tuple[Detection, ...]) -> None:
    """What is equal has no difference."""
    assert () == differences(judged(detections), judged(detections))


@given(findings, findings)
def test_whatever_is_unequal_differs(then: tuple[Detection, ...], now: tuple[Detection, ...]) -> None:
    """No change of the findings goes unnoticed, and both directions notice it."""
    assert (then == now) == (not differences(judged(then), judged(now))) == (not differences(judged(now), judged(then)))


@given(findings.filter(bool), st.data())
def test_one_changed_score_is_one_difference(detections: tuple[Detection, ...], data: st.DataObject) -> None:
    """A score that changed is told as that score, by how much, and as nothing else."""
    at = data.draw(st.integers(0, len(detections) - 1))
    new = data.draw(scores.filter(lambda score: score not in {found.score for found in detections}))
    changed = (*detections[:at], replace(detections[at], score=new), *detections[at + 1 :])
    if detections.count(detections[at]) == 1 and len({found.region for found in detections}) == len(detections):
        found = [one for one in differences(judged(detections), judged(changed)) if not one.what.startswith("reason")]
        assert ["finding.score"] == [one.what for one in found]
        assert found[0].by == abs(new - detections[at].score)


@given(st.integers(-5, 5), st.integers(0, 60), st.randoms(use_true_random=False))
def test_random_order_leaves_none_out(first: int, count: int, rng: Any) -> None:
    """Every number comes once."""
    assert list(range(first, first + count)) == sorted(shuffled(first, first + count - 1, rng))


def test_the_tool_replays_a_run_of_a_station_process(
    tmp_path: Path, demo_golden: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    """Boards with goldens of their own go through `lineside run` and a PLC, and all of it comes again."""
    boards = tmp_path / "boards" / "group1"
    boards.mkdir(parents=True)
    for number in range(3):
        pair = generate_pair(np.random.default_rng(number), demo_golden, defects=number, camera=CameraModel(shift_px=5))
        write_png(boards / f"{number}_test.png", pair.frame)
        write_png(boards / f"{number}_temp.png", demo_golden)
    words = [str(boards.parent), "--parts", "5", "--threads", "1", "--out", str(tmp_path / "out")]
    assert 0 == replay_check.main(words), capsys.readouterr().out
    told = capsys.readouterr().out
    assert "station: 5 parts" in told
    assert '"same": 5' in told


def test_pictures_of_two_views_never_share_a_name(bench: Bench) -> None:
    """A view whose pictures would be called as those beside another view's is refused."""
    text = (bench.sealed / "recipe.toml").read_text(encoding="utf-8")
    head, view = text.split("[views.top]", 1)
    both = head + "[views.top]" + view + "\n[views.top_golden]" + view.replace("views.top", "views.top_golden")
    with pytest.raises(Exception, match="top_golden"):
        bench.recipe("clash", lambda _: both)
    assert load_station(bench.config(simulated_line("A"))).cameras
