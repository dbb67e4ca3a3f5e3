"""int8 graphs for tests: small networks that are calibrated, and graphs run in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from photos import picture
from torch import nn

from edgewise.deploy.onnx import to_onnx
from edgewise.model import Model

if TYPE_CHECKING:
    import onnxruntime

SIZE = 64
LABELS = tuple("abcdefghij")


def pixels_of(model: Model, count: int, first: int = 0) -> NDArray[np.uint8]:
    return np.stack(
        [model.preprocess.pixels(picture(seed)) for seed in range(first, first + count)]
    )


def batches(pixels: NDArray[Any], size: int = 4) -> list[NDArray[Any]]:
    return [pixels[at : at + size] for at in range(0, len(pixels), size)]


def session(
    proto: Any, optimized: Path | None = None, plain: bool = False
) -> onnxruntime.InferenceSession:
    """Where `plain`, node by node as the graph is written: bytes are only written and read."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if plain:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if optimized:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def answers(proto: Any, pixels: NDArray[Any], plain: bool = False) -> NDArray[np.float32]:
    """Of a graph with one input and one output."""
    loaded = session(proto, plain=plain)
    (found,) = loaded.run(None, {loaded.get_inputs()[0].name: pixels})
    return np.asarray(found)


def exported(module: nn.Module, x: torch.Tensor) -> Any:
    return to_onnx(module.eval(), (x[:2],), "x", "y", any_batch=True)
