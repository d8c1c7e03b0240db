"""The exchange of OPC 40100-1 without network: jobs, states, error codes, results.  Not thread-safe: the caller locks.

What the line has to hear is appended to a list of announcements in the order in which it happened; ``drain`` hands it
out.  Every accepted job is handed out by ``take`` once and ends with exactly one ``ResultReady``.
"""

import hashlib
import re
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum

from inspection.controllers import StationState
from inspection.controllers.register_map import asked_as
from inspection.errors import ControllerError
from inspection.types import PrepareRecipe, Reason, Record, Trigger, Verdict

RESULTS_KEPT = 1000
MAX_TEXT = 128
_LAST_DIGITS = re.compile(r"(\d{1,9})$")


class Refusal(IntEnum):
    """The output argument ``Error`` of every method; 0 is done or accepted."""

    NONE = 0
    BUSY = 1
    NOT_READY = 2
    BAD_TEXT = 4
    UNKNOWN_RECIPE = 5
    HALTED = 6
    WRONG_STATE = 7
    UNKNOWN_RESULT = 8
    BAD_PARAMETER = 9
    RECIPE_REFUSED = 10


class Vision(IntEnum):
    """States of the VisionStateMachine with the numbers of the nodeset."""

    PREOPERATIONAL = 1
    HALTED = 2
    ERROR = 3
    OPERATIONAL = 4


class Automatic(IntEnum):
    """States of the AutomaticModeStateMachine; NONE while the vision system is not Operational."""

    NONE = 0
    INITIALIZED = 5
    READY = 6
    SINGLE_EXECUTION = 7
    CONTINUOUS_EXECUTION = 8


class ResultState(IntEnum):
    """Status of a job's result, not of its part."""

    COMPLETED = 1
    ABORTED = 3


@dataclass(frozen=True, slots=True)
class Order:
    """What a start method was given; texts as the line wrote them."""

    meas_id: str = ""
    part_id: str = ""
    recipe_id: str = ""
    product_id: str = ""
    lot: str = ""

    def refusal(self) -> Refusal:
        """BAD_TEXT when a text is too long or holds a control character."""
        texts = (self.meas_id, self.part_id, self.recipe_id, self.product_id, self.lot)
        sound = all(len(text) <= MAX_TEXT and text.isprintable() for text in texts)
        return Refusal.NONE if sound else Refusal.BAD_TEXT


@dataclass(slots=True)
class Job:
    """One part under its own number.  ``aborted`` once the line no longer wants its verdict."""

    job_id: str
    order: Order
    trigger: Trigger
    continuous: bool = False
    aborted: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What the line is told of one job."""

    job_id: str
    order: Order
    record: Record
    state: ResultState

    @property
    def verdict(self) -> Verdict:
        """An aborted job never passes its part, whatever its record says."""
        return Verdict.ERROR if self.state == ResultState.ABORTED else self.record.judgement.verdict

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """The reasons of the verdict; an aborted job has one of its own."""
        if self.state == ResultState.ABORTED:
            judged = self.record.judgement.verdict.name
            return (Reason("controller.aborted", f"aborted by the line; the record says {judged}"),)
        return self.record.judgement.reasons


@dataclass(frozen=True, slots=True)
class Shown:
    """The two state machines at one moment."""

    vision: Vision
    automatic: Automatic


@dataclass(frozen=True, slots=True)
class JobStarted:
    """A job was accepted."""

    job_id: str


@dataclass(frozen=True, slots=True)
class AcquisitionDone:
    """Every picture of the job is taken: the part may move."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Ready:
    """The next job is welcome; ``job_id`` is the one that ended."""

    job_id: str


@dataclass(frozen=True, slots=True)
class RecipePrepared:
    """A recipe that was asked for is at hand."""

    recipe_id: str


Announcement = Shown | JobStarted | AcquisitionDone | Ready | RecipePrepared | Result


@dataclass(slots=True)
class _Series:
    """StartContinuous in progress: one order, part after part."""

    order: Order
    name: str
    count: int = 0


