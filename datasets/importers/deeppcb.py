"""Reads DeepPCB as published: pairs of a frame and its golden template, boxes in text files.

    PCBData/
      trainval.txt, test.txt           optional: lines "group00041/00041/00041000.jpg group00041/00041_not/00041000.txt"
      group00041/00041/                00041000_test.jpg (frame), 00041000_temp.jpg (golden)
      group00041/00041_not/            00041000.txt, lines "x1 y1 x2 y2 type" with spaces or commas

Pairs that no split file names get an empty split.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datasets.importers import Problem, Survey
from datasets.sample import LabelledBox, Sample, Split
from inspection.errors import InspectionError, UsageError
from inspection.images import read_image

CLASSES = ("open", "short", "mousebite", "spur", "copper", "pin-hole")  # types 1 to 6
SPLIT_FILES: tuple[tuple[str, Split], ...] = (("trainval.txt", "train"), ("test.txt", "test"))
_FRAME = re.compile(r"(?P<stem>.+)_test(?P<suffix>\.(?:jpg|jpeg|png|bmp))", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Pair:
    """Where the three files of one sample are; ``key`` is how the split files name it, without suffix."""

    key: str
    group: str
    stem: str
    frame: Path
    golden: Path
    label_file: Path


class DeepPcbImporter:
    """Importer for the folder ``PCBData`` or the one that holds it."""

    layout: str = "DeepPCB: PCBData/group00041/00041/00041000_test.jpg, .._temp.jpg, ../00041_not/00041000.txt"

    def recognises(self, path: Path) -> bool:
        """Whether the folder, or the PCBData in it, has a group folder with images and labels."""
        return _root(path) is not None

    def survey(self, path: Path) -> Survey:
        """Read every pair on disk; see ``Importer``."""
        root = _root(path)
        if root is None:
            what = f"{path} is not laid out like DeepPCB" if path.exists() else f"{path} does not exist"
            raise UsageError(what, fix=f"give a folder like {self.layout}")
        problems: list[Problem] = []
        pairs = sorted(_pairs(root), key=lambda pair: pair.key)
        splits = _read_splits(root, {pair.key for pair in pairs}, problems)
        problems += _unpaired(root, pairs)
        repeated = {stem for stem, count in Counter(pair.stem for pair in pairs).items() if count > 1}
        samples = []
        for pair in pairs:
            found: list[Problem] = []
            labels = _checked_labels(root, pair, found)
            if not found:
                name = f"{pair.group}-{pair.stem}" if pair.stem in repeated else pair.stem
                samples.append(Sample(pair.frame, pair.golden, labels, pair.group, splits.get(pair.key, ""), name))
            problems += found
        return Survey(path, tuple(samples), tuple(problems), CLASSES)

    def read(self, path: Path) -> Iterator[Sample]:
        """Every sample; UsageError listing all problems at once when there are any."""
        return iter(self.survey(path).complete())


def _root(path: Path) -> Path | None:
    for folder in (path, path / "PCBData"):
        if folder.is_dir() and any(True for _ in _board_folders(folder)):
            return folder.absolute()
    return None


def _board_folders(root: Path) -> Iterator[tuple[Path, Path]]:
    """The folder of images and the folder of labels of each board group."""
    for labels in sorted(root.glob("group*/*_not")):
        images = labels.with_name(labels.name.removesuffix("_not"))
        if labels.is_dir() and images.is_dir():
            yield images, labels


def _pairs(root: Path) -> Iterator[_Pair]:
    for images, labels in _board_folders(root):
        for frame in images.iterdir():
            match = _FRAME.fullmatch(frame.name)
            if match is None:
                continue
            stem = match["stem"]
            golden = frame.with_name(f"{stem}_temp{match['suffix']}")
            key = (images / stem).relative_to(root).as_posix()
            yield _Pair(key, images.parent.name, stem, frame, golden, labels / f"{stem}.txt")


def _read_splits(root: Path, on_disk: set[str], problems: list[Problem]) -> dict[str, Split]:
    """Split of each frame by the split files.  A file none of whose frames are here belongs to a part left out."""
    splits: dict[str, Split] = {}
    for name, split in SPLIT_FILES:
        if not (root / name).is_file():
            continue
        lines = [(number, line) for number, line in enumerate(_lines(root, root / name, problems), 1) if line.strip()]
        keys = [line.split()[0].rpartition(".")[0] for _, line in lines]
        if not on_disk.intersection(keys):
            continue
        for (number, line), key in zip(lines, keys, strict=True):
            where = f"{name} line {number}"
            if key not in on_disk:
                problems.append(Problem(where, f"no frame {key or line.strip()!r} (_test.jpg) on disk"))
            elif splits.get(key, split) != split:
                problems.append(Problem(where, f"{key} is in {splits[key]!r} and in {split!r}"))
            else:
                splits[key] = split
    return splits


def _unpaired(root: Path, pairs: list[_Pair]) -> Iterator[Problem]:
    """Goldens and label files that belong to no frame: the sign of an incomplete copy."""
    goldens, label_files = {pair.golden for pair in pairs}, {pair.label_file for pair in pairs}
    for images, labels in _board_folders(root):
        for golden in sorted(set(images.glob("*_temp.*")) - goldens):
            yield Problem(_short(root, golden), "golden without its frame (_test)")
        for label_file in sorted(set(labels.glob("*.txt")) - label_files):
            yield Problem(_short(root, label_file), "labels without their frame (_test)")


def _checked_labels(root: Path, pair: _Pair, problems: list[Problem]) -> tuple[LabelledBox, ...]:
    """The labels of a pair after opening all its files; what is wrong goes to ``problems``."""
    size = _size(root, pair.frame, "frame", problems)
    golden_size = _size(root, pair.golden, "golden", problems)
    if size and golden_size and size != golden_size:
        text = f"frame is {size[0]}x{size[1]}, golden {golden_size[0]}x{golden_size[1]} pixels"
        problems.append(Problem(_short(root, pair.frame), text))
    if not pair.label_file.is_file():
        problems.append(Problem(_short(root, pair.label_file), "label file is missing"))
        return ()
    labels = []
    for number, line in enumerate(_lines(root, pair.label_file, problems), 1):
        label = _parse(line) if line.strip() else None
        if isinstance(label, str):
            problems.append(Problem(f"{_short(root, pair.label_file)} line {number}", label))
        elif label is not None and size and not label.inside(*size):
            text = f"box {label.box_px} reaches outside the {size[0]}x{size[1]} image"
            problems.append(Problem(f"{_short(root, pair.label_file)} line {number}", text))
        elif label is not None:
            labels.append(label)
    return tuple(labels)


def _parse(line: str) -> LabelledBox | str:
    """The box in one label line, or what is wrong with the line."""
    fields = line.replace(",", " ").split()
    try:
        x1, y1, x2, y2, number = (float(field) for field in fields)
    except ValueError:
        return f"expected 'x1 y1 x2 y2 type', got {line.strip()!r}"
    if number not in range(1, len(CLASSES) + 1):
        return f"unknown type {fields[4]}, known are 1 to {len(CLASSES)} ({', '.join(CLASSES)})"
    try:
        return LabelledBox(CLASSES[int(number) - 1], (x1, y1, x2, y2))
    except ValueError as problem:
        return str(problem)


def _size(root: Path, path: Path, role: str, problems: list[Problem]) -> tuple[int, int] | None:
    """Width and height of an image that can be read whole, else None."""
    if not path.is_file():
        problems.append(Problem(_short(root, path), f"{role} is missing"))
        return None
    try:
        height, width = read_image(path).shape[:2]
    except InspectionError as problem:
        problems.append(Problem(_short(root, path), problem.what.removeprefix(f"{path} ")))
        return None
    return width, height


def _lines(root: Path, path: Path, problems: list[Problem]) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        problems.append(Problem(_short(root, path), f"cannot be read as text: {problem}"))
        return []


def _short(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
