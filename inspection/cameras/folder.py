"""A camera that plays image files from a folder: replays of production, demos, and lines where files are dropped."""

from pathlib import Path
from threading import Event, Thread
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from inspection.errors import CameraError, CameraTimeout, FrameCorrupt, UsageError
from inspection.images import IMAGE_SUFFIXES, golden_beside, is_golden, read_grey, read_image
from inspection.types import Frame, Trigger, utc_now

LOOK_S = 1.0  # how often it is seen to that the folder is there
_Side = Annotated[int, Field(ge=1, le=65535)]


class FolderCameraConfig(BaseModel):
    """Which folder is played, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["folder"] = "folder"
    folder: str = Field(min_length=1, description="Folder of the image files, played in name order.")
    loop: bool = Field(default=False, description="Whether to start again after the last file, true or false.")
    own_process: bool = Field(
        default=False,
        description="Whether to read in a process of its own: for a network share, which can hang for ever, true or false.",
    )
    size_px: tuple[_Side, _Side] | None = Field(
        default=None, description="Width and height every frame must have, pixels, 1..65535; left out = any."
    )


class FolderCamera:
    """Gives one file of the folder for each trigger; its frames are marked as simulated.

    A trigger whose serial is a file's name (``S1.png``), or the start of one before an underscore (``S1_top.png``),
    gets that file; all others get the next file in name order.  ``S1.golden.png`` is no frame but the golden template
    of ``S1.png`` and goes out with it; so is ``S1_temp.jpg`` of ``S1_test.jpg``.  The list of files is read by
    ``open``; ``grab`` takes as long as reading a file takes.  A thread looks whether the folder is still there: one that
    was removed is a fault until it is back, and then listed anew.
    """

    def __init__(self, config: FolderCameraConfig, *, camera_id: str) -> None:
        self.config = config
        self.camera_id = camera_id
        self._files: tuple[Path, ...] = ()
        self._played = 0  # files given in name order
        self._grabbed = 0
        self._fault = ""
        self._closed = Event()
        self._looking: Thread | None = None

    def open(self) -> None:
        """List the files and start at the first; CameraError when there are none."""
        self._stop_looking()
        self._files = self.list_files()
        self._played = self._grabbed = 0
        self._closed = Event()
        self._looking = Thread(target=self._look, args=(self._closed,), name=f"folder-{self.camera_id}", daemon=True)
        self._looking.start()

    def list_files(self) -> tuple[Path, ...]:
        """The frames that are there now; CameraError when there are none."""
        folder = Path(self.config.folder)
        try:
            files = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        except OSError as error:
            raise CameraError(
                f"camera {self.camera_id!r} cannot read its folder {folder} ({error.strerror})",
                fix="create the folder, or correct `folder` in the station config",
            ) from error
        frames = tuple(path for path in files if not is_golden(path) and path.is_file())
        if not frames:
            raise CameraError(
                f"camera {self.camera_id!r} found no image in {folder}",
                fix=f"put files of these kinds into it: {' '.join(IMAGE_SUFFIXES)}",
            )
        return frames

    def _look(self, closed: Event) -> None:
        """In a thread of its own, because a network share can hang: see whether the folder is there."""
        while not closed.wait(LOOK_S):
            try:
                if not Path(self.config.folder).is_dir():
                    self._fault = f"its folder {self.config.folder} is not there any more"
                elif self._fault:
                    files = self.list_files()
                    if files != self._files:
                        self._files, self._played = files, 0
                    self._fault = ""
            except (CameraError, OSError) as error:
                self._fault = str(error.what if isinstance(error, CameraError) else error)

    def grab(self, trigger: Trigger, timeout_ms: int) -> Frame:
        """The file for this trigger; CameraTimeout at once when all were given and ``loop`` is off."""
        if not self._files:
            raise CameraError(f"camera {self.camera_id!r} is not open", fix="open it before the first trigger")
        if self._fault:
            raise CameraError(
                f"camera {self.camera_id!r}: {self._fault}", fix="put the folder back: it is taken up by itself"
            )
        path = self._named(trigger.serial) or self._next(trigger)
        self._grabbed += 1
        try:
            image = read_image(path)
            beside = golden_beside(path)
            golden = read_grey(beside) if beside else None
        except UsageError as error:
            raise FrameCorrupt(error.what, fix=error.fix) from error
        size = (image.shape[1], image.shape[0])
        if self.config.size_px not in (None, size):
            raise FrameCorrupt(
                f"{path} has {size[0]} x {size[1]} pixels, camera {self.camera_id!r} gives {self.config.size_px}",
                fix="remove the file, or correct size_px in the station config",
            )
        return Frame(image, self.camera_id, utc_now(), f"{path.name}#{self._grabbed}", simulated=True, golden=golden)

    def fault(self) -> str:
        """Why the folder cannot be used; "" while it is there.  What is wrong with a file shows in ``grab``."""
        return self._fault

    def close(self) -> None:
        """Forget the files; a second call does nothing."""
        self._stop_looking()
        self._files = ()

    def _stop_looking(self) -> None:
        self._closed.set()
        if self._looking is not None:
            self._looking.join(LOOK_S)
        self._looking, self._fault = None, ""

    def _named(self, serial: str) -> Path | None:
        if not serial:
            return None
        exact = (path for path in self._files if path.stem == serial)
        begun = (path for path in self._files if path.stem.startswith(serial + "_"))
        return next(exact, None) or next(begun, None)

    def _next(self, trigger: Trigger) -> Path:
        if self._played >= len(self._files) and not self.config.loop:
            count = len(self._files)
            raise CameraTimeout(
                f"camera {self.camera_id!r} has played all its {count} files; none for trigger {trigger.trigger_id}",
                fix="put more files into the folder and open the camera again, or set loop = true",
            )
        path = self._files[self._played % len(self._files)]
        self._played += 1
        return path
