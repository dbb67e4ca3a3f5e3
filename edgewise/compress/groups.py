"""The channels of a network that only go together: what a pruned channel takes along.

Where two maps are added, multiplied or normalised channel by channel, a channel of the one can't
go without that of the other. The groups follow from the `Spec` alone (DepGraph, arXiv 2301.12900,
finds them in any traced graph).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, TypeVar

import torch

from edgewise.measure.count import Cost
from edgewise.network import build
from edgewise.spec import (
    AnyBlock,
    Attention,
    Block,
    Conv,
    ConvNeXt,
    Head,
    MBConv,
    Pool,
    Residual,
    Spec,
)

R = TypeVar("R", AnyBlock, Conv, Head)
Place = tuple[str, str]  # a row of a spec, such as "stem" or "stages.1.0", and a field of it


@dataclass(frozen=True)
class Slice:
    """Where the channels of a group are in a tensor.

    Attributes:
        tensor: its name in the network's state.
        dim: channel c is the entries c * repeat to (c + 1) * repeat - 1 along this dimension.
        repeat: entries a channel.
    """

    tensor: str
    dim: int
    repeat: int = 1


@dataclass(frozen=True)
class Group:
    """Channels that go one by one, each out of all of the slices at once.

    Attributes:
        name: of the first module that makes them, such as "stages.1.0.expand"; "stages.1.0" is
            what comes out of a block.
        size: how many.
        each: features that one of them is: an attention head's dim, else 1.
        slices: the tensors that they are in.
        places: the numbers of the spec that say `size`. Two groups of the same places each lose
            channels of their own, but as many.
    """

    name: str
    size: int
    each: int
    slices: tuple[Slice, ...]
    places: tuple[Place, ...]

    def macs(self, cost: Cost) -> int:
        """The MACs of the layers that read or write these channels."""
        layers = {layer.name: layer.macs for layer in cost.layers}
        touched = {_layer_of(part.tensor, layers) for part in self.slices}
        touched |= {name for name in layers if self.name == f"{name}.heads"}  # their products
        return sum(layers[name] for name in touched)


@lru_cache(maxsize=16)  # it is asked again and again while widths are looked for
def channel_groups(spec: Spec) -> tuple[Group, ...]:
    """All groups of a network, from the stem to the head.

    No dimension of a tensor is in two of them. In none are the input, the classes, and the features
    of attention's key and value, of which each head has as many.
    """
    return tuple(draft.done() for draft in _Walk(spec).drafts)


def resized(spec: Spec, sizes: Mapping[tuple[Place, ...], int]) -> Spec:
    """The spec with other numbers of channels.

    Args:
        spec: of any network.
        sizes: by the places of a group; those that are not named stay.

    Raises:
        UsageError: a number is out of range.
    """
    new: dict[str, dict[str, Any]] = {}
    for group in channel_groups(spec):
        for row, name in group.places:  # all of them: a ConvNeXt's expand may be left to its out
            new.setdefault(row, {})[name] = sizes.get(group.places, group.size)
    head = new.pop("head", {})
    hidden = tuple(head.pop(f"hidden.{i}") for i in range(len(spec.head.hidden)))
    stages = tuple(
        tuple(_with(block, new[f"stages.{s}.{b}"]) for b, block in enumerate(stage))
        for s, stage in enumerate(spec.stages)
    )
    return replace(
        spec,
        stem=_with(spec.stem, new["stem"]),
        stages=stages,
        head=_with(spec.head, {"hidden": hidden, **head}),
    )


def _with(row: R, fields: Mapping[str, Any]) -> R:
    return replace(row, **fields)


def _layer_of(tensor: str, layers: Mapping[str, int]) -> str:
    """The name, in a `Cost`, of the layer that a tensor is in."""
    name = tensor
    while name not in layers:
        name = name.rpartition(".")[0]
    return name


@dataclass
class _Draft:
    """A group that is still found more of. Tied groups share one list of places."""

    name: str
    size: int
    places: list[Place]
    each: int = 1
    slices: list[Slice] = field(default_factory=list)

    def done(self) -> Group:
        return Group(self.name, self.size, self.each, tuple(self.slices), tuple(self.places))


class _Walk:
    """From the stem to the head, with the group of the channels that flow along."""

    def __init__(self, spec: Spec) -> None:
        with torch.device("meta"):
            state = build(spec).state_dict()
        self.dims = {name: tensor.ndim for name, tensor in state.items()}
        self.drafts: list[_Draft] = []
        stream = self.begin("stem", spec.stem.out, [("stem", "out")])
        self.outputs(stream, "stem")
        for s, stage in enumerate(spec.stages):
            for b, block in enumerate(stage):
                stream = _BLOCKS[type(block)](self, f"stages.{s}.{b}", block, stream)
        self.head(spec.head, stream)

    def begin(self, name: str, size: int, places: list[Place], each: int = 1) -> _Draft:
        """A new group."""
        self.drafts.append(_Draft(name, size, places, each))
        return self.drafts[-1]

    def outputs(self, draft: _Draft, *modules: str, repeat: int = 1) -> None:
        """The channels that modules make, or work on one by one: all first dimensions.

        A module that is left out has no tensors.
        """
        for module in modules:
            draft.slices += [Slice(n, 0, repeat) for n in self._below(module) if self.dims[n] > 0]

    def inputs(self, draft: _Draft, *modules: str, repeat: int = 1) -> None:
        """The channels that modules mix: the second dimension of their kernels."""
        for module in modules:
            draft.slices += [Slice(n, 1, repeat) for n in self._below(module) if self.dims[n] > 1]

    def _below(self, module: str) -> Iterator[str]:
        return (name for name in self.dims if name.startswith(f"{module}."))

    def conv(self, at: str, block: Conv, stream: _Draft) -> _Draft:
        self.inputs(stream, at)
        out = self.follow(at, block, stream, same=block.skip)
        self.outputs(out, at)
        return out

    def follow(self, at: str, block: AnyBlock, stream: _Draft, *, same: bool) -> _Draft:
        """The group of a block's output: that of its input where the two are added."""
        if same:
            stream.places.append((at, "out"))
            return stream
        return self.begin(at, block.out, [(at, "out")])

    def pool(self, at: str, block: Pool, stream: _Draft) -> _Draft:
        return self.follow(at, block, stream, same=True)

    def mbconv(self, at: str, block: MBConv, stream: _Draft) -> _Draft:
        self.outputs(stream, f"{at}.start")
        wide = stream
        if block.expand:
            self.inputs(stream, f"{at}.expand")
            wide = self.begin(f"{at}.expand", block.expand, [(at, "expand")])
            self.outputs(wide, f"{at}.expand")
        self.outputs(wide, f"{at}.depthwise")
        if block.squeeze:
            self.inputs(wide, f"{at}.squeeze.reduce")
            self.outputs(wide, f"{at}.squeeze.expand")
            squeezed = self.begin(f"{at}.squeeze", block.squeeze, [(at, "squeeze")])
            self.outputs(squeezed, f"{at}.squeeze.reduce")
            self.inputs(squeezed, f"{at}.squeeze.expand")
        self.inputs(wide, f"{at}.project")
        out = self.follow(at, block, stream, same=block.skip)
        self.outputs(out, f"{at}.project", f"{at}.layer_scale")
        return out

    def attention(self, at: str, block: Attention, stream: _Draft) -> _Draft:
        self.outputs(stream, f"{at}.norm")
        self.inputs(stream, f"{at}.query")
        for part in (f"{at}.key", f"{at}.value"):
            if block.kv_stride > 1:
                self.outputs(stream, f"{part}.0")  # depthwise
            self.inputs(stream, f"{part}.{int(block.kv_stride > 1)}")
        heads = self.begin(f"{at}.heads", block.heads, [(at, "heads")], block.dim)
        self.outputs(heads, f"{at}.query", repeat=block.dim)
        self.inputs(heads, f"{at}.project", repeat=block.dim)
        self.outputs(stream, f"{at}.project", f"{at}.layer_scale")
        return self.follow(at, block, stream, same=True)

    def convnext(self, at: str, block: ConvNeXt, stream: _Draft) -> _Draft:
        if block.downsample:
            self.outputs(stream, f"{at}.downsample.0")
            self.inputs(stream, f"{at}.downsample.1")
        out = self.follow(at, block, stream, same=not block.downsample)
        self.outputs(out, f"{at}.downsample.1", f"{at}.layer_scale", f"{at}.depthwise")
        self.outputs(out, f"{at}.norm")
        self.inputs(out, f"{at}.expand")
        wide = self.begin(f"{at}.expand", block.expand or 4 * block.out, [(at, "expand")])
        self.outputs(wide, f"{at}.expand", f"{at}.grn")
        self.inputs(wide, f"{at}.project")
        self.outputs(out, f"{at}.project")
        return out

    def residual(self, at: str, block: Residual, stream: _Draft) -> _Draft:
        self.inputs(stream, f"{at}.body.0")
        out = stream
        if block.project:
            self.inputs(stream, f"{at}.shortcut")
        out = self.follow(at, block, stream, same=not block.project)
        # One number of the spec is the width of all of the block's hidden maps; where there is no
        # bottleneck it is that of the output too.
        hidden, last = ([(at, "hidden")], 2) if block.hidden else (out.places, 1)
        for layer in range(last):
            inside = self.begin(f"{at}.body.{layer}", block.hidden or block.out, hidden)
            self.outputs(inside, f"{at}.body.{layer}")
            self.inputs(inside, f"{at}.body.{layer + 1}")
        self.outputs(out, f"{at}.body.{last}", f"{at}.shortcut")
        return out

    def head(self, head: Head, stream: _Draft) -> None:
        if head.conv:
            self.inputs(stream, "head.conv")
            stream = self.begin("head.conv", head.conv, [("head", "conv")])
            self.outputs(stream, "head.conv")
        pixels = head.grid**2  # that the pooling leaves of each channel, one after the other
        self.outputs(stream, "head.norm", repeat=pixels)
        for i, width in enumerate(head.hidden):
            layer = f"head.hidden.{4 * i + 1 if head.hidden_norm else 3 * i}"  # see `network.Head`
            self.inputs(stream, layer, repeat=pixels)
            stream, pixels = self.begin(layer, width, [("head", f"hidden.{i}")]), 1
            self.outputs(stream, layer)
        self.inputs(stream, "head.classifier", repeat=pixels)


_BLOCKS: dict[type[Block], Callable[[_Walk, str, Any, _Draft], _Draft]] = {
    Conv: _Walk.conv,
    Pool: _Walk.pool,
    MBConv: _Walk.mbconv,
    Attention: _Walk.attention,
    ConvNeXt: _Walk.convnext,
    Residual: _Walk.residual,
}
