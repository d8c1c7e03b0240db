"""Training crops for the part net: labelled parts, good parts with injected defects, and good parts left as they are."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import albumentations as A  # noqa: N812
import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from datasets.synth.casting_defects import CastingDefectStyle, inject_casting_defects
from datasets.synth.casting_shams import inject_shams
from training.lessons.pictures import Floats, Picture, Turns, as_planes, draw_matrix, photometry, warped
from training.models.part_net import STRIDE

UNKNOWN = -1.0  # in a target: nobody knows
STOCK = 400  # injected parts kept by each worker
REUSE = 0.7  # share of injected parts taken from the stock
Injected = tuple[Picture, NDArray[np.uint8] | None]


@dataclass(frozen=True, slots=True)
class PartSupply:
    """What crops are made of.  ``size``: height and width of the net's input, multiples of 16.

    ``injected``: share of crops that are good parts with injected defects, of class ``injected_class``, until
    the share ``inject_until`` of the run;
    ``shams``: share of the good ones that are retouched harmlessly, so that retouching is not what is learnt.
    """

    classes: tuple[str, ...]
    pictures: tuple[Picture, ...]
    size: tuple[int, int]
    turns: Turns
    injected: float
    seed: int
    injected_class: int = 0
    inject_until: float = 1.0
    shams: float = 0.3
    style: CastingDefectStyle = CastingDefectStyle(size=1.5, contrast=(0.5, 1.0))  # noqa: RUF009 - frozen


class PartCrops(IterableDataset):  # type: ignore[type-arg]
    """Endless seeded stream of (image (C, H, W) uint8, present (K,), places (K, H/8, W/8))."""

    def __init__(self, supply: PartSupply, *, start: int = 0, done: Tensor | None = None) -> None:
        self.supply = supply
        self.start = start
        self.done = torch.zeros(1) if done is None else done  # share of the run, shared with the training loop

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        worker = torch.utils.data.get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        cv2.setNumThreads(1)
        # Worker and position are part of the seed, so a resumed run goes on with new crops.
        rng = np.random.default_rng((self.supply.seed, self.start, number, workers))
        light = photometry(int(rng.integers(2**31)))
        sides = _sides(self.supply)
        stock: list[Injected] = []
        while True:
            late = float(self.done) > self.supply.inject_until
            picture, mask = draw_part(replace(self.supply, injected=0.0) if late else self.supply, sides, rng, stock)
            yield as_crop(self.supply, picture, mask, rng, light)


def _sides(supply: PartSupply) -> list[NDArray[np.intp]]:
    """Indices of the good pictures, then of those of each class; sides without a picture are left out."""
    present = np.stack([picture.present for picture in supply.pictures])
    good = np.flatnonzero(present.sum(1) == 0)
    return [rows for rows in (good, *(np.flatnonzero(column) for column in present.T)) if len(rows)]


def draw_part(
    supply: PartSupply, sides: list[NDArray[np.intp]], rng: np.random.Generator, stock: list[Injected]
) -> Injected:
    """A picture as it lies in the dataset, or a good one with injected defects and their mask (H, W), 0 or 255.

    ``stock`` is the caller's stock of injected parts, which this call fills and reuses: making one costs more than a
    training step, and each use is turned, moved and lit anew.
    """
    first_good = not supply.pictures[int(sides[0][0])].defective
    if first_good and rng.random() < supply.injected:
        if len(stock) >= STOCK and rng.random() < REUSE:
            return stock[int(rng.integers(len(stock)))]
        made = _injected(supply, supply.pictures[int(rng.choice(sides[0]))], rng)
        if len(stock) < STOCK:
            stock.append(made)
        else:
            stock[int(rng.integers(STOCK))] = made
        return made
    picture = supply.pictures[int(rng.choice(sides[int(rng.integers(len(sides)))]))]
    if not picture.defective and supply.injected and rng.random() < supply.shams:
        picture = replace(picture, image=inject_shams(picture.image, rng, count=int(rng.integers(1, 4))))
    return picture, None


def _injected(supply: PartSupply, picture: Picture, rng: np.random.Generator) -> Injected:
    count = 1 + int(rng.random() < 0.4) + int(rng.random() < 0.15)
    image, defects = inject_casting_defects(picture.image, rng, count=count, style=supply.style)
    if not defects:
        return picture, None
    mask = np.zeros(image.shape[:2], np.uint8)
    for defect in defects:
        mask[defect.mask] = 255
    present = picture.present.copy()
    present[supply.injected_class] = 1
    return replace(picture, image=image, present=present), mask


def as_crop(
    supply: PartSupply, picture: Picture, mask: NDArray[np.uint8] | None, rng: np.random.Generator, light: A.Compose
) -> tuple[Tensor, Tensor, Tensor]:
    """Turned, moved and lit anew, with its targets."""
    matrix = draw_matrix(rng, picture.image.shape[:2], supply.size, supply.turns)  # type: ignore[arg-type]
    seen = warped(picture, matrix, supply.size)
    image = light(image=seen.image)["image"]
    if mask is not None:
        mask = np.asarray(cv2.warpAffine(mask, matrix, supply.size[::-1], flags=cv2.INTER_LINEAR), np.uint8)
    places = _places(seen, mask, supply)
    return as_planes(image), torch.from_numpy(picture.present), torch.from_numpy(places)


def _places(picture: Picture, mask: NDArray[np.uint8] | None, supply: PartSupply) -> Floats:
    """Where each class is, per place: 1 here, 0 not here, UNKNOWN.

    An outline says where the defect is; a box only where it is not; a class of the whole image says nothing of places.
    """
    shape = (len(supply.classes), supply.size[0] // STRIDE, supply.size[1] // STRIDE)
    places = np.zeros(shape, np.float32)
    places[picture.present > 0] = UNKNOWN
    if mask is not None:
        places[supply.injected_class] = _covered(mask, shape[1:])
    for label in np.unique(picture.labels[:, 4].astype(int)):
        rows = np.flatnonzero(picture.labels[:, 4] == label)
        places[label] = _drawn(picture, rows, supply.size, shape[1:])
    return places


def _drawn(picture: Picture, rows: NDArray[np.intp], size: tuple[int, int], cells: tuple[int, int]) -> Floats:
    outlined, boxed = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    for row in rows:
        outline = [np.round(points).astype(np.int32) for points in picture.polygons[row]]
        if outline:
            cv2.fillPoly(outlined, outline, 255)
        else:
            x1, y1, x2, y2 = np.round(picture.labels[row, :4]).astype(int)
            boxed[y1:y2, x1:x2] = 255
    places = _covered(outlined, cells)
    in_box = cv2.resize(boxed, cells[::-1], interpolation=cv2.INTER_AREA) > 0
    places[in_box & (places == 0)] = UNKNOWN
    return places


def _covered(mask: NDArray[np.uint8], cells: tuple[int, int]) -> Floats:
    """1 where a place is covered by the mask, 0 where it is free, UNKNOWN at its rim."""
    share = np.asarray(cv2.resize(mask, cells[::-1], interpolation=cv2.INTER_AREA), np.float32) / 255
    limit = min(0.15, 0.6 * float(share.max())) if share.max() > 0 else 1.0
    return np.where(share >= limit, 1.0, np.where(share > 0, UNKNOWN, 0.0)).astype(np.float32)
