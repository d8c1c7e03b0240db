"""The generated month: a store as a station would have written it, with exactly what was asked for."""

import hashlib
import json
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from inspection.chain import FIRST_LINK, canonical, link_of
from inspection.cli import main as lineside
from inspection.config import load_station
from inspection.errors import UsageError
from inspection.evidence import evidence_files
from inspection.reviews import ReviewStore, reviews_path
from inspection.sealed_version import SealedVersions
from inspection.station_places import read_places
from inspection.store import Store
from inspection.trace_queries import CHANGES_BY_READING
from inspection.types import LateResult, Record, Verdict
from tools.month import OK_SHARE, main, make_month
from tools.month_plan import Wanted, make_plan

WANTED = Wanted(parts=900, ng=90, reviews=60, pictures=6)


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("month") / "station"
    make_month(folder, WANTED)
    return folder


def rows(path: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(sql, values).fetchall()


def test_every_count_is_the_one_asked_for(month: Path) -> None:
    """Parts, NG parts, reviews and pictures are exactly as many as wanted, and planted.json tells the rest."""
    store = month / "records.sqlite"
    told = json.loads((month / "planted.json").read_text())["counts"]
    found = {
        Verdict(verdict).name: count
        for verdict, count in rows(store, "SELECT verdict, count(*) FROM records GROUP BY 1")
    }
    assert {"NG": 90, "REVIEW": 15, "ERROR": 2, "OK": 793} == found
    assert found | {"parts": 900} == {name: told[name] for name in (*found, "parts")}
    assert [(60,)] == rows(reviews_path(store), "SELECT count(*) FROM reviews")
    assert 6 == told["pictures"] == len(list((month / "evidence").rglob("*.png")))
    assert told["late"] == rows(store, "SELECT count(*) FROM late_results")[0][0]


def test_every_record_reads_and_writes_back_unchanged(month: Path) -> None:
    """Each record is one that ``Record`` reads, says what its columns say, and would be written the same again."""
    sql = """SELECT records.*, triggers.json FROM records JOIN triggers USING (trigger_id) ORDER BY records.rowid"""
    for record_id, trigger_id, serial, lot, recipe_id, verdict, judged_at, text, trigger in rows(
        month / "records.sqlite", sql
    ):
        record = Record.from_json(text)
        assert text == record.to_json()
        assert (record_id, serial, recipe_id) == (record.record_id, record.serial, record.recipe_id)
        assert (trigger_id, lot, verdict) == (record.trigger.trigger_id, record.trigger.lot, record.judgement.verdict)
        assert judged_at == record.judged_at.isoformat()
        assert json.loads(trigger) == json.loads(text)["trigger"]
    for (text,) in rows(month / "records.sqlite", "SELECT json FROM late_results"):
        assert text == LateResult.from_json(text).to_json()


def test_store_opens_as_that_of_a_station(month: Path) -> None:
    """The config is valid, the store is of the newest schema, and nothing waits to be judged."""
    config = load_station(month / "station.toml")
    with closing(Store(Path(config.store))) as store:
        assert (900, ()) == (store.count(), store.unanswered())
    assert config.hmi.review_ok_share == OK_SHARE


def test_chain_fits_every_row(month: Path) -> None:
    """Each entry of the chain holds the SHA-256 of its row and of all entries before it."""
    records = """SELECT records.*, triggers.json, accepted_at FROM records JOIN triggers USING (trigger_id)
                 ORDER BY records.rowid"""
    store = month / "records.sqlite"
    follow = {
        "record": iter(rows(store, records)),
        "late": iter(rows(store, "SELECT * FROM late_results ORDER BY rowid")),
        "review": iter(rows(reviews_path(store), "SELECT * FROM reviews ORDER BY review_id")),
    }
    for path in (store, reviews_path(store)):
        before, entries = FIRST_LINK, rows(path, "SELECT * FROM chain ORDER BY sequence")
        for number, (sequence, kind, subject, digest, link) in enumerate(entries, 1):
            content = next(follow[kind])
            assert hashlib.sha256(canonical(content)).digest() == digest
            assert subject == (content[2] if kind == "review" else content[0])
            before = link_of(before, sequence, kind, subject, digest)
            assert (number, before) == (sequence, link)
    assert [None, None, None] == [next(left, None) for left in follow.values()]


def test_an_audit_finds_nothing(month: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole month stands: every chain, every checkpoint, every signature."""
    assert 0 == lineside(["audit", str(month / "station.toml")])
    assert "note:" not in capsys.readouterr().out


def test_change_points_are_those_of_the_records(month: Path) -> None:
    """The list of what judged from which row on is the one that reading every record gives."""
    store = month / "records.sqlite"
    listed = rows(store, "SELECT * FROM judged_by ORDER BY first_row")
    assert rows(store, CHANGES_BY_READING) == listed
    assert 3 == len(listed)


def test_versions_that_judged_are_kept_but_the_first(month: Path) -> None:
    """One version is not here any more, one lies under .versions, one is in force, with their own limits."""
    versions = SealedVersions(read_places(month / "station.toml"))
    listed = rows(month / "records.sqlite", "SELECT recipe_id, recipe_sha256 FROM judged_by ORDER BY first_row")
    first, second, third = (versions.of(*one) for one in listed)
    assert ("not_here", "", True) == (first.why_not, second.why_not, third.in_force)
    assert (0.5, 0.44) == (second.limits[0].ng_score, third.limits[0].ng_score)


def test_pictures_are_those_of_the_last_ng_parts(month: Path) -> None:
    """The last NG parts name pictures that are there."""
    sql = "SELECT json FROM records WHERE verdict = 2 ORDER BY rowid DESC LIMIT 7"
    *last, before = (Record.from_json(text) for (text,) in rows(month / "records.sqlite", sql))
    assert "" == before.evidence
    assert [1] * 6 == [len(evidence_files(month / "evidence", record.evidence)) for record in last]


def test_records_are_what_the_recipe_gives_for_their_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is drawn of an untouched month replays the same, under each version of the recipe that is kept."""
    make_month(tmp_path / "station", Wanted(parts=300, ng=60, reviews=10, pictures=60))
    capsys.readouterr()
    code = lineside(["replay", str(tmp_path / "station" / "station.toml"), "--random", "40", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert 2 == len({row["recipe_sha256"] for row in told["records"]})
    assert (0, {"same"}) == (code, {row["outcome"] for row in told["records"]})


def test_reviews_are_of_parts_that_a_person_may_see(month: Path) -> None:
    """Every review is of a stored record; parts that could not be judged have none."""
    store = month / "records.sqlite"
    verdicts = dict(rows(store, "SELECT record_id, verdict FROM records"))
    with closing(ReviewStore(reviews_path(store))) as reviews:
        given = reviews.after(0, 100)
    assert 60 == len(given)
    assert Verdict.ERROR not in {verdicts[review.record_id] for _, review in given}
    assert sorted(review.at for _, review in given) == [review.at for _, review in given]


def test_planted_events_are_there() -> None:
    """The class drifts, the clock goes back by an hour and forward again, and two parts have one serial."""
    plan = make_plan(Wanted(parts=50_000, ng=1500, reviews=0))
    steps = [timedelta(microseconds=int(later - one)) for one, later in pairwise(plan.judged_us)]
    back = [row for row, step in enumerate(steps, 2) if step < timedelta(0)]
    first, end = plan.planted.set_back_rows
    assert [first] == back
    assert steps[end - 2] > timedelta(minutes=55)
    begin, end = plan.planted.drift_hours
    drifts = (plan.hour >= begin) & (plan.hour < end)
    assert (plan.verdict[drifts] == Verdict.NG).mean() > 1.7 * 1500 / 50_000


def test_same_seed_gives_the_same_records(tmp_path: Path) -> None:
    """The records of a seed are always the same, those of another seed are others."""
    digests = []
    for name, seed in (("one", 7), ("two", 7), ("other", 8)):
        make_month(tmp_path / name, Wanted(parts=60, ng=6, reviews=3, seed=seed))
        digests.append(
            rows(tmp_path / name / "records.sqlite", "SELECT link FROM chain ORDER BY sequence DESC LIMIT 1")
        )
    assert digests[0] == digests[1] != digests[2]


def test_lean_records_hold_no_measured_values(tmp_path: Path) -> None:
    """With --lean OK records are short and still readable."""
    assert 0 == main([str(tmp_path / "lean"), "--parts", "60", "--ng", "6", "--reviews", "0", "--lean"])
    for (text,) in rows(tmp_path / "lean" / "records.sqlite", "SELECT json FROM records WHERE verdict = 1"):
        record = Record.from_json(text)
        assert ((), (), text) == (record.measured, record.detections, record.to_json())


@pytest.mark.parametrize(
    "words", [["--parts", "3"], ["--parts", "50", "--ng", "50"], ["--parts", "50", "--ng", "2", "--reviews", "40"]]
)
def test_a_month_that_cannot_be_is_refused(tmp_path: Path, words: list[str]) -> None:
    """Too few parts for what is asked is a usage error."""
    assert 2 == main([str(tmp_path / "month"), *words])


def test_a_month_is_never_overwritten(month: Path) -> None:
    """A folder that holds a month is left as it is."""
    with pytest.raises(UsageError, match="already"):
        make_month(month, WANTED)


def test_month_begins_when_it_is_told(tmp_path: Path) -> None:
    """--since moves all of it."""
    words = ["--parts", "40", "--ng", "4", "--reviews", "0", "--days", "1", "--since", "2025-03-01"]
    assert 0 == main([str(tmp_path / "month"), *words])
    first, last = rows(tmp_path / "month" / "records.sqlite", "SELECT min(judged_at), max(judged_at) FROM records")[0]
    assert "2025-03-01" == first[:10] == last[:10]
    assert datetime.fromisoformat(last) > datetime.fromisoformat(first)
