import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.metrics import (
    COCO_IOUS,
    Scored,
    average_precision,
    best_f_score,
    box_iou,
    clopper_pearson,
    f_score_at,
    mean_average_precision,
)

CLASSES = 3


def random_images(seed: int, images: int = 8) -> list[Scored]:
    """Boxes and detections that partly hit: shifted truths of right and wrong class, and noise."""
    rng, made = np.random.default_rng(seed), []
    for _ in range(images):
        corner, side = rng.uniform(0, 400, (rng.integers(0, 9), 2)), rng.uniform(8, 80, 2)
        truth = np.hstack([corner, corner + side + rng.uniform(0, 30, corner.shape)])
        labels = rng.integers(0, CLASSES, len(truth))
        near = np.repeat(truth, 2, 0) + rng.normal(0, rng.choice([1, 6, 15]), (2 * len(truth), 4))
        start = rng.uniform(0, 400, (rng.integers(0, 6), 2))
        boxes = np.vstack([near, np.hstack([start, start + rng.uniform(5, 90, start.shape)])])
        boxes = boxes[(boxes[:, 2] > boxes[:, 0] + 1) & (boxes[:, 3] > boxes[:, 1] + 1)]
        found = rng.integers(0, CLASSES, len(boxes))
        right = np.repeat(labels, 2)[: len(boxes)]
        found[: len(right)] = np.where(rng.random(len(right)) < 0.8, right, found[: len(right)])
        made.append(Scored(truth, labels, boxes, found, rng.random(len(boxes))))
    return made


def reference_ap(images: list[Scored], ious: tuple[float, ...]) -> np.ndarray:
    """AP per IoU and class by an independent implementation of COCO's evaluation, (T, C); -1 without true boxes."""
    coco = pytest.importorskip("faster_coco_eval", reason='needs faster-coco-eval: pip install "lineside[dev]"')

    def rows(boxes: np.ndarray, labels: np.ndarray, image: int) -> list[dict]:
        return [
            {
                "image_id": image,
                "category_id": int(k) + 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
            }
            for (x1, y1, x2, y2), k in zip(boxes.tolist(), labels, strict=True)
        ]

    truth, found = [], []
    for number, image in enumerate(images, 1):
        truth += rows(image.true_boxes, image.true_labels, number)
        scored = zip(rows(image.boxes, image.labels, number), image.scores, strict=True)
        found += [{**row, "score": float(score)} for row, score in scored]
    for number, row in enumerate(truth, 1):
        row |= {"id": number, "iscrowd": 0}
    ground = coco.COCO({
        "images": [{"id": number} for number in range(1, len(images) + 1)], "annotations": truth,
        "categories": [{"id": number, "name": str(number)} for number in range(1, CLASSES + 1)],
    })  # fmt: skip
    judge = coco.COCOeval_faster(ground, ground.loadRes(found), "bbox", print_function=lambda *_: None)
    judge.params.iouThrs = np.array(ious)
    judge.evaluate()
    judge.accumulate()
    return np.asarray(judge.eval["precision"])[:, :, :, 0, -1].mean(1)


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
@pytest.mark.parametrize("ious", [(0.33,), COCO_IOUS], ids=str)
def test_average_precision_is_that_of_coco(seed: int, ious: tuple[float, ...]) -> None:
    """Every class at every IoU threshold agrees with the independent implementation to a millionth."""
    images = random_images(seed)
    wanted = reference_ap(images, ious)
    for row, iou in enumerate(ious):
        for label in range(CLASSES):
            value = average_precision(images, label, iou)
            assert wanted[row, label] == pytest.approx(-1 if math.isnan(value) else value, abs=1e-6)
    assert mean_average_precision(images, CLASSES, ious) == pytest.approx(wanted[wanted > -1].mean(), abs=1e-6)


def image(true: list[tuple], found: list[tuple]) -> Scored:
    """True boxes (x1, y1, x2, y2, class) and detections (x1, y1, x2, y2, class, score)."""
    a, b = np.array(true, float).reshape(-1, 5), np.array(found, float).reshape(-1, 6)
    return Scored(a[:, :4], a[:, 4].astype(int), b[:, :4], b[:, 4].astype(int), b[:, 5])


TRUE = [(0, 0, 10, 10, 0), (50, 50, 70, 70, 0)]


@pytest.mark.parametrize(
    ("found", "ap"),
    [
        ([], 0.0),
        ([(0, 0, 10, 10, 0, 0.9), (50, 50, 70, 70, 0, 0.8)], 1.0),
        ([(0, 0, 10, 10, 0, 0.9)], 51 / 101),
        ([(0, 0, 10, 10, 0, 0.9), (0, 0, 10, 10, 0, 0.8)], 51 / 101),
        ([(200, 200, 210, 210, 0, 0.9), (0, 0, 10, 10, 0, 0.8), (50, 50, 70, 70, 0, 0.7)], 2 / 3),
        ([(0, 0, 10, 10, 1, 0.9)], 0.0),
    ],
    ids=["nothing found", "all found", "half found", "found twice", "false call first", "wrong class"],
)
def test_average_precision_of_cases_counted_by_hand(found: list[tuple], ap: float) -> None:
    """Small cases give what the definition gives."""
    assert ap == pytest.approx(average_precision([image(TRUE, found)], 0, 0.5))


