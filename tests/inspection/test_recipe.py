import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from inspection.cameras.folder import FolderCamera, FolderCameraConfig
from inspection.errors import ConfigError, ModelError, UsageError
from inspection.images import read_grey, write_png
from inspection.recipe import open_recipe, read_selftests, run_selftest, seal, write_selftests
from inspection.recipe_lock import LOCK, lock_sha256, verify
from inspection.types import Detection, Frame, Trigger, Verdict, utc_now

TOP = ("top",)


@pytest.fixture
def recipe(demo_recipe: Path, tmp_path: Path) -> Path:
    """A copy of the sealed demo recipe, to be tampered with."""
    return Path(shutil.copytree(demo_recipe, tmp_path / "recipe"))


def refusal(folder: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        verify(folder)
    assert refused.value.fix
    return refused.value.what


def edit(folder: Path, old: str, new: str) -> None:
    file = folder / "recipe.toml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def test_untouched_recipe_is_as_sealed(recipe: Path) -> None:
    """A copied folder has the hash of the one it was copied from."""
    verify(recipe)
    assert len(lock_sha256(recipe)) == 64
    assert open_recipe(recipe).sha256 == lock_sha256(recipe)


@pytest.mark.parametrize("name", ["recipe.toml", "model.onnx", "golden.png", "selftest/expected.json"])
def test_changed_file_is_named(recipe: Path, name: str) -> None:
    """One byte more is a change, whichever file it is in."""
    with (recipe / name).open("ab") as file:
        file.write(b"\n")
    assert f"{name} was changed" in refusal(recipe)


@pytest.mark.parametrize("name", ["golden.png", "selftest/good.png"])
def test_missing_file_is_named(recipe: Path, name: str) -> None:
    """A file that went is named."""
    (recipe / name).unlink()
    assert f"{name} is missing" in refusal(recipe)


@pytest.mark.parametrize(
    "name", ["notes.txt", ".hidden", "model.partial", "selftest/recipe.lock", "selftest/x/deep.png"]
)
def test_added_file_is_named(recipe: Path, name: str) -> None:
    """A file that came is named, however it is called and wherever it lies."""
    (recipe / name).parent.mkdir(exist_ok=True)
    (recipe / name).write_text("x")
    assert f"{name} is not in the lock" in refusal(recipe)


def test_every_difference_is_named_at_once(recipe: Path) -> None:
    """A recipe with many changes is described whole."""
    (recipe / "golden.png").unlink()
    (recipe / "new.txt").write_text("x")
    edit(recipe, "demo-pcb", "demo-xyz")
    what = refusal(recipe)
    assert "golden.png is missing; new.txt is not in the lock; recipe.toml was changed" in what


def test_renamed_file_is_both_missing_and_new(recipe: Path) -> None:
    """The name of a file belongs to what is sealed."""
    (recipe / "golden.png").rename(recipe / "other.png")
    assert "golden.png is missing; other.png is not in the lock" in refusal(recipe)


def test_unsealed_recipe_is_refused(recipe: Path) -> None:
    """A folder without a lock was approved by nobody."""
    (recipe / LOCK).unlink()
    assert "is not sealed" in refusal(recipe)
    assert lock_sha256(recipe) == ""


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"files": 3}', '{"files": ["a"]}', "null", '{"schema": 2, "files": {}}', "[" * 100_000],
)
def test_damaged_lock_is_refused(recipe: Path, text: str) -> None:
    """A lock that cannot be read seals nothing."""
    (recipe / LOCK).write_text(text)
    assert "is damaged" in refusal(recipe)


def test_sealing_again_after_a_change_gives_another_recipe(recipe: Path) -> None:
    """A reviewed change is sealed under a hash of its own, and then verifies."""
    before = lock_sha256(recipe)
    edit(recipe, 'product = "demo-pcb"', 'product = "demo board, revision B"')
    assert seal(recipe) != before
    verify(recipe)


