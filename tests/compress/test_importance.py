"""The criteria, against their definitions."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from all_kinds import images
from torch import Tensor
from torch.nn import functional as F

from edgewise.compress.groups import channel_groups
from edgewise.compress.importance import importance
from edgewise.errors import UsageError
from edgewise.network import Network

NetworkOf = Callable[[str], Network]
Batches = list[tuple[Tensor, Tensor]]


@pytest.mark.parametrize(("criterion", "order"), [("l1", 1), ("l2", 2)])
def test_norms_by_hand(network_of: NetworkOf, criterion: str, order: int) -> None:
    """In NumPy, for the hidden channels of one block of MobileNetV2."""
    network = network_of("mobilenet_v2")
    block = network.get_submodule("stages.2.1")
    expected = 0.0
    for part, axis in (("expand", 0), ("depthwise", 0), ("project", 1)):
        conv, norm = (block.get_submodule(f"{part}.{what}") for what in ("conv", "norm"))
        kernel, scale, variance = (
            tensor.detach().numpy().astype(float)
            for tensor in (conv.weight, norm.weight, norm.running_var)
        )
        folded = kernel * (scale / np.sqrt(variance + norm.eps))[:, None, None, None]
        rows = np.moveaxis(folded, axis, 0).reshape(folded.shape[axis], -1)
        norms = np.linalg.norm(rows, ord=order, axis=1)
        expected = expected + norms / norms.mean()
    scores = importance(network, criterion)["stages.2.1.expand"]
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-5)


def test_the_scale_of_a_kernel_before_batch_norm_says_nothing(network_of: NetworkOf) -> None:
    network = copy.deepcopy(network_of("mobilenet_v2"))
    before = importance(network, "l2")["stages.1.0.expand"]
    layer = network.get_submodule("stages.1.0.expand")
    with torch.no_grad():
        layer.conv.weight[::2] *= 10
        layer.norm.running_mean[::2] *= 10
        layer.norm.running_var[::2] = 100 * (layer.norm.running_var[::2] + layer.norm.eps)
        layer.norm.running_var[::2] -= layer.norm.eps
    torch.testing.assert_close(importance(network, "l2")["stages.1.0.expand"], before)


def test_taylor_is_the_derivative(network: Network) -> None:
    """Each channel grown and shrunk in all its tensors at once: the slope of the loss."""
    network = copy.deepcopy(network).double().eval()
    inputs, labels = images(6).double(), torch.arange(6) % 7
    scores = importance(network, "taylor", [(inputs, labels)])
    groups = {group.name: group for group in channel_groups(network.spec)}
    learned = dict(network.named_parameters())
    step = 1e-7  # small: the kinks of all the activations are near
    for name in list(groups)[:: max(1, len(groups) // 4)]:
        group = groups[name]
        channel = int(scores[name].argmax())
        losses = []
        for factor in (1 + step, 1 - step):
            scaled = {n: p.detach().clone() for n, p in learned.items()}
            for part in group.slices:
                if part.tensor in learned:
                    rows = scaled[part.tensor].movedim(part.dim, 0)
                    rows[channel * part.repeat : (channel + 1) * part.repeat] *= factor
            logits = torch.func.functional_call(network, scaled, (inputs,))
            losses.append(float(F.cross_entropy(logits, labels)))
        slope = (losses[0] - losses[1]) / (2 * step)
        assert float(scores[name][channel]) == pytest.approx(slope**2, rel=1e-3, abs=1e-10)


def test_taylor_is_a_mean_over_batches(network_of: NetworkOf, batches: Batches) -> None:
    network = network_of("resnet18")
    alone = [importance(network, "taylor", [batch]) for batch in batches]
    both = importance(network, "taylor", batches)
    for name, score in both.items():
        torch.testing.assert_close(score, (alone[0][name] + alone[1][name]) / 2)


@pytest.mark.parametrize("criterion", ["l1", "l2", "taylor"])
def test_dead_channels_come_last(network_of: NetworkOf, batches: Batches, criterion: str) -> None:
    network = copy.deepcopy(network_of("mobilenet_v3_small"))
    group = next(g for g in channel_groups(network.spec) if g.name == "stages.2.1.expand")
    dead = [1, 4, 7]
    with torch.no_grad():
        for part in group.slices:
            network.state_dict()[part.tensor].movedim(part.dim, 0)[dead] = 0.0
    scores = importance(network, criterion, batches)[group.name]
    assert scores.isfinite().all()
    assert sorted(scores.argsort()[: len(dead)].tolist()) == dead


def test_random_is_a_draw(network_of: NetworkOf) -> None:
    network = network_of("mobilenet_v2")
    one, same, other = (importance(network, "random", seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)


def test_bad_calls(network_of: NetworkOf) -> None:
    with pytest.raises(UsageError, match="unknown criterion 'l3'"):
        importance(network_of("vgg16"), "l3")
    with pytest.raises(UsageError, match="taylor needs images"):
        importance(network_of("vgg16"), "taylor", [])
