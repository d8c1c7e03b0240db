"""Keeps retention to a few milliseconds of work in each second."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

_SCHEDULER = Path("/proc/thread-self/schedstat")  # of this thread: ns on a processor, ns of waiting for one, turns


class Budget:
    """So many milliseconds of each second may be spent; what a step took too long is rested off right after it.

    ``rest(seconds)`` is called for the pauses.  ``spent_s`` is all that was spent, ``share`` what it is of the time
    since the start.  Time in which a step only waited for a processor (``queued`` gives it in seconds) was not spent.
    """

    def __init__(
        self, ms_per_s: int, rest: Callable[[float], object], *,
        clock: Callable[[], float] = monotonic, queued: Callable[[], float] | None = None,
    ) -> None:  # fmt: skip
        self._rest, self._clock, self._queued = rest, clock, queued or queued_s
        self._times = 1000 / ms_per_s - 1
        self._began_s = clock()
        self.spent_s = 0.0

    @contextmanager
    def spend(self) -> Iterator[None]:
        """Work within it counts, and is followed by a pause."""
        began_s, queued_s = self._clock(), self._queued()
        try:
            yield
        finally:
            took_s = max(0.0, self._clock() - began_s - (self._queued() - queued_s))
            self.spent_s += took_s
        if self._times > 0:
            self._rest(took_s * self._times)

    @property
    def share(self) -> float:
        """Which share of the time was spent."""
        return self.spent_s / max(self._clock() - self._began_s, 1e-9)


def queued_s() -> float:
    """How long this thread has waited for a processor so far; 0 where the system does not say."""
    try:
        return int(_SCHEDULER.read_text(encoding="ascii").split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
