"""ONNX Runtime's own CPU kernels. It computes in float32 or int8; it has no bfloat16 on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgewise.timing.runtimes.graph import int8_file, onnx_file
from edgewise.timing.runtimes.runtime import Prepared, Shape

if TYPE_CHECKING:
    from torch import nn


def prepare(
    network: nn.Module, shape: Shape, precision: str, threads: int, folder: Path
) -> Prepared:
    """The graph at that precision, with all of ONNX Runtime's own optimisations."""
    write = int8_file if precision == "int8" else onnx_file
    return read(write(network, shape, folder), shape, threads)


def read(path: Path, shape: tuple[int, ...], threads: int) -> Prepared:
    """Anybody's file, with all of ONNX Runtime's own optimisations."""
    return PreparedOnnx(path, threads)


class PreparedOnnx(Prepared):
    """A session of an ONNX file."""

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised as well
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads that wait for the next call would slow down whatever is timed after this one.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self.session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self.input = self.session.get_inputs()[0].name
        self.output = self.session.get_outputs()[0].name
        self.weight_bytes = path.stat().st_size

    def feed(self, images: NDArray[Any]) -> None:
        self.images = {self.input: np.ascontiguousarray(images)}

    def call(self) -> None:
        (self.answer,) = self.session.run([self.output], self.images)

    def logits(self) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self.answer
        return logits
