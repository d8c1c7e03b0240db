"""Trainers side by side by cross validation: `python -m tools.cross_validate FOLDS --trainers lineside ultralytics -o OUT`.

FOLDS is what `lineside data split --folds K` wrote.  Each trainer gets the same minutes on each fold.  Reported are the
average precisions of the findings of all folds pooled (every sample is on the val side once), and the mean of the folds.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.manifest import load_dataset
from inspection.model import load_model
from training.evaluate import Evaluation, evaluate
from training.metrics import Scored, average_precision


def judged(fold: Path, run: Path, trainer: str, options: argparse.Namespace) -> Evaluation:
    """Train on one fold unless its run is there already, and score the val side through the runtime's path."""
    if not (run / "model.onnx").exists():
        extra = options.extra if trainer == "lineside" else []
        command = [sys.executable, "-m", "inspection", "train", "detect", "--data", fold, "-o", run]
        command += ["--trainer", trainer, "--minutes", options.minutes, "--seed", options.seed, *extra]
        text = [str(word) for word in command]
        done = subprocess.run(text, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(f"{shlex.join(text)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    dataset = load_dataset(fold)
    chosen = [(s, d.image) for s, d in zip(dataset.samples, dataset.digests, strict=True) if s.split == "val"]
    return evaluate(load_model(run / "model.onnx"), [s for s, _ in chosen], [d for _, d in chosen], None)


def table(results: Sequence[Evaluation]) -> dict[str, float]:
    """AP@0.5 of each class and their mean, pooled over the folds; the mean of the folds; milliseconds."""
    classes = results[0].card.classes
    pooled: list[Scored] = [image for result in results for image in result.images]
    rows = {name: average_precision(pooled, label, 0.5) for label, name in enumerate(classes)}
    ms = [case.prediction.ms for result in results for case in result.cases]
    return {
        **rows,
        "mAP50 pooled": float(np.nanmean(list(rows.values()))),
        "mAP50 mean of folds": float(np.mean([result.map_at((0.5,)) for result in results])),
        "mAP33 mean of folds": float(np.mean([result.map_at((0.33,)) for result in results])),
        "ms median": float(np.median(ms)),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="cross_validate", description="Trainers side by side by cross validation.")
    parser.add_argument("folds", type=Path, help="folder with fold1, fold2, ..")
    parser.add_argument("--trainers", nargs="+", default=["lineside"])
    parser.add_argument("--minutes", type=float, default=5.0, help="training time of each fold")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--extra", nargs=argparse.REMAINDER, default=[], help="further options of our own trainer")
    options = parser.parse_args(arguments)
    folds = sorted(path for path in options.folds.iterdir() if (path / "dataset.json").exists())
    if not folds:
        print(f"{options.folds} holds no fold; make them with `lineside data split --folds`", file=sys.stderr)
        return 2
    found: dict[str, list[Evaluation]] = {trainer: [] for trainer in options.trainers}
    for fold in folds:
        for trainer in options.trainers:
            found[trainer].append(judged(fold, options.output / f"{trainer}-{fold.name}", trainer, options))
            print(f"{fold.name} {trainer}: mAP50 {100 * found[trainer][-1].map_at((0.5,)):.2f}", flush=True)
    tables = {trainer: table(results) for trainer, results in found.items()}
    for name in next(iter(tables.values())):
        scale = 1 if name.startswith("ms") else 100
        print(f"{name:<24}" + "".join(f"{trainer} {scale * rows[name]:8.2f}   " for trainer, rows in tables.items()))
    (options.output / "table.json").write_text(json.dumps(tables, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
