"""Finds samples that show one photograph: turned, mirrored, stretched, relit or recompressed copies of it.

Each picture is brought into a frame of its own first: centre, size and stretch come from where its edges lie, so copies
differ by a turn and a mirror only.  Rings around that centre are then read off, and of their Fourier spectrum along the
angle two pictures are compared in all turns at once.  All pairs are compared; there is no preselection to miss one.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.manifest import Dataset
from datasets.sample import load_grey
from inspection.images import Image

Rings: TypeAlias = NDArray[np.complex64]  # (32, 47): per ring the waves 1..47 along the angle
_Reals: TypeAlias = NDArray[np.float32]

# Measured on 3,000 photographs of castings, an offline augmentation (turned, mirrored, sheared, stretched) of some 130
# photographs of parts that all look alike: copies of one photograph correlate with 0.69 (median; 95 % of the pairs
# above 0.53), of the pairs of different parts 1 in 10,000 reaches 0.30.  Links of 0.4 to 0.5 join one part photographed
# twice.  Different boards reach 0.41 (real ones of different kinds), 0.18 (generated ones).  From 0.42 to 0.6 the
# castings make 128 to 137 groups, the large ones always the same.
LEAST_CORRELATION = 0.45
# A smooth picture has few waves, and few waves agree by chance.  The agreement must stand out by this many standard
# deviations of what chance gives; the best of 256 turns, over all pairs of 10,000 images, stays below 7.
_LEAST_EVIDENCE = 8.0
# Of 60 to 200 frames of one board that lies a little differently each time, 0 to 2 pairs are linked once the mean and
# eight ways of lying are taken off (mean alone: 30 to 940 pairs), and all mirrored or turned copies of a frame.
_ENOUGH_FOR_A_MEAN, _ENOUGH_FOR_WAYS, _WAYS = 50, 400, 8  # images, images, number
_SHARED = 0.1  # of the power of a picture, from which on it is one product from one place
_SIDE, _WINDOW = 160, 64  # px of the picture that is looked at, and of the window its frame is found in
_BLUR_PX = 3.0
_REACH, _ROUNDS = 2.0, 6  # of the window, in radii of the edges; rounds after which the frame stands still
_RINGS, _STEPS, _WAVES, _TURNS = 32, 256, 48, 128
_NEAREST, _FARTHEST = 0.2, 1.4  # innermost and outermost ring, in radii of the edges
_NOISE = 100.0  # of a wave's amplitude; an amplitude of one grey level is 128
_COARSE = 12.0  # waves longer than this count little: light and rings slightly off centre make them, not the part
_CHUNK = 64


@dataclass(frozen=True, slots=True, eq=False)
class Links:
    """Pairs of look-alikes: ``pairs`` (K, 2) positions, the lower first, and their ``correlation`` (K,)."""

    pairs: NDArray[np.intp]
    correlation: _Reals


@dataclass(frozen=True, slots=True)
class Leak:
    """Names of evaluated samples that are a training image, and of those that only look like one.

    ``trained`` counts the training images that were at hand; ``source`` says how they were told: by the digests of
    the model card, by the split "train", or not at all.
    """

    identical: tuple[str, ...]
    look_alike: tuple[str, ...]
    evaluated: int
    trained: int
    source: Literal["card", "split", "none"]

    def __bool__(self) -> bool:
        return bool(self.identical or self.look_alike)

    def statement(self) -> str:
        """What was found in one sentence."""
        if self.source == "none":
            return "no training image is part of this dataset: whether the evaluated images look like one is not known"
        whose = "the model card lists" if self.source == "card" else "the split 'train' holds"
        if not self:
            return f"none of {self.evaluated} evaluated images is or looks like one of the {self.trained} {whose}"
        return (
            f"of {self.evaluated} evaluated images {len(self.identical)} are and {len(self.look_alike)} look like one of "
            f"the {self.trained} training images {whose}: the score flatters"
        )


def look_alike_groups(dataset: Dataset) -> tuple[tuple[str, ...], ...]:
    """Names of the samples of each group of look-alikes, in the order of the dataset; goldens are not looked at.

    Samples linked by others are in one group, and so are files with the same bytes.  Every image is read once;
    UsageError when one cannot be read.
    """
    links = find_links([rings_of(load_grey(sample.image)) for sample in dataset.samples])
    copies: defaultdict[str, list[int]] = defaultdict(list)
    for number, digest in enumerate(dataset.digests):
        copies[digest.image].append(number)
    groups = joined(len(dataset.samples), [*links.pairs.tolist(), *copies.values()])
    return tuple(tuple(dataset.samples[i].name for i in group) for group in groups)


def leaks(dataset: Dataset, evaluated: Sequence[str], trained_sha256: Iterable[str]) -> Leak:
    """Which of the evaluated samples (names) are, or look like, an image the model was trained on.

    ``trained_sha256``: the digits of SHA-256 the model card lists, 12 of each.  When none of the dataset's images is
    among them, the split "train" counts as trained on, without the evaluated samples themselves.  UsageError when an
    image cannot be read, ValueError when a name is unknown.
    """
    names, digests = set(evaluated), [digest.image[:12] for digest in dataset.digests]
    unknown = names - {sample.name for sample in dataset.samples}
    if unknown:
        raise ValueError(f"no such sample(s): {', '.join(sorted(unknown)[:20])}")
    listed, source = set(trained_sha256) & set(digests), "card"
    if not listed:
        rows = zip(dataset.samples, digests, strict=True)
        listed, source = {d for s, d in rows if s.split == "train" and s.name not in names}, "split"
    if not listed:
        return Leak((), (), len(names), 0, "none")
    kept = [i for i, s in enumerate(dataset.samples) if s.name in names or digests[i] in listed]
    return _leak(dataset, kept, names, listed, "card" if source == "card" else "split")


def _leak(
    dataset: Dataset, kept: Sequence[int], names: set[str], listed: set[str], source: Literal["card", "split"]
) -> Leak:
    samples = [dataset.samples[i] for i in kept]
    seen = [dataset.digests[i].image[:12] in listed for i in kept]
    links = find_links([rings_of(load_grey(sample.image)) for sample in samples])
    near = {i for group in joined(len(kept), links.pairs.tolist()) if any(seen[i] for i in group) for i in group}
    identical = tuple(s.name for i, s in enumerate(samples) if seen[i] and s.name in names)
    look_alike = tuple(s.name for i, s in enumerate(samples) if i in near and not seen[i] and s.name in names)
    return Leak(identical, look_alike, len(names), len(listed), source)


def joined(count: int, links: Iterable[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """Of ``count`` things those that hang together by links, as groups of two and more in ascending order."""
    parent = list(range(count))

    def root(thing: int) -> int:
        while parent[thing] != thing:
            parent[thing] = parent[parent[thing]]
            thing = parent[thing]
        return thing

    for first, *others in links:
        for other in others:
            low, high = sorted((root(first), root(other)))
            parent[high] = low
    members: defaultdict[int, list[int]] = defaultdict(list)
    for thing in range(count):
        members[root(thing)].append(thing)
    return tuple(tuple(group) for group in members.values() if len(group) > 1)


def rings_of(image: Image) -> Rings:
    """What ``find_links`` compares of a grey ``(H, W)`` uint8 image, whatever its size."""
    picture = np.asarray(cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    centre, axes = _frame(picture)
    radius = np.linspace(_NEAREST, _FARTHEST, _RINGS)[:, None]
    angle = np.arange(_STEPS) * 2 * np.pi / _STEPS
    places = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1) @ axes.T + centre  # (32, 256, 2)
    x, y = cv2.split(places.astype(np.float32))
    grey = cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(np.fft.rfft(grey.astype(np.float64), axis=1)[:, 1:_WAVES], dtype=np.complex64)


def _frame(picture: Image) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centre (2,) and axes (2, 2) in px of the ellipse in which the edges of the picture lie.

    An affine map of the picture maps them along, but for a turn.
    """
    edges = _edges(picture)
    x, y = (side.ravel() for side in np.meshgrid(*[np.linspace(-1, 1, _WINDOW)] * 2))
    powers = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y])
    fade = np.clip(1 - x * x - y * y, 0, 1)
    middle = (_SIDE - 1) / 2
    centre, axes = np.full(2, middle), np.eye(2) * middle / _REACH
    for number in range(_ROUNDS):
        reach = axes * _REACH
        weights = _window(edges, centre, reach).ravel() * (fade if number else 1.0)
        total, *moments = powers @ weights
        if total <= 1e-3:
            return np.full(2, middle), np.eye(2) * middle / _REACH
        mean_x, mean_y, xx, xy, yy = np.array(moments) / total
        spread = np.array(
            [[xx - mean_x**2, xy - mean_x * mean_y], [xy - mean_x * mean_y, yy - mean_y**2]]
        )  # in windows
        centre = centre + reach @ [mean_x, mean_y]
        axes = _root(2 * reach @ spread @ reach.T)
    return centre, axes