def test_sealing_an_unchanged_recipe_changes_nothing(recipe: Path) -> None:
    """The hash of a recipe depends on its files alone."""
    before = lock_sha256(recipe)
    assert before == seal(recipe)


def test_broken_recipe_cannot_be_sealed(recipe: Path) -> None:
    """What the runtime would refuse gets no lock."""
    (recipe / LOCK).unlink()
    edit(recipe, "ng_score = ", "ng_score = 1")
    with pytest.raises(ConfigError, match="ng_score"):
        seal(recipe)
    assert not (recipe / LOCK).exists()


def test_class_without_rule_is_refused(recipe: Path) -> None:
    """A class of the model that no rule names would never be rejected."""
    edit(recipe, 'defect_class = "short"', 'defect_class = "scratch"')
    with pytest.raises(ConfigError, match=r"missing \['short'\], unknown \['scratch'\]"):
        open_recipe(recipe)


def test_golden_guided_model_needs_a_golden(recipe: Path) -> None:
    """A recipe that forgets the golden is refused when it is opened, not at the first part."""
    edit(recipe, 'golden = "golden.png"', "")
    with pytest.raises(ConfigError, match="golden is empty"):
        open_recipe(recipe)


def test_missing_golden_file_is_refused(recipe: Path) -> None:
    """The golden is read when the recipe is opened."""
    (recipe / "golden.png").unlink()
    with pytest.raises(UsageError, match=r"golden\.png"):
        open_recipe(recipe)


def test_missing_model_is_refused(recipe: Path) -> None:
    """There is no other model to fall back to."""
    (recipe / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"model\.onnx"):
        open_recipe(recipe)


def test_selftests_of_the_demo_recipe_pass(recipe: Path) -> None:
    """This machine gives the verdicts the recipe was sealed with, of which one is OK and one NG."""
    tests = read_selftests(recipe, TOP)
    assert {"OK", "NG"} <= {test.verdict for test in tests}
    assert len(tests) == run_selftest(open_recipe(recipe))


def test_selftest_with_another_verdict_is_refused(recipe: Path) -> None:
    """A frame that is judged differently keeps the recipe off line, and both verdicts are told."""
    shutil.copyfile(recipe / "golden.png", recipe / "selftest" / "two-defects.png")
    with pytest.raises(ConfigError, match=r"self-test two-defects\.png .* expected NG .* got OK"):
        run_selftest(open_recipe(recipe))


def test_selftest_with_other_classes_is_refused(recipe: Path) -> None:
    """The same verdict for another reason differs too."""
    expected = recipe / "selftest" / "expected.json"
    rows = json.loads(expected.read_text())
    bad = next(row for row in rows if row["verdict"] == "NG")
    bad["classes"] = ["pin-hole"] if bad["classes"] != ["pin-hole"] else ["open"]
    expected.write_text(json.dumps(rows))
    with pytest.raises(ConfigError, match="expected NG"):
        run_selftest(open_recipe(recipe))


def test_selftest_that_cannot_be_judged_is_refused(recipe: Path) -> None:
    """A self-test frame of another board is an ERROR, which is not the sealed verdict."""
    blank = np.full((640, 640), 128, np.uint8)
    write_png(recipe / "selftest" / "good.png", blank)
    with pytest.raises(ConfigError, match=r"expected OK .* got ERROR"):
        run_selftest(open_recipe(recipe))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "3",
        '[{"frame": "good.png"}]',
        '["good.png"]',
        '[{"frame": "../golden.png", "verdict": "OK", "classes": []}]',
        '[{"frames": {"side": "good.png"}, "verdict": "OK", "classes": []}]',
    ],
)
def test_damaged_selftests_are_refused(recipe: Path, text: str) -> None:
    """A list of self-tests that cannot be read is an error, not an empty list."""
    (recipe / "selftest" / "expected.json").write_text(text)
    with pytest.raises(ConfigError, match="damaged"):
        read_selftests(recipe, TOP)


