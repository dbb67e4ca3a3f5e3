"""OpenVINO on the CPU, from the same exported ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgewise.deploy.onnx import INPUT, METADATA, OUTPUT, read_metadata
from edgewise.errors import UsageError, missing_package

if TYPE_CHECKING:
    from openvino import Dimension


class OpenVinoPredictor:
    """A `Predictor` that runs an exported file in OpenVINO on the CPU; needs no PyTorch.

    Raises:
        UsageError: openvino is not installed; the file is not ONNX, is cut off, or was not
            exported by edgewise.
    """

    def __init__(self, path: Path) -> None:
        try:
            import openvino
        except ImportError as error:
            raise missing_package("openvino", "openvino") from error
        # Said for each: left alone, it takes bfloat16 wherever the processor is faster at it.
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        try:
            model = openvino.Core().read_model(path)
            self.compiled = openvino.Core().compile_model(model, "CPU", settings)
        except RuntimeError as error:
            reason = str(error).strip().rpartition("\n")[2]
            raise UsageError(f"{path} can't be read as ONNX by OpenVINO ({reason})") from error
        place = ["framework", METADATA]
        entry = str(model.get_rt_info(place).value) if model.has_rt_info(place) else None
        inputs = [(port.any_name, _sides(port.partial_shape)) for port in model.inputs]
        outputs = [(port.any_name, _sides(port.partial_shape)) for port in model.outputs]
        self.labels, self.preprocess = read_metadata(path, entry, inputs, outputs)
        self.runtime = f"openvino {openvino.__version__.partition('-')[0]}"

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 RGB (N, size, size, 3) -> float32 (N, classes)."""
        return np.array(self.compiled({INPUT: pixels})[OUTPUT], dtype=np.float32)


def _sides(shape: list[Dimension]) -> list[int]:
    """All but the batch, of a fixed shape."""
    return [side.get_length() for side in list(shape)[1:]]
