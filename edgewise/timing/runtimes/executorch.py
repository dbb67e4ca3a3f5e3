"""ExecuTorch with the XNNPACK kernels, the pair that its mobile builds run on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgewise.deploy.converting import silent
from edgewise.deploy.executorch import lowered
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
    import torch

    path = folder / f"{fingerprint(network, shape)}.{precision}.pte"
    if not path.is_file():
        example = (torch.from_numpy(random_images(shape)[0]),)
        batches = (torch.from_numpy(images) for images in calibration(shape))
        with silent():
            program, _ = lowered(network, example, batches if precision == "int8" else None)
        write_bytes(path, program)
    return PreparedExecuTorch(path, threads)


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
