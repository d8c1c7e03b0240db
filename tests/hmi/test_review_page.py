"""The review station in a real Chromium: keys, taps, lost connections, hostile texts."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hmi_site import CHROMIUM, PHONE, Browser, Seen, Site, open_site, port_of_our_own, until
from hypothesis import given
from hypothesis import strategies as st

from inspection.evidence import EvidenceWriter
from inspection.hmi.review_parts import overlap
from inspection.images import read_image
from inspection.recipe import lock_sha256
from inspection.types import Box, Detection, Judgement, Reason, Record, Region, Review, Verdict, utc_now

SERVER = """
import sys
from pathlib import Path
from inspection.config import load_station
from inspection.hmi.app import make_hmi
from inspection.web.serve import listen, serve
serve(make_hmi(load_station(Path(sys.argv[1]))), listen("127.0.0.1", int(sys.argv[2])))
"""
HOSTILE = '<script>window.pwned = 1</script><img src="https://outside.example/x.png" onerror="window.pwned = 2">'
SWITCHES = """
() => {
  window.switches = [];
  document.addEventListener("keydown", (event) => {
    const began = performance.now(), before = document.getElementById("serial").textContent;
    const look = () => {
      const img = document.querySelector("#stage img:not(.behind)");
      if (document.getElementById("serial").textContent === before || !img) { requestAnimationFrame(look); return; }
      const whole = img.complete && img.naturalWidth > 0;
      requestAnimationFrame(() => window.switches.push([performance.now() - began, whole]));
    };
    requestAnimationFrame(look);
  }, true);
}
"""
# A page that gives nothing up after seconds: what it waits for comes when the test says so, however slow the computer is.
PATIENT = """
(() => {
  const wait = window.setTimeout;
  window.setTimeout = (deed, ms, ...more) => wait(deed, ms >= 3000 ? 2 ** 31 - 1 : ms, ...more);
})();
"""


def patient(site: Site, browser: Browser) -> Any:
    """An empty page of a reviewer, ann, that has all the time in the world."""
    page = browser.context(site, "ann", "reviewer").new_page()
    page.add_init_script(PATIENT)
    return page


def serial(page: Any) -> str:
    """The serial of the part on the screen."""
    page.wait_for_selector("#part:not([hidden])")
    return str(page.text_content("#serial"))


def look(page: Any) -> None:
    """Look at the part long enough for a decision to count."""
    serial(page)
    page.wait_for_selector("[data-choice=confirmed][aria-disabled=false]")
    page.wait_for_timeout(300)


def press(page: Any, key: str) -> None:
    """Look at the part, then press a key."""
    look(page)
    page.keyboard.press(key)


def unsent(page: Any) -> int:
    """How many decisions the browser keeps."""
    return int(page.evaluate("Object.keys(localStorage).filter(k => k.includes('decision')).length"))


@contextmanager
def other_store(site: Site) -> Iterator[None]:
    """Another record store in the place of the station's, with one good part, while the block runs."""
    aside = site.folder / "aside"
    aside.mkdir()

    for path in _files(site):
        path.replace(aside / path.name)
    site.add_part("OK", pictures=False)
    yield
    for path in _files(site):
        path.unlink()
    # The database after its write-ahead log: nobody reads it without.
    for path in sorted(aside.iterdir(), reverse=True):
        path.replace(site.folder / path.name)


def _files(site: Site) -> list[Path]:
    """The files of the record store, which nobody has open for writing any more."""
    site.store.close()
    site._store = None
    return [path for end in ("", "-wal", "-shm") if (path := Path(f"{site.store_path}{end}")).exists()]


def stored(site: Site, count: int) -> list[tuple[str, str, str]]:
    """Record, disposition and reviewer of all reviews, once there are ``count``."""
    reviews = until(lambda: (found := site.context.reviews.after(0, 1000)) and len(found) >= count and found)
    return [(review.record_id, review.disposition, review.reviewer) for _, review in reviews]


def decision(record: Record, **more: Any) -> dict[str, Any]:
    """What a browser sends for a decision."""
    sent = {"key": "key-00000001", "record_id": record.record_id, "disposition": "confirmed", "person": "ann"}
    return sent | more


# ---- two people


