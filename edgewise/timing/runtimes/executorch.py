"""ExecuTorch with the XNNPACK kernels, the pair that its mobile builds run on a CPU."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgewise.deploy.onnx import quiet
from edgewise.files import write_bytes
from edgewise.timing.runtimes.graph import calibration, fingerprint
from edgewise.timing.runtimes.runtime import Prepared, Shape, random_images

if TYPE_CHECKING:
    from torch import nn


def prepare(
    network: nn.Module, shape: Shape, precision: str, threads: int, folder: Path
) -> Prepared:
    """All that XNNPACK can take goes to it; ExecuTorch's own kernels do the rest."""
    path = folder / f"{fingerprint(network, shape)}.{precision}.pte"
    if not path.is_file():
        with quiet():
            write_bytes(path, _program(network, shape, precision))
    return PreparedExecuTorch(path, threads)


def _program(network: nn.Module, shape: Shape, precision: str) -> bytes:
    """The file's bytes."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    images = (torch.from_numpy(random_images(shape)[0]),)
    graph = torch.export.export(copy.deepcopy(network).eval(), images)
    if precision == "int8":
        graph = torch.export.export(_quantized(graph.module(), shape), images)
    edge = to_edge_transform_and_lower(graph, partitioner=[XnnpackPartitioner()])
    program: bytes = edge.to_executorch().buffer
    return program


def _quantized(module: Any, shape: Shape) -> Any:
    """The exported module with quantise and dequantise operators, a scale for each channel."""
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(
        get_symmetric_quantization_config(is_per_channel=True)
    )
    prepared = prepare_pt2e(module, quantizer)
    for images in calibration(shape):
        prepared(torch.from_numpy(images))
    return convert_pt2e(prepared)


class PreparedExecuTorch(Prepared):
    """A loaded program."""

    def __init__(self, path: Path, threads: int) -> None:
        with quiet():
            from executorch.extension.pybindings import portable_lib
            from executorch.runtime import Runtime

        # The only way to choose: its pool serves the whole process.
        portable_lib._unsafe_reset_threadpool(threads)
        self.method: Any = Runtime.get().load_program(path).load_method("forward")
        self.weight_bytes = path.stat().st_size

    def feed(self, images: NDArray[np.float32]) -> None:
        import torch

        self.images = (torch.from_numpy(np.ascontiguousarray(images)),)

    def call(self) -> None:
        (self.answer,) = self.method.execute(self.images)

    def logits(self) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self.answer.numpy()
        return logits
