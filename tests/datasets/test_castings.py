import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datasets.cli import add_verb
from datasets.manifest import open_dataset
from datasets.synth.casting_defects import CASTING_CLASSES
from datasets.synth.casting_set import CastingPart, defective_parts, draw_part, draw_product
from datasets.synth.casting_shapes import KINDS, CastingDesign, draw_design
from datasets.synth.casting_sheet import casting_sheet
from datasets.synth.castings import CastingCamera, draw_casting, generate_casting, photograph_casting
from inspection.errors import UsageError
from inspection.images import read_image

STILL = CastingCamera(turn=0.0, shift=0.0, scale=0.0, light=0.0, noise=0.0, blur_px=0.0, jpeg_quality=100)


def design(kind: str, seed: int = 1) -> CastingDesign:
    return replace(draw_design(np.random.default_rng(seed)), kind=kind)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn_with_its_part_in_the_middle(kind: str) -> None:
    """The part takes a fair share of the picture, keeps off its border, and has texture."""
    for seed in range(3):
        image, part = photograph_casting(design(kind, seed), np.random.default_rng(seed), size_px=(120, 160))
        assert (120, 160) == image.shape == part.shape
        assert 0.04 < part.mean() < 0.8
        assert part[[0, -1]].sum() + part[:, [0, -1]].sum() == 0
        assert image[part].std() > 5


def test_same_seed_gives_the_same_part_and_another_seed_another_product() -> None:
    """A picture depends on its seed alone."""
    one, same, other = (draw_casting(np.random.default_rng(seed), size_px=(96, 96))[0] for seed in (5, 5, 6))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_parts_of_one_design_differ_but_not_in_shape() -> None:
    """Under a camera that does not move the same pixels are metal, while skin and noise differ."""
    pictures = [photograph_casting(design("flange"), np.random.default_rng(seed), camera=STILL) for seed in (1, 2)]
    assert np.array_equal(pictures[0][1], pictures[1][1])
    assert not np.array_equal(pictures[0][0], pictures[1][0])


def test_part_turns_and_moves_under_the_usual_camera() -> None:
    """The usual camera lets parts lie at any angle."""
    parts = [photograph_casting(design("lever"), np.random.default_rng(seed))[1] for seed in (1, 2)]
    assert (parts[0] != parts[1]).mean() > 0.01


def test_defects_show_in_the_picture() -> None:
    """With a still camera a defective part differs from its good twin just in the masks."""
    for seed in range(6):
        good, none = generate_casting(np.random.default_rng(seed), design("pulley"), defects=0, camera=STILL)
        bad, made = generate_casting(np.random.default_rng(seed), design("pulley"), defects=3, camera=STILL)
        assert not none
        changed = np.zeros(good.shape, bool)
        for defect in made:
            changed |= defect.mask
        assert np.array_equal(changed, good != bad)


def test_share_of_defective_parts_is_kept() -> None:
    """Just the share asked for is defective, and those have at least one defect."""
    bad = defective_parts(20, 0.35, 3)
    assert int(bad.sum()) == 7
    assert draw_part(draw_product(3), (3, 1), defects=2).defects
    assert not draw_part(draw_product(3), (3, 2), defects=0).defects


def test_sheet_has_rows_for_good_parts_and_for_each_class(tmp_path: Path) -> None:
    """One row of good parts, two for each class; without any part the names remain."""
    part = CastingPart(*generate_casting(np.random.default_rng(1), design("flange"), defects=3))
    good = CastingPart(part.image, ())
    for parts in ([], [part, good]):
        sheet = read_image(casting_sheet(parts, tmp_path / "sheet.png", per_class=3))
        assert sheet.shape[0] % (1 + 2 * len(CASTING_CLASSES)) == 0
        assert len(np.split(sheet, 1 + 2 * len(CASTING_CLASSES))[0])


def synth(*words: object) -> int:
    parser = argparse.ArgumentParser()
    add_verb(parser.add_subparsers(required=True))
    args = parser.parse_args(["data", "synth", *map(str, words)])
    return int(args.func(args))


def test_synth_writes_good_and_bad_castings(tmp_path: Path) -> None:
    """The dataset holds the parts asked for, boxes with outlines, all classes, a sheet; the seed alone decides."""
    words = ("--product", "casting", "--parts", 6, "--defective", 0.5, "--seed", 2)
    assert synth(*words, "-o", tmp_path / "a") == 0
    synth(*words, "-o", tmp_path / "b")
    dataset = open_dataset(tmp_path / "a")
    assert CASTING_CLASSES == dataset.classes
    assert sorted(bool(sample.labels) for sample in dataset.samples) == [False] * 3 + [True] * 3
    assert all(label.polygons_px for sample in dataset.samples for label in sample.labels)
    assert dataset.version == open_dataset(tmp_path / "b").version
    assert (tmp_path / "a" / "contact_sheet.png").is_file()


@pytest.mark.parametrize(
    "words",
    [
        ("--product", "casting"),
        ("--product", "casting", "--parts", 0),
        ("--product", "casting", "--parts", 2, "--defective", 1.5),
        ("--product", "casting", "--parts", 2, "--boards", 2),
        ("--boards", 1, "--parts", 2),
        ("--parts", 2),
    ],
)
def test_synth_refuses_numbers_that_do_not_fit_the_product(tmp_path: Path, words: tuple[object, ...]) -> None:
    """A missing or wrong number, or one of the other product, is named, and nothing is written."""
    with pytest.raises(UsageError, match="--"):
        synth("-o", tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()
