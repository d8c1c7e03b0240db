"""Puts a net that was trained elsewhere into the model contract: `lineside export`.

A checkpoint of YOLO brings its classes and the size of its input; a state_dict of torchvision is mere weights, so the
user names architecture and classes.  What the net has seen is unknown, and the card says so.
"""

import importlib
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from datasets.manifest import Dataset, open_dataset
from datasets.sample import Sample
from inspection.errors import ModelError, UsageError
from inspection.images import read_image
from inspection.model import ModelCard, TrainedOn
from training.export import check_parity, current_commit, export_onnx, write_card
from training.graphs import KEEP, SoftmaxGraph, planes
from training.models.candidates import Candidates
from training.run import START_THRESHOLD, measured
from training.trainers.frames import channels_of, image_limits, median_size

Task = Literal["classify", "detect"]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what torchvision's recipes train with
ONE_FOR_ONE = 1e-4  # logits of our parts of a net against those of the whole
LARGEST_CARD_TILE_PX = 4096


@dataclass(frozen=True, slots=True)
class Request:
    """What to wrap.  ``arch`` and ``classes`` (in the order of the net) are for torchvision; ``good``: which class of a
    classifier stands for good parts; ``input_px``: the side images were resized to, None for the trainer's own."""

    checkpoint: Path
    trainer: str
    task: Task
    data: Path
    output: Path
    arch: str = ""
    classes: tuple[str, ...] = ()
    good: str = ""
    input_px: int | None = None
    command: str = ""


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A graph within the contract, its classes of defects, and whose it is."""

    graph: nn.Module
    classes: tuple[str, ...]
    trainer: str
    licence: str


def wrap(request: Request) -> Path:
    """Write the model file, compare it with the net on the dataset, take a first threshold there; returns its path.

    The samples marked val are used, or all where none is.  A verdict flip is a ModelError, and leaves no file.
    """
    if not request.checkpoint.is_file():
        raise UsageError(f"there is no checkpoint {request.checkpoint}", fix="give a .pt or .pth file on this computer")
    dataset = open_dataset(request.data)
    samples = tuple(s for s in dataset.samples if s.split == "val") or dataset.samples
    made = WRAPPERS[f"{request.trainer}:{request.task}"](request, dataset)
    made.graph.eval()
    card = _card(request, made, dataset, samples)
    unproven = request.output.with_name(request.output.name + ".unproven")
    try:
        export_onnx(made.graph, card, unproven)
        parity = check_parity(made.graph, unproven, ((read_image(sample.image), None) for sample in samples))
        print(f"export: {parity}", file=sys.stderr)
        card = card.model_copy(update={"parity": str(parity)})
        write_card(unproven, card)
        write_card(unproven, _with_threshold(unproven, card, dataset, samples))
        unproven.replace(request.output)
    finally:
        unproven.unlink(missing_ok=True)
    return request.output


def _with_threshold(path: Path, card: ModelCard, dataset: Dataset, samples: tuple[Sample, ...]) -> ModelCard:
    strange = {name for sample in samples for name in sample.defect_classes} - set(card.classes)
    if strange:
        print(f"no threshold was chosen: the model does not know {', '.join(sorted(strange))}", file=sys.stderr)
        return card
    where = f"{len(samples)} samples of {dataset.name}, which the net may have learnt from"
    return measured(path, card, dataset, samples, where)[0]


def _card(request: Request, made: Wrapped, dataset: Dataset, samples: tuple[Sample, ...]) -> ModelCard:
    longest = 32 * -(-max(median_size(samples)) // 32)
    return ModelCard(
        name=request.output.stem,
        task=request.task,
        classes=made.classes,
        golden_guided=False,
        channels=channels_of(samples),
        tile_px=min(LARGEST_CARD_TILE_PX, max(64, longest)),
        threshold=START_THRESHOLD,
        threshold_from="nothing: a default, not calibrated",
        images=image_limits(samples),
        trained_on=TrainedOn(source=f"unknown: the checkpoint {request.checkpoint.name} was trained elsewhere"),
        trainer=made.trainer,
        trainer_licence=made.licence,
        command=request.command,
        commit=current_commit(),
        seed=0,
        trained_minutes=0.0,
    )


def _defects(names: tuple[str, ...], request: Request, dataset: Dataset) -> tuple[tuple[int, str], ...]:
    """Number and name of each class but that of good parts: the one that is no class of defects in the dataset."""
    good = [request.good] if request.good else [name for name in names if name not in dataset.classes]
    if len(good) != 1 or good[0] not in names:
        raise UsageError(
            f"which of the classes {', '.join(names)} stands for good parts is not clear", fix="name it: --good NAME"
        )
    return tuple((number, name) for number, name in enumerate(names) if name != good[0])


def _yolo_detect(request: Request, dataset: Dataset) -> Wrapped:
    yolo = importlib.import_module("training.trainers.ultralytics_yolo")
    with tempfile.TemporaryDirectory() as folder, yolo.offline(Path(folder)):
        net = yolo.load_net(request.checkpoint)
        graph, classes = yolo.detect_graph(net, request.input_px or yolo.input_px(net))
    return Wrapped(graph, classes, _yolo_name(net), yolo.LICENCE)


def _yolo_classify(request: Request, dataset: Dataset) -> Wrapped:
    yolo = importlib.import_module("training.trainers.ultralytics_yolo")
    with tempfile.TemporaryDirectory() as folder, yolo.offline(Path(folder)):
        net = yolo.load_net(request.checkpoint)
        kept = _defects(tuple(net.names[number] for number in sorted(net.names)), request, dataset)
        graph = yolo.classify_graph(net, request.input_px or yolo.input_px(net), kept)
    return Wrapped(graph, tuple(name for _, name in kept), _yolo_name(net), yolo.LICENCE)


def _yolo_name(net: Any) -> str:
    return f"ultralytics {Path(net.yaml.get('yaml_file', 'yolo')).stem}, trained elsewhere"


def _torchvision(module: str) -> Any:
    return importlib.import_module("training.trainers.torchvision_nets").require_torchvision(module)


def _torchvision_detect(request: Request, dataset: Dataset) -> Wrapped:
    models = _torchvision("torchvision.models.detection")
    make = _maker(models, request)
    sizes = {"min_size": request.input_px} if request.input_px else {}
    weights = _weights(request.checkpoint)
    for spare in (1, 0):  # most recipes count the background as class 0
        net = make(weights=None, weights_backbone=None, num_classes=len(request.classes) + spare, **sizes)
        if _fits(net, weights):
            return _of_torchvision(WholeDetector(net, spare), request.classes, request)
    raise ModelError(
        f"{request.checkpoint} does not fit {request.arch} with {len(request.classes)} classes",
        fix="check --arch, and that --classes names each class but the background, in their order",
    )


def _torchvision_classify(request: Request, dataset: Dataset) -> Wrapped:
    net = _maker(_torchvision("torchvision.models"), request)(weights=None, num_classes=len(request.classes))
    if not _fits(net, _weights(request.checkpoint)):
        raise ModelError(
            f"{request.checkpoint} does not fit {request.arch} with {len(request.classes)} classes",
            fix="check --arch, and that --classes names every class, that of good parts too, in their order",
        )
    kept = _defects(request.classes, request, dataset)
    graph = SoftmaxGraph(PlaceAnswer(net.eval()), request.input_px or 224, tuple(number for number, _ in kept))
    return _of_torchvision(graph, tuple(name for _, name in kept), request)


def _of_torchvision(graph: nn.Module, classes: tuple[str, ...], request: Request) -> Wrapped:
    licence = "BSD-3-Clause (torchvision); licence of the weights unknown"
    return Wrapped(graph, classes, f"torchvision {request.arch}, trained elsewhere", licence)


def _maker(models: Any, request: Request) -> Callable[..., nn.Module]:
    if not request.classes:
        raise UsageError("a checkpoint of torchvision does not hold its classes", fix="name them: --classes a,b,c")
    known = importlib.import_module("torchvision.models").list_models(models)
    if request.arch not in known:
        raise UsageError(f"torchvision has no {request.arch or 'unnamed'!r} net here", fix=f"--arch {', '.join(known)}")
    return getattr(models, request.arch)  # type: ignore[no-any-return]


def _weights(path: Path) -> dict[str, Tensor]:
    """The state_dict in a file, bare or under the names that are in use; no code in the file is run."""
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle's, zip's and its own classes here
        raise ModelError(
            f"{path} holds more than weights, or is no checkpoint ({str(error).splitlines()[0][:120]})",
            fix="save it with torch.save(model.state_dict(), FILE)",
        ) from error
    for name in ("model", "state_dict"):
        stored = stored.get(name, stored)
    return {key.removeprefix("module."): value for key, value in stored.items()}


def _fits(net: nn.Module, weights: dict[str, Tensor]) -> bool:
    try:
        net.load_state_dict(weights)
    except RuntimeError:
        return False
    return True


class WholeDetector(nn.Module):
    """A detector of torchvision with its own resizing and suppression: boxes, scores and labels out, of one image."""

    def __init__(self, net: nn.Module, spare: int) -> None:
        super().__init__()
        self.net = net
        self.spare = spare

    def forward(self, image: Tensor) -> Candidates:
        found = self.net([planes(image)[0].expand(3, -1, -1)])[0]
        labels = found["labels"] - self.spare
        scores = found["scores"] * (labels >= 0)  # of the background
        boxes = torch.cat([found["boxes"], scores.new_zeros(KEEP, 4)])[:KEEP]
        scores = torch.cat([scores, scores.new_zeros(KEEP)])[:KEEP]
        labels = torch.cat([labels.clamp(min=0), labels.new_zeros(KEEP)])[:KEEP]
        return boxes[None], scores[None], labels[None]


class PlaceAnswer(nn.Module):
    """See ``SoftmaxGraph``.  A classifier of torchvision whose head stands behind a mean over all places: the head
    answers for the mean, and for each place by itself."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        parts = dict(net.named_children())
        names = list(parts)
        place = names.index("avgpool") if "avgpool" in names else -1
        self.body = nn.Sequential(*(parts[name] for name in names[:place]))
        self.head = nn.Sequential(*(parts[name] for name in names[place + 1 :]))
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).reshape(1, 3, 1, 1))
        self._compare(net)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        places = self.body((image.expand(-1, 3, -1, -1) - self.mean) / self.std)  # (N, F, h, w)
        local = self.head(places.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # (N, K, h, w)
        return self.head(places.mean((2, 3))), local

    @torch.no_grad()
    def _compare(self, net: nn.Module) -> None:
        image = torch.linspace(0, 1, 3 * 96 * 96).reshape(1, 3, 96, 96)
        try:
            same = torch.allclose(self(image)[0], net((image - self.mean) / self.std), atol=ONE_FOR_ONE)
        except RuntimeError:
            same = False
        if not same:
            raise UsageError(
                "the head of this net does not stand behind a mean over its places",
                fix="known to work: resnet*, resnext*, wide_resnet*, regnet*, mobilenet_v3*, efficientnet*",
            )


WRAPPERS: dict[str, Callable[[Request, Dataset], Wrapped]] = {
    "ultralytics:detect": _yolo_detect,
    "ultralytics:classify": _yolo_classify,
    "torchvision:detect": _torchvision_detect,
    "torchvision:classify": _torchvision_classify,
}
