"""What a picture looks like, in few numbers: enough to say which pictures are of one thing, and which are copies."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.look_alikes import Rings, find_links, rings_of
from datasets.sample import Sample, load_grey
from inspection.errors import UsageError
from inspection.images import Image
from inspection.log import event

Reals: TypeAlias = NDArray[np.float32]

_SIDE = 128  # px of the picture that is looked at
_TONES, _CELLS, _TURNS, _PLACES = 16, 4, 8, 16  # grey levels; cells a side and directions in each; places a side
_DARKEST_CHANGE = 24  # grey levels by which a pixel must differ from the golden to count as changed
# Frames of one artwork with other defects reach 0.62 (99 look-alike pairs of DeepPCB), any two of its frames 0.66.
_SAME_CHANGES = 0.8
# Below this many pictures, what all pictures of one product share cannot be told from a copy (see look_alikes).
_ENOUGH, _NEARLY_EQUAL = 50, 0.95


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """``features`` (208,) of unit length at most; two pictures lie 0 (equal) to 1 apart.

    They are the shares of grey levels (16), of edge directions in 4 x 4 cells (128) and, coarsely, of where the picture
    differs from its golden (8 x 8).  ``changes`` (16, 16) is the last of them finer, of unit length; None without a
    golden.  ``rings`` tell copies (see ``look_alikes``).
    """

    features: Reals
    changes: Reals | None
    rings: Rings


def look_at(sample: Sample) -> Look:
    """Read a sample's image, and its golden where it has one; UsageError when one cannot be read."""
    image = load_grey(sample.image)
    picture = _small(image)
    changes = None if sample.golden is None else _changes(picture, _small(load_grey(sample.golden)))
    coarse = np.zeros(64, np.float32) if changes is None else _pooled(changes**2, 8)
    blocks = [_tones(picture), _directions(picture), np.sqrt(coarse)]
    features = np.concatenate([block.ravel() for block in blocks]) / np.sqrt(2 * len(blocks))
    return Look(features.astype(np.float32), changes, rings_of(image))


def looks_of(samples: Iterable[Sample]) -> dict[str, Look]:
    """The look of each sample by its name.  An image that cannot be read is named in the log and has none."""
    looks: dict[str, Look] = {}
    for sample in samples:
        try:
            looks[sample.name] = look_at(sample)
        except UsageError as problem:
            event("relabel.image_unreadable", level=logging.WARNING, sample=sample.name, what=problem.what)
    return looks


def copies(names: Sequence[str], looks: Mapping[str, Look]) -> list[tuple[str, str]]:
    """Pairs of names whose pictures are copies: look-alikes that also differ from their goldens in the same places.

    Frames of one product are look-alikes whatever is wrong with each; only what differs from the golden tells them
    apart.  Without goldens the picture alone speaks; of fewer than 50 pictures only the nearly equal ones are copies.
    """
    seen = [name for name in names if name in looks]
    links = find_links([looks[name].rings for name in seen])
    found = []
    for (first, second), correlation in zip(links.pairs.tolist(), links.correlation.tolist(), strict=True):
        one, other = looks[seen[first]], looks[seen[second]]
        if one.changes is not None and other.changes is not None:
            same = _same_changes(one.changes, other.changes)
        else:
            same = len(seen) >= _ENOUGH or correlation >= _NEARLY_EQUAL
        if same:
            found.append((seen[first], seen[second]))
    return found


def _small(image: Image) -> Image:
    return np.asarray(cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _tones(picture: Image) -> Reals:
    counts = np.bincount(picture.ravel() // (256 // _TONES), minlength=_TONES)
    return np.sqrt(counts / picture.size, dtype=np.float32)


def _directions(picture: Image) -> Reals:
    """Roots of the shares of the edges (4, 4, 8) that lie in a cell and point a way; all zero without edges."""
    smooth = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 1.0)
    along, across = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    way = ((np.arctan2(across, along) % np.pi) * (_TURNS / np.pi) + 0.5).astype(np.int64) % _TURNS
    row, column = np.indices(picture.shape) * _CELLS // _SIDE
    place = (row * _CELLS + column) * _TURNS + way
    sums = np.bincount(place.ravel(), weights=cv2.magnitude(along, across).ravel(), minlength=_CELLS**2 * _TURNS)
    return np.sqrt(sums / max(float(sums.sum()), 1e-6), dtype=np.float32)


def _changes(picture: Image, golden: Image) -> Reals:
    """Where the picture differs from its golden, (16, 16) of unit length; all zero where it does not."""
    difference = cv2.absdiff(picture, golden).astype(np.float32)
    difference[difference < _DARKEST_CHANGE] = 0
    pooled = _pooled(difference, _PLACES)
    return np.asarray(pooled / max(float(np.linalg.norm(pooled)), 1e-6), dtype=np.float32)


def _pooled(square: Reals, side: int) -> Reals:
    """Sums over the (side, side) tiles of a square."""
    step = len(square) // side
    return np.asarray(square.reshape(side, step, side, step).sum(axis=(1, 3)), dtype=np.float32)


def _same_changes(one: Reals, other: Reals) -> bool:
    if not one.any() or not other.any():
        return not one.any() and not other.any()
    turned = [np.rot90(side, turns) for side in (other, other.T) for turns in range(4)]
    return max(float((one * side).sum()) for side in turned) >= _SAME_CHANGES
