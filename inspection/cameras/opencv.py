"""Cameras that OpenCV reads: USB devices, RTSP and other network streams; and video files, for replays.

Streams and devices run free: they cannot be triggered, so ``grab`` waits for a frame that was exposed after the call.
How that is known:

* A thread takes every frame as it arrives, so nothing waits in a buffer of ours.
* The stamp of a frame (RTP time, or the driver's time of a device) says how long after the frame before it was exposed.
  The frame that travelled fastest among the last ten seconds ties the stamps to this computer's clock; a frame that was
  held up on its way is seen to be old and refused, however late it arrives.
* What no frame tells is how long even the fastest one travels: exposure, encoding and network.  ``latency_ms`` has to
  cover that; measure it once with a lamp.  Set too low, a frame exposed up to the missing time before the trigger may
  pass; too high costs waiting time only.
* Where ten stamps in a row stand still the source has none; then the arrival counts, with the same ``latency_ms``.
  A single stamp that is not newer than the one before proves nothing, and its frame is refused.

A stream compresses its pictures: fine for presence, not for the smallest defects.  Where the moment of exposure must be
exact, use a camera with a trigger input.
"""

import os
import re
import time
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from inspection.cameras.stream import StreamReader
from inspection.errors import CameraError, CameraTimeout, ConfigError, FrameCorrupt
from inspection.types import Frame, Trigger, utc_now

Image = NDArray[np.uint8]
_PASSWORD = re.compile(r"(?<=://)[^/@]*@")
_Side = Annotated[int, Field(ge=1, le=65535)]


