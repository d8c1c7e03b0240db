"""What the page says of the cameras: what changed, what could not be judged, and which bad hours they explain."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from inspection.report import limit_charts
from inspection.report.contents import HealthChart, Report, RiseRow
from inspection.report.health import QUANTITIES, unjudged
from inspection.report.svg import Chart
from inspection.report.wording import Wording

MOST_HEALTH = 36  # charts on a page
Shown = tuple[str, Chart | None, list[str], bool]  # title, chart, what is said of it, whether it warns


def first(rises: Sequence[RiseRow], wording: Wording) -> list[str]:
    """The strongest caveat: too many parts were bad while a camera had changed."""
    blamed = [row for row in rises if row.cause == "camera"]
    if not blamed:
        return []
    names = _quantities(dict.fromkeys(pair for row in blamed for pair in row.because), wording)
    return [wording.text("caveat", "camera_first", {"n": sum(row.hours for row in blamed), "because": names})]


def judged(report: Report, wording: Wording) -> list[str]:
    """What the charts together say; that no camera is to blame only where each was judged and none had changed."""
    said = [
        wording.text("caveat", caveat.key, caveat.values)
        for caveat in report.caveats
        if caveat.key == "cameras_unjudged"
    ]
    steady = not report.camera_changes and not unjudged(report.health) and any(map(_optical, report.health))
    return [*said, *([wording.text("page", "health_fine")] if steady else [])]


def _optical(view: HealthChart) -> bool:
    return view.quantity in QUANTITIES and QUANTITIES[view.quantity].optical


def cause(row: RiseRow, wording: Wording) -> str:
    """What a rise is put down to."""
    return wording.text("page", f"cause_{row.cause}", {"because": _quantities(row.because, wording)})


def _quantities(pairs: Iterable[tuple[str, str]], wording: Wording) -> str:
    named = (f"{camera} {wording.text('quantity', quantity)}" for camera, quantity in pairs)
    return wording.words("page")["and_join"].join(named)


def health(report: Report, wording: Wording) -> list[Shown]:
    """As many charts as a page takes, those with suspect hours before all others, then those that changed."""
    views, changes = report.health, _changes(report, wording)
    order = {at: (not view.suspect, (view.camera, view.quantity) not in changes) for at, view in enumerate(views)}
    kept = sorted(order, key=lambda at: (order[at], at))[:MOST_HEALTH]
    return [_health(views[at], changes.get((views[at].camera, views[at].quantity)), wording) for at in sorted(kept)]


def _changes(report: Report, wording: Wording) -> dict[tuple[object, object], str]:
    """What is said of each quantity that changed, by camera and quantity."""
    found = [(dict(one.values), one) for one in report.caveats if one.key in ("camera_changed", "camera_flickered")]
    return {
        (values["camera"], values["quantity"]): wording.text("caveat", one.key, one.values) for values, one in found
    }


def _health(view: HealthChart, change: str | None, wording: Wording) -> Shown:
    quantity, unit = wording.text("quantity", view.quantity), wording.text("unit", view.unit)
    title = f"{view.camera}{wording.words('page')['colon']}{quantity}" + (f" ({unit})" if unit else "")
    said = []
    if view.chart is None or view.chart.centre is None:
        said.append(wording.text("page", "health_no_limits"))
        if view.chart is not None and view.chart.why_not:
            said[-1] += " " + wording.text("why_not", view.chart.why_not, view.chart.values)
    if view.suspect:
        hours = [view.hours[at] for at in view.suspect]
        given: dict[str, object] = {"n": len(hours), "hours": len(view.hours)}
        ends = {"since": wording.minute(min(hours)), "until": _next_hour(max(hours), wording)}
        said.insert(0, wording.text("page", "health_suspect", {**given, **ends}))
    elif change is not None:
        said.insert(0, change)
    drawn = limit_charts.health(view, wording.words("page"), wording.zone, title)
    return title, drawn, said, bool(view.suspect) or change is not None


def _next_hour(at: datetime, wording: Wording) -> str:
    return wording.minute(datetime.fromtimestamp(at.timestamp() + 3600, at.tzinfo))
