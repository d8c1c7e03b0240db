"""Labelled parts judged by a recipe, exactly as a station does: its registration, regions, rules and limits."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets.manifest import Dataset
from datasets.sample import Sample
from inspection.detector import Image, StageClock
from inspection.errors import InspectionError
from inspection.images import read_grey, read_image
from inspection.inspect_frame import Inspection, error_verdict
from inspection.judge import Rule
from inspection.predict import PREDICT_FLOOR, Prediction
from inspection.recipe_config import GOLDEN_WITH_FRAME
from inspection.view import View
from training.evaluate import Case, Evaluation

FEWEST_TIMED = 50  # frames that the latency is measured on; where there are fewer, some are judged again
_CPU_FILE = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from frame to verdict, over so many frames, and the computer they were measured on."""

    median_ms: float
    p99_ms: float
    frames: int
    computer: str


def judge_all(view: View, samples: Sequence[Sample], what: str) -> Evaluation:
    """Each sample with what the recipe says of it; a file that cannot be read is an ERROR with its reason.

    ``what``: the name of the parts in the progress bar.  The golden of a sample counts only where the recipe says that
    frames bring their own.
    """
    bar = tqdm(samples, desc=what, unit="part")
    return Evaluation(view.model.card, tuple(_judged(view, sample) for sample in bar), view.criteria.rules, 0)


def _judged(view: View, sample: Sample) -> Case:
    try:
        image, golden = load_frame(view, sample)
        clock = StageClock()
        seen = view.inspect(image, golden)
        clock.lap("all")
        ms = clock.total()
    except InspectionError as error:
        seen, ms = Inspection(error_verdict(error), (), ()), 0.0
    return Case(sample, Prediction(sample.image.name, seen, ms))


def load_frame(view: View, sample: Sample) -> tuple[Image, Image | None]:
    """The picture of a sample, and its golden where the recipe asks for it."""
    brings = view.section.golden == GOLDEN_WITH_FRAME and sample.golden is not None
    return read_image(sample.image), read_grey(sample.golden) if brings and sample.golden else None


def keep_low_scores(view: View) -> None:
    """List findings far below the limits too, so that others can be chosen."""
    view.criteria = replace(view.criteria, floor=min(PREDICT_FLOOR, view.criteria.floor))


def set_rules(view: View, rules: Sequence[Rule]) -> None:
    """Judge by other rules from now on."""
    view.criteria = replace(view.criteria, rules=tuple(rules))


def measure_latency(view: View, dataset: Dataset) -> Latency:
    """How long the recipe takes for a frame here, after it was warmed up; some frames are judged several times."""
    step = max(1, len(dataset.samples) // FEWEST_TIMED)
    frames = []
    for sample in dataset.samples[::step][:FEWEST_TIMED]:
        try:
            frames.append(load_frame(view, sample))
        except InspectionError:  # such a part was judged ERROR; there is nothing to time
            continue
    if not frames:
        return Latency(float("inf"), float("inf"), 0, computer())
    view.warm_up()
    for image, golden in frames[:3]:
        view.inspect(image, golden)
    rounds = -(-FEWEST_TIMED // len(frames))
    times = [_timed(view, image, golden) for _ in range(rounds) for image, golden in frames]
    return Latency(float(np.median(times)), float(np.percentile(times, 99)), len(times), computer())


def _timed(view: View, image: Image, golden: Image | None) -> float:
    clock = StageClock()
    view.inspect(image, golden)
    clock.lap("all")
    return clock.total()


def computer() -> str:
    """This computer in words: processor, cores, system."""
    name = platform.processor() or platform.machine()
    if _CPU_FILE.is_file():
        lines = _CPU_FILE.read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores, {platform.system()}"
