"""Nothing phones home: the whole loop runs where no outside address can be reached, and none is asked for."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Notes every address that the process wants, also where the one who asks swallows the failure.
PREAMBLE = """
import sys
LOCAL = ("127.", "::1", "localhost", "/", "0.0.0.0")
WATCHED = {"socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.sendmsg", "socket.gethostbyname"}
asked = []
def watch(event, args):
    if event in WATCHED:
        place = args[0] if event in ("socket.getaddrinfo", "socket.gethostbyname") else args[1]
        host = place[0] if isinstance(place, tuple) else place
        text = host.decode() if isinstance(host, bytes) else str(host)
        if text and host is not None and not text.startswith(LOCAL):
            asked.append(f"{event} {text}")
sys.addaudithook(watch)
"""
REPORT = """
print("asked for:", asked)
sys.exit(7 if asked else 0)
"""
LOOP = '''
import argparse, importlib, json, pathlib, shutil
import numpy as np
root, work = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
for layer in ("inspection", "datasets", "training", "tools"):
    for path in sorted((root / layer).rglob("*.py")):
        if path.name != "__main__.py":
            name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            importlib.import_module(name)

from inspection.cli import main
from inspection.config import load_station
from inspection.recipe import LOCK, seal
from inspection.station import Station
from training.config import TrainConfig
from training.run import run_training

assert main(["data", "synth", "-o", str(work / "boards"), "--boards", "3"]) == 0
assert main(["data", "check", str(work / "boards")]) == 0
model = run_training(TrainConfig(out=work / "run", minutes=0.003, crop_px=128, batch=2, workers=0))
assert main(["evaluate", str(model), str(work / "boards")]) == 0
assert main(["predict", str(model), "--data", str(work / "boards"), "-o", str(work / "out.json")]) == 0
assert len(json.loads((work / "out.json").read_text())) == 3

recipe = work / "recipe"
shutil.copytree(root / "deploy" / "recipes" / "demo-pcb", recipe, ignore=shutil.ignore_patterns(LOCK))
toml = recipe / "recipe.toml"
toml.write_text("deadline_ms = 60000\\n" + toml.read_text())  # however busy this computer is
seal(recipe)
(work / "station.toml").write_text(f"""
station_id = "offline"
recipe = {json.dumps(str(recipe))}
store = "records.sqlite"
[evidence]
folder = "evidence"
min_free_mb = 0
[cameras.top]
kind = "simulated"
image = {json.dumps(str(recipe / "golden.png"))}
[controller]
kind = "simulated"
parts = 2
""")
station = Station(load_station(work / "station.toml"))
station.open()
station.run(lambda: station.controller.finished)
verdicts = [record.judgement.verdict.name for record in station.controller.answers]
station.close()
assert verdicts == ["OK", "OK"], verdicts
'''

PARTS_LOOP = """
import json, pathlib, shutil
root, work = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
from inspection.cli import main

def lineside(*words, allowed=(0,)):
    code = main([str(word) for word in words])
    assert code in allowed, (words, code)

lineside("data", "synth", "--product", "casting", "--parts", 12, "--defective", 0.5, "-o", work / "boxes")
lineside("data", "export", "coco", work / "boxes", "-o", work / "coco")
lineside("data", "import", "auto", work / "coco", "-o", work / "again")
rows = json.loads((work / "boxes" / "dataset.json").read_text())["samples"]
for row in rows:
    side = work / "classes" / ("scratch" if row["labels"] else "good")
    side.mkdir(parents=True, exist_ok=True)
    shutil.copy(work / "boxes" / row["image"], side)
lineside("data", "import", "folders", work / "classes", "-o", work / "parts")
held = [pathlib.Path(row["image"]).stem for row in rows[:4]]
tiny = ("--epochs", 0.002, "--batch", 4)
lineside("train", "detect", "--data", work / "boxes", "-o", work / "detect", *tiny)
lineside("train", "anomaly", "--data", work / "parts", "-o", work / "anomaly", *tiny)
lineside("train", "classify", "--data", work / "parts", "-o", work / "classify", "--hold-out", *held, *tiny)
model = work / "classify" / "model.onnx"
lineside("evaluate", model, work / "parts", "--html", work / "report.html", "--allow-leak")
lineside("calibrate", model, work / "parts", "--split", "all", "--groups", *held, "--escape-rate", 0.5,
         "-o", work / "limits.onnx", allowed=(0, 1))
lineside("predict", model, "--data", work / "parts", "-o", work / "out.json")
assert len(json.loads((work / "out.json").read_text())) == 12
"""

YOLO_LOOP = """
import json, os, pathlib, shutil
root, work = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
from inspection.cli import main
from inspection.model import load_model

def lineside(*words):
    code = main([str(word) for word in words])
    assert code == 0, (words, code)

