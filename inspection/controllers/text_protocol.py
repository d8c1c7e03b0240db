"""The text line of ``tcp_text``: which words there are and what they do.  Pure: no thread, socket or clock.

A line is a word and its fields with one space between them, printable ASCII, at most ``LINE_LIMIT`` characters with its
end.  ``deploy/tcp_text.md`` is the same for the PLC programmer; a test holds the two together.
"""

import re
from collections.abc import Callable
from datetime import datetime

from inspection.controllers import StationState
from inspection.controllers import register_map as at
from inspection.controllers.register_map import Reject, Request
from inspection.errors import ControllerError
from inspection.types import PrepareRecipe, Reason, Record, Trigger

VERSION = 1
LINE_LIMIT = 256  # with CR LF: fits the 255 characters of a PLC's longest plain string
EMPTY = "-"
STATE_WORDS = {
    StationState.PREOPERATIONAL: "Preoperational",
    StationState.HALTED: "Halted",
    StationState.ERROR: "Error",
    StationState.INITIALIZED: "Initialized",
    StationState.READY: "Ready",
    StationState.SINGLE_EXECUTION: "SingleExecution",
    StationState.CONTINUOUS_EXECUTION: "ContinuousExecution",
}
# What each word of the PLC takes.  The words in WRITES make their connection the writer.
TAKES = {
    "TRIGGER": ("run", "sequence", "serial", "lot", "recipe"),
    "ACK": ("run", "sequence"),
    "RESULT?": (),
    "PREPARE": ("recipe",),
    "STATE?": (),
    "RECIPES?": (),
    "VERSION?": (),
    "HEARTBEAT": ("count",),
}
WRITES = frozenset({"TRIGGER", "ACK", "RESULT?", "PREPARE"})
ERRORS = ("BAD_LINE", "BAD_TEXT", "NOT_WRITER", "NO_RESULT", "TOO_LONG", "TOO_MANY", "IDLE", "REPLACED")
_LONGEST = {"serial": 32, "lot": 16, "recipe": 24}
_OUT_OF_SERVICE = (StationState.PREOPERATIONAL, StationState.HALTED, StationState.ERROR)
_REFUSALS = {
    Reject.BUSY: "another part is in progress",
    Reject.NOT_READY: "the station is not in state Ready",
    Reject.BAD_SEQUENCE: "sequence must be 1 or more",
    Reject.REUSED: "run and sequence belong to another part, which is in progress or whose result stands",
    Reject.BAD_TEXT: "serial, lot and recipe are printable ASCII of at most 32, 16 and 24 characters",
}
_MALFORMED = (Reject.BAD_SEQUENCE, Reject.BAD_TEXT)
_NOT_WRITER = "another connection is the writer"


def spell(*fields: object) -> str:
    """The fields as one line without its end: what is not printable ASCII becomes ``?``, and a long line is cut."""
    line = " ".join(str(field) for field in fields)
    return re.sub(r"[^ -~]", "?", line)[: LINE_LIMIT - 2]


def mistake(code: str, text: str) -> str:
    """The answer to a line that is no request; ``code`` is one of ``ERRORS``."""
    return spell("ERROR", code, text)


