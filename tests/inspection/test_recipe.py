import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from inspection.errors import ConfigError, FrameCorrupt, ModelError, UsageError
from inspection.images import read_grey, write_png
from inspection.recipe import (
    LOCK,
    lock_sha256,
    open_recipe,
    read_selftests,
    run_selftest,
    seal,
    verify,
    write_selftests,
)
from inspection.types import Verdict


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


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"files": 3}', '{"files": ["a"]}', "null"])
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
    tests = read_selftests(recipe)
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


@pytest.mark.parametrize("text", ["", "{", "3", '[{"frame": "good.png"}]', '["good.png"]'])
def test_damaged_selftests_are_refused(recipe: Path, text: str) -> None:
    """A list of self-tests that cannot be read is an error, not an empty list."""
    (recipe / "selftest" / "expected.json").write_text(text)
    with pytest.raises(ConfigError, match="damaged"):
        read_selftests(recipe)


def test_recipe_without_selftests_has_none(recipe: Path) -> None:
    """Self-tests are not mandatory."""
    shutil.rmtree(recipe / "selftest")
    assert () == read_selftests(recipe)
    assert run_selftest(open_recipe(recipe)) == 0


def test_written_selftests_are_what_the_recipe_says(recipe: Path) -> None:
    """Recording self-tests and replaying them agree."""
    loaded = open_recipe(recipe)
    expected = recipe / "selftest" / "expected.json"
    before = json.loads(expected.read_text())
    write_selftests(loaded, [recipe / "selftest" / row["frame"] for row in before])
    assert before == json.loads(expected.read_text())


def test_sealed_golden_is_not_replaced_by_one_that_comes_with_a_frame(recipe: Path) -> None:
    """Only a recipe that says with-frame compares with a golden that is not sealed."""
    frame = read_grey(recipe / "selftest" / "two-defects.png")
    assert open_recipe(recipe).inspect(frame, golden=frame).judgement.verdict == Verdict.NG


def test_recipe_with_frame_compares_with_what_the_frame_brings(recipe: Path) -> None:
    """In a replay each frame is compared with its own golden; without one it cannot be judged."""
    edit(recipe, 'golden = "golden.png"', 'golden = "with-frame"')
    loaded, golden = open_recipe(recipe), read_grey(recipe / "golden.png")
    assert loaded.inspect(golden, golden=golden).judgement.verdict == Verdict.OK
    with pytest.raises(FrameCorrupt, match="no golden"):
        loaded.inspect(golden)


def test_findings_down_to_the_lowest_review_score_are_kept(recipe: Path) -> None:
    """A rule that sends weak findings to review gets to see them."""
    text = (recipe / "recipe.toml").read_text().split("\n")
    weak = ["review_score = 0.03" if line.startswith("review_score") else line for line in text]
    (recipe / "recipe.toml").write_text("\n".join(weak))
    assert open_recipe(recipe).criteria.floor == 0.03
