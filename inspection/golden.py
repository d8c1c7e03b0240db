"""Registration: lays the golden template over a frame, and says how well it fits.

The golden is moved onto the frame, never the frame onto the golden, so that frame pixels reach the detector untouched
and boxes need no way back.  Boards repeat themselves and feature matching gets lost on them; instead a coarse search
over shift, angle and scale at a tenth of the size (normalised cross-correlation) is refined by inverse compositional
Lucas-Kanade alignment (Baker and Matthews 2004) of a similarity transform, whose gradients are computed once a golden.

Both images are high-passed first, so that an illumination gradient does not pull the result.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.errors import RegistrationError
from inspection.geometry import Matrix, apply, compose, invert

Image = NDArray[np.uint8]
Plane = NDArray[np.float32]
_COARSE_SIDE = 64  # longest side at which angle and scale are searched
_FINE_SIDE = 320  # alignment goes on doubling the size while the longest side stays within this
_FINE_SIDE_LARGE = 1024  # the same for frames that are cut into tiles, each of which is aligned once more
_GOOD_START = 0.80  # correlation at the second level above which no angle search is needed
_OUTSIDE = -1e9  # marks pixels outside the frame in a warped plane, also where they weigh next to nothing
_CLEAR_FIT = 0.75  # correlation below which a nearly bare board gets a second look


@dataclass(frozen=True, slots=True)
class RegistrationLimits:
    """How far a part may lie from its golden, and how well it must fit, before the frame is refused."""

    max_shift_px: float = 40.0
    max_rotate_deg: float = 3.0
    max_scale: float = 0.03
    min_quality: float = 0.5
    min_coverage: float = 0.85


@dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """Where the golden lies on the frame.

    ``matrix`` (2, 3) float64 moves golden pixels to frame pixels.  ``quality`` is the normalised correlation of frame
    and golden where they overlap (1 = identical), the worst quarter of the blocks counted alone; ``coverage`` is the
    share of the golden's area that the frame shows.
    """

    matrix: Matrix
    quality: float
    coverage: float


class _Level:
    """One pyramid step of the golden: the image, and what alignment needs of it, computed once."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        height, width = plane.shape
        slope_x = cv2.Sobel(plane, cv2.CV_32F, 1, 0, scale=1 / 8)
        slope_y = cv2.Sobel(plane, cv2.CV_32F, 0, 1, scale=1 / 8)
        self.reach = max(height, width) / 2
        x = (np.arange(width, dtype=np.float32)[None, :] - (width - 1) / 2) / np.float32(self.reach)
        y = (np.arange(height, dtype=np.float32)[:, None] - (height - 1) / 2) / np.float32(self.reach)
        steepest = [slope_x, slope_y, slope_x * x + slope_y * y, slope_y * x - slope_x * y]
        self.steepest = np.stack([image.ravel() for image in steepest]).astype(np.float32)  # (4, H*W)
        hessian = (self.steepest @ self.steepest.T).astype(np.float64)
        # A board of parallel tracks has no anchor along them: damping keeps that direction where the search put it.
        # Scale and angle of a nearly bare board are held near 0 by a prior that weighs little beside any artwork.
        weight = float(np.trace(hessian)) / 4 + 1e-6
        self.prior = 0.003 * weight
        damping = np.array([0.01 * weight, 0.01 * weight, self.prior, self.prior])
        self.solve = np.linalg.inv(hessian + np.diag(damping))

    def step(self, parameters: NDArray[np.float64]) -> Matrix:
        """The 2x3 matrix of a parameter vector (shift x, shift y, scale, angle), about the centre of the level."""
        shift_x, shift_y, scale, angle = parameters
        a, b = scale / self.reach, angle / self.reach
        centre = np.array([(self.plane.shape[1] - 1) / 2, (self.plane.shape[0] - 1) / 2])
        turn = np.array([[1 + a, -b], [b, 1 + a]])
        return np.hstack([turn, (centre - turn @ centre + [shift_x, shift_y])[:, None]])


