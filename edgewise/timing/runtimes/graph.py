"""The one graph that runtimes read: an ONNX file of float32 images in and logits out."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgewise.deploy.onnx import quiet, to_onnx
from edgewise.files import write_bytes
from edgewise.timing.runtimes.runtime import Shape, random_images

if TYPE_CHECKING:
    from torch import nn

INPUT, OUTPUT = "images", "logits"
CALIBRATION_IMAGES = 8


def fingerprint(network: nn.Module, shape: Shape) -> str:
    """16 hex digits that stand for the network, its weights and the shape of its input."""
    digest = hashlib.sha256(f"{shape} {network!r} {getattr(network, 'spec', '')}".encode())
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def calibration(shape: Shape) -> Iterator[NDArray[np.float32]]:
    """The batches that every int8 graph is calibrated on."""
    yield from random_images(shape, max(1, CALIBRATION_IMAGES // shape[0]), seed=1)


def onnx_file(network: nn.Module, shape: Shape, folder: Path) -> Path:
    """The float32 graph at exactly that shape, in a file named after it; made once."""
    import torch

    path = folder / f"{fingerprint(network, shape)}.onnx"
    if path.is_file():
        return path
    images = (torch.from_numpy(random_images(shape)[0]),)
    proto = to_onnx(copy.deepcopy(network).eval(), images, INPUT, OUTPUT)
    write_bytes(path, proto.SerializeToString(deterministic=True))
    return path


def int8_file(network: nn.Module, shape: Shape, folder: Path) -> Path:
    """The graph with quantise and dequantise operators (QDQ), by ONNX Runtime; made once.

    Static, weights symmetric and with a scale for each output channel, maps with a scale each.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry
    from onnxruntime.quantization.shape_inference import quant_pre_process

    plain = onnx_file(network, shape, folder)
    path = plain.with_suffix(".int8.onnx")
    if path.is_file():
        return path
    with TemporaryDirectory() as temporary, quiet():
        folded, quantized = Path(temporary, "folded.onnx"), Path(temporary, "quantized.onnx")
        quant_pre_process(plain, folded, skip_symbolic_shape=True)
        quantize_static(
            folded,
            quantized,
            _Reader(shape),
            quant_format=QuantFormat.QDQ,
            # There is no int8 kernel for layer norm: it would only lose precision.
            op_types_to_quantize={*QDQRegistry, *QLinearOpsRegistry} - {"LayerNormalization"},
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        write_bytes(path, quantized.read_bytes())
    return path


class _Reader:
    """ONNX Runtime's `CalibrationDataReader`: a batch at each call, then None."""

    def __init__(self, shape: Shape) -> None:
        self.batches = calibration(shape)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        images = next(self.batches, None)
        return None if images is None else {INPUT: images}
