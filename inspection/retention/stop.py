"""How a signal ends retention."""

from time import monotonic, sleep

_LOOK_S = 0.2


class Stop:
    """Set by a signal handler, asked between two steps.

    Not threading.Event: a handler runs in the thread that waits, and might find it holding the lock that ``set`` needs.
    """

    def __init__(self) -> None:
        self._asked = False

    def set(self) -> None:
        """End after the step in hand."""
        self._asked = True

    def is_set(self) -> bool:
        """Whether the end was asked for."""
        return self._asked

    def wait(self, seconds: float) -> None:
        """Pause, but no longer than until the end is asked for."""
        end_s = monotonic() + seconds
        while not self._asked and (left_s := end_s - monotonic()) > 0:
            sleep(min(left_s, _LOOK_S))
