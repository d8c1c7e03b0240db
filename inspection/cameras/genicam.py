"""GigE Vision and USB3 Vision cameras of any make, through Aravis 0.8.

The frame belongs to the trigger.  Buffers that were filled before a trigger are thrown away; what comes after it must
have a number that was never seen, and have been exposed after the call by the camera's own clock where that can be read.
Where it cannot, a frame by line trigger or in free run counts only when its first packet came later than the call by the
exposure time or more.  After a software trigger whose frame did not come in time the camera is stopped and started, so
that this frame cannot be taken for the next one's.
"""

import logging
import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from inspection.cameras.aravis import list_devices
from inspection.cameras.aravis_link import PLUG, SILENT_S, AravisLink
from inspection.cameras.pixels import FORMATS, decode
from inspection.errors import CameraError, CameraTimeout, FrameCorrupt
from inspection.log import event
from inspection.types import Frame, Trigger, utc_now

__all__ = ["GenicamCamera", "GenicamCameraConfig", "is_newer", "list_devices"]
_Pixel = Annotated[int, Field(ge=0, le=65535)]
SLICE_S = 0.05  # the longest wait without looking whether the camera is still there
SETTLE_S = 0.05  # after a stop: longer than a frame needs from the sensor to here
SHORT_IDS = 65535  # GigE Vision counts frames 1..65535 and begins anew


class GenicamCameraConfig(BaseModel):
    """Which camera, what it shows, and how it is triggered."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["genicam"] = "genicam"
    device: str = Field(
        default="", max_length=128,
        description="Serial number, IP address or Aravis id; empty = the only camera that answers. "
        "`lineside cameras` lists them; Fake_1 is a camera inside the library.",
    )  # fmt: skip
    roi_px: tuple[_Pixel, _Pixel, _Pixel, _Pixel] | None = Field(
        default=None, description="Part of the sensor x1, y1, x2, y2, pixels; left out = the whole sensor."
    )
    exposure_us: float | None = Field(
        default=None, gt=0, le=1e8, description="Exposure time, microseconds; left out = as the camera is set."
    )
    gain: float | None = Field(
        default=None, ge=-100, le=1000, description="Gain in the camera's unit; left out = as the camera is set."
    )
    pixel_format: str = Field(default="Mono8", description="PFNC name, such as Mono8, Mono12p or BayerRG8.")
    trigger: Literal["software", "line", "free"] = Field(
        default="software",
        description="What starts an exposure: software = the station; line = the camera's input; free = the camera itself.",
    )
    line: str = Field(default="Line1", min_length=1, max_length=64, description="Input for trigger = line.")
    edge: Literal["rising", "falling"] = Field(default="rising", description="Edge of that input: rising or falling.")
    packet_size: int = Field(
        default=0,
        ge=0,
        le=16384,
        description="Bytes of a GigE Vision packet, 576..16384; 0 = found out with the camera.",
    )
    packet_resend: bool = Field(default=True, description="Whether lost packets are asked for again, true or false.")
    socket_buffer_kb: int = Field(
        default=0, ge=0, le=1_000_000, description="Socket buffer asked for, KiB; 0 = two frames, at least 1024."
    )
    buffers: int = Field(default=8, ge=2, le=256, description="Frames the driver may hold, 2..256.")

    @field_validator("roi_px")
    @classmethod
    def _is_a_box(cls, roi_px: tuple[int, int, int, int] | None) -> tuple[int, int, int, int] | None:
        if roi_px is not None and not (roi_px[0] < roi_px[2] and roi_px[1] < roi_px[3]):
            raise ValueError(f"is empty: {list(roi_px)} must be x1, y1, x2, y2 with x1 < x2 and y1 < y2")
        return roi_px

    @field_validator("pixel_format")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in FORMATS:
            raise ValueError(f"{name!r} cannot be read; known: {', '.join(sorted(FORMATS))}")
        return name

    @field_validator("packet_size")
    @classmethod
    def _possible(cls, size: int) -> int:
        if 0 < size < 576:
            raise ValueError("must be 0 or at least 576, the smallest packet of GigE Vision")
        return size


def is_newer(frame_id: int, last: int | None) -> bool:
    """Whether a frame's number comes after the last one seen, also where numbers of 16 bits begin anew."""
    if last is None or frame_id > last > SHORT_IDS:
        return True
    if frame_id > SHORT_IDS or last > SHORT_IDS:
        return frame_id > last
    return 0 < (frame_id - last) % SHORT_IDS <= SHORT_IDS // 2


