"""The station's pages as a server: log-in, sessions, where it listens, and clients that mean it harm."""

import ast
import http.client
import io
import json
import logging
import os
import re
import resource
import signal
import socket
import sqlite3
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hmi_site import LIMIT_S, PANEL, PASSWORD, PHONE, Browser, Site, station_toml, until

from inspection.cli import main
from inspection.config import load_station
from inspection.hmi import app
from inspection.hmi.accounts import Accounts
from inspection.hmi.people_file import people_path
from inspection.hmi.serving import check_elsewhere
from inspection.log import OWN as OWN_LOG
from inspection.store import Store
from inspection.web import shell, steady
from inspection.web.texts import LANGUAGES, Language, all_words

OWN = "one of my own 1"


def log_in(client: httpx.Client, name: str, password: str = PASSWORD, **more: str) -> httpx.Response:
    """Send the log-in form as a browser would."""
    client.get("/login")
    token = client.cookies.get(shell.VISITOR, "")
    return client.post("/login", data={"csrf_token": token, "name": name, "password": password, **more})


def time_stands_still(site: Site) -> None:
    """For the accounts: no wait ends while a slow computer still guesses."""
    now = time.time()
    site.context.accounts.clock = lambda: now


def csrf(client: httpx.Client, path: str = "/password") -> str:
    found = re.search(r'name="csrf-token" content="([^"]+)"', client.get(path).text)
    assert found
    return found[1]


# Log-in and sessions


def test_log_in_gives_a_cookie_no_script_and_no_other_site_gets(site: Site) -> None:
    """HttpOnly, SameSite=Strict, for this host alone; and it leads where the person wanted to go."""
    site.add_person("ann")
    answer = log_in(site.client(), "ann", next="/password?lang=zh")
    assert (303, "/password?lang=zh") == (answer.status_code, answer.headers["location"])
    cookie = next(line for line in answer.headers.get_list("set-cookie") if line.startswith(site.cookie)).lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "domain" not in cookie


def test_wrong_password_is_said_in_words(site: Site) -> None:
    """The page says what to do, keeps the name and escapes it; no session begins."""
    client = site.client()
    answer = log_in(client, "<script>alert(1)</script>")
    assert 401 == answer.status_code
    assert "do not fit" in answer.text
    assert "&lt;script&gt;" in answer.text
    assert "<script>alert" not in answer.text
    assert site.cookie not in client.cookies


@pytest.mark.parametrize(
    ("language", "name_locked", "address_locked"),
    [
        ("en", "wrong passwords for this name", "typed at this computer (127.0.0.1)"),
        ("zh", "此用户名的密码", "此计算机（127.0.0.1）"),
    ],
)
def test_lock_out_says_what_is_locked(site: Site, language: str, name_locked: str, address_locked: str) -> None:
    """The name that was guessed at, or the computer for everybody else at it, who are told how to go on all the same."""
    site.add_person("eve", "engineer")
    engineer, client = site.client("kim", "engineer"), site.client()
    client.get("/login", params={"lang": language})
    time_stands_still(site)
    for _ in range(5):
        log_in(client, "ann", "a wrong password")
    assert name_locked in log_in(client, "ann").text
    told = log_in(client, "eve")
    assert (429, True, False) == (told.status_code, address_locked in told.text, name_locked in told.text)
    assert "lineside account unlock STATION.toml 127.0.0.1" in told.text
    assert 'name="name" value="127.0.0.1"' in engineer.get("/accounts").text
    engineer.post("/accounts/unlock", data={"name": "127.0.0.1"})
    assert 'name="name" value="127.0.0.1"' not in engineer.get("/accounts").text
    assert 303 == log_in(client, "eve").status_code


def test_log_in_page_says_when_nobody_has_an_account(site: Site) -> None:
    """The first person at a new station learns how to make the first account."""
    assert "lineside account add" in site.client().get("/login").text
    site.add_person("ann")
    assert "lineside account add" not in site.client().get("/login").text


def test_page_without_session_leads_to_log_in_and_back(site: Site) -> None:
    """Also with a query in its address."""
    answer = site.client().get("/password?a=1&b=2")
    assert "/login?next=/password%3Fa%3D1%26b%3D2" == answer.headers["location"]


def test_session_fixation_fails(site: Site) -> None:
    """A token that somebody planted, or had before, is worth nothing after the log-in."""
    site.add_person("ann")
    client = site.client()
    client.cookies.set(site.cookie, "planted", domain="127.0.0.1")
    log_in(client, "ann")
    first = client.cookies[site.cookie]
    assert "planted" != first
    assert site.context.accounts.session("planted") is None
    client.post("/login", data={"csrf_token": csrf(client), "name": "ann", "password": PASSWORD})
    assert first != client.cookies[site.cookie]
    assert site.context.accounts.session(first) is None


