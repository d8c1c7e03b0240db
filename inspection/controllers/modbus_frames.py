"""Modbus TCP telegrams as bytes: what a client asks, what a server replies.  Pure functions, no network.

A telegram is a header of seven bytes (transaction, protocol 0, length of the rest, unit) and a PDU (function, body)::

    [ tid 2 ][ 0 2 ][ length 2 ][ unit 1 ][ function 1 ][ body 0..252 ]

Only holding registers are known: functions 3, 4 (read), 6, 16, 22 (write) and 23 (write, then read).
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

HEADER = struct.Struct(">HHHB")
LONGEST_PDU = 253
MOST_READ, MOST_WRITTEN, MOST_WRITTEN_WITH_READ = 125, 123, 121
READ, READ_INPUT, WRITE_ONE, WRITE, MASK, WRITE_AND_READ = 3, 4, 6, 16, 22, 23
_EXCEPTION = 0x80


class Code(IntEnum):
    """Exception codes of the Modbus application protocol that are used here."""

    ILLEGAL_FUNCTION = 1
    ILLEGAL_ADDRESS = 2
    ILLEGAL_VALUE = 3
    BUSY = 6
    NO_SUCH_UNIT = 11


class Refusal(Exception):
    """The telegram is answered with a Modbus exception."""

    def __init__(self, code: int) -> None:
        super().__init__(f"Modbus exception {code}")
        self.code = code


class BadTelegram(Exception):
    """The bytes are no Modbus TCP telegram: the connection cannot be trusted any more."""


@dataclass(frozen=True, slots=True)
class Access:
    """What one telegram wants: registers to write, then registers to read (a count of 0: none).

    ``mask`` (and, or) of function 22 is applied to the one register at ``write_at``.
    """

    function: int
    read_at: int = 0
    read_count: int = 0
    write_at: int = 0
    words: tuple[int, ...] = ()
    mask: tuple[int, int] | None = None

    @property
    def writes(self) -> bool:
        """Whether any register would change."""
        return bool(self.words) or self.mask is not None


def decode_header(octets: bytes) -> tuple[int, int, int]:
    """Transaction, unit and length of the PDU in a header of seven bytes; BadTelegram when it is none."""
    transaction, protocol, length, unit = HEADER.unpack(octets)
    if protocol != 0 or not 2 <= length <= LONGEST_PDU + 1:
        raise BadTelegram(f"protocol {protocol}, length {length}")
    return transaction, unit, length - 1


def encode_telegram(transaction: int, unit: int, pdu: bytes) -> bytes:
    """Header and PDU."""
    return HEADER.pack(transaction, 0, len(pdu) + 1, unit) + pdu


def decode_access(pdu: bytes) -> Access:
    """What the client asks; Refusal for an unknown function or a body that contradicts itself."""
    function, body = pdu[0], pdu[1:]
    decode = _BODIES.get(function)
    if decode is None:
        raise Refusal(Code.ILLEGAL_FUNCTION)
    try:
        return decode(function, body)
    except struct.error as error:
        raise Refusal(Code.ILLEGAL_VALUE) from error


def encode_reply(access: Access, words: Sequence[int]) -> bytes:
    """The PDU that confirms ``access``; ``words`` are the registers read."""
    if access.read_count:
        return struct.pack(f">BB{len(words)}H", access.function, 2 * len(words), *words)
    if access.mask is not None:
        return struct.pack(">BHHH", access.function, access.write_at, *access.mask)
    last = access.words[0] if access.function == WRITE_ONE else len(access.words)
    return struct.pack(">BHH", access.function, access.write_at, last)


def encode_refusal(function: int, code: int) -> bytes:
    """The PDU of a Modbus exception."""
    return bytes((function & ~_EXCEPTION | _EXCEPTION, code))


def encode_access(access: Access) -> bytes:
    """The PDU that asks for a read of function 3, or a write of function 16."""
    if access.words:
        count = len(access.words)
        return struct.pack(f">BHHB{count}H", WRITE, access.write_at, count, 2 * count, *access.words)
    return struct.pack(">BHH", READ, access.read_at, access.read_count)


def decode_reply(access: Access, pdu: bytes) -> list[int]:
    """The registers read; Refusal for an exception, BadTelegram for a reply to something else."""
    if len(pdu) == 2 and pdu[0] == access.function | _EXCEPTION:
        raise Refusal(pdu[1])
    words: list[int] = []
    if access.read_count and len(pdu) == 2 + 2 * access.read_count:
        words = list(struct.unpack(f">{access.read_count}H", pdu[2:]))
    if pdu != encode_reply(access, words):
        raise BadTelegram(f"reply {pdu[:8].hex()} to function {access.function}")
    return words


def _require(condition: bool) -> None:
    if not condition:
        raise Refusal(Code.ILLEGAL_VALUE)


def _read(function: int, body: bytes) -> Access:
    at, count = struct.unpack(">HH", body)
    _require(1 <= count <= MOST_READ)
    return Access(function, read_at=at, read_count=count)


def _write_one(function: int, body: bytes) -> Access:
    at, word = struct.unpack(">HH", body)
    return Access(function, write_at=at, words=(word,))


def _write(function: int, body: bytes) -> Access:
    at, count, octets = struct.unpack(">HHB", body[:5])
    _require(1 <= count <= MOST_WRITTEN and octets == 2 * count)
    return Access(function, write_at=at, words=struct.unpack(f">{count}H", body[5:]))


def _mask(function: int, body: bytes) -> Access:
    at, keep, put = struct.unpack(">HHH", body)
    return Access(function, write_at=at, mask=(keep, put))


def _write_and_read(function: int, body: bytes) -> Access:
    read_at, read_count, write_at, count, octets = struct.unpack(">HHHHB", body[:9])
    _require(1 <= read_count <= MOST_READ and 1 <= count <= MOST_WRITTEN_WITH_READ and octets == 2 * count)
    words = struct.unpack(f">{count}H", body[9:])
    return Access(function, read_at, read_count, write_at, words)


_BODIES = {
    READ: _read,
    READ_INPUT: _read,
    WRITE_ONE: _write_one,
    WRITE: _write,
    MASK: _mask,
    WRITE_AND_READ: _write_and_read,
}
