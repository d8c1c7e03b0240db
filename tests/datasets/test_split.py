from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.manifest import Dataset, Digest, Origin
from datasets.sample import Sample, Split
from datasets.split import choose_holdout, split_by_group
from inspection.errors import UsageError


def dataset_of(*members: tuple[str, Split]) -> Dataset:
    samples = tuple(
        Sample(Path(f"{i}.png"), None, (), group, split, str(i)) for i, (group, split) in enumerate(members)
    )
    return Dataset("boards", ("open",), samples, (Digest("0" * 64, ""),) * len(samples), Origin("test", ""))


def sides(dataset: Dataset) -> dict[str, set[str]]:
    return {
        group: {s.split for s in dataset.samples if s.group == group} for group in {s.group for s in dataset.samples}
    }


groups = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["", "train", "val"])), min_size=2, max_size=60)
divisible = groups.filter(lambda members: len({group for group, _ in members}) > 1)


@settings(max_examples=60, deadline=None)
@given(divisible, st.floats(0.01, 0.99), st.integers(0, 2**32))
def test_no_group_is_on_both_sides(members: list[tuple[str, Split]], fraction: float, seed: int) -> None:
    """Whatever the fraction and seed, both sides have samples and share no group, and no sample is lost."""
    dataset = dataset_of(*members)
    divided = split_by_group(dataset, choose_holdout(dataset, fraction, seed=seed))
    assert all(len(splits) == 1 for splits in sides(divided).values())
    assert {sample.split for sample in divided.samples} == {"train", "val"}
    assert [s.name for s in divided.samples] == [s.name for s in dataset.samples]


@settings(max_examples=30, deadline=None)
@given(divisible, st.floats(0.01, 0.99), st.integers(0, 2**32))
def test_same_seed_gives_the_same_version(members: list[tuple[str, Split]], fraction: float, seed: int) -> None:
    """The draw depends on nothing but groups, fraction and seed."""
    dataset, turned = dataset_of(*members), dataset_of(*members[::-1])
    assert choose_holdout(dataset, fraction, seed=seed) == choose_holdout(turned, fraction, seed=seed)


def test_named_groups_are_held_out() -> None:
    """The groups given are val, all others train, whatever the split was before."""
    divided = split_by_group(dataset_of(("a", "val"), ("b", ""), ("c", "train"), ("b", "train")), ["b"])
    assert sides(divided) == {"a": {"train"}, "b": {"val"}, "c": {"train"}}


def test_split_makes_a_new_version() -> None:
    """Another division of the same images is another version."""
    dataset = dataset_of(("a", ""), ("b", ""))
    assert len({dataset.version, split_by_group(dataset, ["a"]).version, split_by_group(dataset, ["b"]).version}) == 3


@pytest.mark.parametrize(("fraction", "held"), [(0.2, 20), (0.5, 50), (0.05, 10), (0.99, 90)])
def test_fraction_is_met_as_well_as_groups_allow(fraction: float, held: int) -> None:
    """Ten groups of ten give the nearest share with at least one group on either side."""
    dataset = dataset_of(*((str(i % 10), "") for i in range(100)))
    divided = split_by_group(dataset, choose_holdout(dataset, fraction, seed=3))
    assert sum(sample.split == "val" for sample in divided.samples) == held


def test_test_groups_stay() -> None:
    """Groups that are wholly test are neither trained on nor held out."""
    divided = split_by_group(dataset_of(("a", ""), ("b", ""), ("t", "test")), ["a"])
    assert sides(divided) == {"a": {"val"}, "b": {"train"}, "t": {"test"}}


@pytest.mark.parametrize(
    ("dataset", "holdout", "text"),
    [
        (dataset_of(("a", ""), ("a", "")), ["a"], r"1 group\(s\) outside 'test'"),
        (dataset_of(("a", ""), ("t", "test")), ["a"], r"1 group\(s\) outside 'test'"),
        (dataset_of(("a", ""), ("b", ""), ("a", "test")), ["b"], "partly in 'test': a"),
        (dataset_of(("a", ""), ("b", "")), ["x", "a"], "no such.*: x"),
        (dataset_of(("a", ""), ("b", ""), ("t", "test")), ["t"], "no such.*: t"),
        (dataset_of(("a", ""), ("b", "")), ["a", "b"], "none is left"),
        (dataset_of(("a", ""), ("b", "")), [], "no group"),
    ],
    ids=["one group", "one group beside test", "torn group", "unknown", "test group", "all", "none"],
)
def test_impossible_split_is_refused(dataset: Dataset, holdout: list[str], text: str) -> None:
    """A split that cannot be made says why and what to do."""
    with pytest.raises(UsageError, match=text) as caught:
        split_by_group(dataset, holdout)
    assert caught.value.fix


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.2, 20.0, float("nan")])
def test_fraction_outside_its_range_is_refused(fraction: float) -> None:
    """A share must lie between 0 and 1."""
    with pytest.raises(UsageError, match="between 0 and 1"):
        choose_holdout(dataset_of(("a", ""), ("b", "")), fraction, seed=0)


def test_drawing_from_one_group_is_refused() -> None:
    """A fraction of a single group cannot be held out."""
    with pytest.raises(UsageError, match="other boards"):
        choose_holdout(dataset_of(("a", "")), 0.5, seed=0)
