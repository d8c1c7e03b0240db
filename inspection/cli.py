"""`lineside`: the one command.  Each verb parses, calls one library function, prints.

stdout is the result, stderr the log; exit code 0 ok, 1 NG or a gate not met, 2 usage or config, 3 device.
"""

import argparse
import sys
from importlib import import_module
from typing import Any

from inspection import log
from inspection.arguments import Parser
from inspection.errors import (
    CameraError,
    ControllerError,
    DriverMissing,
    GateNotMet,
    InspectionError,
    StoreError,
)

# Which function adds each verb.  Only that of the verb that was asked for is loaded, so that a quick verb starts quickly.
VERBS = {
    "run": "inspection.station_cli:add_verbs",
    "check": "inspection.station_cli:add_verbs",
    "predict": "inspection.predict_cli:add_verb",
    "recipe": "inspection.recipe_cli:add_recipe",
    "cameras": "inspection.cameras_cli:add_verb",
    "hmi": "inspection.hmi_cli:add_verbs",
    "account": "inspection.hmi_cli:add_verbs",
    "trace": "inspection.trace_cli:add_verb",
    "audit": "inspection.audit_cli:add_verb",
    "replay": "inspection.replay_cli:add_verb",
    "report": "inspection.report_cli:add_verb",
    "retention": "inspection.retention_cli:add_verb",
}
EXTRA_OF_VERB = {
    **dict.fromkeys(("train", "retrain", "evaluate", "calibrate", "quantize", "export"), "train"),
    "report": "report",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    log.set_up()
    parser = Parser(prog="lineside", description="Visual inspection of PCB and casting lines.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    words = sys.argv[1:] if arguments is None else arguments
    add_verbs(verbs, words[0] if words else "")
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


def add_verbs(verbs: Any, asked: str = "") -> None:
    """Add the verb ``asked``; all of them where there is none of that name, so that help and mistakes can list them."""
    if asked in VERBS:
        _add(verbs, VERBS[asked])
        return
    from importlib.metadata import entry_points  # reads a file of every installed package

    # Verbs of packages above this one are found by entry point, so that the runtime need not import them.
    above = {entry.name: entry for entry in sorted(entry_points(group="lineside.verbs"), key=lambda entry: entry.name)}
    if asked in above:
        above[asked].load()(verbs)
        return
    for target in dict.fromkeys(VERBS.values()):
        _add(verbs, target)
    for entry in above.values():
        entry.load()(verbs)


def _add(verbs: Any, target: str) -> None:
    module, _, name = target.partition(":")
    getattr(import_module(module), name)(verbs)
