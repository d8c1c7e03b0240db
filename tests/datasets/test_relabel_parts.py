"""The parts behind the relabelling page that need no browser: who may enter, what a person vouches for, what is kept."""

import json
from pathlib import Path

import pytest
from starlette.requests import Request

from datasets.relabel.door import LASTS_S, Door, kept_secret
from datasets.relabel.judged import Judged, open_for_writing, prediction_of, write_row
from datasets.relabel.proposals import of_model, read_coco
from datasets.relabel.vouched import VOUCHED, Word, add_word, read_words, vouched_names
from inspection.errors import UsageError
from inspection.inspect_frame import Inspection
from inspection.predict import Prediction
from inspection.types import Detection, Judgement, Region, Verdict, error_judgement


class Clock:
    """A time that a test sets."""

    now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def asking(door: Door, cookie: str) -> Request:
    """A request with the door's cookie."""
    return Request({"type": "http", "headers": [(b"cookie", f"{door.cookie}={cookie}".encode())]})


def test_address_works_once() -> None:
    """A token lets one browser in; the second that tries it stays outside."""
    door = Door("ann", b"s" * 32, "x")
    token = door.invite()
    assert door.admit("") is None
    assert door.admit(token[:-1]) is None
    cookie = door.admit(token)
    assert cookie is not None
    assert door.admit(token) is None
    session = door.session(asking(door, cookie))
    assert session is not None
    assert session.user.name == "ann"


def test_session_ends_and_cannot_be_forged() -> None:
    """A cookie counts for half a day, with the secret it was signed with, unchanged."""
    clock = Clock()
    door = Door("ann", b"s" * 32, "x", now=clock)
    cookie = door.admit(door.invite()) or ""
    assert Door("ann", b"o" * 32, "x", now=clock).session(asking(door, cookie)) is None
    for forged in ("", ".", "x", cookie[:-1], "9" + cookie, cookie.replace(".", "", 1)):
        assert door.session(asking(door, forged)) is None
    clock.now_s += LASTS_S - 1
    assert door.session(asking(door, cookie)) is not None
    clock.now_s += 1
    assert door.session(asking(door, cookie)) is None


def test_browser_is_known_after_a_restart(tmp_path: Path) -> None:
    """The secret is kept in a file that nobody else may read; one that others could read is not trusted."""
    secret = kept_secret(tmp_path / "secret")
    assert secret == kept_secret(tmp_path / "secret")
    assert (tmp_path / "secret").stat().st_mode & 0o077 == 0
    (tmp_path / "secret").chmod(0o644)
    assert secret != kept_secret(tmp_path / "secret")
    assert len(kept_secret(tmp_path / "nowhere" / "secret")) == 32


def test_word_is_kept_behind_a_torn_line(tmp_path: Path) -> None:
    """What a killed program left of a line is no word, and does not swallow the next one."""
    assert read_words(tmp_path) == []
    words = [Word(at="2026-01-02T03:04:05+00:00", who="ann", why="<b>", sample=name, revision="0") for name in "ab"]
    add_word(tmp_path, words[0])
    with (tmp_path / VOUCHED).open("ab") as file:
        file.write(b'{"at": "20')
    add_word(tmp_path, words[1])
    assert words == read_words(tmp_path)
    assert {"a", "b"} == vouched_names(tmp_path)


def test_outcomes_are_read_while_they_are_written(tmp_path: Path) -> None:
    """The page takes in each whole line once, and what comes back is what was judged."""
    found = Detection("short", 0.75, Region((1.0, 2.0, 30.5, 40.25)))
    good = Prediction("a.png", Inspection(Judgement(Verdict.OK), (found,), ()), 12.5)
    refused = Prediction("b.png", Inspection(error_judgement("image.blurred", "too blurred"), (), ()), 0.0)
    judged = Judged(tmp_path / "judged.jsonl")
    judged.refresh()
    with open_for_writing(tmp_path / "judged.jsonl") as file:
        write_row(file, "k1", good)
        file.write(b'{"key": "torn')
        file.flush()
        judged.refresh()
        assert list(judged.rows) == ["k1"]
    with open_for_writing(tmp_path / "judged.jsonl") as file:
        write_row(file, "k2", refused)
    judged.refresh()
    assert list(judged.rows) == ["k1", "k2"]
    assert prediction_of(judged.rows["k1"]) == good
    assert prediction_of(judged.rows["k2"]).inspection.judgement.verdict == Verdict.ERROR
    assert [("short", [1.0, 2.0, 30.5, 40.25])] == [
        (one["defect_class"], one["box_px"]) for one in of_model(judged.rows["k1"])
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x89PNG\r\n\x1a\n....", "is an image"),
        (b"{ no", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "without the names"),
        (b'{"images": 3}', "no COCO"),
        (b"\xff\xfe\x00", "no JSON"),
        (b"", "no JSON"),
    ],
)
def test_wrong_upload_is_refused_in_words(content: bytes, words: str) -> None:
    """An upload that holds no proposals says what it is instead."""
    with pytest.raises(UsageError, match=words):
        read_coco(content, [], [])


def test_upload_says_what_of_it_cannot_be_used() -> None:
    """Boxes of unknown images or classes, without a size or beyond numbers are counted, never guessed."""
    rows = [
        {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]},
        {"image_id": 2, "category_id": 1, "bbox": [1, 2, 3, 4]},
        {"image_id": 3, "category_id": 1, "bbox": [1, 2, 3, 4]},
        {"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4]},
        {"image_id": 1, "category_id": 1, "bbox": [1, 2, 0, 4]},
        {"image_id": 1, "category_id": 1, "bbox": [1, 2, float("nan"), 4]},
        {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 7},
    ]
    images = [
        {"id": 1, "file_name": "C:\\line\\a.png"},
        {"id": 2, "file_name": "twice.png"},
        {"id": 3, "file_name": "../x"},
    ]
    categories = [{"id": 1, "name": "dent"}, {"id": 2, "name": "<i>"}]
    content = json.dumps({"images": images, "annotations": rows, "categories": categories}).encode()
    samples = [("part a", Path("/d/a.png")), ("p", Path("/d/1/twice.png")), ("q", Path("/d/2/twice.png"))]
    uploaded = read_coco(content, samples, ["dent"])
    assert ["part a"] == list(uploaded.by_name)
    assert [[1.0, 2.0, 4.0, 6.0]] == [one["box_px"] for one in uploaded.by_name["part a"]]
    assert "3 of a box without a size" in uploaded.text()
    assert "2 of an image that this dataset does not have" in uploaded.text()
    assert "1 of class '<i>'" in uploaded.text()
