"""Draws printed-circuit artwork from nothing: golden images for training without any photograph.

A style fixes the sizes and the mix of features; features are laid where they keep clear of each other, so that a
good board has no accidental short.  Sizes are those of a crop seen by a line camera: tracks 4 to 100 px wide.
"""

from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.synth.copper import KEEP_OUT, Copper, Pad, disc, heading_vector, line, random_angle, random_point
from datasets.synth.footprints import PARTS, fiducial, mark, place
from datasets.synth.planes import area, pour, slit_planes
from datasets.synth.styles import STYLES, Range, Style, choose_rules
from datasets.synth.tracks import Rules, bundle, meander, stray_via, walk

Image = NDArray[np.uint8]
_STYLE_AREA_PX = 640 * 640  # the counts of a style are for a board of this area
_LEAST_SHARE, _TRIES = 0.003, 8  # a crop without any copper, or nothing but copper, is drawn anew
_BLOCK_PX = 1024  # a large board is drawn in blocks of about this size
_SEAM_PX = 12  # half the free corridor between two blocks; only tracks cross it


def draw_board(rng: np.random.Generator, *, size_px: tuple[int, int] = (640, 640), dark_copper: bool = True) -> Image:
    """A golden image (height, width) uint8 of a good board; ``size_px`` is (width, height).

    Two grey levels with edges about a pixel soft; copper 0 on substrate 255, or the other way round.
    """
    return render(lay_out(rng, size_px).mask(), rng, dark_copper=dark_copper)


def render(copper: Image, rng: np.random.Generator, *, dark_copper: bool) -> Image:
    """The picture (H, W) of a copper mask (H, W) of zeros and ones."""
    light = (1 - copper if dark_copper else copper) * np.uint8(255)
    return np.asarray(cv2.GaussianBlur(light, (0, 0), rng.uniform(0.4, 0.7)), dtype=np.uint8)


def lay_out(rng: np.random.Generator, size_px: tuple[int, int]) -> Copper:
    """A board of a random style, (width, height) pixels, with its nets; it shows both copper and substrate."""
    for _ in range(_TRIES):
        style, copper = _any_style(rng), Copper(size_px)
        populate(copper, rng, style, choose_rules(rng, style))
        if _LEAST_SHARE < float(copper.mask().mean()) < 1 - _LEAST_SHARE:
            return copper
    blank, (width, height) = Copper(size_px), size_px
    blank.add([disc(width / 2, height / 2, max(2.0, min(size_px) / 4))], 0.0)
    return blank


def _any_style(rng: np.random.Generator) -> Style:
    weights = np.array([style.weight for style in STYLES.values()])
    return list(STYLES.values())[int(rng.choice(len(weights), p=weights / weights.sum()))]


def populate(copper: Copper, rng: np.random.Generator, style: Style, rules: Rules) -> None:
    """Lay a board's features, the large ones first, so that the small ones find their way between them."""
    density = (
        rng.choice([0.4, 0.9, 1.5, 2.2], p=[0.12, 0.25, 0.38, 0.25]) * copper.width * copper.height / _STYLE_AREA_PX
    )
    if rng.random() < style.inverted:
        slit_planes(copper, rng)
    for _ in range(_count(rng, style.bundles, density)):
        tracks = int(rng.integers(int(style.bundle_tracks[0]), int(style.bundle_tracks[1]) + 1))
        bundle(copper, rng, rules, tracks=tracks, width_px=rules.track_px * rng.choice([1.0, 1.0, 1.4]))
    for _ in range(_count(rng, style.areas, density)):
        area(copper, rng, rules)
    for _ in range(_count(rng, style.meanders, density)):
        meander(copper, rng, rules, width_px=rules.track_px)
    _populate_parts(copper, rng, style, (rules, density))
    _route(copper, rng, rules)
    for _ in range(_count(rng, style.vias, density)):
        stray_via(copper, rng, rules)
    if rng.random() < 0.06:
        mark(copper, rng, rules, at=random_point(copper, rng))
    if rng.random() < 0.08:
        fiducial(copper, rng, rules, at=random_point(copper, rng))
    if rng.random() < style.poured:
        pour(copper, rng, rules)


def _count(rng: np.random.Generator, count: Range, density: float) -> int:
    return int(rng.uniform(count[0], count[1] + 1) * density + rng.random()) if count[1] else 0


