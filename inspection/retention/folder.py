"""The evidence folder as retention touches it: files that the ledger names, by real folders, never through a link."""

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from inspection.errors import StoreError, UsageError

_FILE = re.compile(r"(\d{4}-\d\d-\d\d)/([A-Za-z0-9][A-Za-z0-9_-]{0,63})/([A-Za-z0-9][A-Za-z0-9_-]{0,129}\.(?:png|jpg))")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_LOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)


class EvidenceFolder:
    """Files DATE/LOT/NAME below ``root``.  A link in place of a folder or file, or any other path, is no such file."""

    def __init__(self, root: Path) -> None:
        if os.open not in os.supports_dir_fd or os.unlink not in os.supports_dir_fd:
            raise UsageError(
                "this system cannot delete files safely below a folder",
                fix="run `lineside retention` on Linux, where the station runs",
            )
        self.root = root

    def read(self, file: str, most: int) -> bytes | None:
        """The bytes of a file; None when it is not there, is no plain file, or has more than ``most`` bytes."""
        with suppress(OSError), self._beside(file) as (folder, name):
            opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
            with os.fdopen(opened, "rb") as stream:
                about = os.fstat(opened)
                return stream.read() if stat.S_ISREG(about.st_mode) and about.st_size <= most else None
        return None

    def holds(self, file: str, sha256: str, size: int) -> bytes | None:
        """The bytes of a file that is what the ledger says; None when it is not."""
        content = self.read(file, size)
        if content is None or len(content) != size or hashlib.sha256(content).hexdigest() != sha256:
            return None
        return content

    def has(self, file: str) -> bool:
        """Whether anything lies under this name."""
        with suppress(OSError), self._beside(file) as (folder, name):
            os.stat(name, dir_fd=folder, follow_symlinks=False)
            return True
        return False

    def lacks(self, file: str) -> bool:
        """Whether no plain file lies under this name; one that cannot be looked at is taken to be there."""
        try:
            with self._beside(file) as (folder, name):
                return not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
        except OSError as error:
            return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)

    def check_there(self) -> None:
        """StoreError when the folder is missing, cannot be read, or holds no day's folder: then its disk is elsewhere."""
        fix = "mount the disk that it lies on, or correct `folder` in [evidence]; nothing was changed"
        try:
            names = os.listdir(self.root)  # noqa: PTH208
        except FileNotFoundError as error:
            raise StoreError(
                f"there is no evidence folder {self.root}, though the ledger knows pictures in it", fix=fix
            ) from error
        except OSError as error:
            raise StoreError(f"the evidence folder {self.root} cannot be read ({error.strerror})", fix=fix) from error
        if not any(_DATE.fullmatch(name) for name in names):
            raise StoreError(
                f"the evidence folder {self.root} holds no day's pictures, though the ledger knows some in it",
                fix=f"{fix}; where people removed them all, this ends with the next picture",
            )

    def refusal(self, file: str) -> str:
        """Why a file can neither be replaced nor removed; "" when nothing speaks against it, or nothing lies there."""
        try:
            with self._beside(file) as (folder, name):
                place, why = f"pictures in {self.root / file.rpartition('/')[0]}", _closed(folder)
                if not why:
                    place, why = f"the picture {self.root / file}", _fixed(folder, name)
        except OSError as error:
            place, why = f"the picture {self.root / file}", _said(error, (errno.EACCES, errno.EPERM))
        return f"{place} can neither be replaced nor removed ({why})" if why else ""

    def make(self, file: str, content: bytes) -> None:
        """Write a new file and bring it to the disk; OSError, also when something lies there already."""
        with self._beside(file) as (folder, name):
            opened = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=folder)
            with os.fdopen(opened, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.fsync(folder)

    def remove(self, file: str) -> None:
        """Remove a file; one that is gone already is removed.  OSError when that cannot be done."""
        with suppress(FileNotFoundError), self._beside(file) as (folder, name):
            os.unlink(name, dir_fd=folder)

    def flush(self, folders: set[str]) -> None:
        """Bring the names in folders DATE/LOT to the disk."""
        for name in folders:
            date, _, lot = name.partition("/")
            if _DATE.fullmatch(date) and _LOT.fullmatch(lot):
                with suppress(FileNotFoundError), self._opened([date, lot]) as folder:
                    os.fsync(folder)

    def drop_empty(self, before: str) -> int:
        """Remove empty folders DATE/LOT and DATE of days before ``before`` (ISO date); how many folders went.

        Younger ones stay: the station may be about to write into them.  So does the last one: see ``check_there``.
        """
        gone = 0
        for date in self._folders([], _DATE)[:-1]:
            if date < before:
                gone += sum(self._dropped([date], lot) for lot in self._folders([date], _LOT))
                gone += self._dropped([], date)
        return gone

    def _folders(self, names: list[str], pattern: re.Pattern[str]) -> list[str]:
        with suppress(OSError), self._opened(names) as folder:
            return sorted(name for name in os.listdir(folder) if pattern.fullmatch(name))  # noqa: PTH208
        return []

    def _dropped(self, names: list[str], name: str) -> bool:
        with suppress(OSError), self._opened(names) as folder:  # not empty, no folder, or gone
            os.rmdir(name, dir_fd=folder)
            return True
        return False

    @contextmanager
    def _beside(self, file: str) -> Iterator[tuple[int, str]]:
        """The opened folder of a file, and its name there."""
        found = _FILE.fullmatch(file)
        if found is None:
            raise FileNotFoundError(file)
        with self._opened([found[1], found[2]]) as folder:
            yield folder, found[3]

    @contextmanager
    def _opened(self, names: list[str]) -> Iterator[int]:
        folder = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in names:
                inner = os.open(name, _FOLDER, dir_fd=folder)
                os.close(folder)
                folder = inner
            yield folder
        finally:
            os.close(folder)


def _closed(folder: int) -> str:
    """Why nothing can be removed from an opened folder; "" when something can."""
    if os.fstatvfs(folder).f_flag & os.ST_RDONLY:
        return os.strerror(errno.EROFS)
    return "" if os.access(".", os.W_OK | os.X_OK, dir_fd=folder) else os.strerror(errno.EACCES)


def _fixed(folder: int, name: str) -> str:
    """Why this file cannot be removed from an opened folder that can be written; "" when nothing is known against it."""
    about, user = os.fstat(folder), os.geteuid()
    owners = (0, about.st_uid, os.stat(name, dir_fd=folder, follow_symlinks=False).st_uid)
    if about.st_mode & stat.S_ISVTX and user not in owners:
        return "it belongs to somebody else, in a folder with the sticky bit"
    try:
        # Only what may never be removed, immutable or append only, refuses this as "not permitted", and to everybody.
        os.close(os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder))
    except OSError as error:
        return _said(error, (errno.EPERM,))
    return ""


def _said(error: OSError, refusing: tuple[int, ...]) -> str:
    return os.strerror(error.errno or 0) if error.errno in refusing else ""
