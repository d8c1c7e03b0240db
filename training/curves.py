"""Draws a run's metrics.jsonl as curves.png."""

import json
from pathlib import Path

SHARES = ("map_33", "map_50", "map_75", "f", "auroc", "accuracy")  # figures in 0..1 of the right-hand picture


def draw_curves(run: Path) -> None:
    """Losses and held-out scores over training time, from ``run/metrics.jsonl`` to ``run/curves.png``."""
    from matplotlib.figure import Figure

    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [row for row in rows if row["kind"] == "train"]
    checks = [row for row in rows if row["kind"] == "val"]
    figure = Figure(figsize=(10, 4), layout="constrained")
    loss, scores = figure.subplots(1, 2)
    names = dict.fromkeys(name for row in steps for name in row if name.endswith("_loss"))
    for name in names:
        shown = [(row["trained_s"] / 60, row[name]) for row in steps if name in row]
        loss.plot(*zip(*shown, strict=True), label=name.removesuffix("_loss"))
    loss.set(xlabel="minutes", ylabel="loss", title="training", yscale="log")
    for name in SHARES:
        seen = [(row["trained_s"] / 60, 100 * row[name]) for row in checks if name in row]
        if seen:
            scores.plot(*zip(*seen, strict=True), "o-", label=name)
    scores.set(xlabel="minutes", ylabel="%", title="held-out samples" if checks else "nothing held out")
    for axes in (loss, scores):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[1]:
            axes.legend()
    figure.savefig(str(run / "curves.png"), dpi=110)
