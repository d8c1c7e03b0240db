import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("scipy", reason='needs scipy: pip install "lineside[train]"')

from training.metrics import Scored, area_under_roc, average_precision
from training.report.curves import (
    auroc_interval,
    box_confusion,
    box_hits,
    box_precision,
    mean_ap_interval,
    part_rates,
)

PARTS = st.lists(st.tuples(st.sampled_from((0.0, 0.1, 0.4, 0.7, 1.0)), st.booleans()), min_size=2, max_size=30)


def random_images(seed: int) -> list[Scored]:
    """Ten images of two classes, with findings near the true boxes and elsewhere."""
    rng, made = np.random.default_rng(seed), []
    for _ in range(10):
        corner = rng.uniform(0, 200, (rng.integers(0, 5), 2))
        truth = np.hstack([corner, corner + 30])
        labels = rng.integers(0, 2, len(truth))
        noise = rng.uniform(0, 200, (3, 2))
        boxes = np.vstack([truth + rng.normal(0, 4, truth.shape), np.hstack([noise, noise + 30])])
        found = np.concatenate([labels, rng.integers(0, 2, 3)])
        made.append(Scored(truth, labels, boxes, found, rng.random(len(boxes))))
    return made


def image(truth: list[tuple[int, float]], found: list[tuple[int, float, float]]) -> Scored:
    """Boxes of ten pixels: true ones as (class, x), findings as (class, x, score)."""
    boxes = [[x, 0, x + 10, 10] for _, x in truth], [[x, 0, x + 10, 10] for _, x, _ in found]
    return Scored(
        np.array(boxes[0], float).reshape(-1, 4), np.array([k for k, _ in truth], np.int64),
        np.array(boxes[1], float).reshape(-1, 4), np.array([k for k, _, _ in found], np.int64),
        np.array([score for _, _, score in found], float),
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_mean_of_the_drawn_precision_is_the_average_precision(seed: int) -> None:
    """The curve that is drawn is the one the figure comes from."""
    images = random_images(seed)
    for label in (0, 1):
        drawn = box_precision(box_hits(images, label, 0.5)).mean()
        assert drawn == pytest.approx(average_precision(images, label, 0.5), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_image_that_counts_twice_is_like_two_images(seed: int) -> None:
    """Resampling by weights gives what copying the images would."""
    images = random_images(seed)
    times = np.array([2, 0, 1, 3, 1, 0, 1, 1, 0, 1])
    copied = [one for one, count in zip(images, times, strict=True) for _ in range(count)]
    weighed = box_precision(box_hits(images, 0, 0.5), times).mean()
    assert weighed == pytest.approx(average_precision(copied, 0, 0.5), abs=1e-12)


@given(PARTS)
def test_area_under_the_drawn_curve_is_the_auroc(parts: list[tuple[float, bool]]) -> None:
    """The thresholds of the curve are all there are; joined by straight lines they enclose the AUROC, ties and all."""
    scores, defective = np.array([s for s, _ in parts]), np.array([d for _, d in parts])
    if defective.all() or not defective.any():
        return
    rates = part_rates(scores, defective)
    area = (np.diff(rates.rejected) * (rates.caught[1:] + rates.caught[:-1]) / 2).sum()
    assert area == pytest.approx(area_under_roc(scores, defective))
    assert (rates.caught[0], rates.rejected[0], rates.caught[-1], rates.rejected[-1]) == (0, 0, 1, 1)
    assert (np.diff(rates.caught) >= 0).all()


def test_interval_holds_the_figure_and_narrows_with_more_parts() -> None:
    """Ten times the parts leave less to chance."""
    rng, widths = np.random.default_rng(0), []
    for count in (20, 200):
        scores = np.concatenate([rng.normal(0.6, 0.2, count), rng.normal(0.4, 0.2, count)])
        defective = np.arange(2 * count) < count
        low, high = auroc_interval(scores, defective) or (0, 0)
        assert low < area_under_roc(scores, defective) < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_there_is_no_interval_where_resampling_cannot_tell() -> None:
    """A perfect figure resamples to itself, and one side alone gives none: no interval, not one without width."""
    assert auroc_interval(np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, True])) is None
    assert auroc_interval(np.array([0.1, 0.2]), np.array([False, False])) is None
    assert mean_ap_interval([box_hits([image([], [])], 0, 0.5)]) is None
    assert mean_ap_interval([box_hits([image([(0, 0)], [(0, 0, 0.9)])] * 5, 0, 0.5)]) is None


def test_interval_of_the_mean_ap_holds_it() -> None:
    """The figure lies in its own interval."""
    images = random_images(1)
    found = [box_hits(images, label, 0.5) for label in (0, 1)]
    low, high = mean_ap_interval(found) or (0, 0)
    assert low <= np.mean([average_precision(images, label, 0.5) for label in (0, 1)]) <= high


def test_box_confusion_tells_mixed_up_missed_and_invented() -> None:
    """Each finding and each true box is counted once, where it belongs."""
    images = [
        image([(0, 0), (1, 50)], [(0, 1, 0.9), (0, 50, 0.8)]),  # right; taken for the other class
        image([(1, 0)], [(1, 100, 0.9), (1, 0, 0.2)]),  # nothing there; missed, since it is below the limit
    ]
    table = box_confusion(images, np.array([0.5, 0.5]), 0.5)
    assert [[1, 0, 0], [1, 0, 1], [0, 1, 0]] == table.tolist()


def test_box_confusion_of_nothing() -> None:
    """No images, and images without boxes, give zeros."""
    assert not box_confusion([], np.array([0.5]), 0.5).any()
    assert not box_confusion([image([], [])], np.array([0.5]), 0.5).any()
