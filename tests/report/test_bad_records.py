"""What a report says when records, reviews or pictures do not carry the numbers: the reason, in place of a number."""

import argparse
import csv
import fcntl
import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("polars", reason='pip install "lineside[report]"')

from inspection.cli import main
from inspection.config import load_station
from inspection.evidence import EvidenceWriter, is_sampled
from inspection.evidence_ledger import EvidenceLedger, Picture, Tombstone, ledger_path
from inspection.images import write_png
from inspection.record_reader import RecordReader
from inspection.report import facts
from inspection.report.contents import Span
from inspection.report.facts import read_facts
from inspection.report.late_rows import late_verdicts
from inspection.report.page import stage_name
from inspection.report.snapshot import store_at_one_moment
from inspection.report.tables import as_json
from inspection.report.wording import LANGUAGES, Wording
from inspection.report.writing import report_of
from inspection.report_cli import add_verb, asked
from inspection.review_queue import ReviewQueue
from inspection.reviews import ReviewStore, reviews_path
from inspection.store import MIGRATIONS, Store
from inspection.types import (
    Detection,
    Judgement,
    LateResult,
    Reason,
    Record,
    Region,
    Review,
    Trigger,
    Verdict,
)

BEGIN = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
OPEN = Detection("open", 0.9, Region((10.0, 20.0, 30.0, 50.0)), camera="top")
NG = Judgement(Verdict.NG, (Reason("ng.open", "1 finding of open", (OPEN,)),))
ERROR = Judgement(Verdict.ERROR, (Reason("camera.timeout", "no frame"),))
FORMULA = '=HYPERLINK("http://127.0.0.1/","x")'
STATION = """
station_id = "line-1"
recipe = "recipe"
store = "records.sqlite"
[evidence]
folder = "evidence"
[cameras.top]
kind = "folder"
folder = "frames"
[controller]
kind = "simulated"
"""
Reported = dict[str, Any]


def part(number: int, judgement: Judgement | None = None, **other: Any) -> Record:
    """The record of part ``number``, judged that many seconds after ``BEGIN``."""
    at = BEGIN + timedelta(seconds=number)
    judgement = judgement or Judgement(Verdict.OK)
    record = Record(
        Trigger(f"t{number}", f"SN-{number}", "LOT-1", "demo-pcb", at), judgement,
        (OPEN,) if judgement.verdict == Verdict.NG else (), ("f1",), "ab" * 32, "cd" * 32, "line-1",
        (("grab", 5.0), ("total", 40.0 + number % 7)), False, at, record_id=f"{number:032x}", recipe_id="demo-pcb",
        measured=(("top.sharpness", 40.0), ("top.shift_x_px", 1.0)),
    )  # fmt: skip
    return replace(record, **other)