class GoldenTemplate:
    """A golden image (H, W) uint8 prepared for registration.  Read-only after construction, safe to share."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.scales = _scales(image.shape)
        if round(min(image.shape) * self.scales[0]) < 1:
            raise RegistrationError(
                f"a golden template of {image.shape[1]}x{image.shape[0]} px is too narrow to be laid over a frame",
                fix="take frame and golden from a less elongated region",
            )
        self.levels = [_Level(_prepare(image, scale)) for scale in self.scales]
        self.small = _shrink(image, self.scales[-1])


def _scales(shape: tuple[int, ...]) -> list[float]:
    """Size factors from coarse to fine: the longest side doubles from 64 px up to 256, or 1024 for a large frame."""
    longest = max(shape)
    finest = _FINE_SIDE if longest <= _FINE_SIDE_LARGE else _FINE_SIDE_LARGE
    sides = [_COARSE_SIDE]
    while sides[-1] * 2 <= min(finest, longest):
        sides.append(sides[-1] * 2)
    return [min(1.0, side / longest) for side in sides]


def _shrink(image: Image, scale: float) -> Image:
    if scale == 1.0:
        return image
    return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _prepare(image: Image, scale: float) -> Plane:
    """Shrink, smooth, high-pass; values scaled to about unit contrast."""
    small = _shrink(image, scale)
    plane = cv2.GaussianBlur(small.astype(np.float32), (0, 0), 0.8)
    side = max(9, round(max(small.shape) / 10)) | 1
    plane = plane - cv2.blur(plane, (side, side))
    return np.asarray(plane / max(1.0, float(plane.std())), dtype=np.float32)


def register(frame: Image, golden: GoldenTemplate, limits: RegistrationLimits) -> Registration:
    """Find the golden on a frame (H, W) uint8.

    RegistrationError when nothing within the limits fits well enough: wrong part, part out of place, or no contrast.
    """
    if frame.shape != golden.image.shape:
        raise RegistrationError(
            f"the frame is {frame.shape[1]}x{frame.shape[0]} px, the golden {golden.image.shape[1]}x{golden.image.shape[0]} px",
            fix="take the golden with the camera and region of interest that the recipe uses",
        )
    last = len(golden.levels) - 1
    plane = _prepare(frame, golden.scales[min(1, last)])
    matrix = _start(frame, plane, golden, limits)
    for index in range(2, last + 1):
        matrix = _rescale(matrix, golden.scales[index] / golden.scales[index - 1])
        plane = _prepare(frame, golden.scales[index])
        matrix = _align(plane, golden.levels[index], matrix, steps=4)
    quality = _quality(plane, golden.levels[last], matrix)
    if quality < _CLEAR_FIT:  # on a nearly bare board a defect outweighs the artwork in any correlation
        small = _shrink(frame, golden.scales[last])
        for motion in (matrix, np.eye(2, 3)):
            agreement = _agreement(small, golden.small, motion)
            if agreement > quality:
                quality, matrix = agreement, motion
    matrix = _rescale(matrix, 1 / golden.scales[last])
    found = Registration(matrix, quality, _coverage(matrix, frame.shape))
    _judge_fit(found, limits, frame.shape)
    return found


def _agreement(small: Image, golden: Image, matrix: Matrix) -> float:
    """Fit of a nearly bare golden: 1 when the same pixels are light and dark, 0 when a tenth of them differ."""
    seen, valid = _overlap(small.astype(np.float32), golden.astype(np.float32), matrix)
    a, b = seen[valid], golden[valid].astype(np.float32)
    if a.size < 0.2 * valid.size:
        return 0.0
    apart = np.abs(a / max(1.0, float(np.median(a))) - b / max(1.0, float(np.median(b)))) > 0.3
    return max(0.0, 1.0 - 10 * float(np.mean(apart)))


def _rescale(matrix: Matrix, factor: float) -> Matrix:
    """The same motion in an image ``factor`` times as large (pixel centres at integers)."""
    linear, shift = matrix[:, :2], matrix[:, 2]
    offset = (factor - 1) / 2  # where pixel 0's centre lands
    return np.hstack([linear, (factor * shift + offset - linear @ [offset, offset])[:, None]])


def _start(frame: Image, plane: Plane, golden: GoldenTemplate, limits: RegistrationLimits) -> Matrix:
    """The motion at the second level (``plane``): straight if that fits, else the best of ever wider searches."""
    index = min(1, len(golden.levels) - 1)
    level, ratio = golden.levels[index], golden.scales[index] / golden.scales[0]
    best = _align(plane, level, np.eye(2, 3), steps=6)
    best_fit = _correlation(plane, level.plane, best)
    if best_fit >= _GOOD_START:
        return best
    coarse = _prepare(frame, golden.scales[0])
    for candidates in (_shifts, _search):
        for candidate in candidates(coarse, golden, limits):
            aligned = _align(plane, level, _rescale(candidate, ratio), steps=12)
            fit = _correlation(plane, level.plane, aligned)
            if fit > best_fit:
                best, best_fit = aligned, fit
        if best_fit >= _GOOD_START:
            break
    return best


def _shifts(plane: Plane, golden: GoldenTemplate, limits: RegistrationLimits) -> list[Matrix]:
    """The best shift at the coarsest level."""
    return [_shift_search(plane, golden.levels[0].plane, np.eye(2, 3), golden.scales[0] * limits.max_shift_px)[1]]


def _search(plane: Plane, golden: GoldenTemplate, limits: RegistrationLimits, *, keep: int = 4) -> list[Matrix]:
    """The ``keep`` best motions at the coarsest level over a grid of angles and scales."""
    target, reach = golden.levels[0].plane, golden.scales[0] * limits.max_shift_px
    centre = ((target.shape[1] - 1) / 2, (target.shape[0] - 1) / 2)
    angles = np.linspace(-limits.max_rotate_deg, limits.max_rotate_deg, 2 * round(limits.max_rotate_deg) + 1)
    scales = 1 + np.linspace(-limits.max_scale, limits.max_scale, 2 * round(limits.max_scale * 67) + 1)
    found = []
    for angle in angles:
        for scale in scales:
            turn = np.array(cv2.getRotationMatrix2D(centre, float(angle), float(scale)), dtype=np.float64)
            found.append(_shift_search(plane, target, turn, reach))
    found.sort(key=lambda item: -item[0])
    return [matrix for _, matrix in found[:keep]]


def _shift_search(plane: Plane, target: Plane, turn: Matrix, reach: float) -> tuple[float, Matrix]:
    """Best correlation over shifts of up to ``reach`` pixels for a given rotation and scale, and that motion."""
    margin = min(int(np.ceil(reach)) + 1, min(target.shape) // 3)
    height, width = target.shape
    turned = cv2.warpAffine(plane, turn, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    inner = target[margin : height - margin, margin : width - margin]
    map_ = cv2.matchTemplate(turned, inner, cv2.TM_CCOEFF_NORMED)
    # Along parallel tracks every shift fits alike: of equals take the nearest.
    offset = np.abs(np.arange(-margin, margin + 1, dtype=np.float32)) / np.float32(max(margin, 1))
    map_ = map_ - np.float32(0.03) * (offset[:, None] + offset[None, :])
    _, score, _, (x, y) = cv2.minMaxLoc(map_)
    shift = np.array([x - margin, y - margin], float)
    return float(score), np.hstack([turn[:, :2], (turn[:, 2] + turn[:, :2] @ shift)[:, None]])


def _align(plane: Plane, level: _Level, matrix: Matrix, *, steps: int) -> Matrix:
    """Inverse compositional Lucas-Kanade: refine a golden-to-frame motion at one level."""
    for _ in range(steps):
        seen, valid = _overlap(plane, level.plane, matrix)
        # Clipped, so that a defect or a missing corner cannot pull the whole board.
        error = np.clip(seen - level.plane, -1.5, 1.5) * valid
        slope = (level.steepest @ error.ravel()).astype(np.float64)
        slope[2:] += level.prior * level.reach * np.array(_scale_and_angle(matrix))
        parameters = level.solve @ slope
        matrix = compose(matrix, invert(level.step(parameters)))
        if float(np.abs(parameters).max()) < 0.02:
            break
    return matrix


def _scale_and_angle(matrix: Matrix) -> tuple[float, float]:
    """Change of scale (0 = none) and rotation (radians) of a 2x3 similarity."""
    linear = matrix[:, :2]
    return float(np.sqrt(abs(np.linalg.det(linear)))) - 1, float(np.arctan2(linear[1, 0], linear[0, 0]))


def _overlap(plane: Plane, target: Plane, matrix: Matrix) -> tuple[Plane, NDArray[np.bool_]]:
    """The frame seen from the golden (0 where it shows nothing), and where it shows anything."""
    seen = cv2.warpAffine(
        plane,
        matrix,
        (target.shape[1], target.shape[0]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderValue=_OUTSIDE,
    )
    valid = seen > -100
    return np.asarray(np.where(valid, seen, 0), dtype=np.float32), np.asarray(valid)


def _moments(plane: Plane, target: Plane, matrix: Matrix) -> NDArray[np.float64]:
    """Sums over each of 4 x 4 blocks of the overlap: count, a, b, aa, bb, ab -> (6, 4, 4)."""
    seen, valid = _overlap(plane, target, matrix)
    height, width = (side - side % 4 for side in target.shape)
    weight, a = valid[:height, :width].astype(np.float32), seen[:height, :width]
    b = target[:height, :width] * weight
    means = [cv2.resize(image, (4, 4), interpolation=cv2.INTER_AREA) for image in (weight, a, b, a * a, b * b, a * b)]
    return np.asarray(np.array(means, dtype=np.float64) * (height * width / 16))


def _fit(moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normalised correlation from moments (6, ...) -> (...)."""
    count = np.maximum(moments[0], 1)
    mean_a, mean_b = moments[1] / count, moments[2] / count
    spread_a, spread_b = moments[3] / count - mean_a**2, moments[4] / count - mean_b**2
    return np.asarray((moments[5] / count - mean_a * mean_b) / np.sqrt(np.maximum(spread_a * spread_b, 1e-12)))


