"""What the part net is taught: which parts are good, and where the defect is as far as somebody knows."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason='needs torch: pip install "lineside[train]"')

from training.lessons.part import PartLesson  # noqa: E402
from training.lessons.part_crops import UNKNOWN, PartCrops, PartSupply  # noqa: E402
from training.lessons.pictures import Picture, Turns  # noqa: E402
from training.metrics import area_under_roc, balanced_threshold, middle_threshold  # noqa: E402
from training.models.part_net import STRIDE, PartNet, pool  # noqa: E402

NO_BOX = np.zeros((0, 5), np.float32)


def part(shade: int, *present: float, labels: np.ndarray = NO_BOX, outline: np.ndarray | None = None) -> Picture:
    """A textured square part on a dark ground."""
    rng = np.random.default_rng(shade)
    image = rng.integers(20, 40, (96, 96)).astype(np.uint8)
    image[16:80, 16:80] = rng.integers(shade - 10, shade + 10, (64, 64))
    polygons = ((outline,),) if outline is not None else ((),) * len(labels)
    return Picture(image, labels, polygons, np.array(present, np.float32), "g")


def supply(*pictures: Picture, injected: float = 0.0) -> PartSupply:
    classes = tuple("abc"[: len(pictures[0].present)])
    return PartSupply(classes, pictures, (96, 96), Turns(False, 0, 0, 0), injected, 1)


def crops(store: PartSupply, count: int) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    stream = iter(PartCrops(store))
    return [next(stream) for _ in range(count)]


def test_good_and_defective_parts_come_equally_often() -> None:
    """One defective part among many good ones is half of what is shown."""
    store = supply(*[part(150 + number, 0.0) for number in range(9)], part(200, 1.0))
    shown = [float(present[0]) for _, present, _ in crops(store, 200)]
    assert 70 < sum(shown) < 130


def test_injected_defects_are_marked_where_they_are() -> None:
    """A good part with injected defects is defective, and places say where; a good part has none anywhere."""
    made = crops(supply(part(150, 0.0), injected=0.5), 60)
    defective = [places for _, present, places in made if present[0] == 1]
    good = [places for _, present, places in made if present[0] == 0]
    assert len(defective) > 10
    assert all((places == 1).any() for places in defective)
    assert all((places == 0).all() for places in good)


def test_injected_defects_stop_when_the_run_is_so_far() -> None:
    """After the share ``inject_until`` of a run every crop is a picture as it was labelled."""
    store = replace(supply(part(150, 0.0), part(200, 1.0), injected=1.0), inject_until=0.6)
    early, late = (iter(PartCrops(store, done=torch.tensor([done]))) for done in (0.5, 0.7))
    assert all((places == 1).any() for _, _, places in (next(early) for _ in range(8)))
    assert not any((places == 1).any() for _, _, places in (next(late) for _ in range(8)))


def test_class_of_the_whole_image_says_nothing_of_places() -> None:
    """A labelled defective part without a box has unknown places for its class and none for the others."""
    _, present, places = crops(supply(part(150, 0.0, 1.0)), 1)[0]
    assert present.tolist() == [0, 1]
    assert (places[1] == UNKNOWN).all()
    assert (places[0] == 0).all()


def test_box_says_where_the_defect_is_not_and_an_outline_where_it_is() -> None:
    """Outside a box places are free, inside unknown; inside an outline they are the defect."""
    row = np.array([[32, 32, 64, 64, 0]], np.float32)
    outline = np.array([[32, 32], [64, 32], [64, 64], [32, 64]], np.float32)
    boxed = crops(supply(part(150, 1.0, labels=row)), 1)[0][2][0]
    outlined = crops(supply(part(150, 1.0, labels=row, outline=outline)), 1)[0][2][0]
    middle, corner = 48 // STRIDE, 0
    assert (float(boxed[middle, middle]), float(boxed[corner, corner])) == (UNKNOWN, 0)
    assert (float(outlined[middle, middle]), float(outlined[corner, corner])) == (1, 0)


def test_score_is_taken_from_the_heat_map() -> None:
    """The image's logit is the mean of its three hottest places, so the map shows what the score rests on."""
    local = torch.full((1, 2, 6, 6), -4.0)
    local[0, 1, 2, 3:6] = torch.tensor([5.0, 4.0, 3.0])
    assert pool(local)[0].tolist() == pytest.approx([-4, 4])
    assert PartNet(1, 2)(torch.zeros(1, 1, 64, 96)).shape == (1, 2, 8, 12)


def test_lesson_lowers_its_losses() -> None:
    """Some steps on four pictures bring both losses down, and validation tells parts apart."""
    torch.manual_seed(0)
    bad = part(150, 1.0)
    bad.image[40:56, 40:56] = 5
    store = supply(part(150, 0.0), part(151, 0.0), bad)
    lesson = PartLesson(store, (part(150, 0.0), bad))
    batch = [torch.stack(column) for column in zip(*crops(store, 12), strict=True)]
    optimiser = torch.optim.AdamW(lesson.net.parameters(), lr=3e-3)
    totals = []
    for _ in range(25):
        losses = lesson.losses(lesson.net, batch)
        totals.append(sum(float(loss.detach()) for loss in losses.values()))
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
    assert totals[-1] < 0.6 * totals[0]
    assert {"images", "auroc", "accuracy"} == set(lesson.validate(lesson.net, quick=False))


def test_area_under_roc_counts_pairs() -> None:
    """It is the share of (defective, good) pairs in the right order, ties counting half; NaN without a side."""
    scores, bad = np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, False, True, True])
    assert area_under_roc(scores, bad) == pytest.approx(3.5 / 4)
    assert np.isnan(area_under_roc(scores, np.ones(4, bool)))


def test_threshold_lies_in_the_middle_of_the_gap() -> None:
    """Between the highest good and the lowest defective score, in log-odds; above all good ones where none is bad."""
    scores, bad = np.array([0.01, 0.02, 0.98, 0.99]), np.array([False, False, True, True])
    assert middle_threshold(scores, bad) == pytest.approx(0.5)
    assert middle_threshold(scores[:2], bad[:2]) > 0.02
    assert 0.02 <= middle_threshold(scores[2:], bad[2:]) < 0.99


def test_balanced_threshold_heeds_how_the_sides_spread() -> None:
    """It lies nearer to the side that spreads less, and one outlier does not drag it along; one part a side is enough."""
    odds = np.array([-3.0, -2.9, -3.1, -3.0, 2.0, 6.0, 4.0, 8.0])
    scores, bad = 1 / (1 + np.exp(-odds)), np.array([False] * 4 + [True] * 4)
    chosen = balanced_threshold(scores, bad)
    assert -3 < np.log(chosen / (1 - chosen)) < 0
    assert 0.02 <= balanced_threshold(scores[[0, 7]], bad[[0, 7]]) <= 0.99
