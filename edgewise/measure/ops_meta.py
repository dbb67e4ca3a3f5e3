"""The commonest operators' outputs on the meta device, without asking PyTorch.

PyTorch works these out in Python, in about a millisecond each, which would be most of the time of
a count. Here is only what is plain at sight; for all else, PyTorch is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Number
from typing import Any

import torch
from torch import Tensor

Arguments = dict[str, Any]


def output(name: str, arguments: Arguments) -> Tensor | None:
    """The output of one call, with the strides that PyTorch gives it; None if it must be asked.

    Args:
        name: of the operator's schema, without "aten::".
        arguments: its arguments by name, all tensors on the meta device.
    """
    rule = RULES.get(name)
    return rule(arguments) if rule else None


def _dense(x: Tensor) -> bool:
    """Whether its numbers lie in memory without gaps: an output like it has its strides."""
    return x.is_floating_point() and (
        x.is_contiguous() or (x.ndim == 4 and x.permute(0, 2, 3, 1).is_contiguous())
    )


def _like(x: Tensor) -> Tensor:
    """`torch.empty_like(x)`, which is Python as well."""
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)


def _empty(x: Tensor, shape: Sequence[int]) -> Tensor:
    return torch.empty(shape, dtype=x.dtype, device=x.device)


def _unary(a: Arguments) -> Tensor | None:
    x: Tensor = a["self"]
    return _like(x) if _dense(x) else None


def _in_place(a: Arguments) -> Tensor | None:
    x: Tensor = a["self"]
    return x if x.is_floating_point() else None


def _binary(a: Arguments) -> Tensor | None:
    """Sums and products whose first operand has the shape of the output."""
    x, other = a["self"], a["other"]
    if not isinstance(x, Tensor) or not _dense(x) or a.get("rounding_mode"):
        return None
    if isinstance(other, Tensor):
        sides = zip(reversed(x.shape), reversed(other.shape), strict=False)
        if other.dtype != x.dtype or other.ndim > x.ndim or any(o not in (1, s) for s, o in sides):
            return None
    elif not isinstance(other, Number):
        return None
    return _like(x)


def _batch_norm(a: Arguments) -> Tensor | None:
    x: Tensor = a["input"]
    return _like(x) if not a["training"] and x.ndim == 4 and _dense(x) else None


def _layer_norm(a: Arguments) -> Tensor | None:
    x, shape = a["input"], tuple(a["normalized_shape"])
    if not x.is_floating_point() or tuple(x.shape[x.ndim - len(shape) :]) != shape:
        return None
    return _empty(x, x.shape)


def _linear(a: Arguments) -> Tensor | None:
    x, weight = a["input"], a["weight"]
    if weight.ndim != 2 or x.ndim < 2 or x.shape[-1] != weight.shape[1] or x.dtype != weight.dtype:
        return None
    return _empty(x, (*x.shape[:-1], weight.shape[0]))


def _attention(a: Arguments) -> Tensor | None:
    query, key, value = a["query"], a["key"], a["value"]
    batches = zip(query.shape[:-2], key.shape[:-2], value.shape[:-2], strict=False)
    fits = query.ndim == key.ndim == value.ndim and all(
        k in (1, q) and v in (1, q) for q, k, v in batches
    )
    fits = fits and query.shape[-1] == key.shape[-1] and key.shape[-2] == value.shape[-2]
    return _empty(query, (*query.shape[:-1], value.shape[-1])) if fits else None


def _mean(a: Arguments) -> Tensor | None:
    x, axes = a["self"], a.get("dim")
    if not axes or not _dense(x) or a.get("dtype"):
        return None
    gone = {axis % x.ndim for axis in axes}
    if a.get("keepdim"):
        return _empty(x, [1 if i in gone else n for i, n in enumerate(x.shape)])
    return _empty(x, [n for i, n in enumerate(x.shape) if i not in gone])


_ACTIVATIONS = ("relu", "silu", "sigmoid", "hardswish", "hardsigmoid", "hardtanh", "tanh", "relu6")
RULES: dict[str, Callable[[Arguments], Tensor | None]] = {
    **dict.fromkeys((*_ACTIVATIONS, "gelu"), _unary),
    **dict.fromkeys((f"{name}_" for name in _ACTIVATIONS), _in_place),
    **dict.fromkeys(("add", "sub", "mul", "div"), _binary),
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "linear": _linear,
    "scaled_dot_product_attention": _attention,
    **dict.fromkeys(("mean", "linalg_vector_norm"), _mean),
}
