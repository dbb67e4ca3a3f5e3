"""Ranks in a `Spec`: which field is of which convolution of the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgewise.spec import Conv, MBConv, Residual, Spec, dense_kernels

SUFFIX = "_separated"  # of the network's name


def rank_fields(spec: Spec) -> dict[str, tuple[int, int, str]]:
    """The names of the modules that can have a rank: their stage, block and field."""
    return {
        f"stages.{s}.{b}.{_part(block, field)}": (s, b, field)
        for s, stage in enumerate(spec.stages)
        for b, block in enumerate(stage)
        for field in dense_kernels(block)
    }


def _part(block: Any, field: str) -> str:
    """The convolution's name inside of its block: see `edgewise.blocks`."""
    if isinstance(block, Residual):
        return "body.1.conv" if field == "rank" or block.hidden else "body.0.conv"
    return {Conv: "conv", MBConv: "expand.conv"}[type(block)]


def with_ranks(spec: Spec, ranks: Mapping[str, int]) -> Spec:
    """The spec with the ranks of some modules of the network; 0 leaves one as it is."""
    stages: list[list[Any]] = [list(stage) for stage in spec.stages]
    fields = rank_fields(spec)
    for name, rank in ranks.items():
        s, b, field = fields[name]
        if rank:
            stages[s][b] = replace(stages[s][b], **{field: rank})
    name = spec.name.removesuffix(SUFFIX) + SUFFIX
    return replace(spec, name=name, stages=tuple(tuple(stage) for stage in stages))
