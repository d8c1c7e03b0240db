"""The main job on an embedded default: `python3 tools/demo.py`.

Sets up .venv, generates twelve boards of the demo product (some with defects, one with a torn file), and runs the
whole path with real processes: a station (`lineside run`) and a PLC (`tools/line_simulator.py`) that speak Modbus TCP.
Ends with the table of verdicts, the record store, and a contact sheet.  Needs no camera, GPU, torch or data.
"""

import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.bootstrap import inside_venv, run_in_venv  # noqa: E402

OUT = ROOT / "demo-out"
RECIPE = ROOT / "deploy" / "recipes" / "demo-pcb"
DEFECTS = (0, 2, 0, 1, 3, 0, 1, 4, 0, 2, 0, 1)  # defects put into each board
TORN = 10  # the part whose picture file is cut short
LOT = "DEMO"  # the line simulator counts its serials DEMO-000001, DEMO-000002 and so on


def demo() -> int:
    began = time.monotonic()
    print("1/4  generating boards", flush=True)
    shutil.rmtree(OUT, ignore_errors=True)
    truth = _generate(OUT / "frames")
    port = _free_port()
    config = _write_config(port)
    print(f"2/4  starting the station on Modbus TCP port {port}", flush=True)
    with (OUT / "station.log").open("w") as log:
        station = subprocess.Popen([sys.executable, "-m", "inspection", "run", str(config)], stderr=log, cwd=ROOT)
        try:
            print("3/4  the line simulator sends the parts", flush=True)
            line = _run_line(port)
        finally:
            station.terminate()
            station.wait(timeout=30)
    print("4/4  reading the records", flush=True)
    wrong = _report(truth)
    print(f"station log     {OUT / 'station.log'}")
    print(f"done in {time.monotonic() - began:.0f} s")
    if line.returncode or wrong:
        print(
            f"the line simulator ended with {line.returncode}, {wrong} verdicts differ from the truth", file=sys.stderr
        )
        print(line.stdout + line.stderr, file=sys.stderr)
        return 1
    return 0


def _generate(folder: Path) -> list[int]:
    """Twelve frames of the demo product; returns how many defects can be seen on each (-1: the file is torn)."""
    import numpy as np

    from datasets.synth.boards import generate_pair
    from datasets.synth.camera import CameraModel
    from inspection.images import read_grey, write_png

    folder.mkdir(parents=True)
    golden = read_grey(RECIPE / "golden.png")
    camera = CameraModel(shift_px=12, rotate_deg=1.0, scale=0.01, blur_px=1.0, edge_px=0.5, noise=8.0)
    truth = []
    for number, defects in enumerate(DEFECTS):
        rng = np.random.default_rng(1000 + number)
        pair = generate_pair(rng, golden, defects=defects, camera=camera)
        while len(pair.defects) != defects:  # one that the camera cannot see would be neither good nor bad
            pair = generate_pair(rng, golden, defects=defects, camera=camera)
        path = folder / f"{LOT}-{number + 1:06d}.png"
        write_png(path, pair.frame)
        if number == TORN:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        truth.append(-1 if number == TORN else len(pair.defects))
    return truth


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _write_config(port: int) -> Path:
    path = OUT / "station.toml"
    path.write_text(
        f"""station_id = "demo-1"
recipe = {json.dumps(str(RECIPE))}
store = "records.sqlite"

[evidence]
folder = "evidence"
keep = "all"
min_free_mb = 0

[cameras.top]
kind = "folder"
folder = "frames"

[controller]
kind = "modbus_tcp"
port = {port}
""",
        encoding="utf-8",
    )
    return path


def _run_line(port: int) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tools.line_simulator", "--port", str(port), "--parts", str(len(DEFECTS))]
    command += ["--lot", LOT, "--recipe-id", "demo-pcb", "--log", str(OUT / "line.jsonl")]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)


def _report(truth: list[int]) -> int:
    """Print the table, draw the sheet; returns how many verdicts contradict the truth."""
    from inspection.contact_sheet import Part, draw_sheet
    from inspection.errors import InspectionError
    from inspection.images import read_grey, write_png
    from inspection.store import Store

    store = Store(OUT / "records.sqlite")
    records = sorted(store.records(), key=lambda record: record.trigger.serial)
    store.close()
    golden, parts, wrong = read_grey(RECIPE / "golden.png"), [], abs(len(truth) - len(records))
    print(f"\n{'serial':12s}{'truth':>12s}  {'verdict':8s}{'ms':>6s}  reason")
    for record, defects in zip(records, truth, strict=False):
        verdict = record.judgement.verdict.name
        wanted = "ERROR" if defects < 0 else "OK" if defects == 0 else "NG"
        wrong += verdict not in (wanted, "REVIEW")  # a person would look at those
        told = "torn file" if defects < 0 else f"{defects} defects" if defects else "good"
        reason = "; ".join(r.text for r in record.judgement.reasons).replace(str(OUT) + "/", "")
        total = dict(record.stage_ms).get("total", 0.0)
        print(f"{record.trigger.serial:12s}{told:>12s}  {verdict:8s}{total:6.0f}  {reason[:100]}")
        try:
            frame = read_grey(OUT / "frames" / f"{record.trigger.serial}.png")
        except InspectionError:
            frame = None
        parts.append(Part(record, frame, golden))
    write_png(OUT / "contact_sheet.png", draw_sheet(parts))
    print(f"\nrecord store    {OUT / 'records.sqlite'} ({len(records)} records)")
    print(f"contact sheet   {OUT / 'contact_sheet.png'}")
    return wrong


if __name__ == "__main__":
    if inside_venv() or "--here" in sys.argv:
        sys.exit(demo())
    sys.exit(run_in_venv(Path(__file__), [["-e", ".[modbus]"]], sys.argv[1:]))
