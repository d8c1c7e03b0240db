from pathlib import Path

import pytest

from datasets.sample import LabelledBox, Sample, load_grey
from inspection.errors import UsageError


@pytest.mark.parametrize(
    "box",
    [(5, 5, 5, 9), (5, 5, 9, 5), (9, 5, 5, 9), (0, 0, float("nan"), 4), (0, 0, float("inf"), 4), (1, 2, 3)],
    ids=["no width", "no height", "turned round", "nan", "infinite", "three sides"],
)
def test_degenerate_box_cannot_exist(box: tuple[float, float, float, float]) -> None:
    """A box without area or with a side that is no number is refused."""
    with pytest.raises(ValueError, match="box"):
        LabelledBox("open", box)


def test_label_needs_a_class() -> None:
    """A box without a class is refused."""
    with pytest.raises(ValueError, match="defect_class"):
        LabelledBox("", (0, 0, 1, 1))


@pytest.mark.parametrize(
    ("box", "inside"),
    [((0, 0, 8, 6), True), ((0, 0, 8.5, 6), False), ((-0.1, 0, 1, 1), False), ((0, 0, 1, 6.1), False)],
)
def test_box_may_touch_the_border(box: tuple[float, float, float, float], inside: bool) -> None:
    """Boxes are half-open, so one as large as the image lies inside it."""
    assert inside == LabelledBox("open", box).inside(8, 6)


@pytest.mark.parametrize(
    ("group", "split", "name"), [("", "", "a"), ("g", "training", "a"), ("g", "", " ")], ids=["group", "split", "name"]
)
def test_incomplete_sample_cannot_exist(group: str, split: str, name: str) -> None:
    """A sample without group or name, or with an unknown split, is refused."""
    with pytest.raises(ValueError):
        Sample(Path("a.png"), None, (), group, split, name)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "polygon",
    [(), ((0, 0), (1, 1)), ((0, 0), (1, 1), (2,)), ((0, 0), (1, 1), (2, float("nan")))],
    ids=["no point", "two points", "half a point", "not finite"],
)
def test_degenerate_polygon_cannot_exist(polygon: tuple[tuple[float, float], ...]) -> None:
    """An outline of fewer than three points, or with a point that is none, is refused."""
    with pytest.raises(ValueError, match="polygon"):
        LabelledBox("open", (0, 0, 4, 4), (polygon,))


BOX = LabelledBox("dent", (0, 0, 1, 1))


@pytest.mark.parametrize(
    ("labels", "image_class", "expected"),
    [((), "", set()), ((BOX,), "", {"dent"}), ((), "rust", {"rust"}), ((BOX,), "rust", {"dent", "rust"})],
    ids=["good part", "box", "whole image", "both"],
)
def test_box_or_image_class_makes_a_part_defective(
    labels: tuple[LabelledBox, ...], image_class: str, expected: set[str]
) -> None:
    """A part is good only when neither a box nor the class of the image speaks against it."""
    sample = Sample(Path("a.png"), None, labels, "g", "", "a", image_class)
    assert (sample.defective, sample.defect_classes) == (bool(expected), expected)


def test_blank_image_class_cannot_exist() -> None:
    """A class of blanks names nothing."""
    with pytest.raises(ValueError, match="image_class"):
        Sample(Path("a.png"), None, (), "g", "", "a", " ")


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff\xe0\x00\x10JFIF", b"hello"], ids=["empty", "cut", "text"])
def test_bad_image_of_a_dataset_is_a_usage_error(tmp_path: Path, content: bytes) -> None:
    """An image of a dataset that cannot be read says which file and what to do."""
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UsageError, match=r"a\.jpg") as caught:
        load_grey(tmp_path / "a.jpg")
    assert caught.value.fix
