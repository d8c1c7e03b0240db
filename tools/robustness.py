"""How much a misplaced, turned, scaled and unevenly lit part costs: `python -m tools.robustness MODEL DATASET`.

Each frame of the dataset is moved against its golden by a seeded random shift (up to 24 px), rotation (2 degrees) and
scale (2 %), and lit with a 20 % gradient; its labels move along.  mAP@0.33 is compared with the frames as they are.
A second part moves frames beyond what registration may accept, and pairs frames with the wrong golden: every verdict
must be ERROR or NG, never OK.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.manifest import open_dataset
from datasets.sample import Sample, load_grey
from inspection.detector import Detector
from inspection.golden import GoldenTemplate, RegistrationLimits
from inspection.inspect_frame import Inspection, inspect_frame
from inspection.model import LoadedModel, load_model
from inspection.predict import card_criteria
from inspection.types import Verdict
from training.metrics import Scored, mean_average_precision

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Disturbance:
    """Largest shift (px), rotation (degrees), change of scale, and illumination gradient across the frame."""

    shift_px: float
    rotate_deg: float
    scale: float
    gradient: float


LINE = Disturbance(24, 2, 0.02, 0.2)


def disturb(frame: Image, how: Disturbance, rng: np.random.Generator) -> tuple[Image, NDArray[np.float64]]:
    """The frame (H, W) moved and relit, and the 2x3 matrix that moves its labels."""
    height, width = frame.shape
    angle, scale = rng.uniform(-how.rotate_deg, how.rotate_deg), 1 + rng.uniform(-how.scale, how.scale)
    matrix = np.array(cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale))
    matrix[:, 2] += rng.uniform(-how.shift_px, how.shift_px, 2)
    moved = cv2.warpAffine(frame, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    turn = rng.uniform(0, 2 * np.pi)
    rows = np.linspace(-0.5, 0.5, height)[:, None] * np.sin(turn)
    columns = np.linspace(-0.5, 0.5, width)[None, :] * np.cos(turn)
    light = 1 - how.gradient / 2 + how.gradient * (rows + columns)
    return np.clip(moved * light, 0, 255).astype(np.uint8), matrix


def moved_truth(
    sample: Sample, matrix: NDArray[np.float64], size: tuple[int, int]
) -> tuple[list[list[float]], list[str]]:
    """Boxes moved by the matrix and clipped to the frame; those whose centre left it are dropped."""
    boxes, names = [], []
    for label in sample.labels:
        x1, y1, x2, y2 = label.box_px
        # The box keeps its size: the defect inside it turns by a degree or two, not the margin around it.
        centre = matrix @ [(x1 + x2) / 2, (y1 + y2) / 2, 1]
        half = np.array([x2 - x1, y2 - y1]) / 2
        if np.all(centre > 0) and np.all(centre < size):
            low, high = np.clip(centre - half, 0, size), np.clip(centre + half, 0, size)
            boxes.append([*low, *high])
            names.append(label.defect_class)
    return boxes, names


def judge_all(model: LoadedModel, samples: list[Sample], how: Disturbance, seed: int) -> tuple[float, int]:
    """mAP@0.33 and the number of ERROR verdicts over disturbed frames."""
    rng, images, errors = np.random.default_rng(seed), [], 0
    classes = model.card.classes
    for sample in samples:
        frame, matrix = disturb(load_grey(sample.image), how, rng)
        boxes, names = moved_truth(sample, matrix, (frame.shape[1], frame.shape[0]))
        seen = _judged(model, frame, load_grey(sample.golden or sample.image))
        errors += seen.judgement.verdict == Verdict.ERROR
        images.append(
            Scored(
                np.array(boxes, float).reshape(-1, 4),
                np.array([classes.index(name) for name in names], np.int64),
                np.array([d.region.xyxy_px for d in seen.detections], float).reshape(-1, 4),
                np.array([classes.index(d.defect_class) for d in seen.detections], np.int64),
                np.array([d.score for d in seen.detections], float),
            )
        )
    return mean_average_precision(images, len(classes), (0.33,)), errors


def _judged(model: LoadedModel, frame: Image, golden: Image) -> Inspection:
    return inspect_frame(frame, Detector(model, GoldenTemplate(golden), RegistrationLimits()), card_criteria(model))


def beyond(model: LoadedModel, samples: list[Sample], seed: int) -> dict[str, dict[str, int]]:
    """Verdicts where registration must give up: turned by 5 to 12 degrees, shifted by 80 to 200 px, a wrong golden."""
    rng, counts = np.random.default_rng(seed), {}
    for kind in ("turned 5-12 deg", "shifted 80-200 px", "wrong golden"):
        tally = {verdict.name: 0 for verdict in Verdict}
        for number, sample in enumerate(samples):
            frame, golden = load_grey(sample.image), load_grey(sample.golden or sample.image)
            matrix = np.array(cv2.getRotationMatrix2D((frame.shape[1] / 2, frame.shape[0] / 2), 0, 1))
            if kind.startswith("turned"):
                angle = rng.uniform(5, 12) * rng.choice([-1, 1])
                matrix = np.array(cv2.getRotationMatrix2D((frame.shape[1] / 2, frame.shape[0] / 2), angle, 1))
            elif kind.startswith("shifted"):
                matrix[:, 2] += rng.uniform(80, 200, 2) * rng.choice([-1, 1], 2)
            else:
                golden = load_grey(samples[(number + len(samples) // 2) % len(samples)].golden or sample.image)
            frame = np.asarray(
                cv2.warpAffine(frame, matrix, frame.shape[::-1], borderMode=cv2.BORDER_REPLICATE), np.uint8
            )
            tally[_judged(model, frame, golden).judgement.verdict.name] += 1
        counts[kind] = tally
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--groups", nargs="*", default=[], help="only these groups")
    parser.add_argument("--every", type=int, default=1, help="take every n-th sample")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    model = load_model(args.model)
    chosen = [s for s in open_dataset(args.dataset).samples if s.golden and (not args.groups or s.group in args.groups)]
    chosen = chosen[:: args.every]
    still, still_errors = judge_all(model, chosen, Disturbance(0, 0, 0, 0), args.seed)
    moved, moved_errors = judge_all(model, chosen, LINE, args.seed)
    print(f"{len(chosen)} frames, mAP@0.33 as they are {100 * still:.2f} ({still_errors} ERROR)")
    print(
        f"shift 24 px, 2 deg, 2 %, gradient 20 %: {100 * moved:.2f} ({moved_errors} ERROR), drop {100 * (still - moved):.2f}"
    )
    passed = 0
    for kind, tally in beyond(model, chosen[:100], args.seed).items():
        print(f"{kind}: " + ", ".join(f"{name} {count}" for name, count in tally.items()))
        passed += tally["OK"]
    return 1 if passed else 0


if __name__ == "__main__":
    sys.exit(main())
