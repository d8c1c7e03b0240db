"""From a trained net to the one ONNX file, and the proof that both give the same verdicts."""

import subprocess
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from inspection.errors import ModelError
from inspection.golden import GoldenTemplate, RegistrationLimits
from inspection.inspect_frame import Inspection, inspect_frame, open_detector
from inspection.model import CARD_KEY, OUTPUTS, LoadedModel, ModelCard, load_model
from inspection.predict import card_criteria
from inspection.types import Detection
from training.models.candidates import SECOND_OPINION

Image = NDArray[np.uint8]
SCORE_TOLERANCE = 1e-3


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


def export_onnx(graph: nn.Module, card: ModelCard, path: Path) -> None:
    """Write graph and card to ``path`` (atomically).  Batch size, height and width stay free.

    ``graph`` takes ``image`` (and ``golden``) uint8 (N, H, W, C) and gives the outputs of the card's task in their
    order.  It must be built of operations that ONNX has: what cannot be exported is an error of torch.
    """
    graph = graph.cpu().eval()
    inputs = ["image", "golden"] if card.golden_guided else ["image"]
    outputs = list(OUTPUTS[card.task])
    sample = torch.zeros(1, 128, 128, card.channels, dtype=torch.uint8)
    axes: dict[str, dict[int, str]] = {name: {0: "batch", 1: "height", 2: "width"} for name in inputs}
    axes |= {name: {0: "batch"} for name in outputs}
    partial = path.with_name(path.name + ".partial")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own future
        torch.onnx.export(
            graph,
            (sample,) * len(inputs),
            str(partial),
            input_names=inputs,
            output_names=outputs,
            dynamic_axes=axes,
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
    """The graph in torch behind the interface of an inference session, so that it runs on the runtime's own path."""

    def __init__(self, graph: nn.Module) -> None:
        self.graph = graph.cpu().eval()

    @torch.no_grad()
    def run(self, names: list[str], feed: dict[str, Image]) -> list[NDArray[np.generic]]:
        outputs = self.graph(*(torch.from_numpy(image) for image in feed.values()))
        return [tensor.numpy() for tensor in outputs]


def check_parity(graph: nn.Module, path: Path, frames: Iterable[tuple[Image, Image | None]]) -> Parity:
    """Judge frames with the exported file and with the graph it came from; ModelError on a verdict flip.

    ``frames``: frame (H, W) or (H, W, 3) uint8 with its golden, where the model compares with one.  Scores may differ
    by rounding only (``SCORE_TOLERANCE``).
    """
    exported = load_model(path)
    trained = LoadedModel(path, exported.card, exported.sha256, TorchSession(graph))
    criteria, worst, flips, count = card_criteria(exported), 0.0, 0, 0
    for frame, golden in frames:
        template = None if golden is None else GoldenTemplate(golden)
        one, other = (
            inspect_frame(frame, open_detector(model, template, RegistrationLimits()), criteria)
            for model in (exported, trained)
        )
        count += 1
        flips += one.judgement.verdict != other.judgement.verdict
        worst = max(worst, _score_difference(one, other))
    result = Parity(count, worst, flips)
    if flips or worst > SCORE_TOLERANCE:
        raise ModelError(
            f"the exported file does not judge as the trained net does ({result})",
            fix="do not use this file; report the versions of torch and onnxruntime",
        )
    return result


def _score_difference(one: Inspection, other: Inspection) -> float:
    """Largest difference in score; of a model with a heat map, the best score of each class and every place count."""
    if one.heat is None or other.heat is None:
        return _box_difference(one.detections, other.detections)
    best: list[dict[str, float]] = [{}, {}]
    for scores, seen in zip(best, (one, other), strict=True):
        for found in seen.detections:
            scores[found.defect_class] = max(found.score, scores.get(found.defect_class, 0.0))
    both = best[0].keys() & best[1].keys()  # a score at the floor may be listed on one side only
    return max(float(np.abs(one.heat - other.heat).max()), *(abs(best[0][name] - best[1][name]) for name in both), 0.0)


def _box_difference(one: Sequence[Detection], other: Sequence[Detection]) -> float:
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
