"""What importers share: which files are images, how they are opened, where boxes may lie, what samples are called."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.importers import Problem, Survey
from datasets.sample import LabelledBox, Polygon, Sample, Split
from inspection.errors import InspectionError, UsageError
from inspection.images import IMAGE_SUFFIXES, Image, read_image
from inspection.types import Box

SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
# Boxes of other programs overhang by rounding or by counting from one; more than this is a mistake.
OVERHANG_PX = 1.0
_OTHER_IMAGES = (".webp", ".gif", ".jp2", ".heic", ".avif", ".pgm", ".ppm", ".pbm", ".exr", ".dcm")
_ROBOFLOW = re.compile(r"(.+)_(?:jpe?g|png|bmp|tiff?|webp)\.rf\.\w+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Draft:
    """A sample that can be used; name and group are empty where the layout tells none."""

    image: Path
    labels: tuple[LabelledBox, ...] = ()
    split: Split = ""
    image_class: str = ""
    golden: Path | None = None
    name: str = ""
    group: str = ""


def wrong_layout(path: Path, layout: str) -> UsageError:
    """The error for a folder that is not laid out like ``layout``."""
    what = f"{path} is not laid out like that" if path.is_dir() else f"{path} is no folder"
    return UsageError(what, fix=f"give a folder like {layout}")


def short(root: Path, path: Path) -> str:
    """The path as problems name it: below the root."""
    return path.relative_to(root).as_posix()


def split_of(name: str) -> Split | None:
    """The split a folder of this name holds, or None when it is no name of a split."""
    return SPLIT_FOLDERS.get(name.casefold())


def split_in(root: Path, path: Path) -> Split:
    """The split that a folder between ``root`` and the file names; empty when none does."""
    named = (split_of(part) for part in path.relative_to(root).parts[:-1])
    return next((split for split in named if split is not None), "")


def folders(folder: Path) -> list[Path]:
    """The visible folders in a folder, sorted."""
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and _visible(entry.name))


def files(folder: Path) -> Iterator[Path]:
    """Every visible file in a folder and below it, sorted within each folder; a link to a folder that it lies in is left out."""
    for entry in sorted(folder.iterdir()):
        if _visible(entry.name) and entry.is_dir():
            if not (entry.is_symlink() and folder.resolve().is_relative_to(entry.resolve())):
                yield from files(entry)
        elif _visible(entry.name) and entry.is_file():
            yield entry


def _visible(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def is_image(path: Path) -> bool:
    """Whether the name is that of an image file."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def image_files(root: Path, folder: Path, problems: list[Problem]) -> list[Path]:
    """The images in a folder and below it; an image of a kind that is not supported is a problem."""
    images = []
    for file in files(folder):
        if is_image(file):
            images.append(file)
        elif file.suffix.lower() in _OTHER_IMAGES:
            text = f"images of kind {file.suffix} are not supported, use {' '.join(IMAGE_SUFFIXES)}"
            problems.append(Problem(short(root, file), text))
    return images


def open_image(root: Path, path: Path, problems: list[Problem]) -> Image | None:
    """The image when it can be read whole, else None and a problem."""
    try:
        return read_image(path)
    except InspectionError as problem:
        problems.append(Problem(short(root, path), problem.what.removeprefix(f"{path} ")))
        return None


def image_size(root: Path, path: Path, problems: list[Problem]) -> tuple[int, int] | None:
    """Width and height of an image that can be read whole, else None and a problem."""
    image = open_image(root, path, problems)
    return None if image is None else (image.shape[1], image.shape[0])


