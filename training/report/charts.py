"""The charts of the report, as pictures that can stand in a page without any file beside it."""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inspection.types import Verdict
from training.evaluate import Evaluation
from training.metrics import RECALL_POINTS, Floats
from training.report.curves import box_hits, box_precision, part_rates
from training.report.words import number, percent

# Blue and vermilion of Okabe and Ito stay apart for every colour vision; the bars differ in hatching too.
GOOD, DEFECTIVE, INK = "#0072b2", "#b8500a", "#1b1f24"
CLASS_COLOURS = ("#0072b2", "#b8500a", "#007a5a", "#a8518a", "#8a6d00", "#1b1f24")
CLASS_LINES = ("-", "--", "-.", ":")
_STYLE: dict[str, Any] = {
    "font.size": 10, "axes.edgecolor": "#57606a", "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK,
    "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3,
    "svg.fonttype": "path", "svg.hashsalt": "lineside", "hatch.linewidth": 0.6,
}  # fmt: skip
_SIZE = (4.3, 3.6)  # inches
_LOWEST, _HIGHEST = 1e-3, 1 - 1e-5  # scores beyond are drawn there: log-odds have no end
_TICKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995,
          0.998, 0.999, 0.9995, 0.9999, 0.99999)  # fmt: skip
_FEWEST_TICKS, _MOST_TICKS = 4, 9
_MOST_LIMITS = 4  # more lines would hide the bars


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart with its title and what it shows; ``uri`` is empty where ``missing`` says why there is none."""

    title: str
    shows: str
    uri: str = ""
    missing: str = ""


def draw_charts(result: Evaluation) -> list[Chart]:
    """Every chart of the page; those that cannot be drawn come last and say why."""
    charts = [_histogram(result), _roc(result), _part_precision(result)]
    charts += [_box_precision(result)] if result.card.task == "detect" else []
    return sorted(charts, key=lambda chart: not chart.uri)


def _drawn(paint: Callable[[Axes], None]) -> str:
    with rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        paint(figure.subplots())
        return _as_uri(figure)


def _as_uri(figure: Figure) -> str:
    file = io.BytesIO()
    # Without date and makers the same evaluation gives the same bytes.
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()


def _one_sided(result: Evaluation) -> str:
    parts = result.parts()
    missing = [name for name, count in (("defective", parts.defective), ("good", parts.good)) if not count]
    return f"Not drawn: there is no {' and no '.join(missing)} part here." if missing else ""


def _as_judged(result: Evaluation) -> tuple[float, float, float]:
    """Shares of defective parts caught and good parts rejected by the verdicts, and precision; REVIEW is neither."""
    rejected = [case.sample.defective for case in result.cases if case.verdict in (Verdict.NG, Verdict.ERROR)]
    parts, caught = result.parts(), sum(rejected)
    return caught / parts.defective, parts.overkill / parts.good, caught / len(rejected) if rejected else float("nan")


def _roc(result: Evaluation) -> Chart:
    title = "Caught against rejected (ROC)"
    shows = "Share of defective parts caught against share of good parts rejected, over all thresholds."
    if missing := _one_sided(result):
        return Chart(title, shows, missing=missing)
    rates, (caught, rejected, _) = part_rates(*result.part_scores()), _as_judged(result)

    def paint(axes: Axes) -> None:
        axes.plot(rates.rejected, rates.caught, color=GOOD, drawstyle="steps-post", lw=2)
        axes.plot((0, 1), (0, 1), color="#57606a", lw=1, ls=":")
        _mark(axes, rejected, caught)
        axes.set(xlabel="good parts rejected", ylabel="defective parts caught", xlim=(-0.02, 1.02), ylim=(-0.02, 1.03))

    shows += f" The diamond is the verdicts as given: {percent(caught)} caught, {percent(rejected)} rejected."
    return Chart(title, shows, _drawn(paint))


def _part_precision(result: Evaluation) -> Chart:
    title = "Precision and recall of rejected parts"
    shows = "Of the rejected parts, how many are defective; of the defective parts, how many are rejected."
    if missing := _one_sided(result):
        return Chart(title, shows, missing=missing)
    rates, (caught, _, precision) = part_rates(*result.part_scores()), _as_judged(result)

    def paint(axes: Axes) -> None:
        axes.plot(rates.caught, rates.precision, color=GOOD, drawstyle="steps-pre", lw=2)
        _mark(axes, caught, precision)
        axes.set(xlabel="recall: defective parts caught", ylabel="precision", xlim=(-0.02, 1.02), ylim=(-0.02, 1.03))

    if np.isfinite(precision):
        shows += f" The diamond is the verdicts as given: {percent(precision)} of the rejected parts are defective."
    else:
        shows += " No part was rejected, so no point is marked."
    return Chart(title, shows, _drawn(paint))


def _mark(axes: Axes, x: float, y: float) -> None:
    axes.plot([x], [y], "D", color=DEFECTIVE, ms=10, mec="white", mew=1.5, label="as judged", clip_on=False, zorder=5)
    axes.legend(loc="lower right")


def _box_precision(result: Evaluation) -> Chart:
    title = "Precision and recall of boxes, by class"
    shows = "Of the boxes found, how many are right; of the true boxes, how many are found. A finding hits at IoU 0.5."
    rows = [(name, box_hits(result.images, label, 0.5)) for label, name in enumerate(result.card.classes)]
    drawn = [(name, box_precision(found)) for name, found in rows if found.true_boxes.any()]
    if not drawn:
        return Chart(title, shows, missing="Not drawn: no defect is marked with a box here.")

    def paint(axes: Axes) -> None:
        for count, (name, precision) in enumerate(drawn):
            colour = CLASS_COLOURS[count % len(CLASS_COLOURS)]
            axes.plot(
                RECALL_POINTS, precision, color=colour, ls=CLASS_LINES[count % len(CLASS_LINES)], label=_plain(name)
            )
        axes.set(xlabel="recall: true boxes found", ylabel="precision", xlim=(-0.02, 1.02), ylim=(-0.02, 1.03))
        axes.legend(loc="lower left")

    return Chart(title, shows + " The area under a line is its AP@0.5.", _drawn(paint))


def _plain(text: str) -> str:
    """Text that matplotlib takes as it is: a dollar sign would begin a formula."""
    return text.replace("$", r"\$")


def _histogram(result: Evaluation) -> Chart:
    title = "Scores of good and of defective parts"
    scores, defective = result.part_scores()
    judged = np.array([case.verdict != Verdict.ERROR for case in result.cases], bool)
    if not judged.any():
        return Chart(title, "", missing="Not drawn: no part could be judged.")
    limits = sorted({rule.ng_score for rule in result.rules})
    reviews = sorted({rule.review_score for rule in result.rules} - set(limits))
    groups = (
        ("good", scores[judged & ~defective], GOOD, ""),
        ("defective", scores[judged & defective], DEFECTIVE, "//"),
    )
    places = _odds(np.array([*scores[judged], *limits, *reviews]))
    beside = max(0.03 * float(np.ptp(places)), 1e-3)
    edges = np.linspace(places.min() - beside, places.max() + beside, 49)

    def paint(axes: Axes) -> None:
        for name, values, colour, hatch in groups:
            axes.hist(
                _odds(values), edges, color=colour, alpha=0.65, hatch=hatch, edgecolor=INK, linewidth=0.5, histtype="stepfilled",
                label=f"{name} ({len(values)})",
            )  # fmt: skip
        _lines(axes, limits, "-", "rejected from")
        _lines(axes, reviews, "--", "review from")
        _score_axis(axes, edges)
        axes.set(xlabel="score of the part, spread out towards 0 and 1", ylabel="parts")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)

    left = len(scores) - int(judged.sum())
    shows = "How sure the model is that a part is defective (axis of log-odds). What overlaps cannot be told apart by any limit."
    return Chart(title, shows + (f" Left out: {left} parts that could not be judged." if left else ""), _drawn(paint))


def _odds(scores: Floats) -> Floats:
    inside = np.clip(scores, _LOWEST, _HIGHEST)
    return np.asarray(np.log(inside / (1 - inside)))


def _lines(axes: Axes, limits: list[float], style: str, name: str) -> None:
    shown = limits if len(limits) <= _MOST_LIMITS else [limits[0], limits[-1]]
    for limit in shown:
        few = (
            f"{name} {number(limit)}"
            if len(limits) <= _MOST_LIMITS
            else f"{name} {number(limit)} (one of {len(limits)})"
        )
        axes.axvline(float(_odds(np.array([limit]))[0]), color=INK, ls=style, lw=1.5, label=few)


def _score_axis(axes: Axes, edges: Floats) -> None:
    """Ticks at round scores; where all scores are nearly one, at even steps."""
    apart, inside = float(edges[-1] - edges[0]) / _MOST_TICKS, list[float]()
    for tick, place in zip(_TICKS, _odds(np.array(_TICKS)), strict=True):
        if edges[0] <= place <= edges[-1] and (not inside or place - _odds(np.array(inside[-1])) >= apart):
            inside.append(tick)
    places = _odds(np.array(inside))
    if len(inside) < _FEWEST_TICKS:
        places = np.linspace(edges[0], edges[-1], _FEWEST_TICKS + 1)
        inside = list(1 / (1 + np.exp(-places)))
    names = [number(score) for score in inside]
    names = [f"≤ {name}" if score <= _LOWEST else name for name, score in zip(names, inside, strict=True)]
    axes.set_xticks(places, names, rotation=45)
    axes.set_xlim(edges[0], edges[-1])
