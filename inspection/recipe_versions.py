"""The versions of a recipe: which one is in force, which were, and who changed that.

    recipes/demo-pcb/                           the version in force: a plain sealed folder
    recipes/.versions/demo-pcb/HASH/            every version that was promoted or taken out of force, never changed
    recipes/.versions/demo-pcb/history.jsonl    who put which version in force, when and why; lines are only appended

HASH is the beginning of the SHA-256 of the version's lock, by which records name it.  A change is written down
(``pending.json``), done in one step (``folder_swap``) and then told in the history.  Whatever ends the program in between,
the folder is one whole version, and the next call or the start of a station finishes what was written down.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from inspection.errors import ConfigError, GateNotMet, UsageError
from inspection.folder_swap import copy_folder
from inspection.promotion_gate import require_gates
from inspection.recipe import LoadedRecipe, lock_sha256, open_recipe, run_selftest, verify
from inspection.recipe_lock import read_lock
from inspection.toml_file import NAME
from inspection.types import new_id, utc_now
from inspection.version_folder import (
    SHOWN,
    changing,
    complete_changes,
    is_done,
    put_in_force,
    read_pending,
    store,
    told_in,
    versions_of,
)
from inspection.version_folder import Change as Change

_VERSION = re.compile(r"[0-9a-f]{8,64}")


def promote(challenger: Path, recipe: Path, *, who: str, why: str, trusted: Sequence[str | Path] = ()) -> str:
    """Put a challenger in force in the folder ``recipe``; returns its SHA-256.

    A station that runs takes it between two parts.  GateNotMet unless it was compared with the version in force and held
    every gate; ConfigError when either is not as sealed, fails its self-test, or is not signed by one of ``trusted`` (where
    none are given: with the key of a version in force that is signed); UsageError when the disk does not take it.  Then
    all is as it was.
    """
    recipe = _plain(recipe)
    change = _change(who, "promote", why)
    complete_changes(recipe.parent, recipe.name)
    loaded, champion = _proven(challenger, trusted), _in_force(recipe)
    require_gates(loaded, champion)
    if not trusted:
        _require_same_signer(challenger, recipe)
    with changing(recipe, champion.recipe_id) as versions:
        _require_in_force(recipe, champion.sha256)
        store(versions, recipe, champion.sha256)
        store(versions, challenger, loaded.sha256)
        put_in_force(versions, recipe, _between(change, champion.sha256, loaded.sha256))
    return loaded.sha256


def rollback(recipe: Path, *, who: str, why: str, to: str = "", trusted: Sequence[str | Path] = ()) -> str:
    """Put the version before this one, or the one whose SHA-256 begins with ``to``, in force again; returns its SHA-256.

    The version before is the one that this was promoted over.  UsageError when there is none or the disk does not take
    the change, ConfigError when it is not as it was sealed or fails its self-test.  Then all is as it was.
    """
    recipe = _plain(recipe)
    change = _change(who, "rollback", why)
    complete_changes(recipe.parent, recipe.name)
    now = lock_sha256(recipe)
    found = _earlier(recipe, now, to)
    loaded = _proven(found, trusted)
    with changing(recipe, found.parent.name) as versions:
        _require_in_force(recipe, now)
        try:
            verify(recipe)
            store(versions, recipe, now)
        except ConfigError:  # not as sealed, which may be why one rolls back: no version, but somebody's work
            copy_folder(recipe, versions / f"unsealed-{change.at:%Y%m%dT%H%M%S}-{new_id()[:8]}")
        put_in_force(versions, recipe, _between(change, now, loaded.sha256))
    return loaded.sha256


def history(recipe: Path) -> tuple[Change, ...]:
    """Who put which version of this recipe in force, oldest first; ConfigError when the file is damaged."""
    versions = versions_of(recipe)
    pending = read_pending(versions)
    told = told_in(versions)
    if pending is not None and is_done(recipe.parent, pending) and pending.change not in told:
        return (*told, pending.change)  # in force, but its program was ended before it could say so
    return told


def find_version(recipe: Path, sha256: str) -> Path | None:
    """The folder of the version with this SHA-256 (of its lock, as in records), in force or not; None when it is not here."""
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        return None
    try:
        kept = versions_of(recipe) / sha256[:SHOWN]
    except ConfigError:
        kept = recipe
    return next((folder for folder in (kept, recipe) if lock_sha256(folder) == sha256), None)


def stored_versions(recipe: Path) -> tuple[str, ...]:
    """The SHA-256 of every version that is kept beside this recipe, sorted."""
    folders = [path for path in versions_of(recipe).glob("*") if _VERSION.fullmatch(path.name)]
    return tuple(sorted(filter(None, map(lock_sha256, folders))))


# ---- what is asked for


def _change(who: str, what: Literal["promote", "rollback"], why: str) -> Change:
    try:
        return Change(at=utc_now(), who=who.strip(), what=what, from_sha256="", to_sha256="", why=why.strip())
    except ValidationError as error:
        raise UsageError(
            "a change of a recipe needs who makes it (1..100 characters) and why (1..1000 characters)",
            fix="--who NAME --why TEXT",
        ) from error


def _between(change: Change, before: str, after: str) -> Change:
    return change.model_copy(update={"from_sha256": before, "to_sha256": after, "at": utc_now()})


def _plain(recipe: Path) -> Path:
    """The recipe's folder by its whole name; UsageError when it cannot be exchanged."""
    recipe = recipe.absolute()
    if recipe.is_symlink() or not re.fullmatch(NAME, recipe.name):
        raise UsageError(f"{recipe} is a link or has an odd name", fix=f"name the folder itself: {recipe.resolve()}")
    return recipe


