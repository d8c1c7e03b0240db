"""Recipe (what a product needs) and station config (what a machine needs), as typed TOML.

Unknown keys are refused, all mistakes are reported at once with file, key and what is allowed, and values that would
switch a check off are out of range.  Loading changes no value, opens no device and reads no network.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from inspection.cameras.folder import FolderCameraConfig
from inspection.cameras.simulated import SimulatedCameraConfig
from inspection.controllers.modbus_tcp import ModbusTcpConfig
from inspection.controllers.simulated import SimulatedControllerConfig
from inspection.errors import ConfigError
from inspection.golden import RegistrationLimits
from inspection.judge import Rule
from inspection.model import Provider
from inspection.quality import QualityLimits

CameraConfig = Annotated[FolderCameraConfig | SimulatedCameraConfig, Field(discriminator="kind")]
ControllerConfig = Annotated[ModbusTcpConfig | SimulatedControllerConfig, Field(discriminator="kind")]
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
GOLDEN_WITH_FRAME = "with-frame"
LEAST_SCORE = 0.02  # models answer with nothing below about 0.01: a lower limit would never be reached
MOST_SCORE = 0.99  # a limit above would switch the check off


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RegistrationSection(_Section):
    """Limits of the registration to the golden template."""

    max_shift_px: float = Field(default=40.0, ge=1, le=400, description="farthest shift of the part, pixels")
    max_rotate_deg: float = Field(default=3.0, ge=0.1, le=10, description="largest rotation, degrees")
    max_scale: float = Field(default=0.03, ge=0.001, le=0.1, description="largest change of scale, 0.03 = 3 %")
    min_quality: float = Field(default=0.5, ge=0.3, le=0.99, description="least correlation with the golden")
    min_coverage: float = Field(default=0.85, ge=0.5, le=1.0, description="least share of the golden in the frame")

    def limits(self) -> RegistrationLimits:
        """As the registration takes them."""
        return RegistrationLimits(**self.model_dump())


class QualitySection(_Section):
    """Limits of the image-quality gate, in grey levels of 0..255."""

    min_contrast: float = Field(default=1.0, gt=0, le=100, description="least standard deviation of the frame")
    min_sharpness: float = Field(default=12.0, gt=0, le=250, description="least slope of the sharpest edges")
    min_brightness: float = Field(default=3.0, gt=0, le=200, description="least mean grey")
    max_brightness: float = Field(default=255.0, ge=50, le=255, description="largest mean grey")

    def limits(self) -> QualityLimits:
        """As the gate takes them."""
        return QualityLimits(**self.model_dump())


class RuleSection(_Section):
    """When a finding of one class makes the part NG or sends it to review."""

    defect_class: str = Field(min_length=1, description="a class of the model")
    ng_score: float = Field(ge=LEAST_SCORE, le=MOST_SCORE, description="score from which the part is NG")
    review_score: float = Field(ge=LEAST_SCORE, le=MOST_SCORE, description="score from which a person must look")

    @model_validator(mode="after")
    def _ordered(self) -> "RuleSection":
        if self.review_score > self.ng_score:
            raise ValueError(f"review_score {self.review_score} must not exceed ng_score {self.ng_score}")
        return self

    def rule(self) -> Rule:
        """As the judge takes it."""
        return Rule(self.defect_class, self.ng_score, self.review_score)


class Recipe(_Section):
    """What one product needs: model, golden, rules, limits.  Names no device and no address."""

    schema_version: Literal[1] = Field(default=1, description="version of this file's form")
    recipe_id: str = Field(pattern=NAME, max_length=24, description="the name a controller asks for")
    product: str = Field(min_length=1, description="what is inspected, for people")
    camera: str = Field(pattern=NAME, description="role of the camera that looks at the part")
    model: str = Field(default="model.onnx", pattern=NAME, description="model file in the recipe folder")
    golden: str = Field(
        default="", pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$",
        description="golden template in the recipe folder, or with-frame: each frame of a replay brings its own",
    )  # fmt: skip
    deadline_ms: int = Field(default=2000, ge=10, le=60000, description="from trigger to verdict, milliseconds")
    registration: RegistrationSection = Field(
        default=RegistrationSection(), description="limits of the registration to the golden template"
    )
    quality: QualitySection = Field(default=QualitySection(), description="limits of the image-quality gate")
    rules: tuple[RuleSection, ...] = Field(min_length=1, description="one rule for each class of the model")

    @field_validator("rules")
    @classmethod
    def _one_rule_a_class(cls, rules: tuple[RuleSection, ...]) -> tuple[RuleSection, ...]:
        names = [rule.defect_class for rule in rules]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"more than one rule for {', '.join(twice)}")
        return rules


class EvidenceSection(_Section):
    """Where pictures of inspected parts go."""

    folder: str = Field(min_length=1, description="folder for evidence images")
    keep: Literal["all", "not-ok"] = Field(default="not-ok", description="which parts leave a picture")
    queue: int = Field(default=64, ge=1, le=10000, description="pictures that may wait for the disk")
    min_free_mb: int = Field(default=200, ge=0, description="free disk space below which no picture is written, MB")


class StationConfig(_Section):
    """What one machine needs: cameras, controller, paths.  Names no threshold."""

    schema_version: Literal[1] = Field(default=1, description="version of this file's form")
    station_id: str = Field(pattern=NAME, description="name of this station in every record")
    recipe: str = Field(min_length=1, description="folder of the sealed recipe")
    store: str = Field(min_length=1, description="SQLite file of the records")
    threads: int = Field(default=0, ge=0, le=256, description="CPU threads of the detector, 0 = all cores")
    provider: Provider = Field(default="onnxruntime", description="inference engine")
    evidence: EvidenceSection = Field(description="where pictures of inspected parts go")
    cameras: dict[Annotated[str, Field(pattern=NAME)], CameraConfig] = Field(
        min_length=1, description="one camera for each role that a recipe may name"
    )
    controller: ControllerConfig = Field(description="the line controller that triggers and is answered")


Document = TypeVar("Document", bound=_Section)


def load_recipe(path: Path) -> Recipe:
    """Read ``recipe.toml``; ConfigError listing every mistake."""
    return _load(path, Recipe)


def load_station(path: Path) -> StationConfig:
    """Read a station config; ConfigError listing every mistake.  Relative paths count from the file's folder."""
    config = _load(path, StationConfig)
    here = path.resolve().parent
    cameras = {name: _from_here(camera, here) for name, camera in config.cameras.items()}
    return config.model_copy(
        update={
            "recipe": str(here / config.recipe),
            "store": str(here / config.store),
            "evidence": config.evidence.model_copy(update={"folder": str(here / config.evidence.folder)}),
            "cameras": cameras,
        }
    )