def _edges(picture: Image) -> _Reals:
    smooth = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), _BLUR_PX)
    along, across = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8)
    return np.asarray(cv2.magnitude(along, across), dtype=np.float32)


def _window(edges: _Reals, centre: NDArray[np.float64], reach: NDArray[np.float64]) -> _Reals:
    """The edges seen through the ellipse ``centre``, ``reach``, as (64, 64); nothing outside the picture."""
    affine = np.hstack([reach * 2 / (_WINDOW - 1), (centre - reach @ np.ones(2))[:, None]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(edges, affine, (_WINDOW, _WINDOW), flags=flags), dtype=np.float32)


def _root(squares: NDArray[np.float64]) -> NDArray[np.float64]:
    """The symmetric root of a covariance, with sides between a sixteenth and three quarters of the picture."""
    values, vectors = np.linalg.eigh(squares)
    sides = np.clip(np.sqrt(np.maximum(values, 0)), _SIDE / 16, _SIDE * 0.75)
    return np.asarray((vectors * sides) @ vectors.T, dtype=np.float64)


def find_links(pictures: Sequence[Rings | None]) -> Links:
    """All pairs of look-alikes among the pictures (see ``rings_of``); None looks like nothing.

    Time grows with the square: 7,000 pictures take about a minute and 0.6 GB.
    """
    places = np.array([i for i, picture in enumerate(pictures) if picture is not None], np.intp)
    pairs, matches = [np.zeros((0, 2), np.intp)], [np.zeros(0, np.float32)]
    if len(places):
        unit, evidence = _normalised(np.stack([picture for picture in pictures if picture is not None]))
        for first, second, match in _close(unit, evidence):
            pairs.append(places[np.stack([first, second], axis=1)])
            matches.append(match)
    return Links(np.concatenate(pairs), np.concatenate(matches))


def _normalised(rings: Rings) -> tuple[Rings, _Reals]:
    """Whitened rings of unit length (N, 32, 47), all zero for a uniform picture, and how many waves (N,) carry them."""
    waves = np.arange(1, _WAVES, dtype=np.float32)
    white = rings / np.sqrt(np.abs(rings) ** 2 + _NOISE**2) * (waves**2 / (waves**2 + _COARSE**2))
    unit, _ = _of_unit_length(np.asarray(white, dtype=np.complex64))
    if len(unit) < _ENOUGH_FOR_A_MEAN:
        return unit, _independent(unit)
    unit, length = _of_unit_length(_without_shared(unit))
    return unit, _independent(unit) * length**2


def _of_unit_length(rings: Rings) -> tuple[Rings, _Reals]:
    length = np.sqrt((np.abs(rings) ** 2).sum(axis=(1, 2)))
    return rings / np.maximum(length, 1e-6)[:, None, None], length


def _independent(unit: Rings) -> _Reals:
    """How many independent numbers (N,) carry each picture: waves that have power, times rings that differ."""
    power = (np.abs(unit) ** 2).sum(axis=1)  # (N, 47)
    waves = power.sum(axis=1) ** 2 / np.maximum((power**2).sum(axis=1), 1e-12)
    likeness = np.abs(np.matmul(unit, unit.conj().transpose(0, 2, 1))) ** 2  # (N, 32, 32)
    rings = power.sum(axis=1) ** 2 / np.maximum(likeness.sum(axis=(1, 2)), 1e-12)
    return np.asarray(waves * rings, dtype=np.float32)


def _without_shared(unit: Rings) -> Rings:
    """The pictures without what all of them share, shorter by that; unchanged when they share little.

    Photographs of one product from one place share nearly everything.  Their mean goes, and with it the few ways in
    which they differ for being placed a little differently.
    """
    pattern = unit.mean(axis=0)
    if float(np.linalg.norm(pattern)) ** 2 < _SHARED:
        return unit
    flat = _as_reals(_turned_to(pattern / np.linalg.norm(pattern), unit))  # (N, 3008)
    mean = flat.mean(axis=0)
    mean /= np.linalg.norm(mean)
    flat -= (flat @ mean)[:, None] * mean
    some = flat[:: max(1, len(flat) // _ENOUGH_FOR_WAYS)]
    ways = np.linalg.svd(some, full_matrices=False)[2][:_WAYS]
    flat -= (flat @ ways.T) @ ways
    real, imaginary = np.split(flat, 2, axis=1)
    return np.asarray(real + 1j * imaginary, dtype=np.complex64).reshape(unit.shape)


def _as_reals(unit: Rings) -> _Reals:
    flat = unit.reshape(len(unit), -1)
    return np.concatenate([flat.real, flat.imag], axis=1)


def _turned_to(pattern: Rings, unit: Rings) -> Rings:
    """The pictures turned, and mirrored where that fits better, to lie on the pattern (32, 47) as well as they can."""
    plain, mirror = (_in_all_turns(unit, side[None])[:, 0] for side in (pattern, pattern.conj()))  # (N, 128) each
    mirrored = mirror.max(axis=1) > plain.max(axis=1)
    angle = np.where(mirrored[:, None], mirror, plain).argmax(axis=1) * 2 * np.pi / _TURNS
    turned = unit * np.exp(-1j * angle[:, None] * np.arange(1, _WAVES))[:, None, :]
    return np.asarray(np.where(mirrored[:, None, None], turned.conj(), turned), dtype=np.complex64)


def _in_all_turns(some: Rings, others: Rings) -> _Reals:
    """Correlation of each of some (A, 32, 47) with each of the others (B, 32, 47) in 128 turns: (A, B, 128)."""
    spectrum = np.zeros((len(some), len(others), _TURNS // 2 + 1), np.complex64)
    products = np.matmul(some.conj().transpose(2, 0, 1), others.transpose(2, 1, 0))  # (47, A, B)
    spectrum[:, :, 1:_WAVES] = products.transpose(1, 2, 0)
    return np.asarray(np.fft.irfft(spectrum, _TURNS, axis=2), dtype=np.float32) * np.float32(_TURNS / 2)


def _close(unit: Rings, carried: _Reals) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], _Reals]]:
    """First, second and correlation of the pairs above the threshold, chunk by chunk."""
    for start in range(0, len(unit), _CHUNK):
        some = unit[start : start + _CHUNK]
        for other in range(start, len(unit), 16 * _CHUNK):
            others = unit[other : other + 16 * _CHUNK]
            match = np.maximum(_in_all_turns(some, others).max(axis=2), _in_all_turns(some.conj(), others).max(axis=2))
            fewest = np.minimum(carried[start : start + _CHUNK, None], carried[None, other : other + 16 * _CHUNK])
            least = np.maximum(LEAST_CORRELATION, np.tanh(_LEAST_EVIDENCE / np.sqrt(2 * np.maximum(fewest, 1e-6))))
            first, second = np.nonzero(match >= least)
            later = first + start < second + other
            first, second = first[later], second[later]
            yield first + start, second + other, match[first, second]
