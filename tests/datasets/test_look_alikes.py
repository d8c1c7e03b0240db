import dataclasses
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.check import check
from datasets.look_alikes import Leak, find_links, joined, leaks, look_alike_groups, rings_of
from datasets.manifest import Dataset, Origin, make_dataset
from datasets.sample import LabelledBox, Sample
from datasets.synth.boards import generate_pair
from datasets.synth.camera import CameraModel
from inspection.errors import UsageError

Build, Gather = Callable[..., Sample], Callable[..., Dataset]
_SIDE = 240


def part(seed: int) -> np.ndarray:
    """A turned round part on a plain table: rings and light all parts share, blots and scratches of its own."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:_SIDE, 0:_SIDE] - (_SIDE - 1) / 2
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    image = np.full((_SIDE, _SIDE), 150.0)
    image[radius < 90] = 200
    image += (radius < 90) * 25 * np.cos(2 * angle)
    image[(radius > 30) & (radius < 50)] = 40
    for _ in range(12):
        far, turn, size = rng.uniform(52, 86), rng.uniform(0, 2 * np.pi), rng.uniform(2, 5)
        place = x - far * np.cos(turn), y - far * np.sin(turn)
        image -= rng.uniform(40, 120) * np.exp(-(place[0] ** 2 + place[1] ** 2) / (2 * size**2))
    grain = cv2.GaussianBlur(rng.normal(0, 25, image.shape), (0, 0), 2.0)
    return np.clip(cv2.GaussianBlur(image + grain * (radius < 90), (0, 0), 1.0), 0, 255).astype(np.uint8)


def warped(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The image moved by a (2, 2) matrix about its middle, edges drawn out."""
    middle = np.full(2, (_SIDE - 1) / 2)
    affine = np.hstack([matrix, (middle - matrix @ middle)[:, None]])
    return cv2.warpAffine(image, affine, image.shape[::-1], borderMode=cv2.BORDER_REPLICATE)


def turned(image: np.ndarray, degrees: float) -> np.ndarray:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return warped(image, np.array([[cos, -sin], [sin, cos]]))


def recompressed(image: np.ndarray) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_GRAYSCALE)


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "by 90": lambda image: np.ascontiguousarray(np.rot90(image)),
    "by 180": lambda image: np.ascontiguousarray(np.rot90(image, 2)),
    "by 270": lambda image: np.ascontiguousarray(np.rot90(image, 3)),
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
    "mirrored and by 90": lambda image: np.ascontiguousarray(image.T),
    "by 37": lambda image: turned(image, 37),
    "mirrored and by -141": lambda image: turned(np.ascontiguousarray(image[::-1]), -141),
    "stretched": lambda image: warped(image, np.array([[1.05, 0.1], [0.0, 0.9]])),
    "moved": lambda image: np.roll(image, (8, -6), (0, 1)),
    "relit": lambda image: cv2.convertScaleAbs(image, alpha=0.8, beta=25),
    "half as large": lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "wide": lambda image: cv2.resize(image, (320, 200), interpolation=cv2.INTER_AREA),
    "recompressed": recompressed,
}


def linked(*images: np.ndarray) -> set[tuple[int, int]]:
    return {(first, second) for first, second in find_links([rings_of(image) for image in images]).pairs.tolist()}


@pytest.mark.parametrize("copy", COPIES)
def test_copy_of_a_part_is_found(copy: str) -> None:
    """Turned, mirrored, stretched, relit and recompressed copies are linked, other parts of the kind are not."""
    parts = [part(seed) for seed in range(6)]
    assert linked(*parts, COPIES[copy](parts[2])) == {(2, 6)}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 360), st.booleans(), st.floats(0.85, 1.0), st.floats(0.85, 1.0))
def test_any_turn_is_found(seed: int, degrees: float, mirror: bool, wide: float, high: float) -> None:
    """A part is its own look-alike at any angle, from either side and a little stretched; its neighbour is not."""
    one, other = part(seed), part(seed + 1)
    copy = warped(turned(one[:, ::-1] if mirror else one, degrees), np.diag([wide, high]))
    assert linked(one, other, recompressed(copy)) == {(0, 2)}


