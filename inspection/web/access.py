"""Who is asking, and what they may do."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from starlette.requests import Request


class Role(IntEnum):
    """Each may do what those before it may; NOBODY is who has not logged in."""

    NOBODY = 0
    OPERATOR = 1
    REVIEWER = 2
    ENGINEER = 3


@dataclass(frozen=True, slots=True)
class User:
    """A person as the pages know them."""

    name: str
    role: Role


NOBODY = User("", Role.NOBODY)


@dataclass(frozen=True, slots=True)
class Session:
    """One log-in in one browser; ``csrf_token`` is what a page of this session must send with each change.

    ``confined_to`` are the only paths open to it, the first of them its page: a first password must be changed before
    anything else.  Empty = all that its role may see.
    """

    user: User
    csrf_token: str
    confined_to: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Link:
    """An entry of the navigation: shown to those of ``role`` and above, ``word`` names its text."""

    path: str
    word: str
    role: Role = Role.OPERATOR


class Guard(Protocol):
    """Finds the session of a request.  Called in a worker thread for every page; may read a database."""

    def session(self, request: Request) -> Session | None:
        """The session that the request's cookie belongs to; None when there is none or it has ended."""

    def login_path(self) -> str:
        """Where a person without a session is sent; "" when there is no log-in."""


class OnePerson:
    """The guard of a page that one person serves to themselves, on this computer only: no log-in, the token still counts."""

    def __init__(self, name: str, csrf_token: str) -> None:
        self._session = Session(User(name, Role.ENGINEER), csrf_token)

    def session(self, request: Request) -> Session | None:
        """Always this person."""
        return self._session

    def login_path(self) -> str:
        """None."""
        return ""


def role_named(name: str) -> Role:
    """The role of this name in small letters; ValueError for another."""
    allowed: Sequence[str] = [role.name.lower() for role in Role if role is not Role.NOBODY]
    if name not in allowed:
        raise ValueError(f"{name!r} is no role; there are: {', '.join(allowed)}")
    return Role[name.upper()]
