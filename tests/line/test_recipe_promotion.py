"""A station that runs takes a new version of its recipe, an old one, or another recipe, between two parts."""

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from line_bench import Bench, Child, lock_as_it_is, simulated_line, sql, until

from inspection.evidence import is_sampled
from inspection.recipe import LOCK, lock_sha256, open_recipe, seal
from inspection.recipe_lock import file_hashes
from inspection.recipe_versions import promote, rollback
from inspection.station_link import StationStatus, read_status, request_recipe, requests_folder, status_path
from inspection.types import Verdict

WHO = {"who": "Anna", "why": "test"}
SERIALS = ("G1", "N1") * 1500  # more than any test waits for


def sealed_copy(bench: Bench, name: str) -> Path:
    """The sealed recipe with its self-test, under another id."""
    folder = bench.folder / "recipes" / name
    shutil.copytree(bench.sealed, folder, ignore=shutil.ignore_patterns(LOCK))
    toml = folder / "recipe.toml"
    text = toml.read_text(encoding="utf-8").replace('recipe_id = "demo-pcb"', f'recipe_id = "{name}"')
    toml.write_text(text, encoding="utf-8")
    seal(folder)
    return folder


def challenger_of(recipe: Path, folder: Path) -> Path:
    """A challenger as `lineside retrain` leaves it, with the same model."""
    shutil.copytree(recipe, folder, ignore=shutil.ignore_patterns(LOCK))
    toml = folder / "recipe.toml"
    toml.write_text(toml.read_text(encoding="utf-8").replace('product = "demo-pcb"', 'product = "newer"'))
    model = open_recipe(recipe, threads=1).model_sha256
    gates = [{"name": name, "held": True, "text": ""} for name in ("escape_bound", "overkill", "latency")]
    comparison = {
        "schema": 1, "recipe_id": recipe.name, "champion_sha256": lock_sha256(recipe),
        "challenger_model_sha256": model, "challenger_files": file_hashes(folder), "gates": gates,
    }  # fmt: skip
    (folder / "comparison.json").write_text(json.dumps(comparison))
    seal(folder)
    return folder


@pytest.fixture
def recipe(bench: Bench) -> Path:
    """The recipe in force, beside another one; frames of a good and a defective board."""
    bench.frame("G1", bench.sealed_frame("OK"))
    bench.frame("N1", bench.sealed_frame("NG"))
    sealed_copy(bench, "other-pcb")
    return sealed_copy(bench, "demo-pcb")


@pytest.fixture
def line(bench: Bench, recipe: Path, request: pytest.FixtureRequest) -> Iterator[Child]:
    """A station in a process of its own, with a part every 40 ms; ``request.param`` is the recipe its triggers name."""
    more = f"interval_ms = 40\nrecipe_id = {json.dumps(getattr(request, 'param', ''))}"
    child = bench.start(bench.config(simulated_line(*SERIALS, more=more), recipe=recipe, top='recipes = "recipes"'))
    try:
        child.ready()
        yield child
    finally:
        child.close()


def parts(bench: Bench, more: int) -> None:
    """Wait for so many further records."""

    def count() -> int:
        return int(sql(bench.store, "SELECT count(*) FROM records")[0][0])

    wanted = count() + more
    until(lambda: count() >= wanted)


def status(bench: Bench) -> StationStatus:
    found: StationStatus = until(lambda: read_status(bench.store))
    return found


def runs(bench: Bench) -> list[str]:
    """The versions that judged, in order; every part has one record, and none is ERROR."""
    records = bench.records()
    triggers = [record.trigger.trigger_id for record in records]
    assert len(triggers) == len(set(triggers))
    assert [record.trigger.sequence for record in records] == list(range(1, len(records) + 1))
    wanted = [Verdict.OK, Verdict.NG] * len(records)
    assert [record.judgement.verdict for record in records] == wanted[: len(records)]
    assert 0 == bench.open_triggers()
    return [sha for sha, _ in itertools.groupby(record.recipe_sha256 for record in records)]


