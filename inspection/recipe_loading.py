"""Loads one version of a recipe for a station: checked on this machine, and whole whatever happens on the disk."""

from dataclasses import dataclass
from pathlib import Path

from inspection.config import StationConfig
from inspection.errors import ConfigError, InspectionError
from inspection.recipe import LOCK, LoadedRecipe, open_recipe, run_selftest, verify
from inspection.recipe_lock import read_lock
from inspection.serials import require_reader

ATTEMPTS = 3  # to load a folder that is exchanged meanwhile


@dataclass(frozen=True, slots=True)
class Stamp:
    """What changes when a recipe is sealed anew; of a folder without lock all zero."""

    mtime_ns: int = 0
    inode: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A recipe ready to judge, who signed it (fingerprint of the key, "" = nobody), and its lock on the disk."""

    loaded: LoadedRecipe
    signed_by: str
    stamp: Stamp


def load_version(config: StationConfig, folder: Path) -> Version:
    """Check and load one version, whole: a folder that is exchanged meanwhile is loaded again."""
    for _ in range(ATTEMPTS):
        before = _mark(folder)
        try:
            loaded = prepare_recipe(config, folder)
            signature = read_lock(folder).signature
            run_selftest(loaded)
        except InspectionError:
            if _mark(folder) == before:
                raise
            continue
        except OSError as error:
            if _mark(folder) == before:
                raise ConfigError(
                    f"cannot read {error.filename or folder} ({error.strerror})", fix="check its permissions"
                ) from error
            continue
        if _mark(folder) == before:
            loaded.warm_up()
            return Version(loaded, "" if signature is None else signature.fingerprint, before[0])
    raise ConfigError(
        f"the recipe {folder} was changed again and again while it was loaded",
        fix="see who writes there; seal it when it is complete",
    )


def stamp_of(folder: Path) -> Stamp:
    """The stamp of the version that lies in a folder now."""
    try:
        stat = (folder / LOCK).stat()
    except OSError:
        return Stamp()
    return Stamp(stat.st_mtime_ns, stat.st_ino)


def _mark(folder: Path) -> tuple[Stamp, int, int]:
    """The same before and after means that nobody put another version here meanwhile, and this one back again."""
    try:
        stat = folder.stat()
    except OSError:
        return (Stamp(), 0, 0)
    return (stamp_of(folder), stat.st_ino, stat.st_ctime_ns)


def prepare_recipe(config: StationConfig, folder: Path) -> LoadedRecipe:
    """Verify and load a recipe and see that this station has the cameras it asks for; ConfigError otherwise."""
    verify(folder, config.trusted_keys)
    loaded = open_recipe(folder, threads=config.threads, provider=config.provider)
    missing = sorted(set(loaded.cameras) - set(config.cameras))
    if missing:
        raise ConfigError(
            f"recipe {loaded.recipe_id} looks through camera {', '.join(map(repr, missing))}; "
            f"station {config.station_id} has {', '.join(sorted(config.cameras))}",
            fix="name the camera so in the station config, or choose another recipe",
        )
    require_reader(loaded.recipe.serial)
    loaded.set_mm_per_px({role: config.scale_mm_per_px.get(role) for role in loaded.cameras})
    return loaded
