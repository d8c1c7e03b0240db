"""Line controller over Modbus TCP: the station is the server, the PLC the client.

``Handshake`` is the whole exchange on a register image, without thread, clock or network.  ``ModbusTcpController``
serves that image from its own thread with its own event loop.  Every telegram sees the image under one lock, so a
single read of the station block is always consistent, however the station's thread and the PLC interleave.
The registers and the outcome of every fault are written down in ``deploy/register_map.md``.
"""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from inspection.controllers import StationState
from inspection.controllers import register_map as at
from inspection.controllers.register_map import Reject, Request
from inspection.errors import ControllerError, DriverMissing
from inspection.log import event
from inspection.types import Reason, Record, Trigger, utc_now

if TYPE_CHECKING:
    from pymodbus.constants import ExcCodes

_REGISTER_FUNCTIONS = frozenset({3, 4, 6, 16, 22, 23})
_START_LIMIT_S = 10.0


class ModbusTcpConfig(BaseModel):
    """Where the station listens for the PLC and how both watch each other."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["modbus_tcp"] = "modbus_tcp"
    host: Annotated[
        str, Field(min_length=1, description="Address to listen on; 127.0.0.1 = this machine only, 0.0.0.0 = all.")
    ] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535, description="TCP port, 1..65535; below 1024 needs privileges.")] = 1502
    unit_id: Annotated[
        int, Field(ge=0, le=255, description="Modbus unit identifier, 0..255; 0 answers to every one.")
    ] = 0
    heartbeat_ms: Annotated[
        int, Field(ge=10, le=10_000, description="The station's heartbeat counts up once in so many ms, 10..10000.")
    ] = 100
    plc_timeout_ms: Annotated[
        int,
        Field(
            ge=0,
            le=600_000,
            description="Alarm when the PLC's heartbeat stands still for longer, in ms, 0..600000; 0 = not watched.",
        ),
    ] = 0


class Handshake:
    """The register image and the rules by which both sides change it.  Not thread-safe: the caller holds a lock."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.image = [0] * at.STATION_BLOCK.stop
        self.image[at.VERSION] = [at.PROTOCOL_VERSION]
        self._state = StationState.PREOPERATIONAL
        self._presented: tuple[int, int] | None = None
        self._accepted: tuple[int, int] | None = None
        self._in_progress: Request | None = None
        self._waiting: Trigger | None = None

    def plc_wrote(self, address: int, words: Sequence[int], *, now: datetime) -> Reject:
        """Take over one telegram; give back why the request in it was refused, if it was."""
        triggered, acknowledged = self._flag(at.TRIGGER), self._flag(at.ACKNOWLEDGE)
        end = address + len(words)
        self.image[address:end] = words
        if self._flag(at.ACKNOWLEDGE) and not acknowledged:
            self._clear_result()
        if not (end == at.TRIGGER.stop and self._flag(at.TRIGGER)):
            return Reject.NONE
        identity = (at.decode_u32(self.image[at.RUN]), at.decode_u32(self.image[at.SEQUENCE]))
        if triggered and identity == self._presented:
            return Reject.NONE  # a PLC that writes its block in every cycle: nothing new
        self._presented = identity
        return self._present(identity, now=now)

    def take(self) -> Trigger | None:
        """The accepted trigger that nobody has taken yet."""
        trigger, self._waiting = self._waiting, None
        return trigger

    def answer(self, record: Record) -> None:
        """Put the result of the part in progress into the registers; ControllerError for any other record."""
        request = self._in_progress
        if request is None or at.asked_as(record) != request.trigger_id:
            expected = "no part" if request is None else f"part {request.trigger_id}"
            raise ControllerError(
                f"an answer for trigger {record.trigger.trigger_id} came while {expected} is in progress",
                fix="answer each trigger that wait() returned exactly once",
            )
        self.image[at.RESULT] = at.encode_result(at.result_of(record, request.run, self.classes))
        self._in_progress = None
        self._show_readiness()
        self.image[at.VALID] = [1]

    def set_state(self, state: StationState) -> None:
        """Show the station's state; only READY accepts a trigger."""
        self._state = state
        self._show_readiness()

    def beat(self) -> None:
        """Count the station's heartbeat up."""
        self._count(at.HEARTBEAT)

    def show_plc_silent(self, silent: bool) -> None:
        """Raise or clear the alarm bit for a PLC whose heartbeat stands still."""
        self.image[at.ALARMS] = [at.ALARM_PLC_SILENT if silent else 0]

    def _present(self, identity: tuple[int, int], *, now: datetime) -> Reject:
        shown = (at.decode_u32(self.image[at.ECHO_RUN]), at.decode_u32(self.image[at.ECHO_SEQUENCE]))
        standing = self._flag(at.VALID)
        if self._in_progress is not None and identity == self._accepted:
            self._count(at.REPEATS)  # it will be answered once
            return Reject.NONE
        if standing and identity == shown and self._state != StationState.READY:
            self._count(at.REPEATS)  # its result is there to be read
            return Reject.NONE
        request = self._checked()
        if isinstance(request, Reject):
            return self._reject(request, identity)
        if identity == self._accepted:
            self._count(at.REPEATS)
        if standing and identity != shown:
            self._count(at.LOST_ACKS)
        self._accepted = identity
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


