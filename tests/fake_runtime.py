"""Runtimes for tests of the benchmark: one that is right, and every way to be wrong.

A module of its own, for the candidates' processes import it by name.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgewise.errors import EdgewiseError
from edgewise.timing.runtimes import Prepared, Runtime, Shape


class Torch(Prepared):
    """PyTorch, with `offset` added to one logit."""

    weight_bytes = 1234

    def __init__(self, network: nn.Module, offset: float = 0.0) -> None:
        self.network, self.offset = network.eval(), offset

    def feed(self, images: NDArray[np.float32]) -> None:
        self.images = torch.from_numpy(images)

    def call(self) -> None:
        with torch.no_grad():
            self.answer = self.network(self.images).clone()
        self.answer[:, 0] += self.offset

    def logits(self) -> NDArray[np.float32]:
        return self.answer.numpy()


def right(network: nn.Module, shape: Shape, precision: str, threads: int, folder: Path) -> Torch:
    return Torch(network)


def wrong(network: nn.Module, shape: Shape, precision: str, threads: int, folder: Path) -> Torch:
    return Torch(network, 0.1)


def refuses(network: nn.Module, shape: Shape, precision: str, threads: int, folder: Path) -> Torch:
    raise EdgewiseError("it has no operator Swish")


def crashes(network: nn.Module, shape: Shape, precision: str, threads: int, folder: Path) -> Torch:
    print("out of luck", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


INSTALLED = ("numpy",)
RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        Runtime("right", "", INSTALLED, ("fp32", "int8"), right),
        Runtime("wrong", "", INSTALLED, ("fp32",), wrong),
        Runtime("refuses", "", INSTALLED, ("fp32",), refuses),
        Runtime("crashes", "", INSTALLED, ("fp32",), crashes),
        Runtime("absent", "openvino", ("no-such-package-at-all",), ("fp32", "bf16"), right),
    )
}
