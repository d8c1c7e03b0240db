"""The lesson of the part net: is the part good, and if not, where."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.lessons.part_crops import PartCrops, PartSupply
from training.lessons.pictures import Picture, as_planes
from training.metrics import area_under_roc
from training.models.part_net import PartNet, pool

# Where a defect is teaches more than that there is one.  Where nobody marked any, places only say where none is: so
# much weight on them would silence the net before it has found what the labels mean.
MARKED_WEIGHT, UNMARKED_WEIGHT = 2.0, 0.5


class PartLesson:
    """See ``Lesson``.  ``held_out`` are pictures that are not learnt from.

    ``make_net`` takes the channels of the image and the number of classes; its net maps images as ``PartNet`` does.
    """

    def __init__(
        self, supply: PartSupply, held_out: tuple[Picture, ...], make_net: Callable[[int, int], nn.Module] = PartNet
    ) -> None:
        first = supply.pictures[0].image
        self.net = make_net(1 if first.ndim == 2 else 3, len(supply.classes))
        self.supply = supply
        self.held_out = held_out
        self.done = torch.zeros(1).share_memory_()  # the loader's processes look at it

    def stream(self, start: int) -> PartCrops:
        """Image (C, H, W) uint8, present (K,), places (K, H/8, W/8)."""
        return PartCrops(self.supply, start=start, done=self.done)

    def losses(self, net: nn.Module, batch: list[Tensor]) -> dict[str, Tensor]:
        """Losses of the image's classes and, where somebody marked them, of the places."""
        image, present, places = batch
        local = net((image.float() / 255).contiguous(memory_format=torch.channels_last)).float()
        whole = functional.binary_cross_entropy_with_logits(pool(local), present)
        each = functional.binary_cross_entropy_with_logits(local, places.clamp(min=0), reduction="none")
        # A defect covers few places: as much weight to all of them together as to all places without.
        sides = [((places == side) * each).sum() / (places == side).sum().clamp(min=1) for side in (0, 1)]
        weight = MARKED_WEIGHT if bool((places == 1).any()) else UNMARKED_WEIGHT
        return {"image": whole, "place": weight * (sides[0] + sides[1])}

    def progress(self, done: float) -> None:
        """Tells the crops how far the run is."""
        self.done.fill_(done)

    @torch.no_grad()
    def validate(self, net: nn.Module, *, quick: bool) -> dict[str, float]:
        """Area under the ROC curve of good against defective parts, and the share of right answers at 0.5."""
        pictures = self.held_out[:: 4 if quick and len(self.held_out) > 400 else 1]
        if not pictures:
            return {}
        net.eval()
        device = next(net.parameters()).device
        scores = np.array([float(self._score(net, picture, device)) for picture in pictures])
        defective = np.array([picture.defective for picture in pictures])
        right = float(np.mean((scores > 0.5) == defective))
        return {"images": len(pictures), "auroc": area_under_roc(scores, defective), "accuracy": right}

    def _score(self, net: nn.Module, picture: Picture, device: torch.device) -> Tensor:
        image = as_planes(picture.image)[None].to(device).float() / 255
        image = functional.interpolate(image, self.supply.size, mode="bilinear", align_corners=False)
        return pool(net(image.to(memory_format=torch.channels_last))).sigmoid().max()
