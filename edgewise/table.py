"""A paper's architecture table, as a person writes it, and the numbers that it resolves into.

The families write a `Table` of `Row`s beside the paper. `scale` resolves it, at any width and
depth, into a `Spec`: the explicit channels of every block. Nothing here needs torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from edgewise.errors import UsageError
from edgewise.spec import AnyBlock, Conv, ConvNeXt, Head, MBConv, Residual, Spec

STEM = Conv(out=0, stride=2)  # 3x3; channels and activation come from the table
HEAD = Head()


@dataclass(frozen=True)
class Row:
    """One row of a paper's table: `repeats` blocks with the same numbers.

    Attributes:
        block: the block at width 1. Its stride is that of the first; the others have 1. `out` is
            0 where it is what comes in, `act` is "" for the table's. `expand` and `squeeze` are
            left out: the ratios give them.
        repeats: number of blocks at depth 1.
        expand: width inside of the block as a ratio of its input channels; with 1 there is no
            expand convolution.
        squeeze: squeeze-excite ratio; 0 for none. `Table.squeeze_from` says of what.
        deepens: whether the depth multiplier changes `repeats`.

    Raises:
        UsageError: the block says `expand` or `squeeze` in channels.
    """

    block: AnyBlock
    repeats: int = 1
    expand: float = 1.0
    squeeze: float = 0.0
    deepens: bool = True

    def __post_init__(self) -> None:
        for field in ("expand", "squeeze"):
            if channels := getattr(self.block, field, 0):
                raise UsageError(
                    f"{field}={channels} of a row's {self.block.kind} would be lost: the row gives "
                    f"it from the channels. Say it as the row's ratio: Row(block, {field}=...)."
                )

    def times(self, depth: float) -> int:
        """Its number of blocks at a depth multiplier, rounded up."""
        return math.ceil(self.repeats * depth) if self.deepens else self.repeats


@dataclass(frozen=True)
class Channels:
    """Channels at an end of a network (stem or head), and how they follow the width multiplier.

    `scales` is "width" (they follow it), "up" (never below `base`) or "fixed".
    """

    base: int
    scales: Literal["width", "up", "fixed"] = "width"


@dataclass(frozen=True)
class Table:
    """A paper's architecture table with the rules that surround it.

    Attributes:
        stem: channels of the first convolution.
        rows: the body.
        head_conv: channels of the 1x1 convolution before the pooling; None for none.
        head_hidden: width of each layer between pooling and classifier.
        first: kernel, stride and norm of the first convolution.
        head: what else the head has, see `Head`.
        act: activation of stem, head and each row that names none.
        deepens: whether the paper has a depth multiplier.
        squeeze_from: whether a squeeze ratio is of the block's expanded or input channels.
        divisor: channels are rounded to multiples of this.
        least: rounding never takes more than this fraction away.
        padding: "symmetric" (PyTorch's) or "same" (TensorFlow's, asymmetric at stride 2).
        norm_eps: epsilon of all norms.
        dropout: probability before the classifier.
        drop_path: rate of stochastic depth, see `Spec`.
    """

    name: str
    stem: Channels
    rows: tuple[Row, ...]
    head_conv: Channels | None = None
    head_hidden: tuple[Channels, ...] = ()
    first: Conv = STEM
    head: Head = HEAD
    act: str = "relu6"
    deepens: bool = False
    squeeze_from: Literal["expanded", "input"] = "input"
    divisor: int = 8
    least: float = 0.9
    padding: str = "symmetric"
    norm_eps: float = 1e-3
    dropout: float = 0.2
    drop_path: float = 0.0

    def channels(self, value: float) -> int:
        """`value` rounded as the paper's code does."""
        return round_channels(value, self.divisor, self.least)

    def end(self, channels: Channels, width: float) -> int:
        """Channels of the stem or the head at a width multiplier."""
        factor = {"width": width, "up": max(1.0, width), "fixed": 1.0}[channels.scales]
        return self.channels(channels.base * factor)


