"""What every importer must do.  A new importer adds one builder of a tiny folder in its layout."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datasets.importers import IMPORTERS, open_importer, recognise, require_importer
from datasets.manifest import open_dataset
from datasets.sample import Sample
from inspection.errors import ConfigError, UsageError
from inspection.images import read_image, write_png


def build_deeppcb(root: Path) -> Path:
    """Two boards with one labelled pair each, one of them without defects; gives a file that belongs to a sample."""
    for number, group in enumerate(("00041", "12000")):
        images, labels = (root / "PCBData" / f"group{group}" / name for name in (group, f"{group}_not"))
        images.mkdir(parents=True)
        labels.mkdir()
        for kind in ("test", "temp"):
            picture = np.random.default_rng(number).integers(0, 256, (48, 64), dtype=np.uint8)
            write_png(images / f"{group}000_{kind}.png", picture)
        (labels / f"{group}000.txt").write_text("3 4 20 30 1\n" * number)
    return images / f"{group}000_test.png"


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, np.random.default_rng(seed).integers(0, 256, (48, 64), dtype=np.uint8))
    return path


def marked(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((48, 64), np.uint8)
    mask[4:9, 3:20] = 255
    write_png(path, mask)


def build_folders(root: Path) -> Path:
    """One good and one scratched part in train, one of each in test."""
    for number, place in enumerate(("train/ok_front", "train/scratch", "test/ok_front")):
        picture(root / place / f"{number}.png", number)
    return picture(root / "test/scratch/7.png")


def build_mvtec(root: Path) -> Path:
    """One category with a kind of defect and its mask."""
    for number, place in enumerate(("train/good", "test/good")):
        picture(root / place / "000.png", number)
    marked(root / "ground_truth/broken/000_mask.png")
    return picture(root / "test/broken/000.png", 3)


def build_masks(root: Path) -> Path:
    """Two frames with their masks."""
    for stem in "ab":
        marked(root / "masks" / f"{stem}.png")
        file = picture(root / "images" / f"{stem}.png", ord(stem))
    return file


def build_voc(root: Path) -> Path:
    """A frame with a box and one without, in the folders of the VOC devkit."""
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>48</ymax></bndbox>"
    (root / "Annotations").mkdir()
    for stem, objects in (("a", f"<object><name>rust</name>{box}</object>"), ("b", "")):
        text = f"<annotation><filename>{stem}.png</filename>{objects}</annotation>"
        (root / "Annotations" / f"{stem}.xml").write_text(text)
        file = picture(root / "JPEGImages" / f"{stem}.png", ord(stem))
    return file


def build_coco(root: Path) -> Path:
    """Two frames, one of them with a box."""
    images = [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 48} for i in (1, 2)]
    boxes = [{"id": 1, "image_id": 1, "category_id": 5, "bbox": [1, 2, 10, 12], "iscrowd": 0}]
    document = {"images": images, "annotations": boxes, "categories": [{"id": 5, "name": "rust"}]}
    (root / "annotations").mkdir()
    (root / "annotations/instances_val2017.json").write_text(json.dumps(document))
    picture(root / "images/val2017/1.png", 1)
    return picture(root / "images/val2017/2.png", 2)


def build_yolo(root: Path) -> Path:
    """Two frames in train, one of them with a box."""
    (root / "data.yaml").write_text("path: .\ntrain: images/train\nnames: [rust, dent]\n")
    (root / "labels/train").mkdir(parents=True)
    (root / "labels/train/1.txt").write_text("1 0.5 0.5 0.25 0.5\n")
    picture(root / "images/train/1.png", 1)
    return picture(root / "images/train/2.png", 2)


BUILDERS: dict[str, Callable[[Path], Path]] = {
    "coco": build_coco,
    "deeppcb": build_deeppcb,
    "folders": build_folders,
    "masks": build_masks,
    "mvtec": build_mvtec,
    "voc": build_voc,
    "yolo": build_yolo,
}


@pytest.fixture(params=sorted(IMPORTERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_importer_has_a_builder() -> None:
    """No importer goes without this suite."""
    assert set(IMPORTERS) == set(BUILDERS)


def test_own_layout_is_recognised(name: str, tmp_path: Path) -> None:
    """An importer recognises its own layout, is found by it, and no other one takes the folder for its own."""
    BUILDERS[name](tmp_path)
    assert name == recognise(tmp_path) == require_importer(tmp_path)
    assert [name] == [known for known in IMPORTERS if open_importer(known).recognises(tmp_path)]


@pytest.mark.parametrize("make", [lambda p: p.mkdir(), lambda p: p.write_text("x"), lambda p: None])
def test_other_things_are_not_recognised(name: str, tmp_path: Path, make: Callable[[Path], object]) -> None:
    """An empty folder, a file or nothing at all is no source, and reading it says so."""
    make(tmp_path / "other")
    importer = open_importer(name)
    assert not importer.recognises(tmp_path / "other")
    with pytest.raises(UsageError) as caught:
        importer.survey(tmp_path / "other")
    assert importer.layout in caught.value.fix


def test_samples_are_usable(name: str, tmp_path: Path) -> None:
    """Samples have readable images, unique names, known classes and boxes inside the image."""
    BUILDERS[name](tmp_path)
    classes = open_importer(name).survey(tmp_path).classes
    samples = list(open_importer(name).read(tmp_path))
    assert samples
    assert len(samples) == len({sample.name for sample in samples})
    for sample in samples:
        height, width = read_image(sample.image).shape[:2]
        assert all(label.inside(width, height) for label in sample.labels)
        assert sample.defect_classes <= set(classes)
    assert any(sample.defective for sample in samples)


def test_reading_twice_gives_the_same(name: str, tmp_path: Path) -> None:
    """The order of samples does not depend on the file system."""
    BUILDERS[name](tmp_path)
    first: list[Sample] = list(open_importer(name).read(tmp_path))
    assert first == list(open_importer(name).read(tmp_path))
    assert open_dataset(tmp_path).version == open_dataset(tmp_path).version


def test_damaged_image_is_reported_and_left_out(name: str, tmp_path: Path) -> None:
    """A truncated image stops the import; a survey goes on with the other samples and names the file."""
    file = BUILDERS[name](tmp_path)
    file.write_bytes(file.read_bytes()[:-20])
    survey = open_importer(name).survey(tmp_path)
    assert any(file.name in problem.where for problem in survey.problems)
    assert file not in {sample.image for sample in survey.usable()}
    with pytest.raises(UsageError, match=file.name):
        open_importer(name).read(tmp_path)


def test_source_is_not_changed(name: str, tmp_path: Path) -> None:
    """Reading writes nothing."""
    BUILDERS[name](tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    list(open_importer(name).read(tmp_path))
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_unknown_importer_lists_the_known_ones() -> None:
    """A wrong name is answered with the right ones."""
    with pytest.raises(ConfigError) as caught:
        open_importer("nonsense")
    assert all(known in caught.value.fix for known in IMPORTERS)


def test_option_of_another_importer_is_refused(name: str) -> None:
    """Only the importer of class folders is told which folders are good."""
    if name == "folders":
        assert open_importer(name, good=("fine",))
    else:
        with pytest.raises(UsageError, match="--good"):
            open_importer(name, good=("fine",))


def test_unknown_layout_lists_the_known_ones(tmp_path: Path) -> None:
    """A folder that nobody recognises is answered with all layouts."""
    with pytest.raises(UsageError, match="in no known layout") as caught:
        require_importer(tmp_path)
    assert all(open_importer(known).layout in caught.value.fix for known in IMPORTERS)
