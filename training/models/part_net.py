"""The part net: judges a whole part and shows where, for classification and for good-parts-only anomaly detection.

A small fully convolutional net gives one logit per class and place at an eighth of the input size; the image's logit is
the mean of its highest places (multiple-instance learning; Ilse et al. 2018 discuss the pooling).  So the heat map is
not an explanation made afterwards: it is what the score was taken from.  Trained from scratch.
"""

import torch
from torch import Tensor, nn

from training.models.blocks import Residual, conv_bn

STRIDE = 8
PLACES = 3  # highest places whose mean is the image's logit


class PartNet(nn.Module):
    """Local logits of each class.

    ``forward(image)``: (N, C, H, W) float in 0..1, H and W multiples of 16 -> logits (N, K, H/8, W/8).
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.channels, self.classes = channels, classes
        self.stem = nn.Sequential(conv_bn(channels, 16, stride=2), conv_bn(16, 32, stride=2), Residual(32))
        self.detail = nn.Sequential(conv_bn(32, 64, stride=2), Residual(64), Residual(64))  # (N, 64, H/8, W/8)
        self.context = nn.Sequential(conv_bn(64, 96, stride=2), Residual(96), Residual(96), nn.Conv2d(96, 64, 1))
        self.mix = conv_bn(64, 64)
        self.local = nn.Conv2d(64, classes, 1)
        nn.init.constant_(self.local.bias, -3.0)

    def forward(self, image: Tensor) -> Tensor:
        detail = self.detail(self.stem(image - 0.5))
        context = nn.functional.interpolate(self.context(detail), scale_factor=2.0, mode="nearest")
        return self.local(self.mix(detail + context))  # type: ignore[no-any-return]


def pool(local: Tensor) -> Tensor:
    """Image logits (N, K) from local logits (N, K, h, w): the mean of the highest ``PLACES``."""
    return torch.topk(local.flatten(2), PLACES).values.mean(2)
