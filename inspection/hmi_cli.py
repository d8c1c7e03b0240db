"""`lineside hmi`: the pages for the people at the line.  `lineside account`: who may use them."""

import argparse
import getpass
import json
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspection.config import load_station
from inspection.errors import DriverMissing, UsageError

if TYPE_CHECKING:
    from inspection.hmi.accounts import Accounts

ROLES = ("operator", "reviewer", "engineer")
LOCAL = {"host": "127.0.0.1", "tls_certificate": "", "tls_key": ""}  # instead of what the config says


def add_verbs(verbs: Any) -> None:
    """Add the verbs to those of `lineside`."""
    pages = verbs.add_parser("hmi", help="serve the pages of a station to the people at the line until told to stop")
    pages.add_argument("config", type=Path, metavar="STATION.toml")
    pages.add_argument("--port", type=int, help="port instead of the config's; 0 = any free one")
    pages.add_argument("--local", action="store_true", help="serve this computer only, whatever the config says")
    pages.set_defaults(func=_with_packages(_hmi))
    account = verbs.add_parser("account", help="who may use the pages: add, list, password, disable, unlock, audit ...")
    actions = account.add_subparsers(dest="action", required=True, metavar="ACTION")
    add = _action(actions, "add", _add, "make an account; the password is asked twice, or read from stdin")
    add.add_argument("--role", choices=ROLES, default="operator", help="what it may do (default: operator)")
    password = _action(actions, "password", _password, "give an account another password; ends its sessions")
    for parser in (add, password):
        parser.add_argument(
            "--own", action="store_true", help="the person is typing it: it need not be changed at the first log-in"
        )
    role = _action(actions, "role", _role, "give an account another role")
    role.add_argument("role", choices=ROLES)
    _action(actions, "disable", _disable, "forbid an account to log in; ends its sessions")
    _action(actions, "enable", _enable, "allow it again")
    _action(
        actions, "unlock", _unlock, "forget the wrong passwords tried on a name, or from an address (NAME 10.1.2.3)"
    )
    _action(actions, "list", _list, "every account, its role and state", named=False)
    audit = _action(actions, "audit", _audit, "what was done, newest first", named=False)
    audit.add_argument("--limit", type=int, default=50, help="how many entries (default: 50)")


def _action(
    actions: Any, word: str, run: Callable[["Accounts", argparse.Namespace, str], int], says: str, *, named: bool = True
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(word, help=says)
    parser.add_argument("config", type=Path, metavar="STATION.toml")
    if named:
        parser.add_argument("name", metavar="NAME")
    parser.set_defaults(func=_with_packages(lambda args: _on_accounts(args, run)))
    return parser


def _with_packages(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Names the extra when a package of the pages is not installed."""

    def checked(args: argparse.Namespace) -> int:
        try:
            return run(args)
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("inspection"):
                raise
            raise DriverMissing(
                f"`lineside {args.verb}` needs the package {error.name!r}, which is not installed",
                fix='pip install "lineside[hmi]" (in a checkout: pip install -e ".[hmi]")',
            ) from error

    return checked


def _hmi(args: argparse.Namespace) -> int:
    from inspection.hmi.serving import serve_pages

    if args.port is not None and not 0 <= args.port <= 65535:
        raise UsageError(f"--port is {args.port}", fix="give a number from 0 to 65535")
    serve_pages(load_station(args.config, hmi=LOCAL if args.local else {}), port=args.port)
    return 0


def _on_accounts(args: argparse.Namespace, run: Callable[["Accounts", argparse.Namespace, str], int]) -> int:
    from inspection.hmi.accounts import Accounts
    from inspection.hmi.people_file import people_path

    accounts = Accounts(people_path(Path(load_station(args.config).store)))
    try:
        return run(accounts, args, f"{_console_user()} (console)")
    finally:
        accounts.close()


def _console_user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in containers
        return "unknown"


def _typed_password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline(4096).rstrip("\r\n")
    try:
        password = getpass.getpass("password: ")
        again = getpass.getpass("once more: ")
    except EOFError as error:
        raise UsageError("no password was typed", fix="type it twice") from error
    if password != again:
        raise UsageError("the password was not typed the same twice", fix="try again")
    return password


def _add(accounts: "Accounts", args: argparse.Namespace, by: str) -> int:
    # Whoever makes the first account at the terminal makes it for himself; a script knows the password it sends.
    first = sys.stdin.isatty() and not accounts.all()
    made = accounts.add(args.name, args.role, _typed_password(), by=by, must_change=not (args.own or first))
    print(f"account {made.name}: {args.role}{_change_note(made.must_change)}")
    return 0


def _password(accounts: "Accounts", args: argparse.Namespace, by: str) -> int:
    accounts.set_password(args.name, _typed_password(), by=by, must_change=not args.own)
    print(f"account {args.name}: new password{_change_note(not args.own)}")
    return 0


def _change_note(must_change: bool) -> str:
    return ", to be changed at the first log-in" if must_change else ""


def _role(accounts: "Accounts", args: argparse.Namespace, by: str) -> int:
    accounts.set_role(args.name, args.role, by=by)
    print(f"account {args.name}: {args.role}")
    return 0


def _disable(accounts: "Accounts", args: argparse.Namespace, by: str) -> int:
    accounts.set_disabled(args.name, True, by=by)
    print(f"account {args.name}: disabled")
    return 0


def _enable(accounts: "Accounts", args: argparse.Namespace, by: str) -> int:
    accounts.set_disabled(args.name, False, by=by)
    print(f"account {args.name}: enabled")
    return 0


def _unlock(accounts: "Accounts", args: argparse.Namespace, by: str) -> int:
    accounts.unlock(args.name, by=by)
    print(f"{args.name}: unlocked")
    return 0


def _list(accounts: "Accounts", args: argparse.Namespace, by: str) -> int:
    for account in accounts.all():
        notes = ("disabled", account.disabled), ("must change its password", account.must_change)
        shown = ", ".join(word for word, holds in notes if holds)
        print(f"{account.name}\t{account.role.name.lower()}{f'{chr(9)}{shown}' if shown else ''}")
    return 0


def _audit(accounts: "Accounts", args: argparse.Namespace, by: str) -> int:
    for entry in accounts.audit_entries(limit=args.limit):
        at = datetime.fromisoformat(entry.at).isoformat(timespec="seconds")
        # As JSON, so that nothing in a name can move the terminal's cursor.
        row = {"at": at, "who": entry.who, "what": entry.what, **entry.details}
        print(json.dumps(row, ensure_ascii=True))
    return 0
