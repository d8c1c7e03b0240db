import re

import cv2
import numpy as np
import pytest

from datasets.synth.artwork import draw_board
from datasets.synth.camera import CameraModel, photograph
from inspection.errors import RegistrationError
from inspection.geometry import apply, compose
from inspection.golden import GoldenTemplate, Registration, RegistrationLimits, lay_over, refine, register

LIMITS = RegistrationLimits(min_coverage=0.8)
CORNERS = np.array([[0, 0], [640, 0], [640, 640], [0, 640]], float)
MOVING = CameraModel(
    shift_px=24, rotate_deg=2, scale=0.02, gradient=0.2, binarise=0, noise=4, blur_px=1, edge_px=0, jpeg_quality=90
)


def board(seed: int, size: int = 640) -> np.ndarray:
    """Pads, tracks and parts at random places on a light ground; no two seeds are alike."""
    rng, image = np.random.default_rng(seed), np.full((size, size), 230, np.uint8)
    for _ in range(size // 10):
        x, y = (int(v) for v in rng.integers(0, size, 2))
        end = (x + int(rng.integers(-120, 120)), y) if rng.random() < 0.5 else (x, y + int(rng.integers(-120, 120)))
        cv2.line(image, (x, y), end, 20, int(rng.integers(4, 12)))
        cv2.circle(image, end, int(rng.integers(6, 16)), 20, -1)
    return cv2.GaussianBlur(image, (0, 0), 0.6)


def motion(shift: tuple[float, float], angle: float, scale: float, size: int = 640) -> np.ndarray:
    matrix = cv2.getRotationMatrix2D((size / 2, size / 2), angle, scale)
    matrix[:, 2] += shift
    return matrix


def seen(golden: np.ndarray, matrix: np.ndarray, *, gradient: float = 0.0, border: int | None = None) -> np.ndarray:
    """The frame that a camera takes of a moved board under uneven light."""
    size = golden.shape[::-1]
    mode = cv2.BORDER_REPLICATE if border is None else cv2.BORDER_CONSTANT
    frame = cv2.warpAffine(golden, matrix, size, flags=cv2.INTER_LINEAR, borderMode=mode, borderValue=border or 0)
    light = 1 + gradient * np.linspace(-0.5, 0.5, size[0])[None, :] * np.ones((size[1], 1))
    return np.clip(frame * light, 0, 255).astype(np.uint8)


def misfit(golden: np.ndarray, found: Registration, true: np.ndarray) -> float:
    """Worst error at the corners (pixels); along an unanchored direction of parallel tracks it does not count."""
    apart = apply(found.matrix, CORNERS) - apply(true, CORNERS)
    slopes = [
        cv2.Sobel(cv2.GaussianBlur(golden, (0, 0), 2), cv2.CV_64F, *axis)[8:-8, 8:-8] for axis in ((1, 0), (0, 1))
    ]
    tensor = np.array([[np.sum(one * other) for one in slopes] for other in slopes])
    values, vectors = np.linalg.eigh(tensor)
    if values[0] < 0.02 * values[1]:
        apart = apart @ vectors[:, 1:]
    return float(np.linalg.norm(apart, axis=1).max())


@pytest.mark.parametrize("seed", range(16))
def test_motion_of_a_generated_board_is_found(seed: int) -> None:
    """Shift up to 24 px, 2 degrees, 2 % and a 20 % illumination gradient are undone to 1.5 px at the corners."""
    rng = np.random.default_rng(seed)
    golden = draw_board(rng)
    frame, true = photograph(golden, rng, MOVING)
    assert misfit(golden, register(frame, GoldenTemplate(golden), LIMITS), true) < 1.5


@pytest.mark.parametrize("angle", [-2.0, 0.0, 2.0])
@pytest.mark.parametrize("shift", [(24, 24), (-24, 24), (0, -24), (0, 0)])
@pytest.mark.parametrize("scale", [0.98, 1.02])
def test_motion_at_the_limits_is_found(shift: tuple[float, float], angle: float, scale: float) -> None:
    """The farthest motions, all at once and under a gradient of 20 %, are found."""
    golden, true = board(1), motion(shift, angle, scale)
    found = register(seen(golden, true, gradient=0.2), GoldenTemplate(golden), LIMITS)
    assert misfit(golden, found, true) < 1.5
    assert found.quality > 0.9


def test_tracks_without_an_anchor_stay_near() -> None:
    """Along parallel tracks any shift looks alike: across them the motion is found, along them it stays in reach."""
    golden = np.full((640, 640), 230, np.uint8)
    golden[:, 40::90] = 20
    golden = cv2.dilate(255 - golden, np.ones((1, 9), np.uint8))
    found = register(seen(golden, motion((12, 0), 0, 1)), GoldenTemplate(golden), LIMITS)
    across, along = apply(found.matrix, CORNERS).mean(0) - CORNERS.mean(0)
    assert abs(across - 12) < 1.5
    assert abs(along) < LIMITS.max_shift_px


def test_defects_do_not_move_the_golden() -> None:
    """A board with a large stain is laid as well as a clean one."""
    golden, true = board(2), motion((9, -14), 1, 1.01)
    frame = seen(golden, true)
    cv2.circle(frame, (420, 200), 45, 20, -1)
    assert misfit(golden, register(frame, GoldenTemplate(golden), LIMITS), true) < 1.5


def test_coverage_is_the_share_of_the_part_in_the_frame() -> None:
    """A part shifted by a sixteenth of its width shows fifteen sixteenths."""
    golden = board(3)
    found = register(seen(golden, motion((40, 0), 0, 1)), GoldenTemplate(golden), RegistrationLimits())
    assert abs(found.coverage - 15 / 16) < 0.005


@pytest.mark.parametrize("seed", range(4, 9))
def test_wrong_board_is_refused(seed: int) -> None:
    """Another product under the camera is no part with many defects."""
    with pytest.raises(RegistrationError, match=r"does not fit its golden .*quality 0\.\d\d; at least 0\.50"):
        register(board(seed), GoldenTemplate(board(1)), LIMITS)


def test_frame_without_part_is_refused() -> None:
    """An empty fixture does not fit the golden."""
    with pytest.raises(RegistrationError, match="does not fit"):
        register(np.full((640, 640), 230, np.uint8), GoldenTemplate(board(1)), LIMITS)


@pytest.mark.parametrize("true", [motion((60, 0), 0, 1), motion((0, 0), 5, 1), motion((0, 0), 0, 1.06)])
def test_part_out_of_limits_is_refused_with_its_numbers(true: np.ndarray) -> None:
    """A part shifted, turned or scaled beyond the recipe's limits is refused, and the numbers are told."""
    limits = RegistrationLimits(max_shift_px=20, max_rotate_deg=1, max_scale=0.01)
    numbers = r"shift \d+\.\d px, angle -?\d+\.\d\d deg, scale [+-]\d+\.\d %, quality -?\d\.\d\d"
    with pytest.raises(RegistrationError) as refused:
        register(seen(board(1), true), GoldenTemplate(board(1)), limits)
    assert re.search(numbers, refused.value.what)
    assert refused.value.fix


def test_part_that_lies_too_far_is_named_so() -> None:
    """Where the fit is good but out of limits, the message speaks of the place and not of the part."""
    wide = RegistrationLimits(max_shift_px=30)
    with pytest.raises(RegistrationError, match="too far"):
        register(seen(board(1), motion((38, 0), 0, 1)), GoldenTemplate(board(1)), wide)


def test_frame_of_another_size_is_refused() -> None:
    """Both sizes are told."""
    with pytest.raises(RegistrationError, match="640x480 px, the golden 640x640 px"):
        register(board(1)[:480], GoldenTemplate(board(1)), LIMITS)


def test_frame_that_shows_too_little_of_the_part_is_refused() -> None:
    """A part that leaves the frame is not judged by what is left of it."""
    limits = RegistrationLimits(max_shift_px=80, min_coverage=0.95)
    with pytest.raises(RegistrationError, match=r"shows only 9\d\.\d % of the part"):
        register(seen(board(1), motion((45, 0), 0, 1)), GoldenTemplate(board(1)), limits)


def test_golden_too_narrow_for_registration_is_refused() -> None:
    """A golden that vanishes when it is shrunk is an error of ours, not a crash of the library."""
    with pytest.raises(RegistrationError, match="4000x12 px is too narrow"):
        GoldenTemplate(np.zeros((12, 4000), np.uint8))


@pytest.mark.parametrize("at", [(120, 450), (318, 260), (600, 600)])
def test_nearly_bare_board_with_a_defect_is_accepted(at: tuple[int, int]) -> None:
    """A defect may outweigh all the artwork there is; the frame is still judged, and the golden is in place."""
    golden = np.full((640, 640), 230, np.uint8)
    golden[300:312, 300:340] = 20
    frame = golden.copy()
    cv2.circle(frame, at, 14, 20, -1)
    found = register(frame, GoldenTemplate(golden), LIMITS)
    assert np.abs(apply(found.matrix, CORNERS) - CORNERS).max() < 8


@pytest.mark.parametrize("window", [(0, 0, 640, 640), (100, 300, 420, 640), (470, 0, 640, 170)])
def test_golden_laid_by_the_true_matrix_is_the_frame(window: tuple[int, int, int, int]) -> None:
    """Whatever window is asked for, the golden shows what the camera saw there, up to interpolation.

    The line of pixels that the golden's edge covers by half may be either.
    """
    golden, true = board(5), motion((11.3, -17.8), 1.5, 1.015)
    frame = seen(golden, true, border=128)
    x1, y1, x2, y2 = window
    apart = np.abs(lay_over(golden, frame, true, window).astype(int) - frame[y1:y2, x1:x2])
    reach = cv2.warpAffine(np.full((640, 640), 255, np.uint8), true, (640, 640), flags=cv2.INTER_LINEAR)
    edge = cv2.dilate(reach, np.ones((3, 3))) - cv2.erode(reach, np.ones((3, 3)), borderValue=255)
    assert apart[edge[y1:y2, x1:x2] == 0].max() <= 6
    assert np.count_nonzero(apart > 6) <= 2 * 640


def test_frame_stands_in_where_the_golden_does_not_reach() -> None:
    """Beyond the golden's edge no difference is claimed."""
    golden, true = board(5), motion((24, 0), 0, 1)
    noise = np.random.default_rng(1).integers(0, 256, (640, 640), dtype=np.uint8)
    laid = lay_over(golden, noise, true, (0, 0, 640, 640))
    assert np.array_equal(noise[:, :23], laid[:, :23])
    assert np.array_equal(golden[:, :610], laid[:, 24:634])


def test_window_beyond_the_golden_is_the_frame() -> None:
    """A window that shows nothing of the golden holds the frame alone."""
    frame = board(6)
    laid = lay_over(board(5), frame, motion((600, 0), 0, 1), (0, 0, 300, 300))
    assert np.array_equal(frame[:300, :300], laid)


def test_laying_over_leaves_its_inputs_alone() -> None:
    """Neither golden nor frame is written to."""
    golden, frame = board(5), board(6)
    before = golden.tobytes(), frame.tobytes()
    lay_over(golden, frame, motion((24, 3), 1, 1), (0, 0, 640, 640))
    assert before == (golden.tobytes(), frame.tobytes())


def test_refining_a_tile_finds_the_rest_of_the_motion() -> None:
    """A golden window some pixels off is brought to a fraction of a pixel."""
    golden, rest = board(7), motion((4.5, -3.0), 0.1, 1.0)
    matrix, fit = refine(seen(golden, rest), golden)
    assert np.abs(apply(matrix, CORNERS) - apply(rest, CORNERS)).max() < 0.5
    assert fit > 0.9


def test_tiles_of_a_large_frame_fit_after_refining() -> None:
    """The motion of a large frame, found at a fraction of its size, becomes exact in each tile."""
    golden = board(8, 2600)
    true = motion((20, -13), 0.7, 1.004, 2600)
    frame = seen(golden, true)
    rough = register(frame, GoldenTemplate(golden), LIMITS).matrix
    for x, y in ((0, 0), (1960, 980), (980, 1960)):
        laid = lay_over(golden, frame, rough, (x, y, x + 640, y + 640))
        matrix, _ = refine(frame[y : y + 640, x : x + 640], laid)
        here = np.array([[1.0, 0, x], [0, 1, y]])
        back = np.array([[1.0, 0, -x], [0, 1, -y]])
        exact = compose(here, compose(matrix, compose(back, rough)))
        inner = np.array([[x + 100, y + 100], [x + 540, y + 540]], float)
        golden_points = apply(np.array(cv2.invertAffineTransform(true)), inner)
        assert np.abs(apply(exact, golden_points) - inner).max() < 1