def text_lines(root: Path, path: Path, problems: list[Problem]) -> list[str]:
    """The lines of a UTF-8 text file; none and a problem when it is no such file."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        problems.append(Problem(short(root, path), f"cannot be read as text: {problem}"))
        return []


def other_size(told: tuple[int, int], size: tuple[int, int]) -> str:
    """What to say when labels were made for an image of size ``told`` (width, height) and the image has another."""
    text = f"labels are for {told[0]}x{told[1]} pixels, the image has {size[0]}x{size[1]}"
    turned = told == size[::-1] and told[0] != told[1]
    return text + (" (turned by its EXIF tag? save it upright without the tag)" if turned else "")


def place_label(
    defect_class: str, box: Box, size: tuple[int, int], *, polygons: Sequence[Polygon] = ()
) -> LabelledBox | str:
    """The label of an image of ``size`` (width, height), clipped where it overhangs by a pixel; else what is wrong."""
    try:
        label = LabelledBox(defect_class, box, tuple(polygons))
    except ValueError as problem:
        return str(problem)
    points = [box[:2], box[2:], *(point for polygon in polygons for point in polygon)]
    if any(_overhang(point, size) > OVERHANG_PX for point in points):
        return f"box {box} or its outline reaches outside the {size[0]}x{size[1]} image"
    (x1, y1), (x2, y2) = _clipped(box[:2], size), _clipped(box[2:], size)
    if x2 <= x1 or y2 <= y1:
        return f"box {box} lies on the edge of the {size[0]}x{size[1]} image"
    outlines = tuple(tuple(_clipped(point, size) for point in polygon) for polygon in label.polygons_px)
    return LabelledBox(defect_class, (x1, y1, x2, y2), outlines)


def _overhang(point: tuple[float, float], size: tuple[int, int]) -> float:
    return max(max(-value, value - side) for value, side in zip(point, size, strict=True))


def _clipped(point: tuple[float, float], size: tuple[int, int]) -> tuple[float, float]:
    return min(max(point[0], 0.0), size[0]), min(max(point[1], 0.0), size[1])


def extent(polygons: Iterable[Polygon]) -> Box:
    """The smallest box around polygons of at least one point."""
    points = [point for polygon in polygons for point in polygon]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return min(xs), min(ys), max(xs), max(ys)


def points_of(numbers: Sequence[float]) -> Polygon | str:
    """The polygon in a list x1 y1 x2 y2 ..., or what is wrong with the list."""
    if len(numbers) % 2 or len(numbers) < 6 or not all(map(math.isfinite, numbers)):
        return f"an outline needs three or more points x y, got {len(numbers)} numbers"
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def name_samples(root: Path, drafts: Sequence[Draft]) -> tuple[Sample, ...]:
    """Samples called like their files, with the folders where a name occurs twice.

    Each is a group of its own, but copies that Roboflow made of one source (``NAME_jpg.rf.HASH.jpg``) are one group.
    """
    names = _unique_names(root, drafts)
    return tuple(
        Sample(draft.image, draft.golden, draft.labels, _group(draft, name), draft.split, name, draft.image_class)
        for draft, name in zip(drafts, names, strict=True)
    )


def _group(draft: Draft, name: str) -> str:
    match = _ROBOFLOW.fullmatch(draft.image.stem)
    return _printable(draft.group or (match[1] if match else name))


def _unique_names(root: Path, drafts: Sequence[Draft]) -> list[str]:
    def full(image: Path) -> str:
        return "-".join(image.relative_to(root).parts)

    images = [draft.image for draft in drafts]
    stems = Counter(image.stem.casefold() for image in images)
    paths = Counter(full(image.with_suffix("")).casefold() for image in images)
    taken: set[str] = set()
    names = []
    for draft in drafts:
        image = draft.image
        path = full(image.with_suffix(""))
        name = image.stem if stems[image.stem.casefold()] == 1 else path
        wanted = full(image) if name == path and paths[path.casefold()] > 1 else name
        names.append(_free_name(_printable(draft.name or wanted), taken))
    return names


def _printable(name: str) -> str:
    """The name without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "_" for letter in name)


def _free_name(wanted: str, taken: set[str]) -> str:
    name, number = wanted, 1
    while name.casefold() in taken:
        number += 1
        name = f"{wanted}-{number}"
    taken.add(name.casefold())
    return name


def finish(
    path: Path,
    drafts: Sequence[Draft],
    *,
    problems: Sequence[Problem],
    classes: Iterable[str],
    notes: Sequence[str] = (),
) -> Survey:
    """The survey of a folder whose images all lie below ``path``."""
    return Survey(path, name_samples(path.absolute(), drafts), tuple(problems), tuple(classes), tuple(notes))