def test_two_browsers_do_not_get_the_same_part(site: Site, browser: Browser) -> None:
    """What one person has on the screen or loaded ahead another does not get, until it is given back."""
    for number in range(9):
        site.add_part("NG", f"SN-{number}")
    ann = browser.open(site, "/review", "ann", "reviewer")
    assert "SN-0" == serial(ann)
    bob = browser.open(site, "/review", "bob", "reviewer")
    assert "SN-6" == serial(bob)
    for page in (ann, bob):
        for _ in range(3):
            press(page, "1")
    dispositions = stored(site, 6)
    assert 6 == len({record_id for record_id, _, _ in dispositions})
    assert {"ann": 3, "bob": 3} == Counter(who for _, _, who in dispositions)
    bob.wait_for_selector("text=No part waits for you")
    ann.goto("about:blank")
    until(lambda: not site.context.reviews.rows("SELECT 1 FROM claims WHERE person = 'ann'"))
    bob.reload()
    assert "SN-3" == serial(bob)


def test_an_unsure_part_goes_to_somebody_else(site: Site, browser: Browser) -> None:
    """Who is unsure does not see the part again, and hears that it waits for another person."""
    site.add_part("NG", "SN-1", pictures=False)
    ann = browser.open(site, "/review", "ann", "reviewer")
    press(ann, "4")
    ann.wait_for_selector("#empty:not([hidden])")
    stored(site, 1)
    ann.reload()
    until(lambda: "for another person" in ann.text_content("#empty-text"))
    bob = browser.open(site, "/review", "bob", "reviewer")
    assert "SN-1" == serial(bob)
    assert "ann" in bob.text_content("#said")
    press(bob, "2")
    assert ["unsure", "false_call"] == [word for _, word, _ in stored(site, 2)]


# ---- deciding


def test_only_fitting_choices_are_shown(site: Site, browser: Browser) -> None:
    """A rejected part cannot have escaped, and a part that passed is no false call."""
    site.add_part("NG", "SN-ng", pictures=False)
    shown = "[data-choice]:not([hidden])"
    page = browser.open(site, "/review", "ann", "reviewer")
    assert "SN-ng" == serial(page)
    assert ["confirmed", "false_call", "unsure"] == page.eval_on_selector_all(
        shown, "all => all.map(one => one.dataset.choice)"
    )
    press(page, "3")
    assert "SN-ng" == serial(page)
    press(page, "f")
    page.wait_for_selector("#empty:not([hidden])")
    assert ["false_call"] == [word for _, word, _ in stored(site, 1)]


def test_drawn_good_parts_are_reviewed(site: Site, browser: Browser) -> None:
    """A random share of the OK parts waits behind the rejected ones; a missed defect is one key."""
    hmi = site.context.config.hmi.model_copy(update={"review_ok_share": 1.0})
    site.context.config = site.context.config.model_copy(update={"hmi": hmi})
    site.add_part("OK", "SN-ok")
    site.add_part("ERROR", "SN-error")
    page = browser.open(site, "/review", "ann", "reviewer")
    assert "SN-ok" == serial(page)
    assert page.is_visible("#sample")
    assert not page.is_visible("[data-choice=false_call]")
    press(page, "e")
    page.wait_for_selector("#empty:not([hidden])")
    assert ["escape"] == [word for _, word, _ in stored(site, 1)]


def test_a_decision_is_undone_by_a_later_one(site: Site, browser: Browser) -> None:
    """Undo brings the part back; what is chosen then is a further review, and the earlier one stays in the record."""
    first = site.add_part("NG", "SN-1", pictures=False)
    site.add_part("NG", "SN-2", pictures=False)
    page = browser.open(site, "/review", "ann", "reviewer")
    press(page, "1")
    until(lambda: serial(page) == "SN-2")
    page.keyboard.press("z")
    until(lambda: serial(page) == "SN-1")
    assert "Confirm" in page.text_content("#decided")
    page.keyboard.press("Escape")
    until(lambda: serial(page) == "SN-2")
    page.keyboard.press("z")
    press(page, "2")
    until(lambda: serial(page) == "SN-2")
    assert [(first.record_id, "confirmed", "ann"), (first.record_id, "false_call", "ann")] == stored(site, 2)
    assert "false_call" == site.context.reviews.latest_by_record([first.record_id])[first.record_id].disposition


def test_several_decisions_are_gone_back_over(site: Site, browser: Browser) -> None:
    """Undo pressed again goes further back; afterwards the page goes on where it was, and can undo again."""
    for number in range(4):
        site.add_part("NG", f"SN-{number}", pictures=False)
    page = browser.open(site, "/review", "ann", "reviewer")
    for number in range(3):
        until(lambda number=number: serial(page) == f"SN-{number}")
        press(page, "1")
    for number in (2, 1):
        page.keyboard.press("z")
        until(lambda number=number: serial(page) == f"SN-{number}")
    press(page, "2")
    until(lambda: serial(page) == "SN-3")
    page.keyboard.press("z")
    until(lambda: serial(page) == "SN-2")
    page.keyboard.press("Escape")
    press(page, "1")
    page.wait_for_selector("#empty:not([hidden])")
    page.keyboard.press("z")
    until(lambda: serial(page) == "SN-3")
    assert ["confirmed"] * 3 + ["false_call", "confirmed"] == [word for _, word, _ in stored(site, 5)]


