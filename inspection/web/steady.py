"""The server's side of a connection: one that dawdles, or one of very many, never keeps the others from being answered."""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 200
REQUEST_S = 30.0  # from the connection, or the first byte of a request, to its last one
TAKEN_S = 60.0  # in which a browser must have taken some of an answer that waits for it


class SteadyProtocol(H11Protocol):
    """HTTP/1.1 with a time limit for sending a request and for taking its answer.

    Beyond ``MOST_CONNECTIONS`` the one that has waited longest without a whole request is closed for the new one; when
    all of them are being answered, the new one is.
    """

    idle_since = 0.0
    _sending: asyncio.TimerHandle | None = None
    _taking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take it among the others, or make room for it."""
        super().connection_made(transport)
        self.idle_since = self.loop.time()
        self._sending = self.loop.call_later(REQUEST_S, transport.abort)
        if len(self.connections) > MOST_CONNECTIONS:
            self._make_room()

    def _make_room(self) -> None:
        others = (
            one for one in self.connections if isinstance(one, SteadyProtocol) and one is not self and one.is_idle
        )
        # Those that never sent a whole request first: the others are browsers that will ask again.
        oldest = min(others, key=lambda one: (one.cycle is not None, one.idle_since), default=self)
        self.connections.discard(oldest)
        oldest.transport.abort()

    @property
    def is_idle(self) -> bool:
        """Whether no request of it is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        """Read on; a request that has begun must end in time."""
        super().data_received(data)
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            self._sending = self._sending or self.loop.call_later(REQUEST_S, self.transport.abort)
        else:
            self._stop("_sending")

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self.idle_since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The browser takes its answer slower than it is made."""
        super().pause_writing()
        self._taking = self._taking or self.loop.call_later(TAKEN_S, self.transport.abort)

    def resume_writing(self) -> None:
        """It took some."""
        super().resume_writing()
        self._stop("_taking")

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        self._stop("_sending")
        self._stop("_taking")
        super().connection_lost(exc)

    def _stop(self, clock: str) -> None:
        timer: asyncio.TimerHandle | None = getattr(self, clock)
        if timer is not None:
            timer.cancel()
        setattr(self, clock, None)
