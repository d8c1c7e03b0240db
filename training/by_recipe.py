"""Labelled parts judged by a recipe, exactly as a station does: its registration, regions, rules and limits."""

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets.manifest import Dataset
from datasets.sample import Sample
from inspection.detector import Image, StageClock
from inspection.errors import InspectionError, UsageError
from inspection.images import read_grey, read_image, to_grey
from inspection.inspect_frame import Inspection, error_verdict
from inspection.judge import Rule
from inspection.predict import PREDICT_FLOOR, Prediction
from inspection.recipe import LoadedRecipe, frames_of, read_selftests
from inspection.recipe_config import GOLDEN_WITH_FRAME
from inspection.types import Frame, Verdict
from inspection.view import View
from training.evaluate import Case, Evaluation

FEWEST_TIMED = 50  # parts that the latency is measured on; where there are fewer, some are judged again
_CPU_FILE = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from the frames of all ``cameras`` to the verdict, over so many parts, and the computer it was on."""

    median_ms: float
    p99_ms: float
    parts: int
    computer: str
    cameras: int = 1


def judge_all(view: View, samples: Sequence[Sample], what: str) -> Evaluation:
    """Each sample with what the recipe says of it; a file that cannot be read is an ERROR with its reason.

    ``what``: the name of the parts in the progress bar.  The golden of a sample counts only where the recipe says that
    frames bring their own.
    """
    bar = tqdm(samples, desc=what, unit="part")
    return Evaluation(view.model.card, tuple(_judged(view, sample) for sample in bar), view.criteria.rules, 0)


def _judged(view: View, sample: Sample) -> Case:
    frame, ms = None, 0.0
    try:
        frame = load_frame(view, sample)
        clock = StageClock()
        seen = view.inspect(*frame)
        clock.lap("all")
        ms = clock.total()
    except InspectionError as error:
        seen = Inspection(error_verdict(error), (), ())
    return Case(sample, Prediction(sample.image.name, seen, ms), unread=frame is None)


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


def frames_beside(recipe: LoadedRecipe, role: str) -> list[dict[str, Frame]]:
    """What the other cameras see of a part while frames of camera ``role`` are timed; never empty.

    Frames of the self-tests, or else the goldens, that are judged and not refused: a refusal takes less time.  UsageError when
    the recipe has none of a camera.
    """
    tests = read_selftests(recipe.folder, recipe.cameras)
    found = {
        other: list(_judgeable(other, view, [test.frames[other] for test in tests]))
        for other, view in recipe.views.items()
        if other != role
    }
    missing = [other for other, frames in found.items() if not frames]
    if missing:
        raise UsageError(
            f"recipe {recipe.recipe_id} holds no frame of camera {', '.join(missing)} that can be judged, so how long a whole "
            "part takes cannot be measured",
            fix="make the recipe with frames of good parts of all its cameras: `lineside recipe new ... --selftest`",
        )
    most = max(map(len, found.values()), default=1)
    return [{other: frames[n % len(frames)] for other, frames in found.items()} for n in range(most)]


def _judgeable(role: str, view: View, paths: Sequence[Path]) -> Iterator[Frame]:
    images = [read_image(path) for path in paths]
    if not images and view.golden is not None:
        images = [view.golden.image]
    for image in images:
        golden = to_grey(image) if view.section.golden == GOLDEN_WITH_FRAME else None
        if view.inspect(image, golden).judgement.verdict != Verdict.ERROR:
            yield frames_of({role: image}, golden)[role]


def measure_latency(recipe: LoadedRecipe, role: str, dataset: Dataset) -> Latency:
    """How long the whole recipe takes here for a part, after it was warmed up; some parts are judged several times.

    The frames of camera ``role`` are those of the dataset, those beside them are of ``frames_beside``.
    """
    beside, cameras = frames_beside(recipe, role), len(recipe.cameras)
    step = max(1, len(dataset.samples) // FEWEST_TIMED)
    parts: list[dict[str, Frame]] = []
    for sample in dataset.samples[::step][:FEWEST_TIMED]:
        try:
            image, golden = load_frame(recipe.views[role], sample)
        except InspectionError:  # such a part was judged ERROR; there is nothing to time
            continue
        parts.append({**beside[len(parts) % len(beside)], **frames_of({role: image}, golden)})
    if not parts:
        return Latency(float("inf"), float("inf"), 0, computer(), cameras)
    recipe.warm_up()
    for part in parts[:3]:
        recipe.inspect(part)
    rounds = -(-FEWEST_TIMED // len(parts))
    times = [_timed(recipe, part) for _ in range(rounds) for part in parts]
    return Latency(float(np.median(times)), float(np.percentile(times, 99)), len(times), computer(), cameras)


def _timed(recipe: LoadedRecipe, part: Mapping[str, Frame]) -> float:
    clock = StageClock()
    recipe.inspect(part)
    clock.lap("all")
    return clock.total()


def computer() -> str:
    """This computer in words: processor, cores, system."""
    name = platform.processor() or platform.machine()
    if _CPU_FILE.is_file():
        lines = _CPU_FILE.read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores, {platform.system()}"
