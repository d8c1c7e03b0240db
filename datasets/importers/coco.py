"""Reads COCO: one JSON file a split with images, categories and boxes; outlines as polygons or run lengths.

    SRC/annotations/instances_train2017.json, SRC/images/train2017/1.jpg
    SRC/coco_train.json, SRC/images/train/1.jpg
    SRC/train/_annotations.coco.json, SRC/train/1.jpg        as Roboflow writes it

The name of the file, else of its folder, tells the split.  An image without annotations is a good part.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import BaseModel, Field, ValidationError

from datasets.importers import Problem, Survey
from datasets.importers.outlines import mask_of_runs, regions
from datasets.importers.reading import (
    Draft,
    extent,
    files,
    finish,
    folders,
    image_size,
    is_image,
    other_size,
    place_label,
    points_of,
    short,
    split_in,
    split_of,
    wrong_layout,
)
from datasets.sample import LabelledBox, Polygon, Sample, Split
from inspection.types import Box

OWN_KEY = "lineside"  # what only our own exports tell of an image
_HEAD_BYTES = 65536


class _Runs(BaseModel):
    counts: str | list[int]
    size: tuple[int, int]


class _Own(BaseModel):
    name: str = ""
    group: str = ""
    image_class: str = ""
    golden: str = ""


class ImageRow(BaseModel):
    """An image as the file names it; ``own`` only where our export wrote it."""

    id: int | str
    file_name: str = Field(min_length=1)
    width: int | None = None
    height: int | None = None
    own: _Own = Field(default=_Own(), alias=OWN_KEY)


class _CategoryRow(BaseModel):
    id: int
    name: str = Field(min_length=1)
    supercategory: str | None = None


class _AnnotationRow(BaseModel):
    id: int | float | str | None = None
    image_id: int | str
    category_id: int
    bbox: Annotated[list[float], Field(min_length=4, max_length=4)] | None = None
    segmentation: list[list[float]] | _Runs | None = None
    iscrowd: int = 0


_Row = TypeVar("_Row", bound=BaseModel)
_Faults: TypeAlias = defaultdict[tuple[str, str], list[int]]  # which rows of a list have the same fault


@dataclass(slots=True)
class CocoFile:
    """One JSON file: its rows by id, and the images of which a row is wrong."""

    path: Path
    where: str
    split: Split
    images: dict[int | str, ImageRow] = field(default_factory=dict)
    categories: dict[int, _CategoryRow] = field(default_factory=dict)
    labels: defaultdict[int | str, list[_AnnotationRow]] = field(default_factory=lambda: defaultdict(list))
    unusable: set[int | str] = field(default_factory=set)
    description: str = ""


class CocoImporter:
    """Importer for a folder with one or more COCO files and the images they name."""

    layout: str = "COCO: SRC/annotations/instances_train.json and SRC/images/train/1.jpg, or Roboflow's COCO"

    def recognises(self, path: Path) -> bool:
        """Whether a JSON file begins like COCO."""
        return path.is_dir() and any(True for _ in _coco_files(path))

    def survey(self, path: Path) -> Survey:
        """Read every COCO file and every image it names; see ``Importer``."""
        root = path.absolute()
        found = list(_coco_files(root)) if path.is_dir() else []
        if not found:
            raise wrong_layout(path, self.layout)
        problems: list[Problem] = []
        read = [read_file(root, file, problems) for file in found]
        images = _Images(root)
        drafts: list[Draft] = []
        for file in read:
            drafts += _drafts(images, file, problems)
        classes = _classes(read)
        unnamed = len(images.all) - len(images.taken)
        notes = [f"{unnamed} image file(s) are named in no COCO file and were left out"] if unnamed else []
        return finish(path, drafts, problems=problems, classes=classes, notes=notes)

    def read(self, path: Path) -> Iterator[Sample]:
        """Every sample; UsageError listing all problems at once when there are any."""
        return iter(self.survey(path).complete())


def _coco_files(root: Path) -> Iterator[Path]:
    homes = [root, *(folder for folder in folders(root) if split_of(folder.name))]
    homes += [folder for home in homes for folder in folders(home) if folder.name.casefold() == "annotations"]
    return (file for home in homes for file in sorted(home.glob("*.json")) if _begins_like_coco(file))


def _begins_like_coco(file: Path) -> bool:
    try:
        with file.open("rb") as content:
            head = content.read(_HEAD_BYTES)
    except OSError:
        return False
    return b'"images"' in head or b'"image_id"' in head


def read_file(root: Path, path: Path, problems: list[Problem]) -> CocoFile:
    """The rows of a file that can be used; what is wrong with the others goes to ``problems``."""
    file = CocoFile(path, short(root, path), _split(root, path))
    document = _document(file, problems)
    told = document.get("info")
    file.description = str(told.get("description", "")) if isinstance(told, dict) else ""
    faults: _Faults = defaultdict(list)
    for number, image in _rows(file, document, "images", ImageRow, faults):
        if image.id in file.images:
            faults["images", f"id {image.id} occurs twice"].append(number)
            file.unusable.add(image.id)
        file.images.setdefault(image.id, image)
    for number, category in _rows(file, document, "categories", _CategoryRow, faults):
        if category.id in file.categories:
            faults["categories", f"id {category.id} occurs twice"].append(number)
        file.categories.setdefault(category.id, category)
    _read_annotations(file, document, faults)
    for (key, fault), numbers in faults.items():
        more = f" and {len(numbers) - 1} more" if len(numbers) > 1 else ""
        problems.append(Problem(file.where, f"{key}[{numbers[0]}]{more}: {fault}"))
    return file


def _split(root: Path, path: Path) -> Split:
    words = [split_of(word) for word in re.findall(r"[a-z]+", path.stem.casefold())]
    return next((split for split in words if split), split_in(root, path))


def _document(file: CocoFile, problems: list[Problem]) -> dict[str, Any]:
    try:
        document = json.loads(file.path.read_bytes())
    except (OSError, ValueError, RecursionError) as problem:
        problems.append(Problem(file.where, f"is no valid JSON: {problem}"))
        return {}
    keys = ("images", "annotations", "categories")
    lacking = [key for key in keys if not isinstance(document, dict) or not isinstance(document.get(key), list)]
    if lacking:
        problems.append(Problem(file.where, f"has no list of {', '.join(lacking)}"))
    return {} if lacking else dict(document)


def _rows(
    file: CocoFile, document: dict[str, Any], key: str, kind: type[_Row], faults: _Faults
) -> Iterator[tuple[int, _Row]]:
    for number, row in enumerate(document.get(key, [])):
        try:
            yield number, kind.model_validate(row)
        except ValidationError as problem:
            error = problem.errors(include_url=False)[0]
            place = ".".join(str(part) for part in error["loc"])
            faults[key, ": ".join(filter(None, (place, error["msg"])))].append(number)
            if isinstance(row, dict) and isinstance(row.get("image_id"), int | str):
                file.unusable.add(row["image_id"])


def _read_annotations(file: CocoFile, document: dict[str, Any], faults: _Faults) -> None:
    seen = set()
    for number, row in _rows(file, document, "annotations", _AnnotationRow, faults):
        fault = ""
        if row.id is not None and row.id in seen:
            fault = f"id {row.id} occurs twice"
        elif row.image_id not in file.images:
            fault = f"there is no image {row.image_id}"
        elif row.category_id not in file.categories:
            fault = f"unknown category {row.category_id}, known are {sorted(file.categories)}"
        elif row.iscrowd:
            fault = "marks a crowd, not one defect (masks drawn in CVAT are written so: make polygons of them)"
        if fault:
            faults["annotations", fault].append(number)
            file.unusable.add(row.image_id)
        seen.add(row.id)
        file.labels[row.image_id].append(row)


def _classes(read: Iterable[CocoFile]) -> tuple[str, ...]:
    """Names in the order of their numbers.  Roboflow's number 0 names the others together and is no class."""
    categories = [category for file in read for category in file.categories.values()]
    used = {file.categories[row.category_id].name for file in read for row in _known(file)}
    above = {category.supercategory for category in categories} - used
    ordered = sorted(categories, key=lambda category: category.id)
    return tuple(dict.fromkeys(category.name for category in ordered if category.name not in above))


