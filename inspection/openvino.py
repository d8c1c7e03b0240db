"""OpenVINO as an optional inference provider (extra ``openvino``), behind the same interface as onnxruntime.

Float32 arithmetic is asked for: the library's own default on newer CPUs is bfloat16, which can flip a verdict.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inspection.errors import DriverMissing, ModelError


class OpenVinoSession:
    """Runs an ONNX file with OpenVINO on the CPU.  One thread at a time."""

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        try:
            import openvino
        except ModuleNotFoundError as error:
            raise DriverMissing(
                "provider 'openvino' needs the package openvino, which is not installed",
                fix='pip install "lineside[openvino]", or choose provider = "cpu"',
            ) from error
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        try:
            core = openvino.Core()
            self._compiled = core.compile_model(core.read_model(str(path)), "CPU", options)
        except RuntimeError as error:
            raise ModelError(
                f"OpenVINO cannot load {path} ({str(error).splitlines()[0][:160]})",
                fix='choose provider = "cpu"',
            ) from error
        self._request = self._compiled.create_infer_request()

    def run(self, names: list[str], feed: dict[str, NDArray[np.uint8]]) -> list[Any]:
        """Named inputs in, copies of the named outputs out."""
        self._request.infer(feed)
        return [np.array(self._request.get_tensor(name).data) for name in names]

    def rehearse(self, names: list[str], feed: dict[str, NDArray[np.uint8]]) -> None:
        """Run for nothing, so that the next run finds everything warm."""
        self._request.infer(feed)

    def interrupt(self) -> None:
        """Nothing to do: OpenVINO finishes what it has begun."""
