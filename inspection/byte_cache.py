"""Keeps what was made a short while ago, up to a number of bytes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

Made = TypeVar("Made")


class ByteCache(Generic[Made]):
    """The latest results by key, together at most ``limit`` bytes; used by any number of threads.

    ``size_of`` tells the bytes of a result.  One that is larger than the limit is given and not kept.
    """

    def __init__(self, limit: int, size_of: Callable[[Made], int]) -> None:
        self.limit = limit
        self.bytes = 0
        self._size_of = size_of
        self._kept: OrderedDict[Hashable, tuple[Made, int]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What is kept under the key, or else what ``make`` gives; what it raises is kept nowhere."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][0]
        made = make()  # not under the lock: two may make the same, none waits for another's
        size = self._size_of(made)
        with self._lock:
            if size <= self.limit and key not in self._kept:
                self._kept[key] = (made, size)
                self.bytes += size
                while self.bytes > self.limit:
                    self.bytes -= self._kept.popitem(last=False)[1][1]
        return made
