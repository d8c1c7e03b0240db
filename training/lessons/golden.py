"""The lesson of the golden net: to find on a frame what its golden template does not show."""

import numpy as np
import torch
from torch import Tensor, nn

from datasets.sample import Sample
from training.lessons.golden_crops import Crops, Supply, load_pair
from training.lessons.golden_targets import detection_loss
from training.metrics import Scored, best_f_score, mean_average_precision
from training.models.golden_net import GoldenNet, decode

BOX_WEIGHT = 1.0


class GoldenLesson:
    """See ``Lesson``.  ``held_out`` are labelled pairs that are not learnt from."""

    def __init__(self, supply: Supply, held_out: tuple[Sample, ...]) -> None:
        self.net: nn.Module = GoldenNet(len(supply.classes))
        self.supply = supply
        self.held_out = held_out

    def stream(self, start: int) -> Crops:
        """Frame and golden (2, S, S) uint8, heat (C, s, s), boxes (5, s, s)."""
        return Crops(self.supply, start=start)

    def losses(self, net: nn.Module, batch: list[Tensor]) -> dict[str, Tensor]:
        """Losses of the heat map and of the boxes."""
        pair, heat, boxes = batch
        shown = (pair.float() / 255).to(memory_format=torch.channels_last)
        heat_loss, box_loss = detection_loss(*net(shown), (heat, boxes))
        return {"heat": heat_loss, "box": BOX_WEIGHT * box_loss}

    def progress(self, done: float) -> None:
        """The crops are the same from beginning to end."""

    @torch.no_grad()
    def validate(self, net: nn.Module, *, quick: bool) -> dict[str, float]:
        """Scores on the held-out pairs (every fourth when quick), unregistered."""
        samples = self.held_out[::4] if quick else self.held_out
        if not samples:
            return {}
        device = next(net.parameters()).device
        images = [_scored(net.eval(), sample, self.supply.classes, device) for sample in samples]
        best = best_f_score(images, len(self.supply.classes), iou=0.33)
        figures = {
            f"map_{round(100 * iou)}": mean_average_precision(images, len(self.supply.classes), (iou,))
            for iou in (0.33, 0.5, 0.75)
        }
        return {"images": len(images), **figures, "f": best.f, "f_threshold": best.threshold}


def _scored(net: nn.Module, sample: Sample, classes: tuple[str, ...], device: torch.device) -> Scored:
    pair = load_pair(sample, classes)
    stack = torch.from_numpy(np.stack([pair.frame, pair.golden])).to(device).float()[None] / 255
    heat, distance = net(_padded(stack).to(memory_format=torch.channels_last))
    boxes, scores, labels = (
        out[0].cpu().numpy() for out in decode(torch.sigmoid(heat.float()), distance.float(), keep=100)
    )
    found = scores > 0
    return Scored(
        pair.labels[:, :4].astype(float),
        pair.labels[:, 4].astype(np.int64),
        boxes[found].astype(float),
        labels[found],
        scores[found].astype(float),
    )


def _padded(stack: Tensor) -> Tensor:
    height, width = stack.shape[2:]
    return nn.functional.pad(stack, (0, -width % 16, 0, -height % 16), mode="replicate")
