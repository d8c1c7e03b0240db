"""Reads Pascal VOC: one XML file an image, with a box for each object.

    VOCdevkit/VOC2012/{JPEGImages/1.jpg, Annotations/1.xml, ImageSets/Main/train.txt}
    NEU-DET/{IMAGES/1.jpg, ANNOTATIONS/1.xml}
    NEU-DET/train/{images/crazing/1.jpg, annotations/1.xml}, NEU-DET/validation/...
    train/1.jpg, train/1.xml                                 as Roboflow and labelImg write it

Pixels count from 1 and the last one belongs to the box, so (1, 1, 5, 5) becomes (0, 0, 5, 5) here.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PureWindowsPath
from xml.etree import ElementTree

from datasets.importers import Problem, Survey
from datasets.importers.reading import (
    Draft,
    files,
    finish,
    image_files,
    image_size,
    other_size,
    place_label,
    short,
    split_in,
    split_of,
    text_lines,
    wrong_layout,
)
from datasets.sample import Sample, Split
from inspection.types import Box

_LOOKED_AT = 20
_SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, slots=True)
class _Annotation:
    """An XML file: what it says of its image, and its objects (class and box as written)."""

    path: Path
    filename: str
    size: tuple[int, int] | None
    objects: tuple[tuple[str, Box], ...]


class VocImporter:
    """Importer for a folder with XML files and images anywhere in it."""

    layout: str = (
        "Pascal VOC: Annotations/1.xml and JPEGImages/1.jpg, or 1.xml beside 1.jpg, also below train, val, test"
    )

    def recognises(self, path: Path) -> bool:
        """Whether one of the first XML files is an annotation."""
        return path.is_dir() and any(map(_is_annotation, islice(_xml_files(path), _LOOKED_AT)))

    def survey(self, path: Path) -> Survey:
        """Read every XML file and every image; see ``Importer``.  An XML file without objects is a good part."""
        if not path.is_dir() or not any(_xml_files(path)):
            raise wrong_layout(path, self.layout)
        root, problems = path.absolute(), list[Problem]()
        images = _Images(image_files(root, root, problems))
        owners: dict[Path, _Annotation] = {}
        claimed_twice: set[Path] = set()
        for file in _xml_files(root):
            annotation = _read(root, file, problems)
            image = images.of(root, annotation, problems) if annotation else None
            if annotation is None or image is None:
                continue
            if image in owners:
                text = f"is for {short(root, image)}, as {short(root, owners[image].path)} is"
                problems.append(Problem(short(root, file), text))
                claimed_twice.add(image)
            owners.setdefault(image, annotation)
        broken = {_key(problem.where) for problem in problems}
        splits = _listed_splits(root, problems)
        drafts: list[Draft] = []
        for image in images.all:
            if image in claimed_twice:
                continue
            if image in owners:
                drafts += _drafts(root, image, owners[image], splits=splits, problems=problems)
            elif image.stem.casefold() not in broken:
                problems.append(Problem(short(root, image), "has no annotation"))
        classes = {name for annotation in owners.values() for name, _ in annotation.objects}
        return finish(path, drafts, problems=problems, classes=sorted(classes))

    def read(self, path: Path) -> Iterator[Sample]:
        """Every sample; UsageError listing all problems at once when there are any."""
        return iter(self.survey(path).complete())


def _key(where: str) -> str:
    return Path(where).stem.casefold()


def _xml_files(folder: Path) -> Iterator[Path]:
    return (file for file in files(folder) if file.suffix.lower() == ".xml")


def _is_annotation(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return b"<annotation" in file.read(4096)
    except OSError:
        return False


class _Plain(ElementTree.TreeBuilder):
    """Builds the tree of a document without DOCTYPE: entities could make a small file fill the memory."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Called where a DOCTYPE begins, before anything it declares is used."""
        raise ValueError(f"has a DOCTYPE ({name}), which is refused; remove it from the file")


def _read(root: Path, path: Path, problems: list[Problem]) -> _Annotation | None:
    try:
        tree = ElementTree.fromstring(path.read_bytes(), ElementTree.XMLParser(target=_Plain()))
        if tree.tag != "annotation":
            raise ValueError(f"is <{tree.tag}>, not <annotation>")
        objects = tuple(_object(number, element) for number, element in enumerate(tree.findall("object"), 1))
        return _Annotation(path, (tree.findtext("filename") or "").strip(), _size(tree), objects)
    except (ElementTree.ParseError, ValueError, OSError) as problem:
        problems.append(Problem(short(root, path), f"cannot be read: {problem}"))
        return None


