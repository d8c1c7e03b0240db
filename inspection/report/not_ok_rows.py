"""Findings and reasons of the records that are not OK, which are read whole."""

from dataclasses import dataclass, field
from typing import Any

from inspection.types import Detection, Record, Verdict

_RULES = ("ng.", "review.")  # of reasons that findings are counted for; the others say why nothing could be judged


@dataclass(slots=True, eq=False)
class NotOk:
    """The rows of the frames ``findings`` and ``reasons``; ``unreadable`` are the numbers of damaged records."""

    findings: list[tuple[Any, ...]] = field(default_factory=list)
    reasons: list[tuple[int, str]] = field(default_factory=list)
    unreadable: set[int] = field(default_factory=set)

    def take_in(self, rowid: int, text: bytes, verdict: int) -> str:
        """Take in a record; gives the rule of its first reason, "" where the record is damaged.

        What an ERROR part's cameras found decided nothing.
        """
        record = record_of(text, verdict)
        try:
            if record is None:
                raise ValueError
            reasons = record.judgement.reasons
            rules = dict.fromkeys(str(reason.rule_id) for reason in reasons)
            named = {
                _key(found)
                for reason in reasons
                if verdict in (Verdict.NG, Verdict.REVIEW) and str(reason.rule_id).startswith(_RULES)
                for found in reason.detections
            }
            findings = [_finding(rowid, found, named) for found in record.detections]
        except (ValueError, TypeError):
            self.unreadable.add(rowid)
            return ""
        self.findings += findings
        self.reasons += [(rowid, rule) for rule in rules]
        return next(iter(rules), "")


def record_of(text: bytes, verdict: int) -> Record | None:
    """The record, as every other command reads it; None where it cannot be read, or was not answered ``verdict``."""
    try:
        record = Record.from_json(text.decode())
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return record if record.judgement.verdict == verdict else None


def _key(found: Detection) -> tuple[Any, ...]:
    return (found.defect_class, found.score, found.camera, found.roi_id, *found.region.xyxy_px)


def _finding(rowid: int, found: Detection, named: set[tuple[Any, ...]]) -> tuple[Any, ...]:
    """A row of the frame of findings; the first of several equal ones is the one that a reason names."""
    key = _key(found)
    decisive = key in named
    named.discard(key)
    name, score, camera, roi, x1, y1, x2, y2 = key
    return rowid, str(name), float(score), str(camera), str(roi), float(x1), float(y1), float(x2), float(y2), decisive
