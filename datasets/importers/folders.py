"""Reads images sorted into one folder a class; the class says what is wrong with the part, or that it is good.

    SRC/ok_front/**/1.jpg, SRC/def_front/**/2.jpg            not split
    SRC/train/ok_front/1.jpg, SRC/test/def_front/2.jpg       train, val (valid, validation) and test

A folder called ok, good, normal, passed, io, gut ... holds good parts, every other one a class of defect.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datasets.importers import Problem, Survey
from datasets.importers.mvtec import MvtecImporter
from datasets.importers.reading import (
    Draft,
    files,
    finish,
    folders,
    image_files,
    image_size,
    is_image,
    short,
    split_of,
    wrong_layout,
)
from datasets.sample import Sample, Split
from inspection.errors import UsageError

_GOOD = {"ok", "good", "goods", "normal", "pass", "passed", "io", "gut", "flawless", "healthy", "undamaged"}
_BAD = {"defect", "defects", "defective", "damage", "damaged", "fault", "faults", "faulty", "anomaly", "anomalies"}
_NOT = {"not", "no", "non", "n", "nicht", "without", "free", "un"}
# Folders of these names hold pictures of another layout, not of a class.
_RESERVED = {"images", "annotations", "labels", "masks", "jpegimages", "imagesets", "ground_truth", "goldens"}
_LABEL_FILES = {".xml", ".json", ".txt", ".yaml", ".yml", ".csv"}


@dataclass(frozen=True, slots=True)
class _ClassFolder:
    """A folder whose images have one class."""

    path: Path
    split: Split


class FolderImporter:
    """Importer for folders of classes; ``good`` names the folders of good parts where their names do not tell."""

    layout: str = "class folders: SRC/ok/1.jpg, SRC/scratch/2.jpg, or below SRC/train, SRC/val and SRC/test"

    def __init__(self, good: tuple[str, ...] | None = None) -> None:
        self._good = good

    def recognises(self, path: Path) -> bool:
        """Whether there are folders with images and no label files, and it is no layout with folders of its own."""
        if not path.is_dir() or MvtecImporter().recognises(path):
            return False
        found = _class_folders(path)
        names = {folder.path.name.casefold() for folder in found}
        if names & _RESERVED or _nested(found) or any(_is_label_file(file) for file in path.iterdir()):
            return False
        inside = [file for folder in found for file in files(folder.path)]
        return any(map(is_image, inside)) and not any(map(_is_label_file, inside))

    def survey(self, path: Path) -> Survey:
        """Read every class folder; see ``Importer``.  A source of good parts alone is complete."""
        found = _class_folders(path.absolute()) if path.is_dir() else []
        if not any(is_image(file) for folder in found for file in files(folder.path)):
            raise wrong_layout(path, self.layout)
        if nested := _nested(found):
            listed = ", ".join(folder.path.name for folder in nested)
            raise UsageError(f"{path} holds whole data sets: {listed}", fix="give the folder of one of them")
        names = {folder.path.name for folder in found}
        good = self._good_names(path, names)
        problems = list(_strays(path.absolute(), found))
        drafts: list[Draft] = []
        for folder in found:
            drafts += _drafts(path.absolute(), folder, "" if folder.path.name in good else folder.path.name, problems)
        classes = sorted(names - good)
        if len(classes) == 1 and not good:
            text = f"all images are of the one class {classes[0]!r}: there is nothing to tell it from"
            problems.append(Problem(".", text + "; name the good folders with --good"))
        return finish(path, drafts, problems=problems, classes=classes, notes=[_told(good, classes)])

    def read(self, path: Path) -> Iterator[Sample]:
        """Every sample; UsageError listing all problems at once when there are any."""
        return iter(self.survey(path).complete())

    def _good_names(self, path: Path, names: set[str]) -> set[str]:
        if self._good is None:
            return {name for name in names if says_good(name)}
        if unknown := sorted(set(self._good) - names):
            what = f"{path} has no class folder {', '.join(unknown)}"
            raise UsageError(what, fix=f"choose from: {', '.join(sorted(names))}")
        return set(self._good)


def says_good(name: str) -> bool:
    """Whether the name of a folder says that its parts are good: ``ok_front`` and ``no_defect``, but not ``not_ok``."""
    words = set(re.split(r"[\W_]+", name.casefold().replace(".", "")))
    return bool(words & _BAD) if words & _NOT else bool(words & _GOOD) and not words & _BAD


def _told(good: set[str], classes: list[str]) -> str:
    told = f"good parts: {', '.join(sorted(good))}" if good else "no folder of good parts (name them with --good)"
    return f"{told}; classes of defects: {', '.join(classes) or 'none'}"


def _class_folders(root: Path) -> list[_ClassFolder]:
    inside = folders(root)
    splits = {folder: split for folder in inside if (split := split_of(folder.name)) is not None}
    if not splits:
        return [_ClassFolder(folder, "") for folder in inside]
    return [_ClassFolder(folder, split) for parent, split in splits.items() for folder in folders(parent)]


def _nested(found: list[_ClassFolder]) -> list[_ClassFolder]:
    """Class folders that are whole data sets: the folder above the right one was given."""
    return [folder for folder in found if any(split_of(inner.name) for inner in folders(folder.path))]


def _is_label_file(path: Path) -> bool:
    told = path.stem.casefold().startswith(("readme", "license", "licence"))
    return path.suffix.lower() in _LABEL_FILES and not told


def _strays(root: Path, found: list[_ClassFolder]) -> Iterator[Problem]:
    """Images beside the class folders, of which nobody knows the class."""
    inside = [folder.path for folder in found]
    for file in files(root):
        if is_image(file) and not any(file.is_relative_to(folder) for folder in inside):
            yield Problem(short(root, file), "lies in no class folder")


def _drafts(root: Path, folder: _ClassFolder, image_class: str, problems: list[Problem]) -> Iterator[Draft]:
    known = len(problems)
    images = image_files(root, folder.path, problems)
    if not images and len(problems) == known:
        problems.append(Problem(short(root, folder.path), "this class folder is empty"))
    for image in images:
        if image_size(root, image, problems):
            yield Draft(image, (), folder.split, image_class)
