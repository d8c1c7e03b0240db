"""The parts of a generated month (`tools.month`) that are not OK: findings with places and scores, and what came late."""

import math
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from inspection.judge import Rule, judge
from inspection.types import (
    Detection,
    Judgement,
    LateResult,
    Record,
    Region,
    Trigger,
    Verdict,
    error_judgement,
)
from tools.month_plan import CLASSES, HOT, OF_DIRT

ROLE = "top"
JUDGED_ON = (
    ("lineside", "0.0"), ("onnxruntime", "1.20.0"), ("opencv", "4.10.0"), ("processor", "a made-up processor @ 2 GHz"),
    ("provider", "cpu"), ("threads", "2"),
)  # fmt: skip
SIDE_PX = 640  # of the demo's golden, which is square
HOT_SHARE, HOT_SPREAD_PX = 0.7, 6.0
DEADLINE_MS = 1000
FALSE_CALLS, FALSE_CALLS_OF_REVIEW = 0.12, 0.5


@dataclass(frozen=True, slots=True)
class Period:
    """What judges from a row on."""

    first_row: int
    recipe_id: str
    recipe_sha256: str
    model_sha256: str
    rules: tuple[Rule, ...]
    kept: bool = True  # whether its version lies beside the store, so that a part can be judged again


@dataclass(frozen=True, slots=True)
class Shown:
    """What the recipe really says of the frame in a file, for parts with pictures."""

    file: str
    judgement: Judgement
    detections: tuple[Detection, ...]
    measured: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """The numbers of one part before it is judged; ``class_weights`` and ``dirt`` are those of its hour."""

    record_id: str
    trigger: Trigger
    period: Period
    stage_ms: tuple[tuple[str, float], ...]
    measured: tuple[tuple[str, float], ...]
    class_weights: tuple[float, ...]
    dirt: float
    hot_spot_px: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Made:
    """A record, what came late, and how likely a person calls it a false call."""

    record: Record
    late: LateResult | None
    false_call_odds: float


def make_not_ok(rng: np.random.Generator, seen: Seen, verdict: Verdict, shown: Shown | None) -> Made:
    """A part that is NG, REVIEW or ERROR; with ``shown`` an NG part is what is seen on that frame."""
    if verdict == Verdict.ERROR:
        return _error(rng, seen)
    found = _findings(rng, seen, verdict)
    judgement, measured = judge(found, seen.period.rules), seen.measured
    if shown is not None and verdict == Verdict.NG:
        found, judgement, measured = shown.detections, shown.judgement, shown.measured
    day = seen.trigger.at.date().isoformat()
    evidence = "" if shown is None else f"{day}/{seen.trigger.lot}/{seen.record_id}"
    odds = FALSE_CALLS if verdict == Verdict.NG else FALSE_CALLS_OF_REVIEW
    if found[0].defect_class == CLASSES[OF_DIRT]:
        odds += 0.45 * seen.dirt
    return Made(_record(seen, judgement, found, measured=measured, evidence=evidence), None, odds)


def _error(rng: np.random.Generator, seen: Seen) -> Made:
    weights = np.array((0.3 + 10 * seen.dirt, 1.0, 0.7, 1.0))
    kind = int(rng.choice(4, p=weights / weights.sum()))
    if kind == 3:
        return _too_late(rng, seen)
    judgement = (
        error_judgement("quality.sharpness", "sharpness 52 is below 60: check focus and vibration"),
        error_judgement("camera.timeout", "camera 'top' gave no frame in 500 ms; check the trigger cable"),
        error_judgement(
            "golden.registration", "the golden does not fit: fit 0.31 is below 0.60; check the part's place"
        ),
    )[kind]
    total = ("total", dict(seen.stage_ms)["total"])
    blurred = tuple((name, 52.0 if name.endswith("sharpness") else value) for name, value in seen.measured[:3])
    frames = kind != 1
    return Made(
        _record(seen, judgement, (), measured=blurred if frames else (), stage_ms=(total,), frames=frames), None, 0.0
    )


