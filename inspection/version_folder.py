"""The folder of a recipe's versions, as it lies on the disk; what is in it is told by ``recipe_versions``.

A change is written down (``pending.json``), done in one step (``folder_swap``) and then told in the history.  Whatever
ends the program in between, the recipe's folder is one whole version, and ``complete_changes`` finishes what was written
down.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import IO, Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from inspection.errors import ConfigError, InspectionError, UsageError
from inspection.folder_swap import copy_folder, give_to_owner, mend, swap, sync_folder
from inspection.images import write_whole
from inspection.log import event
from inspection.recipe import lock_sha256, verify
from inspection.recipe_config import load_recipe
from inspection.toml_file import NAME

VERSIONS = ".versions"
HISTORY = "history.jsonl"
PENDING = "pending.json"
WAIT_S = 5.0  # for another program that is in the middle of a change, which takes it a moment
SHOWN = 16  # digits of a version's hash in the name of its folder
_NEW, _ASIDE, _PART = ".new", ".aside", ".part"  # left by a program that was ended; one change at a time


class Change(BaseModel):
    """One line of the history: who put which version in force, and why.  ``from_sha256`` is "" when there was no lock."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: AwareDatetime
    who: Annotated[str, Field(min_length=1, max_length=100)]
    what: Literal["promote", "rollback"]
    from_sha256: str
    to_sha256: str
    why: Annotated[str, Field(min_length=1, max_length=1000)]


class Pending(BaseModel):
    """A change that is being made to a folder beside the versions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Annotated[str, Field(pattern=NAME)]
    change: Change


def complete_changes(recipes: Path, only: str = "") -> None:
    """Finish the changes to folders in ``recipes`` (to the one called ``only``) that were cut off.

    Does nothing, and needs no disk, where there are none.  UsageError when another program goes on changing that recipe,
    or the disk does not take it.
    """
    for path in sorted(recipes.glob(f"{VERSIONS}/*/{PENDING}")):
        pending = read_pending(path.parent)
        if pending is not None and only in ("", pending.folder):
            with changing(recipes / pending.folder, path.parent.name, wait_s=WAIT_S):
                event("recipe.change_completed", folder=pending.folder, to=pending.change.to_sha256)


def versions_of(recipe: Path) -> Path:
    """The folder of this recipe's versions.  A recipe that cannot be read any more is looked for under its folder's name."""
    recipe = recipe.absolute()
    try:
        return recipe.parent / VERSIONS / load_recipe(recipe / "recipe.toml").recipe_id
    except InspectionError:
        versions = recipe.parent / VERSIONS / recipe.name
        if versions.is_dir():
            return versions
        raise


@contextmanager
def changing(recipe: Path, recipe_id: str, *, wait_s: float = 0.0) -> Iterator[Path]:
    """The versions' folder, locked, with what was cut off finished; UsageError when locked already, or by the disk."""
    versions = recipe.parent / VERSIONS / recipe_id
    try:
        for folder in (versions.parent, versions):
            with suppress(FileExistsError):  # by this call before, or by another program at this moment
                folder.mkdir()
                give_to_owner(folder)
        with (versions / ".lock").open("a") as lock:
            _lock(lock, recipe, monotonic() + wait_s)
            give_to_owner(versions / ".lock")
            for partial in versions.glob(".*.partial"):
                partial.unlink()
            _complete(versions, recipe.parent)
            try:
                yield versions
            finally:
                for name in (_PART, *(() if (versions / PENDING).exists() else (_NEW,))):
                    shutil.rmtree(versions / name, ignore_errors=True)
    except OSError as error:
        raise UsageError(
            f"the recipe {recipe} cannot be changed: {error.filename or versions} ({error.strerror})",
            fix="this needs free space, and write permission on the folder that holds the recipe; nothing was changed",
        ) from error


