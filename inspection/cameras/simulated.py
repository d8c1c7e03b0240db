"""A camera without a camera: it makes its own frames, and misbehaves on request as real ones do."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from inspection.errors import CameraError, CameraTimeout, FrameCorrupt, InspectionError
from inspection.images import read_image
from inspection.types import Frame, Trigger, utc_now

Image = NDArray[np.uint8]
FaultKind = Literal["late", "torn", "missing", "stale"]
_Side = Annotated[int, Field(ge=16, le=16384)]


class CameraFault(BaseModel):
    """One way to misbehave, again and again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    every_n: int = Field(ge=1, le=1_000_000, description="Every how many triggers, 1..1000000; 1 = always.")
    kind: FaultKind = Field(
        description="late = the frame comes after the time allowed; torn = it arrives damaged; missing = none comes; "
        "stale = the camera hands out the previous part's frame again."
    )


class SimulatedCameraConfig(BaseModel):
    """What the simulated camera shows, how fast, and how it misbehaves."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["simulated"] = "simulated"
    image: str = Field(default="", description="Image file shown, such as the golden template; empty = a test pattern.")
    size_px: tuple[_Side, _Side] = Field(
        default=(640, 480), description="Width and height of the test pattern, pixels, 16..16384."
    )
    noise: float = Field(
        default=2.0, ge=0, le=64, description="Sensor noise, standard deviation in grey levels, 0..64."
    )
    seed: int = Field(default=0, ge=0, le=2**31, description="Seed of the noise; the same seed gives the same frames.")
    frame_ms: int = Field(default=0, ge=0, le=60_000, description="Time from trigger to frame, ms, 0..60000.")
    late_ms: int = Field(default=20, ge=1, le=60_000, description="How much too late a late frame comes, ms, 1..60000.")
    faults: tuple[CameraFault, ...] = Field(default=(), description="Misbehaviour; the first that is due applies.")


@dataclass(frozen=True, slots=True, eq=False)
class _Exposure:
    """A frame on its way: when it was exposed and when it arrives (seconds, monotonic)."""

    frame: Frame
    exposed_s: float
    arrives_s: float
    torn: bool = False


class SimulatedCamera:
    """Shows one picture with fresh noise for each trigger; a frame that came too late is never given to a later one."""

    def __init__(self, config: SimulatedCameraConfig, *, camera_id: str) -> None:
        self.config = config
        self.camera_id = camera_id
        self._picture: Image | None = None
        self._triggers = 0
        self._arriving: list[_Exposure] = []
        self._last: _Exposure | None = None

    def open(self) -> None:
        """Read the image or draw the pattern, and start counting triggers; CameraError when the file is unusable."""
        self._triggers, self._arriving, self._last = 0, [], None
        try:
            self._picture = read_image(Path(self.config.image)) if self.config.image else _pattern(self.config.size_px)
        except InspectionError as error:
            raise CameraError(f"camera {self.camera_id!r}: {error.what}", fix=error.fix) from error

    def grab(self, trigger: Trigger, timeout_ms: int) -> Frame:
        """The frame exposed for this trigger; waits for it, at most ``timeout_ms``."""
        asked_s = time.monotonic()
        deadline_s = asked_s + timeout_ms / 1000
        self._expose(asked_s, deadline_s)
        self._arriving.sort(key=lambda exposure: exposure.arrives_s)
        refused = 0
        while self._arriving and self._arriving[0].arrives_s <= deadline_s:
            exposure = self._arriving.pop(0)
            _sleep_until(exposure.arrives_s)
            if exposure.exposed_s < asked_s:  # it shows an earlier part
                refused += 1
                continue
            if exposure.torn:
                raise FrameCorrupt(
                    f"camera {self.camera_id!r} sent half a frame for trigger {trigger.trigger_id}",
                    fix="check cable and network load; a simulated fault of kind torn asks for this",
                )
            self._last = exposure
            return exposure.frame
        _sleep_until(deadline_s)
        older = f"; {refused} older frames were refused" if refused else ""
        raise CameraTimeout(
            f"camera {self.camera_id!r} gave no frame in {timeout_ms} ms after trigger {trigger.trigger_id}{older}",
            fix="check trigger cable and exposure time; simulated faults late, missing and stale ask for this",
        )

    def fault(self) -> str:
        """Always "": what is wrong with it shows in ``grab``."""
        return ""

    def close(self) -> None:
        """Forget the picture and what is on its way; a second call does nothing."""
        self._picture, self._arriving, self._last = None, [], None

    def _expose(self, asked_s: float, deadline_s: float) -> None:
        """Put the frame of this trigger on its way, as the fault that is due wants it."""
        if self._picture is None:
            raise CameraError(f"camera {self.camera_id!r} is not open", fix="open it before the first trigger")
        self._triggers += 1
        fault = next((f.kind for f in self.config.faults if self._triggers % f.every_n == 0), None)
        if fault == "missing":
            return
        arrives_s = asked_s + self.config.frame_ms / 1000
        if fault == "stale":
            if self._last is not None:
                self._arriving.append(_Exposure(self._last.frame, self._last.exposed_s, arrives_s))
            return
        if fault == "late":
            arrives_s = deadline_s + self.config.late_ms / 1000
        frame = Frame(self._noisy(self._picture), self.camera_id, utc_now(), f"frame#{self._triggers}", simulated=True)
        self._arriving.append(_Exposure(frame, time.monotonic(), arrives_s, torn=fault == "torn"))

    def _noisy(self, picture: Image) -> Image:
        rng = np.random.default_rng([self.config.seed, self._triggers])
        noise = rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(self.config.noise)
        return np.clip(picture + noise, 0, 255).round().astype(np.uint8)


def _sleep_until(moment_s: float) -> None:
    time.sleep(max(0.0, moment_s - time.monotonic()))


def _pattern(size_px: tuple[int, int]) -> Image:
    """Pads and tracks without symmetry (height, width), so that a frame can be registered on it."""
    width, height = size_px
    picture = np.full((height, width), 200, np.uint8)
    pitch = max(8, min(width, height) // 8)
    for number, y in enumerate(range(pitch // 2, height, pitch)):
        cv2.line(picture, (0, y), (width * (number % 5 + 3) // 8, y), 60, max(1, pitch // (4 + number % 3)))
        cv2.circle(picture, (width - pitch - (number * number * 7) % max(1, width // 3), y), pitch // 3, 60, -1)
    return picture
