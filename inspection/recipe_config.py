"""``recipe.toml``, typed: what one product needs.  Names no device and no address.

One table for each camera that looks at the part: its model, its golden template, its limits, regions and rules.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from inspection.errors import ConfigError
from inspection.golden import RegistrationLimits
from inspection.judge import Rule
from inspection.quality import QualityLimits
from inspection.rois import Roi, RoiKind, is_simple
from inspection.serials import SerialSection
from inspection.toml_file import NAME, Section, checked, read_toml

GOLDEN_WITH_FRAME = "with-frame"
LEAST_SCORE = 0.02  # models answer with nothing below about 0.01: a lower limit would never be reached
MOST_SCORE = 0.99  # a limit above would switch the check off
ROLE = NAME
RAW, GOLDEN = "_raw", "_golden"  # how pictures that are kept beside the frame of a camera are called after its role
MOST_VIEWS = 16
_OLD_KEYS = ("camera", "model", "golden", "registration", "quality", "rules")  # at the top of a file of schema 1
Pixel = Annotated[float, Field(ge=-100_000, le=100_000, allow_inf_nan=False)]


class RegistrationSection(Section):
    """Limits of the registration to the golden template."""

    max_shift_px: float = Field(default=40.0, ge=1, le=400, description="farthest shift of the part, pixels")
    max_rotate_deg: float = Field(default=3.0, ge=0.1, le=10, description="largest rotation, degrees")
    max_scale: float = Field(default=0.03, ge=0.001, le=0.1, description="largest change of scale, 0.03 = 3 %")
    min_quality: float = Field(default=0.5, ge=0.3, le=0.99, description="least correlation with the golden")
    min_coverage: float = Field(default=0.85, ge=0.5, le=1.0, description="least share of the golden in the frame")

    def limits(self) -> RegistrationLimits:
        """As the registration takes them."""
        return RegistrationLimits(**self.model_dump())


class QualitySection(Section):
    """Limits of the image-quality gate, in grey levels of 0..255."""

    min_contrast: float = Field(default=1.0, gt=0, le=100, description="least standard deviation of the frame")
    min_sharpness: float = Field(default=12.0, gt=0, le=250, description="least slope of the sharpest edges")
    min_brightness: float = Field(default=3.0, gt=0, le=200, description="least mean grey")
    max_brightness: float = Field(default=255.0, ge=50, le=255, description="largest mean grey")

    def limits(self) -> QualityLimits:
        """As the gate takes them."""
        return QualityLimits(**self.model_dump())


class RoiSection(Section):
    """A region of interest, drawn on the golden template (on the frame where there is none) and moved with the part."""

    id: str = Field(pattern=NAME, max_length=32, description="the name that rules and records use")
    kind: RoiKind = Field(
        default="inspect", description="inspect: has rules of its own; keep_out: findings wholly inside do not count"
    )
    box_px: tuple[Pixel, Pixel, Pixel, Pixel] | None = Field(
        default=None, description="x1, y1, x2, y2 in pixels of the golden; this or polygon_px"
    )
    polygon_px: tuple[tuple[Pixel, Pixel], ...] | None = Field(
        default=None, min_length=3, max_length=100, description="corners x, y in pixels of the golden, in order"
    )

    @model_validator(mode="after")
    def _drawn(self) -> "RoiSection":
        if (self.box_px is None) == (self.polygon_px is None):
            raise ValueError("give either box_px or polygon_px")
        if self.box_px is not None and not (self.box_px[0] < self.box_px[2] and self.box_px[1] < self.box_px[3]):
            raise ValueError(f"box_px must have x2 > x1 and y2 > y1, got {list(self.box_px)}")
        if self.polygon_px is not None and not is_simple(self.polygon_px):
            raise ValueError("polygon_px must enclose an area, and its sides must not cross")
        return self

    def roi(self) -> Roi:
        """As the judge takes it."""
        if self.polygon_px is not None:
            return Roi(self.id, self.kind, self.polygon_px)
        x1, y1, x2, y2 = self.box_px or (0, 0, 0, 0)
        return Roi(self.id, self.kind, ((x1, y1), (x2, y1), (x2, y2), (x1, y2)))


class RuleSection(Section):
    """When findings of one class make the part NG or send it to review."""

    defect_class: str = Field(min_length=1, description="a class of the model")
    roi: str = Field(
        default="", max_length=32, description="id of the region it holds for; empty = wherever no region has a rule"
    )
    ng_score: float = Field(ge=LEAST_SCORE, le=MOST_SCORE, description="score from which the part is NG")
    review_score: float = Field(ge=LEAST_SCORE, le=MOST_SCORE, description="score from which a person must look")
    min_area_mm2: float = Field(
        default=0.0, ge=0, le=10_000, description="findings whose box is smaller do not count, square millimetres"
    )
    allowed_count: int = Field(default=0, ge=0, le=1000, description="so many findings are tolerated")
    edge_mm: float = Field(
        default=0.0, ge=0, le=100,
        description="only with a region: nearer than this to its outline, millimetres, every finding counts, "
        "whatever its area and the allowed count",
    )  # fmt: skip

    @model_validator(mode="after")
    def _ordered(self) -> "RuleSection":
        if self.review_score > self.ng_score:
            raise ValueError(f"review_score {self.review_score} must not exceed ng_score {self.ng_score}")
        if self.edge_mm and not self.roi:
            raise ValueError("edge_mm needs a region: name it with roi")
        return self

    def rule(self) -> Rule:
        """As the judge takes it."""
        return Rule(**self.model_dump())


class ViewSection(Section):
    """What one camera's frames are judged by."""

    model: str = Field(default="model.onnx", pattern=NAME, description="model file in the recipe folder")
    golden: str = Field(
        default="", pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$",
        description="golden template in the recipe folder, or with-frame: each frame of a replay brings its own",
    )  # fmt: skip
    registration: RegistrationSection = Field(
        default=RegistrationSection(), description="limits of the registration to the golden template"
    )
    quality: QualitySection = Field(default=QualitySection(), description="limits of the image-quality gate")
    rois: tuple[RoiSection, ...] = Field(default=(), max_length=100, description="regions with rules of their own")
    rules: tuple[RuleSection, ...] = Field(
        min_length=1, description="one rule for each class of the model, and further ones for regions"
    )

    @field_validator("rois")
    @classmethod
    def _one_id_a_roi(cls, rois: tuple[RoiSection, ...]) -> tuple[RoiSection, ...]:
        twice = _twice(roi.id for roi in rois)
        if twice:
            raise ValueError(f"more than one region is called {', '.join(twice)}")
        return rois

    @field_validator("rules")
    @classmethod
    def _one_rule_a_class(cls, rules: tuple[RuleSection, ...]) -> tuple[RuleSection, ...]:
        twice = _twice(rule.defect_class + (f" in {rule.roi}" if rule.roi else "") for rule in rules)
        if twice:
            raise ValueError(f"more than one rule for {', '.join(twice)}")
        general = {rule.defect_class for rule in rules if not rule.roi}
        missing = sorted({rule.defect_class for rule in rules} - general)
        if missing:
            raise ValueError(f"no general rule (one without roi) for {', '.join(missing)}")
        return rules

    @model_validator(mode="after")
    def _rules_name_regions(self) -> "ViewSection":
        kinds = {roi.id: roi.kind for roi in self.rois}
        wrong = sorted({rule.roi for rule in self.rules if rule.roi and kinds.get(rule.roi) != "inspect"})
        if wrong:
            raise ValueError(f"rules name {', '.join(wrong)}, and no region of kind inspect has this id")
        return self

    @property
    def beyond_scores(self) -> tuple[str, ...]:
        """What may let a finding pass that reaches the limits of its class, in words: what is promised of limits by
        scores alone does not hold for a view that has any of this."""
        found = [f"the rule for {rule.defect_class} in region {rule.roi}" for rule in self.rules if rule.roi]
        found += [f"min_area_mm2 of {rule.defect_class}" for rule in self.rules if not rule.roi and rule.min_area_mm2]
        found += [f"allowed_count of {rule.defect_class}" for rule in self.rules if not rule.roi and rule.allowed_count]
        return (*found, *(f"the keep-out {roi.id}" for roi in self.rois if roi.kind == "keep_out"))


