"""The register map: round trips, padding, limits, and agreement with the page for the PLC programmer."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspection.controllers import register_map as at
from inspection.controllers.register_map import Reject, Request, Result
from inspection.types import Detection, Judgement, Reason, Record, Region, Trigger, Verdict, error_judgement

PAGE = (Path(__file__).parents[2] / "deploy" / "register_map.md").read_text(encoding="utf-8")
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
u16, u32 = st.integers(0, 0xFFFF), st.integers(0, 0xFFFF_FFFF)


def printable(longest: int) -> st.SearchStrategy[str]:
    return st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=longest).map(lambda s: s.rstrip(" "))


requests = st.builds(
    Request,
    run=u32,
    sequence=st.integers(1, 0xFFFF_FFFF),
    serial=printable(32),
    lot=printable(16),
    recipe_id=printable(24),
)
results = st.builds(
    Result,
    run=u32,
    sequence=u32,
    verdict=st.sampled_from(Verdict),
    reason_code=st.integers(0, 255),
    findings=u16,
    class_counts=st.tuples(*[u16] * at.COUNTED_CLASSES),
    other_findings=u16,
    processing_ms=u32,
)


def detection(defect_class: str, x: float = 0.0) -> Detection:
    return Detection(defect_class, 0.9, Region((x, 0.0, x + 1.0, 1.0)))


def record(judgement: Judgement, took_ms: int = 40) -> Record:
    trigger = Trigger("00000001-0000000002", "S", "L", "r", AT, sequence=2)
    judged_at = AT + timedelta(milliseconds=took_ms)
    return Record(trigger, judgement, (), (), "", "", "st", (("total", float(took_ms)),), True, judged_at)


def ng(*found: Detection, rule_id: str = "ng.a") -> Record:
    return record(Judgement(Verdict.NG, (Reason(rule_id, "too many", found),)))


@given(requests)
def test_a_request_survives_the_registers(request_: Request) -> None:
    """What the PLC writes is what the station reads."""
    assert request_ == at.decode_request(at.encode_request(request_))


@given(results)
def test_a_result_survives_the_registers(result: Result) -> None:
    """What the station writes is what the PLC reads, in registers that hold 16 bits."""
    words = at.encode_result(result)
    assert all(0 <= word <= 0xFFFF for word in words)
    assert at.RESULT.stop - at.RESULT.start == len(words)
    assert result == at.decode_result(words)


@given(st.integers())
def test_a_number_that_does_not_fit_saturates(value: int) -> None:
    """A number beyond uint32 stands at the nearest end instead of wrapping round."""
    assert max(0, min(value, 0xFFFF_FFFF)) == at.decode_u32(at.encode_u32(value))


def test_a_number_has_its_high_word_first() -> None:
    """The word order is the documented one."""
    assert at.encode_u32(0x00012345) == [0x0001, 0x2345]


def test_a_text_has_its_first_character_in_the_high_byte() -> None:
    """The byte order is the documented one."""
    assert at.encode_text("ABC", 3) == [0x4142, 0x4300, 0]


def test_a_text_padded_with_spaces_reads_without_them() -> None:
    """Spaces at the end are padding, spaces within belong to the text."""
    assert at.decode_text([0x4120, 0x4220, 0x2020]) == "A B"


@pytest.mark.parametrize("text", ["é", "\n", "\x00", "ABCDE"])
def test_a_text_that_cannot_be_sent_is_refused(text: str) -> None:
    """Only printable ASCII that fits its registers can be written."""
    with pytest.raises(ValueError, match="printable ASCII of at most 4"):
        at.encode_text(text, 2)


@pytest.mark.parametrize("word", [0xFF41, 0x0041, 0x410A, 0x7F41])
@pytest.mark.parametrize("where", [at.SERIAL, at.LOT, at.RECIPE_ID])
def test_a_request_with_a_strange_byte_is_refused(where: slice, word: int) -> None:
    """A byte that is not printable ASCII, or text after a NUL, makes the request BAD_TEXT in each of the texts."""
    words = at.encode_request(Request(1, 2, "S", "L", "R"))
    words[where.start] = word
    assert at.decode_request(words) is Reject.BAD_TEXT


def test_sequence_zero_is_refused() -> None:
    """A cleared request block is no request."""
    assert at.decode_request([0] * at.PLC_BLOCK.stop) is Reject.BAD_SEQUENCE


def test_the_trigger_id_holds_run_and_sequence() -> None:
    """The identity of a request is made of the PLC's two numbers."""
    assert Request(0xAB, 17, "", "", "").trigger_id == "000000ab-0000000017"


