import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from inspection.detector import Detector, StageClock
from inspection.errors import ModelError
from inspection.golden import RegistrationLimits
from inspection.inspect_frame import inspect_frame
from inspection.model import CARD_KEY, LoadedModel, ModelCard, TrainedOn, file_sha256, load_model
from inspection.predict import card_criteria
from inspection.types import Verdict

onnx = pytest.importorskip("onnx", reason='needs onnx: pip install "lineside[train]"')
CARD = ModelCard(
    name="fixed", task="detect", classes=("open", "short"), golden_guided=False, tile_px=640, threshold=0.5,
    threshold_from="nothing", trained_on=TrainedOn(source="nothing"), trainer="none", trainer_licence="Apache-2.0",
    command="", seed=1, trained_minutes=0,
)  # fmt: skip
FRAME = np.kron(np.random.default_rng(1).integers(0, 256, (32, 32)), np.ones((8, 8))).astype(np.uint8)
Build = Callable[..., Path]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Writes a small model that always answers with the same findings."""

    def write(
        card: str | None = CARD.model_dump_json(), *, inputs: tuple[str, ...] = ("image",), kind: str = "UINT8",
        outputs: tuple[str, ...] = ("boxes", "scores", "labels"), score: float = 0.9, label: int = 1,
    ) -> Path:  # fmt: skip
        helper, types = onnx.helper, onnx.TensorProto
        values = {
            "boxes": np.array([[[10, 10, 30, 40]]], np.float32),
            "scores": np.array([[score]], np.float32),
            "labels": np.array([[label]], np.int64),
        }
        nodes = [
            helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(values[name]))
            for name in outputs
        ]
        ends = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(values[name].dtype), values[name].shape)
                for name in outputs]  # fmt: skip
        starts = [helper.make_tensor_value_info(name, getattr(types, kind), ["n", "h", "w", 1]) for name in inputs]
        graph = helper.make_graph(nodes, "fixed", starts, ends)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        if card is not None:
            helper.set_model_props(model, {CARD_KEY: card})
        path = tmp_path / "fixed.onnx"
        onnx.save(model, str(path))
        return path

    return write


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as refused:
        load_model(path, threads=1)
    assert refused.value.fix
    return refused.value.what


def detect(path: Path) -> tuple[object, ...]:
    detector = Detector(load_model(path, threads=1), None, RegistrationLimits())
    return detector.look(FRAME, floor=0.05, clock=StageClock()).detections


def test_demo_model_brings_its_card(demo_model: LoadedModel) -> None:
    """The shipped model says what it is, and its hash is that of its file."""
    assert demo_model.card.golden_guided
    assert demo_model.card.trained_on.source
    assert demo_model.sha256 == file_sha256(demo_model.path)


def test_model_with_card_is_loaded(build: Build) -> None:
    """Card, hash and findings of a model come through."""
    path = build()
    assert CARD == load_model(path).card
    (found,) = detect(path)
    assert (found.defect_class, round(found.score, 3), found.region.xyxy_px) == ("short", 0.9, (10, 10, 30, 40))


def test_missing_file_is_named(tmp_path: Path) -> None:
    """A path without a file is an error with the path, and so is a folder."""
    assert str(tmp_path / "none.onnx") in refusal(tmp_path / "none.onnx")
    assert "there is no model file" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x89PNG\r\n\x1a\n" + bytes(100)])
def test_file_that_is_no_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    """A text, a picture and an empty file are no models."""
    (tmp_path / "model.onnx").write_bytes(content)
    assert "is not a readable ONNX model" in refusal(tmp_path / "model.onnx")


def test_truncated_model_is_refused(demo_model: LoadedModel, tmp_path: Path) -> None:
    """A model whose copy was interrupted is not run."""
    content = demo_model.path.read_bytes()
    (tmp_path / "model.onnx").write_bytes(content[: len(content) // 2])
    assert "is not a readable ONNX model" in refusal(tmp_path / "model.onnx")


def test_model_without_card_is_refused(build: Build) -> None:
    """Without a card classes and thresholds would be guesses."""
    assert "has no ModelCard" in refusal(build(None))


def with_card(**changes: object) -> str:
    document = {**CARD.model_dump(mode="json"), **changes}
    return json.dumps({key: value for key, value in document.items() if value is not ...})


@pytest.mark.parametrize(
    ("card", "where"),
    [
        (with_card(colour="red"), "colour"),
        (with_card(trained_on={"source": "x", "weather": "fine"}), "trained_on.weather"),
        (with_card(classes=[]), "classes"),
        (with_card(threshold=0), "threshold"),
        (with_card(threshold=1), "threshold"),
        (with_card(tile_px=8), "tile_px"),
        (with_card(task="segment"), "task"),
        (with_card(schema_version=2), "schema_version"),
        (with_card(seed=...), "seed"),
        ("no json", ""),
    ],
)
def test_card_that_is_wrong_is_refused(build: Build, card: str, where: str) -> None:
    """Unknown keys, missing keys and values out of range are named."""
    assert f"wrong at {where}:" in refusal(build(card))


@pytest.mark.parametrize(
    "broken",
    [
        {"inputs": ("picture",)},
        {"inputs": ("image", "golden")},
        {"kind": "FLOAT"},
        {"outputs": ("boxes", "scores")},
    ],
)
def test_model_that_breaks_the_contract_is_refused(build: Build, broken: dict[str, object]) -> None:
    """Other inputs, outputs or types than the contract's are refused at loading."""
    assert "breaks the model contract" in refusal(build(**broken))