class OpencvCameraConfig(BaseModel):
    """Which device, stream or video file is read, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["opencv"] = "opencv"
    source: str = Field(
        min_length=1, max_length=2000,
        description="Number of a USB device (0 = first), a stream such as rtsp://user:{password}@192.168.0.9/main, or a "
        "video file (frames of a file count as simulated).",
    )  # fmt: skip
    password_env: str = Field(
        default="", description="Environment variable whose value stands for {password} in source; empty = none."
    )
    size_px: tuple[_Side, _Side] | None = Field(
        default=None,
        description="Width and height every frame must have, pixels, 1..65535; asked of a device. Left out = any.",
    )
    color: Literal["rgb", "grey"] = Field(default="rgb", description="Whether frames are colour or reduced to grey.")
    fps: float | None = Field(
        default=None, gt=0, le=1000, description="Frames a second asked of a device, up to 1000; left out = its own."
    )
    exposure: float | None = Field(
        default=None,
        description="Exposure asked of a device, in the unit of its driver (V4L2: 100 us); left out = its own.",
    )
    latency_ms: int = Field(
        default=300, ge=0, le=5000,
        description="Longest time from exposure to arrival of an undisturbed frame of a stream or device, ms, 0..5000; "
        "frames that arrive sooner after a trigger are refused.",
    )  # fmt: skip
    open_timeout_ms: int = Field(
        default=5000, ge=100, le=60_000, description="Longest time to open a stream, ms, 100..60000."
    )
    read_timeout_ms: int = Field(
        default=2000, ge=50, le=60_000,
        description="A stream or device without a new frame for so long is a fault, ms, 50..60000.",
    )  # fmt: skip
    loop: bool = Field(
        default=False, description="Whether a video file starts again after its last frame, true or false."
    )

    @property
    def is_device(self) -> bool:
        """Whether the source is the number of a device."""
        return self.source.isdecimal()

    @property
    def is_file(self) -> bool:
        """Whether the source is a video file."""
        return not self.is_device and "://" not in self.source

    @property
    def shown(self) -> str:
        """The source as it may be shown: without user and password."""
        return _PASSWORD.sub("", self.source)


class OpencvCamera:
    """Reads a device, a stream or a video file; of a file, each trigger gets the next frame."""

    def __init__(self, config: OpencvCameraConfig, *, camera_id: str) -> None:
        self.config = config
        self.camera_id = camera_id
        self._capture: Any = None
        self._frames = 0
        self._reader: StreamReader | None = None

    def open(self) -> None:
        """Open the source, and of a stream throw away what had piled up; CameraError when it cannot be read."""
        self._capture = self._connected()
        self._frames = 0
        if self.config.is_file:
            return
        self._reader = StreamReader(self._capture, self.config, self._error)
        try:
            self._reader.settle()
        except CameraError:
            self.close()
            raise

    def grab(self, trigger: Trigger, timeout_ms: int) -> Frame:
        """A frame exposed after the call, or the next one of a file."""
        if self._capture is None:
            raise self._error("is not open", "open it before the first trigger")
        if self._reader is None:
            pixels = self._next(trigger)
            self._frames += 1
            name = f"{Path(self.config.source).name}#{self._frames}"
            return Frame(self._image(pixels), self.camera_id, utc_now(), name, simulated=True)
        taken = self._reader.take(trigger, timeout_ms)
        image = self._image(taken.pixels)
        captured_at = utc_now() - timedelta(seconds=time.monotonic() - taken.exposed_s)
        name = f"{self.config.shown}#{taken.number}"
        return Frame(image, self.camera_id, captured_at, name, simulated=False)

    def fault(self) -> str:
        """What is wrong with a stream or device; of a file "" always."""
        return "" if self._reader is None else self._reader.fault()

    def close(self) -> None:
        """Let go of the source; a second call does nothing.  CameraError when the reading thread does not end."""
        if self._reader is not None:
            self._reader.end()
        self._reader = None
        if self._capture is not None:
            self._capture.release()
        self._capture = None

    def _connected(self) -> Any:
        config = self.config
        # What FFmpeg and OpenCV print is no JSON, may show addresses with passwords, and says what our errors say.
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        if config.is_device:
            capture = cv2.VideoCapture(int(config.source))
        elif config.is_file:
            capture = cv2.VideoCapture(config.source)
        else:
            limits = [
                cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, config.open_timeout_ms,
                cv2.CAP_PROP_READ_TIMEOUT_MSEC, config.read_timeout_ms,
                cv2.CAP_PROP_N_THREADS, 1,  # a decoder with several threads holds back as many frames
            ]  # fmt: skip
            capture = cv2.VideoCapture(self._address(), cv2.CAP_FFMPEG, limits)
        if not capture.isOpened():
            raise self._error(
                f"cannot open {config.shown}", "check the address or path, power and cable, and its password"
            )
        if config.is_device:
            self._adjust(capture)
        return capture

    def _address(self) -> str:
        name = self.config.password_env
        if not name:
            return self.config.source
        if not os.environ.get(name):
            raise ConfigError(
                f"camera {self.camera_id!r}: the environment variable {name} is empty or not set",
                fix="set it for the service, or correct password_env in the station config",
            )
        return self.config.source.replace("{password}", quote(os.environ[name], safe=""))

    def _adjust(self, capture: Any) -> None:
        config = self.config
        wanted: list[tuple[str, int, float]] = []
        if config.size_px is not None:
            wanted += [("width", cv2.CAP_PROP_FRAME_WIDTH, config.size_px[0])]
            wanted += [("height", cv2.CAP_PROP_FRAME_HEIGHT, config.size_px[1])]
        if config.fps is not None:
            wanted += [("fps", cv2.CAP_PROP_FPS, config.fps)]
        if config.exposure is not None:
            wanted += [
                ("manual exposure", cv2.CAP_PROP_AUTO_EXPOSURE, 1),
                ("exposure", cv2.CAP_PROP_EXPOSURE, config.exposure),
            ]
        refused = [name for name, number, value in wanted if not capture.set(number, value)]
        if refused:
            capture.release()
            raise self._error(f"does not take {', '.join(refused)}", "leave the setting out, or use another camera")

    def _next(self, trigger: Trigger) -> Any:
        given, pixels = self._capture.read()
        if not given and self.config.loop and self._frames:
            self._capture.release()
            self._capture = self._connected()  # seeking is inexact in many formats
            given, pixels = self._capture.read()
        if not given:
            raise CameraTimeout(
                f"camera {self.camera_id!r} has played all its {self._frames} frames; none for trigger "
                f"{trigger.trigger_id}",
                fix="open the camera again, set loop = true, or check the file where it should hold more frames",
            )
        return pixels

    def _image(self, pixels: Any) -> Image:
        if pixels is None or pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
            raise FrameCorrupt(
                f"camera {self.camera_id!r} gave a frame that cannot be read",
                fix="check cable, network and pixel format",
            )
        size = (pixels.shape[1], pixels.shape[0])
        if self.config.size_px not in (None, size):
            raise FrameCorrupt(
                f"camera {self.camera_id!r} gave {size[0]} x {size[1]} pixels instead of {self.config.size_px}",
                fix="correct the size in the camera, or size_px in the station config",
            )
        if pixels.ndim == 2:
            return np.ascontiguousarray(pixels)
        wanted = cv2.COLOR_BGR2GRAY if self.config.color == "grey" else cv2.COLOR_BGR2RGB
        return np.asarray(cv2.cvtColor(pixels, wanted), np.uint8)

    def _error(self, text: str, fix: str) -> CameraError:
        return CameraError(f"camera {self.camera_id!r} {text}", fix=fix)
