"""What a station and the pages tell each other: the status, and what people ask for."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspection.config import load_station
from inspection.controllers import StationState
from inspection.errors import StoreError, UsageError
from inspection.evidence import EvidenceWriter, is_sampled
from inspection.recipe import LoadedRecipe, open_recipe
from inspection.shelf import Prepared
from inspection.station_desk import Desk, Facts
from inspection.station_link import (
    MOST_REQUEST_BYTES,
    MOST_REQUESTS,
    RecipeRequest,
    StationStatus,
    is_stale,
    read_status,
    request_recipe,
    requests_folder,
    status_path,
)
from inspection.status_board import StatusBoard
from inspection.types import Reason, new_id, utc_now

LIMIT_S = 30


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The path of a record store, which need not be there."""
    return tmp_path / "records.sqlite"


@pytest.fixture
def board(store: Path) -> Iterator[StatusBoard]:
    """A board that writes beside the store."""
    made = StatusBoard(store)
    made.open()
    yield made
    made.close()


@pytest.fixture(scope="module")
def recipe() -> LoadedRecipe:
    """A recipe to be in force."""
    return open_recipe(Path(__file__).resolve().parents[2] / "deploy" / "recipes" / "demo-pcb", threads=1)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """The desk of a station whose store is ``store``."""
    config = tmp_path / "station.toml"
    config.write_text(
        'station_id = "s"\nrecipe = "r"\nstore = "records.sqlite"\n[evidence]\nfolder = "e"\n'
        '[cameras.top]\nkind = "simulated"\n[controller]\nkind = "simulated"\n'
    )
    made = Desk(load_station(config))
    made.open()
    yield made
    made._board.close()


@pytest.fixture
def evidence(tmp_path: Path) -> Iterator[EvidenceWriter]:
    """A writer of pictures."""
    made = EvidenceWriter(tmp_path / "evidence", queue_size=1, min_free_mb=0)
    yield made
    made.close()


def until(condition: Callable[[], object]) -> None:
    end_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end_s, "did not come about in time"
        time.sleep(0.01)


def status(store: Path, **changes: object) -> StationStatus:
    """Some status of a station."""
    document = {
        "station_id": "s", "state": "READY", "written_at": utc_now(), "pid": 1, "recipe_id": "r", "recipe_sha256": "",
        "recipe_folder": "", "recipe_signed_by": "", "holding": "", "recipes": (), "cameras": {"top": ""},
        "controller": {"kind": "simulated"}, "publishers": {}, "store_free_mb": None, "healthy": True, "model": "m",
        "evidence": {"folder": str(store.parent / "a" / "b"), "skipped": 0, "failed": 0, "last_error": "", "free_mb": None},
        "provider": "cpu", "threads": 1, "deadline_ms": 100,
    }  # fmt: skip
    return StationStatus.model_validate(document | changes)


def facts(recipe: LoadedRecipe, evidence: EvidenceWriter, **changes: object) -> Facts:
    fields = {
        "state": StationState.READY, "recipe": recipe, "signed_by": "", "holding": "", "recipes": ("a", "b"),
        "cameras": {"top": "unplugged"}, "controller_fault": "", "publishers": {}, "evidence": evidence, "healthy": True,
    }  # fmt: skip
    return Facts(**(fields | changes))  # type: ignore[arg-type]


def dropped(store: Path, content: bytes, name: str = "") -> Path:
    """A file that somebody put into the folder of requests."""
    requests_folder(store).mkdir(exist_ok=True)
    path = requests_folder(store) / (name or f"{new_id()}.json")
    path.write_bytes(content)
    return path


# ---- status


