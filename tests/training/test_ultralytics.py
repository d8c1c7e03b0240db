"""YOLO within the model contract, without training; whole runs are in tests/test_offline.py."""

import ast
import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason='needs torch: pip install "lineside[train]"')

from datasets.sample import LabelledBox, Sample  # noqa: E402
from inspection.errors import ModelError, UsageError  # noqa: E402
from inspection.images import read_grey, write_png  # noqa: E402
from inspection.model import ModelCard, TrainedOn  # noqa: E402
from training.config import TrainConfig  # noqa: E402
from training.export import TorchSession, check_parity, export_onnx  # noqa: E402
from training.trainers import Job  # noqa: E402
from training.trainers import ultralytics_yolo as yolo  # noqa: E402

CLASSES = ("chip", "a/b", "good")


def imported(path: Path) -> Iterator[str]:
    """Modules that a file imports by statement or by ``importlib.import_module("...")``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield str(getattr(node.args[0], "value", ""))


def test_one_file_alone_imports_it(root: Path) -> None:
    """What is AGPL-3.0 is imported by one adapter, and there only when a run asks for it."""
    files = [path for layer in ("inspection", "datasets", "training") for path in (root / layer).rglob("*.py")]
    found = {path.name for path in files if any(name.split(".")[0] == "ultralytics" for name in imported(path))}
    assert found == {"ultralytics_yolo.py"}


def job(folder: Path, **changes: object) -> Job:
    """Three good parts, one of each class; the last of them held out."""
    samples = []
    for number, kind in enumerate(("", *CLASSES, "", "")):
        image = np.full((60, 90), 100 + number, np.uint8)
        write_png(folder / f"{number}.png", image)
        outline = ((30.0, 20.0), (50.0, 20.0), (40.0, 40.0))
        labels = (LabelledBox(kind, (30, 20, 50, 40), (outline,)),) if kind else ()
        samples.append(Sample(folder / f"{number}.png", None, labels, f"{number}", "", f"{number}"))
    config = replace(TrainConfig(out=folder / "run", trainer="ultralytics", data=folder), **changes)  # type: ignore[arg-type]
    return Job(config, CLASSES, tuple(samples[:5]), tuple(samples[5:]))


def test_boxes_are_written_as_yolo_reads_them(tmp_path: Path) -> None:
    """Both sides of the samples, boxes without their outlines, and class numbers in the order of the job."""
    data = yolo._write_boxes(job(tmp_path))
    folder = data.parent
    lines = {path.name: path.read_text().split() for path in (folder / "labels" / "train").iterdir()}
    assert lines["2.txt"] == ["1", "0.444444444", "0.5", "0.222222222", "0.333333333"]
    assert lines["0.txt"] == []
    assert [path.name for path in (folder / "images" / "val").iterdir()] == ["val 5.png"]


def test_parts_are_written_as_the_file_will_show_them(tmp_path: Path) -> None:
    """A folder for each class with square pictures; a class that is called as the good parts keeps its own."""
    asked = job(tmp_path)
    names = yolo._folder_names(CLASSES)
    folder = yolo._write_parts(asked, names, 32, 1)
    assert list(names.values()) == ["", *CLASSES]
    assert len({name.casefold() for name in names}) == 4
    assert sorted(path.name for path in (folder / "train").iterdir()) == sorted(names)
    assert read_grey(next((folder / "train" / "chip").iterdir())).shape == (32, 32)


def test_nothing_held_out_still_gives_both_sides(tmp_path: Path) -> None:
    """YOLO wants a validation side: without held-out samples it looks at some that are learnt from."""
    sides = yolo._sides(replace(job(tmp_path), held_out=()))
    assert {"train", "val"} == {sample.split for sample in sides}
    assert len({sample.name for sample in sides}) == len(sides)


def test_only_the_end_of_a_run_was_measured(tmp_path: Path) -> None:
    """Each epoch is a row of losses; figures are those of the last row, and none without held-out samples."""
    with (tmp_path / "results.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "time", "train/box_loss", "train/cls_loss", "metrics/mAP50(B)", "lr/pg0"])
        writer.writerows([[1, 10.5, 3.1, 2.0, 0, 0.1], [2, 20.5, 2.1, 1.0, 0.5, 0.1]])
    for held_out, kinds in ((True, ["train", "train", "val"]), (False, ["train", "train"])):
        yolo._write_metrics(tmp_path / "results.csv", tmp_path / "metrics.jsonl", held_out=held_out)
        rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        assert kinds == [row["kind"] for row in rows]
        assert rows[0] == {"kind": "train", "step": 1, "trained_s": 10.5, "box_loss": 3.1, "class_loss": 2.0}
    assert "map_50" not in rows[-1]


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"resume": True}, "cannot be resumed"), ({"init": Path("yolo11n.pt")}, "there is no checkpoint")],
)
def test_run_that_cannot_be_says_why(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    """What YOLO cannot do here is refused; a checkpoint that is not there is not fetched."""
    with pytest.raises(UsageError, match=told):
        yolo._refuse(job(tmp_path, **changes).config)


def test_torchrun_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ultralytics starts its own processes for several GPUs."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="its own process"):
        yolo._refuse(job(tmp_path).config)


def test_augmentation_leaves_defects_alone(tmp_path: Path) -> None:
    """Nothing is painted over, and a part that lies still is not turned over."""
    told = yolo._arguments(job(tmp_path, fixed=True, minutes=30, seed=7, batch=3).config)
    assert told["erasing"] == 0
    assert told["auto_augment"] is None
    assert (told["fliplr"], told["flipud"]) == (0, 0)
    assert (told["time"], told["seed"], told["batch"], told["device"]) == (0.5, 7, 3, "cpu")
    assert told["amp"] is False
    assert "lr0" not in told
    assert yolo._arguments(job(tmp_path, epochs=2, learning_rate=1e-4).config)["lr0"] == 1e-4


@pytest.mark.parametrize("several", [True, False], ids=["several classes", "no good part"])
def test_classifier_wants_one_class_a_part(tmp_path: Path, several: bool) -> None:
    """A part with two classes, or no good part at all, is no task for a softmax."""
    asked = job(tmp_path)
    bad = [s for s in asked.taught if s.defective]
    two = replace(bad[0], labels=(*bad[0].labels, *bad[1].labels))
    with pytest.raises(UsageError, match="several classes" if several else "no good part"):
        yolo.train_classifier(
            replace(asked, taught=(*asked.taught, replace(two, name="two")) if several else tuple(bad))
        )


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The module of YOLO's nets, cut off from the network."""
    pytest.importorskip("ultralytics", reason='needs ultralytics: pip install "lineside[train,ultralytics]"')
    with yolo.offline(tmp_path_factory.mktemp("yolo")):
        import ultralytics.nn.tasks

        yield ultralytics.nn.tasks


