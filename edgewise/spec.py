"""A network as data: the explicit numbers of every block, and nothing left to work out.

A `Spec` comes from a paper's table (`edgewise.table`) or from a JSON file, and goes back to JSON
unchanged. `edgewise.network.build` makes a module of it. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from edgewise.errors import UsageError

ACTIVATIONS = ("relu", "relu6", "hard_swish", "silu", "gelu", "sigmoid", "hard_sigmoid")
PADDINGS = ("symmetric", "same")
NORMS = ("batch", "layer", "none")
MOST_CHANNELS = 1 << 16  # far above any network of this line; catches slips of the keyboard


@dataclass(frozen=True, kw_only=True)
class Block:
    """What every block has. `dilation` is that of its convolutions larger than 1x1."""

    out: int
    stride: int = 1
    dilation: int = 1


@dataclass(frozen=True, kw_only=True)
class Conv(Block):
    """Convolution -> norm -> activation [+ input]. It has a bias unless batch norm follows."""

    kernel: int = 3
    act: str = ""
    norm: str = "batch"
    skip: bool = False


@dataclass(frozen=True, kw_only=True)
class Pool(Block):
    """Max pooling; `out` is the number of channels that come in."""

    kernel: int = 2


@dataclass(frozen=True, kw_only=True)
class MBConv(Block):
    """[start depthwise] -> [expand] -> [depthwise] -> [squeeze-excite] -> project [+ input].

    The one block of MobileNet V1-V4 and EfficientNet; 0 leaves a part out. `start`, `kernel` (of
    the depthwise convolution) and `expand_kernel` are sides of kernels, `expand` and `squeeze`
    channels. The stride sits on the depthwise convolution, else on the start one, else on expand.
    """

    kernel: int = 3
    expand: int = 0
    expand_kernel: int = 1
    start: int = 0
    squeeze: int = 0
    squeeze_act: str = "relu"
    gate: str = "sigmoid"
    act: str = ""
    linear: bool = True
    skip: bool = True
    layer_scale: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Attention(Block):
    """Mobile multi-query attention [x layer scale] + input; `dim` is channels per head."""

    heads: int
    dim: int
    kv_stride: int = 1
    layer_scale: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ConvNeXt(Block):
    """[downsample] -> (depthwise -> norm -> expand -> [GRN] -> project [x layer scale]) + input.

    `dilation` is the depthwise convolution's, `first_dilation` the downsampling one's.
    """

    expand: int = 0
    kernel: int = 7
    grn: bool = False
    layer_scale: float = 0.0
    downsample: bool = False
    first_dilation: int = 1


@dataclass(frozen=True, kw_only=True)
class Residual(Block):
    """ResNet's block: two 3x3 convolutions, or 1x1, 3x3, 1x1 with `hidden` channels in between.

    `project` puts a 1x1 convolution on the shortcut. The first 3x3 convolution has the stride and
    `first_dilation`.
    """

    hidden: int = 0
    project: bool = False
    first_dilation: int = 1


@dataclass(frozen=True, kw_only=True)
class Head:
    """[conv 1x1] -> average pool -> [layer norm] -> [hidden layers] -> dropout -> classifier.

    `conv` and `hidden` are channels. The pooling leaves `grid` x `grid` numbers a channel. Hidden
    layers have batch norm instead of a bias with `hidden_norm`.
    """

    conv: int = 0
    grid: int = 1
    layer_norm: bool = False
    hidden: tuple[int, ...] = ()
    hidden_norm: bool = False
    act: str = "relu"
    dropout: float = 0.0


@dataclass(frozen=True)
class Feature:
    """The shape of one map of `Network.features`: its channels, and its stride to the input."""

    channels: int
    stride: int


@dataclass(frozen=True)
class Spec:
    """Everything that `build` needs: explicit numbers for every block.

    Stage k holds the blocks of one resolution: only its first block may have a stride. The first
    stage is at the stem's stride; it may be empty.

    `norm_eps` is 1e-3 in most papers' code and 1e-5 in some PyTorch weights; the shapes are the
    same and the outputs are not, so it travels with the weights. `norm_momentum` is PyTorch's 0.1
    rather than the papers' .001-.01: theirs needs hundreds of thousands of steps to settle.
    `drop_path` is the rate of stochastic depth: block i of n drops its branch with i/n of it.

    Raises:
        UsageError: a number that can't be built; the message names the row.
    """

    name: str
    in_chans: int
    classes: int
    stem: Conv
    stages: tuple[tuple[Block, ...], ...]
    head: Head
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
        """A dictionary of plain JSON values; a block's class is its "kind"."""
        value = asdict(self)
        value["stages"] = [
            [{"kind": type(block).__name__, **asdict(block)} for block in stage]
            for stage in self.stages
        ]
        value["head"]["hidden"] = list(self.head.hidden)
        return value

    @classmethod
    def from_json(cls, value: Any) -> Spec:
        """The inverse of `to_json`; what has a default may be left out.

        Raises:
            UsageError: a key is missing, unknown, of the wrong type or out of range; the message
                names the row.
        """
        plain = _typed(cls, value, "it")
        stages, rows = plain["stages"], (list, tuple)
        if not isinstance(stages, rows) or not all(isinstance(stage, rows) for stage in stages):
            raise UsageError("spec: stages must be a list of lists of blocks")
        plain["stem"] = Conv(**_typed(Conv, plain["stem"], "stem"))
        plain["head"] = Head(**_typed(Head, plain["head"], "head"))
        plain["stages"] = tuple(
            tuple(_block(block, f"stages[{s}][{b}]") for b, block in enumerate(stage))
            for s, stage in enumerate(stages)
        )
        return cls(**plain)


