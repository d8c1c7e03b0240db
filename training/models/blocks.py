"""Building blocks that our nets share."""

import torch
from torch import Tensor, nn


def conv_bn(channels_in: int, channels_out: int, *, size: int = 3, stride: int = 1) -> nn.Sequential:
    """Square convolution, batch norm, ReLU; the sides shrink by ``stride`` alone."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, size, stride, size // 2, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):
    """Two 3x3 convolutions added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv_bn(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(self.first(x)))
