"""A network as data: the explicit numbers of every block, and nothing left to work out.

A `Spec` comes from a paper's table (`edgewise.table`) or from a JSON file, and goes back to JSON
unchanged. `edgewise.network.build` makes a module of it. Nothing here needs torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from edgewise.errors import UsageError

ACTIVATIONS = ("relu", "relu6", "hard_swish", "silu", "sigmoid", "hard_sigmoid")
PADDINGS = ("symmetric", "same")
MOST_CHANNELS = 1 << 16  # far above any network of this line; catches slips of the keyboard

T = TypeVar("T", "Conv", "Block", "Head")


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
