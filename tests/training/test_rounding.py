"""Rounding in training: against NumPy by hand, and what it must leave alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgewise.deploy.export import export
from edgewise.deploy.verify import verify
from edgewise.errors import UsageError
from edgewise.families import variant
from edgewise.layers import Conv2d, Linear
from edgewise.network import build
from edgewise.training import rounding
from edgewise.training.evaluate import evaluate
from edgewise.training.history import kept_epoch, read_history
from edgewise.training.interrupt import Stopped
from edgewise.training.loop import train
from edgewise.training.recipe import Recipe
from edgewise.training.rounding import (
    HIGH,
    LOW,
    learned_ranges,
    round_network,
    rounded_weight,
    unrounded,
)
from edgewise.weights.folder import load_model


def by_hand(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Float64: to the nearest of 256 levels, the zero among them."""
    scale = (high - low) / 255
    zero = np.round(-low / scale)
    return (np.clip(np.round(values / scale) + zero, 0, 255) - zero) * scale


def scale_by_hand(weight: np.ndarray) -> float:
    """Of one output's weights (I, ...): none over 127, no two that meet in 16 bits over 128."""
    meet = [(weight[i], weight[i + 1]) for i in range(0, len(weight) - 1, 2)]
    if len(weight) % 2:  # then some processors count on, place by place
        flat = np.moveaxis(weight, 0, -1).ravel()
        meet += [(flat[i], flat[i + 1]) for i in range(0, len(flat) - 1, 2)]
    return max(np.abs(weight).max() / 127, *(np.abs(one + two).max() / 128 for one, two in meet))


@pytest.mark.parametrize("layer", [Conv2d(3, 5, 3, bias=True), Conv2d(4, 5, 3), Linear(7, 5)])
def test_a_layer_rounds_its_input_and_its_weights(layer: nn.Module) -> None:
    torch.manual_seed(0)
    plain = copy.deepcopy(layer)
    round_network(layer)
    shape = (4, layer.in_channels, 6, 6) if isinstance(layer, nn.Conv2d) else (4, 7)
    x = torch.randn(shape)
    answer = layer(x)
    low, high = float(x.min()), float(x.max())
    assert (float(layer.get_buffer(LOW)), float(layer.get_buffer(HIGH))) == (
        pytest.approx(low), pytest.approx(high),
    )  # fmt: skip
    weight = plain.weight.detach().numpy().astype(float)
    scale = np.array([scale_by_hand(own) for own in weight]).reshape(-1, *[1] * (weight.ndim - 1))
    with torch.no_grad():
        plain.weight.copy_(torch.from_numpy(np.round(weight / scale) * scale))
        expected = plain(torch.from_numpy(by_hand(x.numpy().astype(float), low, high)).float())
    assert (answer - expected).abs().max() < 1e-5
    assert (answer - layer.eval()(x)).abs().max() == 0
    assert np.allclose(rounded_weight(layer.weight).detach(), plain.weight.detach(), atol=1e-7)


def test_gradients_pass_as_if_nothing_were_rounded() -> None:
    layer = Linear(3, 2)
    round_network(layer)
    x = torch.randn(8, 3, requires_grad=True)
    layer(x).sum().backward()
    rounded = rounded_weight(layer.weight).detach()
    assert torch.allclose(x.grad, rounded.sum(0).expand(8, 3))
    values = x.detach().numpy().astype(float)
    seen = torch.from_numpy(by_hand(values, min(values.min(), 0), max(values.max(), 0)))
    assert torch.allclose(layer.weight.grad, seen.float().sum(0).expand(2, 3), atol=1e-5)


