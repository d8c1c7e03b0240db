from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspection.types import (
    Detection,
    Frame,
    Judgement,
    Reason,
    Record,
    Region,
    Review,
    Trigger,
    Verdict,
    error_judgement,
    new_id,
    utc_now,
)

NOW = datetime(2026, 11, 23, 4, 5, 6, 789, tzinfo=UTC)
TEXT = st.text(max_size=20)
NAME = st.text(min_size=1, max_size=20)
MOMENT = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]))
SIDE = st.floats(-1e6, 1e6)


@st.composite
def regions(draw: st.DrawFn) -> Region:
    x1, y1 = draw(SIDE), draw(SIDE)
    width, height = draw(st.floats(0.01, 1e5)), draw(st.floats(0.01, 1e5))
    polygon = tuple(draw(st.lists(st.tuples(SIDE, SIDE), max_size=4)))
    return Region((x1, y1, x1 + width, y1 + height), polygon)


DETECTION = st.builds(
    Detection, NAME, st.floats(0, 1), regions(), TEXT, st.sampled_from(["model", "golden", "anomaly"])
)
REASON = st.builds(Reason, NAME, NAME, st.lists(DETECTION, max_size=2).map(tuple))
JUDGEMENT = st.just(Judgement(Verdict.OK)) | st.builds(
    Judgement,
    st.sampled_from([Verdict.ERROR, Verdict.NG, Verdict.REVIEW]),
    st.lists(REASON, min_size=1, max_size=2).map(tuple),
)
RECORD = st.builds(
    Record,
    trigger=st.builds(Trigger, NAME, TEXT, TEXT, TEXT, MOMENT, st.integers(0, 2**32)),
    judgement=JUDGEMENT,
    detections=st.lists(DETECTION, max_size=3).map(tuple),
    frame_ids=st.lists(TEXT, max_size=2).map(tuple),
    recipe_sha256=TEXT,
    model_sha256=TEXT,
    station_id=TEXT,
    stage_ms=st.dictionaries(TEXT, st.floats(0, 1e6), max_size=3).map(lambda stages: tuple(stages.items())),
    measured=st.dictionaries(TEXT, st.floats(-1e6, 1e6), max_size=3).map(lambda found: tuple(found.items())),
    judged_on=st.dictionaries(TEXT, TEXT, max_size=3).map(lambda found: tuple(found.items())),
    simulated=st.booleans(),
    judged_at=MOMENT,
    evidence=TEXT,
    record_id=NAME,
)


@given(RECORD)
def test_record_survives_json(record: Record) -> None:
    """A record comes back from its JSON unchanged, on one line."""
    text = record.to_json()
    assert record == Record.from_json(text)
    assert "\n" not in text


@given(RECORD)
def test_record_json_is_stable(record: Record) -> None:
    """Reading and writing again gives the same bytes, so that a record can be hashed."""
    assert record.to_json() == Record.from_json(record.to_json()).to_json()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"schema": 99}', "null"])
def test_text_that_is_no_record_is_refused(text: str) -> None:
    """Something else than a record raises instead of giving half a record."""
    with pytest.raises((ValueError, KeyError, TypeError)):
        Record.from_json(text)


def test_verdict_numbers_are_those_of_opc_40001() -> None:
    """A dead register reads 0, which is ERROR and never OK."""
    assert [("ERROR", 0), ("OK", 1), ("NG", 2), ("REVIEW", 3)] == [(v.name, int(v)) for v in Verdict]


@pytest.mark.parametrize("verdict", [Verdict.ERROR, Verdict.NG, Verdict.REVIEW])
def test_every_verdict_but_ok_needs_a_reason(verdict: Verdict) -> None:
    """A verdict without a reason cannot exist."""
    with pytest.raises(ValueError, match="needs a reason"):
        Judgement(verdict)


def test_ok_has_no_reason() -> None:
    """A reason beside OK would be a finding that nobody hears of."""
    with pytest.raises(ValueError, match="no reason"):
        Judgement(Verdict.OK, (Reason("rule", "text"),))


def test_error_judgement_carries_its_reason() -> None:
    """A failure becomes the verdict ERROR with one reason."""
    assert Judgement(Verdict.ERROR, (Reason("camera", "no frame"),)) == error_judgement("camera", "no frame")


@pytest.mark.parametrize(
    "box", [(0, 0, 0, 5), (0, 0, 5, 0), (5, 0, 1, 5), (0, 0, float("nan"), 5), (0, 0, float("inf"), 5)]
)
def test_region_without_area_is_refused(box: tuple[float, float, float, float]) -> None:
    """A box must be finite and have an area."""
    with pytest.raises(ValueError, match="box"):
        Region(box)


def test_region_area_is_half_open() -> None:
    """Width is x2 - x1."""
    assert Region((1.0, 2.0, 4.0, 4.0)).area_px == 6.0


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan")])
def test_score_outside_0_to_1_is_refused(score: float) -> None:
    """A score is a probability."""
    with pytest.raises(ValueError, match="score"):
        Detection("open", score, Region((0, 0, 1, 1)))


def test_detection_needs_a_class() -> None:
    """A finding without a class cannot be judged."""
    with pytest.raises(ValueError, match="defect_class"):
        Detection("", 0.5, Region((0, 0, 1, 1)))


@pytest.mark.parametrize(("rule_id", "text"), [("", "text"), ("rule", "")])
def test_reason_needs_rule_and_text(rule_id: str, text: str) -> None:
    """An operator must be told something."""
    with pytest.raises(ValueError, match="reason"):
        Reason(rule_id, text)


def test_time_without_zone_is_refused() -> None:
    """Local times cannot be compared between stations."""
    naive = datetime(2026, 1, 1)
    with pytest.raises(ValueError, match="time zone"):
        Trigger("t", "s", "l", "r", naive)
    with pytest.raises(ValueError, match="time zone"):
        Review("r", "confirmed", "ann", naive)
    with pytest.raises(ValueError, match="time zone"):
        Frame(np.zeros((2, 2), np.uint8), "top", naive, "f", simulated=True)


def test_trigger_needs_an_id() -> None:
    """Without an id two parts could share one answer."""
    with pytest.raises(ValueError, match="trigger_id"):
        Trigger("", "s", "l", "r", NOW)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((2, 2), np.float32),
        np.zeros((2, 2, 4), np.uint8),
        np.zeros((2, 2, 1), np.uint8),
        np.zeros((0, 2), np.uint8),
        np.zeros(4, np.uint8),
    ],
)
def test_frame_of_another_form_is_refused(image: np.ndarray) -> None:
    """A frame is (H, W) or (H, W, 3) uint8 and not empty."""
    with pytest.raises(ValueError, match="image"):
        Frame(image, "top", NOW, "f", simulated=True)


def test_frame_cannot_be_changed() -> None:
    """What was judged is what is stored as evidence."""
    frame = Frame(np.zeros((2, 2), np.uint8), "top", NOW, "f", simulated=True)
    with pytest.raises(ValueError, match="read-only"):
        frame.image[0, 0] = 1


def test_ids_and_times_are_fresh() -> None:
    """Ids differ, and the current time carries UTC."""
    assert new_id() != new_id()
    assert utc_now().tzinfo is UTC
