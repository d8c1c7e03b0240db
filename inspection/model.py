"""The model file: one ONNX with its ModelCard inside, one contract for every trainer.

Inputs ``image`` uint8 (N, H, W, C) and, for a golden-guided model, ``golden`` of the same shape.  Outputs by task:
* detect: ``boxes`` float32 (N, K, 4) xyxy pixels, ``scores`` float32 (N, K) with 0 for empty slots, ``labels`` int64 (N, K);
* classify: ``scores`` float32 (N, C), each class for itself, and ``heatmap`` float32 (N, h, w) in 0..1 over the whole image;
* anomaly: ``score`` float32 (N) and ``heatmap`` as above.
"""

import hashlib
import os
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inspection.errors import ModelError
from inspection.onnx_session import OnnxSession
from inspection.openvino import OpenVinoSession

CARD_KEY = "lineside_model_card"
Provider = Literal["cpu", "openvino", "cuda", "tensorrt"]
Task = Literal["detect", "classify", "anomaly"]
OUTPUTS: dict[Task, tuple[str, ...]] = {
    "detect": ("boxes", "scores", "labels"),
    "classify": ("scores", "heatmap"),
    "anomaly": ("score", "heatmap"),
}


class TrainedOn(BaseModel):
    """What a model has seen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(
        description="real labelled frames, injected defects over goldens, generated boards, or a mixture"
    )
    dataset: str = Field(default="", description="name of the dataset, empty when none")
    dataset_version: str = Field(default="", description="content hash of the dataset")
    groups: tuple[str, ...] = Field(default=(), description="board or part groups that were trained on")
    held_out: tuple[str, ...] = Field(default=(), description="groups that were left out, to measure on")
    images_sha256: tuple[str, ...] = Field(default=(), description="first 12 digits of the SHA-256 of each image seen")
    labelled_frames: int = Field(default=0, ge=0, description="frames whose labels were used")
    goldens: int = Field(default=0, ge=0, description="golden images that defects were injected into")


class Metric(BaseModel):
    """One measured figure with the count it rests on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    value: float
    images: int = Field(ge=0, description="number of images it was measured on")
    on: str = Field(description="what it was measured on, and whether a threshold was chosen there")


class ClassLimit(BaseModel):
    """From which score a finding of one class makes a part NG, and from which a person must look."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    defect_class: str
    ng_score: float = Field(gt=0, le=1)
    review_score: float = Field(gt=0, le=1)


class Calibration(BaseModel):
    """How `lineside calibrate` chose the limits, and what they promise: counts with exact one-sided bounds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    statement: str = Field(description="the promise, or why there is none, in one sentence; then what limits it")
    dataset: str
    dataset_version: str
    confidence: float = Field(gt=0.5, lt=1)
    counted: Literal["groups", "parts"] = Field(default="groups", description="what counts as independent")
    defective: int = Field(ge=0, description="defective parts the limits were chosen on")
    defective_units: int = Field(default=0, ge=0, description="groups or parts that the escape claim rests on")
    escapes: int = Field(ge=0, description="defective parts that passed as OK")
    escape_rate: float | None = Field(default=None, description="the escape rate that was asked for")
    escape_bound: float | None = Field(default=None, description="upper bound of the escape rate; none: no claim")
    good: int = Field(ge=0)
    good_units: int = Field(default=0, ge=0, description="groups or parts that the overkill claim rests on")
    overkill: int = Field(ge=0)
    overkill_rate: float | None = Field(
        default=None, description="the overkill rate that was asked for; none: none was"
    )
    overkill_bound: float | None = None
    review: int = Field(default=0, ge=0, description="parts in the review band")
    errors: int = Field(default=0, ge=0, description="parts that could not be judged")
    not_covered: tuple[str, ...] = Field(default=(), description="classes that no escape claim covers")


