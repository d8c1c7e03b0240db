"""Runs an ONNX file with onnxruntime on exactly the processor that was asked for."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from inspection.errors import DriverMissing, ModelError

Processor = Literal["cpu", "cuda", "tensorrt"]
EXECUTION_PROVIDERS: dict[Processor, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


class OnnxSession:
    """One session, used by one thread at a time; ``interrupt`` alone may come from another."""

    def __init__(self, path: Path, *, processor: Processor, threads: int) -> None:
        wanted = EXECUTION_PROVIDERS[processor]
        if wanted not in ort.get_available_providers():
            raise DriverMissing(
                f"provider {processor!r} needs an onnxruntime with {wanted}; this one has "
                f"{', '.join(ort.get_available_providers())}",
                fix='install onnxruntime-gpu (and NVIDIA\'s libraries) in place of onnxruntime, or choose provider = "cpu"',
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        # Idle threads that spin save 0.3 ms a frame and take the cores from camera, controller and every other process.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # errors come as exceptions
        try:
            self._session = ort.InferenceSession(str(path), options, providers=[wanted], enable_fallback=False)
        except Exception as error:  # onnxruntime raises a dozen unrelated classes here
            raise ModelError(
                f"{path} is not a readable ONNX model, or {processor} cannot run it ({str(error).splitlines()[0][:160]})",
                fix="restore the file from its run folder or its recipe",
            ) from error
        # onnxruntime itself goes on with the CPU when a GPU's libraries cannot be loaded, with a line in the log.
        if self._session.get_providers()[0] != wanted:
            raise ModelError(
                f"provider {processor!r} was asked for; onnxruntime fell back to {self._session.get_providers()[0]}",
                fix='install the driver libraries that its log names, or choose provider = "cpu"',
            )
        self._rehearsal: ort.RunOptions | None = None

    @property
    def session(self) -> "ort.InferenceSession":
        """The session itself, for its inputs, outputs and metadata."""
        return self._session

    def run(self, names: list[str], feed: dict[str, NDArray[np.uint8]]) -> list[Any]:
        """Named inputs in, the named outputs out."""
        return list(self._session.run(names, feed))

    def rehearse(self, names: list[str], feed: dict[str, NDArray[np.uint8]]) -> None:
        """Run for nothing, so that the next run finds everything warm; ends early when interrupted."""
        self._rehearsal = ort.RunOptions()
        try:
            self._session.run(names, feed, self._rehearsal)
        except Exception:  # interrupted; a model that fails here will say so with its next part
            return
        finally:
            self._rehearsal = None

    def interrupt(self) -> None:
        """End a rehearsal at its next operation; harmless when there is none."""
        rehearsal = self._rehearsal
        if rehearsal is not None:
            rehearsal.terminate = True