@dataclass(slots=True)
class _Call:
    """One grab: since when, until when (monotonic seconds), what the camera's clock said, what was refused."""

    trigger_id: str
    timeout_ms: int
    since_s: float
    clock_ns: int | None = None
    missing: int = 0  # packets missing so far, as the stream counts them
    refused: int = 0

    @property
    def until_s(self) -> float:
        return self.since_s + self.timeout_ms / 1000


class GenicamCamera:
    """Takes one frame for each trigger from a GigE Vision or USB3 Vision camera.

    ``open`` blocks: about a second of search unless ``device`` is an IP address, 2.5 s when the camera is away.
    ``grab`` keeps its time also when the camera is dead.  A camera that was lost stays lost until it is opened again;
    the process it runs in does that.
    """

    def __init__(self, config: GenicamCameraConfig, *, camera_id: str) -> None:
        self.config = config
        self.camera_id = camera_id
        self._link: AravisLink | None = None
        self._last_id: int | None = None
        self._awaited = False  # a software trigger was sent whose frame has not come
        self._frames = 0

    def open(self) -> None:
        """Find the camera, write its settings and start it; CameraError when it is away, ConfigError on a wrong setting."""
        self.close()
        self._last_id, self._awaited = None, False
        self._link = AravisLink(self.config, self.camera_id)

    def grab(self, trigger: Trigger, timeout_ms: int) -> Frame:
        """The frame exposed for this trigger; waits for it, at most ``timeout_ms``."""
        link = self._link
        if link is None:
            raise CameraError(f"camera {self.camera_id!r} is not open", fix="open it before the first trigger")
        self._refuse_lost(link)
        call = _Call(trigger.trigger_id, timeout_ms, time.monotonic())
        if self._awaited:
            self._start_anew(link, call)
        self._drain(link)
        call.missing = link.missing_packets()
        call.clock_ns = link.ask(link.clock_ns, call.until_s) if link.has_clock else None
        if self.config.trigger == "software":
            self._awaited = True
            link.ask(link.camera.software_trigger, call.until_s)
        self._refuse_lost(link)
        return self._awaited_frame(link, call)

    def fault(self) -> str:
        """ "" while the camera answers, else what is wrong; asks it something about once a second, never blocks."""
        return f"camera {self.camera_id!r} is not open" if self._link is None else self._link.trouble()

    def close(self) -> None:
        """Let the camera go, which takes some seconds when it does not answer; a second call does nothing."""
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _awaited_frame(self, link: AravisLink, call: _Call) -> Frame:
        half_s = call.since_s + call.timeout_ms / 2000
        while (now_s := time.monotonic()) < call.until_s:
            if now_s >= half_s:
                link.look()  # so that it is known at the end whether a trigger was missed or the camera is gone
            self._refuse_lost(link)
            buffer = link.stream.timeout_pop_buffer(max(1, int(min(SLICE_S, call.until_s - now_s) * 1e6)))
            if buffer is None:
                continue
            try:
                frame = self._frame(link, call, buffer)
            finally:
                link.stream.push_buffer(buffer)
            if frame is not None:
                return frame
        raise self._no_frame(link, call)

    def _frame(self, link: AravisLink, call: _Call, buffer: Any) -> Frame | None:
        """The frame in a buffer, or None when it is older than the call; FrameCorrupt when it is damaged."""
        if self._is_older(link, call, buffer):
            call.refused += 1
            return None
        self._awaited = False
        self._refuse_torn(link, call, buffer)
        width, height = link.size_px
        if (buffer.get_image_width(), buffer.get_image_height()) != link.size_px or (
            buffer.get_image_pixel_format() != link.pixel_format
        ):
            raise FrameCorrupt(
                f"camera {self.camera_id!r} sent {buffer.get_image_width()} x {buffer.get_image_height()} pixels of format "
                f"{buffer.get_image_pixel_format():#x}, set is {width} x {height} of {link.pixel_format:#x}",
                fix="let no other program change the camera's settings",
            )
        pixels = decode(buffer.get_data(), self.config.pixel_format, width, height)
        self._frames += 1
        name = f"{link.device_id}#{self._frames}/{buffer.get_frame_id()}"
        return Frame(pixels.image, self.camera_id, utc_now(), name, simulated=link.simulated, raw=pixels.raw)

    def _is_older(self, link: AravisLink, call: _Call, buffer: Any) -> bool:
        number, last = int(buffer.get_frame_id()), self._last_id
        if not is_newer(number, last):
            return True
        self._last_id = number
        stamp_ns = int(buffer.get_timestamp())
        if call.clock_ns is not None and stamp_ns:
            return stamp_ns < call.clock_ns
        if self.config.trigger == "software":
            return False
        # The system clock may be set between arrival and now; that moves only frames that were on their way at the call.
        age_s = (time.time_ns() - int(buffer.get_system_timestamp())) / 1e9
        return time.monotonic() - age_s - link.exposure_us / 1e6 < call.since_s

    def _refuse_torn(self, link: AravisLink, call: _Call, buffer: Any) -> None:
        status = buffer.get_status().value_nick
        if status == "success":
            return
        missing = link.missing_packets() - call.missing
        raise FrameCorrupt(
            f"camera {self.camera_id!r} sent a damaged frame for trigger {call.trigger_id}: {status}, "
            f"{missing} packets are missing",
            fix=link.socket_note or "check cable and network load, and that every switch passes packets of packet_size",
        )

    def _no_frame(self, link: AravisLink, call: _Call) -> CameraError:
        lost = link.trouble()
        if lost or link.unanswered_s() >= SILENT_S:
            silent = f"camera {self.camera_id!r} has not answered for {link.unanswered_s() * 1000:.0f} ms"
            return CameraError(lost or silent, fix=PLUG)
        older = f"; {call.refused} older frames were refused" if call.refused else ""
        alive = "" if link.unanswered_s() else "; the camera itself answers"
        return CameraTimeout(
            f"camera {self.camera_id!r} gave no frame in {call.timeout_ms} ms after trigger {call.trigger_id}{older}",
            fix=link.socket_note or f"check trigger cable and exposure time{alive}",
        )

    def _refuse_lost(self, link: AravisLink) -> None:
        lost = link.trouble()
        if lost:
            raise CameraError(lost, fix=PLUG)

    def _start_anew(self, link: AravisLink, call: _Call) -> None:
        """After a frame that did not come in time: stop, let what is on its way arrive and throw it away, and start."""
        link.ask(link.camera.stop_acquisition, call.until_s)
        time.sleep(max(0.0, min(SETTLE_S + link.exposure_us / 1e6, call.until_s - time.monotonic())))
        dropped = self._drain(link)
        link.ask(link.camera.start_acquisition, call.until_s)
        self._refuse_lost(link)
        self._awaited, self._last_id = False, None
        event("camera.restarted", level=logging.WARNING, camera=self.camera_id, late_frames=dropped)

    def _drain(self, link: AravisLink) -> int:
        """Throw away what was filled before; how many buffers that were."""
        dropped = 0
        while (buffer := link.stream.try_pop_buffer()) is not None:
            if is_newer(number := int(buffer.get_frame_id()), self._last_id):
                self._last_id = number
            link.stream.push_buffer(buffer)
            dropped += 1
        return dropped
