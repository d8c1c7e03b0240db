"""Writes the report of an evaluation as one HTML file: no script, and no picture, font or style from elsewhere."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from datasets.look_alikes import Leak
from inspection.images import write_whole
from inspection.types import utc_now
from training.evaluate import GOOD, IOU_DEEPPCB, Evaluation
from training.report import words
from training.report.charts import draw_charts
from training.report.curves import box_confusion
from training.report.gallery import make_galleries

TEMPLATE = "page.html"


@dataclass(frozen=True, slots=True)
class Confusion:
    """A table of counts; ``rows``: class of the label, and in each column the count and its share of the row, 0..1."""

    title: str
    about: str
    columns: list[str]
    rows: list[tuple[str, list[tuple[int, float]]]]


def write_report(
    path: Path,
    result: Evaluation,
    figures: dict[str, Any],
    *,
    leak: Leak | None = None,
    notes: Sequence[words.Row] = (),
) -> None:
    """Write the page; it appears whole or not at all.  OSError when the disk does not take it.

    ``figures``: those of ``as_json`` for this very evaluation.  ``leak``: the search for images of the training, and for
    such as look like one (None: nobody looked).  ``notes``: more rows (name, text) on the dataset.
    """
    write_whole(path, render(result, figures, leak=leak, notes=notes).encode())


def render(
    result: Evaluation, figures: dict[str, Any], *, leak: Leak | None = None, notes: Sequence[words.Row] = ()
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
        limits=words.differing_limits(result.rules),
        statements=words.statements(result, figures["dataset"], leak),
        model_rows=words.model_rows(result.card, figures["model_sha256"]),
        dataset_rows=[*words.dataset_rows(result, figures["dataset"]), *notes],
        verdicts=[verdict.name for verdict in words.VERDICTS],
        verdict_counts=words.verdict_counts(result),
        class_rows=words.class_rows(result, figures),
        confusions=confusions(result, figures),
        charts=draw_charts(result),
        galleries=make_galleries(result),
        timing=words.timing_rows(result, figures),
        computer=f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, ONNX Runtime on the CPU",
    )


def confusions(result: Evaluation, figures: dict[str, Any]) -> list[Confusion]:
    """By parts, unless most parts have several classes; by boxes where the model finds boxes."""
    made = []
    detects = result.card.task == "detect"
    if not (detects and any(len(case.sample.defect_classes) > 1 for case in result.cases)):
        made.append(_by_parts(figures["confusion"]))
    return [*made, _by_boxes(result)] if detects else made


def _by_parts(confusion: dict[str, dict[str, int]]) -> Confusion:
    said = {name for row in confusion.values() for name in row}
    last = [name for name in (GOOD, "ERROR") if name in said]
    columns = [*sorted(said - set(last)), *last]
    rows = [_row(truth, [row.get(name, 0) for name in columns]) for truth, row in confusion.items()]
    about = (
        "A part in review stands under the class of its best finding; a part with several classes in the row of each."
    )
    return Confusion("Parts: labelled class against class of the best finding that counted", about, columns, rows)


def _by_boxes(result: Evaluation) -> Confusion:
    classes, limits = result.card.classes, {rule.defect_class: rule.ng_score for rule in result.rules}
    table = box_confusion(result.images, np.array([limits[name] for name in classes]), IOU_DEEPPCB)
    rows = [_row(name, [int(n) for n in row]) for name, row in zip([*classes, "nothing there"], table, strict=True)]
    about = (
        f"Findings from the NG limit of their class; one that overlaps a true box by IoU {IOU_DEEPPCB} belongs to it."
    )
    return Confusion("Boxes: labelled class against class of the finding", about, [*classes, "missed"], rows)


def _row(name: str, counts: Sequence[int]) -> tuple[str, list[tuple[int, float]]]:
    return name, [(count, count / max(1, sum(counts))) for count in counts]
