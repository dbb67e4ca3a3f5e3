"""Runtimes for tests of the benchmark: one that is right, and every way to be wrong.

A module of its own, for the candidates' processes import it by name.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

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


class File(Prepared):
    """An ONNX file in ONNX's own evaluator, with `offset` added to one output."""

    weight_bytes = 1234

    def __init__(self, path: Path, offset: float = 0.0) -> None:
        from onnx.reference import ReferenceEvaluator

        self.evaluator, self.offset = ReferenceEvaluator(str(path)), offset

    def feed(self, images: NDArray[Any]) -> None:
        self.images = images

    def call(self) -> None:
        self.answer = self.evaluator.run(None, {self.evaluator.input_names[0]: self.images})[0]
        self.answer = self.answer.copy()
        self.answer[:, 0] += self.offset

    def logits(self) -> NDArray[np.float32]:
        return self.answer


def reads(path: Path, shape: tuple[int, ...], threads: int) -> File:
    return File(path)


def misreads(path: Path, shape: tuple[int, ...], threads: int) -> File:
    return File(path, 1.0)


def cannot_read(path: Path, shape: tuple[int, ...], threads: int) -> File:
    raise ValueError("it has no operator Det")


INSTALLED = ("numpy",)
RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        Runtime("right", "", INSTALLED, ("fp32", "int8"), right, reads),
        Runtime("wrong", "", INSTALLED, ("fp32",), wrong, misreads),
        Runtime("refuses", "", INSTALLED, ("fp32",), refuses, cannot_read),
        Runtime("crashes", "", INSTALLED, ("fp32",), crashes),
        Runtime("absent", "openvino", ("no-such-package-at-all",), ("fp32", "bf16"), right),
    )
}