def test_stolen_cookie_is_worth_nothing_after_log_out(site: Site) -> None:
    """The session ends at the server, not only in the browser that logs out."""
    client = site.client("ann")
    stolen = site.token("ann")
    assert 200 == client.get("/password").status_code
    assert 303 == client.post("/logout").status_code
    thief = site.client()
    thief.cookies.set(site.cookie, stolen, domain="127.0.0.1")
    assert 303 == thief.get("/password").status_code


def test_page_left_open_keeps_no_session(site: Site, browser: Browser) -> None:
    """Streams, pictures and renewals of a page that nobody is at do not count as use; a person's requests do."""
    page = browser.open(site, "/accounts", "eve", "engineer")
    accounts = site.context.accounts

    def seen() -> float:
        with closing(sqlite3.connect(accounts.path)) as database:
            return float(database.execute("SELECT max(seen) FROM sessions").fetchone()[0])

    asked = """(path) => new Promise((done) => {
        const stream = new EventSource(path); stream.onopen = stream.onerror = () => { stream.close(); done(); } })"""
    began_s = seen()
    accounts.clock = lambda: began_s + 600
    page.evaluate(asked, "/board/stream")
    page.evaluate("fetch('/accounts')")
    page.request.get("/accounts", headers={"X-By-Itself": "1"})
    assert began_s == seen()
    page.reload()
    assert began_s + 600 == seen()


def test_log_out_needs_the_token(site: Site) -> None:
    """A foreign page logs nobody out."""
    client = site.client("ann")
    assert 403 == client.post("/logout", headers={"X-CSRF-Token": "wrong"}).status_code
    assert 200 == client.get("/password").status_code


def test_change_from_another_origin_is_refused(site: Site) -> None:
    """Also from another port of this computer, which cookies do not tell apart."""
    client = site.client("ann")
    for where in ("cross-site", "same-site"):
        assert 403 == client.post("/logout", headers={"Sec-Fetch-Site": where}).status_code


def test_first_password_opens_only_its_page(site: Site) -> None:
    """Until it is changed, every page leads there; afterwards all are open, and other sessions are over."""
    site.add_person("eve", "engineer")
    site.add_person("bob", "engineer", must_change=True)
    client, other = site.client(), site.client()
    for one in (client, other):
        log_in(one, "bob")
    assert "/password" == client.get("/accounts").headers["location"]
    assert 403 == client.get("/accounts", headers={"Accept": "application/json"}).status_code
    answer = client.post(
        "/password", data={"csrf_token": csrf(client), "old": PASSWORD, "new": OWN, "again": OWN, "username": "eve"}
    )
    assert 303 == answer.status_code
    assert 200 == client.get("/accounts").status_code
    assert 303 == other.get("/password").status_code


def test_refused_password_change_says_why(site: Site) -> None:
    """And the person stays logged in with the old one."""
    client = site.client("ann")
    for old, new, again, said in (
        (PASSWORD, "short", "short", "fewer than 10"),
        (PASSWORD, OWN, OWN + "x", "not typed the same"),
        ("a wrong password", OWN, OWN, "until now is wrong"),
        (PASSWORD, PASSWORD, PASSWORD, "one until now"),
        (PASSWORD, "", "", "fewer than 10"),
    ):
        answer = client.post("/password", data={"old": old, "new": new, "again": again})
        assert (409, True) == (answer.status_code, said in answer.text), said
    assert 200 == client.get("/password").status_code


# Accounts and audit


def test_accounts_and_audit_are_for_engineers(site: Site) -> None:
    """Nobody else sees or changes them."""
    for name, role, status in (
        ("", "", 303),
        ("ann", "operator", 403),
        ("rob", "reviewer", 403),
        ("eve", "engineer", 200),
    ):
        client = site.client(name, role)
        assert [status] * 2 == [client.get(path).status_code for path in ("/accounts", "/audit")], role
        if role != "engineer":
            refused = client.post("/accounts/role", data={"name": "ann", "role": "engineer"})
            assert refused.status_code in (401, 403)
    ann = site.context.accounts.find("ann")
    assert ann is not None
    assert "OPERATOR" == ann.role.name


