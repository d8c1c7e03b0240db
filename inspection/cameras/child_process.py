"""The station's side of a camera's process: it starts it, listens to it, and ends it."""

import logging
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from inspection.cameras.wire import FrameBlock, Message, Wire, trigger_message
from inspection.log import OWN, event
from inspection.types import Trigger

GRACE_S = 0.1  # a process that has not answered so long after the time allowed is late
HUNG_S = 1.0  # one that is later than this by so much is ended
PING_S = 0.5
SILENT_S = 1.5  # a ping unanswered for so long means that the process is stopped or hangs
CLOSE_S = 3.0  # the driver may take so long to close before its process is ended
_PACKAGES = str(Path(__file__).resolve().parents[2])


class ChildProcess:
    """The process, its connection, and by when it must be heard."""

    def __init__(self, config: Any, camera_id: str, *, open_s: float) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self.wire = Wire(ours)
        self.block = FrameBlock()
        self._open_s = open_s
        self._quiet_until_s = time.monotonic() + open_s  # it loads the driver and need not answer pings
        self._ping_s = 0.0  # when the ping was sent that is not answered yet, 0 = none
        self._next_ping_s = 0.0
        self._answer_by_s: float | None = None
        command = [
            sys.executable,
            "-P",
            "-m",
            "inspection.cameras.driver_process",
            str(theirs.fileno()),
            str(os.getpid()),
        ]
        path = os.pathsep.join(filter(None, (_PACKAGES, os.environ.get("PYTHONPATH"))))
        try:
            # Its own session: Ctrl-C in the station's terminal must not reach it.  Its stdout is no place for results.
            self.process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=2, start_new_session=True,
                env={**os.environ, "PYTHONPATH": path},
            )  # fmt: skip
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        kind = type(config)
        with suppress(OSError):  # it is gone already: that is noticed when it is listened to
            self.wire.send(
                {
                    "kind": config.kind,
                    "config_class": f"{kind.__module__}:{kind.__qualname__}",
                    "config": config.model_dump_json(),
                    "camera_id": camera_id,
                    "log_level": logging.getLevelName(logging.getLogger(OWN).getEffectiveLevel()),
                }
            )

    def ask(self, number: int, trigger: Trigger, deadline_s: float) -> None:
        """Send a request for a frame; OSError when the process is gone or has stopped reading."""
        self._answer_by_s = deadline_s + GRACE_S + HUNG_S
        self.wire.send({"do": "grab", "number": number, "trigger": trigger_message(trigger), "deadline_s": deadline_s})

    def hear(self, message: Message) -> None:
        """Note what a message says about the process."""
        now_s, word = time.monotonic(), message["say"]
        if word == "pong":
            self._ping_s = self._quiet_until_s = 0.0
        elif word in ("opening", "away"):  # opening and closing a driver take their time
            self._quiet_until_s = now_s + self._open_s
        elif word in ("frame", "error"):
            self._answer_by_s = None
        if word in ("open", "frame", "error"):
            self._quiet_until_s = now_s + SILENT_S  # a ping that waited meanwhile is answered now

    def ping(self) -> None:
        """Send a ping when one is due and none is on its way."""
        now_s = time.monotonic()
        if not self._ping_s and now_s >= self._next_ping_s:
            self.wire.send({"do": "ping"})
            self._ping_s, self._next_ping_s = now_s, now_s + PING_S

    @property
    def overdue(self) -> bool:
        """Whether the process has been silent for longer than it may be."""
        now_s, answer_by_s = time.monotonic(), self._answer_by_s
        if answer_by_s is not None:
            return now_s > answer_by_s
        return bool(self._ping_s) and now_s > max(self._ping_s + SILENT_S, self._quiet_until_s)

    def end(self, *, gently: bool) -> None:
        """End the process, after it closed its driver where there is time for that."""
        if gently:
            with suppress(OSError):
                self.wire.send({"do": "close"})
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(CLOSE_S)
        self.process.kill()
        try:
            self.process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:  # it hangs in the kernel: nothing more can be done from here
            event("camera.process_stuck", level=logging.ERROR, pid=self.process.pid)
        self.wire.link.close()
        self.block.close()
