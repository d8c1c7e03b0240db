"""The station's pages as one application: who is asking, what there is, in which order.

A page module has ``routes(context) -> list[Route]``, made with ``inspection.web.shell.page``; its templates lie in
``inspection/hmi/templates``, its files in ``inspection/hmi/static`` and are served below ``/static/hmi``.
"""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request

from inspection.config import StationConfig, is_loopback
from inspection.hmi import accounts_page, board, pictures, recipe_page, review_page, trace_page
from inspection.hmi.context import Context
from inspection.trace_text import plain
from inspection.web.access import Link, Role, Session
from inspection.web.shell import READING, make_app

HERE = Path(__file__).parent
PAGES = (board, pictures, review_page, recipe_page, trace_page, accounts_page)
LINKS = (
    Link("/", "nav_board"),
    Link("/review", "nav_review", Role.REVIEWER),
    Link("/recipe", "nav_recipe"),
    Link("/trace", "nav_trace"),
    Link("/accounts", "nav_accounts", Role.ENGINEER),
    Link("/audit", "nav_audit", Role.ENGINEER),
)
LOG_IN = "/login"


class AccountsGuard:
    """Finds the session of a request by its cookie."""

    def __init__(self, context: Context, *, secure: bool) -> None:
        self.accounts = context.accounts
        # Two stations' pages on one computer differ in their port only, which cookies do not look at.
        name = hashlib.sha256(str(context.store).encode()).hexdigest()[:8]
        self.cookie = f"{'__Host-' if secure else ''}lineside_{name}"

    def session(self, request: Request) -> Session | None:
        """The session whose token the cookie holds; None when it has ended."""
        return self.accounts.session(request.cookies.get(self.cookie, ""), used=_by_a_person(request))

    def login_path(self) -> str:
        """The log-in page."""
        return LOG_IN


def make_hmi(config: StationConfig) -> Starlette:
    """The application; its context is ``app.state.context``, closed when the server stops."""
    context = Context(config)
    secure = bool(config.hmi.tls_certificate)
    routes = [route for module in PAGES for route in module.routes(context)]
    app = make_app(
        routes, guard=AccountsGuard(context, secure=secure), templates=[HERE / "templates"],
        static={"hmi": HERE / "static"}, language=config.hmi.language, local_only=is_loopback(config.hmi.host),
        secure=secure, links=LINKS, context=context, lifespan=_closing,
    )  # fmt: skip
    app.state.environment.filters["plain"] = plain  # for names from outside: nothing in them turns the writing around
    return app


@asynccontextmanager
async def _closing(app: Starlette) -> AsyncIterator[None]:
    try:
        yield
    finally:
        app.state.context.close()


def _by_a_person(request: Request) -> bool:
    """Whether somebody asked for a page or sent a change; not what a page does by itself (pictures, streams, renewals)."""
    headers = request.headers
    if headers.get("x-by-itself"):
        return False
    asked = headers.get("sec-fetch-mode", "navigate") == "navigate" or "hx-request" in headers
    return asked or request.method not in READING
