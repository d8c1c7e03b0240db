"""The whole round on generated boards: station, operator, reviewer, engineer, retraining, gate, promotion, station again."""

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import cv2
import numpy as np
import pytest
from hmi_site import Browser, Seen, Site, open_site, until

pytest.importorskip("torch", reason='needs torch: pip install "lineside[train]"')

from datasets.manifest import Origin, load_dataset, make_dataset, write_dataset
from datasets.relabel.history import read_history
from datasets.sample import LabelledBox, Sample
from datasets.synth.boards import generate_pair
from datasets.synth.camera import CameraModel
from datasets.synth.defects import PCB_CLASSES
from inspection import station_link
from inspection.images import read_grey, write_png
from inspection.recipe_lock import lock_sha256, write_lock
from inspection.recipe_new import Plan, ViewPlan, make_recipe
from inspection.recipe_versions import history
from inspection.record_reader import RecordReader
from inspection.types import Record

CAMERA = CameraModel(shift_px=6, rotate_deg=0.5, scale=0.005)
STAIN = 0.32  # how much of the grey is turned round: the shipped model takes it for a defect
MISSED = (40, 250, 60, 270)  # where the engineer draws, pixels of the frame
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def lineside(*words: object, code: int = 0) -> str:
    """Run the command as a person would; gives what it printed."""
    command = [sys.executable, "-m", "inspection", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=ENVIRONMENT, check=False)
    assert code == done.returncode, done.stdout + done.stderr
    return done.stdout


class Boards:
    """Generated boards of one product, a quarter of the demo board each, with the truth about them."""

    def __init__(self, golden: Path) -> None:
        self.golden = golden
        self.image = read_grey(golden)

    def frame(self, seed: int, *, defects: int = 0, stained: bool = False) -> tuple[Any, tuple[LabelledBox, ...]]:
        """A frame, and the boxes of its defects; a stain is none."""
        pair = generate_pair(np.random.default_rng(seed), self.image, defects=defects, camera=CAMERA)
        frame = pair.frame
        if stained:
            mask = cv2.GaussianBlur(cv2.circle(np.zeros(frame.shape, np.float32), (150, 120), 6, 1.0, -1), (0, 0), 1.0)
            frame = np.clip(frame + STAIN * mask * (255.0 - 2.0 * frame), 0, 255).astype(np.uint8)
        return frame, tuple(LabelledBox(defect.defect_class, defect.box_px) for defect in pair.defects)


@pytest.fixture
def boards(tmp_path: Path, demo_recipe: Path) -> Boards:
    golden = tmp_path / "golden.png"
    write_png(golden, read_grey(demo_recipe / "golden.png")[160:480, 160:480])
    return Boards(golden)


@pytest.fixture
def recipe(tmp_path: Path, demo_recipe: Path, boards: Boards) -> Path:
    """The recipe in force: the demo recipe's model for these boards."""
    for name, seed, defects in (("good", 71, 0), ("bad", 72, 3)):
        write_png(tmp_path / f"{name}.png", boards.frame(seed, defects=defects)[0])
    view = ViewPlan("top", demo_recipe / "model.onnx", boards.golden)
    tests = (tmp_path / "good.png", tmp_path / "bad.png")
    recipe = tmp_path / "recipes" / "board"
    make_recipe(Plan(recipe, "board", (view,), selftest=tests))
    toml = recipe / "recipe.toml"
    text = toml.read_text(encoding="utf-8").replace('recipe_id = "board"', 'recipe_id = "board"\ndeadline_ms = 20000')
    # Speed is not asked here, and no band for a person: a part is good or not.
    toml.write_text(
        re.sub(r"(?m)^(ng_score = )(.*)\nreview_score.*", r"\g<1>\2\nreview_score = \2", text), encoding="utf-8"
    )
    write_lock(recipe)
    return recipe


