"""The folder of a dataset while it is edited: who holds it, files that are being replaced, and whether its images are there."""

import errno
import fcntl
import hashlib
import os
from pathlib import Path

from datasets.manifest import Digest
from datasets.relabel.history import LabelsError
from datasets.sample import Sample
from inspection.errors import InspectionError
from inspection.images import decode_image, read_bytes
from inspection.types import new_id

LOCK = ".labels.lock"
_STAGED = ".labels-{}.partial"


class FolderLock:
    """Keeps other processes from editing the dataset until ``close`` or the end of the process, however it ends."""

    def __init__(self, folder: Path) -> None:
        """LabelsError when another process has it, OSError when the disk takes no file."""
        self._file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._file, 20, 0).decode("ascii", "replace").strip()
            self.close()
            raise LabelsError(
                f"{folder} is being edited by another program" + (f" (process {holder})" if holder else ""),
                fix="close that one; two editors of one dataset use the page of one `lineside relabel`",
            ) from None
        except OSError:
            self.close()
            raise
        self._sign()

    def _sign(self) -> None:
        """Leave the process's number for the message of who comes second; nothing depends on it."""
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, str(os.getpid()).encode(), 0)
        except OSError:  # a full disk: the lock holds all the same, and the first save will say so
            pass

    def close(self) -> None:
        """Give the lock up; a second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def stage(folder: Path, content: bytes) -> Path:
    """Write what will replace a file under a name that nobody reads, on the disk when this returns; OSError."""
    staged = folder / _STAGED.format(new_id())
    try:
        with staged.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    return staged


def sweep(folder: Path) -> None:
    """Remove what a crash left staged; only for who holds the lock."""
    for left in folder.glob(_STAGED.format("*")):
        left.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Bring the names of new files to the disk; OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class ImageFiles:
    """Whether images are still those that the dataset was made of; a file that was seen and not touched is not read again."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[tuple[int, int], tuple[int, int]]] = {}

    def size(self, sample: Sample, digest: Digest) -> tuple[int, int]:
        """Width and height of a sample's image; LabelsError when it is missing, unreadable or another one."""
        try:
            state = sample.image.stat()
            stamp = (state.st_mtime_ns, state.st_size)
            known = self._seen.get(sample.image)
            if known is not None and known[0] == stamp:
                return known[1]
            content = read_bytes(sample.image)
            if hashlib.sha256(content).hexdigest() != digest.image:
                raise _no_image(sample, f"{sample.image} is another picture than the dataset was made of")
            height, width = decode_image(content, str(sample.image)).shape[:2]
        except FileNotFoundError:
            raise _no_image(sample, f"its image {sample.image} is missing") from None
        except OSError as problem:
            raise _no_image(sample, f"cannot read {sample.image}: {problem.strerror}") from problem
        except LabelsError:
            raise
        except InspectionError as problem:
            raise _no_image(sample, problem.what) from problem
        self._seen[sample.image] = (stamp, (width, height))
        return width, height


def _no_image(sample: Sample, why: str) -> LabelsError:
    return LabelsError(
        f"sample {sample.name!r} was not saved: {why}",
        fix="put the image back from a copy and save again; all labels that were stored before are there still",
    )


def unwritten(folder: Path, problem: OSError) -> LabelsError:
    """The error for a disk that did not take what was to be written."""
    fixes = {
        errno.EROFS: "mount the disk for writing, or copy the dataset to another one",
        errno.EACCES: "give your user write permission on the folder and its files",
        errno.EPERM: "give your user write permission on the folder and its files",
        errno.ENOSPC: "free space on that disk, then save again",
        errno.EDQUOT: "free space on that disk, then save again",
        errno.EFBIG: "raise the limit of file sizes for this user, then save again",
        errno.ENOENT: "put the folder back where it was; restart the editor if it was moved",
    }
    fix = fixes.get(problem.errno or 0, "check the disk, then save again")
    return LabelsError(
        f"cannot write {folder}: {problem.strerror or problem}; nothing was saved, what was stored before is there still",
        fix=fix,
    )