def test_a_comment_comes_with_its_decision(site: Site, browser: Browser) -> None:
    """Keys typed into the comment decide nothing; the comment is stored as it was written."""
    site.add_part("NG", "SN-1", pictures=False)
    page = browser.open(site, "/review", "ann", "reviewer")
    serial(page)
    page.keyboard.press("m")
    page.keyboard.type(f"1234 {HOSTILE}")
    page.keyboard.press("Enter")
    press(page, "4")
    stored(site, 1)
    ((_, review),) = site.context.reviews.after(0, 10)
    assert f"1234 {HOSTILE}" == review.comment
    bob = browser.open(site, "/review", "bob", "reviewer")
    serial(bob)
    assert HOSTILE in bob.text_content("#said")
    assert bob.evaluate("window.pwned") is None


def test_a_part_is_decided_by_touch(site: Site, browser: Browser) -> None:
    """On a phone one tap decides, and nothing is wider than the screen."""
    for number in range(2):
        site.add_part("NG", f"SN-{number}")
    page = browser.open(site, "/review", "ann", "reviewer", size=PHONE, has_touch=True)
    look(page)
    page.tap("[data-choice=false_call]")
    until(lambda: serial(page) == "SN-1")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    assert ["false_call"] == [word for _, word, _ in stored(site, 1)]


def test_a_bounced_key_decides_one_part(site: Site, browser: Browser) -> None:
    """A key that is held down or bounces does not decide a part that nobody could have looked at."""
    for number in range(3):
        site.add_part("NG", f"SN-{number}", pictures=False)
    page = browser.open(site, "/review", "ann", "reviewer")
    look(page)
    page.evaluate(  # all at one moment, also where the browser stands still between them
        "() => { const now = performance.now(); performance.now = () => now; for (const repeat of [false, true, false]) "
        "document.body.dispatchEvent(new KeyboardEvent('keydown', { key: '1', repeat, bubbles: true })); "
        "delete performance.now; }"
    )
    until(lambda: serial(page) == "SN-1")
    assert 1 == len(stored(site, 1))


# ---- pictures


def test_the_next_picture_is_there_at_once(site: Site, browser: Browser) -> None:
    """The next parts are loaded and decoded before they are wanted: the key shows a whole picture."""
    for number in range(7):
        site.add_part("NG", f"SN-{number}")
    page = browser.open(site, "/review", "ann", "reviewer")
    serial(page)
    until(
        lambda: page.evaluate(
            "window.performance.getEntriesByType('resource')"
            ".filter(e => e.name.includes('/picture/') && e.responseStatus === 200).length >= 6"
        )
    )
    page.wait_for_load_state("networkidle")
    page.evaluate(SWITCHES)
    for number in range(1, 6):
        press(page, "1")
        until(lambda number=number: page.evaluate("window.switches.length") == number)
    switches = page.evaluate("window.switches")
    assert all(whole for _, whole in switches)
    print("key to next picture on the screen:", ", ".join(f"{ms:.0f} ms" for ms, _ in switches))


def test_golden_and_frame_alternate(site: Site, browser: Browser) -> None:
    """Blinking shows frame and golden in turn until it is stopped."""
    site.add_part("NG", "SN-1")
    page = browser.open(site, "/review", "ann", "reviewer")
    serial(page)
    until(lambda: page.evaluate("document.querySelector('#stage img')?.naturalWidth > 0"))
    page.keyboard.press("b")
    for shown in ("Golden", "Part", "Golden"):
        until(lambda shown=shown: page.text_content("#shown") == shown)
    page.keyboard.press("b")
    assert "Part" == page.text_content("#shown")
    page.wait_for_timeout(700)
    assert "Part" == page.text_content("#shown")
    assert "false" == page.get_attribute("#blink", "aria-pressed")


def test_a_model_without_heat_map_has_no_button_for_it(site: Site, browser: Browser) -> None:
    """Where the model gives places only, there is no button, and the key asks for nothing."""
    site.add_part("NG", "SN-1")
    page = browser.open(site, "/review", "ann", "reviewer")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    look(page)
    assert not page.is_visible("#heat")
    page.keyboard.press("h")
    page.wait_for_timeout(300)
    assert [] == [url for url in asked if "/heat/" in url]
    assert "Part" == page.text_content("#shown")


