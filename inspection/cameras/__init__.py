"""Cameras: one file each, found by name in ``CAMERAS``.

A new camera is one file here, one line in the table, one line in ``tests/contracts/test_cameras.py``.
"""

from typing import Protocol

from inspection.types import Frame, Trigger

CAMERAS = {
    "folder": "inspection.cameras.folder:FolderCamera",
    "simulated": "inspection.cameras.simulated:SimulatedCamera",
}


class Camera(Protocol):
    """Gives the one frame that belongs to a trigger.

    Called by one thread only.  ``grab`` blocks for at most ``timeout_ms`` and returns a frame that was exposed after
    the trigger, or raises CameraTimeout (none came), FrameCorrupt (torn, unreadable, wrong size) or CameraError (the
    camera is gone).  It never returns an older frame, and never a repaired one.
    """

    def open(self) -> None: ...

    def grab(self, trigger: Trigger, timeout_ms: int) -> Frame: ...

    def close(self) -> None: ...
