"""Nets of torchvision: the same run folder and the same file by the same contract as our own."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason='needs torch: pip install "lineside[train]"')
pytest.importorskip("torchvision", reason='needs torchvision: pip install "lineside[train,torchvision]"')

from datasets.manifest import Origin, make_dataset, write_dataset  # noqa: E402
from datasets.sample import LabelledBox, Sample  # noqa: E402
from inspection.errors import ModelError, UsageError  # noqa: E402
from inspection.images import write_png  # noqa: E402
from inspection.model import load_model  # noqa: E402
from inspection.predict import Request, card_criteria, predict  # noqa: E402
from training import wrap  # noqa: E402
from training.config import TrainConfig  # noqa: E402
from training.export import check_parity, export_onnx  # noqa: E402
from training.graphs import DenseGraph  # noqa: E402
from training.run import run_training  # noqa: E402
from training.trainers.torchvision_nets import FcosAnswer, FcosNet, PartResNet  # noqa: E402

CLASSES = ("chip", "hole")
STEPS_OF_AN_EPOCH = 2000  # of two crops
RUN = {"model.onnx", "checkpoint.pt", "metrics.jsonl", "card.json", "curves.png", "held_out.json"}


def part(seed: int, *, light: bool) -> np.ndarray:
    """A textured grey picture (96, 128), with a light square at (40, 30, 64, 54) if asked."""
    image = np.random.default_rng(seed).integers(60, 120, (96, 128)).astype(np.uint8)
    if light:
        image[30:54, 40:64] = 230
    return image


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine parts, of each class three and three good ones, in the groups a, b and c."""
    folder, samples = tmp_path_factory.mktemp("parts"), []
    for number in range(9):
        kind = ("", *CLASSES)[number % 3]
        write_png(folder / f"{number}.png", part(number, light=bool(kind)))
        labels = (LabelledBox(kind, (40, 30, 64, 54)),) if kind else ()
        samples.append(Sample(folder / f"{number}.png", None, labels, "abc"[number // 3], "", f"{number}"))
    made = make_dataset("parts", samples, classes=CLASSES, origin=Origin("test", "made here"))
    write_dataset(folder / "dataset", made)
    return folder / "dataset"


def run(product: str, parts: Path, out: Path) -> Path:
    asked = TrainConfig(out=out, product=product, trainer="torchvision", data=parts, input_px=96, crop_px=96)
    torch.set_num_threads(1)
    model = run_training(
        replace(asked, batch=2, workers=0, epochs=3 / STEPS_OF_AN_EPOCH, hold_out=("c",), command="a test")
    )
    return model.parent


@pytest.mark.parametrize("product", ["classify", "detect"])
def test_run_is_like_any_other(product: str, parts: Path, tmp_path: Path) -> None:
    """Folder, card and file are those of our own trainers, and the file judges as the net does."""
    folder = run(product, parts, tmp_path / "run")
    model = load_model(folder / "model.onnx", threads=1)
    assert {path.name for path in folder.iterdir()} == RUN
    assert model.card.trainer.startswith("torchvision")
    assert model.card.trainer_licence == "BSD-3-Clause (torchvision)"
    assert model.card.classes == CLASSES
    assert "3 frames, 0 verdict flips" in model.card.parity
    assert [] != json.loads((folder / "held_out.json").read_text())
    pictures = sorted((parts / "images").rglob("*.png"))
    assert len(pictures) == 9
    made = list(predict(model, [Request(path, None) for path in pictures], card_criteria(model)))
    assert all(one.inspection.judgement.verdict.name != "ERROR" for one in made)


def test_map_is_what_the_score_is_taken_from() -> None:
    """A class scores as its highest places do; a net of one place answers everywhere alike."""
    net = PartResNet(1, 2).eval()
    local = net(torch.rand(1, 1, 96, 128))
    assert local.shape == (1, 2, 12, 16)
    torch.nn.init.zeros_(net.local.weight)
    assert torch.allclose(net(torch.rand(1, 1, 96, 128)), torch.tensor(-3.0))


def test_detector_places_boxes_about_its_cells() -> None:
    """Distances of one cell to all sides give boxes of two cells about the middle of each cell."""
    net = FcosNet(1, 2, 8).eval()
    squares = net(torch.zeros(1, 1, 64, 96))[3]
    assert squares[0].tolist() == [0, 0, 8, 8]
    assert squares[1].tolist() == [8, 0, 16, 8]

    class Still(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
            count = len(squares)
            return torch.zeros(1, count, 2), torch.ones(1, count, 4), torch.zeros(1, count, 1), squares

    boxes, scores = FcosAnswer(Still())(torch.zeros(1, 1, 64, 96))  # type: ignore[arg-type]
    assert boxes[0, 1].tolist() == [4, -4, 20, 12]
    assert torch.allclose(scores, torch.tensor(0.5))


def card(task: str, classes: tuple[str, ...] = CLASSES) -> wrap.ModelCard:
    return wrap.ModelCard(
        name="t", task=task, classes=classes, golden_guided=False, channels=1, threshold=0.4, threshold_from="a test",
        trained_on=wrap.TrainedOn(source="nothing"), trainer="t", trainer_licence="t", command="t", seed=1,
        trained_minutes=0,
    )  # fmt: skip


@pytest.mark.parametrize("side", [None, 96, 160])
def test_dense_graph_exports_for_every_size(side: int | None, tmp_path: Path) -> None:
    """Frames of several sizes and proportions are judged alike by file and net, also with resizing in the graph."""
    torch.manual_seed(3)
    net = FcosNet(1, 2, 8).eval()
    torch.nn.init.constant_(net.fcos.head.classification_head.cls_logits.bias, 0.0)  # answers that are heard
    graph = DenseGraph(FcosAnswer(net), side=side)
    export_onnx(graph, card("detect"), tmp_path / "model.onnx")
    frames = [
        np.random.default_rng(7).integers(0, 255, size, dtype=np.uint8) for size in ((96, 128), (200, 64), (65, 99))
    ]
    parity = check_parity(graph, tmp_path / "model.onnx", [(frame, None) for frame in frames])
    assert (parity.frames, parity.flips) == (3, 0)


def test_boxes_come_back_in_pixels_of_the_image_as_given() -> None:
    """An image that is resized in the graph gets its boxes back at its own scale."""

    class Whole(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            box = torch.tensor([[0.0, 0.0, image.shape[3], image.shape[2]]])
            return box[None], torch.ones(1, 1, 1)

    boxes, scores, _ = DenseGraph(Whole(), side=64)(torch.zeros(1, 96, 128, 1, dtype=torch.uint8))
    assert boxes.shape == (1, 100, 4)
    assert boxes[0, 0].tolist() == [0, 0, 128, 128]  # 64x48, filled up to 64x64
    assert int((scores > 0).sum()) == 1


def request(task: str, parts: Path, folder: Path, **changes: object) -> wrap.Request:
    asked = wrap.Request(
        folder / "net.pth", "torchvision", task, parts, folder / "model.onnx", classes=("ok", *CLASSES)
    )
    return replace(asked, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v3_small"])
def test_foreign_classifier_becomes_a_model(arch: str, parts: Path, tmp_path: Path) -> None:
    """Mere weights become a file whose card says that nobody knows what they have seen."""
    import torchvision

    torch.manual_seed(2)
    net = getattr(torchvision.models, arch)(weights=None, num_classes=3)
    torch.save({"model": net.state_dict()}, tmp_path / "net.pth")
    wrap.wrap(request("classify", parts, tmp_path, arch=arch, input_px=64))
    model = load_model(tmp_path / "model.onnx", threads=1)
    assert model.card.classes == CLASSES
    assert "unknown" in model.card.trained_on.source
    assert "9 frames, 0 verdict flips" in model.card.parity
    image = np.stack([part(1, light=True)[:96, :96]] * 3, 2)
    if model.card.channels == 1:
        image = image[:, :, :1]
    scores = model.session.run(["scores"], {"image": np.ascontiguousarray(image[None])})[0]
    planes = torch.from_numpy(image[None]).permute(0, 3, 1, 2).float().expand(-1, 3, -1, -1) / 255
    small = torch.nn.functional.interpolate(planes, (64, 64), mode="bilinear")
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (wrap.IMAGENET_MEAN, wrap.IMAGENET_STD))
    with torch.no_grad():
        wanted = net.eval()((small - mean) / std).softmax(1)
    np.testing.assert_allclose(scores, wanted[:, 1:].numpy(), atol=1e-4)


def test_foreign_detector_becomes_a_model(parts: Path, tmp_path: Path) -> None:
    """A whole detector of torchvision, with its own resizing and suppression, is judged alike as a file."""
    from torchvision.models import detection

    torch.manual_seed(4)
    net = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    wrap.wrap(request("detect", parts, tmp_path, arch="ssdlite320_mobilenet_v3_large", classes=CLASSES))
    assert load_model(tmp_path / "model.onnx").card.classes == CLASSES


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"arch": "resnet99"}, "no 'resnet99' net"),
        ({"arch": "resnet18", "classes": ()}, "does not hold its classes"),
        ({"arch": "resnet18", "classes": ("a", "b")}, "does not fit resnet18 with 2 classes"),
        ({"arch": "resnet18", "classes": ("ok", "chip", "other")}, "stands for good parts is not clear"),
        ({"arch": "resnet18", "checkpoint": Path("none.pth")}, "there is no checkpoint"),
    ],
)
def test_checkpoint_that_cannot_be_wrapped_says_why(parts: Path, tmp_path: Path, changes: dict, told: str) -> None:
    """Mistakes are told, and leave no file."""
    import torchvision

    torch.save(torchvision.models.resnet18(weights=None, num_classes=3).state_dict(), tmp_path / "net.pth")
    with pytest.raises((UsageError, ModelError), match=told):
        wrap.wrap(request("classify", parts, tmp_path, **changes))
    assert [path.name for path in tmp_path.iterdir()] == ["net.pth"]


def test_checkpoint_that_is_code_is_not_run(parts: Path, tmp_path: Path) -> None:
    """A pickle that would run something is refused unread."""
    (tmp_path / "net.pth").write_bytes(b"cposix\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(ModelError, match="more than weights"):
        wrap.wrap(request("classify", parts, tmp_path, arch="resnet18"))
