"""Basler cameras (GigE, USB3, CoaXPress) through pylon, and pylon's own emulated cameras.

The package is ``pip install "lineside[pylon]"``; it brings the pylon runtime, so nothing else needs to be installed.  It is
imported in ``open`` and ``list_devices``.
"""

import math
import os
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from inspection.cameras.found import FoundCamera
from inspection.cameras.pixels import FORMATS, decode
from inspection.errors import CameraError, CameraTimeout, ConfigError, DriverMissing, FrameCorrupt, InspectionError
from inspection.types import Frame, Trigger, utc_now

EMULATED = "0815-"  # serial numbers of emulated cameras begin so: 0815-0000, 0815-0001, ...
_EMULATED_VARIABLE = "PYLON_CAMEMU"  # how many of them pylon offers
_EMULATED_CLASS = "BaslerCamEmu"
_NO_NUMBER = 2**64 - 1  # what pylon gives as number of a frame where the camera counts none
_WRAP = 1024  # a number smaller than the one before by less than this is an older frame, by more a counter that wrapped
_UNPROVEN = 2  # frames of a free-running camera without a clock that may have been exposed before they were asked for
_Pixel = Annotated[int, Field(ge=0, le=65535)]


class PylonCameraConfig(BaseModel):
    """Which Basler camera, how it exposes, and what starts an exposure."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["pylon"] = "pylon"
    device: str = Field(
        default="", pattern=r"^[A-Za-z0-9-]{0,32}$", description="Serial number of the camera; empty = the only one."
    )
    exposure_us: float | None = Field(
        default=None, gt=0, le=60_000_000, description="Exposure time, microseconds; left out = as the camera is set."
    )
    gain: float | None = Field(
        default=None, ge=0, le=4096, description="Gain, in the camera's own unit (most: dB); left out = as it is set."
    )
    roi_px: tuple[_Pixel, _Pixel, _Pixel, _Pixel] | None = Field(
        default=None, description="Part of the sensor x1, y1, x2, y2, pixels; left out = as the camera is set."
    )
    pixel_format: str = Field(default="Mono8", description="Pixel format by its name, such as Mono8, BayerRG8, RGB8.")
    trigger: Literal["software", "line", "free"] = Field(
        default="software", description="What starts an exposure: software = the station, line = a signal at the camera's "
        "input while the station waits, free = nothing, the camera runs and the next frame is taken.",
    )  # fmt: skip
    line: str = Field(default="Line1", pattern=r"^[A-Za-z0-9]{1,24}$", description="Input used with trigger line.")
    edge: Literal["rising", "falling"] = Field(default="rising", description="Edge of that input: rising or falling.")
    buffers: int = Field(default=8, ge=2, le=64, description="Buffers for frames on their way, 2..64.")
    emulated: int = Field(
        default=0, ge=0, le=16, description="Emulated cameras that pylon offers beside the real ones, 0..16; a device "
        "0815-0000 asks for them by itself. Their frames are marked as simulated.",
    )  # fmt: skip
    emulated_images: str = Field(
        default="", description="Folder of pictures that an emulated camera shows in turn; empty = a moving pattern."
    )
    emulated_failures: int = Field(
        default=0, ge=0, le=1000, description="How many first frames of an emulated camera arrive damaged, 0..1000."
    )

    @field_validator("pixel_format")
    @classmethod
    def _readable(cls, name: str) -> str:
        if name not in FORMATS:
            raise ValueError(f"pixel format {name!r} cannot be read; known: {', '.join(sorted(FORMATS))}")
        return name

    @field_validator("roi_px")
    @classmethod
    def _holds_pixels(cls, roi: tuple[int, int, int, int] | None) -> tuple[int, int, int, int] | None:
        if roi is not None and not (roi[2] > roi[0] and roi[3] > roi[1]):
            raise ValueError(f"box must have x2 > x1 and y2 > y1, got {roi}")
        return roi


class PylonCamera:
    """One Basler camera; runs in a process of its own, because the driver may hang or crash.

    The frame belongs to its trigger: what waits in the buffers is thrown away first; after a trigger that got no frame
    the acquisition is started anew, so that its frame can never come later; and a frame is refused when its number or
    its time stamp, on the camera's own clock, says that it is older than the trigger.
    """

    def __init__(self, config: PylonCameraConfig, *, camera_id: str) -> None:
        self.config = config
        self.camera_id = camera_id
        self._sdk: Any = None
        self._camera: Any = None
        self._simulated = False
        self._size_px: tuple[int, int] | None = None
        self._settled = True  # whether every exposure that was started has come to its end
        self._last_number: int | None = None
        self._frames = 0

    def open(self) -> None:
        """Find the camera, set it up and start the acquisition.

        CameraError when it is away, so that trying again may help; ConfigError when it cannot take a setting.
        """
        self.close()
        self._sdk = _pylon(_emulated_count(self.config))
        self._frames = 0
        try:
            with self._errors("could not be opened"):
                found = _find(self._sdk, self.config.device, self.camera_id)
                self._simulated = found.GetDeviceClass() == _EMULATED_CLASS
                self._camera = self._sdk.InstantCamera(self._sdk.TlFactory.GetInstance().CreateDevice(found))
                self._camera.Open()
                self._set_up()
                self._start()
        except InspectionError:
            self.close()
            raise

    def grab(self, trigger: Trigger, timeout_ms: int) -> Frame:
        """The frame exposed for this trigger; waits for it, at most ``timeout_ms``."""
        deadline_s = time.monotonic() + timeout_ms / 1000
        self._require_usable()
        with self._errors(f"failed for trigger {trigger.trigger_id}"):
            if not (self._settled and self._camera.IsGrabbing()):
                self._camera.StopGrabbing()
                self._start()
            self._flush()
            since = self._clock()
            self._settled = False
            asked_at = utc_now()
            if self.config.trigger == "software":
                self._fire(deadline_s)
            frame, refused = self._newer_frame(since, deadline_s, asked_at)
        if frame is not None:
            self._settled = True
            return frame
        self._require_usable()
        older = f"; {refused} older frames were refused" if refused else ""
        raise CameraTimeout(
            f"camera {self.camera_id!r} gave no frame in {timeout_ms} ms after trigger {trigger.trigger_id}{older}",
            fix=f"check exposure time and trigger ({self.config.trigger}"
            + (f", {self.config.line}, {self.config.edge} edge)" if self.config.trigger == "line" else ")"),
        )

    def fault(self) -> str:
        """What keeps the camera from being used, or ""; never blocks."""
        if self._camera is None:
            return f"camera {self.camera_id!r} is not open"
        if self._camera.IsCameraDeviceRemoved() or not self._camera.IsOpen():
            return f"camera {self.camera_id!r} ({self._name()}) was disconnected"
        return ""

    def close(self) -> None:
        """Give the camera back; a second call does nothing."""
        camera, self._camera = self._camera, None
        if camera is None:
            return
        try:
            camera.Close()  # ends the acquisition as well
        except self._sdk.GenericException:
            camera.DestroyDevice()  # it is gone: there is nothing to be told to it any more
        self._settled, self._last_number, self._size_px = True, None, None

    # ---- setting up

    def _set_up(self) -> None:
        config = self.config
        self._set("the pixel format", ("PixelFormat",), config.pixel_format)
        if config.roi_px is not None:
            self._set_region(config.roi_px)
        if config.exposure_us is not None:
            self._switch_off("ExposureAuto")
            self._set("the exposure time", ("ExposureTime", "ExposureTimeAbs"), config.exposure_us)
        if config.gain is not None:
            self._switch_off("GainAuto")
            self._set("the gain", ("Gain", "GainRaw"), config.gain)
        self._set_trigger()
        self._camera.MaxNumBuffer.Value = config.buffers
        if self._simulated:
            self._set_emulation()
        if not config.emulated_images or config.roi_px is not None:
            self._size_px = (self._camera.Width.Value, self._camera.Height.Value)
        if config.trigger == "line" and self._clock() is None and not self._simulated:
            raise ConfigError(
                f"camera {self.camera_id!r} ({self._name()}) has no clock that can be read, so that it cannot be proven "
                "that a frame of its trigger line belongs to a part",
                fix='use trigger = "software"',
            )

    def _set_region(self, roi_px: tuple[int, int, int, int]) -> None:
        x1, y1, x2, y2 = roi_px
        for name in ("OffsetX", "OffsetY"):  # first: they bound width and height
            self._set("the region", (name,), self._node((name,), "the region").Min)
        for name, value in (("Width", x2 - x1), ("Height", y2 - y1), ("OffsetX", x1), ("OffsetY", y1)):
            self._set("the region", (name,), value)

    def _set_trigger(self) -> None:
        """Only the start of a frame is triggered; a trigger of bursts or exposures left on would wait for ever."""
        camera, config = self._camera, self.config
        for name in self._choices(camera.GetNodeMap().GetNode("TriggerSelector")):
            camera.TriggerSelector.Value = name
            self._switch_off("TriggerMode")
        camera.TriggerSelector.Value = "FrameStart"
        if config.trigger == "free":
            return
        self._set("the trigger mode", ("TriggerMode",), "On")
        source = "Software" if config.trigger == "software" else config.line
        self._set("the trigger source", ("TriggerSource",), source)
        if config.trigger == "line":
            self._set("the trigger edge", ("TriggerActivation",), f"{config.edge.capitalize()}Edge")

    def _set_emulation(self) -> None:
        camera, config = self._camera, self.config
        if config.emulated_images:
            camera.TestImageSelector.Value = "Off"
            camera.ImageFilename.Value = config.emulated_images
            camera.ImageFileMode.Value = "On"
        if config.emulated_failures:
            camera.ForceFailedBufferCount.Value = config.emulated_failures
            camera.ForceFailedBuffer.Execute()

    def _node(self, names: tuple[str, ...], what: str) -> Any:
        """The first of these settings that the camera has; generations of cameras name them differently."""
        for name in names:
            node = self._camera.GetNodeMap().GetNode(name)
            if node is not None and self._sdk.IsWritable(node):
                return node
        self._require_usable()  # of a camera that is gone nothing can be written
        raise ConfigError(
            f"camera {self.camera_id!r} ({self._name()}) does not let {what} be set ({' or '.join(names)})",
            fix="leave it out of the station config, and set it in the camera's own user set",
        )

    def _switch_off(self, name: str) -> None:
        """Set it to Off where the camera has it and it is not."""
        node = self._camera.GetNodeMap().GetNode(name)
        if node is not None and self._sdk.IsReadable(node) and node.ToString() != "Off":
            self._set(name, (name,), "Off")

    def _set(self, what: str, names: tuple[str, ...], value: float | str) -> None:
        node = self._node(names, what)
        if isinstance(node, self._sdk.IInteger) and isinstance(value, float):
            value = round(value)
        try:
            node.SetValue(value) if not isinstance(value, str) else node.FromString(value)
        except self._sdk.REFUSALS as error:
            raise ConfigError(
                f"camera {self.camera_id!r} ({self._name()}) refuses {value} for {what}: {_sentence(error)}",
                fix=f"it takes {self._allowed(node)}",
            ) from error

    def _allowed(self, node: Any) -> str:
        if isinstance(node, self._sdk.IEnumeration):
            return ", ".join(self._choices(node))
        step = f" in steps of {node.GetInc()}" if isinstance(node, self._sdk.IInteger) else ""
        return f"{node.GetMin():.10g} to {node.GetMax():.10g}{step}"

    def _choices(self, node: Any) -> list[str]:
        return [name for name in node.GetSymbolics() if self._sdk.IsAvailable(node.GetEntryByName(name))]

    def _name(self) -> str:
        found = self._camera.GetDeviceInfo()
        return f"{found.GetModelName()} {found.GetSerialNumber()}"

    # ---- one frame

    def _start(self) -> None:
        self._camera.StartGrabbing(self._sdk.GrabStrategy_OneByOne)
        self._settled, self._last_number = True, None  # the camera counts from the start again

    def _require_usable(self) -> None:
        gone = self.fault()
        if gone:
            fix = "open it before the first trigger" if self._camera is None else "check cable, power and network"
            raise CameraError(gone, fix=fix)

    def _flush(self) -> None:
        """Throw away what waits in the buffers: it was exposed before this trigger."""
        for _ in range(self.config.buffers + 1):  # a fast camera must not keep us here
            with self._retrieved(0) as result:
                if not result.IsValid():
                    return
                self._last_number = _number(result, self._last_number)

    def _clock(self) -> int | None:
        """The camera's clock now, in its ticks; None where it has none that can be read."""
        nodes = self._camera.GetNodeMap()
        for latch, value in (
            ("TimestampLatch", "TimestampLatchValue"),
            ("GevTimestampControlLatch", "GevTimestampValue"),
        ):
            command, clock = nodes.GetNode(latch), nodes.GetNode(value)
            if command is not None and clock is not None and self._sdk.IsWritable(command):
                command.Execute()
                return int(clock.GetValue())
        return None

    def _fire(self, deadline_s: float) -> None:
        """Start the exposure as soon as the camera can; a trigger that comes before would be lost."""
        left_ms = max(1, math.ceil(1000 * (deadline_s - time.monotonic())))
        waits = self._camera.CanWaitForFrameTriggerReady()
        if not waits or self._camera.WaitForFrameTriggerReady(left_ms, self._sdk.TimeoutHandling_Return):
            self._camera.ExecuteSoftwareTrigger()

    def _newer_frame(self, since: int | None, deadline_s: float, asked_at: datetime) -> tuple[Frame | None, int]:
        """The first frame that is not older than the trigger (None when the time is over), and how many were."""
        refused, unproven = 0, _UNPROVEN if self.config.trigger == "free" and since is None else 0
        while True:
            left_ms = math.ceil(1000 * (deadline_s - time.monotonic()))
            if left_ms <= 0:
                return None, refused
            with self._retrieved(left_ms) as result:
                if not result.IsValid():
                    return None, refused
                older = self._is_older(result, since)
                self._last_number = _number(result, self._last_number)
                if older or unproven:
                    refused, unproven = refused + older, max(0, unproven - 1)
                    continue
                captured_at = asked_at if self.config.trigger == "software" else utc_now()
                return self._frame(result, captured_at), refused

    def _is_older(self, result: Any, since: int | None) -> bool:
        stamp, number, last = result.GetTimeStamp(), result.GetBlockID(), self._last_number
        if since is not None and 0 < stamp < since:
            return True
        return last is not None and number != _NO_NUMBER and 0 <= last - number < _WRAP

    def _frame(self, result: Any, captured_at: datetime) -> Frame:
        if not result.GrabSucceeded():
            self._settled = True
            raise FrameCorrupt(
                f"camera {self.camera_id!r} ({self._name()}) sent a damaged frame: {result.GetErrorDescription()}",
                fix="check cable and network load; with GigE use jumbo frames or a longer delay between packets",
            )
        width, height = result.GetWidth(), result.GetHeight()
        if self._size_px not in (None, (width, height)):
            self._settled = True
            raise FrameCorrupt(
                f"camera {self.camera_id!r} sent {width} x {height} pixels, it is set to {self._size_px}",
                fix="check that no other program changes the camera, and open it again",
            )
        self._frames += 1
        pixels = decode(_packed_rows(result), self.config.pixel_format, width, height)
        return Frame(
            pixels.image, self.camera_id, captured_at, f"{self._camera.GetDeviceInfo().GetSerialNumber()}#{self._frames}",
            simulated=self._simulated, raw=pixels.raw,
        )  # fmt: skip

    @contextmanager
    def _retrieved(self, timeout_ms: int) -> Iterator[Any]:
        """The next frame that arrives within the time, else one that is not valid; its buffer is given back afterwards."""
        result = self._camera.RetrieveResult(timeout_ms, self._sdk.TimeoutHandling_Return)
        try:
            yield result
        finally:
            result.Release()

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Errors of the driver as ours."""
        try:
            yield
        except self._sdk.GenericException as error:
            raise CameraError(
                f"camera {self.camera_id!r} {what}: {_sentence(error)}",
                fix="check cable, power and network, and that no other program has the camera open",
            ) from error


def list_devices() -> tuple[FoundCamera, ...]:
    """The Basler cameras that answer now; DriverMissing without pypylon.  Takes a second or two, opens none."""
    sdk = _pylon(0)
    factory = sdk.TlFactory.GetInstance()
    try:
        return tuple(_found(sdk, factory, found) for found in factory.EnumerateDevices())
    except sdk.GenericException as error:
        raise CameraError(
            f"the search for pylon cameras failed: {_sentence(error)}", fix="check network adapter and USB"
        ) from error


def _found(sdk: Any, factory: Any, found: Any) -> FoundCamera:
    address = found.GetIpAddress() if found.IsIpAddressAvailable() else ""
    emulated = found.GetDeviceClass() == _EMULATED_CLASS
    free = factory.IsDeviceAccessible(found)
    note = "emulated" if emulated else "" if free else "in use by another program"
    return FoundCamera("pylon", found.GetSerialNumber(), found.GetModelName(), found.GetSerialNumber(), address, note)


def _pylon(emulated: int) -> Any:
    """The driver, told of the emulated cameras before it loads."""
    if emulated:
        present = os.environ.get(_EMULATED_VARIABLE, "0")
        os.environ[_EMULATED_VARIABLE] = str(max(emulated, int(present) if present.isdigit() else 0))
    try:
        with warnings.catch_warnings():  # of its old wrapper's types; made an error, they would crash the interpreter
            warnings.simplefilter("ignore", DeprecationWarning)
            from pypylon import genicam, pylon
    except ModuleNotFoundError as error:
        raise DriverMissing(
            "cameras of kind 'pylon' need the package pypylon, which is not installed",
            fix='pip install "lineside[pylon]"',
        ) from error
    return _Sdk(pylon, genicam)


class _Sdk:
    """What we use of the two modules of the driver."""

    def __init__(self, pylon: Any, genicam: Any) -> None:
        self.TlFactory, self.InstantCamera = pylon.TlFactory, pylon.InstantCamera
        self.GrabStrategy_OneByOne = pylon.GrabStrategy_OneByOne
        self.TimeoutHandling_Return = pylon.TimeoutHandling_Return
        self.GenericException, self.IsWritable = genicam.GenericException, genicam.IsWritable
        self.IsAvailable, self.IsReadable = genicam.IsAvailable, genicam.IsReadable
        self.REFUSALS = (genicam.OutOfRangeException, genicam.InvalidArgumentException)
        self.IInteger, self.IEnumeration = genicam.IInteger, genicam.IEnumeration


def _emulated_count(config: PylonCameraConfig) -> int:
    named = config.device.removeprefix(EMULATED)
    wanted = int(named) + 1 if named != config.device and named.isdigit() and len(named) == 4 else 0
    return max(config.emulated, min(wanted, 16))


def _find(sdk: Any, device: str, camera_id: str) -> Any:
    """The device of that serial number, or the only one there is; else an error that names those that answer."""
    present = list(sdk.TlFactory.GetInstance().EnumerateDevices())
    matching = [found for found in present if device in ("", found.GetSerialNumber())]
    if len(matching) == 1:
        return matching[0]
    names = ", ".join(f"{found.GetSerialNumber()} ({found.GetModelName()})" for found in present) or "none"
    if matching:
        raise ConfigError(
            f"camera {camera_id!r} names no device, and {len(matching)} answer: {names}",
            fix="give the serial number of one of them as `device`",
        )
    asked = f"device {device}" if device else "a Basler camera"
    raise CameraError(
        f"camera {camera_id!r}: {asked} does not answer; reachable: {names}",
        fix="check cable, power and network address, or correct `device` in the station config",
    )


def _number(result: Any, last: int | None) -> int | None:
    number = int(result.GetBlockID())
    return last if number == _NO_NUMBER else number


def _packed_rows(result: Any) -> NDArray[np.uint8]:
    """The bytes of the picture without what some cameras add to each row."""
    stream = np.frombuffer(result.GetImageBuffer(), np.uint8)[: result.GetImageSize()]
    padding = result.GetPaddingX()
    if padding == 0:
        return stream
    rows = stream.reshape(result.GetHeight(), -1)
    return np.ascontiguousarray(rows[:, : rows.shape[1] - padding]).reshape(-1)


def _sentence(error: Exception) -> str:
    """What the driver says, without the place in its sources."""
    return re.split(r"\s*:\s*\w+Exception thrown", str(error))[0].strip().rstrip(".")
