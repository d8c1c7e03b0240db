import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason='needs torch: pip install "lineside[train]"')

import onnx  # noqa: E402

from datasets.manifest import Dataset, Origin, load_dataset, make_dataset  # noqa: E402
from datasets.sample import Sample  # noqa: E402
from inspection.detector import as_batch  # noqa: E402
from inspection.errors import UsageError  # noqa: E402
from inspection.images import write_png  # noqa: E402
from inspection.model import Calibration, LoadedModel, ModelCard, Task, TrainedOn, load_model  # noqa: E402
from training import quantize as verb  # noqa: E402
from training.export import export_onnx, write_card  # noqa: E402
from training.graphs import DetectGraph, PartGraph  # noqa: E402
from training.models.detect_net import DetectNet  # noqa: E402
from training.models.part_net import PartNet  # noqa: E402
from training.quantize import (  # noqa: E402
    Comparison,
    compare,
    drawn,
    feeds_of,
    float_nodes,
    machine,
    quantize,
    quantize_if_worth,
    sides,
)

FASTER = Comparison(20, "NG 9, OK 11", 0, 0.01, 12.0, 8.0, "a machine")


def card_of(task: Task) -> ModelCard:
    return ModelCard(
        name=task, task=task, classes=("anomaly",), golden_guided=False, threshold=0.2, threshold_from="a test",
        trained_on=TrainedOn(source="nothing"), trainer="none", trainer_licence="Apache-2.0", command="a test", seed=0,
        trained_minutes=0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[Task, Path]:
    """An untrained model of each task that compares with no golden."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("models")
    size = (64, 64)
    graphs: dict[Task, torch.nn.Module] = {
        "detect": DetectGraph(DetectNet(1, 1, 8)),
        "classify": PartGraph(PartNet(1, 1), size, shrink=1, anomaly=False),
        "anomaly": PartGraph(PartNet(1, 1), size, shrink=1, anomaly=True),
    }
    for task, graph in graphs.items():
        export_onnx(graph, card_of(task), folder / f"{task}.onnx")
    return {task: folder / f"{task}.onnx" for task in graphs}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Twelve pictures of noise, six in train and six in val."""
    folder, rng, samples = tmp_path_factory.mktemp("parts"), np.random.default_rng(0), []
    for number in range(12):
        write_png(folder / f"{number}.png", rng.integers(0, 256, (64, 64), np.uint8))
        split = "train" if number % 2 else "val"
        samples.append(Sample(folder / f"{number}.png", None, (), f"{number}", split, f"{number}"))
    return make_dataset("parts", samples, classes=("anomaly",), origin=Origin("test", "made here"))


@pytest.fixture(scope="module")
def pair(demo_model: LoadedModel, demo_golden: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An INT8 copy of the demo model, calibrated on four crops of its golden."""
    crops = [np.ascontiguousarray(demo_golden[y : y + 128, x : x + 128]) for x in (0, 300) for y in (100, 400)]
    target = tmp_path_factory.mktemp("int8") / "model-int8.onnx"
    quantize(demo_model.path, target, [{"image": as_batch(crop), "golden": as_batch(crop)} for crop in crops])
    return target


def test_copy_is_a_model_of_its_own_that_says_so(pair: Path, demo_model: LoadedModel) -> None:
    """The copy has the source's card but for name and precision, and its own hash."""
    copy = load_model(pair, threads=1)
    assert (copy.card.precision, copy.card.name) == ("int8", demo_model.card.name + "-int8")
    same = {"precision": "fp32", "name": demo_model.card.name}
    assert demo_model.card == copy.card.model_copy(update=same)
    assert copy.sha256 != demo_model.sha256


def test_copy_is_smaller_and_answers_nearly_alike(pair: Path, demo_model: LoadedModel, demo_golden: np.ndarray) -> None:
    """Eight bits take less room and move the scores of a spoilt crop by little."""
    assert pair.stat().st_size < 0.6 * demo_model.path.stat().st_size
    golden = np.ascontiguousarray(demo_golden[100:420, 100:420])[None, :, :, None]
    frame = golden.copy()
    frame[0, 150:162, 150:162] = 255 - frame[0, 150:162, 150:162]
    feed = {"image": frame, "golden": golden}
    (exact,), (rounded,) = (model.session.run(["scores"], feed) for model in (demo_model, load_model(pair, threads=1)))
    assert np.abs(np.sort(exact[0])[-3:] - np.sort(rounded[0])[-3:]).max() < 0.3


def test_nothing_else_is_left_in_the_folder(pair: Path) -> None:
    """Files of the way are removed."""
    assert [pair.name] == [path.name for path in pair.parent.iterdir()]


@pytest.mark.parametrize(("task", "heads"), [("classify", 1), ("anomaly", 1), ("detect", 6)])
def test_last_convolution_of_every_head_stays_float(models: dict[Task, Path], task: Task, heads: int) -> None:
    """One for a heat map; two (classes and distances) for each of the three levels of a detector."""
    graph = onnx.load(str(models[task])).graph
    stay = set(float_nodes(graph))
    kinds = [node.op_type for node in graph.node if node.name in stay]
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert kinds.count("Conv") == heads < len(convolutions)
    read = {name for node in graph.node if node.op_type == "Conv" and node.name not in stay for name in node.input}
    assert read.isdisjoint(name for node in graph.node if node.name in stay for name in node.output)


def test_heads_of_the_golden_net_are_found(demo_model: LoadedModel) -> None:
    """Heat map and box distances."""
    graph = onnx.load(str(demo_model.path)).graph
    stay = set(float_nodes(graph))
    heads = [node.name for node in graph.node if node.name in stay and node.op_type == "Conv"]
    assert len(heads) == 2
    assert all("/heat/" in name or "/distance/" in name for name in heads)


@pytest.mark.parametrize("task", ["classify", "anomaly", "detect"])
def test_every_task_can_be_copied_and_answers_nearly_alike(
    models: dict[Task, Path], parts: Dataset, task: Task, tmp_path: Path
) -> None:
    """The copy judges frames it was not calibrated on with nearly the same scores."""
    model, target = load_model(models[task], threads=1), tmp_path / "int8.onnx"
    taught, new = sides(parts, model.card)
    quantize(models[task], target, feeds_of(model, taught))
    result = compare(model, load_model(target, threads=1), new, rounds=1)
    assert (result.frames, result.machine) == (6, machine())
    assert result.worst_score_difference < 0.05
    assert min(result.fp32_ms, result.int8_ms) > 0


def test_feeds_are_what_the_runtime_feeds(boards: Path, demo_model: LoadedModel) -> None:
    """A golden-guided model is calibrated on frames with the golden laid over them."""
    samples = load_dataset(boards).samples[:2]
    feeds = feeds_of(demo_model, samples)
    assert {"image", "golden"} == set(feeds[0])
    assert len(feeds) <= 2
    assert all(feed["image"].shape == feed["golden"].shape for feed in feeds)


@pytest.mark.parametrize(
    ("changes", "wins", "word"),
    [
        ({}, True, "kept: faster"),
        ({"flips": 1}, False, "flips 1 verdicts"),
        ({"int8_ms": 11.9}, False, "no more than 1.05 times faster"),
        ({"int8_ms": 13.0, "flips": 2}, False, "flips 2 verdicts and is no more"),
    ],
)
def test_copy_wins_only_when_faster_and_without_a_flip(changes: dict, wins: bool, word: str) -> None:
    """What does not win says why, and every note has the figures."""
    result = replace(FASTER, **changes)
    assert wins == result.wins
    assert word in result.note()
    assert "20 frames (NG 9, OK 11)" in result.note()


def calibrated(path: Path) -> ModelCard:
    """The card of the model in ``path``, after it was given an escape claim."""
    claim = Calibration(
        statement="claimed", dataset="d", dataset_version="1", confidence=0.95, defective=59, escapes=0, escape_bound=0.05,
        good=1, overkill=0,
    )  # fmt: skip
    card = card_of("classify").model_copy(update={"calibration": claim, "escape_bound": "claimed"})
    write_card(path, card)
    return card


def test_winner_is_kept_with_its_reason_and_without_the_claim_of_another_file(
    models: dict[Task, Path], parts: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The escape claim was made for the float file; the float file stays as it was."""
    source, target = Path(shutil.copy(models["classify"], tmp_path / "m.onnx")), tmp_path / "int8.onnx"
    card = calibrated(source)
    monkeypatch.setattr(verb, "compare", lambda *_, **__: FASTER)
    assert target == quantize_if_worth(source, target, parts, frames=3, rounds=1).path
    copy = load_model(target, threads=1).card
    assert (copy.precision, copy.calibration, copy.escape_bound) == ("int8", None, "")
    assert "1.50 times" in copy.precision_note
    assert load_model(source, threads=1).card == card
    assert {"m.onnx", "int8.onnx"} == {path.name for path in tmp_path.iterdir()}


def test_loser_is_deleted_and_the_float_card_says_why(
    models: dict[Task, Path], parts: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No INT8 file is left; the float file keeps its claim and gets the reason."""
    source, target = Path(shutil.copy(models["classify"], tmp_path / "m.onnx")), tmp_path / "int8.onnx"
    card = calibrated(source)
    monkeypatch.setattr(verb, "compare", lambda *_, **__: replace(FASTER, flips=3))
    assert quantize_if_worth(source, target, parts, frames=3, rounds=1).path is None
    after = load_model(source, threads=1).card
    assert "flips 3 verdicts" in after.precision_note
    assert card == after.model_copy(update={"precision_note": ""})
    assert ["m.onnx"] == [path.name for path in tmp_path.iterdir()]


def test_int8_model_is_not_copied_again(pair: Path, parts: Dataset, tmp_path: Path) -> None:
    """The float model is what is asked for."""
    with pytest.raises(UsageError, match="INT8 model already"):
        quantize_if_worth(pair, tmp_path / "twice.onnx", parts, frames=1, rounds=1)


def test_comparison_needs_frames_that_were_not_calibrated_on(parts: Dataset) -> None:
    """Without a val split, or without splits and without knowing what was learnt, nothing is compared."""
    card = card_of("classify")
    taught = replace(parts, samples=tuple(replace(sample, split="train") for sample in parts.samples))
    free = replace(parts, samples=tuple(replace(sample, split="") for sample in parts.samples))
    for dataset in (taught, free):
        with pytest.raises(UsageError, match="both are needed"):
            sides(dataset, card)
    seen = tuple(digest.image[:12] for digest in free.digests[:4])
    trained = card.model_copy(update={"trained_on": TrainedOn(source="some", images_sha256=seen)})
    assert [4, 8] == [len(side) for side in sides(free, trained)]


def test_draw_is_the_same_every_time(parts: Dataset) -> None:
    """Seeded, without repetition, and no more than there are."""
    assert drawn(parts.samples, 5) == drawn(parts.samples, 5)
    assert len(set(drawn(parts.samples, 5))) == 5
    assert len(drawn(parts.samples, 500)) == 12
