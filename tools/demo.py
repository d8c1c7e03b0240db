"""The main job on an embedded default: `python3 tools/demo.py`.

Sets up .venv and runs the whole path for two generated products, a board with a golden template and a casting without
one, with real processes: a station (`lineside run`) and a PLC (`tools/line_simulator.py`) that speak Modbus TCP.  Some
parts are defective, and one picture file of each product is torn.  Ends with the table of verdicts, the record stores,
and a contact sheet of each product.  Needs no camera, GPU, torch or data.
"""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.bootstrap import inside_venv, run_in_venv  # noqa: E402

OUT = ROOT / "demo-out"
DEFECTS = (0, 2, 0, 1, 3, 0, 1, 4, 0, 2, 0, 1)  # defects put into each part
TORN = 10  # the part whose picture file is cut short
LOT = "DEMO"  # the line simulator counts its serials DEMO-000001, DEMO-000002 and so on
CASTING = 3  # the seed of the demo's casting


@dataclass(frozen=True, slots=True)
class Product:
    """One product of the demo: its recipe's name, how a part with so many defects is drawn, and what a good one shows."""

    recipe: str
    draw: Callable[[int, int], tuple[Any, int]]
    good: Callable[[], Any]

    @property
    def folder(self) -> Path:
        """Where its pictures, records and sheet go."""
        return OUT / self.recipe


def _draw_board(number: int, defects: int) -> tuple[Any, int]:
    import numpy as np

    from datasets.synth.boards import generate_pair
    from datasets.synth.camera import CameraModel

    camera = CameraModel(shift_px=12, rotate_deg=1.0, scale=0.01, blur_px=1.0, edge_px=0.5, noise=8.0)
    pair = generate_pair(np.random.default_rng(1000 + number), _golden_board(), defects=defects, camera=camera)
    return pair.frame, len(pair.defects)


def _golden_board() -> Any:
    from inspection.images import read_grey

    return read_grey(ROOT / "deploy" / "recipes" / "demo-pcb" / "golden.png")


def draw_casting(number: int, defects: int) -> tuple[Any, int]:
    """A picture (H, W) uint8 of casting ``number`` with up to so many defects, and how many found room."""
    import numpy as np

    from datasets.synth.casting_defects import CastingDefectStyle
    from datasets.synth.casting_set import draw_product
    from datasets.synth.castings import generate_casting

    style = CastingDefectStyle(size=1.5, contrast=(0.5, 1.0))
    rng = np.random.default_rng([CASTING, 5028 + number])
    image, made = generate_casting(rng, draw_product(CASTING), defects=defects, style=style)
    return image, len(made)


PRODUCTS = (
    Product("demo-pcb", _draw_board, _golden_board),
    Product("demo-casting", draw_casting, lambda: draw_casting(900, 0)[0]),
)


def demo() -> int:
    began = time.monotonic()
    shutil.rmtree(OUT, ignore_errors=True)
    failures = [text for product in PRODUCTS if (text := run_product(product))]
    print(f"\ndone in {time.monotonic() - began:.0f} s")
    for text in failures:
        print(text, file=sys.stderr)
    return 1 if failures else 0


def run_product(product: Product) -> str:
    """Generate, inspect and report one product; returns what went wrong, or nothing."""
    print(f"\n{product.recipe}\n1/4  generating parts", flush=True)
    truth = _generate(product)
    port = _free_port()
    config = _write_config(product, port)
    print(f"2/4  starting the station on Modbus TCP port {port}", flush=True)
    with (product.folder / "station.log").open("w") as log:
        station = subprocess.Popen([sys.executable, "-m", "inspection", "run", str(config)], stderr=log, cwd=ROOT)
        try:
            print("3/4  the line simulator sends the parts", flush=True)
            line = _run_line(product, port)
        finally:
            station.terminate()
            station.wait(timeout=30)
    print("4/4  reading the records", flush=True)
    wrong = _report(product, truth)
    print(f"station log     {product.folder / 'station.log'}")
    if not line.returncode and not wrong:
        return ""
    told = f"{product.recipe}: the line simulator ended with {line.returncode}, {wrong} verdicts differ from the truth"
    return f"{told}\n{line.stdout}{line.stderr}"


def _generate(product: Product) -> list[int]:
    """Twelve frames of the product; returns how many defects can be seen on each (-1: the file is torn)."""
    from inspection.images import write_png

    folder = product.folder / "frames"
    folder.mkdir(parents=True)
    truth = []
    for number, defects in enumerate(DEFECTS):
        image, seen = product.draw(number, defects)
        for again in range(1, 20):  # a defect that the camera cannot see would be neither good nor bad
            if seen == defects:
                break
            image, seen = product.draw(number + 100 * again, defects)
        path = folder / f"{LOT}-{number + 1:06d}.png"
        write_png(path, image)
        if number == TORN:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        truth.append(-1 if number == TORN else seen)
    return truth


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _write_config(product: Product, port: int) -> Path:
    path = product.folder / "station.toml"
    path.write_text(
        f"""station_id = "demo-1"
recipe = {json.dumps(str(ROOT / "deploy" / "recipes" / product.recipe))}
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


def _run_line(product: Product, port: int) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tools.line_simulator", "--port", str(port), "--parts", str(len(DEFECTS))]
    command += ["--lot", LOT, "--recipe-id", product.recipe, "--log", str(product.folder / "line.jsonl")]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)


def _report(product: Product, truth: list[int]) -> int:
    """Print the table, draw the sheet; returns how many verdicts contradict the truth."""
    from inspection.contact_sheet import Part, draw_sheet
    from inspection.errors import InspectionError
    from inspection.images import read_grey, write_png
    from inspection.store import Store

    store = Store(product.folder / "records.sqlite")
    records = sorted(store.records(), key=lambda record: record.trigger.serial)
    store.close()
    good, parts, wrong = product.good(), [], abs(len(truth) - len(records))
    print(f"\n{'serial':12s}{'truth':>12s}  {'verdict':8s}{'ms':>6s}  reason")
    for record, defects in zip(records, truth, strict=False):
        verdict = record.judgement.verdict.name
        wanted = "ERROR" if defects < 0 else "OK" if defects == 0 else "NG"
        wrong += verdict not in (wanted, "REVIEW")  # a person would look at those
        told = "torn file" if defects < 0 else f"{defects} defects" if defects else "good"
        reason = "; ".join(r.text for r in record.judgement.reasons).replace(str(product.folder) + "/", "")
        total = dict(record.stage_ms).get("total", 0.0)
        print(f"{record.trigger.serial:12s}{told:>12s}  {verdict:8s}{total:6.0f}  {reason[:100]}")
        try:
            frame = read_grey(product.folder / "frames" / f"{record.trigger.serial}.png")
        except InspectionError:
            frame = None
        parts.append(Part(record, frame, good))
    write_png(product.folder / "contact_sheet.png", draw_sheet(parts))
    print(f"\nrecord store    {product.folder / 'records.sqlite'} ({len(records)} records)")
    print(f"contact sheet   {product.folder / 'contact_sheet.png'}")
    return wrong


if __name__ == "__main__":
    if inside_venv() or "--here" in sys.argv:
        sys.exit(demo())
    sys.exit(run_in_venv(Path(__file__), [["-e", ".[modbus]"]], sys.argv[1:]))
