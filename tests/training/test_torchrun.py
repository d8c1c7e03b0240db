"""Training in several processes that torchrun starts: one run folder, and nobody waits for ever."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason='needs torch: pip install "lineside[train]"')

from inspection.cli import main
from inspection.model import load_model

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
    """Both train, one looks at the held-out samples and writes; the crops of both count as the epochs asked for."""
    group = json.loads((castings / "dataset.json").read_text())["samples"][0]["group"]
    run = tmp_path / "run"
    words = ("train", "detect", "--data", castings, "-o", run, "--epochs", "0.003", "--batch", "2")
    answer = torchrun(root, *words, "--hold-out", group)
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert answer.stdout == f"{run / 'model.onnx'}\n"
    assert answer.stderr.count("pictures with") == 1
    assert "1 frames, 0 verdict flips" in load_model(run / "model.onnx").card.parity
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [1, 2, 3, 3] == [row["step"] for row in rows if row["kind"] == "val"]  # 12 crops: 3 steps of 2 x 2