@pytest.mark.parametrize("key", ["1", "Enter"])
def test_nothing_is_decided_before_the_picture_is_there(site: Site, browser: Browser, key: str) -> None:
    """While the frame is on its way neither key nor button decides, and the person hears why; then both do."""
    site.add_part("NG", "SN-1")
    page = patient(site, browser)
    waiting: list[Any] = []
    page.route("**/picture/**", lambda route: waiting.append(route))
    page.goto("/review", wait_until="domcontentloaded")
    serial(page)
    until(lambda: page.evaluate("1") and waiting)
    page.wait_for_timeout(400)
    page.focus("[data-choice=confirmed]")
    page.keyboard.press(key)
    assert "still loading" in page.text_content("#toast")
    assert "still loading" in page.text_content("#shown")
    assert (0, "SN-1") == (unsent(page), serial(page))
    waiting[0].continue_()
    look(page)
    page.keyboard.press(key)
    assert ["confirmed"] == [word for _, word, _ in stored(site, 1)]


def test_a_picture_that_does_not_come_is_said(site: Site, browser: Browser) -> None:
    """Without any picture the part can be decided, but only after the page said that there is none; undo asks anew."""
    site.add_part("NG", "SN-1")
    page = patient(site, browser)
    waiting: list[Any] = []
    addresses = ("**/picture/**", "**/finding/**")
    for address in addresses:
        page.route(address, lambda route: waiting.append(route))
    page.goto("/review", wait_until="domcontentloaded")
    serial(page)
    page.wait_for_timeout(400)
    page.keyboard.press("1")
    assert 0 == unsent(page)
    for address in addresses:
        page.route(address, lambda route: route.abort())
    for route in waiting:
        route.abort()
    page.wait_for_selector("#no-picture:not([hidden])")
    assert "did not arrive" in page.text_content("#no-picture")
    press(page, "1")
    assert ["confirmed"] == [word for _, word, _ in stored(site, 1)]
    for address in addresses:
        page.unroute(address)
    page.keyboard.press("z")
    look(page)
    assert not page.is_visible("#no-picture")
    assert page.evaluate("document.querySelector('#stage img').naturalWidth") > 0


def test_the_heat_map_is_laid_over_the_frame(
    tmp_path: Path, root: Path, seen: dict[str, Seen], browser: Browser
) -> None:
    """One key shows where an anomaly model saw the defect, as the model that judged the part sees it."""
    recipe = root / "deploy" / "recipes" / "demo-casting"
    frame = read_image(min(path for path in (recipe / "selftest").glob("*.png") if "good" not in path.name))
    found = Detection("anomaly", 0.9, Region((20, 20, 80, 80)), found_by="anomaly", camera="top")

    def cast(record: Record) -> Record:
        writer = EvidenceWriter(tmp_path / "evidence", queue_size=4, min_free_mb=0)
        evidence = writer.offer(record.record_id, "LOT-1", [("top", frame)])
        writer.close()
        return replace(
            record, recipe_id="demo-casting", recipe_sha256=lock_sha256(tmp_path / "recipe" / "demo-casting"),
            judgement=Judgement(Verdict.NG, (Reason("ng.anomaly", "a pore", (found,)),)), detections=(found,),
            evidence=evidence,
        )  # fmt: skip

    with ExitStack() as stack:
        site = open_site(stack, tmp_path, recipe, seen)
        site.add_part("NG", "SN-1", pictures=False, change=cast)
        page = browser.open(site, "/review", "ann", "reviewer")
        serial(page)
        page.keyboard.press("h")
        until(lambda: page.text_content("#shown") == "Heat map")
        assert page.evaluate("document.querySelector('#stage img:not(.behind)').naturalWidth") > 100
        page.keyboard.press("h")
        until(lambda: page.text_content("#shown") == "Part")
        assert not page.is_visible("#blink"), "this recipe has no golden"


def test_nothing_blinks_where_motion_is_not_wanted(site: Site, browser: Browser) -> None:
    """With reduced motion the key changes to the golden once, and back."""
    site.add_part("NG", "SN-1")
    page = browser.open(site, "/review", "ann", "reviewer", reduced_motion="reduce")
    look(page)
    page.keyboard.press("b")
    for _ in range(3):
        assert "Golden" == page.text_content("#shown")
        page.wait_for_timeout(400)
    page.keyboard.press("b")
    assert "Part" == page.text_content("#shown")


