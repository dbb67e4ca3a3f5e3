"""Float layers with the weights of an int8 file: what they compute, and what a quantiser finds."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from in_format import pictures, right_answer
from int8_graphs import LABELS, SIZE, answers
from small import small_model
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from edgewise.compress.separate import separate
from edgewise.deploy.onnx import graph_of
from edgewise.deploy.quantize import calibrate
from edgewise.deploy.quantize_model import with_int8_weights
from edgewise.deploy.quantize_observe import in_batches
from edgewise.layers import ConvNorm, Separated
from edgewise.model import Model
from edgewise.network import Network
from edgewise.training.rounding import rounded_weight

NETWORKS = ("mobilenet_v3_small", "efficientnet_lite0")


def model_of(name: str) -> Model:
    """One that other tests trace, too."""
    return small_model(name, LABELS, SIZE)


@cache
def model_and_made(name: str) -> tuple[Model, Model]:
    model = separated_resnet() if name == "resnet18" else model_of(name)
    return model, with_int8_weights(model, pictures(model, 100, 16))


def folded(block: nn.Module) -> nn.Conv2d:
    """Its convolution with the batch norm in it, by PyTorch's own."""
    assert isinstance(block, ConvNorm)
    assert isinstance(block.conv, nn.Conv2d) and isinstance(block.norm, nn.BatchNorm2d)
    return fuse_conv_bn_eval(block.conv, block.norm)


def rounded_to_nearest(network: Network) -> Network:
    """What such a quantiser makes of the weights itself, by PyTorch's own folding and rounding."""
    network = copy.deepcopy(network)
    for block in network.modules():
        if isinstance(block, ConvNorm) and isinstance(block.norm, nn.BatchNorm2d):
            block.conv, block.norm = folded(block), nn.Identity()
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            weight = layer.weight.detach()
            scales = weight.flatten(1).abs().amax(1) / 127
            zeros = torch.zeros(len(scales), dtype=torch.int32)
            whole = torch.fake_quantize_per_channel_affine(weight, scales, zeros, 0, -127, 127)
            layer.weight = nn.Parameter(whole)
    return network


@pytest.mark.parametrize("name", NETWORKS)
def test_a_quantiser_that_scales_by_the_largest_weight_finds_whole_numbers(name: str) -> None:
    model, made = model_and_made(name)
    untouched = model_of(name).network.state_dict()
    assert all(v.equal(untouched[key]) for key, v in model.network.state_dict().items())
    for layer in made.network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            rows = layer.weight.detach().double().flatten(1)
            steps = rows / (rows.abs().amax(1, keepdim=True) / 127)
            assert (steps - steps.round()).abs().max() < 1e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_answers_lose_less_than_by_rounding_to_the_nearest(name: str) -> None:
    model, made = model_and_made(name)
    nearest = Model(rounded_to_nearest(model.network), model.preprocess, model.labels)
    pixels = pictures(model, 0, 16)
    right = right_answer(model, pixels)
    ours, theirs = (np.abs(right_answer(m, pixels) - right).mean() for m in (made, nearest))
    assert ours < 0.7 * theirs < 0.1


def test_a_bias_takes_up_what_the_rounding_moved_the_mean_by() -> None:
    model, made = model_and_made("efficientnet_lite0")
    inputs = model.preprocess.normalise(torch.from_numpy(pictures(model, 100, 16)))
    with torch.no_grad():
        exact, ours = (folded(m.network.stem)(inputs) for m in (model, made))
        nearest = rounded_to_nearest(model.network).stem.conv(inputs)
    moved, unmended = ((some - exact).mean((0, 2, 3)).abs().max() for some in (ours, nearest))
    assert moved < 0.01 * unmended


def separated_resnet() -> Model:
    model = model_of("resnet18")
    images = model.preprocess.normalise(torch.from_numpy(pictures(model, 100, 16)))
    network, _ = separate(model.network, images, rank=3)
    return replace(model, network=network)


def test_a_separated_convolution_adds_its_bias_once() -> None:
    model, made = model_and_made("resnet18")
    biases = [m.pointwise.bias for m in model.network.modules() if isinstance(m, Separated)]
    assert min(float(bias.detach().abs().max()) for bias in biases) > 0.01
    seen, pixels = pictures(model, 100, 16), pictures(model, 0, 16)
    in_int8 = answers(calibrate(graph_of(model), in_batches(seen)).quantized(), pixels)
    right = right_answer(model, pixels)
    ours, graphs = (np.abs(a - right).mean() for a in (right_answer(made, pixels), in_int8))
    assert ours < 1.2 * graphs < 0.05  # whose maps are rounded, too


def mean_of(module: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Of each channel that it gives, before an activation."""
    given = module.norm(module.conv(inputs)) if isinstance(module, ConvNorm) else module(inputs)
    return given.mean((0, 2, 3))


# A module of the network, and the convolution in it that has neither bias nor norm.
PARTS = {
    "attention's queries": ("mobilenet_v4_hybrid_medium", "query", "query"),
    "keys of a smaller map": ("mobilenet_v4_hybrid_medium", "key", "key.1"),
    "values": ("mobilenet_v4_hybrid_medium", "value", "value.1"),
    "attention's output": ("mobilenet_v4_hybrid_medium", "project", "project"),
    "separated": ("resnet18", "", "conv.depthwise"),
}


@pytest.mark.parametrize(("name", "part", "last"), PARTS.values(), ids=PARTS)
def test_a_convolution_without_bias_and_norm_gets_the_bias_that_it_was_rounded_for(
    name: str, part: str, last: str
) -> None:
    model, made = model_and_made(name)
    block = next(
        path.removesuffix(f".{last}")
        for path, module in model.network.named_modules()
        if path.endswith(f".{last}") and isinstance(module, nn.Conv2d) and module.bias is None
    )
    where = f"{block}.{part}".removesuffix(".")
    exact, ours = (m.network.get_submodule(where) for m in (model, made))
    inputs: list[torch.Tensor] = []
    hook = exact.register_forward_pre_hook(lambda _module, given: inputs.append(given[0].clone()))
    with torch.no_grad():
        model.network(model.preprocess.normalise(torch.from_numpy(pictures(model, 100, 16))))
        hook.remove()
        without = copy.deepcopy(ours)
        rounded = without.get_submodule(last.removeprefix(part).removeprefix("."))
        assert isinstance(rounded, nn.Conv2d) and rounded.bias is not None
        rounded.bias.zero_()
        wanted, found, plain = (mean_of(m, inputs[0]) for m in (exact, ours, without))
    assert (found - wanted).abs().max() < 0.01 * (plain - wanted).abs().max()


def test_what_was_learned_in_int8_stays() -> None:
    model = model_of("mobilenet_v3_small")
    names = [n for n, m in model.network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    learned = replace(model, int8_ranges=dict.fromkeys(names, (0.0, 1.0)))
    made = with_int8_weights(learned, pictures(model, 100, 1))
    weight = made.network.get_submodule(names[0]).weight
    assert weight.equal(rounded_weight(model.network.get_submodule(names[0]).weight))
