"""``history.jsonl`` of a dataset: one line for each save, appended and on the disk before the save counts.

A line holds the labels before and after, so that every earlier version of the dataset can be told from the present one.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from datasets.manifest_file import LabelRow, label_of, label_row
from datasets.sample import LabelledBox
from inspection.errors import InspectionError, UsageError

HISTORY = "history.jsonl"
_Version = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class LabelsError(InspectionError):
    """Labels could not be stored, or a dataset and its history do not belong together."""


@dataclass(frozen=True, slots=True)
class LabelSet:
    """What a person says of one image: labels in pixels of the image, and the class of the image as a whole or ""."""

    labels: tuple[LabelledBox, ...]
    image_class: str = ""
    revision: str = field(init=False)
    """16 hexadecimal digits that name this content; the order of the labels does not matter."""

    def __post_init__(self) -> None:
        rows = sorted(json.dumps(label_row(label).model_dump()) for label in self.labels)
        digest = hashlib.sha256(json.dumps([rows, self.image_class]).encode()).hexdigest()
        object.__setattr__(self, "revision", digest[:16])


@dataclass(frozen=True, slots=True)
class Change:
    """One save: ``sample`` had the labels ``before`` and has those ``after``.

    ``added_class`` is set, and ``sample`` empty, where the dataset got one more class.
    ``version_before`` and ``version_after`` are versions of the whole dataset.
    """

    at: datetime
    who: str
    why: str
    version_before: str
    version_after: str
    sample: str
    before: LabelSet
    after: LabelSet
    added_class: str = ""

    def to_line(self) -> bytes:
        """The change as one line of JSON."""
        row = _ChangeRow(
            schema=1,
            at=self.at.isoformat(),
            who=self.who,
            why=self.why,
            version_before=self.version_before,
            version_after=self.version_after,
            sample=self.sample,
            before=_set_row(self.before),
            after=_set_row(self.after),
            added_class=self.added_class,
        )
        return row.model_dump_json(by_alias=True, exclude_defaults=True).encode() + b"\n"


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _SetRow(_Row):
    labels: list[LabelRow] = []
    image_class: str = ""


class _ChangeRow(_Row):
    schema_: Literal[1] = Field(alias="schema")
    at: str
    who: str
    why: str
    version_before: _Version
    version_after: _Version
    sample: str = ""
    before: _SetRow = _SetRow()
    after: _SetRow = _SetRow()
    added_class: str = ""


def _set_row(given: LabelSet) -> _SetRow:
    return _SetRow(labels=[label_row(label) for label in given.labels], image_class=given.image_class)


def _change(line: bytes) -> Change:
    row = _ChangeRow.model_validate_json(line)
    before, after = (LabelSet(tuple(map(label_of, one.labels)), one.image_class) for one in (row.before, row.after))
    versions = (row.version_before, row.version_after)
    return Change(
        datetime.fromisoformat(row.at), row.who, row.why, *versions, row.sample, before, after, row.added_class
    )


def read_history(folder: Path) -> Iterator[Change]:
    """Every save of a dataset folder, newest first; none where it was never edited.

    A torn last line is a save that was never confirmed and does not count.  LabelsError for any other damage.
    """
    whole, _ = _whole_lines(folder)
    lines = whole.splitlines()
    for number in range(len(lines), 0, -1):
        yield _read(folder, lines[number - 1], number)


def _read(folder: Path, line: bytes, number: int) -> Change:
    try:
        return _change(line)
    except ValueError as problem:
        raise LabelsError(
            f"{folder / HISTORY}, line {number}, is damaged ({_short(problem)})",
            fix="restore the file from a copy; the labels in dataset.json are not touched by this",
        ) from None


def _short(problem: Exception) -> str:
    return str(problem).splitlines()[0][:200]


def _whole_lines(folder: Path) -> tuple[bytes, int]:
    """The complete lines, and how many bytes of a torn one follow: a power cut may also leave gaps within the last line."""
    try:
        content = (folder / HISTORY).read_bytes()
    except FileNotFoundError:
        return b"", 0
    except OSError as problem:
        raise UsageError(f"cannot read {folder / HISTORY}: {problem.strerror}", fix="check its permissions") from None
    end = content.rfind(b"\n") + 1
    last = content.rfind(b"\n", 0, max(0, end - 1)) + 1
    if end and not _is_change(content[last:end]):
        end = last
    return content[:end], len(content) - end


def _is_change(line: bytes) -> bool:
    try:
        _change(line)
    except ValueError:
        return False
    return True


class HistoryFile:
    """The history of one dataset, open for appending by the one process that edits it.

    OSError from any method when the disk does not take it; what was there before is then there still.
    """

    def __init__(self, folder: Path) -> None:
        whole, self.torn_bytes = _whole_lines(folder)
        self._file = os.open(folder / HISTORY, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._end = len(whole)
        self.sound = True
        """False when a change could neither be written nor taken back: then only a fresh start tells what counts."""

    def cut_torn(self) -> None:
        """Cut off the torn line that a crash left; the save it belonged to was never confirmed."""
        if self.torn_bytes:
            self._cut(self._end)
            self.torn_bytes = 0

    def append(self, change: Change) -> Callable[[], None]:
        """Put a change at the end, on the disk when this returns; gives what takes it back."""
        start, line = self._end, change.to_line()
        try:
            _write_all(self._file, line, start)
            os.fsync(self._file)
        except BaseException:
            self._cut(start)
            raise
        self._end = start + len(line)
        return lambda: self._cut(start)

    def _cut(self, end: int) -> None:
        self.sound = False
        os.ftruncate(self._file, end)
        os.fsync(self._file)
        self._end, self.sound = end, True

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _write_all(file: int, content: bytes, at: int) -> None:
    while content:
        written = os.pwrite(file, content, at)
        content, at = content[written:], at + written
