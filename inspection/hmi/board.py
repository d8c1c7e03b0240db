"""The operator's page: the newest verdict, large, and everything a person at the line must know.

The page is made here in fragments, each rendered once for all browsers of a language.  A browser gets over one stream of
events what changed, and a beat every second: a page that hears no beat for three seconds says so in large words and hides
the verdict.  It does so too from the moment it is loaded until the first beat.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime
from time import monotonic
from typing import Any

from jinja2 import Environment
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from inspection.hmi.context import Context
from inspection.hmi.counts import Slot
from inspection.hmi.event_stream import EventStream, message
from inspection.hmi.findings import counted, reasons_of
from inspection.hmi.part_trace import named, part_trace
from inspection.hmi.pictures import Pictures
from inspection.hmi.reasons import explains_itself, in_words
from inspection.hmi.watch import Sight, Watch
from inspection.no_picture import sentence
from inspection.store import UnreadableRecord
from inspection.types import Record, utc_now
from inspection.web.shell import page, render
from inspection.web.texts import Language, words

MOST_BROWSERS = 40
BEAT_S = 1.0
STREAM_S = 3600.0  # a stream ends after so long, and the browser opens another
WHO_S = 10.0  # so often it is asked whether the person is still logged in
SOONEST_S = 0.25  # between two verdicts on a page
CALM_S = 1.0  # between two of the other fragments
SHOWN_FINDINGS = 4
FRAGMENTS = ("verdict", "strip", "counts", "station")
CHART = (320, 90)  # width and height of the trend


class Fragments:
    """The parts of the page as HTML, each made once for what is seen at a moment."""

    def __init__(self, watch: Watch, pictures: Pictures) -> None:
        self._watch = watch
        self._pictures = pictures
        self._lock = threading.Lock()
        self._made: dict[tuple[str, Language], tuple[Sight, str]] = {}

    def text(self, environment: Environment, language: Language, name: str) -> str:
        """A fragment as it should be now."""
        sight = self._watch.sight()
        with self._lock:
            made = self._made.get((name, language))
            if made is None or made[0] is not sight:
                template = environment.get_template(f"board_{name}.html")
                values = _values(name, sight, self._pictures, language)
                text = template.render(
                    t=words(language, "board"), language=language, sight=sight, local=local, dated=dated, **values
                )
                made = self._made[name, language] = (sight, text)
            return made[1]


def routes(context: Context) -> list[Route]:
    """The operator's page, its stream, and the page of one part."""
    watch = Watch(context)
    context.at_close.append(watch.close)
    fragments = Fragments(watch, context.pictures)
    browsers = threading.BoundedSemaphore(MOST_BROWSERS)

    def board(request: Request) -> Response:
        environment, language = request.app.state.environment, request.state.language
        made = {name: fragments.text(environment, language, name) for name in FRAGMENTS}
        return render(request, "board.html", section="board", fragments=made)

    async def stream(request: Request) -> Response:
        await run_in_threadpool(watch.sight)
        if not browsers.acquire(blocking=False):
            raise HTTPException(503, f"{MOST_BROWSERS} pages are open already: close some")
        return EventStream(_messages(request, watch, fragments), browsers.release)

    def alive(request: Request) -> Response:
        return JSONResponse({"alive": watch.alive})

    def part(request: Request) -> Response:
        record_id = request.path_params["record_id"]
        try:
            record = context.pictures.record(record_id)
        except UnreadableRecord as error:
            return render(
                request, "part_unreadable.html", section="trace", status=409, record_id=record_id, row=error.row
            )
        reviews = context.reviews.of(record.record_id)
        shown = part_values(record, context.pictures, request.state.language, most=50)
        roles, recipes = shown["roles"], context.pictures.recipes
        shown["heat"] = [] if shown["refused"] else [role for role in roles if recipes.gives_heat(record, role)]
        shown["stages"] = named(request.state.language, "stage", record.stage_ms)
        shown |= part_trace(context, record.record_id, request.state.language)
        return render(request, "board_part.html", section="board", reviews=reviews, local=local, dated=dated, **shown)

    return [
        page("/", board),
        page("/board/stream", stream),
        page("/board/alive", alive),
        page("/part/{record_id}", part),
    ]


