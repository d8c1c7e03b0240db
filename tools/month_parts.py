"""The parts of a generated month (`tools.month`), as the texts that the record store keeps.

Most parts are OK: their text is a template, made once by ``Record.to_json``, with the numbers of the part put in.  All
others are judged by the recipe's own rules and written by ``Record.to_json`` itself.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from inspection.judge import judge
from inspection.types import Detection, Judgement, Record, Region, Trigger, Verdict
from tools.month_findings import JUDGED_ON, ROLE, Period, Seen, Shown, make_not_ok, weak_finding
from tools.month_plan import Plan, Wanted, class_weights, dirt

STAGES = ("grab", "quality", "register", "lay_over", "infer", "judge", "total")
STAGE_MS = (5.0, 1.1, 5.5, 1.1, 28.0, 0.25)
MEASURED = ("sharpness", "brightness", "contrast", "fit", "coverage", "shift_x_px", "shift_y_px", "turn_deg", "scale")
USUAL = (212.0, 165.0, 108.0, 0.993, 0.983, 0.0, 0.0, 0.0, 1.0)
SPREAD = (8.0, 2.0, 1.5, 0.002, 0.001, 5.0, 5.0, 0.5, 0.003)
OF_DIRT = (-95.0, -14.0, -22.0, -0.03, 0.0, 0.0, 0.0, 0.0, 0.0)  # what a wholly dirty lens does to them
BATCH = 20_000
WEAK_SHARE = 0.3  # of the OK parts: a finding too weak to count
_TRIGGER = '{"trigger_id": "%s", "serial": "%s", "lot": "%s", "recipe_id": "%s", "at": "%s", "sequence": %d}'
Floats = NDArray[np.float64]


class Row(NamedTuple):
    """A part as the store keeps it; ``picture``: the file of the frame it shows, "" for none."""

    row: int
    record_id: str
    trigger_id: str
    serial: str
    lot: str
    period: Period
    verdict: int
    judged_at: str
    text: str
    trigger_text: str
    accepted_at: str
    late: str = ""
    evidence: str = ""
    picture: str = ""
    false_call_odds: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class _Numbers:
    """The numbers of a batch of parts, drawn at once; each with a row a part."""

    ids: tuple[str, ...]
    hour: list[int]
    verdict: list[int]
    judged_at: list[str]
    triggered_at: list[str]
    accepted_at: list[str]
    stage_ms: list[list[float]]
    measured: list[list[float]]
    weak: list[list[float]]
    class_weights: Floats
    dirt: list[float]


def part_rows(wanted: Wanted, plan: Plan, periods: Sequence[Period], shown: Sequence[Shown]) -> Iterator[Row]:
    """All parts in the order they were judged; no more than a batch of them is in memory."""
    frames = {period.first_row: _judged_ng(shown, period) for period in periods}
    kept = min((period.first_row for period in periods if frames[period.first_row]), default=wanted.parts + 1)
    found = np.flatnonzero(plan.verdict[kept - 1 :] == Verdict.NG) + kept
    pictured = set(found[len(found) - min(wanted.pictures, len(found)) :].tolist())
    templates = {
        (period.first_row, weak): _template(period, weak=weak, lean=wanted.lean)
        for period in periods
        for weak in (True, False)
    }
    for number, begin in enumerate(range(0, wanted.parts, BATCH)):
        rng = np.random.default_rng([wanted.seed, 2, number])
        numbers = _draw(rng, plan, begin, min(begin + BATCH, wanted.parts))
        for index, verdict in enumerate(numbers.verdict):
            row = begin + index + 1
            period = next(period for period in reversed(periods) if period.first_row <= row)
            names = (_serial(plan, row), plan.lot(numbers.hour[index], wanted.since), period)
            if verdict == Verdict.OK:
                yield _ok_row(numbers, index, row, names, templates, lean=wanted.lean)
            else:
                seen = frames[period.first_row]
                yield _other_row(
                    rng, numbers, index, row, names, plan, seen[row % len(seen)] if row in pictured and seen else None
                )


def _judged_ng(shown: Sequence[Shown], period: Period) -> tuple[Shown, ...]:
    """The frames that the version of a period calls NG, as it judges them; none where that version is not kept."""
    again = (replace(one, judgement=judge(one.detections, period.rules)) for one in shown)
    return tuple(one for one in again if period.kept and one.judgement.verdict == Verdict.NG)


def _serial(plan: Plan, row: int) -> str:
    first, again = plan.planted.used_twice
    return f"PCB{first if row == again else row:08d}"


def _draw(rng: np.random.Generator, plan: Plan, begin: int, end: int) -> _Numbers:
    hour, judged_us, count = plan.hour[begin:end], plan.judged_us[begin:end], end - begin
    lens = dirt(plan.planted, hour)
    stage_ms = rng.lognormal(np.log(STAGE_MS), 0.12, (count, len(STAGE_MS)))
    stage_ms = np.round(np.column_stack((stage_ms, stage_ms.sum(axis=1) + rng.exponential(2.0, count))), 3)
    measured = rng.normal(USUAL, SPREAD, (count, len(USUAL))) + lens[:, None] * np.array(OF_DIRT)
    measured[:, 3:5] = measured[:, 3:5].clip(0, 1)
    triggered_us = judged_us - np.round(stage_ms[:, -1] * 1000).astype(np.int64)
    ids = rng.bytes(16 * count).hex()
    return _Numbers(
        ids=tuple(ids[place : place + 32] for place in range(0, 32 * count, 32)),
        hour=hour.tolist(),
        verdict=plan.verdict[begin:end].tolist(),
        judged_at=_times(judged_us),
        triggered_at=_times(triggered_us),
        accepted_at=_times(triggered_us + 1700),
        stage_ms=stage_ms.tolist(),
        measured=np.round(measured, 4).tolist(),
        weak=rng.random((count, 4)).tolist(),
        class_weights=class_weights(plan.planted, hour),
        dirt=lens.tolist(),
    )


def _times(microseconds: NDArray[np.int64]) -> list[str]:
    """ISO 8601 texts as Python writes them, which leaves a fraction of 0 out."""
    texts = np.datetime_as_string(microseconds.astype("datetime64[us]"))
    return [f"{text}+00:00".replace(".000000", "") for text in texts.tolist()]


def _ok_row(
    numbers: _Numbers, index: int, row: int, names: tuple[str, str, Period], templates: dict[tuple[int, bool], str], *, lean: bool
) -> Row:  # fmt: skip
    serial, lot, period = names
    record_id, trigger_id, judged_at = numbers.ids[index], f"line-7-{row:010d}", numbers.judged_at[index]
    share, number, x, y = numbers.weak[index]
    weak = share < WEAK_SHARE and not lean
    trigger = (trigger_id, serial, lot, period.recipe_id, numbers.triggered_at[index], row)
    text = templates[period.first_row, weak] % (
        *trigger, *(weak_finding(number, (x, y)) if weak else ()), f"{serial}.png#{row}",
        *numbers.stage_ms[index], judged_at, record_id, *(() if lean else numbers.measured[index]),
    )  # fmt: skip
    return Row(
        row, record_id, trigger_id, serial, lot, period, int(Verdict.OK), judged_at, text, _TRIGGER % trigger,
        numbers.accepted_at[index],
    )  # fmt: skip


def _other_row(
    rng: np.random.Generator, numbers: _Numbers, index: int, row: int, names: tuple[str, str, Period], plan: Plan,
    shown: Shown | None,
) -> Row:  # fmt: skip
    serial, lot, period = names
    record_id, trigger_id = numbers.ids[index], f"line-7-{row:010d}"
    trigger = (trigger_id, serial, lot, period.recipe_id, numbers.triggered_at[index], row)
    at = datetime.fromisoformat(numbers.triggered_at[index])
    seen = Seen(
        record_id, Trigger(trigger_id, serial, lot, period.recipe_id, at, row), period,
        tuple(zip(STAGES, numbers.stage_ms[index], strict=True)),
        tuple(zip((f"{ROLE}.{name}" for name in MEASURED), numbers.measured[index], strict=True)),
        tuple(numbers.class_weights[index].tolist()), numbers.dirt[index], plan.planted.hot_spot_px,
    )  # fmt: skip
    made = make_not_ok(rng, seen, Verdict(numbers.verdict[index]), shown)
    record = made.record
    return Row(
        row, record_id, trigger_id, serial, lot, period, numbers.verdict[index], record.judged_at.isoformat(),
        record.to_json(), _TRIGGER % trigger, numbers.accepted_at[index],
        made.late.to_json() if made.late else "", record.evidence, shown.file if shown and record.evidence else "",
        made.false_call_odds,
    )  # fmt: skip


def _template(period: Period, *, weak: bool, lean: bool) -> str:
    """What ``Record.to_json`` makes of an OK part, with %s and %d where the numbers of a part come."""
    marks = _Marks()
    at = datetime(2001, 1, 1, tzinfo=UTC)
    box = Region((1.5, 2.5, 3.5, 4.5))
    found = (Detection(marks.text(), 0.0, box, camera=ROLE),) if weak else ()
    record = Record(
        Trigger(marks.text(), marks.text(), marks.text(), marks.text(), at, 777_000_777), Judgement(Verdict.OK), found,
        (marks.text(),), period.recipe_sha256, period.model_sha256, "line-7", tuple((name, marks.number()) for name in STAGES),
        False, at, "", marks.text(), recipe_id=period.recipe_id,
        measured=() if lean else tuple((f"{ROLE}.{name}", marks.number()) for name in MEASURED),
        judged_on=() if lean else JUDGED_ON,
    )  # fmt: skip
    text = record.to_json().replace("%", "%%").replace(at.isoformat(), "%s").replace("777000777", "%d")
    text = text.replace('"score":0.0', '"score":%s').replace("[1.5,2.5,3.5,4.5]", "[%s,%s,%s,%s]")
    return marks.to_slots(text)


class _Marks:
    """Values that are found again in a text."""

    def __init__(self) -> None:
        self.count = 0

    def text(self) -> str:
        self.count += 1
        return f"@{self.count}@"

    def number(self) -> float:
        self.count += 1
        return 9_000_000.5 + self.count

    def to_slots(self, text: str) -> str:
        return re.sub(r"@\d+@|90000\d\d\.5", "%s", text)