def test_a_full_disk_takes_a_newer_status(tmp_path: Path) -> None:
    """A station whose disk is full still says so: the status is written over the last one, longer or shorter."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [shutil.which("mount") or "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.name != "posix" or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    store = disk / "records.sqlite"
    board = StatusBoard(store)
    board.open()
    try:
        board.show(status(store, model="a" * 300))
        until(lambda: read_status(store) is not None)
        with suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while filler.write(b"x" * 4096):
                pass
        for model in ("m" * 500, "m"):
            board.show(status(store, model=model, healthy=False))
            until(lambda model=model: (said := read_status(store)) and (said.model, said.healthy) == (model, False))
        assert ["filler", "records.sqlite.requests", "records.sqlite.status.json"] == sorted(
            path.name for path in disk.iterdir()
        )
    finally:
        board.close()
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_status_is_read_as_it_was_shown(store: Path, board: StatusBoard) -> None:
    """What the station showed is what a page reads, with the time of writing, the process and the free space filled in."""
    assert None is read_status(store)
    shown = status(store, recipes=("a", "b"), holding="<script>")
    board.show(shown)
    until(lambda: read_status(store))
    read = read_status(store)
    assert read is not None
    assert (shown.recipes, shown.holding, os.getpid()) == (read.recipes, read.holding, read.pid)
    assert min(read.store_free_mb or 0, read.evidence.free_mb or 0) > 0
    assert not is_stale(read)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff" * 10, b" " * 2_000_000, b'{"station_id": "s"}'])
def test_a_status_that_cannot_be_read_is_none(store: Path, content: bytes) -> None:
    """A page that finds half a file, too large a one or another form knows nothing of the station."""
    status_path(store).write_bytes(content)
    assert None is read_status(store)


@pytest.mark.parametrize(("age_s", "stale"), [(0, False), (4.9, False), (5.1, True), (-5.1, True)])
def test_an_old_status_is_stale(store: Path, age_s: float, stale: bool) -> None:
    """A station that says nothing for five seconds does not run, and a clock that was set back makes nothing fresh."""
    shown = status(store)
    assert stale == is_stale(shown, shown.written_at + timedelta(seconds=age_s))


def test_what_a_later_version_says_more_is_passed_over(store: Path) -> None:
    """A page reads the status of a station that is newer than itself."""
    status_path(store).write_text(json.dumps(status(store).model_dump(mode="json") | {"more": 1}))
    assert read_status(store) is not None


def test_a_frozen_disk_holds_nobody_up(store: Path) -> None:
    """While the disk does not come back from a write, showing a status and closing the board go on."""
    board = StatusBoard(store)
    frozen = store.with_name(f".{status_path(store).name}.partial")
    os.mkfifo(frozen)  # whoever opens it to write waits for a reader
    board.show(status(store))
    board.open()
    try:
        time.sleep(0.3)
        for _ in range(1000):
            board.show(status(store))
        board.close(timeout_s=0.2)
    finally:
        reader = os.open(frozen, os.O_RDONLY | os.O_NONBLOCK)
        assert board._thread is not None
        board._thread.join(LIMIT_S)
        os.close(reader)
    assert not board._thread.is_alive()


def test_a_change_is_told_at_once_and_the_rest_once_a_second(
    store: Path, desk: Desk, recipe: LoadedRecipe, evidence: EvidenceWriter
) -> None:
    """A thousand turns of a station show its status a few times; a new state is shown when it comes."""
    shown: list[StationStatus | None] = []

    def show(state: StationState) -> None:
        desk.show(facts(recipe, evidence, state=state))
        if not shown or desk._board._status is not shown[-1]:
            shown.append(desk._board._status)

    began_s = time.monotonic()
    for number in range(1000):
        show(StationState.READY if number % 2 else StationState.SINGLE_EXECUTION)
    assert len(shown) < 10 + (time.monotonic() - began_s)
    show(StationState.ERROR)
    assert shown[-1] is not None
    assert ("ERROR", {"top": "unplugged"}) == (shown[-1].state, shown[-1].cameras)


def test_text_that_cannot_be_written_ends_nothing(
    store: Path, desk: Desk, recipe: LoadedRecipe, evidence: EvidenceWriter
) -> None:
    """Half a letter from a driver or a controller, or a text without end, is told as far as it can be."""
    desk.refuse("\ud800", Reason("recipe.unknown", "x" * 1_000_000))
    desk.show(facts(recipe, evidence, cameras={"top": "bad \udcff byte"}, holding="\ud800"))
    until(lambda: read_status(store))
    read = read_status(store)
    assert read is not None
    assert read.refused is not None
    assert ("bad ? byte", "?", 2000) == (read.cameras["top"], read.refused.recipe_id, len(read.refused.text))


# ---- requests


def test_a_request_reaches_the_station_and_its_outcome_the_page(
    store: Path, desk: Desk, recipe: LoadedRecipe, evidence: EvidenceWriter
) -> None:
    """Who asked sees under the request's id that it waits, and then that it was done or why it was refused."""
    asked = request_recipe(store, "other", "Anna")
    taken: list[str] = []
    until(lambda: taken.append(desk.next_request()) or taken[-1])
    assert "other" == taken[-1]

    def outcome() -> tuple[str, str, str]:
        desk.show(facts(recipe, evidence))
        found = read_status(store)
        last = found.last_request if found else None
        return (last.request_id, last.outcome, last.text) if last else ("", "", "")

    until(lambda: outcome() == (asked, "waiting", ""))
    assert not desk.is_requested(Prepared("other", None, True))
    assert not desk.is_requested(Prepared("another", None, False))
    refusal = Reason("recipe.refused", "its lock is broken")
    assert desk.is_requested(Prepared("other", refusal, False))
    until(lambda: outcome() == (asked, "refused", "its lock is broken"))
    found = read_status(store)
    assert found is not None
    assert found.refused is not None
    assert ("other", "its lock is broken") == (found.refused.recipe_id, found.refused.text)
    assert [] == list(requests_folder(store).iterdir())


