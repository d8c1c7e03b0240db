"""The words of the runtime as frozen types.  Standard library and numpy only; imported by all, imports none.

Coordinates are full-frame pixels everywhere: origin top-left, x right, y down, boxes ``x1, y1, x2, y2`` half-open
(width = x2 - x1).  Times are timezone-aware UTC.
"""

import json
import math
import uuid
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
FoundBy = Literal["model", "golden", "anomaly"]
Disposition = Literal["confirmed", "false_call", "escape", "unsure"]
RECORD_SCHEMA = 4
MEASURING_SCHEMA = 3  # from which on records hold what was measured of the frames


def utc_now() -> datetime:
    """The current time, timezone-aware, in UTC."""
    return datetime.now(UTC)


def new_id() -> str:
    """A fresh identifier (32 hex digits)."""
    return uuid.uuid4().hex


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _utc(at: datetime, name: str) -> None:
    _require(at.tzinfo is not None, f"{name} must carry a time zone, got {at!r}")


class Verdict(IntEnum):
    """Outcome for one part; the numbers of OPC 40001-101 ResultEvaluation, so a dead register reads ERROR."""

    ERROR = 0
    OK = 1
    NG = 2
    REVIEW = 3


@dataclass(frozen=True, slots=True)
class Trigger:
    """One request by the line controller to inspect one part.  ``sequence`` is the controller's own number for it."""

    trigger_id: str
    serial: str
    lot: str
    recipe_id: str
    at: datetime
    sequence: int = 0

    def __post_init__(self) -> None:
        _require(bool(self.trigger_id), "trigger_id is empty")
        _utc(self.at, "at")


@dataclass(frozen=True, slots=True)
class PrepareRecipe:
    """A controller's request to have a recipe at hand, so that the change to it costs no part its deadline."""

    recipe_id: str


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One exposed image, ``(H, W)`` or ``(H, W, 3)`` RGB uint8, read-only.  Made only by a camera.

    ``raw`` is what the sensor gave, (H, W) uint8 or uint16, where ``image`` holds less than that: pixels of more than
    eight bits, or a Bayer mosaic.  ``golden`` (H, W) uint8 only when frames that are replayed bring their golden
    templates along.
    """

    image: NDArray[np.uint8]
    camera_id: str
    captured_at: datetime
    frame_id: str
    simulated: bool
    golden: NDArray[np.uint8] | None = None
    raw: NDArray[np.uint8] | NDArray[np.uint16] | None = None

    def __post_init__(self) -> None:
        shape = self.image.shape
        _require(self.image.dtype == np.uint8, f"image must be uint8, got {self.image.dtype}")
        _require(
            len(shape) == 2 or (len(shape) == 3 and shape[2] == 3), f"image must be (H, W) or (H, W, 3), got {shape}"
        )
        _require(shape[0] > 0 and shape[1] > 0, f"image is empty, shape {shape}")
        _utc(self.captured_at, "captured_at")
        self.image.flags.writeable = False


@dataclass(frozen=True, slots=True)
class Region:
    """Where something is, in full-frame pixels."""

    xyxy_px: Box
    polygon_px: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        x1, y1, x2, y2 = self.xyxy_px
        _require(all(math.isfinite(v) for v in self.xyxy_px), f"box has a non-finite side: {self.xyxy_px}")
        _require(x2 > x1 and y2 > y1, f"box must have x2 > x1 and y2 > y1, got {self.xyxy_px}")

    @property
    def area_px(self) -> float:
        """Area of the box in square pixels."""
        x1, y1, x2, y2 = self.xyxy_px
        return (x2 - x1) * (y2 - y1)


@dataclass(frozen=True, slots=True)
class Detection:
    """One finding on the frame of one ``camera`` (its role).  Never made from a failure."""

    defect_class: str
    score: float
    region: Region
    roi_id: str = ""
    found_by: FoundBy = "model"
    camera: str = ""

    def __post_init__(self) -> None:
        _require(bool(self.defect_class), "defect_class is empty")
        _require(0.0 <= self.score <= 1.0, f"score must lie in 0..1, got {self.score}")


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a part is not OK: the rule, a sentence for the operator, the findings it rests on."""

    rule_id: str
    text: str
    detections: tuple[Detection, ...] = ()

    def __post_init__(self) -> None:
        _require(bool(self.rule_id) and bool(self.text), "a reason needs a rule_id and a text")


@dataclass(frozen=True, slots=True)
class Judgement:
    """Verdict with its reasons; every verdict but OK has at least one."""

    verdict: Verdict
    reasons: tuple[Reason, ...] = ()

    def __post_init__(self) -> None:
        _require(self.verdict == Verdict.OK or bool(self.reasons), f"verdict {self.verdict.name} needs a reason")
        _require(self.verdict != Verdict.OK or not self.reasons, "verdict OK must have no reason")


def error_judgement(rule_id: str, text: str) -> Judgement:
    """The ERROR verdict with its one reason."""
    return Judgement(Verdict.ERROR, (Reason(rule_id, text),))


