from pathlib import Path

import numpy as np
import pytest

from datasets.manifest import Origin, make_dataset, write_dataset
from datasets.sample import LabelledBox, Sample
from datasets.synth.boards import generate_pair
from datasets.synth.camera import CameraModel
from datasets.synth.defects import PCB_CLASSES
from inspection.images import write_png

CAMERA = CameraModel(shift_px=2, blur_px=1, edge_px=0.3, noise=4)


@pytest.fixture(scope="session")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of six small generated boards, three in each of the groups a and b."""
    torch = pytest.importorskip("torch", reason='needs torch: pip install "lineside[train]"')
    torch.set_num_threads(1)  # more threads would only wait for each other on crops this small
    folder, samples = tmp_path_factory.mktemp("boards"), []
    for number in range(6):
        pair = generate_pair(np.random.default_rng(number), None, size_px=(160, 176), defects=4, camera=CAMERA)
        for kind in ("frame", "golden"):
            write_png(folder / f"{number}_{kind}.png", getattr(pair, kind))
        labels = tuple(LabelledBox(defect.defect_class, defect.box_px) for defect in pair.defects)
        golden = folder / f"{number}_golden.png"
        samples.append(Sample(folder / f"{number}_frame.png", golden, labels, "ab"[number % 2], "", f"{number}"))
    made = make_dataset("boards", samples, classes=PCB_CLASSES, origin=Origin("test", "made here"))
    write_dataset(folder / "dataset", made)
    return folder / "dataset"
