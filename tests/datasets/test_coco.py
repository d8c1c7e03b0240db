import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_coco_eval.core import mask as reference

from datasets.importers.coco import CocoImporter
from datasets.sample import LabelledBox
from inspection.errors import UsageError
from inspection.images import write_png


def picture(path: Path, width: int = 64, height: int = 48) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, np.full((height, width), len(str(path)) % 256, np.uint8))
    return path


def image(number: int, name: str = "") -> dict[str, Any]:
    return {"id": number, "file_name": name or f"{number}.png", "width": 64, "height": 48}


def box(number: int, of: int, sides: object = (1, 2, 10, 12), **more: object) -> dict[str, Any]:
    return {"id": number, "image_id": of, "category_id": 3, "bbox": sides, "iscrowd": 0, **more}


CATEGORIES = [{"id": 7, "name": "dent"}, {"id": 3, "name": "rust"}]


def document(images: list[dict[str, Any]], boxes: list[dict[str, Any]]) -> dict[str, Any]:
    return {"images": images, "annotations": boxes, "categories": CATEGORIES}


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def labels_of(root: Path, *boxes: dict[str, Any]) -> tuple[LabelledBox, ...]:
    picture(root / "1.png")
    write(root / "a.json", document([image(1)], list(boxes)))
    return next(CocoImporter().read(root)).labels


def test_boxes_and_classes(tmp_path: Path) -> None:
    """Boxes become corners, a pixel of overhang is clipped, classes are in the order of their numbers."""
    labels = labels_of(tmp_path, box(1, 1), box(2, 1, (-0.5, 2, 65, 12), category_id=7))
    assert labels == (LabelledBox("rust", (1, 2, 11, 14)), LabelledBox("dent", (0, 2, 64, 14)))
    assert CocoImporter().survey(tmp_path).classes == ("rust", "dent")


def test_polygons(tmp_path: Path) -> None:
    """Outlines in several parts are kept; without a box their extent is the box."""
    parts = [[1, 2, 5, 2, 5, 9], [8, 8, 11, 8, 11, 14]]
    (label,) = labels_of(tmp_path, box(1, 1, None, segmentation=parts))
    assert label.box_px == (1, 2, 11, 14)
    assert label.polygons_px == (((1, 2), (5, 2), (5, 9)), ((8, 8), (11, 8), (11, 14)))


@pytest.mark.parametrize("compressed", [True, False])
def test_run_lengths_become_outlines(tmp_path: Path, compressed: bool) -> None:
    """Run lengths, plain and compressed, become the outline of each region."""
    mask = np.zeros((48, 64), np.uint8)
    mask[4:10, 5:20] = mask[30:32, 40:41] = 1
    runs = reference.encode(np.asfortranarray(mask))["counts"]
    counts: object = runs.decode() if isinstance(runs, bytes) else runs
    if not compressed:
        flat = np.concatenate([[0], mask.ravel(order="F"), [2]])
        counts = np.diff(np.flatnonzero(np.diff(flat)), prepend=0).tolist()
    (label,) = labels_of(tmp_path, box(1, 1, None, segmentation={"counts": counts, "size": [48, 64]}))
    assert label.box_px == (5, 4, 41, 32)
    assert {frozenset(outline) for outline in label.polygons_px} == {
        frozenset({(5, 4), (20, 4), (5, 10), (20, 10)}),
        frozenset({(40, 30), (41, 30), (40, 32), (41, 32)}),
    }


def instances(root: Path) -> None:
    for number, split in ((1, "train2017"), (2, "val2017")):
        picture(root / "images" / split / "same name.png")
        picture(root / "masks" / split / "same name.jpg.png")
        write(root / "annotations" / f"instances_{split}.json", document([image(number, "same name.png")], []))


def in_root(root: Path) -> None:
    for number, split in ((1, "train"), (2, "val")):
        picture(root / "images" / split / f"{number}.png")
        write(root / f"coco_{split}.json", document([image(number)], []))


def roboflow(root: Path) -> None:
    for number, split in ((1, "train"), (2, "valid")):
        picture(root / split / "same.png")
        write(root / split / "_annotations.coco.json", document([image(number, "same.png")], []))


def by_path(root: Path) -> None:
    for number, split in ((1, "train"), (2, "val")):
        picture(root / "pictures" / split / "same.png")
        write(root / f"{split}.json", document([image(number, f"{split}\\same.png")], []))


@pytest.mark.parametrize("build", [instances, in_root, roboflow, by_path])
def test_coco_layouts(tmp_path: Path, build: Callable[[Path], None]) -> None:
    """The name of the file or of its folder tells the split, and images of one name are told apart by it."""
    build(tmp_path)
    samples = list(CocoImporter().read(tmp_path))
    assert [sample.split for sample in samples] == ["train", "val"]
    assert all(sample.split in str(sample.image.relative_to(tmp_path)) for sample in samples)
    assert not any(sample.defective for sample in samples)


def test_name_of_all_classes_together_is_no_class(tmp_path: Path) -> None:
    """The category that Roboflow puts above all others and never uses is left out."""
    picture(tmp_path / "1.png")
    content = document([image(1)], [box(1, 1)])
    content["categories"] = [{"id": 0, "name": "parts"}, *({**c, "supercategory": "parts"} for c in CATEGORIES)]
    write(tmp_path / "a.json", content)
    assert CocoImporter().survey(tmp_path).classes == ("rust", "dent")


