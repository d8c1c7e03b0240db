"""Up to when pictures age: the station's clock as it stood when they were entered, without leaps that nothing bears out."""

from datetime import UTC, datetime, timedelta

from inspection.evidence_ledger import Rows
from inspection.retention.budget import Budget

STANDSTILL = timedelta(days=1)
LEAP = timedelta(
    days=62
)  # hardly a line stands still for longer; where one did it is a day until its pictures age again
_PAGE = 5000
_SQL = """SELECT rowid, CASE entered_later WHEN '' THEN written_at ELSE entered_later END FROM pictures
          WHERE rowid > ? ORDER BY rowid LIMIT ?"""


class Clock:
    """The station's clock by the rows of the ledger, in the order in which they were entered.

    A leap ahead by more than ``LEAP`` counts when a picture shows that it lasted for ``STANDSTILL``, and not when the clock
    went back before.  A clock that went back is followed at once: pictures are then taken for younger.
    """

    def __init__(self) -> None:
        self.at: datetime | None = None
        self._ahead: datetime | None = None
        self._row = 0

    def saw(self, reading: datetime) -> None:
        """The clock as it stood when the next picture was entered."""
        if self.at is None or reading - self.at <= LEAP:
            self.at, self._ahead = reading, None
        elif self._ahead is None or reading < self._ahead:
            self._ahead = reading
        elif reading - self._ahead >= STANDSTILL:
            self.at, self._ahead = reading, None

    def read(self, ledger: Rows, budget: Budget) -> None:
        """See the rows that are new since the last time; one whose time cannot be read tells nothing."""
        rows = [(0, "")]
        while rows:
            with budget.spend():
                rows = ledger.rows(_SQL, (self._row, _PAGE))
                for self._row, text in rows:
                    if (reading := _time(text)) is not None:
                        self.saw(reading)

    def limit(self, now: datetime) -> datetime:
        """Up to when pictures age: while none come in none grows older, neither by a holiday nor by a clock that leapt."""
        return now if self.at is None or now - self.at <= STANDSTILL else self.at + STANDSTILL


def _time(text: str) -> datetime | None:
    try:
        reading = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return reading if reading.year >= 1970 else None  # before that no clock of a computer starts
