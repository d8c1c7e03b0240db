"""Earlier versions of a dataset, told from its present one and its history.  Reads only, and needs no lock."""

from dataclasses import replace
from pathlib import Path

from datasets.manifest import Dataset, load_dataset
from datasets.relabel.history import Change, LabelsError, LabelSet, read_history
from inspection.errors import UsageError

_LEAST_DIGITS = 6
_LISTED = 8


def labels_at(folder: Path, version: str) -> Dataset:
    """The dataset as it was at a version (the first six or more of its hexadecimal digits are enough).

    UsageError listing the newest versions when the history knows none such; LabelsError when history and dataset do
    not belong together.
    """
    if len(version) < _LEAST_DIGITS:
        raise UsageError(f"{version!r} is too short for a version", fix=f"give {_LEAST_DIGITS} or more of its digits")
    present = load_dataset(folder)
    undone: dict[str, LabelSet] = {}
    classes, seen = list(present.classes), [present.version]
    for change in _from_present(folder, present):
        if seen[-1].startswith(version):
            break
        _undo(change, undone, classes)
        seen.append(change.version_before)
    if not seen[-1].startswith(version):
        listed = ", ".join(dict.fromkeys(known[:12] for known in seen[:_LISTED]))
        raise UsageError(f"{folder} never was of version {version}", fix=f"newest versions: {listed}")
    samples = tuple(
        replace(sample, labels=undone[sample.name].labels, image_class=undone[sample.name].image_class)
        if sample.name in undone
        else sample
        for sample in present.samples
    )
    past = replace(present, samples=samples, classes=tuple(classes))
    if past.version != seen[-1]:
        raise LabelsError(
            f"the history of {folder} does not lead back to version {seen[-1][:12]}",
            fix="restore dataset.json and history.jsonl from the same copy",
        )
    return past


def _from_present(folder: Path, present: Dataset) -> list[Change]:
    """The changes that lead to what dataset.json held when it was read, newest first; an editor may be at work."""
    changes = list(read_history(folder))
    known = [change.version_after for change in changes]
    if present.version in known:
        return changes[known.index(present.version) :]
    if changes and changes[-1].version_before != present.version:
        raise LabelsError(
            f"the history of {folder} does not lead to its version {present.version[:12]}: another program changed it",
            fix="restore dataset.json from a copy",
        )
    return []


def _undo(change: Change, undone: dict[str, LabelSet], classes: list[str]) -> None:
    if change.added_class in classes:
        classes.remove(change.added_class)
    elif not change.added_class:
        undone[change.sample] = change.before
