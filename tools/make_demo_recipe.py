"""Makes a sealed demo recipe: `python -m tools.make_demo_recipe pcb MODEL` or `.. casting MODEL`.

Photographs three self-test frames of the demo's product (generated: a board of seed 3, a casting of seed 3) and seals
the recipe in deploy/recipes with the given model.  Run once whenever a shipped demo model changes.
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
from inspection.errors import UsageError
from inspection.images import write_png
from tools.demo import draw_casting

RECIPES = Path(__file__).resolve().parent.parent / "deploy" / "recipes"
CAMERA = CameraModel(shift_px=12, rotate_deg=1.0, scale=0.01)
NAMES = (("good", 0), ("two-defects", 2), ("four-defects", 4))
SEEDS = {"pcb": (51, 52, 53), "casting": (24, 26, 28)}


def make(product: str, model: Path) -> int:
    """Replace the demo recipe of ``product``; returns the exit code of `lineside recipe new`."""
    if product not in ("pcb", "casting"):
        raise UsageError(f"there is no demo product {product!r}", fix="give pcb or casting, then the model file")
    folder = RECIPES / f"demo-{product}"
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        golden, frames = Path(scratch) / "golden.png", []
        board = draw_board(np.random.default_rng(3))
        write_png(golden, board)
        for (name, defects), seed in zip(NAMES, SEEDS[product], strict=True):
            frames.append(Path(scratch) / f"{name}.png")
            rng = np.random.default_rng(seed)
            image = (
                generate_pair(rng, board, defects=defects, camera=CAMERA).frame
                if product == "pcb"
                else draw_casting(seed, defects)[0]
            )
            write_png(frames[-1], image)
        words = ["recipe", "new", str(folder), "--model", str(model), "--selftest", *map(str, frames)]
        return lineside(words + (["--golden", str(golden)] if product == "pcb" else []))


if __name__ == "__main__":
    sys.exit(make(sys.argv[1], Path(sys.argv[2])))
