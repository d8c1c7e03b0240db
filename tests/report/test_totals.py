"""Every number of a report against an independent count in plain SQL, over a generated month of 5,000 parts."""

import csv
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pl = pytest.importorskip("polars", reason='pip install "lineside[report]"')

from inspection.cli import main  # noqa: E402
from tools.month import OK_SHARE, make_month  # noqa: E402
from tools.month_plan import Wanted  # noqa: E402

VERDICTS = {"error": 0, "ok": 1, "ng": 2, "review": 3}
NAMES = ("ERROR", "OK", "NG", "REVIEW")
# A person's latest word, by when it was decided, replaces the earlier ones; of these the latest that decides stands.
REVIEWED = """
    CREATE TEMP TABLE reviewed AS
    WITH words AS (SELECT *, row_number() OVER (PARTITION BY record_id, reviewer ORDER BY at DESC, review_id DESC) AS back
                   FROM reviews.reviews),
         stands AS (SELECT *, row_number() OVER (PARTITION BY record_id ORDER BY at DESC, review_id DESC) AS back
                    FROM (SELECT record_id, at, review_id, disposition FROM words
                          WHERE back = 1 AND disposition <> 'unsure'))
    SELECT record_id, coalesce(disposition, 'unsure') AS said
    FROM (SELECT DISTINCT record_id FROM words) LEFT JOIN (SELECT * FROM stands WHERE back = 1) USING (record_id)
"""
FINDINGS = """
    CREATE TEMP TABLE found AS
    SELECT DISTINCT records.rowid AS row, detection.value AS text
    FROM records, json_each(records.json, '$.judgement.reasons') AS reason, json_each(reason.value, '$.detections') AS detection
    WHERE verdict IN (2, 3) AND (reason.value ->> '$.rule_id' LIKE 'ng.%' OR reason.value ->> '$.rule_id' LIKE 'review.%')
"""


class Month:
    """A report, and the records and reviews that it was made from."""

    def __init__(self, folder: Path, out: Path) -> None:
        self.out = out
        self.json: Any = json.loads((out / "report.json").read_text(encoding="utf-8"))
        store = f"{(folder / 'records.sqlite').as_uri()}"
        self.database = sqlite3.connect(f"{store}?mode=ro", uri=True)
        self.database.execute("ATTACH ? AS reviews", (f"{store}.reviews?mode=ro",))
        self.database.create_function("drawn", 1, _drawn, deterministic=True)
        self.database.execute(REVIEWED)
        self.database.execute(FINDINGS)
        self.database.execute("CREATE INDEX temp.found_by_row ON found (row)")

    def one(self, sql: str, *values: object) -> Any:
        return self.database.execute(sql, values).fetchone()[0]

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        return self.database.execute(sql, values).fetchall()

    def table(self, name: str) -> list[dict[str, str]]:
        with (self.out / "tables" / f"{name}.csv").open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))


def _drawn(record_id: str) -> bool:
    return int(hashlib.sha256(record_id.encode()).hexdigest()[:12], 16) / 16**12 < OK_SHARE


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Month]:
    folder = tmp_path_factory.mktemp("month")
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"  # shifts begin at local times
    time.tzset()
    try:
        make_month(folder, Wanted(parts=5000, ng=400, reviews=220, pictures=12))
        assert main(["report", str(folder / "station.toml"), "-o", str(folder / "out")]) == 0
        made = Month(folder, folder / "out")
        with closing(made.database):
            yield made
    finally:
        os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
        time.tzset()


def tally(row: tuple[int, ...]) -> dict[str, int]:
    """From counts of error, ok, ng, review."""
    error, ok, ng, review = row
    return {"ok": ok, "ng": ng, "review": review, "error": error, "parts": sum(row), "judged": ok + ng + review}


COUNTS = ", ".join(f"sum(verdict = {number})" for number in VERDICTS.values())


def test_verdicts_and_yield(month: Month) -> None:
    """Parts by verdict, and OK of those that could be judged."""
    totals = month.json["totals"]
    counted = tally(month.rows(f"SELECT {COUNTS} FROM records")[0])
    assert counted == totals["tally"]
    assert (counted["ok"] / counted["judged"], counted["judged"]) == (
        totals["first_pass_yield"]["value"], totals["first_pass_yield"]["of"],
    )  # fmt: skip
    assert month.one("SELECT avg(verdict = 0) FROM records") == pytest.approx(totals["error_rate"]["value"])