def card(task: str) -> ModelCard:
    return ModelCard(
        name="t", task=task, classes=("a", "b"), golden_guided=False, channels=1, threshold=0.4, threshold_from="a test",
        trained_on=TrainedOn(source="nothing"), trainer="t", trainer_licence="t", command="t", seed=1, trained_minutes=0,
    )  # fmt: skip


FRAMES = [np.random.default_rng(7).integers(0, 255, size, dtype=np.uint8) for size in ((96, 128), (200, 64), (65, 99))]


def test_detector_exports_for_every_size(tasks: Any, tmp_path: Path) -> None:
    """Frames of several sizes and proportions are judged alike by file and net; a net for another task is refused."""
    torch.manual_seed(5)
    net = tasks.DetectionModel("yolo11n.yaml", ch=3, nc=2, verbose=False).eval()
    net.task, net.names = "detect", {0: "a", 1: "b"}
    for branch in net.model[-1].cv3:
        torch.nn.init.constant_(branch[-1].bias, -0.2)  # answers that are heard
    graph, classes = yolo.detect_graph(net, 96)
    export_onnx(graph, card("detect"), tmp_path / "model.onnx")
    parity = check_parity(graph, tmp_path / "model.onnx", [(frame, None) for frame in FRAMES])
    assert classes == ("a", "b")
    assert (parity.frames, parity.flips) == (3, 0)
    boxes, scores, labels = TorchSession(graph).run([], {"image": FRAMES[0][None, :, :, None]})
    assert (boxes.shape, scores.shape, labels.dtype) == ((1, 100, 4), (1, 100), np.int64)
    assert float(scores.max()) > 0.1
    with pytest.raises(ModelError, match="YOLO net for detect"):
        yolo.classify_graph(net, 64, ((0, "a"),))


def test_file_of_another_kind_is_no_checkpoint(tasks: Any, tmp_path: Path) -> None:
    """A file that is no checkpoint, or one of mere weights, is told by its name."""
    (tmp_path / "text.pt").write_text("no net")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "weights.pt")
    for name in ("text.pt", "weights.pt"):
        with pytest.raises(ModelError, match=f"{name} is no checkpoint of YOLO"):
            yolo.load_net(tmp_path / name)


def test_classifier_scores_as_yolo_does(tasks: Any, tmp_path: Path) -> None:
    """Scores are YOLO's own chances of the classes of defects, the map spans the image, and the file agrees."""
    torch.manual_seed(6)
    net = tasks.ClassificationModel("yolo11n-cls.yaml", ch=3, nc=3, verbose=False).eval()
    net.task = "classify"
    square = torch.randint(0, 255, (1, 64, 64, 1), dtype=torch.uint8)
    with torch.no_grad():
        wanted = net(square.permute(0, 3, 1, 2).float().expand(-1, 3, -1, -1) / 255)[0]
    graph = yolo.classify_graph(net, 64, ((0, "a"), (2, "b"))).eval()
    with torch.no_grad():
        scores, heat = graph(square)
    assert torch.allclose(scores, wanted[:, [0, 2]], atol=1e-5)
    assert heat.shape == (1, 2, 2)
    export_onnx(graph, card("classify"), tmp_path / "model.onnx")
    assert check_parity(graph, tmp_path / "model.onnx", [(frame, None) for frame in FRAMES]).flips == 0