def test_findings_come_with_what_was_found_there_before(site: Site) -> None:
    """A finding names the earlier parts of the same recipe with a finding at the same place, and what was said of them."""
    earlier = [site.add_part("NG", f"SN-{number}") for number in range(3)]
    client = site.client("ann", "reviewer")
    client.post("/review/decisions", json=decision(earlier[1], disposition="false_call")).raise_for_status()
    last = site.add_part("NG", "SN-9")
    answer = client.post("/review/parts", json={"seat": "seat-0001", "count": 9}).json()
    part = next(one for one in answer["parts"] if one["record_id"] == last.record_id)
    found = part["findings"][0]
    assert (3, {"false_call": 1, "open": 2}) == (found["earlier"]["parts"], found["earlier"]["counts"])
    assert ["SN-2", "SN-1", "SN-0"] == [one["serial"] for one in found["earlier"]["last"]]
    for address in (found["frame"], found["golden"], part["frames"][0]["frame"], part["frames"][0]["golden"]):
        assert "image/jpeg" == client.get(address).headers["content-type"]
    assert part["frames"][0]["size"][0] > 0


def test_a_part_without_picture_says_why(site: Site, browser: Browser) -> None:
    """What was skipped under load can still be decided, and the page says why there is no picture."""
    site.add_part("NG", "SN-1", pictures=False, change=lambda record: replace(record, evidence="skipped: queue full"))
    page = browser.open(site, "/review", "ann", "reviewer")
    serial(page)
    assert "queue full" in page.text_content("#no-picture")
    press(page, "1")
    stored(site, 1)


# ---- what comes from outside


def test_hostile_texts_are_shown_as_text(site: Site, browser: Browser) -> None:
    """Serial, lot, class and reason with markup are words on the page: nothing runs, nothing is fetched."""

    def hostile(record: Record) -> Record:
        def renamed(detection: Any) -> Any:
            return replace(detection, defect_class=HOSTILE, roi_id=HOSTILE)

        reasons = tuple(
            replace(
                reason, rule_id="own.rule", text=HOSTILE, detections=tuple(renamed(one) for one in reason.detections)
            )
            for reason in record.judgement.reasons
        )
        return replace(
            record, trigger=replace(record.trigger, serial=HOSTILE, lot=HOSTILE),
            judgement=replace(record.judgement, reasons=reasons),
            detections=tuple(renamed(one) for one in record.detections),
        )  # fmt: skip

    for _ in range(2):
        site.add_part("NG", change=hostile)
    page = browser.open(site, "/review", "ann", "reviewer")
    assert HOSTILE == serial(page)
    for place in ("#reasons", "#findings", "#about", "#live"):
        assert HOSTILE in page.text_content(place)
    press(page, "1")
    stored(site, 1)
    page.wait_for_timeout(300)
    assert page.evaluate("window.pwned") is None
    assert 0 == page.locator("main script").count()


# ---- lost connections


