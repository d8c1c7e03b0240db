"""An INT8 copy of an exported model, and whether it is worth having on this machine.

Static quantisation of the convolutions, calibrated on what the runtime feeds the model.  What is measured to decide is
the runtime's own path on samples that were not calibrated on: an INT8 file that flips a verdict or is not faster here is
not kept.
"""

import os
import platform
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from datasets.manifest import Dataset
from datasets.sample import Sample, load_grey
from inspection.errors import UsageError
from inspection.golden import GoldenTemplate, RegistrationLimits
from inspection.images import read_image
from inspection.inspect_frame import AnyDetector, Criteria, Inspection, inspect_frame, open_detector
from inspection.judge import ng_score
from inspection.model import LoadedModel, ModelCard, Session, load_model
from inspection.predict import card_criteria
from inspection.types import Verdict
from training.calibrate import copy_with_card
from training.export import write_card

Image = NDArray[np.uint8]
Feed = dict[str, Image]
LEAST_RATIO = 1.05  # a smaller gain is within what timings differ from run to run
CALIBRATION_FRAMES = 48
MOST_TILES = 16  # of one frame


@dataclass(frozen=True, slots=True)
class Comparison:
    """INT8 against FP32 on frames that INT8 was not calibrated on; times are medians over all judgements, in ms.

    ``verdicts`` lists what FP32 said: where it says the same of every frame, no flip proves little.
    """

    frames: int
    verdicts: str
    flips: int
    worst_score_difference: float
    fp32_ms: float
    int8_ms: float
    machine: str

    @property
    def ratio(self) -> float:
        """How many times faster INT8 is."""
        return self.fp32_ms / self.int8_ms

    @property
    def wins(self) -> bool:
        """Whether INT8 is worth having: faster here, and not one verdict differs."""
        return self.flips == 0 and self.ratio > LEAST_RATIO

    def note(self) -> str:
        """What a card says of the decision."""
        loss = "" if self.flips == 0 else f"flips {self.flips} verdicts"
        slow = "" if self.ratio > LEAST_RATIO else f"is no more than {LEAST_RATIO} times faster"
        why = (
            "kept: faster, and no verdict differs"
            if self.wins
            else f"not kept: {' and '.join(filter(None, (loss, slow)))}"
        )
        return (
            f"int8 {why}; {self.int8_ms:.2f} ms against {self.fp32_ms:.2f} ms a frame ({self.ratio:.2f} times), "
            f"{self.flips} verdict flips on {self.frames} frames ({self.verdicts}), largest score difference "
            f"{self.worst_score_difference:.1e}; {self.machine}"
        )


@dataclass(frozen=True, slots=True)
class Quantized:
    """The outcome of `lineside quantize`: the INT8 file, or None when it was not kept, and the comparison."""

    path: Path | None
    comparison: Comparison


class _Feeds(CalibrationDataReader):
    """Hands the feeds to the calibration one by one."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self.feeds = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self.feeds, None)


class _Listener:
    """A session that keeps a copy of what it is fed, in front of the real one."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.feeds: list[Feed] = []

    def run(self, names: list[str], feed: Feed) -> list[Any]:
        self.feeds.append({name: image.copy() for name, image in feed.items()})
        return self.session.run(names, feed)


def quantize(source: Path, target: Path, feeds: Sequence[Feed]) -> None:
    """Write an INT8 copy of ``source``.  ``feeds``: its inputs uint8 (N, H, W, C) on typical frames, the calibration set.

    The last convolution of each head and everything after it stays in float32: their rounding would move scores and
    boxes directly.  The card says int8 and claims no escape rate, for that was the float file's.  Whether the copy is
    worth having is for the caller to measure.
    """
    prepared = target.with_name(target.name + ".prepared")
    try:
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        _quantise(prepared, target, feeds, float_nodes(onnx.load(str(prepared)).graph))
    finally:
        prepared.unlink(missing_ok=True)
    card = load_model(source).card
    update = {"precision": "int8", "name": card.name + "-int8", "calibration": None, "escape_bound": ""}
    write_card(target, card.model_copy(update=update))


