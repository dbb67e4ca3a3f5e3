"""Computes what a Core ML package says, by the definitions of its operators, in PyTorch.

Core ML runs on Apple's machines only. The definitions are those of Apple's MIL operators (iOS 15);
the package is read back from its files, so that what is checked is what was written.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


def answer(package: Path, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Of one image, uint8 (size, size, 3) -> the probabilities (classes,)."""
    operations = program(package)
    values: dict[str, Tensor] = {"image": torch.from_numpy(pixels).permute(2, 0, 1)[None].float()}
    for operation in operations:
        inputs = {name: _value(item, values) for name, item in operation.inputs.items()}
        if operation.op_type == "classify":
            probabilities: NDArray[np.float32] = inputs["probabilities"].numpy()[0]
            return probabilities
        if operation.op_type != "const":
            values[operation.outputs[0].name] = OPERATORS[operation.op_type](**inputs)
    raise AssertionError("no answer")


def program(package: Path) -> list[Any]:
    """The operations, with their weights."""
    import coremltools
    from coremltools.converters.mil.frontend.milproto.load import load

    model = coremltools.models.MLModel(str(package), skip_model_load=True)
    spec = model.get_spec()
    return list(
        load(spec, spec.specificationVersion, model.weights_dir).functions["main"].operations
    )


def _value(item: Any, values: dict[str, Tensor]) -> Any:
    if isinstance(item, tuple):
        return tuple(_value(part, values) for part in item)
    if item.name in values:
        return values[item.name]
    constant = item.val
    if isinstance(constant, np.ndarray) and constant.dtype.kind == "f":
        return torch.from_numpy(np.array(constant))
    return constant.item() if isinstance(constant, np.generic) else constant


def _numbers(values: Any) -> list[int]:
    return [int(value) for value in values]


def _conv(
    x: Tensor, weight: Tensor, strides: Any, pad_type: str, pad: Any, dilations: Any, groups: int,
    bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    assert pad_type in ("valid", "custom")
    if pad_type == "custom":
        top, bottom, left, right = _numbers(pad)
        x = F.pad(x, (left, right, top, bottom))
    weight = weight.to(x.dtype)
    return F.conv2d(x, weight, bias, _numbers(strides), 0, _numbers(dilations), groups)


def _pad(x: Tensor, pad: Any, mode: str, constant_val: float) -> Tensor:
    assert mode == "constant"
    sides = _numbers(pad)  # before and after, of the first dimension first
    pairs = [sides[i : i + 2] for i in range(0, len(sides), 2)]
    return F.pad(x, [n for pair in reversed(pairs) for n in pair], value=float(constant_val))


def _max_pool(
    x: Tensor, kernel_sizes: Any, strides: Any, pad_type: str, pad: Any, ceil_mode: bool
) -> Tensor:
    assert pad_type in ("valid", "custom") and not ceil_mode
    if pad_type == "custom":
        top, bottom, left, right = _numbers(pad)
        x = F.pad(x, (left, right, top, bottom), value=-torch.inf)
    return F.max_pool2d(x, _numbers(kernel_sizes), _numbers(strides))


def _layer_norm(x: Tensor, axes: Any, gamma: Tensor, beta: Tensor, epsilon: float) -> Tensor:
    assert [axis % x.ndim for axis in _numbers(axes)] == [x.ndim - 1]
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
    return (x - mean) / (variance + float(epsilon)).sqrt() * gamma + beta


def _batch_norm(
    x: Tensor, mean: Tensor, variance: Tensor, gamma: Tensor, beta: Tensor, epsilon: float
) -> Tensor:
    factor = gamma / (variance + float(epsilon)).sqrt()
    return (x - mean[:, None, None]) * factor[:, None, None] + beta[:, None, None]


def _gelu(x: Tensor, mode: str) -> Tensor:
    assert mode == "EXACT"
    return x * (1 + torch.erf(x / 2**0.5)) / 2


def _matmul(x: Tensor, y: Tensor, transpose_x: bool, transpose_y: bool) -> Tensor:
    return (x.mT if transpose_x else x) @ (y.mT if transpose_y else y)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(x, weight, bias)


def _reduced(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda x, axes, keep_dims: function(x, _numbers(axes), keep_dims)


OPERATORS: dict[str, Callable[..., Tensor]] = {
    "add": lambda x, y: x + y,
    "batch_norm": _batch_norm,
    "cast": lambda x, dtype: x.to({"fp16": torch.float16, "fp32": torch.float32}[dtype]),
    "clip": lambda x, alpha, beta: x.clamp(float(alpha), float(beta)),
    "conv": _conv,
    "expand_dims": lambda x, axes: x.unsqueeze(*_numbers(axes)),
    "gelu": _gelu,
    "layer_norm": _layer_norm,
    "linear": _linear,
    "matmul": _matmul,
    "max_pool": _max_pool,
    "mul": lambda x, y: x * y,
    "pad": _pad,
    "real_div": lambda x, y: x / y,
    "reduce_l2_norm": _reduced(lambda x, axes, keep: (x * x).sum(axes, keep).sqrt()),
    "reduce_mean": _reduced(lambda x, axes, keep: x.mean(axes, keep)),
    "relu": lambda x: x.clamp(min=0),
    "reshape": lambda x, shape: x.reshape(_numbers(shape)),
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "sigmoid_hard": lambda x, alpha, beta: (float(alpha) * x + float(beta)).clamp(0, 1),
    "silu": lambda x: x / (1 + (-x).exp()),
    "softmax": lambda x, axis: (
        (x - x.amax(axis, True)).exp() / (x - x.amax(axis, True)).exp().sum(axis, True)
    ),
    "sub": lambda x, y: x - y,
    "thresholded_relu": lambda x, alpha: torch.where(x >= float(alpha), x, 0),
    "transpose": lambda x, perm: x.permute(_numbers(perm)),
}
