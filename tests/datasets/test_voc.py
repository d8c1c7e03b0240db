from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datasets.importers.voc import VocImporter
from inspection.errors import UsageError
from inspection.images import write_png

Corners = tuple[float, float, float, float]
BOX: tuple[str, Corners] = ("rust", (1, 2, 30, 40))


def image(path: Path, size: tuple[int, int] = (64, 48)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, np.full(size[::-1], len(str(path)) % 256, np.uint8))
    return path


def xml(
    path: Path, *objects: tuple[str, Corners], filename: str | None = None, size: tuple[int, int] = (64, 48)
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sides = ("xmin", "ymin", "xmax", "ymax")
    listed = "".join(
        f"<object><name>{name}</name><part><name>x</name></part><bndbox>"
        + "".join(f"<{side}>{value}</{side}>" for side, value in zip(sides, box, strict=True))
        + "</bndbox></object>"
        for name, box in objects
    )
    told = f"{path.stem}.png" if filename is None else filename
    text = f"<folder>wrong</folder><filename>{told}</filename><size><width>{size[0]}</width><height>{size[1]}</height></size>"
    path.write_text(f"<annotation>{text}{listed}</annotation>", encoding="utf-8")


def read(root: Path) -> list[tuple[str, str, list[tuple[str, Corners]]]]:
    samples = VocImporter().read(root)
    return [(s.name, s.split, [(x.defect_class, x.box_px) for x in s.labels]) for s in samples]


def test_corners_become_half_open_from_zero(tmp_path: Path) -> None:
    """Pixel 1 is the first and the last pixel belongs to the box; rounding by a pixel is clipped."""
    image(tmp_path / "a.png")
    xml(tmp_path / "a.xml", ("dent", (1, 1, 64, 48)), ("rust", (0, 2, 65, 2)), ("rust", (3.5, 4, 9, 9)))
    expected = [("dent", (0, 0, 64, 48)), ("rust", (0, 1, 64, 2)), ("rust", (2.5, 3, 9, 9))]
    assert [("a", "", expected)] == read(tmp_path)
    assert VocImporter().survey(tmp_path).classes == ("dent", "rust")


def devkit(root: Path) -> None:
    for stem in "abc":
        image(root / "VOC2012/JPEGImages" / f"{stem}.png")
        xml(root / "VOC2012/Annotations" / f"{stem}.xml", BOX)
    lists = root / "VOC2012/ImageSets/Main"
    lists.mkdir(parents=True)
    for split, stems in (("train", "a\n"), ("val", "b -1\n"), ("test", "c\n"), ("trainval", "a\nb\n")):
        (lists / f"{split}.txt").write_text(stems)


def neu_original(root: Path) -> None:
    for stem in "abc":
        image(root / "IMAGES" / f"{stem}.png")
        xml(root / "ANNOTATIONS" / f"{stem}.xml", BOX, filename=stem)


def neu_kaggle(root: Path) -> None:
    for split, stems in (("train", "ab"), ("validation", "c")):
        for stem in stems:
            image(root / split / "images/rust" / f"{stem}.png")
            xml(root / split / "annotations" / f"{stem}.xml", BOX, filename=stem)


def roboflow(root: Path) -> None:
    for split, stem in (("train", "a"), ("valid", "b"), ("test", "c")):
        image(root / split / f"{stem}.png")
        xml(root / split / f"{stem}.xml", BOX)


@pytest.mark.parametrize(
    ("build", "splits"),
    [
        (devkit, ["train", "val", "test"]),
        (neu_original, ["", "", ""]),
        (neu_kaggle, ["train", "train", "val"]),
        (roboflow, ["train", "val", "test"]),
    ],
)
def test_layouts(tmp_path: Path, build: Callable[[Path], None], splits: list[str]) -> None:
    """The usual folders around VOC files are read with their splits."""
    build(tmp_path)
    labels = [("rust", (0, 1, 30, 40))]
    assert sorted((name, split, labels) for name, split in zip("abc", splits, strict=True)) == sorted(read(tmp_path))


def test_one_name_in_two_splits_is_kept_apart(tmp_path: Path) -> None:
    """An annotation belongs to the image of its own split, and names stay unique."""
    for split, x in (("train", 5), ("validation", 9)):
        image(tmp_path / split / "images/größe 1.png")
        xml(tmp_path / split / "annotations/größe 1.xml", ("rust", (x, 2, 30, 40)))
    assert read(tmp_path) == [
        ("train-images-größe 1", "train", [("rust", (4, 1, 30, 40))]),
        ("validation-images-größe 1", "val", [("rust", (8, 1, 30, 40))]),
    ]


def test_no_object_is_a_good_part(tmp_path: Path) -> None:
    """An annotation without objects says that a person found nothing."""
    image(tmp_path / "a.png")
    xml(tmp_path / "a.xml")
    assert [("a", "", [])] == read(tmp_path)


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><annotation><filename>&b;</filename></annotation>'
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no annotation": (lambda r: (r / "b.xml").unlink(), "b.png: has no annotation"),
    "no image": (lambda r: (r / "b.png").unlink(), "b.xml: its image 'b.png' is missing"),
    "swapped": (
        lambda r: xml(r / "b.xml", BOX, ("rust", (30, 2, 5, 9))),
        "object 2 (rust) has swapped corners: 30, 2, 5",
    ),
    "outside": (lambda r: xml(r / "b.xml", ("rust", (3, 2, 66, 9))), "object 1 (rust): box"),
    "not finite": (lambda r: xml(r / "b.xml", ("rust", (3, 2, float("nan"), 9))), "object 1 (rust) has swapped"),
    "no number": (lambda r: xml(r / "b.xml", ("rust", ("x", 2, 5, 9))), "sides that are no numbers"),  # type: ignore[arg-type]
    "no name": (lambda r: xml(r / "b.xml", ("", (1, 2, 5, 9))), "object 1 lacks its name"),
    "other size": (lambda r: xml(r / "b.xml", size=(640, 480)), "labels are for 640x480 pixels, the image has 64x48"),
    "turned": (lambda r: xml(r / "b.xml", size=(48, 64)), "EXIF"),
    "broken": (lambda r: (r / "b.xml").write_text("<annotation>"), "b.xml: cannot be read"),
    "entities": (lambda r: (r / "b.xml").write_text(BOMB), "DOCTYPE"),
    "entities in UTF-16": (lambda r: (r / "b.xml").write_text(BOMB, encoding="utf-16"), "DOCTYPE"),
    "other XML": (lambda r: (r / "b.xml").write_text("<html/>"), "is <html>"),
    "truncated image": (lambda r: (r / "b.png").write_bytes((r / "b.png").read_bytes()[:-9]), "truncated"),
    "two for one image": (lambda r: xml(r / "c.xml", filename="b.png"), "is for b.png, as b.xml is"),
    "two names": (lambda r: xml(r / "b.xml", filename="a.png"), "says it is for a.png, but b.png is called like it"),
}


@pytest.mark.parametrize("case", BAD)
def test_voc_problem_is_listed_and_can_be_left_out(tmp_path: Path, case: str) -> None:
    """Every kind of problem names its file, once, and costs only the sample concerned."""
    for stem in "ab":
        image(tmp_path / f"{stem}.png")
        xml(tmp_path / f"{stem}.xml", BOX)
    spoil, text = BAD[case]
    spoil(tmp_path)
    survey = VocImporter().survey(tmp_path)
    assert any(text in str(problem) for problem in survey.problems), survey.problems
    assert [sample.name for sample in survey.usable()] == ["a"]
    with pytest.raises(UsageError, match="--skip-bad"):
        VocImporter().read(tmp_path)


def test_split_lists_that_contradict_are_problems(tmp_path: Path) -> None:
    """A picture in two lists, or one that is not there, is told."""
    devkit(tmp_path)
    (tmp_path / "VOC2012/ImageSets/Main/test.txt").write_text("a\nz\n")
    problems = [str(problem) for problem in VocImporter().survey(tmp_path).problems]
    assert any("'a' is in" in problem for problem in problems)
    assert any("names 'z', which is no image" in problem for problem in problems)
