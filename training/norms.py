"""Batch norms that an export folded into the convolutions: brought back so that training can go on.

A folded norm comes back as any of many: scale and offset are known only together with mean and variance.  These are
measured on what the net will be taught with, and scale and offset follow from them: the answers stay the same, and in
training, where each batch brings its own mean and variance, the net starts from where it stood.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(slots=True)
class _Moments:
    """What a norm was shown: number of values, and for each channel their sum and sum of squares."""

    count: int = 0
    total: Tensor | None = None
    squares: Tensor | None = None


def norms_of(net: nn.Module) -> list[nn.BatchNorm2d]:
    """The batch norms of a net."""
    return [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]


@torch.no_grad()
def make_plain(norm: nn.BatchNorm2d, offset: Tensor) -> None:
    """Make a norm do nothing but add ``offset`` (C,)."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.zero_()
    norm.running_var.fill_(1.0)
    norm.weight.fill_((1.0 + norm.eps) ** 0.5)
    norm.bias.copy_(offset)


@contextmanager
def settled(net: nn.Module) -> Iterator[None]:
    """While this is open, show ``net`` (in eval mode) what it will be taught with; at the end its norms are settled.

    Mean and variance become those of what was shown, scale and offset such that the net answers as before.  A norm that
    was shown nothing stays as it is.
    """
    seen = {norm: _Moments() for norm in norms_of(net)}
    handles = [norm.register_forward_pre_hook(_taker(moments)) for norm, moments in seen.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    for norm, moments in seen.items():
        _settle(norm, moments)


def settle(net: nn.Module, shown: Iterable[Any], show: Any) -> None:
    """``settled`` over batches: ``show(net, batch)`` for each of ``shown``; the net's mode is left as it was."""
    was_training = net.training
    with torch.no_grad(), settled(net.eval()):
        for batch in shown:
            show(net, batch)
    net.train(was_training)


def _taker(moments: _Moments) -> Any:
    def take(_: nn.Module, inputs: tuple[Tensor]) -> None:
        values = inputs[0].detach().double()  # (N, C, H, W)
        total, squares = values.sum((0, 2, 3)), (values**2).sum((0, 2, 3))
        moments.count += values.shape[0] * values.shape[2] * values.shape[3]
        moments.total = total if moments.total is None else moments.total + total
        moments.squares = squares if moments.squares is None else moments.squares + squares

    return take


@torch.no_grad()
def _settle(norm: nn.BatchNorm2d, moments: _Moments) -> None:
    if moments.total is None or moments.squares is None:
        return
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean = moments.total / moments.count
    variance = (moments.squares / moments.count - mean**2).clamp(min=0.0)
    slope = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    offset = norm.bias.double() - slope * norm.running_mean.double()
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.copy_(slope * (norm.running_var.double() + norm.eps).sqrt())
    norm.bias.copy_(offset + slope * mean)
