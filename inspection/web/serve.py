"""Serves an application until the program is told to stop."""

import resource
import signal
import socket
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from inspection.errors import UsageError, system_words
from inspection.web.steady import SteadyProtocol

MOST_FILES = 8192  # open at once: connections that are not yet through with the TLS greeting need one each, too
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; UsageError when the port is taken or the address is not this computer's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=64)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host} port {port} ({system_words(error)})",
            fix="end the other program on this port or choose another one; the address must be one of this computer",
        ) from error


def server_for(app: ASGIApp, *, certificate: Path | None = None, key: Path | None = None) -> uvicorn.Server:
    """A server of one process; ``run(sockets=[...])`` answers until ``should_exit``."""
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, date_header=False, proxy_headers=False,
        timeout_keep_alive=30, timeout_graceful_shutdown=3, lifespan="on", ws="none", http=SteadyProtocol,
        loop="asyncio", ssl_certfile=certificate, ssl_keyfile=key,
    )  # fmt: skip
    return uvicorn.Server(config)


def serve(app: ASGIApp, listening: socket.socket, *, certificate: Path | None = None, key: Path | None = None) -> None:
    """Answer until SIGTERM or SIGINT; prints the address once it answers, and lets requests in work finish for 3 s."""
    # The server hands a signal on once it has ended; there it must not end the program a second time.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < MOST_FILES:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard), hard)
        )
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"open {'https' if certificate else 'http'}://{shown}:{port}/", flush=True)
    server_for(app, certificate=certificate, key=key).run(sockets=[listening])
