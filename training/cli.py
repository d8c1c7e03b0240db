"""`lineside train` and `lineside evaluate`.  torch is imported only when a verb runs."""

import argparse
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from inspection.errors import UsageError

DEFAULT_MINUTES = 30.0
PRODUCTS = {
    "pcb": "golden-guided detector for the six PCB defects",
    "classify": "classifier with a heat map, from images labelled as a whole",
    "detect": "detector of defects on any part, from boxes or masks",
    "anomaly": "anomaly model with a heat map, from good parts alone",
}


def add_train(verbs: Any) -> None:
    """Add `lineside train`."""
    products = verbs.add_parser("train", help="train a model").add_subparsers(
        dest="product", required=True, metavar="PRODUCT"
    )
    for name, text in PRODUCTS.items():
        parser = products.add_parser(name, help=text, description=text)
        if name == "pcb":
            _add_pcb(parser)
        else:
            _add_part(parser, name)
        _add_run(parser)
        parser.set_defaults(func=_train)


def _add_run(parser: argparse.ArgumentParser) -> None:
    """What every training run can be asked."""
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="RUN", help="folder of the run")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, help="training time (default: 30)")
    length.add_argument("--epochs", type=float, help="passes of 4,000 crops; of a foreign trainer: through the data")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hold-out", nargs="*", default=[], metavar="GROUP", help="groups to measure on, not to learn")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint of an interrupted run")
    parser.add_argument("--init", type=Path, metavar="CHECKPOINT", help="start from the weights of another run")
    parser.add_argument("--threshold-of", type=Path, metavar="MODEL", help="take over the threshold of a held-out run")
    parser.add_argument("--batch", type=int, default=16, help="crops a step")
    parser.add_argument("--learning-rate", type=float, help="largest step of the optimiser (default: the trainer's)")


def _add_pcb(pcb: argparse.ArgumentParser) -> None:
    source = pcb.add_mutually_exclusive_group()
    source.add_argument("--data", type=Path, metavar="DATASET", help="labelled frames with their goldens")
    source.add_argument(
        "--golden", type=Path, metavar="FOLDER", help="golden images alone: defects are injected into them"
    )
    pcb.add_argument("--ignore-labels", action="store_true", help="use only the goldens of --data")
    pcb.add_argument("--copper", default="dark", choices=("dark", "light"), help="how copper looks in the images")
    pcb.add_argument("--box-margin", type=float, default=11.0, metavar="PX", help="looseness of injected boxes")


def _add_part(parser: argparse.ArgumentParser, product: str) -> None:
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DATASET", help="dataset, or a folder in a known layout"
    )
    parser.add_argument("--fixed", action="store_true", help="every part lies the same way: do not turn or mirror")
    if product != "anomaly":
        parser.add_argument(
            "--trainer", default="lineside", choices=("lineside", "torchvision", "ultralytics"),
            help="who teaches (default: lineside's own net, Apache-2.0; ultralytics is AGPL-3.0)",
        )  # fmt: skip
    if product != "detect":
        parser.add_argument("--input-px", type=int, default=256, help="side of the net's input (default: 256)")
    if product == "classify":
        parser.add_argument("--no-inject", action="store_true", help="inject no defects into good parts")


def _train(args: argparse.Namespace) -> int:
    if (args.minutes is not None and args.minutes <= 0) or (args.epochs is not None and args.epochs <= 0):
        raise UsageError("the training time must be positive", fix="give --minutes or --epochs above 0")
    # Threads that wait at a barrier must not spin: beside any other program they would starve each other.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
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
    given = {name: value for name, value in vars(args).items() if value is not None}
    config = TrainConfig(
        out=args.output,
        product=args.product,
        trainer=given.get("trainer", "lineside"),
        data=args.data,
        goldens=given.get("golden"),
        minutes=args.minutes if args.minutes or args.epochs else DEFAULT_MINUTES,
        epochs=args.epochs,
        device=args.device,
        seed=args.seed,
        hold_out=tuple(args.hold_out),
        resume=args.resume,
        init=args.init,
        threshold_of=args.threshold_of,
        ignore_labels=given.get("ignore_labels", False),
        copper=given.get("copper", "dark"),
        box_margin_px=given.get("box_margin", 11.0),
        fixed=given.get("fixed", False),
        inject=not given.get("no_inject", False),
        input_px=given.get("input_px", 256),
        batch=args.batch,
        learning_rate=given.get("learning_rate", 3e-3),
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
    strange = sorted({name for sample, _ in chosen for name in sample.defect_classes} - set(model.card.classes))
    if strange and model.card.task != "anomaly":
        raise UsageError(
            f"the model does not know the classes {', '.join(strange)}", fix=f"it knows {', '.join(model.card.classes)}"
        )
    result = evaluate(model, [sample for sample, _ in chosen], [digest for _, digest in chosen], args.threshold)
    report = as_json(result, model, f"{dataset.name} {dataset.version[:12]}")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(as_text(report))
    return 0
