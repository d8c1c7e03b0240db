"""How well a classifier learns from a few labelled parts: `python -m tools.few_labels DATASET --minutes 4 -o OUT`.

Draws a few good and a few defective parts from the train side of a split dataset, trains on them alone, and scores the
exported model on the whole val side; so for each seed.  No threshold is chosen on the val side: none of the drawn parts
is held out, and the trainer's own default counts.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.manifest import Dataset, open_dataset, write_dataset
from datasets.sample import Sample
from inspection.errors import InspectionError
from training.run import replace_samples


def draw(dataset: Dataset, count: int, seed: int) -> list[Sample]:
    """``count`` good and ``count`` defective samples of the train side, with the whole val side."""
    rng = np.random.default_rng(seed)
    chosen: list[Sample] = []
    for defective in (False, True):
        side = [s for s in dataset.samples if s.split == "train" and s.defective == defective]
        if len(side) < count:
            raise SystemExit(f"only {len(side)} of the {count} wanted parts on the train side")
        chosen += [side[int(row)] for row in rng.choice(len(side), count, replace=False)]
    return chosen


def run_draw(dataset: Dataset, options: argparse.Namespace, seed: int) -> dict[str, float]:
    """Train on one draw and score it; the run's folder is kept."""
    folder = options.output / f"draw{seed}"
    few = replace_samples(dataset, draw(dataset, options.count, seed))
    write_dataset(folder / "data", few)
    _lineside("train", "classify", "--data", folder / "data", "-o", folder / "run", "--minutes", options.minutes,
              "--seed", seed, *options.extra)  # fmt: skip
    report = folder / "val.json"
    _lineside("evaluate", folder / "run" / "model.onnx", options.dataset, "--split", "val", "--json", report)
    row = json.loads(report.read_text(encoding="utf-8"))
    right = row["accuracy"]["count"] / row["accuracy"]["of"]
    print(
        f"draw {seed}: accuracy {100 * right:.2f} % at threshold {row['accuracy']['threshold']:.3f}, AUROC {row['auroc']:.4f}, "
        f"{row['escape']['count']} of {row['escape']['of']} escapes, {row['overkill']['count']} of "
        f"{row['overkill']['of']} overkill",
        flush=True,
    )
    return {"accuracy": right, "auroc": row["auroc"]}


def _lineside(*arguments: object) -> None:
    command = [sys.executable, "-m", "inspection", *(str(argument) for argument in arguments)]
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="few_labels", description="Accuracy of classifiers from a few labelled parts."
    )
    parser.add_argument("dataset", type=Path, help="dataset split into train and val")
    parser.add_argument("--count", type=int, default=30, help="good parts, and as many defective ones (default: 30)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--minutes", type=float, default=4.0, help="training time of each draw")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument(
        "--extra", nargs=argparse.REMAINDER, default=[], help="further options of `lineside train classify`"
    )
    options = parser.parse_args(arguments)
    try:
        dataset = open_dataset(options.dataset)
        rows = [run_draw(dataset, options, seed) for seed in options.seeds]
    except InspectionError as error:
        print(error, file=sys.stderr)
        return 2
    for name in ("accuracy", "auroc"):
        values = np.array([row[name] for row in rows])
        print(f"{name}: mean {values.mean():.4f}, least {values.min():.4f}, of {len(values)} draws")
    return 0


if __name__ == "__main__":
    sys.exit(main())
