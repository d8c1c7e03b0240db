"""Server-sent events to one browser: bounded in time, and given up when the browser does not take what it is sent."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from inspection.log import event

SEND_S = 5.0  # a browser that takes nothing for so long is let go


def message(name: str, text: str) -> bytes:
    """One event; every line of the text is marked, so that no text can be taken for another event."""
    lines = "".join(f"data: {line}\n" for line in text.splitlines() or [""])
    return f"event: {name}\n{lines}\n".encode("utf-8", "replace")


class EventStream(Response):
    """Sends what ``messages`` gives until it ends or the browser goes; then calls ``ended``."""

    media_type = "text/event-stream"

    def __init__(self, messages: AsyncIterator[bytes], ended: Callable[[], None]) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._messages = messages
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one browser."""
        sending = asyncio.create_task(self._send(send))
        leaving = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
                with suppress(asyncio.CancelledError, OSError, TimeoutError):
                    await task
            self._ended()

    async def _send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        await send(start)
        try:
            async for content in self._messages:
                body = {"type": "http.response.body", "body": content, "more_body": True}
                await asyncio.wait_for(send(body), SEND_S)
            await asyncio.wait_for(send({"type": "http.response.body", "body": b""}), SEND_S)
        except TimeoutError:
            event("page.too_slow", level=logging.WARNING)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
