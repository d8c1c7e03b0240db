from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets.importers.deeppcb import CLASSES, DeepPcbImporter
from datasets.manifest import open_dataset
from datasets.sample import LabelledBox
from inspection.errors import UsageError
from inspection.types import Box

GROUP = "group00041"
IMAGES, LABELS = Path(GROUP, "00041"), Path(GROUP, "00041_not")


def save_jpeg(path: Path, height: int = 48, width: int = 64) -> None:
    picture = np.random.default_rng(len(path.name)).integers(0, 256, (height, width), dtype=np.uint8)
    path.write_bytes(cv2.imencode(".jpg", picture)[1].tobytes())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three pairs of one board in PCBData, each with one open."""
    root = tmp_path / "PCBData"
    (root / IMAGES).mkdir(parents=True)
    (root / LABELS).mkdir()
    for stem in ("00041000", "00041001", "00041002"):
        save_jpeg(root / IMAGES / f"{stem}_test.jpg")
        save_jpeg(root / IMAGES / f"{stem}_temp.jpg")
        (root / LABELS / f"{stem}.txt").write_text("3 4 20 30 1\n")
    return root


def line(stem: str) -> str:
    return f"{IMAGES.as_posix()}/{stem}.jpg {LABELS.as_posix()}/{stem}.txt\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("\n  \n", []),
        ("3 4 20 30 1", [("open", (3, 4, 20, 30))]),
        ("3,4,20,30,6\r\n0, 0, 64, 48, 2\r\n", [("pin-hole", (3, 4, 20, 30)), ("short", (0, 0, 64, 48))]),
        ("\ufeff3 4 20 30 5", [("copper", (3, 4, 20, 30))]),
        ("3.5 4 20 30 3\n1 2 3 4 4", [("mousebite", (3.5, 4, 20, 30)), ("spur", (1, 2, 3, 4))]),
    ],
    ids=["empty", "blank lines", "spaces", "commas", "byte order mark", "two"],
)
def test_label_lines(root: Path, text: str, expected: list[tuple[str, Box]]) -> None:
    """Label files hold any number of lines, with spaces or commas; none means no defect."""
    (root / LABELS / "00041000.txt").write_text(text, encoding="utf-8")
    first = next(DeepPcbImporter().read(root))
    assert expected == [(label.defect_class, label.box_px) for label in first.labels]


def test_sample_of_a_pair(root: Path) -> None:
    """A sample has the frame, its golden, the board group and the number as name."""
    first = next(DeepPcbImporter().read(root))
    assert root / IMAGES / "00041000_test.jpg" == first.image
    assert root / IMAGES / "00041000_temp.jpg" == first.golden
    assert (first.group, first.split, first.name) == (GROUP, "", "00041000")
    assert (LabelledBox("open", (3, 4, 20, 30)),) == first.labels


def test_parent_of_the_root_is_accepted(root: Path) -> None:
    """PCBData and the folder that holds it give the same dataset."""
    assert open_dataset(root).version == open_dataset(root.parent).version


def test_split_files_name_the_split(root: Path) -> None:
    """Pairs in trainval.txt are train, in test.txt test, in neither nothing."""
    (root / "trainval.txt").write_text(line("00041000"))
    (root / "test.txt").write_text(line("00041002") + "\n")
    assert [sample.split for sample in DeepPcbImporter().read(root)] == ["train", "", "test"]


def test_number_in_two_groups_gets_the_group_into_its_name(root: Path) -> None:
    """Names stay unique when two boards use one number."""
    other = root / "group00077"
    (root / GROUP).rename(other)
    (root / IMAGES).mkdir(parents=True)
    (root / LABELS).mkdir()
    for kind in ("test", "temp"):
        save_jpeg(root / IMAGES / f"00041000_{kind}.jpg")
    (root / LABELS / "00041000.txt").touch()
    names = [sample.name for sample in DeepPcbImporter().read(root)]
    assert names == ["group00041-00041000", "group00077-00041000", "00041001", "00041002"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


BAD: dict[str, tuple[Callable[[Path], object], str, int]] = {
    "golden missing": (lambda r: (r / IMAGES / "00041001_temp.jpg").unlink(), "golden is missing", 2),
    "frame missing": (lambda r: (r / IMAGES / "00041001_test.jpg").unlink(), "without their frame", 2),
    "label file missing": (lambda r: (r / LABELS / "00041001.txt").unlink(), "label file is missing", 2),
    "too few fields": (lambda r: (r / LABELS / "00041001.txt").write_text("1 2 3 4"), "line 1: expected", 2),
    "no numbers": (lambda r: (r / LABELS / "00041001.txt").write_text("\na b c d 1"), "line 2: expected", 2),
    "no text": (lambda r: (r / LABELS / "00041001.txt").write_bytes(b"\xff\xfe\x00"), "cannot be read as text", 2),
    "unknown type": (lambda r: (r / LABELS / "00041001.txt").write_text("1 2 3 4 7"), "unknown type 7", 2),
    "type 0": (lambda r: (r / LABELS / "00041001.txt").write_text("1 2 3 4 0"), "unknown type 0", 2),
    "box outside": (lambda r: (r / LABELS / "00041001.txt").write_text("1 2 65 4 1"), "outside the 64x48 image", 2),
    "box negative": (lambda r: (r / LABELS / "00041001.txt").write_text("-1 2 6 4 1"), "outside the 64x48 image", 2),
    "box degenerate": (lambda r: (r / LABELS / "00041001.txt").write_text("9 2 6 4 1"), "x2 > x1", 2),
    "box not finite": (lambda r: (r / LABELS / "00041001.txt").write_text("1 2 nan 4 1"), "non-finite", 2),
    "frame truncated": (lambda r: cut(r / IMAGES / "00041001_test.jpg"), "truncated", 2),
    "golden truncated": (lambda r: cut(r / IMAGES / "00041001_temp.jpg"), "truncated", 2),
    "frame empty": (lambda r: (r / IMAGES / "00041001_test.jpg").write_bytes(b""), "is empty", 2),
    "frame is text": (lambda r: (r / IMAGES / "00041001_test.jpg").write_text("hello"), "is no PNG, JPEG", 2),
    "sizes differ": (lambda r: save_jpeg(r / IMAGES / "00041001_temp.jpg", 40), "golden 64x40", 2),
    "split names one too many": (
        lambda r: (r / "test.txt").write_text(line("00041000") + line("00041009")),
        "test.txt line 2: no frame",
        3,
    ),
    "in both splits": (
        lambda r: [(r / name).write_text(line("00041001")) for name in ("trainval.txt", "test.txt")],
        "is in 'train' and in 'test'",
        3,
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_problem_is_reported_and_can_be_left_out(root: Path, case: str) -> None:
    """Every kind of problem names its file and how to go on, and costs only the sample concerned."""
    spoil, text, left = BAD[case]
    spoil(root)
    survey = DeepPcbImporter().survey(root)
    assert any(text in str(problem) for problem in survey.problems), survey.problems
    assert left == len(survey.usable())
    with pytest.raises(UsageError) as caught:
        DeepPcbImporter().read(root)
    assert text in caught.value.what
    assert "--skip-bad" in caught.value.fix


def test_all_problems_are_reported_at_once(root: Path) -> None:
    """One error lists the first twenty problems and counts the rest."""
    (root / LABELS / "00041000.txt").write_text("bad\n" * 25)
    (root / IMAGES / "00041002_temp.jpg").unlink()
    with pytest.raises(UsageError) as caught:
        DeepPcbImporter().read(root)
    assert "26 problem(s)" in caught.value.what
    assert caught.value.what.count("expected 'x1") == 20
    assert "and 6 more" in caught.value.what


def test_nothing_usable_is_an_error_even_when_bad_ones_are_skipped(root: Path) -> None:
    """A source of which nothing remains gives no empty dataset."""
    for file in (root / LABELS).iterdir():
        file.write_text("bad")
    with pytest.raises(UsageError, match="no usable sample"):
        DeepPcbImporter().survey(root).usable()


def test_class_names_are_those_of_the_generator() -> None:
    """Imported and generated boards use the same class names."""
    from datasets.synth.defects import PCB_CLASSES

    assert PCB_CLASSES == CLASSES


def test_split_file_of_a_part_left_out_is_ignored(root: Path) -> None:
    """A split file none of whose frames are on disk is no problem: that part was not copied."""
    (root / "test.txt").write_text(line("99999001"))
    survey = DeepPcbImporter().survey(root)
    assert survey.problems == ()
    assert {sample.split for sample in survey.samples} == {""}
