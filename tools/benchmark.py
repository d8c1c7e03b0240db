"""Speed of the runtime path, stage by stage, for every inference engine at hand, in one run on one machine.

    python -m tools.benchmark MODEL [--data DATASET | --boards N] [--pairs N] [--rounds N] [--large PX]

MODEL may be of any task; one that compares with a golden is timed on pairs.  Frames lie in memory; what is timed is the
path a station takes from frame to verdict.  The engines take turns round by round, so that a busy machine slows them
alike.  INT8 is made here from MODEL and calibrated on frames that are not
timed.  Ultralytics' own predict of an n-size model joins in when that package is installed.
"""

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.manifest import open_dataset
from datasets.sample import Sample, load_grey
from datasets.synth.boards import generate_pair
from datasets.synth.camera import CameraModel
from inspection.detector import as_batch
from inspection.errors import InspectionError, UsageError
from inspection.golden import GoldenTemplate, RegistrationLimits, lay_over, register
from inspection.images import read_image
from inspection.inspect_frame import inspect_frame, open_detector
from inspection.model import LoadedModel, ModelCard, load_model
from inspection.predict import card_criteria
from inspection.types import Verdict

Image = NDArray[np.uint8]
Pair = tuple[Image, Image | None]
CALIBRATION_PAIRS = 48


@dataclass
class Timings:
    """Milliseconds by stage, and the verdicts given."""

    stages: dict[str, list[float]] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)

    def add(self, stages: dict[str, float]) -> None:
        for name, ms in stages.items():
            self.stages.setdefault(name, []).append(ms)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("--data", type=Path, metavar="DATASET", help="real pairs instead of generated boards")
    parser.add_argument("--pairs", type=int, default=60, help="pairs to time")
    parser.add_argument("--rounds", type=int, default=3, help="times each pair is judged")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    timed, calibration = _pairs(args, load_model(args.model).card)
    templates = [None if golden is None else GoldenTemplate(golden) for _, golden in timed]
    with tempfile.TemporaryDirectory() as folder:
        engines = _engines(args.model, args.threads, calibration, Path(folder))
        results = _run(engines, timed, templates, args.rounds)
        print(
            f"{platform.processor() or platform.machine()}, {args.threads} threads, {len(timed)} frames x {args.rounds}"
        )
        _report(results)
        _report_throughput(args, calibration, Path(folder), timed, templates)
        _report_ultralytics(timed, args.rounds)
    return 0


