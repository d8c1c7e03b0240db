"""Reviewed records of a real station become a dataset, and nothing else does."""

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.from_records import Gathered, from_records, truth_of
from datasets.lots import lot_groups
from datasets.manifest import Dataset, load_dataset, open_dataset, write_dataset
from datasets.recipe_goldens import Unusable
from datasets.relabel.labels import open_labels
from datasets.sample import LabelledBox
from inspection.cli import main
from inspection.config import load_station
from inspection.errors import UsageError
from inspection.evidence import evidence_files
from inspection.images import read_image, write_png
from inspection.recipe import LOCK, lock_sha256, seal
from inspection.record_reader import RecordReader
from inspection.retention.run import Retention
from inspection.retention.section import RetentionRule, RetentionSection
from inspection.retention.stop import Stop
from inspection.reviews import ReviewStore, reviews_path
from inspection.types import Disposition, Record, Review, Verdict, utc_now

SERIALS = ("ok1", "ok2", "ok3", "ng1", "ng2", "ng3")


def two_views(text: str) -> str:
    head, view = text.split("[views.top]", 1)
    return f"{head}[views.top]{view}\n[views.side]{view.replace('views.top', 'views.side')}"


def run_station(folder: Path, demo_recipe: Path, *, two_cameras: bool = False) -> None:
    """A whole station in a process of its own judges three good and three defective boards of lot L7."""
    recipe = folder / "recipes" / "demo-pcb"
    shutil.copytree(demo_recipe, recipe, ignore=shutil.ignore_patterns("selftest", LOCK))
    toml = recipe / "recipe.toml"
    text = toml.read_text(encoding="utf-8")
    toml.write_text("deadline_ms = 30000\n" + (two_views(text) if two_cameras else text), encoding="utf-8")
    seal(recipe)
    frames = {kind: read_image(demo_recipe / "selftest" / name) for kind, name in
              (("ok", "good.png"), ("ng", "two-defects.png"))}  # fmt: skip
    for role in ("top", "side"):
        (folder / role).mkdir()
        for serial in SERIALS:
            write_png(folder / role / f"{serial}.png", frames["ok" if role == "side" else serial[:2]])
    cameras = "".join(
        f'[cameras.{role}]\nkind = "folder"\nfolder = "{role}"\n' for role in ("top", "side")[: 1 + two_cameras]
    )
    (folder / "station.toml").write_text(
        'station_id = "s1"\nrecipe = "recipes/demo-pcb"\nstore = "records.sqlite"\nthreads = 1\n'
        f'[evidence]\nfolder = "evidence"\nkeep = "all"\nmin_free_mb = 0\n{cameras}'
        f'[controller]\nkind = "simulated"\nserials = {json.dumps(SERIALS)}\nlot = "L7"\n',
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "inspection", "run", str(folder / "station.toml")]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory, demo_recipe: Path) -> Path:
    folder = tmp_path_factory.mktemp("judged")
    run_station(folder, demo_recipe)
    return folder


@pytest.fixture
def line(judged: Path, tmp_path: Path) -> Path:
    """A station's folder after six boards; a copy of its own for each test."""
    return Path(shutil.copytree(judged, tmp_path / "line"))


def records(folder: Path) -> dict[str, Record]:
    with closing(RecordReader(folder / "records.sqlite")) as reader:
        return {record.serial: record for _, record in reader.newest(100)}


def review(folder: Path, **dispositions: Disposition) -> None:
    known = records(folder)
    with closing(ReviewStore(reviews_path(folder / "records.sqlite"))) as reviews:
        for serial, disposition in dispositions.items():
            given = Review(known[serial].record_id, disposition, "rita", utc_now(), "<b>seen</b>")
            reviews.add(given, key=f"key-{serial}-{disposition}")


def gather(folder: Path, out: str = "data", **options: Any) -> tuple[Dataset, Gathered]:
    return from_records(load_station(folder / "station.toml"), folder / out, **options)


