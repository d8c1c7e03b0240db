"""Labelled pictures in memory, and what happens to all of them on the way to a net."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask a package index for newer versions at import

from collections.abc import Sequence
from dataclasses import dataclass, replace

import albumentations as A  # noqa: N812
import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from datasets.sample import Sample
from inspection.errors import InspectionError, UsageError
from inspection.images import read_image, to_grey

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Picture:
    """An image (H, W) or (H, W, 3) uint8 with its labels in its own pixels.

    ``labels`` (M, 5): x1, y1, x2, y2, class index.  ``polygons``: for each label its outlines, each (P, 2).
    ``present`` (K,) float: 1 for each class the image shows.  ``group`` as in Sample.
    """

    image: Image
    labels: Floats
    polygons: tuple[tuple[Floats, ...], ...]
    present: Floats
    group: str

    @property
    def defective(self) -> bool:
        """Whether any class is present."""
        return bool(self.present.any())


def load_picture(sample: Sample, classes: tuple[str, ...], *, channels: int, shrink: int = 1) -> Picture:
    """Read a sample; ``shrink`` averages blocks of so many pixels, as the exported graph does."""
    image = read_image(sample.image)
    image = to_grey(image) if channels == 1 else image if image.ndim == 3 else np.stack([image] * 3, 2)
    image = shrunk(image, shrink)
    rows = [[*label.box_px, classes.index(label.defect_class)] for label in sample.labels]
    labels = np.array(rows, np.float32).reshape(-1, 5)
    labels[:, :4] /= shrink
    polygons = tuple(
        tuple(np.array(polygon, np.float32) / shrink for polygon in label.polygons_px) for label in sample.labels
    )
    present = np.array([name in sample.defect_classes for name in classes], np.float32)
    return Picture(np.ascontiguousarray(image), labels, polygons, present, sample.group)


def as_planes(image: Image) -> torch.Tensor:
    """(H, W) or (H, W, 3) uint8 as a tensor (C, H, W) uint8."""
    return torch.from_numpy(np.ascontiguousarray(image[None] if image.ndim == 2 else image.transpose(2, 0, 1)))


def shrunk(image: Image, factor: int) -> Image:
    """The image made smaller by a whole factor: each pixel is the mean of a block; the rest at the rim is left out."""
    if factor == 1:
        return image
    height, width = image.shape[0] // factor, image.shape[1] // factor
    whole = image[: height * factor, : width * factor]
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def load_pictures(
    samples: Sequence[Sample], classes: tuple[str, ...], *, channels: int, shrink: int = 1
) -> tuple[Picture, ...]:
    """Read all samples; UsageError naming every file that cannot be read."""
    pictures, faults = [], []
    for sample in samples:
        try:
            pictures.append(load_picture(sample, classes, channels=channels, shrink=shrink))
        except InspectionError as problem:
            faults.append(problem.what)
    if faults:
        raise UsageError(
            f"{len(faults)} images cannot be read: {'; '.join(faults[:10])}",
            fix="check the data with `lineside data check`",
        )
    return tuple(pictures)


def photometry(seed: int) -> A.Compose:
    """Light, contrast, focus, noise and compression as they change from shift to shift."""
    return A.Compose(
        [
            A.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.25, p=0.5),
            A.RandomGamma(gamma_limit=(75, 133), p=0.2),
            A.GaussianBlur(blur_limit=(3, 5), sigma_limit=(0.3, 1.0), p=0.1),
            A.GaussNoise(std_range=(0.01, 0.04), p=0.15),
            A.ImageCompression(quality_range=(60, 98), p=0.1),
        ],
        seed=seed,
    )


@dataclass(frozen=True, slots=True)
class Turns:
    """How far a part may be turned, moved and scaled in front of the camera.

    ``right_angles``: any of the eight symmetries of the square; then up to ``rotate_deg`` and ``scale`` (0.1 = 10 %)
    more, moved by up to ``shift`` of the side.
    """

    right_angles: bool = True
    rotate_deg: float = 15.0
    scale: float = 0.12
    shift: float = 0.05


def draw_matrix(rng: np.random.Generator, source: tuple[int, int], target: tuple[int, int], turns: Turns) -> Floats:
    """Affine matrix (2, 3) from source (h, w) to target (h, w) pixels: fill the target, then turn, scale and move."""
    (height, width), (rows, columns) = source, target
    to_unit = np.array([[1 / width, 0, -0.5], [0, 1 / height, -0.5], [0, 0, 1]])
    angle = np.deg2rad(rng.uniform(-turns.rotate_deg, turns.rotate_deg))
    size = np.exp(rng.uniform(-turns.scale, turns.scale))
    aspect = width / height
    turn = np.array(
        [[np.cos(angle), -np.sin(angle) / aspect, 0], [np.sin(angle) * aspect, np.cos(angle), 0], [0, 0, 1]]
    )
    flip = np.eye(3)
    if turns.right_angles:
        flip[0, 0], flip[1, 1] = rng.choice([-1, 1], 2)
        if rng.random() < 0.5:
            flip = flip[[1, 0, 2]]
    move = np.eye(3)
    move[:2, 2] = rng.uniform(-turns.shift, turns.shift, 2)
    to_target = np.array([[columns, 0, columns / 2], [0, rows, rows / 2], [0, 0, 1]])
    return (to_target @ move @ np.diag([size, size, 1]) @ turn @ flip @ to_unit)[:2].astype(np.float32)


def warped(
    picture: Picture, matrix: Floats, target: tuple[int, int], *, border: int = cv2.BORDER_REFLECT_101
) -> Picture:
    """The picture as the matrix (2, 3) shows it in a window (h, w); labels that leave it are clipped or dropped.

    Pixel centres lie at whole numbers for OpenCV and at halves for boxes; the difference is below half a pixel.
    """
    image = cv2.warpAffine(picture.image, matrix, target[::-1], flags=cv2.INTER_LINEAR, borderMode=border)
    labels, keep = _warped_boxes(picture.labels, matrix, target)
    polygons = tuple(
        tuple(points @ matrix[:, :2].T + matrix[:, 2] for points in outline)
        for outline, kept in zip(picture.polygons, keep, strict=True)
        if kept
    )
    for row, outline in enumerate(polygons):
        if outline:  # an outline gives the box of the turned defect exactly
            points = np.concatenate(outline).clip(0, (target[1], target[0]))
            labels[row, :4] = (*points.min(0), *(points.max(0) + 1e-3))
    return replace(picture, image=np.asarray(image, np.uint8), labels=labels, polygons=polygons)


def _warped_boxes(labels: Floats, matrix: Floats, target: tuple[int, int]) -> tuple[Floats, NDArray[np.bool_]]:
    """Boxes around the turned inscribed ellipses: the corners of a box are seldom part of the defect."""
    if not len(labels):
        return labels, np.zeros(0, bool)
    centre = (labels[:, :2] + labels[:, 2:4]) / 2 @ matrix[:, :2].T + matrix[:, 2]
    half = (labels[:, 2:4] - labels[:, :2]) / 2
    reach = np.sqrt((half**2) @ (matrix[:, :2].T ** 2))
    moved = np.concatenate([centre - reach, centre + reach], 1)
    clipped = moved.copy()
    clipped[:, 0::2] = clipped[:, 0::2].clip(0, target[1])
    clipped[:, 1::2] = clipped[:, 1::2].clip(0, target[0])
    area = (moved[:, 2] - moved[:, 0]) * (moved[:, 3] - moved[:, 1])
    left = (clipped[:, 2] - clipped[:, 0]) * (clipped[:, 3] - clipped[:, 1])
    keep = (left > 0.35 * area) & (clipped[:, 2] - clipped[:, 0] > 1.5) & (clipped[:, 3] - clipped[:, 1] > 1.5)
    return np.concatenate([clipped, labels[:, 4:]], 1)[keep].astype(np.float32), keep
