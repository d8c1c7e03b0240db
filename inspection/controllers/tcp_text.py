"""Line controller over plain text lines on TCP, as PLC programmers know it from smart cameras.

The station is the server.  Its thread runs an event loop of its own; what each line does is in ``text_protocol``, and
what the PLC programmer needs is in ``deploy/tcp_text.md``.  Lines that the station's thread causes are handed to the
loop in order, so an answer never overtakes the word that its part was accepted.
"""

import asyncio
import logging
import socket
import threading
import time
from concurrent.futures import Future
from typing import Annotated, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from inspection.controllers import StationState
from inspection.controllers.text_protocol import LINE_LIMIT, TextHandshake, mistake, spell
from inspection.errors import ControllerError, system_words
from inspection.log import event
from inspection.types import PrepareRecipe, Reason, Record, Trigger, utc_now

_START_LIMIT_S = 10.0
_CLOSE_LIMIT_S = 1.0
_OUTPUT_LIMIT = 65_536  # bytes that a peer may leave unread beyond what its and our TCP buffers hold
_LOG_PAUSE_S = 1.0
_BAD_LINES = 20  # so many wrong lines on end, and the peer is something else than a PLC


class TcpTextConfig(BaseModel):
    """Where the station listens for the PLC, and when it takes a connection for dead."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["tcp_text"] = "tcp_text"
    host: Annotated[
        str, Field(min_length=1, description="Address to listen on; 127.0.0.1 = this machine only, 0.0.0.0 = all.")
    ] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535, description="TCP port, 1..65535; below 1024 needs privileges.")] = 8500
    heartbeat_ms: Annotated[
        int,
        Field(
            ge=0,
            le=60_000,
            description="The station sends HEARTBEAT once in so many ms, 0..60000; 0 = only as the answer to one.",
        ),
    ] = 1000
    silent_ms: Annotated[
        int,
        Field(
            ge=50,
            le=600_000,
            description="A writer that said nothing for so many ms may be replaced by another connection, 50..600000.",
        ),
    ] = 3000
    idle_ms: Annotated[
        int,
        Field(ge=100, le=3_600_000, description="A connection that says nothing for so many ms is closed."),
    ] = 60_000
    connections: Annotated[
        int, Field(ge=1, le=64, description="Connections at a time, one of them the writer, count, 1..64.")
    ] = 4


class _Link(asyncio.Protocol):
    """One connection: cuts what comes into lines, bounded both ways."""

    def __init__(self, server: "TcpTextController") -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._pending = bytearray()
        self._bad_lines = 0
        self.heard_s = time.monotonic()
        self.peer = "?"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.peer = str((transport.get_extra_info("peername") or "?")[0])
        _watch(transport.get_extra_info("socket"), self._server.config.idle_ms)
        self._server.welcome(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.forget(self)

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while (end := self._pending.find(b"\n")) >= 0 and not self.closing:
            line = self._pending[:end].removesuffix(b"\r").decode("latin-1")
            del self._pending[: end + 1]
            self.heard_s = time.monotonic()  # whole lines only: bytes that trickle in are no sign of life
            if len(line) > LINE_LIMIT - 2:
                return self.drop("TOO_LONG", f"a line has at most {LINE_LIMIT} characters")
            if line:
                self._count(self._server.obey(self, line))
        if len(self._pending) >= LINE_LIMIT:
            self.drop("TOO_LONG", f"a line has at most {LINE_LIMIT} characters and ends in CR LF")
        return None

    @property
    def closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def tell(self, *lines: str) -> None:
        """Send lines; a peer that does not read what it is sent is cut off."""
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write("".join(f"{line}\r\n" for line in lines).encode("ascii"))
        if self._transport.get_write_buffer_size() > _OUTPUT_LIMIT:
            event("controller.peer_dropped", level=logging.WARNING, peer=self.peer, why="does not read")
            self._transport.abort()

    def drop(self, code: str, text: str) -> None:
        """Tell the peer why and close."""
        event("controller.peer_dropped", level=logging.WARNING, peer=self.peer, why=code)
        self.tell(mistake(code, text))
        self.close()

    def close(self) -> None:
        """Close; a peer that does not read is not waited for."""
        if self._transport is not None:
            unread = self._transport.get_write_buffer_size()
            (self._transport.abort if unread else self._transport.close)()

    def _count(self, good: bool) -> None:
        self._bad_lines = 0 if good else self._bad_lines + 1
        if self._bad_lines >= _BAD_LINES:
            self.drop("BAD_LINE", f"{_BAD_LINES} wrong lines on end")


class TcpTextController:
    """Text server for one PLC that triggers, and a few connections that only ask.

    ``open`` blocks until the port is served; no other method but ``wait`` blocks.  A part that was accepted before the
    state left READY is still handed out by ``wait`` and has to be answered.
    """

    def __init__(self, config: TcpTextConfig) -> None:
        self.config = config
        self._handshake = TextHandshake()
        self._changed = threading.Condition()  # guards the handshake; notified when a line changed it
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._links: list[_Link] = []  # this and what follows belong to the loop
        self._writer: _Link | None = None
        self._refusals, self._quiet_until_s = 0, 0.0

    # The station's side

    def open(self) -> None:
        """Start serving; ControllerError when the port cannot be had."""
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="tcp-text", daemon=True)
        self._thread.start()
        try:
            started.result(timeout=_START_LIMIT_S)
        except (ControllerError, TimeoutError) as error:
            self.close()
            if isinstance(error, ControllerError):
                raise
            raise _not_running(self.config) from error

    def set_recipe(self, recipe_id: str, classes: tuple[str, ...]) -> None:
        """Name the recipe in force in the state line."""
        with self._changed:
            self._handshake.recipe_id, self._handshake.classes = recipe_id, classes

    def set_recipes(self, recipe_ids: tuple[str, ...]) -> None:
        """The answer to RECIPES?."""
        with self._changed:
            self._handshake.recipe_ids = recipe_ids

    def wait(self, timeout_ms: int) -> Trigger | PrepareRecipe | None:
        """The next trigger or wish for a recipe, or None after ``timeout_ms``; ControllerError when nobody serves."""
        deadline_s = time.monotonic() + timeout_ms / 1000
        with self._changed:
            while (wanted := self._handshake.take()) is None:
                left_s = deadline_s - time.monotonic()
                if self._thread is None or not self._thread.is_alive():
                    raise _not_running(self.config)
                if left_s <= 0:
                    break
                self._changed.wait(left_s)
        return wanted

    def acquired(self, trigger: Trigger) -> None:
        """Tell the PLC that the part may move."""
        with self._changed:
            self._push(self._handshake.acquired(trigger))

    def answer(self, record: Record) -> None:
        """Send the result of the trigger in progress; ControllerError when ``record`` belongs to another one."""
        with self._changed:
            self._push(self._handshake.answer(record))

    def prepared(self, recipe_id: str, refusal: Reason | None) -> None:
        """Tell the PLC that its recipe is at hand, or why not."""
        with self._changed:
            self._push(self._handshake.prepared(recipe_id, refusal))

    def set_state(self, state: StationState) -> None:
        """Take over the state; all connections hear of it when triggers are accepted again, or no more."""
        with self._changed:
            if self._handshake.set_state(state):
                self._push(self._handshake.state_line(), everybody=True)

    def close(self) -> None:
        """End every connection and free the port.  May be called more than once."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        with self._changed:
            if self._loop is not None and self._stop is not None:
                self._loop.call_soon_threadsafe(self._stop.set)
        thread.join(timeout=_START_LIMIT_S)

    def _push(self, line: str, *, everybody: bool = False) -> None:
        if line and self._loop is not None:
            self._loop.call_soon_threadsafe(self._send, line, everybody)

    # The loop's side

    def welcome(self, link: _Link) -> None:
        """Take a connection in; beyond the limit the one that was silent for longest makes room, or nobody does."""
        if len(self._links) >= self.config.connections:
            oldest = min(self._links, key=lambda known: known.heard_s)
            if not self._is_silent(oldest):
                return link.drop("TOO_MANY", f"{self.config.connections} connections are open")
            self.forget(oldest)
            oldest.drop("REPLACED", "another connection took the place of this silent one")
        self._links.append(link)
        event("controller.connected", peer=link.peer, connections=len(self._links))
        return None

    def forget(self, link: _Link) -> None:
        """A connection is gone; its part goes on and its result stands."""
        if link in self._links:
            self._links.remove(link)
            event("controller.disconnected", peer=link.peer, writer=link is self._writer)
        if link is self._writer:
            self._writer = None

    def obey(self, link: _Link, line: str) -> bool:
        """Do what a line says and answer it; false when it was no request."""
        with self._changed:
            answers = self._handshake.obey(line, lambda: self._may_write(link), now=utc_now())
            self._changed.notify_all()
        link.tell(*answers)
        refused = [answer for answer in answers if answer.startswith(("REFUSED", "UNPREPARED", "ERROR"))]
        if refused:
            self._note_refusal(link, refused[0])
        return not any(answer.startswith("ERROR BAD_") for answer in refused)

    def _note_refusal(self, link: _Link, answer: str) -> None:
        """Log it, at most once a second: a PLC that tries again in every cycle does not fill the disk."""
        self._refusals += 1
        if time.monotonic() >= self._quiet_until_s:
            event("controller.rejected", level=logging.WARNING, peer=link.peer, answer=answer, count=self._refusals)
            self._refusals, self._quiet_until_s = 0, time.monotonic() + _LOG_PAUSE_S

    def _may_write(self, link: _Link) -> bool:
        writer = self._writer
        if writer is not None and writer is not link:
            if not self._is_silent(writer):
                return False
            writer.drop("REPLACED", "another connection became the writer while this one was silent")
        self._writer = link
        return True

    def _is_silent(self, link: _Link) -> bool:
        return (time.monotonic() - link.heard_s) * 1000 > self.config.silent_ms

    def _send(self, line: str, everybody: bool) -> None:
        for link in tuple(self._links) if everybody else (self._writer,):
            if link is not None:
                link.tell(line)

    def _run(self, started: "Future[None]") -> None:
        try:
            asyncio.run(self._serve(started))
        finally:
            if not started.done():
                started.set_exception(_not_running(self.config))
            with self._changed:
                self._changed.notify_all()

    async def _serve(self, started: "Future[None]") -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            server = await loop.create_server(lambda: _Link(self), self.config.host, self.config.port)
        except OSError as error:
            started.set_exception(_cannot_listen(self.config, error))
            return
        with self._changed:
            self._loop, self._stop = loop, stop
        started.set_result(None)
        try:
            await self._watch_until(stop)
        finally:
            with self._changed:
                self._loop = None
            server.close()
            await self._say_goodbye()

    async def _watch_until(self, stop: asyncio.Event) -> None:
        beat_s = self.config.heartbeat_ms / 1000
        tick_s = min(beat_s or 1.0, self.config.idle_ms / 4000, 1.0)
        next_s = time.monotonic() + beat_s
        while not stop.is_set():
            now_s = time.monotonic()
            for link in tuple(self._links):
                if (now_s - link.heard_s) * 1000 > self.config.idle_ms:
                    link.drop("IDLE", f"nothing was said for {self.config.idle_ms} ms")
            if beat_s and now_s >= next_s:
                next_s = now_s + beat_s
                with self._changed:
                    self._handshake.beats += 1
                    line = spell("HEARTBEAT", self._handshake.beats)
                self._send(line, everybody=True)
            try:
                await asyncio.wait_for(stop.wait(), tick_s)
            except TimeoutError:
                continue

    async def _say_goodbye(self) -> None:
        for link in tuple(self._links):
            link.close()
        limit_s = time.monotonic() + _CLOSE_LIMIT_S
        while self._links and time.monotonic() < limit_s:
            await asyncio.sleep(0.001)


def _watch(peer: socket.socket, idle_ms: int) -> None:
    """Let the kernel find out about a peer that is gone without a word: cable pulled, power cut."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", idle_ms)):
        if hasattr(socket, name):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _not_running(config: TcpTextConfig) -> ControllerError:
    return ControllerError(
        f"the text server on {config.host} port {config.port} is not running",
        fix="read the log for its last error, then restart the station",
    )


def _cannot_listen(config: TcpTextConfig, error: OSError) -> ControllerError:
    return ControllerError(
        f"cannot serve the PLC on {config.host} port {config.port}: {system_words(error)}",
        fix="end the other program on this port or set another port; host must be an address of this machine, "
        "and a port below 1024 needs privileges",
    )
