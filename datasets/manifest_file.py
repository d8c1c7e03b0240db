"""``dataset.json`` as text: what stands in it, and the mistakes it may hold.  What it means is in ``manifest``."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from datasets.sample import LabelledBox, Sample, Split
from inspection.errors import UsageError
from inspection.types import Box

MANIFEST = "dataset.json"
SCHEMA: Literal[1] = 1
RESTORE = "restore the file, or make the dataset again with 'lineside data import'"
LISTED = 20


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Point = Annotated[list[float], Field(min_length=2, max_length=2)]


class LabelRow(_Row):
    """One label, in pixels of its image."""

    defect_class: str
    box_px: list[float] = Field(min_length=4, max_length=4)
    polygons_px: tuple[list[_Point], ...] = ()  # an empty list would be copied for each label


class SampleRow(_Row):
    """One sample; paths are relative to the folder of the file."""

    name: str
    image: str = Field(min_length=1)
    image_sha256: _Sha256
    golden: str | None = Field(min_length=1)
    golden_sha256: _Sha256 | None
    labels: list[LabelRow]
    group: str
    split: Split
    image_class: str = ""


class Manifest(_Row):
    """The whole file."""

    schema_: Literal[1] = Field(alias="schema")
    name: str
    created: str
    version: str
    classes: list[str]
    importer: str
    source: str
    samples: list[SampleRow]


def read_manifest(file: Path) -> Manifest:
    """What the file says; UsageError when it cannot be read, or listing every mistake of form in it."""
    try:
        return Manifest.model_validate_json(file.read_bytes())
    except OSError as problem:
        raise UsageError(f"cannot read {file}: {problem.strerror}", fix="give the folder of a dataset") from None
    except ValidationError as problem:
        raise UsageError(f"{file} is not a valid dataset:{listed(problem)}", fix=RESTORE) from None


def listed(problem: ValidationError) -> str:
    """The mistakes, one a line, with where they stand; very many are shortened."""
    errors = problem.errors(include_url=False)
    lines = [f"\n  {'.'.join(str(part) for part in error['loc'])}: {error['msg']}" for error in errors]
    more = len(lines) - LISTED
    return "".join(lines[:LISTED]) + (f"\n  and {more} more" if more > 0 else "")


def label_of(row: LabelRow) -> LabelledBox:
    """The label a row means; ValueError when there is none."""
    polygons = tuple(tuple((x, y) for x, y in polygon) for polygon in row.polygons_px)
    return LabelledBox(row.defect_class, _box(row.box_px), polygons)


def _box(sides: list[float]) -> Box:
    x1, y1, x2, y2 = sides
    return x1, y1, x2, y2


def label_row(label: LabelledBox) -> LabelRow:
    """The row of a label; ``label_of`` gives the label back."""
    polygons = tuple([[float(v) for v in point] for point in polygon] for polygon in label.polygons_px)
    return LabelRow(defect_class=label.defect_class, box_px=[float(v) for v in label.box_px], polygons_px=polygons)


def sample_row(sample: Sample, image: tuple[str, str], golden: tuple[str, str] | None) -> SampleRow:
    """The row of a sample; ``image`` and ``golden`` are relative path and SHA-256."""
    return SampleRow(
        name=sample.name,
        image=image[0],
        image_sha256=image[1],
        golden=golden and golden[0],
        golden_sha256=golden and golden[1],
        labels=[label_row(label) for label in sample.labels],
        group=sample.group,
        split=sample.split,
        image_class=sample.image_class,
    )


def row_text(row: SampleRow) -> str:
    """One sample as one line of JSON."""
    return row.model_dump_json(exclude_defaults=True)


def manifest_text(head: Manifest, rows: Iterable[str]) -> str:
    """The file: the fields of ``head``, whose own samples do not count, and a line for each row."""
    fields = head.model_dump_json(by_alias=True, indent=1, exclude={"samples"}).removesuffix("\n}")
    lines = ",\n".join(rows)
    return f'{fields},\n "samples": [' + (f"\n{lines}\n" if lines else "") + "]\n}\n"