def _known(file: CocoFile) -> Iterator[_AnnotationRow]:
    return (row for rows in file.labels.values() for row in rows if row.category_id in file.categories)


class _Images:
    """All images below the source, found by the names that COCO files give them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.all = [file for file in files(root) if is_image(file)]
        self.taken: dict[Path, str] = {}
        self._named: defaultdict[str, list[Path]] = defaultdict(list)
        for image in self.all:
            self._named[image.name.casefold()].append(image)

    def of(self, file: CocoFile, name: str) -> Path | str:
        """The image a file means, or what is wrong.  Beside the file goes before the file's split before elsewhere."""
        wanted = PurePosixPath(name.replace("\\", "/"))
        found = self._named[wanted.name.casefold()]
        found = [image for image in found if image.parts[-len(wanted.parts) :] == wanted.parts] or found
        for near in (
            [image for image in found if image == file.path.parent / wanted],
            [image for image in found if file.split in _splits_told(self.root, image)],
        ):
            found = near or found
        if len(found) != 1:
            listed = ", ".join(short(self.root, image) for image in found[:3])
            return f"{name} may be any of {len(found)} images: {listed}" if found else f"image {name} is missing"
        return self._take(found[0], file)

    def _take(self, image: Path, file: CocoFile) -> Path | str:
        if image in self.taken:
            return f"{short(self.root, image)} is also in {self.taken[image]}"
        self.taken[image] = file.where
        return image


