"""The network cable between a browser and the server: it can be pulled and put back."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


class Cable:
    """Carries bytes both ways until it is pulled; then nothing arrives, and nobody is told."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._to = (parts.hostname or "", parts.port or 0)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(0.1)
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._whole = threading.Event()
        self._whole.set()
        self._ended = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def pull(self) -> None:
        self._whole.clear()

    def put_back(self) -> None:
        self._whole.set()

    def close(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(timeout=10)
        for opened in (*self._sockets, self._listening):
            opened.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                near = self._listening.accept()[0]
            except TimeoutError:
                continue
            far = socket.create_connection(self._to)
            self._sockets += (near, far)
            for source, target in ((near, far), (far, near)):
                source.settimeout(0.1)
                thread = threading.Thread(target=self._carry, args=(source, target), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while not self._ended.is_set():
                try:
                    content = source.recv(65536)
                except TimeoutError:
                    continue
                while not self._whole.is_set() and not self._ended.is_set():
                    time.sleep(0.02)
                if not content:
                    target.shutdown(socket.SHUT_WR)
                    break
                target.sendall(content)


@contextmanager
def cable_to(url: str) -> Iterator[Cable]:
    """A cable to the server at ``url``."""
    cable = Cable(url)
    try:
        yield cable
    finally:
        cable.close()