class ModbusTcpController:
    """Modbus TCP server for one PLC.

    ``classes`` are the recipe's defect classes in the order of the count registers; without them every finding counts
    as one of another class.  ``open`` blocks until the port is served; no other method but ``wait`` blocks.  A part
    that was accepted before the state left READY is still handed out by ``wait`` and has to be answered.
    """

    def __init__(self, config: ModbusTcpConfig, *, classes: tuple[str, ...] = ()) -> None:
        self.config = config
        self._handshake = Handshake(classes)
        self._changed = threading.Condition()  # guards the handshake; notified when a telegram changed it
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def open(self) -> None:
        """Start serving; DriverMissing without pymodbus, ControllerError when the port cannot be had."""
        try:
            import pymodbus.server
            import pymodbus.simulator  # noqa: F401
        except ImportError as error:
            raise DriverMissing(
                f"the controller 'modbus_tcp' needs pymodbus 3.16, which cannot be imported: {error}",
                fix='pip install "lineside[modbus]"',
            ) from error
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="modbus-tcp", daemon=True)
        self._thread.start()
        try:
            started.result(timeout=_START_LIMIT_S)
        except (ControllerError, TimeoutError) as error:
            self.close()
            if isinstance(error, ControllerError):
                raise
            raise _not_running(self.config) from error

    def wait(self, timeout_ms: int) -> Trigger | None:
        """The next trigger, or None after ``timeout_ms``; ControllerError when the server has stopped."""
        deadline_s = time.monotonic() + timeout_ms / 1000
        with self._changed:
            while (trigger := self._handshake.take()) is None:
                left_s = deadline_s - time.monotonic()
                if self._thread is None or not self._thread.is_alive():
                    raise _not_running(self.config)
                if left_s <= 0:
                    break
                self._changed.wait(left_s)
        return trigger

    def answer(self, record: Record) -> None:
        """Publish the result of the trigger in progress; ControllerError when ``record`` belongs to another one."""
        with self._changed:
            self._handshake.answer(record)

    def set_state(self, state: StationState) -> None:
        """Publish the state and, in READY, accept triggers."""
        with self._changed:
            self._handshake.set_state(state)

    def set_recipe(self, recipe_id: str, classes: tuple[str, ...]) -> None:
        """Change the order of the count registers; to be called between two parts, when the recipe changes."""
        with self._changed:
            self._handshake.classes = classes

    def set_recipes(self, recipe_ids: tuple[str, ...]) -> None:
        """Nothing to do: the registers hold no list."""

    def acquired(self, trigger: Trigger) -> None:
        """Nothing to do yet."""

    def prepared(self, recipe_id: str, refusal: Reason | None) -> None:
        """Nothing to do: a recipe is asked for with its first part."""

    def close(self) -> None:
        """End every connection and free the port.  May be called more than once."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if self._loop is not None and self._stop is not None and thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        thread.join(timeout=_START_LIMIT_S)

    def _run(self, started: "Future[None]") -> None:
        try:
            asyncio.run(self._serve(started))
        finally:
            if not started.done():
                started.set_exception(_not_running(self.config))
            with self._changed:
                self._changed.notify_all()

    async def _serve(self, started: "Future[None]") -> None:
        from pymodbus.server import ModbusTcpServer
        from pymodbus.simulator import DataType, SimData, SimDevice

        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        device = SimDevice(
            id=self.config.unit_id,
            simdata=[
                SimData(at.PLC_BLOCK.start, count=_length(at.PLC_BLOCK), datatype=DataType.REGISTERS),
                SimData(
                    at.STATION_BLOCK.start, count=_length(at.STATION_BLOCK), datatype=DataType.REGISTERS, readonly=True
                ),
            ],
            action=self._telegram,
        )
        server = ModbusTcpServer(device, address=(self.config.host, self.config.port))
        try:
            await server.serve_forever(background=True)
        except RuntimeError:
            started.set_exception(_cannot_listen(self.config))
            return
        started.set_result(None)
        try:
            await self._beat_until(self._stop)
        finally:
            await server.shutdown()  # type: ignore[no-untyped-call]

    async def _beat_until(self, stop: asyncio.Event) -> None:
        last, changed_s, was_silent = -1, time.monotonic(), False
        while not stop.is_set():
            with self._changed:
                self._handshake.beat()
                seen = self._handshake.image[at.PLC_HEARTBEAT][0]
                if seen != last:
                    last, changed_s = seen, time.monotonic()
                still_ms = (time.monotonic() - changed_s) * 1000
                silent = 0 < self.config.plc_timeout_ms < still_ms
                self._handshake.show_plc_silent(silent)
            if silent and not was_silent:
                event("controller.plc_silent", level=logging.WARNING, still_ms=round(still_ms))
            was_silent = silent
            try:
                await asyncio.wait_for(stop.wait(), self.config.heartbeat_ms / 1000)
            except TimeoutError:
                continue

    async def _telegram(
        self,
        function: int,
        start: int,
        address: int,
        count: int,
        registers: list[int],
        words: list[int] | list[bool] | None,
    ) -> "ExcCodes | None":
        """Called by pymodbus in the event loop before each access: let the handshake see it, then show the image."""
        from pymodbus.constants import ExcCodes

        if function not in _REGISTER_FUNCTIONS:
            return ExcCodes.ILLEGAL_FUNCTION
        rejected = Reject.NONE
        with self._changed:
            if words:
                if not _flags_are_bits(address, words):
                    return ExcCodes.ILLEGAL_VALUE
                rejected = self._handshake.plc_wrote(address, words, now=utc_now())
                self._changed.notify_all()
            shown = self._handshake.image[address : address + count]
        registers[address - start : address - start + count] = shown
        if rejected:
            event("controller.rejected", level=logging.WARNING, code=rejected.name)
        return None


def _length(block: slice) -> int:
    return int(block.stop - block.start)


def _flags_are_bits(address: int, words: Sequence[int]) -> bool:
    flags = (at.ACKNOWLEDGE.start, at.TRIGGER.start)
    return all(word in (0, 1) for register, word in enumerate(words, address) if register in flags)


def _not_running(config: ModbusTcpConfig) -> ControllerError:
    return ControllerError(
        f"the Modbus server on {config.host} port {config.port} is not running",
        fix="read the log for its last error, then restart the station",
    )


def _cannot_listen(config: ModbusTcpConfig) -> ControllerError:
    """Why the port cannot be had: pymodbus only says that it cannot."""
    cause = "it was taken a moment ago"
    try:
        family, kind, _, _, where = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
            probe.listen()
    except OSError as error:
        cause = error.strerror or str(error)
    return ControllerError(
        f"cannot serve the PLC on {config.host} port {config.port}: {cause}",
        fix="end the other program on this port or set another port; host must be an address of this machine, "
        "and a port below 1024 needs privileges",
    )
