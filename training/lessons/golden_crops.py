"""Training crops without end, from whatever the user has: labelled pairs, golden images, or nothing at all."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset

from datasets.sample import Sample, load_grey
from datasets.synth.artwork import draw_board
from datasets.synth.camera import CameraModel, photograph
from datasets.synth.defects import DefectStyle, inject, is_visible, read_artwork
from inspection.types import Box
from training.augment import Photometry, frame_photometry, nudge, shade, turn
from training.lessons.golden_targets import Labels, heat_targets

Image = NDArray[np.uint8]
Crop = tuple[Image, Image, Labels]
STOCK = 600  # injected crops kept by each worker
REUSE = 0.6  # share of injected crops taken from the stock


@dataclass(frozen=True, slots=True)
class Pair:
    """A labelled frame with its golden: both (H, W) uint8, labels (M, 5) xyxy pixels and class index.

    ``places``: boxes without a defect that are worth looking at as often as one, false calls of an earlier model.
    """

    frame: Image
    golden: Image
    labels: Labels
    places: tuple[Box, ...] = ()


@dataclass(frozen=True, slots=True)
class Supply:
    """What crops are cut from, all in memory: labelled pairs, goldens to inject into, and the share of each kind."""

    classes: tuple[str, ...]
    pairs: tuple[Pair, ...]
    goldens: tuple[Image, ...]
    shares: tuple[float, float, float]  # labelled pair, golden with injected defects, generated board
    style: DefectStyle
    camera: CameraModel
    dark_copper: bool
    crop_px: int
    seed: int


def load_pair(sample: Sample, classes: tuple[str, ...]) -> Pair:
    """Read a sample's two images and labels."""
    assert sample.golden is not None
    rows = [[*label.box_px, classes.index(label.defect_class)] for label in sample.labels]
    return Pair(load_grey(sample.image), load_grey(sample.golden), np.array(rows, np.float32).reshape(-1, 5))


class Crops(IterableDataset):  # type: ignore[type-arg]
    """Endless seeded stream of (pair (2, S, S) uint8, heat, boxes) for the golden net."""

    def __init__(self, supply: Supply, *, start: int = 0) -> None:
        self.supply = supply
        self.start = start

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        worker = torch.utils.data.get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        cv2.setNumThreads(1)
        # Worker and position are part of the seed, so a resumed run goes on with new crops.
        rng = np.random.default_rng((self.supply.seed, self.start, number, workers))
        photometry = frame_photometry(int(rng.integers(2**31)))
        injected: list[Crop] = []
        while True:
            frame, golden, labels = draw_crop(self.supply, rng, photometry, injected)
            heat, boxes = heat_targets(labels, len(self.supply.classes), self.supply.crop_px)
            yield torch.from_numpy(np.stack([frame, golden])), torch.from_numpy(heat), torch.from_numpy(boxes)


def draw_crop(supply: Supply, rng: np.random.Generator, photometry: Photometry, injected: list[Crop]) -> Crop:
    """One augmented training crop: frame and golden (S, S) uint8, labels (M, 5).

    ``injected`` is the caller's stock of injected crops, which this call fills and reuses: making one costs more than
    a training step, and each use is turned, displaced and lit anew.
    """
    kind = int(rng.choice(3, p=supply.shares))
    if kind == 0:
        frame, golden, labels = _labelled_crop(supply, rng)
    elif len(injected) >= STOCK and rng.random() < REUSE:
        frame, golden, labels = injected[int(rng.integers(len(injected)))]
    else:
        frame, golden, labels = _injected_crop(supply, rng, generated=kind == 2)
        if len(injected) < STOCK:
            injected.append((frame, golden, labels))
        else:
            injected[int(rng.integers(STOCK))] = (frame, golden, labels)
    if rng.random() < 0.12:
        golden = _blemished(golden, labels, supply, rng)
    (frame, golden), labels = turn((frame, golden), labels, int(rng.integers(8)))
    if rng.random() < 0.7:
        golden = nudge(golden, rng, 2.0, 0.4)
    if rng.random() < 0.35:
        frame = photometry(image=frame)["image"]
    if rng.random() < 0.25:
        frame = shade(frame, rng, 0.5)
    if rng.random() < 0.08:
        frame, golden, labels = _board_edge(frame, golden, labels, rng)
    return frame, golden, labels


def _window(
    shape: tuple[int, ...], size: int, centre: tuple[float, float] | None, rng: np.random.Generator
) -> tuple[int, int]:
    """Top-left corner (x, y) of a crop: anywhere, or with ``centre`` somewhere inside it."""
    corner = []
    for length, middle in zip((shape[1], shape[0]), centre or (None, None), strict=True):
        low, high = 0, max(0, length - size)
        if middle is not None:
            low, high = max(low, int(middle) - size + 20), min(high, int(middle) - 20)
        corner.append(int(rng.integers(min(low, high), max(low, high) + 1)) if length > size else 0)
    return max(0, min(corner[0], shape[1] - size)), max(0, min(corner[1], shape[0] - size))


