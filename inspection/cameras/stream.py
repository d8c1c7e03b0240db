"""The frames of a stream or device that runs free: a thread that takes every one, and a clock that says how old it is."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import cv2

from inspection.errors import CameraError, CameraTimeout
from inspection.types import Trigger

CLOCK_S = 10.0  # frames of the last so many seconds tie stamps to the clock
STANDING = 10  # so many frames without a newer stamp: this source has no usable stamps
FASTER_S = 0.005  # less is the noise of the network
SETTLE_S = 0.5  # so long no frame was faster than those before: the backlog of opening is gone


class StreamLimits(Protocol):
    """What the config of a stream says about its times."""

    @property
    def latency_ms(self) -> int: ...

    @property
    def open_timeout_ms(self) -> int: ...

    @property
    def read_timeout_ms(self) -> int: ...

    @property
    def shown(self) -> str: ...


class StreamClock:
    """Estimates when a frame was exposed from its stamp and its arrival, up to the time the fastest frame travels."""

    def __init__(self) -> None:
        self._offsets: deque[tuple[float, float]] = deque()  # (arrival, arrival - stamp), offsets growing
        self._stamp_s = float("-inf")
        self._standing = 0  # frames in a row without a newer stamp
        self.steady = True  # stamps can be used
        self._best_s = float("inf")
        self.best_at_s = 0.0  # when a frame last was markedly faster than all before

    def exposed_s(self, arrived_s: float, stamp_ms: float) -> float:
        """Seconds of the clock that ``arrived_s`` is of; never later than the arrival, -inf when nothing is known."""
        stamp_s = stamp_ms / 1000
        self._standing = 0 if stamp_s > self._stamp_s else self._standing + 1
        self._stamp_s = stamp_s
        self.steady = self.steady and self._standing < STANDING
        if not self.steady:
            return arrived_s
        if self._standing:
            return float("-inf")
        offset_s = arrived_s - stamp_s
        while self._offsets and self._offsets[-1][1] >= offset_s:
            self._offsets.pop()
        self._offsets.append((arrived_s, offset_s))
        while self._offsets[0][0] < arrived_s - CLOCK_S:
            self._offsets.popleft()
        if self._offsets[0][1] < self._best_s - FASTER_S:
            self._best_s, self.best_at_s = self._offsets[0][1], arrived_s
        return min(arrived_s, stamp_s + self._offsets[0][1])


@dataclass(frozen=True, slots=True)
class Taken:
    """What the reading thread hands to a waiting ``take``; times in seconds, monotonic.  ``pixels`` None = unreadable."""

    pixels: Any
    number: int
    exposed_s: float
    refused: int


class StreamReader:
    """The thread that takes every frame of a stream or device, and keeps the one that a waiting ``take`` may have."""

    def __init__(self, capture: Any, config: StreamLimits, error: Callable[[str, str], CameraError]) -> None:
        self._capture = capture
        self._config = config
        self._error = error
        self._news = threading.Condition()
        self._stop = False
        self._ended = ""
        self._asked_s: float | None = None
        self._taken: Taken | None = None
        self._refused = 0
        self._frames = 0
        self._clock = StreamClock()
        self._arrived_s = self._began_s = time.monotonic()
        self._thread = threading.Thread(target=self._read, name="stream", daemon=True)
        self._thread.start()

    def settle(self) -> None:
        """Wait until frames come as fast as they are made; CameraError when that takes longer than opening may."""
        limit_s = time.monotonic() + self._config.open_timeout_ms / 1000
        with self._news:
            while not self._settled():
                text = self._fault()
                if not text and time.monotonic() > limit_s:
                    text = "opened, but sends no steady stream of frames"
                if text:
                    raise self._error(text, "check the camera and the network's load")
                self._news.wait(0.05)

    def take(self, trigger: Trigger, timeout_ms: int) -> Taken:
        """The first frame exposed after this call; CameraTimeout, or CameraError when the stream has ended."""
        with self._news:
            self._asked_s, self._taken, self._refused = time.monotonic(), None, 0
            self._news.wait_for(lambda: self._taken or self._ended, timeout_ms / 1000)
            self._asked_s = None
            if self._taken is not None:
                return self._taken
            if self._ended:
                raise self._error(self._ended, "it is opened again by itself; check the camera and the network")
            raise CameraTimeout(
                f"no frame exposed after trigger {trigger.trigger_id} came from {self._config.shown} in {timeout_ms} ms; "
                f"{self._refused} older frames were refused",
                fix="allow more time, or lower latency_ms to what the camera was measured to need",
            )

    def fault(self) -> str:
        """What is wrong, "" while frames come."""
        with self._news:
            text = self._fault()
        return f"{self._config.shown} {text}" if text else ""

    def end(self) -> None:
        """Stop the thread; CameraError when it still hangs in the driver after three read time-outs."""
        with self._news:
            self._stop = True
        self._thread.join(3 * self._config.read_timeout_ms / 1000 + 1)
        if self._thread.is_alive():
            raise self._error("cannot be closed: its driver hangs", "its process is started again by itself")

    def _fault(self) -> str:
        silent_s = time.monotonic() - self._arrived_s
        if not self._ended and silent_s * 1000 > self._config.read_timeout_ms:
            return f"has sent no frame for {silent_s:.1f} s"
        return self._ended

    def _settled(self) -> bool:
        if not self._clock.steady:
            return self._frames > 1 and time.monotonic() - self._began_s > SETTLE_S
        return self._frames > 1 and self._arrived_s - self._clock.best_at_s > SETTLE_S

    def _read(self) -> None:
        try:
            while not self._stop and self._capture.grab():
                self._arrive(time.monotonic(), self._capture.get(cv2.CAP_PROP_POS_MSEC))
            ended = "has ended its stream"
        except cv2.error as error:
            ended = f"failed: {error}"
        with self._news:
            self._ended = ended
            self._news.notify_all()

    def _arrive(self, arrived_s: float, stamp_ms: float) -> None:
        with self._news:
            self._frames += 1
            self._arrived_s = arrived_s
            exposed_s = self._clock.exposed_s(arrived_s, stamp_ms) - self._config.latency_ms / 1000
            asked_s = self._asked_s
            wanted = asked_s is not None and self._taken is None and exposed_s > asked_s
            self._refused += 0 if wanted else 1
            self._news.notify_all()
        if not wanted:
            return
        given, pixels = self._capture.retrieve()
        with self._news:
            if self._asked_s == asked_s:  # nobody else asks meanwhile
                self._taken = Taken(pixels if given else None, self._frames, exposed_s, self._refused)
                self._news.notify_all()
