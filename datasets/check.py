"""Looks for what spoils training or flatters a score: broken files, wrong boxes, copies on both sides of a split."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.manifest import Dataset
from datasets.sample import Sample
from inspection.errors import InspectionError
from inspection.images import Image, decode_image, read_bytes, to_grey

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
SMALLEST_BOX_PX = 2.0
# Measured on copies of board images that were relit, rescaled, noised, recompressed or moved by 2 px: at most 4 bits
# differ and the correlation stays above 0.93; different boards of one kind stay below 0.8.
MOST_HASH_BITS = 10
LEAST_CORRELATION = 0.9
_ENOUGH_FOR_A_MEAN = 50  # images from which on the average image says what all of them share
_CANDIDATES, _CHUNK = 16, 512


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to look into.  ``kind`` is a fixed word for programs, ``text`` for people, ``samples`` their names."""

    severity: Severity
    kind: str
    text: str
    samples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CountRow:
    """Samples and boxes of one split or group; ``boxes`` in the order of the dataset's classes."""

    key: str
    samples: int
    boxes: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """What opening a sample's files showed; sizes are width, height; ``thumbnail`` is grey (64, 64) uint8."""

    size: tuple[int, int] | None
    golden_size: tuple[int, int] | None
    thumbnail: Image | None
    faults: tuple[str, ...]


def check(dataset: Dataset) -> tuple[Finding, ...]:
    """Open every file of the dataset once and give all findings, errors first.

    Near duplicates are images that look alike on different sides of a split; relit, rescaled, recompressed or
    slightly moved copies are found, turned and mirrored ones are not.
    """
    looks = _look_at_all(dataset)
    findings = [
        *_file_findings(dataset, looks),
        *_box_findings(dataset, looks),
        *_size_findings(dataset, looks),
        *_class_findings(dataset),
        *_duplicate_findings(dataset),
        *_group_findings(dataset),
        *_near_duplicate_findings(dataset, [look.thumbnail for look in looks]),
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
        boxes = Counter(label.defect_class for sample in samples for label in sample.labels)
        rows.append(CountRow(name, len(samples), tuple(boxes[name] for name in dataset.classes)))
    return tuple(rows)


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
        thumbnail = None if image is None else _thumbnail(image, 64)
        looks.append(_Look(_size(image), golden_size, thumbnail, tuple(faults)))
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


def _thumbnail(image: Image, side: int) -> Image:
    return np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA), dtype=np.uint8)


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
            yield Finding("warning", "class-empty", f"class {name!r} has no box in the whole dataset")
            continue
        for row in rows:
            if not row.boxes[number]:
                text = f"class {name!r} has no box in split {row.key!r} ({row.samples} samples)"
                yield Finding("warning", "class-missing-in-split", text)


def _duplicate_findings(dataset: Dataset) -> Iterator[Finding]:
    copies: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample, digest in zip(dataset.samples, dataset.digests, strict=True):
        copies[digest.image].append(sample)
    for samples in copies.values():
        if len(samples) == 1:
            continue
        names = tuple(sample.name for sample in samples)
        listed = f"{len(names)} samples are the same image: {', '.join(names[:5])}" + ", ..." * (len(names) > 5)
        if len({sample.split for sample in samples}) > 1:
            splits = ", ".join(sorted(repr(split) for split in {sample.split for sample in samples}))
            yield Finding("error", "duplicate-across-splits", f"{listed} (in {splits})", names)
        if len({frozenset(sample.labels) for sample in samples}) > 1:
            yield Finding("error", "duplicate-labelled-differently", f"{listed}, with different labels", names)
        yield Finding("warning", "duplicate", listed, names)


def _group_findings(dataset: Dataset) -> Iterator[Finding]:
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for sample in dataset.samples:
        if sample.split:
            counts[sample.group][sample.split] += 1
    if not counts:
        text = "the dataset is not split: near duplicates were not looked for; see 'lineside data split'"
        yield Finding("note", "not-split", text)
    for group, splits in sorted(counts.items()):
        if len(splits) > 1:
            listed = ", ".join(f"{count} in {split!r}" for split, count in sorted(splits.items()))
            text = f"group {group!r} is on both sides of a split ({listed}): scores will flatter"
            yield Finding("warning", "group-across-splits", text)


