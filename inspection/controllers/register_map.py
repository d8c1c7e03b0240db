"""The Modbus register map: which words stand where, and how they are written and read.  Pure functions, no network.

Addresses are 0-based holding registers of 16 bits.  A uint32 takes two registers, high word first.  A text takes two
ASCII characters a register, first character in the high byte, padded with NUL or spaces.  ``deploy/register_map.md``
is the same table for the PLC programmer; a test holds the two together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from inspection.types import Detection, Record, Verdict

PROTOCOL_VERSION = 1
U16_MAX = 0xFFFF
U32_MAX = 0xFFFF_FFFF

# Written by the PLC.  TRIGGER is the last register, so that one telegram can carry the whole request.
RUN = slice(0, 2)
SEQUENCE = slice(2, 4)
SERIAL = slice(4, 20)
LOT = slice(20, 28)
RECIPE_ID = slice(28, 40)
PLC_HEARTBEAT = slice(40, 41)
ACKNOWLEDGE = slice(41, 42)
TRIGGER = slice(42, 43)
PLC_BLOCK = slice(0, 43)

# Written by the PLC, behind the request and apart from it: a wish to have a recipe at hand.
PREPARE_RECIPE_ID = slice(43, 55)
PREPARE = slice(55, 56)
PREPARE_BLOCK = slice(43, 56)

# Written by the station.  VALID is the last register of the block that every line reads.
VERSION = slice(100, 101)
HEARTBEAT = slice(101, 102)
STATE = slice(102, 103)
TRIGGER_READY = slice(103, 104)
BUSY = slice(104, 105)
ALARMS = slice(105, 106)
LOST_ACKS = slice(106, 107)
REPEATS = slice(107, 108)
REJECTS = slice(108, 109)
REJECT_CODE = slice(109, 110)
REJECT_RUN = slice(110, 112)
REJECT_SEQUENCE = slice(112, 114)
ECHO_RUN = slice(114, 116)
ECHO_SEQUENCE = slice(116, 118)
VERDICT = slice(118, 119)
REASON_CODE = slice(119, 120)
FINDINGS = slice(120, 121)
CLASS_COUNTS = slice(121, 129)
OTHER_FINDINGS = slice(129, 130)
PROCESSING_MS = slice(130, 132)
VALID = slice(132, 133)
RESULT = slice(114, 132)
STATION_BLOCK = slice(100, 133)

# Written by the station, for lines that want to know more.
ACQUIRED = slice(133, 134)
RECIPE_IN_FORCE = slice(134, 146)
PREPARE_STATUS = slice(146, 147)
PREPARE_REASON = slice(147, 148)
TRIGGER_SEEN = slice(148, 149)
MORE_BLOCK = slice(133, 149)

COUNTED_CLASSES = 8
ALARM_PLC_SILENT = 1

UNKNOWN_REASON = 255
# A rule id that is not listed has the code of its family, the part before the first dot.
REASON_CODES = {
    "ng": 1,
    "review": 2,
    "judge": 3,
    "camera": 10,
    "camera.timeout": 11,
    "camera.corrupt": 12,
    "quality": 20,
    "quality.brightness": 21,
    "quality.contrast": 22,
    "quality.sharpness": 23,
    "golden": 30,
    "golden.registration": 31,
    "detector": 32,
    "station": 40,
    "station.deadline": 41,
    "station.restarted": 42,
    "recipe": 43,
    "store": 44,
    "trigger": 45,
    "serial": 46,
    "serial.unreadable": 47,
    "serial.mismatch": 48,
    "serial.repeated": 49,
    "recipe.unknown": 50,
    "recipe.refused": 51,
}


class Reject(IntEnum):
    """Why a request was refused; the value of the register ``reject_code``."""

    NONE = 0
    BUSY = 1
    NOT_READY = 2
    BAD_SEQUENCE = 3
    BAD_TEXT = 4
    REUSED = 5


class PrepareStatus(IntEnum):
    """How far the recipe is that the PLC wants at hand; the value of the register ``prepare_status``."""

    NONE = 0
    PREPARING = 1
    PREPARED = 2
    REFUSED = 3


@dataclass(frozen=True, slots=True)
class Request:
    """What the PLC asks: ``run`` is the PLC's own start-up number, ``sequence`` its number of the part (never 0)."""

    run: int
    sequence: int
    serial: str
    lot: str
    recipe_id: str

    @property
    def trigger_id(self) -> str:
        """The identity of the request: the same part presented again has the same one."""
        return f"{self.run:08x}-{self.sequence:010d}"


@dataclass(frozen=True, slots=True)
class Result:
    """What the PLC is told of one part.  Numbers that do not fit their registers stand at the largest value."""

    run: int
    sequence: int
    verdict: Verdict
    reason_code: int
    findings: int
    class_counts: tuple[int, ...]
    other_findings: int
    processing_ms: int


