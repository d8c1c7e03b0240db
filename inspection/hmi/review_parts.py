"""What the review page is told of a part: its pictures' addresses, its findings, and what was found there before."""

import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool

from inspection.geometry import overlap
from inspection.hmi.context import Context
from inspection.hmi.findings import Finding, counted, reasons_of
from inspection.hmi.reasons import explains_itself, in_words
from inspection.no_picture import NoPicture, sentence
from inspection.types import Detection, Disposition, Reason, Record, Review, Verdict
from inspection.web.texts import Language

FRAME_WIDTH = 1280  # pixels of the pictures that a page shows
CROP_WIDTH = 320
MOST_FINDINGS = 24  # findings shown one by one; more are counted
EARLIER = 100  # rejected parts of the same recipe among which the same place is looked for
EARLIER_SPAN = 5000  # within so many records back
EARLIER_SHOWN = 4
SAME_PLACE_IOU = 0.1
CHOICES: dict[Verdict, tuple[Disposition, ...]] = {
    Verdict.NG: ("confirmed", "false_call", "unsure"),
    Verdict.REVIEW: ("confirmed", "false_call", "unsure"),
    Verdict.OK: ("confirmed", "escape", "unsure"),
    Verdict.ERROR: (),
}


@dataclass(frozen=True, slots=True)
class _Earlier:
    record: Record
    finding: Finding


class PartTeller:
    """Tells parts to the review page, in a language, as plain dictionaries for JSON."""

    def __init__(self, context: Context, language: Language) -> None:
        self.context = context
        self.language = language

    async def tell(self, record_id: str) -> dict[str, Any] | None:
        """A part, or None when its record is gone."""
        record = await run_in_threadpool(self.context.reader.find, record_id)
        if record is None:
            return None
        told = await run_in_threadpool(self._told, record)
        told["frames"], told["no_picture"] = await self._frames(record)
        return told

    def _told(self, record: Record) -> dict[str, Any]:
        findings = counted(record)
        shown = findings[:MOST_FINDINGS]
        return {
            "record_id": record.record_id,
            "serial": record.serial,
            "lot": record.trigger.lot,
            "recipe_id": record.recipe_id or record.trigger.recipe_id,
            "verdict": record.judgement.verdict.name,
            "judged_at": record.judged_at.isoformat(timespec="seconds"),
            "reasons": [self._reason(reason) for reason in reasons_of(record)],
            "choices": list(CHOICES[record.judgement.verdict]),
            "findings": self._findings(record, shown),
            "more_findings": len(findings) - len(shown),
            "reviews": [_review(review) for review in self.context.reviews.of(record.record_id)],
        }

    def _reason(self, reason: Reason) -> str:
        text = in_words(self.language, reason)
        return text if explains_itself(self.language, reason) else f"{text} ({reason.text})"

    async def _frames(self, record: Record) -> tuple[list[dict[str, Any]], str]:
        """The pictures of each camera; and in words why there is none."""
        recipes = self.context.pictures.recipes
        frames, why = [], ""
        for role in await run_in_threadpool(self.context.pictures.roles, record):
            try:
                size = await run_in_threadpool(png_size, await self.context.pictures.frame_file(record, role))
            except NoPicture as refused:
                why = sentence(self.language, refused.word, refused.detail)
                continue
            name = f"{quote(record.record_id, safe='')}/{quote(role, safe='')}.jpg?w={FRAME_WIDTH}"
            golden = f"/golden/{name}" if self.context.pictures.recipes.has_golden(record, role) else ""
            heat = f"/heat/{name}" if await run_in_threadpool(recipes.gives_heat, record, role) else ""
            frames.append({"role": role, "size": size, "frame": f"/picture/{name}", "golden": golden, "heat": heat})
        return frames, "" if frames else why

    def _findings(self, record: Record, findings: Sequence[Finding]) -> list[dict[str, Any]]:
        before = self._rejected_before(record) if findings else []
        told = []
        for finding in findings:
            detection = finding.detection
            role = self._role(record, detection)
            crop = f"/finding/{quote(record.record_id, safe='')}/{finding.index}"
            told.append(
                {
                    "number": finding.number,
                    "class": detection.defect_class,
                    "score": round(detection.score, 3),
                    "role": role,
                    "roi": detection.roi_id,
                    "box": detection.region.xyxy_px,
                    "polygon": detection.region.polygon_px,
                    "frame": f"{crop}/frame?w={CROP_WIDTH}",
                    "golden": f"{crop}/golden?w={CROP_WIDTH}"
                    if self.context.pictures.recipes.has_golden(record, role)
                    else "",
                    "earlier": self._earlier(record, detection, before),
                }
            )
        return told

    def _role(self, record: Record, detection: Detection) -> str:
        """The camera of a finding; records of one camera need not name it."""
        return detection.camera or next(iter(self.context.pictures.roles(record)), "")

    def _rejected_before(self, record: Record) -> list[_Earlier]:
        reader = self.context.reader
        recipe_id = record.recipe_id or record.trigger.recipe_id
        rows = reader.rejected_before(reader.rowid_of(record.record_id), recipe_id, EARLIER, span=EARLIER_SPAN)
        return [_Earlier(other, finding) for _, other in rows for finding in counted(other)]

    def _earlier(self, record: Record, detection: Detection, before: Sequence[_Earlier]) -> dict[str, Any]:
        """How many parts had a finding at this place, what was said of them, and the last few."""
        box, camera = detection.region.xyxy_px, self._role(record, detection)
        same = {
            one.record.record_id: one
            for one in reversed(before)
            if self._role(one.record, one.finding.detection) == camera
            and overlap(box, one.finding.detection.region.xyxy_px) > SAME_PLACE_IOU
        }
        said = self.context.reviews.latest_by_record(list(same))
        counts = dict.fromkeys(("confirmed", "false_call", "unsure", "open"), 0)
        for record_id in same:
            word = said[record_id].disposition if record_id in said else "open"
            counts[word] = counts.get(word, 0) + 1
        last = list(same.values())[: -EARLIER_SHOWN - 1 : -1]
        return {
            "parts": len(same),
            "counts": {word: count for word, count in counts.items() if count},
            "last": [_earlier(one, said.get(one.record.record_id)) for one in last],
        }


def _earlier(one: _Earlier, review: Review | None) -> dict[str, Any]:
    return {
        "serial": one.record.serial,
        "class": one.finding.detection.defect_class,
        "judged_at": one.record.judged_at.isoformat(timespec="seconds"),
        "disposition": review.disposition if review else "open",
        "who": review.reviewer if review else "",
        "picture": f"/finding/{quote(one.record.record_id, safe='')}/{one.finding.index}/frame?w=96",
    }


def _review(review: Review) -> dict[str, Any]:
    return {
        "who": review.reviewer,
        "disposition": review.disposition,
        "at": review.at.isoformat(timespec="seconds"),
        "comment": review.comment,
    }


def png_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels of a PNG file, from its first bytes; NoPicture when it is none."""
    with suppress(OSError, struct.error), path.open("rb") as file:
        head = file.read(24)
        if head.startswith(b"\x89PNG\r\n\x1a\n"):
            width, height = struct.unpack(">II", head[16:24])
            if width > 0 and height > 0:
                return width, height
    raise NoPicture("damaged", path.name)
