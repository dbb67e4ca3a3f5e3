"""Quantization-aware training: a network learns with the rounding that int8 will bring.

The weights of convolutions and linear layers are rounded to 8 bits with a scale for each output
channel, their inputs to 8 bits with one range, an average of those seen (Jacob et al., arXiv
1712.05877, section 3); gradients pass the rounding as if it were not there. A batch norm behind a
convolution scales whole channels, so that folding it in later changes nothing of this. An exported
int8 file has the very same scales and ranges (`edgewise.deploy.quantize`).
"""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from edgewise.int8 import LARGEST, SMALLEST, partners_of, scales_of
from edgewise.model import Model

N = TypeVar("N", bound=nn.Module)

LEVELS = 255  # of an input: 0 to 255
MOMENTUM = 0.02  # of the newest range in the average
LOW, HIGH = "int8_low", "int8_high"
ROUNDING = ("cpu", "cuda")  # devices on which torch has one of its own; on Apple's it has none


def round_network(network: nn.Module) -> None:
    """Makes every convolution and linear layer of `network` round, in place.

    Parameters and their names stay; each layer gets two buffers, the range of its input. They are
    learned in training mode only, and until then inputs are not rounded.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and not isinstance(module, _Rounding):
            module.register_buffer(LOW, torch.zeros((), device=module.weight.device))
            module.register_buffer(HIGH, torch.zeros((), device=module.weight.device))
            module.__class__ = cast(Any, _rounding(cast(Any, type(module))))


def unrounded(network: N) -> N:
    """A copy with the same weights that computes in full; `network` itself if it does so."""
    if not any(isinstance(module, _Rounding) for module in network.modules()):
        return network
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, _Rounding):
            module.__class__ = type(module).__mro__[2]
            for name in (LOW, HIGH):
                del module._buffers[name]
    return network


def learned_ranges(network: nn.Module) -> dict[str, tuple[float, float]]:
    """The lowest and the highest input of each layer that rounds, by its name; 0 is between.

    A layer that saw no input while it learned has no range: while the head learns alone, say.
    """
    found = {}
    for name, module in network.named_modules():
        if isinstance(module, _Rounding):
            low, high = (float(module.get_buffer(buffer)) for buffer in (LOW, HIGH))
            if low < high:
                found[name] = low, high
    return found


def as_learned(model: Model) -> Model:
    """The model as it learned to compute: in int8, if it did; `model` itself if not."""
    if not model.int8_ranges:
        return model
    network = copy.deepcopy(model.network)
    round_network(network)
    for name, (low, high) in model.int8_ranges.items():
        layer = network.get_submodule(name)
        for buffer, value in ((LOW, low), (HIGH, high)):
            layer.get_buffer(buffer).fill_(value)
    return replace(model, network=network)


def with_rounded_weights(model: Model) -> Model:
    """The model with the weights that it learned with, for what has ranges of its own; `model`
    itself if it never learned to compute in int8."""
    if not model.int8_ranges:
        return model
    network = copy.deepcopy(model.network)
    with torch.no_grad():
        for name in model.int8_ranges:
            weight = cast(Tensor, network.get_submodule(name).weight)
            weight.copy_(rounded_weight(weight))
    return replace(model, network=network)


class _Rounding(nn.Module):
    """What comes before a layer's own class."""

    weight: Tensor

    def forward(self, x: Tensor) -> Tensor:
        x = self._rounded_input(x)
        parameter = self._parameters["weight"]
        assert parameter is not None
        # The layer's own forward, with other weights: they are no parameters, but found as such.
        self._parameters["weight"] = rounded_weight(parameter)  # type: ignore[assignment]
        try:
            out: Tensor = super().forward(x)
            return out
        finally:
            self._parameters["weight"] = parameter

    def _rounded_input(self, x: Tensor) -> Tensor:
        low, high = self._buffers[LOW], self._buffers[HIGH]
        assert low is not None and high is not None
        if self.training:
            with torch.no_grad():
                # 0 is always exact: it pads.
                least, most = x.detach().amin().clamp(max=0), x.detach().amax().clamp(min=0)
                part = torch.where(high > low, MOMENTUM, 1.0)
                low.lerp_(least.float(), part)
                high.lerp_(most.float(), part)
        scale = (high - low) / LEVELS
        if not self.training and not scale.any():
            return x
        scale = scale.clamp(min=torch.finfo(torch.float32).tiny)
        zero = (-low / scale).round().to(torch.int32)
        return _rounded(x, scale, zero, 0, LEVELS)


def rounded_weight(weight: Tensor) -> Tensor:
    """(O, I, ...) -> the same, each output channel rounded to 255 levels around 0."""
    rows = weight.detach().flatten(1)
    partners = partners_of(weight.shape[1], rows.shape[1] // weight.shape[1]).to(rows.device)
    scale = scales_of(rows[None], partners)[0].clamp(min=SMALLEST)
    zeros = torch.zeros_like(scale, dtype=torch.int32)
    return _rounded(weight, scale, zeros, -LARGEST, LARGEST)


def _rounded(x: Tensor, scale: Tensor, zero: Tensor, low: int, high: int) -> Tensor:
    """`x` in whole steps of `scale`, which is one, or one for each x[i]; 0 is the step `zero`.

    Steps below `low` and above `high` become these, and pass no gradient.
    """
    if x.device.type not in ROUNDING:
        return _rounded_in_steps(x, scale, zero, low, high)
    if scale.ndim:
        return torch.fake_quantize_per_channel_affine(x, scale, zero, 0, low, high)
    return torch.fake_quantize_per_tensor_affine(x, scale, zero, low, high)


def _rounded_in_steps(x: Tensor, scale: Tensor, zero: Tensor, low: int, high: int) -> Tensor:
    """The same, as torch computes it, in operators that every device has."""
    if scale.ndim:
        scale, zero = (each.reshape(-1, *[1] * (x.ndim - 1)) for each in (scale, zero))
    level = (x * scale.reciprocal()).round() + zero
    inside = (level >= low) & (level <= high)
    # The second term is 0, and has the gradient that rounding hasn't.
    return ((level.clamp(low, high) - zero) * scale).detach() + (x - x.detach()) * inside


@cache
def _rounding(kind: type[nn.Module]) -> type[_Rounding]:
    return type(f"Rounding{kind.__name__}", (_Rounding, kind), {})
