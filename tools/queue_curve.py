"""Does the queue teach?  `python -m tools.queue_curve DEEPPCB -o OUT --picture queue_curve.png`.

A model is trained on some board groups.  Each of the other groups is scored in turn, and the rest of them are the pool:
in each round the first images of the relabelling queue, or as many at random, get their labels from the ground truth,
and the model of the round before is trained on, as many steps in every arm, with new and old samples in about half of
the labelled crops each.  A third arm goes on without new labels.  So no model is scored on a group that it was trained
on or chose from.  What is finished is kept: called again, the tool goes on.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import torch

from datasets.manifest import Dataset, open_dataset, write_dataset
from datasets.relabel.looks import Look, looks_of
from datasets.relabel.queue import rank
from datasets.sample import Sample
from inspection.errors import InspectionError, UsageError
from inspection.images import write_whole
from inspection.model import load_model
from inspection.predict import Prediction, Request, card_criteria, predict
from tools.queue_picture import draw, figures_of, table
from training.config import TrainConfig
from training.evaluate import IOU_DEEPPCB, Evaluation, evaluate
from training.metrics import match
from training.run import run_training
from training.train import EPOCH_CROPS

START = ("group44000", "group50600", "group77000", "group92000")  # the four smallest: most is left to choose from
BATCH, START_RATE = 16, 3e-3
Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """What is trained on first, how much is labelled in each round, and how long is trained.

    ``tested`` are the groups that are scored in turn, all others when it is empty; ``rate`` is the learning rate of the
    rounds.
    """

    dataset: Dataset
    start: tuple[str, ...]
    rounds: int
    top: int
    start_steps: int
    steps: int
    out: Path
    tested: tuple[str, ...] = ()
    rate: float = 3e-4

    @cached_property
    def samples(self) -> dict[str, Sample]:
        """Every sample by its name, in no split: who is taught is decided here."""
        return {s.name: replace(s, split="") for s in self.dataset.samples}

    @cached_property
    def others(self) -> tuple[str, ...]:
        """The groups that are not trained on at first."""
        return tuple(sorted({s.group for s in self.dataset.samples} - set(self.start)))

    def names(self, *groups: str) -> tuple[str, ...]:
        """Names of the samples of some groups."""
        return tuple(sorted(s.name for s in self.samples.values() if s.group in groups))

    def pool(self, tested: str) -> tuple[str, ...]:
        """What is chosen from while one group is scored."""
        return self.names(*(group for group in self.others if group != tested))

    @cached_property
    def looks(self) -> dict[str, Look]:
        """What all pictures look like."""
        return looks_of(self.samples.values())


def run_arm(trial: Trial, arm: str, tested: str, seed: int) -> list[Row]:
    """All rounds of "queue" or "random" with one group left out; gives the figures after each."""
    before, chosen, rows = trial.out / "start", tuple[str, ...](), []
    for number in range(1, trial.rounds + 1):
        run = trial.out / f"{tested}-{arm}-{seed}" / f"round{number}"
        chosen += picked(trial, arm, tested, seed, run, before, chosen)
        found = taught(trial, run, chosen, (tested,), before, seed=10 * seed + number)
        rows += [{"arm": arm, "seed": seed, "labels": len(chosen), **row} for row in found]
        before = run
    return rows


def run_without(trial: Trial, seed: int) -> list[Row]:
    """As many steps without any new label, scored on all other groups at once; counted where the labels would be."""
    before, rows = trial.out / "start", []
    for number in range(1, trial.rounds + 1):
        run = trial.out / f"none-{seed}" / f"round{number}"
        found = taught(trial, run, (), trial.others, before, seed=10 * seed + number)
        rows += [{"arm": "none", "seed": seed, "labels": number * trial.top, **row} for row in found]
        before = run
    return rows


def picked(
    trial: Trial, arm: str, tested: str, seed: int, run: Path, before: Path, chosen: Sequence[str]
) -> tuple[str, ...]:
    """The names this round labels; stored before anything is taught, so that a resumed run has the same."""
    file = run.with_suffix(".json")
    if not file.exists():
        if arm == "random":
            order: list[str] = np.random.default_rng(seed).permutation(trial.pool(tested)).tolist()
            names = [name for name in order if name not in chosen]
        else:
            names = _queue(trial, before / "model.onnx", trial.pool(tested), chosen)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(names[: trial.top]).encode())
    return tuple(json.loads(file.read_text(encoding="utf-8")))


def _queue(trial: Trial, model: Path, pool: Sequence[str], chosen: Sequence[str]) -> list[str]:
    known = [trial.samples[name] for name in (*trial.names(*trial.start), *chosen)]
    # The labels of the pool are taken away: the queue must not see the ground truth.
    waiting = [replace(trial.samples[name], labels=(), image_class="") for name in pool if name not in chosen]
    reviewed = {sample.name for sample in known}
    queue = rank(known + waiting, judged(model, waiting), reviewed=reviewed, looks=trial.looks)
    return [place.name for place in queue if place.name not in reviewed]


def judged(path: Path, samples: Sequence[Sample]) -> Mapping[str, Prediction]:
    """What a model says of the samples, by name."""
    model = load_model(path, threads=1)
    requests = [Request(sample.image, sample.golden) for sample in samples]
    found = predict(model, requests, card_criteria(model))
    return {sample.name: prediction for sample, prediction in zip(samples, found, strict=True)}


def taught(
    trial: Trial, run: Path, chosen: Sequence[str], groups: Sequence[str], before: Path | None, *, seed: int
) -> list[Row]:
    """Train one run unless that is done already, from the weights of the run before it; the figures on each group."""
    figures = run / "figures.json"
    if not figures.exists():
        if not (run / "model.onnx").exists():
            _train(trial, run, chosen, before, seed)
        model = load_model(run / "model.onnx", threads=1)
        rows = []
        for group in groups:
            result = evaluate(model, [trial.samples[name] for name in trial.names(group)], (), None)
            rows.append({"test": group, **scores(result)})
        write_whole(figures, json.dumps(rows).encode())
    found: list[Row] = json.loads(figures.read_text(encoding="utf-8"))
    for row in found:
        named = f"{row['test']} scored, {run.parent.name if before else 'all'} {run.name}, {len(chosen)} labelled"
        print(f"{named}: mAP@0.5 {100 * row['map_50']:.2f}", flush=True)
    return found


def _train(trial: Trial, run: Path, chosen: Sequence[str], before: Path | None, seed: int) -> None:
    first = trial.names(*trial.start)
    again = max(1, round(len(first) / len(chosen))) if chosen else 0
    rows = [trial.samples[name] for name in first]
    rows += [replace(trial.samples[name], name=f"{name} {turn}") for turn in range(again) for name in chosen]
    digests = {s.image: d for s, d in zip(trial.dataset.samples, trial.dataset.digests, strict=True)}
    part = replace(trial.dataset, samples=tuple(rows), digests=tuple(digests[sample.image] for sample in rows))
    folder = run.with_name(f"{run.name}-samples")
    shutil.rmtree(folder, ignore_errors=True)
    write_dataset(folder, part)
    run_training(
        TrainConfig(
            out=run,
            data=folder,
            epochs=(trial.steps if before else trial.start_steps) * BATCH / EPOCH_CROPS,
            batch=BATCH,
            seed=seed,
            init=before / "checkpoint.pt" if before else None,
            workers=1,
            learning_rate=trial.rate if before else START_RATE,
            resume=(run / "checkpoint.pt").exists(),
            command="tools.queue_curve",
        )
    )
    shutil.rmtree(folder)


def scores(result: Evaluation) -> Row:
    """Figures on one group, at the threshold of the card, which is the same in all runs and was not chosen on any."""
    f, parts = result.f_given(), result.parts()
    per_image = []
    for image in result.images:
        rows = [match(image, label, IOU_DEEPPCB) for label in range(len(result.card.classes))]
        hits = sum(int((hit & (score >= result.threshold)).sum()) for score, hit, _ in rows)
        shown = sum(int((score >= result.threshold).sum()) for score, _, _ in rows)
        per_image.append([hits, shown, sum(total for _, _, total in rows)])
    return {
        "map_50": result.map_at((0.5,)),
        "map_33": result.map_at((IOU_DEEPPCB,)),
        "threshold": result.threshold,
        "hits": f.hits,
        "false_calls": f.false_calls,
        "missed": f.missed,
        "escapes": parts.escapes,
        "defective": parts.defective,
        "errors": parts.errors,
        "per_image": per_image,
    }


def report(trial: Trial, rows: Sequence[Row], done: Mapping[int, Sequence[str]], picture: Path | None) -> None:
    """Print the table, and write OUT/queue_curve.json and the picture, of what is finished so far.

    ``done``: the groups each seed has finished.  Seeds that have not come as far as the first are left out.
    """
    groups = next(iter(done.values()))
    seeds = {seed for seed, finished in done.items() if len(finished) == len(groups)} | {0}
    rows = [row for row in rows if row["test"] in groups and row["seed"] in seeds]
    summary = {
        "dataset": [trial.dataset.name, trial.dataset.version],
        "start": {"groups": trial.start, "images": len(trial.names(*trial.start)), "steps": trial.start_steps},
        "tested": {group: {"images": len(trial.names(group)), "pool": len(trial.pool(group))} for group in groups},
        "top": trial.top,
        "steps": trial.steps,
        "learning_rate": trial.rate,
        "batch": BATCH,
        **figures_of(rows),
        "rows": rows,
    }
    write_whole(trial.out / "queue_curve.json", (json.dumps(summary, indent=1) + "\n").encode())
    print(table(summary), flush=True)
    drawn = draw(summary)
    for path in (trial.out / "queue_curve.png", picture):
        if path is not None:
            write_whole(path, drawn)


def _run(trial: Trial, seeds: Sequence[int], picture: Path | None) -> None:
    first = taught(trial, trial.out / "start", (), trial.others, None, seed=1)
    start: list[Row] = [{"arm": "start", "seed": 0, "labels": 0, **row} for row in first]
    rows: list[Row] = []
    done: dict[int, list[str]] = {}
    for seed in seeds:
        for tested in trial.tested or trial.others:
            for arm in ("queue", "random"):
                rows += run_arm(trial, arm, tested, seed)
            done.setdefault(seed, []).append(tested)
            report(trial, start + rows, done, picture)
        rows += run_without(trial, seed)
        report(trial, start + rows, done, picture)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="queue_curve", description="What the relabelling queue teaches.")
    parser.add_argument("dataset", type=Path, help="folder of DeepPCB, or a dataset of several groups with goldens")
    parser.add_argument("--start", nargs="+", default=START, metavar="GROUP", help="groups the first model learns")
    parser.add_argument(
        "--test", nargs="+", default=[], metavar="GROUP", help="score these in turn (default: all others)"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--top", type=int, default=50, help="images labelled in each round")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--start-steps", type=int, default=1000, help=f"steps of {BATCH} crops of the first model")
    parser.add_argument("--steps", type=int, default=100, help="steps in each round")
    # At 1e-3 and 60 steps the rounds differed by chance more than by what was labelled.
    parser.add_argument("--learning-rate", type=float, default=3e-4, help="largest step of the optimiser in each round")
    parser.add_argument("--picture", type=Path, help="where to put the picture as well")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        dataset, start = open_dataset(options.dataset), tuple(options.start)
        trial = Trial(
            dataset, start, options.rounds, options.top, options.start_steps, options.steps, options.output,
            tuple(options.test), options.learning_rate,
        )  # fmt: skip
        wanted = options.rounds * options.top
        unknown = set(trial.tested) - set(trial.others)
        if unknown or not trial.names(*start) or any(len(trial.pool(group)) < wanted for group in trial.others):
            groups = ", ".join(sorted({s.group for s in dataset.samples}))
            what = (
                f"beside {', '.join(start)} and the group that is scored there are not {wanted} images to choose from"
            )
            raise UsageError(what, fix=f"choose --start from {groups}, or fewer --rounds or --top")
        _run(trial, options.seeds, options.picture)
    except InspectionError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
