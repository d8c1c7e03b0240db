"""What happens in a generated month (`tools.month`): when each part is judged, with which verdict, and what is planted.

Everything follows from the seed.  Row numbers count from 1, as in the record store.
"""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inspection.errors import UsageError
from inspection.types import Verdict

CLASSES = ("open", "short", "mousebite", "spur", "copper", "pin-hole")
CLASS_WEIGHTS = (0.16, 0.24, 0.20, 0.20, 0.12, 0.08)
DRIFTING, OF_DIRT, HOT = CLASSES.index("mousebite"), CLASSES.index("pin-hole"), CLASSES.index("short")
DRIFT, DIRT = 8.0, 4.0  # how many times as often a class is found while it drifts, and behind a dirty lens
HOUR_US = 3_600_000_000
LOT_HOURS = 4
Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the month is to hold.  ``pictures``: of how many of the last NG parts; ``lean``: short records."""

    parts: int
    ng: int
    reviews: int
    seed: int = 1
    days: int = 30
    since: datetime = datetime(2026, 10, 1, tzinfo=UTC)
    pictures: int = 0
    lean: bool = False

    def __post_init__(self) -> None:
        if self.parts < 12 or self.days < 1 or min(self.ng, self.reviews, self.pictures) < 0:
            raise UsageError(
                f"{self.parts} parts in {self.days} days, {self.ng} of them NG",
                fix="give 12 parts or more, a day or more, and no number below 0",
            )
        if self.ng + self.review + self.error > self.parts - 2:
            raise UsageError(f"{self.ng} NG parts are too many for {self.parts} parts", fix="give a smaller --ng")

    @property
    def review(self) -> int:
        """How many parts are to be REVIEW."""
        return self.ng // 6

    @property
    def error(self) -> int:
        """How many parts are to be ERROR."""
        return max(2, self.parts // 2000)


@dataclass(frozen=True, slots=True)
class Planted:
    """Where the planted events are: row numbers, and hours since the month began, both with their end not in them."""

    used_twice: tuple[int, int]  # two parts with one serial
    model_change_row: int  # from here another model and another recipe version
    recipe_change_row: int  # from here another recipe version
    drift_hours: tuple[int, int]  # mousebites everywhere
    dirty_hours: tuple[int, int]  # the lens gets dirtier and dirtier, then it is cleaned
    set_back_rows: tuple[int, int]  # the clock shows an hour less
    hot_spot_px: tuple[float, float]  # on the golden: where most shorts lie

    def document(self) -> dict[str, Any]:
        """For planted.json."""
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Of each part the microsecond (of the Unix epoch, by the station's clock) it was judged, its hour since the month
    began by the true clock, and its verdict."""

    judged_us: Numbers
    hour: Numbers
    verdict: NDArray[np.int8]
    planted: Planted

    def lot(self, hour: int, since: datetime) -> str:
        """The lot that runs in an hour of the month."""
        begin = since + timedelta(hours=hour - hour % LOT_HOURS)
        return f"LOT-{begin:%Y%m%d}-{begin.hour // LOT_HOURS + 1}"


def make_plan(wanted: Wanted) -> Plan:
    """The month of this seed."""
    rng = np.random.default_rng([wanted.seed, 1])
    hours = wanted.days * 24
    hour = np.repeat(np.arange(hours), _parts_an_hour(wanted, hours))
    begin_us = int(wanted.since.timestamp()) * 1_000_000
    place = np.sort(hour + rng.random(wanted.parts))  # in hours
    judged_us = begin_us + (place * HOUR_US).astype(np.int64)
    hour = np.minimum(place.astype(np.int64), hours - 1)
    planted = _planted(wanted, hours, hour)
    first, end = planted.set_back_rows
    judged_us[first - 1 : end - 1] -= HOUR_US
    judged_us += judged_us % 1_000_000 == 0  # a time without a fraction would be written in another form
    return Plan(judged_us, hour, _verdicts(wanted, rng, hour, planted), planted)


def _parts_an_hour(wanted: Wanted, hours: int) -> Numbers:
    """Slower at night, in breaks and on Sundays; exactly as many parts in all as wanted."""
    pace = np.ones(hours)
    for hour in range(hours):
        now = wanted.since + timedelta(hours=hour)
        pace[hour] *= 0.7 if now.hour >= 22 or now.hour < 6 else 1.0
        pace[hour] *= 0.75 if now.hour % 8 == 2 else 1.0
        pace[hour] *= 0.5 if now.weekday() == 6 else 1.0
    until = np.round(np.cumsum(pace) / pace.sum() * wanted.parts).astype(np.int64)
    return np.diff(until, prepend=0)


def _planted(wanted: Wanted, hours: int, hour: Numbers) -> Planted:
    back_h = int(hours * 0.6) // 24 * 24 + min(10, hours - 8)
    drift_h = int(hours * 0.8) // 24 * 24 + min(6, hours - 16)
    dirty_h = int(hours * 0.4) // 24 * 24
    rows = np.searchsorted(hour, (back_h, back_h + 5)) + 1
    return Planted(
        used_twice=(wanted.parts // 4, wanted.parts // 2),
        model_change_row=wanted.parts // 3 + 1,
        recipe_change_row=2 * wanted.parts // 3 + 1,
        drift_hours=(drift_h, min(drift_h + 16, hours)),
        dirty_hours=(dirty_h, min(dirty_h + 72, hours)),
        set_back_rows=(int(rows[0]), int(rows[1])),
        hot_spot_px=(412.0, 236.0),
    )


def dirt(planted: Planted, hour: Numbers) -> NDArray[np.float64]:
    """How dirty the lens is in each of these hours, 0..1."""
    first, end = planted.dirty_hours
    rising = (hour - first + 1) / (end - first)
    return np.where((hour >= first) & (hour < end), rising, 0.0)


def class_weights(planted: Planted, hour: Numbers) -> NDArray[np.float64]:
    """How often each class is found in each of these hours, (N, classes); 1 in all in an ordinary hour by day."""
    weights = np.tile(CLASS_WEIGHTS, (len(hour), 1))
    first, end = planted.drift_hours
    weights[:, DRIFTING] *= np.where((hour >= first) & (hour < end), DRIFT, 1.0)
    weights[:, OF_DIRT] *= 1 + DIRT * dirt(planted, hour)
    return weights


def _verdicts(wanted: Wanted, rng: np.random.Generator, hour: Numbers, planted: Planted) -> NDArray[np.int8]:
    """Exactly as many of each as wanted, drawn without repetition by the weights of the hours."""
    hours = np.arange(wanted.days * 24)
    by_day = (hours + wanted.since.hour) % 24
    of_hour = class_weights(planted, hours).sum(axis=1)
    of_hour *= np.where((by_day >= 22) | (by_day < 6), 1.15, 1.0) * np.where(by_day % 8 == 6, 1.3, 1.0)
    lens = dirt(planted, hours)
    verdict = np.full(wanted.parts, Verdict.OK, dtype=np.int8)
    for value, count, weights in (
        (Verdict.NG, wanted.ng, of_hour),
        (Verdict.REVIEW, wanted.review, of_hour * (1 + 2 * lens)),
        (Verdict.ERROR, wanted.error, 1 + 10 * lens),
    ):
        if count:
            waits = rng.exponential(size=wanted.parts) / weights[hour]
            waits[verdict != Verdict.OK] = np.inf
            waits[[row - 1 for row in planted.used_twice]] = np.inf  # so that these stay what they are at any size
            verdict[np.argpartition(waits, count - 1)[:count]] = value
    return verdict
