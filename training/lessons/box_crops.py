"""Training crops for the detect net: windows of labelled pictures, turned, scaled and lit anew."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from training.lessons.pictures import Floats, Picture, Turns, as_planes, draw_matrix, photometry, warped

# Beyond the picture its last row and column are repeated, as the runtime pads frames.  A mirrored border would show
# defects without labels.
BORDER = cv2.BORDER_REPLICATE
MOST_BOXES = 100  # a crop with more keeps the first ones


@dataclass(frozen=True, slots=True)
class BoxSupply:
    """What crops are cut from.  ``crop_px``: height and width of a crop, multiples of 32; ``whole``: a crop shows the
    whole picture, else a window of it at full resolution.  ``mosaic``: share of crops put together of four."""

    classes: tuple[str, ...]
    pictures: tuple[Picture, ...]
    crop_px: tuple[int, int]
    whole: bool
    turns: Turns
    seed: int
    mosaic: float = 0.3


class BoxCrops(IterableDataset):  # type: ignore[type-arg]
    """Endless seeded stream of (image (C, H, W) uint8, truth (MOST_BOXES, 6): xyxy, class index, 1 = a box)."""

    def __init__(self, supply: BoxSupply, *, start: int = 0) -> None:
        self.supply = supply
        self.start = start

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        worker = torch.utils.data.get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        cv2.setNumThreads(1)
        # Worker and position are part of the seed, so a resumed run goes on with new crops.
        rng = np.random.default_rng((self.supply.seed, self.start, number, workers))
        light = photometry(int(rng.integers(2**31)))
        labelled = [i for i, picture in enumerate(self.supply.pictures) if len(picture.labels)]
        while True:
            crop = draw_mosaic(self.supply, labelled, rng) if rng.random() < self.supply.mosaic else None
            crop = crop or draw_crop(self.supply, labelled, rng)
            image = light(image=crop.image)["image"]
            yield as_planes(image), torch.from_numpy(_padded(crop.labels))


def _padded(labels: Floats) -> Floats:
    rows = np.zeros((MOST_BOXES, 6), np.float32)
    shown = labels[:MOST_BOXES]
    rows[: len(shown), :5] = shown
    rows[: len(shown), 5] = 1
    return rows


def draw_crop(supply: BoxSupply, labelled: list[int], rng: np.random.Generator) -> Picture:
    """One turned and scaled window; three of four show a box where there are any."""
    about_box = bool(labelled) and rng.random() < 0.75
    number = int(rng.choice(labelled)) if about_box else int(rng.integers(len(supply.pictures)))
    picture = supply.pictures[number]
    if supply.whole:
        shape = picture.image.shape[:2]
        scale = min(1.0, supply.crop_px[0] / shape[0], supply.crop_px[1] / shape[1])
        turned = (round(scale * shape[0]), round(scale * shape[1]))
        return warped(picture, draw_matrix(rng, shape, turned, supply.turns), supply.crop_px, border=BORDER)  # type: ignore[arg-type]
    return _window(picture, supply, rng, about_box=about_box)


def _window(picture: Picture, supply: BoxSupply, rng: np.random.Generator, *, about_box: bool) -> Picture:
    """A window at full resolution (but for the drawn scale) around a box, or anywhere."""
    (rows, columns), (height, width) = supply.crop_px, picture.image.shape[:2]
    turns = replace(supply.turns, shift=0.0)
    matrix = draw_matrix(rng, supply.crop_px, supply.crop_px, turns)  # turns about the middle of the crop
    centre = np.array([rng.uniform(0, width), rng.uniform(0, height)])
    if about_box and len(picture.labels):
        x1, y1, x2, y2 = picture.labels[int(rng.integers(len(picture.labels))), :4]
        centre = np.array([(x1 + x2) / 2, (y1 + y2) / 2])
        centre += rng.uniform(-0.4, 0.4, 2) * (columns, rows)
    low = np.minimum((columns / 2, rows / 2), (width / 2, height / 2))
    centre = np.clip(centre, low, (width, height) - low)
    offset = centre - (columns / 2, rows / 2)
    matrix = matrix.copy()
    matrix[:, 2] -= matrix[:, :2] @ offset.astype(np.float32)
    return warped(picture, matrix, supply.crop_px, border=BORDER)


def draw_mosaic(supply: BoxSupply, labelled: list[int], rng: np.random.Generator) -> Picture | None:
    """Four crops at half size side by side: small objects, other surroundings, twice the variety a step
    (Bochkovskiy et al. 2020).  None for crops too small to be quartered."""
    rows, columns = supply.crop_px
    if min(rows, columns) < 128:
        return None
    half = replace(supply, crop_px=(rows // 2, columns // 2))
    parts = [draw_crop(half, labelled, rng) for _ in range(4)]
    image = np.vstack([np.hstack([parts[0].image, parts[1].image]), np.hstack([parts[2].image, parts[3].image])])
    corners = [(0, 0), (columns // 2, 0), (0, rows // 2), (columns // 2, rows // 2)]
    labels = [part.labels + np.array([x, y, x, y, 0], np.float32) for part, (x, y) in zip(parts, corners, strict=True)]
    return replace(parts[0], image=image, labels=np.concatenate(labels), polygons=())
