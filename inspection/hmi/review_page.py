"""The review station: parts that wait for a person, one key or tap each.

    GET  /review             the page; all that changes on it is done by static/review.js
    POST /review/parts       {seat, count, known}: parts held by this open page (``seat``), and how many wait
    POST /review/decisions   {key, record_id, disposition, comment, person, age_ms}: store one decision, once
    POST /review/reopen      {seat, record_id}: hold a decided part again
    POST /review/release     (form) seat: the page is being closed

A browser keeps each decision until it was answered 200 or the person discarded it, and sends it again under the same
key.  A decision is stored under the name of who made it: when another person has logged in on that browser since, it is
refused (403) and stays there until the first logs in again.
"""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from inspection.errors import ReviewConflict, StoreError
from inspection.hmi.context import Context
from inspection.hmi.review_parts import CHOICES, DELETED, PartTeller
from inspection.log import event
from inspection.no_picture import NoPicture
from inspection.review_queue import NO_PICTURE, UNREADABLE, ReviewQueue
from inspection.reviews import MOST_COMMENT
from inspection.store import UnreadableRecord
from inspection.types import Disposition, Review, Verdict, utc_now
from inspection.web.access import Role
from inspection.web.shell import page, render
from inspection.web.texts import words

SECTION = "review"
MOST_HELD = 20  # parts that one page may hold
MOST_CLAIMS = 20  # so often a request claims others in place of parts that cannot be shown
MOST_NAMED = 3  # records that cannot be read, named on the page
PROMPT = timedelta(minutes=1)  # within which a decision comes unless it waited in a browser
OLDEST_MS = 30 * 24 * 3600 * 1000.0  # a decision cannot have waited longer in a browser


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class AskedParts(_Asked):
    """Which parts a page wants; those in ``known`` it has already."""

    seat: str = Field(pattern=r"^[A-Za-z0-9-]{8,64}$")
    count: int = Field(ge=0, le=100)
    known: list[str] = Field(default=[], max_length=100)


class AskedReopen(_Asked):
    """The part that a page wants to decide anew."""

    seat: str = Field(pattern=r"^[A-Za-z0-9-]{8,64}$")
    record_id: str = Field(max_length=200)


class Decision(_Asked):
    """What a person decided; ``age_ms`` ago."""

    key: str = Field(max_length=80)
    record_id: str = Field(max_length=200)
    disposition: Disposition
    comment: str = Field(default="", max_length=MOST_COMMENT)
    person: str = Field(max_length=200)
    age_ms: float = Field(default=0.0, allow_inf_nan=False)


Asked = TypeVar("Asked", bound=_Asked)


def routes(context: Context) -> list[Route]:
    """The addresses of the review station, for reviewers and engineers."""
    pages = _ReviewPages(context)
    return [
        page("/review", pages.show, role=Role.REVIEWER),
        page("/review/parts", pages.parts, role=Role.REVIEWER, methods=("POST",)),
        page("/review/decisions", pages.decide, role=Role.REVIEWER, methods=("POST",)),
        page("/review/reopen", pages.reopen, role=Role.REVIEWER, methods=("POST",)),
        page("/review/release", pages.release, role=Role.REVIEWER, methods=("POST",)),
    ]


class _RecordNotHere(StoreError):
    """The store that is there does not have the record: it may have been exchanged, and be put back."""