def test_recipe_without_selftests_has_none(recipe: Path) -> None:
    """Self-tests are not mandatory."""
    shutil.rmtree(recipe / "selftest")
    assert () == read_selftests(recipe, TOP)
    assert run_selftest(open_recipe(recipe)) == 0


def test_written_selftests_are_what_the_recipe_says(recipe: Path) -> None:
    """Recording self-tests and replaying them agree."""
    loaded = open_recipe(recipe)
    expected = recipe / "selftest" / "expected.json"
    before = json.loads(expected.read_text())
    write_selftests(loaded, [{"top": recipe / "selftest" / row["frame"]} for row in before])
    assert before == json.loads(expected.read_text())


def test_sealed_golden_is_not_replaced_by_one_that_comes_with_a_frame(recipe: Path) -> None:
    """Only a recipe that says with-frame compares with a golden that is not sealed."""
    frame = read_grey(recipe / "selftest" / "two-defects.png")
    assert open_recipe(recipe).inspect_image(frame, golden=frame).judgement.verdict == Verdict.NG


def test_recipe_with_frame_compares_with_what_the_frame_brings(recipe: Path) -> None:
    """In a replay each frame is compared with its own golden; without one it cannot be judged."""
    edit(recipe, 'golden = "golden.png"', 'golden = "with-frame"')
    loaded, golden = open_recipe(recipe), read_grey(recipe / "golden.png")
    assert loaded.inspect_image(golden, golden=golden).judgement.verdict == Verdict.OK
    without = loaded.inspect_image(golden).judgement
    assert (Verdict.ERROR, "camera.corrupt") == (without.verdict, without.reasons[0].rule_id)
    assert "no golden" in without.reasons[0].text


def test_findings_down_to_the_lowest_review_score_are_kept(recipe: Path) -> None:
    """A rule that sends weak findings to review gets to see them."""
    text = (recipe / "recipe.toml").read_text().split("\n")
    weak = ["review_score = 0.03" if line.startswith("review_score") else line for line in text]
    (recipe / "recipe.toml").write_text("\n".join(weak))
    assert open_recipe(recipe).views["top"].criteria.floor == 0.03


# --- names in a recipe folder


@pytest.mark.parametrize(
    "name", ["../golden.png", "/etc/passwd", "a//b", "./golden.png", "a\\\\b", "a\\u0000b", "", "c:x"]
)
def test_lock_that_names_files_elsewhere_is_refused(recipe: Path, name: str) -> None:
    """No name in a lock leads out of the folder."""
    lock = recipe / LOCK
    lock.write_text(lock.read_text().replace('"golden.png"', f'"{name}"'))
    assert "is damaged" in refusal(recipe)


@pytest.mark.parametrize("value", ['""', '"abc"', "3", "null", '"' + "A" * 64 + '"'])
def test_lock_with_something_else_than_hashes_is_refused(recipe: Path, value: str) -> None:
    """A hash is 64 hexadecimal digits."""
    document = json.loads((recipe / LOCK).read_text())
    document["files"]["golden.png"] = json.loads(value)
    (recipe / LOCK).write_text(json.dumps(document))
    assert "is damaged" in refusal(recipe)


@pytest.mark.parametrize("name", ["golden.png", "selftest", "recipe.lock", "further.png"])
def test_links_are_refused(recipe: Path, tmp_path: Path, name: str) -> None:
    """What a link points to can change after the seal, so a recipe holds none, and none is sealed."""
    place, aside = recipe / name, tmp_path / "aside"
    if place.exists():
        place.rename(aside)
    else:
        aside.write_text("x")
    place.symlink_to(aside)
    assert name in refusal(recipe)
    if name != LOCK:
        with pytest.raises(ConfigError, match=name):
            seal(recipe)


# --- regions and scale

KEEP_OUT = '[[views.top.rois]]\nid = "blind"\nkind = "keep_out"\nbox_px = [{box}]\n'


