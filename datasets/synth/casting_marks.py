"""How casting defects look: each function gives the change of grey levels that one defect makes in a window.

A mark is drawn from what causes it: a pit is a relief under the light of the picture, flash is metal beyond an edge,
a chip lets the other side of an edge continue into the part.  Amplitudes come from the surroundings.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.synth.textures import (
    Plane,
    blurred,
    clipped,
    dotted,
    drawn_line,
    filled,
    fractal_noise,
    slope,
    smooth_noise,
    wander,
    wavy_outline,
)

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """The surroundings of one defect to be.

    ``window`` (h, w, C) float32 is the picture there; ``inside`` (h, w) is True on the part (for marks at an edge: on
    the side of the metal); ``centre`` is (x, y) in the window; ``size_px`` the length of the defect; ``light`` the
    direction the light comes from (radians); ``body`` the change of the defect's inner side, negative where it is
    darker; ``glint`` the change of lit rims; ``grain`` the deviation of the camera's noise, all in grey levels.
    ``tones`` are the darkest and brightest level of the picture.
    """

    window: Plane
    inside: Mask
    centre: tuple[float, float]
    size_px: float
    light: float
    body: float
    glint: float
    grain: float
    tones: tuple[float, float]

    @property
    def shape(self) -> tuple[int, int]:
        return self.window.shape[0], self.window.shape[1]


Mark = Callable[[Site, np.random.Generator], Plane]


def blowhole(site: Site, rng: np.random.Generator) -> Plane:
    """A round pit, or a cluster or row of pores; its floor may be light again."""
    kind, centre = rng.random(), np.array(site.centre)
    if kind < 0.6 or site.size_px < 5:
        outline = wavy_outline(rng, site.size_px, rng.uniform(0.55, 1.0), rng.uniform(0.0, 0.35))
        cover = filled(site.shape, outline + centre)
    else:
        cover = _pores(site, rng, in_row=kind > 0.8)
    return _sunk(site, rng, cover)


def _pores(site: Site, rng: np.random.Generator, *, in_row: bool) -> Plane:
    count = int(rng.integers(2, 14))
    if in_row:
        path = wander(rng, site.size_px, 0.12)
        places = path[rng.integers(0, len(path), count)] + rng.normal(0, 0.05 * site.size_px, (count, 2))
    else:
        places = rng.normal(0, site.size_px / 5, (count, 2))
    largest = max(0.7, site.size_px / rng.uniform(5, 18))
    return dotted(site.shape, places + np.array(site.centre), rng.uniform(0.5, largest, count))


def _sunk(site: Site, rng: np.random.Generator, cover: Plane) -> Plane:
    """Shading of a pit with the given coverage: dark, darker towards the light, a lit rim on the far side."""
    depth = blurred(cover, float(np.clip(site.size_px * rng.uniform(0.04, 0.14), 0.5, 4.0)))
    rise = slope(depth, site.light)
    floor = rng.uniform(0.3, 1.3) if rng.random() < 0.5 else 0.0
    inner = clipped((blurred(cover, max(0.6, site.size_px / 9)) - np.float32(0.55)) / np.float32(0.4))
    if rng.random() < 0.4:  # an uneven ground
        inner = inner * clipped(smooth_noise(rng, site.shape, max(1.5, site.size_px / 5)) + np.float32(0.6))
    body = cover * (1 - np.float32(floor) * inner) * np.float32(site.body)
    rim, shade = rng.uniform(0, 1.2) ** 1.5, rng.uniform(0.0, 0.5)
    lit = np.float32(-rim * site.glint) * np.minimum(rise, 0)
    return np.asarray(body + lit + np.float32(shade * site.body) * np.maximum(rise, 0), dtype=np.float32)


def shrinkage(site: Site, rng: np.random.Generator) -> Plane:
    """An irregular spongy area."""
    cover = _patch(site, rng, raggedness=rng.uniform(0.4, 0.9))
    sponge = fractal_noise(rng, site.shape, rng.uniform(1.5, max(2.0, site.size_px / 6)))
    holes = clipped(sponge * np.float32(rng.uniform(0.25, 0.9)) + np.float32(rng.uniform(0.1, 0.7)))
    relief = slope(blurred(sponge, 0.6), site.light) * np.float32(rng.uniform(0, 0.7) * site.glint)
    return np.asarray(cover * (holes * np.float32(site.body) + relief), dtype=np.float32)


def _patch(site: Site, rng: np.random.Generator, *, raggedness: float) -> Plane:
    """A patch of about the size wanted, coverage 0 to 1, with a ragged or soft border."""
    dx, dy = _offsets(site)
    angle, flat = rng.uniform(0, np.pi), rng.uniform(0.35, 1.0)
    along = dx * np.float32(np.cos(angle)) + dy * np.float32(np.sin(angle))
    across = (dy * np.float32(np.cos(angle)) - dx * np.float32(np.sin(angle))) / np.float32(flat)
    away = (along * along + across * across) / np.float32((site.size_px / 2) ** 2)
    edge = 1 - away + smooth_noise(rng, site.shape, max(1.5, site.size_px / 5)) * np.float32(raggedness)
    return np.where(away < 1.5, clipped(edge * np.float32(rng.uniform(0.8, 3.0))), np.float32(0))


def _offsets(site: Site) -> tuple[Plane, Plane]:
    rows, columns = site.shape
    dx = np.arange(columns, dtype=np.float32)[None, :] - np.float32(site.centre[0])
    dy = np.arange(rows, dtype=np.float32)[:, None] - np.float32(site.centre[1])
    return np.asarray(dx, np.float32), np.asarray(dy, np.float32)


def crack(site: Site, rng: np.random.Generator) -> Plane:
    """A thin wandering line of changing width, sometimes with branches and gaps."""
    bend, widest = rng.uniform(0.08, 0.4), rng.uniform(0.5, 1.6) * max(1.0, site.size_px / 60) ** 0.5
    trunk = wander(rng, site.size_px, bend) + np.array(site.centre)
    cover = drawn_line(site.shape, trunk, _widths(rng, len(trunk), widest))
    for _ in range(int(rng.integers(0, 4))):
        if site.size_px < 12 or rng.random() < 0.4:
            continue
        branch = wander(rng, site.size_px * rng.uniform(0.15, 0.4), bend)
        branch += trunk[int(rng.integers(len(trunk)))] - branch[0]
        np.maximum(cover, drawn_line(site.shape, branch, _widths(rng, len(branch), widest * 0.6)), out=cover)
    if rng.random() < 0.5:
        cover *= clipped(smooth_noise(rng, site.shape, max(2.0, site.size_px / 6)) + 0.9)
    edge = slope(blurred(cover, 0.7), site.light) * np.float32(rng.uniform(0, 0.4) * site.glint)
    return np.asarray(cover * np.float32(site.body) - np.minimum(edge, 0), dtype=np.float32)


def _widths(rng: np.random.Generator, count: int, widest: float) -> NDArray[np.float64]:
    taper = np.sin(np.linspace(0.15, np.pi - 0.15, count))
    return np.asarray(widest * taper * np.exp(rng.normal(0, 0.3, count)) + 0.2, dtype=np.float64)


def cold_shut(site: Site, rng: np.random.Generator) -> Plane:
    """A smooth curved seam where two streams of metal met: a dark line, a lit line beside it, a faint step."""
    turn, steps = rng.uniform(-1.8, 1.8), max(6, round(site.size_px / 2))
    heading = rng.uniform(0, 2 * np.pi) + np.linspace(-0.5, 0.5, steps) * turn
    path = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1), axis=0) * site.size_px / steps
    path += np.array(site.centre) - (path.max(0) + path.min(0)) / 2
    width, gap = rng.uniform(0.6, 2.2), rng.uniform(0.8, 2.5)
    side = np.array([-np.sin(heading.mean()), np.cos(heading.mean())]) * gap
    taper = width * np.sin(np.linspace(0.3, np.pi - 0.3, steps))
    seam, lip = drawn_line(site.shape, path, taper), drawn_line(site.shape, path + side, taper)
    step = clipped(blurred(drawn_line(site.shape, path - 3 * side, taper * 4), 2.0))
    strength = rng.uniform(0.3, 0.9)
    change = seam * np.float32(site.body * strength) + lip * np.float32(site.glint * strength * rng.uniform(0, 0.6))
    return np.asarray(change + step * np.float32(site.body * rng.uniform(-0.1, 0.15)), dtype=np.float32)


def scratch(site: Site, rng: np.random.Generator) -> Plane:
    """One or a few nearly parallel lines, dark, bright or both."""
    change = np.zeros(site.shape, np.float32)
    path = wander(rng, site.size_px, rng.choice([0.0, 0.01, 0.03]), 4.0)
    side = np.array([-(path[-1] - path[0])[1], (path[-1] - path[0])[0]]) / max(1.0, site.size_px)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3, 5]))):
        off = side * rng.normal(0, max(1.0, site.size_px / 14)) * (change.any())
        line = path[: max(3, round(len(path) * rng.uniform(0.5, 1.0)))] + np.array(site.centre) + off
        cover = drawn_line(site.shape, line, _widths(rng, len(line), rng.uniform(0.4, 1.4)))
        tone = site.glint if rng.random() < 0.35 else site.body
        change += cover * np.float32(rng.uniform(0.3, 0.9) * tone)
        if rng.random() < 0.3:
            change += np.roll(cover, (1, 1), (0, 1)) * np.float32(rng.uniform(0.2, 0.6) * site.glint)
    return change


def dent(site: Site, rng: np.random.Generator) -> Plane:
    """A shallow hollow: one side lit, the other in shade, the ground as before."""
    outline = wavy_outline(rng, site.size_px * 0.8, rng.uniform(0.3, 1.0), rng.uniform(0.0, 0.3))
    depth = blurred(
        filled(site.shape, outline + np.array(site.centre)), max(0.6, site.size_px * rng.uniform(0.05, 0.14))
    )
    rise = slope(depth, site.light)
    lit = np.float32(site.glint * rng.uniform(0.3, 1.0)) * -np.minimum(rise, 0)
    return np.asarray(lit + np.float32(site.body * rng.uniform(0.4, 1.0)) * np.maximum(rise, 0), dtype=np.float32)


def inclusion(site: Site, rng: np.random.Generator) -> Plane:
    """An angular grain of sand or slag, of one tone with a texture of its own."""
    corners = int(rng.integers(4, 8))
    turns = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radius = site.size_px / 2 * rng.uniform(0.5, 1.0, corners)
    outline = np.stack([np.cos(turns) * radius, np.sin(turns) * radius * rng.uniform(0.5, 1.0)], 1)
    cover = filled(site.shape, outline + np.array(site.centre))
    low, high = site.tones
    tone = rng.uniform(low, high) + fractal_noise(rng, site.shape, max(1.5, site.size_px / 5)) * np.float32(
        rng.uniform(0, 0.2) * (high - low)
    )
    share = np.float32(rng.uniform(0.4, 1.0))
    return (cover * share)[:, :, None] * (tone[:, :, None] - blurred(site.window, 1.0))


def stain(site: Site, rng: np.random.Generator) -> Plane:
    """A smudge, or a patch whose surface is duller or rougher than around it."""
    cover = blurred(_patch(site, rng, raggedness=rng.uniform(0.2, 1.0)), site.size_px * rng.uniform(0.0, 0.08))
    streaks = clipped(fractal_noise(rng, site.shape, max(2.0, site.size_px / 4)) * np.float32(0.5) + np.float32(0.7))
    strength = site.body if rng.random() < 0.75 else site.glint
    change = (cover * streaks * np.float32(strength * rng.uniform(0.2, 0.8)))[:, :, None]
    if rng.random() < 0.4:
        dull = site.window - blurred(site.window, rng.uniform(1.0, 4.0))
        change = change - cover[:, :, None] * dull * np.float32(rng.uniform(0.3, 1.0))
    if rng.random() < 0.4:
        speckle = smooth_noise(rng, site.shape, rng.uniform(1.0, 3.0)) * np.float32(0.3 * abs(site.body))
        change = change + (cover * speckle)[:, :, None]
    return np.asarray(change, dtype=np.float32)


def _edge_height(site: Site, rng: np.random.Generator, depth_px: float, distance: Plane) -> Plane:
    """How far (h, w) in pixels an edge defect reaches from the edge at each pixel's nearest place on it."""
    dx, dy = _offsets(site)
    away = (dx * dx + dy * dy) / np.float32((site.size_px / 2) ** 2)
    near = clipped(np.asarray(1 - away, dtype=np.float32))
    lump = rng.uniform(0.15, 0.7) * min(site.size_px, 50.0)
    lumps = fractal_noise(rng, site.shape, max(1.5, lump), 3) * np.float32(rng.uniform(0.3, 0.9))
    gaps = rng.uniform(-0.6, 0.3) if site.size_px > 40 else 0.5
    height = np.sqrt(near) * np.float32(depth_px) * np.minimum(lumps + np.float32(gaps + 0.3), 1.4)
    at_foot = _from_edge(height[:, :, None], distance, distance)[:, :, 0]
    return at_foot + smooth_noise(rng, site.shape, 3.0) * np.float32(rng.uniform(0, 0.8)) * (at_foot > 0)


