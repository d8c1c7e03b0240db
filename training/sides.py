"""Which samples a retraining learns from, chooses limits on, and is judged by; and that none is on two sides.

The holdout is frozen by whoever made it: a dataset of its own, or the samples marked test.  Only where nothing is marked
are groups drawn, and that is said.  Earlier escapes are a regression set beside it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.manifest import Dataset, changed_files, open_dataset
from datasets.sample import Sample
from datasets.split import choose_holdout
from inspection.errors import UsageError
from training.run import replace_samples

HELD_OUT, CALIBRATED_ON = 0.3, 0.2  # shares that are drawn where nothing is marked
FEWEST_TO_DRAW = 5  # groups to learn from below which none is taken away for choosing limits
_NAMED = 8
Samples = list[Sample]


@dataclass(frozen=True, slots=True)
class Escape:
    """An earlier escape: a defective part that was passed once; ``learnt`` when it is among the samples learnt from."""

    sample: Sample
    digest: str
    learnt: bool


@dataclass(frozen=True, slots=True)
class Sides:
    """``taught``, ``calibration`` (None: there are too few samples for one) and ``holdout`` share no group and no picture.

    ``notes``: how they were divided, in sentences.
    """

    taught: Dataset
    calibration: Dataset | None
    holdout: Dataset
    escapes: tuple[Escape, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Source:
    """What may be learnt from: the dataset without escapes that nobody has drawn, and which samples are escapes."""

    dataset: Dataset
    escapes: frozenset[str]
    seed: int

    def marked(self, *splits: str) -> Samples:
        """The samples with one of these splits."""
        return [sample for sample in self.dataset.samples if sample.split in splits]

    def only(self, samples: Sequence[Sample]) -> Dataset:
        """The dataset with these samples alone."""
        return replace_samples(self.dataset, samples)


def divide(path: Path, *, holdout: Path | None, escapes: Path | None, known: Iterable[str], seed: int) -> Sides:
    """The sides of a retraining with the dataset at ``path``.

    ``known``: first 12 digits of the SHA-256 of each picture that the model learnt from before; none when nobody knows.
    UsageError naming the samples when a side shares a group or a picture with the holdout, the files that are not those
    a dataset was made of, or when a side that is needed is empty.
    """
    dataset, held = _opened(path), None if holdout is None else _opened(holdout)
    _refuse_contradictions(dataset)
    source, notes, learnt_before = _Source(_drawn_alone(dataset), dataset.escapes, seed), [], set(known)
    learnable = source.marked("train", "")
    if held is not None:
        judged, beside, note = _given(source, _drawn_alone(held))
    else:
        judged, beside, learnable, note = _from_within(source, learnable)
    notes.append(note)
    calibration, learnable, note = _calibration_side(source, learnable, beside)
    listing = [dataset] if held is None else [dataset, held]
    notes += [note, *(_undrawn_note(one) for one in listing if one.to_draw)]
    if not learnt_before:
        notes.append(
            "The recipe's model names no picture that it learnt from: whether the holdout is new to it was not checked."
        )
    if not learnable:
        raise UsageError(
            f"no sample of {dataset.name} is left to learn from",
            fix="mark samples as train with `lineside data split`, and draw the defects of the escapes",
        )
    taught = source.only(learnable)
    refuse_leaks(taught, calibration, judged, learnt_before)
    return Sides(taught, calibration, judged, _escapes(listing, escapes, taught), tuple(notes))


def _opened(path: Path) -> Dataset:
    """The whole dataset; UsageError when any of its files is missing or not the one that it was made of."""
    dataset = open_dataset(path, whole=True)
    changed = [str(file) for file in changed_files(dataset)]
    if changed:
        raise UsageError(
            f"{len(changed)} files of dataset {dataset.name} are missing or not those it was made of: {named(changed)}",
            fix=f"restore these files (`lineside data version {path} --verify` lists all), or make the dataset anew",
        )
    return dataset


def _drawn_alone(dataset: Dataset) -> Dataset:
    """The dataset without the escapes that nobody has drawn: by their labels they would count as good parts."""
    undrawn = set(dataset.to_draw)
    return replace_samples(dataset, [sample for sample in dataset.samples if sample.name not in undrawn])


def _undrawn_note(dataset: Dataset) -> str:
    maybe = len(dataset.unplaced_yet)
    but = f", but for {maybe} of parts with several cameras, of which another may show the defect" if maybe else ""
    return (
        f"Nobody has drawn the defects of {len(dataset.to_draw)} escapes of {dataset.name} yet "
        f"({named(sorted(dataset.to_draw))}): they were neither learnt from nor held out, and are in the regression set{but}."
    )


def _given(source: _Source, holdout: Dataset) -> tuple[Dataset, Dataset | None, str]:
    """The holdout is a dataset of its own; what is marked val there, or else in the other dataset, is for the limits."""
    judged = [sample for sample in holdout.samples if sample.split != "val"]
    beside = [sample for sample in holdout.samples if sample.split == "val"]
    if not judged:
        raise UsageError(
            f"every sample of {holdout.name} is marked val or is an escape that nobody has drawn",
            fix="give a holdout with samples to judge by",
        )
    aside = len(source.marked("test"))
    note = f"The holdout is the dataset {holdout.name}" + (" without its samples marked val." if beside else ".")
    note += f" {aside} samples of {source.dataset.name} marked test were left aside." if aside else ""
    if beside:
        return replace_samples(holdout, judged), replace_samples(holdout, beside), note
    val = source.marked("val")
    return holdout, source.only(val) if val else None, note


def _from_within(source: _Source, learnable: Samples) -> tuple[Dataset, Dataset | None, Samples, str]:
    """The holdout is what is marked test; where nothing is, what is marked val; where nothing at all is, drawn groups."""
    name, test, val = source.dataset.name, source.marked("test"), source.marked("val")
    if test or val:
        note = f"The holdout is the {len(test or val)} samples of {name} marked {'test' if test else 'val'}."
        return source.only(test or val), source.only(val) if test and val else None, learnable, note
    drawn = _drawn(source, learnable, HELD_OUT, source.seed)
    judged = [sample for sample in learnable if sample.group in drawn]
    note = (
        f"Nothing in {name} is marked as holdout: {len(drawn)} of its groups were drawn (seed {source.seed}), none with an "
        "earlier escape. Freeze one with `lineside data split`, so that the next version is compared on the same parts."
    )
    return source.only(judged), None, [sample for sample in learnable if sample.group not in drawn], note


def _calibration_side(
    source: _Source, learnable: Samples, marked: Dataset | None
) -> tuple[Dataset | None, Samples, str]:
    """The samples to choose limits on: those marked for it, or drawn groups, or none where there are too few."""
    if marked is not None:
        note = f"Limits were chosen on the {len(marked.samples)} samples of {marked.name} marked val."
        return marked, learnable, note
    if len(_free(source, learnable)) < FEWEST_TO_DRAW:
        return None, learnable, "There are too few groups to take any away for choosing limits."
    drawn = _drawn(source, learnable, CALIBRATED_ON, source.seed + 1)
    side = [sample for sample in learnable if sample.group in drawn]
    note = (
        f"Limits were chosen on {len(side)} samples in {len(drawn)} groups of {source.dataset.name}, drawn for it (seed "
        f"{source.seed + 1}) and not learnt from."
    )
    return source.only(side), [sample for sample in learnable if sample.group not in drawn], note


def _free(source: _Source, learnable: Samples) -> set[str]:
    """Groups that may be drawn: those without an earlier escape, which is there to be learnt."""
    bound = {sample.group for sample in learnable if sample.name in source.escapes}
    return {sample.group for sample in learnable} - bound


def _drawn(source: _Source, learnable: Samples, fraction: float, seed: int) -> frozenset[str]:
    free = _free(source, learnable)
    if len(free) < 2:
        raise UsageError(
            f"{source.dataset.name} has too few groups to hold any out: champion and challenger could not be compared",
            fix="give --holdout DATASET, or add parts of other groups (serials, lots) and mark them with `lineside data split`",
        )
    return frozenset(choose_holdout(source.only([s for s in learnable if s.group in free]), fraction, seed=seed))


def refuse_leaks(taught: Dataset, calibration: Dataset | None, holdout: Dataset, known: set[str]) -> None:
    """UsageError naming the samples of the holdout that share a group or a picture with another side, or that the model
    learnt from before; and those for the limits that share one with what is learnt from."""
    _refuse_shared(holdout, taught, "learnt from")
    if calibration is not None:
        _refuse_shared(holdout, calibration, "used to choose limits")
        _refuse_shared(calibration, taught, "learnt from")
    _refuse(
        holdout, lambda _, digest: digest[:12] in known, "are pictures that the recipe's model was trained on before"
    )


def _refuse_contradictions(dataset: Dataset) -> None:
    """A picture that is good in one sample and defective in another teaches and proves nothing."""
    said: dict[str, set[bool]] = {}
    for sample, digest in zip(dataset.samples, dataset.digests, strict=True):
        said.setdefault(digest.image, set()).add(sample.defective)
    names = [s.name for s, d in zip(dataset.samples, dataset.digests, strict=True) if len(said[d.image]) > 1]
    if names:
        raise UsageError(
            f"{len(names)} samples of {dataset.name} are copies of one picture that is good in one and defective in another: "
            f"{named(names)}",
            fix="see `lineside data check`, and correct the labels with `lineside relabel` or review these parts again",
        )


def _refuse_shared(side: Dataset, other: Dataset, use: str) -> None:
    groups, pictures = {sample.group for sample in other.samples}, {digest.image for digest in other.digests}
    _refuse(side, lambda _, digest: digest in pictures, f"are the same pictures as samples that are {use}")
    _refuse(side, lambda sample, _: sample.group in groups, f"share a group with samples that are {use}")


def _refuse(side: Dataset, shared: Callable[[Sample, str], bool], how: str) -> None:
    names = [s.name for s, digest in zip(side.samples, side.digests, strict=True) if shared(s, digest.image)]
    if names:
        raise UsageError(
            f"{len(names)} samples of {side.name}, which must stay unseen, {how}: {named(names)}",
            fix="divide by group with `lineside data split`, or take these samples out: what was learnt from proves nothing",
        )


def named(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _escapes(listing: Sequence[Dataset], path: Path | None, taught: Dataset) -> tuple[Escape, ...]:
    """Every earlier escape once: those that the datasets list, and all of the dataset at ``path``.

    One that another camera may show is none of this camera until somebody has drawn it.
    """
    rows = [
        (s, d.image)
        for one in listing
        for s, d in zip(one.samples, one.digests, strict=True)
        if s.name in one.escapes and s.name not in one.unplaced_yet
    ]
    if path is not None:
        more = _opened(path)
        rows += [
            (s, d.image) for s, d in zip(more.samples, more.digests, strict=True) if s.name not in more.unplaced_yet
        ]
    learnt = {digest.image for digest in taught.digests}
    once = {digest: sample for sample, digest in reversed(rows)}  # the first that names it, for its labels
    return tuple(Escape(sample, digest, digest in learnt) for digest, sample in reversed(once.items()))
