import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datasets.importers.yolo import YoloImporter
from datasets.sample import LabelledBox
from inspection.errors import UsageError
from inspection.images import write_png

YAML = "train: images/train\nval: images/val\nnames: [rust, dent]\n"


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, np.full((50, 100), len(str(path)) % 256, np.uint8))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A frame with one box in train and one in val."""
    for split in ("train", "val"):
        picture(tmp_path / "images" / split / f"{split} ä.png")
        (tmp_path / "labels" / split).mkdir(parents=True)
        (tmp_path / "labels" / split / f"{split} ä.txt").write_text("1 0.5 0.5 0.2 0.4\n")
    (tmp_path / "data.yaml").write_text(YAML)
    return tmp_path


def test_lines_are_shares_of_the_image(root: Path) -> None:
    """A line of five numbers is a box, a longer one an outline whose extent is the box."""
    (root / "labels/train/train ä.txt").write_text("0 0.5 0.5 1.001 0.4\n\n1 0.1 0.2 0.3 0.2 0.3 0.6\n")
    first, second = YoloImporter().read(root)
    outline = ((10.0, 10.0), (30.0, 10.0), (30.0, 30.0))
    assert [label.defect_class for label in first.labels] == ["rust", "dent"]
    assert first.labels[0].box_px == pytest.approx((0, 15, 100, 35))
    assert first.labels[1].box_px == pytest.approx((10, 10, 30, 30))
    assert np.allclose(first.labels[1].polygons_px, [outline])
    assert (first.split, second.split, second.name) == ("train", "val", "val ä")


@pytest.mark.parametrize(
    "text",
    [
        "names:\n  0: rust\n  1: dent\ntrain: ../images/train\nval: ../images/val\ntest: ../test/images\n",
        "path: /somewhere/else\nnames: [rust, dent]\ntrain: [images/train]\nval: images/val\n",
        "path: images\nnames: [rust, dent]\ntrain: train\nval: val\nnc: 2\n",
        "names: [rust, dent]\ntrain: train.txt\nval: images/val/\n",
    ],
    ids=["one too high", "path of another machine", "path", "list of files"],
)
def test_ways_to_name_the_images(root: Path, text: str) -> None:
    """Folders and lists are found from the YAML file, whatever machine it was written on."""
    (root / "train.txt").write_text("./images/train/train ä.png\n")
    (root / "data.yaml").write_text(text)
    samples = [(sample.split, sample.labels[0].defect_class) for sample in YoloImporter().read(root)]
    assert samples == [("train", "dent"), ("val", "dent")]


def test_split_folders_with_images_and_labels(tmp_path: Path) -> None:
    """The folders of Roboflow's export are read, and copies of one source are one group."""
    picture(tmp_path / "valid/images/a_jpg.rf.12ab.png")
    (tmp_path / "valid/labels").mkdir()
    (tmp_path / "valid/labels/a_jpg.rf.12ab.txt").write_text("0 0.5 0.5 0.5 0.5")
    (tmp_path / "data.yaml").write_text("names: ['rust']\nval: ../valid/images\n")
    (sample,) = YoloImporter().read(tmp_path)
    assert (sample.group, sample.split) == ("a", "val")
    assert sample.labels == (LabelledBox("rust", (25, 12.5, 75, 37.5)),)


def test_images_without_label_file_are_good_and_counted(root: Path) -> None:
    """A background image has no label file; that it was taken for a good part is told."""
    (root / "labels/val/val ä.txt").unlink()
    survey = YoloImporter().survey(root)
    assert [sample.defective for sample in survey.complete()] == [True, False]
    assert survey.notes == ("1 of 2 images have no label file and count as good parts",)