def test_an_ok_part_has_no_reason_and_no_findings() -> None:
    """OK is reason 0 and 0 findings."""
    result = at.result_of(record(Judgement(Verdict.OK)), 1, ("a",))
    assert (
        result.verdict,
        result.reason_code,
        result.findings,
        result.class_counts,
        result.other_findings,
        result.processing_ms,
    ) == (Verdict.OK, 0, 0, (0,) * 8, 0, 40)


def test_findings_are_counted_per_class_in_recipe_order() -> None:
    """The count registers follow the recipe's classes; a finding named by two reasons counts once."""
    one, two, three = detection("b"), detection("b", 5.0), detection("a")
    reasons = (Reason("ng.b", "b", (one, two)), Reason("ng.any", "any", (one, two, three)))
    result = at.result_of(record(Judgement(Verdict.NG, reasons)), 1, ("a", "b", "c"))
    assert (result.findings, result.class_counts, result.other_findings) == (3, (1, 2, 0, 0, 0, 0, 0, 0), 0)


def test_findings_of_a_ninth_class_are_counted_together() -> None:
    """No finding is lost when a recipe has more classes than count registers."""
    classes = tuple("abcdefghij")
    result = at.result_of(ng(detection("h"), detection("i"), detection("j"), detection("alien")), 1, classes)
    assert (result.findings, result.class_counts, result.other_findings) == (4, (0,) * 7 + (1,), 3)


@pytest.mark.parametrize(
    ("rule_id", "code"),
    [
        ("ng.open", 1),
        ("station.deadline", 41),
        ("quality.new", 20),
        ("store.failed", 44),
        ("serial.mismatch", 48),
        ("recipe.unknown", 50),
        ("recipe.other", 43),
        ("max_open", 255),
    ],
)
def test_a_rule_has_its_own_code_or_that_of_its_family_or_255(rule_id: str, code: int) -> None:
    """Every reason has a number that the PLC programmer can look up."""
    assert code == at.result_of(record(error_judgement(rule_id, "text")), 1, ()).reason_code


def test_more_findings_than_a_register_holds_stand_at_its_end() -> None:
    """A count never wraps round to a small one."""
    result = Result(1, 2, Verdict.NG, 1, 70_000, (70_000, *[0] * 7), 0, 0)
    assert tuple(at.encode_result(result)[6:8]) == (0xFFFF, 0xFFFF)


def test_a_clock_set_back_gives_no_negative_time() -> None:
    """The processing time does not come from the clock that somebody sets."""
    made = replace(record(Judgement(Verdict.OK)), judged_at=AT - timedelta(hours=1))
    assert at.result_of(made, 1, ()).processing_ms == 40


def test_the_page_names_every_register_at_its_address() -> None:
    """The PLC programmer's tables and the code agree on name, address and 4xxxx number of every register."""
    rows = re.findall(r"^\| (\d+)(?:\.\.(\d+))? \| (4\d{4}) \| (\w+) \|", PAGE, re.MULTILINE)
    page = {name.upper(): (int(first), int(last or first), int(number)) for first, last, number, name in rows}
    blocks = {"PLC_BLOCK", "PREPARE_BLOCK", "STATION_BLOCK", "MORE_BLOCK", "RESULT"}
    code = {
        name: (where.start, where.stop - 1, 40001 + where.start)
        for name, where in vars(at).items()
        if isinstance(where, slice) and name not in blocks
    }
    assert code == page


def test_the_page_names_every_code() -> None:
    """Reason codes and reject codes on the page are those of the code."""
    rows = re.findall(r"^\| (\d+) \| ([A-Za-z][\w.]*) \|", PAGE, re.MULTILINE)
    listed = {name: int(code) for code, name in rows}
    assert {**at.REASON_CODES, **{code.name: code.value for code in Reject}} == listed


def test_reason_codes_are_distinct_and_fit() -> None:
    """Two families never share a number, and 0 and 255 keep their meaning."""
    codes = list(at.REASON_CODES.values())
    assert len(codes) == len(set(codes))
    assert all(0 < code < at.UNKNOWN_REASON for code in codes)
