"""Reads the layout of Ultralytics: a YAML file that names classes and folders, and one text file an image.

    SRC/data.yaml                        names, path, train, val, test
    SRC/images/train/1.jpg               or SRC/train/images/1.jpg
    SRC/labels/train/1.txt               lines "class x y width height" or "class x1 y1 x2 y2 x3 y3 ...", as shares of 1

An image without a label file is a good part, as it is for Ultralytics.  Images in a folder "default" have no split,
whatever key names the folder.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets.importers import Problem, Survey
from datasets.importers.reading import (
    Draft,
    extent,
    files,
    finish,
    image_files,
    image_size,
    is_image,
    place_label,
    points_of,
    short,
    text_lines,
    wrong_layout,
)
from datasets.sample import LabelledBox, Polygon, Sample, Split
from inspection.errors import DriverMissing, UsageError
from inspection.types import Box

NO_SPLIT = "default"
_NAMES = re.compile(r"^\s*[\"']?names[\"']?\s*:", re.MULTILINE)
_KEYS: tuple[tuple[str, Split], ...] = (("train", "train"), ("val", "val"), ("valid", "val"), ("test", "test"))
_NO_LABELS = {"train", "val", "valid", "test", "classes"}  # lists of images, which may lie beside them


class YoloImporter:
    """Importer for a folder with a ``data.yaml``, or another YAML file with names and folders."""

    layout: str = "YOLO: SRC/data.yaml, images/train/1.jpg, labels/train/1.txt"

    def recognises(self, path: Path) -> bool:
        """Whether one YAML file in the folder has names."""
        return path.is_dir() and _yaml_file(path) is not None

    def survey(self, path: Path) -> Survey:
        """Read every image the YAML file leads to; see ``Importer``.  DriverMissing without PyYAML."""
        root = path.absolute()
        file = _yaml_file(root) if path.is_dir() else None
        if file is None:
            raise wrong_layout(path, self.layout)
        told = _read_yaml(file)
        classes = _classes(file, told)
        problems, notes = list[Problem](), list[str]()
        splits = _images(root, file, told, problems=problems, notes=notes)
        drafts: list[Draft] = []
        missing = 0
        for image, split in splits.items():
            label_file = _label_file(image)
            missing += not label_file.is_file()
            drafts += _drafts(root, image, label_file, split=split, classes=classes, problems=problems)
        if missing:
            notes.append(f"{missing} of {len(splits)} images have no label file and count as good parts")
        problems += _strays(root, set(splits))
        return finish(path, drafts, problems=problems, classes=classes, notes=notes)

    def read(self, path: Path) -> Iterator[Sample]:
        """Every sample; UsageError listing all problems at once when there are any."""
        return iter(self.survey(path).complete())


def _yaml_file(folder: Path) -> Path | None:
    found = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")], key=lambda file: (file.stem != "data", file.name))
    return next((file for file in found if _has_names(file)), None)


def _has_names(file: Path) -> bool:
    try:
        return _NAMES.search(file.read_text(encoding="utf-8-sig")) is not None
    except (OSError, UnicodeDecodeError):
        return False


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        import yaml
    except ModuleNotFoundError:
        raise DriverMissing("reading YOLO needs PyYAML", fix='install it: pip install "lineside[data]"') from None
    try:
        told = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except yaml.YAMLError as problem:
        raise UsageError(f"{file} is no valid YAML: {problem}", fix="correct the file") from None
    if not isinstance(told, dict):
        raise UsageError(f"{file} holds no keys", fix="give names, train and val")
    return told


def _classes(file: Path, told: dict[str, Any]) -> tuple[str, ...]:
    """Names by number: a list, or a mapping of the numbers from 0 on."""
    names = told["names"]
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names or len(set(map(str, names))) != len(names):
        raise UsageError(f"{file}: names must list each class once, got {names!r}", fix="correct the file")
    return tuple(str(name) for name in names)


def _images(
    root: Path, file: Path, told: dict[str, Any], *, problems: list[Problem], notes: list[str]
) -> dict[Path, Split]:
    """Every image with its split.  A test folder that is named and missing was not exported, which is common."""
    splits: dict[Path, Split] = {}
    for key, split in _KEYS:
        entries = told.get(key) or []
        for entry in entries if isinstance(entries, list) else [entries]:
            place = _place(file, str(told.get("path") or ""), str(entry))
            if place is None and key == "test":
                notes.append(f"{file.name} names {entry} for test, which is not there")
            elif place is None:
                problems.append(Problem(file.name, f"{key}: there is no {entry}"))
            for image in _listed(root, place, problems) if place else ():
                side: Split = "" if image.parent.name == NO_SPLIT else split
                if splits.setdefault(image, side) != side:
                    problems.append(Problem(short(root, image), f"is in {splits[image]!r} and in {side!r}"))
    return splits


def _place(file: Path, path: str, entry: str) -> Path | None:
    """The folder or list an entry means.  Exports often say ``../train/images`` where they mean ``train/images``."""
    plain = re.sub(r"^(\.\./)+", "", entry.replace("\\", "/"))
    tried = [file.parent / path / entry, file.parent / entry, file.parent / path / plain, file.parent / plain]
    inside = (place.resolve() for place in tried)
    return next((place for place in inside if place.exists() and place.is_relative_to(file.parent.resolve())), None)


def _listed(root: Path, place: Path, problems: list[Problem]) -> list[Path]:
    """The images in a folder, or those that the lines of a text file name."""
    place = root / place.relative_to(root.resolve())
    if place.is_dir():
        return image_files(root, place, problems)
    images = []
    for line in filter(None, map(str.strip, text_lines(root, place, problems))):
        named = [base / line.removeprefix("./") for base in (place.parent, root)]
        image = next((image for image in named if image.is_file() and image.is_relative_to(root)), None)
        if image is None:
            problems.append(Problem(short(root, place), f"names {line}, which is not there"))
        else:
            images.append(image)
    return images


def _label_file(image: Path) -> Path:
    """The text file of an image: ``labels`` instead of the last ``images`` in its path, else beside it."""
    parts = list(image.with_suffix(".txt").parts)
    for number in range(len(parts) - 2, -1, -1):
        if parts[number] == "images":
            parts[number] = "labels"
            break
    return Path(*parts)


def _strays(root: Path, images: set[Path]) -> Iterator[Problem]:
    """Label files that belong to no image, and images that no entry of the YAML file leads to."""
    wanted = {_label_file(image) for image in images}
    homes = {file.parent for file in wanted}
    for file in files(root):
        inside = file.parts[len(root.parts) :]
        labels = file.suffix == ".txt" and (file.parent in homes or "labels" in inside)
        if labels and file not in wanted and file.stem not in _NO_LABELS:
            yield Problem(short(root, file), "labels without their image")
        elif is_image(file) and file not in images and "images" in inside:
            yield Problem(short(root, file), "lies in no folder that the YAML file names")


def _drafts(
    root: Path, image: Path, file: Path, *, split: Split, classes: tuple[str, ...], problems: list[Problem]
) -> Iterator[Draft]:
    found: list[Problem] = []
    size = image_size(root, image, found)
    lines = text_lines(root, file, found) if file.is_file() else []
    labels = []
    for number, line in enumerate(lines, 1) if size else ():
        label = _label(line, size or (0, 0), classes) if line.strip() else None
        if isinstance(label, str):
            found.append(Problem(f"{short(root, file)} line {number}", label))
        elif label is not None:
            labels.append(label)
    if not found:
        yield Draft(image, tuple(labels), split)
    problems += found


def _label(line: str, size: tuple[int, int], classes: tuple[str, ...]) -> LabelledBox | str:
    """The label in one line, or what is wrong with the line."""
    try:
        number, *shares = (float(field) for field in line.split())
    except ValueError:
        return f"expected numbers, got {line.strip()!r}"
    if number not in range(len(classes)):
        return f"unknown class {line.split()[0]}, known are 0 to {len(classes) - 1} ({', '.join(classes)})"
    if len(shares) != 4 and (len(shares) < 6 or len(shares) % 2):
        return f"expected 'class x y width height' or 'class x1 y1 x2 y2 x3 y3 ...', got {len(shares) + 1} numbers"
    width, height = size
    if len(shares) == 4:
        return place_label(classes[int(number)], _box(shares, width, height), size)
    polygon = points_of([share * (height if i % 2 else width) for i, share in enumerate(shares)])
    return polygon if isinstance(polygon, str) else _outlined(classes[int(number)], polygon, size)


def _box(shares: list[float], width: int, height: int) -> Box:
    x, y, w, h = shares
    return (x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height


def _outlined(defect_class: str, polygon: Polygon, size: tuple[int, int]) -> LabelledBox | str:
    return place_label(defect_class, extent([polygon]), size, polygons=(polygon,))
