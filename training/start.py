"""The weights of a recipe's model, taken out of its own ONNX file, so that training can go on from them.

A plant has nothing but the sealed recipe.  The export folds each batch norm into the convolution before it, so that the
file holds one weight and one bias for each convolution, in the order in which the net runs them.  They go back in that
order: every shape must fit, and the net must judge frames as the file does.
What the norms need besides, mean and variance, is measured before the first training step (``training/norms.py``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from inspection.errors import ModelError, UsageError
from inspection.model import OUTPUTS, LoadedModel, ModelCard, load_model
from training.config import NetShape
from training.export import SCORE_TOLERANCE, Parity, TorchSession, check_parity
from training.graphs import DetectGraph, GoldenGraph, PartGraph
from training.models import part_net
from training.models.detect_net import DetectNet
from training.models.golden_net import GoldenNet
from training.models.part_net import PartNet
from training.norms import make_plain

Image = NDArray[np.uint8]
Product = Literal["pcb", "classify", "detect", "anomaly"]
LOOK_SIDE = 128  # px; the size of a picture does not matter to what is read from the file's outputs


@dataclass(frozen=True, slots=True)
class Start:
    """Where a retraining starts: the net with the weights of the file, and what the file says of its form."""

    product: Product
    shape: NetShape
    graph: nn.Module
    net: nn.Module
    parity: Parity


@dataclass(frozen=True, slots=True)
class _Convolution:
    """A convolution of the file: weight (out, in, k, k) and bias (out,) or None."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None


@dataclass(slots=True)
class _Layer:
    """A convolution of the net, and the batch norm right behind it, if there is one."""

    convolution: nn.Conv2d
    norm: nn.BatchNorm2d | None = None


def product_of(card: ModelCard) -> Product:
    """What `lineside train` calls this kind of model; UsageError when it was not made by a net of lineside's own."""
    if not card.trainer.startswith("lineside "):
        raise UsageError(
            f"model {card.name!r} was trained by {card.trainer!r}: its net cannot be taken out of the recipe's file",
            fix="train it again with its own trainer (`lineside train ... --trainer NAME --init CHECKPOINT`), and make a "
            "recipe of it with `lineside recipe new`",
        )
    if card.precision == "int8":
        raise UsageError(
            f"model {card.name!r} is an INT8 copy, whose weights are rounded",
            fix="retrain a recipe with the model it was made from, and quantize the challenger's with `lineside quantize`",
        )
    if card.task == "detect":
        return "pcb" if card.golden_guided else "detect"
    return "classify" if card.task == "classify" else "anomaly"


def open_start(path: Path, frames: Sequence[tuple[Image, Image | None]]) -> Start:
    """The net in a model file.  ``frames`` with their goldens, to compare net and file on.

    UsageError when the file is not of a net of ours; ModelError when its weights do not fit
    the net, or when the net does not judge as the file does.
    """
    model = load_model(path)
    product = product_of(model.card)
    graph, net, shape = _fitting(model, product, _convolutions(path))
    try:
        _require_same_answers(model, graph, channels=model.card.channels)
        parity = check_parity(graph, path, frames)
    except ModelError as error:
        raise ModelError(
            f"the weights of {path} make a net that does not judge as the file does: {error.what}",
            fix="the file was made by another version of lineside: train the product anew with `lineside train`",
        ) from error
    return Start(product, shape, graph, net, parity)


def _require_same_answers(model: LoadedModel, graph: nn.Module, *, channels: int) -> None:
    """ModelError when net and file answer otherwise on noise, which no gate of the runtime keeps from them."""
    rng = np.random.default_rng(0)
    names = ["image", "golden"] if model.card.golden_guided else ["image"]
    feed = {name: rng.integers(0, 256, (1, LOOK_SIDE, LOOK_SIDE, channels), dtype=np.uint8) for name in names}
    asked = list(OUTPUTS[model.card.task])
    for name, one, other in zip(
        asked, model.session.run(asked, feed), TorchSession(graph).run(asked, feed), strict=True
    ):
        if name in ("scores", "score", "heatmap"):
            worst = float(np.abs(np.sort(one, None) - np.sort(other, None)).max())
            if one.shape != other.shape or worst > SCORE_TOLERANCE:
                raise ModelError(f"on noise, {name} differ by {worst:.2g}", fix="")


