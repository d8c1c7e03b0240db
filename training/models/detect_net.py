"""The detect net: boxes of defects on any part, without a golden template.

A small residual backbone with a feature pyramid; every cell of every level answers with class scores and with the four
distances from its centre to the sides of the box, each as a distribution over ``BINS`` lengths (Li et al. 2020,
Generalized Focal Loss).  Which cells learn which box is decided by how well they already answer (Feng et al. 2021,
TOOD).  Trained from scratch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.models.blocks import Residual, conv_bn
from training.models.candidates import best_candidates

BINS = 16  # distances of 0..15 cells
LEVELS = ((4, 32), (8, 64), (16, 96), (32, 128))  # stride in pixels, width of the head


@dataclass(frozen=True, slots=True)
class Dense:
    """Answers of all cells: class logits (N, A, K), distances (N, A, 4, BINS) logits, centres (A, 2) and strides (A,)
    in pixels of the net's input."""

    logits: Tensor
    distances: Tensor
    centres: Tensor
    strides: Tensor

    def boxes(self) -> Tensor:
        """Boxes (N, A, 4) xyxy in pixels of the net's input."""
        return _boxes(self.distances, self.centres, self.strides)

    def boxes_at(self, images: Tensor, cells: Tensor) -> Tensor:
        """Boxes (P, 4) of some cells alone, by their indices (P,) of image and cell."""
        return _boxes(self.distances[images, cells], self.centres[cells], self.strides[cells])


def _boxes(distances: Tensor, centres: Tensor, strides: Tensor) -> Tensor:
    lengths = torch.arange(BINS, device=distances.device, dtype=distances.dtype)
    reach = (distances.softmax(-1) * lengths).sum(-1) * strides[:, None]
    return torch.cat([centres - reach[..., :2], centres + reach[..., 2:]], -1)


class Head(nn.Module):
    """Class logits and distance distributions of one level."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.classify = nn.Sequential(conv_bn(width, width), nn.Conv2d(width, classes, 1))
        self.measure = nn.Sequential(conv_bn(width, width), nn.Conv2d(width, 4 * BINS, 1))
        nn.init.constant_(self.classify[-1].bias, -5.0)  # type: ignore[arg-type]
        nn.init.constant_(self.measure[-1].bias, 1.0)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.classify(x), self.measure(x)


class DetectNet(nn.Module):
    """``forward(image)``: (N, C, H, W) float in 0..1, H and W multiples of 32 -> one (logits, distances) pair a level.

    ``first_stride`` is 4 where small defects have to be found, else 8: the finest level costs as much as all others.
    """

    def __init__(self, channels: int, classes: int, first_stride: int) -> None:
        super().__init__()
        self.channels, self.classes, self.first_stride = channels, classes, first_stride
        self.levels = tuple(level for level in LEVELS if level[0] >= first_stride)
        self.stages = nn.ModuleList(
            [
                nn.Sequential(conv_bn(channels, 16, stride=2), conv_bn(16, 32, stride=2), Residual(32)),
                nn.Sequential(conv_bn(32, 64, stride=2), Residual(64), Residual(64)),
                nn.Sequential(conv_bn(64, 128, stride=2), Residual(128), Residual(128)),
                nn.Sequential(conv_bn(128, 192, stride=2), Residual(192), Surround(192)),
            ]
        )
        widths = {4: 32, 8: 64, 16: 128, 32: 192}
        self.lateral = nn.ModuleList([conv_bn(widths[stride], width, size=1) for stride, width in self.levels])
        self.down = nn.ModuleList(
            [
                conv_bn(above, width, size=1)
                for (_, width), (_, above) in zip(self.levels, self.levels[1:], strict=False)
            ]
        )
        self.mix = nn.ModuleList([conv_bn(width, width) for _, width in self.levels])
        self.heads = nn.ModuleList([Head(width, classes) for _, width in self.levels])

    def forward(self, image: Tensor) -> list[tuple[Tensor, Tensor]]:
        features, x = [], image - 0.5
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        sides = [lateral(f) for lateral, f in zip(self.lateral, features[-len(self.levels) :], strict=True)]
        mixed = [self.mix[-1](sides[-1])]
        for level in range(len(sides) - 2, -1, -1):
            above = nn.functional.interpolate(self.down[level](mixed[0]), scale_factor=2.0, mode="nearest")
            mixed.insert(0, self.mix[level](sides[level] + above))
        return [head(x) for head, x in zip(self.heads, mixed, strict=True)]


class Surround(nn.Module):
    """Adds what lies around each place, at three distances: stacked 5x5 maxima (He et al. 2015, spatial pyramid)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = conv_bn(channels, channels // 2, size=1)
        self.merge = conv_bn(2 * channels, channels, size=1)

    def forward(self, x: Tensor) -> Tensor:
        rings = [self.squeeze(x)]
        for _ in range(3):
            rings.append(nn.functional.max_pool2d(rings[-1], 5, 1, 2))
        return self.merge(torch.cat(rings, 1))  # type: ignore[no-any-return]


def flatten(answers: list[tuple[Tensor, Tensor]], levels: tuple[tuple[int, int], ...]) -> Dense:
    """The answers of all levels in one row of cells."""
    logits, distances, centres, strides = [], [], [], []
    for (stride, _), (classify, measure) in zip(levels, answers, strict=True):
        batch, _, rows, columns = classify.shape
        logits.append(classify.flatten(2).transpose(1, 2))
        distances.append(measure.reshape(batch, 4, BINS, rows * columns).permute(0, 3, 1, 2))
        y = torch.arange(rows, device=classify.device, dtype=torch.float32) + 0.5
        x = torch.arange(columns, device=classify.device, dtype=torch.float32) + 0.5
        grid = torch.stack([x[None, :].expand(rows, columns), y[:, None].expand(rows, columns)], 2)
        centres.append(stride * grid.reshape(rows * columns, 2))
        strides.append(torch.full_like(centres[-1][:, 0], float(stride)))
    return Dense(torch.cat(logits, 1).float(), torch.cat(distances, 1).float(), torch.cat(centres), torch.cat(strides))


def decode(dense: Dense, *, keep: int, floor: float = 0.003) -> tuple[Tensor, Tensor, Tensor]:
    """Candidates: boxes (N, keep, 4) xyxy pixels, scores (N, keep) in descending order, labels (N, keep) int64.

    A grid with fewer than ``keep`` answers is filled up with answers of score 0.
    """
    return best_candidates(dense.boxes(), dense.logits.sigmoid(), keep=keep, look_at=keep, floor=floor)
