"""The training of `lineside retrain`: on from the weights in a recipe's own model file, to an exported model."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from datasets.manifest import Dataset
from datasets.sample import Sample
from inspection.images import read_grey, read_image
from inspection.model import LoadedModel, ModelCard, Provider, TrainedOn
from inspection.recipe_config import GOLDEN_WITH_FRAME
from inspection.types import Box, Verdict
from inspection.view import View
from training.by_recipe import judge_all
from training.config import TrainConfig
from training.evaluate import Evaluation
from training.export import check_parity, current_commit, export_onnx, write_card
from training.sides import Sides
from training.start import Image, Start, open_start
from training.trainers import Job, Trained, open_trainer

RUN = "run"  # folder of the training in that of the retraining
LEARNING_RATE = 1e-3  # of nets that know their product already: a third of what they learnt it with
PARITY_FRAMES = 16
NEW_SHARE, MOST_SHOWN = 0.3, 10  # of what the champion judges wrongly among what is learnt from
MOST_IMAGES_NAMED = 20_000  # in a card


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for.  Exactly one of ``minutes`` and ``epochs`` (4,000 crops) ends the training.

    ``mm_per_px`` (by role), ``threads`` and ``provider`` are those of the station; ``deadline_ms``: 0 for the recipe's,
    which is the most.
    """

    recipe: Path
    dataset: Path
    out: Path
    holdout: Path | None = None
    escapes: Path | None = None
    view: str = ""
    minutes: float | None = None
    epochs: float | None = None
    seed: int = 1
    key: Ed25519PrivateKey | None = None
    deadline_ms: int = 0
    mm_per_px: Mapping[str, float] = field(default_factory=dict)
    threads: int = 0
    provider: Provider = "cpu"
    learning_rate: float = LEARNING_RATE
    batch: int = 16
    crop_px: int = 320
    workers: int = 2
    command: str = ""


def fine_tune(asked: Asked, view: View, sides: Sides) -> Path:
    """Train on from the champion's weights; returns the exported model, which judges as the net does."""
    run = asked.out / RUN
    run.mkdir(exist_ok=True)
    (run / "start.partial").unlink(missing_ok=True)
    frames = _frames(view, [*sides.holdout.samples, *sides.taught.samples][:PARITY_FRAMES])
    start = open_start(view.model.path, frames)
    print(f"weights taken from the recipe's model: {start.parity}", file=sys.stderr)
    torch.save({"average": start.net.state_dict()}, run / "start.partial")
    (run / "start.partial").replace(run / "start.pt")
    config = _config(asked, start, run, view.model.card)
    torch.manual_seed(asked.seed)
    held_out = sides.calibration.samples if sides.calibration else ()
    classes = _classes(view.model.card, [*sides.taught.samples, *held_out])
    judged = judge_all(view, sides.taught.samples, "what is new")
    shown = emphasised(judged)
    trained = open_trainer("lineside", start.product)(
        Job(config, classes, _with_goldens(view, shown), _with_goldens(view, held_out), false_calls(judged))
    )
    path = run / "model.onnx"
    card = _card(asked, view.model, trained, sides.taught)
    export_onnx(trained.graph, card, path)
    parity = check_parity(trained.graph, path, frames)
    print(f"export: {parity}", file=sys.stderr)
    write_card(path, card.model_copy(update={"parity": str(parity)}))
    return path


def emphasised(taught: Evaluation) -> list[Sample]:
    """The samples to learn from, those that the champion does not judge rightly several times: they are what is new, and
    would be lost among parts it knows.  Together they are shown as often as ``NEW_SHARE`` of all, each at most
    ``MOST_SHOWN`` times as often as another."""
    right = {True: Verdict.NG, False: Verdict.OK}
    wrong = [case.sample for case in taught.cases if case.verdict != right[case.sample.defective]]
    known = len(taught.cases) - len(wrong)
    times = round(NEW_SHARE * known / ((1 - NEW_SHARE) * len(wrong))) if wrong else 1
    times = min(MOST_SHOWN, max(1, times))
    print(
        f"the recipe judges {len(wrong)} of them otherwise than a person: shown {times} times as often", file=sys.stderr
    )
    return [case.sample for case in taught.cases] + wrong * (times - 1)


