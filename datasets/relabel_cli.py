"""``lineside relabel DATASET``: a page on this computer to draw and correct labels."""

import argparse
import getpass
import socket
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from inspection.errors import DriverMissing, UsageError
from inspection.log import event

if TYPE_CHECKING:
    from datasets.relabel.door import Door

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
_MOST_PORTS = 65535


def add_verb(subparsers: Verbs) -> None:
    """Add ``lineside relabel``; sets ``func``: parsed arguments in, exit code out."""
    text = "draw and correct the labels of a dataset on a local page"
    parser = subparsers.add_parser("relabel", help=text, description=text)
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="folder made by `lineside data import`")
    parser.add_argument("--model", type=Path, metavar="MODEL", help="model file whose findings are proposed")
    parser.add_argument(
        "--port", type=int, default=8421, help="of the page; 0 takes any free one (default: %(default)s)"
    )
    parser.add_argument("--who", default="", metavar="NAME", help="whose work it is (default: the login name)")
    parser.add_argument(
        "--order", choices=["queue", "name"], default="queue", help="what teaches most first, or by name"
    )
    parser.set_defaults(func=_relabel)


def _relabel(args: argparse.Namespace) -> int:
    try:
        return _serve(args)
    except ModuleNotFoundError as error:
        raise DriverMissing(
            f"`lineside relabel` needs the package {error.name!r}, which is not installed",
            fix='pip install "lineside[hmi]" (in a checkout: pip install -e ".[hmi]")',
        ) from error


def _serve(args: argparse.Namespace) -> int:
    # The pages are an extra, and the other verbs of `datasets` work without it.
    from datasets.relabel.background import Background
    from datasets.relabel.desk import Desk
    from datasets.relabel.door import Door, kept_secret
    from datasets.relabel.judged import cache_folder
    from datasets.relabel.labels import open_labels
    from datasets.relabel.server import make_pages
    from inspection.model import load_model
    from inspection.web.serve import listen, server_for

    who = args.who.strip() or _login()
    if not 0 <= args.port <= _MOST_PORTS:
        raise UsageError(f"--port is {args.port}", fix="give a port from 1 to 65535, or 0 for any free one")
    if args.model is not None:
        load_model(args.model, threads=1)  # a wrong file is told now, not behind the page
    with open_labels(args.dataset) as labels, listen("127.0.0.1", args.port) as listening:
        cache = cache_folder(labels.folder)
        _make(cache)
        background = Background(labels.folder, cache, args.model)
        try:
            desk = Desk(labels, background, who=who, by_name=args.order == "name")
            door = Door(who, kept_secret(cache / "secret"), desk.key[:8])
            app = make_pages(desk, door, used=lambda: _print_address(listening, door, again=True))
            _print_address(listening, door)
            server_for(app).run(sockets=[listening])
        finally:
            background.close()
    return 0


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError) as problem:
        raise UsageError("this user has no login name", fix="give --who NAME") from problem


def _make(cache: Path) -> None:
    try:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as problem:  # labels can be saved still; only what is worked out is not kept
        event("relabel.no_cache", folder=str(cache), why=problem.strerror)


def _print_address(listening: socket.socket, door: "Door", *, again: bool = False) -> None:
    text = "in another browser" if again else "in your browser"
    print(f"open {text}: http://127.0.0.1:{listening.getsockname()[1]}/enter?token={door.invite()}", flush=True)
