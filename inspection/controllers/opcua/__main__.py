"""Makes lines of the users file: ``python -m inspection.controllers.opcua password NAME >> users``."""

import getpass
import sys

from inspection.controllers.opcua.security import hashed
from inspection.errors import InspectionError


def main(arguments: list[str]) -> int:
    """Ask for a password (twice at a terminal, else the first line of stdin) and write the user's line to stdout."""
    if len(arguments) != 2 or arguments[0] != "password":
        sys.stderr.write("usage: python -m inspection.controllers.opcua password NAME >> USERS_FILE\n")
        return 2
    if sys.stdin.isatty():
        password = getpass.getpass("password: ")
        if getpass.getpass("once more: ") != password:
            sys.stderr.write("the two passwords differ\n")
            return 2
    else:
        password = sys.stdin.readline().rstrip("\n")
    try:
        sys.stdout.write(hashed(arguments[1], password) + "\n")
    except InspectionError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