def add(folder: Path, text: str) -> None:
    with (folder / "recipe.toml").open("a") as file:
        file.write("\n" + text)


def test_region_is_moved_with_the_part_and_takes_its_findings_out(recipe: Path) -> None:
    """A keep-out drawn on the golden covers the finding on a frame on which the part lies turned and shifted."""
    frame = read_grey(recipe / "selftest" / "two-defects.png")
    before = open_recipe(recipe).inspect_image(frame)
    assert {"spur", "pin-hole"} == {f.defect_class for r in before.judgement.reasons for f in r.detections}
    add(recipe, KEEP_OUT.format(box="240, 280, 360, 390"))
    after = open_recipe(recipe).inspect_image(frame)
    assert ["ng.spur"] == [reason.rule_id for reason in after.judgement.reasons]
    assert {"pin-hole": "blind", "spur": ""} == {f.defect_class: f.roi_id for f in after.detections if f.score > 0.3}
    assert {found.score for found in before.detections} == {found.score for found in after.detections}


@pytest.mark.parametrize(
    ("box", "told"), [("0, 0, 640, 400", "would switch the check off"), ("700, 0, 800, 100", "blind lies outside")]
)
def test_keep_out_that_leaves_too_little_is_refused(recipe: Path, box: str, told: str) -> None:
    """A recipe that hides more than half of the golden, or hides nothing, is refused when it is opened."""
    add(recipe, KEEP_OUT.format(box=box))
    with pytest.raises(ConfigError, match=told):
        open_recipe(recipe)


def test_keep_out_without_a_golden_is_checked_on_the_frame(root: Path, tmp_path: Path) -> None:
    """Where there is no golden, a keep-out of more than half of the frame makes every part ERROR."""
    recipe = Path(shutil.copytree(root / "deploy" / "recipes" / "demo-casting", tmp_path / "casting"))
    frame = read_grey(recipe / "selftest" / "two-defects.png")
    width, height = frame.shape[1], frame.shape[0]
    add(recipe, KEEP_OUT.format(box=f"0, 0, {width}, {0.4 * height}"))
    assert open_recipe(recipe).inspect_image(frame).judgement.verdict in (Verdict.OK, Verdict.NG)
    edit(recipe, f"{0.4 * height}", f"{0.6 * height}")
    said = open_recipe(recipe).inspect_image(frame).judgement
    assert said.verdict == Verdict.ERROR
    assert "would switch the check off" in said.reasons[0].text


def test_rule_in_millimetres_needs_the_scale_of_the_camera(recipe: Path) -> None:
    """A recipe with sizes runs only where the size of a pixel is known, and gives ERROR, not OK, when it was not told."""
    edit(recipe, 'defect_class = "spur"', 'defect_class = "spur"\nmin_area_mm2 = 50.0')
    frame = read_grey(recipe / "selftest" / "two-defects.png")
    loaded = open_recipe(recipe)
    with pytest.raises(ConfigError, match=r"camera top"):
        loaded.set_mm_per_px({"side": 0.1})
    with pytest.raises(ConfigError, match="mm per pixel"):
        loaded.set_mm_per_px({"top": float("nan")})
    assert loaded.inspect_image(frame).judgement.verdict == Verdict.ERROR
    loaded.set_mm_per_px({"top": 0.1})
    assert ["ng.pin-hole"] == [reason.rule_id for reason in loaded.inspect_image(frame).judgement.reasons]
    loaded.set_mm_per_px({"top": 1.0})
    assert {"ng.pin-hole", "ng.spur"} == {reason.rule_id for reason in loaded.inspect_image(frame).judgement.reasons}


def test_recipe_without_millimetres_needs_no_scale(recipe: Path) -> None:
    """A scale that is missing is no mistake where nothing is measured."""
    loaded = open_recipe(recipe)
    loaded.set_mm_per_px({})
    assert {} == loaded.mm_per_px


