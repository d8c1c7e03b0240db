"""From a frame to a judgement: quality gate, registration, detection, judge.  Station, predict and evaluate share it."""

from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from inspection.detector import Detector, Findings, Image, StageClock, grey_of
from inspection.errors import ConfigError, InspectionError
from inspection.golden import GoldenTemplate, Registration, RegistrationLimits, register
from inspection.judge import Ground, Rule, judge, settle
from inspection.model import LoadedModel
from inspection.part_detector import PartDetector
from inspection.quality import FrameQuality, QualityLimits, gate, measure
from inspection.rois import Roi, layout_faults
from inspection.types import Detection, Judgement, Verdict, error_judgement

AnyDetector = Detector | PartDetector
FLOOR = 0.05  # findings below this score are not kept


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found on one frame, the verdict, and how long each stage took (milliseconds).

    ``heat`` (h, w) float32 in 0..1 spans the frame where the model gives a heat map.  ``quality`` and ``registration``
    are what was measured on the way, as far as it went; ``measured`` is the same for the record of a part, by camera role.
    """

    judgement: Judgement
    detections: tuple[Detection, ...]
    stage_ms: tuple[tuple[str, float], ...]
    heat: NDArray[np.float32] | None = field(default=None, compare=False)
    quality: FrameQuality | None = field(default=None, compare=False)
    registration: Registration | None = field(default=None, compare=False)
    measured: tuple[tuple[str, float], ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Criteria:
    """What a frame is judged by: image-quality limits, rules, the score floor of findings worth keeping, regions in pixels
    of the golden (of the frame where there is none), and millimetres per pixel where rules need them."""

    quality: QualityLimits
    rules: tuple[Rule, ...]
    floor: float = FLOOR
    rois: tuple[Roi, ...] = ()
    mm_per_px: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Anchor:
    """What carries regions to where the part lies, for a model that does not compare with a golden itself."""

    golden: GoldenTemplate
    limits: RegistrationLimits


def open_detector(model: LoadedModel, golden: GoldenTemplate | None, limits: RegistrationLimits) -> AnyDetector:
    """What looks at frames for this model; only a detector compares with a golden."""
    return Detector(model, golden, limits) if model.card.task == "detect" else PartDetector(model)


def inspect_frame(image: Image, detector: AnyDetector, criteria: Criteria, anchor: Anchor | None = None) -> Inspection:
    """Judge a frame (H, W) or (H, W, 3) uint8.  A failure on the way is an ERROR verdict with its reason."""
    clock = StageClock()
    findings, registration, quality = Findings(()), None, None
    try:
        grey = grey_of(image)
        quality = measure(grey)
        refused = gate(quality, criteria.quality)
        clock.lap("quality")
        if refused is not None:
            judgement = Judgement(Verdict.ERROR, (refused,))
        else:
            findings = detector.look(image, floor=criteria.floor, clock=clock)
            registration = findings.registration
            if registration is None and criteria.rois and anchor is not None:
                registration = register(grey, anchor.golden, anchor.limits)
                clock.lap("register")
            ground = _ground(criteria, registration, image.shape[:2])
            findings = replace(findings, detections=settle(findings.detections, criteria.rules, ground))
            judgement = judge(findings.detections, criteria.rules, ground)
            clock.lap("judge")
    except InspectionError as error:
        findings, judgement = Findings(()), error_verdict(error)
    stages = tuple(clock.stages.items())
    return Inspection(judgement, findings.detections, stages, findings.heat, quality, registration)


def measured_of(role: str, seen: Inspection, golden: tuple[int, int] | None) -> tuple[tuple[str, float], ...]:
    """What was measured of a camera's frame, as ``ROLE.QUANTITY``, rounded to four decimals; ``golden``: height and width.

    ``sharpness``, ``brightness``, ``contrast`` in grey levels (``FrameQuality``); where a golden was laid over the frame its
    ``fit`` and ``coverage`` (``Registration``), how far its centre lies from where it would lie unmoved (``shift_x_px``,
    ``shift_y_px``), by how much it is turned (``turn_deg``, positive from x towards y), and its ``scale``.
    """
    found: dict[str, float] = {}
    if seen.quality is not None:
        quality = seen.quality
        found |= {"sharpness": quality.sharpness, "brightness": quality.brightness, "contrast": quality.contrast}
    if seen.registration is not None and golden is not None:
        matrix, (height, width) = seen.registration.matrix, golden
        centre = np.array((width / 2, height / 2))
        shift = matrix[:, :2] @ centre + matrix[:, 2] - centre
        along_x = matrix[:, 0]
        found |= {
            "fit": seen.registration.quality, "coverage": seen.registration.coverage,
            "shift_x_px": float(shift[0]), "shift_y_px": float(shift[1]),
            "turn_deg": float(np.degrees(np.arctan2(along_x[1], along_x[0]))), "scale": float(np.hypot(*along_x)),
        }  # fmt: skip
    return tuple((f"{role}.{name}", round(float(value), 4)) for name, value in found.items())


def _ground(criteria: Criteria, registration: Registration | None, shape: tuple[int, int]) -> Ground:
    """The regions where they lie on this frame."""
    faults = faults_of_layout(criteria.rois, shape)
    if faults:
        raise ConfigError(
            "; ".join(faults), fix="draw the regions on a frame of this camera, and seal the recipe again"
        )
    matrix = None if registration is None else registration.matrix
    return Ground(tuple(roi.moved(matrix) for roi in criteria.rois), criteria.mm_per_px)


faults_of_layout = lru_cache(maxsize=64)(layout_faults)  # the same for every frame of a camera


RULE_OF_ERROR = {
    "RegistrationError": "golden.registration",
    "ModelError": "detector.failed",
    "CameraTimeout": "camera.timeout",
    "FrameCorrupt": "camera.corrupt",
    "CameraError": "camera.failed",
    "StoreError": "store.failed",
}


def error_verdict(error: InspectionError) -> Judgement:
    """The ERROR verdict of a failure; its rule id is fixed by the kind of error, for the controller's reason code."""
    rule_id = RULE_OF_ERROR.get(type(error).__name__, "station.failed")
    return error_judgement(rule_id, f"{error.what}; {error.fix}")
