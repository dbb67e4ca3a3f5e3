"""Parameters and MACs of a network, worked out from its `Spec` alone: no tensor, no torch.

MACs are the multiply-accumulates of convolutions, linear layers (squeeze-excite included) and
attention's two matrix products, for one image. Biases, norms, activations, pooling and element-wise
sums are not counted, as in the papers' tables. Padding doesn't change them: both kinds give the
same sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from edgewise.errors import UsageError
from edgewise.spec import Attention, Block, Conv, ConvNeXt, MBConv, Pool, Residual, Spec

LARGEST_TRIED = 2048  # pixels, where we look for the smallest image that a network takes
NORM, BIAS = 2, 1  # learned numbers a channel: scale and shift; shift alone


@dataclass(frozen=True)
class Layer:
    """The cost of one convolution (with its norm), linear layer, norm or factor of the network.

    Attributes:
        name: of its module in the `Network`, such as "stages.1.0.depthwise". Attention's two
            matrix products have no module of their own and stand under the block's name.
        channels: of its output.
        side: height and width of its output, in pixels; 1 after a pooling.
        params: learned numbers: weights, biases, the norm's scale and shift.
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
        layers: in the order of the computation. The last one of a block has the block's output.
    """

    input_size: int
    params: int
    macs: int
    layers: tuple[Layer, ...]


def count(spec: Spec, input_size: int) -> Cost:
    """The cost of one (in_chans, input_size, input_size) image.

    Raises:
        UsageError: the image is too small for the network; the message has the smallest size.
    """
    layers = tuple(_layers(spec, input_size))
    if lost := _lost(layers):
        larger = range(input_size + 1, LARGEST_TRIED)
        smallest = next(side for side in larger if not _lost(tuple(_layers(spec, side))))
        raise UsageError(
            f"the input size {input_size} is too small: no pixel is left after {lost.name}. "
            f"The smallest that {spec.name} takes is {smallest}."
        )
    params, macs = sum(x.params for x in layers), sum(x.macs for x in layers)
    return Cost(input_size, params, macs, layers)


def _lost(layers: tuple[Layer, ...]) -> Layer | None:
    """The first whose map has no pixel."""
    return next((layer for layer in layers if layer.side < 1), None)


def _layers(spec: Spec, side: int) -> Iterator[Layer]:
    channels = spec.in_chans
    rows: list[tuple[str, Block]] = [("stem", spec.stem)]
    for s, stage in enumerate(spec.stages):
        rows += [(f"stages.{s}.{b}", block) for b, block in enumerate(stage)]
    for name, block in rows:
        layers = tuple(_BLOCKS[type(block)](name, block, channels, side))
        yield from layers
        channels, side = block.out, layers[-1].side
    yield from _head(spec, channels, side)


def _conv(name: str, block: Conv, channels: int, side: int) -> Iterator[Layer]:
    extra = {"batch": NORM, "layer": BIAS + NORM, "none": BIAS}[block.norm]
    side = _out(side, block.kernel, block.stride, block.dilation)
    yield from _dense(name, channels, block.out, side, block.kernel, block.rank, extra)


def _pool(name: str, block: Pool, channels: int, side: int) -> Iterator[Layer]:
    yield Layer(name, channels, _out(side, block.kernel, block.stride, block.dilation), 0, 0)


def _mbconv(name: str, block: MBConv, channels: int, side: int) -> Iterator[Layer]:
    wide, smaller = block.expand or channels, _out(side, 1, block.stride)
    if block.start:
        side = side if block.kernel else smaller
        yield _layer(f"{name}.start", 1, channels, side, block.start)
    if block.expand:
        side = side if block.kernel or block.start else smaller
        yield from _dense(
            f"{name}.expand", channels, wide, side, block.expand_kernel, block.expand_rank
        )
    if block.kernel:
        side = smaller
        yield _layer(f"{name}.depthwise", 1, wide, side, block.kernel)
    if block.squeeze:
        yield _layer(f"{name}.squeeze.reduce", wide, block.squeeze, extra=BIAS)
        yield _layer(f"{name}.squeeze.expand", block.squeeze, wide, extra=BIAS)
    yield _layer(f"{name}.project", wide, block.out, side)
    if block.layer_scale:
        yield _layer(f"{name}.layer_scale", 0, block.out, side, extra=BIAS)


def _attention(name: str, block: Attention, channels: int, side: int) -> Iterator[Layer]:
    queries, small = block.heads * block.dim, _out(side, 3, block.kv_stride)
    yield _layer(f"{name}.norm", 0, channels, side)
    yield _layer(f"{name}.query", channels, queries, side, extra=0)
    for part in (f"{name}.key", f"{name}.value"):
        if block.kv_stride > 1:
            yield _layer(f"{part}.0", 1, channels, small, kernel=3)
        yield _layer(f"{part}.{int(block.kv_stride > 1)}", channels, block.dim, small, extra=0)
    # Each head: every query with every key, then every weight with every value.
    yield Layer(name, channels, side, 0, 2 * queries * side**2 * small**2)
    yield _layer(f"{name}.project", queries, channels, side, extra=0)
    if block.layer_scale:
        yield _layer(f"{name}.layer_scale", 0, channels, side, extra=BIAS)


def _convnext(name: str, block: ConvNeXt, channels: int, side: int) -> Iterator[Layer]:
    out, wide = block.out, block.expand or 4 * block.out
    if block.downsample:
        yield _layer(f"{name}.downsample.0", 0, channels, side)
        side = _out(side, 2, block.stride, block.first_dilation)
        yield _layer(f"{name}.downsample.1", channels, out, side, 2, BIAS)
    yield _layer(f"{name}.depthwise", 1, out, side, block.kernel, BIAS)
    yield _layer(f"{name}.norm", 0, out, side)
    yield _layer(f"{name}.expand", out, wide, side, extra=BIAS)
    if block.grn:
        yield _layer(f"{name}.grn", 0, wide, side)
    yield _layer(f"{name}.project", wide, out, side, extra=BIAS)
    if block.layer_scale:
        yield _layer(f"{name}.layer_scale", 0, out, side, extra=BIAS)


def _residual(name: str, block: Residual, channels: int, side: int) -> Iterator[Layer]:
    smaller = _out(side, 3, block.stride)
    if block.project:
        yield _layer(f"{name}.shortcut", channels, block.out, smaller)
    if block.hidden:
        yield _layer(f"{name}.body.0", channels, block.hidden, side)
        hidden = block.hidden
        yield from _dense(f"{name}.body.1", hidden, hidden, smaller, 3, block.first_rank)
        yield _layer(f"{name}.body.2", block.hidden, block.out, smaller)
    else:
        yield from _dense(f"{name}.body.0", channels, block.out, smaller, 3, block.first_rank)
        yield from _dense(f"{name}.body.1", block.out, block.out, smaller, 3, block.rank)


def _head(spec: Spec, channels: int, side: int) -> Iterator[Layer]:
    head = spec.head
    if head.conv:
        yield _layer("head.conv", channels, head.conv, side)
        channels = head.conv
    channels *= head.grid**2
    if head.layer_norm:
        yield _layer("head.norm", 0, channels)
    for i, hidden in enumerate(head.hidden):
        # The modules between these have no parameters: see `network.Head`.
        name = f"head.hidden.{4 * i + 1 if head.hidden_norm else 3 * i}"
        yield _layer(name, channels, hidden, extra=NORM if head.hidden_norm else BIAS)
        channels = hidden
    if spec.classes:
        yield _layer("head.classifier", channels, spec.classes, extra=BIAS)


_BLOCKS: dict[type[Block], Callable[[str, Any, int, int], Iterator[Layer]]] = {
    Conv: _conv,
    Pool: _pool,
    MBConv: _mbconv,
    Attention: _attention,
    ConvNeXt: _convnext,
    Residual: _residual,
}


def _out(side: int, kernel: int, stride: int, dilation: int = 1) -> int:
    """The output's side: that of `blocks.Conv2d` and `blocks.MaxPool`."""
    if kernel % 2 or stride == 1:
        return -(-side // stride)
    return (side - dilation * (kernel - 1) - 1) // stride + 1


def _dense(
    name: str, channels: int, out: int, side: int, kernel: int, rank: int, extra: int = NORM
) -> Iterator[Layer]:
    """A dense convolution, or the two layers that stand for it at a rank."""
    if rank:
        extra += BIAS if extra == NORM else 0  # a batch norm takes no bias away from it
        yield _layer(f"{name}.conv.depthwise", 1, rank * channels, side, kernel, extra=0)
    yield _layer(name, (rank or 1) * channels, out, side, 1 if rank else kernel, extra)


def _layer(
    name: str, group_chans: int, out: int, side: int = 1, kernel: int = 1, extra: int = NORM
) -> Layer:
    """Each output sees `group_chans` channels: 1 if depthwise, 0 if there is no kernel.

    `extra` are the learned numbers of each output besides the kernel.
    """
    weights = group_chans * out * kernel**2
    return Layer(name, out, side, weights + extra * out, weights * side**2)
