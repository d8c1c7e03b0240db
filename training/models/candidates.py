"""Candidates out of a dense prediction, in plain tensor operations: the same code runs in torch and in the ONNX graph."""

import torch
from torch import Tensor, nn

Candidates = tuple[Tensor, Tensor, Tensor]  # boxes (N, K, 4) xyxy pixels, scores (N, K), labels (N, K) int64
SECOND_OPINION = 0.3  # what is left of the score of another class at the same place


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of (N, M, 4) and (N, K, 4) xyxy boxes -> (N, M, K)."""
    top = torch.maximum(first[:, :, None, :2], second[:, None, :, :2])
    bottom = torch.minimum(first[:, :, None, 2:], second[:, None, :, 2:])
    side = (bottom - top).clamp(min=0.0)
    inner = side[..., 0] * side[..., 1]
    areas = [(b[:, :, 2:] - b[:, :, :2]).clamp(min=0.0) for b in (first, second)]
    first_area, second_area = (a[..., 0] * a[..., 1] for a in areas)
    return inner / (first_area[:, :, None] + second_area[:, None, :] - inner + 1e-6)


def suppress_overlap(
    boxes: Tensor, scores: Tensor, labels: Tensor, *, same_iou: float = 0.45, other_iou: float = 0.8
) -> Tensor:
    """Fast NMS over (N, K, 4) boxes in descending order of score; returns the scores (N, K) that are left.

    A candidate is suppressed (score 0) by a better one of its class at IoU > ``same_iou``, and keeps ``SECOND_OPINION``
    of its score beside a better one of another class at IoU > ``other_iou``: too little to be a false call, enough to
    be listed (Bolya et al. 2019: suppressed boxes suppress too, which keeps it free of loops).
    """
    iou = pairwise_iou(boxes, boxes)
    better = torch.ones(boxes.shape[1], boxes.shape[1], device=boxes.device).triu(1)  # row suppresses column
    same = (labels[:, :, None] == labels[:, None, :]).to(iou.dtype)
    repeated = ((iou > same_iou).to(iou.dtype) * same * better).max(1).values
    doubted = ((iou > other_iou).to(iou.dtype) * (1 - same) * better).max(1).values
    return scores * (1 - repeated) * (1 - (1 - SECOND_OPINION) * doubted)


def best_candidates(
    boxes: Tensor, scores: Tensor, *, keep: int, look_at: int, floor: float = 0.003
) -> tuple[Tensor, Tensor, Tensor]:
    """The best of all answers of a dense detector, overlap suppressed.

    boxes (N, A, 4) xyxy pixels, scores (N, A, K) of each class -> boxes (N, keep, 4), scores (N, keep) in descending
    order, labels (N, keep) int64.  Of the ``look_at`` best answers those that are not suppressed are kept; where there
    are fewer answers, the rest is filled up with answers of score 0.
    """
    batch, cells, classes = scores.shape
    flat = nn.functional.pad(scores.reshape(batch, cells * classes), (0, look_at))
    best, where = torch.topk(flat, look_at)
    where = torch.minimum(where, torch.full_like(where, 1) * (cells * classes - 1))
    cell = torch.div(where, classes, rounding_mode="floor")
    labels = where - cell * classes
    boxes = boxes.gather(1, cell.unsqueeze(2).expand(-1, -1, 4))
    best = suppress_overlap(boxes, best, labels, same_iou=0.6)
    best, order = torch.topk(best * (best > floor), keep)
    return boxes.gather(1, order.unsqueeze(2).expand(-1, -1, 4)), best, labels.gather(1, order)