def _signed_distance(inside: Mask) -> Plane:
    """Distance (h, w) in pixels from the edge, positive on the metal's side."""
    mask = inside.astype(np.uint8)
    within, beyond = cv2.distanceTransform(mask, cv2.DIST_L2, 3), cv2.distanceTransform(1 - mask, cv2.DIST_L2, 3)
    return np.asarray(within - beyond, dtype=np.float32)


def flash(site: Site, rng: np.random.Generator) -> Plane:
    """Metal beyond the edge: lumps or a fin, dark in shade with lit faces, or wholly lit."""
    distance = _signed_distance(site.inside)
    height = _edge_height(site, rng, _edge_depth(site, rng), distance)
    cover = clipped(height + distance + 0.5) * clipped(rng.uniform(0.5, 2.5) - distance) * (height > 0)
    low, high = site.tones
    dark, lit = low + rng.uniform(0, 0.35) * (high - low), high - rng.uniform(0, 0.3) * (high - low)
    faces = clipped(
        smooth_noise(rng, site.shape, rng.uniform(2, 8)) * np.float32(2) + np.float32(rng.normal(-0.3, 1.5))
    )
    if rng.random() < 0.6:  # a thin lit edge, at the fin's outer end or between its layers
        off = height + distance if rng.random() < 0.5 else -distance - np.float32(rng.uniform(0, 3))
        lit_edge = clipped(rng.uniform(0.8, 2.0) - np.abs(off - 1)) * clipped(smooth_noise(rng, site.shape, 8.0) + 0.6)
        faces = np.maximum(faces * np.float32(rng.uniform(0, 0.6)), lit_edge)
    tone = np.float32(dark) + faces * np.float32(lit - dark)
    return (cover * np.float32(1 - 0.5 * rng.random() ** 2))[:, :, None] * (tone[:, :, None] - site.window)


