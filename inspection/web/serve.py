"""Serves an application until the program is told to stop."""

import socket
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from inspection.errors import UsageError

MOST_CONNECTIONS = 200
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; UsageError when the port is taken or the address is not this computer's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=64)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host} port {port} ({error.strerror or error})",
            fix="choose another port; 0 takes any free one",
        ) from error


def serve(app: ASGIApp, listening: socket.socket, *, certificate: Path | None = None, key: Path | None = None) -> None:
    """Answer until SIGTERM or SIGINT; prints the address once it answers, and lets requests in work finish for 3 s."""
    host, port = listening.getsockname()[:2]
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, date_header=False, proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS, timeout_keep_alive=30, timeout_graceful_shutdown=3, lifespan="on",
        ws="none", ssl_certfile=certificate, ssl_keyfile=key,
    )  # fmt: skip
    shown = f"[{host}]" if ":" in host else host
    print(f"open {'https' if certificate else 'http'}://{shown}:{port}/", flush=True)
    uvicorn.Server(config).run(sockets=[listening])
