"""The figures of `tools.queue_curve` put together: over groups and seeds, as a table, and as a picture."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.metrics import clopper_pearson

Row: TypeAlias = Mapping[str, Any]
ARMS = {"queue": "the queue's first", "random": "at random", "none": "none, as many steps"}
_COLOURS = {"queue": "#0b6e4f", "random": "#b3541e", "none": "#6b6b6b"}
_MARKS = {"queue": "o", "random": "s", "none": "x"}


def figures_of(rows: Sequence[Row]) -> dict[str, Any]:
    """Each arm after each round: the groups together, of each seed; and how far the queue is ahead of chance.

    mAP@0.5 is the mean of the groups; counts and F are those of all images of all groups.
    """
    keys = sorted({(row["arm"], row["labels"]) for row in rows})
    points = []
    for arm, labels in keys:
        here = [row for row in rows if (row["arm"], row["labels"]) == (arm, labels)]
        seeds = sorted({row["seed"] for row in here})
        points.append({"arm": arm, "labels": labels, "seeds": [_of_seed(here, seed) for seed in seeds]})
    most = max(labels for _, labels in keys)
    ahead = {other: _ahead(rows, "queue", other, most) for other in ("random", "none")}
    return {"points": points, "queue_ahead_of": {other: found for other, found in ahead.items() if found}}


def _of_seed(rows: Sequence[Row], seed: int) -> dict[str, Any]:
    mine = [row for row in rows if row["seed"] == seed]
    sums = {k: sum(row[k] for row in mine) for k in ("hits", "false_calls", "missed", "escapes", "defective", "errors")}
    return {
        "seed": seed,
        "groups": len(mine),
        "map_50": float(np.mean([row["map_50"] for row in mine])),
        "map_33": float(np.mean([row["map_33"] for row in mine])),
        "f": 2 * sums["hits"] / (2 * sums["hits"] + sums["false_calls"] + sums["missed"]),
        **sums,
    }


def _ahead(rows: Sequence[Row], one: str, other: str, labels: int) -> dict[str, Any]:
    """F of one arm minus F of another at equal count; 95 % interval by drawing the images anew, seeds averaged.

    It tells what other images of these groups would do, not what other boards or other training runs would.
    """
    sides = [_per_image(rows, arm, labels) for arm in (one, other)]
    if sides[0] is None or sides[1] is None or sides[0].shape != sides[1].shape:
        return {}
    rng = np.random.default_rng(0)
    draws = rng.integers(len(sides[0]), size=(2000, len(sides[0])))
    every = np.arange(len(sides[0]))
    low, high = np.percentile(_f(sides[0], draws) - _f(sides[1], draws), [2.5, 97.5])
    return {"labels": labels, "f": float(_f(sides[0], every) - _f(sides[1], every)), "interval_95": [low, high]}


def _per_image(rows: Sequence[Row], arm: str, labels: int) -> NDArray[np.float64] | None:
    """Hits, findings and true boxes (images, 3) of an arm after a round, the mean of its seeds."""
    mine = [row for row in rows if (row["arm"], row["labels"]) == (arm, labels)]
    groups = sorted({row["test"] for row in mine})
    if not groups:
        return None
    means = [np.mean([row["per_image"] for row in mine if row["test"] == group], axis=0) for group in groups]
    return np.concatenate(means)


def _f(side: NDArray[np.float64], chosen: NDArray[np.intp]) -> NDArray[np.float64]:
    hits, shown, truth = (side[chosen, column].sum(axis=-1) for column in range(3))
    return np.asarray(2 * hits / (shown + truth))


def table(summary: Row) -> str:
    """The figures as text: means of the seeds, and least and most of them."""
    lines = [f"{'labels':<22}{'':>5}  seeds  mAP@0.5 (least..most)    F@0.33  missed  false calls  escapes"]
    for point in summary["points"]:
        seeds = point["seeds"]
        mean = {key: float(np.mean([seed[key] for seed in seeds])) for key in seeds[0]}
        least, most = (100 * pick(seed["map_50"] for seed in seeds) for pick in (min, max))
        escapes, parts = (sum(seed[key] for seed in seeds) for key in ("escapes", "defective"))
        bound = 100 * clopper_pearson(escapes, parts)[1]
        lines.append(
            f"{ARMS.get(point['arm'], 'start'):<22}{point['labels']:>5}  {len(seeds):>5}  "
            f"{100 * mean['map_50']:6.2f} ({least:5.2f}..{most:5.2f})   {100 * mean['f']:6.2f}  {mean['missed']:>6.0f}  "
            f"{mean['false_calls']:>11.0f}  {escapes} of {parts} (95 %: at most {bound:.2f} %)"
        )
    for other, found in summary["queue_ahead_of"].items():
        low, high = found["interval_95"]
        lines.append(
            f"F of the queue minus F of '{ARMS[other]}' at {found['labels']}: {100 * found['f']:+.2f} points "
            f"(95 % over images: {100 * low:+.2f}..{100 * high:+.2f})"
        )
    return "\n".join(lines)


def draw(summary: Row) -> bytes:
    """The curves as a PNG, 800 px wide: mAP and missed defects against labelled images; each thin line is one seed."""
    figure = Figure(figsize=(8, 4.3), dpi=100, layout="constrained")
    axes = figure.subplots(1, 2)
    start = next(point for point in summary["points"] if point["arm"] == "start")
    for arm in ARMS:
        points = [start, *(point for point in summary["points"] if point["arm"] == arm)]
        if len(points) == 1:
            continue
        for side, (key, scale) in zip(axes, (("map_50", 100.0), ("missed", 1.0)), strict=True):
            _curve(side, arm, points, key, scale)
    defects = sum(start["seeds"][0][key] for key in ("hits", "missed"))
    threshold = summary["rows"][0]["threshold"]
    images = sum(group["images"] for group in summary["tested"].values())
    axes[0].set(ylabel="mAP@0.5, mean of the groups (%)", title="Average precision (higher is better)")
    axes[1].set(ylabel=f"of {defects:,} defects, at score {threshold:g}", title="Missed defects (lower is better)")
    for side in axes:
        side.set_xlabel("images labelled, beside the start")
        side.set_xticks([point["labels"] for point in summary["points"]])
        side.grid(alpha=0.3)
        side.title.set_fontsize(10)
    axes[0].legend(fontsize=8, title="which images get labels", title_fontsize=8)
    seeds = max(len(point["seeds"]) for point in summary["points"])
    figure.suptitle(f"What {summary['top']} labelled images a round teach, on board groups never seen", fontsize=11)
    figure.supxlabel(
        f"Start: {summary['start']['images']} DeepPCB images of {len(summary['start']['groups'])} board groups. "
        f"{len(summary['tested'])} of the other groups scored, each in turn ({images} images), the rest is the pool.\n"
        f"{summary['steps']} steps of {summary['batch']} crops a round in every arm; "
        + ("one seed." if seeds == 1 else f"thin lines: {seeds} seeds, thick: their mean, shaded: least to most."),
        fontsize=7.5,
    )
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def _curve(side: Any, arm: str, points: Sequence[Row], key: str, scale: float) -> None:
    counts = [point["labels"] for point in points]
    runs = max(len(point["seeds"]) for point in points)
    # All seeds begin at the one start.
    values = np.array([[p["seeds"][min(n, len(p["seeds"]) - 1)][key] for p in points] for n in range(runs)]) * scale
    colour = _COLOURS[arm]
    for row in values:
        side.plot(counts, row, color=colour, linewidth=0.6, alpha=0.6)
    side.fill_between(counts, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.12, linewidth=0)
    side.plot(counts, values.mean(axis=0), color=colour, linewidth=2, marker=_MARKS[arm], markersize=5, label=ARMS[arm])
