"""Looks for what spoils training or flatters a score: broken files, wrong boxes, copies on both sides of a split."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from datasets.look_alikes import Links, Rings, find_links, joined, rings_of
from datasets.manifest import Dataset
from datasets.sample import Sample
from inspection.errors import InspectionError
from inspection.images import Image, decode_image, read_bytes, to_grey

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
SMALLEST_BOX_PX = 2.0
_NAMED = 5  # samples a text names


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to look into.  ``kind`` is a fixed word for programs, ``text`` for people, ``samples`` their names."""

    severity: Severity
    kind: str
    text: str
    samples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CountRow:
    """Samples of one split or group, the good ones among them, and marks in the order of the dataset's classes: boxes,
    and images of a class as a whole that have no box of it."""

    key: str
    samples: int
    good: int
    boxes: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """What opening a sample's files showed; sizes are width, height; ``rings`` is what look-alikes are found by."""

    size: tuple[int, int] | None
    golden_size: tuple[int, int] | None
    rings: Rings | None
    faults: tuple[str, ...]


def check(dataset: Dataset) -> tuple[Finding, ...]:
    """Open every file of the dataset once and give all findings, errors first.

    Near duplicates are images that look alike: relit, rescaled, recompressed, slightly moved, turned, mirrored or
    stretched copies.  Goldens are not compared.
    """
    looks = _look_at_all(dataset)
    findings = [
        *_file_findings(dataset, looks),
        *_box_findings(dataset, looks),
        *_size_findings(dataset, looks),
        *_class_findings(dataset),
        *_duplicate_findings(dataset),
        *_group_findings(dataset),
        *_look_alike_findings(dataset, find_links([look.rings for look in looks])),
    ]
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))


def count_by_split(dataset: Dataset) -> tuple[CountRow, ...]:
    """Samples and boxes per split."""
    return _count(dataset, lambda sample: sample.split)


def count_by_group(dataset: Dataset) -> tuple[CountRow, ...]:
    """Samples and boxes per group."""
    return _count(dataset, lambda sample: sample.group)


def _count(dataset: Dataset, key: Callable[[Sample], str]) -> tuple[CountRow, ...]:
    members: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in dataset.samples:
        members[key(sample)].append(sample)
    rows = []
    for name, samples in sorted(members.items()):
        marks = Counter(name for sample in samples for name in _marks(sample))
        good = sum(not sample.defective for sample in samples)
        rows.append(CountRow(name, len(samples), good, tuple(marks[name] for name in dataset.classes)))
    return tuple(rows)


def _marks(sample: Sample) -> Iterator[str]:
    """The class of each box, and the class of the whole image where no box shows it."""
    boxed = [label.defect_class for label in sample.labels]
    yield from boxed
    if sample.image_class and sample.image_class not in boxed:
        yield sample.image_class


def _look_at_all(dataset: Dataset) -> list[_Look]:
    golden_size_of = cache(_measure)  # many frames may share one golden
    looks = []
    for sample, digest in zip(dataset.samples, dataset.digests, strict=True):
        image, fault = _open(sample.image, digest.image)
        faults = [fault] if fault else []
        golden_size = None
        if sample.golden:
            golden_size, fault = golden_size_of(sample.golden, digest.golden)
            faults += [fault] if fault else []
        rings = None if image is None else rings_of(image)
        looks.append(_Look(_size(image), golden_size, rings, tuple(faults)))
    return looks


def _open(path: Path, sha256: str) -> tuple[Image | None, str]:
    """The grey image, or None with what is wrong with the file."""
    try:
        content = read_bytes(path)
        image = to_grey(decode_image(content, str(path)))
    except InspectionError as problem:
        return None, problem.what
    changed = hashlib.sha256(content).hexdigest() != sha256
    return image, f"{path} has changed since the dataset was made" if changed else ""


def _measure(path: Path, sha256: str) -> tuple[tuple[int, int] | None, str]:
    image, fault = _open(path, sha256)
    return _size(image), fault


def _size(image: Image | None) -> tuple[int, int] | None:
    return None if image is None else (image.shape[1], image.shape[0])


def _file_findings(dataset: Dataset, looks: Sequence[_Look]) -> Iterator[Finding]:
    for sample, look in zip(dataset.samples, looks, strict=True):
        for fault in look.faults:
            yield Finding("error", "file", fault, (sample.name,))


def _box_findings(dataset: Dataset, looks: Sequence[_Look]) -> Iterator[Finding]:
    for sample, look in zip(dataset.samples, looks, strict=True):
        for label, count in Counter(sample.labels).items():
            x1, y1, x2, y2 = label.box_px
            name = f"sample {sample.name}: {label.defect_class} box {label.box_px}"
            if look.size and not label.inside(*look.size):
                text = f"{name} reaches outside the {look.size[0]}x{look.size[1]} image"
                yield Finding("error", "box-outside", text, (sample.name,))
            if min(x2 - x1, y2 - y1) < SMALLEST_BOX_PX:
                text = f"{name} is narrower than {SMALLEST_BOX_PX:g} px"
                yield Finding("warning", "box-tiny", text, (sample.name,))
            if count > 1:
                yield Finding("warning", "box-repeated", f"{name} is there {count} times", (sample.name,))