def test_hundred_parts_of_one_kind_are_not_linked() -> None:
    """What all parts share links none of them, turned as they come."""
    assert linked(*[turned(part(seed), 7 * seed) for seed in range(100)]) == set()


def test_copies_of_boards_are_found_and_other_boards_are_not() -> None:
    """Generated boards are told apart; a board lying on its side is found."""
    boards = [_board(seed) for seed in range(8)]
    assert linked(*boards, np.ascontiguousarray(np.rot90(boards[5])[::-1])) == {(5, 8)}


def test_frames_of_one_board_from_one_place_are_not_linked() -> None:
    """Sixty units of one board under a fixed camera differ only in defects, noise and place; a copy of one is found."""
    golden = _board(1)
    frames = [_board(seed, golden) for seed in range(60)]
    copy = cv2.convertScaleAbs(np.ascontiguousarray(frames[7][:, ::-1]), alpha=0.9, beta=10)
    assert linked(*frames, copy) == {(7, 60)}


def _board(seed: int, golden: np.ndarray | None = None) -> np.ndarray:
    rng = np.random.default_rng([1, seed])
    camera = CameraModel()
    return generate_pair(rng, golden, size_px=(320, 320), dark_copper=True, defects=3, camera=camera).frame


@pytest.mark.parametrize(
    "images",
    [
        [np.full((40, 40), grey, np.uint8) for grey in (90, 90, 160)],
        [np.zeros((1, 1), np.uint8), np.zeros((3, 500), np.uint8)],
    ],
    ids=["uniform", "very small"],
)
def test_pictures_that_show_nothing_are_not_linked(images: list[np.ndarray]) -> None:
    """Without texture there is nothing to tell a copy by."""
    assert linked(*images) == set()


def test_pictures_without_texture_are_not_linked_by_chance() -> None:
    """Blurred patterns have few waves, and those of two hundred pictures agree somewhere."""
    noise = np.random.default_rng(0).standard_normal((200, 96, 128)).astype(np.float32)
    smooth = [cv2.normalize(cv2.GaussianBlur(n, (0, 0), 9), None, 20, 235, cv2.NORM_MINMAX) for n in noise]
    assert linked(*[image.astype(np.uint8) for image in smooth]) == set()


def test_missing_pictures_look_like_nothing() -> None:
    """Positions stay those of the sequence given; none at all is no error."""
    rings = rings_of(part(1))
    assert find_links([None, rings, None, rings]).pairs.tolist() == [[1, 3]]
    assert find_links([None]).pairs.shape == find_links([]).pairs.shape == (0, 2)


def test_joined() -> None:
    """Links of any length join; order is that of the numbers."""
    assert joined(7, [(5, 2), (2, 1), (6, 0, 6)]) == ((0, 6), (1, 2, 5))
    assert joined(0, []) == ()


@given(st.lists(st.lists(st.integers(0, 19), min_size=1, max_size=4), max_size=20))
def test_joined_is_a_partition_that_keeps_links_together(links: list[list[int]]) -> None:
    """Groups share nothing, and both ends of a link are in one group."""
    groups = joined(20, links)
    place = {thing: group for group in groups for thing in group}
    assert len(place) == sum(map(len, groups))
    assert all(len({place.get(thing, (thing,)) for thing in link}) == 1 for link in links)


def test_groups_of_a_dataset(make_sample: Build, gather: Gather) -> None:
    """Colour and grey, three samples, one group by names; files with equal bytes are one group even when uniform."""
    colour = cv2.applyColorMap(np.ascontiguousarray(np.rot90(part(1))), cv2.COLORMAP_BONE)
    plain = np.full((20, 20), 7, np.uint8)
    images = {"a": part(1), "b": part(2), "c": colour, "d": plain, "e": plain}
    dataset = gather(*[make_sample(name, image=image) for name, image in images.items()])
    assert look_alike_groups(dataset) == (("a", "c"), ("d", "e"))
    assert look_alike_groups(gather(*[make_sample(n, image=images[n]) for n in "abc"])) == (("a", "c"),)


