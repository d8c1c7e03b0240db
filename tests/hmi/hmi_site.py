"""The station's pages on a real server, with people, records and pictures, and a Chromium that may not leave them.

Fixtures (found by every test in this folder):

    site        a running server on an empty store; ``site.add_part(...)`` puts records there as a station would
    shift_site  the same with two dozen parts of all verdicts
    browser     opens pages in Chromium; the test fails when a page asked another origin for anything, broke the
                Content-Security-Policy, or had an error in its scripts
"""

import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from argon2 import PasswordHasher

from inspection.config import StationConfig, load_station
from inspection.evidence import EvidenceWriter, evidence_files
from inspection.hmi.app import make_hmi
from inspection.hmi.context import Context
from inspection.hmi.passwords import Passwords
from inspection.images import read_image
from inspection.recipe import LoadedRecipe
from inspection.station import Station
from inspection.store import Store
from inspection.types import Judgement, Reason, Record, Trigger, new_id, utc_now
from inspection.web.serve import listen, server_for

CHROMIUM = "/usr/bin/chromium"
PANEL, PHONE = (1280, 800), (390, 844)
PASSWORD = "correct horse battery"
SERIALS = {"OK": "good.png", "NG": "two-defects.png", "NG4": "four-defects.png", "ERROR": "torn"}
LIMIT_S = 90.0  # a page that has nothing asks anew every 30 s


