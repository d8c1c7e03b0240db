"""Kinds of boards: how large their features are and how many of which there are.

Sizes are those of a crop seen by a line camera: tracks 4 to 100 px wide.
"""

from dataclasses import dataclass

import numpy as np

from datasets.synth.tracks import Rules

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Style:
    """The mix of one kind of board; counts are ranges for 640 x 640 px, sizes are in pixels."""

    weight: float
    track_px: Range
    clearance_px: Range
    pad_px: Range
    bundles: Range = (0, 0)
    bundle_tracks: Range = (3, 10)
    areas: Range = (0, 0)
    parts: Range = (0, 0)
    part_kinds: tuple[str, ...] = ("chip",)
    vias: Range = (0, 0)
    meanders: Range = (0, 0)
    drilled: float = 0.5
    poured: float = 0.0
    inverted: float = 0.0


STYLES: dict[str, Style] = {
    "signal": Style(
        weight=0.2,
        track_px=(5, 10),
        clearance_px=(9, 18),
        pad_px=(14, 26),
        bundles=(0, 3),
        bundle_tracks=(3, 12),
        areas=(0, 1),
        parts=(2, 7),
        part_kinds=("chip", "pin_rows", "grid", "single"),
        vias=(8, 40),
        drilled=0.3,
        poured=0.1,
    ),
    "dense": Style(
        weight=0.1,
        track_px=(4, 7),
        clearance_px=(7, 10),
        pad_px=(11, 18),
        bundles=(0, 2),
        bundle_tracks=(4, 14),
        areas=(0, 1),
        parts=(3, 8),
        part_kinds=("quad", "grid", "pin_rows", "chip"),
        vias=(10, 50),
        poured=0.3,
    ),
    "through_hole": Style(
        weight=0.2,
        track_px=(8, 14),
        clearance_px=(8, 16),
        pad_px=(20, 34),
        bundles=(0, 3),
        bundle_tracks=(3, 9),
        areas=(0, 4),
        parts=(3, 10),
        part_kinds=("header", "single", "chip"),
        vias=(2, 8),
        drilled=0.9,
        poured=0.15,
    ),
    "surface_mount": Style(
        weight=0.14,
        track_px=(10, 26),
        clearance_px=(12, 28),
        pad_px=(28, 56),
        bundles=(0, 1),
        bundle_tracks=(2, 6),
        areas=(0, 3),
        parts=(3, 9),
        part_kinds=("chip", "chip", "pin_rows", "single"),
        vias=(0, 4),
        poured=0.1,
    ),
    "power": Style(
        weight=0.14,
        track_px=(20, 46),
        clearance_px=(16, 46),
        pad_px=(40, 80),
        bundles=(0, 1),
        bundle_tracks=(2, 5),
        areas=(2, 6),
        parts=(0, 5),
        part_kinds=("single", "header"),
        vias=(0, 2),
        drilled=0.9,
        poured=0.1,
    ),
    "bars": Style(
        weight=0.07,
        track_px=(40, 100),
        clearance_px=(18, 60),
        pad_px=(50, 90),
        bundles=(1, 2),
        bundle_tracks=(3, 7),
        areas=(0, 2),
        parts=(0, 3),
        part_kinds=("single",),
        drilled=0.9,
    ),
    "slits": Style(
        weight=0.1,
        track_px=(10, 24),
        clearance_px=(18, 60),
        pad_px=(40, 110),
        bundles=(0, 2),
        bundle_tracks=(1, 4),
        areas=(1, 3),
        parts=(1, 4),
        part_kinds=("chip", "grid"),
        vias=(0, 3),
        meanders=(0, 2),
        inverted=1.0,
    ),
    "coils": Style(
        weight=0.05,
        track_px=(6, 16),
        clearance_px=(8, 22),
        pad_px=(20, 40),
        bundles=(0, 2),
        bundle_tracks=(3, 8),
        areas=(0, 2),
        parts=(1, 5),
        part_kinds=("chip", "single"),
        vias=(2, 8),
        meanders=(1, 4),
        poured=0.3,
    ),
}


def choose_rules(rng: np.random.Generator, style: Style) -> Rules:
    """Sizes for one board of a style."""
    track, pad = rng.uniform(*style.track_px), rng.uniform(*style.pad_px)
    return Rules(
        track_px=track,
        clearance_px=rng.uniform(*style.clearance_px),
        via_px=max(0.9 * track, min(0.45 * pad, 22.0)) + rng.uniform(0, 4),
        pad_px=pad,
        drilled=bool(rng.random() < style.drilled),
        teardrops=bool(rng.random() < 0.2),
        corner=str(rng.choice(["sharp", "round", "arc"], p=[0.55, 0.3, 0.15])),
        pad=str(rng.choice(["round", "oblong", "square", "rounded", "octagon"], p=[0.15, 0.15, 0.25, 0.25, 0.2])),
    )
