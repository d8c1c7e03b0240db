"""The chain of a file in itself, and against the checkpoints: its links, its gaps, and what a signature vouches for."""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from inspection.audit.files import UNREADABLE
from inspection.audit.findings import MOST_KEPT, Finding, Findings, counted
from inspection.chain import BEGIN, FIRST_LINK, link_of


@dataclass(frozen=True, slots=True)
class SignedHead:
    """The end of one chain as a line of the checkpoints has it; ``signed`` is False where that line has no signature."""

    line: int
    at: datetime
    sequence: int
    link: str
    signed: bool


@dataclass(slots=True)
class ChainAudit:
    """What the chain says in itself.

    ``broken`` are entries whose link does not fit them, ``gaps`` the first and last of entries that are not there,
    ``proven`` the first and last of entries that a signed checkpoint vouches for, ``begins`` the content of the entries
    that say how many rows a table had before, ``ended`` why reading ended early ("" = it did not).
    """

    entries: int = 0
    last: int = 0
    broken: set[int] = field(default_factory=set)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    proven: list[tuple[int, int]] = field(default_factory=list)
    last_head: SignedHead | None = None
    begins: dict[str, bytes] = field(default_factory=dict)
    findings: Findings = field(default_factory=Findings)
    ended: str = ""


class _Walk:
    def __init__(self, heads: Iterator[SignedHead], kinds: frozenset[str]) -> None:
        self.said = ChainAudit()
        self._heads = heads
        self._kinds = kinds
        self._head = next(heads, None)
        self._link: bytes = FIRST_LINK
        self._other = FIRST_LINK  # what the link before should have been, where that one did not fit
        self._since = 1  # from here on each entry fits the one before
        self._vouched = 0  # the newest entry that a checkpoint has as it is
        self._broke = 0  # the first entry after that one which does not fit; 0 = all do
        self._differs = False
        self._begun = False

    def entry(self, sequence: int, kind: str, subject: str, digest: bytes, link: bytes) -> None:
        """The next entry as it lies in the file."""
        said = self.said
        said.entries += 1
        expected = said.last + 1
        fits = link
        if sequence > expected:
            self._gap(expected, sequence - 1)
        elif sequence < expected:
            self._break(sequence, kind, subject, f"entry {sequence} is none that a chain has")
            return
        else:
            fits = link_of(self._link, sequence, kind, subject, digest)
            if fits != link and link_of(self._other, sequence, kind, subject, digest) != link:
                self._break(
                    sequence,
                    kind,
                    subject,
                    f"chain entry {sequence} does not fit the one before it: {self._doubt(sequence)}",
                )
            elif kind not in self._kinds and kind != BEGIN:
                self._break(sequence, kind, subject, f"chain entry {sequence} is of the unknown kind {kind!r}")
            self._other = fits
        self._begins(sequence, kind, subject, digest)
        self._link = link
        said.last = sequence
        while self._head is not None and self._head.sequence <= sequence:
            self._compare(self._head, {link.hex(), fits.hex()} if self._head.sequence == sequence else set())
            self._head = next(self._heads, None)

    def _begins(self, sequence: int, kind: str, subject: str, digest: bytes) -> None:
        if kind != BEGIN:
            self._begun = True
        elif self._begun or subject in self.said.begins:
            self._break(
                sequence, kind, subject, f"chain entry {sequence} says that a chain begins, in the middle of one"
            )
        else:
            self.said.begins[subject] = digest

    def _break(self, sequence: int, kind: str, subject: str, what: str) -> None:
        finding = Finding("chain", what, entry=sequence, record_id=subject, table=kind, place=sequence)
        self.said.findings.add(finding)
        if len(self.said.broken) < MOST_KEPT:
            self.said.broken.add(sequence)
        self._since = sequence + 1
        self._broke = self._broke or sequence

    def _doubt(self, sequence: int) -> str:
        first = self._vouched + 1
        return "it was altered" if first == sequence else f"it or one of the entries from {first} on was altered"

    def _gap(self, first: int, last: int) -> None:
        text = f"chain entry {first} is missing" if first == last else f"chain entries {first} to {last} are missing"
        self.said.findings.add(Finding("chain", text, entry=first, place=first), times=last - first + 1)
        if len(self.said.gaps) < MOST_KEPT:
            self.said.gaps.append((first, last))
        self._broke = self._broke or first
        self._since = last + 2  # the entry behind a gap fits nothing that is there

    def _compare(self, head: SignedHead, links: set[str]) -> None:
        """Hold a checkpoint against the entry it names: its link, or what that should have been; none where it is gone."""
        if head.sequence == 0:
            return
        if head.link in links:
            self._vouched, self._broke = head.sequence, 0
            if head.signed:
                self._prove(head.sequence)
            self.said.last_head = head
            return
        if not self._differs and links:
            first = self._vouched + 1
            what = (
                f"entry {head.sequence} is not the one of checkpoint line {head.line} ({head.at.isoformat()}): "
                f"the chain was rewritten from one of the entries {first} to {head.sequence} on"
            )
            place = self._broke or first
            self.said.findings.add(Finding("rewritten", what, entry=place, line=head.line, place=place + 0.5))
        self._differs = self._differs or bool(links)

    def _prove(self, sequence: int) -> None:
        proven = self.said.proven
        if proven and self._since <= proven[-1][1] + 1:
            proven[-1] = (proven[-1][0], max(sequence, proven[-1][1]))
        elif self._since <= sequence and len(proven) < MOST_KEPT:
            proven.append((self._since, sequence))

    def end(self) -> ChainAudit:
        """What was found, after the last entry; checkpoints that name later entries are held against it."""
        said = self.said
        if said.ended:
            return said
        cut, newest = self._head, self._head
        while (head := next(self._heads, None)) is not None:
            newest = head
        if cut is not None and newest is not None and newest.sequence > said.last:
            first, gone = said.last + 1, newest.sequence - said.last
            what = (
                f"the chain ends with entry {said.last}, but checkpoint line {newest.line} ({newest.at.isoformat()}) has "
                f"entry {newest.sequence}: {counted(gone, 'entries')} {'was' if gone == 1 else 'were'} cut off its end, with "
                "the rows where these are gone too"
            )
            said.findings.add(Finding("cut", what, entry=first, line=cut.line, place=first), times=gone)
        return said


def follow(database: sqlite3.Connection, heads: Iterator[SignedHead], kinds: frozenset[str]) -> ChainAudit:
    """Verify each entry of the chain, and each checkpoint (``heads``, ascending) against it."""
    walk = _Walk(heads, kinds)
    try:
        rows = database.execute("SELECT sequence, kind, subject, content_sha256, link FROM chain ORDER BY sequence")
        for sequence, kind, subject, digest, link in rows:
            if type(kind) is str and type(subject) is str and type(digest) is bytes and type(link) is bytes:
                walk.entry(sequence, _whole(kind), _whole(subject), digest, link)
            else:
                walk.entry(sequence, "?", "", b"", b"")
    except UNREADABLE as error:
        walk.said.ended = str(error)
        what = f"reading the chain ended after entry {walk.said.last} ({error})"
        walk.said.findings.add(Finding("damaged", what, entry=walk.said.last + 1, place=walk.said.last + 1))
    return walk.end()


def _whole(text: str) -> str:
    """Text that can be hashed: bytes that are no UTF-8 become question marks, which fit no link."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
