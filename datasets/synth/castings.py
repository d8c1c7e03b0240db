"""Generated castings: pictures of good parts of one product, and of parts with defects in them.

A design (``casting_shapes``) is lit, given a cast or a machined skin and photographed.  Parts of one design differ as
real ones do: in turn, place, light, skin and noise.  Defects are put in before the camera, so that noise and
compression treat good and defective parts alike.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.synth.casting_defects import CastingDefect, CastingDefectStyle, inject_casting_defects
from datasets.synth.casting_shapes import CastingDesign, Relief, draw_design, relief
from datasets.synth.textures import Plane, blurred, clipped, fractal_noise, slope, smooth_noise

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]
_TIMES = 2  # castings are lit at twice the size of the picture
_SIZE_PX = (300, 300)


@dataclass(frozen=True, slots=True)
class CastingCamera:
    """How one part's picture differs from another's; each draws between nothing and these.

    ``turn``: of the part, radians either way; ``shift``: of its place, share of the picture; ``scale``: relative;
    ``light``: wander of the light's direction (radians) about the station's; ``noise``: deviation in grey levels;
    ``blur_px``: Gaussian sigma; ``jpeg_quality``: the worst, 100 for none.
    """

    turn: float = float(np.pi)
    shift: float = 0.02
    scale: float = 0.015
    light: float = 0.15
    noise: float = 3.0
    blur_px: float = 0.7
    jpeg_quality: int = 80


def draw_casting(rng: np.random.Generator, *, size_px: tuple[int, int] = _SIZE_PX) -> tuple[Image, Mask]:
    """A picture (H, W) uint8 of a good part of a random design, and where the part is; ``size_px`` (height, width)."""
    return photograph_casting(draw_design(rng), rng, size_px=size_px)


def photograph_casting(
    design: CastingDesign,
    rng: np.random.Generator,
    *,
    size_px: tuple[int, int] = _SIZE_PX,
    camera: CastingCamera = CastingCamera(),
) -> tuple[Image, Mask]:
    """A picture (H, W) uint8 of one good part of the design, and where the part is; ``size_px`` (height, width)."""
    scene, part = _lit(design, rng, size_px, camera)
    return _exposed(scene, rng, camera), part


def generate_casting(
    rng: np.random.Generator,
    design: CastingDesign,
    *,
    defects: int,
    size_px: tuple[int, int] = _SIZE_PX,
    camera: CastingCamera = CastingCamera(),
    style: CastingDefectStyle = CastingDefectStyle(),  # noqa: B008 - frozen
) -> tuple[Image, tuple[CastingDefect, ...]]:
    """A picture (H, W) uint8 of one part with up to ``defects`` defects in it; ``size_px`` (height, width)."""
    scene, part = _lit(design, rng, size_px, camera)
    scene, made = inject_casting_defects(scene, rng, count=defects, style=style, part=part)
    return _exposed(scene, rng, camera), made


def _lit(
    design: CastingDesign, rng: np.random.Generator, size_px: tuple[int, int], camera: CastingCamera
) -> tuple[Image, Mask]:
    """What an ideal camera sees (H, W) uint8 of one part, and where the part is."""
    height, width = size_px
    shape = relief(design, *_places(design, rng, size_px, camera))
    light = -2.2 + rng.uniform(-camera.light, camera.light)  # from the upper left
    metal = _metal(design, shape, rng, light)
    picture = shape.cover * metal + (1 - shape.cover) * _table(design, shape.cover, rng, light)
    small = cv2.resize(picture * _vignette(picture.shape, rng), (width, height), interpolation=cv2.INTER_AREA)
    part = cv2.resize(shape.cover, (width, height), interpolation=cv2.INTER_AREA) > 0.5
    return np.asarray(clipped(np.asarray(small, dtype=np.float32)) * 255, dtype=np.uint8), np.asarray(part)


def _places(
    design: CastingDesign, rng: np.random.Generator, size_px: tuple[int, int], camera: CastingCamera
) -> tuple[Plane, Plane]:
    """Places (H, W) in radii from the middle of the part, turned as the part lies."""
    rows, columns = size_px[0] * _TIMES, size_px[1] * _TIMES
    radius_px = design.radius * (1 + rng.uniform(-camera.scale, camera.scale)) * min(rows, columns) / 2
    dx, dy = rng.uniform(-camera.shift, camera.shift, 2) * min(rows, columns)
    x = ((np.arange(columns) - columns / 2 - dx) / radius_px).astype(np.float32)[None, :]
    y = ((np.arange(rows) - rows / 2 - dy) / radius_px).astype(np.float32)[:, None]
    turn = rng.uniform(-camera.turn, camera.turn)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    return cos * x + sin * y, cos * y - sin * x


def _metal(design: CastingDesign, shape: Relief, rng: np.random.Generator, light: float) -> Plane:
    """Brightness (H, W) of the metal, 0 to 1: slopes towards the light are bright, hollows dark."""
    pixel = float(np.abs(np.diff(shape.radius[0])).max())
    skin = _skin(design, shape, rng, pixel)
    lit = -slope(blurred(shape.height, 1.0), light) * np.float32(0.45)
    hollow = blurred(shape.height, 0.06 / pixel) - shape.height
    depth = np.float32(0.3) + np.float32(0.7) * shape.height
    base = np.float32(design.tone * rng.uniform(0.93, 1.07)) * depth * (1 + np.float32(0.15) * shape.machined)
    facing = np.cos(2 * (shape.turn - np.float32(rng.uniform(0, np.pi)))) ** 3
    gloss = shape.machined * np.float32(design.turned) * facing * shape.height
    return np.asarray(base * (1 + lit - np.float32(0.9) * np.maximum(hollow, 0)) + skin + gloss * 0.6, dtype=np.float32)


def _skin(design: CastingDesign, shape: Relief, rng: np.random.Generator, pixel: float) -> Plane:
    """Texture (H, W): grains of sand and blotches on cast faces, rings of the tool on machined ones."""
    size = (shape.height.shape[0], shape.height.shape[1])
    sand = fractal_noise(rng, size, 5.0, 3) * np.float32(0.022 * design.sand)
    blotches = smooth_noise(rng, size, 0.25 / pixel) * np.float32(0.02 * design.sand)
    rings = rng.standard_normal(int(2 / pixel / 2) + 8, dtype=np.float32)
    groove = rings[np.minimum((shape.radius / np.float32(pixel) / 2).astype(np.intp), len(rings) - 1)]
    streaks = groove * np.float32(0.012) * (1 + smooth_noise(rng, size, 0.2 / pixel) * np.float32(0.5))
    return np.asarray((sand + blotches) * (1 - np.float32(0.8) * shape.machined) + streaks * shape.machined, np.float32)


def _table(design: CastingDesign, cover: Plane, rng: np.random.Generator, light: float) -> Plane:
    """Brightness (H, W) of what the part lies on, with the part's shadow."""
    size = (cover.shape[0], cover.shape[1])
    away = 0.02 * min(size)
    move = np.array([[1, 0, -away * np.cos(light)], [0, 1, -away * np.sin(light)]])
    moved = cv2.warpAffine(cover, move, size[::-1], flags=cv2.INTER_LINEAR)
    shadow = blurred(np.asarray(moved, dtype=np.float32), 0.012 * min(size))
    grain = smooth_noise(rng, size, min(size) / 4) * np.float32(0.015) + smooth_noise(rng, size, 3.0) * np.float32(
        0.006
    )
    return np.asarray((np.float32(design.ground) + grain) * (1 - np.float32(0.65) * shadow), dtype=np.float32)


def _vignette(shape: tuple[int, ...], rng: np.random.Generator) -> Plane:
    rows = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, shape[1], dtype=np.float32)[None, :]
    tilt = rng.uniform(-0.06, 0.06, 2).astype(np.float32)
    fall = np.float32(rng.uniform(0.02, 0.09)) * (rows * rows + columns * columns)
    return np.asarray(np.float32(rng.uniform(0.95, 1.05)) * (1 - fall + rows * tilt[0] + columns * tilt[1]), np.float32)


def _exposed(scene: Image, rng: np.random.Generator, camera: CastingCamera) -> Image:
    """The scene (H, W) uint8 as the camera delivers it: a little blurred, noisy, compressed."""
    picture = blurred(scene.astype(np.float32), rng.uniform(0.0, camera.blur_px))
    picture = picture + rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(rng.uniform(0, camera.noise))
    frame = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    if camera.jpeg_quality >= 100:
        return frame
    quality = int(rng.integers(camera.jpeg_quality, 99))
    encoded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE), dtype=np.uint8)
