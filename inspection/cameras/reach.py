"""Which cameras can be reached from this computer, and what a picture of each is worth: focus, contrast, exposure."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.cameras import make_camera
from inspection.cameras.found import FoundCamera
from inspection.errors import CameraError, ConfigError, InspectionError
from inspection.images import to_grey
from inspection.quality import FrameQuality, measure
from inspection.types import Frame, Trigger, new_id, utc_now

Image = NDArray[np.uint8]
# Kinds of camera that can be searched for: where their list is made.
SEARCHES = {
    "opencv": "inspection.cameras.reach:usb_devices",
    "genicam": "inspection.cameras.aravis:list_devices",
    "pylon": "inspection.cameras.pylon:list_devices",
}
VIDEO_DEVICES = Path("/sys/class/video4linux")
WAIT_MS = 10_000  # for a picture: long exposures count, and nobody waits for a verdict
_FULL = 255  # grey level at which a pixel says nothing any more
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_TEXT, _TEXT_PX, _LINE_PX = (
    0.5,
    640,
    22,
)  # size of the text, width of the picture up to which it is that, height of a line
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What came of taking one picture: the frame with its measures, or the error instead.

    ``saturated`` is the share of pixels that are full in some colour, 0..1.
    """

    name: str
    config: Any
    frame: Frame | None = None
    quality: FrameQuality | None = None
    saturated: float = 0.0
    error: InspectionError | None = None


def search(kind: str) -> tuple[FoundCamera, ...]:
    """The cameras of one kind that answer; DriverMissing when what it needs is not installed."""
    module, _, name = SEARCHES[kind].partition(":")
    listing: Callable[[], tuple[FoundCamera, ...]] = getattr(importlib.import_module(module), name)
    return listing()


def usb_devices(known: Path = VIDEO_DEVICES) -> tuple[FoundCamera, ...]:
    """The video devices that the system knows (Linux), by number; none is opened."""
    numbers = sorted(int(entry.name[5:]) for entry in known.glob("video*") if entry.name[5:].isdecimal())
    entries = [(number, known / f"video{number}") for number in numbers]
    # A camera has several devices; those after its first one give no pictures.
    first = [(number, entry) for number, entry in entries if _line(entry / "index") in ("", "0")]
    return tuple(FoundCamera("opencv", str(number), _line(entry / "name"), "", "") for number, entry in first)


def _line(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # the device went away, or its driver does not say
        return ""


def look(name: str, config: Any, *, wait_ms: int = WAIT_MS) -> Look:
    """Take one picture with the camera of a config section and measure it; what goes wrong is in the result.

    A camera that waits for a signal at its input is triggered by software instead: there may be no part.
    """
    if getattr(config, "trigger", "") == "line":
        config = config.model_copy(update={"trigger": "software"})
    camera = None
    try:
        camera = make_camera(config, name)
        camera.open()
        frame = camera.grab(Trigger(new_id(), "", "", "", utc_now()), wait_ms)
    except (CameraError, ConfigError) as error:
        return Look(name, config, error=error)
    finally:
        if camera is not None:
            camera.close()
    full = frame.image >= _FULL
    saturated = float((full.any(axis=2) if full.ndim == 3 else full).mean())
    return Look(name, config, frame, measure(to_grey(frame.image)), saturated)


def measures(seen: Look) -> tuple[tuple[str, str], ...]:
    """Names and values of what is known about a picture, for the table and for below the picture."""
    frame, quality = seen.frame, seen.quality
    if frame is None or quality is None:
        return ()
    return (
        ("size", f"{frame.image.shape[1]} x {frame.image.shape[0]}" + (" colour" if frame.image.ndim == 3 else "")),
        ("focus", f"{quality.sharpness:.0f}"),
        ("contrast", f"{quality.contrast:.1f}"),
        ("brightness", f"{quality.brightness:.0f}"),
        ("saturated", f"{100 * seen.saturated:.1f} %"),
        (
            "exposure",
            _setting(seen.config, "exposure_us", " us") or _setting(seen.config, "exposure", "") or "as it is set",
        ),
        ("gain", _setting(seen.config, "gain", "") or "as it is set"),
    )


def _setting(config: Any, name: str, unit: str) -> str:
    value = getattr(config, name, None)
    return "" if value is None else f"{value:g}{unit}"


def draw(seen: Look) -> Image:
    """The picture (H, W, 3) RGB uint8 as it was taken, with its name and measures in a strip below; it needs a frame."""
    if seen.frame is None:
        raise ValueError(f"camera {seen.name!r} gave no picture to draw")
    image = seen.frame.image
    picture = np.asarray(image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), np.uint8)
    words = [f"{name} {value}" for name, value in measures(seen)]
    lines = [f"{seen.name} ({seen.config.kind})   {words[0]}", "   ".join(words[1:5]), "   ".join(words[5:])]
    lines += ["simulated"] if seen.frame.simulated else []
    width = max(picture.shape[1], _TEXT_PX)
    scale = width / _TEXT_PX
    strip = np.full((round((len(lines) + 0.5) * _LINE_PX * scale), width, 3), _WHITE, np.uint8)
    for number, text in enumerate(lines, 1):
        at = (round(8 * scale), round(number * _LINE_PX * scale))
        plain = text.encode("ascii", "replace").decode()
        cv2.putText(strip, plain, at, _FONT, _TEXT * scale, _BLACK, max(1, round(scale)), cv2.LINE_AA)
    widened = np.full((picture.shape[0], width, 3), _WHITE, np.uint8)
    widened[:, : picture.shape[1]] = picture
    return np.vstack([widened, strip])
