"""Reads frames with one mask image each, in which the value of a pixel tells its class and 0 is the background.

    SRC/images/1.png, SRC/masks/1.png                  or 1_mask.png, 1_gt.png
    SRC/images/train/1.png, SRC/masks/train/1.png      also val and test
    SRC/train/images/1.png, SRC/train/masks/1.png
    SRC/classes.txt                                    optional: line n names value n

Each region of one class becomes a box with its outline.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.importers import Problem, Survey
from datasets.importers.coco import CocoImporter
from datasets.importers.outlines import SMALLEST_REGION_PX, regions
from datasets.importers.reading import (
    Draft,
    finish,
    folders,
    image_files,
    image_size,
    open_image,
    other_size,
    short,
    split_in,
    split_of,
    text_lines,
    wrong_layout,
)
from datasets.sample import LabelledBox, Polygon, Sample, Split
from inspection.types import Box

_MOST_CLASSES = 32
_BACKGROUND = {"background", "_background_", "__background__"}
_CLASS_FILE = "classes.txt"
_WHITE = "255"


@dataclass(frozen=True, slots=True)
class _Place:
    """A folder of frames and the folder of their masks."""

    images: Path
    masks: Path
    split: Split


@dataclass(frozen=True, slots=True)
class _Marks:
    """What a mask holds: regions with their value ("7", or "#ff0000" for a colour), and how many single pixels."""

    regions: tuple[tuple[str, Box, Polygon], ...]
    specks: int


class MaskImporter:
    """Importer for a folder with ``images`` and ``masks``."""

    layout: str = "masks: SRC/images/1.png and SRC/masks/1.png, also with train, val and test; optional classes.txt"

    def recognises(self, path: Path) -> bool:
        """Whether there is a folder of images beside a folder of masks, and no COCO file that says more."""
        return bool(_places(path)) and not CocoImporter().recognises(path)

    def survey(self, path: Path) -> Survey:
        """Read every frame and its mask; see ``Importer``.  A mask without a region is a good part."""
        root, places = path.absolute(), _places(path.absolute())
        if not places:
            raise wrong_layout(path, self.layout)
        problems: list[Problem] = []
        marked: list[tuple[Draft, Path, _Marks]] = []
        for place in places:
            marked += _read(root, place, problems)
        values = {value for _, _, marks in marked for value, _, _ in marks.regions}
        listed = text_lines(root, root / _CLASS_FILE, problems) if (root / _CLASS_FILE).is_file() else []
        names = _class_names(values, listed)
        if len(values) > _MOST_CLASSES:
            problems.append(
                Problem(".", f"the masks have {len(values)} values, at most {_MOST_CLASSES} can be classes")
            )
        drafts = []
        for draft, mask, marks in marked:
            unknown = sorted({value for value, _, _ in marks.regions} - names.keys(), key=_order)
            problems += [Problem(short(root, mask), f"value {value} is not in {_CLASS_FILE}") for value in unknown]
            if not unknown:
                drafts.append(_labelled(draft, marks, names))
        notes = _notes(sum(marks.specks for _, _, marks in marked), names)
        return finish(path, drafts, problems=problems, classes=dict.fromkeys(names.values()), notes=notes)

    def read(self, path: Path) -> Iterator[Sample]:
        """Every sample; UsageError listing all problems at once when there are any."""
        return iter(self.survey(path).complete())


def _places(root: Path) -> list[_Place]:
    if not root.is_dir():
        return []
    parents = [(root, split_of("")), *((folder, split_of(folder.name)) for folder in folders(root))]
    return [
        _Place(parent / "images", parent / "masks", split or "")
        for parent, split in parents
        if (parent == root or split) and (parent / "images").is_dir() and (parent / "masks").is_dir()
    ]


def _read(root: Path, place: _Place, problems: list[Problem]) -> Iterator[tuple[Draft, Path, _Marks]]:
    """Every frame with its mask and what the mask holds."""
    masks = image_files(root, place.masks, problems)
    by_stem: defaultdict[str, list[Path]] = defaultdict(list)
    for mask in masks:
        for stem in {mask.stem, mask.stem.removesuffix("_mask"), mask.stem.removesuffix("_gt")}:
            by_stem[stem].append(mask)
    used = set()
    for image in image_files(root, place.images, problems):
        found: list[Problem] = []
        size = image_size(root, image, found)
        own = _mask_of(root, place, image, candidates=by_stem[image.stem], problems=found)
        if own is not None:
            used.add(own)
            marks = _marks(root, own, size, found)
            if marks is not None and not found:
                yield Draft(image, (), place.split or split_in(place.images, image)), own, marks
        problems += found
    problems += [Problem(short(root, mask), "mask without its image") for mask in masks if mask not in used]


def _mask_of(root: Path, place: _Place, image: Path, *, candidates: list[Path], problems: list[Problem]) -> Path | None:
    """The mask called like the image; that in the folder called like the image's goes before others."""
    home = place.masks / image.parent.relative_to(place.images)
    found = [mask for mask in candidates if mask.parent == home] or candidates
    if len(found) == 1:
        return found[0]
    listed = ", ".join(short(root, mask) for mask in found[:3])
    text = f"may have any of {len(found)} masks: {listed}" if found else "has no mask"
    problems.append(Problem(short(root, image), text))
    return None


