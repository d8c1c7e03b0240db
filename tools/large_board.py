"""Inspects one generated line-scan board in tiles: `python -m tools.large_board MODEL [--side 16384]`.

Draws the board and its frame into two files first, in a process of its own; then this process maps them, so that its
resident memory is that of an inspection.  Prints seconds, tiles, findings and the largest resident memory.
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from inspection.detector import Detector, StageClock
from inspection.golden import GoldenTemplate, RegistrationLimits
from inspection.model import load_model

BLOCK = 1024
DEFECTS_A_BLOCK = 1


def draw(folder: Path, side: int, seed: int) -> None:
    """Write golden.npy and frame.npy of a side x side board; truth.npy holds the boxes of what was injected."""
    from datasets.synth.artwork import draw_large_board
    from datasets.synth.defects import DefectStyle, inject, read_artwork

    rng = np.random.default_rng(seed)
    golden = draw_large_board(rng, (side, side))
    np.save(folder / "golden.npy", golden)
    frame, boxes = golden.copy(), []
    for y in range(0, side, BLOCK):
        for x in range(0, side, BLOCK):
            block = frame[y : y + BLOCK, x : x + BLOCK]
            made, defects = inject(
                read_artwork(block, dark_copper=True), rng, count=DEFECTS_A_BLOCK, style=DefectStyle()
            )
            frame[y : y + BLOCK, x : x + BLOCK] = made
            boxes += [[d.box_px[0] + x, d.box_px[1] + y, d.box_px[2] + x, d.box_px[3] + y] for d in defects]
    frame = np.roll(frame, (9, -6), (0, 1))  # the board lies a little off its golden
    np.save(folder / "frame.npy", frame)
    np.save(folder / "truth.npy", np.add(boxes, [-6, 9, -6, 9]))


def found_share(truth: np.ndarray, found: np.ndarray) -> float:
    """Share of true boxes whose centre lies in a finding."""
    centres = (truth[:, :2] + truth[:, 2:]) / 2
    if not len(found):
        return 0.0
    inside = (found[None, :, :2] <= centres[:, None]) & (centres[:, None] <= found[None, :, 2:])
    return float(np.mean(inside.all(2).any(1)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--side", type=int, default=16384)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        drawing = multiprocessing.get_context("spawn").Process(target=draw, args=(folder, args.side, args.seed))
        drawing.start()
        drawing.join()
        if drawing.exitcode:
            return 1
        golden, frame, truth = (np.load(folder / f"{name}.npy") for name in ("golden", "frame", "truth"))
        model = load_model(args.model, threads=args.threads)
        began, clock = time.perf_counter(), StageClock()
        detector = Detector(model, GoldenTemplate(golden), RegistrationLimits())
        prepared = time.perf_counter()
        found = detector.look(frame, floor=model.card.threshold, clock=clock).detections
        seconds = time.perf_counter() - prepared
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    share = found_share(truth, np.array([d.region.xyxy_px for d in found]).reshape(-1, 4))
    print(f"{args.side} x {args.side} board: {seconds:.1f} s ({prepared - began:.1f} s once for the golden)")
    print("stages s: " + ", ".join(f"{name} {ms / 1000:.1f}" for name, ms in clock.stages.items()))
    print(f"{len(found)} findings; {100 * share:.1f} % of {len(truth)} injected defects found")
    print(f"largest resident memory {peak:.0f} MB, with frame and golden ({2 * frame.nbytes / 2**20:.0f} MB) in it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
