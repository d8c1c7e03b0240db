"""Saving labels: whole, kept in the history, and safe against crashes, full disks, second editors and other hands."""

import contextlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.manifest import Dataset, load_dataset, open_dataset, write_dataset
from datasets.relabel.history import HISTORY, LabelsError, LabelSet, read_history
from datasets.relabel.labels import LabelConflict, Labels, open_labels
from datasets.relabel.past import labels_at
from datasets.sample import LabelledBox, Sample
from inspection.cli import main
from inspection.errors import UsageError

DENT = LabelledBox("dent", (3, 4, 20, 21))
SCRATCH = LabelledBox("scratch", (30, 30, 60, 50))
KILLS = 6


@pytest.fixture
def folder(tmp_path: Path, make_sample: Callable[..., Sample], gather: Callable[..., Dataset]) -> Path:
    """A dataset of three samples."""
    place = tmp_path / "parts"
    write_dataset(place, gather(make_sample("a", golden=True), make_sample("b"), make_sample("c")))
    return place


def save(labels: Labels, name: str, *boxes: LabelledBox, image_class: str = "", who: str = "anna") -> str:
    return labels.save(
        name, boxes, image_class=image_class, who=who, why="looked again", base_version=labels.revision(name)
    )


def state(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file() and file.name != ".labels.lock"}


def test_a_save_is_a_new_version_with_who_when_and_why(folder: Path) -> None:
    """What was saved is in dataset.json under a new version, and the history tells who, when, why, before and after."""
    first = load_dataset(folder)
    with open_labels(folder) as labels:
        version = save(labels, "a", DENT, image_class="dent")
    dataset = load_dataset(folder)
    (change,) = read_history(folder)
    assert (dataset.version, dataset.samples[0].labels, dataset.samples[0].image_class) == (version, (DENT,), "dent")
    assert dataset.samples[0].golden == first.samples[0].golden
    assert dataset.samples[1:] == first.samples[1:]
    assert (change.who, change.why, change.sample) == ("anna", "looked again", "a")
    assert (change.version_before, change.version_after) == (first.version, version)
    assert change.before == LabelSet(first.samples[0].labels)
    assert change.after == LabelSet((DENT,), "dent")
    assert change.at.tzinfo is not None


def test_unchanged_labels_make_no_new_version(folder: Path) -> None:
    """The stored labels once more, in another order too, write nothing at all."""
    with open_labels(folder) as labels:
        before = state(folder)
        stored = labels.sample("a").labels
        assert save(labels, "a", *reversed(stored)) == labels.version
        assert state(folder) == before


def test_two_editors_of_one_sample_lose_nothing(folder: Path) -> None:
    """Who saves second gets a conflict with both label sets, and may save on top of the first."""
    with open_labels(folder) as labels:
        base = labels.revision("b")
        first = labels.save("b", [DENT], image_class="", who="anna", why="", base_version=base)
        with pytest.raises(LabelConflict, match="by anna") as conflict:
            labels.save("b", [SCRATCH], image_class="", who="ben", why="", base_version=base)
        assert labels.version == first
        assert conflict.value.theirs.labels == (DENT,)
        assert conflict.value.yours.labels == (SCRATCH,)
        labels.save("b", [SCRATCH], image_class="", who="ben", why="", base_version=conflict.value.theirs.revision)
        assert [change.who for change in labels.changes("b")] == ["ben", "anna"]


def test_a_save_may_be_repeated(folder: Path) -> None:
    """A browser that never heard the answer sends the same save again and gets the same version."""
    with open_labels(folder) as labels:
        base = labels.revision("b")
        once = labels.save("b", [DENT], image_class="", who="anna", why="", base_version=base)
        assert labels.save("b", [DENT], image_class="", who="anna", why="", base_version=base) == once
        assert len(list(labels.changes())) == 1


