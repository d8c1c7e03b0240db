"""What is wrong at the station, worst first."""

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspection.errors import StoreError
from inspection.hmi.alarms import LOSES, SOON, STANDS, Lately, alarms, situation
from inspection.station_link import (
    ControllerStatus,
    EvidenceStatus,
    PublisherState,
    RefusedRecipe,
    StationStatus,
)
from inspection.web.texts import LANGUAGES, words

AT = datetime(2026, 3, 1, tzinfo=UTC)
GOOD = StationStatus(
    station_id="s", state="READY", written_at=AT, pid=1, recipe_id="r", recipe_sha256="", recipe_folder="",
    recipe_signed_by="", holding="", recipes=("r",), cameras={"top": ""}, controller=ControllerStatus(kind="opcua"),
    publishers={"plant": PublisherState(connected=True, waiting=0)},
    evidence=EvidenceStatus(folder="", skipped=0, failed=0, last_error="", free_mb=9000.0), store_free_mb=9000.0,
    healthy=True, model="m", provider="cpu", threads=1, deadline_ms=2000,
)  # fmt: skip
UNENTERED = EvidenceStatus(folder="", skipped=0, failed=0, last_error="the disk is full", free_mb=9000.0, unentered=3)
EMPTY = EvidenceStatus(folder="", skipped=1, failed=0, last_error="", free_mb=150.0)
CASES: list[tuple[dict[str, Any], Lately, str, int]] = [
    ({"healthy": False, "state": "ERROR"}, Lately(), "unhealthy", STANDS),
    ({"cameras": {"top": "gone"}, "state": "ERROR"}, Lately(), "camera", STANDS),
    ({"holding": "bad lock", "state": "INITIALIZED"}, Lately(), "holding", STANDS),
    ({"controller": ControllerStatus(kind="opcua", fault="port taken")}, Lately(), "controller", STANDS),
    ({"state": "ERROR"}, Lately(), "error", STANDS),
    ({"state": "HALTED"}, Lately(), "halted", STANDS),
    ({}, Lately(errors=5, why="no frame"), "errors", LOSES),
    ({}, Lately(failed=2), "evidence_failed", LOSES),
    ({"evidence": UNENTERED}, Lately(), "evidence_unentered", SOON),
    ({"checkpoint_fault": "the disk is full"}, Lately(), "unsigned", SOON),
    ({"contradicted": "records.sqlite, entry 7"}, Lately(), "contradicted", LOSES),
    ({}, Lately(skipped=2), "evidence_skipped", LOSES),
    ({"store_free_mb": 100.0}, Lately(), "store_disk", LOSES),
    ({"store_free_mb": 900.0}, Lately(), "store_disk_low", SOON),
    ({"evidence": EMPTY}, Lately(min_free_mb=200), "evidence_disk", LOSES),
    ({"evidence": EMPTY}, Lately(min_free_mb=100), "evidence_disk_low", SOON),
    ({"publishers": {"plant": PublisherState(connected=False, waiting=3)}}, Lately(), "publisher", SOON),
    ({"publishers": {"plant": PublisherState(connected=True, waiting=5000)}}, Lately(), "publisher_slow", SOON),
    ({"refused": RefusedRecipe(recipe_id="x", text="why", at=AT)}, Lately(), "refused", SOON),
    ({}, Lately(to_review=500), "review", SOON),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "lately", "word", "level"), CASES)
def test_each_fault_has_its_alarm(changes: dict[str, Any], lately: Lately, word: str, level: int) -> None:
    """Each thing that can be wrong is one alarm, told with what to do in every language."""
    found = alarms(GOOD.model_copy(update=changes), stale=False, trouble=None, lately=lately)
    assert [(word, level)] == [(alarm.word, alarm.level) for alarm in found]
    for language in LANGUAGES:
        assert "{" not in found[0].what(language) + found[0].to_do(language)


def test_good_station_has_no_alarm() -> None:
    """Where nothing is wrong, nothing is said."""
    assert () == alarms(GOOD, stale=False, trouble=None, lately=Lately())


def test_station_that_is_silent_is_the_alarm() -> None:
    """Of a station that says nothing, what it said before is not repeated as if it were so; broken records stand beside it."""
    broken = GOOD.model_copy(update={"cameras": {"top": "gone"}})
    assert ["gone"] == [alarm.word for alarm in alarms(broken, stale=True, trouble=None, lately=Lately())]
    trouble = StoreError("{no} file", fix="{make} one")
    found = alarms(None, stale=False, trouble=trouble, lately=Lately())
    assert ["store", "never"] == [alarm.word for alarm in found]
    assert "{no} file" in found[0].what("en")


@pytest.mark.parametrize(
    ("free_mb", "said", "words"),
    [
        (0.2, "full", ["full"]),
        (150.0, "gone", ["gone", "store_disk"]),
        (5000.0, "gone", ["gone"]),
        (None, "gone", ["gone"]),
    ],
)
def test_a_silent_station_on_a_full_disk_is_told_from_one_that_does_not_run(
    free_mb: float | None, said: str, words: list[str]
) -> None:
    """What a full disk keeps the station from saying the pages measure: then space is asked for, not a start."""
    lately = Lately(store_free_mb=free_mb)
    assert words == [alarm.word for alarm in alarms(GOOD, stale=True, trouble=None, lately=lately)]
    assert said == situation(GOOD, stale=True, trouble=False, parts=True, full=lately.full)


@given(st.lists(st.sampled_from(CASES), max_size=16))
def test_worst_comes_first(chosen: list[tuple[dict[str, Any], Lately, str, int]]) -> None:
    """Whatever is wrong together, what stops the line is named before what loses something and what can wait."""
    status = GOOD
    for changes, _, _, _ in chosen:
        status = status.model_copy(update=changes)
    levels = [alarm.level for alarm in alarms(status, stale=False, trouble=None, lately=Lately(1, 1, 99, 200))]
    assert all(before >= after for before, after in pairwise(levels))


@given(
    st.sampled_from([None, *(GOOD.model_copy(update=case[0]) for case in CASES), GOOD]), st.booleans(), st.booleans()
)
def test_verdict_is_present_only_while_the_station_judges(
    status: StationStatus | None, stale: bool, trouble: bool
) -> None:
    """A verdict counts as the present one only when the records can be read and a station judges parts just now."""
    now = situation(status, stale=stale, trouble=trouble, parts=True)
    standing = status is not None and (status.state not in ("READY",) or not status.healthy or bool(status.holding))
    assert ("live" == now) == (status is not None and not stale and not trouble and not standing)


def test_no_alarm_is_without_its_remedy() -> None:
    """Every alarm says what to do."""
    for language in LANGUAGES:
        table = words(language, "alarms")
        own = {key for key in table if f"{key}_do" in table}
        assert {case[2] for case in CASES} | {"gone", "full", "never", "store"} == own
