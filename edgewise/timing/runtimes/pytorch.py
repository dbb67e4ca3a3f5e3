"""PyTorch itself: eager in both memory formats, and compiled by inductor."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgewise.timing.runtimes.runtime import Prepared, Shape, random_images

if TYPE_CHECKING:
    from torch import nn


def eager(
    network: nn.Module, shape: Shape, precision: str, threads: int, folder: Path
) -> PreparedTorch:
    """As it is written, maps in (N, C, H, W) order."""
    return PreparedTorch(network, precision, threads)


def channels_last(
    network: nn.Module, shape: Shape, precision: str, threads: int, folder: Path
) -> PreparedTorch:
    """As it is written, with maps in (N, H, W, C) order, which PyTorch's own kernels prefer."""
    return PreparedTorch(network, precision, threads, channels_last=True)


def compiled(
    network: nn.Module, shape: Shape, precision: str, threads: int, folder: Path
) -> PreparedTorch:
    """Compiled by inductor for this shape and with frozen weights, so that norms are folded.

    Needs a C++ compiler.
    """
    import torch

    prepared = PreparedTorch(network, precision, threads)
    # fullgraph: what can't be compiled is an error, where it would else run eagerly without a word.
    prepared.network = torch.compile(
        prepared.network, fullgraph=True, dynamic=False, options={"freezing": True}
    )
    prepared.feed(random_images(shape)[0])
    prepared.call()  # compiles
    return prepared


def cuda(
    network: nn.Module, shape: Shape, precision: str, threads: int, folder: Path
) -> PreparedCuda:
    """As it is written, on the first NVIDIA GPU, with maps in the order that its units prefer."""
    return PreparedCuda(network, precision, threads, channels_last=True)


def has_cuda() -> bool:
    """Whether there is an NVIDIA GPU that this PyTorch can use."""
    import torch

    return torch.cuda.is_available()


class PreparedTorch(Prepared):
    """A copy of the network; "bf16" has its weights and maps in that type."""

    def __init__(
        self, network: nn.Module, precision: str, threads: int, channels_last: bool = False
    ) -> None:
        import torch

        self.network: Any = copy.deepcopy(network).eval().requires_grad_(False)
        self.type = torch.bfloat16 if precision == "bf16" else torch.float32
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        # The stub of `to` has no memory format.
        self.network.to(dtype=self.type, memory_format=self.format)  # type: ignore[call-overload]
        tensors = (*self.network.parameters(), *self.network.buffers())
        self.weight_bytes = sum(tensor.nbytes for tensor in tensors)
        self.threads = threads

    def feed(self, images: NDArray[np.float32]) -> None:
        import torch

        self.images = torch.from_numpy(images).to(self.type, memory_format=self.format)

    def call(self) -> None:
        import torch

        # One number for the whole process: another network may have set its own.
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        with torch.inference_mode():
            self.answer = self.network(self.images)

    def logits(self) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self.answer.float().numpy()
        return logits


class PreparedCuda(PreparedTorch):
    """The same on a GPU, which works on its own: its clock says how long it took."""

    def __init__(
        self, network: nn.Module, precision: str, threads: int, channels_last: bool = False
    ) -> None:
        import torch

        super().__init__(network, precision, threads, channels_last)
        self.network.to("cuda")
        torch.backends.cudnn.allow_tf32 = False  # else float32 means 10 bits of mantissa
        self.start, self.end = (
            torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            for _ in range(2)
        )

    def feed(self, images: NDArray[np.float32]) -> None:
        super().feed(images)
        self.images = self.images.to("cuda", memory_format=self.format)

    def call(self) -> None:
        import torch

        super().call()
        torch.cuda.synchronize()

    def milliseconds(self) -> float:
        """Between two events on the GPU: without the time in which it waits for Python."""
        self.start.record()
        super().call()
        self.end.record()
        self.end.synchronize()
        return float(self.start.elapsed_time(self.end))

    def logits(self) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self.answer.float().cpu().numpy()
        return logits
