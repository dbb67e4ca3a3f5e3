"""Outputs that are worked out without PyTorch have PyTorch's shape, strides and type."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from edgewise.measure.ops_meta import RULES, output

aten = torch.ops.aten


def map_of(*shape: int, order: str = "NCHW", dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.empty(shape, device="meta", dtype=dtype)
    if order == "NHWC":
        return x.to(memory_format=torch.channels_last)
    if order == "gaps":
        return torch.empty((*shape[:-1], 2 * shape[-1]), device="meta", dtype=dtype)[..., ::2]
    return x


ORDERS, TYPES = ("NCHW", "NHWC", "gaps"), (torch.float32, torch.float16, torch.int64)
UNARY = [name for name in RULES if RULES[name] in (RULES["relu"], RULES["relu_"])]
CASES: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
for order, dtype in itertools.product(ORDERS, TYPES):
    x = map_of(2, 6, 4, 5, order=order, dtype=dtype)
    if dtype.is_floating_point:
        CASES += [(name, (x,), {}) for name in UNARY if hasattr(aten, name)]
        vectors = [torch.ones(6, device="meta", dtype=dtype) for _ in range(4)]
        CASES.append(("batch_norm", (x, *vectors, False, 0.1, 1e-5, False), {}))
        CASES.append(("layer_norm", (x, [5], *(v[:5] for v in vectors[:2])), {}))
        CASES.append(("linear", (x, torch.ones(7, 5, device="meta", dtype=dtype)), {}))
        CASES.append(("mean", (x, [2, 3]), {}))
        CASES.append(("mean", (x, [-1], True), {}))
        CASES.append(("linalg_vector_norm", (x, 2, [2, 3], True), {}))
        CASES.append(("scaled_dot_product_attention", (x, x[:, :1, :3], x[:, :1, :3, :2]), {}))
    others: list[Any] = [2, 1.5, map_of(1, 6, 1, 1, dtype=dtype), map_of(2, 6, 4, 5, dtype=dtype)]
    others += [map_of(5, dtype=dtype), map_of(2, 6, 4, 5, order="NHWC", dtype=dtype)]
    others += [map_of(2, 6, 1, 1, dtype=torch.float32), map_of(3, 2, 6, 4, 5, dtype=dtype)]
    others += [torch.empty((), device="meta", dtype=torch.float64)]
    for name, other in itertools.product(("add", "sub", "mul", "div"), others):
        CASES.append((name, (x, other), {}))
        if isinstance(other, Tensor):
            CASES.append((name, (other, x), {}))


class Seen(TorchDispatchMode):
    """Keeps the outermost operator, with the arguments that it got."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.func, self.args, self.kwargs = func, args, kwargs or {}
        return func(*args, **self.kwargs)


def compare(call: Callable[[], Any]) -> bool:
    """Whether there is a rule for the call; its answer must be PyTorch's."""
    with torch.inference_mode(), Seen() as seen:
        wanted = call()
    schema = seen.func._schema
    arguments = dict(zip((a.name for a in schema.arguments), seen.args, strict=False))
    found = output(schema.name.removeprefix("aten::"), arguments | seen.kwargs)
    if found is None:
        return False
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    if schema.name != "aten::layer_norm":  # the CPU's is contiguous; the meta device's is not
        assert found.stride() == wanted.stride()
    return True


def test_every_shortcut_is_what_pytorch_says() -> None:
    taken = set()
    for name, args, kwargs in CASES:
        if compare(lambda: getattr(aten, name)(*args, **kwargs)):  # noqa: B023  (called at once)
            taken.add(name)
    assert taken == {name for name in RULES if hasattr(aten, name)}


@pytest.mark.parametrize("order", ORDERS)
def test_layer_norms_strides_are_those_of_the_cpu(order: str) -> None:
    x = torch.zeros(2, 6, 4, 5).to(memory_format=torch.channels_last)
    x = x if order == "NHWC" else x.contiguous()
    assert output("layer_norm", {"input": x, "normalized_shape": [5]}).stride() == (
        torch.layer_norm(x, [5]).stride()
    )


def test_what_does_not_fit_is_left_to_pytorch() -> None:
    """Its error is the one that a person gets."""
    x = map_of(1, 4, 8, 8)
    wrong = {"input": x, "weight": torch.ones(3, 7, device="meta")}
    assert output("linear", wrong) is None
    assert output("add", {"self": x, "other": map_of(1, 3, 8, 8)}) is None
    assert output("div", {"self": x, "other": 2, "rounding_mode": "floor"}) is None
    assert output("conv2d", {"input": x}) is None
