"""The importer against DeepPCB's own files; skipped where they are absent."""

from collections import Counter
from pathlib import Path

import pytest

from datasets.check import check
from datasets.manifest import Dataset, open_dataset
from datasets.split import split_by_group


@pytest.fixture(scope="module")
def dataset(deeppcb_root: Path) -> Dataset:
    return open_dataset(deeppcb_root)


def test_every_pair_is_read(dataset: Dataset) -> None:
    """All 1,000 pairs of the training split come with golden and labels."""
    assert len(dataset.samples) == 1000
    assert {sample.split for sample in dataset.samples} == {"train"}
    assert all(sample.golden and sample.labels for sample in dataset.samples)


def test_boxes_are_counted_as_published(dataset: Dataset) -> None:
    """The boxes per class are those in the label files."""
    boxes = Counter(label.defect_class for sample in dataset.samples for label in sample.labels)
    assert boxes == {"open": 1283, "short": 1028, "mousebite": 1379, "spur": 1142, "copper": 1010, "pin-hole": 1031}


def test_groups_are_the_boards(dataset: Dataset) -> None:
    """There are seven board groups."""
    assert len({sample.group for sample in dataset.samples}) == 7


def test_leaving_a_board_out_leaks_nothing(dataset: Dataset) -> None:
    """A split by board group has no finding: nothing on one side looks like anything on the other."""
    assert check(split_by_group(dataset, ["group20085"])) == ()
