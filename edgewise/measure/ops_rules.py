"""What an operator costs, the same rules for PyTorch's operators and ONNX's.

MACs are multiply-accumulates of convolutions and of products of matrices. All other arithmetic is
counted apart, in element-wise operations, by the factors below.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

Shape = tuple[int, ...]

# What has MACs ...
CONVOLUTIONS = ("standard", "depthwise", "pointwise", "grouped", "transposed")
MAC_KINDS = (*CONVOLUTIONS, "linear", "attention")
# ... and what hasn't. A norm or an element-wise operator can write over its input.
IN_PLACE_KINDS = ("norm", "elementwise")
OTHER_KINDS = (*IN_PLACE_KINDS, "pool", "copy", "unknown")

# Operations on each number.
SOFTMAX = 5  # maximum, difference, exponential, sum, quotient
NORM = 4  # mean, difference, square and sum, times 1 / deviation; with known statistics 1 ...
RMS_NORM = 3  # ... and without the mean
BILINEAR, BICUBIC = 7, 31  # 4 or 16 products and their sum


class Costs(NamedTuple):
    """What one call of an operator costs.

    Attributes:
        kind: one of `MAC_KINDS` or `OTHER_KINDS`.
        macs: multiply-accumulates.
        elementwise: other operations, a bias's sums among them.
        activations: numbers written by an operator with MACs.
    """

    kind: str
    macs: int = 0
    elementwise: int = 0
    activations: int = 0


def convolution(
    x: Shape, weight: Shape, y: Shape, groups: int, bias: bool, transposed: bool = False
) -> Costs:
    """(N, C, ...) with kernels (O, C / groups, ...), or transposed (C, O / groups, ...).

    Each output is a sum over one kernel. Transposed, each input is spread by one kernel. What
    falls on the padding counts, as it does everywhere.
    """
    macs = prod(x if transposed else y) * prod(weight[1:])
    kind = "grouped" if groups > 1 else "standard"
    if transposed:
        kind = "transposed"
    elif groups > 1 and weight[1] == 1:
        kind = "depthwise"
    elif groups == 1 and prod(weight[2:]) == 1:
        kind = "pointwise"
    return Costs(kind, macs, prod(y) * bias, prod(y))


def product(depth: int, y: Shape, bias: bool, computed: bool) -> Costs:
    """A product of matrices: each output is a sum of `depth` products.

    `computed` says that neither factor is a weight: such products are attention's.
    """
    return Costs("attention" if computed else "linear", prod(y) * depth, prod(y) * bias, prod(y))


def attention(query: Shape, key: Shape, value: Shape, mask: bool) -> Costs:
    """softmax(Q K^T / sqrt(d)) V for (..., L, d), (..., S, d), (..., S, e).

    Keys and values may have fewer heads than the queries, which then share them.
    """
    scores, out = prod(query[:-1]) * key[-2], prod(query[:-1]) * value[-1]
    macs = scores * query[-1] + out * key[-2]
    return Costs("attention", macs, scores * (1 + mask + SOFTMAX), scores + out)


def norm(x: Shape, known_statistics: bool, affine: bool, factor: int = NORM) -> Costs:
    """Batch, layer, group, instance or RMS norm."""
    return Costs("norm", 0, prod(x) * ((1 if known_statistics else factor) + affine))


def elementwise(y: Shape, factor: int = 1) -> Costs:
    """Activations, sums, products: one operation each number of the output by default."""
    return Costs("elementwise", 0, prod(y) * factor)


def reduction(x: Shape, factor: int = 1) -> Costs:
    """Means, sums, maxima: one operation each number of the input by default."""
    return Costs("pool", 0, prod(x) * factor)


def pool(y: Shape, kernel: int) -> Costs:
    """Each output is a mean or maximum of `kernel` inputs."""
    return Costs("pool", 0, prod(y) * kernel)


def adaptive_pool(x: Shape, y: Shape, axes: int) -> Costs:
    """The bins of the last `axes` axes overlap where their number doesn't divide the side."""
    bins = (
        sum(-(-(i + 1) * side // out) - i * side // out for i in range(out))
        for side, out in zip(x[-axes:], y[-axes:], strict=True)
    )
    return Costs("pool", 0, prod(x[:-axes]) * prod(bins))


COPY = Costs("copy")
UNKNOWN = Costs("unknown")
