"""The training loop, in plain sight."""

import copy
import json
import math
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from datasets.sample import Sample
from inspection.errors import UsageError
from training.config import TrainConfig
from training.data import Crops, Supply, load_pair
from training.metrics import Scored, best_f_score, mean_average_precision
from training.models.golden_net import GoldenNet, decode
from training.targets import detection_loss

EPOCH_CROPS = 4000
BOX_WEIGHT = 1.0
CHECKPOINT_S = 60.0


@dataclass(slots=True)
class RunState:
    """Everything that a checkpoint holds."""

    net: nn.Module
    average: nn.Module  # exponential moving average of the weights: this is what gets exported
    optimiser: torch.optim.Optimizer
    step: int = 0
    trained_s: float = 0.0


def train(config: TrainConfig, supply: Supply, held_out: tuple[Sample, ...]) -> tuple[nn.Module, float]:
    """Train until the asked minutes or epochs are over; returns the averaged net on the CPU and the seconds trained.

    Writes ``checkpoint.pt`` each minute and when the user interrupts, and ``metrics.jsonl`` as it goes, in
    ``config.out``.  A non-finite loss stops the run at once (UsageError); the last checkpoint is kept.
    """
    torch.manual_seed(config.seed)
    device = torch.device(config.device)
    state = _start(config, len(supply.classes), device)
    loader = torch.utils.data.DataLoader(
        Crops(supply, start=state.step),
        batch_size=config.batch,
        num_workers=config.workers,
        pin_memory=device.type == "cuda",
    )
    checkpoint = config.out / "checkpoint.pt"
    with (config.out / "metrics.jsonl").open("a", encoding="utf-8") as log, _bar() as bar:
        try:
            _loop(state, loader, config, (log, bar, held_out, supply.classes))
        except KeyboardInterrupt:
            save_checkpoint(checkpoint, state, config)
            raise
        save_checkpoint(checkpoint, state, config)
        if held_out:
            _write(log, "val", state, **validate(state.average, held_out, supply.classes))
    return state.average.cpu().eval(), state.trained_s


def _bar() -> "tqdm[Any]":
    return tqdm(total=100, unit="%", desc="training", bar_format="{l_bar}{bar}| {elapsed}<{remaining} {postfix}")


def _loop(
    state: RunState,
    loader: Iterable[tuple[Tensor, Tensor, Tensor]],
    config: TrainConfig,
    watch: "tuple[TextIO, tqdm[Any], tuple[Sample, ...], tuple[str, ...]]",
) -> None:
    """Step until the run is done.  ``watch``: metrics file, progress bar, held-out samples and class names."""
    log, bar, held_out, classes = watch
    saved = clock = time.monotonic()
    done = _progress(config, state)
    checks = [share for share in (0.3, 0.6, 0.8) if share > done]
    window: list[tuple[float, float]] = []
    batches = iter(loader)
    while done < 1.0:
        losses = _step(state, next(batches), config, done)
        if not all(math.isfinite(loss) for loss in losses):
            raise UsageError(
                f"the loss became {losses} at step {state.step}",
                fix="lower --learning-rate, or resume from the last checkpoint with --resume",
            )
        window.append(losses)
        now = time.monotonic()
        state.trained_s += now - clock
        clock = now
        done = _progress(config, state)
        if state.step % 50 == 0:
            heat, box = np.mean(window, axis=0)
            window.clear()
            _write(log, "train", state, heat_loss=heat, box_loss=box)
            bar.set_postfix(step=state.step, heat=f"{heat:.3f}", box=f"{box:.3f}")
            bar.update(100 * min(done, 1.0) - bar.n)
        if checks and done >= checks[0] and held_out:
            checks.pop(0)
            _write(log, "val", state, **validate(state.average, held_out[::4], classes))
        if now - saved > CHECKPOINT_S:
            save_checkpoint(config.out / "checkpoint.pt", state, config)
            saved = now
        clock = time.monotonic()  # validation and checkpoints do not count as training time


def _start(config: TrainConfig, classes: int, device: torch.device) -> RunState:
    config.out.mkdir(parents=True, exist_ok=True)
    net = GoldenNet(classes)
    if config.init is not None:
        net.load_state_dict(_read_checkpoint(config.init)["average"])
    net = net.to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(net).eval()
    decayed = [p for p in net.parameters() if p.ndim > 1]
    plain = [p for p in net.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}], lr=config.learning_rate
    )
    state = RunState(net, average, optimiser)
    if config.resume:
        stored = _read_checkpoint(config.out / "checkpoint.pt")
        net.load_state_dict(stored["net"])
        average.load_state_dict(stored["average"])
        optimiser.load_state_dict(stored["optimiser"])
        state.step, state.trained_s = stored["step"], stored["trained_s"]
    return state


