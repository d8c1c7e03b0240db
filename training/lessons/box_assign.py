"""Which cell learns which box, and how wrong the detect net's answers are.

Task-aligned assignment (Feng et al. 2021, TOOD, section 3.2): a cell whose centre lies in a box is a better teacher for
it the better it already answers, ``score ** ALPHA * iou ** BETA``; the best ``TOP`` cells of each box learn it.  Boxes
are learnt by complete IoU (Zheng et al. 2020) and by the distribution of each distance (Li et al. 2020).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from training.models.detect_net import BINS, Dense

ALPHA, BETA, TOP = 0.5, 6.0, 10
BOX_WEIGHT, DISTANCE_WEIGHT, CLASS_WEIGHT = 7.5, 1.5, 0.5


@dataclass(frozen=True, slots=True)
class Assigned:
    """What each cell should answer: class targets (N, A, K) in 0..1, boxes (N, A, 4), learns (N, A) bool."""

    targets: Tensor
    boxes: Tensor
    learns: Tensor


@torch.no_grad()
def assign(dense: Dense, truth: Tensor) -> Assigned:
    """``truth`` (N, M, 6): xyxy pixels, class index, 1 for a box and 0 for padding.

    Only pairs of a box and a cell inside it are looked at: of a thousand cells that is a handful.
    """
    batch, cells, _ = dense.logits.shape
    targets = torch.zeros_like(dense.logits)
    wanted = torch.zeros(batch, cells, 4, device=truth.device)
    learns = torch.zeros(batch, cells, dtype=torch.bool, device=truth.device)
    if not bool((truth[..., 5] > 0).any()):
        return Assigned(targets, wanted, learns)
    image, box, cell = _inside(dense, truth).nonzero(as_tuple=True)  # (P,) each
    label, corners = truth[image, box, 4].long(), truth[image, box, :4]
    iou = _iou(corners, dense.boxes_at(image, cell))
    # Early on every answer is as bad as any other; the nearest cells break the tie, so that no box goes without.
    metric = dense.logits[image, cell, label].sigmoid() ** ALPHA * iou**BETA + 1e-9 * _nearness(dense, corners, cell)
    dense_metric = torch.zeros(batch, truth.shape[1], cells, device=truth.device)
    dense_metric[image, box, cell] = metric
    least = torch.topk(dense_metric, min(TOP, cells), dim=2).values[..., -1]  # (N, M)
    keep = metric >= least[image, box].clamp(min=1e-12)
    key = image * cells + cell
    best = torch.zeros(batch * cells, device=truth.device).scatter_reduce(0, key[keep], iou[keep] + 1e-6, "amax")
    keep &= iou + 1e-6 >= best[key]  # of several boxes the one a cell fits best
    image, box, cell, label = (index[keep] for index in (image, box, cell, label))
    metric, iou, owner = metric[keep], iou[keep], image * truth.shape[1] + box
    none = torch.zeros(batch * truth.shape[1], device=truth.device)
    peak, reach = (none.scatter_reduce(0, owner, values, "amax") for values in (metric, iou))
    targets[image, cell, label] = metric / (peak[owner] + 1e-12) * reach[owner]
    wanted[image, cell] = truth[image, box, :4]
    learns[image, cell] = True
    return Assigned(targets, wanted, learns)


def _inside(dense: Dense, truth: Tensor) -> Tensor:
    """Whether each cell's centre lies in each box (N, M, A); a box too small to hold a centre takes the cells around."""
    smallest = 1.01 * float(dense.strides.min())
    middle = (truth[..., :2] + truth[..., 2:4]) / 2
    half = ((truth[..., 2:4] - truth[..., :2]) / 2).clamp(min=smallest)
    low, high = middle - half, middle + half
    inside = truth[..., 5:6] > 0
    for axis in (0, 1):
        at = dense.centres[:, axis]
        inside = inside & (at > low[..., axis, None]) & (at < high[..., axis, None])
    return inside


