"""Trains the golden net for PCBs: from labelled pairs, from golden images alone, or from nothing."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from datasets.sample import Sample, load_grey
from datasets.synth.camera import CameraModel
from datasets.synth.defects import PCB_CLASSES, DefectStyle
from inspection.errors import RegistrationError, UsageError
from inspection.golden import GoldenTemplate, RegistrationLimits, lay_over, register
from inspection.images import IMAGE_SUFFIXES, is_golden
from inspection.model import file_sha256
from inspection.types import Box
from training.augment import frame_photometry
from training.config import TrainConfig
from training.graphs import GoldenGraph
from training.lessons.golden import GoldenLesson
from training.lessons.golden_crops import Image, Pair, Supply, draw_crop, load_pair
from training.train import train
from training.trainers import Job, Trained

PARITY_FRAMES = 32


def train_pcb(job: Job) -> Trained:
    """The golden-guided detector of the six PCB defects."""
    config = job.config
    missing = [sample.name for sample in job.taught + job.held_out if sample.golden is None]
    if missing:
        raise UsageError(
            f"{len(missing)} samples have no golden template, the first is {missing[0]!r}",
            fix="the PCB detector compares with a golden: import frames together with their goldens",
        )
    supply = make_supply(config, job.taught, job.false_calls)
    print(_announce(supply, job.held_out), file=sys.stderr)
    net, trained_s = train(config, GoldenLesson(supply, job.held_out))
    parts = ("real labelled frames", "defects injected into golden images", "defects injected into generated boards")
    shares = [(name, share) for name, share in zip(parts, supply.shares, strict=True) if share]
    return Trained(
        graph=GoldenGraph(net),
        task="detect",
        classes=supply.classes,
        channels=1,
        trainer="lineside golden net, trained from "
        + (f"{file_sha256(config.init)[:12]}" if config.init else "scratch"),
        licence="Apache-2.0",
        source=" + ".join(f"{name} ({100 * share:.0f} % of crops)" for name, share in shares),
        trained_s=trained_s,
        examples=tuple(_examples(supply)),
        golden_guided=True,
        copper="dark" if supply.dark_copper else "light",
        goldens=len(supply.goldens),
        labels_used=bool(supply.shares[0]),
        taught=job.taught,
    )


def make_supply(
    config: TrainConfig, taught: tuple[Sample, ...], false_calls: Mapping[str, tuple[Box, ...]] | None = None
) -> Supply:
    """Load what crops are cut from; the shares of real and generated crops follow from what there is.

    ``false_calls``: by the name of a sample, places that crops are cut around as if there were a defect.
    """
    classes = PCB_CLASSES
    pairs: tuple[Pair, ...] = ()
    goldens: tuple[Image, ...] = ()
    if config.goldens is not None:
        goldens, shares = tuple(map(load_grey, golden_files(config.goldens))), (0.0, 0.85, 0.15)
    elif taught:
        places = false_calls or {}
        loaded = tuple(replace(load_pair(s, classes), places=places.get(s.name, ())) for s in taught)
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


def golden_files(folder: Path) -> tuple[Path, ...]:
    """The golden images below a folder, or the one file that is given; UsageError when there is none."""
    if folder.is_file():
        return (folder,)
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    named = [path for path in files if is_golden(path)]  # a folder of pairs: take the goldens only
    if not files:
        raise UsageError(f"{folder} holds no golden image", fix=f"known suffixes: {', '.join(IMAGE_SUFFIXES)}")
    return tuple(named or files)


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


def _examples(supply: Supply) -> list[tuple[Image, Image | None]]:
    """Real frames where there are some, else generated crops."""
    if supply.pairs:
        step = max(1, len(supply.pairs) // PARITY_FRAMES)
        return [(pair.frame, pair.golden) for pair in supply.pairs[::step][:PARITY_FRAMES]]
    rng = np.random.default_rng(supply.seed)
    photometry = frame_photometry(supply.seed)
    crops = [draw_crop(supply, rng, photometry, []) for _ in range(PARITY_FRAMES)]
    return [(frame, golden) for frame, golden, _ in crops]