def float_nodes(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes that stay float: convolutions from which an output is reached without another convolution, and
    all nodes on the way from them to the outputs."""
    makers = {name: node for node in graph.node for name in node.output}
    stay: dict[str, None] = {}
    waiting = [output.name for output in graph.output]
    while waiting:
        node = makers.get(waiting.pop())
        if node is None or node.name in stay:
            continue
        stay[node.name] = None
        if node.op_type != "Conv":
            waiting.extend(node.input)
    return list(stay)


def _quantise(prepared: Path, target: Path, feeds: Sequence[Feed], stay: list[str]) -> None:
    quantize_static(
        str(prepared),
        str(target),
        _Feeds(feeds),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "Add", "MaxPool", "Resize"],
        nodes_to_exclude=stay,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
    )


def sides(dataset: Dataset, card: ModelCard) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Samples to calibrate on and samples to compare on: the splits train and val, or, in a dataset without splits, those
    that the model was trained on and the others.  UsageError when one side is empty."""
    trained = set(card.trained_on.images_sha256)
    divided = any(sample.split for sample in dataset.samples)
    taught, new = [], []
    for sample, digest in zip(dataset.samples, dataset.digests, strict=True):
        if sample.split == "train" or (not divided and digest.image[:12] in trained):
            taught.append(sample)
        elif sample.split == "val" or not divided:
            new.append(sample)
    if not taught or not new:
        raise UsageError(
            f"{dataset.name} has {len(taught)} samples to calibrate on (split train) and {len(new)} to compare on (split "
            "val): both are needed",
            fix="divide the dataset with `lineside data split`",
        )
    return tuple(taught), tuple(new)


def drawn(samples: Sequence[Sample], most: int) -> tuple[Sample, ...]:
    """At most so many of the samples, drawn at random with a fixed seed."""
    order = np.random.default_rng(0).permutation(len(samples))[:most]
    return tuple(samples[index] for index in sorted(order))


def feeds_of(model: LoadedModel, samples: Sequence[Sample]) -> list[Feed]:
    """What the runtime feeds the model on these samples: goldens laid over, large frames cut into tiles."""
    listener, feeds = _Listener(model.session), []
    heard = LoadedModel(model.path, model.card, model.sha256, listener)
    criteria = card_criteria(model)
    for sample in samples:
        image, detector = _opened(heard, sample)
        inspect_frame(image, detector, criteria)
        feeds += listener.feeds[:: max(1, len(listener.feeds) // MOST_TILES)]
        listener.feeds.clear()
    if not feeds:
        raise UsageError(
            f"none of the {len(samples)} frames could be judged, so there is nothing to calibrate on",
            fix="look at the reasons with `lineside predict`",
        )
    return feeds


def _opened(model: LoadedModel, sample: Sample) -> tuple[Image, AnyDetector]:
    guided = model.card.golden_guided
    if guided and sample.golden is None:
        raise UsageError(f"sample {sample.name!r} has no golden template", fix="import the data with its goldens")
    golden = GoldenTemplate(load_grey(sample.golden)) if guided and sample.golden else None
    return read_image(sample.image), open_detector(model, golden, RegistrationLimits())


def compare(fp32: LoadedModel, int8: LoadedModel, samples: Sequence[Sample], *, rounds: int) -> Comparison:
    """Judge each sample ``rounds`` times with both files in turn, so that a busy machine slows them alike.

    Both judge by the limits of ``fp32``.  Files are read and goldens prepared before the clock runs.
    """
    criteria, flips, worst = card_criteria(fp32), 0, 0.0
    times: tuple[list[float], list[float]] = ([], [])
    verdicts: Counter[str] = Counter()
    for number, sample in enumerate(samples):
        pairs = [_opened(model, sample) for model in (fp32, int8)]
        seen = [inspect_frame(image, detector, criteria) for image, detector in pairs]  # warms up
        said = [inspection.judgement.verdict for inspection in seen]
        if said == [Verdict.ERROR, Verdict.ERROR]:  # refused before the model was asked: says nothing of it
            continue
        verdicts[said[0].name] += 1
        flips += said[0] != said[1]
        worst = max(worst, score_difference(*seen))
        for turn in range(rounds):
            for side in (0, 1) if (number + turn) % 2 else (1, 0):
                times[side].append(_timed(*pairs[side], criteria))
    if not verdicts:
        raise UsageError(
            f"none of the {len(samples)} frames could be judged, so there is nothing to compare",
            fix="look at the reasons with `lineside predict`",
        )
    listed = ", ".join(f"{name} {count}" for name, count in sorted(verdicts.items()))
    medians = [float(np.median(side)) for side in times]
    return Comparison(verdicts.total(), listed, flips, worst, medians[0], medians[1], machine())


def _timed(image: Image, detector: AnyDetector, criteria: Criteria) -> float:
    began = time.perf_counter()
    inspect_frame(image, detector, criteria)
    return 1000 * (time.perf_counter() - began)


def score_difference(one: Inspection, other: Inspection) -> float:
    """Largest difference in the best score of a class, or of the part; a class that one side does not list scores 0."""
    classes = {found.defect_class for seen in (one, other) for found in seen.detections}
    best = [
        [ng_score(found for found in seen.detections if found.defect_class == name) for name in sorted(classes)]
        for seen in (one, other)
    ]
    return max((abs(a - b) for a, b in zip(*best, strict=True)), default=0.0)


def machine() -> str:
    """What the timings hold for: system, processor, cores and engine; no host name."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.system()} {_processor()}, {cores} cores, onnxruntime {onnxruntime.__version__} on the CPU"


def _processor() -> str:
    table = Path("/proc/cpuinfo")
    lines = table.read_text(encoding="utf-8").splitlines() if table.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def quantize_if_worth(source: Path, target: Path, dataset: Dataset, *, frames: int, rounds: int) -> Quantized:
    """Make an INT8 copy, compare it, keep it when it wins, and write the reason into the card of the file that is kept.

    When it does not win, no ``target`` is left and the note goes into the card of ``source``.  UsageError when
    ``source`` is INT8 already or the dataset cannot be divided.
    """
    model = load_model(source)
    if model.card.precision == "int8":
        raise UsageError(f"{source} is an INT8 model already", fix="give the float model it was made from")
    taught, new = sides(dataset, model.card)
    partial = target.with_name(target.name + ".partial")
    try:
        quantize(source, partial, feeds_of(model, drawn(taught, CALIBRATION_FRAMES)))
        copy = load_model(partial)
        result = compare(model, copy, drawn(new, frames), rounds=rounds)
        note = f"{result.note()}; compared on {dataset.name} {dataset.version[:12]}"
        if not result.wins:
            copy_with_card(source, source, model.card.model_copy(update={"precision_note": note}))
            return Quantized(None, result)
        write_card(partial, copy.card.model_copy(update={"precision_note": note}))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return Quantized(target, result)
