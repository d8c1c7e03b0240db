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

from training.models.candidates import pairwise_iou
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
    """``truth`` (N, M, 6): xyxy pixels, class index, 1 for a box and 0 for padding."""
    batch, cells, classes = dense.logits.shape
    boxes, real = truth[..., :4], truth[..., 5] > 0  # (N, M, 4), (N, M)
    if truth.shape[1] == 0:
        none = torch.zeros(batch, cells, dtype=torch.bool, device=truth.device)
        return Assigned(torch.zeros_like(dense.logits), torch.zeros(batch, cells, 4, device=truth.device), none)
    label = truth[..., 4].long()
    score = dense.logits.sigmoid().gather(2, label[:, None, :].expand(-1, cells, -1)).transpose(1, 2)  # (N, M, A)
    iou = pairwise_iou(boxes, dense.boxes()).clamp(min=0)
    inside = _inside(dense, boxes) & real[..., None]
    metric = score**ALPHA * iou**BETA * inside
    # Early on every metric is nearly 0; the nearest cells break the tie, so that no box goes without a teacher.
    metric = metric + 1e-9 * inside * _nearness(dense, boxes)
    best = torch.topk(metric, min(TOP, cells), dim=2).indices
    chosen = torch.zeros_like(inside).scatter_(2, best, True) & inside
    rival = torch.where(chosen, iou + 1e-6, torch.zeros_like(iou))
    owner = rival.argmax(1)  # (N, A): of several boxes the one a cell fits best
    learns = chosen.any(1)
    mine = functional.one_hot(owner, boxes.shape[1]).transpose(1, 2).bool() & chosen
    peak = (metric * mine).amax(2, keepdim=True)
    reach = (iou * mine).amax(2, keepdim=True)
    weight = (metric * mine / (peak + 1e-12) * reach).amax(1)  # (N, A)
    own_label = label.gather(1, owner)
    targets = functional.one_hot(own_label, classes).float() * (weight * learns)[..., None]
    return Assigned(targets, boxes.gather(1, owner[..., None].expand(-1, -1, 4)), learns)


def _inside(dense: Dense, boxes: Tensor) -> Tensor:
    """Whether each cell's centre lies in each box (N, M, A); a box too small to hold a centre takes the cells around."""
    smallest = 1.01 * dense.strides.min()
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    half = ((boxes[..., 2:] - boxes[..., :2]) / 2).clamp(min=float(smallest))
    away = (dense.centres[None, None] - middle[:, :, None]).abs()  # (N, M, A, 2)
    return (away < half[:, :, None]).all(3)


def _nearness(dense: Dense, boxes: Tensor) -> Tensor:
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    side = (boxes[..., 2:] - boxes[..., :2]).amax(2).clamp(min=1.0)
    away = (dense.centres[None, None] - middle[:, :, None]).norm(dim=3) / side[..., None]
    size = (side[..., None] / (dense.strides * 4)).log().abs()  # a level whose cells are about a quarter of the box
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
    box = ((1 - complete_iou(dense.boxes()[learns], wanted)) * weight).sum() / share
    centres = dense.centres.expand(len(learns), -1, -1)[learns]
    strides = dense.strides.expand(len(learns), -1)[learns]
    sides = torch.cat([centres - wanted[:, :2], wanted[:, 2:] - centres], 1) / strides[:, None]
    distance = (distance_loss(dense.distances[learns], sides) * weight).sum() / share
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
