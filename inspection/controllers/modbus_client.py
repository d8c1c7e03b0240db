"""Line controller over Modbus TCP for a PLC that only serves: the station is the client and polls.

One thread reads the PLC's registers, lets the ``Handshake`` see them as if the PLC had written them, and writes the whole
station block with one telegram whenever it changed, at least with every heartbeat.  A write that got no reply may have
been carried out all the same, or may be carried out later: so a connection on which a reply failed to come is given
up, nothing is ever written in part, and what stands in the PLC is overwritten again and again until it acknowledges.
"""

import logging
import socket
import threading
import time
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from inspection.controllers import StationState
from inspection.controllers import register_map as at
from inspection.controllers.modbus_frames import (
    HEADER,
    READ,
    WRITE,
    Access,
    BadTelegram,
    Refusal,
    decode_header,
    decode_reply,
    encode_access,
    encode_telegram,
)
from inspection.controllers.modbus_handshake import (
    PLC_REGISTERS,
    STATION_REGISTERS,
    Handshake,
    PlcWatch,
    flags_are_bits,
)
from inspection.controllers.register_map import Reject
from inspection.errors import ControllerError
from inspection.log import event
from inspection.types import PrepareRecipe, Reason, Record, Trigger, utc_now

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
_CLOSE_LIMIT_S = 15.0


class ModbusClientConfig(BaseModel):
    """Where the PLC serves its registers, and how often the station looks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["modbus_client"] = "modbus_client"
    host: Annotated[str, Field(min_length=1, description="Address or name of the PLC.")]
    port: Annotated[int, Field(ge=1, le=65535, description="TCP port of the PLC, 1..65535.")] = 502
    unit_id: Annotated[int, Field(ge=0, le=255, description="Modbus unit identifier of the PLC, 0..255.")] = 1
    plc_block_at: Annotated[
        int, Field(ge=0, le=65_480, description="Holding register of the PLC where registers 0..55 of the map begin.")
    ] = 0
    station_block_at: Annotated[
        int,
        Field(ge=0, le=65_480, description="Holding register of the PLC where registers 100..148 of the map begin."),
    ] = 100
    extended: Annotated[bool, Field(description="Whether the PLC keeps the registers 43..55 and 133..148 as well.")] = (
        True
    )
    poll_ms: Annotated[int, Field(ge=1, le=1000, description="Pause between two readings, ms, 1..1000.")] = 10
    timeout_ms: Annotated[
        int, Field(ge=50, le=10_000, description="Longest time for the PLC to reply or connect, ms, 50..10000.")
    ] = 1000
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

    @model_validator(mode="after")
    def _apart(self) -> "ModbusClientConfig":
        plc, station = registers_read(self), registers_written(self)
        plc_end, station_end = self.plc_block_at + len(plc), self.station_block_at + len(station)
        if self.plc_block_at < station_end and self.station_block_at < plc_end:
            raise ValueError(
                f"plc_block_at {self.plc_block_at} ({len(plc)} registers) and station_block_at "
                f"{self.station_block_at} ({len(station)} registers) overlap"
            )
        return self


def registers_read(config: ModbusClientConfig) -> range:
    """Which registers of the map are read from the PLC."""
    return PLC_REGISTERS if config.extended else range(at.PLC_BLOCK.start, at.PLC_BLOCK.stop)


def registers_written(config: ModbusClientConfig) -> range:
    """Which registers of the map are written to the PLC."""
    return STATION_REGISTERS if config.extended else range(at.STATION_BLOCK.start, at.STATION_BLOCK.stop)


class PlcLink:
    """One connection to the PLC.  After any error it must be closed: a late reply would be taken for another one's.

    Raises OSError (TimeoutError when no reply came in time), BadTelegram or, when the PLC refuses, Refusal.
    """

    def __init__(self, config: ModbusClientConfig) -> None:
        self._config = config
        self._limit_s = config.timeout_ms / 1000
        self._transaction = 0
        self._socket = socket.create_connection((config.host, config.port), timeout=self._limit_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read(self) -> list[int]:
        """The PLC's registers in one telegram."""
        count = len(registers_read(self._config))
        return self._exchange(Access(READ, read_at=self._config.plc_block_at, read_count=count))

    def write(self, words: list[int]) -> None:
        """The station block in one telegram."""
        self._exchange(Access(WRITE, write_at=self._config.station_block_at, words=tuple(words)))

    def close(self) -> None:
        """Give the connection up."""
        self._socket.close()

    def _exchange(self, access: Access) -> list[int]:
        self._transaction = (self._transaction + 1) & at.U16_MAX
        deadline_s = time.monotonic() + self._limit_s
        self._socket.settimeout(self._limit_s)
        self._socket.sendall(encode_telegram(self._transaction, self._config.unit_id, encode_access(access)))
        transaction, _, length = decode_header(self._receive(HEADER.size, deadline_s))
        pdu = self._receive(length, deadline_s)
        if transaction != self._transaction:
            raise BadTelegram(f"reply to transaction {transaction}, asked was {self._transaction}")
        return decode_reply(access, pdu)

    def _receive(self, count: int, deadline_s: float) -> bytes:
        received = b""
        while len(received) < count:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("timed out")  # in the words of the socket: it is one and the same failure
            self._socket.settimeout(left_s)
            if not (part := self._socket.recv(count - len(received))):
                raise ConnectionError("the PLC closed the connection")
            received += part
        return received


