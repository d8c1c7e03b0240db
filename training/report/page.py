"""Writes the report of an evaluation as one HTML file: no script, and no picture, font or style from elsewhere."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from inspection.images import write_whole
from inspection.types import utc_now
from training.evaluate import Evaluation
from training.report import words
from training.report.charts import draw_charts
from training.report.gallery import make_galleries

TEMPLATE = "page.html"


def write_report(
    path: Path, result: Evaluation, figures: dict[str, Any], *, statement: str = "", notes: Sequence[words.Row] = ()
) -> None:
    """Write the page; it appears whole or not at all.  OSError when the disk does not take it.

    ``figures``: those of ``as_json`` for this very evaluation.  ``statement``: whether images of the training, or
    nearly equal ones, are among those judged.  ``notes``: more rows (name, text) on the dataset.
    """
    write_whole(path, render(result, figures, statement=statement, notes=notes).encode())


def render(
    result: Evaluation, figures: dict[str, Any], *, statement: str = "", notes: Sequence[words.Row] = ()
) -> str:
    """The page as text."""
    # Names come from files: whatever they hold is text, never markup.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(TEMPLATE).render(
        card=result.card,
        figures=figures,
        made=f"{utc_now():%Y-%m-%d %H:%M} UTC with lineside {version('lineside')}",
        headline=words.headline(result, figures),
        operating_point=words.operating_point(result),
        limits=[(rule.defect_class, words.number(rule.ng_score), words.number(rule.review_score)) for rule in result.rules],
        statements=words.statements(result, figures["dataset"], statement),
        model_rows=words.model_rows(result.card, figures["model_sha256"]),
        dataset_rows=[*words.dataset_rows(result, figures["dataset"]), *notes],
        verdicts=[verdict.name for verdict in words.VERDICTS],
        verdict_counts=words.verdict_counts(result),
        class_rows=words.class_rows(result, figures),
        confusion=confusion_table(figures["confusion"]),
        charts=draw_charts(result),
        galleries=make_galleries(result),
        timing=words.timing_rows(result, figures),
        computer=f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, ONNX Runtime on the CPU",
    )


def confusion_table(confusion: dict[str, dict[str, int]]) -> dict[str, Any]:
    """Columns, and rows of (truth, [(count, share of its row in 0..1)])."""
    said = {name for row in confusion.values() for name in row}
    last = [name for name in ("good", "ERROR") if name in said]
    columns = [*sorted(said - set(last)), *last]
    rows = []
    for truth, row in confusion.items():
        of = sum(row.values())
        rows.append((truth, [(row.get(name, 0), row.get(name, 0) / of) for name in columns]))
    return {"columns": columns, "rows": rows}
