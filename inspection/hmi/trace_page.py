"""The page that finds parts: by serial, lot or record, by a defect at a place, by what judged them.

    GET /trace?q=TEXT                              a serial, a lot or the id of a record
    GET /trace?defect=CLASS&since=DATE&until=DATE&at=X,Y&within=PX&camera=ROLE&roi=ROI
    GET /trace?model=SHA, /trace?recipe=SHA        all parts that it judged, by the beginning of its SHA-256

Days are those of the computer's local time, ``until`` is the last day.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from inspection.hmi.board import local
from inspection.hmi.context import Context
from inspection.hmi.part_trace import SECTION, tracer_of
from inspection.trace import Tracer
from inspection.trace_queries import Line
from inspection.trace_search import DefectSearch, Found, Spot, find_defect, find_judged_by, find_lot
from inspection.types import Verdict, utc_now
from inspection.web.shell import page, render

SHOWN = 100  # parts in a list
USUAL_DAYS = 7
MOST_DAYS = 400  # that one search for a defect may span: it reads every part of them that is not OK
FIRST_YEAR, LAST_YEAR = 2000, 2200
LONGEST = 200  # characters of what is searched for


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found for one reading of what was asked; ``kind`` is the word for it, ``near`` what there is instead.

    ``parts`` counts them all, ``lines`` are the newest of them.  ``span`` are the first and the last day that were searched.
    """

    kind: str
    name: str
    parts: int = 0
    lines: tuple[Line, ...] = ()
    found: Found | None = None
    near: tuple[str, ...] = ()
    span: tuple[datetime, datetime] | None = None

    @property
    def unsound(self) -> int:
        """How many of the lines are not as they were written or cannot be read."""
        return sum(not line.sound for line in self.lines)

    @property
    def spots(self) -> dict[str, Spot]:
        """Where the parts have the defect, by record."""
        return {spot.line.record_id: spot for spot in self.found.spots} if self.found else {}


class _Mistake(ValueError):
    """What was typed cannot be searched for; its text is the word for why."""


def routes(context: Context) -> list[Route]:
    """The page, for everybody who has logged in."""

    def show(request: Request) -> Response:
        asked = {name: text if name == "q" else text.strip() for name, text in request.query_params.items()}
        mistake = ""
        answers: tuple[Answer, ...] = ()
        with tracer_of(context) as tracer:
            known = tuple(dict.fromkeys(limits.defect_class for limits in tracer.versions.in_force().limits))
            try:
                answers = tuple(_answers(tracer, asked))
            except _Mistake as error:
                mistake = str(error)
        return render(
            request, "trace.html", section=SECTION, asked=asked, answers=answers, mistake=mistake, known=known,
            cameras=tuple(context.config.cameras), since=_day("", USUAL_DAYS - 1), until=_day("", 0), local=local,
            most_days=MOST_DAYS, verdicts=Verdict,
        )  # fmt: skip

    return [page("/trace", show)]


def _answers(tracer: Tracer, asked: dict[str, str]) -> Iterator[Answer]:
    """One answer for each reading that found something, or the last one that found nothing."""
    if any(len(text) > LONGEST or "\0" in text for text in asked.values()):
        raise _Mistake("say_long")
    if text := asked.get("q", ""):
        yield from _named(tracer, text)
    elif text := asked.get("defect", ""):
        search = _search(text, asked)
        found = find_defect(tracer, search, SHOWN)
        known = () if found.tally.parts or text in found.known else found.known
        span = (search.since, (search.until or utc_now()) - timedelta(seconds=1))
        yield Answer("defect", text, found.tally.parts, found.lines, found, known, span)
    elif text := asked.get("model", ""):
        yield _answer("model", text, find_judged_by(tracer, SHOWN, model=text))
    elif text := asked.get("recipe", ""):
        yield _answer("recipe", text, find_judged_by(tracer, SHOWN, recipe=text))


def _answer(kind: str, name: str, found: Found) -> Answer:
    near = () if found.tally.parts else found.known
    return Answer(kind, name, found.tally.parts, found.lines, found, near)


def _named(tracer: Tracer, text: str) -> list[Answer]:
    """What is called so; a blank at the ends counts only where there is something of that name."""
    for name in dict.fromkeys((text, text.strip())):
        answers = [answer for answer in _readings(tracer, name) if answer.parts]
        if answers:
            return answers
    return [Answer("nothing", text, near=tracer.serial(text.strip()).near)]


def _readings(tracer: Tracer, name: str) -> Iterator[Answer]:
    queries = tracer.queries
    yield Answer("serial", name, queries.count_of_serial(name), tracer.checked(queries.of_serial(name, SHOWN)))
    yield _answer("lot", name, find_lot(tracer, name, SHOWN))
    row = queries.row_of(name)
    yield Answer("record", name, int(row > 0), tracer.checked(queries.between(row, row, 1)))


def _search(defect_class: str, asked: dict[str, str]) -> DefectSearch:
    since, until = _day(asked.get("since", ""), USUAL_DAYS - 1), _day(asked.get("until", ""), 0) + timedelta(days=1)
    if not timedelta(0) < until - since <= timedelta(days=MOST_DAYS + 1):
        raise _Mistake("say_days")
    place, within = _place(asked.get("at", ""), asked.get("within") or "20")
    return DefectSearch(
        defect_class, since.astimezone(), until.astimezone(), asked.get("roi", ""), asked.get("camera", ""),
        place, within,
    )  # fmt: skip


def _place(at: str, within: str) -> tuple[tuple[float, float] | None, float]:
    """A place on the golden, where one is given, and how near to it, in pixels."""
    try:
        numbers = [float(text) for text in (*(at.split(",") if at else ()), within)]
    except ValueError as error:
        raise _Mistake("say_place") from error
    if len(numbers) not in (1, 3) or not all(map(math.isfinite, numbers)) or numbers[-1] <= 0:
        raise _Mistake("say_place")
    return (numbers[0], numbers[1]) if len(numbers) == 3 else None, numbers[-1]


def _day(text: str, days_ago: int) -> datetime:
    """The beginning of a day in local time; without one, of some days ago."""
    if not text:
        now = utc_now().astimezone() - timedelta(days=days_ago)
        return now.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    try:
        day = datetime.strptime(text, "%Y-%m-%d")
    except ValueError as error:
        raise _Mistake("say_days") from error
    if not FIRST_YEAR <= day.year <= LAST_YEAR:
        raise _Mistake("say_days")
    return day
