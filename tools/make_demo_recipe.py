"""Makes the sealed demo recipe: `python -m tools.make_demo_recipe MODEL`.

Draws the demo product's golden (a generated board, seed 3), photographs three self-test frames of it, and seals the
recipe in deploy/recipes/demo-pcb with the given model.  Run once whenever the shipped demo model changes.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from datasets.synth.artwork import draw_board
from datasets.synth.boards import generate_pair
from datasets.synth.camera import CameraModel
from inspection.cli import main as lineside
from inspection.images import write_png

FOLDER = Path(__file__).resolve().parent.parent / "deploy" / "recipes" / "demo-pcb"
CAMERA = CameraModel(shift_px=12, rotate_deg=1.0, scale=0.01)


def make(model: Path) -> int:
    """Replace the demo recipe; returns the exit code of `lineside recipe new`."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        golden = Path(scratch) / "golden.png"
        board = draw_board(np.random.default_rng(3))
        write_png(golden, board)
        frames = []
        for name, defects, seed in (("good", 0, 51), ("two-defects", 2, 52), ("four-defects", 4, 53)):
            frames.append(Path(scratch) / f"{name}.png")
            write_png(
                frames[-1], generate_pair(np.random.default_rng(seed), board, defects=defects, camera=CAMERA).frame
            )
        return lineside(
            [
                "recipe",
                "new",
                str(FOLDER),
                "--model",
                str(model),
                "--golden",
                str(golden),
                "--selftest",
                *map(str, frames),
            ]
        )


if __name__ == "__main__":
    sys.exit(make(Path(sys.argv[1])))
