"""Who may use the page: whoever opened an address that the program printed, in that browser, for half a day.

Other users of this computer can reach the port as well; they do not have the address.  Each address works once and gives a
cookie, signed with a secret that only this user may read, so that a server that was killed and started again knows its
browsers still.
"""

import hashlib
import hmac
import logging
import os
import secrets
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from starlette.requests import Request

from inspection.log import event
from inspection.web.access import Role, Session, User

LASTS_S = 12 * 3600
_OUTSTANDING = 8  # addresses that were given out and not used; the oldest of more no longer work
_SECRET_BYTES = 32


class Door:
    """The guard of the page; ``name`` tells apart the cookies of several datasets edited on one computer."""

    def __init__(self, who: str, secret: bytes, name: str, *, now: Callable[[], float] = time.time) -> None:
        self.cookie = f"lineside_relabel_{name}"
        self._who = who
        self._secret = secret
        self._now = now
        self._tokens = deque[str](maxlen=_OUTSTANDING)

    def invite(self) -> str:
        """A token that lets one browser in, once."""
        self._tokens.append(secrets.token_urlsafe(_SECRET_BYTES))
        return self._tokens[-1]

    def admit(self, token: str) -> str | None:
        """The cookie of a new session for a token that was given out and not used; else None."""
        found = [known for known in self._tokens if hmac.compare_digest(known.encode(), token.encode())]
        if not found:
            return None
        self._tokens.remove(found[0])
        text = f"{int(self._now())}.{secrets.token_urlsafe(12)}"
        return f"{text}.{self._signed(text)}"

    def session(self, request: Request) -> Session | None:
        """The session of the browser's cookie; None when it has none, a forged one, or its time is over."""
        text, _, signature = request.cookies.get(self.cookie, "").rpartition(".")
        if not text or not hmac.compare_digest(self._signed(text).encode(), signature.encode()):
            return None
        if not 0 <= self._now() - int(text.partition(".")[0]) < LASTS_S:
            return None
        return Session(User(self._who, Role.ENGINEER), self._signed(f"csrf {text}"))

    def login_path(self) -> str:
        """The page that says where to find an address."""
        return "/enter"

    def _signed(self, text: str) -> str:
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()


def kept_secret(file: Path) -> bytes:
    """The secret in a file that only this user may read, made when there is none.

    Where the disk does not take it, one for this run alone: browsers must then be let in again after a restart.
    """
    try:
        state = file.stat()
        content = file.read_bytes()
        if state.st_uid == os.getuid() and not state.st_mode & 0o077 and len(content) == _SECRET_BYTES:
            return content
        file.unlink()
    except FileNotFoundError:
        pass
    except OSError as problem:
        return _unkept(problem)
    fresh = secrets.token_bytes(_SECRET_BYTES)
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as opened:
            opened.write(fresh)
    except OSError as problem:
        return _unkept(problem)
    return fresh


def _unkept(problem: OSError) -> bytes:
    event("relabel.secret_not_kept", level=logging.WARNING, why=problem.strerror)
    return secrets.token_bytes(_SECRET_BYTES)
