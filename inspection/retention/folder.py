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
_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)
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

    def check_writable(self, name: str) -> None:
        """StoreError when nothing can be removed from a folder DATE/LOT; one that is not there is none of ours."""
        date, _, lot = name.partition("/")
        if not (_DATE.fullmatch(date) and _LOT.fullmatch(lot)):
            return
        with self._refusing(name), suppress(FileNotFoundError, NotADirectoryError), self._opened([date, lot]) as folder:
            if os.fstatvfs(folder).f_flag & os.ST_RDONLY:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            if not os.access(".", os.W_OK | os.X_OK, dir_fd=folder):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    @contextmanager
    def _refusing(self, name: str) -> Iterator[None]:
        """Say in words that files below a folder DATE/LOT may not be changed; any other OSError as it is."""
        try:
            yield
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            raise StoreError(
                f"pictures in {self.root / name} can neither be replaced nor removed ({error.strerror})",
                fix=f"mount the disk of {self.root} writable, and give the user that lineside runs as write permission on that "
                "folder; the next pass goes on from there",
            ) from error

    def make(self, file: str, content: bytes) -> None:
        """Write a new file and bring it to the disk; OSError, also when something lies there already.

        StoreError when the folder may not be changed.
        """
        with self._refusing(file.rpartition("/")[0]), self._beside(file) as (folder, name):
            opened = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=folder)
            with os.fdopen(opened, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.fsync(folder)

    def remove(self, file: str) -> None:
        """Remove a file; one that is gone already is removed.  StoreError when it may not be, OSError when the disk fails."""
        with self._refusing(file.rpartition("/")[0]), suppress(FileNotFoundError), self._beside(file) as (folder, name):
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

        Younger ones stay: the station may be about to write into them.
        """
        gone = 0
        for date in self._folders([], _DATE):
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
