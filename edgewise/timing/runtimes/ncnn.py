"""ncnn, from a traced module by way of pnnx."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgewise.deploy.ncnn import BIN, load_ncnn, ncnn_answer, to_ncnn
from edgewise.files import write_bytes
from edgewise.timing.runtimes.graph import fingerprint
from edgewise.timing.runtimes.runtime import Prepared, Shape

if TYPE_CHECKING:
    from torch import nn


def prepare(
    network: nn.Module, shape: Shape, precision: str, threads: int, folder: Path
) -> Prepared:
    """The network for one image: ncnn's maps have no batch, so a batch is run image by image."""
    param = folder / f"{fingerprint(network, shape)}.ncnn.param"
    if not param.is_file():
        layers, weights = to_ncnn(network, (1, *shape[1:]))
        write_bytes(param.with_suffix(BIN), weights)
        write_bytes(param, layers)
    return PreparedNcnn(param, precision, threads)


class PreparedNcnn(Prepared):
    """A loaded net."""

    def __init__(self, param: Path, precision: str, threads: int) -> None:
        self.net = load_ncnn(param, precision, threads)
        self.weight_bytes = param.with_suffix(BIN).stat().st_size

    def feed(self, images: NDArray[np.float32]) -> None:
        self.images = [np.ascontiguousarray(image) for image in images]

    def call(self) -> None:
        self.answer = [ncnn_answer(self.net, image) for image in self.images]

    def logits(self) -> NDArray[np.float32]:
        return np.stack(self.answer)
