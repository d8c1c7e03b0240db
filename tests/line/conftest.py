import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from line_bench import PATIENT, Bench

from inspection.log import OWN
from inspection.recipe import LOCK, seal


@pytest.fixture(scope="session")
def demo_recipe(demo_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe of the product, sealed anew with time enough: how fast this machine is, is not what is tested."""
    folder = tmp_path_factory.mktemp("patient") / demo_recipe.name
    shutil.copytree(demo_recipe, folder, ignore=shutil.ignore_patterns(LOCK))
    toml = folder / "recipe.toml"
    toml.write_text(PATIENT + toml.read_text(encoding="utf-8"), encoding="utf-8")
    seal(folder)
    return folder


@pytest.fixture
def bench(tmp_path: Path, demo_recipe: Path) -> Iterator[Bench]:
    """An empty bench for one station."""
    made = Bench(tmp_path, demo_recipe)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """The log as it was: the command line sends it to a stderr that ends with its test."""
    log, root = logging.getLogger(OWN), logging.getLogger()
    before = log.handlers[:], root.handlers[:], log.level, log.propagate
    yield
    log.handlers[:], root.handlers[:], level, log.propagate = before
    log.setLevel(level)