def test_selftests_are_judged_at_the_scale_they_were_sealed_with(recipe: Path) -> None:
    """The scale belongs to the frames: another station's camera does not change what a self-test must give."""
    edit(recipe, 'defect_class = "spur"', 'defect_class = "spur"\nmin_area_mm2 = 50.0')
    loaded = open_recipe(recipe)
    loaded.set_mm_per_px({"top": 0.1})
    write_selftests(loaded, [test.frames for test in read_selftests(recipe, TOP)])
    elsewhere = open_recipe(recipe)
    elsewhere.set_mm_per_px({"top": 1.0})
    assert run_selftest(elsewhere) == 3
    assert {"top": 1.0} == elsewhere.mm_per_px


# --- several cameras


@pytest.fixture
def two_cameras(recipe: Path, root: Path) -> Path:
    """A recipe that looks at a board from above and at a casting from the side."""
    casting = root / "deploy" / "recipes" / "demo-casting"
    shutil.copyfile(casting / "model.onnx", recipe / "side.onnx")
    side = (casting / "recipe.toml").read_text().split("[views.top]")[1].replace("views.top", "views.side")
    add(recipe, "[views.side]\n" + side.replace("model.onnx", "side.onnx"))
    shutil.rmtree(recipe / "selftest")
    seal(recipe)
    return recipe


def shown(tmp_path: Path, root: Path, top: str, side: str) -> dict[str, Frame]:
    """The frames of a part as two folder cameras give them."""
    frames = {}
    for role, product, name in (("top", "demo-pcb", top), ("side", "demo-casting", side)):
        folder = tmp_path / role
        folder.mkdir(exist_ok=True)
        shutil.copyfile(root / "deploy" / "recipes" / product / "selftest" / f"{name}.png", folder / "S1.png")
        camera = FolderCamera(FolderCameraConfig(kind="folder", folder=str(folder)), camera_id=role)
        camera.open()
        try:
            frames[role] = camera.grab(Trigger("t1", "S1", "L", "", utc_now()), 5000)
        finally:
            camera.close()
    return frames


@pytest.mark.parametrize(
    ("top", "side", "verdict", "cameras"),
    [
        ("good", "good", Verdict.OK, set()),
        ("two-defects", "good", Verdict.NG, {"top"}),
        ("good", "two-defects", Verdict.NG, {"side"}),
        ("two-defects", "two-defects", Verdict.NG, {"top", "side"}),
    ],
)
def test_part_is_judged_through_two_cameras(
    two_cameras: Path, root: Path, tmp_path: Path, top: str, side: str, verdict: Verdict, cameras: set[str]
) -> None:
    """A defect that one camera sees makes the part NG, and every finding says which camera saw it."""
    loaded = open_recipe(two_cameras, threads=1)
    assert loaded.cameras == ("top", "side")
    seen = loaded.inspect(shown(tmp_path, root, top, side))
    assert (verdict, cameras) == (
        seen.judgement.verdict, {f.camera for r in seen.judgement.reasons for f in r.detections}
    )  # fmt: skip
    assert {found.camera for found in seen.detections} <= {"top", "side"}
    assert {"top.infer", "side.infer", "top.register"} <= {stage for stage, _ in seen.stage_ms}


def test_recipe_of_two_cameras_names_both_models_and_all_classes(two_cameras: Path) -> None:
    """Records name every model, and the controller gets one order of classes."""
    loaded = open_recipe(two_cameras, threads=1)
    assert loaded.model_sha256.count(",") == 1
    assert loaded.classes[-1] == "anomaly"
    assert len(set(loaded.classes)) == len(loaded.classes) == 7
    with pytest.raises(UsageError, match="top, side"):
        loaded.inspect_image(np.zeros((640, 640), np.uint8))