class ImageLimits(BaseModel):
    """What images the model was trained on look like: limits for the image-quality gate, in grey levels of 0..255."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_contrast: float = Field(gt=0, le=100)
    min_sharpness: float = Field(gt=0, le=250)
    min_brightness: float = Field(gt=0, le=200)
    max_brightness: float = Field(ge=50, le=255)


class ModelCard(BaseModel):
    """What a station must know of a model; stored as one JSON in the ONNX metadata."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    name: str
    task: Task
    classes: tuple[str, ...] = Field(min_length=1)
    golden_guided: bool
    channels: Literal[1, 3] = 1
    tile_px: int = Field(
        default=640, ge=64, le=4096, description="side of the square tiles a large frame is cut into, detection only"
    )
    copper: Literal["dark", "light", ""] = Field(default="", description="polarity of copper in the images, PCB only")
    threshold: float = Field(gt=0, lt=1, description="suggested score from which a finding counts")
    threshold_from: str = Field(description="what the threshold was chosen on")
    limits: tuple[ClassLimit, ...] = Field(default=(), description="limits of each class, empty: threshold for all")
    calibration: Calibration | None = Field(default=None, description="none: `lineside calibrate` was not run")
    images: ImageLimits | None = Field(default=None, description="none: the defaults of the image-quality gate")
    escape_bound: str = Field(
        default="", description="the escape bound that the threshold stands for, empty: none claimed"
    )
    trained_on: TrainedOn
    trainer: str
    trainer_licence: str
    command: str
    commit: str = ""
    seed: int
    trained_minutes: float = Field(ge=0)
    precision: Literal["fp32", "int8"] = "fp32"
    precision_note: str = Field(default="", description="why this precision: what the other one gained and cost")
    metrics: tuple[Metric, ...] = ()
    parity: str = Field(default="", description="result of the comparison of the exported file with the trained net")


class Session(Protocol):
    """What a detector needs of an inference engine: named inputs in, the named outputs out, in order."""

    def run(self, names: list[str], feed: dict[str, NDArray[np.uint8]]) -> list[Any]: ...

    def rehearse(self, names: list[str], feed: dict[str, NDArray[np.uint8]]) -> None: ...

    def interrupt(self) -> None: ...


class LoadedModel:
    """An inference session with its card and file hash.  Used by one thread at a time.

    ``provider`` and ``threads`` (CPU threads of one inference) are what it really runs on.
    """

    def __init__(
        self,
        path: Path,
        card: ModelCard,
        sha256: str,
        session: Session,
        *,
        provider: Provider = "cpu",
        threads: int = 0,
    ) -> None:
        self.path = path
        self.card = card
        self.sha256 = sha256
        self.session = session
        self.provider = provider
        self.threads = threads


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cores() -> int:
    """CPU cores this program may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_model(path: Path, *, threads: int = 0, provider: Provider = "cpu") -> LoadedModel:
    """Open a model file for inference; ModelError when it is no ONNX file or has no valid card.

    ``threads``: CPU threads for one inference, 0 for all cores this program may use.  There is no other provider to
    fall back to: what cannot run as asked is an error.
    """
    if not path.is_file():
        raise ModelError(f"there is no model file {path}", fix="check the path; `lineside train` writes model.onnx")
    count = threads or cores()
    # The contract is read by onnxruntime's CPU session also where another engine runs the model.
    opened = OnnxSession(path, processor="cpu" if provider == "openvino" else provider, threads=count)
    card = _read_card(path, opened.session)
    session: Session = OpenVinoSession(path, threads=count) if provider == "openvino" else opened
    return LoadedModel(path, card, file_sha256(path), session, provider=provider, threads=count)


def _read_card(path: Path, session: "ort.InferenceSession") -> ModelCard:
    text = session.get_modelmeta().custom_metadata_map.get(CARD_KEY)
    if text is None:
        raise ModelError(
            f"{path} has no ModelCard, so its classes and thresholds are unknown",
            fix="train the model with `lineside train`, which writes the card into the file",
        )
    try:
        card = ModelCard.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ModelError(
            f"the ModelCard of {path} is wrong at {where}: {first['msg']} ({error.error_count()} mistakes)",
            fix="export the model again with this version of lineside",
        ) from error
    _check_contract(path, card, session)
    return card


def _check_contract(path: Path, card: ModelCard, session: "ort.InferenceSession") -> None:
    inputs = {node.name: node.type for node in session.get_inputs()}
    outputs = {node.name for node in session.get_outputs()}
    wanted = {"image", "golden"} if card.golden_guided else {"image"}
    if set(inputs) != wanted or set(inputs.values()) != {"tensor(uint8)"} or outputs != set(OUTPUTS[card.task]):
        raise ModelError(
            f"{path} breaks the model contract: inputs {inputs}, outputs {sorted(outputs)}, wanted uint8 "
            f"{sorted(wanted)} and {list(OUTPUTS[card.task])}",
            fix="use a file that `lineside train` or `lineside export` wrote",
        )
