"""`lineside train`, `evaluate`, `calibrate`, `quantize` and `export`.  torch is imported only when a verb runs."""

import argparse
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from inspection.errors import UsageError

DEFAULT_MINUTES = 30.0
LEARNING_RATE = {"classify": 4e-3, "anomaly": 4e-3}
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
    parser.add_argument(
        "--device", default="cpu", choices=("cpu", "cuda"),
        help="several GPUs: start with torchrun --nproc-per-node N -m inspection train ...; --trainer ultralytics starts "
        "a process for each GPU by itself (CUDA_VISIBLE_DEVICES says which)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hold-out", nargs="*", default=[], metavar="GROUP", help="groups to measure on, not to learn")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint of an interrupted run")
    parser.add_argument(
        "--init", type=Path, metavar="CHECKPOINT", help="start from the weights of another run; YOLO: a .pt"
    )
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
        parser.add_argument("--input-px", type=int, default=224, help="side of the net's input (default: 224)")
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
    from training.train import is_first_process

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
        input_px=given.get("input_px", 224),
        batch=args.batch,
        learning_rate=given.get("learning_rate", LEARNING_RATE.get(args.product, 3e-3)),
        command=shlex.join(["lineside", *sys.argv[1:]]),
    )
    path = run_training(config)
    if is_first_process():
        print(path)
    return 0


def add_evaluate(verbs: Any) -> None:
    """Add `lineside evaluate`."""
    parser = verbs.add_parser("evaluate", help="score a model file on labelled images, on the runtime's own path")
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("dataset", type=Path, metavar="DATASET")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report for people, one page with pictures")
    parser.add_argument("--split", choices=("train", "val", "test"), help="only this split (default: every sample)")
    parser.add_argument("--groups", nargs="*", default=[], metavar="GROUP", help="only these groups")
    parser.add_argument("--threshold", type=float, help="score from which a finding counts (default: the model's)")
    parser.add_argument(
        "--allow-leak", action="store_true", help="score images that are, or look like, training images, and say so"
    )
    parser.set_defaults(func=_evaluate)


def _evaluate(args: argparse.Namespace) -> int:
    from datasets.look_alikes import leaks
    from datasets.manifest import open_dataset
    from inspection.model import load_model
    from training.evaluate import as_json, as_text, evaluate

    if args.html:
        from training.report.page import write_report  # what it needs is missed now, not after the evaluation

        if not args.html.parent.is_dir():
            raise UsageError(
                f"there is no folder {args.html.parent}", fix="make the folder, or check the path of --html"
            )
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
    leak = leaks(dataset, [sample.name for sample, _ in chosen], model.card.trained_on.images_sha256)
    if leak and not args.allow_leak:
        names = ", ".join((leak.identical + leak.look_alike)[:5])
        print(f"no figure is given: {leak.statement()} (for example {names})", file=sys.stderr)
        print("divide the data with `lineside data split`, or say --allow-leak to score all the same", file=sys.stderr)
        return 1
    result = evaluate(model, [sample for sample, _ in chosen], [digest for _, digest in chosen], args.threshold)
    report = as_json(result, model, f"{dataset.name} {dataset.version[:12]}") | {"leak": leak.statement()}
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if args.html:
        notes = _notes(args, dataset.origin.importer, len(dataset.samples))
        write_report(args.html, result, report, leak=leak, notes=notes)
    print(as_text(report))
    print(f"copies   {leak.statement()}")
    return 0


def _notes(args: argparse.Namespace, importer: str, samples: int) -> list[tuple[str, str]]:
    """What the report says of the dataset beside its figures: where it came from and which part was judged."""
    chosen = [f"split {args.split}"] if args.split else []
    chosen += [f"groups {', '.join(args.groups)}"] if args.groups else []
    source = "generated, no photographs" if importer == "synth" else f"labelled images, read as {importer}"
    return [
        ("origin", source),
        ("part of the dataset", f"{'; '.join(chosen) or 'all of it'} ({samples} images in all)"),
    ]