@dataclass(slots=True)
class Jobs:
    """Who may start what, and what the line is told of it."""

    run: str = field(default_factory=lambda: secrets.token_hex(12))
    recipe_id: str = ""
    recipe_ids: tuple[str, ...] = ()
    results: "OrderedDict[str, Result]" = field(default_factory=OrderedDict)
    preparing: str | None = None
    prepare_refusal: Reason | None = None
    _station: StationState = StationState.PREOPERATIONAL
    _halted: bool = False
    _reset: bool = False
    _unprepared: bool = False
    _count: int = 0
    _job: Job | None = None
    _last_job_id: str = ""
    _series: _Series | None = None
    _waiting: Trigger | None = None
    _wish: PrepareRecipe | None = None
    _shown: Shown = Shown(Vision.PREOPERATIONAL, Automatic.NONE)
    _announced: list[Announcement] = field(default_factory=list)

    @property
    def shown(self) -> Shown:
        """The state machines as they stand."""
        return self._shown

    # The line's side: methods of the address space

    def start_single(self, order: Order, *, now: datetime) -> tuple[str, Refusal]:
        """Accept one part.  A job presented again under its MeasId while it is in progress is accepted, not doubled."""
        running = self._job
        if running is not None and order.meas_id and not running.continuous and running.order == order:
            return running.job_id, Refusal.NONE
        refusal = self._start_refusal(order)
        if refusal:
            return "", refusal
        return self._begin(order, *self._name_of(order), now=now).job_id, Refusal.NONE

    def start_continuous(self, order: Order, *, now: datetime) -> tuple[str, Refusal]:
        """Accept part after part until ``stop``; gives the number of the first job."""
        refusal = self._start_refusal(order)
        if refusal:
            return "", refusal
        if order.meas_id:
            name = _digest(order.meas_id)
        else:
            self._count += 1
            name = _digest(f"{self.run} series {self._count}")
        self._series = _Series(order, name)
        return self._next_of_series(self._series, now).job_id, Refusal.NONE

    def stop(self) -> Refusal:
        """End after the part in hand, which is judged as usual."""
        if self._job is None and self._series is None:
            return self._unwanted()
        self._series = None
        self._show()
        return Refusal.NONE

    def abort(self) -> Refusal:
        """End, and report the part in hand as aborted as soon as it is recorded."""
        if self._job is not None:
            self._job.aborted = True
        return self.stop()

    def halt(self) -> Refusal:
        """Accept nothing until ``reset``; a part in hand is still answered."""
        self._series, self._halted, self._reset = None, True, False
        self._show()
        return Refusal.NONE

    def reset(self) -> Refusal:
        """Leave Halted, or start over, in Preoperational; not while a part is in hand."""
        if self._job is not None or self._series is not None:
            return Refusal.BUSY
        self._halted, self._reset = False, True
        self._show()
        return Refusal.NONE

    def select_automatic(self) -> Refusal:
        """From Preoperational to Operational."""
        if self._shown.vision != Vision.PREOPERATIONAL:
            return Refusal.HALTED if self._halted else Refusal.WRONG_STATE
        if not self._reset:
            return Refusal.NOT_READY  # the station itself is still starting
        self._reset = False
        self._show()
        return Refusal.NONE

    def prepare(self, recipe_id: str) -> Refusal:
        """Ask the station to have a recipe at hand; its answer comes through ``prepared``."""
        refusal = Order(recipe_id=recipe_id).refusal()
        if refusal or not recipe_id:
            return Refusal.BAD_TEXT
        if not self._known(recipe_id):
            return Refusal.UNKNOWN_RECIPE
        if self._shown.vision != Vision.OPERATIONAL:
            return self._unwanted()
        if self.preparing is not None:
            return Refusal.BUSY
        self.preparing, self.prepare_refusal, self._wish = recipe_id, None, PrepareRecipe(recipe_id)
        return Refusal.NONE

    def unprepare(self, recipe_id: str) -> Refusal:
        """Take the recipe away: no job until one is prepared."""
        if not self._known(recipe_id):
            return Refusal.UNKNOWN_RECIPE
        if self._job is not None or self._series is not None or self.preparing is not None:
            return Refusal.BUSY
        if self._shown.vision != Vision.OPERATIONAL:
            return self._unwanted()
        self._unprepared = True
        self._show()
        return Refusal.NONE

    def find(self, name: str) -> Result | None:
        """The kept result with this ResultId, or the last one with this JobId or MeasId."""
        if name in self.results:
            return self.results[name]
        newest_first = reversed(self.results.values())
        return next((one for one in newest_first if name and name in (one.job_id, one.order.meas_id)), None)

    # The station's side

    def take(self, *, now: datetime) -> Trigger | PrepareRecipe | None:
        """The accepted job that nobody has taken yet, a wish, the next part of a series, or None."""
        if self._wish is not None:
            wish, self._wish = self._wish, None
            return wish
        told = not self._announced  # a series runs no faster than the line is told of it
        if self._series is not None and self._job is None and self._station == StationState.READY and told:
            self._next_of_series(self._series, now)
        trigger, self._waiting = self._waiting, None
        return trigger

    def acquired(self, trigger: Trigger) -> None:
        """Tell the line that the part of the job in progress may move."""
        if self._job is not None and self._job.trigger.trigger_id == trigger.trigger_id:
            self._announced.append(AcquisitionDone(self._job.job_id))

    def answer(self, record: Record) -> None:
        """End the job in progress with its record; ControllerError for any other record."""
        job = self._job
        if job is None or asked_as(record) != job.trigger.trigger_id:
            expected = "no part" if job is None else f"part {job.trigger.trigger_id}"
            raise ControllerError(
                f"an answer for trigger {record.trigger.trigger_id} came while {expected} is in progress",
                fix="answer each trigger that wait() returned exactly once",
            )
        state = ResultState.ABORTED if job.aborted else ResultState.COMPLETED
        result = Result(job.job_id, job.order, record, state)
        self.results.pop(record.record_id, None)
        self.results[record.record_id] = result
        while len(self.results) > RESULTS_KEPT:
            self.results.popitem(last=False)
        self._announced.append(result)
        self._job, self._last_job_id = None, job.job_id
        if self._station == StationState.READY:
            self._show()  # otherwise the station says so itself in a moment

    def prepared(self, recipe_id: str, refusal: Reason | None) -> None:
        """The station's answer to ``prepare``."""
        if recipe_id != self.preparing:
            return
        self.preparing, self.prepare_refusal = None, refusal
        if refusal is None:
            self._unprepared = False
            self._announced.append(RecipePrepared(recipe_id))
            self._show()

    def set_state(self, state: StationState) -> None:
        """Show the station's state."""
        self._station = state
        if state in (StationState.HALTED, StationState.ERROR):
            self._series = None
        self._show()

    def drain(self) -> list[Announcement]:
        """What the line has to hear since the last call, oldest first."""
        announced, self._announced = self._announced, []
        return announced

    # Inside

    def _start_refusal(self, order: Order) -> Refusal:
        refusal = order.refusal()
        if refusal:
            return refusal
        if self._halted or self._station == StationState.HALTED:
            return Refusal.HALTED
        if self._job is not None or self._series is not None:
            return Refusal.BUSY
        if order.recipe_id and not self._known(order.recipe_id):
            return Refusal.UNKNOWN_RECIPE
        ready = self._shown.automatic == Automatic.READY and self._station == StationState.READY
        return Refusal.NONE if ready else Refusal.NOT_READY

    def _unwanted(self) -> Refusal:
        return Refusal.HALTED if self._shown.vision == Vision.HALTED else Refusal.WRONG_STATE

    def _known(self, recipe_id: str) -> bool:
        return not self.recipe_ids or recipe_id in self.recipe_ids or recipe_id == self.recipe_id

    def _name_of(self, order: Order) -> tuple[str, int]:
        """The identity of a job and its number: the same MeasId always has the same ones."""
        if order.meas_id:
            digits = _LAST_DIGITS.search(order.meas_id) if order.meas_id.isascii() else None
            return _digest(order.meas_id), int(digits.group(1)) if digits else 0
        self._count += 1
        return self.run, self._count

    def _next_of_series(self, series: _Series, now: datetime) -> Job:
        series.count += 1
        serial = f"{series.order.part_id}-{series.count:06d}" if series.order.part_id else f"{series.count:06d}"
        order = Order(series.order.meas_id, serial, series.order.recipe_id, series.order.product_id, series.order.lot)
        return self._begin(order, series.name, series.count, now=now, continuous=True)

    def _begin(self, order: Order, name: str, number: int, *, now: datetime, continuous: bool = False) -> Job:
        trigger_id = f"{name}-{number:010d}"
        trigger = Trigger(trigger_id, order.part_id, order.lot, order.recipe_id, now, sequence=number)
        self._job = Job(trigger_id, order, trigger, continuous=continuous)
        self._waiting = trigger
        self._show()
        self._announced.append(JobStarted(trigger_id))
        return self._job

    def _show(self) -> None:
        shown = Shown(vision := self._vision(), self._automatic() if vision == Vision.OPERATIONAL else Automatic.NONE)
        if shown == self._shown:
            return
        executed = self._shown.automatic in (Automatic.SINGLE_EXECUTION, Automatic.CONTINUOUS_EXECUTION)
        self._shown = shown
        self._announced.append(shown)
        if executed and shown.automatic == Automatic.READY:
            self._announced.append(Ready(self._last_job_id))

    def _vision(self) -> Vision:
        if self._station == StationState.ERROR:
            return Vision.ERROR
        if self._halted or self._station == StationState.HALTED:
            return Vision.HALTED
        if self._reset or self._station == StationState.PREOPERATIONAL:
            return Vision.PREOPERATIONAL
        return Vision.OPERATIONAL

    def _automatic(self) -> Automatic:
        if self._series is not None or (self._job is not None and self._job.continuous):
            return Automatic.CONTINUOUS_EXECUTION
        if self._job is not None:
            return Automatic.SINGLE_EXECUTION
        if self._unprepared or self._station == StationState.INITIALIZED:
            return Automatic.INITIALIZED
        if self._station == StationState.READY:
            return Automatic.READY
        return self._shown.automatic if self._shown.automatic != Automatic.NONE else Automatic.INITIALIZED


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]
