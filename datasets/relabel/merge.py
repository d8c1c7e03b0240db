"""Takes labels that were edited in another program, as its COCO file has them, back into the dataset they came from.

Golden, group, split and the class of whole images stay as they are; each sample that differs is a save with its history.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets.class_names import class_name_faults
from datasets.export import file_names
from datasets.importers import Problem
from datasets.importers.coco import CocoFile, ImageRow, labels_on, read_file
from datasets.importers.reading import other_size
from datasets.manifest import Dataset
from datasets.relabel.history import LabelsError, LabelSet
from datasets.relabel.labels import Labels
from datasets.relabel.past import labels_at
from datasets.sample import LabelledBox, Polygon
from inspection.errors import UsageError
from inspection.types import Box

SAME_PX = 0.05  # CVAT rounds to hundredths of a pixel, Label Studio reckons in percent of the image
_UPLOAD = re.compile(r"[0-9a-f]{8}-(.+)")  # what Label Studio puts before the name of an uploaded file
_PLACE = re.compile(r"[/\\=]")  # before the name: folders, and local-files/?d= of Label Studio
_CHANGED_BY_UPLOAD = re.compile(r"[^\w.-]+")
_EXPORTED = re.compile(r", version ([0-9a-f]{64})$")


@dataclass(slots=True)
class Merged:
    """What came of it: samples that were saved, that were the same already, and everything that was not taken over.

    ``bare`` have labels here and none in the file; ``spoilt`` have an annotation there that is wrong.
    """

    saved: list[str] = field(default_factory=list)
    unchanged: int = 0
    bare: list[str] = field(default_factory=list)
    spoilt: list[str] = field(default_factory=list)
    not_in_file: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Wishes:
    """Who merges and why, and what may happen.

    ``base`` is the version that was exported (our own export tells it to programs that keep the description).  A sample
    that was edited here since then, and otherwise there, is a conflict: it is listed and left as it is, unless
    ``replace`` is set.  Without a base, so is every sample that was ever edited here.  Classes that the dataset does not
    have are problems, unless ``new_classes`` is set.  An image without boxes may be one that nobody has opened there
    yet: its sample keeps its labels, unless ``empty`` says that these are good parts.
    """

    who: str
    why: str
    base: str = ""
    replace: bool = False
    new_classes: bool = False
    empty: bool = False


def merge_labels(labels: Labels, coco: Path, wishes: Wishes) -> Merged:
    """Save what the COCO file says of the samples it names.  Merging the same file again changes nothing.

    UsageError when the file cannot be read at all; else as ``Labels.save``.
    """
    merged = Merged()
    file, description = _read(coco, merged)
    found = _EXPORTED.search(description)
    past = _Past(labels, wishes.base or (found[1] if found else ""))
    rows = _rows_by_sample(labels.dataset, file, merged)
    merged.not_in_file = [name for name in labels.names if name not in rows]
    if wishes.new_classes:
        unknown = _unknown_classes(file, labels)
        faults = class_name_faults(unknown, labels.classes)
        merged.problems += [Problem(file.where, fault) for fault in faults.values()]
        for name in unknown:
            if name not in faults:
                labels.add_class(name, who=wishes.who, why=wishes.why)
    for name, row in rows.items():
        given = _given(labels, name, file, row, merged)
        if given is not None:
            _merge(labels, name, given, past.stored(name), merged, wishes)
    return merged


def _read(coco: Path, merged: Merged) -> tuple[CocoFile, str]:
    if not coco.is_file():
        raise UsageError(
            f"there is no file {coco}", fix="give the JSON file of a COCO export (unpack the archive first)"
        )
    file = read_file(coco.absolute().parent, coco.absolute(), merged.problems)
    if not file.images:
        what = "; ".join(map(str, merged.problems[:5])) or "it names no images"
        raise UsageError(f"{coco} is no COCO file that can be used: {what}", fix="export as COCO 1.0 once more")
    return file, file.description


class _Past:
    """What was exported, as far as it is known."""

    def __init__(self, labels: Labels, base: str) -> None:
        past: Dataset | None = labels_at(labels.folder, base) if base else None
        self._known = {s.name: LabelSet(s.labels, s.image_class) for s in past.samples} if past else {}
        self._edited = set() if past else {change.sample for change in labels.changes()}
        self._labels = labels

    def stored(self, name: str) -> LabelSet | None:
        """The labels that went out; None when nobody knows, because the sample was edited and no version was given."""
        if name in self._edited:
            return None
        return self._known.get(name) or self._labels.stored(name)


def _rows_by_sample(dataset: Dataset, file: CocoFile, merged: Merged) -> dict[str, ImageRow]:
    """The one row of each sample that has one; names that mean none or several are problems."""
    names = _Names(dataset)
    rows: dict[str, list[ImageRow]] = {}
    strange = list[str]()
    for row in file.images.values():
        name = names.of(row)
        if name is None:
            strange.append(row.file_name)
        else:
            rows.setdefault(name, []).append(row)
    if strange:
        listed = ", ".join(strange[:20]) + (f" and {len(strange) - 20} more" if len(strange) > 20 else "")
        merged.problems.append(Problem(file.where, f"{len(strange)} image(s) are none of this dataset's: {listed}"))
    for name, several in rows.items():
        if len(several) > 1:
            listed = ", ".join(row.file_name for row in several[:3])
            merged.problems.append(Problem(file.where, f"{listed} are all sample {name!r}: none was taken over"))
    return {name: several[0] for name, several in rows.items() if len(several) == 1}


class _Names:
    """Finds the sample that another program means by a file name."""

    def __init__(self, dataset: Dataset) -> None:
        exported = zip(dataset.samples, file_names(dataset), strict=True)
        self._own = {sample.name for sample in dataset.samples}
        self._exact = _unique([(name.casefold(), sample.name) for sample, name in exported])
        stored = _unique([(sample.image.name.casefold(), sample.name) for sample in dataset.samples])
        self._exact = {**stored, **self._exact}
        self._alike = _unique([(_as_uploaded(name), sample) for name, sample in self._exact.items()])

    def of(self, row: ImageRow) -> str | None:
        """The name of the sample, or None."""
        if row.own.name in self._own:
            return row.own.name
        name = _PLACE.split(row.file_name)[-1].casefold()
        upload = _UPLOAD.fullmatch(name)
        for wanted in (name, upload[1] if upload else name):
            found = self._exact.get(wanted) or self._alike.get(_as_uploaded(wanted))
            if found:
                return found
        return None


def _as_uploaded(name: str) -> str:
    """The name as a program may write it that allows letters, digits, dots, dashes and underscores alone."""
    return _CHANGED_BY_UPLOAD.sub("", name.replace(" ", "_"))


def _unique(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The pairs whose key means one sample."""
    means: dict[str, set[str]] = {}
    for key, sample in pairs:
        means.setdefault(key, set()).add(sample)
    return {key: next(iter(samples)) for key, samples in means.items() if len(samples) == 1}


