"""From a trained net to the one ONNX file, and the proof that both give the same verdicts."""

import subprocess
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from inspection.detector import Detector
from inspection.errors import ModelError
from inspection.golden import GoldenTemplate, RegistrationLimits
from inspection.inspect_frame import inspect_frame
from inspection.model import CARD_KEY, LoadedModel, ModelCard, load_model
from inspection.predict import card_criteria
from inspection.types import Detection
from training.models.golden_net import SECOND_OPINION, decode

Image = NDArray[np.uint8]
KEEP = 100  # candidates a tile
SCORE_TOLERANCE = 1e-3


class GoldenGraph(nn.Module):
    """The net with everything around it: uint8 images in, boxes, scores and labels out."""

    def __init__(self, net: nn.Module, keep: int = KEEP) -> None:
        super().__init__()
        self.net = net
        self.keep = keep

    def forward(self, image: Tensor, golden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pair = torch.cat([image, golden], 3).permute(0, 3, 1, 2).float() / 255  # (N, 2, H, W)
        heat, distance = self.net(pair)
        return decode(torch.sigmoid(heat), distance, keep=self.keep)


@dataclass(frozen=True, slots=True)
class Parity:
    """How far the exported file is from the trained net on real frames."""

    frames: int
    worst_score_difference: float
    flips: int

    def __str__(self) -> str:
        return (
            f"{self.frames} frames, {self.flips} verdict flips, "
            f"largest score difference {self.worst_score_difference:.2e}"
        )


def export_onnx(net: nn.Module, card: ModelCard, path: Path) -> None:
    """Write net and card to ``path`` (atomically).  Batch size, height and width stay free (multiples of 16)."""
    graph = GoldenGraph(net.cpu().eval())
    sample = torch.zeros(1, 128, 128, 1, dtype=torch.uint8)
    axes = {0: "batch", 1: "height", 2: "width"}
    partial = path.with_name(path.name + ".partial")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own future
        torch.onnx.export(
            graph,
            (sample, sample),
            str(partial),
            input_names=["image", "golden"],
            output_names=["boxes", "scores", "labels"],
            dynamic_axes={
                "image": axes,
                "golden": axes,
                "boxes": {0: "batch"},
                "scores": {0: "batch"},
                "labels": {0: "batch"},
            },
            opset_version=17,
            dynamo=False,
        )
    write_card(partial, card)
    partial.replace(path)


def write_card(path: Path, card: ModelCard) -> None:
    """Put the card into an ONNX file's metadata, replacing an earlier one."""
    model = onnx.load(str(path))
    others = {entry.key: entry.value for entry in model.metadata_props if entry.key != CARD_KEY}
    onnx.helper.set_model_props(model, {**others, CARD_KEY: card.model_dump_json()})
    onnx.save(model, str(path))


def current_commit() -> str:
    """The project's commit, or "" outside a checkout."""
    here = Path(__file__).resolve().parent
    answer = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=here, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() if answer.returncode == 0 else ""


class TorchSession:
    """The trained net behind the interface of an inference session, so that it runs on the runtime's own path."""

    def __init__(self, net: nn.Module) -> None:
        self.graph = GoldenGraph(net.cpu().eval())

    @torch.no_grad()
    def run(self, names: list[str], feed: dict[str, Image]) -> list[NDArray[np.generic]]:
        outputs = self.graph(torch.from_numpy(feed["image"]), torch.from_numpy(feed["golden"]))
        return [tensor.numpy() for tensor in outputs]


def check_parity(net: nn.Module, path: Path, pairs: Sequence[tuple[Image, Image]]) -> Parity:
    """Judge frames with the exported file and with the net it came from; ModelError on a verdict flip.

    ``pairs``: frame and golden (H, W) uint8.  Scores may differ by rounding only (``SCORE_TOLERANCE``).
    """
    exported = load_model(path)
    trained = LoadedModel(path, exported.card, exported.sha256, TorchSession(net))
    criteria, worst, flips = card_criteria(exported), 0.0, 0
    for frame, golden in pairs:
        template = GoldenTemplate(golden)
        one, other = (
            inspect_frame(frame, Detector(model, template, RegistrationLimits()), criteria)
            for model in (exported, trained)
        )
        flips += one.judgement.verdict != other.judgement.verdict
        worst = max(worst, _score_difference(one.detections, other.detections))
    result = Parity(len(pairs), worst, flips)
    if flips or worst > SCORE_TOLERANCE:
        raise ModelError(
            f"the exported file does not judge as the trained net does ({result})",
            fix="do not use this file; report the versions of torch and onnxruntime",
        )
    return result


def _score_difference(one: Sequence[Detection], other: Sequence[Detection]) -> float:
    """Largest difference in score between findings of one class at one place (boxes within a pixel).

    Where two candidates tie, rounding decides which one suppresses the other: a finding without a partner, or with one
    that is a second opinion on one side only, is no difference.  Whether it matters is seen from the verdicts.
    """
    worst = 0.0
    for mine in one:
        near = [
            _apart(mine.score, yours.score)
            for yours in other
            if mine.defect_class == yours.defect_class
            and max(abs(a - b) for a, b in zip(mine.region.xyxy_px, yours.region.xyxy_px, strict=True)) < 1
        ]
        worst = max(worst, min(near, default=0.0))
    return worst


def _apart(a: float, b: float) -> float:
    return min(abs(a - b), abs(a - SECOND_OPINION * b), abs(SECOND_OPINION * a - b))
