"""With what a part is judged that is in no recipe: versions, processor, provider, threads, size of a pixel.

Scores move in their last digits with another processor or version of the engine, and lengths in millimetres with the
scale of the station, so each record keeps these beside the names of recipe and model.
"""

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path

from inspection.errors import ConfigError
from inspection.model import Provider
from inspection.recipe import LoadedRecipe

SCALE = "mm_per_px."  # before the camera's role


def judged_on(recipe: LoadedRecipe) -> tuple[tuple[str, str], ...]:
    """What the parts of this recipe are judged with in this program, as (name, value) for their records."""
    model = next(iter(recipe.views.values())).model
    scales = {f"{SCALE}{role}": repr(scale) for role, scale in recipe.mm_per_px.items()}
    return (*runs_on(model.provider, model.threads).items(), *scales.items())


def runs_on(provider: Provider, threads: int) -> dict[str, str]:
    """The versions of what judges, with the provider, its CPU threads for one inference, and the processor's name."""
    return {**_versions(provider == "openvino"), "provider": provider, "threads": str(threads)}


def scales_of(judged: Mapping[str, str]) -> dict[str, float]:
    """The millimetres per pixel by camera role among what ``judged_on`` gave; ConfigError for anything else."""
    texts = {name.removeprefix(SCALE): text for name, text in judged.items() if name.startswith(SCALE)}
    try:
        return {role: float(text) for role, text in texts.items()}
    except ValueError as error:
        raise ConfigError(
            f"the record does not say how large a pixel was: {error}",
            fix="`lineside audit` tells whether it was altered",
        ) from error


@cache
def _versions(openvino: bool) -> dict[str, str]:
    import cv2
    import onnxruntime

    engine = {"openvino": version("openvino")} if openvino else {"onnxruntime": str(onnxruntime.__version__)}
    return {"lineside": version("lineside"), **engine, "opencv": cv2.__version__, "processor": _processor()}


def _processor() -> str:
    """The processor's name as Linux tells it, elsewhere its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (names[0] if names else "") or platform.machine()
