"""An INT8 copy of an exported detector: static quantisation of its convolutions, calibrated on frames."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from inspection.model import load_model
from training.export import write_card

Image = NDArray[np.uint8]


class _Frames(CalibrationDataReader):
    """Feeds frame and golden pairs (H, W) uint8 to the calibration."""

    def __init__(self, pairs: Sequence[tuple[Image, Image]]) -> None:
        self.feeds = iter([{"image": a[None, :, :, None], "golden": b[None, :, :, None]} for a, b in pairs])

    def get_next(self) -> dict[str, Image] | None:
        return next(self.feeds, None)


def quantize(source: Path, target: Path, pairs: Sequence[tuple[Image, Image]]) -> None:
    """Write an INT8 copy of ``source``.  ``pairs``: frames with their goldens laid over them, the calibration set.

    The last convolutions (heat map and box distances) stay in float32: their rounding would move scores and boxes
    directly.  Whether the copy is worth having is for the caller to measure.
    """
    prepared = target.with_name(target.name + ".prepared")
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    convolutions = [node.name for node in onnx.load(str(prepared)).graph.node if node.op_type == "Conv"]
    heads = [name for name in convolutions if "/heat/" in name or "/distance/" in name]
    try:
        _quantise(prepared, target, pairs, heads)
    finally:
        prepared.unlink()
    card = load_model(source).card
    write_card(target, card.model_copy(update={"precision": "int8", "name": card.name + "-int8"}))


def _quantise(prepared: Path, target: Path, pairs: Sequence[tuple[Image, Image]], heads: list[str]) -> None:
    quantize_static(
        str(prepared),
        str(target),
        _Frames(pairs),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "Add", "MaxPool", "Resize"],
        nodes_to_exclude=heads,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
    )