class _ReviewPages:
    def __init__(self, context: Context) -> None:
        self.context = context

    def show(self, request: Request) -> Response:
        """The page, without a part: its script asks for them."""
        said = json.dumps(dict(words(request.state.language, SECTION)), ensure_ascii=False)
        return render(request, "review.html", section=SECTION, said=said, most_comment=MOST_COMMENT)

    async def parts(self, request: Request) -> Response:
        """Renew what the page holds, fill it up, and tell the parts it does not know yet."""
        asked = _checked(AskedParts, request.state.json)
        person = request.state.user.name
        queue = await run_in_threadpool(self._queue)
        teller = PartTeller(self.context, request.state.language)
        told: dict[str, dict[str, Any] | None] = {}
        for _ in range(MOST_CLAIMS):
            held = await run_in_threadpool(queue.claim, person, asked.seat, min(asked.count, MOST_HELD))
            fresh = [record_id for record_id in held if record_id not in asked.known and record_id not in told]
            told |= {record_id: await self._told(queue, teller, record_id) for record_id in fresh}
            if all(told[record_id] for record_id in fresh):
                break
        parts = [part for part in told.values() if part]
        shown = [record_id for record_id in held if told.get(record_id, True)]
        counts = await run_in_threadpool(queue.counts, person, asked.seat)
        return JSONResponse(
            {
                "held": shown, "parts": parts, "waiting": counts.waiting, "elsewhere": counts.held,
                "for_others": counts.for_others, "caught_up": counts.caught_up, "unreadable": len(counts.unreadable),
                "unreadable_ids": counts.unreadable[:MOST_NAMED], "no_picture": counts.no_picture,
            }
        )  # fmt: skip

    async def _told(self, queue: ReviewQueue, teller: PartTeller, record_id: str) -> dict[str, Any] | None:
        """What the page shows of a part; None, with the part out of the way, when it cannot be shown."""
        try:
            part = await teller.tell(record_id, sample=await run_in_threadpool(queue.is_sample, record_id))
        except UnreadableRecord:
            await run_in_threadpool(queue.set_aside, record_id, UNREADABLE)
        except NoPicture as refused:
            if refused.word == DELETED:
                await run_in_threadpool(queue.leave_out, record_id)
            else:
                await run_in_threadpool(queue.set_aside, record_id, NO_PICTURE)
        else:
            if part is None:
                await run_in_threadpool(queue.forget, record_id)
            return part
        return None

    def decide(self, request: Request) -> Response:
        """Store a decision under its key; 422 when it never can be, 503 when it should be sent again, 404 when its
        record is there and can be read.
        """
        decision, person = _checked(Decision, request.state.json), request.state.user.name
        if decision.person != person:
            raise HTTPException(403, f"this was decided by {decision.person}, who must log in to send it")
        try:
            number = self._store(decision)
        except ReviewConflict as error:
            return JSONResponse({"what": error.what, "fix": error.fix}, status_code=422)
        except StoreError as error:
            status = 404 if isinstance(error, (_RecordNotHere, UnreadableRecord)) else 503
            return JSONResponse({"what": error.what, "fix": error.fix}, status_code=status)
        return JSONResponse({"review_id": number})

    def _store(self, decision: Decision) -> int:
        record = self.context.reader.find(decision.record_id)
        if record is None:
            raise _RecordNotHere(
                "the record of this part is not in the record store that is there now",
                fix="put the store back that has it; discard the decision only if it never comes back",
            )
        fitting = CHOICES[record.judgement.verdict]
        if decision.disposition not in fitting:
            verdict = record.judgement.verdict.name
            raise ReviewConflict(f"{decision.disposition} says nothing of a part that is {verdict}", fix="decide anew")
        at = self._decided_at(decision)
        good = record.judgement.verdict == Verdict.OK and decision.disposition == "confirmed"
        if good and self.context.pictures.unseen(record, at):
            raise ReviewConflict(
                "there was no picture of this part when it was confirmed as good",
                fix="say unsure, or discard the decision",
            )
        review = Review(decision.record_id, decision.disposition, decision.person, at, decision.comment)
        number = self.context.reviews.add(review, key=decision.key)
        event(
            "review.stored", record_id=review.record_id, disposition=review.disposition, reviewer=review.reviewer,
            review_id=number,
        )  # fmt: skip
        return number

    def _decided_at(self, decision: Decision) -> datetime:
        """When it was decided; of two decisions on a part that come as they are made, the second is the later one.

        Their times may say otherwise: a request can be slow, and a clock be set back.
        """
        age = timedelta(milliseconds=min(max(0.0, decision.age_ms), OLDEST_MS))
        at = utc_now() - age
        before = [review.at for review in self.context.reviews.of(decision.record_id)]
        return max([at, *(one for one in before if age < PROMPT or one - at < PROMPT)])

    async def reopen(self, request: Request) -> Response:
        """Hold a part that this person decided, unless somebody else has it by now."""
        asked = _checked(AskedReopen, request.state.json)
        queue = await run_in_threadpool(self._queue)
        held = await run_in_threadpool(queue.reopen, request.state.user.name, asked.seat, asked.record_id)
        return JSONResponse({"held": held})

    def release(self, request: Request) -> Response:
        """Let go of the parts of a page that is closed."""
        seat = str(request.state.form.get("seat", ""))
        self._queue().release(request.state.user.name, seat)
        return Response(status_code=204)

    def _queue(self) -> ReviewQueue:
        context = self.context
        return ReviewQueue(context.reviews, context.reader, ok_share=context.config.hmi.review_ok_share)


def _checked(form: type[Asked], sent: object) -> Asked:
    """What a script sent; HTTPException 422 naming what is wrong."""
    try:
        return form.model_validate(sent)
    except ValidationError as error:
        raise HTTPException(422, "; ".join(_wrong(one) for one in error.errors()[:5])) from error


def _wrong(one: Mapping[str, Any]) -> str:
    return f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}"