@contextmanager
def own_server(site: Site, port: int) -> Iterator[subprocess.Popen[str]]:
    """The pages in a process of their own."""
    command = [sys.executable, "-c", SERVER, str(site.folder / "station.toml"), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert "open http" in server.stdout.readline()
            yield server
        finally:
            server.kill()


def test_thirty_decisions_survive_a_server_that_is_killed(site: Site, browser: Browser) -> None:
    """30 parts decided by keys, the server killed twice on the way: every decision is stored exactly once."""
    made = [site.add_part("NG", f"SN-{number}", pictures=False).record_id for number in range(30)]
    offline = 0
    answers: list[Any] = []

    def loaded_ahead(last: int) -> bool:
        """Whether the page was given the parts up to this one."""
        page.evaluate("1")
        return bool(answers) and made[last] in answers[-1].json().get("held", [])

    with ExitStack() as running:
        port = running.enter_context(port_of_our_own())
        there = replace(site, url=f"http://127.0.0.1:{port}")
        server = running.enter_context(own_server(site, port))
        page = browser.open(there, "/review", "ann", "reviewer")
        page.on("response", lambda answer: answers.append(answer) if answer.url.endswith("/review/parts") else None)
        for number in range(30):
            if number in (4, 17):
                until(lambda number=number: loaded_ahead(number + 4))
                os.kill(server.pid, signal.SIGKILL)
                server.wait()
            until(lambda number=number: serial(page) == f"SN-{number}")
            press(page, "12"[number % 2])
            if number in (8, 20):
                offline = max(offline, unsent(page))
                page.wait_for_selector("#keeping:not([hidden])")
                server = running.enter_context(own_server(site, port))
        page.wait_for_selector("#keeping", state="hidden")
        until(lambda: unsent(page) == 0)
        page.close()
    given = stored(site, 30)
    assert {(name, "ann") for name in made} == {(record_id, who) for record_id, _, who in given}
    assert (30, 15) == (len(given), sum(word == "false_call" for _, word, _ in given))
    print(f"up to {offline} decisions were kept in the browser while the server was gone")
    assert offline >= 4


def test_a_killed_browser_loses_nothing_acknowledged(site: Site, chromium: Any) -> None:
    """After a crash of the browser every acknowledged decision is there, and its parts are free when the lease ends."""
    for number in range(9):
        site.add_part("NG", f"SN-{number}", pictures=False)
    doomed = chromium.browser_type.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
    try:
        context = doomed.new_context(base_url=site.url)
        context.add_cookies([{"name": site.cookie, "value": site.token("ann", "reviewer"), "url": site.url}])
        page = context.new_page()
        page.goto("/review")
        for _ in range(3):
            press(page, "1")
        until(lambda: unsent(page) < 3)  # something was acknowledged
        left = unsent(page)
        with suppress(Exception):  # the answer never comes
            doomed.new_browser_cdp_session().send("Browser.crash")
    finally:
        doomed.close()
    assert len(stored(site, 3 - left)) >= 3 - left
    bob = site.client("bob", "reviewer")
    asked = {"seat": "seat-0001", "count": 9}
    held = len(bob.post("/review/parts", json=asked).json()["held"])
    assert held < 6

    def all_that_are_left() -> bool:
        with site.context.reviews.transaction() as database:  # as if two minutes had gone by
            database.execute("UPDATE claims SET until = 0 WHERE person = 'ann'")
        left = 9 - len(site.context.reviews.after(0, 10))
        return left == len(bob.post("/review/parts", json=asked).json()["held"])

    until(all_that_are_left)  # what the dying browser had sent may still be on its way


def test_a_decision_outlasts_another_store(site: Site, browser: Browser) -> None:
    """While another record store is there a decision stays in the browser, and is stored when its own is back."""
    record = site.add_part("NG", "SN-1", pictures=False)
    page = browser.open(site, "/review", "ann", "reviewer")
    serial(page)
    page.context.set_offline(True)
    press(page, "2")
    with other_store(site):
        page.context.set_offline(False)
        page.wait_for_selector("text=not in the record store now: 1 (SN-1)")
        page.reload()
        page.wait_for_selector("text=not in the record store now: 1 (SN-1)")
        assert 1 == unsent(page)
    assert [(record.record_id, "false_call", "ann")] == stored(site, 1)
    page.wait_for_selector("#keeping", state="hidden")
    assert 0 == unsent(page)


def test_a_refused_decision_is_given_up_by_the_person_alone(site: Site, browser: Browser) -> None:
    """Decisions that cannot be stored are discarded only after the person pressed the button and said yes."""
    site.add_part("NG", "SN-1", pictures=False)
    page = browser.open(site, "/review", "ann", "reviewer")
    serial(page)
    page.context.set_offline(True)
    press(page, "2")
    with other_store(site):
        page.context.set_offline(False)
        page.once("dialog", lambda dialog: dialog.dismiss())
        page.click("#keeping button")
        assert 1 == unsent(page)
        page.once("dialog", lambda dialog: dialog.accept())
        page.click("#keeping button")
        page.wait_for_selector("#keeping", state="hidden")
        assert 0 == unsent(page)
    page.reload()
    assert "SN-1" == serial(page)
    assert [] == site.context.reviews.after(0, 10)


def test_two_decisions_on_a_part_keep_their_order(site: Site, browser: Browser) -> None:
    """What was decided anew while the store was another one is stored behind what it replaces."""
    site.add_part("NG", "SN-1", pictures=False)
    page = browser.open(site, "/review", "ann", "reviewer")
    serial(page)
    page.context.set_offline(True)
    press(page, "2")
    with other_store(site):
        page.context.set_offline(False)
        page.wait_for_selector("text=not in the record store now: 1 (SN-1)")
        page.keyboard.press("z")
        press(page, "1")
        page.wait_for_selector("text=not in the record store now: 2 (SN-1)")
    assert ["false_call", "confirmed"] == [word for _, word, _ in stored(site, 2)]


def test_another_page_sends_what_a_closed_one_kept(site: Site, browser: Browser) -> None:
    """What a page could not send before it was closed is sent by another open page of that person, without a reload."""
    site.add_part("NG", "SN-1", pictures=False)
    page = browser.open(site, "/review", "ann", "reviewer")
    serial(page)
    other = page.context.new_page()
    other.goto("/review")
    other.wait_for_selector("#empty:not([hidden])")
    page.context.route("**/review/decisions", lambda route: route.abort())
    press(page, "2")
    assert 1 == unsent(page)
    page.close()
    other.context.unroute("**/review/decisions")
    assert [("false_call", "ann")] == [(word, who) for _, word, who in stored(site, 1)]
    until(lambda: unsent(other) == 0)


def test_nothing_left_is_not_said_while_parts_are_asked_for(site: Site, browser: Browser) -> None:
    """Who decides faster than the server answers is told that it is looked for parts, not that none waits."""
    for number in range(9):
        site.add_part("NG", f"SN-{number}", pictures=False)
    page = patient(site, browser)
    page.goto("/review")
    serial(page)
    page.route("**/review/parts", lambda route: None)
    for number in range(6):
        until(lambda number=number: serial(page) == f"SN-{number}")
        press(page, "1")
    page.wait_for_selector("#empty:not([hidden])")
    assert "Looking" in page.text_content("#empty-title")
    page.unroute("**/review/parts")  # lets go on what waits
    assert "SN-6" == serial(page)
    for number in range(6, 9):
        until(lambda number=number: serial(page) == f"SN-{number}")
        press(page, "1")
    page.wait_for_selector("text=No part waits for you")
    assert 9 == len(stored(site, 9))


def test_leaving_with_unsent_decisions_is_warned_of(site: Site, browser: Browser) -> None:
    """A tab that still keeps decisions asks before it is closed, and they are sent when the page is opened again."""
    site.add_part("NG", "SN-1", pictures=False)
    page = browser.open(site, "/review", "ann", "reviewer")
    serial(page)
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    # Without a session: a tab without a network gets it back for a moment while Chromium closes it.
    site.context.accounts.log_out(site.tokens.pop("ann"))
    press(page, "1")
    page.wait_for_selector("text=Decisions kept in this browser: 1")
    with page.expect_event("close"):
        page.close(run_before_unload=True)
    assert ["beforeunload"] == asked
    assert [] == site.context.reviews.after(0, 10)
    page.context.add_cookies([{"name": site.cookie, "value": site.token("ann"), "url": site.url}])
    page.context.new_page().goto("/review")
    assert ["confirmed"] == [word for _, word, _ in stored(site, 1)]


def test_decisions_outlast_a_session_and_stay_their_persons(site: Site, browser: Browser) -> None:
    """After the session ended decisions are kept; another person's log-in does not send them, the person's own does."""
    for number in range(2):
        site.add_part("NG", f"SN-{number}", pictures=False)
    page = browser.open(site, "/review", "ann", "reviewer")
    serial(page)
    site.context.accounts.log_out(site.token("ann"))
    press(page, "2")
    page.wait_for_selector("#keeping:not([hidden]) a")
    assert (
        "Decisions kept in this browser: 1. Log in again, and they are sent. Log in"
        == page.inner_text("#keeping").strip()
    )
    assert [] == site.context.reviews.after(0, 10)
    site.tokens.pop("ann")
    for name in ("bob", "ann"):
        token = site.token(name, "reviewer")
        page.context.add_cookies([{"name": site.cookie, "value": token, "url": site.url}])
        page.on("dialog", lambda dialog: dialog.accept())
        page.goto("/review")
        until(lambda: page.evaluate("document.getElementById('review').dataset.person"))
        if name == "bob":
            page.wait_for_selector("#keeping:not([hidden])")
            assert "decisions of ann" in page.text_content("#keeping")
            assert [] == site.context.reviews.after(0, 10)
    assert [("false_call", "ann")] == [(word, who) for _, word, who in stored(site, 1)]


# ---- the addresses themselves


def test_a_decision_sent_twice_is_stored_once(site: Site) -> None:
    """The answer to a repeated decision is that of the first; another one under its key is refused for good."""
    record, client = site.add_part("NG", pictures=False), site.client("ann", "reviewer")
    answers = [client.post("/review/decisions", json=decision(record, age_ms=9000.0)) for _ in range(2)]
    assert [{"review_id": 1}, {"review_id": 1}] == [answer.json() for answer in answers]
    other = client.post("/review/decisions", json=decision(record, disposition="false_call"))
    assert (422, True) == (other.status_code, "another decision" in other.json()["what"])
    ((_, review),) = site.context.reviews.after(0, 10)
    assert review.at.timestamp() < time.time() - 8


def test_a_decision_that_waited_in_a_browser_does_not_override_a_later_one(site: Site) -> None:
    """What ann decided eight hours ago comes after what bob decides now, and does not stand; her next word does."""
    record = site.add_part("NG", pictures=False)
    kept = decision(record, key="kept-0001", age_ms=8 * 3600e3)
    new = decision(record, key="new-00001", person="bob", disposition="false_call")
    for person, body in (("bob", new), ("ann", kept)):
        assert 200 == site.client(person, "reviewer").post("/review/decisions", json=body).status_code
    assert "bob" == site.context.reviews.latest_by_record([record.record_id])[record.record_id].reviewer
    site.client("ann", "reviewer").post("/review/decisions", json=decision(record, key="again-001"))
    assert "ann" == site.context.reviews.latest_by_record([record.record_id])[record.record_id].reviewer


def test_what_is_decided_now_is_later_than_what_came_before_though_the_clock_was_set_back(site: Site) -> None:
    """A review from a time that is yet to come keeps no later decision from standing, nor does a request that was slow."""
    for seconds, age_s in ((7200, 0), (20, 120)):
        record = site.add_part("NG", pictures=False)
        before = Review(record.record_id, "confirmed", "bob", utc_now() + timedelta(seconds=seconds - age_s))
        site.context.reviews.add(before, key=f"before-{seconds:06d}")
        body = decision(record, key=f"after-{seconds:06d}", disposition="false_call", age_ms=age_s * 1e3)
        assert 200 == site.client("ann", "reviewer").post("/review/decisions", json=body).status_code
        assert "ann" == site.context.reviews.latest_by_record([record.record_id])[record.record_id].reviewer


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"person": "bob"}, 403),
        ({"disposition": "escape"}, 422),
        ({"disposition": "fine"}, 422),
        ({"record_id": "nothing"}, 404),
        ({"key": "x"}, 422),
        ({"comment": "x" * 2001}, 422),
        ({"comment": "\ud800"}, 422),
        ({"extra": 1}, 422),
        ({"age_ms": "long"}, 422),
    ],
)
def test_a_wrong_decision_is_refused_in_words(site: Site, more: dict[str, Any], status: int) -> None:
    """What no person decided on this page is not stored."""
    record, client = site.add_part("NG", pictures=False), site.client("ann", "reviewer")
    body = json.dumps(decision(record, **more))
    answer = client.post("/review/decisions", content=body, headers={"Content-Type": "application/json"})
    assert (status, True) == (answer.status_code, bool(answer.json()["what"]))
    assert [] == site.context.reviews.after(0, 10)


