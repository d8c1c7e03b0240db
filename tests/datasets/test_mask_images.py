from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets.importers.masks import MaskImporter
from datasets.importers.mvtec import MvtecImporter
from datasets.manifest import open_dataset
from inspection.errors import UsageError
from inspection.images import write_png

SQUARE = (slice(4, 9), slice(3, 20))


def picture(path: Path, shape: tuple[int, ...] = (48, 64)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, np.full(shape, len(str(path)) % 256, np.uint8))
    return path


def mask(path: Path, *values: object, shape: tuple[int, ...] = (48, 64)) -> Path:
    """A mask whose n-th region, a rectangle in a row of its own, has the n-th value."""
    pixels = np.zeros(shape, np.uint8)
    for number, value in enumerate(values):
        pixels[10 * number + 4 : 10 * number + 9, 3:20] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, pixels)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two frames with one white region each."""
    for stem in "ab":
        picture(tmp_path / "images" / f"{stem}.png")
        mask(tmp_path / "masks" / f"{stem}.png", 255)
    return tmp_path


def test_region_becomes_box_and_outline(root: Path) -> None:
    """A white region is a defect with the box and outline of its pixels; a black mask is a good part."""
    mask(root / "masks/b.png")
    first, second = MaskImporter().read(root)
    (label,) = first.labels
    assert (label.defect_class, label.box_px) == ("defect", (3, 4, 20, 9))
    assert set(label.polygons_px[0]) == {(3, 4), (20, 4), (20, 9), (3, 9)}
    assert not second.defective


@pytest.mark.parametrize(
    ("names", "values", "classes"),
    [
        (None, (1,), ["defect"]),
        (None, (1, 3), ["class1", "class3"]),
        ("rust\ndent\nhole\n", (1, 3), ["rust", "hole"]),
        ("background\nrust\n", (1,), ["rust"]),
        ("rust\n", (255,), ["rust"]),
    ],
)
def test_values_are_classes(root: Path, names: str | None, values: tuple[int, ...], classes: list[str]) -> None:
    """The value of a region is its class, named by classes.txt where there is one."""
    for stem in "ab":
        mask(root / "masks" / f"{stem}.png", *values)
    if names is not None:
        (root / "classes.txt").write_text(names)
    survey = MaskImporter().survey(root)
    assert [label.defect_class for label in survey.complete()[0].labels] == classes
    assert set(classes) <= set(survey.classes)


def test_colours_are_classes(root: Path) -> None:
    """In a coloured mask each colour but black is a class."""
    for stem in "ab":
        mask(root / "masks" / f"{stem}.png", (255, 0, 0), (0, 0, 9), shape=(48, 64, 3))
    survey = MaskImporter().survey(root)
    assert survey.classes == ("#000009", "#ff0000")
    assert [label.box_px for label in survey.complete()[0].labels] == [(3, 14, 20, 19), (3, 4, 20, 9)]


def test_mask_files_may_have_an_ending(root: Path) -> None:
    """Masks called like their frame with _mask or _gt belong to it."""
    for stem, end in (("a", "_mask"), ("b", "_gt")):
        (root / "masks" / f"{stem}.png").rename(root / "masks" / f"{stem}{end}.png")
    assert len(list(MaskImporter().read(root))) == 2


@pytest.mark.parametrize("place", ["{kind}/{split}/x.png", "{split}/{kind}/x.png"])
def test_splits_of_masks(tmp_path: Path, place: str) -> None:
    """Splits may lie below or above images and masks, with equal names on both sides."""
    for split, values in (("train", (255,)), ("val", (255, 255))):
        picture(tmp_path / place.format(kind="images", split=split))
        mask(tmp_path / place.format(kind="masks", split=split), *values)
    assert [("train", 1), ("val", 2)] == [(s.split, len(s.labels)) for s in MaskImporter().read(tmp_path)]


def test_single_pixels_are_no_region_and_are_counted(root: Path) -> None:
    """Pixels that touch nothing are dust of the mask; how many there were is told."""
    pixels = cv2.imread(str(root / "masks/a.png"), cv2.IMREAD_UNCHANGED)
    pixels[40, 40] = pixels[45, 50] = 255
    write_png(root / "masks/a.png", pixels)
    survey = MaskImporter().survey(root)
    assert [len(sample.labels) for sample in survey.complete()] == [1, 1]
    assert any("2 single pixel(s)" in note for note in survey.notes)


def save_jpeg(root: Path) -> None:
    pixels = cv2.imread(str(root / "masks/b.png"), cv2.IMREAD_UNCHANGED)
    (root / "masks/b.png").unlink()
    (root / "masks/b.jpg").write_bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 60])[1].tobytes())


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no mask": (lambda r: (r / "masks/b.png").unlink(), "images/b.png: has no mask"),
    "no frame": (lambda r: (r / "images/b.png").unlink(), "masks/b.png: mask without its image"),
    "other size": (lambda r: mask(r / "masks/b.png", 255, shape=(24, 32)), "labels are for 32x24 pixels"),
    "two masks": (lambda r: mask(r / "masks/x/b_mask.png"), "mask without its image"),
    "JPEG": (save_jpeg, "JPEG blurs the classes"),
    "shades": (
        lambda r: write_png(r / "masks/b.png", np.arange(3072, dtype=np.uint8).reshape(48, 64)),
        "256 grey values",
    ),
    "not in the list": (
        lambda r: [(r / "classes.txt").write_text("a\nb\n"), mask(r / "masks/a.png", 2), mask(r / "masks/b.png", 9)],
        "value 9 is not in classes.txt",
    ),
    "mask truncated": (lambda r: (r / "masks/b.png").write_bytes(b"\x89PNG\r\n\x1a\n"), "truncated"),
    "mask of 16 bits": (lambda r: cv2.imwrite(str(r / "masks/b.png"), np.zeros((48, 64), np.uint16)), "16 bits"),
}


@pytest.mark.parametrize("case", BAD)
def test_mask_problem_is_listed_and_can_be_left_out(root: Path, case: str) -> None:
    """Every kind of problem names its file and costs only the frame concerned."""
    spoil, text = BAD[case]
    spoil(root)
    survey = MaskImporter().survey(root)
    assert any(text in str(problem) for problem in survey.problems), survey.problems
    assert "a" in {sample.name for sample in survey.usable()}
    assert case == "two masks" or [sample.name for sample in survey.usable()] == ["a"]


def test_many_colours_in_all_are_a_problem(tmp_path: Path) -> None:
    """More values than a set can have classes are told even where each mask has few."""
    for number in range(40):
        picture(tmp_path / "images" / f"{number}.png")
        mask(tmp_path / "masks" / f"{number}.png", number + 1)
    with pytest.raises(UsageError, match="have 40 values, at most 32"):
        MaskImporter().read(tmp_path)


@pytest.fixture
def bottle(tmp_path: Path) -> Path:
    """A category with two good parts, and a broken one with its mask."""
    for place in ("train/good", "test/good", "test/broken"):
        picture(tmp_path / "bottle" / place / "000.png")
    mask(tmp_path / "bottle/ground_truth/broken/000_mask.png", 255, 255)
    return tmp_path / "bottle"


def test_category_of_mvtec(bottle: Path) -> None:
    """Defective images have the class of their folder, and a box with that class for each region of their mask."""
    samples = {sample.name: sample for sample in MvtecImporter().read(bottle)}
    assert list(samples) == ["test-broken-000", "test-good-000", "train-good-000"]
    broken = samples["test-broken-000"]
    assert (broken.image_class, broken.split, broken.defect_classes) == ("broken", "test", {"broken"})
    assert [label.box_px for label in broken.labels] == [(3, 4, 20, 9), (3, 14, 20, 19)]
    assert [samples[name].defective for name in ("test-good-000", "train-good-000")] == [False, False]
    assert MvtecImporter().survey(bottle).classes == ("broken",)


def test_mvtec_without_masks_has_classes_only(bottle: Path) -> None:
    """Where nobody drew masks the class of the image still speaks, and this is told."""
    for file in (bottle / "ground_truth/broken/000_mask.png", bottle / "ground_truth/broken", bottle / "ground_truth"):
        file.unlink() if file.is_file() else file.rmdir()
    survey = MvtecImporter().survey(bottle)
    assert next((s.image_class, len(s.labels)) for s in survey.complete()) == ("broken", 0)
    assert "no ground_truth" in survey.notes[0]


def test_folder_of_categories_names_them(bottle: Path) -> None:
    """The folder above the categories is refused with their names, not read as classes."""
    with pytest.raises(UsageError, match="1 categories") as caught:
        open_dataset(bottle.parent)
    assert "bottle" in caught.value.fix


MVTEC_BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no mask": (lambda r: (r / "ground_truth/broken/000_mask.png").unlink(), "has no mask in ground_truth"),
    "no image": (lambda r: mask(r / "ground_truth/broken/001_mask.png", 255), "mask without its image"),
    "black mask": (lambda r: mask(r / "ground_truth/broken/000_mask.png"), "marks nothing"),
    "other size": (lambda r: mask(r / "ground_truth/broken/000_mask.png", 255, shape=(20, 24)), "for 24x20 pixels"),
    "empty folder": (lambda r: (r / "test/cut").mkdir(), "test/cut: this folder is empty"),
    "truncated": (lambda r: (r / "test/broken/000.png").write_bytes(b"\x89PNG\r\n\x1a\n"), "truncated"),
}


@pytest.mark.parametrize("case", MVTEC_BAD)
def test_mvtec_problem_is_listed(bottle: Path, case: str) -> None:
    """Every kind of problem names its file, and the good parts can still be used."""
    spoil, text = MVTEC_BAD[case]
    spoil(bottle)
    survey = MvtecImporter().survey(bottle)
    assert any(text in str(problem) for problem in survey.problems), survey.problems
    assert {"test-good-000", "train-good-000"} <= {s.name for s in survey.usable()}