class Station:
    """A station's folder without a station: records go straight into its store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "station.toml"
        self.store = folder / "records.sqlite"
        self.config.write_text(STATION, encoding="utf-8")

    def commit(self, records: Iterable[Record]) -> None:
        """All in one transaction: the station's own commits take the disk's time each."""
        Store(self.store).close()
        with closing(sqlite3.connect(self.store)) as database, database:
            for record in records:
                put_in(database, record)

    def change(self, sql: str, *values: object) -> None:
        """Alter the store behind the back of its triggers."""
        with closing(sqlite3.connect(self.store)) as database, database:
            database.execute("DROP TRIGGER IF EXISTS records_keep")
            database.execute(sql, values)

    def report(self, *options: str) -> Reported:
        """What report.json says, without the files; drawing the page takes longer than all the rest."""
        parser = argparse.ArgumentParser()
        add_verb(parser.add_subparsers())
        args = parser.parse_args(["report", str(self.config), "-o", "nowhere", *options])
        config = load_station(self.config)
        report, _ = report_of(config, *asked(args, config.hmi.shifts), simulated=args.simulated)
        found: Reported = json.loads(as_json(report))
        return found

    def written(self, *options: str) -> Path:
        """The folder of files that the command writes."""
        out = self.folder / "out"
        assert main(["report", str(self.config), "-o", str(out), *options]) == 0
        return out


def put_in(database: sqlite3.Connection, record: Record) -> None:
    trigger = record.trigger
    row = (record.record_id, trigger.trigger_id, record.serial, trigger.lot, record.recipe_id,
           int(record.judgement.verdict), record.judged_at.isoformat(), record.to_json())  # fmt: skip
    database.execute("INSERT INTO triggers VALUES (?, '{}', '')", (trigger.trigger_id,))
    database.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)


@pytest.fixture
def station(tmp_path: Path) -> Station:
    return Station(tmp_path)


def caveats(report: Reported) -> dict[str, dict[str, Any]]:
    return {one["key"]: dict(one["values"]) for one in report["caveats"]}


def test_empty_span(station: Station) -> None:
    """A span without a record gives no yield and no chart, and says that it is empty."""
    station.commit(part(number) for number in range(3))
    found = station.report("--since", "2030-01-01")
    assert "empty_span" in caveats(found)
    held = [datetime.fromisoformat(at) for at in caveats(found)["store_holds"].values()]
    assert held == [BEGIN, BEGIN + timedelta(seconds=2)]
    assert "store_holds" in caveats(station.report("--since", "2030-01-01", "--lot", "LOT-1"))
    assert found["totals"]["tally"]["parts"] == 0
    for name, why in (
        ("first_pass_yield", "nothing_judged"),
        ("final_yield", "nothing_judged"),
        ("error_rate", "nothing_inspected"),
    ):
        assert (found["totals"][name]["value"], found["totals"][name]["why_not"]) == (None, why)
    assert not found["charts"]
    assert (station.written("--since", "2030-01-01") / "report.html").stat().st_size > 1000


def test_one_part(station: Station) -> None:
    """One part is counted, and no chart claims limits."""
    station.commit([part(1)])
    found = station.report()
    assert {"one_part", "nothing_reviewed"} <= caveats(found).keys()
    assert found["totals"]["first_pass_yield"]["value"] == 1
    assert {None} == {view["chart"]["centre"] for view in found["charts"]}


def test_only_errors(station: Station) -> None:
    """Where no part could be judged there is no yield."""
    station.commit(part(number, ERROR) for number in range(4))
    totals = station.report()["totals"]
    assert totals["first_pass_yield"]["value"] is None
    assert totals["error_rate"]["value"] == 1


def test_all_not_ok(station: Station) -> None:
    """A span without a good part is said to be one, and its p chart has no limits."""
    station.commit(part(number, NG) for number in range(150))
    station.written("--language", "zh")
    found = station.report()
    assert "all_not_ok" in caveats(found)
    assert found["totals"]["first_pass_yield"]["value"] == 0
    assert found["pareto"] == [{"defect_class": "open", "findings": 150, "parts": 150, "share": 1.0, "cumulative": 1.0}]
    assert {None} == {view["chart"]["centre"] for view in found["charts"]}


def test_nothing_reviewed(station: Station) -> None:
    """Without reviews there is no yield after review, no false-call rate and no escape rate."""
    station.commit([*(part(number) for number in range(200)), part(300, NG)])
    found = station.report()
    assert "nothing_reviewed" in caveats(found)
    assert (found["totals"]["final_yield"]["value"], found["totals"]["final_yield"]["why_not"]) == (
        None,
        "nothing_reviewed",
    )
    assert {None} == {row["rate"]["value"] for row in found["false_calls"]}
    assert {None} == {view["observed"]["value"] for view in found["escapes"]}


def test_the_review_that_stands_counts(station: Station) -> None:
    """A person's later word replaces the earlier one; somebody unsure decides nothing."""
    station.commit([*(part(number) for number in range(100)), *(part(number, NG) for number in range(100, 104))])
    with closing(ReviewStore(reviews_path(station.store))) as reviews:
        said = (
            (100, "confirmed", "li", 0), (100, "false_call", "li", 0), (101, "unsure", "li", 0),
            (102, "confirmed", "wang", 0), (103, "false_call", "wang", 2), (103, "confirmed", "li", 1),
        )  # fmt: skip
        for key, (number, word, who, hours) in enumerate(said):
            review = Review(f"{number:032x}", word, who, BEGIN + timedelta(hours=hours))  # type: ignore[arg-type]
            reviews.add(review, key=f"key-{key:08d}")
    totals = station.report()["totals"]
    counts = {name: totals[name] for name in ("reviewed", "confirmed", "false_calls", "unsure", "unreviewed_not_ok")}
    assert counts == {"reviewed": 4, "confirmed": 1, "false_calls": 2, "unsure": 1, "unreviewed_not_ok": 1}
    assert totals["final_yield"]["value"] == 102 / 104


def reviewed_sample(station: Station) -> list[Record]:
    """A line with two true NG parts whose sample of 2 % was reviewed, all good, and then eight escapes found by chance."""
    parts = [part(number, evidence="kept") for number in range(2000)]
    station.commit([*parts, *(part(number, NG) for number in range(2000, 2002))])
    with (
        closing(ReviewStore(reviews_path(station.store))) as reviews,
        closing(RecordReader(station.store)) as reader,
    ):
        queue = ReviewQueue(reviews, reader, ok_share=0.02)
        assert queue.look(budget_s=60)
        drawn = [one for one in parts if queue.is_sample(one.record_id)]
        others = [one for one in parts if is_sampled(one.record_id, 0.1) and one not in drawn]
        for one in drawn:
            reviews.add(Review(one.record_id, "confirmed", "li", BEGIN), key=f"drawn-{one.record_id}")
        for one in others[:8]:
            reviews.add(Review(one.record_id, "escape", "li", BEGIN), key=f"chance-{one.record_id}")
        for number in (2000, 2001):
            reviews.add(Review(f"{number:032x}", "confirmed", "li", BEGIN), key=f"called-{number}")
    return drawn