def test_yield_after_review(month: Month) -> None:
    """A false call is a good part, an escape is not, what nobody decided stays as it was answered."""
    totals = month.json["totals"]
    good = month.one(
        """SELECT count(*) FROM records LEFT JOIN reviewed USING (record_id)
           WHERE (verdict = 1 AND coalesce(said, '') <> 'escape') OR (verdict IN (2, 3) AND said = 'false_call')"""
    )
    assert good / totals["tally"]["judged"] == totals["final_yield"]["value"]
    said = dict(month.rows("SELECT said, count(*) FROM reviewed JOIN records USING (record_id) GROUP BY 1"))
    names = {"confirmed": "confirmed", "false_call": "false_calls", "escape": "escapes", "unsure": "unsure"}
    assert {name: said.get(word, 0) for word, name in names.items()} == {name: totals[name] for name in names.values()}
    assert sum(said.values()) == totals["reviewed"]
    waiting = """SELECT count(*) FROM records LEFT JOIN reviewed USING (record_id)
                 WHERE verdict IN (2, 3) AND coalesce(said, 'unsure') = 'unsure'"""
    assert month.one(waiting) == totals["unreviewed_not_ok"]


def test_serials_and_late_results(month: Month) -> None:
    """Distinct serials, those with more than one record by name, lots, and parts that missed their deadline."""
    totals = month.json["totals"]
    twice = "SELECT serial FROM records GROUP BY 1 HAVING count(*) > 1 ORDER BY 1"
    assert [row[0] for row in month.rows(twice)] == totals["serials_used_twice"]
    assert month.one("SELECT count(DISTINCT serial) FROM records") == totals["serials"]
    assert month.one("SELECT count(DISTINCT lot) FROM records") == totals["lots"]
    assert month.one("SELECT count(*) FROM late_results") == totals["late"]


def test_reasons(month: Month) -> None:
    """Parts under each rule that made them not OK."""
    sql = """SELECT reason.value ->> '$.rule_id', count(DISTINCT records.rowid)
             FROM records, json_each(records.json, '$.judgement.reasons') AS reason GROUP BY 1"""
    counted = dict(month.rows(sql))
    assert counted == {row["rule_id"]: row["parts"] for row in month.json["reasons"]}
    assert counted == {row["rule_id"]: int(row["parts"]) for row in month.table("reasons")}


def test_pareto(month: Month) -> None:
    """Findings that reasons name, and their parts, by defect class; shares add up to one."""
    counted = {
        name: (findings, parts)
        for name, findings, parts in month.rows(
            "SELECT text ->> '$.defect_class', count(*), count(DISTINCT row) FROM found GROUP BY 1"
        )
    }
    rows = month.json["pareto"]
    assert counted == {row["defect_class"]: (row["findings"], row["parts"]) for row in rows}
    assert counted == {row["defect_class"]: (int(row["findings"]), int(row["parts"])) for row in month.table("pareto")}
    assert [row["findings"] for row in rows] == sorted((row["findings"] for row in rows), reverse=True)
    assert rows[-1]["cumulative"] == pytest.approx(1) == sum(row["share"] for row in rows)


def test_hours(month: Month) -> None:
    """Parts by verdict of every hour; hours without a part are there with zeros."""
    sql = f"SELECT substr(judged_at, 1, 13), {COUNTS} FROM records GROUP BY 1"
    counted = {row[0]: tally(row[1:]) for row in month.rows(sql)}
    found = {row["begin"][:13]: row["tally"] for row in month.json["hours"]}
    assert counted == {hour: row for hour, row in found.items() if row["parts"]}
    begins = [datetime.fromisoformat(row["begin"]) for row in month.json["hours"]]
    assert {timedelta(hours=1)} == {later - begin for begin, later in pairwise(begins)}
    assert month.one("SELECT count(*) FROM found") == sum(row["findings"] for row in month.json["hours"])


def test_shifts(month: Month) -> None:
    """Parts of every shift; the night shift belongs to the day on which it begins."""
    sql = f"""SELECT CASE WHEN time(judged_at) >= '22:00:00' THEN date(judged_at) || '/3'
                          WHEN time(judged_at) >= '14:00:00' THEN date(judged_at) || '/2'
                          WHEN time(judged_at) >= '06:00:00' THEN date(judged_at) || '/1'
                          ELSE date(judged_at, '-1 day') || '/3' END, {COUNTS} FROM records GROUP BY 1"""
    counted = {row[0]: tally(row[1:]) for row in month.rows(sql)}
    assert counted == {row["name"]: row["tally"] for row in month.json["shifts"]}


def test_lots(month: Month) -> None:
    """Parts of every lot, from its first to its last record."""
    sql = f"SELECT lot, min(judged_at), max(judged_at), {COUNTS} FROM records GROUP BY 1"
    counted = {row[0]: (row[1], row[2], tally(row[3:])) for row in month.rows(sql)}
    assert counted == {row["name"]: (row["begin"], row["end"], row["tally"]) for row in month.json["lots"]}


