"""What lies between two versions of a dataset: samples that came, went or changed, and each box that did."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from datasets.manifest import Dataset, Digest
from datasets.sample import LabelledBox, Sample
from inspection.types import Box

Kind = Literal["added", "removed", "moved", "reclassed"]
KINDS: tuple[Kind, ...] = ("added", "removed", "moved", "reclassed")
SAME_IOU = 0.1  # boxes of one class that overlap more are one defect that was moved
RECLASSED_IOU = 0.3  # of different classes: less could be two defects side by side


@dataclass(frozen=True, slots=True)
class BoxChange:
    """A box that differs; ``before`` is None where it was added, ``after`` where it was removed."""

    kind: Kind
    before: LabelledBox | None
    after: LabelledBox | None

    @property
    def boxes(self) -> tuple[Box, ...]:
        """Where it was and where it is, in pixels of the image."""
        return tuple(label.box_px for label in (self.before, self.after) if label is not None)


@dataclass(frozen=True, slots=True)
class SampleDiff:
    """A sample that differs: ``facts`` say in words what does beside its boxes; ``unchanged`` are the boxes that do not."""

    name: str
    before: Sample | None
    after: Sample | None
    changes: tuple[BoxChange, ...]
    facts: tuple[str, ...]
    unchanged: tuple[LabelledBox, ...] = ()


@dataclass(frozen=True, slots=True)
class ClassCount:
    """How often a class is marked: by boxes and as the class of a whole image, before and after."""

    name: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class DatasetDiff:
    """Two datasets and what differs: samples in the order of the later one, removed ones last."""

    before: Dataset
    after: Dataset
    added: tuple[SampleDiff, ...]
    removed: tuple[SampleDiff, ...]
    changed: tuple[SampleDiff, ...]
    classes: tuple[ClassCount, ...]

    @property
    def boxes(self) -> dict[Kind, int]:
        """How many boxes were added, removed, moved and reclassed in samples that both have."""
        counts = Counter(change.kind for sample in self.changed for change in sample.changes)
        return {kind: counts[kind] for kind in KINDS}

    @property
    def same(self) -> bool:
        """Whether both are of one version."""
        return self.before.version == self.after.version


def diff(before: Dataset, after: Dataset) -> DatasetDiff:
    """Compare two datasets.  Samples are matched by name, then by image; boxes of a sample by overlap."""
    then, now = _by_name(before), _by_name(after)
    pairs = _pairs(then, now)
    found = (_sample_diff(then[old], now[new]) for new, old in pairs.items())
    gone = set(then) - set(pairs.values())
    return DatasetDiff(
        before=before,
        after=after,
        added=tuple(_whole(None, sample) for name, (sample, _) in now.items() if name not in pairs),
        removed=tuple(_whole(sample, None) for name, (sample, _) in then.items() if name in gone),
        changed=tuple(sample for sample in found if sample.changes or sample.facts),
        classes=tuple(_class_counts(before, after)),
    )


_Known = dict[str, tuple[Sample, Digest]]


def _by_name(dataset: Dataset) -> _Known:
    return {sample.name: (sample, digest) for sample, digest in zip(dataset.samples, dataset.digests, strict=True)}


def _pairs(then: _Known, now: _Known) -> dict[str, str]:
    """The old name of each sample, by its present one."""
    pairs = {name: name for name in now if name in then}
    lost: dict[str, list[str]] = {}
    for name, (_, digest) in then.items():
        if name not in pairs:
            lost.setdefault(digest.image, []).append(name)
    for name, (_, digest) in now.items():
        if name not in pairs and lost.get(digest.image):
            pairs[name] = lost[digest.image].pop(0)
    return pairs


def _sample_diff(then: tuple[Sample, Digest], now: tuple[Sample, Digest]) -> SampleDiff:
    (old, old_digest), (new, new_digest) = then, now
    changes, unchanged = match_boxes(old.labels, new.labels)
    told = {
        "name": (old.name, new.name),
        "group": (old.group, new.group),
        "split": (old.split or "none", new.split or "none"),
        "class of the whole image": (old.image_class or "none", new.image_class or "none"),
    }
    facts = [f"{what}: {before} to {after}" for what, (before, after) in told.items() if before != after]
    facts += ["another image"] * (old_digest.image != new_digest.image)
    facts += ["another golden"] * (old_digest.golden != new_digest.golden)
    return SampleDiff(new.name, old, new, changes, tuple(facts), unchanged)


def match_boxes(
    before: Sequence[LabelledBox], after: Sequence[LabelledBox]
) -> tuple[tuple[BoxChange, ...], tuple[LabelledBox, ...]]:
    """The boxes that changed, and those that did not.  What overlaps most is taken to be one defect."""
    same = Counter(map(_settled, before)) & Counter(map(_settled, after))
    old, new = _without(before, same.copy()), _without(after, same.copy())
    changes = []
    for _, i, j in sorted(_likely(old, new), key=lambda pair: (-pair[0], pair[1], pair[2])):
        one, other = old[i], new[j]
        if one is not None and other is not None:
            kind: Kind = "moved" if one.defect_class == other.defect_class else "reclassed"
            changes.append(BoxChange(kind, one, other))
            old[i] = new[j] = None
    changes += [BoxChange("removed", label, None) for label in old if label is not None]
    changes += [BoxChange("added", None, label) for label in new if label is not None]
    return tuple(changes), tuple(same.elements())


def _settled(label: LabelledBox) -> LabelledBox:
    """The label with numbers of one kind, so that 1 and 1.0 are the same."""
    x1, y1, x2, y2 = map(float, label.box_px)
    polygons = tuple(tuple((float(x), float(y)) for x, y in polygon) for polygon in label.polygons_px)
    return LabelledBox(label.defect_class, (x1, y1, x2, y2), polygons)


def _without(labels: Sequence[LabelledBox], taken: Counter[LabelledBox]) -> list[LabelledBox | None]:
    left: list[LabelledBox | None] = []
    for label in map(_settled, labels):
        if taken[label] > 0:
            taken[label] -= 1
        else:
            left.append(label)
    return left


def _likely(old: Sequence[LabelledBox | None], new: Sequence[LabelledBox | None]) -> Iterator[tuple[float, int, int]]:
    """Overlap and places of the boxes that may be one defect."""
    for i, one in enumerate(old):
        for j, other in enumerate(new):
            if one is None or other is None:
                continue
            overlap = box_iou(one.box_px, other.box_px)
            least = SAME_IOU if one.defect_class == other.defect_class else RECLASSED_IOU
            if overlap >= least:
                yield overlap, i, j


def box_iou(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / (areas - width * height)


def _class_counts(before: Dataset, after: Dataset) -> Iterator[ClassCount]:
    then, now = _marked(before), _marked(after)
    for name in dict.fromkeys((*after.classes, *before.classes)):
        yield ClassCount(name, then[name], now[name])


def _marked(dataset: Dataset) -> Counter[str]:
    counts = Counter(label.defect_class for sample in dataset.samples for label in sample.labels)
    counts.update(sample.image_class for sample in dataset.samples if sample.image_class)
    return counts


def _whole(before: Sample | None, after: Sample | None) -> SampleDiff:
    given = after if before is None else before
    assert given is not None
    kind: Kind = "added" if before is None else "removed"
    changes = tuple(
        BoxChange(kind, None if before is None else label, None if after is None else label) for label in given.labels
    )
    facts = (f"class of the whole image: {given.image_class}",) if given.image_class else ()
    return SampleDiff(given.name, before, after, changes, facts)
