"""The importers against the real castings; skipped where they are absent."""

import os
from collections import Counter
from pathlib import Path

import pytest

from datasets.importers import open_importer, recognise
from datasets.manifest import open_dataset


def real(name: str) -> Path:
    shared = Path(__file__).parents[2].parent / "shared" / "data"
    root = Path(os.environ.get("LINESIDE_DATA", shared)) / name
    if not root.is_dir():
        pytest.skip(f"needs the castings in {root}; set LINESIDE_DATA to the folder that holds {name}")
    return root


def test_all_boxes_of_the_castings_are_read() -> None:
    """The marked castings come with their 1,154 boxes, and with the split of their files."""
    dataset = open_dataset(real("casting_seg"))
    boxes = Counter(label.defect_class for sample in dataset.samples for label in sample.labels)
    assert boxes == {"chipping": 660, "deburring": 394, "holes": 100}
    assert Counter(train=220, val=18) == Counter(sample.split for sample in dataset.samples)


def test_masks_and_boxes_of_the_castings_agree() -> None:
    """Nearly all regions of the masks have just the box that COCO tells; a few regions touch by corners."""
    root = real("casting_seg")
    boxes = [
        {(sample.name, label.box_px) for sample in open_importer(name).read(root) for label in sample.labels}
        for name in ("coco", "masks")
    ]
    assert len(boxes[0] & boxes[1]) == 1125


@pytest.mark.parametrize(("part", "split"), [("casting", "train"), ("casting/train", "")])
def test_sorted_castings_are_read(part: str, split: str) -> None:
    """The folders of good and defective castings are read from train and from the folder above."""
    root = real(part)
    assert recognise(root) == "folders"
    samples = open_importer("folders").survey(root).complete()
    assert Counter({"def_front": 1700, "": 1300}) == Counter(sample.image_class for sample in samples)
    assert {sample.split for sample in samples} == {split}
