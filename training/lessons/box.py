"""The lesson of the detect net: boxes of defects on parts that have no golden template."""

import numpy as np
import torch
from torch import Tensor, nn

from training.lessons.box_assign import detection_loss
from training.lessons.box_crops import BoxCrops, BoxSupply
from training.lessons.pictures import Picture
from training.metrics import Scored, mean_average_precision
from training.models.detect_net import DetectNet, decode, flatten


class BoxLesson:
    """See ``Lesson``.  ``held_out`` are pictures that are not learnt from."""

    def __init__(self, supply: BoxSupply, held_out: tuple[Picture, ...], *, first_stride: int) -> None:
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

    @torch.no_grad()
    def validate(self, net: nn.Module, *, quick: bool) -> dict[str, float]:
        """mAP on the held-out pictures (every fourth when quick)."""
        pictures = self.held_out[:: 4 if quick else 1]
        if not pictures:
            return {}
        device = next(net.parameters()).device
        images = [_scored(net.eval(), picture, device) for picture in pictures]
        figures = {
            f"map_{round(100 * iou)}": mean_average_precision(images, len(self.supply.classes), (iou,))
            for iou in (0.5, 0.75)
        }
        return {"images": len(images), **figures}


def _scored(net: nn.Module, picture: Picture, device: torch.device) -> Scored:
    planes = picture.image[None] if picture.image.ndim == 2 else picture.image.transpose(2, 0, 1)
    image = torch.from_numpy(np.ascontiguousarray(planes))[None].to(device).float() / 255
    image = nn.functional.pad(image, (0, -image.shape[3] % 32, 0, -image.shape[2] % 32), mode="replicate")
    dense = flatten(net(image.to(memory_format=torch.channels_last)), net.levels)  # type: ignore[arg-type]
    boxes, scores, labels = (out[0].cpu().numpy() for out in decode(dense, keep=100))
    found = scores > 0
    return Scored(
        picture.labels[:, :4].astype(float),
        picture.labels[:, 4].astype(np.int64),
        boxes[found].astype(float),
        labels[found],
        scores[found].astype(float),
    )
