"""The page of the recipes: which is in force with its lock and signature, changeover, versions, rollback.

Operators may ask the station for another recipe, engineers may also put an earlier version in force; both are asked once
more before anything happens, and both leave a line in the audit.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from inspection.config import StationConfig
from inspection.errors import ConfigError, InspectionError, UsageError
from inspection.hmi.board import local
from inspection.hmi.context import Context
from inspection.recipe import lock_sha256
from inspection.recipe_config import Recipe, load_recipe
from inspection.recipe_lock import read_lock, verify
from inspection.recipe_versions import Change, find_version, history, rollback, stored_versions
from inspection.station_link import StationStatus, is_stale, read_status, request_recipe
from inspection.web.access import Role
from inspection.web.shell import page, render
from inspection.web.texts import words

SECTION = "recipes"
MOST_CHANGES = 30
LONGEST_WHY = 500


class _NotAsked(UsageError):
    """What is not even asked of the station.

    ``word`` names its text in each language, ``named`` fills that in, ``detail`` stands below in English.
    """

    def __init__(self, what: str, *, fix: str, word: str, named: str = "", detail: str = "") -> None:
        super().__init__(what, fix=fix)
        self.word = word
        self.named = named
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Shown:
    """A recipe on the disk.  ``trouble`` says why it cannot be read."""

    recipe_id: str
    folder: Path
    recipe: Recipe | None
    sha256: str
    signed_by: str
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class ShownVersion:
    """A version of a recipe that is kept, and the last change that put it in force."""

    sha256: str
    signed_by: str
    here: bool
    change: Change | None


def routes(context: Context) -> list[Route]:
    """The page of the recipes and what it asks for."""
    page_of = _RecipePage(context)
    return [
        page("/recipe", page_of.show),
        page("/recipe/request/{request_id}", page_of.outcome),
        page("/recipe/change", page_of.confirm_change),
        page("/recipe/change", page_of.change, methods=("POST",)),
        page("/recipe/rollback", page_of.confirm_rollback, role=Role.ENGINEER),
        page("/recipe/rollback", page_of.rollback, role=Role.ENGINEER, methods=("POST",)),
    ]


class _RecipePage:
    """What is shown and asked for, of one station."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._config = context.config

    def show(self, request: Request) -> Response:
        """All recipes, and the versions of the one in force or of ``?recipe=``."""
        status, stale = self._status()
        folders = recipe_folders(self._config)
        recipes = [shown(name, folder) for name, folder in folders.items()]
        first = next(iter(folders))
        in_force = status.recipe_id if status is not None and status.recipe_id in folders else first
        chosen = request.query_params.get("recipe", in_force)
        chosen = chosen if chosen in folders else first
        versions, changes, trouble = _versions(folders[chosen])
        return render(
            request, "recipes.html", section=SECTION, station=status, stale=stale, recipes=recipes, chosen=chosen,
            versions=versions, changes=changes, trouble=trouble, local=local,
            request_id=request.query_params.get("request", ""), done=request.query_params.get("done", ""),
            edited=_edited(folders[in_force]), taking=_is_taking(status, stale, recipes),
        )  # fmt: skip

    def outcome(self, request: Request) -> Response:
        """What became of a request: a fragment that asks again until that is known."""
        status, stale = self._status()
        asked = request.path_params["request_id"]
        last = status.last_request if status is not None else None
        known = last if last is not None and last.request_id == asked else None
        return render(request, "recipes_outcome.html", section=SECTION, request_id=asked, outcome=known, stale=stale)

    def confirm_change(self, request: Request) -> Response:
        """Asks once more before the station is asked for another recipe."""
        return self._asked(request, "change", request.query_params.get("recipe", ""))

    def change(self, request: Request) -> Response:
        """Ask the station for a recipe."""
        recipe_id = str(request.state.form.get("recipe", ""))
        who = request.state.user.name
        try:
            status, stale = self._status()
            if status is None or stale:
                raise _NotAsked("the station does not run", fix="start the station first", word="gone")
            if recipe_id not in status.recipes:
                raise _unknown(status.recipes)
            request_id = request_recipe(self._context.store, recipe_id, who)
        except InspectionError as error:
            return self._asked(request, "change", recipe_id, error=error)
        self._context.accounts.audit(who, "recipe.asked_for", recipe=recipe_id, request=request_id)
        return RedirectResponse(f"/recipe?request={request_id}", status_code=303)

    def confirm_rollback(self, request: Request) -> Response:
        """Asks once more, and for the reason, before an earlier version is put in force."""
        return self._asked(
            request, "rollback", request.query_params.get("recipe", ""), to=request.query_params.get("to", "")
        )

    def rollback(self, request: Request) -> Response:
        """Put an earlier version in force."""
        form = request.state.form
        recipe_id, to, why = (str(form.get(name, "")) for name in ("recipe", "to", "why"))
        who = request.state.user.name
        try:
            folder = self._folder(recipe_id)
            before = lock_sha256(folder)
            now = rollback(folder, who=who, why=why[:LONGEST_WHY], to=to, trusted=self._config.trusted_keys)
        except InspectionError as error:
            self._context.accounts.audit(who, "recipe.rollback_refused", recipe=recipe_id, to=to, why=error.what)
            return self._asked(request, "rollback", recipe_id, to=to, error=error)
        self._context.accounts.audit(
            who, "recipe.rollback", recipe=recipe_id, from_sha256=before, to_sha256=now, why=why[:LONGEST_WHY]
        )
        return RedirectResponse("/recipe?done=rollback", status_code=303)

    def _asked(
        self, request: Request, what: str, recipe_id: str, *, to: str = "", error: InspectionError | None = None
    ) -> Response:
        status, stale = self._status()
        folders = recipe_folders(self._config)
        target: Shown | None = shown(recipe_id, folders[recipe_id]) if recipe_id in folders else None
        if error is None:
            error = _unknown(folders) if target is None else _not_as_sealed(target) if what == "change" else None
        return render(
            request, "recipes_confirm.html", section=SECTION, status=200 if error is None else 409, what=what,
            recipe_id=recipe_id, target=target, to=to, station=status, stale=stale,
            said=None if error is None else _said(request, error),
            longest=LONGEST_WHY, why=str(getattr(request.state, "form", {}).get("why", "")),
        )  # fmt: skip

    def _folder(self, recipe_id: str) -> Path:
        folders = recipe_folders(self._config)
        if recipe_id not in folders:
            raise _unknown(folders)
        return folders[recipe_id]

    def _status(self) -> tuple[StationStatus | None, bool]:
        status = read_status(self._context.store)
        return status, status is None or is_stale(status)


