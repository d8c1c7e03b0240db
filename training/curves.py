"""Draws the curves of a run from its metrics.jsonl."""

import json
from pathlib import Path


def draw_curves(run: Path) -> Path:
    """Write ``curves.png`` beside ``metrics.jsonl``: losses over time and, where measured, held-out mAP."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [row for row in rows if row["kind"] == "train"]
    checks = [row for row in rows if row["kind"] == "val"]
    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    losses = figure.add_subplot(1, 2, 1)
    for key, name in (("heat_loss", "heat map"), ("box_loss", "boxes")):
        losses.plot([row["trained_s"] / 60 for row in steps], [row[key] for row in steps], label=name)
    losses.set(xlabel="minutes of training", ylabel="loss", yscale="log", title=run.name)
    losses.legend()
    scores = figure.add_subplot(1, 2, 2)
    for key, name in (("map_33", "mAP@0.33"), ("map_50", "mAP@0.5"), ("map_75", "mAP@0.75")):
        scores.plot([row["trained_s"] / 60 for row in checks], [100 * row[key] for row in checks], "o-", label=name)
    scores.set(xlabel="minutes of training", ylabel="%", title="held-out groups, no registration")
    if checks:
        scores.legend()
    else:
        scores.text(0.5, 0.5, "nothing was held out", ha="center", transform=scores.transAxes)
    figure.savefig(run / "curves.png", dpi=110)
    return run / "curves.png"
