"""`lineside trace`: everything about a part; all parts of a lot, with a defect at a place, by a model or a recipe."""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspection.arguments import filled, in_order
from inspection.errors import UsageError
from inspection.moments import moment

if TYPE_CHECKING:
    from inspection.trace import Tracer
    from inspection.trace_search import Found

MOST_LISTED = 10_000
WITHIN_PX = 20.0
SHA256_DIGITS = 64
OF_DEFECT = ("since", "until", "at", "within", "roi", "camera")
NOT_FOUND = 1
NOT_SOUND = 1  # a record is not as it was written, or cannot be read
Answer = tuple[int, dict[str, Any], Iterable[str]]  # exit code, document, lines


def add_verb(verbs: Any) -> None:
    """Add the verb to those of `lineside`."""
    trace = verbs.add_parser(
        "trace", help="everything about a part: what it was judged by, what was said of it, where it stands"
    )
    trace.add_argument("config", type=Path, metavar="STATION.toml")
    trace.add_argument("serial", nargs="?", type=filled, metavar="SERIAL", help="all records of this serial")
    trace.add_argument("--record", type=filled, metavar="ID", help="one record")
    trace.add_argument("--lot", type=filled, help="all parts of a lot")
    trace.add_argument("--defect", type=filled, metavar="CLASS", help="all parts with this defect; needs --since")
    trace.add_argument(
        "--model",
        type=filled,
        metavar="SHA",
        help="all parts that this model judged, by the beginning of its SHA-256",
    )
    trace.add_argument(
        "--recipe",
        type=filled,
        metavar="ID|SHA",
        help="the same of a recipe by its id, or of one version by its lock's SHA-256",
    )
    defect = trace.add_argument_group("with --defect")
    defect.add_argument(
        "--since", type=moment, metavar="DATE", help="from this day or time on, local where no zone is given"
    )
    defect.add_argument("--until", type=moment, metavar="DATE", help="before this day or time (default: up to now)")
    defect.add_argument("--at", type=_place, metavar="X,Y", help="a place on the golden, pixels")
    defect.add_argument("--within", type=float, metavar="PX", help=f"how near to it (default: {WITHIN_PX:g})")
    defect.add_argument("--roi", type=filled, help="only in this region")
    defect.add_argument("--camera", type=filled, metavar="ROLE", help="only of this camera")
    trace.add_argument("--limit", type=int, default=20, help=f"parts listed, 0 to {MOST_LISTED} (default: 20)")
    trace.add_argument("--json", action="store_true", help="one JSON document instead of lines")
    trace.set_defaults(func=_trace)


def _place(text: str) -> tuple[float, float]:
    try:
        x, y = map(float, text.split(","))
    except ValueError:
        x = y = math.nan
    if not (math.isfinite(x) and math.isfinite(y)):
        raise argparse.ArgumentTypeError(f"{text!r} is no place: give X,Y in pixels of the golden, such as 412,236")
    return x, y


def _trace(args: argparse.Namespace) -> int:
    ask = _asked(args)
    from inspection.record_reader import RecordReader  # what the help does not need
    from inspection.station_places import read_places
    from inspection.trace import Tracer

    places = read_places(args.config)
    reader = RecordReader(Path(places.store))
    tracer = Tracer(places, reader)
    try:
        code, document, lines = ask(tracer, args)
        for text in [json.dumps(document, ensure_ascii=False, indent=1)] if args.json else lines:
            print(text)
    finally:
        tracer.close()
        reader.close()
    return code


def _asked(args: argparse.Namespace) -> "Callable[[Tracer, argparse.Namespace], Answer]":
    """The one thing that is asked for; UsageError when it is none, several, or no possible text."""
    ways = {
        "serial": _serial,
        "record": _record,
        "lot": _lot,
        "defect": _defect,
        "model": _judged_by,
        "recipe": _judged_by,
    }
    asked = [name for name in ways if getattr(args, name) is not None]
    if len(asked) != 1:
        raise UsageError(
            "one thing can be traced at a time" if asked else "what should be traced?",
            fix="give a SERIAL, or one of --record, --lot, --defect, --model, --recipe",
        )
    text = str(getattr(args, asked[0]))
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{text!r} is no valid text", fix="give it in UTF-8, as the controller does") from error
    if not 0 <= args.limit <= MOST_LISTED:
        raise UsageError(f"--limit is {args.limit}", fix=f"give a number from 0 to {MOST_LISTED}")
    _check_defect(args)
    return ways[asked[0]]


def _check_defect(args: argparse.Namespace) -> None:
    """UsageError where the options that go with --defect are given without it, or make no sense together."""
    given = [f"--{name}" for name in OF_DEFECT if getattr(args, name) is not None]
    if given and args.defect is None:
        raise UsageError(f"{', '.join(given)}: only with --defect", fix="leave it out, or ask for --defect CLASS")
    if args.defect is not None and args.since is None:
        raise UsageError("--defect needs a time to begin at", fix="--since 2026-11-01 (and --until, if you like)")
    in_order(args.since, args.until)
    if args.within is not None and not args.within > 0:
        raise UsageError(f"--within is {args.within}", fix="give pixels of the golden, more than 0")
    if args.within is not None and args.at is None:
        raise UsageError("--within is given without a place", fix="give it too: --at 412,236, in pixels of the golden")