def _convolutions(path: Path) -> list[_Convolution]:
    """The convolutions of a file in the order of the graph, which is the order in which the net ran when it was exported."""
    graph = onnx.load(str(path)).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    found = []
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in stored:  # the export keeps equal tensors once
            stored[node.output[0]] = stored[node.input[0]]
        elif node.op_type == "Conv":
            if any(name and name not in stored for name in node.input[1:]):
                raise ModelError(
                    f"the convolution {node.name} of {path} computes its weights",
                    fix="use a file as `lineside train` wrote it",
                )
            values = [np.array(numpy_helper.to_array(stored[name]), np.float32) for name in node.input[1:] if name]
            found.append(_Convolution(values[0], values[1] if len(values) > 1 else None))
    return found


def _fitting(
    model: LoadedModel, product: Product, stored: Sequence[_Convolution]
) -> tuple[nn.Module, nn.Module, NetShape]:
    """Graph and net of the form that the file has, with its weights; ModelError when there is no such net."""
    faults = []
    for graph, net, shape in _candidates(model, product):
        layers = _layers(net, shape.channels)
        fault = _misfit(layers, stored)
        if not fault:
            for layer, weights in zip(layers, stored, strict=True):
                _fill(layer, weights)
            return graph.eval(), net.eval(), shape
        faults.append(fault)
    raise ModelError(
        f"{model.path} is not of a net that this version of lineside knows ({'; '.join(faults)})",
        fix="train the product anew with `lineside train`",
    )


def _candidates(model: LoadedModel, product: Product) -> Iterator[tuple[nn.Module, nn.Module, NetShape]]:
    card, classes = model.card, len(model.card.classes)
    if product == "pcb":
        golden = GoldenNet(classes)
        yield GoldenGraph(golden), golden, NetShape(channels=2)
    elif product == "detect":
        for first_stride in (4, 8):
            detect = DetectNet(card.channels, classes, first_stride)
            yield DetectGraph(detect), detect, NetShape(card.channels, first_stride=first_stride, tile_px=card.tile_px)
    else:
        part = PartNet(card.channels, classes)
        shape = NetShape(card.channels, size=_input_size(model), shrink=_shrink(model.path))
        assert shape.size is not None
        yield PartGraph(part, shape.size, shrink=shape.shrink, anomaly=product == "anomaly"), part, shape


def _input_size(model: LoadedModel) -> tuple[int, int]:
    """Height and width that pictures are resized to: the heat map has an eighth of them, whatever is shown."""
    blank = np.zeros((1, LOOK_SIDE, LOOK_SIDE, model.card.channels), np.uint8)
    heat = model.session.run(["heatmap"], {"image": blank})[0]
    return part_net.STRIDE * heat.shape[1], part_net.STRIDE * heat.shape[2]


def _shrink(path: Path) -> int:
    """By which factor pictures are averaged down before they are resized."""
    for node in onnx.load(str(path), load_external_data=False).graph.node:
        if node.op_type == "AveragePool":
            return next(int(entry.ints[0]) for entry in node.attribute if entry.name == "kernel_shape")
    return 1


def _layers(net: nn.Module, channels: int) -> list[_Layer]:
    """Convolutions in the order in which the net runs them, each with the norm behind it."""
    layers: list[_Layer] = []

    def note(module: nn.Module, *_: Any) -> None:
        if isinstance(module, nn.Conv2d):
            layers.append(_Layer(module))
        elif isinstance(module, nn.BatchNorm2d):
            layers[-1].norm = module

    handles = [module.register_forward_hook(note) for module in net.modules()]
    was_training = net.training
    with torch.no_grad():
        net.eval()(torch.zeros(1, channels, LOOK_SIDE, LOOK_SIDE))
    net.train(was_training)
    for handle in handles:
        handle.remove()
    return layers


def _misfit(layers: Sequence[_Layer], stored: Sequence[_Convolution]) -> str:
    """What does not fit, or "" when each convolution of the file fits that of the net."""
    if len(layers) != len(stored):
        return f"{len(stored)} convolutions in the file, {len(layers)} in the net"
    for number, (layer, weights) in enumerate(zip(layers, stored, strict=True), 1):
        wanted, given = tuple(layer.convolution.weight.shape), weights.weight.shape
        if wanted != given or weights.bias is None:
            return f"convolution {number} of the file has the shape {given}, that of the net {wanted}"
    return ""


@torch.no_grad()
def _fill(layer: _Layer, weights: _Convolution) -> None:
    """Weights into the convolution, its bias into the norm, which is made to do nothing else."""
    assert weights.bias is not None
    layer.convolution.weight.copy_(torch.from_numpy(weights.weight))
    if layer.norm is None:
        assert layer.convolution.bias is not None
        layer.convolution.bias.copy_(torch.from_numpy(weights.bias))
        return
    make_plain(layer.norm, torch.from_numpy(weights.bias))
