"""Lays tracks: single ones that feel their way, and bundles that run in parallel."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from datasets.synth.copper import Copper, Pad, Points, Shape, disc, heading_vector, line, polygon, random_point


@dataclass(frozen=True, slots=True)
class Rules:
    """Sizes of one board, in pixels; ``corner`` is how tracks bend, ``pad`` the outline of its pads."""

    track_px: float
    clearance_px: float
    via_px: float
    pad_px: float
    drilled: bool
    teardrops: bool
    corner: str
    pad: str


def via(copper: Copper, rules: Rules, x: float, y: float, *, net: int = 0) -> int:
    """A via of ``net`` (a new one when 0), drilled where the board is; returns its net, 0 when there is no room."""
    net = copper.add([disc(x, y, rules.via_px)], rules.clearance_px, net)
    if net and rules.drilled and rules.via_px >= 9:
        copper.drill(x, y, max(3.0, 0.42 * rules.via_px))
    return net


def walk(copper: Copper, rng: np.random.Generator, rules: Rules, pad: Pad, *, width_px: float) -> None:
    """A track from a pad, a leg at a time, turning by eighths where it likes or must; it ends at a via or the edge."""
    point, first = np.array([pad.x, pad.y]), pad.heading
    heading, laid = first, 0
    for _ in range(int(rng.integers(2, 7))):
        length = float(np.clip(rng.exponential(9 * width_px + 40), 3 * width_px + pad.radius_px, 600))
        turns = (0, 1, -1) if laid == 0 else _turns(rng)
        for turn in turns:
            wanted = heading + turn
            end = point + heading_vector(wanted) * length
            if abs(wanted - first) <= 2 and copper.add(
                [line(np.stack([point, end]), width_px)], rules.clearance_px, pad.net
            ):
                break
            length *= 0.7
        else:
            break
        if laid == 0 and rules.teardrops and length > 3 * pad.radius_px:
            _teardrop(copper, rules, pad, (wanted, width_px))
        point, heading, laid = end, wanted, laid + 1
        if not (0 <= end[0] < copper.width and 0 <= end[1] < copper.height):
            return
    if laid:
        via(copper, rules, float(point[0]), float(point[1]), net=pad.net)


def _turns(rng: np.random.Generator) -> tuple[int, ...]:
    side = 1 if rng.random() < 0.5 else -1
    return (side, -side, 0, 2 * side) if rng.random() < 0.8 else (2 * side, -2 * side, side, 0)


def _teardrop(copper: Copper, rules: Rules, pad: Pad, leg: tuple[int, float]) -> None:
    along, across = heading_vector(leg[0]), heading_vector(leg[0] + 2)
    centre = np.array([pad.x, pad.y])
    tip, side = centre + along * 2.6 * pad.radius_px, across * max(leg[1] / 2, 0.85 * pad.radius_px)
    copper.add([polygon(np.stack([centre + side, tip, centre - side]))], rules.clearance_px, pad.net)


def bundle(copper: Copper, rng: np.random.Generator, rules: Rules, *, tracks: int, width_px: float) -> None:
    """Parallel tracks across the board, bending together; where one is blocked it stops, sometimes at a via."""
    pitch = width_px + rules.clearance_px * rng.uniform(1.0, 1.6)
    reach = pitch * tracks
    path = _centre_line(copper, rng, max(0.75 * reach, 6 * width_px, 60.0))
    if rules.corner == "arc":
        path = _rounded(path, reach * 0.6 + 10)
    skipped = rng.random(tracks) < (0.12 if tracks > 3 else 0.0)
    for number in range(tracks):
        if not skipped[number]:
            _lay(copper, rules, _offset(path, (number - (tracks - 1) / 2) * pitch), width_px)


def _centre_line(copper: Copper, rng: np.random.Generator, leg_px: float) -> Points:
    """An octilinear path from outside the board across it (N, 2): it turns one way, or left and right in turn."""
    size = np.array([copper.width, copper.height], np.float64)
    heading = 2 * int(rng.integers(4))
    start = rng.uniform(0.0, 1.0, 2) * size
    entry = heading_vector(heading)
    start = np.where(np.abs(entry) > 0.5, np.where(entry > 0, -30.0, size + 30.0), start)
    side, same_way = (1 if rng.random() < 0.5 else -1), rng.random() < 0.3
    points, turned_by = [start], 0
    for leg in range(int(rng.integers(1, 7))):
        length = leg_px * rng.uniform(1.0, 3.0) + (30 if leg == 0 else 0)
        points.append(points[-1] + heading_vector(heading + turned_by) * length)
        turned_by = turned_by + side if same_way else side * (leg % 2 == 0)
        if rng.random() < 0.25 and not same_way:
            side = -side
        if abs(turned_by) > 4 or np.any(points[-1] < -leg_px) or np.any(points[-1] > size + leg_px):
            break
    if rng.random() < 0.75:  # most run on to the edge
        points[-1] = points[-1] + (points[-1] - points[-2]) / np.linalg.norm(points[-1] - points[-2]) * size.max()
    return np.array(points)


def _offset(path: Points, distance_px: float) -> Points:
    """The path (N, 2) moved sideways, corners mitred."""
    steps = np.diff(path, axis=0)
    steps /= np.maximum(np.linalg.norm(steps, axis=1, keepdims=True), 1e-9)
    normals = np.stack([-steps[:, 1], steps[:, 0]], axis=1)
    before, after = np.vstack([normals[:1], normals]), np.vstack([normals, normals[-1:]])
    mitre = before + after
    mitre *= 2 / np.maximum(np.sum(mitre**2, axis=1, keepdims=True), 0.3)
    return np.asarray(path + mitre * distance_px)


def _rounded(path: Points, radius_px: float) -> Points:
    """The path with each corner replaced by a curve that starts up to ``radius_px`` before it."""
    points = [path[0]]
    for before, corner, after in zip(path, path[1:], path[2:], strict=False):
        into, out = corner - before, after - corner
        cut = min(radius_px, 0.48 * float(np.linalg.norm(into)), 0.48 * float(np.linalg.norm(out)))
        start, end = corner - into / np.linalg.norm(into) * cut, corner + out / np.linalg.norm(out) * cut
        for t in np.linspace(0, 1, 9):
            points.append((1 - t) ** 2 * start + 2 * t * (1 - t) * corner + t**2 * end)
    return np.array([*points, path[-1]])


def _lay(copper: Copper, rules: Rules, path: Points, width_px: float) -> None:
    """A track along a path (N, 2): whole with sharp corners where it fits, else up to what blocks it."""
    if rules.corner == "sharp":
        outline = np.vstack([_offset(path, width_px / 2), _offset(path, -width_px / 2)[::-1]])
        if copper.add([polygon(outline)], rules.clearance_px):
            return
    whole = line(path, width_px)
    if copper.add([whole], rules.clearance_px):
        return
    net = copper.new_net()
    for start, end in pairwise(path):
        leg = _longest(copper, rules, (start, end), (width_px, net))
        if leg is None:
            return
        copper.put([leg], net)
        if leg.points[1] is not end and not np.array_equal(leg.points[1], end):
            via(copper, rules, float(leg.points[1, 0]), float(leg.points[1, 1]), net=net)
            return


def _longest(copper: Copper, rules: Rules, ends: tuple[Points, Points], track: tuple[float, int]) -> Shape | None:
    """The longest leg from the first point towards the second that fits, None when hardly any does."""
    start, end = ends
    least = 3 * track[0] / max(1.0, float(np.linalg.norm(end - start)))
    for part in (1.0, 0.8, 0.6, 0.4, 0.25, 0.12):
        leg = line(np.stack([start, start + (end - start) * part]), track[0])
        if part > least and copper.fits([leg], rules.clearance_px, (track[1],)):
            return leg
    return None


def meander(copper: Copper, rng: np.random.Generator, rules: Rules, *, width_px: float) -> int:
    """A square wave, as delay lines and printed coils have; returns its net, 0 when there is no room."""
    pitch, height = width_px + rules.clearance_px * rng.uniform(1.2, 3.0), rng.uniform(3, 10) * width_px + 20
    turns = int(rng.integers(3, 12))
    along = np.repeat(np.arange(turns + 1) * pitch, 2)
    across = np.where(np.arange(2 * turns + 2) % 4 < 2, np.arange(2 * turns + 2) % 2, 1 - np.arange(2 * turns + 2) % 2)
    wave = np.stack([along, (across - 0.5) * height], axis=1)
    if rng.random() < 0.5:
        wave = wave[:, ::-1]
    start = rng.uniform(0, 1, 2) * (copper.width, copper.height)
    wave = wave - wave[0] + start
    return copper.add([line(wave, width_px)], rules.clearance_px)


def stray_via(copper: Copper, rng: np.random.Generator, rules: Rules) -> None:
    """A via where there is room, mostly with a track leaving it."""
    x, y = random_point(copper, rng)
    net = via(copper, rules, x, y)
    if net and rng.random() < 0.75:
        pad = Pad(x, y, rules.via_px, net, int(rng.integers(8)))
        walk(copper, rng, rules, pad, width_px=min(rules.track_px, 1.8 * rules.via_px))
