"""A network as data: the explicit numbers of every block, and nothing left to work out.

A `Spec` comes from a paper's table (`edgewise.table`) or from a JSON file, and goes back to JSON
unchanged. `edgewise.network.build` makes a module of it. Nothing here needs torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from edgewise.errors import UsageError
from edgewise.validation import from_plain, one_of, record

ACTIVATIONS = ("relu", "relu6", "hard_swish", "silu", "gelu", "sigmoid", "hard_sigmoid")
MOST_CHANNELS = 1 << 16  # far above any network of this line; catches slips of the keyboard

Activation = Annotated[str, one_of("", *ACTIVATIONS)]
Channels = Annotated[int, Field(ge=0, le=MOST_CHANNELS)]  # 0, where it is allowed, is "none"
Side = Annotated[int, Field(ge=1, le=64)]
Odd = Annotated[int, one_of(*range(1, 32, 2))]  # sides of kernels
Rank = Annotated[int, Field(ge=0, le=31 * 31)]  # of a dense kernel, taken apart; 0: it is not
OddOr0 = Annotated[int, one_of(0, *range(1, 32, 2))]
Part = Annotated[float, Field(ge=0, lt=1)]


@record(kw_only=True)
class Block:
    """What every block has. `dilation` is that of its convolutions larger than 1x1."""

    out: Channels
    stride: Annotated[int, one_of(1, 2, 4)] = 1
    dilation: Side = 1


@record(kw_only=True)
class Conv(Block):
    """Convolution -> norm -> activation [+ input]. It has a bias unless batch norm follows.

    With a `rank` the convolution is a sum of that many depthwise separable ones, see
    `edgewise.layers.Separated`; so it is with the ranks of other blocks.
    """

    kind: Literal["Conv"] = "Conv"
    kernel: Side = 3
    rank: Rank = 0
    act: Activation = ""
    norm: Annotated[str, one_of("batch", "layer", "none")] = "batch"
    skip: bool = False


@record(kw_only=True)
class Pool(Block):
    """Max pooling; `out` is the number of channels that come in."""

    kind: Literal["Pool"] = "Pool"
    kernel: Annotated[int, Field(ge=2, le=31)] = 2


@record(kw_only=True)
class MBConv(Block):
    """[start depthwise] -> [expand] -> [depthwise] -> [squeeze-excite] -> project [+ input].

    The one block of MobileNet V1-V4 and EfficientNet; 0 leaves a part out. `start`, `kernel` (of
    the depthwise convolution) and `expand_kernel` are sides of kernels, `expand` and `squeeze`
    channels. The stride sits on the depthwise convolution, else on the start one, else on expand.
    """

    kind: Literal["MBConv"] = "MBConv"
    kernel: OddOr0 = 3
    expand: Channels = 0
    expand_kernel: Odd = 1
    expand_rank: Rank = 0
    start: OddOr0 = 0
    squeeze: Channels = 0
    squeeze_act: Activation = "relu"
    gate: Activation = "sigmoid"
    act: Activation = ""
    linear: bool = True
    skip: bool = True
    layer_scale: Part = 0.0


@record(kw_only=True)
class Attention(Block):
    """Mobile multi-query attention [x layer scale] + input; `dim` is channels per head."""

    kind: Literal["Attention"] = "Attention"
    heads: Annotated[int, Field(ge=1, le=MOST_CHANNELS)]
    dim: Annotated[int, Field(ge=1, le=MOST_CHANNELS)]
    kv_stride: Side = 1
    layer_scale: Part = 0.0


@record(kw_only=True)
class ConvNeXt(Block):
    """[downsample] -> (depthwise -> norm -> expand -> [GRN] -> project [x layer scale]) + input.

    `act` follows the expansion, and is GELU in the papers. `dilation` is the depthwise
    convolution's, `first_dilation` the downsampling one's.
    """

    kind: Literal["ConvNeXt"] = "ConvNeXt"
    expand: Channels = 0
    kernel: Odd = 7
    act: Activation = "gelu"
    grn: bool = False
    layer_scale: Part = 0.0
    downsample: bool = False
    first_dilation: Side = 1


@record(kw_only=True)
class Residual(Block):
    """ResNet's block: two 3x3 convolutions, or 1x1, 3x3, 1x1 with `hidden` channels in between.

    `project` puts a 1x1 convolution on the shortcut. The first 3x3 convolution has the stride,
    `first_dilation` and `first_rank`.
    """

    kind: Literal["Residual"] = "Residual"
    hidden: Channels = 0
    project: bool = False
    first_dilation: Side = 1
    first_rank: Rank = 0
    rank: Rank = 0


@record(kw_only=True)
class Head:
    """[conv 1x1] -> average pool -> [layer norm] -> [hidden layers] -> dropout -> classifier.

    `conv` and `hidden` are channels. The pooling leaves `grid` x `grid` numbers a channel. Hidden
    layers have batch norm instead of a bias with `hidden_norm`.
    """

    conv: Channels = 0
    grid: Side = 1
    layer_norm: bool = False
    hidden: tuple[Annotated[int, Field(ge=1, le=MOST_CHANNELS)], ...] = ()
    hidden_norm: bool = False
    act: Activation = "relu"
    dropout: Part = 0.0


@dataclass(frozen=True)
class Feature:
    """The shape of one map of `Network.features`: its channels, and its stride to the input."""

    channels: int
    stride: int


AnyBlock = Annotated[
    Conv | Pool | MBConv | Attention | ConvNeXt | Residual, Field(discriminator="kind")
]


@record()
class Spec:
    """Everything that `build` needs: explicit numbers for every block.

    Stage k holds the blocks of one resolution: only its first block may have a stride. The first
    stage is at the stem's stride; it may be empty.

    `padding` is "symmetric" (PyTorch's) or "same" (TensorFlow's, asymmetric at stride 2).
    `norm_eps` is 1e-3 in most papers' code and 1e-5 in some PyTorch weights; the shapes are the
    same and the outputs are not, so it travels with the weights. `norm_momentum` is PyTorch's 0.1
    rather than the papers' .001-.01: theirs needs hundreds of thousands of steps to settle.
    `drop_path` is the rate of stochastic depth: block i of n drops its branch with i/n of it.

    Raises:
        UsageError: a number that can't be built; the message names the row.
    """

    name: str
    in_chans: Annotated[int, Field(ge=1, le=MOST_CHANNELS)]
    classes: Channels
    stem: Conv
    stages: tuple[tuple[AnyBlock, ...], ...]
    head: Head
    padding: Annotated[str, one_of("symmetric", "same")] = "symmetric"
    norm_eps: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    norm_momentum: Annotated[float, Field(gt=0, lt=1)] = 0.1
    drop_path: Part = 0.0

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
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Spec:
        """The inverse of `to_json`; what has a default may be left out.

        Raises:
            UsageError: a key is missing, unknown, of the wrong type or out of range; the message
                names the row.
        """
        return from_plain(cls, value, "spec")


def dense_kernels(block: Block) -> dict[str, int]:
    """The dense kernels larger than 1x1 that can have a rank: the field of it, and their side.

    ConvNeXt's 2x2 ones, about 4 % of its MACs, have no such field.
    """
    kernels: dict[str, int] = {}
    if isinstance(block, Conv):
        kernels = {"rank": block.kernel}
    elif isinstance(block, MBConv) and block.expand:
        kernels = {"expand_rank": block.expand_kernel}
    elif isinstance(block, Residual):
        kernels = {"first_rank": 3} if block.hidden else {"first_rank": 3, "rank": 3}
    return {field: side for field, side in kernels.items() if side > 1}


def _check(spec: Spec) -> None:
    """Raises UsageError for the first number of `spec` that can't be built."""

    def need(holds: bool, where: str, what: str) -> None:
        if not holds:
            raise UsageError(f"spec '{spec.name}': {where}: {what}")

    need(bool(spec.stages), "stages", "there must be one at least")
    need(all(spec.stages[1:]), "stages", "only the first may be empty")
    need(spec.stem.out > 0, "stem", "out must be at least 1")
    need(not spec.stem.rank, "stem", "rank must be 0: its kernel is adapted to other channels")
    previous = spec.stem.out
    blocks = [(s, b, x) for s, stage in enumerate(spec.stages) for b, x in enumerate(stage)]
    for s, b, block in blocks:
        where = f"stages[{s}][{b}]"
        need(block.out > 0, where, "out must be at least 1")
        need(
            block.stride == 1 or (s > 0 and b == 0),
            where,
            "stride must be 1: only the first block of a stage after the first may have more",
        )
        skips = {
            Attention: True,
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
        sides = dense_kernels(block)
        for field in ("rank", "first_rank", "expand_rank"):
            most = sides.get(field, 0) ** 2
            need(getattr(block, field, 0) <= most, where, f"{field} must be at most {most}")
        previous = block.out