def add_calibrate(verbs: Any) -> None:
    """Add `lineside calibrate`."""
    text = "choose the limits of a model so that they keep an escape rate"
    parser = verbs.add_parser("calibrate", help=text, description=text)
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("dataset", type=Path, metavar="DATASET")
    parser.add_argument("--split", choices=("train", "val", "test", "all"), default="val", help="(default: val)")
    parser.add_argument("--groups", nargs="*", default=[], metavar="GROUP", help="only these groups")
    parser.add_argument(
        "--escape-rate", type=float, required=True, metavar="SHARE", help="0.05: 5 %% of defective parts"
    )
    parser.add_argument("--confidence", type=float, default=0.95, metavar="SHARE", help="of each claim (default: 0.95)")
    parser.add_argument(
        "--overkill-rate", type=float, metavar="SHARE", help="of good parts; what lies between is reviewed"
    )
    parser.add_argument("--cost-escape", type=float, metavar="COST", help="of one escape, instead of an overkill rate")
    parser.add_argument(
        "--cost-overkill", type=float, metavar="COST", help="of one good part rejected, in the same unit"
    )
    parser.add_argument(
        "--defect-rate", type=float, metavar="SHARE", help="defective parts on the line, to weigh costs with"
    )
    parser.add_argument(
        "--review-rate", type=float, metavar="SHARE", help="most of the good parts that may go to review"
    )
    parser.add_argument(
        "--count", choices=("groups", "parts"), default="groups", help="what is independent (default: groups)"
    )
    parser.add_argument("--allow-seen", action="store_true", help="use samples seen in training, and claim nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("-o", "--output", type=Path, metavar="OUT.onnx", help="new file with the limits in its card")
    target.add_argument("--in-place", action="store_true", help="write the limits into MODEL itself")
    parser.set_defaults(func=_calibrate)


def _calibrate(args: argparse.Namespace) -> int:
    from datasets.manifest import open_dataset
    from inspection.model import load_model
    from training.calibrate import as_text, calibrate, copy_with_card, pick
    from training.promise import Wish

    if (args.cost_escape is None) != (args.cost_overkill is None):
        raise UsageError("one cost alone weighs nothing", fix="give both --cost-escape and --cost-overkill")
    wish = Wish(
        escape_rate=args.escape_rate,
        confidence=args.confidence,
        overkill_rate=args.overkill_rate,
        costs=None if args.cost_escape is None else (args.cost_escape, args.cost_overkill),
        defect_rate=args.defect_rate,
        review_rate=args.review_rate,
        count=args.count,
    )
    _refuse_existing(args.output)
    model, dataset = load_model(args.model), open_dataset(args.dataset)
    samples, digests = pick(dataset, split=args.split, groups=args.groups, card=model.card, allow_seen=args.allow_seen)
    made = calibrate(model, samples, digests, wish, dataset, args.split)
    copy_with_card(args.model, args.output or args.model, made.card)
    if args.json:
        args.json.write_text(json.dumps(made.report, indent=1) + "\n", encoding="utf-8")
    print(as_text(made))
    return 0 if made.kept else 1


def _refuse_existing(path: Path | None) -> None:
    if path is not None and path.exists():
        raise UsageError(f"{path} exists already", fix="choose a new file with -o; none is overwritten")


def add_quantize(verbs: Any) -> None:
    """Add `lineside quantize`."""
    text = "make an INT8 copy of a model, kept only when it is faster here and flips no verdict"
    parser = verbs.add_parser("quantize", help=text, description=f"{text}; else the reason goes into MODEL's card")
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="split train calibrates, split val compares")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.onnx", help="the INT8 file")
    parser.add_argument(
        "--frames", type=int, default=200, metavar="N", help="frames to compare on, at most (default: 200)"
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="times each frame is judged (default: 3)")
    parser.set_defaults(func=_quantize)


def _quantize(args: argparse.Namespace) -> int:
    from datasets.manifest import open_dataset
    from training.quantize import quantize_if_worth

    if args.frames < 1 or args.rounds < 1:
        raise UsageError("there is nothing to compare", fix="give --frames and --rounds of 1 or more")
    _refuse_existing(args.output)
    made = quantize_if_worth(
        args.model, args.output, open_dataset(args.dataset), frames=args.frames, rounds=args.rounds
    )
    print(made.comparison.note())
    return 0 if made.path else 1


def add_export(verbs: Any) -> None:
    """Add `lineside export`."""
    text = "make a model file from a net of YOLO or torchvision that was trained elsewhere"
    parser = verbs.add_parser(
        "export",
        help=text,
        description=f"{text}.  It is compared with the net on the dataset (samples marked val, or all) and refused when a "
        "verdict differs.  Reading a .pt of YOLO runs code that is in it: take only files you trust.  A run of "
        "`lineside train` has its model.onnx; once more: the same command with --resume.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help=".pt of YOLO, or a torchvision state_dict")
    parser.add_argument("--trainer", required=True, choices=("ultralytics", "torchvision"))
    parser.add_argument("--task", required=True, choices=("detect", "classify"))
    parser.add_argument("--data", type=Path, required=True, metavar="DATASET", help="frames to compare on")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.onnx", help="new file")
    parser.add_argument("--arch", default="", metavar="NAME", help="torchvision: fcos_resnet50_fpn, resnet18 ...")
    parser.add_argument("--classes", default="", metavar="A,B,C", help="torchvision: classes in the order of the net")
    parser.add_argument("--good", default="", metavar="NAME", help="classify: which class stands for good parts")
    parser.add_argument("--input-px", type=int, metavar="PX", help="side that images were resized to in training")
    parser.set_defaults(func=_export)


def _export(args: argparse.Namespace) -> int:
    from training.wrap import Request, wrap

    _refuse_existing(args.output)
    request = Request(
        checkpoint=args.checkpoint,
        trainer=args.trainer,
        task=args.task,
        data=args.data,
        output=args.output,
        arch=args.arch,
        classes=tuple(name.strip() for name in args.classes.split(",") if name.strip()),
        good=args.good,
        input_px=args.input_px,
        command=shlex.join(["lineside", *sys.argv[1:]]),
    )
    print(wrap(request))
    return 0
