"""One training run from its config to the finished model.onnx, whoever trains."""

import io
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, redirect_stderr
from dataclasses import replace
from pathlib import Path

import torch

from datasets.manifest import Dataset, open_dataset
from datasets.sample import Sample, load_grey
from datasets.split import choose_holdout
from inspection.errors import UsageError
from inspection.images import read_image
from inspection.judge import Rule
from inspection.model import LoadedModel, Metric, ModelCard, TrainedOn, file_sha256, load_model
from training.config import TrainConfig
from training.curves import draw_curves
from training.evaluate import Evaluation, as_json, as_text, evaluate
from training.export import check_parity, current_commit, export_onnx, write_card
from training.metrics import balanced_threshold, middle_threshold
from training.train import is_first_process
from training.trainers import Image, Job, Trained, open_trainer
from training.trainers.pcb import golden_files

START_THRESHOLD = 0.4
TAUGHT_LOOKED_AT = 400  # parts a first threshold is taken from where nothing is held out
ANOMALY_HELD_OUT = 1 / 6  # share of the good parts that the threshold is chosen on, where nothing else is held out


def run_training(config: TrainConfig) -> Path:
    """Train, measure on the held-out samples, export, compare the export with the net; returns model.onnx's path."""
    if (config.out / "checkpoint.pt").exists() and not config.resume:
        raise UsageError(
            f"{config.out} holds an earlier run", fix="choose a new folder with -o, or go on with --resume"
        )
    dataset = open_dataset(config.data) if config.data else None
    trainer = open_trainer(config.trainer, config.product)
    torch.manual_seed(config.seed)  # of the initial weights; the loop seeds what each process draws
    taught, held_out = _sides(dataset, config)
    with nullcontext() if is_first_process() else redirect_stderr(io.StringIO()):  # each would say the same
        made = trainer(Job(config, _occurring(dataset), taught, held_out))
    path = config.out / "model.onnx"
    if is_first_process():
        _finish(config, made, dataset, held_out, path)
    return path


def _occurring(dataset: Dataset | None) -> tuple[str, ...]:
    """The classes of the dataset that any sample shows; one that none shows cannot be learnt, and that is said."""
    if dataset is None:
        return ()
    shown = {name for sample in dataset.samples for name in sample.defect_classes}
    unseen = [name for name in dataset.classes if name not in shown]
    if unseen:
        print(f"no sample shows {', '.join(unseen)}: the model will not know it", file=sys.stderr)
    return tuple(name for name in dataset.classes if name in shown)


