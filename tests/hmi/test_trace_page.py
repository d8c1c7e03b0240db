"""The page that finds parts, and what the page of a part shows of its trace."""

import re
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from hmi_site import PANEL, PHONE, Browser, Site, until

from inspection.types import Detection, Judgement, Reason, Record, Region, Review, Verdict, utc_now
from inspection.web.texts import LANGUAGES, all_words

HOSTILE = '"><img src=x onerror=alert(1)>'


def got(site: Site, **asked: str) -> str:
    """The page as an operator gets it."""
    answer = site.client("ann").get("/trace", params=asked)
    assert 200 == answer.status_code
    return answer.text


def links(text: str) -> list[str]:
    """The parts that are listed."""
    return re.findall(r'href="/part/([^"]+)"', text)


def test_nobody_looks_without_logging_in(site: Site) -> None:
    """A stranger is sent to the log-in page; an operator may look."""
    site.add_part("OK")
    answer = httpx.get(f"{site.url}/trace", follow_redirects=False)
    assert (303, True) == (answer.status_code, answer.headers["location"].startswith("/login"))
    assert "<h1>Trace a part</h1>" in got(site)


def test_one_box_finds_serials_lots_and_records(shift_site: Site) -> None:
    """What is typed is looked for as a serial, a lot and the id of a record; blanks around it do no harm."""
    part = shift_site.add_part("NG", "ONE-MORE", lot="LOT-3")
    for text in ("ONE-MORE", "LOT-3", part.record_id, "  ONE-MORE "):
        assert [part.record_id] == links(got(shift_site, q=text))
    in_lot = got(shift_site, q="LOT-1")
    assert 12 == len(links(in_lot))
    assert "<b>12</b> parts" in in_lot


def test_serial_used_twice_is_said(site: Site) -> None:
    """All records of a serial are listed, with the warning that there are several."""
    parts = [site.add_part("OK", "TWICE", lot=lot) for lot in ("LOT-1", "LOT-2")]
    text = got(site, q="TWICE")
    assert [part.record_id for part in reversed(parts)] == links(text)
    assert "used more than once; records: 2" in text


def test_what_is_not_there_names_what_begins_alike(shift_site: Site) -> None:
    """An unknown name lists serials that begin alike, as links."""
    text = got(shift_site, q="SN-00")
    assert "Nothing found for" in text
    assert 'href="/trace?q=SN-0003"' in text


def test_defect_is_found_at_its_place(site: Site) -> None:
    """Parts with a class are found by day and by place on the golden; the place that is listed leads back to it."""
    wanted = site.add_part("NG")
    site.add_part("OK")
    one = wanted.judgement.reasons[0].detections[0]
    part = site.client("ann").get(f"/part/{wanted.record_id}").text
    found = re.search(rf'href="(/trace\?defect={one.defect_class}[^"]+)"', part)
    assert found is not None
    same = site.client("ann").get(found[1].replace("&amp;", "&")).text
    assert [wanted.record_id] == links(same)
    assert "on the golden" in same
    assert [] == links(got(site, defect=one.defect_class, at="1,1", within="2"))
    yesterday = (utc_now().astimezone() - timedelta(days=2)).strftime("%Y-%m-%d")
    assert [] == links(got(site, defect=one.defect_class, since=yesterday, until=yesterday))


def test_place_on_the_frame_is_said(site: Site) -> None:
    """A record that does not say how the golden lay is compared where its finding lay on the frame."""
    one = Detection("scratch", 0.9, Region((405, 230, 415, 240)), camera="top")
    judgement = Judgement(Verdict.NG, (Reason("ng.scratch", "1 finding", (one,)),))

    def old(record: Any) -> Any:
        return replace(record, measured=(), schema=2, detections=(one,), judgement=judgement)

    site.add_part("NG", change=old)
    assert "1 of them were compared where the finding lay on the frame" in got(site, defect="scratch", at="410,235")


def test_all_parts_of_a_recipe_and_a_model(shift_site: Site) -> None:
    """The page of a part leads to all that the same recipe version and the same model judged."""
    part = shift_site.client("ann").get("/part/" + links(got(shift_site, q="SN-0003"))[0]).text
    for kind in ("recipe", "model"):
        found = re.search(rf'href="(/trace\?{kind}=[0-9a-f]+)"', part)
        assert found is not None
        text = shift_site.client("ann").get(found[1]).text
        assert "<b>24</b> parts" in text
        assert 24 == len(links(text))
    assert "<b>24</b> parts" in got(shift_site, recipe="demo-pcb")
    assert "Models that judged parts here" in got(shift_site, model="beef")
    assert "Recipes that judged parts here" in got(shift_site, recipe="other")


