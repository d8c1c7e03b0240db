"""What the review page is told of a part: its pictures' addresses, its findings, and what was found there before."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool

from inspection.geometry import overlap
from inspection.hmi.context import Context
from inspection.hmi.findings import Finding, counted, reasons_of
from inspection.hmi.reasons import explains_itself, in_words
from inspection.images import picture_size
from inspection.no_picture import NoPicture, sentence
from inspection.store import UnreadableRecord
from inspection.types import Detection, Disposition, Reason, Record, Review, Verdict
from inspection.web.texts import Language

FRAME_WIDTH = 1280  # pixels of the pictures that a page shows
CROP_WIDTH = 320
MOST_FINDINGS = 24  # findings shown one by one; more are counted
EARLIER = 100  # rejected parts of the same recipe among which the same place is looked for
EARLIER_SPAN = 5000  # within so many records back
EARLIER_SHOWN = 4
SAME_PLACE_IOU = 0.1
DELETED = "deleted"  # the word of NoPicture for what retention deleted: it does not come back
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

    async def tell(self, record_id: str, *, sample: bool = False) -> dict[str, Any] | None:
        """A part, or None when its record is gone.  UnreadableRecord; NoPicture for a drawn part (``sample``) without one."""
        record = await run_in_threadpool(self.context.reader.find, record_id)
        if record is None:
            return None
        frames, refused = await self._frames(record, sample=sample)
        if refused is not None and sample:
            raise refused
        told = await run_in_threadpool(self._told, record)
        lack = "" if refused is None else sentence(self.language, refused.word, refused.detail)
        return told | {"frames": frames, "no_picture": lack, "sample": sample}

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

    async def _frames(self, record: Record, *, sample: bool) -> tuple[list[dict[str, Any]], NoPicture | None]:
        """The pictures of each camera; and why there is none."""
        recipes = self.context.pictures.recipes
        frames, refused = [], []
        for role in await run_in_threadpool(self.context.pictures.roles, record):
            try:
                size = await self._size(record, role, sample=sample)
            except NoPicture as error:
                refused.append(error)
                continue
            name = f"{quote(record.record_id, safe='')}/{quote(role, safe='')}.jpg?w={FRAME_WIDTH}"
            golden = f"/golden/{name}" if self.context.pictures.recipes.has_golden(record, role) else ""
            heat = f"/heat/{name}" if await run_in_threadpool(recipes.gives_heat, record, role) else ""
            frames.append({"role": role, "size": size, "frame": f"/picture/{name}", "golden": golden, "heat": heat})
        if frames:
            return frames, None
        # Of several reasons one that may pass: only what retention deleted is gone for good.
        return [], min(refused, key=lambda one: one.word == DELETED, default=NoPicture("none"))

    async def _size(self, record: Record, role: str, *, sample: bool) -> tuple[int, int]:
        """Width and height in pixels; of a drawn part once the whole picture was read, for it alone tells that it is good."""
        path = await self.context.pictures.frame_file(record, role)
        if sample:
            frame = await run_in_threadpool(self.context.pictures.frame, path)
            return frame.shape[1], frame.shape[0]
        size = await run_in_threadpool(picture_size, path)
        if size is None:
            raise NoPicture("damaged", path.name)
        return size

    def _findings(self, record: Record, findings: Sequence[Finding]) -> list[dict[str, Any]]:
        before, unread = self._rejected_before(record) if findings else ([], 0)
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
                    "earlier": self._earlier(record, detection, before) | {"unread": unread},
                }
            )
        return told

    def _role(self, record: Record, detection: Detection) -> str:
        """The camera of a finding; records of one camera need not name it."""
        return detection.camera or next(iter(self.context.pictures.roles(record)), "")

    def _rejected_before(self, record: Record) -> tuple[list[_Earlier], int]:
        """The findings of rejected parts before this one; and how many of their records cannot be read."""
        reader = self.context.reader
        recipe_id = record.recipe_id or record.trigger.recipe_id
        rows = reader.rejected_before(reader.rowid_of(record.record_id), recipe_id, EARLIER, span=EARLIER_SPAN)
        read = [other for _, other in rows if not isinstance(other, UnreadableRecord)]
        return [_Earlier(other, finding) for other in read for finding in counted(other)], len(rows) - len(read)

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
