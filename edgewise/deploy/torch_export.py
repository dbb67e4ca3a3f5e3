"""`torch.export`: PyTorch's own graph in one file, and such a file in PyTorch on the CPU."""

from __future__ import annotations

import copy
import io
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgewise.deploy.converting import converting
from edgewise.deploy.engine import described, unreadable
from edgewise.deploy.onnx import quiet
from edgewise.files import write_bytes

if TYPE_CHECKING:
    from torch import nn

    from edgewise.deploy.artifact import Info
    from edgewise.deploy.formats import Job
    from edgewise.model import Model


def write(job: Job) -> None:
    """Writes `Classifier(job.model)`, for any number of images; the same bytes for the same model.

    In "bf16" the weights are stored in bfloat16 and the network computes in it; pixels are
    normalised, and probabilities worked out, in float32.

    Raises:
        EdgewiseError: the network can't be expressed, or the file can't be written.
    """
    import torch

    module = _module(job.model, job.precision)
    size = job.model.preprocess.size
    example = (torch.zeros(2, size, size, 3, dtype=torch.uint8),)  # 1 would fix N at 1
    buffer = io.BytesIO()  # the name of a file would be written into it
    with converting("torch-export", module, example):
        program = torch.export.export(module, example, dynamic_shapes=({0: torch.export.Dim("N")},))
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # paths of this machine
        program._example_inputs = None  # of no use, and larger than a small network
        torch.export.save(program, buffer)
    write_bytes(job.path, buffer.getvalue())


def _module(model: Model, precision: str) -> nn.Module:
    import torch
    from torch import nn

    from edgewise.model import Classifier

    class InBfloat16(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network.to(torch.bfloat16)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.network(images.to(torch.bfloat16))
            return logits.float()

    if precision == "bf16":
        model = replace(model, network=InBfloat16(copy.deepcopy(model.network)))  # type: ignore[arg-type]
    return Classifier(model).eval()


class TorchExportEngine:
    """A graph that PyTorch runs operator by operator on the CPU."""

    def __init__(self, path: Path, info: Info | None) -> None:
        import torch

        self.info = described(path, info)
        try:
            with quiet():
                self.module = torch.export.load(path).module()
        except Exception as error:  # a zip file's, JSON's, or its own
            raise unreadable(path, "torch.export", error) from error
        self.runtime = f"torch {torch.__version__}"

    def run(self, inputs: NDArray[Any]) -> NDArray[Any]:
        import torch

        with torch.inference_mode():
            answer: NDArray[Any] = self.module(
                torch.from_numpy(np.ascontiguousarray(inputs))
            ).numpy()
        return answer


def open_engine(path: Path, info: Info | None) -> TorchExportEngine:
    """A `torch.export` file in PyTorch. Only for files that you trust: such a file can hold code.

    Raises:
        UsageError: it is none, is cut off, or is not in its artefact's folder.
    """
    return TorchExportEngine(path, info)
