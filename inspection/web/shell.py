"""The application around every page: who asks, which language, CSRF, security headers, errors in words.

Endpoints are plain functions of a request, run in a worker thread, or coroutines.  What a browser sent with a change is
read before: ``request.state.form`` (a form) or ``request.state.json`` (anything else).
"""

import hmac
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlencode

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inspection.errors import InspectionError
from inspection.log import event
from inspection.web.access import NOBODY, Guard, Link, Role, Session
from inspection.web.texts import LANGUAGES, NAMES, Language, choose, words

HERE = Path(__file__).parent
BODY_LIMIT = 8_000_000  # bytes of a request
STRANGER_LIMIT = 64_000  # bytes of a request of who has not logged in
_LIMIT = "lineside.body_limit"
READING = {"GET", "HEAD"}
VISITOR = "lineside_visitor"  # the cookie with the CSRF token of a browser that has not logged in
LANGUAGE = "lineside_language"
YEAR_S = 365 * 24 * 3600
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
Endpoint = Callable[[Request], Response] | Callable[[Request], Awaitable[Response]]


class Refused(HTTPException):
    """A request that is refused: ``word`` names what is said (``what_WORD``, ``fix_WORD``), ``named`` fills that in."""

    def __init__(self, status: int, word: str, **named: str | Role) -> None:
        super().__init__(status, word)
        self.word = word
        self.named = named