def test_unreadable_image_is_an_error(make_sample: Build, gather: Gather) -> None:
    """A file that is gone is no sample without look-alikes."""
    dataset = gather(make_sample("a", image=part(1)))
    dataset.samples[0].image.unlink()
    with pytest.raises(UsageError):
        look_alike_groups(dataset)


@pytest.fixture
def divided(make_sample: Build, gather: Gather) -> Dataset:
    """Train a, b; val: a copy of a, a turned b, a stranger."""
    return gather(
        make_sample("a", image=part(1), split="train"),
        make_sample("b", image=part(2), split="train"),
        make_sample("same", image=part(1), split="val"),
        make_sample("turned", image=turned(part(2), 50), split="val"),
        make_sample("stranger", image=part(3), split="val"),
    )


def test_leaks_are_told_by_the_card(divided: Dataset) -> None:
    """What the card lists is training; a listed image that is evaluated is identical."""
    listed = [digest.image[:12] for digest in divided.digests[:2]]
    leak = leaks(divided, ["same", "turned", "stranger"], [*listed, "0" * 12])
    assert leak == Leak(("same",), ("turned",), 3, 2, "card")
    assert leak
    assert leak.statement().startswith("of 3 evaluated images 1 are and 1 look like one of the 2 training images")


def test_leaks_are_told_by_the_split_when_the_card_lists_none(divided: Dataset) -> None:
    """The training images of the dataset stand for those of the card; without them nothing is known."""
    assert leaks(divided, ["turned", "stranger"], []) == Leak((), ("turned",), 2, 2, "split")
    clean = leaks(divided, ["stranger"], [])
    assert not clean
    assert clean.statement().startswith("none of 1 evaluated images is or looks like one of the 2 ")
    unknown = leaks(divided, [sample.name for sample in divided.samples], [])
    assert (bool(unknown), unknown.source) == (False, "none")
    assert "not known" in unknown.statement()


def test_unknown_names_are_a_mistake_of_the_caller(divided: Dataset) -> None:
    """Only samples of the dataset can be evaluated."""
    with pytest.raises(ValueError, match=r"no such sample.*: x"):
        leaks(divided, ["x"], [])


@pytest.fixture(scope="module")
def castings() -> Dataset:
    """Every fourth image of the real castings, where they are present; the class is that of the folder."""
    shared = Path(__file__).parents[2].parent / "shared" / "data"
    root = Path(os.environ.get("LINESIDE_DATA", shared)) / "casting" / "train"
    if not (root / "ok_front").is_dir():
        pytest.skip(f"needs castings in {root}; set LINESIDE_DATA to the folder that holds casting/train/ok_front")
    files = sorted(root.glob("*/*.jpeg"))[::4]
    box = (LabelledBox("defect", (0.0, 0.0, 300.0, 300.0)),)
    samples = [
        Sample(file, None, box if file.parent.name == "def_front" else (), file.stem, "", file.stem) for file in files
    ]
    return make_dataset("castings", samples, classes=("defect",), origin=Origin("test", str(root)))


def test_real_castings_are_copies_of_few_photographs(castings: Dataset) -> None:
    """The published images are copies: every group is of one class but for the photograph that is in both folders."""
    groups = look_alike_groups(castings)
    inside = sum(map(len, groups))
    assert inside >= 0.97 * len(castings.samples)
    assert 100 <= len(groups) <= 145
    assert max(map(len, groups)) <= 45
    mixed = [group for group in groups if len({name[:8] for name in group}) > 1]
    assert len(mixed) <= 1


def test_check_says_that_a_random_split_of_real_castings_leaks(castings: Dataset) -> None:
    """The note counts the copies; split by turns, they are on both sides."""
    some = dataclasses.replace(castings, samples=castings.samples[:200], digests=castings.digests[:200])
    assert [finding.kind for finding in check(some)] == ["not-split", "look-alikes"]
    alternating = tuple(
        dataclasses.replace(sample, split="val" if number % 2 else "train")
        for number, sample in enumerate(some.samples)
    )
    kinds = Counter(finding.kind for finding in check(dataclasses.replace(some, samples=alternating)))
    assert kinds["near-duplicate-across-splits"] > 20
