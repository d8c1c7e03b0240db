"""The review of parts that cannot be shown, or only without a picture: they hold up no other, and are counted."""

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hmi_site import Browser, Site, until
from test_pictures import entered, retained

from inspection.evidence import evidence_files
from inspection.review_queue import LEASE_S
from inspection.types import Record, utc_now

SEATS = {"ann": "seat-of-ann", "bob": "seat-of-bob"}


def rewritten(site: Site, record: Record, one: str, other: str) -> None:
    """Put another word in the place of one in a record, behind the station's back."""
    with closing(sqlite3.connect(site.store_path)) as database, database:
        database.execute("DROP TRIGGER IF EXISTS records_keep")
        sql = "UPDATE records SET json = replace(json, ?, ?) WHERE record_id = ?"
        assert 1 == database.execute(sql, (f'"{one}"', f'"{other}"', record.record_id)).rowcount


def damaged(site: Site, record: Record) -> None:
    """Make a record unreadable."""
    rewritten(site, record, "judgement", "judgemenx")


def drawing_all(site: Site) -> None:
    """Draw every OK part for review."""
    hmi = site.context.config.hmi.model_copy(update={"review_ok_share": 1.0})
    site.context.config = site.context.config.model_copy(update={"hmi": hmi})


def asked(site: Site, person: str, count: int = 3) -> dict[str, Any]:
    """What the page of a person is answered that asks for parts."""
    answer = site.client(person, "reviewer").post("/review/parts", json={"seat": SEATS[person], "count": count})
    assert 200 == answer.status_code, answer.text
    return dict(answer.json())


def serials(answer: dict[str, Any]) -> list[str]:
    """The parts that a page was told."""
    assert answer["held"] == [part["record_id"] for part in answer["parts"]]
    return [part["serial"] for part in answer["parts"]]


def decided(site: Site, record: Record, disposition: str, **more: Any) -> int:
    """The status that ann's decision is answered with."""
    body = {"key": f"key-{disposition}", "record_id": record.record_id, "disposition": disposition, "person": "ann"}
    return site.client("ann", "reviewer").post("/review/decisions", json=body | more).status_code


def of_before(site: Site) -> Record:
    """An OK part of a while ago, so that nobody waits for its picture, which the ledger knows."""
    record = site.add_part("OK", "SN-ok", at=utc_now() - timedelta(minutes=5))
    entered(site, record)
    return record


def pictures(site: Site, record: Record) -> tuple[Path, ...]:
    """The files that are there of a record."""
    return evidence_files(Path(site.config.evidence.folder), record.evidence)


def test_records_that_cannot_be_read_hold_up_nobody(site: Site) -> None:
    """Of two people each gets as many parts as asked for; the unreadable records are counted and named, and come back."""
    drawing_all(site)
    bad = [site.add_part("NG", f"SN-bad{number}") for number in range(4)]
    bad += [site.add_part("OK", "SN-bad4", pictures=False)]
    for number in range(6):
        site.add_part("NG", f"SN-{number}")
    for record in bad:
        damaged(site, record)
    ann, bob = asked(site, "ann"), asked(site, "bob", 6)
    assert (["SN-0", "SN-1", "SN-2"], ["SN-3", "SN-4", "SN-5"]) == (serials(ann), serials(bob))
    assert (6, 3, 5) == (bob["waiting"], bob["elsewhere"], bob["unreadable"])
    assert [record.record_id for record in bad[:3]] == bob["unreadable_ids"]
    earlier = ann["parts"][0]["findings"][0]["earlier"]
    assert (0, 4) == (earlier["parts"], earlier["unread"])
    assert 404 == decided(site, bad[0], "confirmed")  # it stays in the browser until the record can be read
    for record in bad:
        rewritten(site, record, "judgemenx", "judgement")
    with site.context.reviews.transaction() as database:
        database.execute("UPDATE claims SET until = until - ?", (LEASE_S,))
    again = asked(site, "ann", 20)
    assert {"SN-bad0", "SN-0", "SN-5"} < set(serials(again))
    assert (0, 1) == (again["unreadable"], again["no_picture"])
    assert 200 == decided(site, bad[0], "confirmed")