def test_stage_times(month: Month) -> None:
    """Each quantile is the least measured time that so many parts did not exceed."""
    stages = [row[0] for row in month.rows("SELECT DISTINCT key FROM records, json_each(records.json, '$.stage_ms')")]
    found = {row["stage"]: row for row in month.json["stages"]}
    assert set(stages) == set(found)
    for stage in stages:
        sql = "SELECT value FROM records, json_each(records.json, '$.stage_ms') WHERE key = ? ORDER BY value"
        times = [row[0] for row in month.rows(sql, stage)]
        wanted = [times[-(-len(times) * percent // 100) - 1] for percent in (50, 95, 99, 100)]
        row = found[stage]
        assert wanted == pytest.approx([row["median_ms"], row["p95_ms"], row["p99_ms"], row["max_ms"]], rel=1e-6)
        assert len(times) == row["count"]


def test_versions_and_change_points(month: Month) -> None:
    """Parts by recipe version and model, and the records from which another one judged."""
    sql = f"""SELECT json ->> '$.recipe_sha256', json ->> '$.model_sha256', min(judged_at), max(judged_at), {COUNTS}
              FROM records GROUP BY 1, 2 ORDER BY min(rowid)"""
    wanted = [(*row[:4], tally(row[4:])) for row in month.rows(sql)]
    found = month.json["versions"]
    columns = ("recipe_sha256", "model_sha256", "first", "last", "tally")
    assert wanted == [tuple(row[name] for name in columns) for row in found]
    changes = [(row["rowid"], row["recipe_sha256"], row["model_sha256"]) for row in month.json["changes"]]
    assert month.rows("SELECT first_row, recipe_sha256, model_sha256 FROM judged_by") == changes


def test_false_calls(month: Month) -> None:
    """False calls by part, by place and by place and class; the denominators are those of the versions that are here."""
    base = """FROM records JOIN reviewed USING (record_id) LEFT JOIN found ON found.row = records.rowid
              WHERE verdict IN (2, 3) AND said = 'false_call' GROUP BY records.rowid"""
    place = "text ->> '$.camera' || char(0) || (text ->> '$.roi_id')"
    wanted = {
        "board": len(month.rows(f"SELECT 1 {base}")),
        "component": sum(row[0] for row in month.rows(f"SELECT max(1, count(DISTINCT {place})) {base}")),
        "opportunity": sum(
            row[0]
            for row in month.rows(
                f"SELECT max(1, count(DISTINCT {place} || char(0) || (text ->> '$.defect_class'))) {base}"
            )
        ),
    }
    rows = {row["denominator"]: row for row in month.json["false_calls"]}
    assert wanted == {name: row["false_calls"] for name, row in rows.items()}
    assert month.json["totals"]["tally"]["judged"] == rows["board"]["of"]
    assert rows["component"]["rate"]["value"] is None  # the first version of the month is not kept
    assert rows["component"]["rate"]["why_not"]


def test_escapes_of_the_random_sample(month: Month) -> None:
    """OK parts that were drawn and decided, and the escapes among them, of each model."""
    sql = """SELECT json ->> '$.model_sha256', sum(drawn(record_id)),
                    sum(drawn(record_id) AND coalesce(said, 'unsure') <> 'unsure'),
                    sum(drawn(record_id) AND coalesce(said, '') = 'escape')
             FROM records LEFT JOIN reviewed USING (record_id) WHERE verdict = 1 GROUP BY 1"""
    counted = {row[0]: row[1:] for row in month.rows(sql)}
    found = {row["model_sha256"]: (row["drawn"], row["reviewed_ok"], row["escapes"]) for row in month.json["escapes"]}
    assert counted == found
    assert sum(row[1] for row in counted.values()) > 0


def test_points_of_the_control_charts(month: Month) -> None:
    """Every point is NG and REVIEW parts, or findings, of the judged parts of its lot."""
    sql = """SELECT lot, sum(verdict IN (2, 3)), sum(verdict <> 0),
                    sum((SELECT count(*) FROM found WHERE row = records.rowid)) FROM records GROUP BY 1"""
    counted = {lot: (bad, judged, findings) for lot, bad, judged, findings in month.rows(sql)}
    for view in (view for view in month.json["charts"] if view["grouped_by"] == "lot"):
        column = 0 if view["what"] == "defective" else 2
        wanted = {lot: row[column] / row[1] for lot, row in counted.items()}
        assert wanted == pytest.approx(dict(zip(view["labels"], view["chart"]["points"], strict=True)))
        assert [counted[lot][1] for lot in view["labels"]] == view["sizes"]
    wanted_views = {("defective", "shift"), ("findings", "shift"), ("defective", "lot"), ("findings", "lot")}
    assert wanted_views == {(view["what"], view["grouped_by"]) for view in month.json["charts"]}
    assert len(month.table("control_charts")) == sum(len(view["labels"]) for view in month.json["charts"])


def test_camera_health(month: Month) -> None:
    """The median of every hour is a measured value: the least that half of the frames did not exceed."""
    sql = """SELECT substr(judged_at, 1, 13), key, value FROM records, json_each(records.json, '$.measured') ORDER BY 1, 2, 3"""
    values: dict[tuple[str, str], list[float]] = {}
    for hour, key, value in month.rows(sql):
        values.setdefault((hour, key), []).append(value)
    wanted = {key: (len(own), own[-(-len(own) // 2) - 1]) for key, own in values.items()}
    found = {
        (hour[:13], f"{view['camera']}.{view['quantity']}"): (frames, value)
        for view in month.json["health"]
        for hour, frames, value in zip(view["hours"], view["frames"], view["values"], strict=True)
        if frames
    }
    assert wanted.keys() == found.keys()
    assert all(
        frames == found[key][0] and value == pytest.approx(found[key][1], abs=1e-3)
        for key, (frames, value) in wanted.items()
    )


def test_defect_map(month: Month) -> None:
    """Every finding of a version that is here lies on the map, where registration says; the others are said to be missing."""
    here = "json ->> '$.recipe_sha256' <> (SELECT recipe_sha256 FROM judged_by WHERE first_row = 1)"
    placed, missing = month.json["maps"]
    assert month.one(f"SELECT count(*) FROM found JOIN records ON records.rowid = row WHERE {here}") == placed["placed"]
    assert (
        month.one(f"SELECT count(*) FROM found JOIN records ON records.rowid = row WHERE NOT {here}")
        == missing["unplaced"]
    )
    assert missing["why_not"]
    assert not missing["points"]
    assert len(placed["points"]) == placed["placed"] == len(month.table("defect_map"))
    assert all(
        -5 < point["x"] < placed["width"] + 5 and -5 < point["y"] < placed["height"] + 5 for point in placed["points"]
    )


def test_parquet_of_the_parts(month: Month) -> None:
    """report.parquet holds every record as it is in the store, with the review that stands."""
    sql = """SELECT records.rowid, record_id, serial, lot, verdict, judged_at, said
             FROM records LEFT JOIN reviewed USING (record_id) ORDER BY records.rowid"""
    wanted = [(*row[:4], NAMES[row[4]], row[5], row[6]) for row in month.rows(sql)]
    columns = ("rowid", "record_id", "serial", "lot", "verdict", "judged_at", "disposition")
    found = pl.read_parquet(month.out / "report.parquet").select(columns)
    assert wanted == [(*row[:5], row[5].isoformat(), row[6]) for row in found.iter_rows()]


def test_parquet_of_the_findings(month: Month) -> None:
    """findings.parquet holds every detection of the parts that are not OK, and which of them a reason names."""
    findings = pl.read_parquet(month.out / "findings.parquet")
    sql = "SELECT count(*) FROM records, json_each(records.json, '$.detections') WHERE verdict <> 1"
    assert month.one(sql) == findings.height
    assert month.one("SELECT count(*) FROM found") == findings["decisive"].sum()
    best = "SELECT max(text ->> '$.score') FROM found"
    assert month.one(best) == pytest.approx(findings.filter("decisive")["score"].max())


def test_tables_say_what_the_json_says(month: Month) -> None:
    """The numbers in the CSV files are those of report.json."""
    totals = {row["name"]: row["value"] for row in month.table("totals")}
    assert str(month.json["totals"]["tally"]["parts"]) == totals["parts"]
    assert str(month.json["totals"]["first_pass_yield"]["value"]) == totals["first_pass_yield"]
    for name in ("hours", "shifts", "lots", "versions"):
        key = "begin" if name == "hours" else "first" if name == "versions" else "name"
        wanted = [(row[key], str(row["tally"]["parts"]), str(row["tally"]["ng"])) for row in month.json[name]]
        assert wanted == [(row[key], row["parts"], row["ng"]) for row in month.table(name)]
    assert [row["key"] for row in month.json["caveats"]] == [row["key"] for row in month.table("caveats")]
    assert len(month.table("camera_health")) == sum(len(view["hours"]) for view in month.json["health"])
