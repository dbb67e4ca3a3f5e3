"""What is seen of a network's maps, held to its own convolutions and to a search of all ranges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from int8_graphs import exported
from torch import nn

from edgewise.deploy.quantize import range_of
from edgewise.deploy.quantize_layers import layers_of
from edgewise.deploy.quantize_observe import Moments, observe


def test_a_range_moves_its_values_hardly_more_than_the_best_of_many() -> None:
    random = np.random.default_rng(0)
    values = np.maximum(random.laplace(-0.5, 0.5, 20_000), -1).astype(np.float32)
    x = torch.from_numpy(values)

    def error(low: float, high: float) -> float:
        scale = (high - low) / 255
        zero = round(-low / scale)
        moved = torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, 255)
        return float((moved - x).square().sum())

    found = range_of(values)
    low = -float(found.zero) * float(found.scale)
    ours = error(low, low + 255 * float(found.scale))
    lows, highs = np.linspace(-1.0, -0.3, 15), np.linspace(0.5, float(values.max()), 40)
    best = min(error(low, high) for low in lows for high in highs)
    assert ours < 1.2 * best
    assert ours < 0.8 * error(float(values.min()), float(values.max()))


def test_a_range_holds_zero_exactly_and_a_map_of_zeros_has_one() -> None:
    found = range_of(np.float32([3.0, 5.0, 7.0]))
    assert (found.scale, found.zero) == (pytest.approx(7 / 255, rel=0.05), 0)
    assert range_of(np.zeros(10, np.float32)).zero == 0
    assert range_of(np.float32([-2.0, -1.0])).zero == 255


def test_moments_are_those_of_the_sums() -> None:
    """A convolution's squared outputs average to w M wᵀ, its outputs to w m."""
    torch.manual_seed(0)
    x = torch.randn(3, 6, 9, 9) + 0.5
    for groups, kernel, stride in ((1, 3, 2), (6, 5, 1), (1, 1, 1), (2, 3, 1)):
        conv = nn.Conv2d(6, 12, kernel, stride, kernel // 2, groups=groups, bias=False)
        proto = exported(conv, x)
        (layer,) = layers_of(proto)
        moments: Moments = observe(proto, [layer], [layer], [x[:2].numpy(), x[2:].numpy()]).moments[
            layer.name
        ]
        with torch.no_grad():
            y = conv(x).transpose(0, 1).reshape(12, -1).double()
        w = torch.from_numpy(layer.rows).double().reshape(groups, 12 // groups, -1)
        squares = torch.einsum("goi,gij,goj->go", w, moments.second, w).reshape(-1)
        assert torch.allclose(squares, y.square().mean(1), rtol=1e-4)
        means = torch.einsum("goi,gi->go", w, moments.first).reshape(-1)
        assert torch.allclose(means, y.mean(1), atol=1e-5)
