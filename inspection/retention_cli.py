"""`lineside retention`: compresses and deletes pictures by the station's rules, beside the running station."""

import argparse
import json
import logging
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspection.audit.findings import HOW_ENTERED, counted
from inspection.config import StationConfig, load_station
from inspection.errors import StoreError
from inspection.log import event

if TYPE_CHECKING:
    from inspection.retention.run import Retention
    from inspection.retention.stop import Stop
    from inspection.retention.summary import Summary

NOTHING_ASKED = "[retention] has no rule that compresses or deletes and no limit: every picture stays as it was written"


def add_verb(verbs: Any) -> None:
    """Add the verb to those of `lineside`."""
    parser = verbs.add_parser(
        "retention",
        help="compress and delete pictures by the rules of [retention] until told to stop, beside the station",
    )
    parser.add_argument("config", type=Path, metavar="STATION.toml")
    parser.add_argument(
        "--once", action="store_true", help="one pass, then end; exit code 3 when files or folders refused"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what a pass would do now; nothing is changed")
    parser.set_defaults(func=_retention)


def _retention(args: argparse.Namespace) -> int:
    config = load_station(args.config)
    if args.dry_run:
        return _plan(config)
    from inspection.retention.priority import step_back
    from inspection.retention.run import Retention
    from inspection.retention.stop import Stop

    stop = Stop()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda signum, _: stop.set())

    retention = Retention(config, stop)
    try:
        granted = step_back()
        if args.once:
            summary = retention.one_pass()
            _print(summary, retention)
            summary.check()
        else:
            event("retention.started", priority=granted, rules=len(config.retention.rules))
            _serve(retention, stop)
    finally:
        retention.close()
    if not config.retention.asks_for_something:
        print(NOTHING_ASKED)
    return 0


def _serve(retention: "Retention", stop: "Stop") -> None:
    """A pass, a pause, and so on; what a disk refuses now it may take later."""
    while not stop.is_set():
        try:
            retention.one_pass()
        except StoreError as error:
            event("retention.failed", level=logging.ERROR, what=error.what, fix=error.fix)
        except OSError as error:
            event("retention.failed", level=logging.ERROR, what=str(error), fix="check the disk and its permissions")
        if not retention.section.asks_for_something:
            return
        stop.wait(retention.section.every_s)


def _plan(config: StationConfig) -> int:
    from inspection.retention.plan import planned

    summary, by_rule = planned(config)
    if not config.retention.asks_for_something:
        print(NOTHING_ASKED)
    for rule, records in by_rule.items():
        print(f"{counted(records, 'records')}\t{rule}")
    _print(summary, None)
    summary.check()
    return 0


def _print(summary: "Summary", retention: "Retention | None") -> None:
    """The result as a line of JSON, and in words what is not managed, missing or left."""
    print(_told(summary, None if retention is None else retention.budget.share))
    if unknown := summary.unknown.files:
        what = f"{counted(unknown, 'pictures')} that the ledger does not know, not managed ({HOW_ENTERED})"
        print(f"{what}; first {_quoted(summary.unknown.first)}")
    if missing := summary.missing.files:
        what = f"{counted(missing, 'pictures')} missing on the disk, not counted as lying there"
        print(f"{what} (`lineside audit --pictures` names all); first {_quoted(summary.missing.first)}")
    if summary.left:
        record_id, why = next(iter(summary.left.items()))
        print(f"{counted(len(summary.left), 'records')} left as they are; first {_quoted([f'{record_id}: {why}'])}")


def _quoted(names: Sequence[str]) -> str:
    """Names as they can be shown: whatever a name holds, it makes no line of its own."""
    return json.dumps(names)[1:-1]


def _told(summary: "Summary", share: float | None) -> str:
    """The result as one line of JSON; of a plan when there is no ``share`` of time spent."""
    freed_mb = round(summary.freed_bytes / 1e6, 3)
    row: dict[str, object] = {"would_free_mb": freed_mb} if share is None else {
        "compressed_files": summary.compressed, "deleted_files": summary.deleted,
        "freed_mb": freed_mb, "busy_share": round(share, 4),
    }  # fmt: skip
    row["left_as_they_are"] = len(summary.left) + len(summary.refused)
    row["on_disk_mb"] = round(summary.total_bytes / 1e6, 3)
    row["protected_records"] = dict(summary.protected)
    row["unknown_files"] = summary.unknown.files
    if summary.missing.files:
        row["missing_files"] = summary.missing.files
    if summary.over_bytes:
        row["over_limit_mb"] = round(summary.over_bytes / 1e6, 3)
    return json.dumps(row)