@pytest.mark.parametrize("share", [0.02, 0.1, 0.0])
def test_the_share_that_is_drawn_may_change(share: float, station: Station) -> None:
    """Which parts were drawn is what was so when they were reviewed: escapes found by chance stay out of the rate."""
    drawn = reviewed_sample(station)
    station.config.write_text(f"{STATION}[hmi]\nreview_ok_share = {share}\n", encoding="utf-8")
    (view,) = station.report()["escapes"]
    assert (len(drawn), len(drawn), 0, 8, 0) == tuple(
        view[name] for name in ("drawn", "reviewed_ok", "escapes", "chance_escapes", "drawn_unknown")
    )
    assert (0.0, len(drawn) + 2) == (view["observed"]["value"], view["observed"]["of"])


def test_reviews_that_do_not_say_whether_their_part_was_drawn(station: Station) -> None:
    """Those of an earlier version are in no rate, and the report says how many; what is reviewed since is as always."""
    drawn = reviewed_sample(station)
    path = reviews_path(station.store)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:  # as the version before left it
        database.execute("ALTER TABLE reviews DROP COLUMN drawn")
        database.execute("PRAGMA user_version = 2")
    page = (station.written() / "report.html").read_text(encoding="utf-8")
    (view,) = station.report()["escapes"]
    assert (0, 0, 0, len(drawn) + 8) == tuple(
        view[name] for name in ("reviewed_ok", "escapes", "chance_escapes", "drawn_unknown")
    )
    assert (None, "escapes_draw_not_known") == (view["observed"]["value"], view["observed"]["why_not"])
    assert "drawn_unknown" in view["not_covered"]
    assert f"Of {len(drawn) + 8} reviewed OK parts it is not known whether they were drawn" in page
    with closing(ReviewStore(path)) as reviews:
        reviews.add(Review(drawn[0].record_id, "escape", "wang", BEGIN), key="key-again-1")
    (view,) = station.report()["escapes"]
    assert (1, 1, len(drawn) + 7) == tuple(view[name] for name in ("reviewed_ok", "escapes", "drawn_unknown"))


def test_clock_set_back(station: Station) -> None:
    """A clock that was set back is said: when, by how much, how often."""
    later = [part(number) for number in range(100)]
    earlier = [
        replace(part(number), judged_at=BEGIN - timedelta(minutes=50) + timedelta(seconds=number))
        for number in range(100, 200)
    ]
    station.commit([*later, *earlier])
    found = caveats(station.report())["clock_set_back"]
    assert datetime.fromisoformat(found["at"]) == BEGIN - timedelta(minutes=50) + timedelta(seconds=100)
    assert (found["by_s"], found["times"]) == (50 * 60 - 1, 1)


def test_a_clock_that_is_put_right_is_no_step(station: Station) -> None:
    """A clock that is slewed by less than a second is not called set back."""
    station.commit(replace(part(number), judged_at=BEGIN - timedelta(seconds=number * 0.9)) for number in range(10))
    assert "clock_set_back" not in caveats(station.report())


def test_serial_used_twice(station: Station) -> None:
    """Serials with more than one record are named, and parts without a serial are none of them."""
    twice = [replace(part(number), trigger=replace(part(number).trigger, serial="SN-7")) for number in (1, 2)]
    without = [replace(part(number), trigger=replace(part(number).trigger, serial="")) for number in (3, 4)]
    station.commit([*twice, *without])
    found = station.report()
    assert caveats(found)["serial_used_twice"] == {"serials": 1, "examples": "SN-7"}
    assert (found["totals"]["serials"], found["totals"]["without_serial"]) == (1, 2)


def test_simulated_records_are_no_production(station: Station) -> None:
    """Records of simulated cameras are counted apart; a report of them says on top that it is one."""
    station.commit([part(1), part(2, NG, simulated=True), part(3, simulated=True)])
    found = station.report()
    assert caveats(found)["simulated_apart"] == {"records": 2}
    assert (found["totals"]["tally"]["parts"], found["totals"]["simulated"]) == (1, 2)
    assert found["pareto"] == []
    found = station.report("--simulated")
    assert caveats(found)["simulated_report"] == {"records": 2}
    assert (found["simulated"], found["totals"]["tally"]["parts"], found["totals"]["simulated"]) == (True, 2, 2)


def test_only_simulated_records(station: Station) -> None:
    """Where all records are simulated nothing is claimed of production."""
    station.commit(part(number, simulated=True) for number in range(5))
    found = station.report()
    assert caveats(found)["only_simulated"] == {"records": 5}
    assert "empty_span" not in caveats(found)
    assert found["totals"]["first_pass_yield"]["value"] is None


