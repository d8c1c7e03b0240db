"""Labels that people drew in an earlier dataset of the same records, taken over into a newer one."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets.manifest import Dataset, load_dataset
from datasets.relabel.history import read_history
from datasets.sample import Sample
from inspection.errors import UsageError

RECORDS = "records.jsonl"


@dataclass(frozen=True, slots=True)
class TakenOver:
    """The dataset with earlier labels; names of the samples that have them, and of those that were reviewed otherwise since."""

    dataset: Dataset
    names: tuple[str, ...]
    reviewed_anew: tuple[str, ...]


def take_over(made: Dataset, rows: Sequence[dict[str, Any]], earlier: Path) -> TakenOver:
    """Give samples the labels that were saved for them in the dataset ``earlier``.

    ``rows`` are those of records.jsonl, in the order of the samples.  A sample counts as drawn before when its name, its
    picture and its disposition are those of a sample there that somebody saved; where the disposition is another one by
    now, the review counts.  UsageError when ``earlier`` is no dataset made from records.
    """
    before = load_dataset(earlier)
    edited = {change.sample for change in read_history(earlier)}
    drawn = {
        sample.name: (sample, digest.image)
        for sample, digest in zip(before.samples, before.digests, strict=True)
        if sample.name in edited
    }
    dispositions = _dispositions(earlier)
    samples, names, anew = list[Sample](), list[str](), list[str]()
    for sample, digest, row in zip(made.samples, made.digests, rows, strict=True):
        known, image = drawn.get(sample.name, (None, ""))
        if known is None or image != digest.image:
            samples.append(sample)
        elif dispositions.get(sample.name) != row["disposition"]:
            samples.append(sample)
            anew.append(sample.name)
        else:
            samples.append(replace(sample, labels=known.labels, image_class=known.image_class))
            names.append(sample.name)
            row["labels_from"] = f"drawn in {before.name}"
    classes = tuple(dict.fromkeys((*made.classes, *before.classes)))
    return TakenOver(replace(made, samples=tuple(samples), classes=classes), tuple(names), tuple(anew))


def _dispositions(folder: Path) -> dict[str, str]:
    """What reviewers had said of each sample, by name."""
    try:
        lines = (folder / RECORDS).read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        return {str(row["sample"]): str(row["disposition"]) for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise UsageError(
            f"{folder} is no dataset made from records: {problem}", fix="name one made by `lineside data from-records`"
        ) from None
