"""What a runtime is to us: something that makes a network ready to run, and its version."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgewise.errors import EdgewiseError, UsageError, missing_package, shortened, unknown
from edgewise.libraries import first_missing
from edgewise.measure.latency import time_ms

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, int, int, int]


class Prepared(ABC):
    """A network that is ready to run in one runtime, at one precision, on a fixed shape of input.

    Attributes:
        weight_bytes: of the file that the runtime loads; in PyTorch, of parameters and buffers.
    """

    weight_bytes: int

    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """(N, C, H, W) of the prepared shape -> logits (N, classes); of a file what it has.

        Raises:
            EdgewiseError: the runtime failed.
        """
        try:
            self.feed(images)
            self.call()
            return np.array(self.logits(), dtype=np.float32).reshape(len(images), -1)
        except Exception as error:
            raise EdgewiseError(f"it does not run: {shortened(error)}") from error

    @abstractmethod
    def feed(self, images: NDArray[Any]) -> None:
        """Sets the input of the calls that follow."""

    @abstractmethod
    def call(self) -> None:
        """Runs once on that input and returns when the logits are there: what is timed."""

    @abstractmethod
    def logits(self) -> NDArray[np.float32]:
        """The answer of the last call, (N, classes)."""

    def milliseconds(self) -> float:
        """The time of one `call`."""
        return time_ms(self.call)

    def close(self) -> None:
        """Gives back the memory: drops all that the runtime made."""
        self.__dict__.clear()


def always() -> bool:
    """Of a runtime that needs nothing but a processor."""
    return True


@dataclass(frozen=True)
class Runtime:
    """Something that runs networks.

    Attributes:
        name: what `--runtime` takes.
        extra: the extra of `pip install 'edgewise[...]'` that it needs; "" if none.
        packages: the distributions that it needs; the first one's version is the runtime's.
        precisions: of "fp32", "bf16" and "int8", those that it has on a CPU.
        make: `prepare` without the checks and with the runtime's own errors.
        read: likewise for `prepare_file`; None if it reads no ONNX files.
        usable: whether this machine has what it runs on.
    """

    name: str
    extra: str
    packages: tuple[str, ...]
    precisions: tuple[str, ...]
    make: Callable[[nn.Module, Shape, str, int, Path], Prepared]
    read: Callable[[Path, tuple[int, ...], int], Prepared] | None = None
    usable: Callable[[], bool] = always

    def version(self) -> str | None:
        """As installed; None if one of its packages is missing, or what it runs on."""
        if first_missing(self.packages) or not self.usable():
            return None
        return metadata.version(self.packages[0])

    def prepare(
        self, network: nn.Module, shape: Shape, precision: str, threads: int, folder: Path
    ) -> Prepared:
        """The network (unchanged by this), in evaluation mode and ready to run.

        Args:
            network: (N, C, H, W) float32 -> logits (N, classes): a `Network`, or anybody's module.
            shape: of the input, (N, C, H, W).
            precision: "fp32", "bf16" or "int8". int8 is static, with weights a channel each, and
                calibrated on `random_images`.
            threads: that compute one call.
            folder: for the files of this and later calls; they are named after what they hold, so
                that networks may share it and a file is made once.

        Raises:
            UsageError: the runtime is not installed, can't run here or has no such precision.
            EdgewiseError: the runtime can't take the network; the message says why.
        """
        if missing := first_missing(self.packages):
            raise missing_package(missing, self.extra)
        if not self.usable():
            raise UsageError(f"{self.name} can't run on this machine.")
        if precision not in ("fp32", "bf16", "int8"):
            raise unknown("precision", precision, ("fp32", "bf16", "int8"))
        if precision not in self.precisions:
            raise UsageError(f"{self.name} has no {precision} on a CPU.")
        return self._checked(lambda: self.make(network, shape, precision, threads, folder))

    def prepare_file(self, path: Path, shape: tuple[int, ...], threads: int) -> Prepared:
        """An ONNX file of one input, ready to run on that shape of it.

        Raises:
            UsageError: the runtime is not installed or reads no ONNX files.
            EdgewiseError: it can't take this one; the message says why.
        """
        if missing := first_missing(self.packages):
            raise missing_package(missing, self.extra)
        read = self.read
        if not read:
            raise UsageError(f"{self.name} reads no ONNX files.")
        return self._checked(lambda: read(path, shape, threads))

    def _checked(self, make: Callable[[], Prepared]) -> Prepared:
        try:
            return make()
        except EdgewiseError:
            raise
        except Exception as error:  # every runtime has its own kinds
            raise EdgewiseError(f"{self.name} can't take it: {shortened(error)}") from error


def random_images(shape: Shape, count: int = 1, seed: int = 0) -> list[NDArray[np.float32]]:
    """`count` inputs of that shape, of normally distributed values: like normalised pixels."""
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(shape, dtype=np.float32) for _ in range(count)]