def _object(number: int, element: ElementTree.Element) -> tuple[str, Box]:
    name = (element.findtext("name") or "").strip()
    texts = [element.findtext(f"bndbox/{side}") for side in _SIDES]
    if not name or None in texts:
        raise ValueError(f"object {number} lacks its name or one of {', '.join(_SIDES)}")
    try:
        x1, y1, x2, y2 = (float(text or "") for text in texts)
    except ValueError:
        raise ValueError(f"object {number} ({name}) has sides that are no numbers: {texts}") from None
    if not all(map(math.isfinite, (x1, y1, x2, y2))) or x2 < x1 or y2 < y1:
        raise ValueError(f"object {number} ({name}) has swapped corners: {', '.join(map(str, texts))}")
    return name, (x1, y1, x2, y2)


def _size(tree: ElementTree.Element) -> tuple[int, int] | None:
    """Width and height as the file tells them; None when it tells none (some programs write 0)."""
    width, height = (tree.findtext(f"size/{side}") for side in ("width", "height"))
    size = (int(float(width or 0)), int(float(height or 0)))
    return size if all(size) else None


class _Images:
    """All images of the source, found by name from where an annotation lies."""

    def __init__(self, images: list[Path]) -> None:
        self.all = images
        self._named: defaultdict[str, list[Path]] = defaultdict(list)
        for image in images:
            self._named[image.name.casefold()].append(image)
            self._named[image.stem.casefold()].append(image)
        self._homes = {folder for image in images for folder in image.parents}

    def of(self, root: Path, annotation: _Annotation, problems: list[Problem]) -> Path | None:
        """The image the annotation names, else the one called like it; it lies below the nearest folder with images."""
        home = next((folder for folder in annotation.path.parents if folder in self._homes), root)
        told = PureWindowsPath(annotation.filename).name
        named = self._below(home, told) or self._below(home, PureWindowsPath(told).stem)
        alike = self._below(home, annotation.path.stem)
        found = [image for image in named if image in alike] or named or alike
        where = short(root, annotation.path)
        if not found:
            problems.append(Problem(where, f"its image {told or annotation.path.stem!r} is missing"))
        elif named and alike and not set(named) & set(alike):
            names = f"{short(root, named[0])}, but {short(root, alike[0])} is called like it"
            problems.append(Problem(where, f"says it is for {names}"))
        elif len(found) > 1:
            listed = ", ".join(short(root, image) for image in found[:3])
            problems.append(Problem(where, f"may be for any of {len(found)} images: {listed}"))
        else:
            return found[0]
        return None

    def _below(self, home: Path, name: str) -> list[Path]:
        return [image for image in self._named[name.casefold()] if image.is_relative_to(home)]


def _listed_splits(root: Path, problems: list[Problem]) -> dict[tuple[Path, str], Split]:
    """Splits by the lists in ImageSets/Main, for the folder that holds ImageSets and the stem of an image."""
    splits: dict[tuple[Path, str], Split] = {}
    lists = [file for file in files(root) if file.parts[-3:-1] == ("ImageSets", "Main") and split_of(file.stem)]
    for file in lists:
        split = split_of(file.stem) or ""
        stems = [line.split()[0] for line in text_lines(root, file, problems) if line.strip()]
        present = {image.stem for image in files(file.parents[2]) if image.suffix.lower() != ".xml"}
        for stem in stems:
            if stem not in present:
                problems.append(Problem(short(root, file), f"names {stem!r}, which is no image"))
            elif splits.setdefault((file.parents[2], stem), split) != split:
                other = splits[file.parents[2], stem]
                problems.append(Problem(short(root, file), f"{stem!r} is in {other!r} and in {split!r}"))
    return splits


def _drafts(
    root: Path,
    image: Path,
    annotation: _Annotation,
    *,
    splits: dict[tuple[Path, str], Split],
    problems: list[Problem],
) -> Iterator[Draft]:
    found: list[Problem] = []
    size, where = image_size(root, image, found), short(root, annotation.path)
    if size and annotation.size not in (None, size):
        found.append(Problem(where, other_size(annotation.size or size, size)))
    labels = []
    for number, (name, (x1, y1, x2, y2)) in enumerate(annotation.objects, 1) if size else ():
        label = place_label(name, (x1 - 1, y1 - 1, x2, y2), size or (0, 0))
        if isinstance(label, str):
            found.append(Problem(where, f"object {number} ({name}): {label}"))
        else:
            labels.append(label)
    listed = [splits[folder, image.stem] for folder in image.parents if (folder, image.stem) in splits]
    if not found:
        yield Draft(image, tuple(labels), listed[0] if listed else split_in(root, image))
    problems += found
