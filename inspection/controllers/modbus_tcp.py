"""Line controller over Modbus TCP: the station is the server, the PLC the client.

``ModbusTcpController`` serves the image of a ``Handshake`` from its own thread with its own event loop.  Every telegram
sees the image under one lock, so a single read of the station block is always consistent, however the station's thread
and the PLC interleave.
"""

import asyncio
import logging
import threading
import time
from concurrent.futures import Future
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from inspection.controllers import StationState
from inspection.controllers.modbus_frames import Access, Code, Refusal
from inspection.controllers.modbus_handshake import (
    PLC_REGISTERS,
    STATION_REGISTERS,
    Handshake,
    PlcWatch,
    flags_are_bits,
)
from inspection.controllers.modbus_server import RegisterServer, ServerLimits
from inspection.controllers.register_map import Reject
from inspection.errors import ControllerError, system_words
from inspection.log import event
from inspection.types import PrepareRecipe, Reason, Record, Trigger, utc_now

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
    writer_idle_ms: Annotated[
        int,
        Field(
            ge=1000,
            le=600_000,
            description="Another connection may write once the one that writes has sent nothing for so long, "
            "ms, 1000..600000.",
        ),
    ] = 10_000
    idle_ms: Annotated[
        int,
        Field(
            ge=1000,
            le=86_400_000,
            description="A connection that sends nothing for so long is closed, ms, 1000..86400000.",
        ),
    ] = 60_000
    max_connections: Annotated[
        int, Field(ge=1, le=64, description="Connections served at a time, 1..64; further ones are closed.")
    ] = 8


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
        """Start serving; ControllerError when the port cannot be had."""
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

    def wait(self, timeout_ms: int) -> Trigger | PrepareRecipe | None:
        """The next trigger or wish, or None after ``timeout_ms``; ControllerError when the server has stopped."""
        deadline_s = time.monotonic() + timeout_ms / 1000
        with self._changed:
            while (taken := self._handshake.take()) is None:
                left_s = deadline_s - time.monotonic()
                if self._thread is None or not self._thread.is_alive():
                    raise _not_running(self.config)
                if left_s <= 0:
                    break
                self._changed.wait(left_s)
        return taken

    def answer(self, record: Record) -> None:
        """Publish the result of the trigger in progress; ControllerError when ``record`` belongs to another one."""
        with self._changed:
            self._handshake.answer(record)

    def set_state(self, state: StationState) -> None:
        """Publish the state and, in READY, accept triggers."""
        with self._changed:
            self._handshake.set_state(state)

    def set_recipe(self, recipe_id: str, classes: tuple[str, ...]) -> None:
        """Show the recipe in force; ``classes`` is the order of the count registers from now on."""
        with self._changed:
            self._handshake.set_recipe(recipe_id, classes)

    def set_recipes(self, recipe_ids: tuple[str, ...]) -> None:
        """Nothing to do: the registers hold no list."""

    def acquired(self, trigger: Trigger) -> None:
        """Show that the part may move."""
        with self._changed:
            self._handshake.acquired(trigger)

    def prepared(self, recipe_id: str, refusal: Reason | None) -> None:
        """Show the outcome of the PLC's wish for a recipe."""
        with self._changed:
            self._handshake.prepared(recipe_id, refusal)

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
        config, self._loop, self._stop = self.config, asyncio.get_running_loop(), asyncio.Event()
        limits = ServerLimits(config.max_connections, config.writer_idle_ms / 1000, config.idle_ms / 1000)
        server = RegisterServer(self._telegram, config.unit_id, limits)
        try:
            await server.open(config.host, config.port)
        except OSError as error:
            started.set_exception(_cannot_listen(config, error))
            return
        started.set_result(None)
        try:
            await self._beat_until(self._stop)
        finally:
            await server.close()

    async def _beat_until(self, stop: asyncio.Event) -> None:
        watch, was_silent = PlcWatch(self.config.plc_timeout_ms, now_s=time.monotonic()), False
        while not stop.is_set():
            with self._changed:
                self._handshake.beat()
                still_ms = watch.still_ms(self._handshake, now_s=time.monotonic())
            if still_ms and not was_silent:
                event("controller.plc_silent", level=logging.WARNING, still_ms=still_ms)
            was_silent = bool(still_ms)
            try:
                await asyncio.wait_for(stop.wait(), self.config.heartbeat_ms / 1000)
            except TimeoutError:
                continue

    def _telegram(self, access: Access) -> list[int]:
        """Called in the event loop for each telegram: let the handshake see it, then give what it reads."""
        read_end, rejected = access.read_at + access.read_count, Reject.NONE
        if access.read_count and not any(
            access.read_at in block and read_end <= block.stop for block in (PLC_REGISTERS, STATION_REGISTERS)
        ):
            raise Refusal(Code.ILLEGAL_ADDRESS)
        with self._changed:
            if access.writes:
                rejected = self._plc_writes(access)
                self._changed.notify_all()
            shown = self._handshake.image[access.read_at : read_end]
        if rejected:
            event("controller.rejected", level=logging.WARNING, code=rejected.name)
        return shown

    def _plc_writes(self, access: Access) -> Reject:
        """Take over what the telegram writes, all of it or, with a Refusal, nothing."""
        at, words = access.write_at, access.words
        if not (at in PLC_REGISTERS and at + max(1, len(words)) <= PLC_REGISTERS.stop):
            raise Refusal(Code.ILLEGAL_ADDRESS)
        if access.mask is not None:
            keep, put = access.mask
            words = (self._handshake.image[at] & keep | put & ~keep,)
        if not flags_are_bits(at, words):
            raise Refusal(Code.ILLEGAL_VALUE)
        return self._handshake.plc_wrote(at, words, now=utc_now())


def _not_running(config: ModbusTcpConfig) -> ControllerError:
    return ControllerError(
        f"the Modbus server on {config.host} port {config.port} is not running",
        fix="read the log for its last error, then restart the station",
    )


def _cannot_listen(config: ModbusTcpConfig, error: OSError) -> ControllerError:
    return ControllerError(
        f"cannot serve the PLC on {config.host} port {config.port}: {system_words(error)}",
        fix="end the other program on this port or set another port; host must be an address of this machine, "
        "and a port below 1024 needs privileges",
    )
