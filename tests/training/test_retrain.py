"""`lineside retrain` from a sealed recipe to a sealed challenger, on boards and for a time as small as they can be."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason='needs torch: pip install "lineside[train]"')

from datasets.manifest import Origin, load_dataset, make_dataset, write_dataset  # noqa: E402
from datasets.sample import LabelledBox, Sample, Split  # noqa: E402
from datasets.synth.boards import generate_pair  # noqa: E402
from datasets.synth.camera import CameraModel  # noqa: E402
from datasets.synth.defects import PCB_CLASSES  # noqa: E402
from datasets.todo import write_todo  # noqa: E402
from inspection.cli import main as lineside  # noqa: E402
from inspection.errors import ConfigError, GateNotMet, UsageError  # noqa: E402
from inspection.images import read_grey, write_png  # noqa: E402
from inspection.model import Calibration, ClassLimit, load_model  # noqa: E402
from inspection.promotion_gate import gate_warnings, require_gates  # noqa: E402
from inspection.recipe import lock_sha256, open_recipe, run_selftest, seal, verify  # noqa: E402
from inspection.recipe_lock import read_lock  # noqa: E402
from inspection.recipe_new import Plan, ViewPlan, make_recipe  # noqa: E402
from inspection.signing_keys import make_key, read_private_key  # noqa: E402
from training.by_recipe import judge_all, set_rules  # noqa: E402
from training.challenger import write_limits  # noqa: E402
from training.export import write_card  # noqa: E402
from training.limits import choose_limits  # noqa: E402
from training.retrain import Asked, Outcome, _compared, as_text, retrain  # noqa: E402
from training.sides import divide  # noqa: E402

CAMERA = CameraModel(shift_px=6, rotate_deg=0.5, scale=0.005)
GATES = ["escape_bound", "overkill", "returned_escapes", "latency"]
SPLITS: dict[int, Split] = {0: "train", 1: "train", 2: "val", 3: "test", 4: "test"}  # of the lots
HOSTILE = "<script>alert(1)</script>"


def frame(seed: int, golden: np.ndarray, defects: int) -> tuple[np.ndarray, tuple[LabelledBox, ...]]:
    pair = generate_pair(np.random.default_rng(seed), golden, defects=defects, camera=CAMERA)
    return pair.frame, tuple(LabelledBox(defect.defect_class, defect.box_px) for defect in pair.defects)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """More threads would only wait for each other on crops this small."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def champion(demo_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sealed recipe with the demo recipe's own model, for a quarter of its board."""
    folder = tmp_path_factory.mktemp("champion")
    golden = read_grey(demo_recipe / "golden.png")[160:480, 160:480]
    write_png(folder / "golden.png", golden)
    for name, seed, defects in (("good", 71, 0), ("bad", 72, 3)):
        write_png(folder / f"{name}.png", frame(seed, golden, defects)[0])
    view = ViewPlan("top", demo_recipe / "model.onnx", folder / "golden.png")
    make_recipe(Plan(folder / "board", "board", (view,), selftest=(folder / "good.png", folder / "bad.png")))
    # Time enough for a part: how busy this machine is, is not what is tested.
    toml = folder / "board" / "recipe.toml"
    toml.write_text(f"deadline_ms = 60000\n{toml.read_text(encoding='utf-8')}", encoding="utf-8")
    seal(folder / "board")
    return folder / "board"


