"""What a station and the pages tell each other, by two files beside the record store.

* ``STORE.status.json``: what the station says of itself.  It is written whole about once a second, so a file that is
  older than ``STALE_S`` means that the station does not run, or that its disk stands still.
* ``STORE.requests/``: one small file for each wish of a person.  The station takes it away and answers in its status.

Nothing here waits for the station, and the station waits for nothing here: its end is ``status_board``.
"""

import os
import re
import shutil
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from inspection.errors import StoreError, UsageError
from inspection.images import write_whole
from inspection.toml_file import NAME
from inspection.types import new_id, utc_now

STALE_S = 5.0
MOST_REQUESTS = 100
MOST_REQUEST_BYTES = 4096
REQUEST_AGE_S = 60.0  # a wish that is older was made for another moment
REQUEST_NAME = re.compile(r"[0-9a-f]{32}\.json")
_MOST_STATUS_BYTES = 1_000_000
_MOST_LETTERS = 2000
_RecipeId = Annotated[str, Field(pattern=NAME, max_length=200)]


def _plain(text: object) -> object:
    """Text of any origin as text that can be written: a driver's odd letters must not end a station."""
    return text[:_MOST_LETTERS].encode("utf-8", "replace").decode() if isinstance(text, str) else text


_Text = Annotated[str, BeforeValidator(_plain)]


class _Part(BaseModel):
    """A part of what is told: cannot be changed; what a later version adds is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ControllerStatus(_Part):
    """The link to the line: its kind, and why it ended ("" = it serves)."""

    kind: str
    fault: _Text = ""


class PublisherState(_Part):
    """How one receiver of records fares; ``waiting`` records are not confirmed yet."""

    connected: bool
    waiting: int
    last_error: _Text = ""


class EvidenceStatus(_Part):
    """How pictures fare: records whose pictures found the queue full (skipped), or that the disk did not take (failed).

    ``unentered`` files are on the disk, and wait for an evidence ledger that cannot be written.
    """

    folder: _Text
    skipped: int
    failed: int
    last_error: _Text
    free_mb: float | None
    unentered: int = 0


class RefusedRecipe(_Part):
    """The recipe that failed its checks last, and why."""

    recipe_id: _Text
    text: _Text
    at: AwareDatetime


class RequestOutcome(_Part):
    """What became of the last wish of a person; ``text`` says why it was refused."""

    request_id: str
    recipe_id: str
    by: str
    outcome: Literal["waiting", "done", "refused"]
    text: _Text = ""


class StationStatus(_Part):
    """What a station says of itself.

    ``state`` is the name of a StationState, ``holding`` why no recipe is in force ("" = one is), ``cameras`` the fault of
    each role ("" = good), ``recipes`` what can be asked for; free space is None where the disk could not say.
    ``checkpoint_fault`` says why what was recorded last could not be signed ("" = it was), ``contradicted`` which file is
    not what was signed before ("" = all are).
    """

    station_id: str
    state: str
    written_at: AwareDatetime
    pid: int
    recipe_id: str
    recipe_sha256: str
    recipe_folder: _Text
    recipe_signed_by: str
    holding: _Text
    recipes: tuple[str, ...]
    cameras: dict[str, _Text]
    controller: ControllerStatus
    publishers: dict[str, PublisherState]
    evidence: EvidenceStatus
    store_free_mb: float | None
    healthy: bool
    model: _Text
    provider: str
    threads: int
    deadline_ms: int
    refused: RefusedRecipe | None = None
    last_request: RequestOutcome | None = None
    checkpoint_fault: _Text = ""
    contradicted: _Text = ""


class RecipeRequest(BaseModel):
    """A person's wish to have a recipe in force."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    request_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    recipe_id: _RecipeId
    by: Annotated[str, Field(min_length=1, max_length=100)]
    at: AwareDatetime


def status_path(store: Path) -> Path:
    """Where the station of this record store says how it is."""
    return store.with_name(store.name + ".status.json")


def requests_folder(store: Path) -> Path:
    """Where wishes for the station of this record store are put."""
    return store.with_name(store.name + ".requests")


def free_mb(folder: Path) -> float | None:
    """Free space on the disk of a folder that may not be there yet, MB; None when the disk cannot say."""
    try:
        there = next((path for path in (folder, *folder.parents) if path.exists()), folder)
        return round(shutil.disk_usage(there).free / 1e6, 1)
    except OSError:
        return None


def read_status(store: Path) -> StationStatus | None:
    """What the station of this record store said last; None when nothing is known of it.

    That is: no file, one that cannot be read, or one of another form.  See ``is_stale`` for how much it is worth.
    """
    try:
        with status_path(store).open("rb") as file:
            content = file.read(_MOST_STATUS_BYTES + 1)
        return StationStatus.model_validate_json(content) if len(content) <= _MOST_STATUS_BYTES else None
    except (OSError, ValidationError):
        return None


def is_stale(status: StationStatus, now: datetime | None = None) -> bool:
    """Whether a station that runs would have said something newer by ``now`` (UTC; default: this moment)."""
    return abs(((now or utc_now()) - status.written_at).total_seconds()) > STALE_S


def request_recipe(store: Path, recipe_id: str, by: str) -> str:
    """Ask the station of this record store to put a recipe in force between two parts; returns the request's id.

    Its status tells the outcome under that id.  UsageError: the recipe's id or the name is none; StoreError: the request
    cannot be written, or the station takes none away.
    """
    try:
        request = RecipeRequest(request_id=new_id(), recipe_id=recipe_id, by=by, at=utc_now())
    except ValidationError as error:
        wrong = ", ".join(str(entry["loc"][0]) for entry in error.errors())
        raise UsageError(
            f"the request for recipe {recipe_id[:80]!r} by {by[:80]!r} is not valid: {wrong}",
            fix="name one of the station's recipes, and who asks (1..100 characters)",
        ) from error
    folder = requests_folder(store)
    try:
        folder.mkdir(exist_ok=True)
        with os.scandir(folder) as entries:
            waiting = sum(1 for _ in zip(entries, range(MOST_REQUESTS), strict=False))
        if waiting >= MOST_REQUESTS:
            raise StoreError(
                f"{waiting} requests wait in {folder}: the station takes none away",
                fix="see whether the station runs; when it does not, empty that folder before it is started",
            )
        write_whole(folder / f"{request.request_id}.json", request.model_dump_json().encode())
    except OSError as error:
        raise StoreError(
            f"cannot write a request into {folder} ({error.strerror})",
            fix="give the pages' user write permission on the folder of the record store, and free space",
        ) from error
    return request.request_id
