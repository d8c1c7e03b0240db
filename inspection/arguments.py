"""What several verbs read from the command line alike."""

import argparse
from datetime import datetime
from typing import NoReturn

from inspection.errors import UsageError


class Parser(argparse.ArgumentParser):
    """Says how a name or a value that begins with a dash is given, for that is no option to whoever names it."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2 and what is wrong."""
        if ": -" in message or message.endswith("expected one argument"):
            message += "\nwhat begins with a dash is given after `=` (--at=-412,1), a serial or record last, after `--` (-- -2+3)"
        super().error(message)


def filled(text: str) -> str:
    """A text that is not empty: where a variable of a shell is not set, nothing is to be taken for everything."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty: give a text, or leave the option out")
    return text


def in_order(since: datetime | None, until: datetime | None, first: str = "--since", last: str = "--until") -> None:
    """UsageError where a span does not begin before it ends; the names are those of its options."""
    if since is not None and until is not None and since >= until:
        raise UsageError(
            f"{first} {since.isoformat()} is not before {last} {until.isoformat()}",
            fix="give an earlier and a later time",
        )
