"""Divides a dataset by groups, so that a score on the other side tells what an unseen board or lot will bring.

Groups that hold look-alikes of one another (``datasets/look_alikes.py``) are one unit: they go to one side together.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from datasets.look_alikes import joined
from datasets.manifest import Dataset
from datasets.sample import Sample, Split
from inspection.errors import UsageError

_DRAWS = 32  # the draw that comes nearest to the wanted shares of all and of defective samples is taken
Alike = Sequence[Sequence[str]]  # names of the samples of each group of look-alikes


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
    return replace(dataset, samples=samples)


def _side(sample: Sample, groups: Counter[str], holdout: Sequence[str]) -> Split:
    if sample.group not in groups:
        return "test"
    return "val" if sample.group in holdout else "train"


def choose_holdout(dataset: Dataset, fraction: float, *, seed: int, alike: Alike = ()) -> tuple[str, ...]:
    """Groups that together hold about ``fraction`` of the samples, and of the defective ones, drawn at random.

    The same seed gives the same.  Groups with look-alikes (``alike``: names of samples) are drawn together.  At least
    one group is chosen and at least one is left.  UsageError as ``split_by_group``, or when look-alikes join all.
    """
    if not 0.0 < fraction < 1.0:
        raise UsageError(f"fraction {fraction:g} is not between 0 and 1", fix="give for example --fraction 0.2")
    units = _units(dataset, alike)
    counts, defective = _unit_counts(dataset, units)
    target, wanted = fraction * counts.total(), fraction * defective.total()
    rng = np.random.default_rng(seed)
    draws = [_draw(counts, target, rng) for _ in range(_DRAWS)]
    chosen = set(min(draws, key=lambda draw: _miss(draw, counts, target) + _miss(draw, defective, wanted)))
    return tuple(sorted(group for group, unit in units.items() if unit in chosen))


def choose_folds(dataset: Dataset, folds: int, *, seed: int, alike: Alike = ()) -> tuple[tuple[str, ...], ...]:
    """Groups to hold out in each fold: every group in one of them, look-alikes together, the folds about equal.

    Each fold gets about the same number of samples and of defective ones; the same seed gives the same.  UsageError
    when there are fewer units than folds, otherwise as ``choose_holdout``.
    """
    units = _units(dataset, alike)
    counts, defective = _unit_counts(dataset, units)
    if not 2 <= folds <= len(counts):
        what = f"{folds} folds cannot be made of {len(counts)} groups without common look-alikes"
        raise UsageError(what, fix=f"give --folds from 2 to {len(counts)}")
    order: list[str] = np.random.default_rng(seed).permutation(sorted(counts)).tolist()
    members: list[list[str]] = [[] for _ in range(folds)]
    held = np.zeros((folds, 2))  # samples without, with a defect
    whole = np.maximum([counts.total() - defective.total(), defective.total()], 1)
    for unit in sorted(order, key=lambda unit: -counts[unit]):
        kinds = np.array([counts[unit] - defective[unit], defective[unit]])
        load = (held / whole) @ kinds + held.sum(axis=1) / counts.total()
        fold = int(load.argmin())
        held[fold] += kinds
        members[fold].append(unit)
    place = {unit: number for number, fold in enumerate(members) for unit in fold}
    return tuple(tuple(sorted(g for g, unit in units.items() if place[unit] == number)) for number in range(folds))


def with_look_alikes(dataset: Dataset, holdout: Sequence[str], alike: Alike) -> tuple[str, ...]:
    """The groups of ``holdout``, sorted, and those that hold look-alikes of them; unknown groups stay as they are.

    UsageError as ``choose_holdout``.
    """
    units = _units(dataset, alike)
    taken = {units[group] for group in holdout if group in units}
    return tuple(sorted({*holdout, *(group for group, unit in units.items() if unit in taken)}))


def joined_groups(dataset: Dataset, alike: Alike) -> tuple[tuple[str, ...], ...]:
    """The groups that look-alikes join, outside "test": each time two and more names."""
    members: defaultdict[str, list[str]] = defaultdict(list)
    for group, unit in _join(_divisible_groups(dataset), dataset, alike).items():
        members[unit].append(group)
    return tuple(tuple(groups) for groups in members.values() if len(groups) > 1)


def with_joined_groups(dataset: Dataset, alike: Alike) -> Dataset:
    """The dataset with one group, named by the first, where look-alikes join several: what shows one photograph is not
    independent, and whoever counts groups must not count it twice.  Samples in "test" keep their groups."""
    units = _join(_divisible_groups(dataset), dataset, alike)
    samples = tuple(replace(sample, group=units.get(sample.group, sample.group)) for sample in dataset.samples)
    return replace(dataset, samples=samples)


def _units(dataset: Dataset, alike: Alike) -> dict[str, str]:
    """The unit of each group outside "test", named by its first group; UsageError when there is only one unit."""
    units = _join(_divisible_groups(dataset), dataset, alike)
    if len(set(units.values())) < 2:
        raise UsageError(
            f"look-alikes join all {len(units)} groups of dataset {dataset.name!r} into one",
            fix="add images of other parts; or, where the groups are known to be different parts, give --groups-only",
        )
    return units


def _join(groups: Counter[str], dataset: Dataset, alike: Alike) -> dict[str, str]:
    names = sorted(groups)
    place = {name: number for number, name in enumerate(names)}
    group_of = {sample.name: sample.group for sample in dataset.samples if sample.group in place}
    links = [[place[group_of[name]] for name in members if name in group_of] for members in alike]
    unit = {i: names[together[0]] for together in joined(len(names), filter(None, links)) for i in together}
    return {name: unit.get(number, name) for number, name in enumerate(names)}


def _unit_counts(dataset: Dataset, units: dict[str, str]) -> tuple[Counter[str], Counter[str]]:
    """Samples, and defective samples, per unit."""
    inside = [sample for sample in dataset.samples if sample.group in units]
    counts = Counter(units[sample.group] for sample in inside)
    return counts, Counter(units[sample.group] for sample in inside if sample.defect_classes)


def _miss(draw: Iterable[str], counts: Counter[str], target: float) -> float:
    return abs(sum(counts[unit] for unit in draw) - target)


def _draw(counts: Counter[str], target: float, rng: np.random.Generator) -> tuple[str, ...]:
    """Units in random order, each taken when it brings the number of samples nearer to the target."""
    order: list[str] = rng.permutation(sorted(counts)).tolist()
    chosen, held = [order[0]], counts[order[0]]
    for unit in order[1:-1]:
        if abs(held + counts[unit] - target) < abs(held - target):
            chosen.append(unit)
            held += counts[unit]
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
