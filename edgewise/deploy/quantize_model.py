"""A model whose own weights are those of an int8 file, for formats that have their own quantisers.

LiteRT's and ExecuTorch's quantisers round each weight to the nearest integer, which is best for the
weight and not for the sum (see `edgewise.deploy.quantize_weights`). The scale that they give an
output channel is its largest weight over 127. So where each channel has one weight of exactly 127
scales, and all others are whole multiples too, they find these very integers.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgewise.deploy.onnx import graph_of
from edgewise.deploy.quantize_equalise import equalise
from edgewise.deploy.quantize_layers import constants, layers_of
from edgewise.deploy.quantize_observe import in_batches, observe
from edgewise.deploy.quantize_weights import round_pinned
from edgewise.layers import ConvNorm, Separated
from edgewise.model import Model
from edgewise.network import Network
from edgewise.progress import track
from edgewise.training.rounding import with_rounded_weights


def with_int8_weights(model: Model, pixels: NDArray[np.uint8]) -> Model:
    """A copy with maps equalised, weights rounded for their sums and biases corrected for that.

    What a batch norm behind a convolution does is then a part of the convolution's weights, and the
    batch norm adds a bias. A network that learned to compute in int8 gets the weights that it
    learned with instead.

    Args:
        model: it is not changed.
        pixels: uint8 (N, size, size, 3), the calibration images.

    Raises:
        EdgewiseError: a map is not finite on the images.
    """
    if model.int8_ranges:
        return with_rounded_weights(model)
    proto = graph_of(model)
    batches = in_batches(pixels)
    equalise(proto, batches)
    layers, values = layers_of(proto), constants(proto)
    moments = observe(proto, layers, layers, batches).moments
    network = copy.deepcopy(model.network)
    modules, norms = dict(network.named_modules()), _norms(network)
    with torch.no_grad():
        for layer in track(layers, "rounding weights", len(layers)):
            rounded = round_pinned(layer, moments.pop(layer.name))
            module = modules.get(layer.name)
            if not isinstance(module, nn.Conv2d | nn.Linear):
                continue  # a matrix without a bias of its own, whose name the exporter dropped
            weight = torch.from_numpy(rounded.integers * rounded.scales[:, None])
            module.weight.copy_(weight.reshape(module.weight.shape))
            bias = torch.from_numpy(rounded.shift + (values[layer.bias] if layer.bias else 0))
            norm = norms.get(layer.name)
            if norm:  # it adds the convolution's own bias, too: that of a `Separated` one
                _only_add(norm, bias)
                bias = torch.zeros_like(bias)
            if module.bias is not None:
                module.bias.copy_(bias)
            elif layer.shiftable and not norm:  # as of attention: it was rounded for one
                module.bias = nn.Parameter(bias)
    return replace(model, network=network)


def _norms(network: Network) -> dict[str, nn.BatchNorm2d]:
    """The batch norm behind a convolution, by the convolution's name."""
    found = {}
    for name, block in network.named_modules():
        if isinstance(block, ConvNorm) and isinstance(block.norm, nn.BatchNorm2d):
            last = "conv.pointwise" if isinstance(block.conv, Separated) else "conv"
            found[f"{name}.{last}"] = block.norm
    return found


def _only_add(norm: nn.BatchNorm2d, bias: torch.Tensor) -> None:
    """Makes a batch norm x + bias."""
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)
    norm.weight.fill_(1)
    norm.bias.copy_(bias)
