"""A dataset is a folder with ``dataset.json``: classes, samples, and the SHA-256 of every image.

The **version** of a dataset is the hash of its content - image bytes, goldens, labels, groups, splits, classes - and of
nothing else, so that the same content has the same version wherever it lies and whatever its files are called.
"""

import hashlib
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from datasets.importers import IMPORTERS, open_importer, recognise
from datasets.manifest_file import (
    LISTED,
    MANIFEST,
    RESTORE,
    SCHEMA,
    Manifest,
    label_of,
    manifest_text,
    read_manifest,
    row_text,
    sample_row,
)
from datasets.sample import LabelledBox, Sample
from datasets.todo import read_todo, write_todo
from inspection.errors import FrameCorrupt, UsageError
from inspection.images import read_bytes, write_whole
from inspection.types import new_id, utc_now


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a dataset came from: the importer (or "synth") and a note on its source.  Not part of the version."""

    importer: str
    source: str


@dataclass(frozen=True, slots=True)
class Digest:
    """SHA-256 of a sample's image and golden, in hex; ``golden`` is empty when there is none."""

    image: str
    golden: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """Samples with absolute paths, their digests (in the same order), and the version that follows from them.

    ``escapes`` names samples that show a defect according to a reviewer, who did not say where; not part of the version.
    ``unplaced`` are those of them whose defect another camera may show, as long as they bear no label.
    """

    name: str
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    digests: tuple[Digest, ...]
    origin: Origin
    escapes: frozenset[str] = frozenset()
    unplaced: frozenset[str] = frozenset()
    version: str = field(init=False)

    def __post_init__(self) -> None:
        faults = tuple(_faults(self))
        if faults:
            raise ValueError("; ".join(faults[:LISTED]))
        object.__setattr__(self, "version", content_version(self.classes, self.samples, self.digests))

    @property
    def to_draw(self) -> tuple[str, ...]:
        """Names of the escapes that bear no label yet: to learn from them would teach that the defect is none."""
        return tuple(s.name for s in self.samples if s.name in self.escapes and not s.defective)

    @property
    def unplaced_yet(self) -> frozenset[str]:
        """The escapes to draw of which another camera may show the defect: they are no escapes of this camera so far."""
        return self.unplaced & frozenset(self.to_draw)


def _faults(dataset: Dataset) -> Iterator[str]:
    if not dataset.name.strip():
        yield "the dataset has no name"
    if len(set(dataset.classes)) != len(dataset.classes) or not all(dataset.classes):
        yield f"classes must be unique and not empty, got {dataset.classes}"
    if len(dataset.samples) != len(dataset.digests):
        yield f"{len(dataset.samples)} samples have {len(dataset.digests)} digests"
    for name, count in Counter(sample.name for sample in dataset.samples).items():
        if count > 1:
            yield f"{count} samples are named {name!r}"
    for sample in dataset.samples:
        for unknown in sorted({label.defect_class for label in sample.labels} - set(dataset.classes)):
            yield f"sample {sample.name!r} has a box of class {unknown!r}, which is not in {dataset.classes}"
        if sample.image_class and sample.image_class not in dataset.classes:
            yield f"sample {sample.name!r} is of class {sample.image_class!r}, which is not in {dataset.classes}"


def content_version(classes: Sequence[str], samples: Sequence[Sample], digests: Sequence[Digest]) -> str:
    """SHA-256 (hex) over the canonical JSON of the content; the order of samples and of labels does not matter.

    Polygons and the class of an image count where there are any, so that datasets without them keep their version.
    """
    rows = sorted(content_row(sample, digest) for sample, digest in zip(samples, digests, strict=True))
    return version_of(classes, map(json.dumps, rows))


def content_row(sample: Sample, digest: Digest) -> str:
    """What one sample adds to the version, as canonical JSON; the rows of all samples are sorted."""
    return json.dumps([digest.image, digest.golden, *_canonical(sample)])


def version_of(classes: Sequence[str], rows: Iterable[str]) -> str:
    """The version from the classes and the sorted content rows, each once more as a JSON string."""
    return hashlib.sha256(f"[{json.dumps(list(classes))}, [{', '.join(rows)}]]".encode()).hexdigest()


def _canonical(sample: Sample) -> list[object]:
    labels = sorted(_canonical_label(label) for label in sample.labels)
    return [labels, sample.group, sample.split, *([sample.image_class] if sample.image_class else [])]


