"""Training in several processes that torchrun starts: one run folder, and nobody waits for ever."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason='needs torch: pip install "lineside[train]"')

from inspection.cli import main  # noqa: E402
from inspection.model import load_model  # noqa: E402

PROCESSES = 2


def torchrun(root: Path, *words: str | Path) -> "subprocess.CompletedProcess[str]":
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", f"{PROCESSES}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*start, "-m", "inspection", *map(str, words)],
        cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip


@pytest.fixture(scope="module")
def castings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six generated castings with boxes."""
    folder = tmp_path_factory.mktemp("castings") / "dataset"
    assert main(["data", "synth", "--product", "casting", "--parts", "6", "--defective", "0.5", "-o", str(folder)]) == 0
    return folder


def test_two_processes_make_one_run(root: Path, castings: Path, tmp_path: Path) -> None:
    """Both train, one writes; the crops of all of them count as the epochs that were asked for."""
    answer = torchrun(root, "train", "detect", "--data", castings, "-o", tmp_path / "run", "--epochs", "0.003", "--batch", "2")  # fmt: skip
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert answer.stdout.splitlines()[-1:] == [str(tmp_path / "run" / "model.onnx")]
    assert answer.stdout.count("model.onnx") == 1
    assert answer.stderr.count("pictures with") == 1
    card = load_model(tmp_path / "run" / "model.onnx").card
    assert "6 frames, 0 verdict flips" in card.parity
    import torch

    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] == 3  # of 2 x 2 crops: 12


def test_mistake_ends_all_processes(root: Path, castings: Path, tmp_path: Path) -> None:
    """A run that cannot start says why and leaves no process waiting."""
    answer = torchrun(root, "train", "detect", "--data", castings, "-o", tmp_path / "run", "--epochs", "1", "--hold-out", "x")  # fmt: skip
    assert answer.returncode != 0
    assert "no group is called x" in answer.stderr
    assert not (tmp_path / "run" / "model.onnx").exists()


def test_other_trainer_refuses_torchrun(root: Path, castings: Path, tmp_path: Path) -> None:
    """Ultralytics starts its own processes; under torchrun it says so."""
    pytest.importorskip("ultralytics", reason='needs ultralytics: pip install "lineside[train,ultralytics]"')
    answer = torchrun(root, "train", "detect", "--trainer", "ultralytics", "--data", castings, "-o", tmp_path / "run")
    assert answer.returncode != 0
    assert "without torchrun" in answer.stderr


def test_run_folder_holds_what_every_process_measured_once(root: Path, castings: Path, tmp_path: Path) -> None:
    """Held-out samples are looked at by the first process alone, while the other waits."""
    words = ("train", "detect", "--data", castings, "-o", tmp_path / "run", "--epochs", "0.003", "--batch", "2")
    group = json.loads((castings / "dataset.json").read_text())["samples"][0]["group"]
    answer = torchrun(root, *words, "--hold-out", group)
    assert answer.returncode == 0, answer.stderr[-3000:]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows if row["kind"] == "val"]
    assert steps == sorted(steps)
    assert len(steps) == 4  # at 0.3, 0.6 and 0.8 of the run, and at its end
