"""How much each layer may cost: ranks for a budget of MACs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgewise.errors import UsageError

LEAST_KEPT = 1e-9  # of a layer's energy: nothing has no logarithm


@dataclass(frozen=True)
class DenseLayer:
    """A dense convolution that could be taken apart.

    Attributes:
        name: of its module.
        kernel: height and width.
        in_chans: channels of its input.
        out: channels of its output.
        macs: multiply-accumulates for one image.
        errors: the part of the energy that is lost at rank 1, 2, ..., for the ranks that save MACs.
    """

    name: str
    kernel: tuple[int, int]
    in_chans: int
    out: int
    macs: int
    errors: tuple[float, ...]

    def macs_at(self, rank: int) -> int:
        """Of one image; rank 0 is the dense convolution."""
        # A dense kernel has out * area numbers for each input channel, a separable one area + out.
        area = math.prod(self.kernel)
        return self.macs * rank * (area + self.out) // (area * self.out) if rank else self.macs

    def error_at(self, rank: int) -> float:
        """The part of the energy that is lost."""
        return self.errors[rank - 1] if rank else 0.0


def saving_ranks(kernel: Sequence[int], out: int) -> int:
    """The largest rank that costs less than the dense convolution; 0 if there is none."""
    area = math.prod(kernel)
    return -(-area * out // (area + out)) - 1


def choose_ranks(layers: Sequence[DenseLayer], others: int, part: float) -> tuple[int, ...]:
    """The rank of each layer, 0 for dense, for a part of the network's MACs.

    All begin at rank 1. Then, as long as one fits, the step is taken that gains most for each MAC
    it costs. What is gained is the logarithm of the energy kept: the product of the layers' kept
    energies was seen to follow the accuracy (Zhang et al., arXiv 1411.4229, section 2.4).

    Args:
        layers: those that can be taken apart.
        others: the MACs of all else.
        part: of the MACs of all layers, dense, that may be left.

    Raises:
        UsageError: rank 1 everywhere leaves more.
    """
    total = others + sum(layer.macs for layer in layers)
    ranks = [1] * len(layers)
    least = others + sum(layer.macs_at(1) for layer in layers)
    left = int(part * total) - least
    if left < 0:
        raise UsageError(
            f"a part of {part:g} of the MACs is out of reach: rank 1 in every layer leaves "
            f"{math.ceil(1000 * least / total) / 1000}"
        )
    while True:
        steps = [
            (_gain(layer, now, rank) / cost, cost, i, rank)
            for i, (layer, now) in enumerate(zip(layers, ranks, strict=True))
            for rank in (*range(now + 1, len(layer.errors) + 1), 0)
            if now and (cost := layer.macs_at(rank) - layer.macs_at(now)) <= left
        ]
        if not steps:
            return tuple(ranks)
        _, cost, i, rank = max(steps)
        ranks[i], left = rank, left - cost


def _gain(layer: DenseLayer, now: int, rank: int) -> float:
    """By what factor more energy is kept, as its logarithm."""
    kept, before = (max(1 - layer.error_at(r), LEAST_KEPT) for r in (rank, now))
    return math.log(kept / before)