def test_searched_days_are_shown_and_classes_are_named(site: Site) -> None:
    """An answer says which days were searched, also when none was typed; an unknown class lists those that are known."""
    site.add_part("NG")

    def got_within_a_day() -> tuple[str, datetime] | None:
        """The page and its day; nothing when midnight came meanwhile."""
        now = utc_now().astimezone()
        text = got(site, defect="no-such", since="", until="")
        return (text, now) if utc_now().astimezone().date() == now.date() else None

    text, now = until(got_within_a_day)
    assert "Days searched, both included:" in text
    for day in (now - timedelta(days=6), now):
        assert f"<b>{day:%Y-%m-%d}</b>" in text
    assert "The recipe in force knows:" in text
    assert "/trace?defect=short&amp;since=" in text
    assert "The recipe in force knows:" not in got(site, defect="short", since="2026-01-01", until="2026-01-02")


def make_ok(site: Site, *parts: Record) -> None:
    """Change records to OK behind the program's back: the first whole, others in their verdict alone."""
    with closing(sqlite3.connect(site.context.reader.path)) as database:
        database.execute("DROP TRIGGER records_keep")
        for part in parts:
            whole = replace(part, judgement=Judgement(Verdict.OK), detections=()).to_json()
            text = whole if part is parts[0] else part.to_json().replace('"verdict":"NG"', '"verdict":"OK"')
            database.execute("UPDATE records SET json = ?, verdict = 1 WHERE record_id = ?", (text, part.record_id))
        database.commit()


@pytest.mark.parametrize("language", LANGUAGES)
def test_figures_of_a_part_have_names_in_words(site: Site, language: str) -> None:
    """Every stage and everything measured of a real part is named in the language of the page, with its camera."""
    part = site.add_part("NG")
    text = site.client("ann").get(f"/part/{part.record_id}", params={"lang": language}).text
    figures = {"stage": [name for name, _ in part.stage_ms], "quantity": [name for name, _ in part.measured]}
    assert all(figures.values())
    for table, names in figures.items():
        for figure in names:
            role, _, name = figure.rpartition(".")
            label = f"{role}: {all_words(language)[table][name]}" if role else all_words(language)[table][name]
            assert f">{label}</th>" in text


def test_simulated_parts_are_marked(site: Site) -> None:
    """Lists mark what was no production."""
    site.add_part("NG", "TRIAL", change=lambda record: replace(record, simulated=True))
    assert "simulated" in got(site, q="TRIAL")


@pytest.mark.parametrize("language", LANGUAGES)
def test_forged_record_has_no_verdict_that_looks_valid(site: Site, browser: Browser, language: str) -> None:
    """A record that was falsified to OK shows an alarm in place of its verdict: on its page, and in every list."""
    part, other = site.add_part("NG", "FORGED"), site.add_part("NG", "FORGED")
    words = all_words(language)["trace"]
    page = browser.open(site, f"/part/{part.record_id}?lang={language}", "ann")
    assert 1 == page.locator(".band.verdict-ng").count()
    make_ok(site, part)
    page.goto(f"/part/{part.record_id}")
    assert 0 == page.locator("main .verdict-ok").count()
    assert words["altered"] == page.locator("[role=alert] .huge").inner_text()
    assert words["altered_record"] in page.locator("[role=alert]").inner_text()
    assert 1 == page.locator("main .verdict-ng").count()  # that of the other record of the serial
    page.goto(f"/part/{other.record_id}")
    assert words["altered_short"] == page.locator("main .unsound").inner_text()
    for asked in ("FORGED", "LOT-1", part.record_id):
        page.goto(f"/trace?q={asked}")
        assert 0 == page.locator("main .verdict-ok").count()
        assert words["altered_short"] == page.locator("main .unsound").inner_text()
        assert words["unsound"] in page.locator("[role=alert]").inner_text()


def test_record_that_cannot_be_read_is_said_in_words(site: Site) -> None:
    """Its page is headed so, with its id, its row and the audit, and without a path of the server; lists mark it."""
    first, part = site.add_part("NG"), site.add_part("NG", "TORN")
    make_ok(site, first, part)
    answer = site.client("ann").get(f"/part/{part.record_id}")
    assert (409, False) == (answer.status_code, str(site.folder) in answer.text)
    heading = re.search(r"<h1[^>]*>(.*?)</h1>", answer.text)
    assert heading is not None
    assert "This record cannot be read" == heading[1]
    for word in (part.record_id, "row 2", "lineside audit"):
        assert word in answer.text
    for asked in ("TORN", "LOT-1"):
        text = got(site, q=asked)
        assert 'class="unsound"' in text
        assert "verdict-ok" not in text


