"""The optimisers: TensorFlow's RMSProp against timm's and by hand, and who gets weight decay."""

from __future__ import annotations

import copy

import pytest
import torch
from oracles import import_timm
from torch import nn

from edgewise.training.optimizer import RmsPropTf, make_optimizer
from edgewise.training.recipe import Recipe


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))


def learn(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 5) -> None:
    torch.manual_seed(1)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * (step + 1)  # a schedule, as in training
        optimizer.zero_grad()
        module(torch.randn(2, 3, 4, 4)).square().sum().backward()
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
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-7)


def test_two_steps_of_rmsprop_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = RmsPropTf([weight], lr=0.1, momentum=0.5)
    for _ in range(2):
        weight.grad = torch.tensor([2.0], dtype=torch.float64)
        optimizer.step()
    first = 0.1 * 2 / (0.9 * 1 + 0.1 * 4 + 1e-3) ** 0.5
    second = 0.5 * first + 0.1 * 2 / (0.9 * 1.3 + 0.1 * 4 + 1e-3) ** 0.5
    assert weight.item() == pytest.approx(1 - first - second, rel=1e-12)


@pytest.mark.parametrize("name", ["adamw", "sgd", "rmsprop", "rmsprop-tf"])
def test_each_goes_on_from_its_state_as_if_nothing_had_been(name: str) -> None:
    recipe = Recipe("photos", optimizer=name, lr=0.01)
    whole = network()
    optimizer = make_optimizer(whole, recipe)
    learn(whole, optimizer, 3)
    stopped = copy.deepcopy(whole)
    again = make_optimizer(stopped, recipe)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    learn(whole, optimizer, 3)
    learn(stopped, again, 3)
    for one, other in zip(whole.parameters(), stopped.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["adamw", "sgd", "rmsprop", "rmsprop-tf"])
def test_norms_and_biases_do_not_decay(name: str) -> None:
    module = network()
    optimizer = make_optimizer(module, Recipe("photos", optimizer=name, weight_decay=0.3))
    decays = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    assert [decays[id(p)] for p in module.parameters()] == [0.3, 0, 0, 0, 0.3, 0]
