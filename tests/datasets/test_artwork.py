import cv2
import numpy as np
import pytest

from datasets.synth.artwork import draw_board, draw_large_board, lay_out, populate
from datasets.synth.copper import Copper, disc, line
from datasets.synth.styles import STYLES, choose_rules

SEEDS = range(12)


def board(style: str, seed: int) -> Copper:
    rng, copper = np.random.default_rng([seed, 9]), Copper((480, 400))
    populate(copper, rng, STYLES[style], choose_rules(rng, STYLES[style]))
    return copper


@pytest.mark.parametrize("size_px", [(640, 640), (320, 320), (1024, 768), (64, 48), (16, 16)])
def test_board_has_the_size_asked_for(size_px: tuple[int, int]) -> None:
    """A board is (height, width) uint8 for a size of (width, height)."""
    golden = draw_board(np.random.default_rng(1), size_px=size_px)
    assert size_px[::-1] == golden.shape
    assert np.uint8 == golden.dtype


@pytest.mark.parametrize("seed", SEEDS)
def test_board_is_black_and_white_with_soft_edges(seed: int) -> None:
    """Nine pixels in ten are plain copper or plain substrate, and the edges between are not stepped."""
    golden = draw_board(np.random.default_rng(seed))
    plain = (golden == 0) | (golden == 255)
    assert plain.mean() > 0.8
    assert not plain.all()


@pytest.mark.parametrize("size_px", [(320, 320), (48, 48), (16, 16)])
def test_every_board_shows_copper_and_substrate(size_px: tuple[int, int]) -> None:
    """No golden is blank, however small: without an edge nobody could tell copper from substrate."""
    for seed in range(40):
        golden = draw_board(np.random.default_rng(seed), size_px=size_px)
        assert golden.min() < 60 < 200 < golden.max()


def test_same_seed_gives_the_same_bytes() -> None:
    """The generator is the only source of chance."""
    assert draw_board(np.random.default_rng(5)).tobytes() == draw_board(np.random.default_rng(5)).tobytes()


def test_different_seeds_give_different_boards() -> None:
    """No two of twelve seeds draw the same board."""
    assert len(SEEDS) == len({draw_board(np.random.default_rng(seed), size_px=(256, 256)).tobytes() for seed in SEEDS})


def test_light_copper_is_the_negative_of_dark_copper() -> None:
    """The polarity changes the greys and nothing else."""
    dark = draw_board(np.random.default_rng(3))
    light = draw_board(np.random.default_rng(3), dark_copper=False)
    assert int(np.abs(255 - dark.astype(int) - light).max()) <= 1


def test_boards_range_from_sparse_to_full() -> None:
    """The share of copper differs widely between boards, as it does between crops of real ones."""
    shares = [lay_out(np.random.default_rng(seed), (400, 400)).mask().mean() for seed in range(60)]
    assert min(shares) < 0.12
    assert max(shares) > 0.6


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("seed", range(4))
def test_no_piece_of_copper_joins_two_nets(style: str, seed: int) -> None:
    """A good board has no accidental short: each connected piece of copper belongs to one net."""
    copper = board(style, seed)
    pieces = cv2.connectedComponents(copper.mask(), connectivity=8)[1]
    known = (copper.nets > 0) & (pieces > 0)
    pairs = np.unique(np.stack([pieces[known], copper.nets[known]]), axis=1)
    assert pairs.shape[1] == len(np.unique(pairs[0]))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("seed", range(4))
def test_different_nets_never_come_closer_than_four_pixels(style: str, seed: int) -> None:
    """A good board has no hairline gap between nets, which a camera would close."""
    nets = np.where(board(style, seed).nets > 0, board(style, seed).nets, 0).astype(np.float32)
    window = np.ones((5, 5), np.uint8)
    highest = cv2.dilate(nets, window)
    lowest = cv2.erode(np.where(nets > 0, nets, np.float32(1e6)), window)
    assert not np.any((highest > 0) & (lowest < 1e6) & (highest != lowest))


def test_feature_too_close_to_another_net_is_refused() -> None:
    """Copper is laid only where it keeps its clearance from other nets."""
    copper = Copper((100, 100))
    first = copper.add([disc(50, 50, 10)], 8)
    assert copper.add([line([(70, 0), (70, 99)], 6)], 8) == 0
    assert copper.add([line([(50, 50), (99, 50)], 6)], 8, first) == first
    assert copper.add([line([(75, 0), (75, 30)], 6)], 8) > first


def test_large_board_of_distinct_blocks_is_joined_by_tracks() -> None:
    """Every block of a large board is different, and tracks run across the seams without a step."""
    board = draw_large_board(np.random.default_rng(2), (2400, 2048))
    copper = board < 128
    assert (2048, 2400) == board.shape
    assert not np.array_equal(board[:1024, :1024], board[1024:, :1024])
    for above, below in ((copper[1023], copper[1024]), (copper[:, 1023], copper[:, 1024])):
        assert above.sum() > 20
        assert np.mean(above == below) > 0.995


def test_large_board_depends_on_its_seed_only() -> None:
    """The same seed draws the same large board."""
    boards = [draw_large_board(np.random.default_rng(seed), (1200, 700)) for seed in (4, 4, 5)]
    assert np.array_equal(boards[0], boards[1])
    assert not np.array_equal(boards[0], boards[2])
