"""The operator's page in Chromium: current or marked as not current, exact, readable, harmless."""

import asyncio
import os
import re
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cable import cable_to
from hmi_site import PANEL, PHONE, Browser, Site, until
from status_writer import saying

from inspection.controllers.register_map import REASON_CODES
from inspection.hmi import board, event_stream
from inspection.hmi.backlog import PIECE, Backlog
from inspection.hmi.board import MOST_BROWSERS, local
from inspection.hmi.counts import Counts, Tally
from inspection.hmi.event_stream import EventStream, message
from inspection.hmi.reasons import in_words
from inspection.hmi.watch import Watch
from inspection.inspect_frame import RULE_OF_ERROR
from inspection.station_link import PublisherState
from inspection.types import Detection, Judgement, Reason, Record, Region, Verdict, utc_now
from inspection.web.texts import LANGUAGES, words

HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=1</script>'
WORD = ".band .word"
LIVE = "#board:not(.unsure)"


def shown(page: Any, selector: str = WORD) -> str:
    """What a person can read there; "" when nothing is visible."""
    found = page.locator(selector)
    return str(found.first.inner_text()) if found.count() and found.first.is_visible() else ""


def produced(record: Record) -> Record:
    """The record as of a part from a real camera, which those of the site are not."""
    return replace(record, simulated=False)


def opened(site: Site, browser: Browser, path: str = "/", **more: Any) -> Any:
    """The page once it is live."""
    page = browser.open(site, path, "ann", **more)
    page.wait_for_selector(LIVE)
    return page


WATCH = """
window.seen = {};
new MutationObserver(() => {
  const band = document.querySelector("#board:not(.unsure) .band");
  if (band && !(band.dataset.record in window.seen)) window.seen[band.dataset.record] = Date.now();
}).observe(document.body, { childList: true, subtree: true });
"""


def test_verdicts_come_by_themselves(site: Site, browser: Browser) -> None:
    """Each new verdict is on the page without a reload, with word, serial and reason; how soon is printed."""
    site.add_part("OK", "FIRST")
    with saying(site):
        page = opened(site, browser)
        page.evaluate(WATCH)
        committed = {}
        for number in range(int(os.environ.get("LINESIDE_PARTS", "6"))):
            record = site.add_part("NG" if number % 2 else "OK", f"PART-{number}")
            committed[record.record_id] = 1000 * time.time()
            band = f'[data-record="{record.record_id}"]'
            page.wait_for_selector(band)
            until(lambda band=band, word="NG" if number % 2 else "OK": shown(page, f"{band} .word") == word)
            until(lambda band=band, number=number: shown(page, f"{band} .serial") == f"PART-{number}")
            time.sleep(0.2)
        page.wait_for_selector(".findings .pair img")
        until(lambda: "Defect spur" in shown(page, ".band .reason"))
        seen = page.evaluate("window.seen")
    delays = [seen[name] - at for name, at in committed.items()]
    print(f"\ncommit to page: median {statistics.median(delays):.0f} ms, worst {max(delays):.0f} ms of {len(delays)}")


def test_verdict_has_a_sign_beside_its_colour(site: Site, browser: Browser) -> None:
    """Each verdict has its own sign and word, and letters as high as five metres ask for."""
    site.add_part("OK")
    with saying(site):
        page = opened(site, browser)
        signs = {}
        for verdict in ("OK", "NG", "REVIEW", "ERROR"):
            record = site.add_part(verdict, pictures=False)
            page.wait_for_selector(f'[data-record="{record.record_id}"]')
            signs[verdict] = page.evaluate(f"getComputedStyle(document.querySelector('{WORD}'), '::before').content")
            assert page.evaluate(f"parseFloat(getComputedStyle(document.querySelector('{WORD}')).fontSize)") >= 120
        assert 4 == len(set(signs.values()))


@pytest.mark.parametrize("language", LANGUAGES)
def test_simulated_parts_are_named_beside_the_numbers(site: Site, browser: Browser, language: str) -> None:
    """Counts and yield of simulated parts say so, of parts from before the start of the pages and after it."""
    site.add_part("OK", lot="TRIAL", pictures=False)
    word = words(language, "board")["simulated_of_these"]
    with saying(site):
        page = opened(site, browser, f"/?lang={language}")
        row = page.locator("#counts tr.simulated")
        page.wait_for_selector("#counts tr.simulated")
        until(lambda: row.inner_text().split("\t") == [word, "1", "1"])
        record = site.add_part("OK", lot="REAL", pictures=False, change=produced)
        page.wait_for_selector(f'[data-record="{record.record_id}"]')
        until(lambda: row.inner_text().split("\t") == [word, "1", "0"])
        shares = page.locator("#counts .figures tr").last.locator("td").all_inner_texts()
    simulated = words(language, "board")["simulated"]
    assert [True, False] == [simulated in share for share in shares]