def _too_late(rng: np.random.Generator, seen: Seen) -> Made:
    """Answered ERROR when its deadline passed; the true result came a little later."""
    judgement = error_judgement("station.deadline", f"no result within the deadline of {DEADLINE_MS} ms")
    record = _record(seen, judgement, (), measured=(), stage_ms=(("total", float(DEADLINE_MS)),), frames=False)
    bad = rng.random() < 0.2
    found = _findings(rng, seen, Verdict.NG) if bad else ()
    at = record.judged_at + timedelta(milliseconds=80)
    stages = (*seen.stage_ms[:-1], ("total", DEADLINE_MS + 80.0))
    late = LateResult(judge(found, seen.period.rules), found, stages, at, (f"{seen.trigger.serial}.png",))
    return Made(record, late, 0.0)


def _record(
    seen: Seen, judgement: Judgement, found: tuple[Detection, ...], *, measured: tuple[tuple[str, float], ...],
    evidence: str = "", stage_ms: tuple[tuple[str, float], ...] = (), frames: bool = True,
) -> Record:  # fmt: skip
    return Record(
        trigger=seen.trigger,
        judgement=judgement,
        detections=found,
        frame_ids=(f"{seen.trigger.serial}.png#{seen.trigger.sequence}",) if frames else (),
        recipe_sha256=seen.period.recipe_sha256,
        model_sha256=seen.period.model_sha256,
        station_id="line-7",
        stage_ms=stage_ms or seen.stage_ms,
        simulated=False,
        judged_at=seen.trigger.at + timedelta(milliseconds=dict(seen.stage_ms)["total"]),  # in order, whatever is told
        evidence=evidence,
        record_id=seen.record_id,
        recipe_id=seen.period.recipe_id,
        measured=measured,
        judged_on=JUDGED_ON,
    )


def _findings(rng: np.random.Generator, seen: Seen, verdict: Verdict) -> tuple[Detection, ...]:
    """One to three findings with a score that asks for the verdict, best first, and up to two too weak to count."""
    rule_of = {rule.defect_class: rule for rule in seen.period.rules}
    weights = np.array(seen.class_weights) / sum(seen.class_weights)
    found = []
    for _ in range(int(rng.choice((1, 2, 3), p=(0.75, 0.18, 0.07)))):
        rule = rule_of[CLASSES[int(rng.choice(len(CLASSES), p=weights))]]
        low, high = (rule.ng_score, 1.0) if verdict == Verdict.NG else (rule.review_score, rule.ng_score)
        found.append(_finding(rng, seen, rule.defect_class, low + (high - low) * rng.beta(2.0, 1.3) * 0.999))
    found.sort(key=lambda one: -one.score)
    for _ in range(int(rng.integers(3))):
        found.append(_finding(rng, seen, str(rng.choice(CLASSES)), rng.uniform(0.05, 0.2)))
    return tuple(found)


def _finding(rng: np.random.Generator, seen: Seen, defect_class: str, score: float) -> Detection:
    x, y = rng.uniform(40, SIDE_PX - 40, 2)
    if defect_class == CLASSES[HOT] and rng.random() < HOT_SHARE:
        x, y = rng.normal(seen.hot_spot_px, HOT_SPREAD_PX)
    x, y = _on_frame((x, y), {name.removeprefix(f"{ROLE}."): value for name, value in seen.measured})
    width, height = rng.uniform(14, 50, 2) / 2
    box = tuple(round(float(side), 3) for side in (x - width, y - height, x + width, y + height))
    return Detection(defect_class, round(float(score), 6), Region(box), camera=ROLE)  # type: ignore[arg-type]


def _on_frame(place: tuple[float, float], measured: dict[str, float]) -> tuple[float, float]:
    """Where a place on the golden lies on the frame."""
    angle, scale = math.radians(measured["turn_deg"]), measured["scale"]
    x, y = place[0] - SIDE_PX / 2, place[1] - SIDE_PX / 2
    return (
        SIDE_PX / 2 + measured["shift_x_px"] + scale * (math.cos(angle) * x - math.sin(angle) * y),
        SIDE_PX / 2 + measured["shift_y_px"] + scale * (math.sin(angle) * x + math.cos(angle) * y),
    )


def weak_finding(number: float, places: tuple[float, float]) -> tuple[str, float, float, float, float, float]:
    """Class, score and box of a finding too weak to count, of numbers in 0..1."""
    x, y = (round(40 + 540 * place, 3) for place in places)
    return CLASSES[int(number * 6)], round(0.05 + number * 0.15, 6), x, y, x + 30.5, y + 28.25
