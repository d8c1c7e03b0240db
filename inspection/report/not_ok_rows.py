"""Findings and reasons of the records that are not OK, which are read whole."""

import json
from dataclasses import dataclass, field
from typing import Any

_RULES = ("ng.", "review.")  # of reasons that findings are counted for; the others say why nothing could be judged


@dataclass(slots=True, eq=False)
class NotOk:
    """The rows of the frames ``findings`` and ``reasons``; ``unreadable`` are the numbers of damaged records."""

    findings: list[tuple[Any, ...]] = field(default_factory=list)
    reasons: list[tuple[int, str]] = field(default_factory=list)
    unreadable: set[int] = field(default_factory=set)

    def take_in(self, rowid: int, text: bytes, *, called: bool) -> str:
        """Take in a record; gives the rule of its first reason, "" where the record is damaged.

        ``called``: it was answered NG or REVIEW.  What an ERROR part's cameras found decided nothing.
        """
        try:
            document = json.loads(text)
            reasons = document["judgement"]["reasons"]
            rules = dict.fromkeys(str(reason["rule_id"]) for reason in reasons)
            named = {
                _key(found)
                for reason in reasons
                if called and str(reason["rule_id"]).startswith(_RULES)
                for found in reason["detections"]
            }
            findings = [_finding(rowid, found, named) for found in document["detections"]]
        except (ValueError, KeyError, TypeError, AttributeError):
            self.unreadable.add(rowid)
            return ""
        self.findings += findings
        self.reasons += [(rowid, rule) for rule in rules]
        return next(iter(rules), "")


def _key(found: dict[str, Any]) -> tuple[Any, ...]:
    # Records of one camera, and of earlier versions, need not name camera and region.
    return (
        found["defect_class"], found["score"], found.get("camera", ""), found.get("roi_id", ""),
        *found["region"]["xyxy_px"],
    )  # fmt: skip


def _finding(rowid: int, found: dict[str, Any], named: set[tuple[Any, ...]]) -> tuple[Any, ...]:
    """A row of the frame of findings; the first of several equal ones is the one that a reason names."""
    key = _key(found)
    decisive = key in named
    named.discard(key)
    name, score, camera, roi, x1, y1, x2, y2 = key
    return rowid, str(name), float(score), str(camera), str(roi), float(x1), float(y1), float(x2), float(y2), decisive
