"""Puts one folder in the place of another, so that there is always the one or the other, whole.

Linux exchanges two names in one step (renameat2(2) with RENAME_EXCHANGE).  Where the file system cannot, it takes two
renames; ``mend`` ends what a power cut left between them.
"""

import ctypes
import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)  # of the kernel or the file system, not of these folders


def copy_folder(source: Path, target: Path) -> None:
    """Copy the plain files of a folder into a new one, all of it on the disk; OSError, and nothing is left, when it fails.

    Links and devices are left out.  The copies belong to who owns ``target``'s parent, where the program may do that.
    """
    try:
        _copied(source, target)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def _copied(source: Path, target: Path) -> None:
    target.mkdir()
    give_to_owner(target)
    for path in sorted(source.iterdir()):
        copy = target / path.name
        if path.is_symlink() or not path.is_file():
            if path.is_dir() and not path.is_symlink():
                _copied(path, copy)
            continue
        with path.open("rb") as read, copy.open("xb") as written:
            shutil.copyfileobj(read, written)
            written.flush()
            os.fsync(written.fileno())
        give_to_owner(copy)
    sync_folder(target)


def give_to_owner(path: Path) -> None:
    """What root made belongs to who owns the folder it lies in, so that a station without root's rights can go on."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        with suppress(PermissionError):  # root of a container may not; then all there runs under one user
            os.chown(path, owner.st_uid, owner.st_gid)


def sync_folder(folder: Path) -> None:
    """Force the names in a folder onto the disk."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def swap(new: Path, folder: Path, aside: Path, *, in_one_step: bool = True) -> None:
    """``folder`` becomes what ``new`` was and the other way round; OSError, and all is as before, when it fails.

    ``aside`` is a free name on the same file system.  With ``in_one_step`` false (or where the system cannot) there is a
    moment without ``folder``; if the power fails in it, ``mend`` ends the change.
    """
    if not (in_one_step and _exchanged(new, folder)):
        folder.rename(aside)
        try:
            new.rename(folder)
        except OSError:
            aside.rename(folder)
            raise
        aside.rename(new)
    sync_folder(folder.parent)
    sync_folder(new.parent)


def mend(new: Path, folder: Path, aside: Path) -> None:
    """End a ``swap`` in two renames that was cut off: ``folder`` is what ``new`` was."""
    if not folder.exists():
        (new if new.exists() else aside).rename(folder)
        sync_folder(folder.parent)
    if aside.exists() and not new.exists():
        aside.rename(new)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two names in one step; false where the system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(other))
