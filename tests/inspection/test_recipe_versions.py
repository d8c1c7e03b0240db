"""Which version of a recipe is in force: promotion behind its gates, going back, and what a power cut leaves."""

import fcntl
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from version_bench import challenger_of, changed_toml, gates, tree

from inspection import cli
from inspection.errors import ConfigError, GateNotMet, InspectionError, UsageError
from inspection.folder_swap import copy_folder, mend, swap
from inspection.images import read_grey, write_png
from inspection.recipe import LOCK, lock_sha256, open_recipe, seal, verify
from inspection.recipe_versions import find_version, history, promote, rollback, stored_versions
from inspection.shelf import Shelf
from inspection.signing_keys import make_key, read_private_key
from inspection.version_folder import PENDING, complete_changes

ROOT = Path(__file__).resolve().parents[2]
WHO = {"who": "Anna", "why": "it finds the missing pads"}
LIMIT_S = 60


@pytest.fixture
def recipe(tmp_path: Path, demo_recipe: Path) -> Path:
    """The sealed recipe in force, in a folder of its own, without self-test so that a change takes a moment."""
    folder = tmp_path / "recipes" / "demo-pcb"
    shutil.copytree(demo_recipe, folder, ignore=shutil.ignore_patterns("selftest", LOCK))
    seal(folder)
    return folder


@pytest.fixture
def challenger(recipe: Path, tmp_path: Path) -> Path:
    """A sealed challenger that held every gate against the recipe in force."""
    return challenger_of(recipe, tmp_path / "challenger")


def shas(recipe: Path, *folders: Path) -> list[str]:
    return [lock_sha256(folder) for folder in (recipe, *folders)]


# ---- what a promotion does


def test_a_challenger_comes_into_force_and_the_old_version_is_kept(recipe: Path, challenger: Path) -> None:
    """After a promotion the folder is the challenger, both versions lie whole beside it, and the history says who and why."""
    old, new = shas(recipe, challenger)
    assert new == promote(challenger, recipe, **WHO)
    assert new == lock_sha256(recipe)
    verify(recipe)
    kept = [find_version(recipe, sha) for sha in (old, new)]
    assert [old, new] == [lock_sha256(folder) for folder in kept if folder is not None]
    assert tuple(sorted((old, new))) == stored_versions(recipe)
    (line,) = history(recipe)
    assert ["Anna", "promote", old, new, WHO["why"]] == list(line.model_dump(exclude={"at"}).values())
    versions = recipe.parent / ".versions" / "demo-pcb"
    assert {".lock", "history.jsonl", old[:16], new[:16]} == {path.name for path in versions.iterdir()}


def test_going_back_is_one_call(recipe: Path, challenger: Path) -> None:
    """Rollback puts the version before in force again and says so in the history, which keeps the promotion."""
    old, new = shas(recipe, challenger)
    promote(challenger, recipe, **WHO)
    assert old == rollback(recipe, who="Ben", why="false calls")
    assert old == lock_sha256(recipe)
    verify(recipe)
    assert [("promote", old, new), ("rollback", new, old)] == [
        (line.what, line.from_sha256, line.to_sha256) for line in history(recipe)
    ]


def test_rollback_goes_back_along_the_promotions(recipe: Path, challenger: Path, tmp_path: Path) -> None:
    """Two rollbacks after two promotions lead to the first version, and a third is refused."""
    first = lock_sha256(recipe)
    second = promote(challenger, recipe, **WHO)
    third = promote(challenger_of(recipe, tmp_path / "next", product="third"), recipe, **WHO)
    assert [second, first] == [rollback(recipe, **WHO), rollback(recipe, **WHO)]
    with pytest.raises(UsageError, match="was not promoted over another one") as refused:
        rollback(recipe, **WHO)
    assert third[:16] in refused.value.fix