def _unknown(known: Iterable[str]) -> _NotAsked:
    named = ", ".join(known)
    return _NotAsked("this station has no such recipe", fix=f"it has: {named}", word="unknown", named=named)


def _not_as_sealed(target: Shown) -> _NotAsked | None:
    """Why the station would refuse a recipe whose files were edited; None when they are as they were sealed."""
    edited = _edited(target.folder)
    if not edited:
        return None
    return _NotAsked(edited, fix="restore its files, or seal it again", word="edited", detail=edited)


def _said(request: Request, error: InspectionError) -> tuple[list[str], list[str]]:
    """A refusal: the lines in the page's language, as far as there are words for it, and those in English."""
    if not isinstance(error, _NotAsked):
        return [], [error.what, error.fix]
    t = words(request.state.language, SECTION)
    own = [t[f"say_{error.word}"], t[f"say_{error.word}_fix"].replace("{named}", error.named)]
    return own, [error.detail] if error.detail else []


def _edited(folder: Path) -> str:
    """What of a recipe's files is not as it was sealed; "" when all is."""
    try:
        verify(folder)
    except InspectionError as error:
        return error.what
    except OSError as error:  # it is exchanged at this very moment
        return f"{error.filename or folder}: {error.strerror}"
    return ""


def _is_taking(status: StationStatus | None, stale: bool, recipes: Sequence[Shown]) -> bool:
    """Whether the station runs and still judges by another version than lies on the disk."""
    if status is None or stale:
        return False
    return any(one.recipe_id == status.recipe_id and one.sha256 != status.recipe_sha256 for one in recipes)


def recipe_folders(config: StationConfig) -> dict[str, Path]:
    """The folders of the station's recipes by id, its own first; one that cannot be read goes by its folder's name."""
    folders = [Path(config.recipe)]
    if config.recipes and Path(config.recipes).is_dir():
        folders += sorted(path for path in Path(config.recipes).iterdir() if (path / "recipe.toml").is_file())
    found: dict[str, Path] = {}
    for folder in folders:
        found.setdefault(_id_of(folder), folder)
    return found


def _id_of(folder: Path) -> str:
    try:
        return load_recipe(folder / "recipe.toml").recipe_id
    except InspectionError:
        return folder.name


def shown(recipe_id: str, folder: Path) -> Shown:
    """What the page tells of a recipe."""
    try:
        recipe = load_recipe(folder / "recipe.toml")
        return Shown(recipe_id, folder, recipe, lock_sha256(folder), _signed_by(folder))
    except InspectionError as error:
        return Shown(recipe_id, folder, None, lock_sha256(folder), "", error.what)


def _signed_by(folder: Path) -> str:
    signature = read_lock(folder).signature
    return "" if signature is None else signature.fingerprint


def _versions(folder: Path) -> tuple[list[ShownVersion], list[Change], str]:
    """The versions kept, the one in force first; the changes, newest first; and what is wrong with these files."""
    now = lock_sha256(folder)
    try:
        changes = list(history(folder))
        kept = [sha for sha in stored_versions(folder) if sha != now]
    except ConfigError as error:
        return [], [], error.what
    last = {change.to_sha256: change for change in changes}
    when = {change.to_sha256: number for number, change in enumerate(changes)}
    kept.sort(key=lambda sha: -when.get(sha, -1))
    versions = [
        ShownVersion(sha, _signed_version(folder, sha), sha == now, last.get(sha)) for sha in (now, *kept) if sha
    ]
    return versions, changes[::-1][:MOST_CHANGES], ""


def _signed_version(folder: Path, sha256: str) -> str:
    found = find_version(folder, sha256)
    try:
        return "" if found is None else _signed_by(found)
    except ConfigError:
        return ""