class ModbusClientController:
    """Modbus TCP client of one PLC.

    ``open`` does not wait for the PLC: while it is away, and whenever it goes away, the station tries to reach it with
    growing pauses (0.05 to 2 s) and logs the change.  ``classes`` as for the server.
    """

    def __init__(self, config: ModbusClientConfig, *, classes: tuple[str, ...] = ()) -> None:
        self.config = config
        self._handshake = Handshake(classes)
        self._changed = threading.Condition()  # guards the handshake and the two flags
        self._unwritten = False  # the image changed since it was last written
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._watch = PlcWatch(config.plc_timeout_ms, now_s=time.monotonic())
        self._silent, self._sane = False, True
        self._beat_s = 0.0
        self._read = [0] * at.PLC_BLOCK.stop
        self._written: list[int] = []

    def open(self) -> None:
        """Start polling; the PLC may come later."""
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="modbus-client", daemon=True)
        self._thread.start()

    def wait(self, timeout_ms: int) -> Trigger | PrepareRecipe | None:
        """The next trigger or wish, or None after ``timeout_ms``; ControllerError when the polling has stopped."""
        deadline_s = time.monotonic() + timeout_ms / 1000
        with self._changed:
            while (taken := self._handshake.take()) is None:
                left_s = deadline_s - time.monotonic()
                if self._thread is None or not self._thread.is_alive():
                    raise ControllerError(
                        f"the PLC at {self.config.host} port {self.config.port} is not being polled: not running",
                        fix="read the log for its last error, then restart the station",
                    )
                if left_s <= 0:
                    break
                self._changed.wait(left_s)
        return taken

    def answer(self, record: Record) -> None:
        """Publish the result of the trigger in progress; ControllerError when ``record`` belongs to another one."""
        with self._changed:
            self._handshake.answer(record)
            self._write_soon()

    def set_state(self, state: StationState) -> None:
        """Publish the state and, in READY, accept triggers."""
        with self._changed:
            self._handshake.set_state(state)
            self._write_soon()

    def set_recipe(self, recipe_id: str, classes: tuple[str, ...]) -> None:
        """Show the recipe in force; ``classes`` is the order of the count registers from now on."""
        with self._changed:
            self._handshake.set_recipe(recipe_id, classes)
            self._write_soon()

    def set_recipes(self, recipe_ids: tuple[str, ...]) -> None:
        """Nothing to do: the registers hold no list."""

    def acquired(self, trigger: Trigger) -> None:
        """Show that the part may move."""
        with self._changed:
            self._handshake.acquired(trigger)
            self._write_soon()

    def prepared(self, recipe_id: str, refusal: Reason | None) -> None:
        """Show the outcome of the PLC's wish for a recipe."""
        with self._changed:
            self._handshake.prepared(recipe_id, refusal)
            self._write_soon()

    def close(self) -> None:
        """Write what is still unwritten if the PLC is there, and end the connection.  May be called more than once."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        thread.join(timeout=_CLOSE_LIMIT_S)

    def _write_soon(self) -> None:
        self._unwritten = True
        self._changed.notify_all()

    def _run(self) -> None:
        try:
            self._keep_linked()
        finally:
            with self._changed:
                self._changed.notify_all()

    def _keep_linked(self) -> None:
        """One connection after the other until ``close``."""
        pause_s, said = _FIRST_PAUSE_S, ""
        while not self._stopping:
            link: PlcLink | None = None
            try:
                link = PlcLink(self.config)
                self._written = []
                self._cycle(link)
                event("controller.plc_reached", host=self.config.host, port=self.config.port)
                pause_s, said = _FIRST_PAUSE_S, ""
                while not self._stopping:
                    self._pause(self.config.poll_ms / 1000, or_unwritten=True)
                    self._cycle(link)
            except (OSError, BadTelegram, Refusal) as error:
                hint = "; check plc_block_at, station_block_at, extended and unit_id"
                text = f"{error}{hint if isinstance(error, Refusal) else ''}"
                if said != text:  # not once for every attempt
                    said = text
                    event("controller.plc_lost", level=logging.WARNING, host=self.config.host, text=said)
                self._pause(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            finally:
                if link is not None:
                    link.close()

    def _pause(self, limit_s: float, *, or_unwritten: bool = False) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or (or_unwritten and self._unwritten), limit_s)

    def _cycle(self, link: PlcLink) -> None:
        """Read, let the handshake see it, write what changed."""
        words = link.read()
        news = words[at.TRIGGER] == [1] and self._request_in(words) != self._request_in(self._read)
        if news and self._request_in(link.read()) != self._request_in(words):
            words = self._read  # the PLC is still writing it, and its replies are not of one moment
        self._read = words
        shown, rejected = self._take_over(words)
        if shown != self._written:
            link.write(shown)
            self._written = shown
        if rejected:
            event("controller.rejected", level=logging.WARNING, code=rejected.name)

    def _take_over(self, words: list[int]) -> tuple[list[int], Reject]:
        """Let the handshake see the PLC's registers; the station block of that very moment, and a rejection."""
        now_s, sane, rejected = time.monotonic(), flags_are_bits(0, words), Reject.NONE
        with self._changed:
            if sane:
                rejected = self._handshake.plc_wrote(0, words, now=utc_now())
                self._changed.notify_all()
            if now_s - self._beat_s >= self.config.heartbeat_ms / 1000:
                self._handshake.beat()
                self._beat_s = now_s
            still_ms = self._watch.still_ms(self._handshake, now_s=now_s)
            block = registers_written(self.config)
            shown = self._handshake.image[block.start : block.stop]
            self._unwritten = False
        if still_ms and not self._silent:
            event("controller.plc_silent", level=logging.WARNING, still_ms=still_ms)
        if not sane and self._sane:
            event("controller.bad_flags", level=logging.WARNING, text="acknowledge, trigger or prepare is not 0 or 1")
        self._silent, self._sane = bool(still_ms), sane
        return shown, rejected

    @staticmethod
    def _request_in(words: list[int]) -> list[int]:
        return [*words[at.RUN.start : at.RECIPE_ID.stop], *words[at.TRIGGER]]