def make_app(
    pages: Sequence[BaseRoute], *, guard: Guard, templates: Sequence[Path] = (), static: Mapping[str, Path] | None = None,
    language: Language = "en", local_only: bool = True, secure: bool = False, links: Sequence[Link] = (),
    lifespan: Any = None, **shared: Any,
) -> Starlette:  # fmt: skip
    """An application of pages made by ``page``.

    ``templates`` are further folders of templates, ``static`` further folders of files, served below ``/static/NAME``;
    ``local_only`` refuses requests whose Host is not this computer (DNS rebinding); ``secure`` marks cookies for TLS
    only.  ``links`` is the navigation in the header, ``lifespan`` Starlette's.  ``shared`` is found again in ``request.app.state``.
    """
    mounts = [
        Mount(f"/static/{name}", StaticFiles(directory=folder), name=name) for name, folder in (static or {}).items()
    ]
    routes = [*pages, *mounts, Mount("/static", StaticFiles(directory=HERE / "static"), name="static")]
    errors: Any = {HTTPException: _http_error, InspectionError: _own_error}
    app = Starlette(routes=routes, exception_handlers=errors, lifespan=lifespan)
    app.add_middleware(_Bounded, local_only=local_only, secure=secure)
    environment = Environment(
        loader=ChoiceLoader([FileSystemLoader(folder) for folder in (*templates, HERE / "templates")]),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    app.state.environment, app.state.guard, app.state.language, app.state.secure = environment, guard, language, secure
    app.state.links = tuple(links)
    for name, value in shared.items():
        setattr(app.state, name, value)
    return app


def page(path: str, endpoint: Endpoint, *, role: Role = Role.OPERATOR, methods: Sequence[str] = ("GET",)) -> Route:
    """A route for those of ``role`` and above; every method but GET and HEAD needs the session's CSRF token."""

    async def guarded(request: Request) -> Response:
        state = request.state
        session = await run_in_threadpool(request.app.state.guard.session, request)
        state.user = session.user if session else NOBODY
        state.confined = bool(session and session.confined_to)
        visitor = request.cookies.get(_visitor(request), "")[:100]
        request.scope[_LIMIT] = BODY_LIMIT if session else STRANGER_LIMIT
        state.csrf_token = session.csrf_token if session else visitor or secrets.token_urlsafe(24)
        state.language = _language(request)
        if state.user.role < role:
            response = _refused(request, session, role)
        elif session and session.confined_to and request.url.path not in session.confined_to and role > Role.NOBODY:
            response = _sent_to(request, session.confined_to[0])
        else:
            if request.method not in READING:
                await _read(request, visitor if session is None else session.csrf_token)
            response = await _answer(endpoint, request)
        _set_cookies(request, response, session)
        return response

    return Route(path, guarded, methods=list(methods), name=path)


def _language(request: Request) -> Language:
    """What the address asks for, or was chosen before, or else the site's own."""
    kept = choose(request.cookies.get(LANGUAGE, ""), request.app.state.language)
    return choose(request.query_params.get("lang", ""), kept)


async def _answer(endpoint: Endpoint, request: Request) -> Response:
    """What the endpoint answers; also an unforeseen error becomes a page with all headers."""
    try:
        if iscoroutinefunction(endpoint):
            return cast(Response, await endpoint(request))
        return await run_in_threadpool(cast(Callable[[Request], Response], endpoint), request)
    except (HTTPException, InspectionError):
        raise
    except Exception as error:
        event("page.failed", level=logging.ERROR, path=request.url.path, error=error)
        return _said(request, 500, f"unforeseen {type(error).__name__}", "the log of the page's program says more")


def render(request: Request, template: str, *, section: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page from a template, with the words of ``section`` as ``t`` and those of every page."""
    state = request.state
    made = request.app.state.environment.get_template(template)
    t = words(state.language, section)
    confined = getattr(state, "confined", False)
    links = [link for link in request.app.state.links if link.role <= state.user.role and not confined]

    def in_language(code: str) -> str:
        return f"{request.url.path}?{urlencode({**request.query_params, 'lang': code})}"

    text = made.render(
        t=t, user=state.user, csrf_token=state.csrf_token, language=state.language, languages=NAMES, Role=Role,
        path=request.url.path, in_language=in_language, links=links,
        can_leave=bool(request.app.state.guard.login_path()), **values,
    )  # fmt: skip
    return HTMLResponse(text, status_code=status)


def wants_json(request: Request) -> bool:
    """Whether a script asks, not a person."""
    return "application/json" in request.headers.get("accept", "")


async def _read(request: Request, token: str) -> None:
    """What came with a change, after its token was found right."""
    request.state.form, request.state.json = {}, None
    kind = request.headers.get("content-type", "")
    given = request.headers.get("x-csrf-token", "")
    # Cookies do not tell the ports of a computer apart, the browser does.
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Refused(403, "origin")
    if kind.startswith(("application/x-www-form-urlencoded", "multipart/form-data")):
        form = await request.form(max_files=4, max_fields=200)
        request.state.form = form
        given = given or str(form.get("csrf_token", ""))
    elif body := await request.body():
        try:
            request.state.json = json.loads(body)
        except ValueError as error:
            raise HTTPException(400, f"this is no JSON: {error}") from error
    if not token or not hmac.compare_digest(token.encode(), given.encode()):
        raise Refused(403, "stale")


def _refused(request: Request, session: Session | None, role: Role) -> Response:
    login = request.app.state.guard.login_path()
    if session is None and login:
        if request.headers.get("hx-request"):
            return Response(status_code=401, headers={"HX-Redirect": login})
        if request.method in READING and not wants_json(request):
            wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            return RedirectResponse(f"{login}?next={quote(wanted)}", status_code=303)
        raise Refused(401, "log_in")
    raise Refused(403, "role", role=role, person=session.user.name if session else "-")


def _sent_to(request: Request, path: str) -> Response:
    """What a session that is confined to one page gets elsewhere."""
    if request.headers.get("hx-request"):
        return Response(status_code=403, headers={"HX-Redirect": path})
    if request.method in READING and not wants_json(request):
        return RedirectResponse(path, status_code=303)
    raise Refused(403, "password")


def _set_cookies(request: Request, response: Response, session: Session | None) -> None:
    secure = request.app.state.secure
    if session is None and request.cookies.get(_visitor(request)) != request.state.csrf_token:
        response.set_cookie(
            _visitor(request), request.state.csrf_token, httponly=True, samesite="strict", secure=secure
        )
    if request.query_params.get("lang") in LANGUAGES:
        response.set_cookie(
            LANGUAGE, request.state.language, max_age=YEAR_S, httponly=True, samesite="strict", secure=secure
        )


def _visitor(request: Request) -> str:
    """Under TLS a name that no page without it can set."""
    return f"__Host-{VISITOR}" if request.app.state.secure else VISITOR


def _said(request: Request, status: int, what: str, fix: str = "") -> Response:
    """An error in words, as a page or as JSON."""
    a_script = request.method not in READING and "text/html" not in request.headers.get("accept", "")
    if wants_json(request) or a_script or request.headers.get("hx-request"):
        return JSONResponse({"what": what, "fix": fix}, status_code=status)
    state = request.state
    state.user = getattr(state, "user", NOBODY)
    state.csrf_token = getattr(state, "csrf_token", "")
    state.language = _language(request)
    return render(request, "error.html", section="error", status=status, what=what, fix=fix, number=status)


async def _http_error(request: Request, error: Exception) -> Response:
    status = int(getattr(error, "status_code", 500))
    detail = str(getattr(error, "detail", error))
    language = _language(request)
    t = words(language, "error")
    if not isinstance(error, Refused):
        what = t["what_404"] if (status, detail) == (404, "Not Found") else detail  # what Starlette itself says
        return _said(request, status, what, t.get(f"fix_{status}", ""))
    what, fix = t[f"what_{error.word}"], t[f"fix_{error.word}"]
    for name, value in error.named.items():
        shown = words(language, "accounts")[f"role_{value.name.lower()}"] if isinstance(value, Role) else value
        what, fix = what.replace(f"{{{name}}}", shown), fix.replace(f"{{{name}}}", shown)
    return _said(request, status, what, fix)


async def _own_error(request: Request, error: Exception) -> Response:
    return _said(request, 409, getattr(error, "what", str(error)), getattr(error, "fix", ""))


class _Bounded:
    """Sets the headers of every answer; refuses foreign hosts and bodies beyond the limit."""

    def __init__(self, app: ASGIApp, *, local_only: bool, secure: bool) -> None:
        self.app = app
        self.local_only = local_only
        self.headers = {**HEADERS, "Strict-Transport-Security": f"max-age={YEAR_S}"} if secure else HEADERS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        taken = 0

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            limit = scope.get(_LIMIT, STRANGER_LIMIT)
            if taken > limit:
                raise HTTPException(413, f"more than {limit} bytes were sent")
            return message

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self.headers.items():
                    headers[name] = value
                if not scope["path"].startswith("/static/"):
                    headers.setdefault("Cache-Control", "no-store")
                else:
                    headers["Cache-Control"] = "no-cache"
            await send(message)

        host = Request(scope).headers.get("host", "").rpartition(":")
        name = host[0] if host[1] and host[2].isdecimal() else "".join(host)
        if self.local_only and name not in LOCAL_HOSTS:
            refusal = JSONResponse({"what": "this is the page of another computer", "fix": ""}, status_code=421)
            await refusal(scope, receive, with_headers)
            return
        await self.app(scope, bounded, with_headers)
