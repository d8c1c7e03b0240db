"""A trace as a document for other programs."""

import json
from dataclasses import asdict
from typing import Any

from inspection.store import UnreadableRecord
from inspection.trace import PartTrace, SerialTrace
from inspection.trace_queries import Line, Tally
from inspection.trace_search import Found
from inspection.types import Review


def serial_document(trace: SerialTrace) -> dict[str, Any]:
    """A serial for other programs."""
    return {
        "serial": trace.serial, "records": trace.count, "near": list(trace.near),
        "parts": [part_document(part) for part in trace.parts], "more": [_line_document(line) for line in trace.more],
        "unreadable": [unreadable_document(error) for error in trace.unreadable],
    }  # fmt: skip


def unreadable_document(error: UnreadableRecord) -> dict[str, Any]:
    """A record that cannot be read, for other programs."""
    return {"record_id": error.record_id, "row": error.row, "unreadable": error.what, "fix": error.fix}


def part_document(part: PartTrace) -> dict[str, Any]:
    """A part for other programs; ``record`` is in the one JSON form that records have everywhere."""
    return {
        "row": part.row,
        "as_written": False if part.chain.altered else True if part.chain.sequence else None,
        "record": json.loads(part.record.to_json()),
        "findings": [
            {"class": one.detection.defect_class, "score": one.detection.score, "camera": one.detection.camera,
             "roi": one.detection.roi_id, "box": one.detection.region.xyxy_px, "on_golden": one.on_golden_px,
             "decides": one.decides, "late": one.late} for one in part.findings
        ],
        "recipe_version": asdict(part.version),
        "pictures": [
            {"name": one.name, "file": one.file, "state": one.state, "rule": one.rule, "at": one.at and one.at.isoformat()}
            for one in part.pictures
        ],
        "pictures_why": part.pictures_why, "pictures_detail": part.pictures_detail,
        "reviews": [_review_document(review, part.stands) for review in part.reviews],
        "chain": asdict(part.chain), "places_by_version_in_force": part.places_by_version_in_force,
        "serial_used": part.serial_used, "lot_parts": part.lot_parts, "rows_alike": part.rows_alike,
    }  # fmt: skip


def found_document(found: Found) -> dict[str, Any]:
    """What a search found, for other programs; ``checked`` of the parts were compared with their entries in the chain."""
    places = [{"at": spot.place_px, "on_golden": spot.on_golden, "score": spot.score} for spot in found.spots]
    lines = [_line_document(line) for line in found.lines]
    return {
        **_tally_document(found.tally),
        "periods": [
            {**asdict(period.point), "last_row": period.last_row, **_tally_document(period.tally)} for period in found.periods
        ],
        "listed": [line | place for line, place in zip(lines, places, strict=True)] if places else lines,
        "uncorrected": found.uncorrected, "places_by_version_in_force": found.assumed,
        "unreadable": found.unreadable, "slow": found.slow,
        "checked": 0 if found.slow else len(found.lines), "not_sound": [line.rowid for line in found.unsound],
    }  # fmt: skip


def _tally_document(tally: Tally) -> dict[str, Any]:
    counts = {verdict.name: count for verdict, count in sorted(tally.counts.items())}
    ends = {"first": tally.first and tally.first.isoformat(), "last": tally.last and tally.last.isoformat()}
    return {"parts": tally.parts, "by_verdict": counts, **ends}


def _line_document(line: Line) -> dict[str, Any]:
    return {
        "row": line.rowid, "record_id": line.record_id, "serial": line.serial, "lot": line.lot,
        "verdict": line.verdict.name, "judged_at": line.judged_at.isoformat(), "simulated": line.simulated,
        "as_written": line.as_written, "readable": line.readable,
    }  # fmt: skip


def _review_document(review: Review, stands: Review | None) -> dict[str, Any]:
    return {
        "disposition": review.disposition, "reviewer": review.reviewer, "at": review.at.isoformat(),
        "comment": review.comment, "stands": review is stands,
    }  # fmt: skip
