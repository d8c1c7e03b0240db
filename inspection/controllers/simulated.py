"""A line controller without a line: it presents parts by itself, in order, and keeps the answers."""

import secrets
import time
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from inspection.controllers import StationState
from inspection.controllers.register_map import asked_as
from inspection.errors import ControllerError
from inspection.types import Reason, Record, Trigger, utc_now

_Text32 = Annotated[str, Field(min_length=1, max_length=32)]


class SimulatedControllerConfig(BaseModel):
    """Which parts the simulated line presents, how fast, and how it misbehaves."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["simulated"] = "simulated"
    parts: Annotated[int, Field(ge=0, description="Parts to present, count; serials SIM-000001 and up.")] = 10
    serials: Annotated[
        tuple[_Text32, ...], Field(description="Serials to present instead of `parts`, each 1..32 characters.")
    ] = ()
    interval_ms: Annotated[
        int, Field(ge=0, le=3_600_000, description="Time from one part to the next, ms, 0..3600000.")
    ] = 0
    lot: Annotated[str, Field(max_length=16, description="Lot of every part, 0..16 characters.")] = "SIM"
    recipe_id: Annotated[
        str, Field(max_length=24, description="Recipe asked for, 0..24 characters; empty = the one in force.")
    ] = ""
    run_number: Annotated[
        int,
        Field(
            ge=0, le=0xFFFF_FFFF, description="Start-up number of the simulated PLC; 0 = a new random one at each open."
        ),
    ] = 0
    faults: Annotated[
        tuple[Literal["double"], ...], Field(description="Misbehaviour: double = every part is presented twice.")
    ] = ()

    @model_validator(mode="after")
    def _one_source_of_parts(self) -> "SimulatedControllerConfig":
        if self.serials and "parts" in self.model_fields_set:
            raise ValueError("give parts or serials, not both")
        return self


class SimulatedController:
    """Presents its parts one after the other while the station is READY; the next one only after an answer.

    ``wait`` sleeps until the next part is due, at most ``timeout_ms``.  ``finished`` turns true with the last answer.
    """

    def __init__(self, config: SimulatedControllerConfig) -> None:
        self.config = config
        self.answers: list[Record] = []
        self._serials = config.serials or tuple(f"SIM-{number:06d}" for number in range(1, config.parts + 1))
        self._times = 2 if "double" in config.faults else 1
        self._run = config.run_number
        self._state = StationState.PREOPERATIONAL
        self._in_progress: Trigger | None = None
        self._due_s = 0.0

    @property
    def finished(self) -> bool:
        """Whether every part was presented and answered."""
        return len(self.answers) == len(self._serials) * self._times

    def set_recipe(self, recipe_id: str, classes: tuple[str, ...]) -> None:
        """Nothing to do: its answers are whole records."""

    def set_recipes(self, recipe_ids: tuple[str, ...]) -> None:
        """Nothing to do: it asks for what its config says."""

    def acquired(self, trigger: Trigger) -> None:
        """Nothing to do: its parts do not move."""

    def prepared(self, recipe_id: str, refusal: Reason | None) -> None:
        """Nothing to do: it never asks for that."""

    def open(self) -> None:
        """Start the line: the first part is due now."""
        self._run = self.config.run_number or secrets.randbelow(0xFFFF_FFFF) + 1
        self._due_s = time.monotonic()

    def wait(self, timeout_ms: int) -> Trigger | None:
        """The next part when it is due, the station READY and the last part answered; at once None when finished."""
        if self.finished:
            return None
        if self._state != StationState.READY or self._in_progress is not None:
            time.sleep(timeout_ms / 1000)
            return None
        left_s = self._due_s - time.monotonic()
        time.sleep(max(0.0, min(left_s, timeout_ms / 1000)))
        if time.monotonic() < self._due_s:
            return None
        self._in_progress = self._next()
        return self._in_progress

    def answer(self, record: Record) -> None:
        """Keep the answer; ControllerError when ``record`` does not belong to the part in progress."""
        current = self._in_progress
        if current is None or asked_as(record) != current.trigger_id:
            expected = "no part" if current is None else f"part {current.trigger_id}"
            raise ControllerError(
                f"an answer for trigger {record.trigger.trigger_id} came while {expected} is in progress",
                fix="answer each trigger that wait() returned exactly once",
            )
        self.answers.append(record)
        self._in_progress = None

    def set_state(self, state: StationState) -> None:
        """Take note of the state; only in READY are parts presented."""
        self._state = state

    def close(self) -> None:
        """Stop the line.  May be called more than once."""
        self._state = StationState.PREOPERATIONAL

    def _next(self) -> Trigger:
        index, repeat = divmod(len(self.answers), self._times)
        if repeat == self._times - 1:
            self._due_s = max(self._due_s, time.monotonic() - self.config.interval_ms / 1000)
            self._due_s += self.config.interval_ms / 1000
        return Trigger(
            trigger_id=f"{self._run:08x}-{index + 1:010d}",
            serial=self._serials[index],
            lot=self.config.lot,
            recipe_id=self.config.recipe_id,
            at=utc_now(),
            sequence=index + 1,
        )
