"""A set of generated parts of one product, some with defects, as labelled samples."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.importers.outlines import regions
from datasets.sample import LabelledBox, Sample
from datasets.synth.casting_defects import CastingDefect
from datasets.synth.casting_shapes import CastingDesign, draw_design
from datasets.synth.castings import generate_casting
from inspection.images import write_png

Image = NDArray[np.uint8]
_LOTS = 10  # groups that a split can hold out
_TRIES = 5  # a defective part is drawn again when no defect found room


@dataclass(frozen=True, slots=True, eq=False)
class CastingPart:
    """One generated part: its picture (H, W) uint8 and the defects in it."""

    image: Image
    defects: tuple[CastingDefect, ...]


def draw_part(design: CastingDesign, seed: tuple[int, int], *, defects: int) -> CastingPart:
    """Part number ``seed[1]`` of set ``seed[0]``: good when ``defects`` is 0, else with one to so many defects."""
    rng = np.random.default_rng([*seed, 1])
    for _ in range(_TRIES):
        wanted = int(rng.integers(1, defects + 1)) if defects else 0
        part = CastingPart(*generate_casting(rng, design, defects=wanted))
        if len(part.defects) > 0 or not wanted:
            break
    return part


def defective_parts(parts: int, share: float, seed: int) -> NDArray[np.bool_]:
    """Which of so many parts (N,) are defective: the share, rounded, at random places."""
    chosen = np.zeros(parts, bool)
    chosen[np.random.default_rng([seed, 0]).permutation(parts)[: round(parts * share)]] = True
    return chosen


def draw_product(seed: int) -> CastingDesign:
    """The product of a set."""
    return draw_design(np.random.default_rng([seed]))


def write_part(folder: Path, number: int, part: CastingPart) -> Sample:
    """Write one part's picture into the folder; its sample, with an outline for each region of a defect."""
    path = folder / f"part{number:06d}.png"
    write_png(path, part.image)
    labels = tuple(
        LabelledBox(defect.defect_class, defect.box_px, tuple(outline for _, outline, _ in regions(defect.mask)))
        for defect in part.defects
    )
    return Sample(path, None, labels, f"lot{number % _LOTS}", "", path.stem)
