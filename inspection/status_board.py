"""The station's end of ``station_link``: it shows its status there, and takes the wishes of people from there.

All disk work is done by a thread of its own.  On a full disk the status is written over the last one, which needs no
space; a frozen disk makes it old, which its reader sees.  The station's own thread only puts the newest status into a slot
and takes a request out of a queue.
"""

import errno
import os
import stat
from contextlib import suppress
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread

from pydantic import ValidationError

from inspection.log import event
from inspection.station_link import (
    MOST_REQUEST_BYTES,
    MOST_REQUESTS,
    REQUEST_AGE_S,
    REQUEST_NAME,
    RecipeRequest,
    StationStatus,
    free_mb,
    requests_folder,
    status_path,
)
from inspection.types import utc_now

POLL_S = 0.25  # how often the folder of requests is looked into
PAUSE_S = 0.1  # between two writes, however often something changes
_MOST_STUCK = 1000


class StatusBoard:
    """Shows the status of one station beside its record store.  Nothing but ``close`` waits, and that a bounded time."""

    def __init__(self, store: Path) -> None:
        self._file, self._folder = status_path(store), requests_folder(store)
        self._status: StationStatus | None = None  # the slot: only the newest counts
        self._requests: SimpleQueue[RecipeRequest] = SimpleQueue()
        self._wake, self._closing = Event(), Event()
        self._stuck: set[str] = set()  # files that were refused and cannot be removed
        self._fault = ""
        self._thread: Thread | None = None

    def open(self) -> None:
        """Begin to write and to look for requests."""
        self._thread = Thread(target=self._run, name="status", daemon=True)
        self._thread.start()

    def show(self, status: StationStatus) -> None:
        """This is how the station is now; free disk space and the time of writing are filled in.  Never blocks."""
        self._status = status
        self._wake.set()

    def requested(self) -> RecipeRequest | None:
        """The next wish of a person; None when there is none.  Never blocks."""
        with suppress(Empty):
            return self._requests.get_nowait()
        return None

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what was shown last, for at most ``timeout_s``; a second call does nothing."""
        if self._thread is not None and not self._closing.is_set():
            self._closing.set()
            self._wake.set()
            self._thread.join(timeout_s)

    def _run(self) -> None:
        with suppress(OSError):  # where it cannot be made, nobody can put a request there either
            self._folder.mkdir(exist_ok=True)
        written: StationStatus | None = None
        while True:
            self._wake.wait(POLL_S)
            last = self._closing.is_set()
            self._wake.clear()
            status = self._status
            if status is not None and status is not written:
                self._write(status)
                written = status
            if last:
                return
            self._collect()
            self._closing.wait(PAUSE_S)

    # ---- status

    def _write(self, status: StationStatus) -> None:
        evidence = status.evidence.model_copy(update={"free_mb": free_mb(Path(status.evidence.folder))})
        told = status.model_copy(
            update={
                "written_at": utc_now(),
                "pid": os.getpid(),
                "evidence": evidence,
                "store_free_mb": free_mb(self._file.parent),
            }
        )
        try:
            self._put(told.model_dump_json().encode())
            self._say("")
        except OSError as error:
            self._say(f"{self._file}: {error.strerror}")

    def _put(self, content: bytes) -> None:
        """Exchange the file whole; where there is no space for another, write over it.  OSError when neither goes."""
        partial = self._file.with_name(f".{self._file.name}.partial")
        try:
            partial.write_bytes(content)  # not flushed: after a power cut it is old anyway
            partial.replace(self._file)
        except OSError as error:
            partial.unlink(missing_ok=True)
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not self._file.exists():
                raise
            with self._file.open("r+b", buffering=0) as file:
                whole = content.ljust(self._file.stat().st_size)  # blanks in the place of what was there
                if file.write(whole) != len(whole):
                    raise OSError(errno.ENOSPC, "the disk took only a part of it") from error
                file.truncate(len(content))

    def _say(self, fault: str) -> None:
        """Log a fault of the disk when it comes and when it goes."""
        if fault != self._fault:
            event("status.not_written" if fault else "status.written", why=fault or "the disk takes it again")
        self._fault = fault

    # ---- requests

    def _collect(self) -> None:
        try:
            with os.scandir(self._folder) as entries:
                names = [entry.name for entry in islice(entries, _MOST_STUCK + MOST_REQUESTS)]
        except OSError:
            return  # as above: no folder, no requests
        found = []
        for name in names:
            if name not in self._stuck and not (name.startswith(".") and self._is_new(name)):
                request = self._taken(name)
                found += [] if request is None else [request]
        for request in sorted(found, key=lambda request: request.at):
            if self._requests.qsize() < MOST_REQUESTS:
                self._requests.put(request)
            else:
                _refuse(request.request_id, f"{MOST_REQUESTS} requests wait already")

    def _is_new(self, name: str) -> bool:
        """Whether a hidden file may still be in the writing."""
        try:
            age_s = utc_now().timestamp() - (self._folder / name).lstat().st_mtime
        except OSError:
            return True
        return abs(age_s) < REQUEST_AGE_S

    def _taken(self, name: str) -> RecipeRequest | None:
        """The request in a file, which is removed; None when it is none."""
        path = self._folder / name
        try:
            content = _read(path)
            path.unlink()
        except FileNotFoundError:
            return None  # who asked took it back
        except OSError as error:
            if len(self._stuck) < _MOST_STUCK:
                self._stuck.add(name)
            _refuse(name, f"it cannot be read and removed ({error.strerror})")
            return None
        return _request(name, content)


def _read(path: Path) -> bytes:
    """At most one byte more than a request may have; OSError for anything but a plain file."""
    opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        return os.read(opened, MOST_REQUEST_BYTES + 1) if stat.S_ISREG(os.fstat(opened).st_mode) else b""
    finally:
        os.close(opened)


def _request(name: str, content: bytes) -> RecipeRequest | None:
    if not REQUEST_NAME.fullmatch(name) or len(content) > MOST_REQUEST_BYTES:
        _refuse(name, f"a request has another name and at most {MOST_REQUEST_BYTES} bytes")
        return None
    try:
        request = RecipeRequest.model_validate_json(content)
    except ValidationError as error:
        _refuse(name, f"it is not valid: {', '.join('.'.join(map(str, row['loc'])) for row in error.errors()[:8])}")
        return None
    if f"{request.request_id}.json" != name:
        _refuse(name, "it names another request")
        return None
    return request


def _refuse(name: str, why: str) -> None:
    event("request.refused", file=name[:80], why=why)


def is_too_old(request: RecipeRequest) -> bool:
    """Whether a wish was made for another moment, as before a station was started."""
    return abs((utc_now() - request.at).total_seconds()) > REQUEST_AGE_S