def test_engineer_keeps_accounts(site: Site) -> None:
    """Add, role, password, disable, enable and unlock; each is in the audit with who did it."""
    client = site.client("eve", "engineer")
    changes = {"add": {"role": "operator", "password": PASSWORD}, "role": {"role": "reviewer"}, "password": {"password": OWN},
               "disable": {}, "enable": {}, "unlock": {}}  # fmt: skip
    for what, fields in changes.items():
        assert (
            f"/accounts?done={what}"
            == client.post(f"/accounts/{what}", data={"name": "bob", **fields}).headers["location"]
        )
    text = client.get("/audit").text
    for word in (
        "account added",
        "role changed",
        "password changed",
        "account disabled",
        "account enabled",
        "account unlocked",
    ):
        assert word in text
    refused = client.post("/accounts/disable", data={"name": "eve"})
    assert (409, True) == (refused.status_code, "last engineer" in refused.text)
    assert 404 == client.post("/accounts/other", data={"name": "bob"}).status_code


@pytest.mark.parametrize(("language", "said"), [("en", "There is no such part."), ("zh", "没有此工件。")])
def test_part_that_is_not_there_is_told_in_words(site: Site, language: str, said: str) -> None:
    """Whoever follows an old or mistyped address reads so in his own language."""
    site.add_part("OK")
    answer = site.client("ann").get("/part/nowhere", params={"lang": language})
    assert (404, True) == (answer.status_code, said in answer.text)


def audit_calls() -> Iterator[tuple[ast.expr, list[str | None]]]:
    """The kind of entry and the names of its details, wherever the pages write into the audit."""
    for path in Path(app.__file__).parent.glob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call):
                name = getattr(call.func, "attr", getattr(call.func, "id", ""))
                if name in ("put_in_audit", "audit") and len(call.args) > 1:
                    yield call.args[-1], [word.arg for word in call.keywords]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_kind_of_audit_entry_has_words(language: Language) -> None:
    """Whatever the pages write into the audit has words in each language, and no words are left over."""
    table = all_words(language)["audit"]
    calls = list(audit_calls())
    kinds = {node.value for what, _ in calls for node in ast.walk(what) if isinstance(node, ast.Constant)}
    assert kinds == {key.removeprefix("what_") for key in table if key.startswith("what_")}
    names = {name for _, given in calls for name in given if name} | {"locked", "locked_s"}
    assert names == {key.removeprefix("key_") for key in table if key.startswith("key_")}


@pytest.mark.parametrize(
    ("language", "row"),
    [("en", "account: ann, role: engineer, before: operator"), ("zh", "账户: ann, 角色: 工程师, 原角色: 操作员")],
)
def test_audit_is_in_words(site: Site, language: str, row: str) -> None:
    """Kinds, details and roles are in the reader's language; what there are no words for stands as it was written."""
    accounts, client = site.context.accounts, site.client("eve", "engineer")
    accounts.audit("eve", "role changed", name="ann", role="engineer", before="operator")
    accounts.audit("eve", "something.new", other="x")
    text = client.get("/audit", params={"lang": language}).text
    assert row in text
    assert ("role changed" in text) == (language == "en")
    assert "something.new" in text
    assert "other: x" in text


def test_hostile_text_in_the_audit_stays_text(site: Site) -> None:
    """Whatever a name or detail holds is shown, not run."""
    site.context.accounts.audit("<b>who</b>", "recipe <i>x</i>", note="<script>alert(1)</script>")
    text = site.client("eve", "engineer").get("/audit").text
    for tag in ("<b>", "<i>", "<script>alert"):
        assert tag not in text


def test_audit_is_paged(site: Site) -> None:
    """Every entry is on one of the pages."""
    for number in range(120):
        site.context.accounts.audit("test", f"event-{number:03d}")
    client, path, seen = site.client("eve", "engineer"), "/audit", ""
    for _ in range(4):
        text = client.get(path).text
        seen += text
        older = re.search(r'href="(/audit\?before=\d+)"', text)
        if older is None:
            break
        path = older[1]
    assert all(f"event-{number:03d}" in seen for number in range(120))
    assert (
        200
        == client.get("/audit?before=9999999999999999999999").status_code
        == client.get("/audit?before=x").status_code
    )


# In a browser


def test_person_logs_in_by_keyboard(site: Site, browser: Browser) -> None:
    """Name, tab, password, enter leads to the page that was wanted; an error is announced."""
    site.add_person("ann")
    page = browser.open(site, "/password")
    assert "/login" in page.url
    page.wait_for_selector("[name=name]:focus")
    page.keyboard.type("ann")
    page.keyboard.press("Tab")
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    page.get_by_role("alert").wait_for()
    page.wait_for_selector("[name=password]:focus")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/password")
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login")


