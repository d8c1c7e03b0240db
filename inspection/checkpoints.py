"""The file of checkpoints beside a record store: signed ends of the chains, one canonical JSON line each, append only.

Each line names the SHA-256 of the line before, so that none can be taken out.  A line that a power cut or a full disk
tore stays where it is; the next one begins on a line of its own and names the SHA-256 of the last whole line together
with what was torn behind it.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from inspection.chain import FIRST_LINK, head
from inspection.errors import StoreError
from inspection.reviews import reviews_path
from inspection.signing_keys import fingerprint_of, raw_public
from inspection.sqlite_file import Kind, named, read_only

FIRST_BEFORE = "0" * 64  # what the first line names as the line before
MOST_LINE = 8192  # bytes; no line of ours comes near
MOST_OLDEST = 100  # lines from the beginning among which the first with records is looked for
TAIL = 65536  # bytes from the end in which the last whole line is looked for first
BUSY_S = 2.0
CHAINED = Kind("chained file", no_space="free space on that disk", bad_text="use the lineside version that wrote it")
Head = tuple[int, str]  # sequence of an entry and its link, hexadecimal
NO_HEAD: Head = (0, FIRST_LINK.hex())


@dataclass(frozen=True, slots=True)
class Heads:
    """The newest entries of the three chains of a station; ``NO_HEAD`` where there is none yet."""

    records: Head = NO_HEAD
    reviews: Head = NO_HEAD
    evidence: Head = NO_HEAD


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One line.  ``signed`` are the bytes that ``signature`` (hexadecimal, empty without a key) was made over."""

    number: int
    at: datetime
    station_id: str
    heads: Heads
    before: str
    key: str
    signature: str
    signed: bytes


@dataclass(frozen=True, slots=True)
class Place:
    """A line of the file: its number from 1, what it says (None: torn or altered), what the next one names as ``before``.

    ``follows`` is what this line has to name as ``before``; ``ended`` is False for a last line without its end.
    """

    line: int
    checkpoint: Checkpoint | None
    follows: str
    names: str
    ended: bool


def checkpoints_path(store: Path) -> Path:
    """Where the checkpoints of a record store lie."""
    return store.with_name(store.name + ".checkpoints")


def chained_files(store: Path) -> dict[str, Path]:
    """The files that have a chain, by the names that ``Heads`` has for them."""
    return {"records": store, "reviews": reviews_path(store), "evidence": store.with_name(store.name + ".evidence")}


def heads_of(store: Path) -> Heads:
    """The newest entries of the chains now, read without holding up any writer; StoreError when a file cannot be read."""
    return Heads(**{name: _head(path) for name, path in chained_files(store).items()})


def _head(path: Path) -> Head:
    if not path.exists():
        return NO_HEAD
    with named(path, CHAINED), closing(read_only(path, busy_s=BUSY_S)) as database:
        if database.execute("SELECT 1 FROM sqlite_schema WHERE name = 'chain'").fetchone() is None:
            return NO_HEAD  # written by an earlier version, which has not been replaced everywhere
        sequence, link = head(database)
        return sequence, link.hex()


def link_at(path: Path, sequence: int) -> str:
    """The link of an entry, hexadecimal; empty when there is none."""
    try:
        with closing(read_only(path, busy_s=BUSY_S)) as database:
            row = database.execute("SELECT link FROM chain WHERE sequence = ?", (sequence,)).fetchone()
    except sqlite3.Error:
        return ""
    return "" if row is None else bytes(row[0]).hex()


