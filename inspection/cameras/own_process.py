"""A camera whose driver runs in a process of its own, so that a driver that hangs or crashes cannot stop the station."""

import logging
import os
import subprocess
import threading
import time
from contextlib import suppress
from typing import Any

from inspection.cameras.child_process import CLOSE_S, GRACE_S, HUNG_S, ChildProcess
from inspection.cameras.wire import Message, read_error
from inspection.errors import CameraError, CameraTimeout, DriverMissing, InspectionError
from inspection.log import event
from inspection.types import Frame, Trigger

TICK_S = 0.1
START_S = 10.0  # for loading the driver, beside the time that opening the camera may take
OPEN_MS = 10_000  # where the config has no open_timeout_ms
FIRST_RETRY_S = 0.2
LAST_RETRY_S = 5.0


class OwnProcessCamera:
    """Hosts the driver of ``config.kind`` in a child process and gives its frames; the driver's errors come through.

    ``grab`` comes back within ``timeout_ms`` and a tenth of a second, whatever the driver does.  A process that ends is
    noticed at once, one that stands still or a camera that is away within about two seconds, also between parts.  Then
    ``fault`` says so, and the process is started again after 0.2 s, 0.4 s ... 5 s; the child itself tries in the same
    rhythm to open a camera that is away.  A frame for an earlier request is thrown away.  The child never outlives the
    station.  Linux only.
    """

    def __init__(self, config: Any, *, camera_id: str) -> None:
        self.config = config
        self.camera_id = camera_id
        self._open_s = getattr(config, "open_timeout_ms", OPEN_MS) / 1000 + START_S
        self._news = threading.Condition()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._child: ChildProcess | None = None
        self._wrong: InspectionError | None = self._not_open()
        self._fatal: InspectionError | None = None
        self._settled = False  # the first attempt to open has an outcome
        self._told = False  # camera.lost is in the log, camera.back is not yet
        self._gave = False  # this child has given a frame
        self._number = self._wanted = self._late = 0
        self._answer: Frame | InspectionError | None = None

    @property
    def process_id(self) -> int:
        """Of the child; 0 while there is none."""
        child = self._child
        return 0 if child is None else child.process.pid

    def open(self) -> None:
        """Start the child and wait for the camera, at most its open time and ten seconds.

        A camera that is away is no error here: ``fault`` says so, and it comes back by itself.  ConfigError or
        DriverMissing when it can never be opened.
        """
        if not hasattr(os, "memfd_create"):
            raise DriverMissing(
                f"camera {self.camera_id!r}: cameras of kind {self.config.kind!r} need Linux",
                fix="use a Linux computer",
            )
        self.close()
        self._closing.clear()
        self._fatal, self._settled, self._told = None, False, False
        self._wrong = self._error("is still being opened", "wait; check its power, cable and network")
        self._thread = threading.Thread(target=self._supervise, name=f"camera {self.camera_id}", daemon=True)
        self._thread.start()
        with self._news:
            self._news.wait_for(lambda: self._settled, self._open_s)
        if self._fatal is not None:
            self.close()
            raise _again(self._fatal)

    def grab(self, trigger: Trigger, timeout_ms: int) -> Frame:
        """The frame for this trigger; CameraError at once while the camera is away."""
        deadline_s = time.monotonic() + timeout_ms / 1000
        with self._news:
            child = self._child
            if self._wrong is not None or child is None:
                raise _again(self._wrong or self._not_open())
            self._number += 1
            self._wanted, self._answer = self._number, None
            try:
                child.ask(self._number, trigger, deadline_s)
            except OSError as error:
                self._wanted = 0
                raise self._error(f"cannot be asked: its process does not listen ({error.strerror})") from error
            self._news.wait_for(lambda: self._answer is not None, max(0.0, deadline_s - time.monotonic()) + GRACE_S)
            answer, self._answer, self._wanted = self._answer, None, 0
            if answer is None:
                self._late = self._number
                self._tell(self._error("does not answer: its driver hangs, or its process is stopped"))
        if isinstance(answer, Frame):
            return answer
        if answer is not None:
            raise answer
        raise CameraTimeout(
            f"camera {self.camera_id!r} did not answer within {timeout_ms} ms after trigger {trigger.trigger_id}",
            fix="its process is started again; if this repeats, check cable, driver and the computer's load",
        )

    def fault(self) -> str:
        """What is wrong with the camera or with its process, "" while it can be used."""
        wrong = self._wrong
        return "" if wrong is None else wrong.what

    def close(self) -> None:
        """Let the driver close, and end its process after three seconds at the latest; a second call does nothing."""
        if self._thread is not None:
            self._closing.set()
            self._thread.join(3 * CLOSE_S)
            self._thread = None
        self._wrong = self._not_open()

    # ---- the thread that owns the child: from its first start to ``close``

    def _supervise(self) -> None:
        # The system ends a child when the thread that started it ends, so all are started from this one.
        pause_s = FIRST_RETRY_S
        while not self._closing.is_set():
            try:
                lost = self._run_child()
            except OSError as error:
                lost = f"has no process: it cannot be started ({error.strerror})"
            if self._gave:
                pause_s = FIRST_RETRY_S
            if not self._closing.is_set():
                self._tell(self._fatal or self._error(lost))
                self._closing.wait(pause_s)
                pause_s = min(2 * pause_s, LAST_RETRY_S)
        self._tell(self._not_open(), quietly=True)

    def _run_child(self) -> str:
        """Serve one child until it is lost (why) or the camera is closed ("")."""
        child = ChildProcess(self.config, self.camera_id, open_s=self._open_s)
        self._gave, self._late = False, 0
        lost = "is lost: its process was ended"
        try:
            self._child = child
            lost = self._listen(child)
        finally:
            with self._news:
                self._child = None
                if not self._closing.is_set():  # nobody may ask a child that is being ended
                    self._tell(self._fatal or self._error(lost))
            child.end(gently=self._closing.is_set())
        return lost

    def _listen(self, child: ChildProcess) -> str:
        while not self._closing.is_set():
            try:
                received = child.wire.receive(TICK_S)
                if received is not None:
                    self._take(child, *received)
                    continue
                child.ping()
            except (OSError, EOFError):
                with suppress(subprocess.TimeoutExpired):
                    child.process.wait(HUNG_S)
                return f"is lost: its process ended ({child.process.returncode})"
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                return f"is lost: its process sent what cannot be read ({type(error).__name__}: {error})"
            if child.overdue:
                return "is lost: its process does not answer"
        return ""

    def _take(self, child: ChildProcess, message: Message, block: int | None) -> None:
        if block is not None:
            child.block.attach(block)
        child.hear(message)
        word = message["say"]
        if word == "open":
            self._fatal, self._late = None, 0
            self._tell(None)
        elif word == "away":
            self._late = 0
            self._tell(read_error(message))
        elif word == "fatal":
            self._fatal = read_error(message)
            self._tell(self._fatal)
        elif word in ("frame", "error"):
            self._take_answer(child, message)

    def _take_answer(self, child: ChildProcess, message: Message) -> None:
        with self._news:
            number = message["number"]
            if number == self._wanted:
                framed = message["say"] == "frame"
                self._gave = self._gave or framed
                self._answer = child.block.read(message, self.camera_id) if framed else read_error(message)
                self._news.notify_all()
                return
            event("camera.late_answer", camera=self.camera_id, answer=message["say"], frame=message.get("frame_id", ""))
            if number == self._late:  # the child is with us again
                self._late = 0
                self._tell(None)

    def _tell(self, wrong: InspectionError | None, *, quietly: bool = False) -> None:
        """Take over what is wrong, let who waits for a frame know it, and log a change."""
        with self._news:
            self._wrong, self._settled = wrong, True
            if wrong is not None and self._wanted and self._answer is None:
                self._answer = _again(wrong)
            self._news.notify_all()
        if quietly or self._told == (wrong is not None):
            return
        self._told = wrong is not None
        if wrong is None:
            event("camera.back", camera=self.camera_id)
        else:
            event("camera.lost", level=logging.ERROR, camera=self.camera_id, what=wrong.what, fix=wrong.fix)

    def _error(self, text: str, fix: str = "wait until it is started again; the log says more") -> CameraError:
        return CameraError(f"camera {self.camera_id!r} {text}", fix=fix)

    def _not_open(self) -> CameraError:
        return self._error("is not open", "open it before the first trigger")


def _again(error: InspectionError) -> InspectionError:
    """The same error to be raised once more, without the traces of earlier times."""
    return type(error)(error.what, fix=error.fix)
