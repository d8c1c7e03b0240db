"""The recipe versions that judged a span, as far as they are still here: their goldens, regions, rules and models' cards."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from inspection.config import StationConfig
from inspection.errors import InspectionError
from inspection.images import decode_image
from inspection.model import ModelCard, load_model
from inspection.no_picture import NoPicture
from inspection.recipe_config import GOLDEN_WITH_FRAME, ViewSection
from inspection.recipe_of_record import RecipesOfRecords, Version
from inspection.record_reader import RecordReader


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """A golden template as it was sealed: its file, and its size in pixels."""

    png: bytes
    sha256: str
    width: int
    height: int


class VersionsHere:
    """Looks versions up by the SHA-256 of their lock; ``missing`` are those that are not here, or not as they were sealed."""

    def __init__(self, config: StationConfig, parts: pl.DataFrame) -> None:
        self._by_sha256: dict[str, Version] = {}
        self._goldens: dict[tuple[str, str], Golden | NoPicture] = {}
        self.missing: dict[str, NoPicture] = {}
        recipes = RecipesOfRecords(config)
        judged = parts.filter(pl.col("recipe_sha256") != "").group_by("recipe_sha256").agg(pl.col("record_id").first())
        reader = RecordReader(Path(config.store))
        try:
            for sha256, record_id in sorted((str(sha), name) for sha, name in judged.iter_rows()):
                self._look_up(recipes, reader, sha256, record_id)
        finally:
            reader.close()

    def _look_up(self, recipes: RecipesOfRecords, reader: RecordReader, sha256: str, record_id: str) -> None:
        try:
            record = reader.find(record_id)
            if record is not None:
                self._by_sha256[sha256] = recipes.version(record)
        except NoPicture as refused:
            self.missing[sha256] = refused
        except InspectionError as error:  # its record cannot be read
            self.missing[sha256] = NoPicture("no_recipe", error.what)

    def find(self, sha256: str) -> Version | None:
        """The version, None when it is not here."""
        return self._by_sha256.get(sha256)

    def views(self, sha256: str) -> dict[str, ViewSection]:
        """What it says of each camera; none when it is not here."""
        found = self.find(sha256)
        return dict(found.recipe.views) if found is not None else {}

    def golden(self, sha256: str, role: str) -> Golden | NoPicture:
        """The golden of a camera, or why there is none."""
        key = (sha256, role)
        if key not in self._goldens:
            self._goldens[key] = self._golden(sha256, role)
        return self._goldens[key]

    def _golden(self, sha256: str, role: str) -> Golden | NoPicture:
        version = self.find(sha256)
        if version is None:
            return self.missing.get(sha256) or NoPicture("no_recipe")
        try:
            name = version.view(role).golden
            if name in ("", GOLDEN_WITH_FRAME):
                return NoPicture("golden_with_frame" if name else "no_golden")
            content = version.sealed_file(name)
            height, width = decode_image(content, name).shape[:2]
        except NoPicture as refused:
            return refused
        except InspectionError as error:
            return NoPicture("recipe_changed", error.what)
        return Golden(content, hashlib.sha256(content).hexdigest(), width, height)

    def cards(self, sha256s: Iterable[str]) -> dict[str, ModelCard]:
        """The card of each view's model, by ROLE; of the first of these versions that is here whole."""
        for sha256 in sha256s:
            version = self.find(sha256)
            try:
                if version is not None:
                    return {role: _card(version, view.model) for role, view in version.recipe.views.items()}
            except InspectionError:  # not as it was sealed: the next version may hold the same model
                continue
        return {}


def _card(version: Version, model: str) -> ModelCard:
    version.sealed_file(model)
    return load_model(version.folder / model, threads=1).card