class Checkpoints:
    """Appends to the file ``path``; lines are signed where there is a ``key``.  Used by one thread of one program."""

    def __init__(self, path: Path, station_id: str, key: Ed25519PrivateKey | None) -> None:
        self.path = path
        self._station_id = station_id
        self._key = key
        self._name = "" if key is None else fingerprint_of(raw_public(key.public_key()))

    def add(self, heads: Heads, at: datetime) -> None:
        """Append one line; it is on the disk when this returns.  StoreError when the disk does not take it."""
        self.add_many([(heads, at)])

    def add_many(self, rows: Iterable[tuple[Heads, datetime]]) -> None:
        """Append a line for each of ``rows``, all flushed to the disk at the end."""
        try:
            with self.path.open("a+b", buffering=0) as file:
                number, before, ended = _end_of(file)
                lines = [] if ended else [b""]
                for heads, at in rows:
                    number += 1
                    lines.append(self._line(number, heads, at, before))
                    before = sha256(lines[-1]).hexdigest()
                content = b"\n".join(lines) + b"\n"
                if file.write(content) != len(content):
                    raise OSError(28, "the disk took only a part of it")
                os.fsync(file.fileno())
        except OSError as error:
            raise StoreError(
                f"the checkpoint could not be written to {self.path} ({error.strerror or error})",
                fix="free space on that disk and check that the station may write there; it is tried again",
            ) from error

    def last(self) -> Checkpoint | None:
        """The last whole line; None before the first.  StoreError when the file cannot be read."""
        try:
            with self.path.open("rb", buffering=0) as file:
                return _last_whole(file)[0]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unreadable(error) from error

    def first(self) -> Checkpoint | None:
        """The first of the oldest ``MOST_OLDEST`` lines that names records; None without one.  StoreError as ``last``."""
        try:
            with self.path.open("rb", buffering=0) as file:
                oldest = (place.checkpoint for place in islice(places(file), MOST_OLDEST))
                return next((one for one in oldest if one is not None and one.heads.records != NO_HEAD), None)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> StoreError:
        return StoreError(f"cannot read {self.path} ({error.strerror})", fix="let the station's user read and write it")

    def _line(self, number: int, heads: Heads, at: datetime, before: str) -> bytes:
        document: dict[str, Any] = {
            "number": number, "at": at.isoformat(), "station_id": self._station_id, "before": before, "key": self._name,
            "records": list(heads.records), "reviews": list(heads.reviews), "evidence": list(heads.evidence),
        }  # fmt: skip
        signature = "" if self._key is None else self._key.sign(_canonical(document)).hex()
        return _canonical({**document, "signature": signature})


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode("utf-8", "replace")


def parse(line: bytes) -> Checkpoint | None:
    """What a line says; None when it is not, byte for byte, one that we would write."""
    try:
        document = json.loads(line)
        if _canonical(document) != line:
            return None
        signature = document.pop("signature")
        heads = {name: _as_head(document[name]) for name in ("records", "reviews", "evidence")}
        words = [document[name] for name in ("station_id", "before", "key")]
        at, number = datetime.fromisoformat(document["at"]), document["number"]
        if len(document) != 8 or type(number) is not int or not all(type(word) is str for word in (*words, signature)):
            return None
        if at.tzinfo is None:
            return None
        return Checkpoint(number, at, words[0], Heads(**heads), words[1], words[2], signature, _canonical(document))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _as_head(value: Any) -> Head:
    sequence, link = value
    if type(sequence) is not int or len(bytes.fromhex(link)) != len(FIRST_LINK):
        raise ValueError("this is not the end of a chain")
    return sequence, link


def places(file: BinaryIO) -> Iterator[Place]:
    """The lines of a file that is open for reading, from where it stands on; nothing of it is kept in memory."""
    follows, behind, number = FIRST_BEFORE, sha256(), 0
    while raw := file.readline(MOST_LINE):
        number += 1
        checkpoint = parse(raw.removesuffix(b"\n"))  # a whole line may lack no more than its end
        if checkpoint is not None or follows == FIRST_BEFORE:
            behind = sha256()
        else:
            behind.update(b"\n")
        behind.update(raw.removesuffix(b"\n"))
        while not raw.endswith(b"\n") and (more := file.readline(MOST_LINE)):  # too long to be one of ours
            raw = more
            behind.update(raw.removesuffix(b"\n"))
        yield Place(number, checkpoint, follows, behind.hexdigest(), raw.endswith(b"\n"))
        follows = behind.hexdigest()


def _end_of(file: BinaryIO) -> tuple[int, str, bool]:
    """Number of the last whole line, what the next one names as ``before``, and whether the file ends with a line's end."""
    last, names, ended = _last_whole(file)
    return (0 if last is None else last.number), names, ended


def _last_whole(file: BinaryIO) -> tuple[Checkpoint | None, str, bool]:
    size = file.seek(0, os.SEEK_END)
    for start in dict.fromkeys((max(0, size - TAIL), 0)):
        file.seek(start)
        if start:
            file.readline()  # the rest of a line that begins further up
        last, names, ended = None, FIRST_BEFORE, True
        for place in places(file):
            last, names, ended = place.checkpoint or last, place.names, place.ended
        if last is not None:
            break
    return last, names, ended