@pytest.mark.parametrize(
    ("name", "labels", "image_class", "who", "said"),
    [
        ("x", [DENT], "", "anna", "no sample 'x'"),
        ("a", [LabelledBox("rust", (1, 1, 5, 5))], "", "anna", "unknown class 'rust'"),
        ("a", [], "rust", "anna", "unknown class 'rust'"),
        ("a", [LabelledBox("dent", (70, 1, 90, 5))], "", "anna", "outside the 80x64 image"),
        ("a", [DENT] * 5001, "", "anna", "5001 labels"),
        ("a", [DENT], "", " ", "who"),
        ("a", [DENT], "", "an\nna", "who"),
        ("a", [DENT], "", "\ud800", "who"),
        ("a", [DENT], "", "n" * 201, "201 letters"),
    ],
)
def test_what_cannot_be_stored_is_refused(
    folder: Path, name: str, labels: list[LabelledBox], image_class: str, who: str, said: str
) -> None:
    """Unknown samples and classes, boxes outside the image and odd names are refused with a reason; nothing is written."""
    with open_labels(folder) as opened:
        before = state(folder)
        with pytest.raises(UsageError, match=said):
            opened.save(name, labels, image_class=image_class, who=who, why="", base_version=opened.revision("a"))
        assert state(folder) == before


def test_hostile_text_is_kept_as_it_is(folder: Path) -> None:
    """Script tags and quotes in a class, a name and a comment come back letter by letter."""
    evil = '<script>alert("1")</script>'
    with open_labels(folder) as labels:
        labels.add_class(evil, who=evil, why=evil)
        save(labels, "a", LabelledBox(evil, (1, 1, 9, 9)), who=evil)
    assert load_dataset(folder).samples[0].labels[0].defect_class == evil
    assert [change.who for change in read_history(folder)] == [evil, evil]


@pytest.mark.parametrize("name", ["good", "Good", "DENT", "dent ", " ", "d\u0007", "x" * 201])
def test_names_that_no_class_may_have(folder: Path, name: str) -> None:
    """The word for no defect, a class written otherwise, blanks and endless names are refused, and nothing is written."""
    with open_labels(folder) as labels:
        before = state(folder)
        with pytest.raises(UsageError, match="cannot be a defect class"):
            labels.add_class(name, who="anna", why="")
        assert state(folder) == before
        assert labels.add_class("dent", who="anna", why="") == labels.version


def test_every_version_can_be_told_from_the_history(folder: Path) -> None:
    """Each version there ever was, with its classes, comes back exactly; unknown ones are refused with those known."""
    kept = [load_dataset(folder)]
    with open_labels(folder) as labels:
        for number, name in enumerate("abcaab"):
            save(labels, name, LabelledBox("dent", (1, 1, 10 + number, 9)))
            kept.append(labels.dataset)
            labels.add_class(f"kind {number}", who="anna", why="")
            kept.append(labels.dataset)
    for past in kept:
        assert labels_at(folder, past.version[:10]) == past
    with pytest.raises(UsageError, match="newest versions: " + kept[-1].version[:12]) as unknown:
        labels_at(folder, "0123456789")
    assert kept[-2].version[:12] in str(unknown.value)


def test_undoing_is_one_more_save(folder: Path) -> None:
    """Saving what a change tells of before brings the old labels and the old version back, and the history shows both."""
    first = load_dataset(folder)
    with open_labels(folder) as labels:
        save(labels, "a")
        change = next(labels.changes("a"))
        save(labels, "a", *change.before.labels, image_class=change.before.image_class)
        assert labels.version == first.version
        assert len(list(labels.changes())) == 2


def test_only_one_process_edits(folder: Path) -> None:
    """A second editor of the same dataset is refused while the first runs, and let in once that one is killed."""
    child = start(folder, "import time; print('open', flush=True); time.sleep(60)")
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        with pytest.raises(LabelsError, match=f"edited by another program \\(process {child.pid}\\)"):
            open_labels(folder)
    finally:
        child.kill()
        child.communicate()
    open_labels(folder).close()


def start(folder: Path, program: str, before: str = "") -> subprocess.Popen[str]:
    """A process that has ``labels`` open and runs ``program``."""
    head = f"""
import os, resource, signal, sys
from datasets.relabel.labels import open_labels
from datasets.sample import LabelledBox
from inspection.errors import InspectionError
from pathlib import Path
{before}
labels = open_labels(Path({str(folder)!r}))
"""
    return subprocess.Popen([sys.executable, "-c", head + program], stdout=subprocess.PIPE, text=True)


SAVING = """
number = int(sys.argv[1]) if len(sys.argv) > 1 else 0
count = len(list(labels.changes()))
while True:
    name, count = "abc"[count % 3], count + 1
    box = LabelledBox("dent", (1, 1, 2 + count / 1024, 9))
    version = labels.save(name, [box], image_class="", who="anna", why=str(count), base_version=labels.revision(name))
    os.write(1, f"{count} {version}\\n".encode())
"""