@pytest.fixture(scope="module")
def parts(champion: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty boards in five lots, half of them defective; two lots to learn from, one for limits, two held out."""
    folder, samples = tmp_path_factory.mktemp("parts"), []
    golden = read_grey(champion / "golden.png")
    for number in range(20):
        image, labels = frame(300 + number, golden, 2 * (number % 2))
        write_png(folder / f"{number}.png", image)
        lot = number // 4
        name = f"{number} {HOSTILE}"
        samples.append(
            Sample(folder / f"{number}.png", champion / "golden.png", labels, f"lot{lot}", SPLITS[lot], name)
        )
    made = make_dataset("parts", samples, classes=PCB_CLASSES, origin=Origin("synth", "made here"))
    write_dataset(folder / "dataset", made)
    return folder / "dataset"


def asked(champion: Path, parts: Path, out: Path, **changes: object) -> Asked:
    few = Asked(champion, parts, out, epochs=0.006, batch=8, crop_px=128, workers=0, threads=1, command="a test")
    return replace(few, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def finished(champion: Path, parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A retraining of three steps, which changes next to nothing, signed."""
    folder = tmp_path_factory.mktemp("finished")
    make_key(folder / "key")
    return retrain(asked(champion, parts, folder / "out", key=read_private_key(folder / "key")))


def content(outcome: Outcome) -> dict:
    return json.loads((outcome.folder / "comparison.json").read_text())


def test_challenger_is_a_sealed_recipe_that_passes_its_own_tests(finished: Outcome, champion: Path) -> None:
    """What a retraining leaves verifies, gives the verdicts it was sealed with, is signed, and has another model."""
    verify(finished.folder)
    challenger = open_recipe(finished.folder, threads=1)
    assert run_selftest(challenger) == 2
    assert read_lock(finished.folder).signature is not None
    assert challenger.model_sha256 != open_recipe(champion, threads=1).model_sha256
    assert {"comparison.json", "comparison.html", "version.txt"} <= {path.name for path in finished.folder.iterdir()}
    card = challenger.views["top"].model.card
    assert "retrained from model" in card.trainer
    assert "0 verdict flips" in card.parity


def test_comparison_says_what_was_compared_on_what(
    finished: Outcome, champion: Path, parts: Path, tmp_path: Path
) -> None:
    """Versions, hashes, counts and gates stand in the file that a promotion reads, and it lets this very one through."""
    told, dataset = content(finished), load_dataset(parts)
    challenger, before = open_recipe(finished.folder, threads=1), open_recipe(champion, threads=1)
    assert (1, "board", lock_sha256(champion)) == (told["schema"], told["recipe_id"], told["champion_sha256"])
    assert (before.model_sha256, challenger.model_sha256) == (
        told["champion_model_sha256"], told["challenger_model_sha256"],
    )  # fmt: skip
    assert (8, 8) == (told["holdout_parts"], told["taught"]["parts"])
    assert GATES == [gate["name"] for gate in told["gates"]]
    assert all(gate["held"] for gate in told["gates"])
    assert all(isinstance(gate[who], int | float) for gate in told["gates"] for who in ("champion", "challenger"))
    require_gates(challenger, before)
    edited = Path(shutil.copytree(finished.folder, tmp_path / "edited"))
    toml = (edited / "recipe.toml").read_text(encoding="utf-8")
    (edited / "recipe.toml").write_text(toml.replace("deadline_ms = 60000", "deadline_ms = 59000"), encoding="utf-8")
    seal(edited)
    with pytest.raises(GateNotMet, match=r"changed after it was compared: recipe\.toml\n"):
        require_gates(open_recipe(edited, threads=1), before)
    few = {gate["name"]: gate["few"] for gate in told["gates"]}
    assert "2 independent groups of defective parts, fewer than 29" in few["escape_bound"]
    assert "4 good parts, fewer than 29" in few["overkill"]
    assert few["escape_bound"] in (finished.folder / "comparison.html").read_text(encoding="utf-8")
    assert 2 == as_text(finished).count("warning: ")
    assert 2 == len(gate_warnings(finished.folder))
    learnt = {d.image[:12] for s, d in zip(dataset.samples, dataset.digests, strict=True) if s.split == "train"}
    held = {d.image[:12] for s, d in zip(dataset.samples, dataset.digests, strict=True) if s.split == "test"}
    seen = set(challenger.views["top"].model.card.trained_on.images_sha256)
    assert learnt <= seen
    assert not held & seen


def test_finished_folder_is_not_overwritten(finished: Outcome, champion: Path, parts: Path) -> None:
    """A folder that holds a challenger takes no other one."""
    with pytest.raises(UsageError, match="is there already"):
        retrain(asked(champion, parts, finished.folder.parent))


def test_version_that_came_into_force_meanwhile_is_not_passed_off_as_compared(
    finished: Outcome, champion: Path, parts: Path, tmp_path: Path
) -> None:
    """Where another version is in force after the training, no challenger of it is made: the old one would be compared."""
    recipe, out = Path(shutil.copytree(champion, tmp_path / "board")), tmp_path / "out"
    before, asks = open_recipe(recipe, threads=1), asked(recipe, parts, out)
    sides = divide(parts, holdout=None, escapes=None, known=(), seed=1)
    out.mkdir()
    (recipe / "recipe.toml").write_text((recipe / "recipe.toml").read_text().replace("60000", "59000"))
    for kind, told in ((ConfigError, "recipe.toml was changed"), (UsageError, "another version came into force")):
        with pytest.raises(kind, match=told):
            _compared(asks, before, "top", sides, finished.folder / "model.onnx")
        seal(recipe)
    assert not (out / "recipe").exists()


def test_training_that_was_over_is_not_repeated(finished: Outcome, champion: Path, parts: Path, tmp_path: Path) -> None:
    """A retraining that was ended after its training goes on from the checkpoint, over whatever was left half made."""
    out = Path(shutil.copytree(finished.folder.parent, tmp_path / "out"))
    shutil.rmtree(out / "recipe")
    (out / ".recipe.partial").mkdir()
    (out / ".recipe.partial" / "model.onnx").write_text("half a file")
    again = retrain(asked(champion, parts, out))
    one, other = (
        torch.load(folder / "run" / "checkpoint.pt", weights_only=True) for folder in (finished.folder.parent, out)
    )
    assert one["step"] == other["step"]
    assert all(torch.equal(one["average"][key], other["average"][key]) for key in one["average"])
    verify(again.folder)
    assert not (out / ".recipe.partial").exists()


def test_folder_of_another_retraining_is_refused(champion: Path, parts: Path, tmp_path: Path) -> None:
    """What was begun with other samples is not gone on with."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "retrain.json").write_text('{"seed": 9}')
    with pytest.raises(UsageError, match="unfinished retraining of another"):
        retrain(asked(champion, parts, tmp_path / "out"))


@pytest.mark.parametrize("key", ["view", "escapes", "minutes", "epochs"])
def test_retraining_that_asks_for_something_else_does_not_go_on(
    finished: Outcome, champion: Path, parts: Path, tmp_path: Path, key: str
) -> None:
    """A checkpoint of another camera, of other escapes or of another length is not gone on from, and stays as it is."""
    out = Path(shutil.copytree(finished.folder.parent, tmp_path / "out"))
    shutil.rmtree(out / "recipe")
    before = (out / "run" / "checkpoint.pt").read_bytes()
    changes = {"escapes": {"escapes": parts}, "minutes": {"minutes": 5.0}, "epochs": {"epochs": 0.007}}
    if key == "view":
        plan = json.loads((out / "retrain.json").read_text())
        assert "top" == plan["view"]
        (out / "retrain.json").write_text(json.dumps(plan | {"view": "side"}))
    with pytest.raises(UsageError, match="unfinished retraining of another"):
        retrain(asked(champion, parts, out, **changes.get(key, {})))
    assert before == (out / "run" / "checkpoint.pt").read_bytes()


def test_plan_of_an_earlier_version_is_not_gone_on_with(
    finished: Outcome, champion: Path, parts: Path, tmp_path: Path
) -> None:
    """A folder whose plan does not say of which view it is may be of another one, so it is refused."""
    out = Path(shutil.copytree(finished.folder.parent, tmp_path / "out"))
    shutil.rmtree(out / "recipe")
    plan = json.loads((out / "retrain.json").read_text())
    del plan["view"]
    (out / "retrain.json").write_text(json.dumps(plan))
    with pytest.raises(UsageError, match="unfinished retraining of another"):
        retrain(asked(champion, parts, out))


def test_net_that_unlearnt_fails_its_gates_with_pictures(champion: Path, parts: Path, tmp_path: Path) -> None:
    """A challenger that became worse is written for looking at, with every changed part, and cannot be promoted."""
    bad = retrain(asked(champion, parts, tmp_path / "out", learning_rate=0.3))
    assert not bad.held
    told, page = content(bad), (bad.folder / "comparison.html").read_text()
    assert told["changed"]
    assert {"sample", "truth", "before", "after"} == set(told["changed"][0])
    assert page.count('class="part"') == len(told["changed"])
    assert page.count('<image href="data:image/') >= 2 * len(told["changed"])
    assert "✘ not held" in page
    assert HOSTILE not in page
    assert not any(word in page for word in ("http:", "https:", "<script", "@import", "url("))
    with pytest.raises(GateNotMet, match="does not hold"):
        require_gates(open_recipe(bad.folder, threads=1), open_recipe(champion, threads=1))


def words(champion: Path, parts: Path, out: Path, *more: str) -> list[str]:
    return ["retrain", str(champion), "--with", str(parts), "-o", str(out), *more]


def test_gate_that_fails_is_exit_code_1_in_words(
    champion: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An escape that would pass again, and a deadline that no model keeps, are said on stdout, and the exit code is 1."""
    listed = Path(shutil.copytree(parts, tmp_path / "listed"))
    samples = load_dataset(parts).samples
    good = next(sample.name for sample in samples if not sample.defective and sample.split == "train")
    write_todo(listed, [good])  # a part that looks good to any model, whose defect nobody has drawn
    out = tmp_path / "out"
    assert lineside(words(champion, listed, out, "--epochs", "0.005", "--deadline-ms", "1")) == 1
    told = capsys.readouterr().out
    assert "NOT HELD  No earlier escape returns: 1 of 1 earlier escapes pass with the champion, 1 with" in told
    assert "None of them was learnt from" in told
    assert "NOT HELD  Fast enough" in told
    verify(out / "recipe")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--minutes", "0"), "--minutes is 0.0"),
        (("--deadline-ms", "-1"), "--deadline-ms is -1"),
        (("--deadline-ms", "60001"), "by its recipe the station answers ERROR after 60000 ms"),
        (("--escapes", "nowhere"), "nowhere does not exist"),
        (("--view", "side"), "looks through top"),
    ],
)
def test_usage_is_exit_code_2(
    champion: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], told: str
) -> None:
    """What is asked wrongly is exit code 2 and leaves no folder, so that no script takes it for a failed gate."""
    assert lineside(words(champion, parts, tmp_path / "out", *more)) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("defective", [True, False])