def test_counts_beyond_the_list_are_said_to_be_unchecked(shift_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where more parts are counted than listed, the page says what was checked; where all are listed it need not."""
    unchecked = "Counted by the columns of the records"
    assert unchecked not in got(shift_site, q="LOT-1")
    monkeypatch.setattr("inspection.hmi.trace_page.SHOWN", 5)
    assert unchecked in got(shift_site, q="LOT-1")


def test_names_do_not_turn_the_writing_around(site: Site) -> None:
    """Control letters in a serial or a lot are shown as what they are, in title, heading, verdict and lists."""
    part = site.add_part("NG", "A\u202eB\x1bC", lot="L\u202eOT")
    client = site.client("ann")
    for text in (client.get(f"/part/{part.record_id}").text, got(site, q="A\u202eB\x1bC"), client.get("/").text):
        shown = re.sub(r'value="[^"]*"', "", text)  # what was typed stays as it was
        assert "\u202e" not in shown
        assert "\x1b" not in shown
        assert "A\\u202eB\\x1bC" in shown


def test_part_shows_limits_chain_and_pictures(site: Site) -> None:
    """The page of a part tells the limits in force, where its record stands, its stored pictures, and how to judge it again."""
    part = site.add_part("NG", "TWICE")
    other = site.add_part("OK", "TWICE")
    site.context.reviews.add(Review(part.record_id, "confirmed", "ann", utc_now(), "seen"), key="trace-page-1")
    text = site.client("ann").get(f"/part/{part.record_id}").text
    for words in (
        "Limits in force",
        "0.440",
        "entry 1,",
        "none holds it yet",
        "Stored pictures",
        f"lineside replay STATION.toml {part.record_id}",
    ):
        assert words in text
    assert other.record_id in links(text)


NO_SEARCHES = [
        {"defect": "short", "since": "2026-11-09", "until": "2026-11-01"}, {"defect": "short", "since": "soon"},
        {"defect": "short", "since": "2020-01-01"}, {"defect": "short", "until": "9999-12-31"},
        {"defect": "short", "at": "1"}, {"defect": "short", "at": "nan,1"}, {"defect": "short", "within": "0"},
        {"defect": "short", "since": "0001-01-01", "until": "0001-01-02"}, {"q": "x" * 201}, {"q": "a\0b"},
]  # fmt: skip


def test_what_cannot_be_searched_is_said(site: Site) -> None:
    """Days, places and names that make no sense are answered with a sentence, not with a list."""
    site.add_part("NG")
    for asked in NO_SEARCHES:
        text = got(site, **asked)
        assert 'role="alert"' in text
        assert [] == links(text)


def test_hostile_text_stays_text(site: Site, browser: Browser) -> None:
    """Whatever is in a name, a lot or an address, the page shows it as text."""
    site.add_part("NG", HOSTILE, lot=HOSTILE)
    page = browser.open(site, "/", "ann")
    for field in ("q", "defect", "model", "recipe", "at", "since", "camera", "roi"):
        page.goto(f"/trace?{httpx.QueryParams({'defect': 'spur'} | {field: HOSTILE})}")
        assert 0 == page.locator("main img").count()
    page.goto(f"/trace?{httpx.QueryParams({'q': HOSTILE})}")
    assert 0 == page.locator("main img").count()
    page.locator("main a[href^='/part/']").first.click()
    page.locator("h1", has_text=HOSTILE).wait_for()


def test_person_finds_a_part_by_typing(shift_site: Site, browser: Browser) -> None:
    """A serial, the Enter key, and a tap on the row lead to the page of the part."""
    page = browser.open(shift_site, "/trace", "ann")
    page.get_by_role("searchbox").fill("SN-0002")
    page.keyboard.press("Enter")
    page.locator("main a[href^='/part/']").first.click()
    page.locator("h1", has_text="SN-0002").wait_for()
    assert page.locator("nav a[href='/trace']").count() == 1


@pytest.mark.parametrize("size", [PANEL, PHONE])
@pytest.mark.parametrize("language", LANGUAGES)
def test_page_fits_and_can_be_used_by_everybody(
    shift_site: Site, browser: Browser, language: str, size: tuple[int, int]
) -> None:
    """On the panel and the phone nothing is cut off, targets are large, and axe finds no serious fault."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason='pip install -e ".[dev]" brings axe')
    long = shift_site.add_part("NG4", "SERIAL-" + "8" * 60, lot="LOT-" + "7" * 60)
    one = long.judgement.reasons[0].detections[0]
    page = browser.open(shift_site, f"/trace?lang={language}", "ann", size=size)
    for path in (
        f"/trace?q={long.trigger.lot}",
        f"/trace?defect={one.defect_class}",
        "/trace?q=SN",
        f"/part/{long.record_id}",
    ):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        small = page.evaluate(
            """[...document.querySelectorAll('main a, main button, main summary, main input, main select')]
               .filter(e => e.offsetParent && e.checkVisibility())
               .map(e => e.getBoundingClientRect()).filter(r => r.height < 43.5 || r.width < 43.5).length"""
        )
        assert 0 == small
        found = axe.Axe().run(page).response["violations"]
        assert [] == [(bad["id"], bad["nodes"][0]["html"]) for bad in found if bad["impact"] in ("serious", "critical")]


def test_both_languages_have_all_words() -> None:
    """No word of the page is missing in one of the languages."""
    english, chinese = (set(all_words(language)["trace"]) for language in LANGUAGES)
    assert english == chinese
