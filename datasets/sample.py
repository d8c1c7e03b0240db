"""One labelled image: the unit every importer gives and every trainer takes."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from inspection.errors import FrameCorrupt, UsageError
from inspection.images import Image, read_grey
from inspection.types import Box

Split = Literal["train", "val", "test", ""]
SPLITS: tuple[Split, ...] = get_args(Split)
Polygon: TypeAlias = tuple[tuple[float, float], ...]
_CORNERS = 3


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, slots=True)
class LabelledBox:
    """A defect a person (or the generator) marked: its class and its box in pixels of the image.

    ``polygons_px`` are its outlines, each three or more points (x, y) in pixels of the image; none when only the box is
    known.  Masks and run lengths become polygons, and the holes in them are not kept.
    """

    defect_class: str
    box_px: Box
    polygons_px: tuple[Polygon, ...] = ()

    def __post_init__(self) -> None:
        _require(bool(self.defect_class), "defect_class is empty")
        _require(len(self.box_px) == 4, f"a box has four sides, got {self.box_px}")
        _require(all(math.isfinite(v) for v in self.box_px), f"box has a non-finite side: {self.box_px}")
        x1, y1, x2, y2 = self.box_px
        _require(x2 > x1 and y2 > y1, f"box must have x2 > x1 and y2 > y1, got {self.box_px}")
        for polygon in self.polygons_px:
            _require(len(polygon) >= _CORNERS, f"a polygon has three or more points, got {len(polygon)}")
            _require(all(len(point) == 2 for point in polygon), f"a point of a polygon has x and y, got {polygon}")
            _require(all(math.isfinite(v) for point in polygon for v in point), f"polygon is not finite: {polygon}")

    def inside(self, width: int, height: int) -> bool:
        """Whether the box lies wholly within an image of this size."""
        x1, y1, x2, y2 = self.box_px
        return x1 >= 0 and y1 >= 0 and x2 <= width and y2 <= height


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with its labels; no labels and no ``image_class`` means a person found no defect (a good part).

    ``image_class`` is the defect class a person gave to the image as a whole; empty when only boxes speak.
    ``group`` names what must not be torn apart by a split: a board type, a lot, a part photographed twice.
    ``split`` is empty while the dataset is not split.  ``name`` is unique in its dataset.
    """

    image: Path
    golden: Path | None
    labels: tuple[LabelledBox, ...]
    group: str
    split: Split
    name: str
    image_class: str = ""

    def __post_init__(self) -> None:
        _require(bool(self.name.strip()), "name is empty")
        _require(bool(self.group.strip()), f"sample {self.name!r} has an empty group")
        _require(self.split in SPLITS, f"sample {self.name!r}: split must be one of {SPLITS}, got {self.split!r}")
        blank = bool(self.image_class) and not self.image_class.strip()
        _require(not blank, f"sample {self.name!r} has a blank image_class")

    @property
    def defective(self) -> bool:
        """Whether a person found a defect, with or without marking where."""
        return bool(self.labels) or bool(self.image_class)

    @property
    def defect_classes(self) -> frozenset[str]:
        """The classes of the boxes and of the image as a whole; empty for a good part."""
        return frozenset(label.defect_class for label in self.labels) | ({self.image_class} - {""})


def load_grey(path: Path) -> Image:
    """The image file as grey ``(H, W)`` uint8; UsageError when it is missing, no image, empty or truncated.

    Colour becomes luma, a fully opaque alpha channel is dropped; transparent pixels and 16 bits are refused.
    """
    try:
        return read_grey(path)
    except FrameCorrupt as problem:
        raise UsageError(problem.what, fix=problem.fix) from problem