def test_no_confirmed_save_is_lost_when_the_editor_is_killed(folder: Path) -> None:
    """Killed at random moments, every confirmed save is there on reopening, and history and dataset.json agree."""
    chance = random.Random(5)
    confirmed: dict[str, str] = {}
    for _ in range(KILLS):
        child = start(folder, SAVING)
        try:
            assert child.stdout is not None
            confirmed.update([child.stdout.readline().split()])  # it is in full swing
            kill = threading.Timer(chance.uniform(0, 0.15), child.send_signal, [signal.SIGKILL])
            kill.start()
            confirmed.update(line.split() for line in child.stdout if line.endswith("\n"))
            kill.join()
        finally:
            child.kill()
            child.communicate()
        with open_labels(folder) as labels:
            kept = {change.why: change.version_after for change in labels.changes()}
            assert confirmed.items() <= kept.items()
            assert len(kept) - len(confirmed) <= KILLS
            newest = next(labels.changes())
            assert newest.version_after == labels.version == load_dataset(folder).version
            assert labels.stored(newest.sample) == newest.after
        assert {file.name for file in folder.iterdir()} == {
            "dataset.json", HISTORY, ".labels.lock", "images", "goldens",
        }  # fmt: skip
        confirmed = kept
    assert len(confirmed) >= KILLS


@pytest.mark.parametrize("saves", [1, 2, 5])
def test_saves_that_reached_only_the_history_are_finished(folder: Path, saves: int) -> None:
    """When a power cut took dataset.json some saves back, opening brings it to the version that the history promises."""
    with open_labels(folder) as labels:
        save(labels, "a", DENT)
        old = (folder / "dataset.json").read_bytes()
        for number in range(saves):
            save(labels, "ab"[number % 2], LabelledBox("dent", (1, 1, 5 + number, 5)))
            labels.add_class(f"kind {number}", who="anna", why="")
        promised = labels.dataset
    (folder / "dataset.json").write_bytes(old)
    assert labels_at(folder, load_dataset(folder).version) == load_dataset(folder)
    with open_labels(folder) as labels:
        assert labels.dataset == promised
    assert load_dataset(folder) == promised
    with open_labels(folder) as labels:
        assert labels.dataset == promised


@pytest.mark.parametrize("torn", [b'{"schema":1,"at":"20', b"\0" * 40 + b"\n", b'{"schema":1}\n'])
def test_a_torn_line_of_the_history_is_a_save_that_never_was(folder: Path, torn: bytes) -> None:
    """What a power cut left of an unconfirmed save is cut off, and the next save follows the last whole one."""
    with open_labels(folder) as labels:
        save(labels, "a", DENT)
    with (folder / HISTORY).open("ab") as file:
        file.write(torn)
    assert len(list(read_history(folder))) == 1
    with open_labels(folder) as labels:
        version = save(labels, "b", DENT)
    assert next(change.version_after for change in read_history(folder)) == version
    assert len(list(read_history(folder))) == 2


def test_damage_within_the_history_is_named(folder: Path) -> None:
    """A line changed in the middle stops those who read it with its number; saving goes on."""
    with open_labels(folder) as labels:
        for name in "abc":
            save(labels, name, DENT)
    lines = (folder / HISTORY).read_bytes().splitlines(keepends=True)
    (folder / HISTORY).write_bytes(lines[0] + b"{}\n" + lines[2])
    with open_labels(folder) as labels:
        save(labels, "a", SCRATCH)
        with pytest.raises(LabelsError, match="line 2, is damaged"):
            list(labels.changes())


def test_a_dataset_changed_by_another_hand_is_not_overwritten(
    folder: Path, tmp_path: Path, make_sample: Callable[..., Sample], gather: Callable[..., Dataset]
) -> None:
    """A dataset.json that was replaced under the editor, or does not follow from the history, is left as it is."""
    with open_labels(folder) as labels:
        save(labels, "a", DENT)
        write_dataset(tmp_path / "other", gather(make_sample("a")))
        foreign = (tmp_path / "other" / "dataset.json").read_bytes()
        (folder / "dataset.json").write_bytes(foreign)
        with pytest.raises(LabelsError, match="changed by another program"):
            save(labels, "b", DENT)
    assert (folder / "dataset.json").read_bytes() == foreign
    with pytest.raises(LabelsError, match="by anna\\): another program changed"):
        open_labels(folder)
    assert (folder / "dataset.json").read_bytes() == foreign
    (folder / "dataset.json").write_text(foreign.decode().replace("scratch", "scrotch"))
    with pytest.raises(UsageError, match="was edited"):
        open_labels(folder)
    assert len(list(read_history(folder))) == 1