lineside("data", "synth", "--product", "casting", "--parts", 8, "--defective", 0.5, "-o", work / "boxes")
rows = json.loads((work / "boxes" / "dataset.json").read_text())["samples"]
for row in rows:
    side = work / "classes" / ("scratch" if row["labels"] else "good")
    side.mkdir(parents=True, exist_ok=True)
    shutil.copy(work / "boxes" / row["image"], side)
lineside("data", "import", "folders", work / "classes", "-o", work / "parts")
held = [pathlib.Path(row["image"]).stem for row in rows[:2]]
how = ("--trainer", "ultralytics", "--epochs", 1, "--batch", 2)
lineside("train", "detect", "--data", work / "boxes", "-o", work / "detect", *how)
lineside("train", "classify", "--data", work / "parts", "-o", work / "classify", "--hold-out", *held, "--input-px", 64, *how)
for task in ("detect", "classify"):
    names = {path.name for path in (work / task).iterdir()}
    assert {"model.onnx", "checkpoint.pt", "metrics.jsonl", "card.json", "curves.png"} <= names, names
    card = load_model(work / task / "model.onnx").card
    assert card.trainer_licence == "AGPL-3.0 (Ultralytics)"
    assert " 0 verdict flips" in card.parity, card.parity
    source = work / ("boxes" if task == "detect" else "parts")
    lineside("export", work / task / "checkpoint.pt", "--trainer", "ultralytics", "--task", task, "--data", source,
             "-o", work / f"{task}.onnx")
    again = load_model(work / f"{task}.onnx").card
    assert again.classes == card.classes
    assert again.trained_on.source.startswith("unknown")
settings = json.loads((work / "detect" / "ultralytics-settings" / "Ultralytics" / "settings.json").read_text())
assert settings["sync"] is False
assert not (pathlib.Path(os.environ["HOME"]) / ".config" / "Ultralytics").exists()
"""


def isolated() -> list[str]:
    """The command that takes the network away, where this user may."""
    unshare = shutil.which("unshare")
    if unshare and subprocess.run([unshare, "-n", "true"], capture_output=True, check=False).returncode == 0:
        return [unshare, "-n"]
    return []


def run(root: Path, body: str, *arguments: Path, **more: str) -> "subprocess.CompletedProcess[str]":
    program = PREAMBLE + body + REPORT
    command = [*isolated(), sys.executable, "-c", program, *map(str, arguments)]
    threads = {"OMP_NUM_THREADS": "1"}  # more would only wait for each other on crops this small
    environment = {**os.environ, **threads, **more}
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, env=environment)


def test_whole_loop_needs_no_network(root: Path, tmp_path: Path) -> None:
    """Import, data, training, export, evaluation, prediction and a station ask for no address but this machine."""
    pytest.importorskip("torch", reason='needs torch: pip install "lineside[train]"')
    answer = run(root, LOOP, root, tmp_path)
    assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr[-4000:]
    assert "asked for: []" in answer.stdout


def test_parts_without_a_golden_need_no_network(root: Path, tmp_path: Path) -> None:
    """Generating, exporting, importing, training, calibrating and judging parts ask for no address either."""
    pytest.importorskip("torch", reason='needs torch: pip install "lineside[train]"')
    answer = run(root, PARTS_LOOP, root, tmp_path)
    assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr[-4000:]
    assert "asked for: []" in answer.stdout


def test_yolo_needs_no_network(root: Path, tmp_path: Path) -> None:
    """The trainer that would send figures and fetch weights, fonts and versions asks for no address, and its run is
    like any other; nothing is written to the user's home."""
    pytest.importorskip("ultralytics", reason='needs ultralytics: pip install "lineside[train,ultralytics]"')
    (tmp_path / "home").mkdir()
    answer = run(root, YOLO_LOOP, root, tmp_path, HOME=str(tmp_path / "home"))
    assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr[-4000:]
    assert "asked for: []" in answer.stdout


ATTEMPTS = {
    "a connection": "socket.create_connection(('192.0.2.1', 80), timeout=0.1)",
    "a name": "socket.getaddrinfo('example.invalid', 80)",
    "a datagram": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))",
    "a page": "__import__('urllib.request').request.urlopen('http://192.0.2.1/', timeout=0.1)",
}


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS.keys())
def test_attempt_that_is_swallowed_is_noticed(root: Path, attempt: str) -> None:
    """The test above would see a library that asks for an address and hides that it failed."""
    answer = run(root, f"import socket\ntry: {attempt}\nexcept OSError: pass\n")
    assert answer.returncode == 7
    assert "192.0.2.1" in answer.stdout or "example.invalid" in answer.stdout


def test_this_machine_may_be_asked(root: Path) -> None:
    """Loopback is no network."""
    answer = run(root, "import socket\ntry: socket.create_connection(('127.0.0.1', 9), 0.1)\nexcept OSError: pass\n")
    assert answer.returncode == 0