def test_new_person_begins(site: Site, browser: Browser) -> None:
    """An engineer adds an account on the page; its person must choose a password and then is in."""
    page = browser.open(site, "/accounts", "eve", "engineer")
    page.get_by_label("Name").fill("李雷")
    page.get_by_label("Role").last.select_option("reviewer")
    page.get_by_label("First password").last.fill(PASSWORD)
    page.get_by_role("button", name="Add account").click()
    page.get_by_role("status").get_by_text("Done.").wait_for()
    other = browser.open(site, "/login?lang=zh")
    other.get_by_label("用户名").fill("李雷")
    other.get_by_label("密码").fill(PASSWORD)
    other.keyboard.press("Enter")
    other.wait_for_url("**/password")
    other.get_by_label("当前密码").fill(PASSWORD)
    other.get_by_label("新密码", exact=True).fill(OWN)
    other.get_by_label("再次输入新密码").fill(OWN)
    other.keyboard.press("Enter")
    other.wait_for_url(
        lambda url: (
            not url.endswith(("/password", "/login")) or not any(one.must_change for one in site.context.accounts.all())
        )
    )
    assert not any(one.must_change for one in site.context.accounts.all())


@pytest.mark.parametrize(("size", "language"), [(PANEL, "en"), (PHONE, "zh"), (PHONE, "en")])
def test_pages_fit_and_are_accessible(site: Site, browser: Browser, size: tuple[int, int], language: str) -> None:
    """Nothing is wider than the screen, and axe-core finds no serious fault."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason='pip install -e ".[dev]" brings axe'
    ).Axe()
    site.add_person("bob-with-a-rather-long-name-of-the-night-shift", "reviewer", must_change=True)
    site.add_person("zoe", "operator")
    site.context.accounts.set_disabled("zoe", True, by="eve")
    page = browser.open(site, "/accounts", "eve", "engineer", size=size)
    stranger = browser.open(site, "/login", size=size)
    keep = os.environ.get("LINESIDE_SCREENSHOTS")
    for one, path in ((stranger, "/login"), (page, "/accounts"), (page, "/audit"), (page, "/password")):
        one.goto(f"{path}?lang={language}")
        if path == "/accounts":
            one.locator("summary").first.click()
        if keep:
            one.screenshot(path=str(Path(keep) / f"{path[1:]}-{language}-{size[0]}.png"), full_page=True)
        assert one.evaluate("document.documentElement.scrollWidth") <= size[0], path
        faults = [fault for fault in axe.run(one).response["violations"] if fault["impact"] in ("serious", "critical")]
        assert [] == [(path, fault["id"], fault["nodes"][0]["html"]) for fault in faults]


# Hostile clients


def test_twenty_threads_that_guess_get_five_tries(site: Site) -> None:
    """Guessing at once helps nobody; the person learns to wait, and the console unlocks."""
    site.add_person("ann")
    time_stands_still(site)
    clients = [site.client() for _ in range(20)]
    answers: list[int] = []

    def guess(client: httpx.Client) -> None:
        for _ in range(3):
            answers.append(log_in(client, "ann", "a wrong password").status_code)

    together([lambda client=client: guess(client) for client in clients])
    assert 60 == len(answers)
    assert {401, 429} >= set(answers) - {503}
    assert 1 <= answers.count(401) <= 5
    locked = log_in(site.client(), "ann")
    assert (429, True) == (locked.status_code, "Wait" in locked.text)
    site.context.accounts.unlock("ann", by="root (console)")
    assert 303 == log_in(site.client(), "ann").status_code


def together(works: list[Callable[[], Any]]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_log_in_never_leads_to_another_site(site: Site) -> None:
    """No open redirect, and no header is smuggled in."""
    site.add_person("ann")
    for wanted in (
        "https://evil.example", "//evil.example", "/\\evil.example", "\\\\evil.example", "/%09/evil.example",
        "/\t/evil.example", "javascript:alert(1)", "/login", "/logout", "http:evil.example", "/\r\nSet-Cookie: a=b",
        "///evil.example", " /evil",
    ):  # fmt: skip
        client = site.client()
        answer = log_in(client, "ann", next=wanted)
        assert answer.headers["location"] in ("/", "/%09/evil.example"), wanted
        assert "a=b" not in str(answer.headers)
        went_on = client.get("/login", params={"next": wanted})
        assert urlsplit(str(went_on.url.join(went_on.headers["location"]))).netloc == urlsplit(site.url).netloc, wanted


def test_name_with_line_breaks_makes_no_header(site: Site) -> None:
    """Neither a name nor a cookie writes into the answer's head."""
    answer = log_in(site.client(), "ann\r\nSet-Cookie: stolen=1\r\n\r\n<html>")
    assert 401 == answer.status_code
    assert "stolen" not in str(answer.headers)
    answer = site.client().get("/login?lang=en%0d%0aSet-Cookie:%20stolen=1&next=/%0d%0aX:%201")
    assert "stolen" not in str(answer.headers)