def test_an_image_that_is_gone_or_another_is_said(folder: Path) -> None:
    """A save for an image that was deleted or replaced is refused and leaves all else; it works again with the image back."""
    with open_labels(folder) as labels:
        before, image = state(folder), labels.sample("a").image
        content = image.read_bytes()
        image.unlink()
        with pytest.raises(LabelsError, match=r"a\.png is missing"):
            save(labels, "a", DENT)
        image.write_bytes(labels.sample("b").image.read_bytes())
        with pytest.raises(LabelsError, match="another picture"):
            save(labels, "a", DENT)
        assert state(folder) == before
        image.write_bytes(content)
        save(labels, "a", DENT)


FULL = """
resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["LIMIT"]), resource.RLIM_INFINITY))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    labels.save("a", [], image_class="", who="anna", why="w" * 1500, base_version=labels.revision("a"))
except InspectionError as error:
    print(error.what)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
labels.save("b", [], image_class="", who="anna", why="", base_version=labels.revision("b"))
print(labels.version)
"""


@pytest.mark.parametrize("scarce", ["dataset.json", HISTORY])
def test_a_disk_that_takes_no_more_loses_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch, scarce: str) -> None:
    """A file that may not grow refuses the save with a reason and leaves all as it was; with space, saving goes on."""
    with open_labels(folder) as labels:
        for number in range(8):
            save(labels, "c", LabelledBox("dent", (1, 1, 9 + number, 9)))
        version = labels.version
    sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
    assert sizes[HISTORY] > sizes["dataset.json"] + 200
    monkeypatch.setenv("LIMIT", str(sizes[scarce] + (700 if scarce == HISTORY else -700)))
    child = start(folder, FULL)
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    what, after = out.splitlines()
    assert "nothing was saved" in what
    newest = next(read_history(folder))
    assert (newest.version_before, newest.version_after, newest.sample) == (version, after, "b")
    assert load_dataset(folder).version == after


READ_ONLY = "if os.getuid() == 0: os.setuid(65534)"


@pytest.fixture
def protected(folder: Path) -> Iterator[Path]:
    """The dataset where another user may read it and not write."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        copy = write_dataset(Path(place) / "parts", load_dataset(folder)).samples[0].image.parents[1]
        copy.chmod(0o555)
        yield copy
        copy.chmod(0o755)


def test_a_dataset_that_may_not_be_written_is_refused_at_once(protected: Path) -> None:
    """On a read-only folder the editor does not open, and says why; nothing is touched."""
    before = state(protected)
    body = f"try:\n    open_labels(Path({str(protected)!r}))\nexcept InspectionError as error:\n    print(error)"
    program = (
        "import os\nfrom datasets.relabel.labels import open_labels\nfrom inspection.errors import InspectionError\n"
    )
    program += f"from pathlib import Path\n{READ_ONLY}\n{body}"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert f"cannot write {protected}: Permission denied" in answer.stdout
    assert "write permission" in answer.stdout
    assert state(protected) == before


def test_a_disk_that_turns_read_only_loses_nothing(protected: Path) -> None:
    """When the folder can no longer be written under an open editor, a save says so and all stays as it was."""
    protected.chmod(0o777)
    (protected / "dataset.json").chmod(0o666)
    program = f"""
os.chmod({str(protected)!r}, 0o555)
try:
    labels.save("a", [], image_class="", who="anna", why="", base_version=labels.revision("a"))
except InspectionError as error:
    print(error.what)
"""
    before = state(protected)
    chown = f"os.getuid() or os.chown({str(protected)!r}, 65534, -1)"
    child = start(protected, program, before=f"{chown}\n{READ_ONLY}")
    out, _ = child.communicate(timeout=60)
    assert "nothing was saved" in out
    assert {name: content for name, content in state(protected).items() if name != HISTORY} == before
    assert (protected / HISTORY).read_bytes() == b""


@pytest.fixture
def small_disk(tmp_path: Path, folder: Path) -> Iterator[Path]:
    """The dataset on a disk of its own, with hardly any space left."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [shutil.which("mount") or "mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    try:
        yield write_dataset(disk / "parts", load_dataset(folder)).samples[0].image.parents[1]
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_loses_nothing(small_disk: Path) -> None:
    """On a disk that fills up while saving, the save that no longer fits is refused, and goes through when there is space."""
    ballast = small_disk.parent / "ballast"
    with open_labels(small_disk) as labels:
        save(labels, "a", DENT)
        kept = labels.version
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        before = state(small_disk)
        with pytest.raises(LabelsError, match="No space left on device; nothing was saved"):
            save(labels, "b", LabelledBox("dent", (1, 1, 9, 9)))
        assert state(small_disk) == before
        assert labels.version == load_dataset(small_disk).version == kept
        ballast.unlink()
        version = save(labels, "b")
    with open_labels(small_disk) as labels:
        assert (labels.version, labels.stored("b").labels) == (version, ())
        assert next(labels.changes()).version_before == kept