def _lock(file: IO[str], recipe: Path, until_s: float) -> None:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if monotonic() >= until_s:
                raise UsageError(
                    f"another program is changing the versions of {recipe} at this moment",
                    fix="wait for its end, look at `lineside recipe history`, and try again",
                ) from None
        sleep(0.02)


def store(versions: Path, folder: Path, sha256: str) -> None:
    """Keep a copy of a version, if there is no whole one yet; ConfigError when the copy is not what was sealed."""
    kept = versions / sha256[:SHOWN]
    with suppress(ConfigError):
        verify(kept)
        if lock_sha256(kept) == sha256:
            return
    verify(folder)  # before a damaged copy is thrown away for it
    part = versions / _PART
    shutil.rmtree(part, ignore_errors=True)
    copy_folder(folder, part)
    _require_copy(part, sha256)
    shutil.rmtree(kept, ignore_errors=True)
    part.rename(kept)
    sync_folder(versions)


def _require_copy(folder: Path, sha256: str) -> None:
    verify(folder)
    if lock_sha256(folder) != sha256:
        raise ConfigError("the recipe was sealed anew while it was copied", fix="try again")


def put_in_force(versions: Path, recipe: Path, change: Change) -> None:
    """Exchange the recipe's folder for a copy of the kept version, and tell the history; OSError, and all is as it was."""
    new, pending = versions / _NEW, versions / PENDING
    shutil.rmtree(new, ignore_errors=True)
    copy_folder(versions / change.to_sha256[:SHOWN], new)
    _require_copy(new, change.to_sha256)
    write_whole(pending, Pending(folder=recipe.name, change=change).model_dump_json().encode())
    told = (versions / HISTORY).stat().st_size if (versions / HISTORY).exists() else 0
    try:
        swap(new, recipe, versions / _ASIDE)
        _tell(versions, change)
    except OSError:
        # If this fails as well, what is pending stays written down, and the next call finds out what was done.
        if (versions / HISTORY).exists():
            os.truncate(versions / HISTORY, told)
        if lock_sha256(recipe) == change.to_sha256:
            swap(new, recipe, versions / _ASIDE)
        pending.unlink()
        raise
    pending.unlink()
    event("recipe.changed", folder=recipe, **change.model_dump(mode="json", exclude={"at"}))


def _complete(versions: Path, recipes: Path) -> None:
    """Finish, or take back, a change whose program was ended in the middle of it."""
    pending = read_pending(versions)
    if pending is None:
        return
    recipe = recipes / pending.folder
    mend(versions / _NEW, recipe, versions / _ASIDE)
    if is_done(recipes, pending) and pending.change not in told_in(versions):
        _tell(versions, pending.change)
    (versions / PENDING).unlink()


def is_done(recipes: Path, pending: Pending) -> bool:
    """Whether the version that was to come into force is there."""
    return lock_sha256(recipes / pending.folder) == pending.change.to_sha256


def read_pending(versions: Path) -> Pending | None:
    """The change that is being made, or was cut off; None where there is none."""
    path = versions / PENDING
    try:
        return Pending.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise ConfigError(
            f"{path}, which says what is being changed, cannot be read",
            fix="check its permissions; when it is damaged, verify the recipe and remove this file",
        ) from error


def told_in(versions: Path) -> tuple[Change, ...]:
    """The whole lines of the history."""
    path = versions / HISTORY
    try:
        whole = path.read_bytes().rpartition(b"\n")[0]
        return tuple(Change.model_validate_json(line) for line in whole.splitlines())
    except FileNotFoundError:
        return ()
    except (OSError, ValidationError) as error:
        raise ConfigError(f"{path} is damaged or cannot be read", fix="restore it from a backup") from error


def _tell(versions: Path, change: Change) -> None:
    """Append a line to the history, behind its last whole line, and force it onto the disk."""
    path = versions / HISTORY
    with path.open("ab") as file:
        file.truncate(path.read_bytes().rfind(b"\n") + 1)  # the end of a line that was cut off
        file.write(change.model_dump_json().encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    give_to_owner(path)
    sync_folder(versions)