def test_a_version_can_be_named(recipe: Path, challenger: Path) -> None:
    """Any kept version comes into force again by the beginning of its hash; unknown, short and current ones are refused."""
    old, new = shas(recipe, challenger)
    promote(challenger, recipe, **WHO)
    rollback(recipe, **WHO)
    assert new == rollback(recipe, to=new[:12], **WHO)
    for wrong, why in (("0" * 16, "not kept"), (old[:7], "not kept"), (new, "in force"), ("../..", "not kept")):
        with pytest.raises(UsageError, match=why):
            rollback(recipe, to=wrong, **WHO)
    assert new == lock_sha256(recipe)


def test_a_version_is_found_by_what_a_record_says(recipe: Path) -> None:
    """The version in force is found though it was never promoted; anything that is no hash finds nothing."""
    assert recipe == find_version(recipe, lock_sha256(recipe))
    assert [None, None, None] == [find_version(recipe, text) for text in ("", "../../etc", "0" * 64)]


def test_rollback_from_a_broken_recipe_keeps_what_was_changed(recipe: Path, challenger: Path) -> None:
    """Who changed a file of the version in force finds it beside the versions after going back."""
    old = lock_sha256(recipe)
    promote(challenger, recipe, **WHO)
    (recipe / "recipe.toml").write_text("broken")
    assert old == rollback(recipe, **WHO)
    verify(recipe)
    (kept,) = (recipe.parent / ".versions" / "demo-pcb").glob("unsealed-*/recipe.toml")
    assert "broken" == kept.read_text()


