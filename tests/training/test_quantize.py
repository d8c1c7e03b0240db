from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason='needs torch: pip install "lineside[train]"')

from inspection.model import LoadedModel, load_model  # noqa: E402
from training.quantize import quantize  # noqa: E402


@pytest.fixture(scope="module")
def pair(demo_model: LoadedModel, demo_golden: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An INT8 copy of the demo model, calibrated on four crops of its golden."""
    crops = [np.ascontiguousarray(demo_golden[y : y + 128, x : x + 128]) for x in (0, 300) for y in (100, 400)]
    target = tmp_path_factory.mktemp("int8") / "model-int8.onnx"
    quantize(demo_model.path, target, [(crop, crop) for crop in crops])
    return target


def test_copy_is_a_model_of_its_own_that_says_so(pair: Path, demo_model: LoadedModel) -> None:
    """The copy has the source's card but for name and precision, and its own hash."""
    copy = load_model(pair, threads=1)
    assert (copy.card.precision, copy.card.name) == ("int8", demo_model.card.name + "-int8")
    same = {"precision": "fp32", "name": demo_model.card.name}
    assert demo_model.card == copy.card.model_copy(update=same)
    assert copy.sha256 != demo_model.sha256


def test_copy_is_smaller_and_answers_nearly_alike(pair: Path, demo_model: LoadedModel, demo_golden: np.ndarray) -> None:
    """Eight bits take less room and move the scores of a spoilt crop by little."""
    assert pair.stat().st_size < 0.6 * demo_model.path.stat().st_size
    golden = np.ascontiguousarray(demo_golden[100:420, 100:420])[None, :, :, None]
    frame = golden.copy()
    frame[0, 150:162, 150:162] = 255 - frame[0, 150:162, 150:162]
    feed = {"image": frame, "golden": golden}
    (exact,), (rounded,) = (model.session.run(["scores"], feed) for model in (demo_model, load_model(pair, threads=1)))
    assert np.abs(np.sort(exact[0])[-3:] - np.sort(rounded[0])[-3:]).max() < 0.3


def test_nothing_else_is_left_in_the_folder(pair: Path) -> None:
    """Files of the way are removed."""
    assert [pair.name] == [path.name for path in pair.parent.iterdir()]