def test_records_of_an_older_schema(station: Station) -> None:
    """Records without measured values are counted, and said to lie on no map and in no camera chart."""
    station.commit(part(number, NG, schema=2, measured=()) for number in range(3))
    station.change("UPDATE records SET json = replace(json, ',\"measured\":{}', '')")
    found = station.report()
    assert caveats(found)["old_schema"] == {"records": 3, "schemas": "2"}
    assert (found["totals"]["tally"]["ng"], found["pareto"][0]["findings"], found["health"]) == (3, 3, [])


def test_store_of_an_older_version(station: Station) -> None:
    """A store from before change points and the index on times were kept is read all the same."""
    with closing(sqlite3.connect(station.store)) as database, database:
        database.execute("PRAGMA journal_mode = WAL")
        for script in MIGRATIONS[:4]:
            database.executescript(script)
        database.execute("PRAGMA user_version = 4")
        put_in(database, part(1))
        put_in(database, part(2, NG, recipe_sha256="ef" * 32))
    found = station.report("--since", BEGIN.isoformat())
    assert caveats(found)["old_store"] == {"version": 4}
    assert found["totals"]["tally"]["parts"] == 2
    assert ["ab" * 32, "ef" * 32] == [change["recipe_sha256"] for change in found["changes"]]


DAMAGES: dict[str, Callable[[str], object]] = {
    "cut off": lambda text: text[: len(text) // 2],
    "no JSON": lambda text: "x",
    "no text": lambda text: text.replace("SN-", "S\udcff").encode("utf-8", "surrogateescape").decode("latin-1"),
    "other types": lambda text: text.replace('"stage_ms":{', '"stage_ms":[{').replace("},\"simulated\"", "}],\"simulated\""),
    "a list": lambda text: "[1, 2]",
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("judgement", [None, NG], ids=["ok", "ng"])
def test_damaged_record(station: Station, damage: str, judgement: Judgement | None) -> None:
    """A damaged record costs its own details and no others; it is said how many there are."""
    station.commit([part(1), part(2, judgement), part(3, NG)])
    text = DAMAGES[damage](part(2, judgement).to_json())
    station.change("UPDATE records SET json = ? WHERE rowid = 2", text)
    found = station.report()
    wanted = {} if damage == "no text" else {"records": 1}
    assert caveats(found).get("unreadable", {}) == wanted
    assert found["totals"]["tally"]["parts"] == 3
    assert found["totals"]["tally"]["ng"] == (1 if judgement is None else 2)
    assert found["stages"][0]["count"] == (3 if damage == "no text" else 2)


def test_bytes_that_are_no_text(station: Station) -> None:
    """A serial that is no valid UTF-8 does not stop the report."""
    station.commit([part(1), part(2)])
    station.change("UPDATE records SET serial = CAST(x'ff41' AS TEXT) WHERE rowid = 2")
    assert station.report()["totals"]["serials"] == 2


def test_values_that_are_no_numbers(station: Station) -> None:
    """NaN, as Python writes it, and names that come up late are read like any other."""
    odd = part(2, measured=(("top.sharpness", float("nan")), ("side.fit", 0.5)), stage_ms=(("late", 1.0),))
    station.commit([part(1), odd, part(3)])
    found = station.report()
    assert "unreadable" not in caveats(found)
    assert {"grab": 2, "total": 2, "late": 1} == {row["stage"]: row["count"] for row in found["stages"]}
    assert {("top", "sharpness"): [2], ("side", "fit"): [1], ("top", "shift_x_px"): [2]} == {
        (view["camera"], view["quantity"]): view["frames"] for view in found["health"]
    }


def test_late_results_stay_errors(station: Station) -> None:
    """A part that missed its deadline counts as what its controller was told."""
    station.commit([part(1, ERROR), part(2)])
    with closing(Store(station.store)) as store:
        store.commit_late(part(1).record_id, LateResult(NG, (OPEN,), (("total", 3000.0),), BEGIN))
    found = station.report()
    assert caveats(found)["late_parts"] == {"records": 1}
    assert (found["totals"]["tally"]["error"], found["totals"]["tally"]["ng"], found["pareto"]) == (1, 0, [])


def test_lost_and_skipped_pictures(station: Station) -> None:
    """Pictures that are gone without a rule, and those that were never taken, are counted."""
    folder = station.folder / "evidence" / "2026-11-23" / "LOT-1"
    folder.mkdir(parents=True)
    (folder / f"{part(1).record_id}_top.png").write_bytes(b"x")
    where = ("2026-11-23/LOT-1/" + part(number).record_id for number in (1, 2))
    names = (*where, "skipped: queue full", "../../outside", "")
    station.commit(part(number, NG, evidence=text) for number, text in enumerate(names, 1))
    found = caveats(station.report())
    assert found["evidence_missing"] == {"records": 2, "of": 3}
    assert found["pictures_skipped"] == {"records": 1}


def test_altered_pictures(station: Station) -> None:
    """A picture that is not the one that was written is said to be altered, and not shown."""
    station.commit([part(1)])  # the ledger lies beside a record store
    writer = EvidenceWriter(station.folder / "evidence", queue_size=4, min_free_mb=0, store=station.store)
    frame = np.full((200, 200), 90, np.uint8)
    try:
        texts = [writer.offer(part(number).record_id, "LOT-1", [("top", frame)], verdict="NG") for number in (2, 3)]
    finally:
        writer.close()
    station.commit(part(number, NG, evidence=text) for number, text in enumerate(texts, 2))
    write_png(station.folder / "evidence" / f"{texts[0]}_top.png", frame // 2)
    found = station.report()
    assert caveats(found)["evidence_altered"] == {"records": 1}
    assert {part(2).record_id: True, part(3).record_id: False} == {
        item["record_id"]: item["why_not"].startswith("altered") for item in found["gallery"]
    }


def test_recipe_that_is_not_here(station: Station) -> None:
    """Findings of a version that is gone are on no map, which says why."""
    station.commit([part(1, NG)])
    found = station.report()
    assert "recipe_not_here" in caveats(found)
    (view,) = found["maps"]
    assert (view["unplaced"], view["points"], view["why_not"]) == (1, [], "no_recipe")
    assert ["recipe_not_here"] == [view["promised_text"] for view in found["escapes"]]
    page = (station.written("--language", "en") / "report.html").read_text(encoding="utf-8")
    assert "1 finding is on no map for this reason." in page
    assert "no alignment was measured" not in page


def test_store_that_is_being_written(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report is of one moment: what comes later is in no number, and said to have come."""
    station.commit(part(number) for number in range(2000))
    stop, came = threading.Event(), threading.Event()

    def write() -> None:
        with closing(Store(station.store)) as store:
            number = 5000
            while not stop.is_set():
                record = part(number, NG)
                store.accept(record.trigger)
                store.commit(record)
                number += 1
                came.set()

    def read_slowly(*given: Any) -> Any:
        """After the moment of the report at least two records come: the first may have been on its way."""
        for _ in range(2):
            came.clear()
            assert came.wait(60)
        return late_verdicts(*given)

    monkeypatch.setattr(facts, "late_verdicts", read_slowly)
    writer = threading.Thread(target=write)
    writer.start()
    try:
        found = station.report()
    finally:
        stop.set()
        writer.join()
    with closing(sqlite3.connect(station.store)) as database:
        sql = "SELECT count(*), sum(verdict = 2) FROM records WHERE rowid <= ?"
        counted = database.execute(sql, (found["snapshot_rowid"],)).fetchone()
    tally = found["totals"]["tally"]
    assert counted == (tally["parts"], tally["ng"])
    assert sum(row["tally"]["parts"] for row in found["hours"]) == tally["parts"]
    assert caveats(found)["being_written"]["records"] > 0


def test_reading_never_holds_the_station_up(station: Station) -> None:
    """While a report reads, the station commits."""
    station.commit(part(number) for number in range(10))
    with store_at_one_moment(station.store) as database:
        cursor = database.execute("SELECT rowid FROM records")
        cursor.fetchone()
        station.commit([part(20)])
        assert len(cursor.fetchall()) == 9


def test_span(station: Station) -> None:
    """A span holds its begin and not its end; lot, serial and recipe narrow it."""
    other = replace(part(5), trigger=replace(part(5).trigger, lot="LOT-2"))
    station.commit([*(part(number) for number in range(5)), other])

    def rows(**span: Any) -> list[int]:
        return list(read_facts(load_station(station.config), Span(**span)).parts["rowid"])

    second = timedelta(seconds=1)
    assert rows() == [1, 2, 3, 4, 5, 6]
    assert rows(since=BEGIN + second, until=BEGIN + 3 * second) == [2, 3]
    assert rows(lot="LOT-2") == [6]
    assert rows(lot="LOT-1", since=BEGIN + 3 * second) == [4, 5]
    assert rows(serial="SN-2") == [3]
    assert rows(until=BEGIN) == []


def test_texts_that_a_spreadsheet_would_work_out(station: Station) -> None:
    """A text in a CSV file is never a formula."""
    found = Detection(FORMULA, 0.9, OPEN.region, camera="top")
    judgement = Judgement(Verdict.NG, (Reason(f"ng.{FORMULA}", "x", (found,)),))
    record = part(1, judgement, detections=(found,))
    station.commit([replace(record, trigger=replace(record.trigger, lot="+1", serial="@x")), part(2, recipe_id="-2")])
    out = station.written()
    cells = [
        cell
        for path in (out / "tables").glob("*.csv")
        for row in csv.reader(path.read_text(encoding="utf-8-sig").splitlines())
        for cell in row
    ]
    assert {"'" + FORMULA, "'+1", "'-2"} <= set(cells)
    assert not [cell for cell in cells if cell[:1] in tuple("=+@") or (cell[:1] == "-" and not _is_number(cell))]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_a_folder_of_something_else_is_left_alone(station: Station, capsys: pytest.CaptureFixture[str]) -> None:
    """A report replaces an earlier one, and nothing else."""
    station.commit([part(1)])
    station.written()
    station.written()
    (station.folder / "out" / "thesis.odt").write_text("years of work")
    assert main(["report", str(station.config), "-o", str(station.folder / "out")]) == 2
    assert "thesis.odt" in capsys.readouterr().err
    assert (station.folder / "out" / "thesis.odt").read_text() == "years of work"


def test_whole_or_not_at_all(station: Station, capsys: pytest.CaptureFixture[str]) -> None:
    """A report that cannot be made leaves the earlier one as it was, and nothing half-written beside it."""
    station.commit([part(1)])
    station.written()
    before = (station.folder / "out" / "report.json").read_bytes()
    (station.folder / "records.sqlite.reviews").write_bytes(b"not a database, and long enough to be looked at" * 40)
    assert main(["report", str(station.config), "-o", str(station.folder / "out")]) == 3
    assert "file of reviews" in capsys.readouterr().err
    assert (station.folder / "out" / "report.json").read_bytes() == before
    assert not list(station.folder.glob(".lineside-report-*"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--shift", "2026-11-23/9"), "--shift"),
        (("--shift", "yesterday/1"), "--shift"),
        (("--shift", "2026-11-23/1", "--since", "2026-11-23"), "--shift"),
        (("--since", "2026-11-24", "--until", "2026-11-23"), "--since"),
        (("--baseline-since", "2026-11-24", "--baseline-until", "2026-11-23"), "--baseline-since"),
    ],
)
def test_spans_that_make_no_sense(
    station: Station, options: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A span that cannot be meant is refused by the name of its option."""
    station.commit([part(1)])
    assert main(["report", str(station.config), "-o", str(station.folder / "out"), *options]) == 2
    assert says in capsys.readouterr().err
    assert not (station.folder / "out").exists()


@pytest.mark.parametrize("option", ["--lot", "--recipe", "--serial"])
def test_names_that_were_never_recorded(station: Station, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown lot, recipe or serial is a slip: it is refused by its name, with what the store holds."""
    station.commit(part(number) for number in range(3))
    assert main(["report", str(station.config), "-o", str(station.folder / "out"), option, "NOPE"]) == 2
    said = capsys.readouterr().err
    assert "NOPE" in said
    assert BEGIN.isoformat() in said
    assert ("demo-pcb" in said) == (option == "--recipe")
    assert not (station.folder / "out").exists()


def hourly(values: Sequence[float], quantity: str = "sharpness", parts: int = 3) -> Iterator[Record]:
    """Good parts, one hour a value that was measured of their frames."""
    for hour, value in enumerate(values):
        for number in range(parts):
            yield replace(
                part(1000 * hour + number), judged_at=BEGIN + timedelta(hours=hour, seconds=number),
                measured=((f"top.{quantity}", value + hour % 4 / 10),),
            )  # fmt: skip


@pytest.mark.parametrize("declared", [True, False])
def test_a_camera_that_changes_is_told_without_bad_parts(station: Station, declared: bool) -> None:
    """A dirty lens is told first and with its hours, though not one part more was bad; nothing says it is fine."""
    station.commit(hourly([200.0] * 30 + [120.0] * 3 + [200.0] * 3))
    cut = (BEGIN + timedelta(hours=30)).isoformat()
    baseline = ("--baseline-since", BEGIN.isoformat(), "--baseline-until", cut) if declared else ()
    found = station.report(*baseline)
    assert found["caveats"][0]["key"] == "camera_changed"
    said = caveats(found)["camera_changed"]
    assert (said["camera"], said["quantity"], said["hours"], said["of"]) == ("top", "sharpness", 3, 3)
    assert [datetime.fromisoformat(said[end]) - BEGIN for end in ("since", "until")] == [
        timedelta(hours=30),
        timedelta(hours=33),
    ]
    assert 118 < said["worst"] < 122 < 180 < said["usual"]
    assert not found["rises"]
    page = (station.written(*baseline, "--language", "en") / "report.html").read_text(encoding="utf-8")
    assert "focus (sharpness) was off by what matters in 3 of the 3 hours" in page
    assert "blames a camera" not in page


def test_single_hours_of_a_camera_are_told_as_such(station: Station) -> None:
    """An hour here and there is told after what lasts, with the word that it can be chance; still nothing is called fine."""
    values = [200.0] * 50
    values[12] = values[30] = 120.0
    station.commit(hourly(values))
    said = caveats(station.report())
    assert "camera_changed" not in said
    assert (said["camera_flickered"]["hours"], said["camera_flickered"]["of"]) == (2, 19)
    page = (station.written("--language", "en") / "report.html").read_text(encoding="utf-8")
    assert "in 2 single hours" in page
    assert "blames a camera" not in page


def test_a_steady_camera_is_said_to_be_steady(station: Station) -> None:
    """Only where every optical quantity was judged and none changed, no camera is blamed."""
    station.commit(hourly([200.0] * 30))
    found = station.report()
    assert not {"camera_changed", "cameras_unjudged"} & caveats(found).keys()
    assert "blames a camera" in (station.written("--language", "en") / "report.html").read_text(encoding="utf-8")


def test_a_camera_of_few_hours_is_not_judged(station: Station) -> None:
    """Without limits nobody can say whether a camera changed, and the report says so."""
    station.commit(hourly([200.0, 120.0, 200.0]))
    assert caveats(station.report())["cameras_unjudged"] == {"charts": 1, "cameras": "top"}
    page = (station.written("--language", "en") / "report.html").read_text(encoding="utf-8")
    assert "could not be judged for 1 of its measured quantities" in page
    assert "blames a camera" not in page


def test_a_killed_run_leaves_nothing_for_long(station: Station) -> None:
    """The next report removes what a killed one left; one that is being written, or that is new, stays."""
    station.commit([part(1)])
    station.written()
    left, new, written = (station.folder / f".lineside-report-{name}" for name in ("left", "new", "written"))
    for folder in (left, new, written):
        folder.mkdir()
        (folder / "report.json").write_text("{}")
    for folder in (left, written):
        os.utime(folder, (1, 1))
    held = os.open(written, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        station.written()
    finally:
        os.close(held)
    assert [left.exists(), new.exists(), written.exists()] == [False, True, True]


def test_a_span_that_memory_would_not_hold(
    station: Station, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """More records than fit into memory are refused before they are read."""
    station.commit(part(number) for number in range(3))
    monkeypatch.setattr(facts, "MOST", 2)
    assert main(["report", str(station.config), "-o", str(station.folder / "out")]) == 2
    assert "--since" in capsys.readouterr().err


def test_one_shift(station: Station) -> None:
    """A shift goes from its local begin to that of the next."""
    begin = datetime(2026, 11, 23, 14, 0).astimezone()
    offsets = (-1, 0, 8 * 3600 - 1, 8 * 3600)
    station.commit(
        replace(part(number), judged_at=(begin + timedelta(seconds=offset)).astimezone(UTC))
        for number, offset in enumerate(offsets)
    )
    found = station.report("--shift", "2026-11-23/2")
    assert found["totals"]["tally"]["parts"] == 2
    assert ["2026-11-23/2"] == [row["name"] for row in found["shifts"]]


def test_limits_of_a_baseline_outside_the_span(station: Station) -> None:
    """Limits of a declared baseline hold for later parts; the charts say that the baseline was declared."""
    hours = [
        replace(part(1000 * hour + number, NG if number < 2 + hour % 3 else None),
                judged_at=BEGIN + timedelta(hours=hour, seconds=number))
        for hour in range(30) for number in range(40)
    ]  # fmt: skip
    station.commit(hours)
    cut = BEGIN + timedelta(hours=25)
    options = ("--since", cut.isoformat(), "--baseline-since", BEGIN.isoformat(), "--baseline-until", cut.isoformat())
    found = station.report(*options)
    view = next(view for view in found["charts"] if (view["what"], view["grouped_by"]) == ("defective", "hour"))
    wanted = sum(2 + hour % 3 for hour in range(25)) / (25 * 40)
    assert view["chart"]["centre"] == pytest.approx(wanted)
    assert (found["baseline"]["declared"], len(view["labels"])) == (True, 5)
    assert "baseline_whole_span" not in caveats(found)
    inside = station.report("--baseline-until", cut.isoformat(), "--baseline-since", BEGIN.isoformat())
    view = next(view for view in inside["charts"] if (view["what"], view["grouped_by"]) == ("defective", "hour"))
    assert view["chart"]["centre"] == pytest.approx(wanted)
    assert view["chart"]["baseline"] == [0, 25]


@pytest.mark.parametrize("inside", [True, False], ids=["baseline in the span", "baseline before the span"])
@pytest.mark.parametrize(("sharpness", "cause"), [(20.0, "camera"), (40.0, "parts")], ids=["dirty lens", "bad lot"])
def test_a_dirty_lens_is_no_bad_lot(station: Station, inside: bool, sharpness: float, cause: str) -> None:
    """Hours with many bad parts are put down to the camera when its frames changed in them, and else to the parts."""
    bad = {hour: 2 + hour % 3 if hour < 30 else 25 for hour in range(36)}
    station.commit(
        replace(
            part(1000 * hour + number, NG if number < bad[hour] else None),
            judged_at=BEGIN + timedelta(hours=hour, seconds=number),
            measured=(("top.sharpness", (40.0 if hour < 30 else sharpness) + hour % 4 / 10),),
        )
        for hour in bad
        for number in range(60)
    )
    cut = (BEGIN + timedelta(hours=30)).isoformat()
    baseline = ("--baseline-since", BEGIN.isoformat(), "--baseline-until", cut)
    (rise,) = station.report(*baseline, *(() if inside else ("--since", cut)))["rises"]
    assert (rise["cause"], rise["hours"]) == (cause, 6)
    assert datetime.fromisoformat(rise["begin"]) == BEGIN + timedelta(hours=30)


def test_a_missing_package_is_named_with_its_extra(station: Station) -> None:
    """Without the extra the command says which one is missing, and the other verbs work."""
    station.commit([part(1)])
    program = "import sys; sys.modules['polars'] = None; from inspection.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "report", str(station.config), "-o", str(station.folder / "out")]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert answer.returncode == 3
    assert 'pip install "lineside[report]"' in answer.stderr


def test_every_record_that_cannot_be_read_is_counted(station: Station) -> None:
    """OK with a reason, another verdict in its text, a schema to come, bytes that are no text: none counts as a whole part."""
    station.commit(part(number) for number in range(1, 8))
    reason = '"reasons":[{"rule_id":"ng.open","text":"","detections":[]}]'
    station.change("UPDATE records SET json = replace(json, '\"reasons\":[]', ?) WHERE rowid = 1", reason)
    station.change("UPDATE records SET json = replace(json, '\"schema\":', '\"schema\":9') WHERE rowid = 2")
    station.change('UPDATE records SET json = replace(json, \'"verdict":"OK"\', \'"verdict":"NG"\') WHERE rowid = 3')
    bad = part(4).to_json().encode().replace(b"LOT-1", b"LOT-\xff")
    station.change("UPDATE records SET json = CAST(? AS TEXT) WHERE rowid = 4", bad)
    station.change("UPDATE records SET serial = CAST(x'ff41' AS TEXT) WHERE rowid = 5")
    station.change("UPDATE records SET json = replace(json, '\"detections\":[],', '') WHERE rowid = 6")
    found = station.report()
    assert caveats(found)["unreadable"] == {"records": 6}
    assert found["totals"]["tally"]["parts"] == 7


def test_the_summary_says_that_the_chain_was_not_checked(station: Station, capsys: pytest.CaptureFixture[str]) -> None:
    """One line names the command that does; and an order for simulated records alone says what the span holds."""
    station.commit([part(1), part(2)])
    station.written("--simulated")
    said = capsys.readouterr().out
    assert "was not checked here: `lineside audit` does that" in said
    assert "All 2 records of this span are from production" in said
    assert "leave --simulated out" in said


def test_one_production_record_is_one_record(station: Station) -> None:
    """The count is kept in both languages, and a count of one has its own words."""
    station.commit([part(1)])
    found = station.report("--simulated")
    assert caveats(found)["only_production"] == {"records": 1}
    words = {language: Wording(language, UTC) for language in LANGUAGES}
    assert "1 record of" in words["en"].text("caveat", "only_production", {"records": 1})
    assert "1 record of" in words["en"].text("caveat", "only_simulated", {"records": 1})
    assert "--simulated" in words["zh"].text("caveat", "only_production", {"records": 1})


def test_a_deletion_that_was_begun_is_no_deletion(station: Station) -> None:
    """A tombstone whose file still lies there is counted apart, and the picture is shown with what is known of it."""
    evidence = f"2026-11-23/LOT-1/{1:032x}"
    station.commit([part(1, NG, evidence=evidence)])
    file = station.folder / "evidence" / f"{evidence}_top.png"
    file.parent.mkdir(parents=True)
    write_png(file, np.zeros((64, 64), np.uint8))
    digest = sha256(file.read_bytes()).hexdigest()
    with closing(EvidenceLedger(ledger_path(station.store))) as ledger:
        at = BEGIN.isoformat()
        ledger.enter([Picture(f"{1:032x}", f"{evidence}_top.png", digest, 9, at, "NG")])
        ledger.put_down([], [Tombstone(f"{1:032x}", f'[["{evidence}_top.png","{digest}"]]', "max_gb", at, "1")])
        found = station.report()
        assert caveats(found)["evidence_begun"] == {"records": 1}
        assert "evidence_deleted" not in caveats(found)
        file.unlink()
        assert caveats(station.report())["evidence_deleted"] == {"records": 1, "of": 1}


def test_stages_have_names_in_chinese() -> None:
    """Each stage that a station measures has a name in both languages, with a camera's role before it or not."""
    for language in LANGUAGES:
        words = Wording(language, UTC)
        for stage in ("grab", "quality", "register", "lay_over", "infer", "judge", "total"):
            assert words.has("stage", stage)
    assert stage_name("top.infer", Wording("zh", UTC)) == "top.模型推理"
    assert stage_name("of ours", Wording("zh", UTC)) == "of ours"