def test_the_command_tells_and_ends_with_the_right_code(
    recipe: Path, challenger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Promote, rollback and history print what is in force; a gate that did not hold ends with 1, a wrong name with 2."""
    who = ["--who", "Anna", "--why", "new\x1b[2Jmodel"]
    assert 0 == cli.main(["recipe", "promote", str(challenger), str(recipe), *who])
    assert 1 == cli.main(["recipe", "promote", str(challenger), str(recipe), *who])
    assert 0 == cli.main(["recipe", "rollback", str(recipe), *who])
    assert 2 == cli.main(["recipe", "rollback", str(recipe), *who])
    assert 0 == cli.main(["recipe", "history", str(recipe)])
    told = capsys.readouterr()
    assert "promote by Anna: new?[2Jmodel" in told.out
    assert "\x1b" not in told.out
    assert f"in force: {lock_sha256(recipe)[:16]}" in told.out


# ---- what is refused


def test_a_gate_held_on_few_parts_is_said_at_promotion(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a tiny holdout bears out is warned of with its counts, and hinders nobody."""
    challenger = challenger_of(recipe, tmp_path / "few", few="This rests on 3 good parts, fewer than 29")
    assert 0 == cli.main(["recipe", "promote", str(challenger), str(recipe), "--who", "Anna", "--why", "new"])
    told = capsys.readouterr()
    assert "warning: gate overkill: This rests on 3 good parts" in told.err
    assert "is in force" in told.out


def test_rolling_back_to_the_version_in_force_changes_nothing(recipe: Path, challenger: Path) -> None:
    """The version in force is no earlier one: that is said in a plain sentence, and nothing is changed."""
    promote(challenger, recipe, **WHO)
    now = lock_sha256(recipe)
    for to in (now, now[:12]):
        with pytest.raises(UsageError, match="is the one in force already, so nothing was changed"):
            rollback(recipe, to=to, **WHO)
    assert now == lock_sha256(recipe)


def _no_comparison(challenger: Path, recipe: Path) -> None:
    (challenger / "comparison.json").unlink()
    seal(challenger)


def _wrong(**changes: object) -> Callable[[Path, Path], None]:
    def change(challenger: Path, recipe: Path) -> None:
        path = challenger / "comparison.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        seal(challenger)

    return change


def _of_an_earlier_version(challenger: Path, recipe: Path) -> None:
    path = challenger / "comparison.json"
    told = json.loads(path.read_text())
    del told["challenger_files"]
    path.write_text(json.dumps(told))
    seal(challenger)


def _edited_limits(challenger: Path, recipe: Path) -> None:
    toml = (challenger / "recipe.toml").read_text(encoding="utf-8")
    changed = re.sub(r"(ng|review)_score = [\d.]+", r"\1_score = 0.99", toml)
    assert toml != changed
    (challenger / "recipe.toml").write_text(changed, encoding="utf-8")
    seal(challenger)


def _edited_deadline(challenger: Path, recipe: Path) -> None:
    toml = (challenger / "recipe.toml").read_text(encoding="utf-8")
    (challenger / "recipe.toml").write_text(f"deadline_ms = 50\n{toml}", encoding="utf-8")
    seal(challenger)


def _edited_golden(challenger: Path, recipe: Path) -> None:
    write_png(challenger / "golden.png", read_grey(challenger / "golden.png") // 2)
    seal(challenger)


def _more_files(challenger: Path, recipe: Path) -> None:
    (challenger / "selftest").mkdir()
    (challenger / "selftest" / "expected.json").write_text("[]")
    seal(challenger)


def _damaged(challenger: Path, recipe: Path) -> None:
    (challenger / "comparison.json").write_text("[" * 5000)
    seal(challenger)


def _other_recipe(challenger: Path, recipe: Path) -> None:
    changed_toml(challenger, 'recipe_id = "demo-pcb"', 'recipe_id = "other"')
    seal(challenger)


def _same(challenger: Path, recipe: Path) -> None:
    shutil.rmtree(recipe)
    shutil.copytree(challenger, recipe)


def _unsealed(challenger: Path, recipe: Path) -> None:
    (challenger / LOCK).unlink()


def _changed(challenger: Path, recipe: Path) -> None:
    changed_toml(challenger, "newer", "newest")


def _wrong_selftest(challenger: Path, recipe: Path) -> None:
    (challenger / "selftest").mkdir()
    shutil.copy(recipe / "golden.png", challenger / "selftest" / "a.png")
    rows = [{"frame": "a.png", "verdict": "NG", "classes": ["short"]}]
    (challenger / "selftest" / "expected.json").write_text(json.dumps(rows))
    seal(challenger)


def _champion_changed(challenger: Path, recipe: Path) -> None:
    changed_toml(recipe, 'product = "demo-pcb"', 'product = "edited"')


REFUSED = {
    "no comparison": (_no_comparison, GateNotMet, "has no comparison.json"),
    "a gate not held": (_wrong(gates=gates(overkill=False)), GateNotMet, "overkill: 1 -> 2"),
    "an escape returned": (_wrong(gates=gates(returned_escapes=False)), GateNotMet, "returned_escapes"),
    "no gate measured": (_wrong(gates=[]), GateNotMet, "latency: not measured"),
    "compared with another version": (_wrong(champion_sha256="0" * 64), GateNotMet, "was compared with version 0000"),
    "compared another model": (_wrong(challenger_model_sha256="1" * 64), GateNotMet, "about another model"),
    "compared another recipe": (_wrong(recipe_id="other"), GateNotMet, "a version of recipe other"),
    "of another recipe": (_other_recipe, GateNotMet, "a version of recipe other"),
    "comparison of an earlier version": (_of_an_earlier_version, GateNotMet, "does not say of which files"),
    "limits edited after it": (_edited_limits, GateNotMet, "changed after it was compared: recipe.toml"),
    "deadline edited after it": (_edited_deadline, GateNotMet, "changed after it was compared: recipe.toml"),
    "golden edited after it": (_edited_golden, GateNotMet, "changed after it was compared: golden.png"),
    "a file more after it": (_more_files, GateNotMet, "changed after it was compared: selftest/expected.json"),
    "a later form": (_wrong(schema=2), GateNotMet, "cannot be used: schema"),
    "a gate that is no gate": (_wrong(gates=[{"name": "overkill", "held": "perhaps"}]), GateNotMet, "gates.0.held"),
    "a damaged comparison": (_damaged, GateNotMet, "cannot be used"),
    "in force already": (_same, GateNotMet, "already in force"),
    "not sealed": (_unsealed, ConfigError, "is not sealed"),
    "changed after sealing": (_changed, ConfigError, "recipe.toml was changed"),
    "other verdicts on this machine": (_wrong_selftest, ConfigError, "self-test a.png"),
    "champion changed on the disk": (_champion_changed, ConfigError, "recipe.toml was changed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_challenger_is_refused_and_all_is_as_it_was(recipe: Path, challenger: Path, case: str) -> None:
    """Whatever is not in order is named with what to do, and neither the recipe nor its versions change."""
    spoil, kind, text = REFUSED[case]
    spoil(challenger, recipe)
    before = tree(recipe.parent)
    with pytest.raises(kind) as refused:
        promote(challenger, recipe, **WHO)
    assert text in refused.value.what
    assert refused.value.fix
    assert before == tree(recipe.parent)


def test_a_signature_that_is_not_trusted_is_refused(recipe: Path, challenger: Path, tmp_path: Path) -> None:
    """Where keys are named, a challenger must be signed with one of them."""
    for name in ("anna", "ben"):
        make_key(tmp_path / name)
    trusted = [tmp_path / "ben.pub"]
    with pytest.raises(ConfigError, match="is not signed"):
        promote(challenger, recipe, trusted=trusted, **WHO)
    seal(challenger, read_private_key(tmp_path / "anna"))
    with pytest.raises(ConfigError, match="does not trust"):
        promote(challenger, recipe, trusted=trusted, **WHO)
    seal(challenger, read_private_key(tmp_path / "ben"))
    assert lock_sha256(challenger) == promote(challenger, recipe, trusted=trusted, **WHO)


def test_a_signed_recipe_is_not_replaced_by_an_unsigned_one(recipe: Path, tmp_path: Path) -> None:
    """Where the version in force is signed, so must be the next, with the same key unless others are named."""
    for name in ("anna", "ben"):
        make_key(tmp_path / name)
    seal(recipe, read_private_key(tmp_path / "anna"))
    challenger = challenger_of(recipe, tmp_path / "challenger")
    with pytest.raises(ConfigError, match="is not signed") as refused:
        promote(challenger, recipe, **WHO)
    assert "--key FILE" in refused.value.fix
    seal(challenger, read_private_key(tmp_path / "ben"))
    with pytest.raises(ConfigError, match="is signed with the key"):
        promote(challenger, recipe, **WHO)
    assert lock_sha256(challenger) == promote(challenger, recipe, trusted=[tmp_path / "ben.pub"], **WHO)


@pytest.mark.parametrize("words", [{"who": " ", "why": "x"}, {"who": "x", "why": ""}, {"who": "x" * 101, "why": "x"}])
def test_who_and_why_must_be_told(recipe: Path, challenger: Path, words: dict[str, str]) -> None:
    """A change without a name or a reason is none."""
    with pytest.raises(UsageError, match="who makes it"):
        promote(challenger, recipe, **words)
    with pytest.raises(UsageError, match="who makes it"):
        rollback(recipe, **words)


def test_a_link_is_no_recipe_folder(recipe: Path, challenger: Path) -> None:
    """What is exchanged is the folder itself, never a link to it."""
    link = recipe.with_name("link")
    link.symlink_to(recipe)
    with pytest.raises(UsageError, match="is a link"):
        promote(challenger, link, **WHO)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of sixteen megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = [shutil.which("mount") or "mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_and_a_read_only_disk_change_nothing(small_disk: Path, recipe: Path, challenger: Path) -> None:
    """Where the disk does not take the change, it is refused with what to do, the recipe stays, and space makes it work."""
    here = small_disk / "demo-pcb"
    shutil.copytree(recipe, here)
    before = lock_sha256(here)
    ballast = small_disk / "ballast"
    for free in (100_000, 3_000_000, 4_000_000):
        ballast.write_bytes(b"")
        ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - free))
        with pytest.raises(UsageError, match="cannot be changed") as refused:
            promote(challenger, here, **WHO)
        assert "free space" in refused.value.fix
        assert before == lock_sha256(here)
        verify(here)
        assert () == history(here)
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(UsageError, match="Read-only file system"):
        promote(challenger, here, **WHO)
    verify(here)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert lock_sha256(challenger) == promote(challenger, here, **WHO)
    assert 1 == len(history(here))


# ---- two at once, and the end of the program in the middle

CHILD = """
import os, signal, sys
from pathlib import Path
from inspection.errors import InspectionError
from inspection.recipe_versions import promote, rollback
challenger, recipe = Path(sys.argv[1]), Path(sys.argv[2])
names = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree")
calls = ("fcntl.flock", "ctypes.dlsym")
here, left = str(recipe.parent / ".versions"), [0]
def kill_at(name, args):
    if (name in names and here in str(args[0])) or name in calls:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
def once(what):
    promote(challenger, recipe, who="a", why="b") if what == "promote" else rollback(recipe, who="a", why="b")
if len(sys.argv) > 3:  # for ever
    while True:
        once("promote")
        once("rollback")
sys.addaudithook(kill_at)
for line in sys.stdin:  # each in a process of its own, ended before the step named
    what, step = line.split()
    pid = os.fork()
    if pid == 0:
        left[0] = int(step)
        try:
            once(what)
        except InspectionError as error:
            print(error, file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@contextmanager
def child(challenger: Path, recipe: Path, *more: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", CHILD, str(challenger), str(recipe), *more]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def ended_at(process: "subprocess.Popen[str]", what: str, step: int) -> int:
    """The exit code of a change that is ended before this step; 7 when it has fewer steps."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{what} {step}\n")
    process.stdin.flush()
    return int(process.stdout.readline())


def require_truth(recipe: Path, start: str) -> None:
    """The folder is one whole version, and the history leads from the first version to it without a gap."""
    verify(recipe)
    now = start
    for line in history(recipe):
        assert now == line.from_sha256
        now = line.to_sha256
    assert now == lock_sha256(recipe)


@pytest.mark.parametrize("what", ["promote", "rollback"])
def test_a_program_ended_at_any_step_leaves_one_whole_version(
    recipe: Path, challenger: Path, tmp_path: Path, what: str
) -> None:
    """Ended before each of its steps on the disk in turn, a change is done or not done, told or not told, never half."""
    start, new = shas(recipe, challenger)
    if what == "rollback":
        promote(challenger, recipe, **WHO)
    kept = tmp_path / "kept"
    shutil.copytree(recipe.parent, kept)
    ends = []
    with child(challenger, recipe) as process:
        while (code := ended_at(process, what, len(ends) + 1)) != 7:
            assert code == -signal.SIGKILL
            require_truth(recipe, start)
            ends.append(lock_sha256(recipe))
            complete_changes(recipe.parent)
            require_truth(recipe, start)
            assert ends[-1] == lock_sha256(recipe)
            shutil.rmtree(recipe.parent)
            shutil.copytree(kept, recipe.parent)
    assert [start, new] == list(dict.fromkeys(ends if what == "promote" else ends[::-1]))
    assert len(ends) > 30


def test_programs_killed_at_random_moments_leave_one_whole_version(recipe: Path, challenger: Path) -> None:
    """Killed while it promotes and rolls back without end, a program leaves one whole version and a true history."""
    start, chance = lock_sha256(recipe), random.Random(5)
    for _ in range(5):
        with child(challenger, recipe, "for ever") as process:
            seen, end_s = len(history(recipe)), time.monotonic() + LIMIT_S
            while len(history(recipe)) == seen and process.poll() is None and time.monotonic() < end_s:
                time.sleep(0.001)
            time.sleep(chance.random() * 0.3)
            process.kill()
            assert -signal.SIGKILL == process.wait()
        require_truth(recipe, start)
        if lock_sha256(recipe) != start:
            rollback(recipe, **WHO)
        require_truth(recipe, start)
    assert len(history(recipe)) >= 5


def test_of_two_promotions_at_once_one_is_refused(recipe: Path, challenger: Path) -> None:
    """Whoever comes second hears it, and the history has one line."""
    with child(challenger, recipe) as one, child(challenger, recipe) as other:
        for process in (one, other):
            assert process.stdin is not None
            process.stdin.write("promote 0\n")
            process.stdin.close()
        logs = [process.stderr.read() if process.stderr else "" for process in (one, other)]
    words = ("another program is changing", "came into force", "already in force")
    assert 1 == sum(any(word in log for word in words) for log in logs), logs
    assert 1 == len(history(recipe))
    verify(recipe)


def test_a_version_that_comes_into_force_while_another_is_weighed_is_no_damage(
    recipe: Path, challenger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who reads the recipe in the middle of another's promotion hears of that promotion, not of changed files."""
    other = challenger_of(recipe, tmp_path / "other", product="other")

    def meanwhile(folder: Path, *trusted: object) -> None:
        verify(folder)
        if folder == recipe and lock_sha256(other) != lock_sha256(recipe):
            monkeypatch.undo()
            promote(other, recipe, **WHO)
            raise ConfigError("recipe.toml was changed", fix="the new file against the lock that was read before")

    monkeypatch.setattr("inspection.recipe_versions.verify", meanwhile)
    with pytest.raises(GateNotMet, match="another version came into force"):
        promote(challenger, recipe, **WHO)
    assert lock_sha256(other) == lock_sha256(recipe)


def test_a_change_under_way_refuses_the_next(recipe: Path, challenger: Path) -> None:
    """While another program holds the lock of the versions, nothing is changed."""
    promote(challenger, recipe, **WHO)
    with (recipe.parent / ".versions" / "demo-pcb" / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = tree(recipe.parent)
        with pytest.raises(UsageError, match="another program is changing"):
            rollback(recipe, **WHO)
        assert before == tree(recipe.parent)


# ---- where names cannot be exchanged


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A new folder, the one in force, and a free name."""
    for name in ("new", "now"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    return tmp_path / "new", tmp_path / "now", tmp_path / "aside"


def content(*folders: Path) -> list[str]:
    return [(folder / "file").read_text() if folder.exists() else "-" for folder in folders]


@pytest.mark.parametrize("in_one_step", [True, False])
def test_two_folders_change_places(folders: tuple[Path, Path, Path], in_one_step: bool) -> None:
    """In one step or by renames, each folder ends where the other was."""
    swap(*folders, in_one_step=in_one_step)
    assert ["now", "new", "-"] == content(*folders)


@pytest.mark.parametrize("in_one_step", [True, False])
def test_a_swap_that_fails_changes_nothing(folders: tuple[Path, Path, Path], in_one_step: bool) -> None:
    """Where the new folder is gone, the one in force stays."""
    new, now, aside = folders
    shutil.rmtree(new)
    with pytest.raises(OSError):
        swap(new, now, aside, in_one_step=in_one_step)
    assert ["-", "now", "-"] == content(*folders)


@pytest.mark.parametrize("renames", [0, 1, 2, 3])
def test_renames_that_were_cut_off_are_ended(folders: tuple[Path, Path, Path], renames: int) -> None:
    """Wherever the power failed between the renames, there is one whole folder afterwards."""
    new, now, aside = folders
    for source, target in ((now, aside), (new, now), (aside, new))[:renames]:
        source.rename(target)
    mend(new, now, aside)
    assert (["now", "new", "-"] if renames else ["new", "now", "-"]) == content(*folders)


def cut_off(recipe: Path, challenger: Path, *, renames: int) -> str:
    """A promotion in two renames that the power cut off after so many of them; returns the challenger's hash."""
    versions = recipe.parent / ".versions" / "demo-pcb"
    old, new = shas(recipe, challenger)
    promote(challenger, recipe, **WHO)
    line = history(recipe)[0]
    rollback(recipe, **WHO)
    (versions / "history.jsonl").unlink()
    copy_folder(versions / new[:16], versions / ".new")
    pending = {"folder": "demo-pcb", "change": line.model_dump(mode="json")}
    (versions / PENDING).write_text(json.dumps(pending))
    for source, target in ((recipe, versions / ".aside"), (versions / ".new", recipe))[:renames]:
        source.rename(target)
    assert old != new
    return new


@pytest.mark.parametrize("renames", [1, 2])
def test_a_station_that_starts_ends_what_was_cut_off(
    recipe: Path, challenger: Path, tmp_path: Path, renames: int
) -> None:
    """A recipe folder that is missing between two renames is there again when the station starts, and the history true."""
    from inspection.config import load_station

    start = lock_sha256(recipe)
    new = cut_off(recipe, challenger, renames=renames)
    config = tmp_path / "station.toml"
    config.write_text(
        f'station_id = "s"\nrecipe = "{recipe}"\nstore = "r.sqlite"\nthreads = 1\n[evidence]\nfolder = "e"\n'
        '[cameras.top]\nkind = "simulated"\n[controller]\nkind = "simulated"\n'
    )
    shelf = Shelf(load_station(config))
    shelf.close()
    assert new == shelf.first.sha256
    require_truth(recipe, start)
    assert [new] == [line.to_sha256 for line in history(recipe)]


def test_the_history_is_true_before_anybody_repaired_it(recipe: Path, challenger: Path) -> None:
    """A change whose program ended before it could tell is told by whoever reads the history."""
    new = cut_off(recipe, challenger, renames=2)
    assert [new] == [line.to_sha256 for line in history(recipe)]
    complete_changes(recipe.parent, "another-recipe")
    assert [new] == [line.to_sha256 for line in history(recipe)]
    complete_changes(recipe.parent)
    assert [new] == [line.to_sha256 for line in history(recipe)]


def test_a_line_that_was_cut_off_is_no_history(recipe: Path, challenger: Path) -> None:
    """Half a line at the end is passed over and overwritten; a damaged line within is told."""
    promote(challenger, recipe, **WHO)
    path = recipe.parent / ".versions" / "demo-pcb" / "history.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"at": "2026')
    assert 1 == len(history(recipe))
    rollback(recipe, **WHO)
    assert 2 == len(history(recipe))
    path.write_bytes(b"x" + path.read_bytes())
    with pytest.raises(ConfigError, match="is damaged"):
        history(recipe)


def test_files_belong_to_who_owns_the_recipes(recipe: Path, challenger: Path) -> None:
    """What root promoted can be rolled back by the station's own user."""
    if os.geteuid() != 0:
        pytest.skip("root may write anywhere, and only root gives files away")
    for path in (recipe.parent, *recipe.parent.rglob("*")):
        os.chown(path, 12345, 12345)
    promote(challenger, recipe, **WHO)
    assert {12345} == {path.stat().st_uid for path in recipe.parent.rglob("*") if path.name != ".lock"}


def test_every_refusal_is_an_error_of_ours(recipe: Path, tmp_path: Path) -> None:
    """Folders that are not there, or are no recipes, are told in two lines like anything else."""
    for missing in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InspectionError):
            promote(missing, recipe, **WHO)
        with pytest.raises(InspectionError):
            rollback(missing, **WHO)
    assert open_recipe(recipe).sha256