def test_part_of_another_day_has_its_date(site: Site) -> None:
    """The large line of a part says the day when that is not today."""
    client = site.client("ann")

    def dated_within_a_day() -> list[bool]:
        """Whether an old part and a new one have their dates; nothing when midnight came meanwhile."""
        old, new = site.add_part("OK", at=utc_now() - timedelta(days=21)), site.add_part("OK")
        texts = [client.get(f"/part/{part.record_id}").text.partition('class="age"')[0] for part in (old, new)]
        found = [
            f"&middot; {local(part.judged_at, '%Y-%m-%d')}" in text
            for part, text in zip((old, new), texts, strict=True)
        ]
        return found if local(new.judged_at, "%F") == local(utc_now(), "%F") else []

    assert [True, False] == until(dated_within_a_day)


def test_station_that_is_gone_leaves_no_ok_behind(site: Site, browser: Browser) -> None:
    """When the station says nothing any more, or was never there, the page says so in place of its last verdict."""
    site.add_part("OK", "GOOD-1")
    page = opened(site, browser)
    until(lambda: "STATION NOT RUNNING" in shown(page, "#now .lost"))
    with saying(site):
        page.wait_for_selector(".band.verdict-ok")
    page.wait_for_selector("#now .lost")
    assert "" == shown(page)
    assert "not the present state" in page.locator("#now").inner_text()


def test_station_that_stands_is_not_shown_as_ok(site: Site, browser: Browser) -> None:
    """A camera that is away and a store that fails stand above the last verdict, with what to do; then it goes on."""
    site.add_part("OK", "GOOD-1")
    with saying(site) as said:
        page = opened(site, browser)
        page.wait_for_selector(".band.verdict-ok")
        said.say(state="ERROR", cameras={"top": "no frame since 12:00"})
        page.wait_for_selector("text=STATION NOT READY")
        until(lambda: "no frame since 12:00" in (said := shown(page, "#now .lost")) and "Check its cable" in said)
        assert "" == shown(page)
        said.say(state="READY", cameras={"top": ""})
        page.wait_for_selector(".band.verdict-ok")


def test_record_that_cannot_be_read_is_counted_and_hides_no_other(site: Site, browser: Browser) -> None:
    """While it is the newest no verdict is shown; then the line is shown again, and it is counted, also after a start."""
    site.add_part("OK", "GOOD-1", lot="L")
    with saying(site):
        page = opened(site, browser)
        page.wait_for_selector(".band.verdict-ok")
        with site.store.transaction() as database:
            database.execute("INSERT INTO triggers VALUES ('t-bad', '{}', '')")
            row = ("bad", "t-bad", "S", "L", "r", Verdict.NG.value, utc_now().isoformat(), "{}")
            database.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        page.wait_for_selector("text=RECORDS CANNOT BE READ")
        assert "" == shown(page)
        site.add_part("NG", "NEXT-1", lot="L")
        page.wait_for_selector(".band.verdict-ng")
        told = page.locator("tr", has_text="unreadable, not counted").locator("td")
        until(lambda: ["1", "1"] == told.all_inner_texts())
    with closing(Watch(site.context)) as anew:
        figures = until(lambda: not (seen := anew.sight().figures).counting and seen)
        assert Tally(ok=1, ng=1, simulated=2, unreadable=1) == figures.of_shift == figures.of_lot


def test_lost_connection_is_said_in_large_words(site: Site, browser: Browser) -> None:
    """When the pages' own look at the records ends, the page hides its verdict within seconds, not to show an old one."""
    site.add_part("OK", "GOOD-1")
    with saying(site):
        page = opened(site, browser)
        page.wait_for_selector(".band.verdict-ok")
        site.context.at_close[-1]()  # the watch ends, the server still answers
        until(lambda: "NO CONNECTION" in shown(page, "#lost") and "" == shown(page))


def test_cable_that_is_pulled_is_noticed(site: Site, browser: Browser) -> None:
    """When nothing arrives any more, the page hides its verdict by itself, and goes on when the cable is back."""
    site.add_part("OK", "GOOD-1")
    with saying(site), cable_to(site.url) as cable:
        page = opened(replace(site, url=cable.url), browser)
        page.wait_for_selector(".band.verdict-ok")
        cable.pull()
        until(lambda: "NO CONNECTION" in shown(page, "#lost") and "" == shown(page))
        record = site.add_part("NG", "MEANWHILE")
        cable.put_back()
        page.wait_for_selector(f'[data-record="{record.record_id}"]')
        page.wait_for_selector(LIVE)
        page.context.close()


