"""LiteRT (TensorFlow Lite) with its XNNPACK kernels, converted by litert-torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgewise.deploy.converting import silent
from edgewise.deploy.litert import write_float, write_int8
from edgewise.files import write_bytes
from edgewise.timing.runtimes.graph import calibration, fingerprint
from edgewise.timing.runtimes.runtime import Prepared, Shape, random_images

if TYPE_CHECKING:
    from torch import nn


def prepare(
    network: nn.Module, shape: Shape, precision: str, threads: int, folder: Path
) -> Prepared:
    """The network as a .tflite file; its input stays in (N, C, H, W) order and is transposed."""
    import torch

    path = folder / f"{fingerprint(network, shape)}.tflite"
    if not path.is_file():
        images = (torch.from_numpy(random_images(shape)[0]),)
        _write(path, lambda new: write_float(network, images, new))
    if precision == "int8":
        plain, path = path, path.with_suffix(".int8.tflite")
        if not path.is_file():
            _write(path, lambda new: write_int8(plain, calibration(shape), new))
    return PreparedLiteRt(path, threads)


def _write(path: Path, make: Callable[[Path], None]) -> None:
    with TemporaryDirectory() as temporary, silent():
        new = Path(temporary, path.name)
        make(new)
        write_bytes(path, new.read_bytes())


class PreparedLiteRt(Prepared):
    """An interpreter. An int8 graph takes and gives float32, as the others do."""

    def __init__(self, path: Path, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(str(path), num_threads=threads)
        self.interpreter.allocate_tensors()
        (self.input,) = self.interpreter.get_input_details()
        (self.output,) = self.interpreter.get_output_details()
        self.weight_bytes = path.stat().st_size

    def feed(self, images: NDArray[np.float32]) -> None:
        self.interpreter.set_tensor(self.input["index"], images)

    def call(self) -> None:
        self.interpreter.invoke()

    def logits(self) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self.interpreter.get_tensor(self.output["index"])
        return logits
