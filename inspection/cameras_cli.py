"""`lineside cameras`: which cameras answer, and a picture of each with its focus and exposure."""

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from inspection.cameras import CAMERAS
from inspection.cameras.found import FoundCamera
from inspection.cameras.reach import SEARCHES, Look, draw, look, measures, search
from inspection.config import CameraConfig, load_station
from inspection.errors import ConfigError, DriverMissing, UsageError
from inspection.images import write_png

DEVICE_FAULT = 3
_FOUND_COLUMNS = ("kind", "device", "model", "serial", "address", "note")


def add_verb(verbs: Any) -> None:
    """Add the verb to those of `lineside`."""
    cameras = verbs.add_parser(
        "cameras", help="list the cameras that answer, or try those of a station; take a picture of each"
    )
    cameras.add_argument("--kind", choices=sorted(CAMERAS), help="only cameras of this kind")
    cameras.add_argument("--station", type=Path, metavar="STATION.toml", help="the cameras of this station config")
    cameras.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER",
        help="save a picture of each camera with its measures below, as PNG; earlier ones are replaced",
    )  # fmt: skip
    cameras.set_defaults(func=_cameras)


def _cameras(args: argparse.Namespace) -> int:
    if args.station is not None:
        return _show(_of_station(args.station, args.kind), args.output)
    found = _found(args.kind)
    if args.output is None or not found:
        return 0
    return _show([(f"{camera.kind}-{camera.device}", config_of(camera)) for camera in found], args.output)


def config_of(found: FoundCamera) -> Any:
    """The section of a station config that uses a camera as it was found; ConfigError when none can name it."""
    key = "source" if found.kind == "opencv" else "device"
    try:
        return TypeAdapter[Any](CameraConfig).validate_python({"kind": found.kind, key: found.device})
    except ValidationError as error:
        raise ConfigError(
            f"camera {found.device!r} of kind {found.kind!r} cannot be named in a station config",
            fix="leave it out with --kind, and report its name",
        ) from error


def _of_station(path: Path, kind: str | None) -> list[tuple[str, Any]]:
    named = load_station(path).cameras
    chosen = [(name, config) for name, config in named.items() if kind in (None, config.kind)]
    if not chosen:
        there = ", ".join(f"{name} ({config.kind})" for name, config in named.items())
        raise UsageError(f"{path} has no camera of kind {kind!r}", fix=f"its cameras are {there}")
    return chosen


def _found(kind: str | None) -> list[FoundCamera]:
    """Search, and print what answers; a kind that was asked for by name must be searchable."""
    if kind is not None and kind not in SEARCHES:
        raise UsageError(
            f"cameras of kind {kind!r} cannot be searched for", fix="name them in a station config and give --station"
        )
    found: list[FoundCamera] = []
    missing: list[str] = []
    for searched in SEARCHES if kind is None else (kind,):
        try:
            found += search(searched)
        except DriverMissing as error:
            if kind is not None:
                raise
            missing.append(f"{searched}: not searched for, its driver is missing; {error.fix}")
    if found:
        _print_table(_FOUND_COLUMNS, [[getattr(camera, name) for name in _FOUND_COLUMNS] for camera in found])
    else:
        print(f"no camera answers{f' of kind {kind}' if kind else ''}; check power, cable, network and access rights")
    print("".join(f"{line}\n" for line in missing), end="")
    return found


def _show(cameras: Iterable[tuple[str, Any]], folder: Path | None) -> int:
    """Take a picture of each, print what it is worth, save it where that is wanted; 3 when one could not be taken."""
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot make the folder {folder} ({error.strerror})", fix="give another one") from error
    looks = [look(name, config) for name, config in cameras]
    taken = [seen for seen in looks if seen.frame is not None]
    if taken:
        columns = ("camera", "kind", *(name for name, _ in measures(taken[0])))
        rows = [[seen.name, seen.config.kind, *(value for _, value in measures(seen))] for seen in taken]
        _print_table(columns, rows)
    if folder is not None:
        for seen, name in zip(taken, _file_names(seen.name for seen in taken), strict=True):
            write_png(folder / name, draw(seen))
        print(f"{len(taken)} picture{'s' * (len(taken) != 1)} in {folder}")
    return _refusals(looks)


def _refusals(looks: Sequence[Look]) -> int:
    errors = [seen.error for seen in looks if seen.error is not None]
    for error in errors:
        print(error, file=sys.stderr)
    if errors and all(isinstance(error, ConfigError) for error in errors):
        return 2
    return DEVICE_FAULT if errors else 0


def _file_names(names: Iterable[str]) -> list[str]:
    """A file name for each camera; what a file name cannot hold is replaced, and equal ones are numbered."""
    given: list[str] = []
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip(".") or "camera"
        numbered = (f"{plain}{f'-{number}' if number > 1 else ''}.png" for number in range(1, len(given) + 2))
        given.append(next(one for one in numbered if one not in given))
    return given


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    shown = [[cell or "-" for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *shown, strict=True)]
    for row in (columns, *shown):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