KINDS: dict[str, type[Block]] = {
    kind.__name__: kind for kind in (Conv, Pool, MBConv, Attention, ConvNeXt, Residual)
}


def _block(value: Any, where: str) -> Block:
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind not in KINDS:
        known = ", ".join(KINDS)
        raise UsageError(f"spec: {where} must be an object whose kind is one of {known}")
    plain = {name: item for name, item in value.items() if name != "kind"}
    return KINDS[kind](**_typed(KINDS[kind], plain, where))


def _typed(kind: type, value: Any, where: str) -> dict[str, Any]:
    """`value` as the arguments of the dataclass `kind`: known names, checked types."""
    plain_types: dict[str, tuple[type, ...]] = {
        "int": (int,),
        "str": (str,),
        "bool": (bool,),
        "float": (int, float),
    }
    if not isinstance(value, dict):
        raise UsageError(f"spec: {where} must be an object, not {value!r}")
    known = {field.name: field for field in fields(kind)}
    needed = {name for name, field in known.items() if field.default is MISSING}
    for name in sorted((needed - value.keys()) | (value.keys() - known.keys())):
        state = "lacks" if name in needed else "has the unknown key"
        raise UsageError(f"spec: {where} {state} '{name}'")
    for name, item in value.items():
        wanted = str(known[name].type)
        allowed = plain_types.get(wanted, (object,))
        if not isinstance(item, allowed) or (isinstance(item, bool) and int in allowed):
            raise UsageError(f"spec: {where}: {name} must be {wanted}, not {item!r}")
    return {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}


Rule = tuple[Callable[[Any], bool], str]


def _within(least: float, most: float) -> Rule:
    return lambda value: least <= value <= most, f"from {least} to {most}"


def _one_of(names: tuple[str, ...]) -> Rule:
    return lambda value: value in names, f"one of {', '.join(name or '(none)' for name in names)}"


_ODD: Rule = (lambda value: value in range(1, 32, 2), "odd, from 1 to 31")
_ODD_OR_0: Rule = (lambda value: value in (0, *range(1, 32, 2)), "0 or odd, up to 31")
_BELOW_1: Rule = (lambda value: 0 <= value < 1, "at least 0 and below 1")
_ABOVE_0: Rule = (lambda value: 0 < value < 1, "between 0 and 1")
_CHANNELS, _CHANNELS_OR_0 = _within(1, MOST_CHANNELS), _within(0, MOST_CHANNELS)
_ACT = _one_of(("", *ACTIVATIONS))
# By name, or by class and name where one class has a rule of its own.
_RULES: dict[str, Rule] = {
    **dict.fromkeys(("out", "in_chans", "heads", "dim"), _CHANNELS),
    **dict.fromkeys(("classes", "conv", "expand", "squeeze", "Residual.hidden"), _CHANNELS_OR_0),
    "Head.hidden": (
        lambda sizes: isinstance(sizes, tuple) and all(n in range(1, MOST_CHANNELS) for n in sizes),
        f"a list of numbers {_CHANNELS[1]}",
    ),
    **dict.fromkeys(("act", "squeeze_act", "gate"), _ACT),
    "padding": _one_of(PADDINGS),
    "norm": _one_of(NORMS),
    "stride": (lambda value: value in (1, 2, 4), "1, 2 or 4"),
    "kernel": _ODD,
    "MBConv.kernel": _ODD_OR_0,
    "Conv.kernel": _within(1, 31),
    "Pool.kernel": _within(2, 31),
    "start": _ODD_OR_0,
    "expand_kernel": _ODD,
    "kv_stride": _within(1, 8),
    "grid": _within(1, 64),
    **dict.fromkeys(("dilation", "first_dilation"), _within(1, 64)),
    **dict.fromkeys(("drop_path", "dropout", "layer_scale"), _BELOW_1),
    **dict.fromkeys(("norm_eps", "norm_momentum"), _ABOVE_0),
}


def _check(spec: Spec) -> None:
    """Raises UsageError for the first number of `spec` that can't be built."""

    def need(holds: bool, where: str, what: str) -> None:
        if not holds:
            raise UsageError(f"spec '{spec.name}': {where}: {what}")

    blocks = [
        (f"stages[{s}][{b}]", block)
        for s, stage in enumerate(spec.stages)
        for b, block in enumerate(stage)
    ]
    for where, row in [("network", spec), ("stem", spec.stem), ("head", spec.head), *blocks]:
        for name, value in vars(row).items():
            rule = _RULES.get(f"{type(row).__name__}.{name}", _RULES.get(name))
            if rule:
                need(rule[0](value), where, f"{name} must be {rule[1]}, not {value!r}")
    need(bool(spec.stages), "stages", "there must be one at least")
    for s, stage in enumerate(spec.stages):
        need(s == 0 or bool(stage), f"stages[{s}]", "only the first stage may be empty")

    previous = spec.stem.out
    for where, block in blocks:
        first = where.endswith("[0]") and not where.startswith("stages[0]")
        need(
            block.stride == 1 or first,
            where,
            "stride must be 1: only the first block of a stage after the first may have more",
        )
        skips = {
            Attention: True,
            Pool: False,
            ConvNeXt: not getattr(block, "downsample", False),
            Residual: not getattr(block, "project", False),
        }.get(type(block), getattr(block, "skip", False))
        need(
            not skips or (block.stride == 1 and block.out == previous),
            where,
            f"skip needs stride 1 and as many channels out ({block.out}) as in ({previous})",
        )
        if isinstance(block, Pool):
            need(block.out == previous, where, f"out must be what comes in, {previous}")
        if isinstance(block, MBConv) and block.stride > 1:
            kernels = block.start, block.kernel, block.expand and block.expand_kernel
            need(max(kernels) > 1, where, "a stride needs a kernel larger than 1")
        previous = block.out