class Recipe(Section):
    """What one product needs: for each camera model, golden, regions, rules, limits.  Names no device and no address."""

    schema_version: Literal[2] = Field(default=2, description="version of this file's form")
    recipe_id: str = Field(pattern=NAME, max_length=24, description="the name a controller asks for")
    product: str = Field(min_length=1, description="what is inspected, for people")
    deadline_ms: int = Field(default=2000, ge=10, le=60000, description="from trigger to verdict, milliseconds")
    serial: SerialSection = Field(default=SerialSection(), description="where the serial of a part comes from")
    views: dict[Annotated[str, Field(pattern=ROLE, max_length=32)], ViewSection] = Field(
        min_length=1, max_length=MOST_VIEWS, description="one table for the role of each camera that looks at the part"
    )

    @model_validator(mode="after")
    def _serial_is_seen(self) -> "Recipe":
        if self.serial.camera and self.serial.camera not in self.views:
            raise ValueError(f"serial.camera is {self.serial.camera!r}, and the views are {', '.join(self.views)}")
        return self

    @model_validator(mode="after")
    def _pictures_have_names(self) -> "Recipe":
        beside = sorted({f"{role}{end}" for role in self.views for end in (RAW, GOLDEN)} & set(self.views))
        if beside:
            raise ValueError(f"the pictures of view {', '.join(beside)} would have the names of another view's")
        return self


def _twice(names: Iterable[str]) -> list[str]:
    listed = list(names)
    return sorted({name for name in listed if listed.count(name) > 1})


def load_recipe(path: Path) -> Recipe:
    """Read ``recipe.toml``; ConfigError listing every mistake."""
    document = read_toml(path)
    if "views" not in document and (document.get("schema_version") == 1 or "camera" in document):
        old = ", ".join(key for key in _OLD_KEYS if key in document)
        role = document.get("camera", "top")
        raise ConfigError(
            f"{path} has the form of schema 1: one camera, with its keys at the top ({old})",
            fix="make it anew with `lineside recipe new RECIPE --model MODEL [--golden FILE] --selftest IMAGES...`, or write "
            f"schema_version = 2, move these keys (camera alone goes) into [views.{role}] ([[rules]] becomes "
            f"[[views.{role}.rules]]), and seal it again",
        )
    return checked(path, document, Recipe)