def false_calls(taught: Evaluation) -> dict[str, tuple[Box, ...]]:
    """By the name of a sample, what the champion counted where a person marked nothing."""
    found: dict[str, tuple[Box, ...]] = {}
    for case in taught.cases:
        if case.sample.defective and not case.sample.labels:
            continue  # nobody said where its defect is
        counted = [hit for reason in case.prediction.inspection.judgement.reasons for hit in reason.detections]
        marked = [label.box_px for label in case.sample.labels]
        boxes = tuple(
            hit.region.xyxy_px for hit in counted if not any(_meet(hit.region.xyxy_px, box) for box in marked)
        )
        if boxes:
            found[case.sample.name] = boxes
    return found


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _classes(card: ModelCard, samples: Sequence[Sample]) -> tuple[str, ...]:
    """The classes that the trainer is told of: an anomaly model has none of its own, and takes labels as they come."""
    if card.task != "anomaly":
        return card.classes
    return tuple(sorted({name for sample in samples for name in sample.defect_classes}))


def _config(asked: Asked, start: Start, run: Path, card: ModelCard) -> TrainConfig:
    return TrainConfig(
        out=run,
        product=start.product,
        data=asked.dataset,
        minutes=asked.minutes,
        epochs=asked.epochs,
        seed=asked.seed,
        resume=(run / "checkpoint.pt").is_file(),
        init=run / "start.pt",
        command=asked.command,
        copper=card.copper or "dark",
        crop_px=asked.crop_px,
        batch=asked.batch,
        learning_rate=asked.learning_rate,
        workers=asked.workers,
        shape=start.shape,
    )


def _frames(view: View, samples: Sequence[Sample]) -> list[tuple[Image, Image | None]]:
    """Pictures to compare net and file on, each with its golden where the model compares with one."""
    guided, frames = view.model.card.golden_guided, []
    for sample in _with_goldens(view, samples):
        if not guided:
            frames.append((read_image(sample.image), None))
        elif sample.golden is not None:
            frames.append((read_image(sample.image), read_grey(sample.golden)))
    return frames


def _with_goldens(view: View, samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """The samples with the recipe's golden, which is what the net will compare with."""
    if not view.section.golden or view.section.golden == GOLDEN_WITH_FRAME:
        return tuple(samples)
    golden = view.model.path.parent / view.section.golden
    return tuple(replace(sample, golden=golden) for sample in samples)


def _card(asked: Asked, old: LoadedModel, trained: Trained, taught: Dataset) -> ModelCard:
    before = old.card.trained_on
    # A list of the new pictures alone would say that no other was learnt from.
    unlisted = not before.images_sha256 and before.labelled_frames + before.goldens > 0
    seen = {*before.images_sha256, *(digest.image[:12] for digest in taught.digests)}
    groups = {*before.groups, *(sample.group for sample in taught.samples)}
    source = before.source.removeprefix("retrained; first ")
    return old.card.model_copy(
        update={
            "trained_on": TrainedOn(
                source=f"retrained; first {source}",
                dataset=taught.name,
                dataset_version=taught.version,
                groups=tuple(sorted(groups)) if len(groups) <= 200 else (),
                images_sha256=tuple(sorted(seen)) if len(seen) <= MOST_IMAGES_NAMED and not unlisted else (),
                labelled_frames=len(taught.samples),
                goldens=trained.goldens,
            ),
            "trainer": f"{trained.trainer.split(',')[0]}, retrained from model {old.sha256[:12]}",
            "command": asked.command,
            "commit": current_commit(),
            "seed": asked.seed,
            "trained_minutes": round(trained.trained_s / 60, 1),
            "metrics": (),  # those of the model before; the comparison beside this file tells of this one
        }
    )
