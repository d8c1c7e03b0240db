from datetime import UTC, datetime

import numpy as np
import pytest

from inspection.contact_sheet import COLOURS, Part, draw_sheet
from inspection.types import Detection, Judgement, Reason, Record, Region, Trigger, Verdict

NOW = datetime(2026, 11, 23, tzinfo=UTC)
FRAME = np.full((640, 480), 255, np.uint8)
BOX = Detection("open", 0.9, Region((100, 200, 200, 300)))


def record(verdict: Verdict, *, rule: str = "ng.open", text: str = "one finding") -> Record:
    reasons = () if verdict == Verdict.OK else (Reason(rule, text, (BOX,)),)
    return Record(
        trigger=Trigger("t", "SERIAL-1", "L", "r", NOW), judgement=Judgement(verdict, reasons), detections=(BOX,),
        frame_ids=(), recipe_sha256="", model_sha256="", station_id="s", stage_ms=(), simulated=True, judged_at=NOW,
    )  # fmt: skip


def shows(sheet: np.ndarray, colour: tuple[int, int, int], least: int) -> bool:
    return int(np.all(sheet == colour, axis=2).sum()) >= least


@pytest.mark.parametrize("verdict", list(Verdict))
def test_verdict_has_its_colour(verdict: Verdict) -> None:
    """A cell shows the colour of its verdict in a wide bar, and of no other verdict."""
    sheet = draw_sheet([Part(record(verdict, rule="golden.registration"), None, None)], columns=1)
    assert shows(sheet, COLOURS[verdict], 10_000)
    assert not any(shows(sheet, colour, 1) for other, colour in COLOURS.items() if other != verdict)


@pytest.mark.parametrize(("rule", "verdict"), [("ng.open", Verdict.NG), ("review.open", Verdict.REVIEW)])
def test_finding_is_boxed_where_it_lies(rule: str, verdict: Verdict) -> None:
    """The box of a reason's finding is drawn in the colour of its rule, at its place in the shrunken frame."""
    sheet = draw_sheet([Part(record(verdict, rule=rule), FRAME, FRAME)], columns=1)
    top, left, scale = 66 + 10, 10, 300 / 640
    side = sheet[top + int(250 * scale), left + int(100 * scale) - 1 : left + int(100 * scale) + 2]
    assert (side == COLOURS[verdict]).all(1).any()


def test_parts_stand_in_rows() -> None:
    """Parts fill rows from left to right; the last row is filled up with white."""
    part = Part(record(Verdict.OK), FRAME, FRAME)
    one, row, rows = (draw_sheet([part] * count, columns=3) for count in (1, 3, 4))
    assert one.shape == row.shape
    assert rows.shape[0] == 2 * row.shape[0]
    assert (one[:, one.shape[1] // 3 :] == 255).all()


def test_no_parts_make_an_empty_sheet() -> None:
    """A line that has not run yet gives a white picture."""
    sheet = draw_sheet([])
    assert sheet.dtype == np.uint8
    assert sheet.ndim == 3
    assert (sheet == 255).all()


@pytest.mark.parametrize("frame", [None, FRAME, np.zeros((30, 900, 3), np.uint8), np.zeros((1, 1), np.uint8)])
@pytest.mark.parametrize("golden", [None, FRAME])
def test_any_picture_or_none_is_drawn(frame: np.ndarray | None, golden: np.ndarray | None) -> None:
    """A missing frame leaves a place that says so; colour, flat and tiny frames fit into their place."""
    sheet = draw_sheet([Part(record(Verdict.NG), frame, golden)], columns=1)
    plain = draw_sheet([Part(record(Verdict.NG), FRAME, FRAME)], columns=1)
    assert plain.shape == sheet.shape


def test_odd_text_is_drawn() -> None:
    """Text beyond ASCII, or longer than the cell, does not fail."""
    text = "größer als erlaubt ☃ " * 30
    sheet = draw_sheet([Part(record(Verdict.ERROR, text=text), FRAME, None)], columns=1)
    assert shows(sheet, COLOURS[Verdict.ERROR], 10_000)


def test_drawing_leaves_the_frame_alone() -> None:
    """Evidence is not painted on."""
    frame = FRAME.copy()
    draw_sheet([Part(record(Verdict.NG), frame, frame)])
    assert np.array_equal(FRAME, frame)
