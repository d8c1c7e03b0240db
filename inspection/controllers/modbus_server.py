"""Connections of a Modbus TCP server: who may write, how long silence is borne, what is done about rubbish.

Every connection has a coroutine of its own that reads one telegram, replies and reads the next, so a peer that sends
slowly, nothing, or rubbish holds up nobody else, and no more than one receive buffer of it is kept.  The kernel's
keep-alive ends a half-open connection after about 14 s.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from inspection.controllers.modbus_frames import (
    HEADER,
    Access,
    BadTelegram,
    Code,
    Refusal,
    decode_access,
    decode_header,
    encode_refusal,
    encode_reply,
    encode_telegram,
)
from inspection.log import event

TELEGRAM_LIMIT_S = 2.0  # from the first byte of a telegram to its last, and for a reply to be taken
_KEEP_ALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 3}  # 5 + 3 * 3 = 14 s
_UNSENT_LIMIT_MS = 14_000
_RECEIVE_LIMIT = 1024  # bytes; a telegram has at most 260
_COMPLAIN_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What is borne: number of connections, silence of the writer and of any connection, seconds."""

    connections: int
    writer_idle_s: float
    idle_s: float


@dataclass(slots=True, eq=False)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    peer: str
    heard_s: float
    proven: bool = False  # has sent a whole telegram
    complained: bool = False


class RegisterServer:
    """Serves holding registers.  ``access`` gives the registers read, or raises Refusal; called in the event loop."""

    def __init__(self, access: Callable[[Access], list[int]], unit_id: int, limits: ServerLimits) -> None:
        self._access = access
        self._unit_id = unit_id
        self._limits = limits
        self._server: asyncio.Server | None = None
        self._connections: dict[_Connection, asyncio.Task[None] | None] = {}
        self._owner: _Connection | None = None  # of the write side
        self._complained_s = -_COMPLAIN_EVERY_S
        self._unsaid = 0

    async def open(self, host: str, port: int) -> None:
        """Listen; OSError when the address or port cannot be had."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=_RECEIVE_LIMIT)

    async def close(self) -> None:
        """Free the port and end every connection."""
        if self._server is None:
            return
        self._server.close()
        tasks = [task for task in self._connections.values() if task is not None]
        for connection in self._connections:
            connection.writer.transport.abort()
        if tasks:
            await asyncio.wait(tasks, timeout=TELEGRAM_LIMIT_S)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername") or ("?", 0)
        connection = _Connection(reader, writer, f"{peer[0]}:{peer[1]}", time.monotonic())
        if not self._room():
            self._complain("controller.connection_refused", connection, f"{self._limits.connections} are served")
            writer.transport.abort()
            return
        self._connections[connection] = asyncio.current_task()
        try:
            _watch_over(writer.get_extra_info("socket"))
            writer.transport.set_write_buffer_limits(high=0)
            while True:
                await self._telegram(connection)
        except BadTelegram as error:
            self._complain("controller.bad_telegram", connection, str(error))
        except TimeoutError:
            self._complain("controller.connection_silent", connection, "no whole telegram in time")
        except (asyncio.IncompleteReadError, OSError):
            pass  # the peer is gone: its own affair
        finally:
            del self._connections[connection]
            writer.transport.abort()

    async def _telegram(self, connection: _Connection) -> None:
        """Read one telegram and reply to it; TimeoutError when the peer is silent or too slow."""
        async with asyncio.timeout(self._limits.idle_s):
            first = await connection.reader.readexactly(1)
        async with asyncio.timeout(TELEGRAM_LIMIT_S):
            header = first + await connection.reader.readexactly(HEADER.size - 1)
            transaction, unit, length = decode_header(header)
            pdu = await connection.reader.readexactly(length)
        connection.heard_s, connection.proven = time.monotonic(), True
        connection.writer.write(encode_telegram(transaction, unit, self._reply(connection, unit, pdu)))
        async with asyncio.timeout(TELEGRAM_LIMIT_S):
            await connection.writer.drain()
        await asyncio.sleep(0)  # a peer that sends many at once gets its turn and no more

    def _reply(self, connection: _Connection, unit: int, pdu: bytes) -> bytes:
        try:
            if self._unit_id not in (0, unit):
                raise Refusal(Code.NO_SUCH_UNIT)
            access = decode_access(pdu)
            if access.writes and not self._may_write(connection):
                raise Refusal(Code.BUSY)
            return encode_reply(access, self._access(access))
        except Refusal as refusal:
            return encode_refusal(pdu[0], refusal.code)

    def _may_write(self, connection: _Connection) -> bool:
        """Whether the write side is this connection's, or is free and now becomes its."""
        owner = self._owner
        if owner is not connection:
            if owner is not None and self._is_alive(owner):
                if not connection.complained:
                    connection.complained = True
                    event(
                        "controller.second_writer",
                        level=logging.WARNING,
                        refused=connection.peer,
                        writer=owner.peer,
                    )
                return False
            self._owner = connection
            event("controller.writer", peer=connection.peer, before=owner.peer if owner else "")
        return True

    def _is_alive(self, owner: _Connection) -> bool:
        silent_s = time.monotonic() - owner.heard_s
        return owner in self._connections and not owner.reader.at_eof() and silent_s < self._limits.writer_idle_s

    def _room(self) -> bool:
        """Whether one more may come; a connection that never sent a telegram has to make room."""
        staying = [one for one in self._connections if not one.writer.transport.is_closing()]
        if len(staying) < self._limits.connections:
            return True
        unproven = [one for one in staying if not one.proven]
        if unproven:
            min(unproven, key=lambda one: one.heard_s).writer.transport.abort()
        return bool(unproven)

    def _complain(self, word: str, connection: _Connection, text: str) -> None:
        """Log what a peer did wrong, at most once a second, so that rubbish does not fill the log either."""
        now_s = time.monotonic()
        if now_s - self._complained_s < _COMPLAIN_EVERY_S:
            self._unsaid += 1
            return
        event(word, level=logging.WARNING, peer=connection.peer, text=text, unsaid=self._unsaid)
        self._complained_s, self._unsaid = now_s, 0


def _watch_over(connection: socket.socket) -> None:
    """Let the kernel find out that the peer is gone; TCP_* names differ between systems."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in {**_KEEP_ALIVE, "TCP_USER_TIMEOUT": _UNSENT_LIMIT_MS}.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
