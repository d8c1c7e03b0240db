"""From a frame to a judgement: quality gate, registration, detection, judge.  Station, predict and evaluate share it."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from inspection.detector import Detector, Findings, Image, StageClock, grey_of
from inspection.errors import InspectionError
from inspection.golden import GoldenTemplate, RegistrationLimits
from inspection.judge import Rule, judge
from inspection.model import LoadedModel
from inspection.part_detector import PartDetector
from inspection.quality import QualityLimits, gate, measure
from inspection.types import Detection, Judgement, Verdict, error_judgement

AnyDetector = Detector | PartDetector
FLOOR = 0.05  # findings below this score are not kept


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found on one frame, the verdict, and how long each stage took (milliseconds).

    ``heat`` (h, w) float32 in 0..1 spans the frame where the model gives a heat map.
    """

    judgement: Judgement
    detections: tuple[Detection, ...]
    stage_ms: tuple[tuple[str, float], ...]
    heat: NDArray[np.float32] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Criteria:
    """What a frame is judged by: image-quality limits, rules, and the score floor of findings worth keeping."""

    quality: QualityLimits
    rules: tuple[Rule, ...]
    floor: float = FLOOR


def open_detector(model: LoadedModel, golden: GoldenTemplate | None, limits: RegistrationLimits) -> AnyDetector:
    """What looks at frames for this model; only a detector compares with a golden."""
    return Detector(model, golden, limits) if model.card.task == "detect" else PartDetector(model)


def inspect_frame(image: Image, detector: AnyDetector, criteria: Criteria) -> Inspection:
    """Judge a frame (H, W) or (H, W, 3) uint8.  A failure on the way is an ERROR verdict with its reason."""
    clock = StageClock()
    findings = Findings(())
    try:
        refused = gate(measure(grey_of(image)), criteria.quality)
        clock.lap("quality")
        if refused is not None:
            judgement = Judgement(Verdict.ERROR, (refused,))
        else:
            findings = detector.look(image, floor=criteria.floor, clock=clock)
            judgement = judge(findings.detections, criteria.rules)
            clock.lap("judge")
    except InspectionError as error:
        findings, judgement = Findings(()), error_verdict(error)
    return Inspection(judgement, findings.detections, tuple(clock.stages.items()), findings.heat)


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