def encode_u32(value: int) -> list[int]:
    """Two words, high word first; a value beyond the range saturates."""
    fitted = max(0, min(value, U32_MAX))
    return [fitted >> 16, fitted & U16_MAX]


def decode_u32(words: Sequence[int]) -> int:
    """The number in two words, high word first."""
    high, low = words
    return high << 16 | low


def encode_text(text: str, registers: int) -> list[int]:
    """``text`` in so many registers, padded with NUL; ValueError when it is too long or not printable ASCII."""
    if len(text) > 2 * registers or not all(" " <= character <= "~" for character in text):
        raise ValueError(f"{text!r} is not printable ASCII of at most {2 * registers} characters")
    octets = text.encode("ascii").ljust(2 * registers, b"\0")
    return [high << 8 | low for high, low in zip(octets[::2], octets[1::2], strict=True)]


def decode_text(words: Sequence[int]) -> str:
    """The text without its padding; ValueError when a character is not printable ASCII."""
    octets = b"".join(word.to_bytes(2, "big") for word in words).rstrip(b"\0 ")
    if not all(0x20 <= octet <= 0x7E for octet in octets):
        raise ValueError(f"{octets!r} is not printable ASCII")
    return octets.decode("ascii")


def encode_request(request: Request) -> list[int]:
    """The words of ``PLC_BLOCK`` with trigger, acknowledge and heartbeat at 0."""
    words = [0] * PLC_BLOCK.stop
    words[RUN] = encode_u32(request.run)
    words[SEQUENCE] = encode_u32(request.sequence)
    for where, text in ((SERIAL, request.serial), (LOT, request.lot), (RECIPE_ID, request.recipe_id)):
        words[where] = encode_text(text, where.stop - where.start)
    return words


def decode_request(words: Sequence[int]) -> Request | Reject:
    """The request in a register image that begins at address 0, or why it is none."""
    sequence = decode_u32(words[SEQUENCE])
    if sequence == 0:
        return Reject.BAD_SEQUENCE
    try:
        serial, lot, recipe_id = (decode_text(words[where]) for where in (SERIAL, LOT, RECIPE_ID))
    except ValueError:
        return Reject.BAD_TEXT
    return Request(decode_u32(words[RUN]), sequence, serial, lot, recipe_id)


def reason_code(rule_id: str) -> int:
    """The number of a rule, or of its family, or UNKNOWN_REASON."""
    family, _, _ = rule_id.partition(".")
    return REASON_CODES.get(rule_id, REASON_CODES.get(family, UNKNOWN_REASON))


def asked_as(record: Record) -> str:
    """The trigger id that a record answers.  A trigger number used twice is recorded as ``<trigger id>#<own name>``."""
    return record.trigger.trigger_id.partition("#")[0]


def result_of(record: Record, run: int, classes: Sequence[str]) -> Result:
    """What the PLC is told of a record.

    Counted are the findings that the verdict rests on, each once, so an OK part has none.  ``classes`` gives the order
    of the count registers; findings of any further class are counted together.
    """
    found = [detection.defect_class for detection in _findings(record)]
    counted = tuple(classes[:COUNTED_CLASSES])
    counts = [found.count(name) for name in counted] + [0] * (COUNTED_CLASSES - len(counted))
    reasons = record.judgement.reasons
    return Result(
        run=run,
        sequence=record.trigger.sequence,
        verdict=record.judgement.verdict,
        reason_code=reason_code(reasons[0].rule_id) if reasons else 0,
        findings=len(found),
        class_counts=tuple(counts),
        other_findings=len(found) - sum(counts),
        processing_ms=round(record.total_ms),
    )


def _findings(record: Record) -> Iterator[Detection]:
    cited = (detection for reason in record.judgement.reasons for detection in reason.detections)
    return iter(dict.fromkeys(cited))


def encode_result(result: Result) -> list[int]:
    """The words of ``RESULT``."""
    counts = (result.findings, *result.class_counts, result.other_findings)
    return [
        *encode_u32(result.run),
        *encode_u32(result.sequence),
        int(result.verdict),
        result.reason_code,
        *(min(count, U16_MAX) for count in counts),
        *encode_u32(result.processing_ms),
    ]


def decode_result(words: Sequence[int]) -> Result:
    """The result in the words of ``RESULT``."""
    return Result(
        run=decode_u32(words[0:2]),
        sequence=decode_u32(words[2:4]),
        verdict=Verdict(words[4]),
        reason_code=words[5],
        findings=words[6],
        class_counts=tuple(words[7:15]),
        other_findings=words[15],
        processing_ms=decode_u32(words[16:18]),
    )
