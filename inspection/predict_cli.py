"""`lineside predict`: judge images with a model file."""

import argparse
import json
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from inspection.errors import DriverMissing, UsageError
from inspection.heat_picture import Pictures
from inspection.model import load_model
from inspection.predict import Request, card_criteria, predict, requests_for


def add_verb(verbs: Any) -> None:
    """Add the verb to those of `lineside`."""
    judge = verbs.add_parser("predict", help="judge images with a model file")
    judge.add_argument("model", type=Path, metavar="MODEL")
    judge.add_argument("images", type=Path, nargs="*", metavar="IMAGES", help="files or folders")
    judge.add_argument("--data", type=Path, metavar="DATASET", help="judge the images of a dataset")
    judge.add_argument(
        "--golden", type=Path, metavar="FILE", help="golden template (default: NAME_temp beside NAME_test)"
    )
    judge.add_argument("-o", "--output", type=Path, metavar="FILE", help="JSON result (default: stdout)")
    judge.add_argument("--threshold", type=float, help="score from which a finding counts (default: the model's)")
    judge.add_argument(
        "--pictures", type=Path, metavar="FOLDER", help="draw the findings and the heat map of each image, as PNG"
    )
    judge.set_defaults(func=_predict)


def _predict(args: argparse.Namespace) -> int:
    if (args.data is None) == (not args.images):
        raise UsageError(
            "give either IMAGES or --data DATASET", fix="lineside predict MODEL IMAGES... [--golden FILE] -o FILE"
        )
    if args.threshold is not None and not 0 < args.threshold < 1:
        raise UsageError(f"--threshold is {args.threshold}", fix="give a score between 0 and 1")
    model = load_model(args.model)
    requests = _dataset_requests(args.data, args.golden) if args.data else requests_for(args.images, args.golden)
    pictures = Pictures(args.pictures, [request.image for request in requests]) if args.pictures else None
    criteria, rows = card_criteria(model, args.threshold), []
    for number, (request, prediction) in enumerate(zip(requests, predict(model, requests, criteria), strict=True), 1):
        rows.append(prediction.as_json())
        if pictures is not None:
            pictures.draw(request.image, prediction.inspection, min(rule.ng_score for rule in criteria.rules))
        if number % 100 == 0:
            print(f"{number} of {len(requests)} images", file=sys.stderr)
    text = json.dumps(rows, ensure_ascii=False, indent=0) + "\n"
    if args.output is None:
        print(text, end="")
    else:
        _write_text(args.output, text)
        counts = ", ".join(f"{name} {n}" for name, n in sorted(_counts(rows).items()))
        print(f"{len(rows)} images: {counts}; written to {args.output}")
    if pictures is not None:
        print(pictures.summary(), file=sys.stderr)
    return 0


def _write_text(path: Path, text: str) -> None:
    try:
        partial = path.with_name(path.name + ".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise UsageError(
            f"cannot write {path} ({error.strerror})", fix="choose a folder that exists and has space"
        ) from error


def _counts(rows: list[dict[str, object]]) -> dict[str, int]:
    verdicts = [str(row["verdict"]) for row in rows]
    return {name: verdicts.count(name) for name in set(verdicts)}


def _dataset_requests(path: Path, golden: Path | None) -> list[Request]:
    found = list(entry_points(group="lineside.datasets", name="open"))
    if not found:
        raise DriverMissing("the package `datasets` is not installed here", fix="give IMAGES instead of --data")
    return [Request(sample.image, golden or sample.golden) for sample in found[0].load()(path).samples]