def _marks(root: Path, mask: Path, size: tuple[int, int] | None, problems: list[Problem]) -> _Marks | None:
    pixels = open_image(root, mask, problems)
    if pixels is None or size is None:
        return None
    if pixels.shape[1::-1] != size:
        problems.append(Problem(short(root, mask), other_size((pixels.shape[1], pixels.shape[0]), size)))
        return None
    coloured = pixels.ndim == 3 and bool((pixels.min(axis=2) != pixels.max(axis=2)).any())
    codes = pixels.astype(np.int32) @ (65536, 256, 1) if coloured else pixels if pixels.ndim == 2 else pixels[:, :, 0]
    values = [int(value) for value in np.unique(codes)]
    if fault := _fault(mask, values, coloured):
        problems.append(Problem(short(root, mask), fault))
        return None
    found = [
        (f"#{value:06x}" if coloured else str(value), box, outline, area)
        for value in values
        if value
        for box, outline, area in regions(codes == value)
    ]
    kept = tuple((value, box, outline) for value, box, outline, area in found if area >= SMALLEST_REGION_PX)
    return _Marks(kept, len(found) - len(kept))


def _fault(mask: Path, values: list[int], coloured: bool) -> str:
    what = "colours" if coloured else "grey values"
    if mask.suffix.lower() in (".jpg", ".jpeg") and len(values) > 2:
        return f"has {len(values)} {what}: JPEG blurs the classes of a mask, save it as PNG"
    if len(set(values) - {0}) > _MOST_CLASSES:
        return f"has {len(values)} {what}, at most {_MOST_CLASSES} can be classes; save it without smoothing"
    return ""


def _class_names(values: set[str], listed: list[str]) -> dict[str, str]:
    """The class of each value, in the order of values; values that ``classes.txt`` should name and does not are left out."""
    lines = [line.strip() for line in listed]
    ordered = sorted(values, key=_order)
    if not any(lines):
        return {value: "defect" if len(ordered) == 1 else _plain_name(value) for value in ordered}
    first = 0 if lines[0].casefold() in _BACKGROUND else 1
    named = {str(number): line for number, line in enumerate(lines, first) if line and number}
    if values == {_WHITE} and len(named) == 1:
        return {_WHITE: next(iter(named.values()))}
    return named | {value: value for value in ordered if value.startswith("#")}


def _plain_name(value: str) -> str:
    return value if value.startswith("#") else f"class{value}"


def _order(value: str) -> tuple[bool, int]:
    coloured = value.startswith("#")
    return coloured, int(value.removeprefix("#"), 16 if coloured else 10)


def _labelled(draft: Draft, marks: _Marks, names: Mapping[str, str]) -> Draft:
    labels = tuple(LabelledBox(names[value], box, (outline,)) for value, box, outline in marks.regions)
    return Draft(draft.image, labels, draft.split)


def _notes(specks: int, names: Mapping[str, str]) -> list[str]:
    told = [f"values of the masks: {', '.join(f'{value} = {name}' for value, name in names.items())}"] if names else []
    return [*told, *([f"{specks} single pixel(s) of masks are no region and were left out"] if specks else [])]
