"""The golden-guided detector: a small fully convolutional net over frame and golden template.

Two grey planes in, one heat map per class and four box distances out at an eighth of the size, and a context branch
at a sixteenth.  Trained from scratch; the two images meet in the first convolution, so the net compares them at
full resolution and learns by itself which differences are edge noise.  Heat-map detection after Zhou et al. 2019
(Objects as Points), box distances after Tian et al. 2019 (FCOS).
"""

import torch
from torch import Tensor, nn

from training.models.blocks import Residual, conv_bn
from training.models.candidates import suppress_overlap

STRIDE = 8


class GoldenNet(nn.Module):
    """Heat-map logits and box distances from frame and golden.

    ``forward(pair)``: (N, 2, H, W) float in 0..1, H and W multiples of 16 -> heat (N, C, H/8, W/8) logits and
    distances (N, 4, H/8, W/8): left, top, right, bottom from the cell centre in units of 8 px, positive.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.stem = nn.Sequential(conv_bn(2, 16, stride=2), conv_bn(16, 32, stride=2))  # (N, 32, H/4, W/4)
        self.detail = nn.Sequential(conv_bn(32, 64, stride=2), Residual(64), Residual(64))  # (N, 64, H/8, W/8)
        self.context = nn.Sequential(
            conv_bn(64, 96, stride=2), Residual(96), Residual(96), nn.Conv2d(96, 64, 1)
        )  # (N, 64, H/16, W/16)
        self.mix = conv_bn(64, 64)
        self.heat = nn.Conv2d(64, classes, 1)
        self.distance = nn.Conv2d(64, 4, 1)
        nn.init.constant_(self.heat.bias, -4.0)
        nn.init.constant_(self.distance.bias, 0.7)

    def forward(self, pair: Tensor) -> tuple[Tensor, Tensor]:
        detail = self.detail(self.stem(pair))
        context = nn.functional.interpolate(self.context(detail), scale_factor=2.0, mode="nearest")
        mixed = self.mix(detail + context)
        return self.heat(mixed), torch.exp(self.distance(mixed).clamp(-3.0, 4.0))


def decode(heat: Tensor, distance: Tensor, *, keep: int, floor: float = 0.003) -> tuple[Tensor, Tensor, Tensor]:
    """Candidates from the maps: peaks of the heat map, their boxes, overlap suppressed.

    heat (N, C, h, w) **probabilities**, distance (N, 4, h, w) -> boxes (N, K, 4) xyxy pixels, scores (N, K) in
    descending order, labels (N, K) int64.  A cell is a candidate when it is the peak of its own class among its
    eight neighbours; overlap is suppressed by ``suppress_overlap``.
    Boxes may reach outside the tile; the runtime clips them to the frame.
    Plain tensor operations only, so the same code runs in torch and inside the exported graph.
    """
    batch, classes, rows, columns = heat.shape
    peaks = heat * (nn.functional.max_pool2d(heat, 3, 1, 1) == heat)
    scores, flat = torch.topk(peaks.reshape(batch, classes * rows * columns), keep)  # (N, K)
    cells = rows * columns
    labels = torch.div(flat, cells, rounding_mode="floor")
    cell = flat - labels * cells
    row = torch.div(cell, columns, rounding_mode="floor")
    column = cell - row * columns
    reach = distance.reshape(batch, 4, cells).gather(2, cell.unsqueeze(1).expand(-1, 4, -1))  # (N, 4, K)
    x, y = column.to(reach.dtype) + 0.5, row.to(reach.dtype) + 0.5
    boxes = STRIDE * torch.stack([x - reach[:, 0], y - reach[:, 1], x + reach[:, 2], y + reach[:, 3]], 2)
    scores = suppress_overlap(boxes, scores, labels)
    return boxes, scores * (scores > floor), labels