def _from_here(camera: FolderCameraConfig | SimulatedCameraConfig, here: Path) -> CameraConfig:
    if isinstance(camera, FolderCameraConfig):
        return camera.model_copy(update={"folder": str(here / camera.folder)})
    return camera.model_copy(update={"image": str(here / camera.image)}) if camera.image else camera


def _load(path: Path, kind: type[Document]) -> Document:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path} ({error.strerror})", fix="check the path and its permissions") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}", fix="correct the line named above") from error
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        entries = error.errors()
        # Items that are wrong are not counted, so a list of them is called too short as well: that is no mistake.
        wrong = {entry["loc"][:1] for entry in entries if len(entry["loc"]) > 1}
        entries = [entry for entry in entries if entry["type"] != "too_short" or entry["loc"] not in wrong]
        mistakes = [_mistake(entry["loc"], entry["msg"], entry["type"], kind) for entry in entries]
        count = f"{len(mistakes)} mistake" + ("s" if len(mistakes) > 1 else "")
        raise ConfigError(
            f"{path} has {count}: " + "; ".join(mistakes), fix="correct every key named above; nothing was started"
        ) from error


def _mistake(loc: tuple[int | str, ...], message: str, kind: str, model: type[_Section]) -> str:
    where = ".".join(str(part) for part in loc) or "(whole file)"
    if kind == "extra_forbidden":
        known = ", ".join(sorted(model.model_fields)) if len(loc) == 1 else ""
        return f"{where}: unknown key" + (f" (known: {known})" if known else "")
    return f"{where}: {message[0].lower()}{message[1:]}"
