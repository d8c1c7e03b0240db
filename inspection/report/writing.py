"""From a station's records to the files of a report."""

from dataclasses import replace
from pathlib import Path

from inspection.config import StationConfig
from inspection.images import write_whole
from inspection.report.caveats import of_the_pictures
from inspection.report.contents import Baseline, Report, Span
from inspection.report.facts import Facts, read_facts
from inspection.report.gallery import with_pictures
from inspection.report.numbers import Order, make_report
from inspection.report.output_folder import whole_folder
from inspection.report.page import render
from inspection.report.tables import write_tables
from inspection.report.wording import Language
from inspection.types import utc_now


def write_report(
    config: StationConfig, span: Span, baseline: Baseline, output: Path, *, language: Language, simulated: bool = False
) -> Report:
    """Write report.html, report.json, report.parquet, findings.parquet and tables/ into ``output``, all of them or nothing.

    StoreError when records, reviews or evidence ledger cannot be read; UsageError when ``output`` is not ours to replace.
    """
    with whole_folder(output) as folder:
        report, facts = report_of(config, span, baseline, simulated=simulated)
        write_tables(report, facts, folder)
        write_whole(folder / "report.html", render(report, language).encode())
    return report


def report_of(
    config: StationConfig, span: Span, baseline: Baseline, *, simulated: bool = False
) -> tuple[Report, Facts]:
    """The report with its pictures, and the facts that it was counted from.  Errors as ``write_report``."""
    found = read_facts(config, span)
    order = Order(utc_now(), simulated=simulated, baseline=baseline, before=_before(config, span, baseline))
    report = make_report(found, config, order)
    gallery = with_pictures(config, report.gallery)
    report = replace(report, gallery=gallery, caveats=(*report.caveats, *of_the_pictures(gallery)))
    return report, found.only(simulated=simulated)


def _before(config: StationConfig, span: Span, baseline: Baseline) -> Facts | None:
    """The facts of a baseline that is not a part of the span."""
    after_begin = span.since is None or (baseline.since is not None and baseline.since >= span.since)
    before_end = span.until is None or (baseline.until is not None and baseline.until <= span.until)
    if not baseline.declared or (after_begin and before_end and not span.lot and not span.serial):
        return None
    return read_facts(config, Span(baseline.since, baseline.until, recipe_id=span.recipe_id))