def _cut(image: Image, corner: tuple[int, int], size: int) -> Image:
    part = image[corner[1] : corner[1] + size, corner[0] : corner[0] + size]
    if part.shape == (size, size):
        return part
    return np.asarray(
        cv2.copyMakeBorder(part, 0, size - part.shape[0], 0, size - part.shape[1], cv2.BORDER_REPLICATE), np.uint8
    )


def _inside(labels: Labels, corner: tuple[int, int], size: int) -> Labels:
    """Labels in crop coordinates whose centre lies in the crop, clipped to it."""
    moved = labels - np.array([*corner, *corner, 0], np.float32)
    centre = (moved[:, :2] + moved[:, 2:4]) / 2
    moved = moved[np.all((centre > 2) & (centre < size - 2), axis=1)]
    moved[:, :4] = moved[:, :4].clip(0, size)
    return moved


def _labelled_crop(supply: Supply, rng: np.random.Generator) -> Crop:
    pair = supply.pairs[int(rng.integers(len(supply.pairs)))]
    centre = None
    if len(pair.labels) + len(pair.places) and rng.random() < 0.75:
        number = int(rng.integers(len(pair.labels) + len(pair.places)))
        known = number < len(pair.labels)
        x1, y1, x2, y2 = pair.labels[number][:4] if known else pair.places[number - len(pair.labels)]
        centre = ((x1 + x2) / 2, (y1 + y2) / 2)
    corner = _window(pair.frame.shape, supply.crop_px, centre, rng)
    frame, golden = (_cut(image, corner, supply.crop_px) for image in (pair.frame, pair.golden))
    labels = _inside(pair.labels, corner, supply.crop_px)
    if rng.random() < 0.3:
        artwork = read_artwork(frame, dark_copper=supply.dark_copper)
        avoid = tuple(tuple(float(v) for v in row[:4]) for row in labels)
        frame, defects = inject(artwork, rng, count=int(rng.integers(1, 4)), style=supply.style, avoid=avoid)  # type: ignore[arg-type]
        labels = np.concatenate([labels, _rows(defects, supply.classes)])
    return frame, golden, labels


def _rows(defects: tuple, classes: tuple[str, ...]) -> Labels:  # type: ignore[type-arg]
    return np.array([[*d.box_px, classes.index(d.defect_class)] for d in defects], np.float32).reshape(-1, 5)


def _injected_crop(supply: Supply, rng: np.random.Generator, *, generated: bool) -> Crop:
    size = supply.crop_px
    if generated:
        golden = draw_board(rng, size_px=(size, size), dark_copper=supply.dark_copper)
        if rng.random() < 0.6:
            golden, _ = photograph(golden, rng, replace(supply.camera, noise=supply.camera.noise / 2, edge_px=0.3))
    else:
        whole = supply.goldens[int(rng.integers(len(supply.goldens)))]
        golden = _cut(whole, _window(whole.shape, size, None, rng), size)
    artwork = read_artwork(golden, dark_copper=supply.dark_copper)
    made, defects = inject(artwork, rng, count=int(rng.integers(2, 9)), style=supply.style)
    frame, _ = photograph(made, rng, supply.camera)
    defects = tuple(d for d in defects if is_visible(frame, golden, made, d))
    return frame, golden, _rows(defects, supply.classes)


def _blemished(golden: Image, labels: Labels, supply: Supply, rng: np.random.Generator) -> Image:
    """A golden with one small blemish of its own: the frame is right there, and nothing is to be reported.

    Without it a speck on the golden would be a false call on every part.
    """
    artwork = read_artwork(golden, dark_copper=supply.dark_copper)
    avoid = tuple(tuple(float(v) for v in row[:4]) for row in labels)
    style = DefectStyle(area_px=(15, 160), box_margin_px=0.0)
    made, defects = inject(artwork, rng, count=1, style=style, avoid=avoid)  # type: ignore[arg-type]
    if any(defect.defect_class in ("open", "short") for defect in defects):
        return golden  # a golden with a broken track is no speck: that difference must be reported
    return made


def _board_edge(frame: Image, golden: Image, labels: Labels, rng: np.random.Generator) -> Crop:
    """A strip where the frame shows no board: registration puts the frame's own pixels into the golden there."""
    width, size = int(rng.integers(4, 36)), frame.shape[0]
    frame, golden = frame.copy(), golden.copy()
    fill = rng.choice([-1, 0, 255, 128])
    frame[:width] = frame[width : width + 1] if fill < 0 else fill
    golden[:width] = frame[:width]
    labels = labels[(labels[:, 1] + labels[:, 3]) / 2 > width]
    labels[:, 1] = np.maximum(labels[:, 1], width)
    (frame, golden), labels = turn((frame, golden), labels, int(rng.integers(8)))
    assert frame.shape == (size, size)
    return frame, golden, labels