def round_channels(value: float, divisor: int = 8, least: float = 0.9) -> int:
    """The nearest multiple of `divisor`, never less than `least` of `value` (MobileNetV2's code).

    With divisor 1 the value is cut to a whole number, as MobileNetV1's code does.
    """
    if divisor == 1:
        return max(1, int(value))
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < least * value else rounded


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
        UsageError: width or depth is not above 0, the paper has no depth multiplier, or a number
            of the result can't be built.
    """
    if depth != 1 and not table.deepens:
        raise UsageError(f"{table.name} has no depth multiplier; EfficientNets have.")
    if not (0 < width < math.inf and 0 < depth < math.inf):
        raise UsageError(f"width and depth must be above 0, not {width} and {depth}")
    stem = replace(table.first, out=table.end(table.stem, width))
    if not stem.act and stem.norm == "batch":
        stem = replace(stem, act=table.act)
    stages: list[list[AnyBlock]] = [[]]
    channels = stem.out
    for row in table.rows:
        for i in range(row.times(depth)):
            block = _resolve(row, table, channels, width, first=i == 0)
            if block.stride > 1:
                stages.append([])
            stages[-1].append(block)
            channels = block.out
    head = replace(
        table.head,
        conv=table.end(table.head_conv, width) if table.head_conv else 0,
        hidden=tuple(table.end(layer, width) for layer in table.head_hidden),
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
        padding=table.padding,
        norm_eps=table.norm_eps,
        drop_path=table.drop_path,
    )


def _resolve(row: Row, table: Table, channels: int, width: float, *, first: bool) -> AnyBlock:
    """One block of `row` on an input of `channels`."""
    block = row.block
    out = table.channels(block.out * width) if block.out else channels
    stride = block.stride if first else 1
    same = stride == 1 and out == channels
    numbers: dict[str, Any] = {"out": out, "stride": stride}
    if isinstance(block, (Conv, MBConv)):
        numbers |= {"act": block.act or table.act, "skip": block.skip and same}
    if isinstance(block, MBConv):
        wide = round_channels(channels * row.expand)
        inside = wide if row.expand != 1 else channels
        if table.squeeze_from == "expanded":  # MobileNetV3
            squeeze = round_channels(inside * row.squeeze)
        else:  # EfficientNet
            squeeze = max(1, int(channels * row.squeeze))
        numbers |= {
            "expand": wide if row.expand != 1 else 0,
            "squeeze": squeeze if row.squeeze else 0,
        }
    if isinstance(block, ConvNeXt):
        numbers |= {"expand": round(out * row.expand), "downsample": not same}
    if isinstance(block, Residual):
        numbers |= {"hidden": table.channels(block.hidden * width) if block.hidden else 0}
        numbers |= {"project": not same}
    return replace(block, **numbers)


@dataclass(frozen=True)
class Variant:
    """One network that people know by name.

    Attributes:
        name: ours.
        table: the paper's table.
        input_size: height and width that it was published for, in pixels.
        top1: published ImageNet top-1 accuracy, in percent.
        top1_source: whose figure that is.
        width: the variant's own width multiplier.
        depth: the variant's own depth multiplier.
        dropout: before the classifier.
        timm: timm's name; "" where it is ours.
    """

    name: str
    table: Table
    input_size: int
    top1: float
    top1_source: str
    width: float = 1.0
    depth: float = 1.0
    dropout: float = 0.2
    timm: str = ""

    def spec(
        self, width: float = 1.0, classes: int = 1000, in_chans: int = 3, depth: float = 1.0
    ) -> Spec:
        """The explicit numbers; `width` and `depth` multiply the variant's own.

        Raises:
            UsageError: a number is out of range.
        """
        table = replace(self.table, dropout=self.dropout)
        spec = scale(table, self.width * width, self.depth * depth, classes, in_chans)
        changed = [f"_{width:g}"] if width != 1 else []
        changed += [f"_depth_{depth:g}"] if depth != 1 else []
        return replace(spec, name=self.name + "".join(changed))
