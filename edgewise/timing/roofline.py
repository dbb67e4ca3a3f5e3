"""The roofline: how fast a network could be on this machine, and which limit holds where.

A layer can't be done sooner than its sums take at the most MACs a second that this machine reaches,
nor sooner than its bytes take to be moved (Williams, Waterman and Patterson, 2009). Both ceilings
are measured, for a data sheet has neither the clock under load nor the share of a virtual machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from edgewise.errors import UsageError, unknown
from edgewise.measure.profile_result import Profile

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BYTES = {"fp32": 4, "bf16": 2, "int8": 1}  # of a weight, and of a number of a map
SIDES = (256, 512, 1024)  # of the square matrices
WORKING_SETS = tuple(2**power for power in range(20, 29))  # bytes: from a cache to the memory
SECONDS = 0.3  # that each product and each copy is repeated for
LEAST = 3  # and times at least
ARITHMETIC, MEMORY = "arithmetic", "memory"


@dataclass(frozen=True)
class Ceiling:
    """What this machine attains at one precision.

    Attributes:
        precision: "fp32", "bf16" or "int8".
        threads: that it was measured with.
        gmacs: the most multiply-accumulates a second, in thousands of millions (GMAC/s).
        bandwidth: for working sets of so many bytes, in rising order, the GB/s at which they are
            read and written: small ones stay in a cache.
    """

    precision: str
    threads: int
    gmacs: float
    bandwidth: tuple[tuple[int, float], ...]

    def gbytes(self, size: int) -> float:
        """GB/s of a working set of `size` bytes: those of the next larger one measured."""
        for measured, speed in self.bandwidth:
            if size <= measured:
                return speed
        return self.bandwidth[-1][1]


@dataclass(frozen=True)
class Bound:
    """The least time of one layer.

    Attributes:
        name: of the layer.
        kind: of its operation, such as "depthwise"; see `Layer.kind`.
        macs: multiply-accumulates.
        bytes: read and written: its input, its weights and its output, once each.
        arithmetic_ms: time of the sums alone.
        memory_ms: time of moving the bytes alone.
    """

    name: str
    kind: str
    macs: int
    bytes: int
    arithmetic_ms: float
    memory_ms: float

    @property
    def ideal_ms(self) -> float:
        """The larger of the two: they can go on at the same time."""
        return max(self.arithmetic_ms, self.memory_ms)

    @property
    def by(self) -> str:
        """Which of the two holds: "arithmetic" or "memory"."""
        return ARITHMETIC if self.arithmetic_ms >= self.memory_ms else MEMORY


def bounds(profile: Profile, ceiling: Ceiling) -> tuple[Bound, ...]:
    """The bound of each layer that has MACs, in the order of execution.

    Their `ideal_ms` add up to the network's. Norms, activations and sums of two maps are taken as
    free, since a runtime can do them while it writes a convolution's output. A runtime that also
    keeps one layer's output in a register or a cache for the next may beat a layer's bound; a
    network's total is seldom beaten. `profile` has the batch.
    """
    return tuple(_bounds(profile, ceiling))


def _bounds(profile: Profile, ceiling: Ceiling) -> Iterator[Bound]:
    for layer in profile.layers:
        if layer.macs:
            size = layer.moved * BYTES[ceiling.precision]
            arithmetic_ms = layer.macs / ceiling.gmacs / 1e6
            memory_ms = size / ceiling.gbytes(size) / 1e6
            yield Bound(layer.name, layer.kind, layer.macs, size, arithmetic_ms, memory_ms)


def ideal_ms(profile: Profile, ceiling: Ceiling) -> float:
    """The least time of the network, in milliseconds: its layers one after the other."""
    return sum(bound.ideal_ms for bound in bounds(profile, ceiling))


def measure_ceilings(
    precisions: tuple[str, ...] = tuple(BYTES), threads: int = 1
) -> dict[str, Ceiling]:
    """This machine's ceilings by precision, measured in a few seconds each.

    The best of several products of matrices and of a convolution, through PyTorch: speed that is
    lost to somebody else's work says nothing of the machine. A processor that has no bfloat16 or
    int8 products of its own reaches at least what it does in float32, for a runtime may convert.

    Raises:
        UsageError: an unknown precision, or no thread.
    """
    for precision in precisions:
        if precision not in BYTES:
            raise unknown("precision", precision, BYTES)
    if threads < 1:
        raise UsageError(f"the number of threads must be at least 1, not {threads}")
    with _threads(threads):
        bandwidth = tuple((size, _gbytes(size)) for size in WORKING_SETS)
        speeds = {"fp32": max(_products("fp32"))}
        speeds |= {p: max((speeds["fp32"], *_products(p))) for p in precisions if p != "fp32"}
    return {p: Ceiling(p, threads, speeds[p], bandwidth) for p in precisions}


def _products(precision: str) -> Iterator[float]:
    """GMAC/s of each product tried. The first is small, and enough if it is slow.

    There is none in int8 where PyTorch has no oneDNN, as on a Mac.
    """
    import torch

    for side in SIDES:
        try:
            run = _int8_product(side) if precision == "int8" else _product(side, precision)
            seconds = _least_seconds(run)
        except (AttributeError, RuntimeError):
            if precision == "int8":
                return
            raise
        yield side**3 / seconds / 1e9
        if seconds > SECONDS:
            return
    if precision != "int8":
        # 1x1 over 28 x 28: the convolution where a mobile network has most of its MACs.
        images = torch.randn(1, 256, 28, 28).to(_type(precision))
        kernel = torch.randn(256, 256, 1, 1).to(_type(precision))
        seconds = _least_seconds(lambda: torch.conv2d(images, kernel))
        yield 256 * 256 * 28 * 28 / seconds / 1e9


def _product(side: int, precision: str) -> Callable[[], Tensor]:
    import torch

    left, right = torch.randn(2, side, side).to(_type(precision))
    return lambda: left @ right


def _int8_product(side: int) -> Callable[[], Tensor]:
    """oneDNN's product of uint8 and int8, the one that `torch.compile` calls; `@` has none fast."""
    import torch

    left = torch.randint(0, 127, (side, side), dtype=torch.uint8)
    right = torch.randint(-127, 127, (side, side), dtype=torch.int8)
    packed = torch.ops.onednn.qlinear_prepack(right, [side, side])
    scales, zeros = torch.ones(side), torch.zeros(side, dtype=torch.int64)

    def run() -> Tensor:
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            left, 1.0, 0, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return product

    return run


def _gbytes(size: int) -> float:
    """GB/s of a triad, a = b + 2 c, over three arrays of `size` bytes in all."""
    import torch

    b, c = torch.ones(2, size // 12)  # float32
    a = torch.empty_like(b)
    seconds = _least_seconds(lambda: torch.add(b, c, alpha=2, out=a))
    return 3 * a.nbytes / seconds / 1e9


def _least_seconds(run: Callable[[], Tensor]) -> float:
    run()
    times: list[float] = []
    while len(times) < LEAST or sum(times) < SECONDS:
        start = perf_counter()
        run()
        times.append(perf_counter() - start)
        if times[0] > SECONDS:  # too slow to matter
            break
    return min(times)


def _type(precision: str) -> torch.dtype:
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]


@contextmanager
def _threads(threads: int) -> Iterator[None]:
    """Sets PyTorch's number of threads for the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
