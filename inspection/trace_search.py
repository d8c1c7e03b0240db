"""Forward and back: all parts of a lot, all with a defect at a place, all that a model or a recipe judged.

Counts are exact; lists hold the newest parts up to a limit.
"""

import json
import math
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from inspection.golden_place import on_golden
from inspection.record_reader import MOST
from inspection.trace import Tracer
from inspection.trace_queries import ChangePoint, Line, NotOk, Tally
from inspection.types import Verdict

END = "~"  # sorts after every time
MOST_NAMED = 40  # cameras or regions that are named


@dataclass(frozen=True, slots=True)
class DefectSearch:
    """Parts that are not OK because of a class, judged from ``since`` and before ``until`` (None: up to now).

    ``at`` with ``within_px`` is a place on the golden.
    """

    defect_class: str
    since: datetime
    until: datetime | None = None
    roi: str = ""
    camera: str = ""
    at: tuple[float, float] | None = None
    within_px: float = 20.0


@dataclass(frozen=True, slots=True)
class Spot:
    """A part in a list, with the place of its first finding that was asked for: on the golden, or else on the frame.

    ``assumed``: by the golden of the version in force, for want of the version that judged.
    """

    line: Line
    place_px: tuple[float, float]
    on_golden: bool
    score: float
    assumed: bool = False


