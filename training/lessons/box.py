"""The lesson of the detect net: boxes of defects on parts that have no golden template."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from training.lessons.box_assign import detection_loss
from training.lessons.box_crops import BoxCrops, BoxSupply
from training.lessons.pictures import Picture, as_planes
from training.metrics import Scored, mean_average_precision
from training.models.candidates import Candidates
from training.models.detect_net import DetectNet, decode, flatten

KEEP = 100


class BoxLesson:
    """See ``Lesson``.  ``held_out`` are pictures that are not learnt from."""

    def __init__(self, supply: BoxSupply, held_out: tuple[Picture, ...], first_stride: int) -> None:
        first = supply.pictures[0].image
        self.net: nn.Module = DetectNet(1 if first.ndim == 2 else 3, len(supply.classes), first_stride)
        self.supply = supply
        self.held_out = held_out

    def stream(self, start: int) -> BoxCrops:
        """Image (C, H, W) uint8 and its padded boxes."""
        return BoxCrops(self.supply, start=start)

    def losses(self, net: nn.Module, batch: list[Tensor]) -> dict[str, Tensor]:
        """Losses of classes, boxes and distance distributions."""
        image, truth = batch
        answers = net((image.float() / 255).contiguous(memory_format=torch.channels_last))
        most = int(truth[..., 5].sum(1).max())
        return detection_loss(flatten(answers, self.net.levels), truth[:, :most])  # type: ignore[arg-type]

    def progress(self, done: float) -> None:
        """The crops are the same from beginning to end."""

    @torch.no_grad()
    def validate(self, net: nn.Module, *, quick: bool) -> dict[str, float]:
        """mAP on the held-out pictures (every fourth when quick)."""
        pictures = self.held_out[:: 4 if quick else 1]
        return box_figures(net.eval(), pictures, len(self.supply.classes), self._answer)

    def _answer(self, net: nn.Module, image: Tensor) -> Candidates:
        return decode(flatten(net(image), self.net.levels), keep=KEEP)  # type: ignore[arg-type]


def box_figures(
    net: nn.Module, pictures: Sequence[Picture], classes: int, answer: Callable[[nn.Module, Tensor], Candidates]
) -> dict[str, float]:
    """mAP on pictures, nothing without any.

    ``answer`` maps the net and an image (1, C, H, W) float in 0..1, sides multiples of 32, to boxes (1, K, 4) in its
    pixels, scores (1, K) with 0 for empty slots and labels (1, K).
    """
    if not pictures:
        return {}
    images = [_scored(net, picture, answer) for picture in pictures]
    figures = {f"map_{round(100 * iou)}": mean_average_precision(images, classes, (iou,)) for iou in (0.5, 0.75)}
    return {"images": len(images), **figures}


def _scored(net: nn.Module, picture: Picture, answer: Callable[[nn.Module, Tensor], Candidates]) -> Scored:
    device = next(net.parameters()).device
    image = as_planes(picture.image)[None].to(device).float() / 255
    image = nn.functional.pad(image, (0, -image.shape[3] % 32, 0, -image.shape[2] % 32), mode="replicate")
    found = answer(net, image.to(memory_format=torch.channels_last))
    boxes, scores, labels = (out[0].cpu().numpy() for out in found)
    real = scores > 0
    return Scored(
        picture.labels[:, :4].astype(float),
        picture.labels[:, 4].astype(np.int64),
        boxes[real].astype(float),
        labels[real],
        scores[real].astype(float),
    )
