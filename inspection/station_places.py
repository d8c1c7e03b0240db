"""Where a station keeps its things, read from its config without loading what checks the rest of it.

For programs that only look: a trace answers within a second, and also where a camera or a controller in the file is wrong.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from inspection.errors import ConfigError


class EvidencePlace(Protocol):
    """The part of a config that names the evidence folder."""

    @property
    def folder(self) -> str: ...


class Places(Protocol):
    """What a ``StationConfig`` and ``StationPlaces`` both say."""

    @property
    def store(self) -> str: ...
    @property
    def recipe(self) -> str: ...
    @property
    def recipes(self) -> str: ...
    @property
    def evidence(self) -> EvidencePlace: ...


@dataclass(frozen=True, slots=True)
class EvidenceFolder:
    """Where pictures lie."""

    folder: str


@dataclass(frozen=True, slots=True)
class StationPlaces:
    """Absolute paths, named as in ``StationConfig``; ``recipes`` is "" where the station has one recipe."""

    store: str
    recipe: str
    recipes: str
    evidence: EvidenceFolder


def read_places(path: Path) -> StationPlaces:
    """The places in a station config; ConfigError when it cannot be read or does not name them."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path} ({error.strerror})", fix="check the path and its permissions") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}", fix="correct the line named above") from error
    here = path.resolve().parent
    evidence = document.get("evidence")
    return StationPlaces(
        store=_place(document, "store", path, here),
        recipe=_place(document, "recipe", path, here),
        recipes=_place(document, "recipes", path, here) if document.get("recipes") else "",
        evidence=EvidenceFolder(_place(evidence if isinstance(evidence, dict) else {}, "folder", path, here)),
    )


def _place(table: dict[str, Any], key: str, path: Path, here: Path) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value or "\0" in value:
        raise ConfigError(f"{path} does not name its {key}", fix=f"`lineside check {path}` lists what is wrong in it")
    return str(here / value)
