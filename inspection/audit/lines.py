"""The file of checkpoints in itself: its lines in their order, their signatures, and a copy of it kept elsewhere."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from inspection.audit.findings import MOST_KEPT, Finding, Findings, LinesAudit, counted
from inspection.audit.links import SignedHead
from inspection.checkpoints import MOST_LINE, Checkpoint, Head, Place, places
from inspection.errors import StoreError

NAMES = ("records", "reviews", "evidence")
PIECE = 1 << 20
MOST_REMARKS = 20


@dataclass(slots=True)
class Lines:
    """A file of checkpoints that was looked through: what is said of it, and which lines are not to be believed."""

    path: Path
    size: int  # bytes that were there when it was looked through
    said: LinesAudit
    bad: frozenset[int]
    last_number: int


@dataclass(slots=True)
class _Reading:
    keys: Mapping[str, Ed25519PublicKey]
    signed_wanted: bool
    findings: Findings = field(default_factory=Findings)
    # By key that was not given: its first line, its last line, how many.
    strange: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    bad: set[int] = field(default_factory=set)
    names: dict[str, None] = field(default_factory=dict)
    lines: int = 0
    signed: int = 0
    unsigned: int = 0
    torn: int = 0
    first: Checkpoint | None = None
    last: Checkpoint | None = None

    def line(self, place: Place) -> None:
        self.lines = place.line
        if place.checkpoint is None:
            self.bad.add(place.line)
            self._torn(place)
            return
        self._order(place, place.checkpoint)
        self._signature(place.line, place.checkpoint)
        self.torn = 0
        self.first = self.first or place.checkpoint
        self.last = place.checkpoint

    def _torn(self, place: Place) -> None:
        self.torn = self.torn or place.line
        if not place.ended:
            self._remark(f"line {place.line}, the last, is not whole: it is being written, or a power cut tore it")

    def _order(self, place: Place, now: Checkpoint) -> None:
        number = 1 if self.last is None else self.last.number + 1
        if now.before != place.follows:
            if now.number > number:
                missing = f"{number}" if now.number == number + 1 else f"{number} to {now.number - 1}"
                what = f"the checkpoints with the numbers {missing} before it are missing"
            else:
                what = "it does not follow the line before: one of the two was changed, or lines were moved"
            if self.torn:
                what = f"it is none that was written; of line {place.line}, the next that is one: {what}"
            self._found(self.torn or place.line, now, what)
        elif now.number != number:
            self._found(place.line, now, f"its number is {now.number}, not {number}")
        elif self.torn:
            self._remark(
                f"line {self.torn} was torn by a power cut or a full disk; the next one vouches for what is left of it"
            )
        if self.last is None:
            return
        if now.at < self.last.at:
            self._remark(
                f"the clock went back between line {place.line - 1} ({self.last.at.isoformat()}) and the next "
                f"({now.at.isoformat()})"
            )
        for name in NAMES:
            was, is_ = getattr(self.last.heads, name)[0], getattr(now.heads, name)[0]
            if is_ < was:
                what = (
                    f"the chain of {name} has {is_} entries there and had {was} in the line before: the file was exchanged, "
                    "or put aside and made anew (then put the checkpoints aside with it)"
                )
                self._found(place.line, now, what)

    def _signature(self, line: int, now: Checkpoint) -> None:
        if not now.signature and not now.key:
            self.unsigned += 1
            if self.signed:
                self.bad.add(line)
                self._found(line, now, "it is not signed, though earlier ones are")
            return
        self.names[now.key] = None
        key = self.keys.get(now.key)
        if key is None:
            self.bad.add(line)
            first, _, count = self.strange.get(now.key, (line, line, 0))
            self.strange[now.key] = (first, line, count + 1)
            return
        try:
            key.verify(bytes.fromhex(now.signature), now.signed)
            self.signed += 1
        except (InvalidSignature, ValueError):
            self.bad.add(line)
            self._found(line, now, "its signature is not that of the key that it names: the line was changed")

    def _found(self, line: int, now: Checkpoint, what: str) -> None:
        self.findings.add(_of_line(line, now, f"checkpoint line {line}: {what}"))

    def _remark(self, text: str) -> None:
        if len(self.remarks) < MOST_REMARKS:
            self.remarks.append(text)

    def end(self, ended: bool) -> None:
        if self.torn and ended:
            text = f"checkpoint line {self.torn} is none that was written: it was changed"
            self.findings.add(Finding("checkpoint", text, line=self.torn, place=self.torn))
        if self.unverified:
            self.findings.add(Finding("unverified", self._none_verified(), line=1))
            return
        for key, (first, last, count) in self.strange.items():
            lines = f"line {first} is" if count == 1 else f"lines {first} to {last}: {count} are"
            text = (
                f"checkpoint {lines} signed with the key {key[:16]}, whose public key was not given (--public KEY.pub)"
            )
            self.findings.add(Finding("unverified", text, line=first, place=first), times=count)
        if self.signed_wanted and self.unsigned and not self.signed and self.last is not None:
            text = f"none of the {self.unsigned} checkpoints is signed, though a key is named: start the station with the key"
            self.findings.add(Finding("checkpoint", text, line=self.lines, place=self.lines))
        elif self.signed and self.unsigned and not self.findings.kept:
            self._remark(f"{counted(self.unsigned, 'checkpoints')} from before there was a key, not signed")

    @property
    def unverified(self) -> bool:
        """Whether there are signatures, and none is of a key that was given."""
        return bool(self.strange) and not self.signed

    def _none_verified(self) -> str:
        named = ", ".join(key[:16] for key in self.names)
        lines = counted(self.lines, "checkpoints")
        if not self.keys:
            return f"none of {lines} can be verified: they name the key {named}, and no public key was given (--public KEY.pub)"
        keys = ", ".join(key[:16] for key in self.keys)
        return f"none of {lines} is signed with the key given ({keys}); they name {named}: give its file with --public KEY.pub"


def _of_line(line: int, now: Checkpoint, text: str) -> Finding:
    return Finding("checkpoint", text, line=line, at=now.at.isoformat(), place=line)


def read_lines(path: Path, keys: Mapping[str, Ed25519PublicKey], *, signed_wanted: bool) -> Lines:
    """Look through a file of checkpoints; ``keys`` by fingerprint.  StoreError when it is there and cannot be read."""
    reading, size, ended = _Reading(keys, signed_wanted), 0, True
    try:
        with path.open("rb") as file:
            for place in places(file):
                reading.line(place)
                ended = place.ended
            size = file.tell()
    except FileNotFoundError:
        pass  # a station that has signed nothing yet: what that means is said where its rows are
    except OSError as error:
        raise StoreError(
            f"cannot read the checkpoints {path} ({error.strerror})", fix="run the audit as a user who may read them"
        ) from error
    reading.end(ended)
    first, last = reading.first, reading.last
    kept = sorted(reading.findings.kept[:MOST_KEPT], key=lambda finding: finding.place)
    said = LinesAudit(
        path=str(path), lines=reading.lines, signed=reading.signed, unsigned=reading.unsigned,
        first_at=first.at if first else None, last_at=last.at if last else None, keys=tuple(reading.names),
        findings=tuple(kept), counts=dict(reading.findings.counts), remarks=tuple(reading.remarks),
        unverified=reading.unverified,
    )  # fmt: skip
    return Lines(path, size, said, frozenset(reading.bad), last.number if last else 0)


def heads(lines: Lines, name: str, *, after: int = 0) -> Iterator[SignedHead]:
    """The ends of one chain by the lines that can be believed, ascending; of lines with a number above ``after``."""
    if not lines.size:
        return
    read, line, newest, begins = 0, 0, -1, True
    last: Head | None = None
    with lines.path.open("rb") as file:
        while read < lines.size and (text := file.readline(MOST_LINE)):
            read += len(text)
            line += begins
            begins = text.endswith(b"\n")
            if line in lines.bad:
                continue
            document = json.loads(text)
            sequence, link = head = tuple(document[name])
            if document["number"] <= after or sequence < newest or head == last:
                continue
            newest, last = sequence, head
            yield SignedHead(line, datetime.fromisoformat(document["at"]), sequence, link, bool(document["signature"]))


def heads_of_both(lines: Lines, copy: Lines | None, name: str) -> Iterator[SignedHead]:
    """The ends of one chain: those of the copy where there is one, then what was written since."""
    newest = -1
    older = () if copy is None else heads(copy, name)
    for head in chain(older, heads(lines, name, after=0 if copy is None else copy.last_number)):
        if head.sequence >= newest:
            newest = head.sequence
            yield head


def compare_copy(lines: Lines, copy: Lines) -> Finding | None:
    """None when the file goes on where the copy ends; else the first line that is not as the copy has it."""
    if not lines.size:
        text = f"the checkpoints {lines.path} are gone, and the copy has {copy.said.lines}"
        return Finding("checkpoint", text, line=1) if copy.size else None
    line, left = 1, copy.size
    with lines.path.open("rb") as file, copy.path.open("rb") as other:
        while left:
            piece = other.read(min(PIECE, left))
            found = file.read(len(piece))
            if not piece:
                break
            if piece != found:
                same = next((i for i, (a, b) in enumerate(zip(piece, found, strict=False)) if a != b), len(found))
                line += piece[:same].count(b"\n")
                how = "ends before" if same == len(found) else "is not that of"
                text = f"checkpoint line {line} {how} the copy {copy.path}: what lies there was rewritten since it was copied"
                if same == len(found):
                    text = f"the checkpoints end at line {line}, the copy {copy.path} has {copy.said.lines}: lines were cut off"
                return Finding("checkpoint", text, line=line, place=line)
            line += piece.count(b"\n")
            left -= len(piece)
    return None
