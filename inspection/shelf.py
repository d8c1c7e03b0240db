"""The recipes a station has at hand, and the change from one to another between two parts.

A recipe comes on the shelf only after its lock, its schema and its self-test have been checked on this machine.  What is
on the shelf is loaded, so that a change costs no part its deadline.  A recipe that was sealed anew on disk (promoted,
rolled back) is noticed about once a second and loaded in the background; until then, and when it is refused, the version
in memory judges.  Who asks for a change hears of files that were edited since they were sealed: they are verified again
then, in the background too.
"""

import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from time import monotonic

from inspection.config import NAME, StationConfig
from inspection.errors import ConfigError, InspectionError, UsageError
from inspection.log import event
from inspection.recipe import LOCK, LoadedRecipe, verify
from inspection.recipe_loading import Stamp, Version, load_version, stamp_of
from inspection.recipe_loading import prepare_recipe as prepare_recipe
from inspection.types import Reason
from inspection.version_folder import complete_changes

LOOK_S = 1.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 300.0  # before a refused version is looked at again: it may be half copied


class Refusal(Exception):
    """Why a recipe cannot be put in force."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Prepared:
    """A recipe that was asked for, or (``renewed``) whose new version was found: at hand now, or the reason why not."""

    recipe_id: str
    refusal: Reason | None
    renewed: bool


@dataclass(slots=True)
class _Refused:
    """A version on the disk that failed its checks, and when it is looked at again."""

    stamp: Stamp
    text: str
    again_s: float
    pause_s: float = FIRST_PAUSE_S


class Shelf:
    """Recipes by id.  One thread of its own, begun by ``watch`` or ``prepare``, loads; the rest is for the station's."""

    def __init__(self, config: StationConfig) -> None:
        self.config = config
        first = Path(config.recipe)
        self._folders = {"": first}
        self._versions: OrderedDict[str, Version] = OrderedDict()
        self._refused: dict[str, _Refused] = {}
        self._in_force = ""
        self._unreadable = ""
        self._lock = Lock()
        self._wanted: SimpleQueue[str | None] = SimpleQueue()
        self._finished: SimpleQueue[Prepared] = SimpleQueue()
        self._waiting: set[str] = set()
        self._shielded: set[str] = set()  # asked for, and not dropped before the station could take it
        self._thread: Thread | None = None
        self._looked_s = monotonic()
        _complete_changes(config)
        version = load_version(self.config, first)
        self.first = version.loaded
        self._folders[self.first.recipe_id] = first
        self.known = self.ids()
        self._keep(version)
        self.in_force(self.first.recipe_id)

    def ids(self) -> tuple[str, ...]:
        """Every recipe that may be asked for, sorted; ``known`` is what it said about a second ago, without the disk."""
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

    def watch(self) -> None:
        """Look from now on for recipes that were sealed anew; a second call does nothing."""
        if self._thread is None:
            self._thread = Thread(target=self._run, name="recipes", daemon=True)
            self._thread.start()

    def prepare(self, recipe_id: str) -> None:
        """Load a recipe, or its newest version, in the background; its end is told by ``finished``, once if asked twice."""
        if recipe_id not in self._waiting:
            self._waiting.add(recipe_id)
            self._shielded.add(recipe_id)
            self.watch()
            self._wanted.put(recipe_id)

    def finished(self) -> list[Prepared]:
        """What came to its end since the last call; it is at hand at least until the next one."""
        self._shielded = set(self._waiting)
        ended = []
        while not self._finished.empty():
            ended.append(self._finished.get())
            if not ended[-1].renewed:
                self._waiting.discard(ended[-1].recipe_id)
        return ended

    def take(self, recipe_id: str) -> LoadedRecipe:
        """The newest version of a recipe that is at hand; where none is, it is loaded now.  Refusal with the reason."""
        version = self._at_hand(recipe_id)
        return (version or self._fresh(recipe_id)).loaded

    def in_force(self, recipe_id: str) -> None:
        """From now on this recipe, which is at hand, is never dropped to make room."""
        self._in_force = recipe_id

    def signed_by(self, recipe_id: str) -> str:
        """The fingerprint of the key that signed the version at hand; "" when nobody did."""
        version = self._at_hand(recipe_id)
        return "" if version is None else version.signed_by

    def close(self) -> None:
        """Let the loading thread end; a second call does nothing."""
        if self._thread is not None and self._thread.is_alive():
            self._wanted.put(None)
            self._thread.join(timeout=10.0)

    # ---- in the thread that loads

    def _run(self) -> None:
        while True:
            try:
                recipe_id = self._wanted.get(timeout=max(0.0, self._looked_s + LOOK_S - monotonic()))
            except Empty:
                self._look()
                continue
            if recipe_id is None:
                return
            self._finished.put(self._prepared(recipe_id, self._newest))
            self._list()

    def _prepared(self, recipe_id: str, load: Callable[[str], object], *, renewed: bool = False) -> Prepared:
        try:
            load(recipe_id)
            return Prepared(recipe_id, None, renewed)
        except Refusal as refusal:
            return Prepared(recipe_id, refusal.reason, renewed)
        except Exception as error:  # a recipe must not end the thread that loads the next
            event("recipe.refused", error=error, recipe=recipe_id)
            text = f"unforeseen {type(error).__name__}: {error}"
            return Prepared(recipe_id, Reason("recipe.refused", text), renewed)

    def _newest(self, recipe_id: str) -> None:
        """The version on the disk is at hand, and its files are as they were sealed; Refusal with the reason otherwise."""
        version = self._at_hand(recipe_id)
        if version is None or not self._lies_there(version):
            self._fresh(recipe_id)

    def _lies_there(self, version: Version) -> bool:
        """Whether the disk still holds this version whole.  The stamp alone tells of a new seal, not of an edited file."""
        folder = version.loaded.folder
        if stamp_of(folder) != version.stamp:
            return False
        try:
            verify(folder, self.config.trusted_keys)
        except (
            InspectionError,
            OSError,
        ):  # what is wrong, or that it is exchanged at this very moment, loading finds out
            return False
        return True

    def _look(self) -> None:
        """Load what was sealed anew.  A folder without lock is in the middle of a change, and looked at next time."""
        self._looked_s = monotonic()
        self._list()
        with self._lock:
            versions = dict(self._versions)
        for recipe_id, version in versions.items():
            now = stamp_of(version.loaded.folder)
            if now == version.stamp:
                if self._refused.pop(recipe_id, None) is not None:  # what is at hand lies there again
                    self._finished.put(Prepared(recipe_id, None, True))
            elif self._is_due(recipe_id, now):
                self._renew(recipe_id, now)

    def _list(self) -> None:
        try:
            self.known, unreadable = self.ids(), ""
        except ConfigError as error:
            unreadable = error.what
            if unreadable != self._unreadable:
                event("recipe.unreadable", what=error.what, fix=error.fix)
        self._unreadable = unreadable

    def _is_due(self, recipe_id: str, now: Stamp) -> bool:
        refused = self._refused.get(recipe_id)
        if refused is not None and refused.stamp == now:
            return monotonic() >= refused.again_s
        if now == Stamp():
            self._refused[recipe_id] = _Refused(now, "", monotonic() + LOOK_S / 2)
            return False
        return True

    def _renew(self, recipe_id: str, now: Stamp) -> None:
        prepared = self._prepared(recipe_id, self._fresh, renewed=True)
        before = self._refused.pop(recipe_id, None)
        text = "" if prepared.refusal is None else prepared.refusal.text
        if text:
            pause_s = FIRST_PAUSE_S
            if before is not None and before.stamp == now:
                pause_s = min(LONGEST_PAUSE_S, 2 * before.pause_s)
            self._refused[recipe_id] = _Refused(now, text, monotonic() + pause_s, pause_s)
        if not text or before is None or text != before.text:
            self._finished.put(prepared)

    # ---- in either thread

    def _at_hand(self, recipe_id: str) -> Version | None:
        with self._lock:
            version = self._versions.get(recipe_id)
            if version is not None:
                self._versions.move_to_end(recipe_id)
            return version

    def _fresh(self, recipe_id: str) -> Version:
        """Load what lies on the disk and put it on the shelf; Refusal with the reason otherwise."""
        try:
            folder = self._folder(recipe_id)
            version = load_version(self.config, folder)
            if version.loaded.recipe_id != recipe_id:
                raise ConfigError(
                    f"the folder {folder.name} holds recipe {version.loaded.recipe_id!r}, asked for was {recipe_id!r}",
                    fix="name the folder as the recipe_id in its recipe.toml",
                )
            self._keep(version)
            return version
        except InspectionError as error:
            rule = "recipe.unknown" if isinstance(error, UsageError) else "recipe.refused"
            event("recipe.refused", recipe=recipe_id, what=error.what, fix=error.fix)
            raise Refusal(Reason(rule, f"{error.what}; {error.fix}")) from error

    def _folder(self, recipe_id: str) -> Path:
        if recipe_id in self._folders:
            return self._folders[recipe_id]
        folder = Path(self.config.recipes) / recipe_id if self.config.recipes else None
        if folder is None or not re.fullmatch(NAME, recipe_id) or not folder.is_dir():
            raise UsageError(f"there is no recipe {recipe_id!r} on this station", fix=f"known: {', '.join(self.ids())}")
        return folder

    def _keep(self, version: Version) -> None:
        recipe_id = version.loaded.recipe_id
        with self._lock:
            self._versions[recipe_id] = version
            self._versions.move_to_end(recipe_id)
            spare = [name for name in self._versions if name not in {recipe_id, self._in_force, *self._shielded}]
            for name in spare[: max(0, len(self._versions) - self.config.at_hand)]:
                del self._versions[name]


def _complete_changes(config: StationConfig) -> None:
    """Finish what a promotion left when the power failed; the station starts with what is there all the same."""
    for folder in {Path(config.recipe).parent, *([Path(config.recipes)] if config.recipes else [])}:
        try:
            complete_changes(folder)
        except InspectionError as error:
            event("recipe.change_unfinished", what=error.what, fix=error.fix)
