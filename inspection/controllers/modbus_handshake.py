"""The whole exchange with a PLC on a register image, without thread, clock or network.

The server lets each telegram of the PLC pass through ``plc_wrote``; the client hands it the PLC's registers as often as
it reads them.  The registers and the outcome of every fault are written down in ``deploy/register_map.md``.
"""

from collections.abc import Sequence
from datetime import datetime

from inspection.controllers import StationState
from inspection.controllers import register_map as at
from inspection.controllers.register_map import PrepareStatus, Reject, Request
from inspection.errors import ControllerError
from inspection.types import PrepareRecipe, Reason, Record, Trigger

PLC_REGISTERS = range(at.PLC_BLOCK.start, at.PREPARE_BLOCK.stop)
STATION_REGISTERS = range(at.STATION_BLOCK.start, at.MORE_BLOCK.stop)
_FLAGS = (at.ACKNOWLEDGE, at.TRIGGER, at.PREPARE)
_PART = slice(at.SERIAL.start, at.RECIPE_ID.stop)


def flags_are_bits(address: int, words: Sequence[int]) -> bool:
    """Whether each flag among ``words``, which begin at ``address``, is 0 or 1."""
    flags = {flag.start for flag in _FLAGS}
    return all(word in (0, 1) for register, word in enumerate(words, address) if register in flags)