def test_requests_are_taken_one_after_the_other(store: Path, desk: Desk) -> None:
    """A second wish waits until the first one is settled, and they come in the order they were made."""
    for name in ("one", "two"):
        request_recipe(store, name, "Anna")
        time.sleep(0.01)
    taken: list[str] = []
    until(lambda: taken.append(desk.next_request()) or taken[-1])
    until(lambda: not list(requests_folder(store).iterdir()))
    assert ("one", "") == (taken[-1], desk.next_request())
    assert desk.is_requested(Prepared("one", None, False))
    until(lambda: taken.append(desk.next_request()) or taken[-1])
    assert "two" == taken[-1]


def test_an_old_request_is_refused(store: Path, desk: Desk, recipe: LoadedRecipe, evidence: EvidenceWriter) -> None:
    """What was asked before the station was started changes nothing hours later."""
    old = RecipeRequest(request_id=new_id(), recipe_id="r", by="Anna", at=utc_now() - timedelta(hours=1))
    dropped(store, old.model_dump_json().encode(), f"{old.request_id}.json")
    until(lambda: not list(requests_folder(store).iterdir()))
    for _ in range(50):
        assert "" == desk.next_request()
        time.sleep(0.01)
    desk.show(facts(recipe, evidence))
    until(lambda: (found := read_status(store)) and found.last_request and found.last_request.outcome == "refused")


GOOD = RecipeRequest(request_id="0" * 32, recipe_id="r", by="Anna", at=utc_now()).model_dump_json().encode()
HOSTILE = {
    "empty": (b"", ""),
    "too large": (GOOD + b" " * MOST_REQUEST_BYTES, f"{'0' * 32}.json"),
    "no JSON": (b"\x00\xff{", ""),
    "deep": (b"[" * 4000, ""),
    "another name": (GOOD, "please.json"),
    "another request": (GOOD, f"{'1' * 32}.json"),
    "a path as recipe": (GOOD.replace(b'"r"', b'"../r"'), f"{'0' * 32}.json"),
    "a time without zone": (GOOD.replace(b"Z", b""), f"{'0' * 32}.json"),
    "an unknown key": (GOOD.replace(b"{", b'{"sudo": 1, ', 1), f"{'0' * 32}.json"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_file_that_is_no_request_is_refused_and_removed(store: Path, board: StatusBoard, case: str) -> None:
    """Whatever is dropped there, only a well-formed request reaches the station."""
    path = dropped(store, *HOSTILE[case])
    until(lambda: not path.exists())
    request_recipe(store, "good", "Anna")
    taken: list[RecipeRequest | None] = []
    until(lambda: taken.append(board.requested()) or taken[-1])
    assert ["good"] == [request.recipe_id for request in taken if request is not None]


def test_links_folders_and_pipes_are_left_alone(store: Path, tmp_path: Path, board: StatusBoard) -> None:
    """What is no plain file is neither read nor followed, holds nothing up, and is refused once."""
    secret = tmp_path / "secret"
    secret.write_bytes(GOOD)
    folder = requests_folder(store)
    until(folder.is_dir)
    (folder / f"{'0' * 32}.json").symlink_to(secret)
    (folder / f"{'2' * 32}.json").mkdir()
    os.mkfifo(folder / f"{'3' * 32}.json")
    request_recipe(store, "good", "Anna")
    taken: list[RecipeRequest | None] = []
    until(lambda: taken.append(board.requested()) or taken[-1])
    assert ["good"] == [request.recipe_id for request in taken if request is not None]
    assert secret.exists()


@pytest.mark.parametrize(
    ("recipe_id", "by"), [("../x", "Anna"), ("", "Anna"), ("r", ""), ("r", "x" * 101), ("r\n", "A")]
)
def test_a_request_must_name_a_recipe_and_a_person(store: Path, recipe_id: str, by: str) -> None:
    """What the station would refuse is not even written."""
    with pytest.raises(UsageError, match="not valid"):
        request_recipe(store, recipe_id, by)
    assert not requests_folder(store).exists()


def test_requests_do_not_pile_up(store: Path) -> None:
    """Where no station takes them away, there is an end to writing them."""
    for _ in range(MOST_REQUESTS):
        dropped(store, GOOD)
    with pytest.raises(StoreError, match="takes none away"):
        request_recipe(store, "r", "Anna")


# ---- the sample


@given(st.text(), st.floats(0, 1))
def test_a_larger_sample_holds_the_smaller_one(record_id: str, share: float) -> None:
    """Whether a record is drawn depends on its id alone: none at 0, all at 1, and never fewer at a larger share."""
    assert (False, True) == (is_sampled(record_id, 0.0), is_sampled(record_id, 1.0))
    assert is_sampled(record_id, share) <= is_sampled(record_id, min(1.0, share + 0.1))


def test_the_sample_is_as_large_as_asked() -> None:
    """Of ten thousand records a share of 5 % draws about five hundred."""
    assert 400 < sum(is_sampled(str(number), 0.05) for number in range(10_000)) < 600
