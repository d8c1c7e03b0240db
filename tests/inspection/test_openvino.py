import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datasets.synth.boards import generate_pair
from datasets.synth.camera import CameraModel
from inspection.detector import Detector
from inspection.errors import ModelError
from inspection.golden import GoldenTemplate, RegistrationLimits
from inspection.inspect_frame import inspect_frame
from inspection.model import LoadedModel, load_model
from inspection.openvino import OpenVinoSession
from inspection.predict import card_criteria
from inspection.types import Verdict

INSTALL = 'needs OpenVINO: pip install "lineside[openvino]"'
MOVING = CameraModel(shift_px=10, rotate_deg=1, scale=0.01)


@pytest.fixture(scope="module")
def model(demo_recipe: Path) -> LoadedModel:
    pytest.importorskip("openvino", reason=INSTALL)
    return load_model(demo_recipe / "model.onnx", threads=1, provider="openvino")


def test_both_engines_give_the_same_verdicts(
    model: LoadedModel, demo_model: LoadedModel, demo_golden: np.ndarray
) -> None:
    """On generated boards, good and bad, no verdict flips and no score moves by more than rounding."""
    golden, seen = GoldenTemplate(demo_golden), set()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        frame = generate_pair(rng, demo_golden, defects=(0, 1, 4)[seed % 3], camera=MOVING).frame
        one, other = (
            inspect_frame(frame, Detector(engine, golden, RegistrationLimits()), card_criteria(engine))
            for engine in (model, demo_model)
        )
        assert one.judgement.verdict == other.judgement.verdict
        scores = [[found.score for found in result.detections if found.score > 0.1] for result in (one, other)]
        np.testing.assert_allclose(scores[0], scores[1], atol=1e-3)
        seen.add(one.judgement.verdict)
    assert Verdict.NG in seen
    assert len(seen) > 1


@pytest.mark.parametrize("side", [64, 336, 640])
def test_any_tile_size_can_be_asked_for(model: LoadedModel, demo_model: LoadedModel, side: int) -> None:
    """One compiled model takes every size, and answers with arrays of its own."""
    image = np.random.default_rng(1).integers(0, 256, (1, side, side, 1), dtype=np.uint8)
    feed = {"image": image, "golden": np.ascontiguousarray(image[:, ::-1])}
    names = ["scores", "boxes"]
    (scores, boxes), (wanted, _) = model.session.run(names, feed), demo_model.session.run(names, feed)
    np.testing.assert_allclose(wanted, scores, atol=1e-3)
    kept = boxes.copy()
    model.session.run(names, {"image": image, "golden": image})
    np.testing.assert_array_equal(kept, boxes)


def test_file_that_openvino_cannot_load_is_a_model_error(tmp_path: Path) -> None:
    """A broken file is refused with a way out."""
    pytest.importorskip("openvino", reason=INSTALL)
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match="OpenVINO cannot load"):
        OpenVinoSession(tmp_path / "model.onnx")


def test_without_openvino_the_install_line_is_told(demo_recipe: Path, root: Path) -> None:
    """A station without the package is told what to install; nothing else is run in its place."""
    program = (
        "import sys; sys.modules['openvino'] = None\n"
        "from pathlib import Path\n"
        "from inspection.errors import DriverMissing\n"
        "from inspection.model import load_model\n"
        "try:\n"
        "    load_model(Path(sys.argv[1]), provider='openvino')\n"
        "except DriverMissing as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", program, str(demo_recipe / "model.onnx")]
    answer = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert 'pip install "lineside[openvino]"' in answer.stdout
