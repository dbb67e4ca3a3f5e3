"""A network row by row, in the words of its paper: what `edgewise models show` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, NamedTuple

from edgewise.measure.count import Layer, count
from edgewise.spec import Attention, Block, Conv, ConvNeXt, MBConv, Pool, Residual, Spec
from edgewise.table import Row, Variant


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """One line of a paper's table.

    Attributes:
        operator: in the paper's words.
        input_size: height and width of the input, in pixels.
        in_chans: channels of the input.
        expand: width inside of the block as a ratio of its input channels; 0 if it has none.
        inside: the same in channels, in the last block of the row.
        out: channels of the output.
        squeeze: squeeze-excite ratio; 0 for none.
        act: activation; "" for none, or where the block has a fixed one.
        stride: of the first block; the others have 1.
        repeats: number of blocks.
        output_size: height and width of the output, in pixels.
        params: learned numbers.
        macs: multiply-accumulates for one image.
    """

    operator: str
    input_size: int
    in_chans: int
    expand: float = 0
    inside: int = 0
    out: int
    squeeze: float = 0
    act: str = ""
    stride: int = 1
    repeats: int = 1
    output_size: int
    params: int
    macs: int


class Words(NamedTuple):
    """How a family's papers write.

    Attributes:
        mbconv: the name of an `MBConv` with this ratio of expansion.
        inside: what they call the width inside of a block; "t" is a ratio; "" has no column.
        linear: the name of a linear layer.
    """

    mbconv: Callable[[MBConv, float], str]
    inside: str = ""
    linear: str = "FC"


def _uib(block: MBConv, ratio: float) -> str:
    if block.expand_kernel > 1:
        return f"FusedIB {_sides(block.expand_kernel)}"
    depthwise = (bool(block.start), bool(block.kernel))
    form = {
        (True, True): "ExtraDW",
        (False, True): "IB",
        (True, False): "ConvNeXt",
        (False, False): "FFN",
    }[depthwise]
    return f"UIB {form} {_sides(block.start, block.kernel)}".rstrip()


def _mbconv(block: MBConv, ratio: float) -> str:
    if block.expand_kernel > 1:
        return f"Fused-MBConv{ratio:g} k{_sides(block.expand_kernel)}"
    return f"MBConv{ratio:g} k{_sides(block.kernel)}"


# By the beginning of the variant's name.
WORDS = {
    "mobilenet_v1": Words(lambda block, _: f"conv dw {_sides(block.kernel)}, conv 1x1"),
    "mobilenet_v2": Words(lambda block, _: f"bottleneck {_sides(block.kernel)}", "t"),
    "mobilenet_v3": Words(
        lambda block, _: f"bneck {_sides(block.kernel)}", "exp size", "conv 1x1, NBN"
    ),
    "mobilenet_v4": Words(_uib, "exp"),
    "convnext": Words(_mbconv, "exp"),
    "resnet": Words(_mbconv, "hidden"),
    "": Words(_mbconv),
}


def words(variant: Variant) -> Words:
    """How the paper of this variant writes."""
    return next(found for start, found in WORDS.items() if variant.name.startswith(start))


def paper_table(variant: Variant, width: float, size: int) -> list[PaperRow]:
    """Stem, the rows of the variant's table, head; at a width multiplier and an input size.

    Raises:
        UsageError: a network of that width can't be built, or the size is too small for it.
    """
    spec = variant.spec(width)
    layers = {
        name: list(group)
        for name, group in groupby(
            count(spec, size).layers, key=lambda layer: ".".join(layer.name.split(".")[:3])
        )
    }
    channels, side, rows = spec.in_chans, size, []
    for cells, group in (*_body(variant, spec, layers), *_head(variant, spec, layers)):
        rows.append(
            PaperRow(
                **cells,
                input_size=side,
                in_chans=channels,
                out=group[-1].channels,
                output_size=group[-1].side,
                params=sum(layer.params for layer in group),
                macs=sum(layer.macs for layer in group),
            )
        )
        channels, side = group[-1].channels, group[-1].side
    return rows


Layers = dict[str, list[Layer]]  # by the name of their block or module
Part = tuple[dict[str, Any], list[Layer]]  # a row's own cells, and the layers that it stands for


def _body(variant: Variant, spec: Spec, layers: Layers) -> Iterator[Part]:
    stem, channels = spec.stem, spec.stem.out
    conv = {"operator": f"conv {_sides(stem.kernel)}", "act": stem.act, "stride": stem.stride}
    yield conv, layers["stem"]
    blocks = (
        (block, layers[f"stages.{s}.{b}"])
        for s, stage in enumerate(spec.stages)
        for b, block in enumerate(stage)
    )
    for row in variant.table.rows:
        repeats = row.times(variant.depth)
        stride, group = 0, []
        for block, inside in islice(blocks, repeats):
            group += inside
            stride = stride or block.stride
            before, channels = channels, block.out
        cells = {"operator": _operator(block, row, words(variant)), "stride": stride}
        if isinstance(block, MBConv):
            wide = block.expand or before
            cells |= {"expand": row.expand, "inside": wide, "squeeze": row.squeeze}
        elif isinstance(block, ConvNeXt):
            cells |= {"expand": row.expand, "inside": block.expand}
        elif isinstance(block, Residual):
            cells |= {"inside": block.hidden}
        cells |= {"act": getattr(block, "act", ""), "repeats": repeats}
        yield cells, group


def _head(variant: Variant, spec: Spec, layers: Layers) -> Iterator[Part]:
    head, last = spec.head, spec.stages[-1][-1]
    linear = words(variant).linear
    side = layers[f"stages.{len(spec.stages) - 1}.{len(spec.stages[-1]) - 1}"][-1].side
    if head.conv:
        yield {"operator": "conv 1x1", "act": head.act}, layers["head.conv"]
    pooled = Layer("", head.conv or last.out, head.grid, 0, 0)
    sides = _sides(side) if head.grid == 1 else f"to {_sides(head.grid)}"
    yield {"operator": f"avg pool {sides}"}, [pooled]
    if head.layer_norm:
        yield {"operator": "layer norm"}, layers["head.norm"]
    for name in layers:
        if name.startswith("head.hidden."):
            operator = "conv 1x1" if head.hidden_norm else linear
            yield {"operator": operator, "act": head.act}, layers[name]
    yield {"operator": linear}, layers["head.classifier"]


def _operator(block: Block, row: Row, words: Words) -> str:
    match block:
        case MBConv():
            return words.mbconv(block, row.expand)
        case Conv():
            # One that may have a skip is EfficientNetV2's fused block that doesn't expand.
            fused = isinstance(row.block, Conv) and row.block.skip
            return f"{'Fused-MBConv1 k' if fused else 'conv '}{_sides(block.kernel)}"
        case Pool():
            return f"max pool {_sides(block.kernel)}"
        case Attention(kv_stride=1):
            return f"Mobile MQA {block.heads}x{block.dim}"
        case Attention():
            return f"Mobile MQA {block.heads}x{block.dim}, K/V s{block.kv_stride}"
        case ConvNeXt():
            return f"ConvNeXt {'V2 ' if block.grn else ''}{_sides(block.kernel)}"
        case Residual():
            return "1x1, 3x3, 1x1" if block.hidden else "3x3, 3x3"
    raise AssertionError(f"no words for {block}")


def _sides(*kernels: int) -> str:
    """As in "3x3/5x5"; 0 is a kernel that isn't there."""
    return "/".join(f"{k}x{k}" for k in kernels if k)
