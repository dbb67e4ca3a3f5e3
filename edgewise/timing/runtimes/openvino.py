"""OpenVINO on the CPU, from ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgewise.errors import EdgewiseError
from edgewise.libraries import openvino_core
from edgewise.timing.runtimes.graph import int8_file, onnx_file
from edgewise.timing.runtimes.runtime import Prepared, Shape

if TYPE_CHECKING:
    from torch import nn

PRECISION = "INFERENCE_PRECISION_HINT"


def prepare(
    network: nn.Module, shape: Shape, precision: str, threads: int, folder: Path
) -> Prepared:
    """The graph at that precision, as it is exported."""
    from edgewise.deploy.openvino_blocks import rewritten

    network = rewritten(network)
    if precision == "int8":
        path = int8_file(network, shape, folder, fuses=True)
    else:
        path = onnx_file(network, shape, folder)
    return PreparedOpenVino(path, shape, precision, threads)


def read(path: Path, shape: tuple[int, ...], threads: int) -> Prepared:
    """Anybody's file, at exactly that shape."""
    return PreparedOpenVino(path, shape, "fp32", threads)


class PreparedOpenVino(Prepared):
    """A compiled model and its one request."""

    def __init__(self, path: Path, shape: tuple[int, ...], precision: str, threads: int) -> None:
        import openvino

        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(threads),
            # Said for each: left alone, it takes bfloat16 wherever the processor is faster at it.
            PRECISION: "bf16" if precision == "bf16" else "f32",
        }
        core = openvino_core()
        model = core.read_model(path)
        model.reshape(list(shape))  # of a file with free sides
        compiled = core.compile_model(model, "CPU", settings)
        if precision == "bf16" and compiled.get_property(PRECISION) != openvino.Type.bf16:
            raise EdgewiseError("this processor has no bfloat16, so OpenVINO stays at float32")
        self.request = compiled.create_infer_request()
        self.weight_bytes = path.stat().st_size

    def feed(self, images: NDArray[Any]) -> None:
        self.request.get_input_tensor().data[:] = images

    def call(self) -> None:
        self.request.infer()

    def logits(self) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self.request.get_output_tensor(0).data
        return logits