@pytest.fixture
def holdout(tmp_path: Path, boards: Boards) -> Path:
    """Boards that nobody learns from."""
    samples = []
    for number in range(8):
        frame, labels = boards.frame(500 + number, defects=2 * (number % 2), stained=number == 4)
        write_png(tmp_path / f"held{number}.png", frame)
        samples.append(
            Sample(tmp_path / f"held{number}.png", boards.golden, labels, f"held{number}", "", f"held{number}")
        )
    made = make_dataset("held out", samples, classes=PCB_CLASSES, origin=Origin("synth", "made here"))
    write_dataset(tmp_path / "holdout", made)
    return tmp_path / "holdout"


def run_station(config: Path, serials: list[str], *, between_ms: int = 0) -> subprocess.Popen[bytes]:
    """A station that presents these parts to itself, then ends."""
    text = config.read_text(encoding="utf-8").partition("[controller]")[0]
    controller = f'[controller]\nkind = "simulated"\nserials = {json.dumps(serials)}\ninterval_ms = {between_ms}\n'
    config.write_text(text + controller, encoding="utf-8")
    command = [sys.executable, "-m", "inspection", "run", str(config)]
    return subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL)


def records(site: Site) -> dict[str, Record]:
    """The newest record of each serial."""
    reader = RecordReader(site.store_path)
    try:
        return {record.serial: record for _, record in reader.after(0, 100)}
    finally:
        reader.close()


def see_the_ng(page: Any) -> None:
    """The operator's screen, which was there before the station, shows an NG with its picture while that runs."""
    page.wait_for_selector(".verdict-ng")
    loaded = "() => [...document.images].some(i => i.src.includes('/picture/') && i.complete && i.naturalWidth > 0)"
    until(lambda: page.evaluate(loaded))
    page.context.close()


def review_all(site: Site, browser: Browser, parts: int) -> None:
    """The reviewer confirms what is right and calls the stains false, by one key a part."""
    page = browser.open(site, "/review", "rita", "reviewer")
    for number in range(parts):
        page.wait_for_selector("#part:not([hidden])")
        serial = str(page.text_content("#serial"))
        page.wait_for_selector("[data-choice=confirmed][aria-disabled=false]")
        page.wait_for_timeout(300)
        page.keyboard.press("2" if serial.startswith("STAIN") else "1")
        until(lambda done=number + 1: len(site.context.reviews.after(0, 100)) >= done)
    page.context.close()


