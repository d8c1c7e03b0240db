from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets.importers import recognise
from datasets.importers.folders import FolderImporter, says_good
from datasets.manifest import open_dataset
from inspection.errors import UsageError


def save(path: Path, *, shape: tuple[int, ...] = (48, 64), dtype: type = np.uint8) -> Path:
    """A random picture, other for each path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = int.from_bytes(str(path).encode(), "big") % 2**32
    pixels = np.random.default_rng(seed).integers(0, 200, shape, dtype=dtype)
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two good castings and two defective ones, each kind in a folder."""
    for name in ("ok_front/1.png", "ok_front/2.jpg", "def_front/3.bmp", "def_front/4.tif"):
        save(tmp_path / "set" / name)
    return tmp_path / "set"


@pytest.mark.parametrize(
    ("name", "good"),
    [
        *(("ok", True), ("OK_front", True), ("Good", True), ("io", True), ("i.O.", True), ("gut", True)),
        *(("passed-parts", True), ("no_defect", True), ("defect free", True), ("non-defective", True)),
        *(("def_front", False), ("not_ok", False), ("nok", False), ("no good", False), ("n.i.O.", False)),
        *(("ng", False), ("scratch", False), ("smoke", False), ("good_defect", False), ("negative", False)),
    ],
)
def test_names_of_good_folders(name: str, good: bool) -> None:
    """Whole words tell good parts, in English and German, and a denial turns them round."""
    assert good == says_good(name)


def test_good_parts_have_no_class(root: Path) -> None:
    """What lies in the good folder is a good part, everything else has the class of its folder."""
    survey = FolderImporter().survey(root)
    assert survey.classes == ("def_front",)
    assert [s.image_class for s in survey.complete()] == ["def_front", "def_front", "", ""]
    assert [s.defective for s in survey.samples] == [True, True, False, False]
    assert "good parts: ok_front" in survey.notes[0]


def test_split_folders_name_the_split(root: Path) -> None:
    """The folder above train and train itself are both accepted, with and without splits."""
    above = root.parent / "casting_data"
    above.mkdir()
    root.rename(above / "train")
    save(above / "validation/ok_front/5.png")
    save(above / "test/def_front/6.png")
    assert Counter(train=4, val=1, test=1) == Counter(sample.split for sample in FolderImporter().read(above))
    assert Counter({"": 4}) == Counter(sample.split for sample in FolderImporter().read(above / "train"))


def test_all_folders_may_be_classes_of_defects(tmp_path: Path) -> None:
    """Six kinds of steel defects and no good part are a dataset."""
    for name in ("crazing", "patches", "scratches"):
        save(tmp_path / name / "1.png")
    survey = FolderImporter().survey(tmp_path)
    assert survey.classes == ("crazing", "patches", "scratches")
    assert [sample.name for sample in survey.complete()] == ["crazing-1", "patches-1", "scratches-1"]
    assert "no folder of good parts" in survey.notes[0]


def test_good_parts_alone_are_a_dataset(tmp_path: Path) -> None:
    """Good parts only are enough to learn what is normal."""
    save(tmp_path / "good/1.png")
    survey = FolderImporter().survey(tmp_path)
    assert (survey.classes, survey.problems) == ((), ())
    assert not survey.samples[0].defective


@pytest.mark.parametrize(
    ("good", "classes"),
    [(("def_front",), ("ok_front",)), ((), ("def_front", "ok_front")), (("ok_front",), ("def_front",))],
)
def test_good_folders_can_be_named(root: Path, good: tuple[str, ...], classes: tuple[str, ...]) -> None:
    """Whoever knows better names the good folders, or says that there is none."""
    assert classes == FolderImporter(good).survey(root).classes


def test_unknown_good_folder_is_refused(root: Path) -> None:
    """A good folder that is not there is a mistake, answered with those that are."""
    with pytest.raises(UsageError, match="no class folder fine") as caught:
        FolderImporter(("fine",)).survey(root)
    assert "ok_front" in caught.value.fix


def test_folders_below_a_class_belong_to_it(root: Path) -> None:
    """Images may lie deeper, and hidden files and those of other programs are no images."""
    save(root / "ok_front/Ö ü/mit Leerzeichen.png")
    (root / "ok_front/Thumbs.db").write_bytes(b"x")
    save(root / "ok_front/.ipynb_checkpoints/9.png")
    names = [sample.name for sample in FolderImporter().read(root) if not sample.image_class]
    assert names == ["1", "2", "mit Leerzeichen"]
    assert open_dataset(root).samples[-1].image.is_file()


