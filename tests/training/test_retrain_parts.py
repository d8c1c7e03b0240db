"""What a retraining is made of: weights out of a model file, sides that share nothing, gates, limits in the recipe."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason='needs torch: pip install "lineside[train]"')

from datasets.manifest import Dataset, Digest, Origin, load_dataset, make_dataset, write_dataset  # noqa: E402
from datasets.sample import LabelledBox, Sample, Split  # noqa: E402
from datasets.todo import TODO, write_todo  # noqa: E402
from inspection.errors import ConfigError, UsageError  # noqa: E402
from inspection.images import read_image, write_png  # noqa: E402
from inspection.inspect_frame import Inspection  # noqa: E402
from inspection.model import LoadedModel, TrainedOn, load_model  # noqa: E402
from inspection.predict import Prediction  # noqa: E402
from inspection.recipe import open_recipe  # noqa: E402
from inspection.recipe_config import load_recipe  # noqa: E402
from inspection.types import Detection, Judgement, Reason, Region, Verdict  # noqa: E402
from training.by_recipe import Latency  # noqa: E402
from training.challenger import write_limits  # noqa: E402
from training.comparison import Judged, as_json, changes, gates  # noqa: E402
from training.evaluate import Case, Evaluation  # noqa: E402
from training.export import export_onnx  # noqa: E402
from training.fine_tune import Asked, _card, emphasised, false_calls  # noqa: E402
from training.graphs import DetectGraph, PartGraph  # noqa: E402
from training.models.detect_net import DetectNet  # noqa: E402
from training.models.part_net import PartNet  # noqa: E402
from training.norms import norms_of, settled  # noqa: E402
from training.report.comparison import write_comparison_page  # noqa: E402
from training.sides import Escape, divide, refuse_leaks  # noqa: E402
from training.start import open_start, product_of  # noqa: E402

RECIPES = ("demo-pcb", "demo-casting")


@pytest.mark.parametrize("name", RECIPES)
def test_weights_of_shipped_recipes_come_back(root: Path, name: str) -> None:
    """The net taken out of a sealed recipe's file answers as the file does on its self-test frames."""
    folder = root / "deploy" / "recipes" / name
    golden = read_image(folder / "golden.png") if name == "demo-pcb" else None
    frames = [(read_image(path), golden) for path in sorted((folder / "selftest").glob("*.png"))]
    start = open_start(folder / "model.onnx", frames)
    assert (3, 0) == (start.parity.frames, start.parity.flips)
    assert {"demo-pcb": "pcb", "demo-casting": "anomaly"}[name] == start.product


@pytest.mark.parametrize(
    ("update", "told"),
    [({"trainer": "ultralytics yolo11n"}, "was trained by 'ultralytics"), ({"precision": "int8"}, "INT8")],
)
def test_model_that_cannot_be_taken_up_is_refused(demo_model: LoadedModel, update: dict[str, str], told: str) -> None:
    """A foreign trainer's net and an INT8 copy are refused in words, before anything is trained."""
    with pytest.raises(UsageError, match=told):
        product_of(demo_model.card.model_copy(update=update))


