"""Trains YOLO with the package ultralytics, which is AGPL-3.0: an optional extra that nothing else here imports.

The package sends usage figures, asks for newer versions, and fetches weights and fonts unless told otherwise.  All of
that is switched off before it is imported, and its settings live in the run folder, not in the user's home.
Nets start from scratch, or from a checkpoint on this machine (--init).  Nothing is chosen by looking at the held-out
samples: the weights are those of the end of the run, not of the epoch that did best there.
"""

import contextlib
import csv
import importlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from datasets.export import export
from datasets.manifest import Origin, make_dataset
from datasets.sample import Sample
from inspection.errors import DriverMissing, ModelError, UsageError
from inspection.images import write_png
from training.config import TrainConfig
from training.graphs import DenseGraph, SoftmaxGraph
from training.lessons.pictures import load_picture
from training.train import fast_bfloat16
from training.trainers import Job, Trained
from training.trainers.box import LARGEST_TILE_PX, require_boxes
from training.trainers.frames import channels_of, examples, image_limits, median_size
from training.trainers.part import require_both_sides

LICENCE = "AGPL-3.0 (Ultralytics)"
LARGEST_CARD_TILE_PX = 4096
GOOD = "good"  # the folder of good parts, a class of its own for a YOLO classifier
OFF = ("sync", "clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb", "vscode_msg", "openvino_msg")
FIGURES = {"metrics/mAP50(B)": "map_50", "metrics/mAP50-95(B)": "map_50_95", "metrics/accuracy_top1": "accuracy"}
LOSSES = {"train/loss": "class", "train/cls_loss": "class", "train/box_loss": "box", "train/dfl_loss": "distance"}
Kept = tuple[tuple[int, str], ...]  # number of a class in a YOLO net, its name in the card