def draw_missed_box(chromium: Any, dataset: Path, name: str) -> None:
    """The engineer opens the sample and draws a box that everybody had missed."""
    command = [sys.executable, "-m", "inspection", "relabel", str(dataset), "--port", "0", "--who", "emil"]
    served = subprocess.Popen(
        [*command, "--order", "name"], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    lines: Queue[str] = Queue()
    reader = Thread(target=lambda: [lines.put(line) for line in served.stdout or ()], daemon=True)
    reader.start()
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(60_000)
    try:
        assert served.stdout is not None
        address = re.search(r"http://\S+", lines.get(timeout=120))
        assert address is not None
        page = context.new_page()
        number = [sample.name for sample in load_dataset(dataset).samples].index(name)
        page.goto(f"{address[0]}#{number}")
        until(lambda: page.text_content("#name") == name and not page.query_selector("[data-opening]"))
        page.evaluate("sessionStorage.setItem('why', 'missed at the line')")
        page.keyboard.press("1")
        left, top, zoom = page.evaluate(
            "() => { const p = document.querySelector('#stage .picture'), r = p.getBoundingClientRect();"
            " return [r.left, r.top, r.width / p.width]; }"
        )
        x1, y1, x2, y2 = ((edge * zoom) for edge in MISSED)
        page.mouse.move(left + x1, top + y1)
        page.mouse.down()
        page.mouse.move(left + x2, top + y2, steps=3)
        page.mouse.up()
        page.keyboard.press("Enter")
        until(lambda: any(True for _ in read_history(dataset)))
        page.wait_for_selector('#saving[data-waiting="0"]')
    finally:
        context.close()
        served.terminate()
        served.wait(timeout=30)
        reader.join()
        if served.stdout is not None:
            served.stdout.close()


def test_from_a_false_call_to_the_right_verdict(
    tmp_path: Path,
    boards: Boards,
    recipe: Path,
    holdout: Path,
    seen: dict[str, Seen],
    browser: Browser,
    chromium: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stain that was called a defect is reviewed, taught and promoted: the same board is then OK, and all of it is on record."""
    kinds = {"GOOD": (0, False), "STAIN": (0, True), "BAD": (2, False)}
    parts = {f"{kind}-{number}": kinds[kind] for kind in kinds for number in range(1, 5)}
    with ExitStack() as stack:
        site = open_site(stack, tmp_path, recipe, seen, hmi="review_ok_share = 1.0")
        config = tmp_path / "station.toml"
        in_force = Path(site.config.recipe)
        for number, (serial, (defects, stained)) in enumerate(parts.items()):
            write_png(
                site.folder / "frames" / f"{serial}.png",
                boards.frame(100 + number, defects=defects, stained=stained)[0],
            )

        # the station runs; the operator sees an NG with its picture, also on a computer so slow that all is over by then
        monkeypatch.setattr(station_link, "STALE_S", 3600.0)
        screen = browser.open(site, "/", "olga", "operator")
        station = run_station(config, list(parts), between_ms=500)
        see_the_ng(screen)
        assert 0 == station.wait(timeout=180)
        first = records(site)
        assert set(parts) == set(first)
        assert {"NG"} == {
            first[serial].judgement.verdict.name for serial in parts if serial.startswith(("BAD", "STAIN"))
        }
        assert {"OK"} == {first[serial].judgement.verdict.name for serial in parts if serial.startswith("GOOD")}

        # the reviewer calls the stains false
        review_all(site, browser, len(parts))
        dispositions = {review.record_id: review.disposition for _, review in site.context.reviews.after(0, 100)}
        assert "false_call" == dispositions[first["STAIN-1"].record_id]

        # the engineer makes them a dataset, and draws what was missed
        lineside("data", "from-records", config, "-o", tmp_path / "line")
        line = load_dataset(tmp_path / "line")
        named = {sample.group: sample for sample in line.samples}
        assert () == named["STAIN-1"].labels
        draw_missed_box(chromium, tmp_path / "line", named["BAD-1"].name)
        drawn = {sample.group: sample for sample in load_dataset(tmp_path / "line").samples}["BAD-1"]
        assert tuple(map(float, MISSED)) in [label.box_px for label in drawn.labels]
        assert ["emil"] == [change.who for change in read_history(tmp_path / "line")]

        # retrain, gate, promote
        aside = ["STAIN-3", "STAIN-4", "GOOD-3", "GOOD-4", "BAD-3", "BAD-4"]
        lineside("data", "split", tmp_path / "line", "-o", tmp_path / "parts", "--groups-only", "--holdout", *aside)
        before = lock_sha256(in_force)
        lineside(
            "retrain", in_force, "--with", tmp_path / "parts", "--holdout", holdout, "--epochs", "0.02",
            "--station", config, "-o", tmp_path / "new",
        )  # fmt: skip
        comparison = json.loads((tmp_path / "new" / "recipe" / "comparison.json").read_text(encoding="utf-8"))
        assert all(gate["held"] for gate in comparison["gates"])
        lineside("recipe", "promote", tmp_path / "new" / "recipe", in_force, "--who", "emil", "--why", "stains")

        # the same board now gets the right verdict, and the records show every step
        assert 0 == run_station(config, ["STAIN-1", "BAD-2"]).wait(timeout=180)
        second = records(site)
        assert ("OK", "NG") == tuple(second[serial].judgement.verdict.name for serial in ("STAIN-1", "BAD-2"))
        assert (before, lock_sha256(in_force)) == tuple(one["STAIN-1"].recipe_sha256 for one in (first, second))
        promoted = history(in_force)[-1]
        assert ("promote", "emil", before) == (promoted.what, promoted.who, promoted.from_sha256)

        # and back, by one command
        lineside("recipe", "rollback", in_force, "--who", "emil", "--why", "to try it")
        assert before == lock_sha256(in_force)
        shutil.rmtree(tmp_path / "new")
