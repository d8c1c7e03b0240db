"""What a dataset should hold after a crash: its history is on the disk before dataset.json is, so it may be ahead."""

from collections.abc import Sequence
from pathlib import Path

from datasets.manifest_file import MANIFEST
from datasets.relabel.history import HISTORY, Change, LabelsError, read_history
from datasets.relabel.present import Present


def finished(folder: Path, present: Present) -> Present:
    """The state after the last save in the history, ``present`` itself where that is in dataset.json already.

    LabelsError when no saves lead from the one to the other: another program changed one of the files.
    """
    unwritten = list[Change]()
    last: Change | None = None
    for change in read_history(folder):
        last = last or change
        if change.version_after == present.version:
            break
        unwritten.append(change)
        if change.version_before == present.version:
            break
    state = present
    if last is None or _reaches(unwritten, present):
        for change in reversed(unwritten):
            state = state.after(change)
    if last is None or state.version == last.version_after:
        return state
    raise LabelsError(
        f"{folder / MANIFEST} is of version {present.version[:12]}, but the last save in its history made "
        f"{last.version_after[:12]} ({last.at:%Y-%m-%d %H:%M} UTC, by {last.who}): another program changed the file",
        fix=f"restore {MANIFEST} from a copy; or, to go on from the file as it is, put {HISTORY} aside",
    )


def _reaches(changes: Sequence[Change], present: Present) -> bool:
    """Whether changes, newest first, follow from the present state and name what it knows."""
    named = all(change.added_class or change.sample in present.samples for change in changes)
    return named and (not changes or changes[-1].version_before == present.version)
