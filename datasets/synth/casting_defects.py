"""Injects casting defects into a picture of any good casting, with the mask and box of what changed.

A place on the part or at an edge is drawn, the mark's change of grey levels is computed in a window around it
(``casting_marks``), blurred as the picture is, given the camera's grain and added.  Faint ends of a mark are taken
away, so that a mask holds the pixels that visibly changed and nothing else changes.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.synth import casting_marks as marks
from datasets.synth.casting_part import Mask, Scene, read_scene
from datasets.synth.casting_shams import inject_shams as inject_shams
from datasets.synth.textures import Plane, blurred
from inspection.types import Box

Image = NDArray[np.uint8]
CASTING_CLASSES = (
    "blowhole",
    "shrinkage",
    "crack",
    "flash",
    "cold-shut",
    "chipping",
    "scratch",
    "dent",
    "inclusion",
    "stain",
)
_UNIT_PX = 300.0  # sizes are given for a picture whose shorter side has this many pixels
_TRIES = 8
_FAINT = 1.5  # grey levels: a smaller change is not made
_LEAST_PX, _LEAST_CHANGE = 4, 5.0  # changed pixels and grey levels of the faintest defect


@dataclass(frozen=True, slots=True)
class _Kind:
    """A class: its mark, how often it is drawn, its least and greatest length (px at _UNIT_PX), where it lies."""

    mark: marks.Mark
    weight: float
    size_px: tuple[float, float]
    at_edge: bool = False


_KINDS = {
    "blowhole": _Kind(marks.blowhole, 0.22, (3, 40)),
    "shrinkage": _Kind(marks.shrinkage, 0.08, (6, 75)),
    "crack": _Kind(marks.crack, 0.09, (6, 75)),
    "flash": _Kind(marks.flash, 0.16, (5, 330), at_edge=True),
    "cold-shut": _Kind(marks.cold_shut, 0.06, (10, 80)),
    "chipping": _Kind(marks.chipping, 0.18, (4, 70), at_edge=True),
    "scratch": _Kind(marks.scratch, 0.07, (6, 80)),
    "dent": _Kind(marks.dent, 0.05, (4, 45)),
    "inclusion": _Kind(marks.inclusion, 0.05, (3, 25)),
    "stain": _Kind(marks.stain, 0.06, (6, 75)),
}


@dataclass(frozen=True, slots=True)
class CastingDefectStyle:
    """What injected defects are like.

    ``size`` multiplies every length; ``contrast`` is the least and greatest share of the grey levels that the
    surroundings leave room for (drawn log-uniformly); ``classes`` are those to draw from, by their usual weights.
    """

    size: float = 1.0
    contrast: tuple[float, float] = (0.15, 1.0)
    classes: tuple[str, ...] = CASTING_CLASSES


@dataclass(frozen=True, slots=True, eq=False)
class CastingDefect:
    """One injected defect: its class, the pixels that changed (H, W), and their exact box."""

    defect_class: str
    box_px: Box
    mask: Mask = field(repr=False)


def inject_casting_defects(
    image: Image,
    rng: np.random.Generator,
    *,
    count: int,
    style: CastingDefectStyle = CastingDefectStyle(),
    part: Mask | None = None,
) -> tuple[Image, tuple[CastingDefect, ...]]:
    """Put up to ``count`` defects into a copy of a good part's picture (H, W) or (H, W, 3) uint8.

    ``part`` (H, W) says where the part is; without it the part is looked for.  Masks of two defects never touch.
    Fewer defects are made where a few attempts found no room.
    """
    scene, light = read_scene(image, part), rng.uniform(0, 2 * np.pi)
    picture, taken = image.copy(), np.zeros(image.shape[:2], bool)
    weights = np.array([_KINDS[name].weight for name in style.classes])
    defects = []
    for _ in range(count):
        name = style.classes[int(rng.choice(len(weights), p=weights / weights.sum()))]
        for _attempt in range(_TRIES):
            defect = _try_defect(picture, taken, scene, (name, light), rng, style)
            if defect is not None:
                defects.append(defect)
                break
    return picture, tuple(defects)


def _try_defect(
    picture: Image,
    taken: Mask,
    scene: Scene,
    kind: tuple[str, float],
    rng: np.random.Generator,
    style: CastingDefectStyle,
) -> CastingDefect | None:
    """Draw one defect into ``picture`` and note it in ``taken``; None, and nothing drawn, when it does not fit."""
    name, light = kind
    window, site = _site(picture, scene, _KINDS[name], light, rng, style)
    if _KINDS[name].at_edge and (site.inside.all() or not site.inside.any()):
        return None  # there is no edge
    change = _KINDS[name].mark(site, rng)
    if not _KINDS[name].at_edge:
        change = change * (site.inside if change.ndim == 2 else site.inside[:, :, None])
    drawn = _as_photographed(site, change, scene.edge_px * rng.uniform(0.5, 1.3), rng)
    before = picture[window].reshape(drawn.shape)
    changed = np.asarray((drawn != before).any(axis=2))
    if not _fits(changed, taken[window], np.abs(drawn.astype(np.int16) - before), site.grain):
        return None
    picture[window] = drawn.reshape(picture[window].shape)
    taken[window] |= cv2.dilate(changed.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    mask = np.zeros(taken.shape, bool)
    mask[window] = changed
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    top, left = window[0].start, window[1].start
    box = (left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1)
    return CastingDefect(name, (float(box[0]), float(box[1]), float(box[2]), float(box[3])), mask)


def _fits(changed: Mask, taken: Mask, change: NDArray[np.int16], grain: float) -> bool:
    if int(changed.sum()) < _LEAST_PX or bool((changed & taken).any()):
        return False
    return float(change.max()) >= max(_LEAST_CHANGE, 2.0 * grain)


def _site(
    picture: Image, scene: Scene, kind: _Kind, light: float, rng: np.random.Generator, style: CastingDefectStyle
) -> tuple[tuple[slice, slice], marks.Site]:
    """The window of a defect to be, and what is there."""
    unit = min(picture.shape[:2]) / _UNIT_PX * style.size
    size = max(3.0, unit * float(np.exp(rng.uniform(*np.log(kind.size_px)))))
    outer = not len(scene.edges) or rng.random() < 0.55
    where = _place(scene, kind, outer, rng)
    if not kind.at_edge and _in_shade(picture, where, scene) and rng.random() < 0.8:
        where = _place(scene, kind, outer, rng)  # little can be seen there
    if kind.at_edge and not outer:
        size = min(size, 45 * unit)
    half = min(0.62 * size, 0.75 * max(picture.shape[:2])) + 7
    window = _around(where, half, picture.shape)
    pixels = picture[window].astype(np.float32).reshape(*(s.stop - s.start for s in window), -1)
    centre = (where[0] - window[1].start, where[1] - window[0].start)
    inside = scene.part[window]
    if kind.at_edge and (not outer or (size < 60 * unit and rng.random() < 0.5)):
        inside = _light_side(pixels, centre, rng)
    body, glint, grain = _amplitudes(pixels, centre, scene.tones, rng, style)
    return window, marks.Site(pixels, inside, centre, size, light, body, glint, grain, scene.tones)


def _place(scene: Scene, kind: _Kind, outer: bool, rng: np.random.Generator) -> tuple[float, float]:
    # Many defects on the surface start from an edge, where the metal cooled last or the tool came in.
    wanted = (scene.outline if outer else scene.edges) if kind.at_edge else scene.surface
    places = scene.edges if not kind.at_edge and rng.random() < 0.25 else wanted
    places = places if len(places) else scene.surface
    x, y = places[int(rng.integers(len(places)))] + rng.uniform(-1.5, 1.5, 2)
    height, width = scene.part.shape
    return float(np.clip(x, 0, width - 1)), float(np.clip(y, 0, height - 1))


def _in_shade(picture: Image, where: tuple[float, float], scene: Scene) -> bool:
    return float(picture[int(where[1]), int(where[0])].mean()) < 0.8 * scene.tones[0] + 0.2 * scene.tones[1]


def _around(where: tuple[float, float], half: float, shape: tuple[int, ...]) -> tuple[slice, slice]:
    (x, y), reach = where, int(np.ceil(half))
    rows = slice(max(0, int(y) - reach), min(shape[0], int(y) + reach + 1))
    return rows, slice(max(0, int(x) - reach), min(shape[1], int(x) + reach + 1))


def _light_side(pixels: Plane, centre: tuple[float, float], rng: np.random.Generator) -> Mask:
    """The lighter side (h, w) of the edge at the centre, or now and then the darker; all True when there is no edge."""
    grey = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels.mean(axis=2)
    near = grey[_around(centre, 4, grey.shape)]
    low, high = float(near.min()), float(near.max())
    if high - low < _LEAST_CHANGE:
        return np.ones(grey.shape, bool)
    light = blurred(np.asarray(grey, dtype=np.float32), 0.8) > (low + high) / 2
    return np.asarray(~light if rng.random() < 0.3 else light)


def _amplitudes(
    pixels: Plane,
    centre: tuple[float, float],
    tones: tuple[float, float],
    rng: np.random.Generator,
    style: CastingDefectStyle,
) -> tuple[float, float, float]:
    """Change of a defect's body, of its lit rims, and deviation of the grain, in grey levels."""
    near = pixels[_around(centre, 4, pixels.shape)]
    level = float(np.median(near))
    grain = 1.05 * float(np.abs(near[1:] - near[:-1]).mean()) if len(near) > 1 else 0.0
    share = float(np.exp(rng.uniform(*np.log(style.contrast))))
    down, up = level - tones[0], max(10.0, min(tones[1] - level, 0.8 * level + 30))
    least = max(8.0, 2.5 * min(grain, 8.0))
    body = -max(least, share * down) if down > 25 else max(least, 0.8 * share * up)
    return body, max(least, rng.uniform(0.4, 1.2) * share**0.5 * up), grain


def _as_photographed(site: marks.Site, change: Plane, blur_px: float, rng: np.random.Generator) -> Image:
    """The window (h, w, C) uint8 with the change in it: blurred, grained, faint ends cut, rounded."""
    if change.ndim == 2:  # light falls alike on all colours
        level = site.window.mean() + 20
        change = change[:, :, None] * ((site.window + 20) / level if site.window.shape[2] > 1 else 1)
    change = blurred(np.ascontiguousarray(change, dtype=np.float32), blur_px)
    size = np.abs(change).max(axis=2, keepdims=True)
    peak = float(size.max())
    grain = blurred(rng.standard_normal(site.shape, dtype=np.float32), 0.5)[:, :, None]
    change = change + grain * np.minimum(size / 25, 1) * np.float32(min(site.grain, 8.0))
    faint = np.float32(_FAINT + 0.06 * peak)
    kept = np.maximum(size - faint, 0) / np.maximum(size, 1e-6) * (peak / max(peak - float(faint), 1e-6))
    return np.asarray(np.clip(np.rint(site.window + change * kept), 0, 255), dtype=np.uint8)
