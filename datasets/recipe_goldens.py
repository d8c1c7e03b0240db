"""The recipe versions that judged a station's records, and the golden templates that were sealed in them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from inspection.config import StationConfig
from inspection.errors import InspectionError
from inspection.images import read_bytes
from inspection.recipe_config import GOLDEN_WITH_FRAME, Recipe, load_recipe
from inspection.recipe_lock import read_lock
from inspection.recipe_versions import find_version
from inspection.types import Record


class Unusable(Exception):
    """Why a record, or a picture of it, cannot become a sample."""


@dataclass(frozen=True, slots=True)
class JudgedBy:
    """One version of a recipe: what it says, and its goldens by camera role, copied to a place of their own."""

    recipe: Recipe
    goldens: dict[str, Path | str]

    @property
    def classes(self) -> tuple[str, ...]:
        """Every defect class that it has a rule for."""
        rules = (rule for view in self.recipe.views.values() for rule in view.rules)
        return tuple(dict.fromkeys(rule.defect_class for rule in rules))

    def golden(self, role: str) -> Path | None:
        """The golden that the frames of a camera were compared with, None where there is none; Unusable without it."""
        golden = self.goldens.get(role)
        if isinstance(golden, str):
            raise Unusable(golden)
        return golden


class RecipesOnDisk:
    """Finds the version that judged a record among those of the station's recipes; goldens are copied to ``scratch``.

    They are copied at once and compared with the lock, because a promotion may exchange the folder at any time.
    """

    def __init__(self, config: StationConfig, scratch: Path) -> None:
        self._config = config
        self._scratch = scratch
        self._known: dict[tuple[str, str], JudgedBy | str] = {}

    def of(self, record: Record) -> JudgedBy:
        """The version that judged the record; Unusable when it is not here any more."""
        key = (record.recipe_id, record.recipe_sha256)
        if key not in self._known:
            try:
                self._known[key] = self._read(*key)
            except InspectionError as problem:
                self._known[key] = problem.what
            except OSError as problem:
                self._known[key] = f"the recipe {record.recipe_id} cannot be read ({problem})"
        known = self._known[key]
        if isinstance(known, str):
            raise Unusable(known)
        return known

    def _read(self, recipe_id: str, sha256: str) -> JudgedBy | str:
        if not sha256:
            return "it was judged by a recipe that was not sealed, so nobody knows which golden it was compared with"
        found = (find_version(folder, sha256) for folder in self._folders(recipe_id))
        folder = next((version for version in found if version is not None), None)
        if folder is None:
            return f"the version {sha256[:16]} of recipe {recipe_id} that judged it is not here any more"
        recipe, files = load_recipe(folder / "recipe.toml"), read_lock(folder).files
        goldens = {role: self._golden(folder, view.golden, files) for role, view in recipe.views.items() if view.golden}
        return JudgedBy(recipe, goldens)

    def _folders(self, recipe_id: str) -> list[Path]:
        """Where versions of a recipe may lie; the id is compared with names on the disk, never made a path."""
        folders = [Path(self._config.recipe)]
        if self._config.recipes:
            folders += [
                path for path in Path(self._config.recipes).iterdir() if path.is_dir() and path.name == recipe_id
            ]
        return folders

    def _golden(self, folder: Path, name: str, files: dict[str, str]) -> Path | str:
        if name == GOLDEN_WITH_FRAME:
            return "its frame brought its own golden, which was not kept"
        content = read_bytes(folder / name)
        sha256 = hashlib.sha256(content).hexdigest()
        if files.get(name) != sha256:
            return f"the golden {name} in {folder} is not the one that was sealed"
        copy = self._scratch / f"{sha256}{Path(name).suffix}"
        copy.write_bytes(content)
        return copy
