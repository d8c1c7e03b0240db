"""The application around every page: tokens, hosts, headers, errors in words."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from web_server import serving

from inspection.errors import UsageError
from inspection.web import shell
from inspection.web.access import Link, OnePerson, Role, Session, User
from inspection.web.shell import make_app, page, render
from inspection.web.texts import LANGUAGES, all_words

TOKEN = "t" * 20


def shown(request: Request) -> Response:
    return render(request, "error.html", section="error", what=request.query_params.get("q", ""), fix="", number=0)


def changed(request: Request) -> Response:
    return JSONResponse({"json": request.state.json, "form": dict(request.state.form)})


def refused(request: Request) -> Response:
    raise UsageError("the part is gone", fix="choose another")


def broken(request: Request) -> Response:
    raise RuntimeError("secret detail")


class Nobody:
    """A guard that knows nobody."""

    def session(self, request: Request) -> Session | None:
        return None

    def login_path(self) -> str:
        return "/login"


class Operator(OnePerson):
    """A guard that takes everybody for an operator."""

    def session(self, request: Request) -> Session | None:
        return Session(User("ann", Role.OPERATOR), TOKEN)


PAGES = [
    page("/", shown), page("/change", changed, methods=("POST",)), page("/refused", refused), page("/broken", broken),
    page("/engineer", shown, role=Role.ENGINEER), page("/open", shown, role=Role.NOBODY),
    page("/login", changed, role=Role.NOBODY, methods=("POST",)),
]  # fmt: skip


Open = Callable[..., httpx.Client]


@pytest.fixture
def client() -> Iterator[Open]:
    with ExitStack() as stack:

        def open_client(guard: object | None = None) -> httpx.Client:
            app = make_app(PAGES, guard=guard or OnePerson("ann", TOKEN))  # type: ignore[arg-type]
            return stack.enter_context(httpx.Client(base_url=stack.enter_context(serving(app)), timeout=20))

        yield open_client


def test_every_answer_forbids_what_comes_from_outside(client: Open) -> None:
    """Pages, errors and files carry a policy that lets in neither foreign nor inline scripts and styles."""
    browser = client()
    for path in ("/", "/nowhere", "/refused", "/broken", "/static/style.css"):
        policy = browser.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


def test_text_from_outside_stays_text(client: Open) -> None:
    """A script in a text is shown, not run."""
    assert "&lt;script&gt;" in client().get("/", params={"q": "<script>alert(1)</script>"}).text


@pytest.mark.parametrize("headers", [{}, {"X-CSRF-Token": "wrong"}, {"X-CSRF-Token": ""}])
def test_change_without_the_token_is_refused(client: Open, headers: dict[str, str]) -> None:
    """Another site that sends a form in the name of the person changes nothing."""
    assert client().post("/change", json={"a": 1}, headers=headers).status_code == 403


def test_change_with_the_token_arrives(client: Open) -> None:
    """The token counts as a header and as a form field."""
    assert client().post("/change", json={"a": 1}, headers={"X-CSRF-Token": TOKEN}).json()["json"] == {"a": 1}
    sent = client().post("/change", data={"b": "2", "csrf_token": TOKEN})
    assert sent.json()["form"]["b"] == "2"


def test_visitor_needs_the_token_of_his_own_cookie(client: Open) -> None:
    """Nobody can be logged in by a foreign page."""
    visitor = client(Nobody())
    visitor.get("/open")
    token = visitor.cookies[shell.VISITOR]
    assert visitor.post("/login", data={"csrf_token": token}).status_code == 200
    assert visitor.post("/login", data={"csrf_token": "x"}).status_code == 403
    assert client(Nobody()).post("/login", data={"csrf_token": ""}).status_code == 403


def test_person_without_a_session_is_sent_to_log_in(client: Open) -> None:
    """A page leads to the log-in, a script is told 401, htmx is redirected."""
    visitor = client(Nobody())
    assert (303, "/login?next=/") == ((answer := visitor.get("/")).status_code, answer.headers["location"])
    assert visitor.get("/", headers={"Accept": "application/json"}).status_code == 401
    assert visitor.get("/", headers={"HX-Request": "true"}).headers["HX-Redirect"] == "/login"


def test_operator_cannot_open_the_pages_of_an_engineer(client: Open) -> None:
    """A role is enough for its own pages and those of lower ones."""
    operator = client(Operator("ann", TOKEN))
    assert operator.get("/").status_code == 200
    assert operator.get("/engineer").status_code == 403


@pytest.mark.parametrize(("language", "gone", "barred"), [("en", "mistyped", "engineer"), ("zh", "地址", "工程师")])
def test_refused_pages_say_what_to_do(client: Open, language: str, gone: str, barred: str) -> None:
    """A page that is not there, and one that is for others, say what to do next, in the reader's language."""
    operator = client(Operator("ann", TOKEN))
    for path, status, said in (("/nowhere", 404, gone), ("/engineer", 403, barred)):
        answer = operator.get(path, params={"lang": language})
        assert (status, True) == (answer.status_code, said in answer.text)
        told = operator.get(path, params={"lang": language}, headers={"Accept": "application/json"})
        assert said in told.json()["fix"]


@pytest.mark.parametrize(
    ("language", "what", "again"),
    [
        ("en", "ann may not do this. It needs the role engineer.", "repeat"),
        ("zh", "ann 无权进行此操作，需要的角色：工程师。", "再试"),
    ],
)
def test_person_of_another_role_is_told_which_is_needed(client: Open, language: str, what: str, again: str) -> None:
    """Who may not do something reads which role may, and is not sent to try the same again; a page out of date is."""
    operator = client(Operator("ann", TOKEN))
    script = {"Accept": "application/json"}
    barred = operator.get("/engineer", params={"lang": language}, headers=script).json()
    assert (what, False) == (barred["what"], again in barred["fix"])
    stale = operator.post("/change", params={"lang": language}, headers=script).json()
    assert again in stale["fix"]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "192.168.0.5:8420"])