def _iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU of (P, 4) and (P, 4) xyxy boxes."""
    top, bottom = torch.maximum(first[:, :2], second[:, :2]), torch.minimum(first[:, 2:], second[:, 2:])
    inner = (bottom - top).clamp(min=0).prod(1)
    areas = [(b[:, 2:] - b[:, :2]).clamp(min=0).prod(1) for b in (first, second)]
    return inner / (areas[0] + areas[1] - inner + 1e-6)


def _nearness(dense: Dense, corners: Tensor, cell: Tensor) -> Tensor:
    """1 at the middle of a box on the level whose cells are a quarter of it, less elsewhere; (P,)."""
    side = (corners[:, 2:] - corners[:, :2]).amax(1).clamp(min=1.0)
    away = (dense.centres[cell] - (corners[:, :2] + corners[:, 2:]) / 2).norm(dim=1) / side
    size = (side / (dense.strides[cell] * 4)).log().abs()
    return 1 / (1 + away + size)


def detection_loss(dense: Dense, truth: Tensor) -> dict[str, Tensor]:
    """Weighted losses of a batch by name; their sum is to be made small."""
    assigned = assign(dense, truth)
    share = assigned.targets.sum().clamp(min=1.0)
    classes = functional.binary_cross_entropy_with_logits(dense.logits, assigned.targets, reduction="sum") / share
    learns = assigned.learns
    if not bool(learns.any()):
        zero = dense.distances.sum() * 0
        return {"class": CLASS_WEIGHT * classes, "box": zero, "distance": zero}
    weight = assigned.targets.sum(2)[learns]
    wanted = assigned.boxes[learns]
    image, cell = learns.nonzero(as_tuple=True)
    box = ((1 - complete_iou(dense.boxes_at(image, cell), wanted)) * weight).sum() / share
    centres, strides = dense.centres[cell], dense.strides[cell]
    sides = torch.cat([centres - wanted[:, :2], wanted[:, 2:] - centres], 1) / strides[:, None]
    distance = (distance_loss(dense.distances[image, cell], sides) * weight).sum() / share
    return {"class": CLASS_WEIGHT * classes, "box": BOX_WEIGHT * box, "distance": DISTANCE_WEIGHT * distance}


def distance_loss(logits: Tensor, sides: Tensor) -> Tensor:
    """Cross-entropy of the two bins beside each wanted distance.  logits (P, 4, BINS), sides (P, 4) in cells -> (P,)"""
    sides = sides.clamp(0, BINS - 1.01)
    low = sides.floor()
    high_share = sides - low
    flat = logits.flatten(0, 1)
    losses = [
        functional.cross_entropy(flat, (low + step).long().flatten(), reduction="none").reshape(sides.shape) * share
        for step, share in ((0, 1 - high_share), (1, high_share))
    ]
    return (losses[0] + losses[1]).mean(1)


def complete_iou(boxes: Tensor, wanted: Tensor) -> Tensor:
    """Complete IoU of (P, 4) and (P, 4) xyxy boxes: overlap, distance of the centres, difference in shape."""
    top, bottom = torch.maximum(boxes[:, :2], wanted[:, :2]), torch.minimum(boxes[:, 2:], wanted[:, 2:])
    inner = (bottom - top).clamp(min=0).prod(1)
    size, wanted_size = (b[:, 2:] - b[:, :2] for b in (boxes, wanted))
    iou = inner / (size.clamp(min=0).prod(1) + wanted_size.prod(1) - inner + 1e-7)
    hull = torch.maximum(boxes[:, 2:], wanted[:, 2:]) - torch.minimum(boxes[:, :2], wanted[:, :2])
    apart = ((boxes[:, :2] + boxes[:, 2:] - wanted[:, :2] - wanted[:, 2:]) / 2).pow(2).sum(1)
    angle = [torch.atan(s[:, 0] / s[:, 1].clamp(min=1e-4)) for s in (size, wanted_size)]
    shape = 4 / math.pi**2 * (angle[0] - angle[1]).pow(2)
    with torch.no_grad():
        share = shape / (1 - iou + shape + 1e-7)
    return iou - apart / hull.pow(2).sum(1).clamp(min=1e-7) - share * shape