def test_an_error_part_has_no_choices(site: Site) -> None:
    """Nothing was judged, so nothing can be confirmed: it neither waits nor takes a decision."""
    record, client = site.add_part("ERROR", pictures=False), site.client("ann", "reviewer")
    assert [] == client.post("/review/parts", json={"seat": "seat-0001", "count": 5}).json()["held"]
    assert 422 == client.post("/review/decisions", json=decision(record)).status_code


def test_only_reviewers_review(site: Site) -> None:
    """An operator, a stranger and a page of another origin cannot take parts or decide."""
    record = site.add_part("NG", pictures=False)
    operator = site.client("olga", "operator")
    assert 403 == operator.get("/review").status_code
    assert 403 == operator.post("/review/decisions", json=decision(record, person="olga")).status_code
    assert 401 == site.client().post("/review/parts", json={"seat": "seat-0001", "count": 1}).status_code
    forged = site.client("ann", "reviewer")
    del forged.headers["X-CSRF-Token"]
    assert 403 == forged.post("/review/decisions", json=decision(record)).status_code
    assert [] == site.context.reviews.after(0, 10)


def test_a_page_before_the_first_record_says_so(site: Site, browser: Browser) -> None:
    """A station that never ran has no store yet: the page says what to do, and goes on when there is one."""
    page = browser.open(site, "/review", "ann", "reviewer")
    until(lambda: "start the station" in page.text_content("#empty-text"))
    site.add_part("NG", "SN-1", pictures=False)
    assert "SN-1" == serial(page)


# ---- everybody


@pytest.mark.parametrize("language", ["en", "zh"])
def test_axe_finds_no_serious_fault(site: Site, browser: Browser, language: str) -> None:
    """The page can be used with a keyboard and a screen reader, in both languages."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason='pip install -e ".[dev]" brings axe')
    site.add_part("NG", "SN-1")
    page = browser.open(site, f"/review?lang={language}", "ann", "reviewer")
    serial(page)
    page.wait_for_load_state("networkidle")
    found = axe.Axe().run(page).response["violations"]
    assert [] == [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]


SIDES = st.integers(0, 50)
BOXES = st.builds(lambda x, y, w, h: (float(x), float(y), x + w + 1.0, y + h + 1.0), SIDES, SIDES, SIDES, SIDES)


@given(BOXES, BOXES)
def test_overlap_is_a_share(one: Box, other: Box) -> None:
    """Overlap is symmetric, 1 for the same box, 0 for boxes that only touch."""
    assert 0 <= overlap(one, other) == overlap(other, one) <= 1
    assert 1 == overlap(one, one)
    assert 0 == overlap(one, (one[2], one[1], one[2] + 1, one[3]))
