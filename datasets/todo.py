"""``todo.json`` beside ``dataset.json``: which samples are escapes, parts that a reviewer found defective after an OK.

Nobody has said where their defects are; until a person has drawn them, nothing may learn from these samples.  The file is
written once: that a sample is done shows in its labels, so that undoing them puts it back on the list.

``unplaced`` are those of parts that several cameras look at: until it is drawn, nobody has said that the picture of this
camera shows the defect.  A list without it, as earlier versions wrote it, has none: all count as escapes of their camera.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from inspection.errors import UsageError
from inspection.images import write_whole

TODO = "todo.json"


class _Todo(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_version: int
    draw: list[str]
    unplaced: list[str] = []


def read_todo(folder: Path) -> tuple[frozenset[str], frozenset[str]]:
    """Names of the samples that are escapes, and of those that are unplaced; empty where the folder has no list.

    UsageError for a damaged one.
    """
    file = folder / TODO
    try:
        todo = _Todo.model_validate_json(file.read_bytes())
        return frozenset(todo.draw), frozenset(todo.unplaced)
    except FileNotFoundError:
        return frozenset(), frozenset()
    except (OSError, ValidationError) as problem:
        raise UsageError(
            f"cannot read {file}, the list of escapes whose defects must be drawn: {problem}",
            fix="restore the file; without it these parts would be learnt as good ones",
        ) from None


def write_todo(folder: Path, names: Iterable[str], unplaced: Iterable[str] = ()) -> None:
    """Write the list, or nothing when it is empty; OSError when the disk does not take it."""
    draw, maybe = sorted(names), sorted(unplaced)
    if draw:
        content = {"schema_version": 1, "draw": draw} | ({"unplaced": maybe} if maybe else {})
        text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
        write_whole(folder / TODO, text.encode())