def _finish(
    config: TrainConfig, made: Trained, dataset: Dataset | None, held_out: tuple[Sample, ...], path: Path
) -> None:
    card = _card(config, made, dataset)
    export_onnx(made.graph, card, path)
    parity = check_parity(made.graph, path, _frames(held_out, made) if held_out else made.examples)
    card = card.model_copy(update={"parity": str(parity)})
    print(f"export: {parity}", file=sys.stderr)
    if held_out:
        assert dataset is not None
        write_card(path, card)
        card, report = measured(path, card, dataset, held_out, f"{_held_out_name(held_out)} of {dataset.name}")
        (config.out / "held_out.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    elif made.task == "classify" and dataset is not None and config.threshold_of is None:
        write_card(path, card)
        card = _from_taught(path, card, made.taught)
    elif config.threshold_of is not None:
        card = _with_borrowed_threshold(card, load_model(config.threshold_of).card)
    write_card(path, card)
    draw_curves(config.out)
    (config.out / "card.json").write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _frames(samples: Sequence[Sample], made: Trained) -> Iterator[tuple[Image, Image | None]]:
    for sample in samples:
        golden = load_grey(sample.golden) if made.golden_guided and sample.golden else None
        yield read_image(sample.image), golden


def _sides(dataset: Dataset | None, config: TrainConfig) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Samples to learn from and samples to measure on.  Samples marked val or test are never learnt from."""
    if dataset is None:
        if config.product != "pcb":
            raise UsageError(
                f"`lineside train {config.product}` needs --data", fix="give a dataset or a folder in a known layout"
            )
        return (), ()
    hold_out = config.hold_out or _drawn(dataset, config)
    unknown = sorted(set(hold_out) - {sample.group for sample in dataset.samples})
    if unknown:
        groups = sorted({sample.group for sample in dataset.samples})
        raise UsageError(f"no group is called {', '.join(unknown)}", fix=f"groups: {', '.join(groups[:40])}")
    held = tuple(s for s in dataset.samples if s.group in hold_out or (not hold_out and s.split == "val"))
    names = {s.name for s in held}
    taught = tuple(s for s in dataset.samples if s.name not in names and s.split not in ("test", "val"))
    if not taught:
        raise UsageError(
            "no sample is left to learn from", fix="hold out fewer groups, or check the splits of the dataset"
        )
    return taught, held


def _drawn(dataset: Dataset, config: TrainConfig) -> tuple[str, ...]:
    """An anomaly model has no threshold without good parts that it has not seen: some are held out for it."""
    divided = any(sample.split == "val" for sample in dataset.samples)
    if config.product != "anomaly" or divided or len({sample.group for sample in dataset.samples}) < 2:
        return ()
    learnt = replace_samples(dataset, [s for s in dataset.samples if s.split != "test"])
    return choose_holdout(learnt, ANOMALY_HELD_OUT, seed=config.seed)


def replace_samples(dataset: Dataset, samples: Sequence[Sample]) -> Dataset:
    """The dataset with these of its samples alone."""
    digests = {sample.name: digest for sample, digest in zip(dataset.samples, dataset.digests, strict=True)}
    return replace(dataset, samples=tuple(samples), digests=tuple(digests[s.name] for s in samples))


def _card(config: TrainConfig, made: Trained, dataset: Dataset | None) -> ModelCard:
    digests = {s.name: d for s, d in zip(dataset.samples, dataset.digests, strict=True)} if dataset else {}
    # Without labels the frames themselves are not learnt from, only their goldens.
    frames = tuple(digests[s.name].image for s in made.taught) if not config.ignore_labels else ()
    goldens = tuple(digests[s.name].golden for s in made.taught) if made.golden_guided else ()
    given = tuple(map(file_sha256, golden_files(config.goldens))) if config.goldens else ()
    seen = sorted({digest[:12] for digest in frames + goldens + given if digest})
    return ModelCard(
        name=config.out.name,
        task=made.task,
        classes=made.classes,
        golden_guided=made.golden_guided,
        channels=made.channels,
        tile_px=made.tile_px,
        copper=made.copper,
        threshold=START_THRESHOLD,
        threshold_from="nothing: the default of the trainer, not calibrated",
        images=made.images,
        trained_on=TrainedOn(
            source=made.source,
            dataset=dataset.name if dataset else (config.goldens.name if config.goldens else "none"),
            dataset_version=dataset.version if dataset else "",
            groups=_listed({sample.group for sample in made.taught}),
            held_out=config.hold_out,
            images_sha256=tuple(seen) if len(seen) <= 20000 else (),
            labelled_frames=len(made.taught) if made.labels_used else 0,
            goldens=made.goldens,
        ),
        trainer=made.trainer,
        trainer_licence=made.licence,
        command=config.command,
        commit=current_commit(),
        seed=config.seed,
        trained_minutes=round(made.trained_s / 60, 1),
    )


def _listed(groups: set[str]) -> tuple[str, ...]:
    """The groups, unless nearly every sample is a group of its own: then their names say nothing."""
    return tuple(sorted(groups)) if len(groups) <= 200 else ()


def measured(
    path: Path, card: ModelCard, dataset: Dataset, held_out: tuple[Sample, ...], where: str
) -> tuple[ModelCard, dict[str, object]]:
    """The card with the threshold that is best on some samples of the dataset, and the report of what was measured there.

    ``where``: what the samples are, for the card.
    """
    model = load_model(path)
    digests = {s.name: d.image for s, d in zip(dataset.samples, dataset.digests, strict=True)}
    result = evaluate(model, held_out, [digests[s.name] for s in held_out], None)
    threshold, chosen = _threshold(result, model)
    # Judged again by its own threshold, so that the report tells what the model will do.
    model.card = card.model_copy(update={"threshold": threshold, "threshold_from": f"{chosen} {where}"})
    result = replace(result, card=model.card).judged_by([Rule(name, threshold, threshold) for name in card.classes])
    report = as_json(result, model, where)
    print(as_text(report), file=sys.stderr)
    return model.card.model_copy(update={"metrics": tuple(_metrics(report, where, len(held_out)))}), report


def _from_taught(path: Path, card: ModelCard, taught: tuple[Sample, ...]) -> ModelCard:
    """A threshold between the parts that were learnt from: their defective ones score too well, so it is a first guess."""
    step = max(1, len(taught) // TAUGHT_LOOKED_AT)
    result = evaluate(load_model(path), taught[::step], [], None)
    threshold = balanced_threshold(*result.part_scores())
    source = f"{len(result.cases)} parts that were learnt from: nothing was held out, not calibrated"
    return card.model_copy(update={"threshold": threshold, "threshold_from": source})


def _held_out_name(held_out: tuple[Sample, ...]) -> str:
    groups = sorted({sample.group for sample in held_out})
    return f"held-out groups {', '.join(groups)}" if len(groups) <= 12 else f"{len(groups)} held-out groups"


def _threshold(result: Evaluation, model: LoadedModel) -> tuple[float, str]:
    """A first threshold, and what it was chosen on; `lineside calibrate` makes one with a promise."""
    scores, defective = result.part_scores()
    if model.card.task == "detect":
        return min(0.9, max(0.05, round(result.f_best().threshold, 3))), "F-score on"
    if model.card.task == "anomaly":  # defective parts must not have a say: a plant that has none gets the same
        scores, defective = scores[~defective], defective[~defective]
        return middle_threshold(scores, defective), "good parts alone of"
    return middle_threshold(scores, defective), "fewest wrong parts on"


def _metrics(report: dict[str, object], where: str, images: int) -> Iterator[Metric]:
    for name in ("map_33", "map_50", "map_50_95", "auroc"):
        value = report.get(name)
        if isinstance(value, float) and value == value:
            yield Metric(name=name, value=round(value, 5), images=images, on=where)
    best = report.get("f_score_best_here")
    if isinstance(best, dict):
        note = f"{where} (threshold chosen on these very images)"
        yield Metric(name="f_33", value=round(best["f"], 5), images=images, on=note)


def _with_borrowed_threshold(card: ModelCard, other: ModelCard) -> ModelCard:
    """Threshold and figures of a leave-groups-out run of the same recipe: this run held nothing out to choose on."""
    metrics = tuple(m.model_copy(update={"on": f"{m.on}, by the run that held them out"}) for m in other.metrics)
    source = f"{other.threshold_from}, by a run of the same recipe that held them out"
    return card.model_copy(update={"threshold": other.threshold, "threshold_from": source, "metrics": metrics})