def _correlation(plane: Plane, target: Plane, matrix: Matrix) -> float:
    """Normalised correlation where frame and golden overlap; 0 when almost nothing does."""
    whole = _moments(plane, target, matrix).sum((1, 2))
    return float(_fit(whole)) if whole[0] >= 0.2 * target.size else 0.0


def _quality(plane: Plane, level: _Level, matrix: Matrix) -> float:
    """The worse of: correlation of the whole, and of its worst quarter of textured blocks (a turned or bent part)."""
    moments = _moments(plane, level.plane, matrix)
    whole = moments.sum((1, 2))
    if whole[0] < 0.2 * level.plane.size:
        return 0.0
    count = np.maximum(moments[0], 1)
    textured = (moments[0] >= 64) & (moments[4] / count - (moments[2] / count) ** 2 >= 0.09)  # not bare area
    if np.count_nonzero(textured) < 2:
        return float(_fit(whole))
    return min(float(_fit(whole)), float(np.quantile(_fit(moments)[textured], 0.25)))


def _coverage(matrix: Matrix, shape: tuple[int, ...]) -> float:
    """Share of the golden's area that falls inside the frame."""
    height, width = shape[:2]
    corners = apply(matrix, np.array([[0, 0], [width, 0], [width, height], [0, height]], float)).astype(np.float32)
    frame = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    inner, _ = cv2.intersectConvexConvex(corners, frame)
    return float(min(1.0, inner / max(1e-6, float(cv2.contourArea(corners)))))


