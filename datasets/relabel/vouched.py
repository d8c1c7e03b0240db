"""``vouched.jsonl`` of a dataset: who looked at a sample and stood by its labels, or by its having none, as they were.

Such a save changes nothing and so makes no new version; without this file a part that a person found good could not be
told from one that nobody has looked at.
"""

import json
import os
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from datasets.relabel.history import read_history

VOUCHED = "vouched.jsonl"


class Word(BaseModel):
    """A person's word on one sample: its labels are right; ``revision`` names them (``LabelSet.revision``)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    at: str
    who: str
    why: str
    sample: str
    revision: str

    @property
    def when(self) -> datetime:
        """The time, with its zone."""
        return datetime.fromisoformat(self.at)


def read_words(folder: Path) -> list[Word]:
    """Every word given, oldest first; a damaged line is a word that was never confirmed, and does not count."""
    try:
        lines = (folder / VOUCHED).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    words = []
    for line in lines:
        try:
            words.append(Word.model_validate_json(line))
        except ValidationError:
            continue
    return words


def add_word(folder: Path, word: Word) -> None:
    """Put a word at the end, on the disk when this returns; OSError when the disk does not take it."""
    handle = os.open(folder / VOUCHED, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        size = os.fstat(handle).st_size
        torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"  # a killed program's last line
        os.write(handle, b"\n" * torn + json.dumps(word.model_dump(), ensure_ascii=False).encode() + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)


def vouched_names(folder: Path) -> frozenset[str]:
    """Names of the samples whose labels a person vouches for: those saved in the editor, changed or not."""
    saved = {change.sample for change in read_history(folder)} - {""}
    return frozenset(saved | {word.sample for word in read_words(folder)})
