"""What the golden net should answer for a labelled crop, and how wrong an answer is."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.models.golden_net import STRIDE

Labels = NDArray[np.float32]  # (M, 5): x1, y1, x2, y2 in crop pixels, class index


def heat_targets(labels: Labels, classes: int, size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Targets for one square crop of ``size`` pixels.

    Returns heat (C, s, s) with a Gaussian of peak 1 at the cell of each box centre, and boxes (5, s, s): the box
    (x1, y1, x2, y2 in cells) that each cell near a centre should regress, and its weight (0 = no box here).
    """
    cells = size // STRIDE
    heat = np.zeros((classes, cells, cells), np.float32)
    boxes = np.zeros((5, cells, cells), np.float32)
    rows, columns = np.mgrid[0:cells, 0:cells].astype(np.float32) + 0.5
    for x1, y1, x2, y2, label in labels:
        x, y = (x1 + x2) / 2 / STRIDE, (y1 + y2) / 2 / STRIDE
        if not (0 <= x < cells and 0 <= y < cells):
            continue
        sigma_x, sigma_y = (max(0.55, side / STRIDE / 7) for side in (x2 - x1, y2 - y1))
        # Centred on the cell, so that every object has exactly one cell with target 1.
        cell_x, cell_y = int(x) + 0.5, int(y) + 0.5
        bump = np.exp(-((columns - cell_x) ** 2 / (2 * sigma_x**2) + (rows - cell_y) ** 2 / (2 * sigma_y**2)))
        bump[bump < 0.02] = 0
        np.maximum(heat[int(label)], bump, out=heat[int(label)])
        nearer = (bump > boxes[4]) & (bump > 0.2)
        boxes[:4, nearer] = np.array([x1, y1, x2, y2], np.float32)[:, None] / STRIDE
        boxes[4, nearer] = bump[nearer]
    return heat, boxes


def detection_loss(heat: Tensor, distance: Tensor, targets: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Penalty-reduced focal loss on heat logits (CornerNet) and generalised IoU loss on boxes; both per object."""
    want_heat, want_boxes = targets
    heat = heat.float()
    positive = want_heat == 1.0
    objects = positive.sum().clamp(min=1)
    log_p, log_q = torch.nn.functional.logsigmoid(heat), torch.nn.functional.logsigmoid(-heat)
    probability = torch.sigmoid(heat)
    hit = (1 - probability) ** 2 * log_p * positive
    miss = (1 - want_heat) ** 4 * probability**2 * log_q * ~positive
    heat_loss = -(hit.sum() + miss.sum()) / objects
    weight = want_boxes[:, 4]
    box_loss = (_giou_loss(distance.float(), want_boxes[:, :4]) * weight).sum() / weight.sum().clamp(min=1)
    return heat_loss, box_loss


def _giou_loss(distance: Tensor, want: Tensor) -> Tensor:
    """1 - GIoU (Rezatofighi et al. 2019) of the box at each cell; distance and want (N, 4, h, w) -> (N, h, w)."""
    rows = torch.arange(distance.shape[2], device=distance.device, dtype=torch.float32)[None, :, None] + 0.5
    columns = torch.arange(distance.shape[3], device=distance.device, dtype=torch.float32)[None, None, :] + 0.5
    left, top, right, bottom = distance.unbind(1)
    x1, y1, x2, y2 = columns - left, rows - top, columns + right, rows + bottom
    u1, v1, u2, v2 = want.unbind(1)
    inner = (torch.minimum(x2, u2) - torch.maximum(x1, u1)).clamp(min=0) * (
        torch.minimum(y2, v2) - torch.maximum(y1, v1)
    ).clamp(min=0)
    union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - inner
    hull = (torch.maximum(x2, u2) - torch.minimum(x1, u1)) * (torch.maximum(y2, v2) - torch.minimum(y1, v1))
    return 1 - inner / (union + 1e-6) + (hull - union) / (hull + 1e-6)