def _splits_told(root: Path, image: Path) -> set[Split | None]:
    """The splits that the folders of an image name, as ``train`` and ``train2017`` do."""
    return {split_of(part.rstrip("0123456789")) for part in image.relative_to(root).parts[:-1]}


def _drafts(images: _Images, file: CocoFile, problems: list[Problem]) -> Iterator[Draft]:
    for row in file.images.values():
        found: list[Problem] = []
        image = images.of(file, row.file_name)
        if isinstance(image, str):
            problems.append(Problem(file.where, image))
            continue
        size = image_size(images.root, image, found)
        if size and row.width and row.height and (row.width, row.height) != size:
            found.append(Problem(short(images.root, image), other_size((row.width, row.height), size)))
        labels = tuple(labels_on(file, row, size, found)) if size and not found and row.id not in file.unusable else ()
        golden = images.root / row.own.golden if row.own.golden else None
        faults = list(_own_faults(images.root, file, row, golden))  # first: a golden elsewhere is not opened
        if golden is not None and golden not in images.taken and not faults:
            image_size(images.root, golden, found)
            images.taken[golden] = file.where
        found += faults
        if not found and row.id not in file.unusable:
            own = row.own
            yield Draft(image, labels, file.split, own.image_class, golden, own.name.strip(), own.group.strip())
        problems += found


def _own_faults(root: Path, file: CocoFile, row: ImageRow, golden: Path | None) -> Iterator[Problem]:
    if row.own.image_class and row.own.image_class not in {each.name for each in file.categories.values()}:
        yield Problem(file.where, f"{row.file_name} is of unknown class {row.own.image_class!r}")
    if golden is not None and (".." in golden.parts or not golden.is_file() or not golden.is_relative_to(root)):
        yield Problem(file.where, f"golden {row.own.golden} of {row.file_name} is missing")


def labels_on(file: CocoFile, image: ImageRow, size: tuple[int, int], problems: list[Problem]) -> Iterator[LabelledBox]:
    """The labels of an image of ``size`` (width, height); what cannot be one goes to ``problems``."""
    for row in file.labels[image.id]:
        try:
            polygons = tuple(_polygons(row, size))
            label = place_label(file.categories[row.category_id].name, _box(row, polygons), size, polygons=polygons)
        except ValueError as problem:
            label = str(problem)
        if isinstance(label, str):
            problems.append(Problem(file.where, f"{image.file_name}: {label}"))
        else:
            yield label


def _box(row: _AnnotationRow, polygons: tuple[Polygon, ...]) -> Box:
    if row.bbox is None:
        if not polygons:
            raise ValueError("an annotation has neither a box nor an outline")
        return extent(polygons)
    x, y, width, height = row.bbox
    return x, y, x + width, y + height


def _polygons(row: _AnnotationRow, size: tuple[int, int]) -> Iterator[Polygon]:
    if isinstance(row.segmentation, _Runs):
        height, width = row.segmentation.size
        if (width, height) != size:
            raise ValueError(f"run lengths are for {width}x{height} pixels, the image has {size[0]}x{size[1]}")
        yield from (outline for _, outline, _ in regions(mask_of_runs(row.segmentation.counts, height, width)))
    for numbers in row.segmentation if isinstance(row.segmentation, list) else ():
        polygon = points_of(numbers)
        if isinstance(polygon, str):
            raise ValueError(polygon)
        yield polygon