class TextHandshake:
    """The rules by which both sides change what stands.  Not thread-safe: the caller holds a lock.

    ``obey`` gives the lines that go back to who asked, the other methods the line that is pushed to the writer.
    """

    def __init__(self) -> None:
        self.classes: tuple[str, ...] = ()
        self.recipe_id = ""
        self.recipe_ids: tuple[str, ...] = ()
        self.beats = 0
        self.repeats = self.refused = self.lost_acks = 0
        self._state = StationState.PREOPERATIONAL
        self._accepted: Request | None = None  # the last one
        self._in_progress: Request | None = None
        self._waiting: Trigger | None = None
        self._wish: PrepareRecipe | None = None
        self._wish_taken = False
        self._result: tuple[tuple[int, int], str] | None = None
        self._acknowledged: tuple[int, int] | None = None

    @property
    def ready(self) -> bool:
        """Whether a trigger would be accepted now."""
        return self._state == StationState.READY and self._in_progress is None

    # What the PLC says

    def obey(self, line: str, may_write: Callable[[], bool], *, now: datetime) -> list[str]:
        """Do what one line says and give the lines to answer; ``may_write`` makes the asker the writer if it can."""
        word, *fields = line.split(" ")
        if word not in TAKES:
            bad = not re.fullmatch(r"[ -~]*", line)
            text = "only printable ASCII and CR LF" if bad else f"no such word; known: {' '.join(TAKES)}"
            return [mistake("BAD_TEXT" if bad else "BAD_LINE", text)]
        if len(fields) != len(TAKES[word]) or "" in fields:
            wanted = " ".join((word, *TAKES[word]))
            return [mistake("BAD_LINE", f"wanted: {wanted}; one space between, an empty field is {EMPTY}")]
        values: list[str | int] = [
            _number(text) if name in ("run", "sequence", "count") else "" if text == EMPTY else text
            for name, text in zip(TAKES[word], fields, strict=True)
        ]
        if -1 in values:
            return [mistake("BAD_LINE", "a number is decimal, 0..4294967295")]
        if word in WRITES and not may_write():
            return [self._not_writer(word, fields)]
        return self._do(word, values, now)

    def _do(self, word: str, values: list[str | int], now: datetime) -> list[str]:
        match word, values:
            case "TRIGGER", [int() as run, int() as sequence, str() as serial, str() as lot, str() as recipe]:
                return self._present(Request(run, sequence, serial, lot, recipe), now)
            case "ACK", [int() as run, int() as sequence]:
                return [self._acknowledge((run, sequence))]
            case "RESULT?", _:
                return [self._standing()]
            case "PREPARE", [str() as recipe]:
                return self._prepare(recipe)
            case "STATE?", _:
                return [self.state_line()]
            case "RECIPES?", _:
                listed = [spell("RECIPE", number, name) for number, name in enumerate(self.recipe_ids, 1)]
                return [spell("RECIPES", len(listed)), *listed]
            case "VERSION?", _:
                return [spell("VERSION", VERSION, "lineside")]
        return [spell("HEARTBEAT", self.beats)]

    def _present(self, request: Request, now: datetime) -> list[str]:
        identity, standing, last = (request.run, request.sequence), self._result, self._accepted
        again = last is not None and last.trigger_id == request.trigger_id
        shown = standing is not None and self._state != StationState.READY
        code = self._obstacle(request)
        if again and (self._in_progress is not None or shown):
            # It will be answered once, or its result is there; another part of that number must not get it.
            code = Reject.NONE if request == last else code if code in _MALFORMED else Reject.REUSED
            if not code:
                self.repeats += 1
                return [spell("ACCEPTED", *identity), *([standing[1]] if standing is not None else [])]
        if code:
            self.refused += 1
            return [spell("REFUSED", *identity, code.name, _REFUSALS[code])]
        self.repeats += again
        self.lost_acks += standing is not None and standing[0] != identity
        self._accepted, self._in_progress, self._result = request, request, None
        self._waiting = Trigger(
            request.trigger_id, request.serial, request.lot, request.recipe_id, now, sequence=request.sequence
        )
        return [spell("ACCEPTED", *identity)]

    def _obstacle(self, request: Request) -> Reject:
        texts = zip(("serial", "lot", "recipe"), (request.serial, request.lot, request.recipe_id), strict=True)
        if request.sequence == 0:
            return Reject.BAD_SEQUENCE
        if not all(_fits(name, text) for name, text in texts):
            return Reject.BAD_TEXT
        if self._in_progress is not None:
            return Reject.BUSY
        return Reject.NONE if self._state == StationState.READY else Reject.NOT_READY

    def _acknowledge(self, identity: tuple[int, int]) -> str:
        if self._result is not None and self._result[0] == identity:
            self._result, self._acknowledged = None, identity
        if self._acknowledged == identity:
            return spell("ACKNOWLEDGED", *identity)  # again, for a PLC that did not hear it the first time
        return mistake("NO_RESULT", f"no result of {identity[0]} {identity[1]} stands")

    def _standing(self) -> str:
        if self._in_progress is not None:
            return spell("BUSY", self._in_progress.run, self._in_progress.sequence)
        return self._result[1] if self._result is not None else "NONE"

    def _prepare(self, recipe_id: str) -> list[str]:
        refusal = Reject.NONE
        if not recipe_id or not _fits("recipe", recipe_id):
            refusal = Reject.BAD_TEXT
        elif self._state in _OUT_OF_SERVICE:
            refusal = Reject.NOT_READY
        elif self._wish is not None and self._wish.recipe_id != recipe_id:
            refusal = Reject.BUSY
        if refusal:
            text = "another recipe is being prepared" if refusal == Reject.BUSY else _REFUSALS[refusal]
            return [spell("UNPREPARED", recipe_id or EMPTY, refusal.name, text)]
        self._wish = self._wish or PrepareRecipe(recipe_id)
        return []  # PREPARED or UNPREPARED follows when it is done

    def _not_writer(self, word: str, fields: list[str]) -> str:
        match word:
            case "TRIGGER":
                return spell("REFUSED", *fields[:2], "NOT_WRITER", _NOT_WRITER)
            case "PREPARE":
                return spell("UNPREPARED", fields[0], "NOT_WRITER", _NOT_WRITER)
        return mistake("NOT_WRITER", _NOT_WRITER)

    # What the station says

    def take(self) -> Trigger | PrepareRecipe | None:
        """The accepted trigger, or else the wish for a recipe, that nobody has taken yet."""
        trigger, self._waiting = self._waiting, None
        if trigger is not None or self._wish is None or self._wish_taken:
            return trigger
        self._wish_taken = True
        return self._wish

    def acquired(self, trigger: Trigger) -> str:
        """The line that lets the part of ``trigger`` move; empty when it is not the one in progress."""
        request = self._in_progress
        if request is None or request.trigger_id != trigger.trigger_id:
            return ""
        return spell("ACQUIRED", request.run, request.sequence)

    def answer(self, record: Record) -> str:
        """The result of the part in progress, which stands from now on; ControllerError for any other record."""
        request = self._in_progress
        if request is None or at.asked_as(record) != request.trigger_id:
            expected = "no part" if request is None else f"part {request.trigger_id}"
            raise ControllerError(
                f"an answer for trigger {record.trigger.trigger_id} came while {expected} is in progress",
                fix="answer each trigger that wait() returned exactly once",
            )
        result = at.result_of(record, request.run, self.classes)
        line = spell(
            "RESULT", request.run, request.sequence, result.verdict.name, result.reason_code, result.findings,
            result.processing_ms, record.record_id,
        )  # fmt: skip
        self._result, self._in_progress = ((request.run, request.sequence), line), None
        return line

    def prepared(self, recipe_id: str, refusal: Reason | None) -> str:
        """The line that ends a wish for a recipe."""
        self._wish, self._wish_taken = None, False
        if refusal is None:
            return spell("PREPARED", recipe_id)
        return spell("UNPREPARED", recipe_id, "FAILED", at.reason_code(refusal.rule_id), refusal.text)

    def set_state(self, state: StationState) -> bool:
        """Show the state; true when everybody should hear of it: ready again, or out of service."""
        before, was = self._state, self.ready
        self._state = state
        return (self.ready and not was) or (state != before and state in _OUT_OF_SERVICE)

    def state_line(self) -> str:
        """State, whether a trigger would be accepted, whether a part is in progress, recipe in force, counters."""
        return spell(
            "STATE", STATE_WORDS[self._state], f"ready={int(self.ready)}",
            f"busy={int(self._in_progress is not None)}", f"recipe={self.recipe_id or EMPTY}",
            f"repeats={self.repeats}", f"refused={self.refused}", f"lost_acks={self.lost_acks}",
        )  # fmt: skip


def _number(text: str) -> int:
    """An unsigned decimal number of 32 bits, or -1."""
    value = int(text) if re.fullmatch(r"[0-9]{1,10}", text) else -1
    return value if value <= at.U32_MAX else -1


def _fits(name: str, text: str) -> bool:
    return len(text) <= _LONGEST[name] and re.fullmatch(r"[!-~]*", text) is not None
