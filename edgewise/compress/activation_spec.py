"""Activations in a `Spec`: which are dear, and cheaper ones in their place."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from edgewise.spec import Spec

# In the order of their cost, the dearest first: GELU and SiLU need an exponential for each number.
DEAR = ("gelu", "silu", "hard_swish")
CHEAP = ("hard_swish", "relu6", "relu")


def dearer_than(act: str) -> tuple[str, ...]:
    """Those of `DEAR` that cost more than `act`."""
    return DEAR[: DEAR.index(act)] if act in DEAR else DEAR


def with_act(spec: Spec, act: str) -> Spec:
    """The spec with `act` for each dearer activation of a map.

    Gates of squeeze-excite stay: they are one number a channel.
    """

    def changed(row: Any) -> Any:
        known = any(field.name == "act" for field in fields(row))
        return replace(row, act=act) if known and row.act in dearer_than(act) else row

    return replace(
        spec,
        stem=changed(spec.stem),
        stages=tuple(tuple(changed(row) for row in stage) for stage in spec.stages),
        head=changed(spec.head),
    )
