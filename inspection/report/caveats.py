"""What a report cannot claim, and why: said on top of it, not in a footnote."""

from collections.abc import Iterator, Sequence

import polars as pl

from inspection.report.contents import (
    Baseline,
    CameraChange,
    Caveat,
    ChartView,
    EscapeView,
    GalleryItem,
    HealthChart,
    MapView,
    Totals,
    Values,
)
from inspection.report.evidence_here import EvidenceHere
from inspection.report.facts import Facts
from inspection.report.grouping import HOUR
from inspection.report.health import unjudged
from inspection.report.versions_here import VersionsHere
from inspection.store import MIGRATIONS

FEW_PARTS = 100  # below which a share of 5 % is known to no better than about 4 to 5 points
LASTING = 3  # hours together from which a changed camera is more than a matter of chance
_NAMED = 5  # examples in a sentence


def caveats(facts: Facts, totals: Totals, *, station_id: str, simulated: int, left_out: int) -> Iterator[Caveat]:
    """Of the records themselves; ``simulated`` of the span are of simulated cameras, among ``facts`` or left out.

    ``left_out`` records of the span, simulated or not, are not among ``facts``.
    """
    yield from _of_the_span(facts, totals, simulated, left_out)
    yield from _of_reviews(totals)
    yield from _of_the_store(facts, station_id)
    if facts.clock_steps:
        first = facts.clock_steps[0]
        most = round(max(step.by_s for step in facts.clock_steps))
        yield _caveat("clock_set_back", at=first.at.isoformat(), by_s=most, times=len(facts.clock_steps))
    if totals.serials_repeated:
        names = ", ".join(totals.serials_used_twice[:_NAMED])
        yield _caveat("serial_used_twice", serials=totals.serials_repeated, examples=names)
    if totals.late:
        yield _caveat("late_parts", records=totals.late)
    if facts.came_since:
        yield _caveat("being_written", records=facts.came_since)


def _of_the_span(facts: Facts, totals: Totals, simulated: int, left_out: int) -> Iterator[Caveat]:
    parts = totals.tally.parts
    reported = bool(parts) and bool(facts.parts["simulated"].any())
    if reported:
        yield _caveat("simulated_report", records=parts)
    elif simulated:
        yield _caveat("simulated_apart", records=simulated) if parts else _caveat("only_simulated", records=simulated)
    elif left_out and not parts:
        yield _caveat("only_production", records=left_out)
    elif not parts:
        yield Caveat("empty_span")
        yield from _of_what_it_holds(facts)
    if not parts:
        return
    if parts == 1:
        yield Caveat("one_part")
    elif parts < FEW_PARTS:
        yield _caveat("few_parts", parts=parts)
    if totals.tally.judged and not totals.tally.ok:
        yield Caveat("all_not_ok")


def _of_what_it_holds(facts: Facts) -> Iterator[Caveat]:
    """Where the records are, for who asked for a time without any."""
    if facts.held is not None:
        yield _caveat("store_holds", first=facts.held[0], last=facts.held[1])


def _of_reviews(totals: Totals) -> Iterator[Caveat]:
    if not totals.tally.parts:
        return
    if not totals.reviewed:
        yield Caveat("nothing_reviewed")
    elif totals.unreviewed_not_ok:
        yield _caveat("partly_reviewed", open=totals.unreviewed_not_ok)


def _of_the_store(facts: Facts, station_id: str) -> Iterator[Caveat]:
    if facts.store_version < len(MIGRATIONS):
        yield _caveat("old_store", version=facts.store_version)
    if facts.old_schemas:
        names = ", ".join(str(schema) for schema, _ in facts.old_schemas)
        yield _caveat("old_schema", records=sum(records for _, records in facts.old_schemas), schemas=names)
    if facts.unreadable:
        yield _caveat("unreadable", records=facts.unreadable)
    others = facts.parts.filter(~pl.col("station_id").cast(pl.String).is_in(("", station_id)))["station_id"]
    if others.len():
        yield _caveat("another_station", stations=", ".join(sorted(str(name) for name in others.unique())[:_NAMED]))


def of_what_is_here(versions: VersionsHere, evidence: EvidenceHere, maps: Sequence[MapView]) -> Iterator[Caveat]:
    """Of recipes, pictures and places that are not here, or not any more."""
    if versions.missing:
        yield _caveat("recipe_not_here", recipes=", ".join(sha256[:12] for sha256 in versions.missing))
    unplaced = sum(view.unplaced for view in maps if view.golden_png is not None)
    if unplaced:
        yield _caveat("findings_unplaced", findings=unplaced)
    if evidence.skipped:
        yield _caveat("pictures_skipped", records=evidence.skipped)
    if evidence.deleted:
        yield _caveat("evidence_deleted", records=evidence.deleted, of=evidence.wanted)
    if evidence.missing:
        yield _caveat("evidence_missing", records=evidence.missing, of=evidence.wanted)
    if evidence.begun:
        yield _caveat("evidence_begun", records=evidence.begun)
    if evidence.unreadable:
        yield _caveat("evidence_unreadable", records=evidence.unreadable)


def of_the_pictures(items: Sequence[GalleryItem]) -> Iterator[Caveat]:
    """Of the pictures that were looked at for the gallery."""
    altered = {item.record_id for item in items if item.why_not.startswith("altered")}
    if altered:
        yield _caveat("evidence_altered", records=len(altered))


def of_the_cameras(health: Sequence[HealthChart], changed: Sequence[CameraChange]) -> Iterator[Caveat]:
    """What changed of the cameras, with or without a rise of bad parts; and what could not be judged of them."""
    for one in sorted(changed, key=lambda change: (change.together < LASTING, -change.hours)):
        key = "camera_changed" if one.together >= LASTING else "camera_flickered"
        yield _caveat(
            key, camera=one.camera, quantity=one.quantity, hours=one.hours, of=(one.end - one.begin) // HOUR,
            since=one.begin.isoformat(), until=one.end.isoformat(), usual=one.usual, worst=one.most, unit=one.unit,
        )  # fmt: skip
    blind = unjudged(health)
    if blind:
        yield _caveat(
            "cameras_unjudged", charts=len(blind), cameras=", ".join(dict.fromkeys(one.camera for one in blind))
        )


def of_the_escapes(views: Sequence[EscapeView]) -> Iterator[Caveat]:
    """Of rates that review has looked at too few parts for."""
    for view in views:
        low, high = view.observed.low, view.observed.high
        if view.observed.vague and low is not None and high is not None:
            yield _caveat(
                "escapes_vague", model=view.model_sha256[:12], escapes=view.escapes, decided=view.reviewed_ok,
                least=low, most=high,
            )  # fmt: skip


def of_the_baseline(baseline: Baseline, charts: Sequence[ChartView]) -> Iterator[Caveat]:
    """Of what the control limits rest on."""
    if not baseline.declared and charts:
        yield Caveat("baseline_whole_span")
    elif baseline.declared and charts and all(view.chart.centre is None for view in charts):
        yield Caveat("baseline_empty")


def _caveat(key: str, **values: str | int | float) -> Caveat:
    given: Values = tuple(values.items())
    return Caveat(key, given)