def test_oversized_field_is_refused(site: Site) -> None:
    """Who has not logged in cannot fill the memory, nor make the password check long."""
    client = site.client()
    for field in ("name", "password", "next", "csrf_token"):
        assert 413 == log_in(client, **{"name": "ann", field: "x" * 200_000}).status_code  # type: ignore[arg-type]
        within = log_in(client, **{"name": "ann", field: "x" * 50_000})  # type: ignore[arg-type]
        assert within.status_code in (401, 403), field
    assert all(len(entry.who) <= 64 for entry in site.context.accounts.audit_entries())


def test_look_alike_name_is_the_same_account(site: Site) -> None:
    """However it is typed, one person has one account, and one lock."""
    client = site.client("eve", "engineer")
    for name, made in (("ANN", "ann"), (" ann", "ann"), ("ａｎｎ", "ann"), ("ÅKE", "A\u030ake")):
        site.add_person(made)
        assert 303 == log_in(site.client(), name).status_code
        again = client.post("/accounts/add", data={"name": name, "role": "engineer", "password": PASSWORD})
        assert (409, True) == (again.status_code, "already" in again.text), name


def test_static_serves_its_folder_only(site: Site) -> None:
    """No path leads out of it."""
    for path in (
        "/static/../shell.py", "/static/..%2fshell.py", "/static/%2e%2e/shell.py", "/static/....//shell.py",
        "/static//etc/passwd", "/static/%2e%2e%2f%2e%2e%2f%2e%2e%2fetc/passwd", "/static/hmi/../../app.py",
        "/static/hmi/%2e%2e/app.py", "/static/..\\shell.py", "/static/%00", "/static/style.css%00.js",
        "/static/" + "a" * 5000,
    ):  # fmt: skip
        with closing(http.client.HTTPConnection("127.0.0.1", urlsplit(site.url).port, timeout=LIMIT_S)) as connection:
            connection.putrequest("GET", path, skip_accept_encoding=True)
            connection.endheaders()
            answer = connection.getresponse()
            body = answer.read()
        assert answer.status in (400, 404, 405), path
        assert b"root:" not in body
        assert b"import" not in body


def raw(site_or_port: Site | int, sent: bytes = b"") -> socket.socket:
    port = site_or_port if isinstance(site_or_port, int) else urlsplit(site_or_port.url).port
    opened = socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S)
    opened.sendall(sent)
    return opened