def _pairs(args: argparse.Namespace, card: ModelCard) -> tuple[list[Pair], list[Pair]]:
    """Frames with their goldens (None for a model that needs none): those to time, and those to calibrate INT8 on."""
    wanted = args.pairs + CALIBRATION_PAIRS
    pairs: list[Pair]
    if args.data:
        samples = [s for s in open_dataset(args.data).samples if s.golden or not card.golden_guided]
        chosen = [samples[i] for i in np.random.default_rng(0).permutation(len(samples))[:wanted]]
        pairs = [(_frame(s, card), load_grey(s.golden) if s.golden and card.golden_guided else None) for s in chosen]
    elif not card.golden_guided:
        raise UsageError(
            f"model {card.name!r} compares with no golden: there is nothing to generate", fix="give --data"
        )
    else:
        rng = np.random.default_rng(0)
        made = [
            generate_pair(rng, None, defects=4, camera=CameraModel(shift_px=3, rotate_deg=0.2)) for _ in range(wanted)
        ]
        pairs = [(pair.frame, pair.golden) for pair in made]
    cut = max(1, min(CALIBRATION_PAIRS, len(pairs) // 2))
    return pairs[cut:], pairs[:cut]


def _frame(sample: Sample, card: ModelCard) -> Image:
    return load_grey(sample.image) if card.channels == 1 else read_image(sample.image)


def _engines(path: Path, threads: int, calibration: list[Pair], folder: Path) -> dict[str, LoadedModel]:
    engines = {"onnxruntime fp32": load_model(path, threads=threads)}
    makers: dict[str, Callable[[], LoadedModel]] = {
        "onnxruntime int8": lambda: load_model(_int8(path, calibration, folder), threads=threads),
        "openvino f32": lambda: load_model(path, threads=threads, provider="openvino"),
        "openvino int8": lambda: load_model(_int8(path, calibration, folder), threads=threads, provider="openvino"),
    }
    for name, make in makers.items():
        try:
            engines[name] = make()
        except (InspectionError, ModuleNotFoundError) as error:
            print(f"{name}: left out ({str(error).splitlines()[0]})", file=sys.stderr)
    return engines


def _int8(path: Path, calibration: list[Pair], folder: Path) -> Path:
    from training.quantize import quantize

    target = folder / "int8.onnx"
    if not target.exists():
        limits, feeds = RegistrationLimits(), []
        for frame, golden in calibration:
            feed = {"image": as_batch(frame)}
            if golden is not None:
                matrix = register(frame, GoldenTemplate(golden), limits).matrix
                feed["golden"] = as_batch(lay_over(golden, frame, matrix, (0, 0, frame.shape[1], frame.shape[0])))
            feeds.append(feed)
        quantize(path, target, feeds)
    return target


def _run(
    engines: dict[str, LoadedModel], pairs: list[Pair], templates: list[GoldenTemplate | None], rounds: int
) -> dict[str, Timings]:
    results = {name: Timings() for name in engines}
    limits = RegistrationLimits()
    for turn in range(rounds + 1):
        for name, model in engines.items():
            for (frame, _), template in zip(pairs, templates, strict=True):
                detector, criteria = open_detector(model, template, limits), card_criteria(model)
                began = time.perf_counter()
                seen = inspect_frame(frame, detector, criteria)
                total = 1000 * (time.perf_counter() - began)
                if turn:  # the first round warms up
                    results[name].add({**dict(seen.stage_ms), "total": total})
                else:
                    results[name].verdicts.append(seen.judgement.verdict)
    return results


def _report(results: dict[str, Timings]) -> None:
    names = list(next(iter(results.values())).stages)
    print(
        f"{'p50 / p99 ms':18s}"
        + "".join(f"{name:>16s}" for name in names)
        + f"{'frames/s':>9s}{'x fp32':>8s}{'flips':>7s}"
    )
    first = next(iter(results.values()))
    base = float(np.median(first.stages["total"]))
    for engine, timings in results.items():
        cells = [f"{np.median(v):.2f} / {np.percentile(v, 99):.2f}" for v in timings.stages.values()]
        median = float(np.median(timings.stages["total"]))
        flips = sum(a != b for a, b in zip(timings.verdicts, first.verdicts, strict=True))
        print(
            f"{engine:18s}" + "".join(f"{cell:>16s}" for cell in cells)
            + f"{1000 / median:9.1f}{base / median:8.2f}{flips:7d}"
        )  # fmt: skip


def _report_throughput(
    args: argparse.Namespace,
    calibration: list[Pair],
    folder: Path,
    pairs: list[Pair],
    templates: list[GoldenTemplate | None],
) -> None:
    """Pairs a second when each core judges frames of its own (one engine thread a worker), as two cameras would."""
    cv2.setNumThreads(1)
    workers = [_engines(args.model, 1, calibration, folder) for _ in range(args.threads)]
    limits = RegistrationLimits()

    def work(model: LoadedModel, number: int) -> None:
        criteria = card_criteria(model)
        for _ in range(args.rounds):
            for (frame, _golden), template in list(zip(pairs, templates, strict=True))[number :: args.threads]:
                inspect_frame(frame, open_detector(model, template, limits), criteria)

    print(f"throughput, {args.threads} workers of one thread each:")
    for name in workers[0]:
        with ThreadPoolExecutor(args.threads) as pool:
            began = time.perf_counter()
            for done in [pool.submit(work, models[name], number) for number, models in enumerate(workers)]:
                done.result()
            seconds = time.perf_counter() - began
        print(f"{name:18s}{args.rounds * len(pairs) / seconds:9.1f} frames/s")


def _report_ultralytics(pairs: list[Pair], rounds: int) -> None:
    """An n-size YOLO without trained weights: its time does not depend on what it has learnt."""
    from training.trainers.ultralytics_yolo import offline

    with tempfile.TemporaryDirectory() as folder:
        try:
            with offline(Path(folder)) as package:
                model = package.YOLO("yolo11n.yaml", verbose=False)
        except InspectionError:
            print("ultralytics: not installed here, left out", file=sys.stderr)
            return
    times = []
    for turn in range(rounds + 1):
        for frame, _ in pairs:
            colour = np.repeat(frame[:, :, None], 3, 2) if frame.ndim == 2 else frame
            began = time.perf_counter()
            model.predict(colour, imgsz=640, device="cpu", verbose=False)
            if turn:
                times.append(1000 * (time.perf_counter() - began))
    print(
        f"ultralytics predict, YOLO11n 640, torch: {np.median(times):.1f} / {np.percentile(times, 99):.1f} ms (no golden)"
    )


if __name__ == "__main__":
    sys.exit(main())
