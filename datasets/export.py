"""Writes a dataset in the layouts that CVAT, Label Studio and trainers read: COCO and YOLO.

    FOLDER/annotations/instances_train.json, FOLDER/images/train/NAME.png       COCO; "default" for what has no split
    FOLDER/data.yaml, FOLDER/images/train/NAME.png, FOLDER/labels/train/NAME.txt       YOLO; one split or all samples

Read back by our importers, images, classes, boxes, outlines and splits are the same.  What a layout cannot hold is
refused, or left out and listed.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from datasets.importers.coco import OWN_KEY
from datasets.importers.reading import extent
from datasets.importers.yolo import NO_SPLIT
from datasets.manifest import Dataset, changed_files
from datasets.sample import SPLITS, LabelledBox, Polygon, Sample
from inspection.errors import InspectionError, UsageError
from inspection.images import read_bytes, read_image
from inspection.types import new_id

_UNSAFE = re.compile(r'[\\/:*?"<>|\x00-\x1f]')
_LISTED = 5
_SAME_PX = 1e-3


def export(name: str, dataset: Dataset, folder: Path, *, lossy: bool) -> tuple[str, ...]:
    """Write the dataset to a new folder, which appears whole or not at all; gives notes on what is not in it.

    UsageError: the folder is not empty, an image is missing or changed, or the layout cannot hold everything and
    ``lossy`` is not set.
    """
    write, losses_of = FORMATS[name]
    losses, notes = losses_of(dataset)
    if losses and not lossy:
        what = f"{name} cannot hold all of {dataset.name}:" + "".join(f"\n  {loss}" for loss in losses)
        raise UsageError(what, fix="export another format, or give --lossy to leave this out")
    if changed := changed_files(dataset):
        listed = ", ".join(map(str, changed[:_LISTED]))
        raise UsageError(f"{len(changed)} image(s) are missing or changed: {listed}", fix="restore these files")
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not an empty folder", fix="give a new folder")
    partial = folder.parent / f".{folder.name}.{new_id()[:8]}.partial"
    try:
        partial.mkdir(parents=True)
        write(dataset, partial)
        partial.replace(folder)
    except OSError as problem:
        raise UsageError(f"cannot write {folder}: {problem.strerror}", fix="check free space and permissions") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return (*(f"left out: {loss}" for loss in losses), *notes)


def _named(samples: Sequence[Sample], number: int = 0) -> str:
    """How many samples, and the names of the first."""
    names = [sample.name for sample in samples]
    return f"{number or len(names)} ({', '.join(names[:_LISTED])}{', ...' * (len(names) > _LISTED)})"


def file_names(dataset: Dataset) -> list[str]:
    """A file name for each sample, unique in the dataset and allowed on every system."""
    taken: set[str] = set()
    names = []
    for sample in dataset.samples:
        stem = _UNSAFE.sub("_", sample.name).strip(". ") or "image"
        name, number = stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        names.append(name + sample.image.suffix)
    return names


def _size(sample: Sample) -> tuple[int, int]:
    try:
        height, width = read_image(sample.image).shape[:2]
    except InspectionError as problem:
        raise UsageError(problem.what, fix=problem.fix) from problem
    return width, height


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(read_bytes(source))


def _coco_losses(dataset: Dataset) -> tuple[list[str], list[str]]:
    """COCO files hold all; what other programs do not see of it is told."""
    notes = []
    if unmarked := [sample for sample in dataset.samples if sample.image_class and not sample.labels]:
        told = f"class of the whole image: {_named(unmarked)} have no box; other programs show them like good parts"
        notes.append(told + " and lose the class when they write the file anew")
    if guided := [sample for sample in dataset.samples if sample.golden]:
        notes.append(f"goldens: {_named(guided)} keep theirs only where the file is read unchanged")
    return [], notes


def _write_coco(dataset: Dataset, folder: Path) -> None:
    names = file_names(dataset)
    goldens: dict[Path, str] = {}
    for split in sorted({sample.split for sample in dataset.samples}):
        chosen = [(s, name) for s, name in zip(dataset.samples, names, strict=True) if s.split == split]
        place = folder / "images" / (split or NO_SPLIT)
        for sample, name in chosen:
            _copy(sample.image, place / name)
            if sample.golden and sample.golden not in goldens:
                goldens[sample.golden] = f"goldens/{len(goldens) + 1:06d}{sample.golden.suffix}"
                _copy(sample.golden, folder / goldens[sample.golden])
        file = folder / "annotations" / f"instances_{split or NO_SPLIT}.json"
        file.parent.mkdir(exist_ok=True)
        document = _coco_document(dataset, chosen, goldens)
        file.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _coco_document(
    dataset: Dataset, chosen: Sequence[tuple[Sample, str]], goldens: dict[Path, str]
) -> dict[str, object]:
    images, annotations = [], list[dict[str, object]]()
    for number, (sample, name) in enumerate(chosen, 1):
        width, height = _size(sample)
        own = {"name": sample.name, "group": sample.group, "image_class": sample.image_class}
        own["golden"] = goldens[sample.golden] if sample.golden else ""
        images.append({"id": number, "file_name": name, "width": width, "height": height, OWN_KEY: own})
        for label in sample.labels:
            row = _coco_annotation(label, dataset.classes.index(label.defect_class) + 1)
            annotations.append({"id": len(annotations) + 1, "image_id": number, **row})
    categories = [{"id": i, "name": name, "supercategory": ""} for i, name in enumerate(dataset.classes, 1)]
    info = {"description": f"{dataset.name}, version {dataset.version}"}
    return {
        "info": info, "licenses": [], "images": images, "annotations": annotations, "categories": categories
    }  # fmt: skip


def _coco_annotation(label: LabelledBox, category: int) -> dict[str, object]:
    x1, y1, x2, y2 = (float(side) for side in label.box_px)
    area = sum(map(_area, label.polygons_px)) if label.polygons_px else (x2 - x1) * (y2 - y1)
    return {
        "category_id": category,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "segmentation": [[float(v) for point in polygon for v in point] for polygon in label.polygons_px],
        "area": area,
        "iscrowd": 0,
    }


def _area(polygon: Polygon) -> float:
    """Area of a polygon in square pixels."""
    ends = zip(polygon, (*polygon[1:], polygon[0]), strict=True)
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in ends)) / 2


def _yolo_losses(dataset: Dataset) -> tuple[list[str], list[str]]:
    """What a line of a class and a box or an outline cannot say.  One file holds either boxes or outlines."""
    samples = dataset.samples
    kinds = {
        "class of the whole image": [s for s in samples if s.image_class],
        "golden template": [s for s in samples if s.golden],
        "group": [s for s in samples if s.group != s.name],
        "outlines beside boxes, in several parts, or with a box of their own": [
            s for s in samples if not _all_outlined(s) and any(label.polygons_px for label in s.labels)
        ],
    }
    losses = [f"{kind}: {_named(found)}" for kind, found in kinds.items() if found]
    missing = [split for split in ("train", "val") if split not in {sample.split for sample in samples}]
    notes = [f"no sample is in {' or '.join(missing)}: trainers want both"] if missing else []
    return losses, notes


def _all_outlined(sample: Sample) -> bool:
    """Whether every label is one outline and its box no more than that."""
    return all(len(label.polygons_px) == 1 and _fits(label) for label in sample.labels)


def _fits(label: LabelledBox) -> bool:
    sides = zip(extent(label.polygons_px), label.box_px, strict=True)
    return all(abs(outline - box) <= _SAME_PX for outline, box in sides)


def _write_yolo(dataset: Dataset, folder: Path) -> None:
    for sample, name in zip(dataset.samples, file_names(dataset), strict=True):
        split = sample.split or NO_SPLIT
        _copy(sample.image, folder / "images" / split / name)
        label_file = (folder / "labels" / split / name).with_suffix(".txt")
        label_file.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{line}\n" for line in _yolo_lines(sample, dataset.classes))
        label_file.write_text(text, encoding="utf-8")
    present = sorted(entry.name for entry in (folder / "images").iterdir())
    (folder / "data.yaml").write_text(_data_yaml(dataset, present), encoding="utf-8")


def _yolo_lines(sample: Sample, classes: Sequence[str]) -> Iterator[str]:
    width, height = _size(sample)
    outlined = _all_outlined(sample)
    for label in sample.labels:
        x1, y1, x2, y2 = label.box_px
        shares = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
        if outlined:
            shares = [share for x, y in label.polygons_px[0] for share in (x / width, y / height)]
        yield " ".join([str(classes.index(label.defect_class)), *(f"{share:.9g}" for share in shares)])


def _data_yaml(dataset: Dataset, present: Sequence[str]) -> str:
    """The file as text; JSON strings are YAML strings, so names need no YAML library."""
    named = [f"  {number}: {json.dumps(name, ensure_ascii=False)}" for number, name in enumerate(dataset.classes)]
    folders = {split: [f"images/{split}"] for split in SPLITS if split in present}
    if NO_SPLIT in present:
        folders.setdefault("train", []).append(f"images/{NO_SPLIT}")
    lines = [f"{key}: {json.dumps(places)}" for key, places in folders.items()]
    return "\n".join([f"# {json.dumps(dataset.name)}, version {dataset.version}", *lines, "names:", *named]) + "\n"


Writer = Callable[[Dataset, Path], None]
Losses = Callable[[Dataset], tuple[list[str], list[str]]]
FORMATS: dict[str, tuple[Writer, Losses]] = {"coco": (_write_coco, _coco_losses), "yolo": (_write_yolo, _yolo_losses)}