def test_settled_norms_answer_as_before_and_train_from_there() -> None:
    """Settling changes no answer, and with batch statistics the net then answers nearly the same."""
    torch.manual_seed(3)
    net, batch = PartNet(1, 1).eval(), torch.rand(4, 1, 64, 64)
    for norm in norms_of(net):
        torch.nn.init.uniform_(norm.bias, -0.5, 0.5)
    with torch.no_grad():
        before = net(batch)
        other = net.train()(batch)
        net.eval()
    fresh = PartNet(1, 1).eval()
    fresh.load_state_dict(net.state_dict())
    with torch.no_grad(), settled(fresh):
        shown = fresh(batch)
    with torch.no_grad():
        torch.testing.assert_close(fresh(batch), shown, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(fresh.train()(batch), shown, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(before, other, atol=1e-2)


def sample(folder: Path, number: int, group: str, split: Split = "", *, bad: bool = False) -> Sample:
    path = folder / f"{number}.png"
    write_png(path, np.full((8, 8), number, np.uint8))
    labels = (LabelledBox("open", (1, 1, 4, 4)),) if bad else ()
    return Sample(path, None, labels, group, split, f"s{number}")


def dataset(folder: Path, samples: list[Sample], name: str = "parts") -> Path:
    made = make_dataset(name, samples, classes=("open",), origin=Origin("test", "made here"))
    write_dataset(folder / name, made)
    return folder / name


def test_marked_samples_are_the_holdout(tmp_path: Path) -> None:
    """What is marked test is judged by, what is marked val is for the limits, and the rest is learnt from."""
    marks: list[Split] = ["train", "val", "test", "train", ""]
    path = dataset(tmp_path, [sample(tmp_path, n, f"g{n}", mark) for n, mark in enumerate(marks)])
    sides = divide(path, holdout=None, escapes=None, known=(), seed=1)
    assert sides.calibration is not None
    names = [{s.name for s in side.samples} for side in (sides.taught, sides.calibration, sides.holdout)]
    assert [{"s0", "s3", "s4"}, {"s1"}, {"s2"}] == names


@given(st.integers(0, 40), st.integers(6, 12))
def test_drawn_sides_share_nothing_and_leave_escapes_to_learn_from(seed: int, groups: int) -> None:
    """Where nothing is marked, whole groups are drawn, never one with an escape, and every side has samples."""
    from training.sides import _calibration_side, _from_within, _Source  # the drawing alone: no file is read

    samples = tuple(Sample(Path(f"{n}"), None, (), f"g{n // 2}", "", f"s{n}") for n in range(2 * groups))
    digests = tuple(Digest(f"{n:064x}", "") for n in range(2 * groups))
    whole = Dataset("parts", ("open",), samples, digests, Origin("test", ""))
    source = _Source(whole, frozenset({"s3"}), seed)
    holdout, beside, learnable, _ = _from_within(source, list(samples))
    calibration, learnable, _ = _calibration_side(source, learnable, beside)
    refuse_leaks(source.only(learnable), calibration, holdout, set())
    assert {"s2", "s3"} <= {s.name for s in learnable}
    assert holdout.samples
    assert beside is None


def test_undrawn_escape_is_not_learnt_from_but_watched(tmp_path: Path) -> None:
    """An escape whose defect nobody has drawn would be learnt as good: it is in the regression set alone."""
    rows = [sample(tmp_path, n, f"g{n}", "train" if n < 4 else "test", bad=n == 1) for n in range(6)]
    path = dataset(tmp_path, rows)
    write_todo(path, ["s1", "s2"])
    sides = divide(path, holdout=None, escapes=None, known=(), seed=1)
    assert {"s0", "s1", "s3"} == {s.name for s in sides.taught.samples}
    assert {("s1", True), ("s2", False)} == {(e.sample.name, e.learnt) for e in sides.escapes}
    assert any("s2" in note for note in sides.notes)


def test_escape_that_another_camera_may_show_is_no_escape_of_this_one(tmp_path: Path) -> None:
    """Of a part with several cameras it is neither learnt from nor watched until it is drawn, wherever it is listed."""
    rows = [sample(tmp_path, n, f"g{n}", "train" if n < 4 else "test", bad=n == 1) for n in range(6)]
    path = dataset(tmp_path, rows)
    write_todo(path, ["s1", "s2", "s3"], unplaced=["s1", "s2"])
    assert ((path / TODO).read_text(encoding="utf-8")).count("unplaced") == 1
    for escapes in (None, path):
        sides = divide(path, holdout=None, escapes=escapes, known=(), seed=1)
        assert {"s0", "s1"} == {s.name for s in sides.taught.samples}
        watched = {e.sample.name for e in sides.escapes}
        assert {"s1", "s3"} <= watched
        assert "s2" not in watched
        assert any("but for 1 of parts with several cameras" in note for note in sides.notes)


def test_escapes_that_the_holdout_lists_are_watched_too(tmp_path: Path) -> None:
    """No escape is left out: those of the holdout are in the regression set, and one that nobody has drawn is no good part."""
    taught = dataset(tmp_path, [sample(tmp_path, n, f"g{n}", "train", bad=n == 1) for n in range(4)])
    write_todo(taught, ["s1"])
    held = dataset(tmp_path, [sample(tmp_path, n, f"h{n}", bad=n == 11) for n in range(10, 14)], "held")
    write_todo(held, ["s11", "s12"])
    sides = divide(taught, holdout=held, escapes=None, known=(), seed=1)
    assert {("s1", True), ("s11", False), ("s12", False)} == {(e.sample.name, e.learnt) for e in sides.escapes}
    assert ["s10", "s11", "s13"] == [one.name for one in sides.holdout.samples]
    assert any("1 escapes of held yet (s12): they were neither learnt" in note for note in sides.notes)


@pytest.mark.parametrize("which", ["parts", "held", "escaped"])
def test_pictures_that_are_not_those_of_the_dataset_are_refused(tmp_path: Path, which: str) -> None:
    """What was exchanged or deleted since a dataset was made is named: its version says nothing about such pictures."""
    paths = {
        name: dataset(tmp_path, [sample(tmp_path, first + n, f"{name}{n}", bad=n == 1) for n in range(3)], name)
        for name, first in (("parts", 0), ("held", 10), ("escaped", 20))
    }
    divide(paths["parts"], holdout=paths["held"], escapes=paths["escaped"], known=(), seed=1)
    exchanged, deleted, _ = load_dataset(paths[which]).samples
    exchanged.image.write_bytes((tmp_path / "1.png").read_bytes() + b"!")
    deleted.image.unlink()
    with pytest.raises(UsageError, match=f"2 files of dataset {which} are missing .*{exchanged.image.name}"):
        divide(paths["parts"], holdout=paths["held"], escapes=paths["escaped"], known=(), seed=1)


@pytest.mark.parametrize("known", [(), ("ab" * 6,)])
def test_champion_that_names_no_pictures_is_said(tmp_path: Path, known: tuple[str, ...]) -> None:
    """Where nobody knows what the champion learnt from, the comparison says that the holdout was not checked against it."""
    path = dataset(tmp_path, [sample(tmp_path, n, f"g{n}", "test" if n == 2 else "train") for n in range(3)])
    notes = divide(path, holdout=None, escapes=None, known=known, seed=1).notes
    assert any("whether the holdout is new to it was not checked" in note for note in notes) == (not known)


LISTED, UNLISTED = ("ab" * 6,), ()


@pytest.mark.parametrize(
    ("images", "frames", "goldens", "known"),
    [
        (LISTED, 1, 0, True),
        (UNLISTED, 25_000, 0, False),  # too many for a card
        (UNLISTED, 0, 25_000, False),
        (UNLISTED, 0, 0, True),  # from generated boards alone: there was no picture to name
    ],
)
def test_card_names_all_pictures_or_none(
    demo_model: LoadedModel, tmp_path: Path, images: tuple[str, ...], frames: int, goldens: int, known: bool
) -> None:
    """A retrained card never names the new pictures alone, as if the champion had learnt from no others."""
    seen = TrainedOn(source="some", images_sha256=images, labelled_frames=frames, goldens=goldens)
    old = LoadedModel(demo_model.path, demo_model.card.model_copy(update={"trained_on": seen}), "0" * 64, None)  # type: ignore[arg-type]
    taught = load_dataset(dataset(tmp_path, [sample(tmp_path, 1, "g1", "train")]))
    trained = SimpleNamespace(goldens=0, trainer="lineside net, trained from scratch", trained_s=60.0)
    card = _card(Asked(Path("r"), Path("d"), Path("o")), old, trained, taught)  # type: ignore[arg-type]
    wanted = tuple(sorted({*images, taught.digests[0].image[:12]})) if known else ()
    assert wanted == card.trained_on.images_sha256


@pytest.mark.parametrize(("number", "group", "told"), [(9, "g1", "share a group"), (1, "other", "same pictures")])
def test_holdout_that_leaks_is_refused(tmp_path: Path, number: int, group: str, told: str) -> None:
    """A holdout that shares a group or a picture with what is learnt from proves nothing; its samples are named."""
    taught = dataset(tmp_path, [sample(tmp_path, n, f"g{n}", "train") for n in range(3)])
    held = dataset(tmp_path, [sample(tmp_path, number, group), sample(tmp_path, 20, "h20")], "held")
    with pytest.raises(UsageError, match=rf"{told}.*: s{number}\n"):
        divide(taught, holdout=held, escapes=None, known=(), seed=1)


def test_copies_with_contrary_labels_are_refused(tmp_path: Path) -> None:
    """A picture that is good in one sample and defective in another is named instead of learnt or proven with."""
    rows = [sample(tmp_path, n, f"g{n}", bad=n == 1) for n in range(3)]
    copy = replace(rows[1], labels=(), name="s9", group="g9")
    with pytest.raises(UsageError, match="good in one and defective in another: s1, s9"):
        divide(dataset(tmp_path, [*rows, copy]), holdout=None, escapes=None, known=(), seed=1)


def test_holdout_that_the_champion_learnt_from_is_refused(tmp_path: Path) -> None:
    """Pictures that the recipe's model was trained on are no holdout for its successor either."""
    path = dataset(tmp_path, [sample(tmp_path, n, f"g{n}", "test" if n == 2 else "train") for n in range(3)])
    known = [d.image[:12] for d in divide(path, holdout=None, escapes=None, known=(), seed=1).holdout.digests]
    with pytest.raises(UsageError, match="trained on before: s2"):
        divide(path, holdout=None, escapes=None, known=known, seed=1)


def evaluation(card: object, verdicts: str, samples: tuple[Sample, ...]) -> Evaluation:
    """One case a letter: o OK, n NG, r REVIEW, e ERROR, u ERROR because a file could not be read."""
    of = {"o": Verdict.OK, "n": Verdict.NG, "r": Verdict.REVIEW, "e": Verdict.ERROR, "u": Verdict.ERROR}
    cases = []
    for letter, one in zip(verdicts, samples, strict=True):
        reasons = () if letter == "o" else (Reason("rule", "a reason", ()),)
        seen = Inspection(Judgement(of[letter], reasons), (), ())
        cases.append(Case(one, Prediction(one.name, seen, 1.0), unread=letter == "u"))
    return Evaluation(card, tuple(cases), (), 0)  # type: ignore[arg-type]


def compared(truth: str, before: str, after: str, *, escapes: tuple[str, str] = ("", ""), p99: float = 5.0) -> Judged:
    """Champion and challenger on parts of groups of two; truth: g good, d defective."""
    label = (LabelledBox("open", (1, 1, 4, 4)),)
    samples = tuple(
        Sample(Path(f"{n}.png"), None, label if kind == "d" else (), f"g{n // 2}", "test", f"s{n}")
        for n, kind in enumerate(truth)
    )
    holdout = Dataset("held", ("open",), samples, tuple(Digest(f"{n:064x}", "") for n in range(len(truth))),
                      Origin("test", ""))  # fmt: skip
    escaped = tuple(Sample(Path(f"e{n}.png"), None, (), "e", "", f"e{n}") for n in range(len(escapes[0])))
    card = SimpleNamespace(classes=("open",), task="detect")
    return Judged(
        holdout, evaluation(card, before, samples), evaluation(card, after, samples),
        tuple(Escape(one, f"{n + 500:064x}", n == 0) for n, one in enumerate(escaped)),
        evaluation(card, escapes[0], escaped), evaluation(card, escapes[1], escaped),
        Latency(1.0, 2.0, 60, "a computer"), Latency(1.0, p99, 60, "a computer"), 10.0,
    )  # fmt: skip


def held(judged: Judged) -> set[str]:
    return {gate.name for gate in gates(judged) if gate.held}


ALL = {"escape_bound", "overkill", "returned_escapes", "latency"}


@pytest.mark.parametrize(
    ("judged", "failed"),
    [
        (compared("gd", "on", "on"), set()),
        (compared("gd", "no", "on"), set()),
        (compared("ggdd", "oonn", "oonr"), set()),  # asked of a person is no escape
        (compared("ggdd", "oonn", "oono"), {"escape_bound"}),
        (compared("dddd", "oonn", "onno"), {"escape_bound", "overkill"}),  # as many, but of more groups; no good part
        (compared("ggdd", "oonn", "oenn"), {"overkill"}),
        (compared("gg", "oo", "oo"), {"escape_bound"}),  # nothing is known of escapes
        (compared("gd", "on", "on", escapes=("on", "no")), {"returned_escapes"}),
        (compared("gd", "on", "on", escapes=("oo", "nr")), set()),
        (compared("gd", "on", "on", p99=10.1), {"latency"}),
        (compared("ggdd", "oonn", "oone"), {"escape_bound"}),  # one that could not be judged might have passed
        (compared("ggdd", "oone", "oone"), set()),
        (compared("ggdd", "oone", "oonn"), set()),
        (compared("ggdd", "ooee", "ooee"), {"escape_bound"}),  # none was measured
        (compared("ggdd", "oonu", "oonu"), {"escape_bound"}),
        (compared("ggdd", "nnnn", "oenn"), {"overkill"}),
        (compared("ggdd", "eenn", "eenn"), {"overkill"}),
        (compared("gggdd", "ouonn", "ouonn"), {"overkill"}),
        (compared("gd", "on", "on", escapes=("n", "e")), {"returned_escapes"}),
        (compared("gd", "on", "on", escapes=("e", "u")), {"returned_escapes"}),
        (compared("gd", "on", "on", escapes=("e", "n")), set()),
    ],
)
def test_gates_hold_only_when_nothing_is_worse(judged: Judged, failed: set[str]) -> None:
    """Each gate fails for what it stands for, and what cannot be measured is not held."""
    assert ALL - failed == held(judged)


@given(st.text("onre", min_size=8, max_size=8), st.text("onre", min_size=8, max_size=8))
def test_escapes_hold_only_on_parts_that_were_judged(before: str, after: str) -> None:
    """Whatever the verdicts are, no fewer defective parts are judged and none more passes, or the gate does not hold."""
    if "escape_bound" in held(compared("dddddddd", before, after)):
        assert after.count("e") <= before.count("e")
        assert after.count("e") < len(after)
        assert after.count("o") <= before.count("o")


def test_parts_that_could_not_be_judged_are_said(demo_recipe: Path, tmp_path: Path) -> None:
    """How many parts neither recipe nor the new one could judge stands in the gates, in the file and on the page."""
    judged = compared("ggdddd", "oonnne", "oonueu", escapes=("n", "e"))
    told = {gate.name: gate.text for gate in gates(judged)}
    lost = "Could not be judged, so not measured: 1 of them with the champion, 3 with the challenger; of 2 a file could not"
    assert lost in told["escape_bound"]
    assert "not measured" not in told["overkill"]
    assert "1 could not be judged with the challenger, so not measured: e0" in told["returned_escapes"]
    facts = {
        "recipe_id": "r", "champion_sha256": "1", "champion_model_sha256": "2", "challenger_model_sha256": "3",
        "made_at": "2026-01-01T00:00:00+00:00", "command": "", "sides": [], "selftests_changed": [],
        "taught": {"dataset": "parts", "version": "4", "parts": 1, "defective": 0}, "limits": {"note": ""},
    }  # fmt: skip
    found, view = changes(judged), open_recipe(demo_recipe, threads=1).views["top"]
    content = as_json(judged, gates(judged), found, facts)
    write_comparison_page(tmp_path / "page.html", judged, gates(judged), found, content, (view, view))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert lost in page
    assert "3 defective, 0 good; of 2 a file could not be read" in page


@given(st.text("on", min_size=8, max_size=8), st.text("on", min_size=8, max_size=8))
def test_gates_follow_the_counts(before: str, after: str) -> None:
    """With one part a group, escapes and overkill hold exactly when their counts did not rise."""
    truth = "gggggggg"
    passed = compared(truth, before, after)
    assert ("overkill" in held(passed)) == (after.count("n") <= before.count("n"))
    assert {c.sample.name for c in changes(passed)} == {f"s{n}" for n in range(8) if before[n] != after[n]}


def test_changed_parts_are_told_worst_first() -> None:
    """A defective part that passes now comes before everything, and the truth stands beside both verdicts."""
    judged = compared("gdgd", "onno", "noon", escapes=("o", "n"))
    found = changes(judged)
    assert [("s1", "worse"), ("s0", "worse"), ("e0", "better"), ("s3", "better"), ("s2", "better")] == [
        (change.sample.name, change.kind) for change in found
    ]
    content = as_json(judged, gates(judged), found, {"recipe_id": "r"})
    assert {"sample": "s1", "truth": "open", "before": "NG", "after": "OK"} == content["changed"][0]
    assert {"known": 1, "learnt": 1} == content["escapes"]
    assert "1 of the 1 were learnt from" in next(g["text"] for g in content["gates"] if g["name"] == "returned_escapes")


RECIPE_TEXT = """# our board
schema_version = 2
recipe_id = "r"
product = "p"

[views.top]
rules = []

[views.side]  # from the left
model = "model.onnx"

[[views.side.rules]]  # opens
defect_class = "open"
ng_score = 0.4  # agreed with quality
review_score = 0.2

[[views.side.rules]]
review_score = 0.2
ng_score = 0.4
defect_class = "short"
"""


def test_limits_are_written_and_nothing_else(tmp_path: Path) -> None:
    """New limits go into their rules; comments, order and every other line stay."""
    text = RECIPE_TEXT.replace("[views.top]\nrules = []\n\n", "")
    (tmp_path / "recipe.toml").write_text(text)
    rules = load_recipe(tmp_path / "recipe.toml").views["side"].rules
    new = [rules[0], rules[1].model_copy(update={"ng_score": 0.71234, "review_score": 0.05})]
    write_limits(tmp_path, "side", new)
    expected = text.replace("review_score = 0.2\nng_score = 0.4\n", "review_score = 0.05\nng_score = 0.71234\n")
    assert expected == (tmp_path / "recipe.toml").read_text()


def test_limits_without_a_line_of_their_own_are_refused(tmp_path: Path) -> None:
    """Rules in one line cannot be changed in place, and the engineer is told how to write them."""
    rule = '{defect_class = "open", ng_score = 0.4, review_score = 0.2}'
    head = 'schema_version = 2\nrecipe_id = "r"\nproduct = "p"\n[views.top]\n'
    (tmp_path / "recipe.toml").write_text(f"{head}rules = [{rule}]\n")
    rules = load_recipe(tmp_path / "recipe.toml").views["top"].rules
    with pytest.raises(ConfigError, match="write each rule under"):
        write_limits(tmp_path, "top", [rules[0].model_copy(update={"ng_score": 0.6})])


def test_file_of_another_net_is_refused(root: Path, tmp_path: Path) -> None:
    """A file whose convolutions are not those of a net of ours is no start, whatever its card says."""
    import onnx

    from inspection.errors import ModelError
    from training.export import write_card

    casting = load_model(root / "deploy" / "recipes" / "demo-casting" / "model.onnx")
    path = tmp_path / "model.onnx"
    model = onnx.load(str(casting.path))
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    twin = onnx.helper.make_node("Conv", list(first.input), ["unused"], name="unused")
    twin.attribute.extend(first.attribute)
    model.graph.node.append(twin)
    onnx.save(model, str(path))
    write_card(path, casting.card)
    with pytest.raises(ModelError, match="is not of a net that this version"):
        open_start(path, [])


def test_what_the_champion_gets_wrong_is_shown_more_often() -> None:
    """Parts that the recipe in force judges otherwise than a person are what is to be learnt, and come up more often."""
    judged = compared("g" * 10, "n" + "o" * 9, "o" * 10)
    names = [one.name for one in emphasised(judged.champion)]
    assert 4 == names.count("s0")
    assert {1} == {names.count(f"s{n}") for n in range(1, 10)}
    assert 10 == len(emphasised(judged.challenger))


def test_false_calls_are_places_to_look_at() -> None:
    """What was counted where a person marked nothing is looked at again; what meets a marked box is no false call."""
    hits = tuple(Detection("open", 0.9, Region(box)) for box in ((0, 0, 3, 3), (50, 50, 60, 60)))
    seen = Inspection(Judgement(Verdict.NG, (Reason("rule", "a reason", hits),)), hits, ())
    label = LabelledBox("open", (1, 1, 4, 4))
    marked, good, whole = (
        Sample(Path("x.png"), None, labels, "g", "", name, kind)
        for labels, name, kind in (((label,), "marked", ""), ((), "good", ""), ((), "whole", "open"))
    )
    cases = tuple(Case(one, Prediction("x.png", seen, 1.0)) for one in (marked, good, whole))
    found = false_calls(Evaluation(SimpleNamespace(classes=("open",)), cases, (), 0))  # type: ignore[arg-type]
    assert {"marked": ((50, 50, 60, 60),), "good": ((0, 0, 3, 3), (50, 50, 60, 60))} == found


FORMS = {
    "detect": lambda: DetectGraph(DetectNet(3, 2, 8)),
    "detect fine": lambda: DetectGraph(DetectNet(1, 2, 4)),
    "classify": lambda: PartGraph(PartNet(3, 2), (64, 96), shrink=2, anomaly=False),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_our_nets_comes_back(demo_model: LoadedModel, tmp_path: Path, form: str) -> None:
    """Stride, input size, shrinking and colour are read from the file, and the net judges as the file does."""
    torch.manual_seed(2)
    graph = FORMS[form]()
    for norm in norms_of(graph):
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.uniform_(norm.running_mean, -0.2, 0.2)
    update = {
        "classes": ("a", "b"),
        "golden_guided": False,
        "channels": graph.net.channels,
        "task": form.split()[0],
        "limits": (),
        "trainer": "lineside net",
    }
    export_onnx(graph, demo_model.card.model_copy(update=update), tmp_path / "model.onnx")
    shape = (160, 192) if graph.net.channels == 1 else (160, 192, 3)
    start = open_start(tmp_path / "model.onnx", [(np.random.default_rng(1).integers(0, 256, shape, np.uint8), None)])
    assert form.split()[0] == start.product
    wanted = {"detect": (8, None, 1), "detect fine": (4, None, 1), "classify": (0, (64, 96), 2)}[form]
    assert wanted == (start.shape.first_stride, start.shape.size, start.shape.shrink)
