"""The recipes a station has at hand, and the change from one to another between two parts.

A recipe comes on the shelf only after its lock, its schema and its self-test have been checked on this machine.  What is
on the shelf is loaded, so that a change costs no part its deadline; a recipe that was sealed anew on disk is loaded anew.
"""

import re
from collections import OrderedDict
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread

from inspection.config import NAME, StationConfig
from inspection.errors import ConfigError, InspectionError, UsageError
from inspection.log import event
from inspection.recipe import LOCK, LoadedRecipe, open_recipe, run_selftest, verify
from inspection.serials import require_reader
from inspection.types import Reason


class Refusal(Exception):
    """Why a recipe cannot be put in force."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.text)
        self.reason = reason


class Shelf:
    """Recipes by id.  ``take`` and ``finished`` by the station's thread; one thread of its own loads what is asked for."""

    def __init__(self, config: StationConfig) -> None:
        self.config = config
        first = Path(config.recipe)
        self._folders = {"": first}
        self._loaded: OrderedDict[str, LoadedRecipe] = OrderedDict()
        self._stamps: dict[str, tuple[int, int]] = {}
        self._lock = Lock()
        self._wanted: SimpleQueue[str | None] = SimpleQueue()
        self._finished: SimpleQueue[tuple[str, Reason | None]] = SimpleQueue()
        self._waiting: set[str] = set()
        self._thread: Thread | None = None
        self.first = self._load(first)
        self._folders[self.first.recipe_id] = first
        self._keep(self.first)

    def ids(self) -> tuple[str, ...]:
        """Every recipe that may be asked for, sorted."""
        found = {name for name in self._folders if name}
        if self.config.recipes:
            folder = Path(self.config.recipes)
            try:
                found |= {
                    path.name for path in folder.iterdir() if (path / LOCK).is_file() and re.fullmatch(NAME, path.name)
                }
            except OSError as error:
                raise ConfigError(
                    f"cannot read the recipes folder {folder} ({error.strerror})",
                    fix="create the folder, or correct `recipes` in the station config",
                ) from error
        return tuple(sorted(found))

    def prepare(self, recipe_id: str) -> None:
        """Load a recipe in the background; its end is told by ``finished``.  Asked twice, it is loaded once."""
        if recipe_id in self._waiting:
            return
        self._waiting.add(recipe_id)
        if self._thread is None:
            self._thread = Thread(target=self._run, name="recipes", daemon=True)
            self._thread.start()
        self._wanted.put(recipe_id)

    def finished(self) -> list[tuple[str, Reason | None]]:
        """The recipes that were prepared since the last call, each with the reason when it is refused."""
        ended = []
        while not self._finished.empty():
            ended.append(self._finished.get())
            self._waiting.discard(ended[-1][0])
        return ended

    def take(self, recipe_id: str) -> LoadedRecipe:
        """The recipe ready to judge, loaded now when it is not at hand; Refusal with the reason otherwise."""
        try:
            folder = self._folder(recipe_id)
            with self._lock:
                loaded = self._loaded.get(recipe_id)
                if loaded is not None and self._stamps.get(recipe_id) == _stamp(folder):
                    self._loaded.move_to_end(recipe_id)
                    return loaded
            loaded = self._load(folder)
            if loaded.recipe_id != recipe_id:
                raise ConfigError(
                    f"the folder {folder.name} holds recipe {loaded.recipe_id!r}",
                    fix="name the folder as the recipe_id in its recipe.toml",
                )
            self._keep(loaded)
            return loaded
        except InspectionError as error:
            rule = "recipe.unknown" if isinstance(error, UsageError) else "recipe.refused"
            event("recipe.refused", recipe=recipe_id, what=error.what, fix=error.fix)
            raise Refusal(Reason(rule, f"{error.what}; {error.fix}")) from error

    def close(self) -> None:
        """Let the loading thread end; a second call does nothing."""
        if self._thread is not None and self._thread.is_alive():
            self._wanted.put(None)
            self._thread.join(timeout=10.0)

    def _run(self) -> None:
        while (recipe_id := self._wanted.get()) is not None:
            try:
                self.take(recipe_id)
                self._finished.put((recipe_id, None))
            except Refusal as refusal:
                self._finished.put((recipe_id, refusal.reason))
            except Exception as error:  # a recipe must not end the thread that loads the next
                text = f"unforeseen {type(error).__name__}: {error}"
                event("recipe.refused", error=error, recipe=recipe_id)
                self._finished.put((recipe_id, Reason("recipe.refused", text)))

    def _folder(self, recipe_id: str) -> Path:
        if recipe_id in self._folders:
            return self._folders[recipe_id]
        folder = Path(self.config.recipes) / recipe_id if self.config.recipes else None
        if folder is None or not re.fullmatch(NAME, recipe_id) or not folder.is_dir():
            raise UsageError(f"there is no recipe {recipe_id!r} on this station", fix=f"known: {', '.join(self.ids())}")
        return folder

    def _load(self, folder: Path) -> LoadedRecipe:
        loaded = prepare_recipe(self.config, folder)
        run_selftest(loaded)
        loaded.warm_up()
        return loaded

    def _keep(self, loaded: LoadedRecipe) -> None:
        with self._lock:
            self._loaded[loaded.recipe_id] = loaded
            self._loaded.move_to_end(loaded.recipe_id)
            self._stamps[loaded.recipe_id] = _stamp(loaded.folder)
            while len(self._loaded) > self.config.at_hand:
                self._loaded.popitem(last=False)


def _stamp(folder: Path) -> tuple[int, int]:
    """What changes when the recipe is sealed anew."""
    try:
        stat = (folder / LOCK).stat()
    except OSError:
        return (0, 0)
    return (stat.st_mtime_ns, stat.st_ino)


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