def _unknown_classes(file: CocoFile, labels: Labels) -> list[str]:
    used = (file.categories[row.category_id].name for rows in file.labels.values() for row in rows
            if row.category_id in file.categories)  # fmt: skip
    return [name for name in dict.fromkeys(used) if name not in labels.classes]


def _given(labels: Labels, name: str, file: CocoFile, row: ImageRow, merged: Merged) -> tuple[LabelledBox, ...] | None:
    """What the file says of a sample; None, and problems, when that cannot be taken over."""
    try:
        size = labels.image_size(name)
    except LabelsError as problem:
        merged.problems.append(Problem(file.where, problem.what))
        return None
    if row.id in file.unusable:
        merged.spoilt.append(name)
        return None
    found: list[Problem] = []
    if row.width and row.height and (row.width, row.height) != size:
        found.append(Problem(file.where, f"{row.file_name}: {other_size((row.width, row.height), size)}"))
    given = tuple(labels_on(file, row, size, found)) if not found else ()
    unknown = sorted({label.defect_class for label in given} - set(labels.classes))
    if unknown:
        listed = ", ".join(map(repr, unknown))
        found.append(Problem(file.where, f"{row.file_name}: the dataset has no class {listed} (--new-classes adds it)"))
    merged.problems += found
    return None if found else given


def _merge(
    labels: Labels, name: str, given: tuple[LabelledBox, ...], exported: LabelSet | None, merged: Merged, wishes: Wishes
) -> None:
    stored = labels.stored(name)
    wanted = LabelSet(tuple(_settled(given, stored.labels)), stored.image_class)
    untouched = exported is not None and _same(tuple(_settled(given, exported.labels)), exported.labels)
    if wanted.revision == stored.revision or untouched:
        merged.unchanged += 1
    elif not wanted.labels and not wishes.empty:
        merged.bare.append(name)
    elif not wishes.replace and (exported is None or exported.revision != stored.revision):
        merged.problems.append(Problem(name, _conflict(labels, name)))
    else:
        labels.save(
            name,
            wanted.labels,
            image_class=wanted.image_class,
            who=wishes.who,
            why=wishes.why,
            base_version=stored.revision,
        )
        merged.saved.append(name)


def _conflict(labels: Labels, name: str) -> str:
    last = next(labels.changes(name), None)
    by = f"by {last.who} on {last.at:%Y-%m-%d}, " if last else ""
    return f"conflict: edited here {by}and otherwise in the file (--base VERSION says what was exported, --replace takes the file)"


def _same(one: Sequence[LabelledBox], other: Sequence[LabelledBox]) -> bool:
    return Counter(one) == Counter(other)


def _settled(given: Sequence[LabelledBox], known: Sequence[LabelledBox]) -> Iterator[LabelledBox]:
    """The given labels, each as it is known where it differs by no more than rounding."""
    left = list(known)
    for label in given:
        plain = _without_frame(label)
        twin = next((one for one in left if _is_rounded(plain, one)), None)
        if twin is not None:
            left.remove(twin)
        yield twin or plain


def _without_frame(label: LabelledBox) -> LabelledBox:
    """The label without an outline that says no more than its box: some programs write each box so."""
    x1, y1, x2, y2 = label.box_px
    corners = ((x1, y1), (x2, y1), (x2, y2), (x1, y2))
    outline = label.polygons_px[0] if len(label.polygons_px) == 1 else ()
    frame = len(outline) == len(corners) and all(any(_near(point, one) for point in outline) for one in corners)
    return LabelledBox(label.defect_class, label.box_px) if frame else label


def _is_rounded(given: LabelledBox, known: LabelledBox) -> bool:
    """Whether both are one label; a program that knows boxes alone gives no outlines back."""
    if given.defect_class != known.defect_class or not _near(given.box_px, known.box_px):
        return False
    return not given.polygons_px or _polygons_near(given.polygons_px, known.polygons_px)


def _polygons_near(some: Sequence[Polygon], others: Sequence[Polygon]) -> bool:
    return [len(one) for one in some] == [len(one) for one in others] and all(
        _near(point, other)
        for one, two in zip(some, others, strict=True)
        for point, other in zip(one, two, strict=True)
    )


def _near(some: Box | tuple[float, float], others: Box | tuple[float, float]) -> bool:
    return all(abs(a - b) <= SAME_PX for a, b in zip(some, others, strict=True))