def test_equal_names_get_their_folders(tmp_path: Path) -> None:
    """Names stay unique over classes, folders, letter cases and kinds of files."""
    for name in ("ok/1.png", "ok/a/1.png", "bad/1.png", "bad/1.jpg", "bad/2.png"):
        save(tmp_path / name)
    names = [sample.name for sample in FolderImporter().read(tmp_path)]
    assert names == ["bad-1.jpg", "bad-1.png", "2", "ok-1", "ok-a-1"]


def test_augmented_copies_of_one_source_are_one_group(tmp_path: Path) -> None:
    """Copies that Roboflow made of a picture must not be torn apart by a split."""
    for name in ("ok/a_jpg.rf.0f1e2d.jpg", "ok/a_jpg.rf.99ab.jpg", "bad/b_png.rf.1234.jpg", "bad/c.jpg"):
        save(tmp_path / name)
    assert [sample.group for sample in FolderImporter().read(tmp_path)] == ["b", "c", "a", "a"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def save_transparent(path: Path) -> None:
    path.write_bytes(cv2.imencode(".png", np.full((8, 8, 4), 60, np.uint8))[1].tobytes())


BAD: dict[str, tuple[Callable[[Path], object], str, int]] = {
    "empty class": (lambda r: (r / "scratch").mkdir(), "scratch: this class folder is empty", 4),
    "truncated": (lambda r: cut(r / "ok_front/2.jpg"), "ok_front/2.jpg: is truncated", 3),
    "no image": (lambda r: (r / "ok_front/1.png").write_text("hello"), "is no PNG, JPEG", 3),
    "empty file": (lambda r: (r / "def_front/3.bmp").write_bytes(b""), "is empty", 3),
    "16 bits": (lambda r: save(r / "ok_front/1.png", dtype=np.uint16), "16 bits per channel", 3),
    "16 bits TIFF": (lambda r: save(r / "def_front/4.tif", dtype=np.uint16), "16 bits per channel", 3),
    "transparent": (lambda r: save_transparent(r / "ok_front/1.png"), "transparent pixels", 3),
    "other kind": (lambda r: (r / "ok_front/5.webp").write_bytes(b"RIFF"), "kind .webp are not supported", 4),
    "beside the folders": (lambda r: save(r / "7.png"), "7.png: lies in no class folder", 4),
}


@pytest.mark.parametrize("case", BAD)
def test_folder_problem_is_listed_and_can_be_left_out(root: Path, case: str) -> None:
    """Every kind of problem names its file and costs only the sample concerned."""
    spoil, text, left = BAD[case]
    spoil(root)
    survey = FolderImporter().survey(root)
    assert any(text in str(problem) for problem in survey.problems), survey.problems
    assert left == len(survey.usable())


def test_link_back_to_its_own_folder_adds_no_copies(root: Path) -> None:
    """A link to a folder that it lies in does not bring every picture again and again; other links are followed."""
    (root / "def_front" / "back").symlink_to(root)
    save(root.parent / "elsewhere" / "5.png")
    (root / "def_front" / "more").symlink_to(root.parent / "elsewhere")
    assert ["1", "2", "3", "4", "5"] == sorted(sample.name for sample in FolderImporter().read(root))


def test_one_class_alone_is_a_problem(tmp_path: Path) -> None:
    """Defects of one class and nothing else leave nothing to tell them from; the way out is named."""
    save(tmp_path / "scratch/1.png")
    with pytest.raises(UsageError, match=r"one class 'scratch'.*--good"):
        FolderImporter().read(tmp_path)


def test_three_images_of_several_sizes_are_read(tmp_path: Path) -> None:
    """A handful of grey and colour images of several sizes is a dataset; an opaque alpha channel does no harm."""
    save(tmp_path / "ok/1.png", shape=(20, 30, 3))
    save(tmp_path / "ok/2.png", shape=(50, 10))
    opaque = np.full((9, 9, 4), 255, np.uint8)
    save(tmp_path / "bad/3.png").write_bytes(cv2.imencode(".png", opaque)[1].tobytes())
    assert [sample.name for sample in FolderImporter().read(tmp_path)] == ["3", "1", "2"]


def test_folder_above_several_datasets_is_refused(root: Path) -> None:
    """A folder that holds whole datasets is not taken for one whose classes they are."""
    save(root / "ok_front/train/9.png")
    assert recognise(root) is None
    with pytest.raises(UsageError, match="whole data sets: ok_front"):
        FolderImporter().survey(root)


@pytest.mark.parametrize("name", ["ok_front/1.txt", "ok_front/1.xml", "labels.json", "data.yaml"])
def test_label_files_mean_another_layout(root: Path, name: str) -> None:
    """Folders with label files in them are not recognised, but can be read when the importer is named."""
    (root / name).write_text("x")
    assert not FolderImporter().recognises(root)
    assert len(FolderImporter().survey(root).samples) == 4
