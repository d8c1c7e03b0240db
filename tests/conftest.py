"""What all tests share: the demo recipe, seeds, and refusing skips where everything must be installed."""

import os
from collections.abc import Generator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray

from inspection.images import read_grey
from inspection.model import LoadedModel, load_model

Image = NDArray[np.uint8]
# Seeds are fixed, and no test measures time: how long an example takes is a matter of the machine's load.
settings.register_profile("lineside", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lineside")
cv2.setNumThreads(1)


# Reasons for a skip that no installation removes.
ALLOWED_SKIPS = ("root may write anywhere", "needs the right to mount", "needs root", "knows no immutable files")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With LINESIDE_REFUSE_SKIPS=1 (CI) a test that is skipped for want of its counterpart fails.

    LINESIDE_TESTED_ELSEWHERE lists words (comma between) of reasons that are allowed, because CI runs these tests in
    another environment.
    """
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("LINESIDE_REFUSE_SKIPS") == "1":
        reason = str(report.longrepr[-1]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
        elsewhere = tuple(filter(None, os.environ.get("LINESIDE_TESTED_ELSEWHERE", "").split(",")))
        if not any(allowed in reason for allowed in ALLOWED_SKIPS + elsewhere):
            report.outcome = "failed"
            report.longrepr = f"skipped, and skips are refused here: {reason}"
    return report


@pytest.fixture(scope="session")
def root() -> Path:
    """The top folder of the project."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def demo_recipe(root: Path) -> Path:
    """The folder of the sealed recipe that ships with the product; never written to."""
    return root / "deploy" / "recipes" / "demo-pcb"


@pytest.fixture(scope="session")
def demo_model(demo_recipe: Path) -> LoadedModel:
    """The model of the demo recipe, on one thread."""
    return load_model(demo_recipe / "model.onnx", threads=1)


@pytest.fixture(scope="session")
def demo_golden(demo_recipe: Path) -> Image:
    """The golden template of the demo recipe, (640, 640) uint8."""
    return read_grey(demo_recipe / "golden.png")
