"""A paper's architecture table, as a person writes it, and the numbers that it resolves into.

The families write a `Table` of `Row`s beside the paper. `scale` resolves it, at any width and
depth, into a `Spec`: the explicit channels of every block. Nothing here needs torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from edgewise.errors import UsageError
from edgewise.spec import Block, Conv, Head, Spec


@dataclass(frozen=True)
class Row:
    """One row of a paper's table: `repeats` blocks with the same numbers.

    Attributes:
        kernel: side of the depthwise kernel.
        expand: width of the depthwise convolution as a ratio of the block's input channels; with 1
            there is no expand convolution.
        out: output channels at width 1.
        stride: of the first block; the others have stride 1.
        repeats: number of blocks at depth 1.
        squeeze: squeeze-excite ratio; 0 for none. `Table.squeeze_from` says of what.
        act: activation; "" for the table's.
        linear: whether the projection is linear (V2 and later) or has the activation (V1).
        skip: whether the input is added where stride and channels allow it (not in V1).
        deepens: whether the depth multiplier changes `repeats`.
    """

    kernel: int
    expand: float
    out: int
    stride: int = 1
    repeats: int = 1
    squeeze: float = 0.0
    act: str = ""
    linear: bool = True
    skip: bool = True
    deepens: bool = True


@dataclass(frozen=True)
class Channels:
    """Channels at an end of a network (stem or head), and how they follow the width multiplier.

    `scales` is "width" (they follow it), "up" (never below `base`) or "fixed".
    """

    base: int
    scales: Literal["width", "up", "fixed"] = "width"

    def at(self, width: float, divisor: int) -> int:
        """The number at a width multiplier, rounded to a multiple of `divisor`."""
        factor = {"width": width, "up": max(1.0, width), "fixed": 1.0}[self.scales]
        return round_channels(self.base * factor, divisor)


@dataclass(frozen=True)
class Table:
    """A paper's architecture table with the rules that surround it.

    Attributes:
        stem: channels of the first 3x3 convolution, stride 2.
        rows: the body.
        head_conv: channels of the 1x1 convolution before the pooling; None for none.
        head_hidden: width of the layer with bias between pooling and classifier; None for none.
        act: activation of stem, head and each row that names no other.
        squeeze_from: whether a squeeze ratio is of the block's expanded or input channels.
        squeeze_act: activation between the two squeeze-excite convolutions.
        gate: activation after them.
        divisor: channels are rounded to multiples of this.
        padding: "symmetric" (PyTorch's) or "same" (TensorFlow's, asymmetric at stride 2).
        dropout: probability before the classifier.
        drop_path: probability for the last block; block i of n has i/n of it.
    """

    name: str
    stem: Channels
    rows: tuple[Row, ...]
    head_conv: Channels | None
    head_hidden: Channels | None = None
    act: str = "relu6"
    squeeze_from: Literal["expanded", "input"] = "input"
    squeeze_act: str = "relu"
    gate: str = "sigmoid"
    divisor: int = 8
    padding: str = "symmetric"
    dropout: float = 0.2
    drop_path: float = 0.0


def round_channels(value: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor`, never more than 10% below `value` (MobileNetV2's code).

    With divisor 1 the value is cut to a whole number, as MobileNetV1's code does.
    """
    if divisor == 1:
        return max(1, int(value))
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def scale(
    table: Table, width: float = 1.0, depth: float = 1.0, classes: int = 1000, in_chans: int = 3
) -> Spec:
    """Resolves a table into explicit channels.

    Args:
        table: the paper's table.
        width: multiplies channels (each family's own rule for the ends is in its table).
        depth: multiplies repeats, rounded up (EfficientNet, arXiv 1905.11946, section 3.3).
        classes: outputs of the classifier; 0 for the pooled features.
        in_chans: channels of the input.

    Raises:
        UsageError: width or depth is not above 0, or a number of the result can't be built.
    """
    if not (0 < width < math.inf and 0 < depth < math.inf):
        raise UsageError(f"width and depth must be above 0, not {width} and {depth}")
    stem = Conv(table.stem.at(width, table.divisor), kernel=3, stride=2, act=table.act)
    stages: list[list[Block]] = [[]]
    channels = stem.out
    for row in table.rows:
        for i in range(math.ceil(row.repeats * depth) if row.deepens else row.repeats):
            block = _resolve(row, table, channels, width, first=i == 0)
            if block.stride == 2:
                stages.append([])
            stages[-1].append(block)
            channels = block.out
    head = Head(
        conv=table.head_conv.at(width, table.divisor) if table.head_conv else 0,
        hidden=table.head_hidden.at(width, table.divisor) if table.head_hidden else 0,
        act=table.act,
        dropout=table.dropout,
    )
    return Spec(
        name=table.name,
        in_chans=in_chans,
        classes=classes,
        stem=stem,
        stages=tuple(tuple(stage) for stage in stages),
        head=head,
        squeeze_act=table.squeeze_act,
        gate=table.gate,
        padding=table.padding,
        drop_path=table.drop_path,
    )


def _resolve(row: Row, table: Table, channels: int, width: float, *, first: bool) -> Block:
    """One block of `row` on an input of `channels`."""
    out = round_channels(row.out * width, table.divisor)
    stride = row.stride if first else 1
    expanded = channels if row.expand == 1 else round_channels(channels * row.expand)
    if table.squeeze_from == "expanded":  # MobileNetV3
        squeeze = round_channels(expanded * row.squeeze)
    else:  # EfficientNet
        squeeze = max(1, int(channels * row.squeeze))
    return Block(
        kernel=row.kernel,
        expand=0 if row.expand == 1 else expanded,
        out=out,
        stride=stride,
        squeeze=squeeze if row.squeeze else 0,
        act=row.act or table.act,
        linear=row.linear,
        skip=row.skip and stride == 1 and out == channels,
    )