LABELS = Path("labels/val/val ä.txt")
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "unknown class": (lambda r: (r / LABELS).write_text("2 0.5 0.5 0.1 0.1"), "unknown class 2, known are 0 to 1"),
    "half a class": (lambda r: (r / LABELS).write_text("0.5 0.5 0.5 0.1 0.1"), "unknown class 0.5"),
    "confidence": (lambda r: (r / LABELS).write_text("1 0.5 0.5 0.1 0.1 0.9"), "got 6 numbers"),
    "words": (lambda r: (r / LABELS).write_text("rust 0.5 0.5 0.1 0.1"), "line 1: expected numbers"),
    "outside": (lambda r: (r / LABELS).write_text("\n1 0.9 0.5 0.4 0.1"), "line 2: box"),
    "pixels": (lambda r: (r / LABELS).write_text("1 50 20 10 10"), "reaches outside the 100x50 image"),
    "not finite": (lambda r: (r / LABELS).write_text("1 nan 0.5 0.1 0.1"), "non-finite"),
    "infinite outline": (lambda r: (r / LABELS).write_text("1 0 0 1 0 inf 1"), "three or more points"),
    "no width": (lambda r: (r / LABELS).write_text("1 0.5 0.5 0 0.1"), "x2 > x1"),
    "no text": (lambda r: (r / LABELS).write_bytes(b"\xff\xfe\x00"), "cannot be read as text"),
    "truncated": (lambda r: (r / "images/val/val ä.png").write_bytes(b"\x89PNG\r\n\x1a\n"), "truncated"),
    "no image": (lambda r: (r / "images/val/val ä.png").rename(r / "images/val/x.txt"), "labels without their image"),
    "list names nothing": (
        lambda r: [
            (r / "v.txt").write_text("a.png"),
            (r / "data.yaml").write_text(YAML.replace("images/val", "v.txt")),
        ],
        "names a.png, which is not there",
    ),
    "folder missing": (
        lambda r: (r / "data.yaml").write_text(YAML.replace("images/val", "none")),
        "val: there is no none",
    ),
    "folder outside": (lambda r: (r / "data.yaml").write_text(YAML.replace("images/val", "/tmp")), "there is no /tmp"),
}


@pytest.mark.parametrize("case", BAD)
def test_yolo_problem_is_listed_and_can_be_left_out(root: Path, case: str) -> None:
    """Every kind of problem names its file and costs only the image concerned."""
    spoil, text = BAD[case]
    spoil(root)
    survey = YoloImporter().survey(root)
    assert any(text in str(problem) for problem in survey.problems), survey.problems
    assert [sample.split for sample in survey.usable()] == ["train"]


def test_image_in_two_splits_is_a_problem(root: Path) -> None:
    """The same image to train and to validate with flatters, and is told."""
    (root / "data.yaml").write_text(YAML.replace("images/val", "images/train"))
    with pytest.raises(UsageError, match=r"is in 'train' and in 'val'"):
        YoloImporter().read(root)


def test_image_that_no_key_leads_to_is_told(root: Path) -> None:
    """A folder of images that the YAML file forgets is a problem, not silently less data."""
    picture(root / "images/test/z.png")
    with pytest.raises(UsageError, match=r"z\.png: lies in no folder"):
        YoloImporter().read(root)


@pytest.mark.parametrize(
    ("text", "told"),
    [("names: [a", "no valid YAML"), ("names: [a, a]", "names must list"), ("names: {1: a}", "names must list")],
)
def test_bad_yaml_is_refused(root: Path, text: str, told: str) -> None:
    """A YAML file that gives no classes says so."""
    (root / "data.yaml").write_text(text)
    with pytest.raises(UsageError, match=told):
        YoloImporter().survey(root)


def test_yaml_runs_nothing(root: Path) -> None:
    """A YAML file that asks for objects of a program is refused."""
    (root / "data.yaml").write_text("names: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(UsageError, match="no valid YAML"):
        YoloImporter().survey(root)


def test_missing_yaml_package_says_how_to_install_it(root: Path) -> None:
    """Without PyYAML reading YOLO names the extra that brings it."""
    script = (
        "import sys; sys.modules['yaml'] = None\n"
        "from pathlib import Path\n"
        "from datasets.importers.yolo import YoloImporter\n"
        "from inspection.errors import DriverMissing\n"
        f"try: YoloImporter().survey(Path({str(root)!r}))\n"
        "except DriverMissing as error: print(error.fix)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert 'pip install "lineside[data]"' in run.stdout, run.stderr