def rows(folder: Path, name: str = "records.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "data" / name).read_text(encoding="utf-8").splitlines()]


def test_what_reviews_make_of_records(line: Path, demo_recipe: Path) -> None:
    """Confirmed findings become boxes, false calls and confirmed OKs good parts, escapes wait to be drawn; the rest stays out."""
    review(line, ok1="confirmed", ok2="escape", ng1="confirmed", ng2="false_call", ng3="unsure")
    dataset, gathered = gather(line)
    known = records(line)
    samples = {sample.group: sample for sample in dataset.samples}
    assert set(samples) == {"ok1", "ok2", "ng1", "ng2"}
    counted = {found for reason in known["ng1"].judgement.reasons for found in reason.detections}
    assert {label.defect_class for label in samples["ng1"].labels} == {"pin-hole", "spur"}
    assert {label.box_px for label in samples["ng1"].labels} == {found.region.xyxy_px for found in counted}
    assert [samples[name].labels for name in ("ok1", "ok2", "ng2")] == [(), (), ()]
    assert dataset.to_draw == (known["ok2"].record_id,)
    assert {sample.group for sample in open_dataset(line / "data").samples} == {"ok1", "ng1", "ng2"}
    assert (gathered.unsure, gathered.left_out) == (1, [])
    for sample in dataset.samples:
        assert sample.golden is not None
        assert np.array_equal(read_image(sample.golden), read_image(demo_recipe / "golden.png"))
    assert np.array_equal(read_image(samples["ng1"].image), read_image(demo_recipe / "selftest" / "two-defects.png"))
    assert load_dataset(line / "data") == dataset


def test_each_sample_tells_where_it_came_from(line: Path) -> None:
    """records.jsonl names record, recipe, verdict, disposition, reviewer, lot, and which findings were confirmed."""
    review(line, ng1="confirmed")
    gather(line)
    (row,) = rows(line)
    record = records(line)["ng1"]
    assert row["record_id"] == row["sample"] == record.record_id
    assert (row["serial"], row["lot"], row["camera"]) == ("ng1", "L7", "top")
    assert row["recipe_sha256"] == record.recipe_sha256 == lock_sha256(line / "recipes" / "demo-pcb")
    assert (row["verdict"], row["disposition"], row["reviewer"]) == ("NG", "confirmed", "rita")
    assert row["comment"] == "<b>seen</b>"
    assert row["labels_from"] == "findings that the reviewer confirmed"
    assert {found["defect_class"] for found in row["findings"] if found["counted"]} == {"pin-hole", "spur"}


def test_an_escape_is_drawn_and_then_learnt_from(line: Path) -> None:
    """Drawing a box on an escape takes it off the list, and training sees it from then on."""
    review(line, ok1="confirmed", ok2="escape")
    dataset, _ = gather(line)
    (name,) = dataset.to_draw
    with open_labels(line / "data") as labels:
        spur = LabelledBox("spur", (10, 10, 30, 30))
        labels.save(name, [spur], image_class="", who="eve", why="", base_version=labels.revision(name))
    assert len(open_dataset(line / "data").samples) == 2


def test_what_was_drawn_before_is_kept(line: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Made anew after more reviews, the dataset keeps boxes and classes that people drew, where the review still says so."""
    review(line, ok1="confirmed", ok2="escape", ok3="escape", ng1="confirmed")
    dataset, _ = gather(line)
    named = {sample.group: sample.name for sample in dataset.samples}
    with open_labels(line / "data") as labels:
        labels.add_class("hair", who="eve", why="")
        for serial in ("ok2", "ok3", "ng1"):
            labels.save(
                named[serial], [LabelledBox("hair", (10, 10, 30, 30))], image_class="", who="eve", why="",
                base_version=labels.revision(named[serial]),
            )  # fmt: skip
    review(line, ok3="confirmed", ng2="false_call")
    command = ["data", "from-records", str(line / "station.toml"), "-o", str(line / "later")]
    assert main([*command, "--labels-from", str(line / "data")]) == 0
    out = capsys.readouterr().out
    assert "2 keep the labels that were drawn before" in out
    assert "1 were drawn before and reviewed otherwise since" in out
    later = load_dataset(line / "later")
    found = {sample.group: [label.defect_class for label in sample.labels] for sample in later.samples}
    assert found == {"ok1": [], "ok2": ["hair"], "ok3": [], "ng1": ["hair"], "ng2": []}
    assert later.to_draw == ()
    assert later.classes[-1] == "hair"
    (line / "data" / "records.jsonl").unlink()
    assert main([*command[:-1], str(line / "more"), "--labels-from", str(line / "data")]) == 2


def test_the_last_decision_counts(line: Path) -> None:
    """A person who thinks again is taken at the later word; unsure takes a decision back."""
    review(line, ng1="confirmed", ng2="confirmed")
    review(line, ng1="false_call")
    review(line, ng2="unsure")
    dataset, gathered = gather(line)
    assert [(sample.group, sample.labels) for sample in dataset.samples] == [("ng1", ())]
    assert gathered.unsure == 1


def test_compressed_and_altered_pictures_are_told_apart(line: Path) -> None:
    """A compressed picture is used and marked; a deleted one is left out with the rule, an altered one with a warning."""
    review(line, ok1="confirmed", ok2="confirmed", ng1="confirmed", ng2="confirmed")
    known = records(line)
    config = load_station(line / "station.toml")
    rules = (
        RetentionRule(verdicts=("NG",), dispositions=("confirmed",), after_days=0, keep="compressed"),
        RetentionRule(verdicts=("OK",), dispositions=("confirmed",), after_days=0, keep="nothing"),
    )
    section = RetentionSection(rules=rules, budget_ms_per_s=1000)
    with closing(Retention(config.model_copy(update={"retention": section}), Stop())) as retention:
        retention.one_pass(utc_now() + timedelta(hours=1))
    (jpeg,) = evidence_files(Path(config.evidence.folder), known["ng2"].evidence)
    jpeg.write_bytes(jpeg.read_bytes() + b"x")
    dataset, gathered = gather(line)
    assert ([sample.group for sample in dataset.samples], dataset.samples[0].image.suffix) == (["ng1"], ".jpg")
    assert [("ng1", "compressed")] == [(row["serial"], row["picture"]) for row in rows(line)]
    why = {left.record_id: left.why for left in gathered.left_out}
    assert "by retention: rule 2: OK confirmed after 0 days keep nothing" in why[known["ok1"].record_id]
    assert "altered" in why[known["ng2"].record_id]


def test_what_cannot_be_used_is_named_and_counted(line: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Missing pictures, contradictions and unknown records are listed with why, on the page and in the folder."""
    known = records(line)
    review(line, ok1="confirmed", ok2="false_call", ok3="confirmed", ng1="escape", ng2="confirmed")
    for serial in ("ok3", "ng2"):
        for file in evidence_files(line / "evidence", known[serial].evidence):
            file.unlink()
    with closing(ReviewStore(reviews_path(line / "records.sqlite"))) as reviews:
        reviews.add(Review("f" * 32, "confirmed", "rita", utc_now()), key="key-of-nothing")
    assert main(["data", "from-records", str(line / "station.toml"), "-o", str(line / "data")]) == 0
    out = capsys.readouterr().out
    assert "1 samples" in out
    assert "5 left out" in out
    reasons = {row["record_id"]: row["why"] for row in rows(line, "left_out.jsonl")}
    assert "false_call contradicts the verdict OK" in reasons[known["ok2"].record_id]
    assert "escape contradicts the verdict NG" in reasons[known["ng1"].record_id]
    assert "missing" in reasons[known["ok3"].record_id]
    assert "missing" in reasons[known["ng2"].record_id]
    assert "no such record" in reasons["f" * 32]


def test_a_record_that_cannot_be_read_is_left_out_alone(line: Path) -> None:
    """It is listed with what is wrong with it, and the others become samples."""
    known = records(line)
    review(line, ok1="confirmed", ng1="confirmed")
    with closing(sqlite3.connect(line / "records.sqlite")) as database, database:
        database.execute("DROP TRIGGER records_keep")
        sql = "UPDATE records SET json = replace(json, '\"judgement\"', '\"judgemenx\"') WHERE record_id = ?"
        database.execute(sql, (known["ng1"].record_id,))
    dataset, gathered = gather(line)
    assert ["ok1"] == [sample.group for sample in dataset.samples]
    assert [known["ng1"].record_id] == [left.record_id for left in gathered.left_out]
    assert "cannot be read" in gathered.left_out[0].why


def test_the_golden_is_that_of_the_version_that_judged(line: Path) -> None:
    """After the recipe was replaced, old records still come with the old golden; without that version they stay out."""
    recipe = line / "recipes" / "demo-pcb"
    old, sha256 = read_image(recipe / "golden.png"), lock_sha256(recipe)
    kept = recipe.parent / ".versions" / "demo-pcb" / sha256[:16]
    shutil.copytree(recipe, kept)
    write_png(recipe / "golden.png", np.ascontiguousarray(old[::-1]))
    seal(recipe)
    review(line, ok1="confirmed")
    dataset, _ = gather(line)
    assert dataset.samples[0].golden is not None
    assert np.array_equal(read_image(dataset.samples[0].golden), old)
    write_png(kept / "golden.png", np.ascontiguousarray(old[:, ::-1]))
    with pytest.raises(UsageError, match="not the one that was sealed"):
        gather(line, "data2")
    shutil.rmtree(kept)
    with pytest.raises(UsageError, match="is not here any more"):
        gather(line, "data3")


def test_only_what_was_asked_for(line: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Records of another lot or judged before --since do not enter."""
    review(line, ok1="confirmed", ng1="confirmed")
    judged_at = records(line)["ng1"].judged_at
    dataset, _ = gather(line, since=judged_at, lot="L7")
    assert [sample.group for sample in dataset.samples] == ["ng1"]
    with pytest.raises(UsageError, match="no reviewed record"):
        gather(line, "data2", since=judged_at + timedelta(seconds=60))
    config = str(line / "station.toml")
    assert main(["data", "from-records", config, "-o", str(line / "x"), "--lot", "other"]) == 2
    assert "another --since, --lot, --recipe or --camera" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["data", "from-records", config, "-o", str(line / "x"), "--since", "yesterday"])
    assert "--since: 'yesterday' is no date such as 2026-11-23" in capsys.readouterr().err
    assert main(["data", "from-records", config, "-o", str(line / "x"), "--since", "2020-01-01"]) == 0


def judge_by_another_recipe(line: Path) -> None:
    """The station changes over to the recipe "other" and judges one more board, x1."""
    other = Path(shutil.copytree(line / "recipes" / "demo-pcb", line / "recipes" / "other"))
    (other / LOCK).unlink()
    text = (other / "recipe.toml").read_text(encoding="utf-8")
    (other / "recipe.toml").write_text(text.replace('recipe_id = "demo-pcb"', 'recipe_id = "other"'), encoding="utf-8")
    seal(other)
    shutil.copy(line / "top" / "ng1.png", line / "top" / "x1.png")
    station = line / "station.toml"
    told = station.read_text(encoding="utf-8").replace('"recipes/demo-pcb"', '"recipes/other"\nrecipes = "recipes"')
    station.write_text(told.replace(json.dumps(SERIALS), '["x1"]'), encoding="utf-8")
    subprocess.run(
        [sys.executable, "-m", "inspection", "run", str(station)], check=True, capture_output=True, timeout=120
    )


def test_recipes_are_told_apart(line: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Samples are counted for each recipe, more than one is a warning, and --recipe takes those of one alone."""
    judge_by_another_recipe(line)
    review(line, ok1="confirmed", ng1="confirmed", x1="confirmed")
    command = ["data", "from-records", str(line / "station.toml"), "-o"]
    assert main([*command, str(line / "data")]) == 0
    told = capsys.readouterr()
    assert "judged by recipe 'demo-pcb' (2), 'other' (1)" in told.out
    assert "recipes are mixed" in told.err
    assert main([*command, str(line / "one"), "--recipe", "other"]) == 0
    told = capsys.readouterr()
    assert "judged by recipe 'other' (1)" in told.out
    assert told.err == ""
    assert ["x1"] == [sample.group for sample in load_dataset(line / "one").samples]
    assert main([*command, str(line / "none"), "--recipe", "Other"]) == 2
    assert "reviewed parts of other recipes: 'demo-pcb' (2), 'other' (1)" in capsys.readouterr().err


def test_without_reviews_nothing_is_made(line: Path) -> None:
    """A store that nobody reviewed gives a message, no dataset, and no empty review file."""
    with pytest.raises(UsageError, match="nobody has reviewed anything"):
        gather(line)
    assert not reviews_path(line / "records.sqlite").exists()
    assert not (line / "data").exists()


def test_a_station_with_two_cameras(tmp_path: Path, demo_recipe: Path) -> None:
    """A dataset holds one camera's pictures, and one must be named; what no confirmed finding is on was not reviewed."""
    run_station(tmp_path, demo_recipe, two_cameras=True)
    review(tmp_path, ok1="confirmed", ng1="confirmed", ng2="false_call")
    with pytest.raises(UsageError, match="several cameras: top, side"):
        gather(tmp_path)
    with pytest.raises(UsageError, match="has no camera 'left', but top, side"):
        gather(tmp_path, camera="left")
    assert not (tmp_path / "data").exists()
    counts = {"top": {"ok1": 0, "ng1": 2, "ng2": 0}, "side": {"ok1": 0, "ng2": 0}}
    for role, count in counts.items():
        dataset, gathered = gather(tmp_path, f"data-{role}", camera=role)
        assert count == {sample.group: len(sample.labels) for sample in dataset.samples}
        assert {role} == {sample.name[33:] for sample in dataset.samples} == {row["camera"] for row in gathered.rows}
        left = [("side", records(tmp_path)["ng1"].record_id)] if role == "side" else []
        assert left == [(one.camera, one.record_id) for one in gathered.left_out]


def test_an_escape_is_one_of_the_camera_that_shows_it(
    tmp_path: Path, demo_recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two cameras nobody has said which one missed it: it is an escape of a camera when it is drawn in its picture."""
    run_station(tmp_path, demo_recipe, two_cameras=True)
    review(tmp_path, ok1="confirmed", ok2="escape", ok3="escape")
    config, folder = str(tmp_path / "station.toml"), tmp_path / "data"
    assert main(["data", "from-records", config, "-o", str(folder), "--camera", "top"]) == 0
    assert "2 of them may show in another camera alone" in capsys.readouterr().out
    dataset = load_dataset(folder)
    assert set(dataset.to_draw) == dataset.unplaced_yet == dataset.escapes
    assert ["ok1"] == [sample.group for sample in open_dataset(folder).samples]
    name = next(sample.name for sample in dataset.samples if sample.group == "ok2")
    with open_labels(folder) as labels:
        spur = LabelledBox("spur", (10, 10, 30, 30))
        labels.save(name, [spur], image_class="", who="eve", why="", base_version=labels.revision(name))
    for drawn in (load_dataset(folder), write_dataset(tmp_path / "copy", load_dataset(folder))):
        assert (drawn.escapes - drawn.unplaced_yet, drawn.unplaced_yet) == ({name}, set(drawn.to_draw))
        assert name not in drawn.to_draw


def test_groups_are_lots_where_that_is_asked_for(line: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By default a serial is a group, and it is said when they come from several lots; with --by-lot a lot is one."""
    station = (line / "station.toml").read_text(encoding="utf-8")
    again = station.replace(json.dumps(SERIALS), '["ng2", "ng3"]').replace('lot = "L7"', 'lot = "L8"')
    (line / "station.toml").write_text(again, encoding="utf-8")
    subprocess.run(
        [sys.executable, "-m", "inspection", "run", str(line / "station.toml")],
        check=True,
        capture_output=True,
        timeout=120,
    )
    with closing(RecordReader(line / "records.sqlite")) as reader:
        known = {(record.serial, record.trigger.lot): record.record_id for _, record in reader.newest(100)}
    with closing(ReviewStore(reviews_path(line / "records.sqlite"))) as reviews:
        for part in (("ng1", "L7"), ("ng2", "L8"), ("ng3", "L8")):
            reviews.add(Review(known[part], "false_call", "rita", utc_now()), key=f"key-{'-'.join(part)}")
    command = ["data", "from-records", str(line / "station.toml"), "-o"]
    assert main([*command, str(line / "serials")]) == 0
    assert "the parts are of 2 lots and grouped by serial; --by-lot" in capsys.readouterr().out
    assert ["ng1", "ng2", "ng3"] == [sample.group for sample in load_dataset(line / "serials").samples]
    assert main([*command, str(line / "lots"), "--by-lot"]) == 0
    assert "--by-lot" not in capsys.readouterr().out
    assert ["lot L7", "lot L8", "lot L8"] == [sample.group for sample in load_dataset(line / "lots").samples]


NAMES = st.sampled_from(["a", "b", "c", "d"])


@given(st.lists(st.tuples(NAMES, st.sampled_from(["", "L1", "L2", "L3"])), max_size=12))
def test_no_lot_and_no_serial_is_torn(parts: list[tuple[str, str]]) -> None:
    """Parts of one lot or of one serial are in one group, and only those that such links join."""
    groups = lot_groups(parts)
    for one, first in zip(parts, groups, strict=True):
        for other, second in zip(parts, groups, strict=True):
            if one[0] == other[0] or (one[1] and one[1] == other[1]):
                assert first == second
    for group in set(groups):
        members = [part for part, name in zip(parts, groups, strict=True) if name == group]
        reached = {members[0]}
        for _ in members:
            reached |= {m for m in members for r in reached if m[0] == r[0] or (m[1] and m[1] == r[1])}
        assert reached == set(members)


@given(st.sampled_from(list(Verdict)), st.sampled_from(["confirmed", "false_call", "escape", "unsure"]))
def test_no_machine_verdict_becomes_truth_by_itself(verdict: Verdict, disposition: Disposition) -> None:
    """Only a disposition that fits the verdict makes a truth: good needs a person's OK, marked a person's NG."""
    try:
        truth = truth_of(verdict, disposition)
    except Unusable:
        fits = {Verdict.OK: {"confirmed", "escape"}, Verdict.ERROR: set()}
        assert disposition not in fits.get(verdict, {"confirmed", "false_call"})
        return
    good = {(Verdict.OK, "confirmed"), (Verdict.NG, "false_call"), (Verdict.REVIEW, "false_call")}
    assert (truth == "good") == ((verdict, disposition) in good)
