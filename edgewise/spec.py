"""A network as data: a paper's table of rows, and the explicit numbers it resolves into.

`Table` and `Row` are written by people, beside the paper. `scale` resolves them into a `Spec`,
which holds the channels of every block and nothing that still has to be worked out; it goes to JSON
and back unchanged, and `edgewise.network.build` makes a module of it. Nothing here needs torch.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeVar

from edgewise.errors import UsageError

ACTIVATIONS = ("relu", "relu6", "hard_swish", "silu", "sigmoid", "hard_sigmoid")
PADDINGS = ("symmetric", "same")
MOST_CHANNELS = 1 << 16  # far above any network of this line; catches slips of the keyboard

T = TypeVar("T", "Conv", "Block", "Head")


# --- what a person writes ---------------------------------------------------------------------


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


# --- what a program reads ---------------------------------------------------------------------


@dataclass(frozen=True)
class Conv:
    """A convolution with batch norm and activation."""

    out: int
    kernel: int
    stride: int
    act: str


@dataclass(frozen=True)
class Block:
    """[expand 1x1] -> depthwise -> [squeeze-excite] -> project 1x1 [+ input], in channels.

    `expand` and `squeeze` are channels; 0 leaves the part out.
    """

    kernel: int
    expand: int
    out: int
    stride: int
    squeeze: int
    act: str
    linear: bool
    skip: bool


@dataclass(frozen=True)
class Head:
    """[conv 1x1] -> average pool -> [hidden layer with bias] -> dropout -> classifier.

    `conv` and `hidden` are channels; 0 leaves the part out.
    """

    conv: int
    hidden: int
    act: str
    dropout: float


@dataclass(frozen=True)
class Feature:
    """The shape of one map of `Network.features`: its channels, and its stride to the input."""

    channels: int
    stride: int


@dataclass(frozen=True)
class Spec:
    """Everything that `build` needs: explicit numbers for every block.

    Stage k holds the blocks of one resolution: only its first block has stride 2. The first stage
    is at the stem's stride; it may be empty.

    `norm_eps` is 1e-3 in all the papers' code and 1e-5 in some PyTorch weights; the shapes are the
    same and the outputs are not, so it travels with the weights. `norm_momentum` is PyTorch's 0.1
    rather than the papers' .001-.01: theirs needs hundreds of thousands of steps to settle.

    Raises:
        UsageError: a number that can't be built; the message names the row.
    """

    name: str
    in_chans: int
    classes: int
    stem: Conv
    stages: tuple[tuple[Block, ...], ...]
    head: Head
    squeeze_act: str = "relu"
    gate: str = "sigmoid"
    padding: str = "symmetric"
    norm_eps: float = 1e-3
    norm_momentum: float = 0.1
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        _check(self)

    def features(self) -> tuple[Feature, ...]:
        """Channels and stride of each map of `Network.features`, without a tensor."""
        channels, stride, maps = self.stem.out, self.stem.stride, []
        for stage in self.stages:
            for block in stage:
                channels, stride = block.out, stride * block.stride
            maps.append(Feature(channels, stride))
        return tuple(maps)

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Spec:
        """The inverse of `to_json`.

        Raises:
            UsageError: a key is missing, unknown, of the wrong type or out of range; the message
                names the row.
        """
        plain = _typed(cls, value, "spec")
        stages = plain["stages"]
        rows = (list, tuple)
        if not isinstance(stages, rows) or not all(isinstance(stage, rows) for stage in stages):
            raise UsageError("spec: stages must be a list of lists of blocks")
        plain["stem"] = _read(Conv, plain["stem"], "stem")
        plain["head"] = _read(Head, plain["head"], "head")
        plain["stages"] = tuple(
            tuple(_read(Block, block, f"stages[{s}][{b}]") for b, block in enumerate(stage))
            for s, stage in enumerate(stages)
        )
        return cls(**plain)


def _typed(kind: type, value: Any, where: str) -> dict[str, Any]:
    """`value` as a dictionary with exactly the fields of the dataclass `kind`, types checked."""
    plain_types: dict[str, tuple[type, ...]] = {
        "int": (int,),
        "str": (str,),
        "bool": (bool,),
        "float": (int, float),
    }
    if not isinstance(value, dict):
        raise UsageError(f"spec: {where} must be an object, not {value!r}")
    types = {field.name: str(field.type) for field in fields(kind)}
    for name in types.keys() ^ value.keys():
        state = "lacks" if name in types else "has the unknown key"
        raise UsageError(f"spec: {where} {state} '{name}'")
    for name, item in value.items():
        allowed = plain_types.get(types[name])
        if allowed and (
            not isinstance(item, allowed) or (isinstance(item, bool) and bool not in allowed)
        ):
            raise UsageError(f"spec: {where}: {name} must be {types[name]}, not {item!r}")
    return dict(value)


def _read(kind: type[T], value: Any, where: str) -> T:
    return kind(**_typed(kind, value, where))


def _check(spec: Spec) -> None:
    """Raises UsageError for the first number of `spec` that can't be built."""

    def need(holds: bool, where: str, what: str) -> None:
        if not holds:
            raise UsageError(f"spec '{spec.name}': {where}: {what}")

    def channels(value: int, where: str, what: str, least: int = 1) -> None:
        need(
            least <= value <= MOST_CHANNELS,
            where,
            f"{what} must be from {least} to {MOST_CHANNELS}, not {value}",
        )

    def conv(row: Conv | Block, where: str) -> None:
        channels(row.out, where, "out")
        need(
            row.kernel in range(1, 32, 2),
            where,
            f"kernel must be odd, from 1 to 31, not {row.kernel}",
        )
        need(row.stride in (1, 2), where, f"stride must be 1 or 2, not {row.stride}")
        act(row.act, where)

    def act(name: str, where: str) -> None:
        need(name in ACTIVATIONS, where, f"unknown activation '{name}'")

    channels(spec.in_chans, "in_chans", "it")
    channels(spec.classes, "classes", "it", least=0)
    need(spec.padding in PADDINGS, "padding", f"must be one of {', '.join(PADDINGS)}")
    need(0 < spec.norm_eps < 1, "norm_eps", f"must be between 0 and 1, not {spec.norm_eps}")
    need(0 < spec.norm_momentum <= 1, "norm_momentum", "must be above 0 and at most 1")
    need(0 <= spec.drop_path < 1, "drop_path", "must be at least 0 and below 1")
    need(0 <= spec.head.dropout < 1, "head", "dropout must be at least 0 and below 1")
    need(bool(spec.stages), "stages", "there must be one at least")
    channels(spec.head.conv, "head", "conv", least=0)
    channels(spec.head.hidden, "head", "hidden", least=0)
    for name in (spec.head.act, spec.squeeze_act, spec.gate):
        act(name, "head or squeeze-excite")
    conv(spec.stem, "stem")
    previous = spec.stem.out
    for s, stage in enumerate(spec.stages):
        need(s == 0 or bool(stage), f"stages[{s}]", "only the first stage may be empty")
        for b, block in enumerate(stage):
            where = f"stages[{s}][{b}]"
            conv(block, where)
            channels(block.expand, where, "expand", least=0)
            channels(block.squeeze, where, "squeeze", least=0)
            need(
                (block.stride == 2) == (s > 0 and b == 0),
                where,
                "stride must be 2 in the first block of each stage after the first, 1 elsewhere",
            )
            need(
                not block.skip or (block.stride == 1 and block.out == previous),
                where,
                f"skip needs stride 1 and as many channels out ({block.out}) as in ({previous})",
            )
            previous = block.out


# --- from the one to the other ----------------------------------------------------------------


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
