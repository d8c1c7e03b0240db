"""What the very version of a recipe says that judged a record, read quickly: its limits and its goldens.

Reads the lock and recipe.toml alone and loads no model.  Only files that are as they were sealed count.
"""

import hashlib
import json
import re
import struct
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from inspection.station_places import Places

LOCK, RECIPE_TOML, VERSIONS = "recipe.lock", "recipe.toml", ".versions"
SHOWN = 16  # digits of a version's hash in the name of its folder
WITH_FRAME = "with-frame"
MOST_BYTES = 5_000_000
GoldenState = Literal["sealed", "changed", "missing", "with-frame"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
WHY_NOT = {
    "no_recipe": "the record names no sealed recipe",
    "changed": "its files are not as they were sealed",
    "not_here": "this version is not kept on this computer",
}
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class RuleLimits:
    """From which score on findings of a class at a camera ask for a verdict; ``more`` are its other terms."""

    camera: str
    defect_class: str
    ng_score: float
    review_score: float
    more: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class GoldenFile:
    """The golden template of a camera; ``size_px`` is width and height, (0, 0) where its file says nothing of it.

    ``state``: sealed (as the lock has it), changed, missing, or with-frame (each frame brought its own).
    """

    camera: str
    file: str
    size_px: tuple[int, int] = (0, 0)
    state: GoldenState = "sealed"


@dataclass(frozen=True, slots=True)
class SealedVersion:
    """A version of a recipe; without ``folder`` it cannot be read, and ``why_not`` is the word why (``WHY_NOT``)."""

    folder: str = ""
    in_force: bool = False
    signed_by: str = ""
    limits: tuple[RuleLimits, ...] = ()
    goldens: tuple[GoldenFile, ...] = ()
    why_not: str = ""


class SealedVersions:
    """The versions beside the recipes of a station, each read once."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._known: dict[tuple[str, str], SealedVersion] = {}

    def of(self, recipe_id: str, sha256: str) -> SealedVersion:
        """The version of a recipe whose lock has this SHA-256."""
        if (recipe_id, sha256) not in self._known:
            self._known[recipe_id, sha256] = self._find(recipe_id, sha256)
        return self._known[recipe_id, sha256]

    def in_force(self) -> SealedVersion:
        """The version of the station's own recipe that is in force now."""
        if ("", "") not in self._known:
            found = _read(Path(self._places.recipe), in_force=True)
            self._known["", ""] = found or SealedVersion(why_not="changed")
        return self._known["", ""]

    def _find(self, recipe_id: str, sha256: str) -> SealedVersion:
        if not _SHA256.fullmatch(sha256) or not _NAME.fullmatch(recipe_id):
            return SealedVersion(why_not="no_recipe")
        for folder, in_force in self._candidates(recipe_id, sha256):
            if _sha256(folder / LOCK) == sha256:
                return _read(folder, in_force=in_force) or SealedVersion(why_not="changed")
        return SealedVersion(why_not="not_here")

    def _candidates(self, recipe_id: str, sha256: str) -> Iterator[tuple[Path, bool]]:
        recipe = Path(self._places.recipe)
        recipes = [recipe, *([Path(self._places.recipes) / recipe_id] if self._places.recipes else [])]
        for folder in recipes:
            yield folder, folder == recipe
            yield folder.absolute().parent / VERSIONS / recipe_id / sha256[:SHOWN], False


def _read(folder: Path, *, in_force: bool) -> SealedVersion | None:
    """What a version says; None when its files are not what its lock names."""
    try:
        lock = json.loads(_content(folder / LOCK))
        content = _content(folder / RECIPE_TOML)
        if hashlib.sha256(content).hexdigest() != lock["files"][RECIPE_TOML]:
            return None
        views = _views(tomllib.loads(content.decode()))
        signature = lock.get("signature") or {}
        limits = tuple(_limits(role, rule) for role, view in views.items() for rule in view.get("rules", ()))
        named = {role: str(view["golden"]) for role, view in views.items() if view.get("golden")}
        goldens = tuple(_golden(folder, role, name, lock["files"].get(name)) for role, name in named.items())
        return SealedVersion(str(folder), in_force, str(signature.get("fingerprint", "")), limits, goldens)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # no such files, or no such forms in them
        return None


def _views(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The views by camera role; a recipe of schema 1 has one, at the top of the file."""
    views = document.get("views")
    return views if isinstance(views, dict) else {str(document.get("camera", "top")): document}


def _limits(role: str, rule: dict[str, Any]) -> RuleLimits:
    plain = ("defect_class", "ng_score", "review_score")
    more = tuple((key, str(value)) for key, value in rule.items() if key not in plain)
    return RuleLimits(role, str(rule["defect_class"]), float(rule["ng_score"]), float(rule["review_score"]), more)


def _golden(folder: Path, role: str, name: str, sealed: object) -> GoldenFile:
    if name == WITH_FRAME or not _NAME.fullmatch(name):
        return GoldenFile(role, name, state="with-frame")
    try:
        content = (folder / name).read_bytes()
    except OSError:
        return GoldenFile(role, name, state="missing")
    width, height = struct.unpack(">II", content[16:24]) if content[:8] == _PNG and len(content) > 24 else (0, 0)
    state: GoldenState = "sealed" if hashlib.sha256(content).hexdigest() == sealed else "changed"
    return GoldenFile(role, name, (width, height), state)


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"{path} is too large")
    return content


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(_content(path)).hexdigest()
    except (OSError, ValueError):
        return ""