def _canonical_label(label: LabelledBox) -> tuple[object, ...]:
    # Adding 0.0 turns whole numbers and the negative zero into one form.
    box = [float(v) + 0.0 for v in label.box_px]
    polygons = sorted([[float(v) + 0.0 for v in point] for point in polygon] for polygon in label.polygons_px)
    return (label.defect_class, box, polygons) if polygons else (label.defect_class, box)


def make_dataset(name: str, samples: Sequence[Sample], *, classes: tuple[str, ...], origin: Origin) -> Dataset:
    """Hash the files of the samples and bind all into a Dataset; nothing is written.

    UsageError when a file cannot be read, a name occurs twice or a label has an unknown class.
    """
    whole = tuple(replace(s, image=s.image.absolute(), golden=s.golden and s.golden.absolute()) for s in samples)
    digests = tuple(Digest(_sha256(s.image), _sha256(s.golden) if s.golden else "") for s in whole)
    try:
        return Dataset(name, classes, whole, digests, origin)
    except ValueError as problem:
        raise UsageError(f"these samples make no dataset: {problem}", fix="correct the samples") from problem


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(read_bytes(path)).hexdigest()
    except FrameCorrupt as problem:
        raise UsageError(problem.what, fix=problem.fix) from problem


def changed_files(dataset: Dataset) -> tuple[Path, ...]:
    """The images and goldens that are missing or whose bytes are not those the dataset was made of."""
    expected = {path: digest for path, digest, _ in _files(dataset)}
    return tuple(path for path, digest in expected.items() if not path.is_file() or _hash_of(path) != digest)


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(dataset: Dataset) -> Iterator[tuple[Path, str, str]]:
    """Every file of the dataset with its digest and its role, the folder it is copied to."""
    for sample, digest in zip(dataset.samples, dataset.digests, strict=True):
        yield sample.image, digest.image, "images"
        if sample.golden:
            yield sample.golden, digest.golden, "goldens"


def load_dataset(folder: Path) -> Dataset:
    """Read the dataset in a folder; UsageError listing every mistake in its ``dataset.json``.

    Images are not opened: ``changed_files`` tells whether they are still the same.
    """
    return dataset_of(read_manifest(folder / MANIFEST), folder)


def dataset_of(manifest: Manifest, folder: Path) -> Dataset:
    """The dataset that the manifest of a folder describes; UsageError when it contradicts itself."""
    file = folder / MANIFEST
    try:
        dataset = _from_manifest(manifest, folder.absolute(), *read_todo(folder))
    except ValueError as problem:
        raise UsageError(f"{file} is not a valid dataset: {problem}", fix=RESTORE) from None
    if dataset.version != manifest.version:
        what = f"{file} was edited: it says version {manifest.version[:12]}, its content is {dataset.version[:12]}"
        raise UsageError(what, fix=RESTORE)
    return dataset


def _from_manifest(manifest: Manifest, folder: Path, escapes: frozenset[str], unplaced: frozenset[str]) -> Dataset:
    samples, digests = [], []
    for row in manifest.samples:
        if (row.golden is None) != (row.golden_sha256 is None):
            raise ValueError(f"sample {row.name!r}: golden and golden_sha256 go together")
        labels = tuple(map(label_of, row.labels))
        golden = _inside(folder, row.golden) if row.golden else None
        image = _inside(folder, row.image)
        samples.append(Sample(image, golden, labels, row.group, row.split, row.name, row.image_class))
        digests.append(Digest(row.image_sha256, row.golden_sha256 or ""))
    origin = Origin(manifest.importer, manifest.source)
    return Dataset(manifest.name, tuple(manifest.classes), tuple(samples), tuple(digests), origin, escapes, unplaced)


def _inside(folder: Path, place: str) -> Path:
    path = Path(place)
    if place.startswith("/") or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"the path {place!r} leads out of the folder")
    return folder / path