def _populate_parts(copper: Copper, rng: np.random.Generator, style: Style, amount: tuple[Rules, float]) -> None:
    rules, density = amount
    for _ in range(_count(rng, style.parts, density)):
        part = PARTS[str(rng.choice(style.part_kinds))](rng, rules)
        row, step = int(rng.choice([1, 1, 2, 4])), float(np.abs(part.centres).max() + rules.pad_px) * 2
        at, angle = random_point(copper, rng), random_angle(rng)
        side = float(rng.integers(2))
        for place_in_row in range(row):  # parts come in rows
            spot = (at[0] + step * place_in_row * side, at[1] + step * place_in_row * (1 - side))
            place(copper, rules, part, at=spot, angle=angle)


def _route(copper: Copper, rng: np.random.Generator, rules: Rules) -> None:
    share = rng.uniform(0.4, 1.0)
    for number in rng.permutation(len(copper.pads)):
        pad = copper.pads[number]
        if rng.random() < share:
            width = min(rules.track_px * rng.choice([1.0, 1.0, 1.5, 2.2]), 1.9 * pad.radius_px)
            walk(copper, rng, rules, pad, width_px=max(4.0, width))


def draw_large_board(rng: np.random.Generator, size_px: tuple[int, int], *, dark_copper: bool = True) -> Image:
    """A board (height, width) uint8 of line-scan size, ``size_px`` is (width, height): every block of it is different.

    Blocks are written in place, so that beside the image itself only one block is in memory; tracks join each block
    to its neighbours.  About 10 s for 16384 x 16384 px on one core.
    """
    width, height = size_px
    rows, columns = (np.append(np.arange(0, max(1, n - _BLOCK_PX // 2), _BLOCK_PX), n) for n in (height, width))
    board, seed = np.empty((height, width), np.uint8), int(rng.integers(2**62))
    for r, (top, bottom) in enumerate(pairwise(rows)):
        for c, (left, right) in enumerate(pairwise(columns)):
            edges = (r > 0, bottom < height, c > 0, right < width)
            copper = _block((seed, r, c), (int(right - left), int(bottom - top)), edges)
            board[top:bottom, left:right] = render(copper.mask(), np.random.default_rng(seed), dark_copper=dark_copper)
    return board


def _block(key: tuple[int, int, int], size_px: tuple[int, int], edges: tuple[bool, bool, bool, bool]) -> Copper:
    """One block; ``edges`` says which of its top, bottom, left and right sides adjoin another block."""
    seed, row, column = key
    rng, copper = np.random.default_rng([seed, row, column]), Copper(size_px)
    style = _any_style(rng)
    rules = choose_rules(rng, style)
    width, height = size_px
    for side, adjoins in enumerate(edges):
        if adjoins:
            band = [slice(0, _SEAM_PX), slice(-_SEAM_PX, None)][side % 2]
            copper.nets[(band, slice(None)) if side < 2 else (slice(None), band)] = KEEP_OUT
    seams = ((row, column, 0), (row + 1, column, 0), (row, column, 1), (row, column + 1, 1))
    stubs: list[tuple[Pad, float]] = []
    for side in (side for side, adjoins in enumerate(edges) if adjoins):
        for across, width_px in _ports(np.random.default_rng([seed, *seams[side]]), size_px[side // 2]):
            at = ((across, 0.0), (across, float(height)), (0.0, across), (float(width), across))[side]
            stubs.append((_stub(copper, at, (2, 6, 0, 4)[side], width_px=width_px), width_px))
    for pad, width_px in stubs:
        walk(copper, rng, replace(rules, clearance_px=8.0), pad, width_px=width_px)  # neighbouring stubs are near
    populate(copper, rng, style, rules)
    return copper


def _ports(rng: np.random.Generator, length_px: int) -> list[tuple[float, float]]:
    """Where tracks cross a seam and how wide they are: the same for the blocks on both of its sides."""
    ports: list[tuple[float, float]] = []
    at = 60.0
    while True:
        width_px = float(rng.integers(3, 10) * 2)
        at += 28 + (rng.uniform(0, 20) if rng.random() < 0.6 else rng.uniform(20, 500))
        if at > length_px - 60:
            return ports
        ports.append((float(round(at)), width_px))


def _stub(copper: Copper, at: tuple[float, float], heading: int, *, width_px: float) -> Pad:
    """Bring a track over the seam; returns where it goes on."""
    inwards = heading_vector(heading)
    ends = np.stack([at - inwards * 20, at + inwards * (2 * _SEAM_PX + width_px)])
    net = copper.put([line(ends, width_px)], copper.new_net())
    return Pad(float(ends[1, 0]), float(ends[1, 1]), width_px / 2, net, heading)