@pytest.mark.parametrize(("top", "verdict"), [("good", Verdict.ERROR), ("two-defects", Verdict.NG)])
def test_view_without_its_frame_is_an_error(
    two_cameras: Path, root: Path, tmp_path: Path, top: str, verdict: Verdict
) -> None:
    """A camera that gave nothing keeps a part from being OK; a defect the other one saw still makes it NG."""
    frames = shown(tmp_path, root, top, "good")
    del frames["side"]
    seen = open_recipe(two_cameras, threads=1).inspect(frames)
    assert seen.judgement.verdict == verdict
    assert "camera.failed" in [reason.rule_id for reason in seen.judgement.reasons]


def test_selftests_of_two_cameras(two_cameras: Path, root: Path) -> None:
    """A self-test of several cameras has a frame of each, and fails when one of them shows something else."""
    (two_cameras / "selftest").mkdir()
    frames = {}
    for role, product in (("top", "demo-pcb"), ("side", "demo-casting")):
        frames[role] = two_cameras / "selftest" / f"good.{role}.png"
        shutil.copyfile(root / "deploy" / "recipes" / product / "selftest" / "good.png", frames[role])
    loaded = open_recipe(two_cameras, threads=1)
    write_selftests(loaded, [frames])
    assert run_selftest(loaded) == 1
    shutil.copyfile(root / "deploy/recipes/demo-casting/selftest/two-defects.png", frames["side"])
    with pytest.raises(ConfigError, match=r"good\.top\.png\+good\.side\.png.*expected OK \[\], got NG \['anomaly'\]"):
        run_selftest(loaded)


def test_every_finding_of_a_single_camera_names_it(recipe: Path) -> None:
    """The role of the camera is in every finding and in the reasons that rest on it."""
    seen = open_recipe(recipe).inspect_image(read_grey(recipe / "selftest" / "two-defects.png"))
    in_reasons: list[Detection] = [found for reason in seen.judgement.reasons for found in reason.detections]
    assert {"top"} == {found.camera for found in (*seen.detections, *in_reasons)}
    assert set(in_reasons) <= set(seen.detections)
    assert not [stage for stage, _ in seen.stage_ms if "." in stage]


def test_keeping_warm_ends_when_interrupted_and_changes_no_verdict(recipe: Path) -> None:
    """A rehearsal leaves nothing behind."""
    loaded, frame = open_recipe(recipe, threads=1), read_grey(recipe / "selftest" / "good.png")
    before = loaded.inspect_image(frame)
    loaded.warm_up()
    loaded.keep_warm()
    loaded.interrupt_warming()
    assert before.detections == loaded.inspect_image(frame).detections


def test_measures_of_a_frame_tell_how_the_part_lies(recipe: Path) -> None:
    """Shift, turn and scale of the golden on the frame are measured within half a pixel, 0.1 degree and 0.2 %."""
    opened = open_recipe(recipe)
    role = opened.cameras[0]
    golden = read_grey(recipe / "golden.png")
    height, width = golden.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), -1.5, 1.01)  # OpenCV turns the other way
    matrix[:, 2] += (6.0, -4.0)
    frame = cv2.warpAffine(golden, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    found = dict(opened.inspect_image(frame).measured)
    assert found[f"{role}.shift_x_px"] == pytest.approx(6.0, abs=0.5)
    assert found[f"{role}.shift_y_px"] == pytest.approx(-4.0, abs=0.5)
    assert found[f"{role}.turn_deg"] == pytest.approx(1.5, abs=0.1)
    assert found[f"{role}.scale"] == pytest.approx(1.01, abs=0.002)
    assert found[f"{role}.brightness"] == pytest.approx(float(frame.mean()), abs=1)
    assert {f"{role}.sharpness", f"{role}.contrast", f"{role}.fit", f"{role}.coverage"} <= set(found)
    dark = dict(opened.inspect_image(np.zeros_like(golden)).measured)
    assert set(dark) == {f"{role}.sharpness", f"{role}.brightness", f"{role}.contrast"}
