"""Trains nets of torchvision from scratch with our loop, crops and augmentation; nothing is downloaded.

Classify: the first three stages of ResNet-18 (He et al. 2015) and one linear classifier that answers at every place.
Its answers are the heat map, and the score is taken from its highest places, so both say the same (class activation
maps: Zhou et al. 2016; the pooling is that of ``part_net``).
Detect: FCOS (Tian et al. 2019) over a ResNet-18 feature pyramid, with torchvision's head, targets and losses.

torchvision is imported when a net is made: everything else here loads without it.
"""

import importlib
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional

from inspection.errors import DriverMissing
from training.graphs import KEEP, LOOK_AT, DenseGraph
from training.lessons.box import box_figures
from training.lessons.box_crops import BoxCrops, BoxSupply
from training.lessons.pictures import Picture
from training.models.candidates import Candidates, best_candidates
from training.models.part_net import STRIDE
from training.trainers import Job, Trained, box, part

LICENCE = "BSD-3-Clause (torchvision)"
WIDTH = 64  # of pyramid and head; a multiple of 32, which the head's group norm asks for
ANSWERS = ("cls_logits", "bbox_regression", "bbox_ctrness")  # what torchvision's head calls them
STAGES = {4: (1, 2, 3, 4), 8: (2, 3, 4)}  # stages of the ResNet that the pyramid takes, by the finest stride in px


def require_torchvision(module: str) -> ModuleType:
    """A module of torchvision; DriverMissing with how to install it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise DriverMissing(
            f"the trainer torchvision needs the package {error.name!r}, which is not installed",
            fix='pip install "lineside[train,torchvision]"',
        ) from error
    except RuntimeError as error:
        raise DriverMissing(
            f"torchvision does not fit the installed torch {torch.__version__} ({str(error).splitlines()[0]})",
            fix="install torch and torchvision from the same index, in one command",
        ) from error


def train_classifier(job: Job) -> Trained:
    """As ``part.train_classifier``, with a ResNet."""
    require_torchvision("torchvision")  # before pictures are read
    return part.train_classifier(job, part.PartKind(PartResNet, "torchvision resnet18, to stage 3", LICENCE))


def train_detector(job: Job) -> Trained:
    """As ``box.train_detector``, with FCOS."""
    require_torchvision("torchvision")
    return box.train_detector(job, box.BoxKind(FcosLesson, _graph, "torchvision fcos resnet18 fpn", LICENCE))


def _graph(net: "FcosNet") -> DenseGraph:
    return DenseGraph(FcosAnswer(net))


def _three(image: Tensor) -> Tensor:
    """(N, 1 or 3, H, W) in 0..1 as (N, 3, H, W) about 0, as the first convolution of a ResNet wants it."""
    return (image - 0.5).expand(-1, 3, -1, -1)


class PartResNet(nn.Module):
    """Local logits of each class; see ``PartNet``."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        whole = require_torchvision("torchvision.models").resnet18(weights=None)
        stem = (whole.conv1, whole.bn1, whole.relu, whole.maxpool)
        self.body = nn.Sequential(*stem, whole.layer1, whole.layer2, whole.layer3)  # (N, 256, H/16, W/16)
        self.drop = nn.Dropout2d(0.1)
        self.local = nn.Conv2d(256, classes, 1)
        nn.init.constant_(self.local.bias, -3.0)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        local = self.local(self.drop(self.body(_three(image))))  # (N, K, H/16, W/16)
        return functional.interpolate(local, scale_factor=16.0 / STRIDE, mode="bilinear", align_corners=False)