def _serial(tracer: "Tracer", args: argparse.Namespace) -> Answer:
    from inspection.trace_document import serial_document
    from inspection.trace_text import plain, serial_lines

    trace = tracer.serial(args.serial, args.limit)
    if trace.count:
        sound = not trace.unreadable and not any(part.chain.altered for part in trace.parts)
        sound = sound and all(line.sound for line in trace.more)
        return 0 if sound else NOT_SOUND, serial_document(trace), serial_lines(trace)
    near = ", ".join(map(plain, trace.near))
    _tell(
        f"there is no record of the serial {plain(args.serial)}",
        f"serials that begin alike: {near}" if near else "no serial begins like it; is this the right station?",
    )
    return NOT_FOUND, serial_document(trace), ()


def _record(tracer: "Tracer", args: argparse.Namespace) -> Answer:
    from inspection.store import UnreadableRecord
    from inspection.trace_document import part_document, unreadable_document
    from inspection.trace_text import part_lines, plain

    try:
        part = tracer.record(args.record)
    except UnreadableRecord as error:
        _tell(plain(error.what), plain(error.fix))
        return NOT_SOUND, unreadable_document(error), ()
    if part is not None:
        return NOT_SOUND if part.chain.altered else 0, part_document(part), part_lines(part)
    _tell(f"there is no record {plain(args.record)}", "give the whole id, as reports and pages show it")
    return NOT_FOUND, {}, ()


def _lot(tracer: "Tracer", args: argparse.Namespace) -> Answer:
    from inspection.trace_search import find_lot
    from inspection.trace_text import plain

    found = find_lot(tracer, args.lot, args.limit)
    return _found(
        found, args, f"there is no part of the lot {plain(args.lot)}", "lots are named as the controller gave them"
    )


def _defect(tracer: "Tracer", args: argparse.Namespace) -> Answer:
    from inspection.trace_search import DefectSearch, find_defect
    from inspection.trace_text import plain

    within = WITHIN_PX if args.within is None else args.within
    search = DefectSearch(args.defect, args.since, args.until, args.roi or "", args.camera or "", args.at, within)
    found = find_defect(tracer, search, args.limit)
    nothing = f"no part is NG or REVIEW for {plain(args.defect)} there in that time"
    return _found(found, args, nothing, "" if found.tally.parts else _where_else(tracer, found, args))


def _where_else(tracer: "Tracer", found: "Found", args: argparse.Namespace) -> str:
    """What to look for instead, where no part has the defect: of what was given, what is not known at all."""
    from inspection.trace_text import plain, when

    span = tracer.queries.span()
    if span is None:
        return "the store is empty"
    if args.since > span[1] or (args.until is not None and args.until <= span[0]):
        return f"no record is of that time: the first is of {when(span[0])}, the last of {when(span[1])}"
    given = (
        (args.camera, found.cameras, "by the cameras"),
        (args.roi, found.rois, "in the regions"),
    )
    name, cameras = plain(args.defect), ", ".join(map(plain, found.cameras))
    for asked, seen, words in given:
        if asked and asked not in seen and (found.cameras or found.rois):
            listed = ", ".join(map(plain, seen))
            found_in = f"was found {words} {listed}" if seen else f"was found by the cameras {cameras}, in no region"
            return f"in that time {name} {found_in}"
    if args.defect in found.known:
        return "try an earlier --since" + (", or a larger --within" if args.at else "")
    return (
        f"the recipe in force knows {', '.join(map(plain, found.known))}" if found.known else "try an earlier --since"
    )


def _judged_by(tracer: "Tracer", args: argparse.Namespace) -> Answer:
    from inspection.trace_search import find_judged_by
    from inspection.trace_text import plain

    name = args.model or args.recipe or ""
    found = find_judged_by(tracer, args.limit, model=args.model or "", recipe=args.recipe or "")
    kind = "model" if args.model is not None else "recipe"
    if name and len(found.known) > 1 and all(one.startswith(name) for one in found.known):
        raise UsageError(
            f"{plain(name)} names {len(found.known)} {kind} versions", fix="give more digits: " + _some(found.known)
        )
    begins = f"no recipe is called {plain(name)}, and none whose SHA-256 begins so judged a part here"
    listed = "recipes that judged here, their ids and the beginnings of the SHA-256 of their versions"
    if kind == "model":
        begins = f"no model whose SHA-256 begins with {plain(name)} judged a part here"
        listed = "models that judged here, by the beginning of their SHA-256"
    return _found(found, args, begins, f"{listed}: {_some(found.known)}")


def _some(names: tuple[str, ...]) -> str:
    from inspection.trace_text import plain

    listed = ", ".join(name[:16] if len(name) == SHA256_DIGITS else plain(name) for name in names[:20])
    return f"{listed} and {len(names) - 20} more" if len(names) > 20 else listed or "the store is empty"


def _found(found: "Found", args: argparse.Namespace, nothing: str, fix: str) -> Answer:
    from inspection.trace_document import found_document
    from inspection.trace_text import found_lines

    if found.tally.parts or found.unreadable:
        sound = not found.unsound and not found.unreadable
        return 0 if sound else NOT_SOUND, found_document(found), found_lines(found, args.limit)
    _tell(nothing, fix)
    return NOT_FOUND, found_document(found), ()


def _tell(what: str, fix: str) -> None:
    print(f"{what}\n{fix}", file=sys.stderr)