def write_dataset(folder: Path, dataset: Dataset, *, beside: Mapping[str, bytes] | None = None) -> Dataset:
    """Copy all images and write ``dataset.json``; the folder appears whole or not at all.  Gives the new dataset.

    ``beside`` are further files by name, which do not count for the version.

    A folder that already holds this very version is left as it is.  UsageError when it holds anything else, or when
    a source file has changed since the dataset was made.
    """
    folder = folder.resolve()
    if (folder / MANIFEST).exists():
        present = load_dataset(folder)
        if present.version != dataset.version:
            what = f"{folder} already holds another dataset (version {present.version[:12]})"
            raise UsageError(what, fix="give a new folder; a dataset is never overwritten")
        return present
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not an empty folder", fix="give a new folder")
    partial = folder.parent / f".{folder.name}.{new_id()[:8]}.partial"
    try:
        partial.mkdir(parents=True)
        stored = _copy_files(dataset, partial)
        write_whole(partial / MANIFEST, _manifest_text(dataset, stored).encode())
        names = {sample.name for sample in dataset.samples}
        write_todo(partial, dataset.escapes & names, dataset.unplaced & names)
        for name, content in (beside or {}).items():
            write_whole(partial / name, content)
        partial.replace(folder)
    except OSError as problem:
        raise UsageError(f"cannot write {folder}: {problem.strerror}", fix="check free space and permissions") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return load_dataset(folder)


def _copy_files(dataset: Dataset, folder: Path) -> dict[tuple[Path, str], str]:
    """Copy every file below its role; gives the new relative path by old path and role.  Base names are kept."""
    stored: dict[tuple[Path, str], str] = {}
    taken: dict[str, str] = {}
    for path, digest, role in _files(dataset):
        if (path, role) in stored:
            continue
        target = _free_place(role, path.name, digest, taken)
        stored[path, role] = target
        content = read_bytes(path)
        if hashlib.sha256(content).hexdigest() != digest:
            raise UsageError(f"{path} changed while the dataset was written", fix="start again")
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        (folder / target).write_bytes(content)
    return stored


def _free_place(role: str, name: str, digest: str, taken: dict[str, str]) -> str:
    """``role/name``, or ``role/2/name`` and so on when another picture has that name (upper and lower case alike)."""
    number = 1
    while True:
        place = f"{role}/{name}" if number == 1 else f"{role}/{number}/{name}"
        if taken.setdefault(place.casefold(), digest) == digest:
            return place
        number += 1


def _manifest_text(dataset: Dataset, stored: dict[tuple[Path, str], str]) -> str:
    rows = []
    for sample, digest in zip(dataset.samples, dataset.digests, strict=True):
        golden = (stored[sample.golden, "goldens"], digest.golden) if sample.golden else None
        rows.append(sample_row(sample, (stored[sample.image, "images"], digest.image), golden))
    head = Manifest(
        schema=SCHEMA,
        name=dataset.name,
        created=utc_now().isoformat(timespec="seconds"),
        version=dataset.version,
        classes=list(dataset.classes),
        importer=dataset.origin.importer,
        source=dataset.origin.source,
        samples=[],
    )
    return manifest_text(head, map(row_text, rows))


def open_dataset(path: Path, *, whole: bool = False) -> Dataset:
    """A dataset folder, or a folder in a foreign layout an importer recognises, read where it lies.

    Escapes whose defects nobody has drawn are left out, which is said on stderr, unless ``whole`` is set.
    UsageError listing what is accepted when it is neither, or listing the problems of a foreign folder.
    """
    if (path / MANIFEST).is_file():
        dataset = load_dataset(path)
        return dataset if whole else _without_undrawn(dataset, path)
    importer_name = recognise(path)
    if importer_name is None:
        known = "".join(f"\n  {open_importer(name).layout}" for name in IMPORTERS)
        state = "is no dataset" if path.is_dir() else "is not a folder" if path.exists() else "does not exist"
        raise UsageError(f"{path} {state}", fix=f"give a folder with {MANIFEST}, or one in a known layout:{known}")
    importer = open_importer(importer_name)
    origin = Origin(importer_name, str(path))
    survey = importer.survey(path)
    return make_dataset(path.name or importer_name, survey.complete(), classes=survey.classes, origin=origin)


def _without_undrawn(dataset: Dataset, folder: Path) -> Dataset:
    undrawn = set(dataset.to_draw)
    if not undrawn:
        return dataset
    print(
        f"{len(undrawn)} of {len(dataset.samples)} samples are left out: they are escapes whose defects nobody has drawn "
        f"yet (`lineside relabel {folder}`): {', '.join(sorted(undrawn)[:LISTED])}",
        file=sys.stderr,
    )
    pairs = [
        (sample, digest)
        for sample, digest in zip(dataset.samples, dataset.digests, strict=True)
        if sample.name not in undrawn
    ]
    return replace(dataset, samples=tuple(s for s, _ in pairs), digests=tuple(d for _, d in pairs))
