"""The learning rate against torch's schedulers, the moving average against torch's and by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    LRScheduler,
    SequentialLR,
    StepLR,
)
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from edgewise.training.ema import moving_average
from edgewise.training.schedule import Schedule


@pytest.mark.parametrize(("warmup", "total"), [(4, 20), (1, 7), (30, 100)])
def test_learning_rate_is_torchs_warm_up_and_cosine(warmup: int, total: int) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    rise = LinearLR(optimizer, start_factor=1 / warmup, total_iters=max(warmup - 1, 1))
    fall = CosineAnnealingLR(optimizer, T_max=total - warmup)
    scheduler = SequentialLR(optimizer, [rise, fall], milestones=[warmup])
    schedule = Schedule("cosine", 0.3, warmup, total)
    for step in range(total):
        expected = optimizer.param_groups[0]["lr"]
        assert schedule.learning_rate(step) == pytest.approx(expected)
        optimizer.step()
        scheduler.step()


def test_learning_rate_without_warm_up_starts_at_the_peak() -> None:
    rates = [Schedule("cosine", 1.0, 0, 4).learning_rate(step) for step in range(4)]
    # (1 + cos(k pi / 4)) / 2, from cos(pi / 4) = sqrt(1 / 2)
    assert rates == pytest.approx([1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2])


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("exponential", lambda optimizer: ExponentialLR(optimizer, 0.5 ** (1 / 3))),
        ("step", lambda optimizer: StepLR(optimizer, 3, 0.5)),
        ("constant", lambda optimizer: StepLR(optimizer, 100)),
    ],
)
def test_falling_rates_are_torchs(kind: str, make: Callable[[Optimizer], LRScheduler]) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = make(optimizer)
    schedule = Schedule(kind, 0.3, 0, 12, rate=0.5, interval=3)
    for step in range(12):
        assert schedule.learning_rate(step) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()


def test_efficientnets_rate_as_its_paper_says() -> None:
    """0.256, falling by 0.97 every 2.4 epochs, after 5 of warm-up (arXiv 1905.11946, section 5)."""
    steps = 10  # an epoch
    schedule = Schedule("step", 0.256, 5 * steps, 350 * steps, 0.97, 2.4 * steps)
    assert schedule.learning_rate(0) == pytest.approx(0.256 / 50)
    assert schedule.learning_rate(5 * steps) == pytest.approx(0.256 * 0.97**2)
    assert schedule.learning_rate(24 * steps - 1) == pytest.approx(0.256 * 0.97**9)
    assert schedule.learning_rate(24 * steps) == pytest.approx(0.256 * 0.97**10)


def test_first_averages_are_the_hand_worked_ones() -> None:
    network = nn.Linear(1, 1, bias=False)
    average = moving_average(network, decay=0.999)
    seen = []
    for value in (1.0, 12.0, 13.0):
        nn.init.constant_(network.weight, value)
        average.update_parameters(network)
        seen.append(average.module.weight.item())
    # Decays: none yet (a copy), (1 + 1) / (10 + 1) = 2/11, (1 + 2) / (10 + 2) = 1/4.
    second = 2 / 11 * 1 + 9 / 11 * 12
    assert seen == pytest.approx([1, second, second / 4 + 3 / 4 * 13])


def test_late_averages_are_torchs_and_statistics_are_in_them() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    ours = moving_average(network, decay=0.9)
    theirs = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    for average in (ours, theirs):
        average.update_parameters(network)
        average.n_averaged.fill_(1000)  # (1 + t) / (10 + t) is above 0.9 from t = 80 on
    for seed in range(3):
        torch.manual_seed(seed)
        nn.init.normal_(network[0].weight)
        network(torch.randn(2, 3, 8, 8))
        for average in (ours, theirs):
            average.update_parameters(network)
    assert ours.module[1].running_mean.abs().max() > 0
    for name, tensor in ours.module.state_dict().items():
        if tensor.is_floating_point():
            assert torch.equal(tensor, theirs.module.state_dict()[name]), name
    assert ours.module[1].num_batches_tracked == network[1].num_batches_tracked == 3


def test_average_does_not_share_the_network() -> None:
    network = nn.Linear(2, 2)
    average = moving_average(network, decay=0.9)
    before = copy.deepcopy(average.module.state_dict())
    nn.init.zeros_(network.weight)
    assert torch.equal(average.module.weight, before["weight"])
