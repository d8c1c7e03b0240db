"""`lineside`: the one command.  Each verb parses, calls one library function, prints.

stdout is the result, stderr the log; exit code 0 ok, 1 NG or a gate not met, 2 usage or config, 3 device.
"""

import argparse
import json
import signal
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from inspection import log
from inspection.cameras_cli import add_verb as add_cameras
from inspection.config import load_station
from inspection.errors import (
    CameraError,
    ControllerError,
    DriverMissing,
    GateNotMet,
    InspectionError,
    StoreError,
    UsageError,
)
from inspection.heat_picture import Pictures
from inspection.hmi_cli import add_verbs as add_hmi
from inspection.model import load_model
from inspection.predict import Request, card_criteria, predict, requests_for
from inspection.recipe_cli import add_recipe

EXTRA_OF_VERB = dict.fromkeys(("train", "retrain", "evaluate", "calibrate", "quantize", "export"), "train")


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    log.set_up()
    parser = argparse.ArgumentParser(prog="lineside", description="Visual inspection of PCB and casting lines.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_runtime_verbs(verbs)
    _add_other_verbs(verbs)
    try:
        args = parser.parse_args(arguments)
        code = _call(args)
        sys.stdout.flush()
    except InspectionError as error:
        print(error, file=sys.stderr)
        if isinstance(error, GateNotMet):
            return 1
        return 3 if isinstance(error, CameraError | ControllerError | DriverMissing | StoreError) else 2
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        sys.stderr.close()
        return 0
    except OSError as error:
        name = error.filename or "a file"
        print(
            f"cannot use {name} ({error.strerror or error})\ncheck the path, its permissions and the free space",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("stopped by the user", file=sys.stderr)
        return 130
    return code


def _call(args: argparse.Namespace) -> int:
    """Run the verb; a package that an extra brings is asked for by the name of that extra."""
    try:
        return int(args.func(args))
    except ModuleNotFoundError as error:
        extra = EXTRA_OF_VERB.get(args.verb)
        if extra is None:
            raise
        raise DriverMissing(
            f"`lineside {args.verb}` needs the package {error.name!r}, which is not installed",
            fix=f'pip install "lineside[{extra}]" (in a checkout: pip install -e ".[{extra}]")',
        ) from error


def _add_runtime_verbs(verbs: Any) -> None:
    run = verbs.add_parser("run", help="run a station until it is told to stop")
    run.add_argument("config", type=Path, metavar="STATION.toml")
    run.set_defaults(func=_run)
    check = verbs.add_parser("check", help="check a station config and its recipe; opens no device")
    check.add_argument("config", type=Path, metavar="STATION.toml")
    check.set_defaults(func=_check)
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
    add_recipe(verbs)
    add_cameras(verbs)
    add_hmi(verbs)


def _add_other_verbs(verbs: Any) -> None:
    """Verbs of packages above this one, found by entry point so that the runtime need not import them."""
    for entry in sorted(entry_points(group="lineside.verbs"), key=lambda entry: entry.name):
        entry.load()(verbs)


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


def _run(args: argparse.Namespace) -> int:
    from inspection.station import Station

    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda signum, _: stopped.append(signum))
    station = Station(load_station(args.config))
    try:
        station.open()
        station.run(lambda: bool(stopped) or getattr(station.controller, "finished", False))
    finally:
        station.close()
    return 0


def _check(args: argparse.Namespace) -> int:
    from inspection.recipe import run_selftest
    from inspection.shelf import prepare_recipe

    config = load_station(args.config)
    loaded = prepare_recipe(config, Path(config.recipe))
    tests = run_selftest(loaded)
    print(f"station {config.station_id}: config ok, recipe {loaded.recipe_id} sealed {loaded.sha256[:12]}")
    models = ", ".join(dict.fromkeys(view.model.card.name for view in loaded.views.values()))
    print(f"model {models}, {len(loaded.classes)} classes; {tests} self-test frames as sealed")
    return 0