def test_slow_client_is_cut_off_and_keeps_nobody_waiting(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request sent a byte at a time holds up no other, and ends when its time is over."""
    client = site.client()
    assert 200 == client.get("/login").status_code  # its connection is there before the time is short
    monkeypatch.setattr(steady, "REQUEST_S", 2.0)
    slow = [raw(site, b"GET /login HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ") for _ in range(30)]
    body = raw(
        site,
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
    )
    with ExitStack() as stack:
        for one in (*slow, body):
            stack.callback(one.close)
        over: set[socket.socket] = set()
        end_s = time.monotonic() + LIMIT_S
        while len(over) < len(slow) + 1:
            assert time.monotonic() < end_s, "slow clients are never cut off"
            assert 200 == client.get("/login").status_code
            for one in {*slow, body} - over:
                try:
                    one.sendall(b"a")
                    one.setblocking(False)
                    if one.recv(10) in (b"", b"HTTP/1.1 4"):
                        over.add(one)
                except BlockingIOError:
                    pass
                except OSError:
                    over.add(one)
                finally:
                    one.setblocking(True)


def test_client_that_does_not_take_its_answer_is_cut_off(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does one that never reads hold a place for ever."""
    monkeypatch.setattr(steady, "TAKEN_S", 0.5)
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.settimeout(LIMIT_S)
    deaf.connect(("127.0.0.1", urlsplit(site.url).port))
    with closing(deaf):
        deaf.sendall(b"GET /static/htmx.min.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 400)

        def is_reset() -> bool:
            try:
                deaf.sendall(b"\r\n")
            except OSError:
                return True
            return False

        until(is_reset)
    assert 200 == site.client().get("/login").status_code


def test_stranger_that_opens_many_connections_keeps_nobody_out(hmi: "Process") -> None:
    """With 500 open connections, silent or half a request each, a person is answered; memory and files stay bounded."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 700:
        pytest.skip("needs the right to mount 700 files: ulimit -n 1024")
    with ExitStack() as stack, httpx.Client(base_url=hmi.url, timeout=LIMIT_S) as person:
        assert 200 == person.get("/login").status_code
        for number in range(500):
            stack.callback(raw(hmi.port, b"GET /login HTTP/1.1\r\nX: " if number % 2 else b"").close)
        for _ in range(5):
            assert 200 == person.get("/login").status_code
            assert 200 == httpx.get(f"{hmi.url}/login", timeout=LIMIT_S).status_code
        open_files = len(list(Path(f"/proc/{hmi.process.pid}/fd").iterdir()))
        assert open_files < steady.MOST_CONNECTIONS + 60


# The process


@dataclass
class Process:
    """`lineside hmi` on a folder."""

    process: subprocess.Popen[str]
    url: str

    @property
    def port(self) -> int:
        return int(urlsplit(self.url).port or 0)


@dataclass
class Answer:
    """What a verb said."""

    returncode: int
    stdout: str
    stderr: str


Verb = Callable[..., Answer]


@pytest.fixture
def lineside(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Verb]:
    """Run a verb to its end, in this process; what stdin gives is no terminal."""
    log, root = logging.getLogger(OWN_LOG), logging.getLogger()
    before = log.handlers[:], root.handlers[:], log.propagate

    def run(*arguments: object, given: str = "") -> Answer:
        monkeypatch.setattr(sys, "stdin", io.StringIO(given))
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Answer(code, *capsys.readouterr())

    yield run
    log.handlers[:], root.handlers[:], log.propagate = before


@contextmanager
def running(config: Path, *arguments: str) -> Iterator[Process]:
    """The pages as their own process on any free port."""
    with (config.parent / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "inspection", "hmi", str(config), "--port", "0", *arguments],
            stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert line.startswith("open "), (config.parent / "log").read_text()
            yield Process(process, line.split()[1].rstrip("/").replace("0.0.0.0", "127.0.0.1"))
        finally:
            process.kill()
            process.communicate()


@pytest.fixture
def config(tmp_path: Path, demo_recipe: Path) -> Path:
    """A station that was never started, with one engineer who has a password of her own."""
    path = station_toml(tmp_path, demo_recipe)
    with closing(Accounts(people_path(tmp_path / "records.sqlite"))) as accounts:
        accounts.add("eve", "engineer", PASSWORD, by="test", must_change=False)
    return path


@pytest.fixture
def hmi(config: Path) -> Iterator[Process]:
    with running(config) as process:
        yield process


def test_process_steps_back_and_stops_cleanly(config: Path) -> None:
    """It runs below the station, and SIGTERM ends it with code 0, also while a browser holds a connection open."""
    with running(config) as hmi, httpx.Client(base_url=hmi.url, timeout=LIMIT_S) as client:
        assert 200 == client.get("/login").status_code
        assert os.getpriority(os.PRIO_PROCESS, hmi.process.pid) >= 10
        with closing(raw(hmi.port, b"GET /login HT")):
            hmi.process.send_signal(signal.SIGTERM)
            assert 0 == hmi.process.wait(timeout=LIMIT_S)


def test_pages_outlive_the_record_store(config: Path) -> None:
    """Missing, made, of a newer version, replaced: the pages say so, and find it again by themselves."""
    store = config.parent / "records.sqlite"
    with running(config) as hmi, httpx.Client(base_url=hmi.url, timeout=LIMIT_S) as client:
        assert 303 == log_in(client, "eve").status_code

        def look() -> int:
            """Every page that there is answers in words, whatever its status."""
            pages = [client.get(path) for path in ("/", "/review", "/recipe", "/accounts", "/password")]
            assert all("text/html" in page.headers["content-type"] for page in pages if page.content)
            assert {200, 303, 404, 409, 503} >= {page.status_code for page in pages}, [page.text for page in pages]
            return pages[-1].status_code

        assert 200 == look()
        Store(store).close()
        assert 200 == look()
        with closing(sqlite3.connect(store)) as database:
            database.execute("PRAGMA user_version = 99")
        assert 200 == look()
        for path in config.parent.glob("records.sqlite*"):
            if ".people" not in path.name and ".reviews" not in path.name:
                path.unlink()
        assert 200 == look()
        Store(store).close()
        assert 200 == look()
        assert hmi.process.poll() is None
    assert "page.failed" not in (config.parent / "log").read_text()


def test_first_engineer_is_made_on_the_command_line(tmp_path: Path, demo_recipe: Path) -> None:
    """Before the station ever ran; a password that a script sends must be changed, the file is for its owner alone."""
    path = station_toml(tmp_path, demo_recipe)
    made = subprocess.run(
        [sys.executable, "-m", "inspection", "account", "add", path, "eve", "--role", "engineer"],
        input=f"{PASSWORD}\n", capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (0, "account eve: engineer, to be changed at the first log-in\n") == (made.returncode, made.stdout)
    assert 0o600 == stat.S_IMODE(people_path(tmp_path / "records.sqlite").stat().st_mode)


def test_account_verbs(config: Path, lineside: Verb) -> None:
    """Add, list, role, password, disable, enable, unlock and audit on the command line; mistakes have code 2."""
    assert 0 == lineside("account", "add", config, "bob", given=f"{PASSWORD}\n").returncode
    listed = lineside("account", "list", config).stdout
    assert "bob\toperator\tmust change its password\n" in listed
    assert "eve\tengineer\n" in listed
    for verb in ("disable", "enable", "unlock"):
        assert 0 == lineside("account", verb, config, "bob").returncode
    assert 0 == lineside("account", "role", config, "bob", "reviewer").returncode
    assert 0 == lineside("account", "password", config, "bob", "--own", given=f"{OWN}\n").returncode
    assert "bob\treviewer\n" in lineside("account", "list", config).stdout
    entries = [json.loads(line) for line in lineside("account", "audit", config, "--limit", 5).stdout.splitlines()]
    assert ["password changed", "role changed"] == [entry["what"] for entry in entries[:2]]
    assert all("(console)" in entry["who"] for entry in entries)


def test_mistaken_account_verb_is_told(config: Path, lineside: Verb) -> None:
    """Code 2, what is wrong, and what to do."""
    mistakes = {
        "disable eve": "", "unlock nobody": "", "add kim": "short\n", "add jim": "", "add Eve": f"{PASSWORD}\n",
        "role nobody operator": "",
    }  # fmt: skip
    for verb, given in mistakes.items():
        word, *rest = verb.split()
        answer = lineside("account", word, config, *rest, given=given)
        assert (2, 2) == (answer.returncode, len(answer.stderr.strip().splitlines())), verb


def test_unlock_at_the_console_reaches_the_running_pages(config: Path, lineside: Verb) -> None:
    """A lock never keeps the last engineer out of his own station."""
    with running(config) as hmi, httpx.Client(base_url=hmi.url, timeout=LIMIT_S) as client:
        for _ in range(5):
            assert 401 == log_in(client, "eve", "a wrong password").status_code
        assert 429 == log_in(client, "eve").status_code
        assert 0 == lineside("account", "unlock", config, "eve").returncode
        assert 303 == log_in(client, "eve").status_code


# Where it listens


def certificate(folder: Path, *, days: int = 90) -> tuple[Path, Path]:
    """A certificate for this computer and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]), datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem, secret = folder / "station.pem", folder / "station.key"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    secret.chmod(0o600)
    return pem, secret