def _sealed(folder: Path, trusted: Sequence[str | Path] = ()) -> LoadedRecipe:
    verify(folder, trusted)
    return open_recipe(folder, threads=1)  # the station needs the other cores


def _proven(folder: Path, trusted: Sequence[str | Path]) -> LoadedRecipe:
    """A version that is as sealed and gives the verdicts it must on this machine; ConfigError otherwise."""
    loaded = _sealed(folder, trusted)
    run_selftest(loaded)
    return loaded


def _in_force(recipe: Path) -> LoadedRecipe:
    """The version in force; GateNotMet, and not a damaged recipe, when another one came into its place while it was read."""
    before = lock_sha256(recipe)
    try:
        return _sealed(recipe)
    except ConfigError:
        _require_in_force(recipe, before)
        raise


def _require_same_signer(challenger: Path, recipe: Path) -> None:
    """A station that takes only signed recipes would not start any more with an unsigned one."""
    asked, given = read_lock(recipe).signature, read_lock(challenger).signature
    if asked is not None and (given is None or given.public != asked.public):
        raise ConfigError(
            f"{recipe} is signed with the key {asked.fingerprint[:16]}, {challenger} "
            + ("is not signed" if given is None else f"with {given.fingerprint[:16]}"),
            fix=f"have it approved: `lineside recipe seal {challenger} --key FILE`, or name the keys that may sign: --trusted",
        )


def _require_in_force(recipe: Path, sha256: str) -> None:
    now = lock_sha256(recipe)
    if now != sha256:
        raise GateNotMet(
            f"another version came into force in {recipe} in the meantime ({now[:SHOWN] or 'not sealed'})",
            fix="see `lineside recipe history`, and compare with that one",
        )


def _earlier(recipe: Path, now: str, to: str) -> Path:
    versions = versions_of(recipe)
    if not to:
        over = [line.from_sha256 for line in history(recipe) if line.what == "promote" and line.to_sha256 == now]
        if not over:
            raise UsageError(
                f"the version in force in {recipe} ({now[:SHOWN] or 'not sealed'}) was not promoted over another one",
                fix=f"name the version: --to SHA ({_known(recipe)})",
            )
        to = over[-1]
    found = [sha for sha in stored_versions(recipe) if _VERSION.fullmatch(to) and sha.startswith(to)]
    if set(found) <= {now} and _VERSION.fullmatch(to) and now.startswith(to):
        raise UsageError(
            f"version {now[:SHOWN]} of {recipe} is the one in force already, so nothing was changed",
            fix=f"name an earlier one: {_known(recipe)}",
        )
    if len(found) != 1:
        why = "names several" if found else "is not kept here"
        raise UsageError(f"version {to[:64]!r} of {recipe} {why}", fix=f"name another one: {_known(recipe)}")
    return versions / found[0][:SHOWN]


def _known(recipe: Path) -> str:
    return "kept: " + (", ".join(sha[:SHOWN] for sha in stored_versions(recipe)) or "none")