def _near_duplicate_findings(dataset: Dataset, thumbnails: Sequence[Image | None]) -> Iterator[Finding]:
    shown = [(i, t) for i, t in enumerate(thumbnails) if t is not None and dataset.samples[i].split]
    if not shown:
        return
    seen, stack = [i for i, _ in shown], np.stack([thumbnail for _, thumbnail in shown])  # (N, 64, 64)
    splits = np.array([dataset.samples[i].split for i in seen])
    for first, second, correlation in _near_pairs(stack, splits):
        if dataset.digests[seen[first]].image == dataset.digests[seen[second]].image:
            continue  # reported as exact duplicate
        a, b = dataset.samples[seen[first]], dataset.samples[seen[second]]
        text = f"{a.name} ({a.split}) and {b.name} ({b.split}) look alike, correlation {correlation:.3f}"
        yield Finding("warning", "near-duplicate-across-splits", text, (a.name, b.name))


def _near_pairs(thumbnails: Image, splits: NDArray[np.str_]) -> Iterator[tuple[int, int, float]]:
    """Pairs of indices of look-alikes with different splits, with their correlation.

    ``thumbnails`` (N, 64, 64).  Of each image the 16 nearest by hash are confirmed by correlation.
    """
    signs = _perceptual_hashes(thumbnails)
    average = thumbnails.mean(axis=0) if len(thumbnails) >= _ENOUGH_FOR_A_MEAN else np.zeros((64, 64))
    pattern = (average - average.mean()).astype(np.float32).ravel()
    for one, other in combinations(np.unique(splits), 2):
        rows, columns = np.flatnonzero(splits == one), np.flatnonzero(splits == other)
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            first, second = _hash_candidates(signs, part, columns)
            match = _correlations(thumbnails, first, second, pattern)
            for k in np.flatnonzero(match >= LEAST_CORRELATION):
                yield int(first[k]), int(second[k]), float(match[k])


def _perceptual_hashes(thumbnails: Image) -> NDArray[np.float32]:
    """The 64-bit perceptual hash of each thumbnail as signs (N, 64): its low DCT frequencies against their median."""
    waves = np.stack([cv2.dct(_thumbnail(t, 32).astype(np.float32))[:8, :8].ravel() for t in thumbnails])
    return np.where(waves > np.median(waves, axis=1, keepdims=True), 1.0, -1.0).astype(np.float32)


def _hash_candidates(
    signs: NDArray[np.float32], rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Of each row the nearest columns within ``MOST_HASH_BITS``, as two index arrays of equal length."""
    distance = (64 - signs[rows] @ signs[columns].T) / 2  # (R, C): of two sign vectors the product counts agreement
    keep = min(_CANDIDATES, len(columns))
    nearest = np.argpartition(distance, keep - 1, axis=1)[:, :keep]
    row, place = np.nonzero(np.take_along_axis(distance, nearest, axis=1) <= MOST_HASH_BITS)
    return rows[row], columns[nearest[row, place]]


def _correlations(
    thumbnails: Image, first: NDArray[np.intp], second: NDArray[np.intp], pattern: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Correlation of each pair after what all images share is taken away; uniform images correlate with nothing."""
    result = np.zeros(len(first), np.float32)
    for start in range(0, len(first), _CHUNK):
        window = slice(start, start + _CHUNK)
        a, b = (_normalised(thumbnails[side[window]], pattern) for side in (first, second))
        result[window] = np.einsum("ij,ij->i", a, b)
    return result


def _normalised(thumbnails: Image, pattern: NDArray[np.float32]) -> NDArray[np.float32]:
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)  # (N, 4096)
    flat -= flat.mean(axis=1, keepdims=True)
    energy = float(pattern @ pattern)
    if energy > 0:
        flat -= (flat @ pattern / energy)[:, None] * pattern
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(np.divide(flat, length, out=np.zeros_like(flat), where=length > 64), dtype=np.float32)
