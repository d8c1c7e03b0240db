"""Boxes that somebody proposes and a person accepts or rejects: the model's findings, and those of a COCO file."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from datasets.relabel.judged import Row
from inspection.errors import UsageError
from inspection.images import write_whole

PROPOSED = "proposed.json"
_IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"GIF8", b"RIFF")
_LISTED = 5
_FIX = "give a COCO file with images, annotations and categories, as `lineside data export coco` writes it"
Proposal = dict[str, object]


class _Image(BaseModel):
    id: int | str
    file_name: str = Field(min_length=1)


class _Category(BaseModel):
    id: int
    name: str = Field(min_length=1)


class _Annotation(BaseModel):
    image_id: int | str
    category_id: int
    bbox: Annotated[list[float], Field(min_length=4, max_length=4)]
    score: float = 1.0


class _Coco(BaseModel):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


@dataclass(frozen=True, slots=True)
class Uploaded:
    """Proposals by name of the sample, and what of the file could not be used, in words."""

    by_name: Mapping[str, list[Proposal]]
    left_out: tuple[str, ...]

    def text(self) -> str:
        """What came of the upload, in one sentence."""
        count = sum(map(len, self.by_name.values()))
        told = f"{count} proposals for {len(self.by_name)} images"
        return f"{told}; left out: {'; '.join(self.left_out)}" if self.left_out else told


def proposed(defect_class: str, box_px: Iterable[float], score: float, source: str) -> Proposal:
    """One proposal; its id says what it is, so that an answer to it stays right when there are more."""
    box = [float(side) for side in box_px]
    name = f"{source} {defect_class} {' '.join(f'{side:g}' for side in box)}"
    return {"id": name, "defect_class": defect_class, "box_px": box, "score": score, "source": source}


def of_model(row: Row) -> list[Proposal]:
    """The findings of a model on one image (a row of `lineside predict`)."""
    return [proposed(one["class"], one["box"], one["score"], "model") for one in row["detections"]]


def read_coco(content: bytes, images: Iterable[tuple[str, Path]], classes: Iterable[str]) -> Uploaded:
    """The boxes of a COCO file for the samples (name, image) of a dataset; UsageError for anything but COCO."""
    document = _parsed(content)
    names, known = _Names(images), set(classes)
    samples = {image.id: names.of(image.file_name) for image in document.images}
    categories = {category.id: category.name for category in document.categories}
    found: defaultdict[str, list[Proposal]] = defaultdict(list)
    lost: Counter[str] = Counter()
    for row in document.annotations:
        name, category = samples.get(row.image_id), categories.get(row.category_id, "")
        fault = _fault(row, name, category, known)
        if fault or name is None:
            lost[fault] += 1
            continue
        x, y, width, height = row.bbox
        found[name].append(proposed(category, (x, y, x + width, y + height), row.score, "file"))
    left_out = [f"{count} of {fault}" for fault, count in lost.most_common(_LISTED)]
    return Uploaded(dict(found), (*left_out, *["and others"] * (len(lost) > _LISTED)))


def _parsed(content: bytes) -> _Coco:
    if content.startswith(_IMAGES):
        raise UsageError("this file is an image, not a list of proposals", fix=_FIX)
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise UsageError("this file is no JSON", fix=_FIX) from None
    if isinstance(document, list):
        raise UsageError("this is a list of results without the names of the images", fix=_FIX)
    try:
        return _Coco.model_validate(document)
    except ValidationError as problem:
        error = problem.errors(include_url=False)[0]
        place = ".".join(str(part) for part in error["loc"])
        raise UsageError(f"this JSON is no COCO ({place}: {error['msg']})", fix=_FIX) from None


def _fault(row: _Annotation, name: str | None, category: str, known: set[str]) -> str:
    """Why a row cannot be used; empty when it can."""
    if name is None:
        return "an image that this dataset does not have, or has twice"
    if category not in known:
        return f"class {category!r}, which this dataset does not have: add it, then give the file again"
    if not all(map(math.isfinite, row.bbox)) or min(row.bbox[2:]) <= 0 or not 0 <= row.score <= 1:
        return "a box without a size, or a score outside 0..1"
    return ""


class _Names:
    """Samples by the file names that a COCO file may give them; a name that two share belongs to none."""

    def __init__(self, images: Iterable[tuple[str, Path]]) -> None:
        self._found: defaultdict[str, set[str]] = defaultdict(set)
        for name, image in images:
            for key in {image.name, image.stem, name}:
                self._found[key].add(name)

    def of(self, file_name: str) -> str | None:
        path = PurePosixPath(file_name.replace("\\", "/"))
        for key in (path.name, path.stem):
            if len(self._found.get(key, ())) == 1:
                return next(iter(self._found[key]))
        return None


class Kept:
    """The uploaded proposals, kept in the cache folder so that a restart has them still."""

    def __init__(self, cache: Path) -> None:
        self._file = cache / PROPOSED
        self._by_name: dict[str, list[Proposal]] = self._read()

    def _read(self) -> dict[str, list[Proposal]]:
        try:
            kept: Any = json.loads(self._file.read_bytes())
            return {str(name): list(rows) for name, rows in kept.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}  # they can be uploaded again

    def of(self, name: str) -> list[Proposal]:
        """Those for one sample."""
        return self._by_name.get(name, [])

    def replace(self, uploaded: Uploaded) -> None:
        """Take the place of what was uploaded before; OSError when the disk does not take it."""
        write_whole(self._file, json.dumps(dict(uploaded.by_name), ensure_ascii=False).encode())
        self._by_name = dict(uploaded.by_name)
