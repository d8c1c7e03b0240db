"""Log-in, own password, accounts and audit."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from inspection.errors import InspectionError, StoreError
from inspection.hmi.accounts import ABSOLUTE_S, AuditEntry, LogInRefused
from inspection.hmi.context import Context
from inspection.hmi.passwords import Busy, NotTaken
from inspection.hmi.people_file import LONGEST_NAME
from inspection.web.access import Role
from inspection.web.shell import page, render
from inspection.web.texts import Language, words

SECTION = "accounts"
ENTRIES = 50  # of the audit on a page
# Details of the audit whose values have words.
_VALUES = {"role": "role", "before": "role", "locked": "locked"}
ACTIONS = ("add", "role", "password", "disable", "enable", "unlock")


def own_path(wanted: str) -> str:
    """A path of these pages to go on to; "/" for anything that would lead elsewhere."""
    plain = wanted.isascii() and wanted.isprintable() and "\\" not in wanted and len(wanted) <= 2000
    if not plain or not wanted.startswith("/") or wanted.startswith("//"):
        return "/"
    path = urlsplit(wanted).path
    return "/" if path in ("/login", "/logout") or "//" in path else wanted


def routes(context: Context) -> list[Route]:
    """The pages of this module."""
    pages = _AccountPages(context)
    return [
        page("/login", pages.ask, role=Role.NOBODY),
        page("/login", pages.log_in, role=Role.NOBODY, methods=("POST",)),
        page("/logout", pages.log_out, role=Role.NOBODY, methods=("POST",)),
        page("/password", pages.ask_password),
        page("/password", pages.change_password, methods=("POST",)),
        page("/accounts", pages.show, role=Role.ENGINEER),
        *(page(f"/accounts/{what}", pages.change, role=Role.ENGINEER, methods=("POST",)) for what in ACTIONS),
        page("/audit", pages.show_audit, role=Role.ENGINEER),
    ]


class _AccountPages:
    def __init__(self, context: Context) -> None:
        self.accounts = context.accounts

    def ask(self, request: Request) -> Response:
        """The log-in page; who is logged in goes on."""
        wanted = own_path(request.query_params.get("next", "/"))
        if request.state.user.role > Role.NOBODY:
            return RedirectResponse(wanted, status_code=303)
        return self._log_in_page(request, wanted)

    def _log_in_page(
        self, request: Request, wanted: str, *, name: str = "", status: int = 200, said: Any = None
    ) -> Response:
        empty = not self.accounts.all()
        return render(
            request, "login.html", section=SECTION, status=status, next=wanted, name=name, said=said, empty=empty
        )

    def log_in(self, request: Request) -> Response:
        """Check name and password, and begin a session under a new token."""
        form, guard = request.state.form, request.app.state.guard
        name, wanted = _text(form, "name"), own_path(_text(form, "next"))
        shown = request.cookies.get(guard.cookie, "")
        try:
            token = self.accounts.log_in(name, _text(form, "password"), address=_address(request), replaces=shown)
        except (LogInRefused, Busy, StoreError) as error:
            status = 503 if not isinstance(error, LogInRefused) else 429 if error.wait_s else 401
            said = _said(request, error)
            return self._log_in_page(request, wanted, name=name[:LONGEST_NAME], status=status, said=said)
        response = RedirectResponse(wanted, status_code=303)
        _give(request, response, token)
        return response

    def log_out(self, request: Request) -> Response:
        """End the session in the database, not only in the browser."""
        guard = request.app.state.guard
        self.accounts.log_out(request.cookies.get(guard.cookie, ""))
        response = RedirectResponse("/login", status_code=303)
        response.delete_cookie(guard.cookie, secure=request.app.state.secure, httponly=True, samesite="strict")
        return response

    def ask_password(self, request: Request) -> Response:
        """The page to change the own password on."""
        return self._password_page(request)

    def _password_page(self, request: Request, *, status: int = 200, said: Any = None) -> Response:
        return render(request, "password.html", section=SECTION, status=status, said=said, first=request.state.confined)

    def change_password(self, request: Request) -> Response:
        """Take a new password, end all sessions of the person, and begin a new one here."""
        form, name = request.state.form, request.state.user.name
        new, address = _text(form, "new"), _address(request)
        try:
            if new != _text(form, "again"):
                raise NotTaken("the new password was not typed the same twice", fix="type it twice", word="not_twice")
            self.accounts.change_own_password(name, _text(form, "old"), new, address=address)
            token = self.accounts.log_in(name, new, address=address)
        except InspectionError as error:
            return self._password_page(request, status=409, said=_said(request, error))
        response = RedirectResponse("/", status_code=303)
        _give(request, response, token)
        return response

    def show(self, request: Request) -> Response:
        """All accounts, and what an engineer may do with them."""
        return self._accounts_page(request)

    def _accounts_page(self, request: Request, *, status: int = 200, said: Any = None) -> Response:
        return render(
            request, "accounts.html", section=SECTION, status=status, said=said,
            accounts=self.accounts.all(), locked=self.accounts.locked(),
            roles=[role for role in Role if role is not Role.NOBODY], done=request.query_params.get("done", "") in ACTIONS,
        )  # fmt: skip

    def change(self, request: Request) -> Response:
        """One change to one account; then the list again."""
        what = request.url.path.rpartition("/")[2]
        try:
            self._change(what, request.state.form, request.state.user.name)
        except InspectionError as error:
            return self._accounts_page(request, status=409, said=_said(request, error))
        return RedirectResponse(f"/accounts?done={what}", status_code=303)

    def _change(self, what: str, form: Mapping[str, Any], by: str) -> None:
        name = _text(form, "name")
        if what == "add":
            self.accounts.add(name, _text(form, "role"), _text(form, "password"), by=by)
        elif what == "role":
            self.accounts.set_role(name, _text(form, "role"), by=by)
        elif what == "password":
            self.accounts.set_password(name, _text(form, "password"), by=by, must_change=True)
        elif what == "unlock":
            self.accounts.unlock(name, by=by)
        else:
            self.accounts.set_disabled(name, what == "disable", by=by)

    def show_audit(self, request: Request) -> Response:
        """A page of the audit, newest first."""
        asked = request.query_params.get("before", "")
        before = int(asked) if asked.isascii() and asked.isdecimal() and len(asked) < 19 else 2**63 - 1
        found = self.accounts.audit_entries(before=before, limit=ENTRIES + 1)
        older = found[ENTRIES - 1].number if len(found) > ENTRIES else 0
        entries = [_in_words(request.state.language, entry) for entry in found[:ENTRIES]]
        return render(request, "audit.html", section=SECTION, entries=entries, older=older, first=not asked)


def _in_words(language: Language, entry: AuditEntry) -> dict[str, Any]:
    """An entry of the audit as a person reads it; what there are no words for stands as it was written."""
    t, roles = words(language, "audit"), words(language, SECTION)
    details = [
        (t.get(f"key_{name}", name), roles.get(f"{_VALUES[name]}_{value}", value) if name in _VALUES else value)
        for name, value in entry.details.items()
    ]
    at = f"{entry.at[:10]} {entry.at[11:19]}"
    return {"at": at, "who": entry.who, "what": t.get(f"what_{entry.what}", entry.what), "details": details}


def _said(request: Request, error: InspectionError) -> dict[str, str]:
    """An error in the words of the page's language where there are some, or else in its own."""
    t = words(request.state.language, SECTION)
    word = f"say_{getattr(error, 'word', '')}"
    if word not in t:
        return {"what": error.what, "fix": error.fix}
    wait_s, named = str(getattr(error, "wait_s", "")), str(getattr(error, "named", ""))
    what, fix = (
        text.replace("{n}", wait_s).replace("{address}", named) for text in (t[word], t.get(f"{word}_fix", ""))
    )
    return {"what": what, "fix": fix}


def _give(request: Request, response: Response, token: str) -> None:
    response.set_cookie(
        request.app.state.guard.cookie, token, max_age=int(ABSOLUTE_S), httponly=True, samesite="strict",
        secure=request.app.state.secure,
    )  # fmt: skip


def _text(form: Mapping[str, Any], name: str) -> str:
    """A field of a form as text; "" when it is missing or a file."""
    value = form.get(name, "")
    return value if isinstance(value, str) else ""


def _address(request: Request) -> str:
    return request.client.host if request.client else ""
