"""`lineside retrain`.  torch is imported only when the verb runs."""

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from inspection.config import load_station
from inspection.errors import UsageError
from inspection.signing_keys import read_private_key

DEFAULT_MINUTES = 10.0


def add_retrain(verbs: Any) -> None:
    """Add `lineside retrain`."""
    text = "train a recipe's model on with new labelled parts, and compare the result with the recipe in force"
    parser = verbs.add_parser(
        "retrain",
        help=text,
        description=f"{text}.  OUT/recipe is the new version, sealed, with comparison.html in it; `lineside recipe promote` "
        "puts it in force.  Exit code 1: a gate does not hold.  Run again with the same words after it was ended, it goes on.",
    )
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="folder of the sealed recipe")
    parser.add_argument(
        "--with", type=Path, required=True, metavar="DATASET", dest="dataset",
        help="labelled parts; those marked test or val are not learnt from",
    )  # fmt: skip
    parser.add_argument(
        "--holdout", type=Path, metavar="DATASET",
        help="good and defective parts to compare on, never learnt from (default: those of DATASET marked test or val, or "
        "drawn groups)",
    )  # fmt: skip
    parser.add_argument(
        "--escapes", type=Path, metavar="DATASET",
        help="earlier escapes, none of which may pass again (those that DATASET and the holdout list are always among them)",
    )  # fmt: skip
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, help=f"training time (default: {DEFAULT_MINUTES:g})")
    length.add_argument("--epochs", type=float, help="passes of 4,000 crops")
    parser.add_argument("--seed", type=int, default=1, help="of drawn groups and of the crops (default: 1)")
    parser.add_argument("--view", default="", metavar="ROLE", help="whose model, where the recipe has several cameras")
    parser.add_argument(
        "--station", type=Path, metavar="STATION.toml", help="judge with its threads, provider and scale_mm_per_px"
    )
    parser.add_argument(
        "--deadline-ms", type=int, default=0, metavar="N",
        help="latency allowed for a part with all its cameras (default, and the most: the recipe's deadline)",
    )  # fmt: skip
    parser.add_argument("--key", type=Path, metavar="FILE", help="private key to sign the new version with")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="new folder")
    parser.set_defaults(func=_retrain)


def _retrain(args: argparse.Namespace) -> int:
    for name, value in (("--minutes", args.minutes), ("--epochs", args.epochs)):
        if value is not None and not 0 < value < 100_000:
            raise UsageError(f"{name} is {value}", fix="give a training time above 0")
    if args.deadline_ms < 0:
        raise UsageError(f"--deadline-ms is {args.deadline_ms}", fix="give milliseconds above 0")
    key = None if args.key is None else read_private_key(args.key)
    # Threads that wait at a barrier must not spin: beside any other program they would starve each other.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import cv2

    # Before the first picture is read: a thread pool of OpenCV's does not survive the fork of the loader's workers.
    cv2.setNumThreads(1)
    from training.retrain import Asked, as_text, retrain

    station = None if args.station is None else load_station(args.station)
    outcome = retrain(
        Asked(
            recipe=args.recipe,
            dataset=args.dataset,
            out=args.output,
            holdout=args.holdout,
            escapes=args.escapes,
            view=args.view,
            minutes=args.minutes if args.minutes or args.epochs else DEFAULT_MINUTES,
            epochs=args.epochs,
            seed=args.seed,
            key=key,
            deadline_ms=args.deadline_ms,
            mm_per_px=station.scale_mm_per_px if station else {},
            threads=station.threads if station else 0,
            provider=station.provider if station else "cpu",
            command=shlex.join(["lineside", *sys.argv[1:]]),
        )
    )
    print(as_text(outcome))
    return 0 if outcome.held else 1