def until(condition: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
    """The first true value of ``condition``, asked again and again for a bounded time."""
    end_s = time.monotonic() + limit_s
    while not (value := condition()):
        assert time.monotonic() < end_s, "did not come about in time"
        time.sleep(0.01)
    return value


@contextmanager
def port_of_our_own() -> Iterator[int]:
    """A port that nobody else is given while the block runs; a server may listen on it, end, and listen on it again."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


def station_toml(
    folder: Path, recipe: Path, *, controller: str = 'kind = "simulated"', hmi: str = "", top: str = ""
) -> Path:
    """Write ``station.toml`` of a station whose camera shows the files in ``folder/frames`` by serial.

    Its shift began an hour ago, whatever the time of day: none ends while a test counts parts.
    """
    path = folder / "station.toml"
    began = datetime.now() - timedelta(hours=1)
    (folder / "frames").mkdir(exist_ok=True)
    path.write_text(
        f'station_id = "line-7"\nrecipe = {json.dumps(str(recipe))}\nstore = "records.sqlite"\nthreads = 1\n{top}\n'
        f'[evidence]\nfolder = "evidence"\nkeep = "all"\nmin_free_mb = 0\n'
        f'[hmi]\nshifts = ["{began:%H:%M}"]\n{hmi}\n'
        f'[cameras.top]\nkind = "folder"\nfolder = "frames"\n[controller]\n{controller}\n',
        encoding="utf-8",
    )
    return path


@dataclass(frozen=True)
class Seen:
    """What a real station made of one frame: its record, and the pictures it kept by name."""

    record: Record
    pictures: tuple[tuple[str, Any], ...]


@pytest.fixture(scope="session")
def seen(tmp_path_factory: pytest.TempPathFactory, demo_recipe: Path) -> dict[str, Seen]:
    """One run of a real station on the demo recipe: a part of each kind in ``SERIALS``, none too late for its deadline."""
    folder = tmp_path_factory.mktemp("seen")
    config = load_station(
        station_toml(folder, demo_recipe, controller=f'kind = "simulated"\nserials = {json.dumps(list(SERIALS))}')
    )
    for serial, file in SERIALS.items():
        content = (demo_recipe / "selftest" / (file if file != "torn" else "good.png")).read_bytes()
        (folder / "frames" / f"{serial}.png").write_bytes(content if file != "torn" else content[: len(content) // 2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LoadedRecipe, "deadline_ms", 60_000)
        station = Station(config)
        try:
            station.open()
            end_s = time.monotonic() + 240
            station.run(lambda: station.controller.finished or time.monotonic() > end_s)  # type: ignore[attr-defined]
        finally:
            station.close()
    records = station.controller.answers  # type: ignore[attr-defined]
    return {record.serial: Seen(record, _pictures(folder / "evidence", record)) for record in records}


def _pictures(folder: Path, record: Record) -> tuple[tuple[str, Any], ...]:
    stem = record.evidence.rpartition("/")[2]
    return tuple(
        (path.stem.removeprefix(f"{stem}_"), read_image(path)) for path in evidence_files(folder, record.evidence)
    )


@dataclass
class Site:
    """A running server of the pages and the station's folder behind it."""

    url: str
    folder: Path
    config: StationConfig
    context: Context
    seen: dict[str, Seen]
    stack: ExitStack
    app: Any
    tokens: dict[str, str] = field(default_factory=dict)
    _store: Store | None = None

    @property
    def store_path(self) -> Path:
        return Path(self.config.store)

    @property
    def store(self) -> Store:
        """The record store, written here in the station's place."""
        if self._store is None:
            self._store = Store(self.store_path)
            self.stack.callback(self._store.close)
        return self._store

    def add_part(
        self, verdict: str = "NG", serial: str = "", *, lot: str = "LOT-1", pictures: bool = True,
        at: datetime | None = None, change: Callable[[Record], Record] = lambda record: record,
    ) -> Record:  # fmt: skip
        """Store a record with its pictures as the station would: OK, NG (2 findings), NG4 (4 in 3 classes), REVIEW or ERROR."""
        seen = self.seen["NG" if verdict == "REVIEW" else verdict]
        now = at or utc_now()
        trigger = Trigger(new_id(), serial or f"SN-{new_id()[:8]}", lot, seen.record.trigger.recipe_id, now)
        record = replace(seen.record, trigger=trigger, record_id=new_id(), judged_at=now, evidence="")
        if verdict == "REVIEW":
            reasons = tuple(
                Reason(r.rule_id.replace("ng.", "review."), r.text, r.detections) for r in record.judgement.reasons
            )
            record = replace(record, judgement=Judgement(type(record.judgement.verdict).REVIEW, reasons))
        if pictures and seen.pictures:
            writer = EvidenceWriter(Path(self.config.evidence.folder), queue_size=4, min_free_mb=0)
            record = replace(record, evidence=writer.offer(record.record_id, lot, seen.pictures))
            writer.close()
        record = change(record)
        self.store.accept(record.trigger)
        self.store.commit(record)
        return record

    def add_person(self, name: str, role: str = "operator", *, must_change: bool = False) -> str:
        """Make an account; gives its password."""
        if self.context.accounts.find(name) is None:
            self.context.accounts.add(name, role, PASSWORD, by="test", must_change=must_change)
        return PASSWORD

    def token(self, name: str, role: str = "operator") -> str:
        """The token of a session of this person, who is made when missing: quicker than the log-in page."""
        if name not in self.tokens:
            self.tokens[name] = self.context.accounts.log_in(name, self.add_person(name, role), address="127.0.0.1")
        return self.tokens[name]

    def client(self, name: str = "", role: str = "operator") -> httpx.Client:
        """An HTTP client of this person (nobody without a name), who sends the CSRF token with everything."""
        client = self.stack.enter_context(httpx.Client(base_url=self.url, timeout=LIMIT_S))
        if name:
            token = self.token(name, role)
            session = self.context.accounts.session(token)
            assert session is not None
            client.cookies.set(self.cookie, token, domain="127.0.0.1")
            client.headers["X-CSRF-Token"] = session.csrf_token
        return client

    @property
    def cookie(self) -> str:
        """Name of the cookie that holds the session's token."""
        return str(self.app.state.guard.cookie)


@pytest.fixture
def site(tmp_path: Path, demo_recipe: Path, seen: dict[str, Seen]) -> Iterator[Site]:
    """The pages of a station whose store is made with its first record."""
    with ExitStack() as stack:
        yield open_site(stack, tmp_path, demo_recipe, seen)


@pytest.fixture
def shift_site(site: Site) -> Site:
    """A site with 24 parts: 16 OK, 4 NG, 2 REVIEW, 2 ERROR in two lots."""
    kinds = ["OK", "OK", "NG", "OK", "OK", "REVIEW", "OK", "OK", "NG4", "OK", "OK", "ERROR"]
    for number, verdict in enumerate(kinds * 2):
        site.add_part(verdict, f"SN-{number:04d}", lot="LOT-1" if number < 12 else "LOT-2", pictures=number >= 12)
    return site


def open_site(
    stack: ExitStack, folder: Path, recipe: Path, seen: dict[str, Seen], *, hmi: str = "", **more: str
) -> Site:
    """Start a server in a thread, until the stack is closed."""
    own = folder / "recipe" / recipe.name
    if not own.exists():
        shutil.copytree(recipe, own)
    config = load_station(station_toml(folder, own, hmi=hmi, **more))
    app = make_hmi(config)
    # Passwords are checked as anywhere, but quickly.
    app.state.context.accounts.passwords = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    listening = listen("127.0.0.1", 0)
    server = server_for(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    until(lambda: server.started or not thread.is_alive())
    assert server.started, "the server ended"

    def stop() -> None:
        server.should_exit = True
        thread.join(timeout=LIMIT_S)
        listening.close()

    stack.callback(stop)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    return Site(url, folder, config, app.state.context, seen, stack, app)


class Browser:
    """Chromium for one test; notes what no page of ours may do."""

    def __init__(self, chromium: Any, stack: ExitStack) -> None:
        self.chromium = chromium
        self.stack = stack
        self.outside: list[str] = []  # addresses that were asked for beyond the site
        self.errors: list[str] = []  # errors in scripts, and what the Content-Security-Policy refused

    def context(
        self, site: Site, name: str = "", role: str = "operator", *, size: tuple[int, int] = PANEL, **more: Any
    ) -> Any:
        """A fresh profile (Playwright's BrowserContext), logged in as ``name`` where one is given."""
        context = self.chromium.new_context(
            viewport={"width": size[0], "height": size[1]}, base_url=site.url, locale="en-GB", **more
        )
        self.stack.callback(context.close)
        context.set_default_timeout(LIMIT_S * 1000)
        own = urlsplit(site.url).netloc

        def asked(request: Any) -> None:
            parts = urlsplit(request.url)
            if parts.scheme not in ("data", "blob") and parts.netloc != own:
                self.outside.append(request.url)

        context.on("request", asked)
        context.on("weberror", lambda error: self.errors.append(str(error.error)))
        context.on("console", self._heard)
        if name:
            context.add_cookies([{"name": site.cookie, "value": site.token(name, role), "url": site.url}])
        return context

    def open(self, site: Site, path: str = "/", name: str = "", role: str = "operator", **more: Any) -> Any:
        """A Playwright page at a path of the site; ``size`` as ``PANEL`` or ``PHONE``."""
        page = self.context(site, name, role, **more).new_page()
        page.goto(path)
        return page

    def _heard(self, message: Any) -> None:
        if "Content Security Policy" in message.text:
            self.errors.append(message.text)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The system's Chromium; whatever is not this computer leads nowhere."""
    playwright = pytest.importorskip("playwright.sync_api", reason='pip install -e ".[dev]" brings playwright')
    if not Path(CHROMIUM).exists():
        pytest.skip("there is no /usr/bin/chromium: apt-get install chromium")
    arguments = ["--no-sandbox", "--proxy-server=http://127.0.0.1:9", "--proxy-bypass-list=127.0.0.1", "--disable-gpu"]
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=arguments)
        try:
            yield opened
        finally:
            opened.close()


@pytest.fixture
def browser(chromium: Any) -> Iterator[Browser]:
    """Opens pages in Chromium, and judges what they did when the test is over."""
    with ExitStack() as stack:
        made = Browser(chromium, stack)
        yield made
    assert [] == made.outside, "a page asked another origin"
    assert [] == made.errors, "a page had an error in its scripts, or broke its policy"