async def _messages(request: Request, watch: Watch, fragments: Fragments) -> AsyncIterator[bytes]:
    """The events of one browser: fragments that changed, and beats while the watch is alive."""
    loop, changed = asyncio.get_running_loop(), asyncio.Event()
    environment, language = request.app.state.environment, request.state.language

    def wake() -> None:
        with suppress(RuntimeError):  # the server is being closed
            loop.call_soon_threadsafe(changed.set)

    end = watch.call(wake)
    sent: dict[str, str] = {}
    until_s, who_s, beat_s, calm_s = monotonic() + STREAM_S, monotonic() + WHO_S, 0.0, 0.0
    try:
        yield b"retry: 500\n\n"
        while monotonic() < until_s:
            if monotonic() >= who_s:
                who_s = monotonic() + WHO_S
                if await run_in_threadpool(request.app.state.guard.session, request) is None:
                    return
            changed.clear()
            calm = monotonic() >= calm_s
            for name in FRAGMENTS if calm else FRAGMENTS[:1]:
                text = await run_in_threadpool(fragments.text, environment, language, name)
                if text != sent.get(name):
                    sent[name] = text
                    yield message(name, text)
            if calm:
                calm_s = monotonic() + CALM_S
            if monotonic() >= beat_s and watch.alive:  # after the fragments: what a page then shows is current
                beat_s = monotonic() + BEAT_S
                yield message("beat", json.dumps({"now": utc_now().timestamp()}))
            await _pause(changed, max(0.05, min(beat_s, calm_s) - monotonic()))
    finally:
        end()


async def _pause(changed: asyncio.Event, longest_s: float) -> None:
    """Until something changed, but not less than ``SOONEST_S`` and not more than ``longest_s``."""
    began = monotonic()
    try:
        await asyncio.wait_for(changed.wait(), longest_s)
    except TimeoutError:
        return
    await asyncio.sleep(max(0.0, SOONEST_S - (monotonic() - began)))


def local(at: datetime, form: str = "%H:%M:%S") -> str:
    """A moment in the computer's local time."""
    return at.astimezone().strftime(form)


def dated(at: datetime) -> str:
    """The time of day in the computer's local time; of another day than today with its date."""
    return local(at) if local(at, "%F") == local(utc_now(), "%F") else local(at, "%Y-%m-%d %H:%M:%S")


def _values(name: str, sight: Sight, pictures: Pictures, language: Language) -> dict[str, Any]:
    if name == "verdict" and sight.record is not None:
        return part_values(sight.record, pictures, language, most=SHOWN_FINDINGS) | {"cut_outs": not sight.fast}
    if name == "strip":
        return {"tiles": [(record, _headline(record, language)) for record in sight.rejected]}
    if name == "counts":
        rules = words(language, "reasons")
        pareto = [(rules.get(name, name) if "." in name else name, count) for name, count in sight.figures.pareto]
        return {"chart": trend_chart(sight.figures.trend), "pareto": pareto}
    return {}


def part_values(record: Record, pictures: Pictures, language: Language, *, most: int) -> dict[str, Any]:
    """What the template of a part needs: reasons in words, up to ``most`` findings, and which pictures there are."""
    refused = pictures.missing(record)
    reasons = [
        (in_words(language, reason), "" if explains_itself(language, reason) else reason.text)
        for reason in reasons_of(record)
    ]
    found, roles = counted(record), pictures.roles(record)
    return {
        "roles": roles, "goldens": [role for role in roles if pictures.recipes.has_golden(record, role)],
        "record": record, "reasons": reasons, "findings": found[:most], "more": len(found[most:]),
        "cut_outs": True, "refused": "" if refused is None else _said(refused, language),
    }  # fmt: skip


def _said(refused: Any, language: Language) -> str:
    return sentence(language, refused.word, refused.detail)


def _headline(record: Record, language: Language) -> str:
    reasons = reasons_of(record)
    return in_words(language, reasons[0]) if reasons else ""


def trend_chart(trend: tuple[Slot, ...]) -> dict[str, Any]:
    """The yield by half hour as points of a drawing of ``CHART``: x, y and the slot; only slots with judged parts."""
    width, height = CHART
    step = width / max(1, len(trend))
    shares = [(index, slot, slot.tally.share_ok) for index, slot in enumerate(trend)]
    known = [(index, slot, share) for index, slot, share in shares if share is not None]
    low = min((share for _, _, share in known), default=1.0)
    floor = max(0.0, min(0.9, low - 0.05))
    points = [
        (round((index + 0.5) * step, 1), round(height - (share - floor) / (1 - floor) * (height - 8) - 4, 1), slot)
        for index, slot, share in known
    ]
    return {
        "width": width, "height": height, "points": points, "floor": round(100 * floor),
        "line": " ".join(f"{x},{y}" for x, y, _ in points),
    }  # fmt: skip