class FcosNet(nn.Module):
    """``forward(image)``: (N, C, H, W) float in 0..1, sides multiples of 32 -> class logits (N, A, K), distances
    (N, A, 4) in cells, centredness logits (N, A, 1), and the cells (A, 4) themselves: xyxy squares in px."""

    def __init__(self, channels: int, classes: int, first_stride: int) -> None:
        super().__init__()
        detection = require_torchvision("torchvision.models.detection")
        stages = STAGES[first_stride]
        self.strides = tuple(first_stride << level for level in range(len(stages) + 1))  # one pooled level on top
        pyramid = detection.backbone_utils.BackboneWithFPN(
            require_torchvision("torchvision.models").resnet18(weights=None),
            {f"layer{stage}": str(level) for level, stage in enumerate(stages)},
            [32 << stage for stage in stages],
            WIDTH,
        )
        grid = detection.anchor_utils.AnchorGenerator(
            tuple((stride,) for stride in self.strides), ((1.0,),) * len(self.strides)
        )
        head = detection.fcos.FCOSHead(WIDTH, 1, classes, num_convs=2)
        self.fcos = detection.FCOS(pyramid, classes, anchor_generator=grid, head=head)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        levels = list(self.fcos.backbone(_three(image)).values())
        answers = self.fcos.head(levels)
        logits, distances, centred = (answers[name].float() for name in ANSWERS)
        return logits, distances, centred, _cells(levels, self.strides)


def _cells(levels: list[Tensor], strides: tuple[int, ...]) -> Tensor:
    squares = []
    for level, stride in zip(levels, strides, strict=True):
        rows, columns = level.shape[2:]
        y = torch.arange(rows, device=level.device, dtype=torch.float32)
        x = torch.arange(columns, device=level.device, dtype=torch.float32)
        corner = torch.stack([x[None, :].expand(rows, columns), y[:, None].expand(rows, columns)], 2)
        squares.append(stride * torch.cat([corner, corner + 1], 2).reshape(rows * columns, 4))
    return torch.cat(squares)


class FcosAnswer(nn.Module):
    """Boxes (N, A, 4) xyxy px and scores (N, A, K) of an ``FcosNet``, as torchvision decodes them."""

    def __init__(self, net: FcosNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits, distances, centred, squares = self.net(image)
        middle = (squares[:, :2] + squares[:, 2:]) / 2
        reach = distances * (squares[:, 2:] - squares[:, :2]).repeat(1, 2)
        boxes = torch.cat([middle - reach[..., :2], middle + reach[..., 2:]], 2)
        return boxes, torch.sqrt(logits.sigmoid() * centred.sigmoid())


class FcosLesson:
    """See ``Lesson``.  ``held_out`` are pictures that are not learnt from."""

    def __init__(self, supply: BoxSupply, held_out: tuple[Picture, ...], first_stride: int) -> None:
        self.net: nn.Module = FcosNet(3, len(supply.classes), first_stride)
        self.supply = supply
        self.held_out = held_out

    def stream(self, start: int) -> BoxCrops:
        """Image (C, H, W) uint8 and its padded boxes."""
        return BoxCrops(self.supply, start=start)

    def losses(self, net: nn.Module, batch: list[Tensor]) -> dict[str, Tensor]:
        """Losses of classes, boxes and centredness, as torchvision weighs them."""
        image, truth = batch
        *answers, squares = net((image.float() / 255).contiguous(memory_format=torch.channels_last))
        wanted = [rows[rows[:, 5] > 0] for rows in truth]
        targets = [{"boxes": rows[:, :4], "labels": rows[:, 4].long()} for rows in wanted]
        sides = squares[:, 2] - squares[:, 0]
        per_level = [int((sides == stride).sum()) for stride in self.net.strides]  # type: ignore[union-attr]
        losses: dict[str, Tensor] = self.net.fcos.compute_loss(  # type: ignore[union-attr,operator]
            targets, dict(zip(ANSWERS, answers, strict=True)), [squares] * len(targets), per_level
        )
        return {"class": losses["classification"], "box": losses["bbox_regression"], "centre": losses["bbox_ctrness"]}

    def progress(self, done: float) -> None:
        """The crops are the same from beginning to end."""

    @torch.no_grad()
    def validate(self, net: nn.Module, *, quick: bool) -> dict[str, float]:
        """mAP on the held-out pictures (every fourth when quick)."""
        pictures = self.held_out[:: 4 if quick else 1]
        return box_figures(net.eval(), pictures, len(self.supply.classes), _answer)


def _answer(net: nn.Module, image: Tensor) -> Candidates:
    boxes, scores = FcosAnswer(net)(image)  # type: ignore[arg-type]
    return best_candidates(boxes, scores, keep=KEEP, look_at=LOOK_AT)