class Handshake:
    """The register image and the rules by which both sides change it.  Not thread-safe: the caller holds a lock."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.image = [0] * at.MORE_BLOCK.stop
        self.image[at.VERSION] = [at.PROTOCOL_VERSION]
        self._classes = classes
        self._state = StationState.PREOPERATIONAL
        self._presented: tuple[int, int] | None = None
        self._described: list[int] = []  # serial, lot and recipe id as they were presented
        self._accepted: tuple[int, int] | None = None
        self._accepted_part: list[int] = []
        self._in_progress: Request | None = None
        self._waiting: Trigger | None = None
        self._wish: PrepareRecipe | None = None
        self._preparing: str | None = None

    def plc_wrote(self, address: int, words: Sequence[int], *, now: datetime) -> Reject:
        """Take over one telegram; give back why the request in it was refused, if it was."""
        triggered, acknowledged, preparing = map(self._flag, (at.TRIGGER, at.ACKNOWLEDGE, at.PREPARE))
        end = address + len(words)
        self.image[address:end] = words
        self.image[at.TRIGGER_SEEN] = self.image[at.TRIGGER]
        if self._flag(at.ACKNOWLEDGE) and not acknowledged:
            self._clear_result()
        if self._flag(at.PREPARE) != preparing:
            self._prepare(self._flag(at.PREPARE))
        if not (address <= at.TRIGGER.start < end and self._flag(at.TRIGGER)):
            return Reject.NONE
        identity = (at.decode_u32(self.image[at.RUN]), at.decode_u32(self.image[at.SEQUENCE]))
        described, self._described = self._described, self.image[_PART]
        if triggered and identity == self._presented:  # a PLC that writes its block in every cycle
            reused = identity == self._accepted and described != self._described != self._accepted_part
            return self._reject(Reject.REUSED, identity) if reused else Reject.NONE
        self._presented = identity
        return self._present(identity, now=now)

    def take(self) -> Trigger | PrepareRecipe | None:
        """The accepted trigger, else the recipe to prepare, that nobody has taken yet."""
        if self._waiting is not None:
            trigger, self._waiting = self._waiting, None
            return trigger
        wish, self._wish = self._wish, None
        return wish

    def acquired(self, trigger: Trigger) -> None:
        """Show that every picture of the part in progress is taken."""
        if self._in_progress is not None and self._in_progress.trigger_id == trigger.trigger_id:
            self.image[at.ACQUIRED] = [1]

    def answer(self, record: Record) -> None:
        """Put the result of the part in progress into the registers; ControllerError for any other record."""
        request = self._in_progress
        if request is None or at.asked_as(record) != request.trigger_id:
            expected = "no part" if request is None else f"part {request.trigger_id}"
            raise ControllerError(
                f"an answer for trigger {record.trigger.trigger_id} came while {expected} is in progress",
                fix="answer each trigger that wait() returned exactly once",
            )
        self.image[at.RESULT] = at.encode_result(at.result_of(record, request.run, self._classes))
        self._in_progress = None
        self._show_readiness()
        self.image[at.VALID] = [1]

    def prepared(self, recipe_id: str, refusal: Reason | None) -> None:
        """Show the outcome of the wish, unless the PLC has taken it back or wants another recipe by now."""
        if recipe_id == self._preparing:
            status = PrepareStatus.PREPARED if refusal is None else PrepareStatus.REFUSED
            self._show_prepare(status, "" if refusal is None else refusal.rule_id)

    def set_state(self, state: StationState) -> None:
        """Show the station's state; only READY accepts a trigger."""
        self._state = state
        self._show_readiness()

    def set_recipe(self, recipe_id: str, classes: tuple[str, ...]) -> None:
        """Show the recipe in force; ``classes`` is the order of the count registers."""
        self._classes = classes
        self.image[at.RECIPE_IN_FORCE] = at.encode_text(recipe_id, at.RECIPE_IN_FORCE.stop - at.RECIPE_IN_FORCE.start)

    def beat(self) -> None:
        """Count the station's heartbeat up."""
        self._count(at.HEARTBEAT)

    def show_plc_silent(self, silent: bool) -> None:
        """Raise or clear the alarm bit for a PLC whose heartbeat stands still."""
        self.image[at.ALARMS] = [at.ALARM_PLC_SILENT if silent else 0]

    def _present(self, identity: tuple[int, int], *, now: datetime) -> Reject:
        shown = (at.decode_u32(self.image[at.ECHO_RUN]), at.decode_u32(self.image[at.ECHO_SEQUENCE]))
        standing = self._flag(at.VALID)
        under_way = self._in_progress is not None and identity == self._accepted
        if under_way or (standing and identity == shown and self._state != StationState.READY):
            if self._described != self._accepted_part:
                return self._reject(Reject.REUSED, identity)  # the result of that number belongs to another part
            self._count(at.REPEATS)  # it will be answered once, or its result is there to be read
            return Reject.NONE
        request = self._checked()
        if isinstance(request, Reject):
            return self._reject(request, identity)
        if identity == self._accepted:
            self._count(at.REPEATS)
        if standing and identity != shown:
            self._count(at.LOST_ACKS)
        self._accepted, self._accepted_part = identity, self._described
        self._accept(request, now)
        return Reject.NONE

    def _checked(self) -> Request | Reject:
        request = at.decode_request(self.image)
        if isinstance(request, Reject):
            return request
        if self._in_progress is not None:
            return Reject.BUSY
        return request if self._state == StationState.READY else Reject.NOT_READY

    def _accept(self, request: Request, now: datetime) -> None:
        self._clear_result()
        self.image[at.ACQUIRED] = [0]
        self._in_progress = request
        self._waiting = Trigger(
            request.trigger_id, request.serial, request.lot, request.recipe_id, now, sequence=request.sequence
        )
        self._show_readiness()

    def _reject(self, code: Reject, identity: tuple[int, int]) -> Reject:
        self.image[at.REJECT_RUN] = at.encode_u32(identity[0])
        self.image[at.REJECT_SEQUENCE] = at.encode_u32(identity[1])
        self.image[at.REJECT_CODE] = [int(code)]
        self._count(at.REJECTS)
        return code

    def _prepare(self, wanted: bool) -> None:
        """Note the wish, or take it back; a later wish replaces one that nobody has taken."""
        self._wish = self._preparing = None
        if not wanted:
            self._show_prepare(PrepareStatus.NONE)
            return
        try:
            recipe_id = at.decode_text(self.image[at.PREPARE_RECIPE_ID])
        except ValueError:
            recipe_id = ""
        if not recipe_id:
            self._show_prepare(PrepareStatus.REFUSED, "recipe.unknown")
            return
        self._wish, self._preparing = PrepareRecipe(recipe_id), recipe_id
        self._show_prepare(PrepareStatus.PREPARING)

    def _show_prepare(self, status: PrepareStatus, rule_id: str = "") -> None:
        self.image[at.PREPARE_STATUS] = [int(status)]
        self.image[at.PREPARE_REASON] = [at.reason_code(rule_id) if rule_id else 0]

    def _clear_result(self) -> None:
        self.image[at.VALID] = [0]
        self.image[at.RESULT] = [0] * (at.RESULT.stop - at.RESULT.start)

    def _show_readiness(self) -> None:
        busy = self._in_progress is not None
        self.image[at.STATE] = [int(self._state)]
        self.image[at.BUSY] = [int(busy)]
        self.image[at.TRIGGER_READY] = [int(self._state == StationState.READY and not busy)]

    def _count(self, register: slice) -> None:
        self.image[register] = [(self.image[register][0] + 1) & at.U16_MAX]

    def _flag(self, register: slice) -> bool:
        return bool(self.image[register][0])


class PlcWatch:
    """Notices a PLC whose heartbeat stands still for longer than ``limit_ms``; 0 = nobody is missed."""

    def __init__(self, limit_ms: int, *, now_s: float) -> None:
        self._limit_ms = limit_ms
        self._last, self._moved_s = -1, now_s

    def still_ms(self, handshake: Handshake, *, now_s: float) -> int:
        """Show the alarm in the registers; for how long the heartbeat stands too long, 0 when all is well."""
        seen = handshake.image[at.PLC_HEARTBEAT][0]
        if seen != self._last:
            self._last, self._moved_s = seen, now_s
        still_ms = round((now_s - self._moved_s) * 1000)
        silent = 0 < self._limit_ms < still_ms
        handshake.show_plc_silent(silent)
        return still_ms if silent else 0
