"""A folder that is there whole or not at all: written beside its place, then put there in one step."""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from inspection.errors import UsageError
from inspection.folder_swap import give_to_owner, swap, sync_folder
from inspection.types import new_id

UNFINISHED = ".lineside-report-"  # what the name of an unfinished report begins with
LEFT_S = 60  # after which one that nobody holds is what a killed run left; between its making and its lock lies less
NAMES = {"report.html", "report.json", "report.parquet", "findings.parquet", "tables"}


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """An empty folder that becomes ``folder`` when the block ends well; an earlier report there is replaced.

    UsageError, and nothing is touched, when there is something else at that place.
    """
    folder = folder.absolute()
    _refuse_others(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():  # else what lies beside it may be the only report, of a run killed between two renames
        _clear_away(folder.parent)
    new = folder.parent / f"{UNFINISHED}{new_id()}"
    new.mkdir()
    held = os.open(new, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(held, fcntl.LOCK_EX)  # a kill lets go of it
    try:
        yield new
        for path in (new, *new.iterdir()):
            give_to_owner(path)
        sync_folder(new)
        _put(new, folder)
    finally:
        os.close(held)
        shutil.rmtree(new, ignore_errors=True)  # what failed, or what was there before


def _clear_away(parent: Path) -> None:
    """Remove the unfinished reports of runs that were killed; those of runs that still write are locked."""
    for left in parent.glob(f"{UNFINISHED}*"):
        with suppress(OSError):  # of another user, or gone meanwhile
            held = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if time.time() - os.fstat(held).st_mtime > LEFT_S:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(held)


def _put(new: Path, folder: Path) -> None:
    if folder.exists():
        _refuse_others(folder)  # somebody may have put something there meanwhile
        swap(new, folder, folder.with_name(f"{UNFINISHED}{new_id()}"))
    else:
        new.rename(folder)
        sync_folder(folder.parent)


def _refuse_others(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"{folder} is not a folder", fix="name a folder for the report with -o")
    others = sorted({path.name for path in folder.iterdir()} - NAMES) if folder.exists() else []
    if others:
        raise UsageError(
            f"{folder} holds something other than a report: {', '.join(others[:5])}",
            fix="name a new folder with -o, or one with an earlier report, which is replaced",
        )