def _size_findings(dataset: Dataset, looks: Sequence[_Look]) -> Iterator[Finding]:
    sizes = Counter(look.size for look in looks if look.size)
    if len(sizes) > 1:
        listed = ", ".join(f"{width}x{height} ({count})" for (width, height), count in sizes.most_common(10))
        yield Finding("note", "image-sizes", f"images have {len(sizes)} sizes: {listed}")
    for sample, look in zip(dataset.samples, looks, strict=True):
        if look.size and look.golden_size and look.size != look.golden_size:
            (w, h), (golden_w, golden_h) = look.size, look.golden_size
            text = f"sample {sample.name}: frame is {w}x{h}, golden {golden_w}x{golden_h} px"
            yield Finding("warning", "golden-size", text, (sample.name,))


def _class_findings(dataset: Dataset) -> Iterator[Finding]:
    rows = [row for row in count_by_split(dataset) if row.key]
    for number, name in enumerate(dataset.classes):
        if not any(row.boxes[number] for row in count_by_split(dataset)):
            yield Finding("warning", "class-empty", f"class {name!r} is shown by no sample of the whole dataset")
            continue
        for row in rows:
            if not row.boxes[number]:
                text = f"class {name!r} is shown by no sample in split {row.key!r} ({row.samples} samples)"
                yield Finding("warning", "class-missing-in-split", text)


def _duplicate_findings(dataset: Dataset) -> Iterator[Finding]:
    copies: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample, digest in zip(dataset.samples, dataset.digests, strict=True):
        copies[digest.image].append(sample)
    for samples in copies.values():
        if len(samples) == 1:
            continue
        names = tuple(sample.name for sample in samples)
        listed = f"{len(names)} samples are the same image: {_shortened(names)}"
        if len({sample.split for sample in samples}) > 1:
            yield Finding("error", "duplicate-across-splits", f"{listed} (in {_splits_of(samples)})", names)
        if len({frozenset(sample.labels) for sample in samples}) > 1:
            yield Finding("error", "duplicate-labelled-differently", f"{listed}, with different labels", names)
        yield Finding("warning", "duplicate", listed, names)


def _group_findings(dataset: Dataset) -> Iterator[Finding]:
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for sample in dataset.samples:
        if sample.split:
            counts[sample.group][sample.split] += 1
    if not counts:
        text = "the dataset is not split; see 'lineside data split'"
        yield Finding("note", "not-split", text)
    for group, splits in sorted(counts.items()):
        if len(splits) > 1:
            listed = ", ".join(f"{count} in {split!r}" for split, count in sorted(splits.items()))
            text = f"group {group!r} is on both sides of a split ({listed}): scores will flatter"
            yield Finding("warning", "group-across-splits", text)


def _look_alike_findings(dataset: Dataset, links: Links) -> Iterator[Finding]:
    groups = joined(len(dataset.samples), links.pairs.tolist())
    weakest = _weakest(groups, links)
    for group, correlation in zip(groups, weakest, strict=True):
        if len({dataset.digests[i].image for i in group}) == 1:
            continue  # reported as exact duplicates
        samples = [dataset.samples[i] for i in group]
        names = tuple(sample.name for sample in samples)
        listed = f"{len(names)} samples look alike: {_shortened(names)}, correlation {correlation:.2f} and more"
        if len({sample.split for sample in samples if sample.split}) > 1:
            yield Finding("warning", "near-duplicate-across-splits", f"{listed} (in {_splits_of(samples)})", names)
        good = sum(not sample.defect_classes for sample in samples)
        if 0 < good < len(samples):
            text = f"{listed}: {good} without and {len(samples) - good} with a defect"
            yield Finding("warning", "near-duplicate-labelled-differently", text, names)
    if groups and not any(sample.split for sample in dataset.samples):
        yield _group_note(dataset, groups)


def _group_note(dataset: Dataset, groups: Sequence[Sequence[int]]) -> Finding:
    inside = sum(len(group) for group in groups)
    text = (
        f"{inside} of {len(dataset.samples)} samples fall into {len(groups)} group(s) of look-alikes (largest "
        f"{max(len(group) for group in groups)}): a split at random would put copies on both sides"
    )
    return Finding("note", "look-alikes", text)


def _weakest(groups: Sequence[Sequence[int]], links: Links) -> list[float]:
    """The lowest correlation among the links of each group."""
    number = {i: k for k, group in enumerate(groups) for i in group}
    weakest = [1.0] * len(groups)
    for first, correlation in zip(links.pairs[:, 0].tolist(), links.correlation.tolist(), strict=True):
        weakest[number[first]] = min(weakest[number[first]], correlation)
    return weakest


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + ", ..." * (len(names) > _NAMED)


def _splits_of(samples: Sequence[Sample]) -> str:
    return ", ".join(sorted(repr(split) for split in {sample.split for sample in samples}))