def test_a_read_only_disk_loses_nothing(small_disk: Path) -> None:
    """A disk that is mounted read-only under the editor, or before it, is named with what to do."""
    mount = ["mount", "-o", "remount,ro", str(small_disk.parent)]
    with open_labels(small_disk) as labels:
        version = save(labels, "a", DENT)
        labels.close()
    subprocess.run(mount, check=True)
    with pytest.raises(LabelsError, match="Read-only file system") as refused:
        open_labels(small_disk)
    assert "mount the disk for writing" in refused.value.fix
    assert load_dataset(small_disk).version == version
    assert len(list(read_history(small_disk))) == 1


def test_threads_save_one_after_the_other(folder: Path) -> None:
    """Saves of several threads at once are all there, in one unbroken chain of versions."""
    first = load_dataset(folder).version
    with open_labels(folder) as labels:

        def edit(name: str) -> None:
            for number in range(10):
                save(labels, name, LabelledBox("dent", (1, 1, 9 + number, 9)), who=name)

        threads = [threading.Thread(target=edit, args=[name]) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    changes = list(read_history(folder))[::-1]
    assert len(changes) == 30
    assert [change.version_before for change in changes] == [first, *(c.version_after for c in changes[:-1])]
    assert load_dataset(folder).version == changes[-1].version_after


def test_an_escape_is_learnt_from_only_once_it_is_drawn(
    tmp_path: Path,
    make_sample: Callable[..., Sample],
    gather: Callable[..., Dataset],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A sample on the list of escapes is left out with a sentence until a defect is marked, and again when that is undone."""
    bare = replace(make_sample("b"), labels=())
    folder = tmp_path / "parts"
    write_dataset(folder, replace(gather(make_sample("a"), bare), escapes=frozenset({"b"})))
    assert [sample.name for sample in open_dataset(folder).samples] == ["a"]
    assert "1 of 2 samples are left out: they are escapes" in capsys.readouterr().err
    assert open_dataset(folder, whole=True).to_draw == ("b",)
    with open_labels(folder) as labels:
        assert labels.to_draw == ("b",)
        save(labels, "b", DENT)
        assert labels.to_draw == ()
        assert len(open_dataset(folder).samples) == 2
        save(labels, "b")
        assert labels.to_draw == labels.dataset.to_draw == ("b",)
    assert main(["data", "split", str(folder), "-o", str(tmp_path / "copy"), "--holdout", "a"]) == 0
    assert load_dataset(tmp_path / "copy").to_draw == ("b",)
    (tmp_path / "copy" / "todo.json").write_text("{")
    with pytest.raises(UsageError, match=r"todo\.json"):
        load_dataset(tmp_path / "copy")


BOXES = st.builds(
    lambda kind, x, y, w, h: LabelledBox(kind, (x, y, x + w, y + h)),
    st.sampled_from(["dent", "scratch"]),
    *[st.floats(0, 100)] * 2,
    *[st.floats(1, 100)] * 2,
)


@given(st.lists(BOXES, max_size=5), st.randoms())
def test_a_revision_names_the_content(boxes: list[LabelledBox], chance: random.Random) -> None:
    """The order of labels does not change a revision; one label more or another image class does."""
    shuffled = chance.sample(boxes, len(boxes))
    revision = LabelSet(tuple(boxes)).revision
    assert LabelSet(tuple(shuffled)).revision == revision
    assert LabelSet((*boxes, DENT)).revision != revision
    assert LabelSet(tuple(boxes), "dent").revision != revision


def test_only_datasets_are_opened(tmp_path: Path) -> None:
    """A folder that is no dataset is refused, and no lock file is left in it."""
    with pytest.raises(UsageError, match="no dataset of lineside"):
        open_labels(tmp_path)
    assert list(tmp_path.iterdir()) == []