TLS = 'host = "0.0.0.0"\ntls_certificate = "station.pem"\ntls_key = "station.key"'


def elsewhere(config: Path) -> Path:
    """The same station, served to other computers under TLS."""
    certificate(config.parent)
    config.write_text(config.read_text().replace("[hmi]\n", f"[hmi]\n{TLS}\n"))
    return config


def test_pages_for_other_computers_are_under_tls(config: Path) -> None:
    """HSTS, cookies that only TLS carries under names that no page without it can set; plain HTTP gets nothing."""
    elsewhere(config)
    context = ssl.create_default_context(cafile=str(config.parent / "station.pem"))
    with running(config) as hmi:
        assert hmi.url.startswith("https://")
        with httpx.Client(base_url=f"https://localhost:{hmi.port}", verify=context, timeout=LIMIT_S) as client:
            page = client.get("/login")
            assert "max-age=31536000" in page.headers["strict-transport-security"]
            token = client.cookies[f"__Host-{shell.VISITOR}"]
            answer = client.post("/login", data={"csrf_token": token, "name": "eve", "password": PASSWORD})
            assert 303 == answer.status_code
            cookie = next(line for line in answer.headers.get_list("set-cookie") if "lineside_" in line)
            assert cookie.startswith("__Host-lineside_")
            assert "; secure" in cookie.lower()
            assert "path=/" in cookie.lower()
            assert 200 == client.get("/accounts").status_code
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://127.0.0.1:{hmi.port}/login", timeout=LIMIT_S)
        with closing(raw(hmi.port, b"\x16\x03")), httpx.Client(verify=context, timeout=LIMIT_S) as client:
            assert 200 == client.get(f"https://localhost:{hmi.port}/login").status_code


