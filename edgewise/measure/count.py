"""Parameters and MACs of a network, worked out from its `Spec` alone: no tensor, no torch.

MACs are the multiply-accumulates of convolutions and linear layers, squeeze-excite included, for
one image. Biases, batch norm, activations, pooling and element-wise sums are not counted, as in
the papers' tables. Padding doesn't change them: both kinds give the same sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgewise.errors import UsageError
from edgewise.spec import Spec


@dataclass(frozen=True)
class Layer:
    """The cost of one convolution or linear layer with its batch norm.

    Attributes:
        name: of its module in the `Network`, such as "stages.1.0.depthwise".
        channels: of its output.
        side: height and width of its output, in pixels; 1 after a pooling.
        params: learned numbers: weights, biases, batch norm's scale and shift.
        macs: multiply-accumulates for one image.
    """

    name: str
    channels: int
    side: int
    params: int
    macs: int


@dataclass(frozen=True)
class Cost:
    """The cost of one image through a network.

    Attributes:
        input_size: height and width of the image, in pixels.
        params: learned numbers of all layers.
        macs: multiply-accumulates of all layers.
        layers: in the order of the computation.
    """

    input_size: int
    params: int
    macs: int
    layers: tuple[Layer, ...]


def count(spec: Spec, input_size: int) -> Cost:
    """The cost of one (in_chans, input_size, input_size) image.

    Raises:
        UsageError: `input_size` is below 1.
    """
    if input_size < 1:
        raise UsageError(f"the input size must be 1 pixel at least, not {input_size}")
    layers = tuple(_layers(spec, input_size))
    params, macs = sum(x.params for x in layers), sum(x.macs for x in layers)
    return Cost(input_size, params, macs, layers)


def _layers(spec: Spec, side: int) -> Iterator[Layer]:
    side = -(-side // spec.stem.stride)
    yield _conv_norm("stem", spec.in_chans, spec.stem.out, side, spec.stem.kernel)
    channels = spec.stem.out
    for s, stage in enumerate(spec.stages):
        for b, block in enumerate(stage):
            name, wide = f"stages.{s}.{b}", block.expand or channels
            if block.expand:
                yield _conv_norm(f"{name}.expand", channels, wide, side)
            side = -(-side // block.stride)  # the depthwise convolution has the stride
            yield _conv_norm(f"{name}.depthwise", 1, wide, side, block.kernel)
            if block.squeeze:
                yield _linear(f"{name}.squeeze.reduce", wide, block.squeeze)
                yield _linear(f"{name}.squeeze.expand", block.squeeze, wide)
            yield _conv_norm(f"{name}.project", wide, block.out, side)
            channels = block.out
    if spec.head.conv:
        yield _conv_norm("head.conv", channels, spec.head.conv, side)
        channels = spec.head.conv
    if spec.head.hidden:
        yield _linear("head.hidden", channels, spec.head.hidden)
        channels = spec.head.hidden
    if spec.classes:
        yield _linear("head.classifier", channels, spec.classes)


def _conv_norm(name: str, group_chans: int, out: int, side: int, kernel: int = 1) -> Layer:
    """A convolution, each of whose outputs sees `group_chans` input channels, and its norm."""
    weights = group_chans * out * kernel**2
    return Layer(name, out, side, weights + 2 * out, weights * side**2)


def _linear(name: str, in_chans: int, out: int) -> Layer:
    """A linear layer with bias, or what is the same, a 1x1 convolution of one pixel."""
    return Layer(name, out, 1, in_chans * out + out, in_chans * out)
