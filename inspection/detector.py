"""Runs the model over a frame and returns findings in frame pixels.  One path for stations, predict and evaluate.

A frame larger than the model's tile is cut into overlapping tiles; a finding counts for the tile whose core holds its
centre.  Two tiles place the same defect a pixel or two apart, so near a seam both are heard and the repetition is left
out: none is doubled or lost.  Memory stays bounded: one tile is in work at a time.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.errors import ModelError
from inspection.geometry import Tile, compose, invert, seen_again, tiles
from inspection.golden import GoldenTemplate, Registration, RegistrationLimits, lay_over, refine, register
from inspection.model import OUTPUTS, LoadedModel
from inspection.types import Box, Detection, Region

Image = NDArray[np.uint8]
OVERLAP_PX = 128
SEAM_PX = 8  # how far beyond its core a tile is still heard
_TILE_GOOD = 0.5  # correlation a refined tile must reach before its own shift is believed


@dataclass(slots=True)
class StageClock:
    """Milliseconds spent in each stage, summed over tiles."""

    stages: dict[str, float] = field(default_factory=dict)
    _mark: float = field(default_factory=time.perf_counter)

    def lap(self, stage: str) -> None:
        """Book the time since the last lap on ``stage``."""
        now = time.perf_counter()
        self.stages[stage] = self.stages.get(stage, 0.0) + 1000 * (now - self._mark)
        self._mark = now

    def total(self) -> float:
        """Sum of all stages in milliseconds."""
        return sum(self.stages.values())


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """What was found on a frame, best first; ``heat`` (h, w) float32 in 0..1 spans the frame where the model gives one.

    ``registration`` is where the golden lies on the frame, for a model that compares with one.
    """

    detections: tuple[Detection, ...]
    heat: NDArray[np.float32] | None = None
    registration: Registration | None = None


def grey_of(image: Image) -> Image:
    """(H, W) grey of a grey or RGB frame (ITU-R BT.601 luma)."""
    return image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


class Detector:
    """A loaded model with its golden template, if it uses one.  Pure in its frame; one thread at a time."""

    def __init__(self, model: LoadedModel, golden: GoldenTemplate | None, limits: RegistrationLimits) -> None:
        if model.card.golden_guided and golden is None:
            raise ModelError(
                f"model {model.card.name!r} compares with a golden template, and there is none",
                fix="give --golden FILE, or name golden.png in the recipe",
            )
        if model.card.golden_guided and model.card.channels != 1:
            raise ModelError(
                f"model {model.card.name!r} compares colour frames with a golden template, which is not supported",
                fix="train a golden-guided model on grey images",
            )
        self.model = model
        self.golden = golden
        self.limits = limits

    def warm_up(self, shape: tuple[int, int]) -> None:
        """Run once on an empty frame of (height, width): the first inference allocates, and is many times slower."""
        infer(self.model, self._blank(shape))

    def rehearse(self, shape: tuple[int, int]) -> None:
        """Run for nothing, so that the next frame finds everything warm; ends early when the session is interrupted."""
        self.model.session.rehearse(list(OUTPUTS[self.model.card.task]), self._blank(shape))

    def _blank(self, shape: tuple[int, int]) -> dict[str, Image]:
        """An empty first tile of a frame of (height, width)."""
        card = self.model.card
        _, _, x2, y2 = next(_tiles(shape, card.tile_px)).window
        blank = np.zeros((y2, x2) if card.channels == 1 else (y2, x2, 3), np.uint8)
        return {"image": _padded(blank)} | ({"golden": _padded(blank)} if card.golden_guided else {})

    def look(self, image: Image, *, floor: float, clock: StageClock) -> Findings:
        """Findings with a score of at least ``floor`` on a frame (H, W) or (H, W, 3) uint8, best first.

        RegistrationError when the frame cannot be laid over its golden, ModelError when inference fails; never an
        empty answer for a failure.
        """
        frame = grey_of(image) if self.model.card.channels == 1 else image
        golden = self.golden if self.model.card.golden_guided else None
        registration = None
        if golden is not None:
            registration = register(grey_of(image), golden, self.limits)
            clock.lap("register")
        found: list[tuple[Detection, int]] = []
        grid = list(_tiles(frame.shape, self.model.card.tile_px))
        for number, tile in enumerate(grid):
            laid = None
            if golden is not None and registration is not None:
                laid = laid_golden(golden.image, frame, registration, tile, fine=len(grid) > 1)
                clock.lap("lay_over")
            found.extend((detection, number) for detection in self._infer(frame, laid, tile, floor=floor))
            clock.lap("infer")
        return Findings(_each_once(found, grid), registration=registration)

    def _infer(self, frame: Image, golden: Image | None, tile: Tile, *, floor: float = 1.0) -> Iterator[Detection]:
        x1, y1, x2, y2 = tile.window
        feed = {"image": _padded(frame[y1:y2, x1:x2])}
        if golden is not None:
            feed["golden"] = _padded(golden)
        boxes, scores, labels = infer(self.model, feed)
        known = len(self.model.card.classes)
        if np.any((labels[scores > 0] < 0) | (labels[scores > 0] >= known)):
            raise ModelError(
                f"the model answered with a class beyond the {known} of its card", fix="export the model again"
            )
        return self._detections(boxes[0], scores[0], labels[0], tile=tile, floor=floor, shape=frame.shape)

    def _detections(
        self, boxes: NDArray[np.float32], scores: NDArray[np.float32], labels: NDArray[np.int64], *,
        tile: Tile, floor: float, shape: tuple[int, ...],
    ) -> Iterator[Detection]:  # fmt: skip
        height, width = shape[:2]
        classes = self.model.card.classes
        for index in np.flatnonzero(scores >= max(floor, 1e-6)):
            x1, y1, x2, y2 = (float(v) for v in boxes[index] + np.tile(tile.window[:2], 2))
            if not _hears(tile, (x1 + x2) / 2, (y1 + y2) / 2):
                continue
            box: Box = (max(0.0, x1), max(0.0, y1), min(float(width), x2), min(float(height), y2))
            if box[2] > box[0] and box[3] > box[1]:
                score = min(1.0, float(scores[index]))
                yield Detection(classes[int(labels[index])], score, Region(box))


def _tiles(shape: tuple[int, ...], side: int) -> Iterator[Tile]:
    return tiles(shape[1], shape[0], side=side, overlap=min(OVERLAP_PX, side // 2))


def _hears(tile: Tile, x: float, y: float) -> bool:
    left, top, right, bottom = tile.core
    return left - SEAM_PX <= x < right + SEAM_PX and top - SEAM_PX <= y < bottom + SEAM_PX


def _near_seam(detection: Detection, tile: Tile) -> bool:
    x1, y1, x2, y2 = detection.region.xyxy_px
    sides = zip(((x1 + x2) / 2, (y1 + y2) / 2) * 2, tile.core, strict=True)
    return any(abs(centre - side) <= 2 * SEAM_PX for centre, side in sides)


def _each_once(found: list[tuple[Detection, int]], grid: list[Tile]) -> tuple[Detection, ...]:
    """The findings of all tiles (with the number of their tile), best first, without those that two tiles gave."""
    found = sorted(found, key=lambda pair: -pair[0].score)
    seams = [row for row, (detection, number) in enumerate(found) if _near_seam(detection, grid[number])]
    names = sorted({detection.defect_class for detection, _ in found})
    boxes = np.array([found[row][0].region.xyxy_px for row in seams], np.float64).reshape(-1, 4)
    labels = np.array([names.index(found[row][0].defect_class) for row in seams], np.int64)
    owners = np.array([found[row][1] for row in seams], np.int64)
    again = {row for row, repeated in zip(seams, seen_again(boxes, labels, owners), strict=True) if repeated}
    return tuple(detection for row, (detection, _) in enumerate(found) if row not in again)


def infer(model: LoadedModel, feed: dict[str, Image]) -> list[Any]:
    """The outputs of the model's task, in the order of the contract; ModelError when it fails or answers nonsense."""
    try:
        outputs = model.session.run(list(OUTPUTS[model.card.task]), feed)
    except Exception as error:  # onnxruntime raises a dozen unrelated classes here
        shape = "x".join(str(side) for side in feed["image"].shape[2:0:-1])
        raise ModelError(
            f"inference failed on a {shape} px image ({str(error).splitlines()[0][:160]})",
            fix="check that the model file fits the camera's image; restart the station if memory ran out",
        ) from error
    if not all(np.isfinite(output).all() for output in outputs):
        raise ModelError("the model answered with numbers that are not finite", fix="export the model again")
    return outputs


