"""`lineside train` and `lineside evaluate`.  torch is imported only when a verb runs."""

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from inspection.errors import UsageError


def add_train(verbs: Any) -> None:
    """Add `lineside train`."""
    products = verbs.add_parser("train", help="train a detector").add_subparsers(
        dest="product", required=True, metavar="PRODUCT"
    )
    pcb = products.add_parser("pcb", help="golden-guided detector for the six PCB defects")
    source = pcb.add_mutually_exclusive_group()
    source.add_argument("--data", type=Path, metavar="DATASET", help="labelled frames with their goldens")
    source.add_argument(
        "--golden", type=Path, metavar="FOLDER", help="golden images alone: defects are injected into them"
    )
    pcb.add_argument("-o", "--output", type=Path, required=True, metavar="RUN", help="folder of the run")
    length = pcb.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, help="training time (default: 30)")
    length.add_argument("--epochs", type=float, help="passes of 4,000 crops")
    pcb.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    pcb.add_argument("--seed", type=int, default=1)
    pcb.add_argument(
        "--hold-out", nargs="*", default=[], metavar="GROUP", help="board groups to measure on, not to learn"
    )
    pcb.add_argument("--ignore-labels", action="store_true", help="use only the goldens of --data")
    pcb.add_argument("--resume", action="store_true", help="go on from the checkpoint of an interrupted run")
    pcb.add_argument("--init", type=Path, metavar="CHECKPOINT", help="start from the weights of another run")
    pcb.add_argument("--threshold-of", type=Path, metavar="MODEL", help="take over the threshold of a held-out run")
    pcb.add_argument("--copper", default="dark", choices=("dark", "light"), help="how copper looks in the images")
    pcb.add_argument("--box-margin", type=float, default=11.0, metavar="PX", help="looseness of injected boxes")
    pcb.add_argument("--batch", type=int, default=16, help="crops a step")
    pcb.add_argument("--learning-rate", type=float, default=3e-3, help="largest step of the optimiser")
    pcb.set_defaults(func=_train)


def _train(args: argparse.Namespace) -> int:
    if (args.minutes is not None and args.minutes <= 0) or (args.epochs is not None and args.epochs <= 0):
        raise UsageError("the training time must be positive", fix="give --minutes or --epochs above 0")
    import cv2
    import torch

    # Before the first picture is read: a thread pool of OpenCV's does not survive the fork of the loader's workers.
    cv2.setNumThreads(1)
    from training.config import TrainConfig
    from training.run import run_training

    if args.device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "this computer has no CUDA device that torch can use", fix="leave --device out to train on the CPU"
        )
    config = TrainConfig(
        out=args.output,
        data=args.data,
        goldens=args.golden,
        minutes=args.minutes if args.minutes or args.epochs else 30.0,
        epochs=args.epochs,
        device=args.device,
        seed=args.seed,
        hold_out=tuple(args.hold_out),
        resume=args.resume,
        init=args.init,
        threshold_of=args.threshold_of,
        ignore_labels=args.ignore_labels,
        copper=args.copper,
        box_margin_px=args.box_margin,
        batch=args.batch,
        learning_rate=args.learning_rate,
        command=shlex.join(["lineside", *sys.argv[1:]]),
    )
    print(run_training(config))
    return 0


def add_evaluate(verbs: Any) -> None:
    """Add `lineside evaluate`."""
    parser = verbs.add_parser("evaluate", help="score a model file on labelled images, on the runtime's own path")
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("dataset", type=Path, metavar="DATASET")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON")
    parser.add_argument("--split", choices=("train", "val", "test"), help="only this split (default: every sample)")
    parser.add_argument("--groups", nargs="*", default=[], metavar="GROUP", help="only these groups")
    parser.add_argument("--threshold", type=float, help="score from which a finding counts (default: the model's)")
    parser.set_defaults(func=_evaluate)


def _evaluate(args: argparse.Namespace) -> int:
    from datasets.manifest import open_dataset
    from inspection.model import load_model
    from training.evaluate import as_json, as_text, evaluate

    model, dataset = load_model(args.model), open_dataset(args.dataset)
    chosen = [
        (sample, digest.image)
        for sample, digest in zip(dataset.samples, dataset.digests, strict=True)
        if (args.split is None or sample.split == args.split) and (not args.groups or sample.group in args.groups)
    ]
    if not chosen:
        raise UsageError(
            "no sample of the dataset was chosen", fix="check --split and --groups with `lineside data check`"
        )
    strange = sorted({label.defect_class for sample, _ in chosen for label in sample.labels} - set(model.card.classes))
    if strange:
        raise UsageError(
            f"the model does not know the classes {', '.join(strange)}", fix=f"it knows {', '.join(model.card.classes)}"
        )
    result = evaluate(model, [sample for sample, _ in chosen], [digest for _, digest in chosen], args.threshold)
    report = as_json(result, model, f"{dataset.name} {dataset.version[:12]}")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(as_text(report))
    return 0
