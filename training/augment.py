"""Augmentation of frame and golden crops (albumentations 2.0.8, the last MIT release)."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask a package index for newer versions at import

import albumentations as A  # noqa: N812
import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Photometry = A.Compose


def frame_photometry(seed: int) -> A.Compose:
    """Light, blur, noise and compression for the frame alone: the golden was taken on another day."""
    return A.Compose(
        [
            A.RandomBrightnessContrast(brightness_limit=0.15, contrast_limit=0.25, p=0.25),
            A.RandomGamma(gamma_limit=(70, 140), p=0.1),
            A.GaussianBlur(blur_limit=(3, 5), sigma_limit=(0.3, 1.2), p=0.15),
            A.GaussNoise(std_range=(0.01, 0.05), p=0.12),
            A.ImageCompression(quality_range=(60, 98), p=0.1),
        ],
        seed=seed,
    )


def shade(image: Image, rng: np.random.Generator, strength: float) -> Image:
    """Multiply a linear illumination gradient of up to +-``strength`` / 2 into an image (H, W)."""
    angle, amount = rng.uniform(0, 2 * np.pi), rng.uniform(0, strength)
    rows = np.linspace(-0.5, 0.5, image.shape[0], dtype=np.float32)[:, None] * np.float32(np.sin(angle))
    columns = np.linspace(-0.5, 0.5, image.shape[1], dtype=np.float32)[None, :] * np.float32(np.cos(angle))
    light = rng.uniform(0.8, 1.1) * (1 + np.float32(amount) * (rows + columns))
    return np.clip(image * light, 0, 255).astype(np.uint8)


def nudge(golden: Image, rng: np.random.Generator, shift_px: float, rotate_deg: float) -> Image:
    """Displace a golden crop as imperfect registration leaves it; resampled, as registration resamples it."""
    matrix = cv2.getRotationMatrix2D(
        (golden.shape[1] / 2, golden.shape[0] / 2), rng.uniform(-rotate_deg, rotate_deg), 1 + rng.uniform(-3e-3, 3e-3)
    )
    matrix[:, 2] += rng.normal(0, shift_px / 2, 2).clip(-shift_px, shift_px)
    return np.asarray(
        cv2.warpAffine(golden, matrix, golden.shape[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
        dtype=np.uint8,
    )


def turn(
    images: tuple[Image, ...], labels: NDArray[np.float32], k: int
) -> tuple[tuple[Image, ...], NDArray[np.float32]]:
    """Apply one of the eight symmetries of the square to square crops and their (M, 5) labels."""
    size = images[0].shape[0]
    out = labels.copy()
    if k & 4:
        images = tuple(image.T for image in images)
        out[:, :4] = out[:, [1, 0, 3, 2]]
    if k & 1:
        images = tuple(image[:, ::-1] for image in images)
        out[:, [0, 2]] = size - out[:, [2, 0]]
    if k & 2:
        images = tuple(image[::-1] for image in images)
        out[:, [1, 3]] = size - out[:, [3, 1]]
    return tuple(np.ascontiguousarray(image) for image in images), out