@dataclass(frozen=True, slots=True)
class Displacement:
    """How a part lies off its golden: shift (pixels, the larger axis, at the centre), angle (degrees), change of scale."""

    shift_px: float
    angle_deg: float
    scale: float


def displacement(matrix: Matrix, shape: tuple[int, ...]) -> Displacement:
    """How a part lies off its golden on a frame (height, width, ..)."""
    scale, angle = _scale_and_angle(matrix)
    centre = np.array([[shape[1] / 2, shape[0] / 2]])
    return Displacement(float(np.abs(apply(matrix, centre) - centre).max()), float(np.degrees(angle)), scale)


def _judge_fit(found: Registration, limits: RegistrationLimits, shape: tuple[int, ...]) -> None:
    moved = displacement(found.matrix, shape)
    shift, angle, scale = moved.shift_px, moved.angle_deg, moved.scale
    seen = f"shift {shift:.1f} px, angle {angle:.2f} deg, scale {100 * scale:+.1f} %, quality {found.quality:.2f}"
    if not np.isfinite(found.matrix).all() or found.quality < limits.min_quality:
        raise RegistrationError(
            f"the frame does not fit its golden template ({seen}; at least {limits.min_quality:.2f} is wanted)",
            fix="check that the right part lies in place and in focus; if the product changed, take a new golden",
        )
    slack = 1.15  # the search grid ends at the limits; refinement may go a little beyond
    if (
        shift > slack * limits.max_shift_px
        or abs(angle) > slack * limits.max_rotate_deg
        or abs(scale) > slack * limits.max_scale
    ):
        raise RegistrationError(
            f"the part lies too far from its golden template ({seen})", fix="check the fixture and the trigger position"
        )
    if found.coverage < limits.min_coverage:
        raise RegistrationError(
            f"the frame shows only {100 * found.coverage:.1f} % of the part ({seen})",
            fix=f"centre the part; the recipe asks for {100 * limits.min_coverage:.0f} %",
        )


