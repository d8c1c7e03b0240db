"""How long rows waited for the checkpoint that signed them: what is changed before that does not show."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from inspection.audit.findings import Delay
from inspection.audit.links import SignedHead

MOST_DELAYS = 20  # kept of a file; the others are counted


class Delays:
    """Told of the rows of a table in the order of the chain; looks at the first row behind each checkpoint.

    ``allowed`` is how long a row may wait.  ``waiting`` is the first row that no checkpoint has yet: table, number, time.
    """

    def __init__(self, heads: Iterator[SignedHead], allowed: timedelta) -> None:
        self.kept: list[Delay] = []
        self.count = 0
        self.waiting: tuple[str, int, str] | None = None
        self._heads = heads
        self._allowed = allowed
        self._reached = 0  # entries up to here were looked at
        self._ended = False

    def saw(self, table: str, sequence: int, number: int, at: str) -> None:
        """The row of an entry was read."""
        if sequence <= self._reached or self._ended:
            return
        head = next((head for head in self._heads if head.sequence >= sequence), None)
        if head is None:
            self._ended = True
            self.waiting = (table, number, at)
            return
        self._reached = head.sequence
        written = moment_of(at)
        if written is not None and head.at - written > self._allowed:
            self.count += 1
            if len(self.kept) < MOST_DELAYS:
                self.kept.append(Delay(table, number, at, head.at, head.at - written))


def moment_of(text: str) -> datetime | None:
    """A time with its zone; None where the text is none."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo is not None else None
