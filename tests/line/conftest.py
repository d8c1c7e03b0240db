import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from line_bench import Bench

from inspection.log import OWN


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
