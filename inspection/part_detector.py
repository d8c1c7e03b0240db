"""Runs a classifier or an anomaly model over a frame: scores of the whole part, and where they come from.

Each class that scores at least the floor becomes a finding.  Its place is taken from the heat map: the region around
the peak; further hot regions of the best class become findings of their own, with their share of its score.
"""

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.detector import Findings, Image, StageClock, as_batch, grey_of, infer
from inspection.errors import ModelError
from inspection.model import OUTPUTS, LoadedModel
from inspection.types import Box, Detection, FoundBy, Region

HOT = 0.5  # share of the peak from which a place belongs to the region
MOST_REGIONS = 20


class PartDetector:
    """A loaded classifier or anomaly model.  Pure in its frame; one thread at a time."""

    def __init__(self, model: LoadedModel) -> None:
        self.model = model
        self._found_by: FoundBy = "anomaly" if model.card.task == "anomaly" else "model"

    def warm_up(self, shape: tuple[int, int]) -> None:
        """Run once on an empty frame of (height, width): the first inference allocates, and is many times slower."""
        infer(self.model, self._blank(shape))

    def rehearse(self, shape: tuple[int, int]) -> None:
        """Run for nothing, so that the next frame finds everything warm; ends early when the session is interrupted."""
        self.model.session.rehearse(list(OUTPUTS[self.model.card.task]), self._blank(shape))

    def _blank(self, shape: tuple[int, int]) -> dict[str, Image]:
        return {"image": as_batch(np.zeros(shape if self.model.card.channels == 1 else (*shape, 3), np.uint8))}

    def look(self, image: Image, *, floor: float, clock: StageClock) -> Findings:
        """Findings with a score of at least ``floor`` on a frame (H, W) or (H, W, 3) uint8, best first.

        ModelError when inference fails; never an empty answer for a failure.
        """
        if self.model.card.channels == 1:
            frame = grey_of(image)
        else:
            frame = image if image.ndim == 3 else np.ascontiguousarray(np.stack([image] * 3, 2))
        scores, heat = infer(self.model, {"image": as_batch(frame)})
        row, heat = np.atleast_1d(scores[0]).astype(float), np.asarray(heat[0], np.float32)
        classes = self.model.card.classes
        if row.shape != (len(classes),) or heat.ndim != 2 or row.min() < 0 or row.max() > 1:
            raise ModelError(
                f"the model answered with {row.size} scores from {row.min():g} to {row.max():g} and a heat map of "
                f"{heat.ndim} dimensions, wanted {len(classes)} in 0..1 and 2",
                fix="export the model again",
            )
        found = sorted(self._detections(row, heat, frame.shape, floor), key=lambda detection: -detection.score)
        clock.lap("infer")
        return Findings(tuple(found), heat)

    def _detections(
        self, scores: NDArray[np.float64], heat: NDArray[np.float32], shape: tuple[int, ...], floor: float
    ) -> Iterator[Detection]:
        if scores.max() < floor:
            return
        best, regions = int(scores.argmax()), hot_regions(heat, shape)
        for index in np.flatnonzero(scores >= floor):
            name, score = self.model.card.classes[index], float(scores[index])
            for box, share in regions if index == best else regions[:1]:
                if score * share >= floor:
                    yield Detection(name, score * share, Region(box), found_by=self._found_by)


def hot_regions(heat: NDArray[np.float32], shape: tuple[int, ...]) -> list[tuple[Box, float]]:
    """Boxes in pixels of a frame (height, width, ..) around the hot regions of its map (h, w), with their peak as share
    of the highest; hottest first, at least one."""
    peak, (rows, columns) = float(heat.max()), heat.shape
    scale = (shape[1] / columns, shape[0] / rows)
    hot = (heat >= HOT * peak).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(hot, connectivity=8)
    found = []
    for number in range(1, len(stats)):
        x, y, w, h = (int(v) for v in stats[number, :4])
        share = 1.0 if peak <= 0 else float(heat[labels == number].max()) / peak
        box = (x * scale[0], y * scale[1], (x + w) * scale[0], (y + h) * scale[1])
        found.append((box, min(1.0, share)))
    return sorted(found, key=lambda pair: -pair[1])[:MOST_REGIONS]