def test_foreign_host_name_is_refused(client: Open, host: str) -> None:
    """A site whose name was pointed at this computer gets nothing."""
    assert client().get("/", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8420", "[::1]:8420"])
def test_own_names_are_answered(client: Open, host: str) -> None:
    """This computer is reached under each of its own names."""
    assert client().get("/", headers={"Host": host}).status_code == 200


def test_error_says_what_and_what_to_do(client: Open) -> None:
    """An error of ours is shown whole; an unforeseen one tells its kind and keeps its details for the log."""
    text = client().get("/refused").text
    assert "the part is gone" in text
    assert "choose another" in text
    unforeseen = client().get("/broken")
    assert (500, True, False) == (
        unforeseen.status_code,
        "RuntimeError" in unforeseen.text,
        "secret" in unforeseen.text,
    )


def test_body_beyond_the_limit_is_refused(client: Open) -> None:
    """Nobody fills the memory with one request."""
    sent = client().post("/change", content=b"x" * (shell.BODY_LIMIT + 1), headers={"X-CSRF-Token": TOKEN})
    assert sent.status_code == 413


def test_broken_json_is_told(client: Open) -> None:
    """What is no JSON is named so."""
    assert client().post("/change", content=b"{", headers={"X-CSRF-Token": TOKEN}).status_code == 400


def test_language_is_kept(client: Open) -> None:
    """A chosen language stays chosen; an unknown one changes nothing."""
    browser = client()
    assert 'lang="en"' in browser.get("/").text
    assert '<html lang="zh">' in browser.get("/?lang=zh").text
    assert '<html lang="zh">' in browser.get("/?lang=xx").text


def test_every_language_has_every_word() -> None:
    """No page falls back to another language, and no text is empty."""
    tables = {language: all_words(language) for language in LANGUAGES}
    english = {(name, key) for name, table in tables["en"].items() for key in table}
    for found in tables.values():
        assert english == {(name, key) for name, table in found.items() for key in table}
        assert all(text.strip() for table in found.values() for text in table.values())


def test_page_carries_the_token_for_its_changes(client: Open) -> None:
    """A page has what its scripts must send, and no script stands in it."""
    text = client().get("/").text
    assert f'<meta name="csrf-token" content="{TOKEN}">' in text
    assert "<script>" not in text


class Confined(OnePerson):
    """A guard whose person must do something first."""

    def session(self, request: Request) -> Session | None:
        return Session(User("ann", Role.ENGINEER), TOKEN, confined_to=("/open", "/change"))


def test_session_confined_to_a_page_opens_no_other(client: Open) -> None:
    """A page leads there, a script is refused, htmx is redirected; the pages it is confined to are open."""
    person = client(Confined("ann", TOKEN))
    assert (303, "/open") == ((answer := person.get("/")).status_code, answer.headers["location"])
    assert 403 == person.get("/", headers={"Accept": "application/json"}).status_code
    assert "/open" == person.get("/", headers={"HX-Request": "true"}).headers["HX-Redirect"]
    assert 200 == person.post("/change", json={}, headers={"X-CSRF-Token": TOKEN}).status_code


def test_navigation_shows_what_the_role_may_see() -> None:
    """No link leads to a refusal, and the page one is on is marked."""
    links = [Link("/", "pages"), Link("/engineer", "log_in", Role.ENGINEER)]
    for guard, shown in (
        (Operator("ann", TOKEN), False),
        (OnePerson("eve", TOKEN), True),
        (Confined("ann", TOKEN), False),
    ):
        with serving(make_app(PAGES, guard=guard, links=links)) as url:
            text = httpx.get(f"{url}/open", timeout=20).text
        assert shown == ('href="/engineer"' in text)
    with serving(make_app(PAGES, guard=Operator("ann", TOKEN), links=links)) as url:
        assert '<a href="/" aria-current="page">' in httpx.get(url, timeout=20).text


def test_change_of_language_keeps_the_query(client: Open) -> None:
    """Who was on the way somewhere still is."""
    assert 'href="/?q=a%26b&amp;lang=zh"' in client().get("/", params={"q": "a&b"}).text


def test_stranger_may_send_little(client: Open) -> None:
    """The limit of who has not logged in is far lower."""
    visitor = client(Nobody())
    visitor.get("/open")
    sent = {"csrf_token": visitor.cookies[shell.VISITOR], "x": "x" * shell.STRANGER_LIMIT}
    assert 413 == visitor.post("/login", data=sent).status_code


@pytest.mark.parametrize(("site", "status"), [("same-origin", 200), ("same-site", 403), ("cross-site", 403)])
def test_change_sent_by_a_foreign_page_is_refused(client: Open, site: str, status: int) -> None:
    """Even with the token, and even from another port of this computer."""
    headers = {"X-CSRF-Token": TOKEN, "Sec-Fetch-Site": site}
    assert status == client().post("/change", json={}, headers=headers).status_code


def test_refused_form_gets_a_page_and_a_script_gets_json(client: Open) -> None:
    """A person who sent a form reads words, not JSON."""
    page = client().post("/change", data={"a": "1"}, headers={"Accept": "text/html"})
    assert (403, True) == (page.status_code, page.headers["content-type"].startswith("text/html"))
    assert "what" in client().post("/change", data={"a": "1"}).json()
