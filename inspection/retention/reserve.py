"""A file that keeps some space for the ledger: on a full disk the first tombstone could not be written, and so nothing freed."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from inspection.errors import StoreError
from inspection.log import event

BYTES = 512 * 1024  # a few commits of the ledger


class Reserve:
    """The file ``path``, beside the ledger."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def hold(self) -> None:
        """Keep the space, as far as there is any."""
        if self._path.exists():
            return
        try:
            with self._path.open("xb") as file:
                file.write(os.urandom(BYTES))  # a disk that compresses must not give it away
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    def write(self, step: Callable[[], None]) -> None:
        """Do what writes the ledger; when the disk refuses, once more with the space kept here."""
        try:
            step()
        except StoreError as error:
            if not self._path.exists():
                raise
            event("retention.reserve_used", what=error.what)
            with suppress(OSError):
                self._path.unlink()
            step()