def _progress(config: TrainConfig, state: RunState) -> float:
    """Share of the run that is done, 0..1."""
    if config.minutes is not None:
        return state.trained_s / (60 * config.minutes)
    return state.step * config.batch / (EPOCH_CROPS * (config.epochs or 1))


def _learning_rate(config: TrainConfig, done: float) -> float:
    """Linear warm-up over the first 3 %, then half a cosine down to a hundredth."""
    warm = min(1.0, done / 0.03 + 0.02)
    return config.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def _step(
    state: RunState, batch: tuple[Tensor, Tensor, Tensor], config: TrainConfig, done: float
) -> tuple[float, float]:
    """One optimiser step; returns heat and box loss."""
    device = next(state.net.parameters()).device
    pair, heat, boxes = (tensor.to(device, non_blocking=True) for tensor in batch)
    pair = (pair.float() / 255).to(memory_format=torch.channels_last)
    for group in state.optimiser.param_groups:
        group["lr"] = _learning_rate(config, done)
    state.net.train()
    with torch.autocast(device.type, torch.bfloat16, enabled=fast_bfloat16(device)):
        heat_loss, box_loss = detection_loss(*state.net(pair), (heat, boxes))
    loss = heat_loss + BOX_WEIGHT * box_loss
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(state.net.parameters(), 10.0)
    state.optimiser.step()
    state.step += 1
    _follow(state)
    return float(heat_loss.detach()), float(box_loss.detach())


def fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 arithmetic is in hardware (weights stay float32; it only makes training faster)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@torch.no_grad()
def _follow(state: RunState) -> None:
    decay = min(0.998, (1 + state.step) / (10 + state.step))
    for mean, now in zip(state.average.parameters(), state.net.parameters(), strict=True):
        mean.lerp_(now, 1 - decay)
    for mean, now in zip(state.average.buffers(), state.net.buffers(), strict=True):
        mean.copy_(now if not mean.is_floating_point() else mean.lerp(now, 1 - decay))


def save_checkpoint(path: Path, state: RunState, config: TrainConfig) -> None:
    """Write the run state atomically, so that a killed run can always be resumed."""
    partial = path.with_suffix(".partial")
    torch.save(
        {
            "net": state.net.state_dict(),
            "average": state.average.state_dict(),
            "optimiser": state.optimiser.state_dict(),
            "step": state.step,
            "trained_s": state.trained_s,
            "config": {key: str(value) for key, value in asdict(config).items()},
        },
        partial,
    )
    partial.replace(path)


def _read_checkpoint(path: Path) -> dict:  # type: ignore[type-arg]
    if not path.is_file():
        raise UsageError(
            f"there is no checkpoint at {path}", fix="give the folder of an earlier run, or leave --resume out"
        )
    return torch.load(path, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]


@torch.no_grad()
def validate(net: nn.Module, samples: tuple[Sample, ...], classes: tuple[str, ...]) -> dict[str, float]:
    """Quick look at held-out pairs with the torch net, unregistered; the figures to quote come from `lineside evaluate`."""
    net.eval()
    device = next(net.parameters()).device
    images = []
    for sample in samples:
        pair = load_pair(sample, classes)
        stack = torch.from_numpy(np.stack([pair.frame, pair.golden])).to(device).float()[None] / 255
        heat, distance = net(_padded(stack).to(memory_format=torch.channels_last))
        boxes, scores, labels = (
            out[0].cpu().numpy() for out in decode(torch.sigmoid(heat.float()), distance.float(), keep=100)
        )
        found = scores > 0
        images.append(
            Scored(
                pair.labels[:, :4].astype(float),
                pair.labels[:, 4].astype(np.int64),
                boxes[found].astype(float),
                labels[found],
                scores[found].astype(float),
            )
        )
    best = best_f_score(images, len(classes), iou=0.33)
    return {
        "images": len(images),
        "map_33": mean_average_precision(images, len(classes), (0.33,)),
        "map_50": mean_average_precision(images, len(classes), (0.5,)),
        "map_75": mean_average_precision(images, len(classes), (0.75,)),
        "f": best.f,
        "f_threshold": best.threshold,
    }


def _padded(stack: Tensor) -> Tensor:
    height, width = stack.shape[2:]
    return nn.functional.pad(stack, (0, -width % 16, 0, -height % 16), mode="replicate")


def _write(log: TextIO, kind: str, state: RunState, **values: float) -> None:
    row = {"kind": kind, "step": state.step, "trained_s": state.trained_s, **values}
    log.write(json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()}) + "\n")
    log.flush()
