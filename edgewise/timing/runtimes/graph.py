"""The one graph that runtimes read: an ONNX file of float32 images in and logits out."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgewise.deploy.onnx import to_bytes, to_onnx
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


def int8_file(network: nn.Module, shape: Shape, folder: Path, fuses: bool = False) -> Path:
    """The graph in int8, as `edgewise.deploy.quantize` writes it; made once.

    `fuses` is explained there, at `Calibrated`.
    """
    import onnx

    from edgewise.deploy.quantize import calibrate

    plain = onnx_file(network, shape, folder)
    path = plain.with_suffix(".fused.onnx" if fuses else ".qdq.onnx")
    if not path.is_file():
        calibrated = calibrate(onnx.load(plain), list(calibration(shape)))
        write_bytes(path, to_bytes(replace(calibrated, fuses=fuses).quantized()))
    return path