def test_golden_guided_card_needs_a_golden_input(build: Build) -> None:
    """A card that promises to compare with a golden, and a net that cannot, do not go together."""
    assert "breaks the model contract" in refusal(build(with_card(golden_guided=True)))


@pytest.mark.parametrize("label", [2, -1])
def test_class_beyond_the_card_is_an_error(build: Build, label: int) -> None:
    """A class number without a name is a failure, neither a crash nor another class."""
    path = build(label=label)
    with pytest.raises(ModelError, match="class beyond the 2"):
        detect(path)


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_answer_that_is_no_number_is_an_error_verdict(build: Build, score: float) -> None:
    """A model that answers with NaN gives ERROR, never OK."""
    model = load_model(build(score=score), threads=1)
    seen = inspect_frame(FRAME, Detector(model, None, RegistrationLimits()), card_criteria(model))
    assert seen.judgement.verdict == Verdict.ERROR
    assert seen.judgement.reasons[0].rule_id == "detector.failed"
    assert "not finite" in seen.judgement.reasons[0].text


def test_inference_that_fails_is_an_error_verdict(build: Build) -> None:
    """A frame that the model cannot take gives ERROR with the library's own words."""
    model = load_model(build(with_card(channels=3)), threads=1)
    colour = np.repeat(FRAME[:, :, None], 3, 2)
    seen = inspect_frame(colour, Detector(model, None, RegistrationLimits()), card_criteria(model))
    assert seen.judgement.verdict == Verdict.ERROR
    assert "inference failed on a 256x256 px image" in seen.judgement.reasons[0].text


@pytest.mark.parametrize("tile_px", [64, 128])
def test_small_tiles_still_see_the_whole_frame(build: Build, tile_px: int) -> None:
    """A model with small tiles looks at every part of the frame: one finding a tile here, all over it."""
    found = detect(build(with_card(tile_px=tile_px)))
    ends = np.array([one.region.xyxy_px for one in found])
    assert len(found) > 1
    assert ends[:, 2:].max() > 256 - tile_px


def test_card_of_a_session_is_what_was_stored(demo_model: LoadedModel) -> None:
    """The card lies in the ONNX file itself, so that it cannot get lost."""
    stored = ort.InferenceSession(str(demo_model.path), providers=["CPUExecutionProvider"]).get_modelmeta()
    assert ModelCard.model_validate_json(stored.custom_metadata_map[CARD_KEY]) == demo_model.card
