"""Makes the weights that classifiers start from: `python -m tools.start_weights -o OUT --minutes 12`.

Draws good parts of many generated products, and teaches the part net to find the defects injected into them.  No real
picture is used.  What it learns - what chips, pits and cracks look like on metal - spares a classifier with few labelled
parts most of the way.  The result is copied to ``training/models/part_net_start.pt`` by hand, after a look at what it brings.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="start_weights", description="Weights that classifiers start from.")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--products", type=int, default=24, help="generated products")
    parser.add_argument("--parts", type=int, default=20, help="good parts of each")
    parser.add_argument("--minutes", type=float, default=12.0)
    options = parser.parse_args(arguments)
    good = options.output / "parts" / "good"
    good.mkdir(parents=True, exist_ok=True)
    for seed in range(options.products):
        made = options.output / "products" / str(seed)
        if not made.exists():
            _lineside("data", "synth", "--product", "casting", "--parts", options.parts, "--defective", 0, "--seed", seed,
                      "-o", made)  # fmt: skip
        for image in sorted((made / "images").glob("*.png")):
            shutil.copy(image, good / f"product{seed:03d}-{image.name}")
    run = options.output / "run"
    _lineside("train", "anomaly", "--data", options.output / "parts", "-o", run, "--minutes", options.minutes,
              "--input-px", 224)  # fmt: skip
    checkpoint = torch.load(run / "checkpoint.pt", map_location="cpu", weights_only=True)
    torch.save({"average": checkpoint["average"]}, options.output / "part_net_start.pt")
    print(options.output / "part_net_start.pt")
    return 0


def _lineside(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "inspection", *(str(argument) for argument in arguments)], check=True)


if __name__ == "__main__":
    sys.exit(main())
