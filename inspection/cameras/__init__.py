"""Cameras: one file each, found by name in ``CAMERAS``.

A new camera is one file here, one line in the table, one line in ``tests/contracts/test_cameras.py``.
"""

from typing import Any, Protocol

from inspection.plugins import resolve
from inspection.types import Frame, Trigger

CAMERAS = {
    "folder": "inspection.cameras.folder:FolderCamera",
    "genicam": "inspection.cameras.genicam:GenicamCamera",
    "opencv": "inspection.cameras.opencv:OpencvCamera",
    "pylon": "inspection.cameras.pylon:PylonCamera",
    "simulated": "inspection.cameras.simulated:SimulatedCamera",
}
# Drivers that may hang or crash: each runs in a process of its own, which can be ended and started again.
OWN_PROCESS = frozenset({"genicam", "opencv", "pylon"})
STAND_INS = frozenset({"folder", "simulated"})  # cameras whose records never count as production


class Camera(Protocol):
    """Gives the one frame that belongs to a trigger.

    Called by one thread at a time.  ``grab`` blocks for at most ``timeout_ms`` and returns a frame that was exposed after
    the call, or raises CameraTimeout (none came), FrameCorrupt (torn, unreadable, wrong size or pixel format) or
    CameraError (the camera is gone).  It never returns an older frame, and never a repaired one: what was in a buffer
    before is thrown away, and that the frame is newer is proven by its number or its time stamp.

    ``fault`` never blocks: "" while the camera can be used, else what is wrong with it in a sentence.  A camera that is
    away comes back by itself; until then ``fault`` says so, ``grab`` raises CameraError at once, and the station shows
    Error.
    """

    def open(self) -> None: ...

    def grab(self, trigger: Trigger, timeout_ms: int) -> Frame: ...

    def fault(self) -> str: ...

    def close(self) -> None: ...


def make_camera(config: Any, camera_id: str) -> Camera:
    """The camera of a config section, in a process of its own where its driver needs one; not opened yet."""
    if config.kind in OWN_PROCESS or getattr(config, "own_process", False):
        from inspection.cameras.own_process import OwnProcessCamera

        return OwnProcessCamera(config, camera_id=camera_id)
    made: Camera = resolve(CAMERAS, config.kind, "camera")(config, camera_id=camera_id)
    return made
