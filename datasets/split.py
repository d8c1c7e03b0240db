"""Divides a dataset by groups, so that a score on the other side tells what an unseen board or lot will bring."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from datasets.manifest import Dataset
from datasets.sample import Sample, Split
from inspection.errors import UsageError

_DRAWS = 32  # the draw that comes nearest to the wanted share is taken


def split_by_group(dataset: Dataset, holdout: Sequence[str]) -> Dataset:
    """The dataset with the samples of the ``holdout`` groups in "val" and all others in "train".

    Groups that lie wholly in "test" stay there.  UsageError when a group is unknown, when nothing would be left to
    train on, or when a group is partly in "test", because then no split by group is possible.
    """
    groups = _divisible_groups(dataset)
    unknown = sorted(set(holdout) - set(groups))
    if unknown or not holdout:
        what = f"no such group(s) to hold out: {', '.join(unknown)}" if unknown else "no group to hold out was given"
        raise UsageError(what, fix=f"choose from: {', '.join(sorted(groups))}")
    if len(set(holdout)) == len(groups):
        raise UsageError(f"all {len(groups)} groups are held out, none is left to train on", fix="hold out fewer")
    samples = tuple(replace(sample, split=_side(sample, groups, holdout)) for sample in dataset.samples)
    return Dataset(dataset.name, dataset.classes, samples, dataset.digests, dataset.origin)


def _side(sample: Sample, groups: Counter[str], holdout: Sequence[str]) -> Split:
    if sample.group not in groups:
        return "test"
    return "val" if sample.group in holdout else "train"


def choose_holdout(dataset: Dataset, fraction: float, *, seed: int) -> tuple[str, ...]:
    """Groups that together hold about ``fraction`` of the samples, drawn at random; the same seed gives the same.

    At least one group is chosen and at least one is left.  UsageError as ``split_by_group``.
    """
    if not 0.0 < fraction < 1.0:
        raise UsageError(f"fraction {fraction:g} is not between 0 and 1", fix="give for example --fraction 0.2")
    groups = _divisible_groups(dataset)
    target = fraction * groups.total()
    rng = np.random.default_rng(seed)
    draws = [_draw(groups, target, rng) for _ in range(_DRAWS)]
    return min(draws, key=lambda draw: abs(sum(groups[group] for group in draw) - target))


def _draw(groups: Counter[str], target: float, rng: np.random.Generator) -> tuple[str, ...]:
    """Groups in random order, each taken when it brings the number of samples nearer to the target."""
    order: list[str] = rng.permutation(sorted(groups)).tolist()
    chosen, held = [order[0]], groups[order[0]]
    for group in order[1:-1]:
        if abs(held + groups[group] - target) < abs(held - target):
            chosen.append(group)
            held += groups[group]
    return tuple(sorted(chosen))


def _divisible_groups(dataset: Dataset) -> Counter[str]:
    """Samples per group outside "test"; UsageError when they cannot be divided."""
    groups = Counter(sample.group for sample in dataset.samples if sample.split != "test")
    torn = sorted({sample.group for sample in dataset.samples if sample.split == "test"} & set(groups))
    if torn:
        raise UsageError(
            f"{len(torn)} group(s) lie partly in 'test': {', '.join(torn[:20])}",
            fix="import the data again without the file that names the test samples, then split by group",
        )
    if len(groups) < 2:
        raise UsageError(
            f"dataset {dataset.name!r} has {len(groups)} group(s) outside 'test': the same boards would be on both "
            "sides, and the score would say nothing about other boards",
            fix="add samples of another board, lot or part, and give each its own group",
        )
    return groups