@dataclass(frozen=True, slots=True)
class Period:
    """A run of parts that one recipe and one model judged."""

    point: ChangePoint
    last_row: int
    tally: Tally


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found: how many parts in all, by the columns of the store, and the newest of them, checked.

    ``spots`` go with ``lines`` where a defect was asked for.  ``uncorrected`` of the parts were compared where the finding
    lay on the frame, for want of how the golden lay; ``unreadable`` records could not be read.  ``slow``: the store is of an
    earlier schema, so all of it was read.  ``assumed`` of the spots are so.  ``cameras`` and ``rois`` are where the class was
    found in that time at all.
    """

    tally: Tally
    lines: tuple[Line, ...]
    spots: tuple[Spot, ...] = ()
    periods: tuple[Period, ...] = ()
    uncorrected: int = 0
    unreadable: int = 0
    slow: bool = False
    known: tuple[str, ...] = ()
    assumed: int = 0
    cameras: tuple[str, ...] = ()
    rois: tuple[str, ...] = ()

    @property
    def unsound(self) -> tuple[Line, ...]:
        """Those of the lines that are not as they were written or cannot be read."""
        return tuple(line for line in self.lines if not line.sound)


def find_lot(tracer: Tracer, lot: str, limit: int) -> Found:
    """All parts of a lot."""
    tally = tracer.queries.tally_of_lot(lot)
    lines: list[Line] = []
    while len(lines) < limit:
        before = lines[-1].rowid if lines else 2**63 - 1
        more = tracer.queries.of_lot(lot, min(limit - len(lines), MOST), before=before)
        if not more:
            break
        lines += more
    return Found(tally, tracer.checked(lines))


def find_defect(tracer: Tracer, search: DefectSearch, limit: int) -> Found:
    """All parts with a defect, newest last; findings that the verdict does not rest on are left out."""
    holding = json.dumps(search.defect_class, ensure_ascii=False)
    since = search.since.astimezone(UTC).isoformat()
    until = END if search.until is None else search.until.astimezone(UTC).isoformat()
    newest: deque[Spot] = deque(maxlen=limit)
    counts: Counter[Verdict] = Counter()
    times: list[datetime] = []
    uncorrected = unreadable = assumed = 0
    seen = _Seen()
    after = ("", 0)
    while rows := tracer.queries.not_ok(since, until, after, MOST, holding=holding):
        for row in rows:
            try:
                spot = _spot(tracer, search, row, seen)
            except (ValueError, KeyError, TypeError, AttributeError):
                unreadable += 1
                continue
            if spot is not None:
                newest.append(spot)
                counts[row.line.verdict] += 1
                uncorrected += search.at is not None and not spot.on_golden
                assumed += spot.assumed
                times = [min([*times[:1], row.line.judged_at]), max([*times[1:], row.line.judged_at])]
        after = (rows[-1].judged_at, rows[-1].line.rowid)
    lines = tracer.checked([spot.line for spot in reversed(newest)])
    spots = tuple(replace(spot, line=line) for spot, line in zip(reversed(newest), lines, strict=True))
    return Found(
        Tally(dict(counts), *times), lines, spots, uncorrected=uncorrected,
        unreadable=unreadable, slow=not tracer.queries.has_chain(), known=_classes(tracer), assumed=assumed,
        cameras=tuple(sorted(seen.cameras)), rois=tuple(sorted(seen.rois)),
    )  # fmt: skip


@dataclass(slots=True)
class _Seen:
    """By which cameras and in which regions a class was found; not more names than can be listed."""

    cameras: set[str] = field(default_factory=set)
    rois: set[str] = field(default_factory=set)

    def add(self, camera: str, roi: str) -> None:
        for names, name in ((self.cameras, camera), (self.rois, roi)):
            if name and len(names) < MOST_NAMED:
                names.add(name)


def _spot(tracer: Tracer, search: DefectSearch, row: NotOk, seen: _Seen) -> Spot | None:
    """Where the part has the defect; None when it has it nowhere that was asked for."""
    record = json.loads(row.text)
    told = [(record, record.get("measured") or {})]
    if row.late is not None:
        told.append((json.loads(row.late), {}))
    for document, measured in told:
        for reason in document["judgement"]["reasons"]:
            for one in reason["detections"]:
                if one["defect_class"] == search.defect_class:
                    seen.add(one.get("camera", ""), one["roi_id"])
                spot = _fitting(tracer, search, row, one, (record, measured))
                if spot is not None:
                    return spot
    return None


def _fitting(
    tracer: Tracer, search: DefectSearch, row: NotOk, one: dict[str, Any], of: tuple[dict[str, Any], dict[str, float]]
) -> Spot | None:
    camera = one.get("camera", "")
    wrong_place = (search.roi and one["roi_id"] != search.roi) or (search.camera and camera != search.camera)
    if one["defect_class"] != search.defect_class or wrong_place:
        return None
    record, measured = of
    box = one["region"]["xyxy_px"]
    recipe_id = record.get("recipe_id") or record["trigger"]["recipe_id"]
    sha256 = record["recipe_sha256"]
    place = on_golden(box, measured, camera, tracer.golden_size(recipe_id, sha256, camera))
    there = place or ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    if search.at is not None and math.dist(there, search.at) > search.within_px:
        return None
    line = replace(row.line, simulated=bool(record.get("simulated")))
    assumed = place is not None and not tracer.versions.of(recipe_id, sha256).folder
    return Spot(line, there, place is not None, float(one["score"]), assumed)


def _classes(tracer: Tracer) -> tuple[str, ...]:
    """The classes that the version in force has rules for."""
    return tuple(dict.fromkeys(limits.defect_class for limits in tracer.versions.in_force().limits))


def find_judged_by(tracer: Tracer, limit: int, *, model: str = "", recipe: str = "") -> Found:
    """All parts that a model or a recipe version judged, by the beginning of its SHA-256; or all of a recipe, by its id.

    ``known`` lists the SHA-256 that begin so when there is not exactly one, or when none does all there are, those of recipes
    after the ids.
    """
    queries = tracer.queries
    slow = not queries.has_chain()
    points = queries.change_points_by_reading() if slow else queries.change_points()
    begins = (model or recipe).lower()
    named = [_hashes(point, of_model=bool(model)) for point in points]
    all_of_them = tuple(sorted({name for names in named for name in names if name}))
    fitting = tuple(name for name in all_of_them if name.startswith(begins))
    ids = () if model else tuple(sorted({point.recipe_id for point in points if point.recipe_id}))
    if recipe in ids:
        named, fitting = [(point.recipe_id,) for point in points], (recipe,)
    if len(fitting) != 1:
        return Found(Tally({}), (), slow=slow, known=fitting or (*ids, *all_of_them))
    ends = [point.first_row - 1 for point in points[1:]] + [queries.last_row()]
    periods = tuple(
        Period(point, last, queries.tally_between(point.first_row, last))
        for point, last, names in zip(points, ends, named, strict=True)
        if fitting[0] in names
    )
    lines: list[Line] = []
    for period in reversed(periods):
        lines += _newest(tracer, period, limit - len(lines))
    return Found(
        _joined([period.tally for period in periods]), tracer.checked(lines), periods=periods, slow=slow, known=fitting
    )


def _newest(tracer: Tracer, period: Period, limit: int) -> list[Line]:
    lines: list[Line] = []
    last = period.last_row
    while len(lines) < limit and (
        more := tracer.queries.between(period.point.first_row, last, min(limit - len(lines), MOST))
    ):
        lines += more
        last = more[-1].rowid - 1
    return lines


def _hashes(point: ChangePoint, *, of_model: bool) -> tuple[str, ...]:
    """What judged from a change point on; a recipe of several cameras has several models."""
    return tuple(point.model_sha256.split(",")) if of_model else (point.recipe_sha256,)


def _joined(tallies: list[Tally]) -> Tally:
    counts: Counter[Verdict] = Counter()
    for tally in tallies:
        counts.update(tally.counts)
    firsts = [tally.first for tally in tallies if tally.first]
    lasts = [tally.last for tally in tallies if tally.last]
    return Tally(dict(counts), min(firsts, default=None), max(lasts, default=None))
