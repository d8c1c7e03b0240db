"""One training run from its config to the finished model.onnx."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from datasets.manifest import Dataset, open_dataset
from datasets.sample import Sample, load_grey
from datasets.synth.camera import CameraModel
from datasets.synth.defects import PCB_CLASSES, DefectStyle
from inspection.errors import RegistrationError, UsageError
from inspection.golden import GoldenTemplate, RegistrationLimits, lay_over, register
from inspection.images import IMAGE_SUFFIXES, is_golden
from inspection.model import Metric, ModelCard, TrainedOn, file_sha256, load_model
from training.augment import frame_photometry
from training.config import TrainConfig
from training.curves import draw_curves
from training.data import Image, Pair, Supply, draw_crop, load_pair
from training.evaluate import as_json, as_text, evaluate
from training.export import check_parity, current_commit, export_onnx, write_card
from training.train import train

START_THRESHOLD = 0.4
PARITY_FRAMES = 32


def run_training(config: TrainConfig) -> Path:
    """Train, measure on the held-out groups, export, compare the export with the net; returns model.onnx's path."""
    if (config.out / "checkpoint.pt").exists() and not config.resume:
        raise UsageError(
            f"{config.out} holds an earlier run", fix="choose a new folder with -o, or go on with --resume"
        )
    dataset = open_dataset(config.data) if config.data else None
    taught, held_out = _sides(dataset, config.hold_out)
    supply = make_supply(config, taught)
    print(_announce(supply, held_out), file=sys.stderr)
    net, trained_s = train(config, supply, held_out)
    path = config.out / "model.onnx"
    card = _card(config, supply, dataset, taught).model_copy(update={"trained_minutes": round(trained_s / 60, 1)})
    export_onnx(net, card, path)
    parity = check_parity(net, path, _parity_pairs(supply))
    card = card.model_copy(update={"parity": str(parity)})
    print(f"export: {parity}", file=sys.stderr)
    if held_out:
        assert dataset is not None
        write_card(path, card)
        card = _measured(path, card, dataset, held_out)
    elif config.threshold_of is not None:
        card = _with_borrowed_threshold(card, load_model(config.threshold_of).card)
    write_card(path, card)
    draw_curves(config.out)
    (config.out / "card.json").write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return path


