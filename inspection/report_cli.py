"""`lineside report`: the quality engineer's report of a shift, lot, recipe or stretch of time."""

import argparse
from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspection.arguments import filled, in_order
from inspection.audit.findings import counted
from inspection.errors import UsageError
from inspection.moments import moment

if TYPE_CHECKING:
    from inspection.report.contents import Baseline, Claim, Report, Span
    from inspection.report.wording import Wording


def add_verb(verbs: Any) -> None:
    """Add `report` to the verbs of `lineside`."""
    report = verbs.add_parser(
        "report",
        help="write what the records of a span say as one HTML page, CSV, JSON and Parquet",
        description="Times are local where no zone is given; a span goes from --since to before --until. Without a span "
        "all records are reported.",
    )
    report.add_argument("config", type=Path, metavar="STATION.toml")
    report.add_argument(
        "--since", type=moment, metavar="TIME", help="records judged then or later, as 2026-11-23T06:00"
    )
    report.add_argument("--until", type=moment, metavar="TIME", help="records judged before then")
    report.add_argument(
        "--shift", type=filled, metavar="DATE/N", help="one shift: 2026-11-23/2 is the second that begins on that day"
    )
    report.add_argument("--lot", type=filled, default=None, help="records of one lot")
    report.add_argument("--serial", type=filled, default=None, help="records of one serial")
    report.add_argument(
        "--recipe", type=filled, default=None, metavar="ID", help="records judged by one recipe (a product)"
    )
    report.add_argument(
        "--baseline-since", type=moment, metavar="TIME", help="control limits from records from then on"
    )
    report.add_argument("--baseline-until", type=moment, metavar="TIME", help="and before then")
    report.add_argument(
        "--simulated", action="store_true", help="report on records of simulated cameras, which else are left out"
    )
    report.add_argument("--language", choices=("en", "zh"), help="language of the page (default: that of [hmi])")
    report.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="where the files go")
    report.set_defaults(func=_report)


def _report(args: argparse.Namespace) -> int:
    from inspection.config import load_station
    from inspection.report.writing import write_report

    config = load_station(args.config)
    language = args.language or config.hmi.language
    span, baseline = asked(args, config.hmi.shifts)
    report = write_report(config, span, baseline, args.output, language=language, simulated=args.simulated)
    _print_summary(report)
    print(f"written to {args.output / 'report.html'}")
    return 0


def asked(args: argparse.Namespace, starts: Sequence[str]) -> tuple["Span", "Baseline"]:
    """The span and the baseline that the arguments name; ``starts`` of the shifts, HH:MM.  UsageError when they cannot be."""
    from inspection.report.contents import Baseline, Span

    since, until = args.since, args.until
    if args.shift:
        if since or until:
            raise UsageError("--shift names the times itself", fix="leave --since and --until out, or --shift")
        since, until = _shift(args.shift, starts)
    in_order(since, until, "--since", "--until")
    first, end = args.baseline_since, args.baseline_until
    in_order(first, end, "--baseline-since", "--baseline-until")
    span = Span(since, until, args.lot or "", args.serial or "", args.recipe or "", args.shift or "")
    return span, Baseline(first is not None or end is not None, first, end)


def _shift(text: str, starts: Sequence[str]) -> tuple[datetime, datetime]:
    """Begin and end of the shift DATE/N."""
    from inspection.hmi.counts import shift_at

    day, _, number = text.partition("/")
    try:
        start = dict(enumerate(starts, 1))[int(number)]
        begin = datetime.combine(date.fromisoformat(day), time.fromisoformat(start)).astimezone(UTC)
        shift = shift_at(begin, starts)
    except (ValueError, KeyError, OverflowError) as error:
        raise UsageError(
            f"--shift is {text!r}",
            fix=f"give the day on which the shift begins and its number, 1 to {len(starts)}, as 2026-11-23/1",
        ) from error
    return shift.begin, shift.end


def _print_summary(report: "Report") -> None:
    from inspection.report.wording import Wording

    words = Wording("en", report.zone)
    tally = report.totals.tally
    print(
        f"station {report.station_id}: {counted(tally.parts, 'parts')}, OK {tally.ok}, NG {tally.ng}, REVIEW {tally.review}, "
        f"ERROR {tally.error}"
    )
    for name, claim in (
        ("first-pass yield", report.totals.first_pass_yield),
        ("after review", report.totals.final_yield),
    ):
        print(f"{name}: {_said(claim, words)}")
    for caveat in report.caveats:
        print(f"! {_on_one_line(words.text('caveat', caveat.key, caveat.values))}")
    print("whether the records are as they were written was not checked here: `lineside audit` does that")
    for rise in report.rises:
        if rise.cause == "camera":
            what = ", ".join(f"{quantity} of camera {camera}" for camera, quantity in rise.because)
            print(
                f"! {counted(rise.hours, 'hours')} from {words.when(rise.begin)} with too many parts that are not OK go with "
                f"a change of {_on_one_line(what)}: look at the camera before a lot is called bad"
            )


def _said(claim: "Claim", words: "Wording") -> str:
    if claim.value is None:
        return f"not claimed: {words.text('why_not', claim.why_not, claim.values)}"
    return f"{100 * claim.value:.3f} % of {claim.of}"


def _on_one_line(text: str) -> str:
    """Serials and names come from outside: nothing in them may move the terminal's cursor."""
    return "".join(char if char.isprintable() else "?" for char in text)
