"""Pictures of every page, as a panel (1280x800) and a telephone (390x844) show it: `python -m tools.screenshots`.

A station on the demo recipe judges generated boards, `lineside hmi` and `lineside relabel` serve their pages, and the
system's Chromium looks at them; the report is that of a month made by `tools.month`.  Needs
`pip install ".[hmi,train,report]" playwright`.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from datasets.manifest import Origin, make_dataset, write_dataset
from datasets.sample import LabelledBox, Sample
from datasets.synth.boards import generate_pair
from datasets.synth.camera import CameraModel
from datasets.synth.defects import PCB_CLASSES
from inspection.images import read_grey, write_png

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "deploy" / "recipes" / "demo-pcb"
CHROMIUM = "/usr/bin/chromium"
SIZES = {"panel": (1280, 800), "phone": (390, 844)}
PASSWORD = "only for the pictures"
PERSON = "Erin"
CAMERA = CameraModel(shift_px=6, rotate_deg=0.5, scale=0.005)
QUALITY = 55  # of the JPEG files: small, and text stays readable
PARTS = 40
LIMIT_MS = 60_000
MONTH = ("--parts", "60000", "--ng", "1800", "--reviews", "900", "--pictures", "60")
QUIET_UNTIL = "2026-10-12"  # nothing is planted in the generated month before


def boards(folder: Path) -> list[Sample]:
    """Generated frames of the demo board by serial, one in four with defects."""
    golden, samples = read_grey(RECIPE / "golden.png"), []
    for number in range(PARTS):
        pair = generate_pair(np.random.default_rng(number), golden, defects=2 * (number % 4 == 3), camera=CAMERA)
        file = folder / f"SN-2611-{number:04d}.png"
        write_png(file, pair.frame)
        labels = tuple(LabelledBox(defect.defect_class, defect.box_px) for defect in pair.defects)
        samples.append(Sample(file, RECIPE / "golden.png", labels, file.stem, "", file.stem))
    return samples


def station_toml(folder: Path, serials: list[str]) -> Path:
    """The config of a station whose camera shows these boards."""
    path = folder / "station.toml"
    path.write_text(
        f'station_id = "line-7"\nrecipe = {json.dumps(str(folder / "recipes" / "demo-pcb"))}\nrecipes = "recipes"\n'
        'store = "records.sqlite"\n[evidence]\nfolder = "evidence"\nkeep = "all"\n[hmi]\nreview_ok_share = 0.1\n'
        '[cameras.top]\nkind = "folder"\nfolder = "frames"\n[controller]\nkind = "simulated"\ninterval_ms = 700\n'
        f'lot = "LOT-0815"\nserials = {json.dumps(serials)}\n',
        encoding="utf-8",
    )
    return path


@contextmanager
def lineside(*words: object) -> Iterator[subprocess.Popen[str]]:
    """The command as a process, ended with the block."""
    command = [sys.executable, "-m", "inspection", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)
        if process.stdout is not None:
            process.stdout.close()


def address(process: subprocess.Popen[str]) -> str:
    """The address that a server prints once it answers."""
    for line in process.stdout or ():
        if found := re.search(r"https?://\S+", line):
            return found[0]
    raise SystemExit("a server ended before it printed its address")


class Camera:
    """Takes each page at both sizes."""

    def __init__(self, browser: Any, out: Path) -> None:
        self.browser = browser
        self.out = out

    def take(self, page: Any, name: str, anchor: str = "") -> None:
        """Both pictures of a page that is open, from the element ``anchor`` on."""
        for size, (width, height) in SIZES.items():
            page.set_viewport_size({"width": width, "height": height})
            page.wait_for_timeout(1200)
            if anchor:
                page.evaluate("id => document.getElementById(id).scrollIntoView()", anchor)
            page.screenshot(path=self.out / f"{name}_{size}.jpg", type="jpeg", quality=QUALITY)
            print(f"{name}_{size}.jpg", flush=True)


def hmi_pages(camera: Camera, top: str) -> None:
    """Every page of `lineside hmi`."""
    context = camera.browser.new_context(base_url=top)
    context.set_default_timeout(LIMIT_MS)
    page = context.new_page()
    page.goto("/login")
    camera.take(page, "login")
    page.fill("#name", PERSON)
    page.fill("#password", PASSWORD)
    page.click("main button")
    page.wait_for_selector(".verdict-ng")
    camera.take(page, "operator")
    chinese = context.new_page()
    chinese.goto("/?lang=zh")
    chinese.wait_for_selector(".band")
    camera.take(chinese, "operator_zh")
    chinese.goto("/?lang=en")
    chinese.close()
    links = page.eval_on_selector_all("a[href^='/part/']", "all => all.map(one => one.getAttribute('href'))")
    page.goto(links[0])
    camera.take(page, "part")
    page.goto("/review")
    page.wait_for_selector("#part:not([hidden])")
    camera.take(page, "review")
    for path, name in (
        ("/recipe", "recipes"),
        ("/trace?q=LOT-0815", "trace"),
        ("/accounts", "accounts"),
        ("/audit", "audit"),
    ):
        page.goto(path)
        camera.take(page, name)
    context.close()


def relabel_page(camera: Camera, top: str) -> None:
    """The editor, at a board with defects."""
    context = camera.browser.new_context()
    context.set_default_timeout(LIMIT_MS)
    page = context.new_page()
    page.goto(f"{top}#3")
    page.wait_for_selector("#name:not(:empty)")
    camera.take(page, "relabel")
    context.close()


def report_page(camera: Camera, folder: Path) -> None:
    """The report of a generated month: its head, and its control charts."""
    month = [sys.executable, "-m", "tools.month", str(folder), *MONTH]
    report = [sys.executable, "-m", "inspection", "report", str(folder / "station.toml"), "-o", str(folder / "report")]
    for command in (month, [*report, "--baseline-until", QUIET_UNTIL, "--language", "en"]):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    context = camera.browser.new_context()
    page = context.new_page()
    page.goto((folder / "report" / "report.html").as_uri())
    camera.take(page, "report")
    camera.take(page, "report_charts", "control")
    context.close()


def main() -> None:
    """Make everything in a folder that goes away, and keep the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "deploy" / "pictures")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    from shutil import copytree

    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        copytree(RECIPE, folder / "recipes" / "demo-pcb")
        (folder / "frames").mkdir()
        samples = boards(folder / "frames")
        config = station_toml(folder, [sample.name for sample in samples])
        made = make_dataset("demo boards", samples, classes=PCB_CLASSES, origin=Origin("synth", "made here"))
        write_dataset(folder / "parts", made)
        add = [sys.executable, "-m", "inspection", "account", "add", str(config), PERSON, "--role", "engineer", "--own"]
        subprocess.run(add, input=f"{PASSWORD}\n{PASSWORD}\n", text=True, check=True, stdout=subprocess.DEVNULL)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        camera = Camera(browser, out)
        with lineside("relabel", folder / "parts", "--port", 0, "--order", "name", "--who", PERSON) as server:
            relabel_page(camera, address(server))
        report_page(camera, folder / "month")
        with lineside("hmi", config, "--port", 0) as pages:
            top = address(pages)
            with lineside("run", config):
                time.sleep(8)
                hmi_pages(camera, top.rstrip("/"))
        browser.close()


if __name__ == "__main__":
    main()
