"""A small report made by hand: every section filled, hostile names among them, for tests of what shows reports."""

from datetime import UTC, datetime, timedelta, timezone

import cv2
import numpy as np

from inspection.report.contents import (
    Baseline,
    Caveat,
    ChangePoint,
    ChartView,
    Claim,
    EscapeView,
    FalseCallRow,
    GalleryItem,
    GroupRow,
    HealthChart,
    HourRow,
    MapPoint,
    MapView,
    ParetoRow,
    ReasonRow,
    Report,
    Span,
    StageRow,
    Tally,
    Totals,
    VersionRow,
)
from inspection.report.control_charts import individuals_chart, p_chart, u_chart

BEGIN = datetime(2026, 11, 23, 5, 0, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script>"
SIDE = 320


def sample_report() -> Report:
    """One shift of 8 hours and 960 parts on two recipe versions; the camera gets dirty in the last two hours."""
    hours = tuple(
        HourRow(
            BEGIN + timedelta(hours=hour), Tally(ok=110 + hour % 3, ng=6 + hour, review=2, error=hour % 2), 9 + hour
        )
        for hour in range(8)
    )
    total = Tally(*(sum(getattr(row.tally, name) for row in hours) for name in ("ok", "ng", "review", "error")))
    return Report(
        station_id="line-3", span=Span(BEGIN, BEGIN + timedelta(hours=8), shift="2026-11-23/1"),
        made_at=BEGIN + timedelta(hours=9), program="lineside 0.1.0", utc_offsets=((BEGIN, timedelta(hours=1)),), simulated=False,
        first=BEGIN + timedelta(seconds=4), last=BEGIN + timedelta(hours=7, minutes=59), snapshot_rowid=12345,
        totals=_totals(total), reasons=_reasons(), pareto=_pareto(), hours=hours, shifts=_shifts(total), lots=_lots(),
        stages=_stages(), versions=_versions(), changes=_changes(), false_calls=_false_calls(), escapes=_escapes(),
        baseline=Baseline(False, BEGIN, BEGIN + timedelta(hours=8)), charts=_charts(hours), health=_health(),
        maps=_maps(), gallery=_gallery(), caveats=_caveats(), zone=timezone(timedelta(hours=1)),
    )  # fmt: skip


def _totals(total: Tally) -> Totals:
    judged = total.judged
    return Totals(
        total, simulated=3, serials=total.parts - 2, without_serial=1, serials_repeated=1,
        serials_used_twice=(f"SN-0042{HOSTILE}",), lots=2,
        first_pass_yield=Claim(total.ok / judged, 0.915, 0.945, judged, text_key="first_pass_yield"),
        final_yield=Claim((total.ok + 9) / judged, 0.922, 0.951, judged, text_key="final_yield"),
        error_rate=Claim(total.error / total.parts, 0.001, 0.01, total.parts, text_key="error_rate"),
        reviewed=40, confirmed=30, false_calls=9, escapes=1, unsure=2, unreviewed_not_ok=52, late=2,
    )  # fmt: skip


def _reasons() -> tuple[ReasonRow, ...]:
    return (
        ReasonRow("ng.open", "NG", 44), ReasonRow("ng.short", "NG", 30), ReasonRow("review.spur", "REVIEW", 16),
        ReasonRow("golden.registration", "ERROR", 3), ReasonRow(f"ng.{HOSTILE}", "NG", 1),
    )  # fmt: skip


def _pareto() -> tuple[ParetoRow, ...]:
    counts = (("open", 60, 44), ("short", 34, 30), ("spur", 18, 16), ("mousebite", 9, 9), (HOSTILE, 1, 1))
    total, seen, rows = sum(row[1] for row in counts), 0, []
    for name, findings, parts in counts:
        seen += findings
        rows.append(ParetoRow(name, findings, parts, findings / total, seen / total))
    return tuple(rows)


def _shifts(total: Tally) -> tuple[GroupRow, ...]:
    claim = Claim(total.ok / total.judged, 0.91, 0.95, total.judged, text_key="first_pass_yield")
    return (GroupRow("2026-11-23/1", BEGIN, BEGIN + timedelta(hours=8), total, 122, claim),)


def _lots() -> tuple[GroupRow, ...]:
    claim = Claim(0.94, 0.92, 0.96, 480, text_key="first_pass_yield")
    one = GroupRow("LOT-A", BEGIN, BEGIN + timedelta(hours=4), Tally(450, 24, 6, 0), 40, claim)
    other = GroupRow(f"LOT-{HOSTILE}", BEGIN + timedelta(hours=4), BEGIN + timedelta(hours=8), Tally(446, 50, 10, 4),
                     82, Claim(None, of=0, why_not="nothing_judged", text_key="first_pass_yield"))  # fmt: skip
    return (one, other)


def _stages() -> tuple[StageRow, ...]:
    return (
        StageRow("grab", 960, 12.1, 14.9, 18.2, 31.0), StageRow("quality", 960, 3.0, 3.4, 4.1, 9.5),
        StageRow("register", 956, 21.4, 25.0, 30.6, 77.2), StageRow("detect", 956, 88.0, 96.1, 120.4, 310.7),
        StageRow("total", 960, 131.2, 143.0, 180.9, 402.3),
    )  # fmt: skip


def _versions() -> tuple[VersionRow, ...]:
    change = BEGIN + timedelta(hours=3)
    return (
        VersionRow("demo-pcb", "ab" * 32, "cd" * 32, BEGIN, change, Tally(333, 21, 6, 1)),
        VersionRow("demo-pcb", "ef" * 32, "cd" * 32, change, BEGIN + timedelta(hours=8), Tally(555, 55, 10, 3)),
    )


def _changes() -> tuple[ChangePoint, ...]:
    return (
        ChangePoint(BEGIN, 11386, "demo-pcb", "ab" * 32, "cd" * 32),
        ChangePoint(BEGIN + timedelta(hours=3), 11740, "demo-pcb", "ef" * 32, "cd" * 32),
    )


def _false_calls() -> tuple[FalseCallRow, ...]:
    return (
        FalseCallRow("board", 9, 956, Claim(9 / 956, 0.0043, 0.0178, 956, text_key="false_calls_board")),
        FalseCallRow(
            "component", 10, 11472, Claim(10 / 11472, 0.0004, 0.0016, 11472, text_key="false_calls_component")
        ),
        FalseCallRow(
            "opportunity", 10, None, Claim(None, why_not="no_opportunities", text_key="false_calls_opportunity")
        ),
    )


def _escapes() -> tuple[EscapeView, ...]:
    observed = Claim(1 / 20, 0.0013, 0.2487, 20, text_key="escape_observed")
    return (EscapeView("cd" * 32, 0.02, "at most 2 % of defective boards pass", observed, 20, 1, ("class:scratch",)),)


def _charts(hours: tuple[HourRow, ...]) -> tuple[ChartView, ...]:
    begins = tuple(row.begin for row in hours)
    labels = tuple(row.begin.isoformat() for row in hours)
    sizes = tuple(row.tally.judged for row in hours)
    defective = p_chart([row.tally.ng + row.tally.review for row in hours], list(sizes), baseline=None)
    findings = u_chart([row.findings for row in hours], list(sizes), baseline=None)
    return (
        ChartView("defective", "hour", labels, begins, sizes, defective),
        ChartView("findings", "hour", labels, begins, sizes, findings),
    )


def _health() -> tuple[HealthChart, ...]:
    begins = tuple(BEGIN + timedelta(hours=hour) for hour in range(8))
    sharpness = (41.0, 40.6, 41.2, 40.9, 41.1, 40.7, 33.0, 27.5)
    low, high = tuple(value - 2 for value in sharpness), tuple(value + 2 for value in sharpness)
    chart = individuals_chart(list(sharpness), baseline=slice(0, 6))
    flat = (128.0,) * 8
    return (
        HealthChart("top", "sharpness", "grey levels", begins, sharpness, low, high, (120,) * 8, chart, (6, 7)),
        HealthChart("top", "brightness", "grey levels", begins, flat, flat, flat, (120,) * 8, None),
    )


def _maps() -> tuple[MapView, ...]:
    golden = np.full((SIDE, SIDE), 60, np.uint8)
    cv2.rectangle(golden, (40, 40), (280, 280), 180, 12)
    random = np.random.default_rng(5)
    points = tuple(
        MapPoint(float(x), float(y), 6.0, "open" if number % 3 else "short", "NG", "", f"{number:032x}")
        for number, (x, y) in enumerate(random.normal((200, 90), 14, (60, 2)))
    )
    image = cv2.imencode(".png", golden)[1].tobytes()
    return (
        MapView("top", "demo-pcb", "12" * 32, image, SIDE, SIDE, points, 60, 2),
        MapView("bottom", "demo-pcb", "", None, 0, 0, (), 0, 7, why_not="no_golden"),
    )


def _gallery() -> tuple[GalleryItem, ...]:
    picture = np.random.default_rng(1).integers(0, 255, (160, 160), np.uint8)
    jpg = cv2.imencode(".jpg", picture)[1].tobytes()
    box = (100.0, 90.0, 130.0, 118.0)
    return (
        GalleryItem("1" * 32, "SN-0007", BEGIN, "open", "top", box, 0.97, "NG", "confirmed", jpg, jpg),
        GalleryItem("2" * 32, "SN-0042", BEGIN, "open", "top", box, 0.71, "NG", "false_call", jpg, None, "no_golden"),
        GalleryItem("3" * 32, HOSTILE, BEGIN, HOSTILE, "top", box, 0.55, "REVIEW", "", None, None, "not_written"),
    )


def _caveats() -> tuple[Caveat, ...]:
    return (
        Caveat("clock_set_back", (("at", "2026-11-23T07:00:00+00:00"), ("by_s", 3600), ("times", 1))),
        Caveat("serial_used_twice", (("serials", 1), ("examples", f"SN-0042{HOSTILE}"))),
        Caveat("being_written", (("records", 12),)),
    )
