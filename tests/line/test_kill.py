"""The kill test as a requirement, and that it finds what it is there to find."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from line_bench import ROOT, sql

from inspection.audit.run import audit
from inspection.store import Store
from inspection.types import Trigger, Verdict, error_judgement, utc_now
from tools.kill_test import LineLog, compare


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, "subprocess.CompletedProcess[str]"]:
    """The folder and the outcome of a run with eight kills."""
    out = tmp_path_factory.mktemp("kill") / "out"
    command = [sys.executable, "-m", "tools.kill_test", "--kills", "8", "--seed", "3", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    return out, done


def test_no_kill_loses_doubles_or_contradicts_a_part(
    killed: tuple[Path, "subprocess.CompletedProcess[str]"],
) -> None:
    """After kills at random moments every trigger has one record, and every answer is what its record says."""
    out, done = killed
    counted = {line[:44].strip(): line[44:] for line in done.stdout.splitlines()}
    assert (done.returncode, done.stderr, counted["violations"]) == (0, "", "0"), done.stdout
    assert counted["kills"] == "8"
    assert counted["to be inspected"] == counted["triggers answered"]
    assert "Traceback" not in (out / "station.log").read_text(encoding="utf-8")


def test_no_kill_breaks_the_chain_or_the_checkpoints(
    killed: tuple[Path, "subprocess.CompletedProcess[str]"],
) -> None:
    """After kills at random moments the audit finds every row as it was written, and signed up to the last one."""
    result = audit(killed[0] / "records.sqlite")
    assert [finding for file in result.files for finding in (*file.damage, *file.findings)] == []
    assert result.checkpoints.findings == ()
    records = result.files[0]
    assert records.newer == 0
    assert records.entries == sum(records.rows.values()) > 0
    assert result.checkpoints.lines >= 2  # the last start and its end: a kill may come before a start has signed


@pytest.fixture
def story(killed: tuple[Path, "subprocess.CompletedProcess[str]"], tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the line's log and of the store of that run, for the test to falsify."""
    for name in ("line.jsonl", "records.sqlite"):
        shutil.copyfile(killed[0] / name, tmp_path / name)
    return tmp_path / "line.jsonl", tmp_path / "records.sqlite"


def last(log: Path, event: str) -> dict[str, object]:
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return next(row for row in reversed(rows) if row["event"] == event)


def lose_record(log: Path, store: Path) -> None:
    trigger_id = last(log, "answer")["trigger_id"]
    sql(store, "DROP TRIGGER records_stay")
    sql(store, f"DELETE FROM records WHERE trigger_id = '{trigger_id}' RETURNING 1")


def add_record(log: Path, store: Path) -> None:
    opened = Store(store)
    first = next(opened.records())
    trigger = Trigger("never-sent", "S", "", "", utc_now())
    opened.accept(trigger)
    opened.commit(replace(first, trigger=trigger, record_id="r"))
    opened.close()


def change_verdict(log: Path, store: Path) -> None:
    opened = Store(store)
    record = next(record for record in opened.records() if record.judgement.verdict != Verdict.ERROR)
    opened.close()
    text = replace(record, judgement=error_judgement("x", "y")).to_json().replace("'", "''")
    sql(store, "DROP TRIGGER records_keep")
    sql(store, f"UPDATE records SET json = '{text}' WHERE record_id = '{record.record_id}' RETURNING 1")


def answer_twice(log: Path, store: Path) -> None:
    again = last(log, "answer")
    with log.open("a") as file:
        for _ in range(2):
            file.write(json.dumps(again | {"processing_ms": -1}) + "\n")


def forget_answer(log: Path, store: Path) -> None:
    trigger_id = last(log, "answer")["trigger_id"]
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    kept = [row for row in rows if row["event"] != "answer" or row["trigger_id"] != trigger_id]
    log.write_text("".join(json.dumps(row) + "\n" for row in kept))


def note_anomaly(log: Path, store: Path) -> None:
    with log.open("a") as file:
        file.write('{"event": "anomaly", "text": "heartbeat"}\n')


@pytest.mark.parametrize(
    ("falsify", "found"),
    [
        (lose_record, "was sent and has no record"),
        (lose_record, "was accepted and has no record"),
        (add_record, "has a record and was never sent"),
        (change_verdict, "verdict is"),
        (answer_twice, "was answered in two ways"),
        (answer_twice, "was answered too often"),
        (forget_answer, "was never answered"),
        (note_anomaly, "the line noted: heartbeat"),
    ],
)
def test_a_false_story_is_found(story: tuple[Path, Path], falsify: Callable[[Path, Path], None], found: str) -> None:
    """A lost, an added and a changed record, and a doubled or missing answer, are each named."""
    assert compare(LineLog(story[0]), story[1]).violations == []
    falsify(*story)
    assert any(found in violation for violation in compare(LineLog(story[0]), story[1]).violations)


def test_an_old_folder_is_not_mixed_into_a_new_run(tmp_path: Path) -> None:
    """A folder that exists is refused with exit code 2."""
    command = [sys.executable, "-m", "tools.kill_test", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "exists already" in done.stderr) == (2, True)