def _sides(dataset: Dataset | None, hold_out: tuple[str, ...]) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Samples to learn from and samples to measure on.  Samples marked val or test are never learnt from."""
    if dataset is None:
        return (), ()
    groups = {sample.group for sample in dataset.samples}
    unknown = sorted(set(hold_out) - groups)
    if unknown:
        raise UsageError(f"no group is called {', '.join(unknown)}", fix=f"groups: {', '.join(sorted(groups))}")
    missing = [sample.name for sample in dataset.samples if sample.golden is None]
    if missing:
        raise UsageError(
            f"{len(missing)} samples have no golden template, the first is {missing[0]!r}",
            fix="the PCB detector compares with a golden: import frames together with their goldens",
        )
    held = tuple(s for s in dataset.samples if s.group in hold_out or (not hold_out and s.split == "val"))
    names = {s.name for s in held}
    taught = tuple(s for s in dataset.samples if s.name not in names and s.split not in ("test", "val"))
    if not taught:
        raise UsageError(
            "no sample is left to learn from", fix="hold out fewer groups, or check the splits of the dataset"
        )
    return taught, held


def make_supply(config: TrainConfig, taught: tuple[Sample, ...]) -> Supply:
    """Load what crops are cut from; the shares of real and generated crops follow from what there is."""
    classes = PCB_CLASSES
    pairs: tuple[Pair, ...] = ()
    goldens: tuple[Image, ...] = ()
    if config.goldens is not None:
        goldens, shares = _read_goldens(config.goldens), (0.0, 0.85, 0.15)
    elif taught:
        loaded = tuple(load_pair(sample, classes) for sample in taught)
        goldens = tuple(pair.golden for pair in loaded)
        pairs = tuple(_registered(pair) for pair in loaded)
        shares = (0.0, 0.9, 0.1) if config.ignore_labels else (0.7, 0.25, 0.05)
    else:
        shares = (0.0, 0.0, 1.0)
    if config.ignore_labels:
        pairs = tuple(replace(pair, labels=pair.labels[:0]) for pair in pairs)
    style = DefectStyle(box_margin_px=config.box_margin_px, box_jitter_px=min(2.0, config.box_margin_px / 3))
    binarise = 0.85 if not goldens or _mostly_two_levels(goldens) else 0.0
    return Supply(
        classes,
        pairs,
        goldens,
        shares,
        style,
        CameraModel(binarise=binarise),
        config.copper == "dark",
        config.crop_px,
        config.seed,
    )


def _registered(pair: Pair) -> Pair:
    """The pair with its golden laid over the frame, as the runtime will show it; unchanged where it does not fit."""
    try:
        matrix = register(pair.frame, GoldenTemplate(pair.golden), RegistrationLimits()).matrix
    except RegistrationError:
        return pair
    window = (0, 0, pair.frame.shape[1], pair.frame.shape[0])
    return replace(pair, golden=lay_over(pair.golden, pair.frame, matrix, window))


def _read_goldens(folder: Path) -> tuple[Image, ...]:
    if folder.is_file():
        return (load_grey(folder),)
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    named = [path for path in files if is_golden(path)]  # a folder of pairs: take the goldens only
    if not files:
        raise UsageError(f"{folder} holds no golden image", fix=f"known suffixes: {', '.join(IMAGE_SUFFIXES)}")
    return tuple(load_grey(path) for path in named or files)


def _mostly_two_levels(goldens: tuple[Image, ...]) -> bool:
    """Whether the goldens are binarised: nearly all pixels within 24 grey levels of black or white."""
    shares = [float(np.mean((golden < 24) | (golden > 231))) for golden in goldens[:: max(1, len(goldens) // 20)]]
    return float(np.median(shares)) > 0.95


def _announce(supply: Supply, held_out: tuple[Sample, ...]) -> str:
    labelled, injected, generated = (f"{100 * share:.0f} %" for share in supply.shares)
    return (
        f"{len(supply.pairs)} pairs, {len(supply.goldens)} goldens, {len(held_out)} held-out frames; crops: "
        f"{labelled} labelled, {injected} injected into goldens, {generated} generated boards"
    )


def _card(config: TrainConfig, supply: Supply, dataset: Dataset | None, taught: tuple[Sample, ...]) -> ModelCard:
    digests = {s.name: d for s, d in zip(dataset.samples, dataset.digests, strict=True)} if dataset else {}
    # Without labels the frames themselves are not learnt from, only their goldens.
    frames = () if config.ignore_labels else tuple(digests[s.name].image for s in taught)
    seen = sorted({h[:12] for h in (*frames, *(digests[s.name].golden for s in taught)) if h})
    parts = ("real labelled frames", "defects injected into golden images", "defects injected into generated boards")
    return ModelCard(
        name=config.out.name,
        task="detect",
        classes=supply.classes,
        golden_guided=True,
        tile_px=640,
        copper="dark" if supply.dark_copper else "light",
        threshold=START_THRESHOLD,
        threshold_from="nothing: the default of the trainer, not calibrated",
        trained_on=TrainedOn(
            source=" + ".join(
                f"{name} ({100 * share:.0f} % of crops)"
                for name, share in zip(parts, supply.shares, strict=True)
                if share
            ),
            dataset=dataset.name if dataset else (config.goldens.name if config.goldens else "none"),
            dataset_version=dataset.version if dataset else "",
            groups=tuple(sorted({sample.group for sample in taught})),
            held_out=config.hold_out,
            images_sha256=tuple(seen) if len(seen) <= 20000 else (),
            labelled_frames=len(supply.pairs) if supply.shares[0] else 0,
            goldens=len(supply.goldens),
        ),
        trainer="lineside golden net, trained from "
        + (f"{file_sha256(config.init)[:12]}" if config.init else "scratch"),
        trainer_licence="Apache-2.0",
        command=config.command,
        commit=current_commit(),
        seed=config.seed,
        trained_minutes=0.0,
    )


def _parity_pairs(supply: Supply) -> list[tuple[Image, Image]]:
    """Real frames where there are some, else generated crops."""
    if supply.pairs:
        step = max(1, len(supply.pairs) // PARITY_FRAMES)
        return [(pair.frame, pair.golden) for pair in supply.pairs[::step][:PARITY_FRAMES]]
    rng = np.random.default_rng(supply.seed)
    photometry = frame_photometry(supply.seed)
    crops = [draw_crop(supply, rng, photometry, []) for _ in range(PARITY_FRAMES)]
    return [(frame, golden) for frame, golden, _ in crops]


def _measured(path: Path, card: ModelCard, dataset: Dataset, held_out: tuple[Sample, ...]) -> ModelCard:
    """The card with the threshold that is best on the held-out groups, and the figures measured there."""
    model = load_model(path)
    digests = {s.name: d.image for s, d in zip(dataset.samples, dataset.digests, strict=True)}
    result = evaluate(model, held_out, [digests[s.name] for s in held_out], None)
    best = result.f_best()
    threshold = min(0.9, max(0.05, round(best.threshold, 3)))
    groups = ", ".join(sorted({s.group for s in held_out}))
    where = f"held-out groups {groups} of {dataset.name}"
    report = as_json(result, model, where)
    (path.parent / "held_out.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(as_text(report), file=sys.stderr)
    figures = [(key, report[key]) for key in ("map_33", "map_50", "map_50_95")] + [("f_33", best.f)]
    note = {"f_33": " (threshold chosen on these very images)"}
    metrics = tuple(
        Metric(name=name, value=round(value, 5), images=len(held_out), on=where + note.get(name, ""))
        for name, value in figures
    )
    return card.model_copy(update={"threshold": threshold, "threshold_from": where, "metrics": metrics})


def _with_borrowed_threshold(card: ModelCard, other: ModelCard) -> ModelCard:
    """Threshold and figures of a leave-groups-out run of the same recipe: this run held nothing out to choose on."""
    metrics = tuple(m.model_copy(update={"on": f"{m.on}, by the run that held them out"}) for m in other.metrics)
    source = f"{other.threshold_from}, by a run of the same recipe that held them out"
    return card.model_copy(update={"threshold": other.threshold, "threshold_from": source, "metrics": metrics})
