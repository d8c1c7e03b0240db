"""What the detect net is taught: windows with boxes that fit, cells that learn them, losses that fall."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason='needs torch: pip install "lineside[train]"')

from training.lessons.box_assign import assign, complete_iou, detection_loss, distance_loss  # noqa: E402
from training.lessons.box_crops import MOST_BOXES, BoxCrops, BoxSupply, draw_crop, draw_mosaic  # noqa: E402
from training.lessons.pictures import Picture, Turns, draw_matrix, shrunk, warped  # noqa: E402
from training.models.detect_net import BINS, LEVELS, Dense, DetectNet, decode, flatten  # noqa: E402

STILL = Turns(right_angles=False, rotate_deg=0, scale=0, shift=0)


def picture(*boxes: tuple[float, ...], size: tuple[int, int] = (96, 128)) -> Picture:
    """A dark picture on which each box is filled with light."""
    image = np.zeros(size, np.uint8)
    for x1, y1, x2, y2, _ in boxes:
        image[round(y1) : round(y2), round(x1) : round(x2)] = 255
    labels = np.array(boxes, np.float32).reshape(-1, 5)
    return Picture(image, labels, ((),) * len(labels), np.ones(1, np.float32), "g")


def supply(*pictures: Picture, crop: tuple[int, int] = (128, 128), whole: bool = False) -> BoxSupply:
    return BoxSupply(("a", "b"), pictures, crop, whole, STILL, 1, mosaic=0.0)


def answers(boxes: torch.Tensor, classes: int = 2, size: int = 64) -> Dense:
    """What a net would answer on a 64 px picture that gives every cell the first box, without any class."""
    net = DetectNet(1, classes, 8)
    dense = flatten(net.eval()(torch.zeros(1, 1, size, size)), net.levels)
    sides = torch.cat([dense.centres - boxes[0, :2], boxes[0, 2:] - dense.centres], 1) / dense.strides[:, None]
    bins = torch.zeros(1, len(sides), 4, BINS)
    bins.scatter_(3, sides.clamp(0, BINS - 1).round().long()[None, :, :, None], 20.0)
    return Dense(dense.logits.detach(), bins, dense.centres, dense.strides)


def truth(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor([[*row, 1.0] for row in rows]).reshape(1, -1, 6)


BOX = st.tuples(st.integers(2, 60), st.integers(2, 50), st.integers(8, 30), st.integers(8, 30)).map(
    lambda v: (float(v[0]), float(v[1]), float(v[0] + v[2]), float(v[1] + v[3]), 0.0)
)


@given(BOX, st.integers(0, 2**31))
def test_box_follows_its_defect_through_every_turn(box: tuple[float, ...], seed: int) -> None:
    """After turning by right angles and mirroring, the box still holds the light patch and fits it."""
    rng = np.random.default_rng(seed)
    shown = picture(box)
    matrix = draw_matrix(rng, (96, 128), (128, 128), Turns(rotate_deg=0, scale=0.1, shift=0.02))
    seen = warped(shown, matrix, (128, 128), border=0)
    rows, columns = np.nonzero(seen.image > 127)
    if not len(seen.labels):
        return
    x1, y1, x2, y2 = seen.labels[0, :4]
    assert x1 - 1.5 <= columns.min()
    assert columns.max() <= x2 + 1.5
    assert y1 - 1.5 <= rows.min()
    assert rows.max() <= y2 + 1.5
    assert (x2 - x1) * (y2 - y1) < 1.6 * len(rows) + 60


def test_outline_gives_the_box_of_a_turned_defect() -> None:
    """A defect with an outline has, once turned, the box of its turned outline."""
    outline = np.array([[40, 40], [60, 40], [60, 44], [40, 44]], np.float32)
    shown = Picture(
        np.zeros((96, 96), np.uint8),
        np.array([[40, 40, 60, 44, 0]], np.float32),
        ((outline,),),
        np.ones(1, np.float32),
        "g",
    )
    turn = np.array([[0.0, -1.0, 96.0], [1.0, 0.0, 0.0]], np.float32)
    seen = warped(shown, turn, (96, 96))
    assert seen.labels[0, :4] == pytest.approx((52, 40, 56, 60), abs=0.01)


@pytest.mark.parametrize("whole", [True, False])
def test_crop_shows_what_its_boxes_say(whole: bool) -> None:
    """In a crop the light lies in the boxes and nowhere else."""
    store = supply(picture((20, 30, 40, 44, 0), (90, 60, 110, 80, 1)), whole=whole)
    rng = np.random.default_rng(3)
    for _ in range(20):
        crop = draw_crop(store, [0], rng)
        outside = crop.image > 127
        for x1, y1, x2, y2, _ in crop.labels:
            outside[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))] = False
        assert crop.image.shape == (128, 128)
        assert outside.sum() < 300  # a defect cut off to less than a third has no box


def test_mosaic_moves_the_boxes_with_their_quarters() -> None:
    """Four crops side by side keep their boxes at their defects; a crop too small to be quartered is left whole."""
    store = supply(picture((20, 30, 40, 44, 0)), crop=(192, 192))
    crop = draw_mosaic(store, [0], np.random.default_rng(1))
    assert crop is not None
    inside = [crop.image[int(y1) : int(y2), int(x1) : int(x2)].mean() for x1, y1, x2, y2, _ in crop.labels]
    assert len(inside) >= 1
    assert min(inside) > 100
    assert draw_mosaic(supply(picture(), crop=(96, 96)), [], np.random.default_rng(1)) is None


def test_stream_is_seeded_and_padded() -> None:
    """The same seed and start give the same crops, another start others; boxes are padded to a fixed number."""
    store = supply(picture((20, 30, 40, 44, 1)))
    first, again, later = (next(iter(BoxCrops(store, start=start))) for start in (0, 0, 7))
    assert torch.equal(first[0], again[0])
    assert first[1].shape == (MOST_BOXES, 6)
    assert not torch.equal(first[0], later[0])


@pytest.mark.parametrize("row", [(10, 12, 40, 50, 1), (30, 30, 33, 33, 0), (0, 0, 64, 64, 1), (61, 61, 64, 64, 0)])
def test_every_box_has_cells_that_learn_it(row: tuple[float, ...]) -> None:
    """Small, large and cornered boxes are all learnt, by cells with targets of their class alone."""
    wanted = truth(row)
    found = assign(answers(torch.tensor([[0.0, 0.0, 16.0, 16.0]])), wanted)
    assert int(found.learns.sum()) >= 1
    assert torch.allclose(found.boxes[found.learns], wanted[0, 0, :4].expand(int(found.learns.sum()), 4))
    assert float(found.targets[..., 1 - int(row[4])].sum()) == 0


def test_no_box_and_padding_teach_nothing() -> None:
    """A crop without boxes has no learning cell and only asks for silence."""
    dense = answers(torch.tensor([[0.0, 0.0, 16.0, 16.0]]))
    for none in (torch.zeros(1, 0, 6), torch.zeros(1, 3, 6)):
        found = assign(dense, none)
        assert not bool(found.learns.any())
        losses = detection_loss(dense, none)
        assert float(losses["box"]) == 0
        assert float(losses["class"]) > 0


@given(st.tuples(*[st.floats(0, BINS - 1.5)] * 4))
def test_distance_loss_is_least_at_the_wanted_length(sides: tuple[float, ...]) -> None:
    """A distribution on the two bins beside the wanted length costs less than one a bin further."""
    wanted = torch.tensor([sides])
    right, wrong = torch.full((1, 4, BINS), -12.0), torch.full((1, 4, BINS), -12.0)
    low = wanted.floor().long()
    share = (wanted - low)[0]
    for side in range(4):
        for step, part in ((0, 1 - share[side]), (1, share[side])):
            right[0, side, int(low[0, side]) + step] = torch.log(part + 1e-5)
            wrong[0, side, (int(low[0, side]) + step + 3) % BINS] = torch.log(part + 1e-5)
    assert float(distance_loss(right, wanted)) < float(distance_loss(wrong, wanted))


def test_complete_iou_of_equal_boxes_is_one() -> None:
    """Equal boxes give 1, apart ones below 0."""
    boxes = torch.tensor([[0.0, 0, 10, 20], [0, 0, 10, 10]])
    other = torch.tensor([[0.0, 0, 10, 20], [30, 30, 40, 40]])
    value = complete_iou(boxes, other)
    assert float(value[0]) == pytest.approx(1, abs=1e-3)
    assert float(value[1]) < 0


def test_decode_gives_back_the_answered_box() -> None:
    """The box that cells answer with comes out once, in pixels, with its class; empty slots score 0."""
    dense = answers(torch.tensor([[8.0, 8.0, 40.0, 48.0]]))
    dense.logits[:] = -9
    dense.logits[0, 9, 1] = 3.0
    boxes, scores, labels = decode(dense, keep=100)
    assert boxes.shape == (1, 100, 4)
    assert int((scores > 0.5).sum()) == 1
    best = int(scores[0].argmax())
    assert int(labels[0, best]) == 1
    assert boxes[0, best].tolist() == pytest.approx([8, 8, 40, 48], abs=4.1)


def test_levels_follow_the_first_stride() -> None:
    """Small defects bring the finest level; every level answers at its stride."""
    for first in (4, 8):
        net = DetectNet(3, 2, first).eval()
        answered = net(torch.zeros(1, 3, 64, 96))
        assert [64 // stride for stride, _ in LEVELS if stride >= first] == [a.shape[2] for a, _ in answered]


@given(st.integers(1, 7), st.integers(20, 60), st.integers(20, 60))
def test_shrinking_averages_whole_blocks(factor: int, height: int, width: int) -> None:
    """Each pixel is the mean of its block, as the exported graph averages."""
    image = np.random.default_rng(height).integers(0, 256, (height, width), np.uint8)
    small = shrunk(image, factor)
    whole = image[: height // factor * factor, : width // factor * factor].astype(float)
    mean = whole.reshape(height // factor, factor, width // factor, factor).mean((1, 3))
    assert np.abs(small - mean).max() <= 0.51