def test_holdout_that_no_gate_can_hold_on_is_refused_before_training(
    champion: Path, parts: Path, tmp_path: Path, defective: bool
) -> None:
    """A holdout of good or of defective parts alone is refused at once, for nothing that is learnt could be promoted."""
    dataset = load_dataset(parts)
    kept = [one for one in dataset.samples if one.split != "test" or one.defective == defective]
    made = make_dataset("parts", kept, classes=PCB_CLASSES, origin=Origin("synth", "made here"))
    write_dataset(tmp_path / "one_kind", made)
    with pytest.raises(UsageError, match=f"none of the 4 parts held out is {'good' if defective else 'defective'}"):
        retrain(asked(champion, tmp_path / "one_kind", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def test_killed_retraining_leaves_no_torn_recipe_and_starts_again(champion: Path, parts: Path, tmp_path: Path) -> None:
    """A retraining that is killed in mid-training leaves no challenger; asked again, it makes a whole one."""
    out = tmp_path / "out"
    begun = subprocess.Popen(
        [sys.executable, "-m", "inspection", *words(champion, parts, out, "--epochs", "0.04")],
        env=ONE_THREAD,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while begun.poll() is None and not (out / "run" / "metrics.jsonl").exists():
            time.sleep(0.05)
        assert begun.poll() is None
    finally:
        os.killpg(begun.pid, signal.SIGKILL)
        begun.wait(timeout=60)
    assert not (out / "recipe").exists()
    verify(retrain(asked(champion, parts, out, epochs=0.04)).folder)


def test_limits_that_are_better_on_the_calibration_side_are_taken(champion: Path, parts: Path, tmp_path: Path) -> None:
    """Limits that let defects pass are replaced by those the calibration side speaks for, in the recipe and in the card."""
    folder = Path(shutil.copytree(champion, tmp_path / "lax"))
    text = (folder / "recipe.toml").read_text()
    lax = "\n".join("ng_score = 0.99" if line.startswith("ng_score") else line for line in text.splitlines())
    lax = lax.replace("review_score = 0.22", "review_score = 0.99")
    (folder / "recipe.toml").write_text(lax + "\n")
    view = open_recipe(folder, threads=1).views["top"]
    side = divide(parts, holdout=None, escapes=None, known=(), seed=1).calibration
    chosen = choose_limits(view, side, ())
    assert chosen.new
    assert min(rule.ng_score for rule in chosen.rules) == chosen.card.threshold < 0.99
    assert "No escape rate is claimed" in chosen.note
    write_limits(folder, "top", chosen.rules)
    assert tuple(open_recipe(folder, threads=1).views["top"].section.rules) == chosen.rules


KEEP_OUT = '\n[[views.top.rois]]\nid = "corner"\nkind = "keep_out"\nbox_px = [0, 0, 40, 40]\n'


@pytest.mark.parametrize("beyond", ["", KEEP_OUT])
def test_limits_are_claimed_of_a_recipe_that_judges_by_scores_alone(
    champion: Path, parts: Path, tmp_path: Path, beyond: str
) -> None:
    """What is proven of limits is not said of a recipe whose keep-out passes findings that reach them."""
    folder = Path(shutil.copytree(champion, tmp_path / "lax"))
    model = load_model(folder / "model.onnx", threads=1)
    limits = tuple(ClassLimit(defect_class=name, ng_score=0.98765, review_score=0.98765) for name in model.card.classes)
    wish = Calibration(
        statement="", dataset="d", dataset_version="1", confidence=0.6, counted="parts", defective=2, escapes=0,
        escape_rate=0.5, good=2, overkill=0,
    )  # fmt: skip
    write_card(folder / "model.onnx", model.card.model_copy(update={"limits": limits, "calibration": wish}))
    view = ViewPlan("top", folder / "model.onnx", champion / "golden.png")
    make_recipe(Plan(tmp_path / "board", "board", (view,)))
    text = (tmp_path / "board" / "recipe.toml").read_text() + beyond
    (tmp_path / "board" / "recipe.toml").write_text(text)
    opened = open_recipe(tmp_path / "board", threads=1).views["top"]
    assert {0.98765} == {rule.ng_score for rule in opened.section.rules}  # not rounded up past what the card has
    side = divide(parts, holdout=None, escapes=None, known=(), seed=1).calibration
    chosen = choose_limits(opened, side, ())
    claim = chosen.card.calibration
    assert chosen.new
    assert claim is not None
    assert (claim.escape_bound, bool(chosen.card.escape_bound)) == ((None, False) if beyond else (0.5, True))
    assert ("judges by more (the keep-out corner). By its rules" in claim.statement) == bool(beyond)
    if side is not None:
        set_rules(opened, [rule.rule() for rule in chosen.rules])
        counts = judge_all(opened, side.samples, "again").parts()
        assert (counts.escapes, counts.overkill) == (claim.escapes, claim.overkill)