def _edge_depth(site: Site, rng: np.random.Generator, most_share: float = 0.05) -> float:
    """How deep or high in pixels an edge defect is: long ones are shallow."""
    return float(np.clip(site.size_px * rng.uniform(0.12, 0.6), 1.5, 4 + most_share * site.size_px))


def chipping(site: Site, rng: np.random.Generator) -> Plane:
    """A bite out of an edge: what lies beyond the edge continues into the metal, or a broken face shows."""
    distance = _signed_distance(site.inside)
    height = _edge_height(site, rng, _edge_depth(site, rng, 0.15), distance)
    cover = clipped(height - distance + 0.5) * clipped(distance + rng.uniform(0.5, 2.0)) * (height > 0)
    depth = np.maximum(distance, 0) * np.float32(2) + np.float32(rng.uniform(1.5, 5))
    beyond = _from_edge(site.window, distance, depth)
    low, high = site.tones
    darkest = rng.uniform(0, 0.35) if rng.random() < 0.6 else rng.uniform(0, 1)
    relief = fractal_noise(rng, site.shape, rng.uniform(1.5, 5)) * np.float32(rng.uniform(0.05, 0.3) * (high - low))
    broken = np.float32(low + darkest * (high - low)) + relief
    share = np.float32(rng.choice([0.0, 0.0, 1.0, rng.random()]))
    face = beyond * (1 - share) + broken[:, :, None] * share
    lip = clipped(1.3 - np.abs(height - distance - 0.5)) * (distance > 0) * (height > 0)
    change = (cover * np.float32(1 - 0.6 * rng.random() ** 2))[:, :, None] * (face - site.window)
    return change + (lip * np.float32(site.glint * rng.uniform(0, 1) ** 3))[:, :, None]


def _from_edge(values: Plane, distance: Plane, depth: Plane) -> Plane:
    """The values (h, w, C) that lie ``depth`` (h, w) pixels from each pixel towards the outside, across the edge."""
    soft = blurred(distance, 1.0)
    slope_x, slope_y = cv2.Sobel(soft, cv2.CV_32F, 1, 0) / 8, cv2.Sobel(soft, cv2.CV_32F, 0, 1) / 8
    rows, columns = distance.shape
    x = np.clip(np.arange(columns, dtype=np.float32)[None, :] - slope_x * depth, 0, columns - 1)
    y = np.clip(np.arange(rows, dtype=np.float32)[:, None] - slope_y * depth, 0, rows - 1)
    seen = cv2.remap(values, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR)
    return np.asarray(seen, dtype=np.float32).reshape(values.shape)
