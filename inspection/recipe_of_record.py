"""Finds the very version of the recipe that judged a record, and looks at its frame again with it.

Goldens and models are taken only from a folder whose lock is the one that the record names, and only as the lock has them.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from inspection.byte_cache import ByteCache
from inspection.config import StationConfig
from inspection.detector import grey_of, laid_golden
from inspection.errors import InspectionError, RegistrationError
from inspection.evidence import evidence_of, picture_of
from inspection.geometry import Tile, Window
from inspection.golden import GoldenTemplate, Registration, register
from inspection.images import decode_image, read_bytes, read_grey, to_grey
from inspection.model import load_model
from inspection.no_picture import NoPicture
from inspection.recipe import lock_sha256
from inspection.recipe_config import GOLDEN, GOLDEN_WITH_FRAME, Recipe, ViewSection, load_recipe
from inspection.recipe_lock import read_lock
from inspection.recipe_versions import find_version
from inspection.types import Record
from inspection.view import View, open_view

Image = NDArray[np.uint8]
GOLDENS_BYTES = 200_000_000
MODELS_KEPT = 2
FITS_KEPT = 2000
RECIPES_KEPT = 50
_TILE_PX = 640  # side from which on a golden is aligned once more around the finding


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a recipe on the disk."""

    folder: Path
    sha256: str
    recipe: Recipe

    def view(self, role: str) -> ViewSection:
        """What it says of a camera; NoPicture when it does not look through that one."""
        if role not in self.recipe.views:
            raise NoPicture("no_camera", role)
        return self.recipe.views[role]

    def sealed_file(self, name: str) -> bytes:
        """A file of it; NoPicture when it is not what was sealed."""
        try:
            content = read_bytes(self.folder / name)
            sealed = read_lock(self.folder).files.get(name)
        except InspectionError as error:
            raise NoPicture("recipe_changed", error.what) from error
        if hashlib.sha256(content).hexdigest() != sealed:
            raise NoPicture("recipe_changed", name)
        return content


