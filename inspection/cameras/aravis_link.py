"""An open GigE Vision or USB3 Vision camera: questions that are given up in time, and knowing when it is gone.

Aravis waits 2.5 s for a camera that does not answer, and says nothing at all when frames stop coming because the camera
is dead.  So questions are asked by a thread of their own, the camera is asked something cheap at a bounded rate, and
what it leaves unanswered is counted.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from typing import TYPE_CHECKING, Any

from inspection.cameras.aravis import make_stream, open_camera, set_up, told
from inspection.errors import CameraError, CameraTimeout, InspectionError
from inspection.log import event

if TYPE_CHECKING:
    from inspection.cameras.genicam import GenicamCameraConfig

LOOK_EVERY_S = 1.0
GONE_S = 1.5  # unanswered for so long, three repetitions of the question: the camera is gone
SILENT_S = 0.5  # unanswered for so long when a frame is missing as well: that is no missed trigger, the camera is away
PRIVILEGE_REGISTER = 0x0A00  # GigE Vision: who controls the camera; not zero while somebody does
PLUG = "check the camera's power, its cable and the network between; it is opened again as soon as it answers"
# Commands that put the camera's own clock, in nanoseconds, where it can be read.
CLOCKS = (("TimestampLatch", "TimestampLatchValue"),)
TICKING_CLOCK = ("GevTimestampControlLatch", "GevTimestampValue", "GevTimestampTickFrequency")


class AravisLink:
    """One open camera that is taking pictures.  Used by one thread; InspectionError when it cannot be opened."""

    def __init__(self, config: "GenicamCameraConfig", camera_id: str) -> None:
        self._name = f"camera {camera_id!r}"
        self._lost = ""
        self._asked_s = 0.0  # when the question was put that the camera has not answered yet
        self._looked_s = 0.0
        self._answer: Future[Any] | None = None
        self.camera = open_camera(config.device)
        set_up(self.camera, config)
        self.stream, granted = make_stream(self.camera, config)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="aravis")
        self._gone = threading.Event()
        gone = self._gone
        self.camera.get_device().connect("control-lost", lambda _device: gone.set())
        with told(f"{self._name} cannot be set to work"):
            self.device_id = str(self.camera.get_device_id())
            self.simulated = self.camera.get_vendor_name() == "Aravis"  # the fake cameras that come with the library
            self.payload_bytes = int(self.camera.get_payload())
            region = self.camera.get_region()
            self.size_px = (int(region.width), int(region.height))
            self.pixel_format = int(self.camera.get_pixel_format())
            self.exposure_us = self._exposure_us()
            self._clock = self._find_clock()
            self.has_clock = self._clock is not None
            self.counts_packets = bool(self.camera.is_gv_device())
            self.camera.start_acquisition()
        self.socket_note = _socket_note(granted, self.payload_bytes) if self.counts_packets else ""
        self._tell(camera_id, granted)

    def trouble(self) -> str:
        """Never blocks: "" while the camera answers, else what is wrong, in a sentence; asks anew about once a second."""
        if self._lost:
            return self._lost
        self._collect()
        if self._gone.is_set():
            self._lost = f"{self._name} is lost: it no longer accepts this station as its controller"
        elif self.unanswered_s() > GONE_S:
            self._lost = f"{self._name} has not answered for {self.unanswered_s():.1f} s"
        elif time.monotonic() >= self._looked_s + LOOK_EVERY_S:
            self.look()
        return self._lost

    def look(self) -> None:
        """Put a cheap question to the camera, unless one is waiting for its answer."""
        if self._answer is None and not self._lost:
            self._looked_s = time.monotonic()
            self._put(self._still_ours)

    def unanswered_s(self) -> float:
        """For how long the camera has left a question unanswered, 0 when none is open."""
        return time.monotonic() - self._asked_s if self._answer is not None and not self._answer.done() else 0.0

    def ask(self, question: Callable[[], Any], deadline_s: float) -> Any:
        """The camera's answer; CameraTimeout or CameraError when it has none by the deadline (monotonic seconds)."""
        if self._answer is not None:
            self._wait(deadline_s)
        self._put(question)
        return self._wait(deadline_s)

    def clock_ns(self) -> int | None:
        """What the camera's clock says now, in the time of its buffers' stamps; None when it cannot be read."""
        return None if self._clock is None else self._clock()

    def missing_packets(self) -> int:
        """Packets that never arrived since the camera was opened; 0 where the link has none."""
        return int(self.stream.get_info_uint64_by_name("n_missing_packets")) if self.counts_packets else 0

    def close(self) -> None:
        """Stop and let the camera go; takes some seconds when it does not answer."""
        if not (self._lost or self._gone.is_set() or self.unanswered_s()):
            self._worker.submit(_quietly, self.camera.stop_acquisition)
        self._worker.shutdown(wait=True)
        # The camera is set free when the last of these is forgotten: the stream first, its thread uses the device.
        self._answer = self._clock = None
        del self.stream
        del self.camera

    def _put(self, question: Callable[[], Any]) -> None:
        self._asked_s = time.monotonic()
        self._answer = self._worker.submit(question)

    def _wait(self, deadline_s: float) -> Any:
        if self._answer is None:
            raise RuntimeError("an answer is waited for that was never asked for")
        try:
            self._answer.exception(timeout=max(0.0, deadline_s - time.monotonic()))
        except NotYet:
            silent_s = self.unanswered_s()
            kind = CameraError if silent_s >= SILENT_S else CameraTimeout
            raise kind(f"{self._name} has not answered for {silent_s * 1000:.0f} ms", fix=PLUG) from None
        return self._collect()

    def _collect(self) -> Any:
        """The answer that has come, or None; one that is an error says that the camera is lost."""
        if self._answer is None or not self._answer.done():
            return None
        answer, self._answer = self._answer, None
        error = answer.exception()
        if error is None:
            return answer.result()
        what = error.what if isinstance(error, InspectionError) else getattr(error, "message", str(error))
        self._lost = f"{self._name} is lost: {what}"
        return None

    def _still_ours(self) -> None:
        if not self.camera.is_gv_device():
            self.camera.get_payload()
        elif not self.camera.get_device().read_register(PRIVILEGE_REGISTER):
            raise CameraError("it was started again, or another program took it", fix=PLUG)

    def _exposure_us(self) -> float:
        return float(self.camera.get_exposure_time()) if self.camera.is_exposure_time_available() else 0.0

    def _find_clock(self) -> Callable[[], int] | None:
        camera, there = self.camera, self.camera.is_feature_available
        for latch, value in CLOCKS:
            if there(latch) and there(value):
                return lambda: (camera.execute_command(latch), int(camera.get_integer(value)))[1]
        latch, value, frequency = TICKING_CLOCK
        if not (there(latch) and there(value) and there(frequency)):
            return None
        hertz = int(camera.get_integer(frequency)) or 1_000_000_000
        return lambda: (camera.execute_command(latch), int(camera.get_integer(value)))[1] * 1_000_000_000 // hertz

    def _tell(self, camera_id: str, granted: int) -> None:
        event(
            "camera.opened", camera=camera_id, device=self.device_id, size_px=self.size_px,
            frame_bytes=self.payload_bytes, socket_buffer_bytes=granted, camera_clock=self.has_clock,
        )  # fmt: skip
        if self.socket_note:
            event("camera.socket_buffer", level=logging.WARNING, camera=camera_id, note=self.socket_note)


def _quietly(call: Callable[[], Any]) -> None:
    """Call on the way out: a camera that is gone by now has stopped anyway."""
    try:
        with told("stopping"):
            call()
    except CameraError:
        return


def _socket_note(granted: int, frame_bytes: int) -> str:
    if granted >= frame_bytes:
        return ""
    return (
        f"the system grants a socket buffer of {granted} bytes, a frame has {frame_bytes}: frames may arrive torn; "
        f"allow more with: sysctl -w net.core.rmem_max={2 * frame_bytes}"
    )
