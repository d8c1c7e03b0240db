import cv2
import numpy as np
import pytest

from inspection.quality import FrameQuality, QualityLimits, gate, measure

LIMITS = QualityLimits()


def board(height: int = 400, width: int = 500) -> np.ndarray:
    """Dark pads and tracks on a light ground."""
    image = np.full((height, width), 210, np.uint8)
    for x in range(30, width - 30, 60):
        cv2.line(image, (x, 10), (x, height - 10), 40, 8)
        cv2.circle(image, (x, height // 2), 14, 40, -1)
    return image


def refusal(image: np.ndarray) -> str:
    reason = gate(measure(image), LIMITS)
    return reason.rule_id if reason else ""


def test_good_frame_passes() -> None:
    """A sharp, well-lit frame is not refused."""
    assert refusal(board()) == ""


def test_nearly_bare_board_passes() -> None:
    """A single pad is enough: the gate must not refuse a product for showing little artwork."""
    image = np.full((640, 640), 230, np.uint8)
    image[300:330, 300:330] = 20
    assert refusal(image) == ""


@pytest.mark.parametrize(
    ("image", "rule"),
    [
        (np.zeros((300, 300), np.uint8), "quality.brightness"),
        (np.full((300, 300), 255, np.uint8), "quality.contrast"),
        (np.full((300, 300), 128, np.uint8), "quality.contrast"),
        (np.tile(np.linspace(60, 200, 300).astype(np.uint8), (300, 1)), "quality.sharpness"),
        (np.full((1, 1), 90, np.uint8), "quality.contrast"),
        (np.full((300, 2), 90, np.uint8), "quality.contrast"),
    ],
    ids=["lens cap", "burnt out", "uniform grey", "only a gradient", "one pixel", "two columns"],
)
def test_frame_that_no_one_could_judge_is_refused(image: np.ndarray, rule: str) -> None:
    """Each kind of useless frame is named by its rule."""
    assert rule == refusal(image)


def test_sharpness_falls_with_focus() -> None:
    """The more a frame is blurred the lower its sharpness, until it is refused for it."""
    frames = [cv2.GaussianBlur(board(), (0, 0), sigma) for sigma in (0.6, 2, 5, 12)]
    measured = [measure(frame).sharpness for frame in frames]
    assert sorted(measured, reverse=True) == measured
    assert len(set(measured)) == 4
    assert refusal(cv2.GaussianBlur(board(), (0, 0), 30)) == "quality.sharpness"


def test_dead_pixel_is_no_sharpness() -> None:
    """A dead pixel does not make a frame without a part look sharp."""
    frame = np.full((300, 300), 128, np.uint8)
    frame[150, 150] = 255
    assert measure(frame).sharpness < LIMITS.min_sharpness


def test_brightness_beyond_the_upper_limit_is_refused() -> None:
    """An overexposed frame is refused where the recipe sets an upper limit."""
    reason = gate(measure(np.full((50, 50), 250, np.uint8)), QualityLimits(max_brightness=200))
    assert reason is not None
    assert "250 is outside 3..200" in reason.text


@pytest.mark.parametrize("size", [(3000, 2000), (500, 16000), (9000, 300)])
def test_large_frame_is_measured_like_a_small_one(size: tuple[int, int]) -> None:
    """Reading only part of a large frame changes neither the verdict nor the figures by much."""
    whole, small = measure(board(*size)), measure(board(400, 500))
    assert abs(whole.sharpness - small.sharpness) < 25
    assert abs(whole.brightness - small.brightness) < 40
    assert gate(whole, LIMITS) is None


@pytest.mark.parametrize(
    ("quality", "rule"),
    [
        (FrameQuality(contrast=0.9, sharpness=99, brightness=90), "quality.contrast"),
        (FrameQuality(contrast=9, sharpness=11.9, brightness=90), "quality.sharpness"),
        (FrameQuality(contrast=9, sharpness=99, brightness=2.9), "quality.brightness"),
    ],
)
def test_reason_tells_figure_and_limit(quality: FrameQuality, rule: str) -> None:
    """A value just below its limit is refused; the text holds what to check."""
    reason = gate(quality, LIMITS)
    assert reason is not None
    assert rule == reason.rule_id
    assert ":" in reason.text


def test_values_on_their_limits_pass() -> None:
    """A limit is the last value that is good."""
    assert gate(FrameQuality(LIMITS.min_contrast, LIMITS.min_sharpness, LIMITS.min_brightness), LIMITS) is None