def as_batch(part: Image) -> Image:
    """(H, W) or (H, W, 3) as (1, H, W, C)."""
    return np.ascontiguousarray((part if part.ndim == 3 else part[:, :, None])[None])


def laid_golden(golden: Image, frame: Image, registration: Registration, tile: Tile, *, fine: bool) -> Image:
    """The golden (H, W) as the frame shows it in the tile's window."""
    laid = lay_over(golden, frame, registration.matrix, tile.window)
    if not fine:
        return laid
    # The transform of a large frame was found at a fraction of its size: each tile is aligned once more.
    x1, y1, x2, y2 = tile.window
    matrix, fit = refine(frame[y1:y2, x1:x2], laid)
    shift = np.abs(matrix - np.eye(2, 3))
    if fit < _TILE_GOOD or shift[:, 2].max() > 24:
        return laid
    here = np.array([[1.0, 0, x1], [0, 1.0, y1]])
    moved = compose(here, compose(matrix, compose(invert(here), registration.matrix)))
    return lay_over(golden, frame, moved, tile.window)


def _padded(part: Image) -> Image:
    """(1, H, W, C) with height and width padded to multiples of 32 by repeating the last row and column."""
    bottom, right = -part.shape[0] % 32, -part.shape[1] % 32
    if bottom or right:
        part = np.asarray(cv2.copyMakeBorder(part, 0, bottom, 0, right, cv2.BORDER_REPLICATE), dtype=np.uint8)
    return as_batch(part)