def lay_over(golden: Image, frame: Image, matrix: Matrix, window: tuple[int, int, int, int]) -> Image:
    """The golden as the camera would see it in a window (x1, y1, x2, y2) of the frame, same size as the window.

    Where the golden does not reach, the frame's own pixels stand in: no difference is claimed where none can be seen.
    """
    x1, y1, x2, y2 = window
    part = frame[y1:y2, x1:x2]
    moved = matrix - np.array([[0, 0, x1], [0, 0, y1]])
    back = invert(moved)
    corners = apply(back, np.array([[0, 0], [x2 - x1, 0], [x2 - x1, y2 - y1], [0, y2 - y1]], float) - 0.5)
    rest = np.abs(apply(moved, corners) - corners).max()
    if rest < 0.05 and golden.shape[:2] == part.shape[:2]:
        return golden
    low = np.floor(corners.min(0)).astype(int) - 2
    high = np.ceil(corners.max(0)).astype(int) + 3
    left, top = np.clip(low, 0, [golden.shape[1], golden.shape[0]])
    right, bottom = np.clip(high, 0, [golden.shape[1], golden.shape[0]])
    source = golden[top:bottom, left:right]
    if not source.size:
        return part.copy()
    local = compose(moved, np.array([[1.0, 0, left], [0, 1.0, top]]))
    laid = part.copy()  # stays where the golden does not reach
    cv2.warpAffine(
        source, local, (x2 - x1, y2 - y1), dst=laid, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_TRANSPARENT
    )
    return laid


def refine(frame: Image, golden_window: Image) -> tuple[Matrix, float]:
    """Fine alignment of a golden window already laid over a frame window of the same size (both (H, W) uint8).

    Returns the small golden-to-frame motion in window pixels, and the correlation after it.  For tiles of large
    frames, whose global transform is only good to a few pixels.
    """
    scale = min(0.5, 320 / max(frame.shape))
    level, plane = _Level(_prepare(golden_window, scale)), _prepare(frame, scale)
    matrix = _align(plane, level, np.eye(2, 3), steps=8)
    return _rescale(matrix, 1 / scale), _correlation(plane, level.plane, matrix)
