"""The training loop, in plain sight.  What is learnt is a ``Lesson``; the loop is the same for all of our nets."""

import copy
import json
import math
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset
from tqdm import tqdm

from inspection.errors import UsageError
from training.config import TrainConfig
from training.norms import settle

EPOCH_CROPS = 4000
CHECKPOINT_S = 60.0
SETTLED_ON = 64  # crops that the norms of a model file are settled on
CHECK_TIMEOUT = timedelta(hours=3)  # how long the other processes wait while the first looks at held-out samples
CHECKS = (0.3, 0.6, 0.8)  # shares of the run after which the held-out samples are looked at
Batch = list[Tensor]


class Lesson(Protocol):
    """What a net has to learn: its crops, its losses, and a quick look at how well it does."""

    net: nn.Module

    def stream(self, start: int) -> "IterableDataset[tuple[Tensor, ...]]":
        """Endless seeded stream of training crops; ``start`` is the step a resumed run goes on from."""

    def losses(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Named losses of a batch, on the net's device; their sum is made small."""

    def progress(self, done: float) -> None:
        """Told before each step which share of the run is done, 0..1; the stream may change with it."""

    def validate(self, net: nn.Module, *, quick: bool) -> dict[str, float]:
        """Figures on held-out samples, empty when there are none.  The ones to quote come from `lineside evaluate`."""


@dataclass(slots=True)
class RunState:
    """Everything that a checkpoint holds."""

    net: nn.Module
    average: nn.Module  # exponential moving average of the weights: this is what gets exported
    optimiser: torch.optim.Optimizer
    step: int = 0
    trained_s: float = 0.0


def train(config: TrainConfig, lesson: Lesson) -> tuple[nn.Module, float]:
    """Train until the asked minutes or epochs are over; returns the averaged net on the CPU and the seconds trained.

    Writes ``checkpoint.pt`` each minute and when the user interrupts, and ``metrics.jsonl`` as it goes, in
    ``config.out``.  A non-finite loss stops the run at once (UsageError); the last checkpoint is kept.
    Under torchrun each process trains on its own crops and device and the first one writes.
    """
    with _process_group(config) as (rank, world):
        torch.manual_seed(config.seed + rank)
        device = torch.device(config.device, rank % max(1, torch.cuda.device_count()) if config.device == "cuda" else 0)
        state = _start(config, lesson, device)
        learner = _shared(state.net, device) if world > 1 else state.net
        loader = torch.utils.data.DataLoader(
            lesson.stream(state.step * world + rank),
            batch_size=config.batch,
            num_workers=config.workers,
            pin_memory=device.type == "cuda",
        )
        log_path = config.out / "metrics.jsonl" if rank == 0 else Path(os.devnull)
        with log_path.open("a", encoding="utf-8") as log, _bar(hidden=rank > 0) as bar:
            try:
                _loop(state, learner, loader, _Watch(config, lesson, log, bar, rank, world))
            except KeyboardInterrupt:
                if rank == 0:
                    save_checkpoint(config.out / "checkpoint.pt", state, config)
                raise
            if rank == 0:
                save_checkpoint(config.out / "checkpoint.pt", state, config)
                _write(log, "val", state, **lesson.validate(state.average, quick=False))
    return state.average.cpu().eval(), state.trained_s


@contextmanager
def _process_group(config: TrainConfig) -> Iterator[tuple[int, int]]:
    """Rank and number of the processes that torchrun started; (0, 1) without it."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield 0, 1
        return
    backend = "nccl" if config.device == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, timeout=CHECK_TIMEOUT)
    try:
        yield torch.distributed.get_rank(), world
    finally:
        torch.distributed.destroy_process_group()


def is_first_process() -> bool:
    """Whether this process writes the files of the run: all but the first of torchrun's only train."""
    return os.environ.get("RANK", "0") == "0"


def _shared(net: nn.Module, device: torch.device) -> nn.Module:
    ids = [device] if device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(net, device_ids=ids)


def _bar(*, hidden: bool) -> "tqdm[Any]":
    form = "{l_bar}{bar}| {elapsed}<{remaining} {postfix}"
    return tqdm(total=100, unit="%", desc="training", bar_format=form, disable=hidden)


@dataclass(frozen=True, slots=True)
class _Watch:
    config: TrainConfig
    lesson: Lesson
    log: TextIO
    bar: "tqdm[Any]"
    rank: int
    world: int


def _loop(state: RunState, learner: nn.Module, loader: Iterable[Batch], watch: _Watch) -> None:
    """Step until the run is done.  ``learner`` is the net, or the net shared between processes."""
    config = watch.config
    saved = clock = time.monotonic()
    done = _progress(config, state, watch.world)
    checks = [share for share in CHECKS if share > done]
    window: list[dict[str, float]] = []
    batches = iter(loader)
    while done < 1.0:
        watch.lesson.progress(done)
        losses = _step(state, learner, next(batches), watch.lesson, _learning_rate(config, done))
        if not all(math.isfinite(loss) for loss in losses.values()):
            raise UsageError(
                f"the loss became {losses} at step {state.step}",
                fix="lower --learning-rate, or resume from the last checkpoint with --resume",
            )
        window.append(losses)
        now = time.monotonic()
        state.trained_s += now - clock
        clock = now
        done = _agreed(_progress(config, state, watch.world), watch.world)
        watch.bar.update(100 * min(done, 1.0) - watch.bar.n)
        if state.step % 50 == 0:
            _report(state, window, watch)
            window.clear()
        if checks and done >= checks[0] and watch.rank == 0:
            checks.pop(0)
            _write(watch.log, "val", state, **watch.lesson.validate(state.average, quick=True))
        if now - saved > CHECKPOINT_S and watch.rank == 0:
            save_checkpoint(config.out / "checkpoint.pt", state, config)
            saved = now
        clock = time.monotonic()  # validation and checkpoints do not count as training time


def _agreed(done: float, world: int) -> float:
    """The share that is done, the same in every process: one that stopped early would leave the others waiting."""
    if world == 1:
        return done
    share = torch.tensor([done], device="cuda" if torch.distributed.get_backend() == "nccl" else "cpu")
    torch.distributed.all_reduce(share, op=torch.distributed.ReduceOp.MAX)
    return float(share)


def _report(state: RunState, window: list[dict[str, float]], watch: _Watch) -> None:
    means = {name: float(np.mean([row[name] for row in window])) for name in window[0]}
    _write(watch.log, "train", state, **{f"{name}_loss": value for name, value in means.items()})
    watch.bar.set_postfix(step=state.step, **{name: f"{value:.3f}" for name, value in means.items()})


def _start(config: TrainConfig, lesson: Lesson, device: torch.device) -> RunState:
    config.out.mkdir(parents=True, exist_ok=True)
    net = lesson.net
    if config.init is not None:
        _load_fitting(net, _read_checkpoint(config.init)["average"], config.init)
    if config.shape is not None and not config.resume:
        _settle_norms(config, lesson)
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


def _settle_norms(config: TrainConfig, lesson: Lesson) -> None:
    """Of weights that come out of a model file the norms are settled on the crops to come."""
    loader = torch.utils.data.DataLoader(lesson.stream(0), batch_size=config.batch)
    settle(lesson.net, islice(loader, max(1, SETTLED_ON // config.batch)), lesson.losses)


def _progress(config: TrainConfig, state: RunState, world: int) -> float:
    """Share of the run that is done, 0..1.  A step is ``batch`` crops in each of the ``world`` processes."""
    if config.minutes is not None:
        return state.trained_s / (60 * config.minutes)
    return state.step * config.batch * world / (EPOCH_CROPS * (config.epochs or 1))


def _learning_rate(config: TrainConfig, done: float) -> float:
    """Linear warm-up over the first 3 %, then half a cosine down to a hundredth."""
    warm = min(1.0, done / 0.03 + 0.02)
    return config.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def _step(state: RunState, learner: nn.Module, batch: Batch, lesson: Lesson, rate: float) -> dict[str, float]:
    """One optimiser step; returns the losses by name."""
    device = next(state.net.parameters()).device
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    state.net.train()
    with torch.autocast(device.type, torch.bfloat16) if fast_bfloat16(device) else nullcontext():
        losses = lesson.losses(learner, [tensor.to(device, non_blocking=True) for tensor in batch])
    state.optimiser.zero_grad(set_to_none=True)
    torch.stack(list(losses.values())).sum().backward()
    nn.utils.clip_grad_norm_(state.net.parameters(), 10.0)
    state.optimiser.step()
    state.step += 1
    _follow(state)
    return {name: float(loss.detach()) for name, loss in losses.items()}


def _load_fitting(net: nn.Module, stored: dict[str, Tensor], path: Path) -> None:
    """Start from the weights of another run; those that belong to other classes are left as they are."""
    own = net.state_dict()
    fitting = {name: value for name, value in stored.items() if name in own and own[name].shape == value.shape}
    if len(fitting) < len(own) / 2:
        raise UsageError(
            f"{path} is of another kind of net: only {len(fitting)} of {len(own)} tensors fit",
            fix="start from a run of the same product with --init",
        )
    net.load_state_dict({**own, **fitting})


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


def _write(log: TextIO, kind: str, state: RunState, **values: float) -> None:
    if kind == "val" and not values:
        return  # nothing is held out
    row = {"kind": kind, "step": state.step, "trained_s": state.trained_s, **values}
    log.write(json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()}) + "\n")
    log.flush()
