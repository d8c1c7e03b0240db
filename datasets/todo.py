"""``todo.json`` beside ``dataset.json``: which samples are escapes, parts that a reviewer found defective after an OK.

Nobody has said where their defects are; until a person has drawn them, nothing may learn from these samples.  The file is
written once: that a sample is done shows in its labels, so that undoing them puts it back on the list.
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


def read_todo(folder: Path) -> frozenset[str]:
    """Names of the samples that are escapes; empty where the folder has no list.  UsageError for a damaged one."""
    file = folder / TODO
    try:
        return frozenset(_Todo.model_validate_json(file.read_bytes()).draw)
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValidationError) as problem:
        raise UsageError(
            f"cannot read {file}, the list of escapes whose defects must be drawn: {problem}",
            fix="restore the file; without it these parts would be learnt as good ones",
        ) from None


def write_todo(folder: Path, names: Iterable[str]) -> None:
    """Write the list, or nothing when it is empty; OSError when the disk does not take it."""
    draw = sorted(names)
    if draw:
        text = json.dumps({"schema_version": 1, "draw": draw}, ensure_ascii=False, indent=1) + "\n"
        write_whole(folder / TODO, text.encode())