def test_a_picture_that_retention_compressed_is_shown(site: Site) -> None:
    """A JPEG is a picture of the part, laid out by its own size."""
    drawing_all(site)
    record = of_before(site)
    retained(site, "compressed")
    assert [".jpg"] == [path.suffix for path in pictures(site, record)]
    (part,) = asked(site, "ann")["parts"]
    assert ("", [[640, 640]]) == (part["no_picture"], [frame["size"] for frame in part["frames"]])
    assert 200 == decided(site, record, "confirmed")


def test_a_drawn_part_whose_picture_was_deleted_is_left_out(site: Site) -> None:
    """Nobody could see that it is good: it is counted beside the queue, and a blind confirmation is refused."""
    drawing_all(site)
    record = of_before(site)
    assert ["SN-ok"] == serials(asked(site, "ann"))
    retained(site, "nothing")
    site.client("ann", "reviewer").post("/review/release", data={"seat": SEATS["ann"]})
    answer = asked(site, "bob")
    assert ([], 0, 1) == (serials(answer), answer["waiting"], answer["no_picture"])
    assert 422 == decided(site, record, "confirmed")
    assert 200 == decided(site, record, "confirmed", age_ms=120_000.0)  # while the picture was there still
    assert 0 == asked(site, "bob")["no_picture"]


def test_a_drawn_part_whose_picture_is_not_there_waits_until_it_is(site: Site) -> None:
    """A disk that is not mounted takes no drawn part out of the queue for good; rejected parts are shown without."""
    drawing_all(site)
    (picture,) = pictures(site, of_before(site))
    site.add_part("NG", "SN-ng", pictures=False)
    away = picture.rename(picture.with_suffix(".away"))
    answer = asked(site, "ann")
    assert (["SN-ng"], 1, 1) == (serials(answer), answer["waiting"], answer["no_picture"])
    away.rename(picture)
    with site.context.reviews.transaction() as database:
        database.execute("UPDATE claims SET until = until - ? WHERE person = ''", (LEASE_S,))
    answer = asked(site, "ann")
    assert (["SN-ng", "SN-ok"], 0) == (serials(answer), answer["no_picture"])


def test_a_drawn_part_whose_picture_is_cut_off_is_not_offered(site: Site) -> None:
    """A file whose beginning alone is sound shows nothing of the part, whether or not the ledger knows what was written."""
    drawing_all(site)
    (picture,) = pictures(site, site.add_part("OK", at=utc_now() - timedelta(minutes=5)))
    picture.write_bytes(picture.read_bytes()[:5000])
    answer = asked(site, "ann")
    assert ([], 0, 1) == (serials(answer), answer["waiting"], answer["no_picture"])


@pytest.mark.parametrize(("disposition", "status"), [("confirmed", 422), ("escape", 200), ("unsure", 200)])
def test_what_nobody_could_see_is_not_confirmed_as_good(site: Site, disposition: str, status: int) -> None:
    """Of an OK part that left no picture, who has the part at hand may say that a defect was missed; that is all."""
    record = site.add_part("OK", pictures=False)
    assert status == decided(site, record, disposition)


def test_a_picture_that_does_not_come_confirms_no_good_part(site: Site, browser: Browser) -> None:
    """Where the picture of a drawn part is lost on its way, the key for a good part stores nothing, and the page says why."""
    drawing_all(site)
    site.add_part("OK", "SN-ok")
    page = browser.context(site, "ann", "reviewer").new_page()
    page.route("**/picture/**", lambda route: route.abort())
    page.goto("/review")
    page.wait_for_selector("#no-picture:not([hidden])")
    page.wait_for_timeout(300)
    page.keyboard.press("1")
    page.wait_for_selector("text=Without its picture nobody can say")
    page.keyboard.press("4")
    until(lambda: site.context.reviews.after(0, 10))
    assert ["unsure"] == [review.disposition for _, review in site.context.reviews.after(0, 10)]


def test_the_page_names_records_that_cannot_be_read(site: Site, browser: Browser) -> None:
    """How many there are, and the first of them with the page that says more; what can be shown is decided as ever."""
    bad, _ = site.add_part("NG", "SN-bad"), site.add_part("NG", "SN-1")
    damaged(site, bad)
    page = browser.open(site, "/review", "ann", "reviewer")
    page.wait_for_selector("#part:not([hidden])")
    assert "SN-1" == page.text_content("#serial")
    assert "their records cannot be read: 1." in page.text_content("#unreadable")
    page.click(f"#unreadable >> text={bad.record_id}")
    page.wait_for_url(f"**/part/{bad.record_id}")