class RecipesOfRecords:
    """The versions that judged, their goldens laid over frames, their models.  Used by any number of threads."""

    def __init__(self, config: StationConfig) -> None:
        self._config = config
        self._versions: ByteCache[Version] = ByteCache(RECIPES_KEPT, lambda version: 1)
        self._goldens: ByteCache[GoldenTemplate] = ByteCache(GOLDENS_BYTES, _size)
        self._fits: ByteCache[Registration | RegistrationError] = ByteCache(FITS_KEPT, lambda fit: 1)
        self._views: ByteCache[View] = ByteCache(MODELS_KEPT, lambda view: 1)
        self._tasks: ByteCache[str] = ByteCache(RECIPES_KEPT, lambda task: 1)
        self._one_model = Lock()

    def version(self, record: Record) -> Version:
        """The version that judged a record; NoPicture when it is not here any more."""
        if not record.recipe_sha256:
            raise NoPicture("no_recipe", record.recipe_id)
        try:
            found = self._versions.get(record.recipe_sha256, lambda: self._find(record))
            if lock_sha256(found.folder) == record.recipe_sha256:
                return found
            return self._find(record)  # that folder holds another version by now
        except OSError as error:
            raise NoPicture("no_recipe", f"{record.recipe_id}: {error.strerror}") from error

    def _find(self, record: Record) -> Version:
        for folder in self._folders(record.recipe_id):
            try:
                found = find_version(folder, record.recipe_sha256)
                if found is not None:
                    return Version(found, record.recipe_sha256, load_recipe(found / "recipe.toml"))
            except InspectionError as error:
                raise NoPicture("recipe_changed", error.what) from error
        raise NoPicture("no_recipe", f"{record.recipe_id} {record.recipe_sha256[:16]}")

    def _folders(self, recipe_id: str) -> list[Path]:
        """Where versions of a recipe may lie: the station's first recipe, and those it may change to."""
        folders = [Path(self._config.recipe)]
        if self._config.recipes and recipe_id:
            known = {path.name: path for path in Path(self._config.recipes).iterdir() if path.is_dir()}
            folders += [known[recipe_id]] if recipe_id in known else []
        return folders

    def golden_around(self, record: Record, role: str, frame: Image, window: Window) -> Image:
        """The golden (h, w) as the camera would have seen it in a window of the record's frame.

        NoPicture when the recipe has no golden, or it does not fit the frame.
        """
        template = self._golden(record, role)
        fit = self._fits.get((record.record_id, role), lambda: self._fit(record, role, frame, template))
        if isinstance(fit, RegistrationError):
            raise NoPicture("no_fit", fit.what)
        large = max(frame.shape[:2]) > _TILE_PX
        tile = _around(window, frame.shape) if large else (0, 0, frame.shape[1], frame.shape[0])
        laid = laid_golden(template.image, to_grey(frame), fit, Tile(tile, tile), fine=large)
        x1, y1, x2, y2 = window
        return laid[y1 - tile[1] : y2 - tile[1], x1 - tile[0] : x2 - tile[0]]

    def _golden(self, record: Record, role: str) -> GoldenTemplate:
        version = self.version(record)
        name = version.view(role).golden
        if not name:
            raise NoPicture("no_golden")
        if name == GOLDEN_WITH_FRAME:
            return self._brought_golden(record, role)

        def make() -> GoldenTemplate:
            return GoldenTemplate(to_grey(decode_image(version.sealed_file(name), name)))

        return self._goldens.get((version.sha256, name), make)

    def _brought_golden(self, record: Record, role: str) -> GoldenTemplate:
        """The golden that the frame of a camera brought along; NoPicture when it was not kept."""
        path = picture_of(Path(self._config.evidence.folder), evidence_of(record), f"{role}{GOLDEN}")
        if path is None:
            raise NoPicture("golden_with_frame")
        try:
            return self._goldens.get((record.record_id, role), lambda: GoldenTemplate(read_grey(path)))
        except InspectionError as error:
            raise NoPicture("damaged", error.what) from error

    def _fit(
        self, record: Record, role: str, frame: Image, template: GoldenTemplate
    ) -> Registration | RegistrationError:
        limits = self.version(record).view(role).registration.limits()
        try:
            return register(grey_of(frame), template, limits)
        except RegistrationError as error:
            return error

    def heat(self, record: Record, role: str, frame: Image) -> tuple[NDArray[np.float32], float]:
        """The heat map (h, w) of a frame by the model that judged it, and the score from which it is hot.

        NoPicture where the model gives none.  One frame at a time, on one thread.
        """
        version = self.version(record)
        section = version.view(role)
        with self._one_model:
            view = self._views.get((version.sha256, role), lambda: self._view(version, role, section))
            if view.model.card.task == "detect":
                raise NoPicture("no_heat")
            view.set_mm_per_px(self._config.scale_mm_per_px.get(role))
            seen = view.inspect(frame)
        if seen.heat is None:
            raise NoPicture("not_judged", "; ".join(reason.text for reason in seen.judgement.reasons))
        return seen.heat, min(rule.ng_score for rule in section.rules)

    def has_golden(self, record: Record, role: str) -> bool:
        """False where the recipe compares with none; a golden that is missing is asked for, and the picture says why."""
        try:
            return self.version(record).view(role).golden != ""
        except NoPicture:
            return True

    def gives_heat(self, record: Record, role: str) -> bool:
        """Whether the model that judged gives a heat map; also where that cannot be known, because asking then says why."""
        try:
            version = self.version(record)
            section = version.view(role)
            return self._tasks.get((version.sha256, role), lambda: _task_of(version, section)) != "detect"
        except NoPicture:
            return True

    def _view(self, version: Version, role: str, section: ViewSection) -> View:
        version.sealed_file(section.model)
        try:
            model = load_model(version.folder / section.model, threads=1)
            return open_view(version.folder, f"{version.folder}: views.{role}", section, model)
        except InspectionError as error:
            raise NoPicture("recipe_changed", error.what) from error


def _task_of(version: Version, section: ViewSection) -> str:
    version.sealed_file(section.model)
    try:
        return load_model(version.folder / section.model, threads=1).card.task
    except InspectionError as error:
        raise NoPicture("recipe_changed", error.what) from error


def _around(window: Window, shape: tuple[int, ...]) -> Window:
    """The window grown to a tile, so that there is enough around to align on."""
    x1, y1, x2, y2 = window
    height, width = shape[:2]
    across, down = max(0, _TILE_PX - (x2 - x1)) // 2, max(0, _TILE_PX - (y2 - y1)) // 2
    return max(0, x1 - across), max(0, y1 - down), min(width, x2 + across), min(height, y2 + down)


def _size(template: GoldenTemplate) -> int:
    return int(template.image.nbytes + 2 * sum(level.steepest.nbytes for level in template.levels))
