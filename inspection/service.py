"""Tells systemd that the station is ready, alive and stopping (sd_notify(3)); does nothing where no systemd listens."""

import os
import socket

from inspection.log import event


class Service:
    """The line to the service manager.  Never blocks and never raises: a deaf systemd must not stop the line."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    def ready(self, status: str) -> None:
        """The station answers triggers from now on."""
        self._tell(f"READY=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        """What `systemctl status` shows."""
        self._tell(f"STATUS={status}")

    def alive(self) -> None:
        """The station's own thread is not stuck; to be called more often than twice in WatchdogSec."""
        self._tell("WATCHDOG=1")

    def stopping(self) -> None:
        """The part in hand is finished, then the program ends."""
        self._tell("STOPPING=1")

    def close(self) -> None:
        """Give the socket back; a second call does nothing."""
        made, self._socket = self._socket, None
        if made is not None:
            made.close()

    def _tell(self, text: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto(text.encode(), self._address)
        except OSError as error:
            event("service.deaf", why=str(error))