def test_person_who_was_logged_out_is_sent_to_log_in(
    site: Site, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that ends while the page is open ends the stream, and the page leads to the log-in."""
    monkeypatch.setattr(board, "WHO_S", 0.5)
    site.add_part("OK", "GOOD-1")
    with saying(site):
        page = opened(site, browser)
        page.wait_for_selector(".band.verdict-ok")
        site.context.accounts.log_out(site.tokens["ann"])
        page.wait_for_url("**/login?**")


def test_counts_stay_exact_when_parts_come_fast(site: Site, browser: Browser) -> None:
    """A burst of parts leaves the newest in view, every one counted, and each that was not OK in the strip."""
    kinds = ["OK", "NG", "OK", "ERROR", "OK", "REVIEW"] * 5
    with saying(site):
        for _ in range(3):
            site.add_part("OK", lot="BEFORE", pictures=False, change=produced)
        page = opened(site, browser)
        records = [
            site.add_part(kind, f"B-{number}", lot="BURST", pictures=False, change=produced)
            for number, kind in enumerate(kinds)
        ]
        page.wait_for_selector(f'[data-record="{records[-1].record_id}"]')
        figures = page.locator("#counts .figures tbody")
        until(lambda: "30" == figures.locator("td:nth-child(3)").first.inner_text())
        until(lambda: "33" == figures.locator("td:nth-child(2)").first.inner_text())
        assert ["33", "18", "5", "5", "5", "64.3 %"] == figures.locator("td:nth-child(2)").all_inner_texts()
        assert ["30", "15", "5", "5", "5", "60.0 %"] == figures.locator("td:nth-child(3)").all_inner_texts()
        until(lambda: 12 == page.locator(".tile").count())
        assert "B-29" in page.locator(".tile").first.inner_text()
        page.locator(".tile").first.press("Enter")
        page.wait_for_url(f"**/part/{records[-1].record_id}")
        assert "earlier part" in page.locator("main").inner_text()


def hostile(record: Record) -> Record:
    found = (Detection(HOSTILE, 0.9, Region((10, 10, 60, 60)), roi_id="top", camera="top"),)
    trigger = replace(record.trigger, serial=HOSTILE + "\nevent: beat\ndata: 1", lot=HOSTILE)
    reasons = (Reason(f"ng.{HOSTILE}", HOSTILE, found), Reason("odd.{0.__class__}", "{what}" + HOSTILE, found))
    return replace(record, trigger=trigger, judgement=Judgement(Verdict.NG, reasons), detections=found)


def test_text_of_records_and_devices_stays_text(site: Site, browser: Browser) -> None:
    """A serial, lot, class, reason, camera fault or reviewer that is a script is shown as it is, and nothing runs."""
    site.add_part("OK")
    with saying(site) as said:
        said.say(publishers={HOSTILE: PublisherState(connected=False, waiting=1, last_error=HOSTILE)})
        page = opened(site, browser)
        record = site.add_part("NG", change=hostile)
        page.wait_for_selector(f'[data-record="{record.record_id}"]')
        until(lambda: HOSTILE in page.locator("#station").inner_text())
        assert HOSTILE in page.locator(".band .serial").inner_text()
        assert HOSTILE in page.locator(".band .reason").first.inner_text()
        page.goto(f"/part/{record.record_id}")
        assert HOSTILE in page.locator("main").inner_text()
        assert 0 == page.locator("main script, main img[onerror]").count()
        assert "lineside" in page.title()


def test_event_cannot_be_forged_by_a_text() -> None:
    """Every line of a fragment is marked as its text, whatever ends the line."""
    for end in ("\n", "\r", "\r\n", "\n\n", "\u2028"):
        sent = message("strip", f"a{end}event: beat{end}data: 1").decode()
        assert ["event: strip"] == [line for line in re.split(r"\r\n|\r|\n", sent) if line.startswith("event")]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("size", [PANEL, PHONE])
def test_page_fits_and_can_be_used_by_everybody(
    shift_site: Site, browser: Browser, language: str, size: tuple[int, int]
) -> None:
    """On the touch panel and the phone nothing is cut off, targets are large, and axe finds no serious fault."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason='pip install -e ".[dev]" brings axe')
    long = shift_site.add_part("NG4", "SERIAL-" + "8" * 60, lot="LOT-" + "7" * 60)
    with saying(shift_site) as said:
        said.say(
            publishers={"plant": PublisherState(connected=False, waiting=12000, last_error="refused")},
            store_free_mb=500.0,
        )
        page = opened(shift_site, browser, f"/?lang={language}", size=size)
        page.wait_for_selector(".alarms .alarm")
        for path in ("", f"/part/{long.record_id}"):
            if path:
                page.goto(path)
            assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
            small = page.evaluate(
                """[...document.querySelectorAll('main a, main button')].filter(e => e.offsetParent)
                   .map(e => e.getBoundingClientRect()).filter(r => r.height < 43.5 || r.width < 43.5).length"""
            )
            assert 0 == small
            found = axe.Axe().run(page).response["violations"]
            assert [] == [
                (one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")
            ]


def test_number_of_streams_is_bounded(site: Site) -> None:
    """A browser too many is refused in words, and one that leaves makes room."""
    site.add_part("OK")
    client = site.client("ann")
    streams = [client.stream("GET", "/board/stream") for _ in range(MOST_BROWSERS)]
    try:
        for stream in streams:
            assert 200 == stream.__enter__().status_code
        assert 503 == client.get("/board/stream").status_code
    finally:
        for stream in streams:
            stream.__exit__(None, None, None)

    def room() -> bool:
        with client.stream("GET", "/board/stream") as again:
            return again.status_code == 200

    assert until(room)


def test_browser_that_takes_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream whose receiver stands still ends by itself and frees its place."""
    monkeypatch.setattr(event_stream, "SEND_S", 0.1)
    ended = []

    async def messages() -> Any:
        while True:
            yield b"event: beat\ndata: 1\n\n"

    async def receive() -> Any:
        await asyncio.sleep(3600)

    async def send(sent: Any) -> None:
        if sent["type"] == "http.response.body":
            await asyncio.sleep(3600)

    stream = EventStream(messages(), lambda: ended.append(1))

    async def serve() -> None:
        await asyncio.wait_for(stream({"type": "http"}, receive, send), 30)

    with ThreadPoolExecutor(1) as pool:  # a loop of its own: the browser's runs in this thread
        pool.submit(asyncio.run, serve()).result(timeout=60)
    assert [1] == ended


def test_start_reads_back_no_further_than_is_shown(site: Site) -> None:
    """With a long past behind it, a start counts the shift and not the store; all of the shift is counted."""
    old = (utc_now() - timedelta(days=9)).isoformat()
    with site.store.transaction() as database:
        for number in range(4 * PIECE):
            database.execute("INSERT INTO triggers VALUES (?, '{}', '')", (f"t-{number}",))
            row = (f"old-{number}", f"t-{number}", "S", "OLD", "r", 1, old, "{}")
            database.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    for number in range(5):
        site.add_part("OK" if number else "NG", lot="L", pictures=False)
    counts = Counts(("00:00",), UTC)
    backlog = Backlog(counts, site.context.reader.last_rowid() + 1, utc_now() - timedelta(hours=30))
    backlog.want_lot("L", site.context.reader.last_rowid() + 1)
    steps = 0
    while not backlog.done:
        backlog.step(site.context.reader)
        steps += 1
    assert steps <= 3
    assert backlog.complete
    assert (5, 1) == (counts.of_lot("L").parts, counts.of_lot("L").ng)
    assert 5 == sum(slot.tally.parts for slot in counts.trend(utc_now(), 2))


def test_reasons_are_there_in_words() -> None:
    """Every rule that the runtime can name has its sentence in every language; findings name class and place."""
    found = Detection("short", 0.91, Region((0, 0, 5, 5)))
    for language in LANGUAGES:
        assert set() == _rule_ids() - set(words(language, "reasons"))
        said = in_words(language, Reason("ng.short@pads", "x", (found, found)))
        assert all(part in said for part in ("short", "pads", "2", "0.91"))
        assert "own words" == in_words(language, Reason("new.rule", "own words"))


def _rule_ids() -> set[str]:
    """Rule ids that stand where reasons are made."""
    root = Path(event_stream.__file__).parents[1]
    made = re.compile(r"(?:Reason|error_judgement|rule_id=|_settle|rule = )\(?\s*\"([a-z]+\.[a-z_]+)\"")
    found = set(RULE_OF_ERROR.values()) | {code for code in REASON_CODES if "." in code}
    for path in root.rglob("*.py"):
        found |= set(made.findall(path.read_text(encoding="utf-8")))
    return found


def test_time_of_the_page_is_local() -> None:
    """Times on the page are those of the computer's clock on the wall."""
    at = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
    assert at.astimezone().strftime("%H:%M:%S") == local(at)
