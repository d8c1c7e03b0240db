"""Makes a report from facts.  No clock and no network; of the disk it reads what the station's config names."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from importlib.metadata import PackageNotFoundError, version

from inspection.config import StationConfig
from inspection.report import caveats, charting, counting, grouping
from inspection.report.camera_series import cameras
from inspection.report.choice import choose
from inspection.report.contents import Baseline, GroupRow, HourRow, Report
from inspection.report.evidence_here import look_at_names
from inspection.report.facts import Facts
from inspection.report.local_time import offsets
from inspection.report.places import maps
from inspection.report.reviewing import escape_views, false_call_rows
from inspection.report.versions_here import VersionsHere

WHOLE_SPAN = Baseline(False, None, None)


@dataclass(frozen=True, slots=True)
class Order:
    """How a report is made: of simulated records or of the others, in which local time, when, with which control limits.

    ``before`` holds the facts of a baseline outside the span.  ``zone`` None is the local time of the computer.
    """

    made_at: datetime
    simulated: bool = False
    zone: tzinfo | None = None
    baseline: Baseline = WHOLE_SPAN
    before: Facts | None = None


def make_report(found: Facts, config: StationConfig, order: Order) -> Report:
    """Everything that is said of these facts; pictures are put in afterwards (``gallery.with_pictures``).

    StoreError when store or evidence ledger cannot be read.
    """
    simulated = int(found.parts["simulated"].sum())
    facts = found.only(simulated=order.simulated)
    before = None if order.before is None else order.before.only(simulated=order.simulated)
    totals, left_out = counting.totals(facts, simulated), found.parts.height - facts.parts.height
    versions = VersionsHere(config, facts.parts)
    groups = _groups(facts, config.hmi.shifts, order.zone)
    hours = [row for row in groups["hour"] if isinstance(row, HourRow)]
    charts = charting.charts(
        groups, order.baseline, None if before is None else _groups(before, config.hmi.shifts, order.zone)
    )
    health, rises, changed = cameras(facts, hours, order.baseline, before, order.zone)
    pareto, places, escapes = counting.pareto(facts), maps(facts, versions), escape_views(facts, versions)
    said = (
        *caveats.of_the_cameras(health, changed),
        *caveats.caveats(facts, totals, station_id=config.station_id, simulated=simulated, left_out=left_out),
        *caveats.of_what_is_here(versions, look_at_names(config, facts.parts), places),
        *caveats.of_the_baseline(order.baseline, charts),
        *caveats.of_the_escapes(escapes),
    )
    ends = facts.parts["judged_at"].min(), facts.parts["judged_at"].max()
    first, last = (at if isinstance(at, datetime) else None for at in ends)
    return Report(
        station_id=config.station_id,
        span=facts.span,
        made_at=order.made_at,
        program=_program(),
        utc_offsets=offsets(first or order.made_at, last or order.made_at, order.zone),
        simulated=order.simulated,
        first=first,
        last=last,
        snapshot_rowid=facts.snapshot_rowid,
        totals=totals,
        reasons=counting.reasons(facts),
        pareto=pareto,
        hours=tuple(hours),
        shifts=_named(groups["shift"]),
        lots=_named(groups["lot"]),
        stages=counting.stages(facts),
        versions=counting.versions(facts),
        changes=facts.changes,
        false_calls=false_call_rows(facts, versions),
        escapes=escapes,
        baseline=order.baseline,
        charts=charts,
        health=health,
        maps=places,
        gallery=choose(facts, pareto),
        caveats=said,
        rises=rises,
        camera_changes=changed,
        zone=order.zone,
    )


def _groups(facts: Facts, starts: Sequence[str], zone: tzinfo | None) -> charting.Grouped:
    parts = grouping.with_findings(facts)
    return {
        "hour": grouping.hours(parts, zone), "shift": grouping.shifts(parts, starts, zone), "lot": grouping.lots(parts),
    }  # fmt: skip


def _named(rows: Sequence[HourRow | GroupRow]) -> tuple[GroupRow, ...]:
    return tuple(row for row in rows if isinstance(row, GroupRow))


def _program() -> str:
    try:
        return f"lineside {version('lineside')}"
    except PackageNotFoundError:  # run from a folder that was not installed
        return "lineside"
