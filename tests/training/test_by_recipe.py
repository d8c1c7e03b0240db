"""Parts judged and timed by a recipe, as a station does it: all its cameras, and nothing that could not be read."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from datasets.manifest import Dataset, Digest, Origin
from datasets.sample import Sample
from inspection.errors import UsageError
from inspection.images import read_image, write_png
from inspection.recipe import open_recipe
from inspection.recipe_new import Plan, ViewPlan, make_recipe
from inspection.types import Verdict
from training.by_recipe import FEWEST_TIMED, frames_beside, judge_all, measure_latency


def sample(image: Path) -> Sample:
    return Sample(image, None, (), image.stem, "test", image.stem)


@pytest.fixture
def board(demo_recipe: Path, tmp_path: Path) -> Path:
    """The golden of the demo board, in a folder of its own."""
    return Path(shutil.copy(demo_recipe / "golden.png", tmp_path / "board.png"))


def recipe(root: Path, board: Path, *roles: str, parts: Path | None = None) -> Path:
    """A recipe for the board through camera top, and for a casting through camera side."""
    casting = root / "deploy" / "recipes" / "demo-casting" / "model.onnx"
    views = {"top": ViewPlan("top", root / "deploy" / "recipes" / "demo-pcb" / "model.onnx", board)}
    views["side"] = ViewPlan("side", casting)
    folder = board.with_name("-".join(("recipe", *roles, "tested" if parts else "")))
    make_recipe(Plan(folder, "both", tuple(views[role] for role in roles), selftest=() if parts is None else (parts,)))
    return folder


@pytest.fixture
def parts(root: Path, board: Path) -> Path:
    """Frames of two parts by both cameras; the second one is too dark for its side to be judged."""
    folder = board.with_name("parts")
    folder.mkdir()
    good = read_image(root / "deploy" / "recipes" / "demo-casting" / "selftest" / "good.png")
    for name, side in (("a", good), ("b", np.zeros_like(good))):
        write_png(folder / f"{name}.side.png", side)
        shutil.copy(board, folder / f"{name}.top.png")
    return folder


def test_whole_recipe_is_timed(root: Path, board: Path, parts: Path) -> None:
    """The time of a part is that of all its cameras, though frames of one camera alone are given."""
    held = Dataset("held", (), (sample(parts / "a.side.png"),), (Digest("0" * 64, ""),), Origin("test", ""))
    one = open_recipe(recipe(root, board, "side"), threads=1)
    both = open_recipe(recipe(root, board, "top", "side", parts=parts), threads=1)
    alone, whole = measure_latency(one, "side", held), measure_latency(both, "side", held)
    assert ((1, FEWEST_TIMED), (2, FEWEST_TIMED)) == ((alone.cameras, alone.parts), (whole.cameras, whole.parts))
    assert whole.median_ms > 2 * alone.median_ms  # the board alone takes eight times as long as the casting


def test_frames_that_are_refused_are_not_timed(root: Path, board: Path, parts: Path) -> None:
    """Beside the frames of one camera stand those of the others that are judged; the golden where no self-test has one."""
    tested = open_recipe(recipe(root, board, "top", "side", parts=parts), threads=1)
    (beside,) = frames_beside(tested, "top")
    assert Verdict.ERROR != tested.views["side"].inspect(beside["side"].image).judgement.verdict
    untested = open_recipe(recipe(root, board, "top", "side"), threads=1)
    assert [{"top"}] == [set(frames) for frames in frames_beside(untested, "side")]
    with pytest.raises(UsageError, match="holds no frame of camera side that can be judged"):
        frames_beside(untested, "top")


def test_a_file_that_cannot_be_read_is_told_from_a_part_that_cannot_be_judged(root: Path, board: Path) -> None:
    """A picture that is gone was not judged by any recipe, which is something else than a frame that is too dark."""
    view = open_recipe(recipe(root, board, "top"), threads=1).views["top"]
    write_png(board.with_name("dark.png"), np.zeros((640, 640), np.uint8))
    board.with_name("torn.png").write_bytes(board.read_bytes()[:40])
    names = ("board", "dark", "torn", "gone")
    judged = judge_all(view, [sample(board.with_name(f"{name}.png")) for name in names], "parts")
    assert [False, False, True, True] == [case.unread for case in judged.cases]
    assert [Verdict.ERROR] * 3 == [case.verdict for case in judged.cases[1:]]
