"""Nets with everything around them that the model contract asks for: uint8 images in, findings out, in one graph."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.models import detect_net, golden_net
from training.models.candidates import Candidates, best_candidates
from training.models.part_net import pool

KEEP = 100  # candidates a tile
LOOK_AT = 400  # answers of a dense detector of others that are looked at: many cells answer for one defect


def planes(image: Tensor) -> Tensor:
    """Images (N, H, W, C) uint8 as (N, C, H, W) float in 0..1."""
    return image.permute(0, 3, 1, 2).float() / 255


class GoldenGraph(nn.Module):
    """Golden net: frame and golden in; boxes, scores and labels out."""

    def __init__(self, net: nn.Module, keep: int = KEEP) -> None:
        super().__init__()
        self.net = net
        self.keep = keep

    def forward(self, image: Tensor, golden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        heat, distance = self.net(torch.cat([planes(image), planes(golden)], 1))
        return golden_net.decode(torch.sigmoid(heat), distance, keep=self.keep)


class DetectGraph(nn.Module):
    """Detect net: boxes, scores and labels out.  Height and width are multiples of 32."""

    def __init__(self, net: detect_net.DetectNet, keep: int = KEEP) -> None:
        super().__init__()
        self.net = net
        self.levels = net.levels
        self.keep = keep

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return detect_net.decode(detect_net.flatten(self.net(planes(image)), self.levels), keep=self.keep)


class DenseGraph(nn.Module):
    """A foreign detector: boxes, scores and labels out.

    ``answer``: (N, C, H, W) float in 0..1, sides multiples of 32 -> boxes (N, A, 4) xyxy px, scores (N, A, K).
    With ``side`` an image is first resized so that its longer side is so many px; boxes are always in px of the image
    as given.
    """

    def __init__(self, answer: nn.Module, *, side: int | None = None) -> None:
        super().__init__()
        self.answer = answer
        self.side = side

    def forward(self, image: Tensor) -> Candidates:
        x = planes(image)
        if self.side is None:
            boxes, scores = self.answer(x)
            return best_candidates(boxes, scores, keep=KEEP, look_at=LOOK_AT)
        longest = larger(x.shape[2], x.shape[3])
        boxes, scores = self.answer(padded(resized(x, self.side, longest)))
        boxes, scores, labels = best_candidates(boxes, scores, keep=KEEP, look_at=LOOK_AT)
        return boxes * longest / self.side, scores, labels


class PartGraph(nn.Module):
    """Part net: scores (N, K) - or, for an anomaly model, score (N) - and heat map (N, h, w) out.

    An image of any size is averaged over blocks of ``shrink`` pixels and resized to ``size`` (height, width).
    """

    def __init__(self, net: nn.Module, size: tuple[int, int], *, shrink: int, anomaly: bool) -> None:
        super().__init__()
        self.net = net
        self.size = size
        self.shrink = shrink
        self.anomaly = anomaly

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = planes(image)
        if self.shrink > 1:
            x = functional.avg_pool2d(x, self.shrink)
        local = self.net(functional.interpolate(x, self.size, mode="bilinear", align_corners=False))
        scores, heat = pool(local).sigmoid(), local.sigmoid().amax(1)
        return (scores[:, 0] if self.anomaly else scores), heat


class SoftmaxGraph(nn.Module):
    """A foreign classifier, in which good parts are a class of their own: scores of the other classes and heat map out.

    ``answer``: (N, C, H, W) float in 0..1 -> logits of the image (N, K) and of its places (N, K, h, w).  ``kept``: which of
    the K classes are classes of defects, in the order of the card.  The image is averaged over blocks of ``shrink``
    pixels and then resized: to ``size`` (height, width), or so that its shorter side is ``size`` pixels.
    """

    def __init__(
        self, answer: nn.Module, size: tuple[int, int] | int, kept: tuple[int, ...], *, shrink: int = 1
    ) -> None:
        super().__init__()
        self.answer = answer
        self.size = size
        self.kept = kept
        self.shrink = shrink

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = planes(image)
        if self.shrink > 1:
            x = functional.avg_pool2d(x, self.shrink)
        if isinstance(self.size, int):
            x = resized(x, self.size, smaller(x.shape[2], x.shape[3]))
        else:
            x = functional.interpolate(x, self.size, mode="bilinear", align_corners=False)
        logits, local = self.answer(x)
        chances = [softmax.softmax(1)[:, list(self.kept)] for softmax in (logits, local)]
        return chances[0], chances[1].amax(1)


# Sides are plain numbers in torch and traced tensors in an export: only arithmetic is the same for both.


def larger(a: int, b: int) -> int:
    """The larger of two sides."""
    return (a + b + abs(a - b)) // 2


def smaller(a: int, b: int) -> int:
    """The smaller of two sides."""
    return (a + b - abs(a - b)) // 2


def resized(x: Tensor, side: int, which: int) -> Tensor:
    """(N, C, H, W) resized in proportion, so that what was ``which`` px long is ``side`` px long."""
    size = [(length * side + which // 2) // which for length in x.shape[2:]]
    return functional.interpolate(x, size, mode="bilinear", align_corners=False)


def padded(x: Tensor) -> Tensor:
    """(N, C, H, W) filled up at the right and bottom with the grey that YOLO pads with, to multiples of 32."""
    height, width = x.shape[2], x.shape[3]
    bottom, right = (32 - height % 32) % 32, (32 - width % 32) % 32
    return functional.pad(x, (0, right, 0, bottom), value=114 / 255)
