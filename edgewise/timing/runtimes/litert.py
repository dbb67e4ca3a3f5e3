"""LiteRT (TensorFlow Lite) with its XNNPACK kernels, converted by litert-torch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

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
    """The network as a .tflite file; its input stays in (N, C, H, W) order and is transposed."""
    path = folder / f"{fingerprint(network, shape)}.tflite"
    if not path.is_file():
        _write(path, lambda new: _convert(network, shape, new))
    if precision == "int8":
        plain, path = path, path.with_suffix(".int8.tflite")
        if not path.is_file():
            _write(path, lambda new: _quantize(plain, shape, new))
    return PreparedLiteRt(path, threads)


def _write(path: Path, make: Callable[[Path], None]) -> None:
    with TemporaryDirectory() as temporary, quiet():
        new = Path(temporary, path.name)
        make(new)
        write_bytes(path, new.read_bytes())


def _convert(network: nn.Module, shape: Shape, path: Path) -> None:
    import litert_torch
    import torch

    images = (torch.from_numpy(random_images(shape)[0]),)
    litert_torch.convert(copy.deepcopy(network).eval(), images).export(str(path))


def _quantize(plain: Path, shape: Shape, path: Path) -> None:
    """Not with PyTorch's own quantiser: its ReLU6 networks came out with unlike answers."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    ((signature, names),) = Interpreter(str(plain)).get_signature_list().items()
    batches = [{names["inputs"][0]: images} for images in calibration(shape)]
    job = quantizer.Quantizer(str(plain), recipe.static_wi8_ai8())
    job.quantize(job.calibrate({signature: batches})).export_model(str(path))


class PreparedLiteRt(Prepared):
    """An interpreter. An int8 graph takes and gives int8; that conversion is not in `call`."""

    def __init__(self, path: Path, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(str(path), num_threads=threads)
        self.interpreter.allocate_tensors()
        (self.input,) = self.interpreter.get_input_details()
        (self.output,) = self.interpreter.get_output_details()
        self.weight_bytes = path.stat().st_size

    def feed(self, images: NDArray[np.float32]) -> None:
        if self.input["dtype"] == np.int8:
            scale, zero = self.input["quantization"]
            images = np.clip(np.rint(images / scale) + zero, -128, 127)
        self.interpreter.set_tensor(self.input["index"], images.astype(self.input["dtype"]))

    def call(self) -> None:
        self.interpreter.invoke()

    def logits(self) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self.interpreter.get_tensor(self.output["index"])
        if self.output["dtype"] == np.int8:
            scale, zero = self.output["quantization"]
            logits = scale * (logits.astype(np.float32) - zero)
        return logits
