"""`lineside`: the one command.  Each verb parses, calls one library function, prints.

stdout is the result, stderr the log; exit code 0 ok, 1 NG or a gate not met, 2 usage or config, 3 device.
"""

import argparse
import json
import shutil
import signal
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from inspection import log
from inspection.config import LEAST_SCORE, load_station
from inspection.errors import CameraError, ControllerError, DriverMissing, InspectionError, StoreError, UsageError
from inspection.heat_picture import Pictures
from inspection.images import read_image, write_png
from inspection.model import load_model
from inspection.predict import Request, card_criteria, predict, requests_for, rules_of

EXTRA_OF_VERB = dict.fromkeys(("train", "evaluate", "calibrate", "quantize", "export"), "train")


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
    _add_recipe(verbs)


def _add_recipe(verbs: Any) -> None:
    recipe = verbs.add_parser("recipe", help="make, seal and verify recipes").add_subparsers(
        dest="recipe_verb", required=True, metavar="VERB"
    )
    new = recipe.add_parser("new", help="make and seal a recipe from a model and a golden picture")
    new.add_argument("folder", type=Path, metavar="RECIPE")
    new.add_argument("--model", type=Path, required=True)
    new.add_argument("--golden", type=Path, help="golden picture of the product")
    new.add_argument("--id", default="", help="recipe id (default: the folder's name)")
    new.add_argument("--camera", default="top", help="role of the camera")
    new.add_argument(
        "--selftest", type=Path, nargs="*", default=[], metavar="IMAGE", help="frames to replay before Ready"
    )
    new.set_defaults(func=_recipe_new)
    for name, text in (("seal", "write the lock over every file"), ("verify", "compare every file with the lock")):
        verb = recipe.add_parser(name, help=text)
        verb.add_argument("folder", type=Path, metavar="RECIPE")
        verb.set_defaults(func=_recipe_seal if name == "seal" else _recipe_verify)


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
    from inspection.station import prepare_recipe

    config = load_station(args.config)
    loaded = prepare_recipe(config)
    tests = run_selftest(loaded)
    print(f"station {config.station_id}: config ok, recipe {loaded.recipe.recipe_id} sealed {loaded.sha256[:12]}")
    print(
        f"model {loaded.model.card.name}, {len(loaded.model.card.classes)} classes; {tests} self-test frames as sealed"
    )
    return 0


def _recipe_new(args: argparse.Namespace) -> int:
    from inspection.recipe import open_recipe, seal, write_selftests

    if args.folder.exists():
        raise UsageError(f"{args.folder} exists already", fix="choose a new folder; recipes are never overwritten")
    model = load_model(args.model)
    if model.card.golden_guided and args.golden is None:
        raise UsageError(f"model {model.card.name!r} compares with a golden template", fix="give --golden FILE")
    partial = args.folder.with_name(args.folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "selftest").mkdir(parents=True)
    try:
        shutil.copyfile(args.model, partial / "model.onnx")
        if args.golden is not None:
            write_png(partial / "golden.png", read_image(args.golden))
        frames = [partial / "selftest" / f"{path.stem}.png" for path in args.selftest]
        for source, frame in zip(args.selftest, frames, strict=True):
            write_png(frame, read_image(source))
        (partial / "recipe.toml").write_text(_recipe_text(args, model.card), encoding="utf-8")
        write_selftests(open_recipe(partial), frames)
        sealed = seal(partial)
        partial.rename(args.folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"{args.folder}: sealed {sealed}")
    return 0


def _recipe_text(args: argparse.Namespace, card: Any) -> str:
    lines = [
        f'recipe_id = "{args.id or args.folder.name}"',
        f'product = "{args.id or args.folder.name}"',
        f'camera = "{args.camera}"',
        'model = "model.onnx"',
        'golden = "golden.png"' if args.golden is not None else 'golden = "with-frame"' * card.golden_guided,
    ]
    if card.images is not None:
        lines += ["", "[quality]", *(f"{name} = {value:g}" for name, value in card.images.model_dump().items())]
    for rule in rules_of(card):
        lines += ["", "[[rules]]", f'defect_class = "{rule.defect_class}"', f"ng_score = {rule.ng_score:.4g}"]
        # Below the limit of a finding in a box a person looks; the score of a whole part has no such slope.
        review = rule.ng_score / 2 if card.task == "detect" and not card.limits else rule.review_score
        lines += [f"review_score = {max(review, LEAST_SCORE):.4g}"]
    return "\n".join(lines) + "\n"


def _recipe_seal(args: argparse.Namespace) -> int:
    from inspection.recipe import seal

    print(f"{args.folder}: sealed {seal(args.folder)}")
    return 0


def _recipe_verify(args: argparse.Namespace) -> int:
    from inspection.recipe import lock_sha256, open_recipe, run_selftest, verify

    verify(args.folder)
    tests = run_selftest(open_recipe(args.folder))
    print(
        f"{args.folder}: as sealed ({lock_sha256(args.folder)[:12]}), {tests} self-test frames give the sealed verdicts"
    )
    return 0