@dataclass(frozen=True, slots=True)
class LateResult:
    """What a part would have been judged, had the deadline not passed: its controller was told ERROR by then."""

    judgement: Judgement
    detections: tuple[Detection, ...]
    stage_ms: tuple[tuple[str, float], ...]
    judged_at: datetime
    frame_ids: tuple[str, ...] = ()
    evidence: str = ""

    def __post_init__(self) -> None:
        _utc(self.judged_at, "judged_at")

    def to_json(self) -> str:
        """One line of JSON; ``from_json`` gives it back unchanged."""
        return json.dumps(_late_document(self), ensure_ascii=False, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> "LateResult":
        """Read what ``to_json`` wrote; ValueError or KeyError when it is something else."""
        return _late(json.loads(text))


@dataclass(frozen=True, slots=True)
class Record:
    """Everything that is kept of one trigger: stored, answered and reported in this one form.

    ``recipe_id`` is the recipe that judged, ``read_serial`` what was read from the frame where the recipe asks for that,
    ``late`` the true result of a part that missed its deadline.  ``measured`` is what was measured of the frames, as
    ``ROLE.QUANTITY`` (``inspect_frame.measured_of``); records before schema 3 have none.  ``judged_on`` are the versions,
    the processor and the settings outside the recipe that it was judged with (``judged_on.judged_on``), from schema 4 on.
    """

    trigger: Trigger
    judgement: Judgement
    detections: tuple[Detection, ...]
    frame_ids: tuple[str, ...]
    recipe_sha256: str
    model_sha256: str
    station_id: str
    stage_ms: tuple[tuple[str, float], ...]
    simulated: bool
    judged_at: datetime
    evidence: str = ""
    record_id: str = field(default_factory=new_id)
    schema: int = RECORD_SCHEMA
    recipe_id: str = ""
    read_serial: str = ""
    late: LateResult | None = None
    measured: tuple[tuple[str, float], ...] = ()
    judged_on: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        _utc(self.judged_at, "judged_at")

    @property
    def serial(self) -> str:
        """The part's serial: what was read from the frame, or else what the controller gave."""
        return self.read_serial or self.trigger.serial

    @property
    def total_ms(self) -> float:
        """Milliseconds from the trigger to the verdict, by a clock that nobody sets; 0 where nothing was inspected."""
        return dict(self.stage_ms).get("total", 0.0)

    def to_json(self) -> str:
        """The record as one line of JSON; ``from_json`` gives it back unchanged."""
        document = asdict(self)
        document["trigger"]["at"] = self.trigger.at.isoformat()
        document["judged_at"] = self.judged_at.isoformat()
        document["judgement"]["verdict"] = self.judgement.verdict.name
        document["stage_ms"] = dict(self.stage_ms)
        document["measured"] = dict(self.measured)
        document["judged_on"] = dict(self.judged_on)
        document["late"] = None if self.late is None else _late_document(self.late)
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> "Record":
        """Read what ``to_json`` wrote, by this version or an earlier one; ValueError or KeyError for anything else."""
        document = json.loads(text)
        known = range(1, RECORD_SCHEMA + 1)
        _require(document["schema"] in known, f"record schema {document['schema']} is not 1..{RECORD_SCHEMA}")
        trigger = {**document["trigger"], "at": datetime.fromisoformat(document["trigger"]["at"])}
        late = document.get("late")
        return Record(
            **{
                **document,
                "trigger": Trigger(**trigger),
                "judgement": _judgement(document["judgement"]),
                "detections": _detections(document["detections"]),
                "late": None if late is None else _late(late),
                "frame_ids": tuple(document["frame_ids"]),
                "stage_ms": tuple(document["stage_ms"].items()),
                "measured": tuple(document.get("measured", {}).items()),
                "judged_on": tuple((name, str(value)) for name, value in document.get("judged_on", {}).items()),
                "judged_at": datetime.fromisoformat(document["judged_at"]),
            }
        )


def _judgement(row: dict[str, Any]) -> Judgement:
    reasons = tuple(Reason(r["rule_id"], r["text"], _detections(r["detections"])) for r in row["reasons"])
    return Judgement(Verdict[row["verdict"]], reasons)


def _late_document(late: LateResult) -> dict[str, Any]:
    document = asdict(late)
    document["judgement"]["verdict"] = late.judgement.verdict.name
    document["stage_ms"] = dict(late.stage_ms)
    document["judged_at"] = late.judged_at.isoformat()
    return document


def _late(row: dict[str, Any]) -> LateResult:
    return LateResult(
        _judgement(row["judgement"]),
        _detections(row["detections"]),
        tuple(row["stage_ms"].items()),
        datetime.fromisoformat(row["judged_at"]),
        tuple(row["frame_ids"]),
        row["evidence"],
    )


def _detections(rows: list[dict[str, Any]]) -> tuple[Detection, ...]:
    return tuple(Detection(**{**row, "region": _region(row["region"])}) for row in rows)


def _region(row: dict[str, Any]) -> Region:
    x1, y1, x2, y2 = row["xyxy_px"]
    return Region((x1, y1, x2, y2), tuple((x, y) for x, y in row["polygon_px"]))


@dataclass(frozen=True, slots=True)
class Review:
    """A person's disposition of a record; appended, never edits the record.

    ``confirmed``: the verdict is right.  ``false_call``: the part is good, though the verdict was NG or REVIEW.
    ``escape``: the part is defective, though the verdict was OK.  ``unsure``: somebody else should look.
    """

    record_id: str
    disposition: Disposition
    reviewer: str
    at: datetime
    comment: str = ""

    def __post_init__(self) -> None:
        _utc(self.at, "at")
