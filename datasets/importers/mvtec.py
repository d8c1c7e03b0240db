"""Reads one category of MVTec AD, and data sets laid out like it: good parts to train on, defects to test with.

bottle/train/good/000.png
bottle/test/good/000.png, bottle/test/broken_large/000.png
bottle/ground_truth/broken_large/000_mask.png            optional
"""

from collections.abc import Iterator
from pathlib import Path

from datasets.importers import Problem, Survey
from datasets.importers.outlines import regions
from datasets.importers.reading import (
    Draft,
    finish,
    folders,
    image_files,
    image_size,
    open_image,
    other_size,
    short,
    split_of,
    wrong_layout,
)
from datasets.sample import LabelledBox, Sample
from inspection.errors import UsageError

_GOOD = "good"


class MvtecImporter:
    """Importer for the folder of one category."""

    layout: str = "MVTec AD: CATEGORY/train/good/000.png, test/DEFECT/000.png, ground_truth/DEFECT/000_mask.png"

    def recognises(self, path: Path) -> bool:
        """Whether the folder is a category, or holds categories to choose from."""
        return _is_category(path) or bool(_categories(path))

    def survey(self, path: Path) -> Survey:
        """Read one category; see ``Importer``.  UsageError naming the categories when the folder holds several."""
        if not _is_category(path):
            if categories := _categories(path):
                fix = f"import one of them: {', '.join(folder.name for folder in categories)}"
                raise UsageError(f"{path} holds {len(categories)} categories", fix=fix)
            raise wrong_layout(path, self.layout)
        root = path.absolute()
        problems: list[Problem] = []
        masks = _masks(root, problems)
        drafts: list[Draft] = []
        kinds = [folder for part in folders(root) if split_of(part.name) for folder in folders(part)]
        for folder in kinds:
            drafts += _drafts(root, folder, masks, problems)
        problems += [Problem(short(root, mask), "mask without its image") for mask in masks.values()]
        classes = sorted({folder.name for folder in kinds} - {_GOOD})
        notes = [] if (root / "ground_truth").is_dir() else ["no ground_truth: defects have a class and no place"]
        return finish(path, drafts, problems=problems, classes=classes, notes=notes)

    def read(self, path: Path) -> Iterator[Sample]:
        """Every sample; UsageError listing all problems at once when there are any."""
        return iter(self.survey(path).complete())


def _is_category(path: Path) -> bool:
    if not (path / "train" / _GOOD).is_dir() or not (path / "test").is_dir():
        return False
    return [folder.name for folder in folders(path / "train")] == [_GOOD] and bool(folders(path / "test"))


def _categories(path: Path) -> list[Path]:
    return [folder for folder in folders(path) if _is_category(folder)] if path.is_dir() else []


def _masks(root: Path, problems: list[Problem]) -> dict[tuple[str, str], Path]:
    """The mask files by class and by the stem of their image."""
    if not (root / "ground_truth").is_dir():
        return {}
    found = image_files(root, root / "ground_truth", problems)
    return {(mask.parent.name, mask.stem.removesuffix("_mask")): mask for mask in found}


def _drafts(root: Path, folder: Path, masks: dict[tuple[str, str], Path], problems: list[Problem]) -> Iterator[Draft]:
    """The samples in the folder of one kind of part; their masks are taken out of ``masks``."""
    images = image_files(root, folder, problems)
    if not images:
        problems.append(Problem(short(root, folder), "this folder is empty"))
    image_class = "" if folder.name == _GOOD else folder.name
    for image in images:
        found: list[Problem] = []
        size = image_size(root, image, found)
        labels: tuple[LabelledBox, ...] = ()
        mask = masks.pop((folder.name, image.stem), None) if image_class else None
        if mask is not None:
            labels = _labels(root, mask, image_class, size=size, problems=found)
        elif image_class and (root / "ground_truth").is_dir():
            found.append(Problem(short(root, image), "has no mask in ground_truth"))
        if not found:
            yield Draft(image, labels, split_of(folder.parent.name) or "", image_class)
        problems += found


def _labels(
    root: Path, mask: Path, image_class: str, *, size: tuple[int, int] | None, problems: list[Problem]
) -> tuple[LabelledBox, ...]:
    pixels = open_image(root, mask, problems)
    if pixels is None or size is None:
        return ()
    height, width = pixels.shape[:2]
    if (width, height) != size:
        problems.append(Problem(short(root, mask), other_size((width, height), size)))
        return ()
    grey = pixels if pixels.ndim == 2 else pixels.max(axis=2)
    # JPEG leaves faint rings around what is marked.
    found = regions(grey > (127 if mask.suffix.lower() in (".jpg", ".jpeg") else 0))
    labels = tuple(LabelledBox(image_class, box, (outline,)) for box, outline, _ in found)
    if not labels:
        problems.append(Problem(short(root, mask), "marks nothing: all of it is black"))
    return labels
