"""The demo, as a newcomer runs it."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from line_bench import ROOT

from inspection.images import read_image
from inspection.store import Store
from inspection.types import Record, Verdict

PARTS = 12
PRODUCTS = ("demo-pcb", "demo-casting")
TORN = "DEMO-000011"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, "subprocess.CompletedProcess[str]"]]:
    """The output folder and the outcome of a run in a copy of the project, so that no other run is disturbed."""
    copy = tmp_path_factory.mktemp("demo") / "project"
    for name in ("inspection", "datasets", "tools", "deploy"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, str(copy / "tools" / "demo.py"), "--here"]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=900, check=False)
    yield copy / "demo-out", done
    shutil.rmtree(copy)


def records(out: Path) -> dict[str, Record]:
    store = Store(out / "records.sqlite")
    found = {record.trigger.serial: record for record in store.records()}
    store.close()
    return found


def test_the_demo_ends_well_or_names_differing_verdicts(
    demo: tuple[Path, "subprocess.CompletedProcess[str]"],
) -> None:
    """The line passes all its checks; at most the model's opinion of a board may differ from the truth."""
    _, done = demo
    assert "Traceback" not in done.stdout + done.stderr
    if done.returncode:
        assert re.search(r"the line simulator ended with 0, \d+ verdicts differ", done.stderr), done.stderr
        assert not re.search(r"the line simulator ended with [1-9]", done.stderr), done.stderr


def test_the_demo_prints_a_row_for_each_part(demo: tuple[Path, "subprocess.CompletedProcess[str]"]) -> None:
    """The table names every part with its truth and verdict."""
    _, done = demo
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("DEMO-")]
    serials = [f"DEMO-{number:06d}" for number in range(1, PARTS + 1)]
    assert serials * len(PRODUCTS) == [row[0] for row in rows]


@pytest.mark.parametrize("product", PRODUCTS)
def test_the_demo_leaves_a_record_for_each_part(
    demo: tuple[Path, "subprocess.CompletedProcess[str]"], product: str
) -> None:
    """Twelve parts, twelve records; the torn file is ERROR, and none counts as production."""
    found = records(demo[0] / product)
    assert len(found) == PARTS
    assert found[TORN].judgement.verdict == Verdict.ERROR
    assert found[TORN].judgement.reasons[0].rule_id == "camera.corrupt"
    assert all(record.simulated for record in found.values())


@pytest.mark.parametrize("product", PRODUCTS)
def test_the_demo_draws_a_contact_sheet(demo: tuple[Path, "subprocess.CompletedProcess[str]"], product: str) -> None:
    """The sheet is a whole picture."""
    assert read_image(demo[0] / product / "contact_sheet.png").size > 0