@contextlib.contextmanager
def offline(folder: Path) -> Iterator[ModuleType]:
    """The package ultralytics with its settings in ``folder``, cut off from the network; what it prints goes to stderr.

    DriverMissing when it is not installed, UsageError when something else in this process has imported it already.
    """
    home = folder / "ultralytics-settings"
    os.environ |= {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_CONFIG_DIR": str(home.resolve())}
    os.environ.pop("ULTRALYTICS_API_KEY", None)
    with contextlib.redirect_stdout(sys.stderr):
        _place_font(home / "Ultralytics")
        try:
            package = importlib.import_module("ultralytics")
        except ModuleNotFoundError as error:
            raise DriverMissing(
                f"the trainer ultralytics needs the package {error.name!r}, which is not installed",
                fix='pip install "lineside[train,ultralytics]" (Ultralytics is AGPL-3.0)',
            ) from error
        utils = importlib.import_module("ultralytics.utils")
        events = importlib.import_module("ultralytics.utils.events").events
        package.settings.update({**dict.fromkeys(OFF, False), "api_key": "", "openai_api_key": ""})
        if utils.ONLINE or events.enabled:
            raise UsageError(
                "ultralytics was imported before its connections were switched off",
                fix="train in a process of its own: lineside train ... --trainer ultralytics",
            )
        yield package


def _place_font(home: Path) -> None:
    """A font under the names of those that would be fetched."""
    import matplotlib

    home.mkdir(parents=True, exist_ok=True)
    font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    for name in ("Arial.ttf", "Arial.Unicode.ttf"):
        shutil.copyfile(font, home / name)


def train_detector(job: Job) -> Trained:
    """Boxes, scores and labels; whole frames are shown at up to ``LARGEST_TILE_PX``."""
    require_boxes(job)
    longest = 32 * -(-max(median_size(job.taught)) // 32)
    side = min(LARGEST_TILE_PX, longest)
    if side < longest:
        print(f"frames are shown at {side} of {longest} px: small defects may be lost", file=sys.stderr)
    with offline(job.config.out) as package:
        net, trained_s = _train(job, package, "yolo11n.yaml", _write_boxes(job), side)
    graph, _ = detect_graph(net, side)
    made = _trained(job, graph, "detect", trained_s)
    return replace(made, trainer="ultralytics yolo11n", tile_px=min(LARGEST_CARD_TILE_PX, max(64, longest)))


def train_classifier(job: Job) -> Trained:
    """Scores of the classes of defects, and a heat map; good parts are a class of their own while it is trained."""
    if not require_both_sides(job):
        raise UsageError("there is no good part to learn from", fix="a YOLO classifier needs good parts as a class")
    several = [sample.name for sample in job.taught if len(sample.defect_classes) > 1]
    if several:
        raise UsageError(
            f"{len(several)} samples show several classes, the first is {several[0]!r}; YOLO gives an image one class",
            fix="use --trainer lineside, which scores each class for itself",
        )
    frame = median_size(job.taught)
    side = max(64, 32 * round(min(job.config.input_px, *frame) / 32))
    shrink = max(1, min(frame) // side)
    names = _folder_names(job.classes)
    with offline(job.config.out) as package:
        folder = _write_parts(job, names, side, shrink)
        net, trained_s = _train(job, package, "yolo11n-cls.yaml", folder, side)
    kept = tuple((number, names[folder]) for number, folder in net.names.items() if names[folder])
    made = _trained(job, classify_graph(net, (side, side), kept, shrink=shrink), "classify", trained_s)
    return replace(made, trainer="ultralytics yolo11n-cls", classes=tuple(name for _, name in kept))


def _trained(job: Job, graph: nn.Module, task: Literal["detect", "classify"], trained_s: float) -> Trained:
    return Trained(
        graph=graph,
        task=task,
        classes=job.classes,
        channels=channels_of(job.taught),
        trainer="",
        licence=LICENCE,
        source="real labelled frames" if task == "detect" else "real labelled parts",
        trained_s=trained_s,
        examples=examples(job.taught),
        images=image_limits(job.taught),
        taught=job.taught,
    )


def _sides(job: Job) -> tuple[Sample, ...]:
    """Samples marked train and val.  YOLO wants some of each: with nothing held out it looks at some it has learnt."""
    shown = job.held_out or job.taught[:8]
    return (
        *(replace(sample, split="train") for sample in job.taught),
        *(replace(sample, split="val", name=f"val {sample.name}") for sample in shown),
    )


def _write_boxes(job: Job) -> Path:
    """The samples in YOLO's layout; returns data.yaml."""
    boxes = [replace(s, labels=tuple(replace(label, polygons_px=()) for label in s.labels)) for s in _sides(job)]
    dataset = make_dataset("run", boxes, classes=job.classes, origin=Origin("run", str(job.config.data)))
    folder = job.config.out / "yolo-data"
    shutil.rmtree(folder, ignore_errors=True)
    export("yolo", dataset, folder, lossy=True)
    return folder / "data.yaml"


def _folder_names(classes: tuple[str, ...]) -> dict[str, str]:
    """A folder for each class, and the class in it; of the good ones ""."""
    names = {GOOD: ""}
    for number, name in enumerate(classes, 1):
        safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
        names[safe if safe.casefold() not in map(str.casefold, names) else f"{safe}-{number}"] = name
    return names


def _write_parts(job: Job, names: dict[str, str], side: int, shrink: int) -> Path:
    """Square pictures in a folder for each class, made as the exported graph makes them; returns their folder."""
    channels, top = channels_of(job.taught), job.config.out / "yolo-data"
    folder_of = {name: folder for folder, name in names.items()}
    shutil.rmtree(top, ignore_errors=True)
    for number, sample in enumerate(_sides(job)):
        folder = top / sample.split / folder_of[next(iter(sample.defect_classes), "")]
        folder.mkdir(parents=True, exist_ok=True)
        image = load_picture(sample, job.classes, channels=channels, shrink=shrink).image
        small = cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)
        write_png(folder / f"{number:06d}.png", np.asarray(small, np.uint8))
    return top


def _train(job: Job, package: ModuleType, start: str, data: Path, side: int) -> tuple[Any, float]:
    """Train in the run folder; returns YOLO's own net on the CPU and the seconds trained."""
    config = job.config
    _refuse(config)
    begun = time.monotonic()
    model = package.YOLO(str(config.init.resolve()) if config.init else start)
    model.train(data=str(data.resolve()), imgsz=side, pretrained=config.init is not None, **_arguments(config))
    trained_s = time.monotonic() - begun
    run = config.out / "ultralytics"
    shutil.copyfile(run / "weights" / "last.pt", config.out / "checkpoint.pt")
    _write_metrics(run / "results.csv", config.out / "metrics.jsonl", held_out=bool(job.held_out))
    shutil.rmtree(config.out / "yolo-data")
    return load_net(config.out / "checkpoint.pt"), trained_s


def _refuse(config: TrainConfig) -> None:
    if config.resume:
        raise UsageError(
            "a run of ultralytics cannot be resumed",
            fix="train in a new folder with --init RUN/ultralytics/weights/last.pt",
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            "ultralytics starts its own process for each GPU", fix="start it without torchrun; --device cuda takes all"
        )
    if config.init is not None and not config.init.is_file():
        raise UsageError(f"there is no checkpoint {config.init}", fix="give a .pt file of YOLO; none is downloaded")


def _arguments(config: TrainConfig) -> dict[str, Any]:
    """What YOLO is told.  Augmentation that would cut or paint a defect away while the label stays is switched off."""
    cuda = config.device == "cuda"
    length = {"time": config.minutes / 60} if config.minutes else {"epochs": max(1, round(config.epochs or 1))}
    own_rate = config.learning_rate != next(f.default for f in fields(TrainConfig) if f.name == "learning_rate")
    return {
        **length,
        **({"optimizer": "AdamW", "lr0": config.learning_rate} if own_rate else {}),
        "batch": config.batch,
        "seed": config.seed,
        "device": ",".join(map(str, range(torch.cuda.device_count()))) if cuda else "cpu",
        "workers": config.workers,
        # "True" would fetch a net to check the GPU with.
        "amp": "bf16" if cuda and fast_bfloat16(torch.device("cuda")) else False,
        "project": str(config.out.resolve()),
        "name": "ultralytics",
        "exist_ok": True,
        "plots": False,
        "val": False,
        "patience": 0,
        "auto_augment": None,
        "erasing": 0.0,
        "scale": 0.2,
        "degrees": 4.0 if config.fixed else 15.0,
        "fliplr": 0.0 if config.fixed else 0.5,
        "flipud": 0.0 if config.fixed else 0.5,
    }


def _write_metrics(source: Path, target: Path, *, held_out: bool) -> None:
    """YOLO's results.csv in the form of our metrics.jsonl; only its last row was measured on the held-out samples."""
    with source.open(encoding="utf-8", newline="") as file:
        rows = [{key.strip(): float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    lines = []
    for row in rows:
        losses = {f"{LOSSES.get(key, key[6:])}_loss": v for key, v in row.items() if key.startswith("train/")}
        lines.append({"kind": "train", "step": int(row["epoch"]), "trained_s": row["time"], **losses})
    if held_out and rows:
        figures = {FIGURES[key]: value for key, value in rows[-1].items() if key in FIGURES}
        lines.append({"kind": "val", "step": int(rows[-1]["epoch"]), "trained_s": rows[-1]["time"], **figures})
    target.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def load_net(path: Path) -> Any:
    """The net of a YOLO checkpoint, float32 on the CPU; within ``offline`` only.  ModelError when it is none.

    A checkpoint is a Python pickle: reading one runs what its maker put into it.
    """
    try:
        net, _ = importlib.import_module("ultralytics.nn.tasks").load_checkpoint(path)
        net.names = dict(net.names if isinstance(net.names, dict) else enumerate(net.names))
    except Exception as error:  # a pickle may raise anything
        told = (str(error).splitlines() or [""])[0][:120]
        raise ModelError(
            f"{path} is no checkpoint of YOLO ({type(error).__name__}: {told})", fix="give a .pt that ultralytics wrote"
        ) from error
    return net.cpu().eval()


def input_px(net: Any) -> int:
    """The side that images were resized to when a net was trained."""
    side = net.args.get("imgsz", 640)
    return int(max(side)) if isinstance(side, list | tuple) else int(side)


def detect_graph(net: Any, side: int) -> tuple[DenseGraph, tuple[str, ...]]:
    """A YOLO net within the model contract, and its classes; ModelError when it is no detector.

    An image is resized so that its longer side is ``side`` px, as YOLO does.
    """
    if net.task != "detect":
        raise ModelError(f"the checkpoint is a YOLO net for {net.task}", fix="give one that was trained to detect")
    return DenseGraph(_BoxAnswer(net), side=side), tuple(net.names[number] for number in sorted(net.names))


def classify_graph(net: Any, size: tuple[int, int] | int, kept: Kept, *, shrink: int = 1) -> SoftmaxGraph:
    """A YOLO classifier within the model contract; ``kept``: its classes of defects.  ModelError when it is none."""
    if net.task != "classify" or any(layer.f != -1 for layer in net.model):
        raise ModelError(f"the checkpoint is a YOLO net for {net.task}", fix="give one that was trained to classify")
    return SoftmaxGraph(_PlaceAnswer(net), size, tuple(number for number, _ in kept), shrink=shrink)


def _planes_of(net: Any) -> int:
    return int(next(net.parameters()).shape[1])


class _BoxAnswer(nn.Module):
    """See ``DenseGraph``."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net, self.planes = net, _planes_of(net)
        head = net.model[-1]
        head.end2end = False  # all answers, not a choice of them
        head.export, head.dynamic, head.format = True, True, "onnx"

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        answers = self.net(image.expand(-1, self.planes, -1, -1))  # (N, 4 + K, A): centre, width, height, scores
        middle, half = answers[:, :2].transpose(1, 2), answers[:, 2:4].transpose(1, 2) / 2
        return torch.cat([middle - half, middle + half], 2), answers[:, 4:].transpose(1, 2)


class _PlaceAnswer(nn.Module):
    """See ``SoftmaxGraph``.  The head is linear in the mean over places, so the mean of the places is the image."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        *layers, head = net.model
        self.body, self.planes = nn.Sequential(*layers, head.conv), _planes_of(net)
        self.linear = head.linear

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        places = self.body(image.expand(-1, self.planes, -1, -1))  # (N, 1280, h, w)
        local = nn.functional.conv2d(places, self.linear.weight[:, :, None, None], self.linear.bias)
        return local.mean((2, 3)), local
