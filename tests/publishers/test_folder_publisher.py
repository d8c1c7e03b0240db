"""The folder publisher: whole lines, one file a day, nothing twice."""

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from receivers import gap_message, late_message, make_record, message

from inspection.errors import PublisherError
from inspection.publishers import Message
from inspection.publishers.folder import COLUMNS, FolderConfig, FolderPublisher, _row

DAY = "records-2026-11-23"


def publisher_of(folder: Path, **more: Any) -> FolderPublisher:
    made = FolderPublisher(FolderConfig(folder=str(folder), **more), station_id="st1")
    made.open()
    return made


def publish(folder: Path, messages: Sequence[Message], **more: Any) -> None:
    publisher = publisher_of(folder, **more)
    try:
        publisher.publish(messages)
    finally:
        publisher.close()


def keys(path: Path) -> list[str]:
    return [json.loads(line)["record_id"] for line in path.read_text().splitlines()]


def on_day(number: int, day: datetime) -> Message:
    made = replace(make_record(number), judged_at=day)
    return Message(number, "record", made.record_id, made.to_json())


def test_a_json_line_has_everything(tmp_path: Path) -> None:
    """Sequence, kind, record id and the stored record."""
    publish(tmp_path, [message(1)])
    line = json.loads((tmp_path / f"{DAY}.jsonl").read_text())
    assert (1, "record", "r000001") == (line["sequence"], line["kind"], line["record_id"])
    assert json.loads(message(1).body) == line["body"]


def test_a_csv_line_is_for_a_spreadsheet(tmp_path: Path) -> None:
    """A heading, a row each, and no cell that a spreadsheet would run."""
    publish(tmp_path, [message(1, serial='=A1,"x"\r\n'), late_message(2, of=1)], formats=("csv",))
    with (tmp_path / f"{DAY}.csv").open(newline="") as file:
        heading, first, late = csv.reader(file)
    assert COLUMNS == tuple(heading)
    row = dict(zip(COLUMNS, first, strict=True))
    assert ("r000001", "NG", "'=A1,\"x\"", "a short, 0.9") == (
        row["record_id"], row["verdict"], row["serial"], row["reasons"],
    )  # fmt: skip
    assert ("late", "OK") == (late[1], late[5])


def test_a_gap_is_a_line_too(tmp_path: Path) -> None:
    """Who reads the files sees what is missing."""
    publish(tmp_path, [gap_message(3, 9)], formats=("jsonl", "csv"))
    assert "lost 3 to 9" in next(tmp_path.glob("*.csv")).read_text()
    assert "gap" == json.loads(next(tmp_path.glob("*.jsonl")).read_text())["kind"]


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_torn_line_is_cut_off_wherever_it_was_torn(tmp_path: Path, form: Any) -> None:
    """After a crash in the middle of a line each line is whole, and nothing is there twice or missing."""
    publish(tmp_path, [message(1), message(2)], formats=(form,))
    path = tmp_path / f"{DAY}.{form}"
    whole = path.read_bytes()
    first = whole.index(b"\n", whole.index(b"r000001")) + 1
    for length in range(first, len(whole)):
        path.write_bytes(whole[:length])
        publish(tmp_path, [message(1), message(2)], formats=(form,))
        assert whole == path.read_bytes()


def test_a_file_of_nothing_but_a_torn_line_is_begun_again(tmp_path: Path) -> None:
    """The heading may be torn too."""
    (tmp_path / f"{DAY}.csv").write_text("sequ")
    publish(tmp_path, [message(1)], formats=("csv",))
    assert 2 == len((tmp_path / f"{DAY}.csv").read_text().splitlines())


def test_lines_of_others_do_no_harm(tmp_path: Path) -> None:
    """A file that somebody edited is appended to."""
    (tmp_path / f"{DAY}.jsonl").write_text('note\n{"sequence": 1}\n[]\n\n')
    publish(tmp_path, [message(1)])
    assert "r000001" in (tmp_path / f"{DAY}.jsonl").read_text()


def test_a_store_that_counts_anew_is_written_too(tmp_path: Path) -> None:
    """The same sequence with another record is another message."""
    publish(tmp_path, [message(1)])
    other = replace(message(1), key="other")
    publish(tmp_path, [other])
    assert ["r000001", "other"] == keys(tmp_path / f"{DAY}.jsonl")


def test_each_day_has_its_file(tmp_path: Path) -> None:
    """A record stands in the file of the day on which it was judged, in UTC."""
    evening = datetime(2026, 11, 23, 23, 59, tzinfo=UTC)
    days = [evening, evening + timedelta(minutes=2), evening]
    publish(tmp_path, [on_day(number, day) for number, day in enumerate(days)])
    assert ["r000000", "r000002"] == keys(tmp_path / f"{DAY}.jsonl")
    assert ["r000001"] == keys(tmp_path / "records-2026-11-24.jsonl")


def test_old_files_go_when_asked(tmp_path: Path) -> None:
    """Only our own files, only older than the config says, and none by default."""
    names = ["records-2020-01-01.jsonl", "records-2020-99-99.jsonl", "records-2020-01-01.txt", "notes-2020-01-01.csv"]
    for name in names:
        (tmp_path / name).touch()
    publish(tmp_path, [on_day(1, datetime.now(UTC))])
    assert set(names) <= {path.name for path in tmp_path.iterdir()}
    publish(tmp_path, [on_day(2, datetime.now(UTC))], keep_days=7)
    assert set(names) - {names[0]} == set(names) & {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("harm", ["delete", "replace"])
def test_a_file_that_is_taken_away_is_noticed(tmp_path: Path, harm: str) -> None:
    """A file that another program moved or deleted is not written on where nobody sees it."""
    publisher = publisher_of(tmp_path)
    publisher.publish([message(1)])
    path = tmp_path / f"{DAY}.jsonl"
    path.rename(tmp_path / "moved")
    if harm == "replace":
        path.touch()
    with pytest.raises(PublisherError):
        publisher.publish([message(2)])
    publisher.open()
    publisher.publish([message(2)])
    publisher.close()
    assert ["r000002"] == keys(path)


def test_a_missing_folder_is_never_made(tmp_path: Path) -> None:
    """It may be a share that is not mounted: records on the local disk in its place would be lost to the plant."""
    with pytest.raises(PublisherError, match="away"):
        publisher_of(tmp_path / "away")
    assert not (tmp_path / "away").exists()


@given(st.lists(st.text(), min_size=1, max_size=6))
def test_a_row_is_one_line_whatever_is_in_it(values: list[str]) -> None:
    """No text breaks a line of the CSV in two, for any reader."""
    line = _row([value.encode("utf-8", "replace").decode() for value in values]).decode()
    assert 1 == len(line.splitlines())
    assert len(values) == len(next(csv.reader([line])))


@pytest.mark.parametrize("wrong", [{"folder": ""}, {"formats": ()}, {"formats": ("xlsx",)}, {"keep_days": -1}])
def test_a_wrong_config_is_refused(wrong: dict[str, Any]) -> None:
    """Unknown forms and empty names do not pass."""
    with pytest.raises(ValidationError):
        FolderConfig(**{"folder": "out", **wrong})