def test_class_without_true_box_has_no_average_precision() -> None:
    """A class that does not occur is left out of the mean instead of counting as zero or one."""
    images = [image(TRUE, [(0, 0, 10, 10, 0, 0.9), (50, 50, 70, 70, 0, 0.8), (5, 5, 9, 9, 1, 0.9)])]
    assert math.isnan(average_precision(images, 1, 0.5))
    assert mean_average_precision(images, 2, (0.5,)) == pytest.approx(1)
    assert math.isnan(mean_average_precision([], 2, (0.5,)))


BOXES = st.lists(
    st.tuples(st.floats(0, 50), st.floats(0, 50), st.floats(0.5, 30), st.floats(0.5, 30)).map(
        lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
    ),
    max_size=5,
).map(lambda rows: np.array(rows, float).reshape(-1, 4))


@given(BOXES, BOXES)
def test_overlap_is_symmetric_and_between_zero_and_one(one: np.ndarray, other: np.ndarray) -> None:
    """A box overlaps itself wholly; disjoint boxes not at all."""
    overlap = box_iou(one, other)
    assert overlap.shape == (len(one), len(other))
    assert ((overlap >= 0) & (overlap <= 1 + 1e-9)).all()
    np.testing.assert_allclose(overlap, box_iou(other, one).T)
    np.testing.assert_allclose(np.diag(box_iou(one, one)), 1)


def brute_force(images: list[Scored], threshold: float, iou: float) -> tuple[int, int, int]:
    """Hits, false calls and misses by plain loops over detections in order of score."""
    hits = shown = total = 0
    for one in images:
        free = list(range(len(one.true_boxes)))
        total += len(free)
        for row in sorted(range(len(one.boxes)), key=lambda row: -one.scores[row]):
            if one.scores[row] < threshold:
                continue
            shown += 1
            fits = [(float(box_iou(one.boxes[[row]], one.true_boxes[[k]])[0, 0]), k) for k in free
                    if one.true_labels[k] == one.labels[row]]  # fmt: skip
            if fits and max(fits)[0] >= iou:
                hits += 1
                free.remove(max(fits)[1])
    return hits, shown - hits, total - hits


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
def test_f_score_is_that_of_its_definition(seed: int, threshold: float) -> None:
    """Counts and F agree with plain counting."""
    images = random_images(seed)
    got = f_score_at(images, CLASSES, iou=0.33, threshold=threshold)
    hits, false_calls, missed = brute_force(images, threshold, 0.33)
    assert (hits, false_calls, missed) == (got.hits, got.false_calls, got.missed)
    assert got.f == pytest.approx(2 * hits / (2 * hits + false_calls + missed))


@pytest.mark.parametrize("seed", range(6))
def test_best_threshold_is_best(seed: int) -> None:
    """No score that occurs gives a higher F as a threshold; coarse scores, which tie, included."""
    images = [
        Scored(i.true_boxes, i.true_labels, i.boxes, i.labels, np.round(i.scores, 1)) for i in random_images(seed)
    ]
    best = best_f_score(images, CLASSES, iou=0.33)
    scores = {float(score) for one in images for score in one.scores}
    every = [f_score_at(images, CLASSES, iou=0.33, threshold=score).f for score in scores]
    assert best.f == pytest.approx(max(every))
    assert best == f_score_at(images, CLASSES, iou=0.33, threshold=best.threshold)


def test_f_score_without_detections_is_zero() -> None:
    """A detector that finds nothing misses everything."""
    best = best_f_score([image(TRUE, [])], 1, iou=0.33)
    assert (best.f, best.hits, best.false_calls, best.missed) == (0, 0, 0, 2)


@settings(max_examples=15)
@given(
    st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.8, 0.95, 0.99])
)
def test_interval_is_the_exact_one(counts: tuple[int, int], confidence: float) -> None:
    """The interval agrees with scipy's exact binomial test."""
    stats = pytest.importorskip("scipy.stats", reason='needs scipy: pip install "lineside[train]"')
    wanted = stats.binomtest(*counts).proportion_ci(confidence, method="exact")
    assert clopper_pearson(*counts, confidence=confidence) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


@pytest.mark.parametrize(
    ("events", "trials", "confidence", "low", "high"),
    [
        (0, 59, 0.90, 0.0, 0.0495),  # 59 parts without escape bound the rate below 5 % at one-sided 95 %
        (0, 58, 0.90, 0.0, 0.0503),
        (0, 299, 0.90, 0.0, 0.00997),
        (0, 10, 0.95, 0.0, 0.3085),
        (10, 10, 0.95, 0.6915, 1.0),
        (5, 10, 0.95, 0.1871, 0.8129),
        (0, 0, 0.95, 0.0, 1.0),
    ],
)
def test_interval_of_known_cases(events: int, trials: int, confidence: float, low: float, high: float) -> None:
    """Published values, and nothing known without trials."""
    assert clopper_pearson(events, trials, confidence=confidence) == pytest.approx((low, high), abs=1e-4)
