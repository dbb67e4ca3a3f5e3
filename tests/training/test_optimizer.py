"""The optimisers: TensorFlow's RMSProp against timm's and by hand; rates by depth."""

from __future__ import annotations

import copy

import pytest
import torch
from oracles import import_timm
from torch import nn

from edgewise.network import Network
from edgewise.training.optimizer import RmsPropTf, make_optimizer, set_rate
from edgewise.training.recipe import Recipe
from edgewise.weights.create import create_model


def network() -> Network:
    torch.manual_seed(0)
    return create_model("tiny", 5, drop_path=0.0)


def learn(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 5) -> None:
    torch.manual_seed(1)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.002 * (step + 1)  # a schedule, as in training
        optimizer.zero_grad()
        module(torch.randn(4, 3, 32, 32)).square().sum().backward()
        optimizer.step()


def test_rmsprop_is_timms() -> None:
    import_timm()
    from timm.optim.rmsprop_tf import RMSpropTF

    ours, theirs = network(), network()
    recipe = Recipe("photos", optimizer="rmsprop-tf", weight_decay=0.01)
    optimizer = make_optimizer(ours, recipe)
    groups = [
        {"params": [p for p in theirs.parameters() if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in theirs.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    learn(ours, optimizer)
    learn(theirs, RMSpropTF(groups, alpha=0.9, eps=1e-3, momentum=0.9))
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def test_two_steps_of_rmsprop_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = RmsPropTf([weight], lr=0.1, momentum=0.5)
    for _ in range(2):
        weight.grad = torch.tensor([2.0], dtype=torch.float64)
        optimizer.step()
    first = 0.1 * 2 / (0.9 * 1 + 0.1 * 4 + 1e-3) ** 0.5
    second = 0.5 * first + 0.1 * 2 / (0.9 * 1.3 + 0.1 * 4 + 1e-3) ** 0.5
    assert weight.item() == pytest.approx(1 - first - second, rel=1e-12)


@pytest.mark.parametrize("decay", [1.0, 0.8])
@pytest.mark.parametrize("name", ["adamw", "sgd", "rmsprop", "rmsprop-tf"])
def test_each_goes_on_from_its_state_as_if_nothing_had_been(name: str, decay: float) -> None:
    recipe = Recipe("photos", optimizer=name, lr=0.01, layer_decay=decay)
    whole = network()
    optimizer = make_optimizer(whole, recipe)
    learn(whole, optimizer, 2)
    stopped = copy.deepcopy(whole)
    again = make_optimizer(stopped, recipe)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    learn(whole, optimizer, 2)
    learn(stopped, again, 2)
    for one, other in zip(whole.parameters(), stopped.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("decay", [1.0, 0.5])
@pytest.mark.parametrize("name", ["adamw", "sgd", "rmsprop", "rmsprop-tf"])
def test_rates_fall_with_depth_and_norms_do_not_decay(name: str, decay: float) -> None:
    module = network()
    recipe = Recipe("photos", optimizer=name, weight_decay=0.3, layer_decay=decay)
    optimizer = make_optimizer(module, recipe)
    set_rate(optimizer, 0.01)
    seen = {
        id(p): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    blocks = [f"stages.{s}.{b}." for s, x in enumerate(module.stages) for b in range(len(x))]
    order = ["stem.", *blocks, "head."]
    for part, prefix in enumerate(order):
        inside = {n: p for n, p in module.named_parameters() if n.startswith(prefix)}
        assert inside
        for parameter in inside.values():
            rate, weight_decay = seen.pop(id(parameter))
            assert rate == pytest.approx(0.01 * decay ** (len(order) - 1 - part))
            assert weight_decay == (0.3 if parameter.ndim > 1 else 0)
    assert not seen
