from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.manifest import Dataset, Digest, Origin
from datasets.sample import LabelledBox, Sample, Split
from datasets.split import choose_folds, choose_holdout, joined_groups, split_by_group, with_look_alikes
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


def with_defects(dataset: Dataset, *names: str) -> Dataset:
    box = (LabelledBox("open", (0, 0, 9, 9)),)
    samples = tuple(replace(sample, labels=box if sample.name in names else ()) for sample in dataset.samples)
    return replace(dataset, samples=samples)


alike = st.lists(st.lists(st.integers(0, 59).map(str), min_size=2, max_size=3), max_size=3)


@settings(max_examples=60, deadline=None)
@given(divisible, alike, st.floats(0.01, 0.99), st.integers(0, 2**32))
def test_look_alikes_are_on_one_side(
    members: list[tuple[str, Split]], links: list[list[str]], fraction: float, seed: int
) -> None:
    """Neither a group nor a link is torn; where links join everything, the split is refused."""
    dataset = dataset_of(*members)
    if any(len(joint) == len(sides(dataset)) for joint in joined_groups(dataset, links)):
        with pytest.raises(UsageError, match="join all"):
            choose_holdout(dataset, fraction, seed=seed, alike=links)
        return
    divided = split_by_group(dataset, choose_holdout(dataset, fraction, seed=seed, alike=links))
    assert all(len(splits) == 1 for splits in sides(divided).values())
    split_of = {sample.name: sample.split for sample in divided.samples}
    assert all(len({split_of[name] for name in link if name in split_of}) < 2 for link in links)


@settings(max_examples=60, deadline=None)
@given(divisible, alike, st.integers(2, 4), st.integers(0, 2**32))
def test_every_group_is_held_out_in_one_fold(
    members: list[tuple[str, Split]], links: list[list[str]], folds: int, seed: int
) -> None:
    """Folds are a partition of the groups, none is empty, and look-alikes are in one fold."""
    dataset = dataset_of(*members)
    units = len(sides(dataset)) - sum(len(joint) - 1 for joint in joined_groups(dataset, links))
    if units < folds:
        with pytest.raises(UsageError):
            choose_folds(dataset, folds, seed=seed, alike=links)
        return
    chosen = choose_folds(dataset, folds, seed=seed, alike=links)
    assert sorted(group for fold in chosen for group in fold) == sorted({group for group, _ in members})
    assert all(chosen)
    fold_of = {group: number for number, fold in enumerate(chosen) for group in fold}
    group_of = {sample.name: sample.group for sample in dataset.samples}
    assert all(len({fold_of[group_of[name]] for name in link if name in group_of}) < 2 for link in links)
    assert chosen == choose_folds(dataset, folds, seed=seed, alike=links)


def test_share_of_defective_samples_is_kept() -> None:
    """Twenty groups of five, four of them defective: val gets its share of good and of defective ones."""
    dataset = dataset_of(*((str(i // 5), "") for i in range(100)))
    dataset = with_defects(dataset, *map(str, range(20)))
    for seed in range(5):
        divided = split_by_group(dataset, choose_holdout(dataset, 0.25, seed=seed))
        val = [sample for sample in divided.samples if sample.split == "val"]
        assert (len(val), sum(bool(sample.defect_classes) for sample in val)) == (25, 5)


def test_folds_have_equal_shares() -> None:
    """Forty groups of two, half of them defective, in four folds."""
    dataset = with_defects(dataset_of(*((str(i // 2), "") for i in range(80))), *map(str, range(40)))
    defective = {sample.group for sample in dataset.samples if sample.labels}
    folds = choose_folds(dataset, 4, seed=1)
    assert [len(fold) for fold in folds] == [10] * 4
    assert [len(defective & set(fold)) for fold in folds] == [5] * 4


@pytest.mark.parametrize("folds", [-1, 0, 1, 3])
def test_impossible_folds_are_refused(folds: int) -> None:
    """There must be two folds or more, and a unit for each."""
    dataset = dataset_of(("a", ""), ("b", ""), ("c", ""))
    with pytest.raises(UsageError, match="folds cannot be made of 2 groups"):
        choose_folds(dataset, folds, seed=0, alike=[["0", "2"]])


def test_held_out_group_pulls_its_look_alikes_along() -> None:
    """Links work through third groups; samples in "test" and unknown names join nothing."""
    dataset = dataset_of(("a", ""), ("b", ""), ("c", ""), ("d", ""), ("t", "test"), ("e", ""))
    links = [["0", "1"], ["2", "1"], ["3", "4"], ["4", "5"], ["9"]]
    assert joined_groups(dataset, links) == (("a", "b", "c"),)
    assert with_look_alikes(dataset, ["c"], links) == ("a", "b", "c")
    assert with_look_alikes(dataset, ["d", "x"], links) == ("d", "x")


def test_split_of_nothing_but_look_alikes_is_refused() -> None:
    """Groups that all look alike cannot be divided; the way out is named."""
    with pytest.raises(UsageError, match="join all 2 groups") as caught:
        choose_holdout(dataset_of(("a", ""), ("b", "")), 0.5, seed=0, alike=[["0", "1"]])
    assert "--groups-only" in caught.value.fix
