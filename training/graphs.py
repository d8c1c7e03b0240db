"""Nets with everything around them that the model contract asks for: uint8 images in, findings out, in one graph."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.models import detect_net, golden_net
from training.models.part_net import pool

KEEP = 100  # candidates a tile


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
