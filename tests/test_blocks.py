"""The blocks by hand: a few channels, exact numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgewise.blocks import Conv2d, DropPath, InvertedResidual, SqueezeExcite, activation
from edgewise.spec import Block


def test_hard_swish_at_the_papers_points() -> None:
    # x * relu6(x + 3) / 6: arXiv 1905.02244, section 5.2.
    x = torch.tensor([-4.0, -3.0, -1.5, 0.0, 1.0, 3.0, 6.0])
    expected = torch.tensor([0.0, 0.0, -0.375, 0.0, 2 / 3, 3.0, 6.0])
    assert torch.allclose(activation("hard_swish")(x.clone()), expected, atol=1e-7)


def test_squeeze_excite_by_hand() -> None:
    # Means 1 and 3; reduce 1*1 + 2*3 - 1 = 6; expand to 3/2 and -3; hard sigmoid 3/4 and 0.
    block = SqueezeExcite(2, 1, act="relu", gate="hard_sigmoid")
    with torch.no_grad():
        block.reduce.weight.copy_(torch.tensor([1.0, 2.0]).view(1, 2, 1, 1))
        block.reduce.bias.fill_(-1.0)
        block.expand.weight.copy_(torch.tensor([0.25, -0.5]).view(2, 1, 1, 1))
        block.expand.bias.zero_()
        x = torch.tensor([[0.0, 2.0], [2.0, 4.0]]).view(1, 2, 1, 2)
        assert torch.equal(block(x), torch.tensor([[0.0, 1.5], [0.0, 0.0]]).view(1, 2, 1, 2))


def test_same_padding_puts_the_odd_line_below_and_right() -> None:
    # TensorFlow's SAME, 3x3 at stride 2 on a side of 4: windows at 0-2 and 2-4, line 4 is zeros.
    conv = Conv2d(1, 1, 3, stride=2)
    nn.init.ones_(conv.weight)
    x = torch.arange(16.0).view(1, 1, 4, 4)
    conv.same = True
    assert conv(x).flatten().tolist() == [45, 39, 66, 50]
    conv.same = False
    assert conv(x).flatten().tolist() == [10, 24, 51, 90]


@pytest.mark.parametrize("side", range(1, 12))
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_both_paddings_give_the_same_shape(side: int, kernel: int) -> None:
    conv = Conv2d(1, 1, kernel, stride=2)
    shapes = set()
    for same in (False, True):
        conv.same = same
        shapes.add(conv(torch.zeros(1, 1, side, side)).shape)
    assert shapes == {(1, 1, -(-side // 2), -(-side // 2))}


def test_drop_path_drops_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    dropped = DropPath(0.25).train()(torch.ones(20_000, 2, 1, 1))
    kept = dropped[dropped.sum((1, 2, 3)) > 0]
    assert torch.equal(kept, torch.full_like(kept, 4 / 3))
    assert abs(len(kept) / 20_000 - 0.75) < 0.02  # six standard deviations
    assert torch.equal(DropPath(0.25).eval()(kept), kept)


def test_a_separable_convolution_costs_what_the_paper_says() -> None:
    # 3 -> 64 channels, 3x3: 9 * 3 + 3 * 64 weights, and two scales and shifts.
    block = Block(
        kernel=3, expand=0, out=64, stride=1, squeeze=0, act="relu6", linear=False, skip=False
    )
    module = InvertedResidual(3, block)
    assert sum(p.numel() for p in module.parameters()) == 27 + 2 * 3 + 192 + 2 * 64