def test_images_that_no_file_names_are_told(tmp_path: Path) -> None:
    """Pictures beside the labelled ones are left out, and counted in a note."""
    picture(tmp_path / "2.png")
    labels_of(tmp_path)
    assert "1 image file(s) are named in no COCO file" in CocoImporter().survey(tmp_path).notes[0]


Document = dict[str, Any]


def edit(key: str, number: int, **values: object) -> Callable[[Document, Path], object]:
    return lambda d, _: d[key][number].update(values)


BAD: dict[str, tuple[Callable[[Document, Path], object], str]] = {
    "image missing": (lambda _, r: (r / "2.png").unlink(), "image 2.png is missing"),
    "image truncated": (lambda _, r: (r / "2.png").write_bytes((r / "2.png").read_bytes()[:-9]), "truncated"),
    "image in two folders": (lambda _, r: (picture(r / "x/2.png"), (r / "2.png").rename(r / "sub/2.png")), "any of 2"),
    "image named twice": (lambda d, _: d["images"].append(image(9, "2.png")), "is also in a.json"),
    "image id twice": (lambda d, _: d["images"].append(image(2, "3.png")), "images[2]: id 2 occurs twice"),
    "other size": (edit("images", 1, width=640), "labels are for 640x48 pixels, the image has 64x48"),
    "no file name": (edit("images", 1, file_name=""), "images[1]: file_name"),
    "outside": (edit("annotations", 1, bbox=[60, 2, 10, 12]), "reaches outside the 64x48 image"),
    "no width": (edit("annotations", 1, bbox=[6, 2, 0, 12]), "x2 > x1"),
    "three sides": (edit("annotations", 1, bbox=[6, 2, 3]), "annotations[1]: bbox"),
    "not finite": (edit("annotations", 1, bbox=[6, 2, float("nan"), 5]), "non-finite"),
    "no box": (edit("annotations", 1, bbox=None), "neither a box nor an outline"),
    "unknown category": (edit("annotations", 1, category_id=4), "unknown category 4, known are [3, 7]"),
    "id twice": (edit("annotations", 1, id=1), "annotations[1]: id 1 occurs twice"),
    "id no number": (edit("annotations", 1, id=[1]), "annotations[1]: id"),
    "crowd": (edit("annotations", 1, iscrowd=1), "marks a crowd"),
    "two points": (edit("annotations", 1, segmentation=[[1, 2, 3, 4]]), "three or more points"),
    "outline outside": (edit("annotations", 1, segmentation=[[1, 2, 3, 4, 90, 5]]), "reaches outside"),
    "runs too short": (edit("annotations", 1, segmentation={"counts": [5], "size": [48, 64]}), "cover 5 pixels"),
    "runs of other size": (edit("annotations", 1, segmentation={"counts": [6], "size": [2, 3]}), "for 3x2 pixels"),
    "unknown class": (edit("images", 1, lineside={"image_class": "moss"}), "unknown class 'moss'"),
    "golden missing": (edit("images", 1, lineside={"golden": "g.png"}), "golden g.png of 2.png is missing"),
    "golden outside": (edit("images", 1, lineside={"golden": "../x.png"}), "golden ../x.png of 2.png is missing"),
    "golden elsewhere": (edit("images", 1, lineside={"golden": __file__}), f"golden {__file__} of 2.png is missing"),
    "hostile name": (edit("images", 1, file_name="\x1b[2J.png"), "image \\x1b[2J.png is missing"),
}


@pytest.mark.parametrize("case", BAD)
def test_coco_problem_is_listed_and_can_be_left_out(tmp_path: Path, case: str) -> None:
    """Every kind of problem names its file and costs only the image concerned."""
    spoil, text = BAD[case]
    for name in ("1.png", "2.png", "3.png"):
        picture(tmp_path / name)
    (tmp_path / "sub").mkdir()
    content = document([image(1), image(2)], [box(1, 1), box(2, 2)])
    spoil(content, tmp_path)
    write(tmp_path / "a.json", content)
    survey = CocoImporter().survey(tmp_path)
    assert any(text in str(problem) for problem in survey.problems), survey.problems
    assert "1" in {sample.name for sample in survey.usable()}
    if case != "image named twice":
        assert [sample.name for sample in survey.usable()] == ["1"]


def test_names_hold_nothing_that_a_terminal_obeys(tmp_path: Path) -> None:
    """Names and groups that a file from outside gives are printable, whatever stands in it."""
    picture(tmp_path / "1.png")
    row = image(1) | {"lineside": {"name": "one\x1b[2J", "group": "lot\n7"}}
    write(tmp_path / "a.json", document([row], []))
    (sample,) = CocoImporter().read(tmp_path)
    assert ("one_[2J", "lot_7") == (sample.name, sample.group)


def test_label_of_an_unknown_image_is_a_problem(tmp_path: Path) -> None:
    """Annotations of images that are not listed are told."""
    with pytest.raises(UsageError, match="there is no image 5"):
        labels_of(tmp_path, box(1, 5))


@pytest.mark.parametrize("content", ['{"images": [', '["images"]', '{"images": [], "categories": []}'])
def test_file_that_is_no_coco_is_a_problem(tmp_path: Path, content: str) -> None:
    """A torn JSON file, or one without annotations, does not make good parts of its images."""
    labels_of(tmp_path)
    (tmp_path / "b_train.json").write_text(content)
    survey = CocoImporter().survey(tmp_path)
    assert ["b_train.json"] == [problem.where for problem in survey.problems]
    assert ["1"] == [sample.name for sample in survey.usable()]
