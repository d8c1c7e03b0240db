"""The process in which one camera driver runs: `python -m inspection.cameras.driver_process SOCKET STATION_PID`.

Started by ``OwnProcessCamera`` only.  One thread serves the driver: it opens it, asks it for frames, looks after its
faults between them, and opens it again when the camera was away.  The process ends with the station: when the station
closes it, when the connection breaks, or when the station is killed, whatever the driver is doing at that moment.
"""

import ctypes
import importlib
import os
import select
import signal
import socket
import sys
import threading
import time
from typing import Any

from inspection import log
from inspection.cameras import CAMERAS, Camera
from inspection.cameras.wire import FrameBlock, Message, Wire, error_message, read_trigger
from inspection.errors import CameraError, CameraTimeout, FrameCorrupt, InspectionError
from inspection.plugins import resolve

CHECK_S = 0.5  # how often the driver is asked for its fault
FIRST_RETRY_S = 0.2
LAST_RETRY_S = 5.0
STEADY_S = 10.0  # a camera that was open for so long has come back for good
_PR_SET_PDEATHSIG = 1


class StuckDriver(Exception):
    """The driver cannot be closed, so only a new process helps."""


class DriverProcess:
    """Serves one driver to the station at the other end of ``wire``."""

    def __init__(self, wire: Wire, camera: Camera) -> None:
        self._wire = wire
        self._camera = camera
        self._block = FrameBlock()
        self._away: InspectionError | None = CameraError("the camera is not open", fix="wait until it is")
        self._opened_s = self._checked_s = self._retry_at_s = 0.0
        self._retry_s = FIRST_RETRY_S

    def serve(self) -> None:
        """Until the station says close; InspectionError when the driver can never be opened as it is configured."""
        while True:
            if self._away is not None and time.monotonic() >= self._retry_at_s:
                self._open()
            received = self._wire.receive(self._pause_s())
            if received is not None and not self._obey(received[0]):
                self._close()
                return
            if self._away is None and time.monotonic() >= self._checked_s + CHECK_S:
                self._check()

    def _pause_s(self) -> float:
        next_s = self._checked_s + CHECK_S if self._away is None else self._retry_at_s
        return max(0.0, next_s - time.monotonic())

    def _obey(self, message: Message) -> bool:
        if message["do"] == "ping":
            self._wire.send({"say": "pong"})
        elif message["do"] == "grab":
            self._grab(message)
        return bool(message["do"] != "close")

    def _open(self) -> None:
        self._wire.send({"say": "opening"})
        try:
            self._camera.open()
        except CameraError as error:
            self._lose(error)
        except InspectionError:
            raise  # a wrong setting, or a package that is missing: trying again does not help
        except Exception as error:  # drivers raise classes of their own
            self._lose(_failed(error))
        else:
            self._away = None
            self._opened_s = self._checked_s = time.monotonic()
            self._wire.send({"say": "open"})

    def _check(self) -> None:
        text = self._camera.fault()
        self._checked_s = time.monotonic()
        if text:
            self._lose(CameraError(text, fix="check its power, cable and network; it is opened again by itself"))

    def _lose(self, error: InspectionError) -> None:
        """Close the driver, and open it again after a pause that grows from try to try."""
        now_s = time.monotonic()
        if self._away is None and now_s - self._opened_s > STEADY_S:
            self._retry_s = FIRST_RETRY_S
        self._away = error
        self._wire.send({"say": "away", **error_message(error)})
        self._close()
        self._retry_at_s = time.monotonic() + self._retry_s
        self._retry_s = min(2 * self._retry_s, LAST_RETRY_S)

    def _close(self) -> None:
        try:
            self._camera.close()
        except InspectionError as error:
            raise StuckDriver(error.what) from error

    def _grab(self, message: Message) -> None:
        number, lost = message["number"], None
        try:
            header, block = self._block.write(self._frame(message))
        except (CameraTimeout, FrameCorrupt) as error:
            self._refuse(number, error)
            self._checked_s = 0.0  # see at once whether the camera is still there
        except InspectionError as error:
            self._refuse(number, error)
            lost = error
        except Exception as error:  # drivers raise classes of their own
            lost = _failed(error)
            self._refuse(number, lost)
        else:
            self._retry_s = FIRST_RETRY_S
            self._wire.send({"say": "frame", "number": number, **header}, block)
            if block is not None:
                os.close(block)
        if lost is not None and self._away is None:
            self._lose(lost)

    def _frame(self, message: Message) -> Any:
        if self._away is not None:
            raise self._away
        trigger = read_trigger(message["trigger"])
        left_ms = int((message["deadline_s"] - time.monotonic()) * 1000)
        if left_ms < 1:
            raise CameraTimeout(
                f"trigger {trigger.trigger_id} reached the camera's process too late",
                fix="allow more time, or give the computer less to do",
            )
        return self._camera.grab(trigger, left_ms)

    def _refuse(self, number: int, error: InspectionError) -> None:
        self._wire.send({"say": "error", "number": number, **error_message(error)})


def _failed(error: Exception) -> CameraError:
    log.event("camera.driver_failed", error=error)
    return CameraError(
        f"the camera's driver failed: {type(error).__name__}: {error}",
        fix="it is opened again by itself; if this repeats, report the traceback in the log",
    )


def _end_with(station_pid: int, link: socket.socket) -> None:
    """Let the system kill this process when the station dies, also while it is stopped or hangs in a driver."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != station_pid:
        os._exit(1)  # it died before
    threading.Thread(target=_watch, args=(link,), name="watch station", daemon=True).start()


def _watch(link: socket.socket) -> None:
    poll = select.poll()
    poll.register(link, select.POLLHUP)
    poll.poll()
    os._exit(1)


def _driver(order: Message) -> Camera:
    module, _, name = order["config_class"].partition(":")
    config = getattr(importlib.import_module(module), name).model_validate_json(order["config"])
    made: Camera = resolve(CAMERAS, order["kind"], "camera")(config, camera_id=order["camera_id"])
    return made


def main() -> None:
    """Serve the driver that the first message names; never returns.

    Ends without tidying up: a vendor's library that hangs while it is unloaded must not keep the process.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # they mean the station, which ends this process when it is done with it
    link = socket.socket(fileno=int(sys.argv[1]))
    _end_with(int(sys.argv[2]), link)
    wire = Wire(link)
    received = wire.receive(60.0)
    if received is None:
        os._exit(1)
    order = received[0]
    log.set_up(order["log_level"])
    try:
        DriverProcess(wire, _driver(order)).serve()
    except InspectionError as error:
        wire.send({"say": "fatal", **error_message(error)})
    except Exception as error:  # a driver that cannot even be closed: the station starts this process anew
        log.event("camera.process_failed", camera=order["camera_id"], error=error)
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