def plain_text(config: Path) -> None:
    config.write_text(config.read_text().replace(TLS, 'host = "0.0.0.0"'))


def open_key(config: Path) -> None:
    (config.parent / "station.key").chmod(0o644)


def no_key(config: Path) -> None:
    (config.parent / "station.key").unlink()


def other_key(config: Path) -> None:
    own = (config.parent / "station.pem").read_bytes()
    certificate(config.parent)
    (config.parent / "station.pem").write_bytes(own)


def no_certificate(config: Path) -> None:
    (config.parent / "station.pem").write_text("nonsense")


def first_password(config: Path) -> None:
    with closing(Accounts(people_path(config.parent / "records.sqlite"))) as accounts:
        accounts.add("bob", "engineer", PASSWORD, by="test")


def no_account(config: Path) -> None:
    people_path(config.parent / "records.sqlite").unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (plain_text, "in the clear"), (open_key, "chmod 600"), (no_key, "missing or cannot be read"),
        (other_key, "cannot be used"), (no_certificate, "cannot be used"), (first_password, "bob still has a first password"),
        (no_account, "no engineer has an account"),
    ],
)  # fmt: skip
def test_pages_are_not_served_elsewhere_unsafely(
    config: Path, lineside: Verb, spoil: Callable[[Path], None], said: str
) -> None:
    """Without TLS, with an open key, or while others know a person's password it does not start, and says what to do."""
    spoil(elsewhere(config))
    answer = lineside("hmi", config, "--port", "0")
    assert 2 == answer.returncode
    assert said in answer.stderr
    assert "" == answer.stdout


def test_first_password_is_changed_at_the_station(config: Path) -> None:
    """What keeps the pages from other computers can be put right on this one."""
    first_password(elsewhere(config))
    with running(config, "--local") as hmi, httpx.Client(base_url=hmi.url, timeout=LIMIT_S) as client:
        assert hmi.url.startswith("http://127.0.0.1:")
        log_in(client, "bob")
        sent = {"csrf_token": csrf(client), "old": PASSWORD, "new": OWN, "again": OWN}
        assert 303 == client.post("/password", data=sent).status_code
    check_elsewhere(load_station(config).hmi, people_path(config.parent / "records.sqlite"))


def test_local_counts_whatever_the_config_says(config: Path, lineside: Verb) -> None:
    """Pages for this computer only are served also where the config names another address without TLS."""
    elsewhere(config)
    plain_text(config)
    assert 2 == lineside("hmi", config, "--port", "0").returncode
    with running(config, "--local") as hmi:
        assert hmi.url.startswith("http://127.0.0.1:")


def test_port_that_is_taken_is_named(config: Path, lineside: Verb) -> None:
    """The page says which port, and how to choose another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        answer = lineside("hmi", config, "--port", taken.getsockname()[1])
        port = taken.getsockname()[1]
    assert (2, True) == (answer.returncode, f"127.0.0.1 port {port} (Address already in use)\n" in answer.stderr)
    assert 2 == lineside("hmi", config, "--port", "70000").returncode


def test_newer_file_of_accounts_is_named(config: Path, lineside: Verb) -> None:
    """Nobody is let in on accounts that this version does not understand."""
    with closing(sqlite3.connect(people_path(config.parent / "records.sqlite"))) as database:
        database.execute("PRAGMA user_version = 99")
    answer = lineside("hmi", config, "--port", "0")
    assert (3, True) == (answer.returncode, "schema 99" in answer.stderr)


def test_without_the_extra_the_verb_names_it(config: Path) -> None:
    """A station without the pages' packages runs, and says what brings them."""
    program = (
        "import sys\nfor name in ('starlette', 'argon2', 'uvicorn', 'jinja2'): sys.modules[name] = None\n"
        f"from inspection.cli import main\nsys.exit(main(['hmi', {str(config)!r}]))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (3, True) == (answer.returncode, "lineside[hmi]" in answer.stderr)