@pytest.mark.parametrize("scales", [0.25, [0.25, 0.3, 1e-12]])
def test_a_device_without_torchs_rounding_rounds_alike(
    scales: float | list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Apple's: at the ends, and between two steps that are as near."""
    random = torch.Generator().manual_seed(0)
    x = torch.cat([torch.arange(-80, 80) / 8, 4 * torch.randn(160, generator=random)]).repeat(3, 1)
    weight, scale = torch.randn(x.shape, generator=random), torch.tensor(scales)
    zero = torch.full(scale.shape, 3, dtype=torch.int32)

    def answer_and_gradient() -> tuple[torch.Tensor, torch.Tensor]:
        leaf = x.clone().requires_grad_()
        answer = rounding._rounded(leaf, scale, zero, -20, 20)
        (gradient,) = torch.autograd.grad((answer * weight).sum(), leaf)
        return answer, gradient

    expected = answer_and_gradient()
    monkeypatch.setattr(rounding, "ROUNDING", ())
    found = answer_and_gradient()
    assert 0 < int((found[1] == 0).sum()) < x.numel()
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_a_layer_on_such_a_device_learns_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer, x = Conv2d(3, 5, 3), torch.randn(2, 3, 6, 6)
    other = copy.deepcopy(layer)
    for each in (layer, other):
        round_network(each)
    layer(x).square().sum().backward()
    monkeypatch.setattr(torch, "fake_quantize_per_tensor_affine", None)
    monkeypatch.setattr(torch, "fake_quantize_per_channel_affine", None)
    monkeypatch.setattr(rounding, "ROUNDING", ())
    other(x).square().sum().backward()
    assert torch.equal(other.weight.grad, layer.weight.grad)


def test_ranges_are_an_average_and_stand_still_in_evaluation() -> None:
    layer = Linear(1, 1)
    round_network(layer)
    assert torch.equal(layer.eval()(torch.tensor([[0.123]])), layer(torch.tensor([[0.123]])))
    layer.train()
    for high in (1.0, 3.0):
        layer(torch.tensor([[-1.0], [high]]))
    assert float(layer.get_buffer(HIGH)) == pytest.approx(1 + 0.02 * 2)
    layer.eval()(torch.tensor([[100.0]]))
    assert float(layer.get_buffer(HIGH)) == pytest.approx(1 + 0.02 * 2)
    assert float(layer(torch.tensor([[100.0]]))) == pytest.approx(
        float(rounded_weight(layer.weight).detach() * 1.04 + layer.bias.detach()), abs=1e-6
    )


@pytest.mark.parametrize(
    "name", ["mobilenet_v2", "mobilenet_v3_small", "mobilenet_v4_hybrid_medium", "convnext_v2_atto"]
)
def test_a_whole_network_keeps_its_parameters_and_comes_back(name: str) -> None:
    torch.manual_seed(0)
    network = build(variant(name).spec(width=0.5, classes=4)).eval()
    names = [key for key, _ in network.named_parameters()]
    x = torch.randn(2, 3, 64, 64)
    expected = network(x)
    assert unrounded(network) is network
    round_network(network)
    round_network(network)  # once is enough
    assert learned_ranges(network) == {}  # nothing was seen
    assert [key for key, _ in network.named_parameters()] == names
    network.train()(x)
    rounded = network.eval()(x)
    assert (rounded - expected).abs().max() > 0
    again = copy.deepcopy(network)
    again.load_state_dict(network.state_dict())
    assert torch.equal(again(x), rounded)
    network.train()(x).sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    plain = unrounded(network)
    assert plain.state_dict().keys() == build(network.spec).state_dict().keys()
    assert {type(module) for module in plain.modules()} == {
        type(module) for module in build(network.spec).modules()
    }


def test_what_epochs_are_judged_by_is_what_eval_says_and_the_file_answers(
    recipe: Recipe, tmp_path: Path
) -> None:
    learns = replace(recipe, qat=True, epochs=24, lr=5e-3, ema_decay=0.9, policy="none")
    run = train(replace(learns, crop_scale=0.9), tmp_path / "run")
    said = kept_epoch(read_history(run)).val_accuracy
    assert evaluate(run, "val").top1 == said > 0.8
    for precision in ("fp32", "int8"):
        export(run.root, "onnx", precision)
    full, seen = verify(run).artifacts  # the former is held to the same network without rounding
    assert (full.status, seen.status) == ("passed", "passed")
    assert (seen.accuracy_model, seen.accuracy, seen.agreement) == (said, said, 1.0)


def test_a_run_keeps_a_plain_model_and_is_resumed_to_the_bit(
    recipe: Recipe, tmp_path: Path, stop_at: Callable[[int], None]
) -> None:
    recipe = replace(recipe, qat=True, epochs=2)
    whole = train(recipe, tmp_path / "whole")
    kept = load_model(whole.model).network
    assert not any("int8" in key for key in kept.state_dict())
    stop_at(7)  # in the second epoch
    with pytest.raises(Stopped):
        train(recipe, tmp_path / "stopped")
    resumed = train(recipe, tmp_path / "stopped", resume=True)
    assert resumed.weights.read_bytes() == whole.weights.read_bytes()
    with pytest.raises(UsageError, match="leave precision out"):
        train(replace(recipe, precision="bf16"), tmp_path / "half")