@pytest.mark.parametrize("line", ["", "demo-pcb"], indirect=True)
def test_a_promotion_and_a_rollback_take_effect_between_two_parts(bench: Bench, recipe: Path, line: Child) -> None:
    """While parts come without a pause, each is judged on time by one version: the old, the promoted, the old one again."""
    challenger = challenger_of(recipe, bench.folder / "challenger")
    old, new = lock_sha256(recipe), lock_sha256(challenger)
    parts(bench, 5)
    promote(challenger, recipe, **WHO)
    until(lambda: status(bench).recipe_sha256 == new)
    parts(bench, 5)
    rollback(recipe, **WHO)
    until(lambda: status(bench).recipe_sha256 == old)
    parts(bench, 5)
    assert 0 == line.stop()
    assert [old, new, old] == runs(bench)
    assert "HALTED" == status(bench).state


def test_a_version_that_is_refused_leaves_the_old_one_in_force(bench: Bench, recipe: Path, line: Child) -> None:
    """A version whose self-test differs is refused with its reason in the status; sealed right, it comes into force."""
    old = lock_sha256(recipe)
    expected = recipe / "selftest" / "expected.json"
    right = expected.read_text()
    expected.write_text(right.replace('"OK"', '"NG"'))
    (recipe / LOCK).unlink()
    lock_as_it_is(recipe)
    # The station may have looked while the files were being changed: what it said of that is no matter.
    refused = until(lambda: (said := status(bench).refused) and "self-test" in said.text and said)
    assert "demo-pcb" == refused.recipe_id
    parts(bench, 5)
    assert old == status(bench).recipe_sha256
    toml = recipe / "recipe.toml"
    toml.write_text(toml.read_text().replace('product = "demo-pcb"', 'product = "repaired"'))
    expected.write_text(right)
    new = seal(recipe)
    until(lambda: status(bench).recipe_sha256 == new)
    assert None is status(bench).refused
    parts(bench, 5)
    line.stop()
    assert [old, new] == runs(bench)


def test_a_person_changes_the_recipe_over(bench: Bench, recipe: Path, line: Child) -> None:
    """A request puts another recipe in force for parts that name none; one for a recipe that is not there is refused."""
    old, other = lock_sha256(recipe), lock_sha256(recipe.with_name("other-pcb"))
    until(lambda: status(bench).recipes == ("demo-pcb", "other-pcb"))
    wrong = request_recipe(bench.store, "nowhere", "Ben")
    outcome = until(lambda: (found := status(bench).last_request) and found.outcome == "refused" and found)
    assert (wrong, "nowhere", "Ben") == (outcome.request_id, outcome.recipe_id, outcome.by)
    assert "there is no recipe" in outcome.text
    asked = request_recipe(bench.store, "other-pcb", "Ben")
    until(lambda: (found := status(bench).last_request) and (found.request_id, found.outcome) == (asked, "done"))
    assert ("other-pcb", other) == (status(bench).recipe_id, status(bench).recipe_sha256)
    parts(bench, 5)
    line.stop()
    assert [old, other] == runs(bench)
    assert [] == list(requests_folder(bench.store).iterdir())


def test_a_station_whose_status_cannot_be_written_goes_on(bench: Bench, recipe: Path, line: Child) -> None:
    """Where the disk does not take the status, parts are judged as before, and the status is there again afterwards."""
    until(lambda: status(bench))
    partial = status_path(bench.store).with_name(f".{status_path(bench.store).name}.partial")

    def blocked() -> bool:
        try:
            partial.mkdir()
        except FileExistsError:  # it is being written at this moment
            return False
        return True

    until(blocked)
    until(lambda: line.events("status.not_written"))
    parts(bench, 10)
    partial.rmdir()
    until(lambda: line.events("status.written"))
    line.stop()
    assert 1 == len(runs(bench))


def test_ok_parts_that_are_drawn_for_review_leave_a_picture(bench: Bench, recipe: Path) -> None:
    """With keep = "not-ok-and-sample" the pictures are those of the parts that are not OK and of the drawn ones."""
    config = bench.config(
        simulated_line(*("G1",) * 12, "N1"), recipe=recipe,
        evidence='keep = "not-ok-and-sample"\n[hmi]\nreview_ok_share = 0.5',
    )  # fmt: skip
    bench.play(config)
    records = bench.records()
    assert 13 == len(records)
    drawn = [is_sampled(record.record_id, 0.5) or record.judgement.verdict == Verdict.NG for record in records]
    assert drawn == [bool(record.evidence) for record in records]
