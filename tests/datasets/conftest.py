import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datasets.manifest import Dataset, Origin, make_dataset
from datasets.sample import LabelledBox, Sample, Split
from inspection.images import write_png

CLASSES = ("scratch", "dent")


@pytest.fixture(scope="session")
def deeppcb_root() -> Path:
    """The real DeepPCB images, where they are present."""
    shared = Path(__file__).parents[2].parent / "shared" / "data"
    root = Path(os.environ.get("LINESIDE_DATA", shared)) / "deeppcb"
    if not (root / "PCBData").is_dir():
        pytest.skip(f"needs DeepPCB in {root}; set LINESIDE_DATA to the folder that holds deeppcb/PCBData")
    return root


def picture(seed: int, height: int = 64, width: int = 80) -> np.ndarray:
    """A random coarse grey pattern, alike only to itself."""
    cells = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
    return np.ascontiguousarray(np.kron(cells, np.ones((height // 8, width // 8), np.uint8)))


@pytest.fixture
def make_sample(tmp_path: Path) -> Callable[..., Sample]:
    """Builds a sample with an image file of its own."""

    def build(
        name: str, *, image: np.ndarray | None = None, group: str = "", split: Split = "", golden: bool = False
    ) -> Sample:
        folder = tmp_path / "source"
        folder.mkdir(exist_ok=True)
        seed = int.from_bytes(name.encode(), "big") % 2**32
        write_png(folder / f"{name}.png", picture(seed) if image is None else image)
        if golden:
            write_png(folder / f"{name}_golden.png", picture(seed + 1))
        labels = (LabelledBox("scratch", (1, 2, 30, 40)), LabelledBox("dent", (5.5, 6, 20, 21)))
        golden_file = folder / f"{name}_golden.png" if golden else None
        return Sample(folder / f"{name}.png", golden_file, labels, group or name, split, name)

    return build


@pytest.fixture
def gather() -> Callable[..., Dataset]:
    """Makes a dataset of samples."""
    return lambda *samples: make_dataset("parts", samples, classes=CLASSES, origin=Origin("test", "made here"))
